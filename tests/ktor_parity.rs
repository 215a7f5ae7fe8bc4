//! Ktor's behaviour row by row: where each of the 105 rows of the map is tested, or left out and why.

use std::fs;
use std::path::Path;

use Status::{NotDone, Test};

enum Status {
    /// `file::function`; the file under `tests/`, or a path from the crate's root.
    Test(&'static str),
    /// Left out, for this reason.
    NotDone(&'static str),
}

/// The number of rows in the map.
const LAST_ROW: u8 = 105;

#[rustfmt::skip]
const ROWS: &[(u8, Status)] = &[
    // Installation and options.
    (1, Test("sessions::missing_install_is_named")),
    (2, Test("src/core/tests.rs::a_day_of_pings")),
    (3, Test("src/core/tests.rs::a_ping_without_pong_ends_the_session_in_bounded_time")),
    (4, Test("acceptance::a2_fragmented_over_the_limit")),
    (5, Test("sessions::masked_frames_carry_the_bit_and_differing_keys")),
    (6, Test("json::a17_values_and_null_make_the_round_trip")),
    (7, Test("extensions::every_line_and_every_offer_is_tried_in_the_clients_order")),
    (8, Test("src/core/tests/reach.rs::close_ends_the_session_with_1013")),
    (9, NotDone("a JVM system property; outbox_bytes is the option")),
    (10, Test("sessions::runtime_options_change_one_session")),
    (11, Test("sessions::route_options_override_installed_ones")),
    // Routing and handshake.
    (12, Test("acceptance::a9_answers_to_what_is_no_session")),
    (13, Test("src/domain/route_table.rs::requests_get_the_route_that_ktor_would_give")),
    (14, Test("raw::every_frame_is_handed_over_and_nothing_is_answered")),
    (15, Test("src/domain/route_table.rs::requests_get_the_route_that_ktor_would_give")),
    (16, Test("http::route_priority_over_a_socket")),
    (17, Test("http::get_and_head_share_a_connection")),
    (18, Test("http::origins_are_checked")),
    (19, Test("src/protocol/handshake.rs::what_is_accepted")),
    (20, Test("http::subprotocol_is_negotiated")),
    (21, Test("http::subprotocol_is_negotiated")),
    (22, Test("http::every_refusal_has_a_length_and_a_text")),
    (23, Test("src/protocol/handshake.rs::what_is_refused")),
    (24, Test("src/protocol/handshake.rs::the_handshake_of_the_rfc")),
    (25, Test("http::pipelined_frame_behind_the_upgrade")),
    (26, Test("src/protocol/head.rs::heads_that_are_refused")),
    (27, NotDone("HTTP/2 and HTTP/3 are out of scope")),
    (28, Test("http::upgrade_hook_rejects_and_adds_headers")),
    (29, NotDone("on_upgrade covers it; a second way to upgrade would be one too many")),
    // The session inside the handler.
    (30, Test("sessions::closures_and_trait_hooks_run_in_order")),
    (31, Test("acceptance::a12_reason_and_ping_sizes")),
    (32, Test("acceptance::a11_the_peer_vanishes")),
    (33, Test("src/core/tests/reach.rs::block_reports_and_drain_says_when_to_go_on")),
    (34, Test("sessions::send_after_close_is_refused")),
    (35, Test("sessions::handler_error_closes_1011")),
    (36, Test("sessions::abort_resets")),
    (37, Test("sessions::close_info_is_the_same_in_on_error_and_on_close")),
    (38, Test("extensions::raw_sessions_agree_where_they_are_told_to_and_see_what_they_agreed_on")),
    (39, Test("src/domain/call.rs::everything_in_a_request_can_be_asked_for")),
    (40, Test("src/core/tests/reach.rs::a_session_sends_to_another_and_closes_it")),
    (41, Test("src/core/tests/reach.rs::timers_of_a_session_fire_in_order_and_can_be_taken_back")),
    (42, Test("acceptance::a1_text_and_close")),
    // Frames.
    (43, Test("src/protocol/frame.rs::writing_agrees_with_the_codec")),
    (44, Test("raw::every_frame_is_handed_over_and_nothing_is_answered")),
    (45, Test("acceptance::a15_strictness")),
    (46, Test("src/core/tests.rs::any_chunking_gives_the_same_echoes")),
    (47, Test("src/protocol/close.rs::what_may_stand_in_a_close")),
    (48, Test("sessions::fragments_can_be_sent")),
    (49, Test("src/core/tests.rs::any_chunking_gives_the_same_echoes")),
    (50, Test("src/core/tests.rs::fragments_out_of_order_end_with_1002")),
    // Serialization.
    (51, Test("json::a17_values_and_null_make_the_round_trip")),
    (52, Test("json::bad_data_is_1007_and_says_where")),
    (53, Test("json::a17_a_binary_message_is_the_wrong_kind")),
    (54, Test("json::a_route_may_have_a_converter_of_its_own")),
    // Ping and pong.
    (55, Test("acceptance::a3_ping_and_pong_keep_it_open")),
    (56, Test("sessions::ping_timeout_closes_1011")),
    (57, Test("src/core/tests.rs::pongs_overtake_queued_data")),
    (58, Test("sessions::rtt_is_measured")),
    (59, Test("logging::each_target_says_what_it_promises_at_its_level")),
    // Close codes and the life cycle.
    (60, Test("src/words/close.rs::codes_that_may_be_sent")),
    (61, Test("acceptance::a4_server_closes_first")),
    (62, Test("raw::a_close_is_the_handlers_to_answer_and_then_the_session_ends")),
    (63, Test("sessions::handler_error_closes_1011")),
    (64, Test("sessions::send_after_close_is_refused")),
    (65, Test("acceptance::a13_a_reason_in_cyrillic")),
    (66, Test("acceptance::a5_empty_close")),
    (67, Test("acceptance::a15_strictness")),
    (68, Test("src/protocol/close.rs::what_may_stand_in_a_close")),
    (69, Test("src/core/tests.rs::a_peer_that_does_not_answer_our_close_is_dropped")),
    (70, Test("src/core/tests.rs::a_clean_close_is_gone_with_the_peers_end")),
    (71, Test("acceptance::a11_the_peer_vanishes")),
    (72, Test("acceptance::a11_the_peer_vanishes")),
    (73, Test("src/core/tests.rs::a_gibibyte_is_refused_by_its_header")),
    (74, Test("acceptance::a2_fragmented_over_the_limit")),
    (75, Test("src/protocol/frame.rs::every_fault_is_said_at_the_byte_that_shows_it")),
    (76, Test("sessions::lenient_switches_let_through_what_ktor_lets_through")),
    (77, Test("deflate::corrupt_data_is_1007_and_so_is_text_that_is_not_utf8")),
    (78, Test("extensions::a_failure_while_sending_ends_with_the_extensions_code_and_on_close")),
    (79, Test("src/core/tests.rs::what_was_sent_before_the_close_arrives_at_a_slow_reader")),
    (80, Test("sessions::shutdown_says_1001_to_everyone")),
    // Extensions and deflate.
    (81, Test("extensions::rsv3_can_be_claimed_and_is_the_only_bit_that_its_owner_sets")),
    (82, Test("extensions::what_is_encoded_last_is_decoded_first")),
    (83, Test("extensions::two_claims_on_one_bit_are_refused_at_start_up_by_name")),
    (84, Test("extensions::every_line_and_every_offer_is_tried_in_the_clients_order")),
    (85, Test("deflate::the_first_offer_that_can_be_met_is_agreed_on")),
    (86, Test("src/protocol/extension/deflate/offer.rs::settings_are_refused_by_name")),
    (87, Test("src/protocol/extension/deflate/offer.rs::the_servers_options_hold_whatever_is_offered")),
    (88, Test("deflate::the_limit_is_that_of_the_inflated_message")),
    (89, Test("deflate::conditions_say_what_is_compressed_and_nothing_gets_larger")),
    (90, NotDone("edits the offer of a client; this is a server")),
    (91, Test("deflate::an_offer_that_cannot_be_met_leaves_the_session_uncompressed")),
    (92, Test("deflate::what_is_sent_in_fragments_is_one_compressed_message")),
    (93, Test("deflate::a_final_block_breaks_nothing")),
    (94, Test("src/protocol/extension/deflate/stream.rs::between_messages_one_inflater_is_kept")),
    // Broadcast.
    (95, Test("src/core/tests/flows.rs::everybody_gets_everything_in_order_and_the_publisher_too")),
    (96, Test("pacing::a_publisher_is_held_up_by_the_slowest_and_goes_on_with_nothing_lost_or_reordered")),
    (97, Test("examples::chat_tells_both_clients_both_messages_in_order")),
    // Server, engine, shutdown, tests, native.
    (98, Test("sessions::several_listeners_and_ipv6")),
    (99, NotDone("one thread by design")),
    (100, Test("src/core/tests.rs::between_requests_silence_is_no_fault")),
    (101, Test("examples::sigterm_with_a_thousand_clients_ends_within_a_second_of_the_last_answer")),
    (102, Test("test_kit::answers_and_sessions")),
    (103, NotDone("there is one code path on every target")),
    (104, NotDone("TLS belongs to a proxy in front; the README has a configuration")),
    (105, Test("statistics::traffic_is_told_in_figures")),
];

/// Where this server, Ktor, the RFCs and common sense disagree: what it does, and the test of it.
#[rustfmt::skip]
const BEHAVIOUR: &[(&str, Status)] = &[
    ("unmasked client frame: 1002", Test("acceptance::a15_strictness")),
    ("reserved bit without an owner: 1002", Test("acceptance::a15_strictness")),
    ("accept_unmasked_frames and lenient_rsv, for parity", Test("sessions::lenient_switches_let_through_what_ktor_lets_through")),
    ("invalid UTF-8: 1007, as soon as it is seen", Test("hostile::a_bad_utf8_byte_ends_a_frame_that_is_not_complete")),
    ("frame over the limit: 1009 on its header", Test("hostile::who_announces_a_gibibyte_gets_1009_at_once")),
    ("message over the limit: 1009", Test("acceptance::a2_fragmented_over_the_limit")),
    ("illegal close code, 1-byte close payload: 1002", Test("acceptance::a15_strictness")),
    ("empty Close from the peer: echoed empty", Test("acceptance::a5_empty_close")),
    ("handler returns an error: on_error, 1011, on_close", Test("sessions::handler_error_closes_1011")),
    ("send on a closing session: refused, and no fault", Test("sessions::send_after_close_is_refused")),
    ("Full is a fault", Test("src/core/tests.rs::an_outbox_over_its_limit_ends_with_1013")),
    ("clean close of the peer: on_close alone", Test("acceptance::a1_text_and_close")),
    ("no matching pong in time: 1011, freed though the peer is silent", Test("src/core/tests.rs::a_ping_timeout_with_a_stalled_peer_is_freed_within_the_close_timeout")),
    ("peer gone without Close: 1006, not clean", Test("acceptance::a11_the_peer_vanishes")),
    ("that is not logged as an error", Test("logging::each_target_says_what_it_promises_at_its_level")),
    ("plain GET on a WebSocket route: 426", Test("acceptance::a9_answers_to_what_is_no_session")),
    ("wrong version 426, broken key 400, method 405, path 404", Test("http::every_refusal_has_a_length_and_a_text")),
    ("head too large: 431", Test("http::every_refusal_has_a_length_and_a_text")),
    ("head too slow: 408", Test("src/core/tests.rs::a_slow_head_gets_408_and_silence_ends_without_a_word")),
    ("subprotocol required but not offered: 400, usable afterwards", Test("http::subprotocol_is_negotiated")),
    ("several subprotocols on one path: first registered, then the fallback", Test("http::subprotocol_is_negotiated")),
    ("repeated header lines are merged", Test("src/protocol/handshake.rs::what_is_accepted")),
    ("frame pipelined behind the upgrade: processed", Test("http::pipelined_frame_behind_the_upgrade")),
    ("session paused", Test("pacing::a_paused_session_holds_its_sender_up_and_loses_nothing")),
    ("non-minimal length, top bit set: 1002", Test("src/protocol/frame.rs::every_fault_is_said_at_the_byte_that_shows_it")),
    ("server drains: 503 to requests, 1001 to sessions", Test("sessions::shutdown_says_1001_to_everyone")),
    ("at the deadline: exit", Test("sessions::a_session_that_never_answers_is_cut_at_the_grace")),
    ("max_connections: 503, 16 at most, then accepting pauses", Test("src/core/tests.rs::over_max_connections_there_is_503_and_then_a_pause")),
    ("byte budget reached", Test("src/core/tests.rs::the_byte_budget_of_the_process_ends_who_goes_over_it")),
    ("pending handshakes over the limit: the oldest of the client with most goes", Test("src/core/tests/overload.rs::over_the_pending_handshakes_the_oldest_goes")),
    ("per-address limit, handshake rate: 429", Test("src/core/tests/admission.rs::requests_have_a_rate_for_each_client")),
    ("message rate: reading pauses", Test("src/core/tests/pace.rs::over_the_rate_messages_wait_and_none_is_lost")),
    ("message rate: 1008 if so configured", Test("src/core/tests/pace.rs::if_so_configured_the_rate_ends_the_session")),
    ("out of descriptors: reserve and back-off", Test("examples::descriptors_run_out_and_come_back")),
    ("options per server and route", Test("sessions::route_options_override_installed_ones")),
    ("options per session at run time", Test("sessions::runtime_options_change_one_session")),
];

fn source(place: &str) -> (String, &str) {
    let (file, function) = place.rsplit_once("::").unwrap();
    let path = if file.starts_with("src/") { file.into() } else { format!("tests/{file}.rs") };
    (path, function)
}

#[test]
fn every_row_has_one_entry_and_every_named_test_exists() {
    let numbers: Vec<u8> = ROWS.iter().map(|(number, _)| *number).collect();
    let expected: Vec<u8> = (1..=LAST_ROW).collect();
    assert_eq!(numbers, expected, "rows are missing, unknown or doubled");
    for (number, status) in ROWS {
        check(&format!("row {number}"), status);
    }
}

#[test]
fn every_difference_has_its_test() {
    for (difference, status) in BEHAVIOUR {
        check(difference, status);
    }
}

#[track_caller]
fn check(row: &str, status: &Status) {
    match status {
        Test(place) => {
            let (path, function) = source(place);
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            let text = fs::read_to_string(&path).unwrap_or_default();
            let test = format!("fn {function}(");
            assert!(text.contains(&test), "{row}: no {function} in {}", path.display());
        }
        NotDone(what) => assert!(!what.is_empty(), "{row}: no reason"),
    }
}

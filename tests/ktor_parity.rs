//! Ktor's behaviour row by row: where each of the 105 rows of the map is tested, or left out and why.

use std::fs;
use std::path::Path;

use Status::{NotDone, Tests};

enum Status {
    /// `file::function`, which together show all of it; the file under `tests/`, or a path from the
    /// crate's root.
    Tests(&'static [&'static str]),
    /// Left out, for this reason.
    NotDone(&'static str),
}

/// The number of rows in the map.
const LAST_ROW: u8 = 105;

/// The row's number, what Ktor does there and what happens here, and where that is tested.
#[rustfmt::skip]
const ROWS: &[(u8, &str, Status)] = &[
    // Installation and options.
    (1, "The plugin is installed once, before routes; a missing one is named at start-up, not at a request",
        Tests(&["sessions::missing_install_is_named"])),
    (2, "pingPeriod: off in Ktor, 15 s here; negative or tiny values are refused by name \
        instead of meaning off",
        Tests(&[
            "src/core/tests.rs::a_day_of_pings",
            "src/words/limits.rs::zero_and_absurd_values_are_refused_by_name",
        ])),
    (3, "timeout bounds the wait for a pong alone; other waits have options of their own",
        Tests(&["src/core/tests.rs::a_ping_without_pong_ends_the_session_in_bounded_time"])),
    (4, "maxFrameSize: of a frame by its header, of a message in sum; Ktor leaves what is \
        sent alone, here it is cut",
        Tests(&[
            "ktor_rows::max_frame_size_holds_for_a_frame_for_a_message_and_for_what_is_sent",
            "src/core/tests.rs::a_gibibyte_is_refused_by_its_header",
            "deflate::the_limit_is_that_of_the_inflated_message",
        ])),
    (5, "masking: outgoing frames get a fresh key each, though RFC 6455 forbids it to a server",
        Tests(&["sessions::masked_frames_carry_the_bit_and_differing_keys"])),
    (6, "contentConverter: values to messages and back; without one an error says so",
        Tests(&["json::a17_values_and_null_make_the_round_trip"])),
    (7, "extensions are installed for all; Ktor makes each one's state for every handshake, \
        here only once agreed on",
        Tests(&["ktor_rows::an_extension_has_a_state_only_for_who_agreed_on_it"])),
    (8, "channels: what waits is bounded, with a policy for what does not fit; control frames pass by",
        Tests(&[
            "src/core/tests/reach.rs::close_ends_the_session_with_1013",
            "src/core/tests/reach.rs::block_reports_and_drain_says_when_to_go_on",
            "src/core/tests/reach.rs::drop_newest_keeps_what_waits",
            "src/core/tests/reach.rs::drop_oldest_keeps_the_newest_and_what_has_begun",
            "src/core/tests.rs::pongs_overtake_queued_data",
            "src/core/tests/reach.rs::a_paused_session_is_not_read_but_answers_pings_and_is_read_on_later",
        ])),
    (9, "A JVM system property for the capacity of outgoing",
        NotDone("a JVM system property; outbox_bytes is the option")),
    (10, "Ping period, pong timeout, frame size and masking can be changed for one session while it runs",
        Tests(&["sessions::runtime_options_change_one_session"])),
    (11, "The installed options; in Ktor they are the application's alone, here a route may override them",
        Tests(&["sessions::route_options_override_installed_ones"])),
    // Routing and handshake.
    (12, "webSocket(path): GET with Upgrade and Connection; whatever else comes there has an answer",
        Tests(&["acceptance::a9_answers_to_what_is_no_session"])),
    (13, "webSocket without a path: the path of the scope; in Ktor a POST gets that far, here never",
        Tests(&["src/app/route_table/tests.rs::requests_get_the_route_that_ktor_would_give"])),
    (14, "webSocketRaw: every frame as it is, no pong, no Close, no reassembly",
        Tests(&["raw::every_frame_is_handed_over_and_nothing_is_answered"])),
    (15, "Patterns: constant, {p}, {p?}, *, {...}, {p...}, text around a parameter, slash at \
        the end; no routes by regex",
        Tests(&[
            "src/app/route_table/tests.rs::requests_get_the_route_that_ktor_would_give",
            "src/app/pattern/tests.rs::syntax_of_others_is_refused_with_the_right_form",
            "src/app/pattern/tests.rs::what_only_looks_like_it_stays",
        ])),
    (16, "Priority: constant, text around a parameter, parameter, *, missing optional, tail; \
        ties to the first",
        Tests(&["http::route_priority_over_a_socket"])),
    (17, "A page and a session may share a path: the upgrade decides",
        Tests(&["http::get_and_head_share_a_connection"])),
    (18, "Checks before the upgrade answer as HTTP (401, 403, 429); Ktor has no check of \
        Origin, here it is the default",
        Tests(&[
            "field/origin::only_a_page_of_this_server_may_connect_and_a_device_always",
            "http::origins_are_checked",
            "http::upgrade_hook_rejects_and_adds_headers",
        ])),
    (19, "Connection and Upgrade are lists: any case, several members; Ktor reads the first \
        line alone, here all",
        Tests(&["src/protocol/handshake.rs::what_is_accepted"])),
    (20, "A subprotocol is agreed on letter by letter, and stands in the answer",
        Tests(&["http::subprotocol_is_negotiated"])),
    (21, "Several subprotocols on one path: the first registered that is on offer, else the \
        route without one",
        Tests(&["http::subprotocol_is_negotiated"])),
    (22, "What is no upgrade: 404, 405, 400; here 426 where only sessions are, with what would help",
        Tests(&["http::every_refusal_has_a_length_and_a_text"])),
    (23, "Sec-WebSocket-Version: not read in Ktor; here anything but 13 gets 426",
        Tests(&["src/protocol/handshake.rs::what_is_refused"])),
    (24, "Sec-WebSocket-Key: optional in Ktor; here 16 bytes of base64, and the answer is derived from it",
        Tests(&["src/protocol/handshake.rs::the_handshake_of_the_rfc"])),
    (25, "101 with its headers in order, and headers of hooks; bytes behind the request are its first frames",
        Tests(&["http::pipelined_frame_behind_the_upgrade"])),
    (26, "What cannot be told apart safely is 400, what is too large 431; in Ktor some of it is 500",
        Tests(&["src/protocol/head.rs::heads_that_are_refused"])),
    (27, "HTTP/2 and HTTP/3",
        NotDone("HTTP/2 and HTTP/3 are out of scope")),
    (28, "Who fails before the upgrade gets an answer; Ktor's 500 holds the exception's text, \
        here nothing leaks",
        Tests(&["http::upgrade_hook_rejects_and_adds_headers"])),
    (29, "A public class that upgrades by hand",
        NotDone("on_upgrade covers it; a second way to upgrade would be one too many")),
    // The session inside the handler.
    (30, "send(text), send(bytes): one message each, in order",
        Tests(&["sessions::closures_and_trait_hooks_run_in_order"])),
    (31, "outgoing: in a plain session pings and pongs may be sent too; nothing goes out behind a Close",
        Tests(&[
            "field/origin::pings_of_the_peer_and_the_pong_of_an_own_ping_are_reported_and_so_is_its_code",
            "sessions::send_after_close_is_refused",
            "acceptance::a12_reason_and_ping_sizes",
        ])),
    (32, "incoming: messages alone, never control frames; it ends at a Close as well as at a lost connection",
        Tests(&[
            "acceptance::a1_text_and_close",
            "acceptance::a11_the_peer_vanishes",
            "src/core/tests.rs::any_chunking_gives_the_same_echoes",
        ])),
    (33, "flush: here on_drain, when what waited for a slow peer is written",
        Tests(&["src/core/tests/reach.rs::block_reports_and_drain_says_when_to_go_on"])),
    (34, "close(reason): behind what was sent, the first counts; in Ktor messages go on \
        arriving, here no more",
        Tests(&["sessions::send_after_close_is_refused"])),
    (35, "An error closes with 1011; Ktor shows its text to the peer, here it does not",
        Tests(&["sessions::handler_error_closes_1011"])),
    (36, "cancel: an end without a Close, of which the peer sees a reset",
        Tests(&["sessions::abort_resets"])),
    (37, "closeReason: in Ktor who closes first never sees the peer's answer; here both codes are known",
        Tests(&[
            "field/origin::pings_of_the_peer_and_the_pong_of_an_own_ping_are_reported_and_so_is_its_code",
            "field/origin::a_raw_session_knows_both_codes_too",
            "sessions::close_info_is_the_same_in_on_error_and_on_close",
        ])),
    (38, "extensions and extension(..): what was agreed on, also for raw sessions that ask for it",
        Tests(&["extensions::raw_sessions_agree_where_they_are_told_to_and_see_what_they_agreed_on"])),
    (39, "call: method, uri, path, parameters, headers, cookies, scheme, host and all three addresses",
        Tests(&[
            "ktor_rows::a_session_knows_its_whole_request",
            "src/app/call.rs::everything_in_a_request_can_be_asked_for",
            "field/origin::scheme_and_host_are_known_with_a_proxy_and_without",
        ])),
    (40, "application: a session reaches the server, and through it others",
        Tests(&["src/core/tests/reach.rs::a_session_sends_to_another_and_closes_it"])),
    (41, "The session is a scope of coroutines that end with it: here timers",
        Tests(&["src/core/tests/reach.rs::timers_of_a_session_fire_in_order_and_can_be_taken_back"])),
    (42, "onConnect, onMessage, onError, onClose: first, then, before the last, last and once",
        Tests(&["acceptance::a1_text_and_close"])),
    // Frames.
    (43, "Frame: its kinds, FIN, reserved bits, payload; control frames are short and whole",
        Tests(&["src/protocol/frame.rs::writing_agrees_with_the_codec"])),
    (44, "FrameType: five kinds by their numbers; Ktor has none for a continuation, here it is one of six",
        Tests(&["raw::every_frame_is_handed_over_and_nothing_is_answered"])),
    (45, "readText: in Ktor bytes that are no UTF-8 become U+FFFD, here 1007",
        Tests(&["acceptance::a15_strictness"])),
    (46, "readBytes: a copy in Ktor; here borrowed, however the bytes came in",
        Tests(&["src/core/tests.rs::any_chunking_gives_the_same_echoes"])),
    (47, "readReason: in Ktor any code and any text; here a code that may be sent, and UTF-8",
        Tests(&["src/protocol/close.rs::what_may_stand_in_a_close"])),
    (48, "Fragments may be sent; on native Ktor they are illegal frames",
        Tests(&["sessions::fragments_can_be_sent"])),
    (49, "Fragments that arrive are put together, control frames between them are handled",
        Tests(&["src/core/tests.rs::any_chunking_gives_the_same_echoes"])),
    (50, "A continuation of nothing, or a new message within one, is 1002",
        Tests(&["src/core/tests.rs::fragments_out_of_order_end_with_1002"])),
    // Serialization.
    (51, "sendSerialized: one message for a value, always UTF-8 here",
        Tests(&["json::a17_values_and_null_make_the_round_trip"])),
    (52, "receiveDeserialized: what does not fit is an error that says where; here 1007",
        Tests(&["json::bad_data_is_1007_and_says_where"])),
    (53, "A converter may take text alone, or bytes alone: the wrong kind is 1003 here",
        Tests(&["json::a17_a_binary_message_is_the_wrong_kind"])),
    (54, "A converter of one's own; in Ktor one for all, here one for each route too",
        Tests(&["json::a_route_may_have_a_converter_of_its_own"])),
    // Ping and pong.
    (55, "Pinger: a ping each period, a pong with the same payload within the timeout, then the next",
        Tests(&["acceptance::a3_ping_and_pong_keep_it_open"])),
    (56, "No pong: Close 1011 \"Ping timeout\", and here the end soon after it though the peer is silent",
        Tests(&["sessions::ping_timeout_closes_1011"])),
    (57, "Ponger: each ping is answered with its payload; in Ktor behind the data, here before it",
        Tests(&["src/core/tests.rs::pongs_overtake_queued_data"])),
    (58, "Pongs are invisible in Ktor; here a hook has the round trip, others the payloads",
        Tests(&[
            "sessions::rtt_is_measured",
            "field/origin::pings_of_the_peer_and_the_pong_of_an_own_ping_are_reported_and_so_is_its_code",
        ])),
    (59, "Logging: a session's start and end, every frame at trace; a lost peer is no error here",
        Tests(&["logging::each_target_says_what_it_promises_at_its_level"])),
    // Close codes and the life cycle.
    (60, "Codes: those of RFC 6455 and 3000-4999; in Ktor any number, here none that may not be sent",
        Tests(&["src/words/close.rs::codes_that_may_be_sent"])),
    (61, "The handler returns: Close 1000 without a text; here hooks return and the session \
        stays, until close",
        Tests(&["ktor_rows::a_normal_end_is_1000_without_a_text"])),
    (62, "The handler of a raw session returns: no Close at all; here it answers the peer's, \
        and the session ends",
        Tests(&["raw::a_close_is_the_handlers_to_answer_and_then_the_session_ends"])),
    (63, "The handler throws: in Ktor the connection ends without a Close, here 1011",
        Tests(&["sessions::handler_error_closes_1011"])),
    (64, "The handler fails since the session is closing: no error, and not logged",
        Tests(&["sessions::send_after_close_is_refused"])),
    (65, "Close(code, text) is answered with the same code and text, behind what was sent",
        Tests(&["acceptance::a13_a_reason_in_cyrillic"])),
    (66, "A Close without a code: Ktor answers 1000 OK, here an empty one, told as 1005",
        Tests(&["acceptance::a5_empty_close"])),
    (67, "A Close with 1006: Ktor answers 1000, here 1002",
        Tests(&["ktor_rows::codes_that_may_not_be_sent_are_answered_with_1002"])),
    (68, "A Close with another code that may not be sent (0, 999, 1004, 1005, 1015, 2999): \
        echoed in Ktor, here 1002",
        Tests(&[
            "ktor_rows::codes_that_may_not_be_sent_are_answered_with_1002",
            "src/words/close.rs::codes_that_may_be_sent",
        ])),
    (69, "The server closes first: Ktor waits for ever for the answer, here close_timeout",
        Tests(&["src/core/tests.rs::a_peer_that_does_not_answer_our_close_is_dropped"])),
    (70, "Both Closes are out: Ktor waits for ever for the client to hang up, here linger_timeout",
        Tests(&[
            "ktor_rows::after_both_closes_a_client_that_does_not_hang_up_is_cut_off",
            "src/core/tests.rs::a_clean_close_is_gone_with_the_peers_end",
        ])),
    (71, "The connection ends without a Close: 1006, not clean",
        Tests(&["acceptance::a11_the_peer_vanishes"])),
    (72, "A reset: Ktor drops what was not read yet, here what arrived whole is delivered first",
        Tests(&["ktor_rows::what_arrived_before_a_reset_is_delivered"])),
    (73, "A frame over the limit: 1009 on its header; Ktor reports 1006, here 1009",
        Tests(&["src/core/tests.rs::a_gibibyte_is_refused_by_its_header"])),
    (74, "A message over the limit in fragments: 1009",
        Tests(&["acceptance::a2_fragmented_over_the_limit"])),
    (75, "Opcodes 3-7 and 11-15, a control frame in fragments or of over 125 bytes, bad continuations: 1002",
        Tests(&[
            "ktor_rows::every_violation_is_answered_with_1002",
            "src/protocol/frame.rs::every_fault_is_said_at_the_byte_that_shows_it",
        ])),
    (76, "Missing masks and reserved bits pass in Ktor; here with switches. Odd lengths, bad \
        text and codes never",
        Tests(&["sessions::lenient_switches_let_through_what_ktor_lets_through"])),
    (77, "Corrupt or endless compressed data: Ktor says 1000, here 1007 and 1009",
        Tests(&["deflate::corrupt_data_is_1007_and_so_is_text_that_is_not_utf8"])),
    (78, "An extension fails on the way out: 1011 in Ktor, whose closeReason stays open; here \
        its own code, and on_close",
        Tests(&["extensions::a_failure_while_sending_ends_with_the_extensions_code_and_on_close"])),
    (79, "The Close of a fault may get lost in Ktor; here what was sent and the Close arrive",
        Tests(&["src/core/tests.rs::what_was_sent_before_the_close_arrives_at_a_slow_reader"])),
    (80, "Server stop: see 101; sessions get 1001 here",
        Tests(&["sessions::shutdown_says_1001_to_everyone"])),
    // Extensions and deflate.
    (81, "A factory has a name and claims reserved bits; in Ktor the third one crashes",
        Tests(&["extensions::rsv3_can_be_claimed_and_is_the_only_bit_that_its_owner_sets"])),
    (82, "Extensions encode in order; Ktor decodes in the same order, here in reverse",
        Tests(&["extensions::what_is_encoded_last_is_decoded_first"])),
    (83, "Two that claim one bit: Ktor never notices, here refused at start-up",
        Tests(&["extensions::two_claims_on_one_bit_are_refused_at_start_up_by_name"])),
    (84, "Sec-WebSocket-Extensions: Ktor splits the first line, here all lines with quoted \
        strings, in the client's order",
        Tests(&["extensions::every_line_and_every_offer_is_tried_in_the_clients_order"])),
    (85, "permessage-deflate: on the JVM alone in Ktor, with one size of window",
        Tests(&["deflate::the_first_offer_that_can_be_met_is_agreed_on"])),
    (86, "compressionLevel, and what values it takes",
        Tests(&["src/protocol/extension/deflate/offer.rs::settings_are_refused_by_name"])),
    (87, "NoContextTakeOver: without effect on a Ktor server; here the server's word holds",
        Tests(&["src/protocol/extension/deflate/offer.rs::the_servers_options_hold_whatever_is_offered"])),
    (88, "maxInflatedFrameSize: 256 MiB in Ktor; here max_message_size, of what comes out",
        Tests(&["deflate::the_limit_is_that_of_the_inflated_message"])),
    (89, "compressIf and compressIfBiggerThan: both must hold; nothing gets larger by it",
        Tests(&["deflate::conditions_say_what_is_compressed_and_nothing_gets_larger"])),
    (90, "configureProtocols edits the offer of a client",
        NotDone("edits the offer of a client; this is a server")),
    (91, "Negotiation: Ktor looks at the first offer and fails with 500, here the next is \
        tried, or none agreed on",
        Tests(&["deflate::an_offer_that_cannot_be_met_leaves_the_session_uncompressed"])),
    (92, "Outgoing: one stream a message, flushed and cut; in Ktor each fragment for itself, \
        and empty ones fail",
        Tests(&["deflate::what_is_sent_in_fragments_is_one_compressed_message"])),
    (93, "Incoming: a final block silences Ktor's session, here it breaks nothing",
        Tests(&["deflate::a_final_block_breaks_nothing"])),
    (94, "Memory: an inflater and a deflater for every handshake in Ktor; here one while a message needs it",
        Tests(&["src/protocol/extension/deflate/stream/tests.rs::between_messages_one_inflater_is_kept"])),
    // Broadcast.
    (95, "Broadcast: Ktor has none of its own; here each message is encoded once, for all in order",
        Tests(&["src/core/tests/flows.rs::everybody_gets_everything_in_order_and_the_publisher_too"])),
    (96, "MutableSharedFlow without options: a rendezvous; lost where nobody collects; \
        dropping wants a buffer",
        Tests(&[
            "ktor_rows::a_flow_without_options_is_a_rendezvous",
            "src/core/tests/flows.rs::who_comes_late_gets_the_replay_first",
            "src/core/tests/flows.rs::a_message_is_lost_where_nobody_collects",
            "pacing::a_publisher_is_held_up_by_the_slowest_and_goes_on_with_nothing_lost_or_reordered",
        ])),
    (97, "The sample: what one says all hear, the speaker too, behind a greeting",
        Tests(&["examples::chat_tells_both_clients_both_messages_in_order"])),
    // Server, engine, shutdown, tests, native.
    (98, "Several connectors, port 0, IPv6",
        Tests(&["sessions::several_listeners_and_ipv6"])),
    (99, "Thread groups",
        NotDone("one thread by design")),
    (100, "Idle time-outs of engines: in Ktor for answers alone, here for what is awaited between requests",
        Tests(&["src/core/tests.rs::between_requests_silence_is_no_fault"])),
    (101, "stop(grace, timeout): Ktor's sessions see no Close and cost the whole grace, here \
        the time of the last answer",
        Tests(&["examples::sigterm_with_a_thousand_clients_ends_within_a_second_of_the_last_answer"])),
    (102, "testApplication: in memory, JVM alone; here with a clock that is told",
        Tests(&["test_kit::answers_and_sessions"])),
    (103, "The native server differs from the JVM's",
        NotDone("there is one code path on every target")),
    (104, "TLS",
        NotDone("TLS belongs to a proxy in front; the guide has configurations")),
    (105, "Metrics: none of its own in Ktor",
        Tests(&["statistics::traffic_is_told_in_figures"])),
];

/// Where this server, Ktor, the RFCs and common sense disagree: what it does, and the test of it.
#[rustfmt::skip]
const BEHAVIOUR: &[(&str, Status)] = &[
    ("unmasked client frame: 1002", Tests(&["acceptance::a15_strictness"])),
    ("reserved bit without an owner: 1002", Tests(&["acceptance::a15_strictness"])),
    ("accept_unmasked_frames and lenient_rsv, for parity",
        Tests(&["sessions::lenient_switches_let_through_what_ktor_lets_through"])),
    ("invalid UTF-8: 1007, as soon as it is seen",
        Tests(&["hostile::a_bad_utf8_byte_ends_a_frame_that_is_not_complete"])),
    ("frame over the limit: 1009 on its header",
        Tests(&["hostile::who_announces_a_gibibyte_gets_1009_at_once"])),
    ("message over the limit: 1009", Tests(&["acceptance::a2_fragmented_over_the_limit"])),
    ("illegal close code, 1-byte close payload: 1002",
        Tests(&[
            "ktor_rows::codes_that_may_not_be_sent_are_answered_with_1002",
            "acceptance::a15_strictness",
        ])),
    ("empty Close from the peer: echoed empty", Tests(&["acceptance::a5_empty_close"])),
    ("handler returns an error: on_error, 1011, on_close", Tests(&["sessions::handler_error_closes_1011"])),
    ("send on a closing session: refused, and no fault", Tests(&["sessions::send_after_close_is_refused"])),
    ("TooBig ends nothing",
        Tests(&["field/origin::what_is_sent_has_a_limit_of_its_own_and_to_be_over_it_ends_nothing"])),
    ("a page of somebody else: 403; a device without an Origin passes",
        Tests(&["field/origin::only_a_page_of_this_server_may_connect_and_a_device_always"])),
    ("a foreign name that points here: 403",
        Tests(&["field/origin::a_foreign_name_that_points_at_this_machine_is_refused"])),
    ("one header of a trusted proxy counts",
        Tests(&["field/origin::one_header_counts_whatever_a_client_writes_into_the_others"])),
    ("who is refused has a line in the log",
        Tests(&["refusals::who_is_refused_is_told_why_and_so_is_the_log_once_a_second"])),
    ("Full is a fault", Tests(&["src/core/tests.rs::an_outbox_over_its_limit_ends_with_1013"])),
    ("clean close of the peer: on_close alone", Tests(&["acceptance::a1_text_and_close"])),
    ("no matching pong in time: 1011, freed though the peer is silent",
        Tests(&["src/core/tests.rs::a_ping_timeout_with_a_stalled_peer_is_freed_within_the_close_timeout"])),
    ("peer gone without Close: 1006, not clean", Tests(&["acceptance::a11_the_peer_vanishes"])),
    ("that is not logged as an error", Tests(&["logging::each_target_says_what_it_promises_at_its_level"])),
    ("plain GET on a WebSocket route: 426", Tests(&["acceptance::a9_answers_to_what_is_no_session"])),
    ("wrong version 426, broken key 400, method 405, path 404",
        Tests(&["http::every_refusal_has_a_length_and_a_text"])),
    ("head too large: 431", Tests(&["http::every_refusal_has_a_length_and_a_text"])),
    ("head too slow: 408",
        Tests(&["src/core/tests.rs::a_slow_head_gets_408_and_silence_ends_without_a_word"])),
    ("subprotocol required but not offered: 400, usable afterwards",
        Tests(&["http::subprotocol_is_negotiated"])),
    ("several subprotocols on one path: first registered, then the fallback",
        Tests(&["http::subprotocol_is_negotiated"])),
    ("repeated header lines are merged", Tests(&["src/protocol/handshake.rs::what_is_accepted"])),
    ("frame pipelined behind the upgrade: processed", Tests(&["http::pipelined_frame_behind_the_upgrade"])),
    ("session paused", Tests(&["pacing::a_paused_session_holds_its_sender_up_and_loses_nothing"])),
    ("non-minimal length, top bit set: 1002",
        Tests(&["src/protocol/frame.rs::every_fault_is_said_at_the_byte_that_shows_it"])),
    ("server drains: 503 to requests, 1001 to sessions",
        Tests(&["sessions::shutdown_says_1001_to_everyone"])),
    ("at the deadline: exit", Tests(&["sessions::a_session_that_never_answers_is_cut_at_the_grace"])),
    ("max_connections: 503, 16 at most, then accepting pauses",
        Tests(&["src/core/tests.rs::over_max_connections_there_is_503_and_then_a_pause"])),
    ("memory budget reached",
        Tests(&["src/core/tests.rs::the_memory_budget_ends_who_goes_over_it"])),
    ("pending handshakes over the limit: the oldest of the client with most goes",
        Tests(&["src/core/tests/overload.rs::over_the_pending_handshakes_the_oldest_goes"])),
    ("per-address limit, handshake rate: 429",
        Tests(&["src/core/tests/admission.rs::requests_have_a_rate_for_each_client"])),
    ("message rate: reading pauses",
        Tests(&["src/core/tests/pace.rs::over_the_rate_messages_wait_and_none_is_lost"])),
    ("message rate: 1008 if so configured",
        Tests(&["src/core/tests/pace.rs::if_so_configured_the_rate_ends_the_session"])),
    ("out of descriptors: reserve and back-off", Tests(&["examples::descriptors_run_out_and_come_back"])),
    ("options per server and route", Tests(&["sessions::route_options_override_installed_ones"])),
    ("options per session at run time", Tests(&["sessions::runtime_options_change_one_session"])),
];

fn source(place: &str) -> (String, &str) {
    let (file, function) = place.rsplit_once("::").unwrap();
    let path = if file.starts_with("src/") { file.into() } else { format!("tests/{file}.rs") };
    (path, function)
}

#[test]
fn every_row_has_one_entry_and_every_named_test_exists() {
    let numbers: Vec<u8> = ROWS.iter().map(|(number, ..)| *number).collect();
    let expected: Vec<u8> = (1..=LAST_ROW).collect();
    assert_eq!(numbers, expected, "rows are missing, unknown or doubled");
    for (number, text, status) in ROWS {
        assert!(text.len() > 2, "row {number} says nothing");
        check(&format!("row {number} ({text})"), status);
    }
}

#[test]
fn every_difference_has_its_test() {
    for (difference, status) in BEHAVIOUR {
        check(difference, status);
    }
}

/// Whether a function of that name is there, and a test: an example or a helper shows nothing.
fn is_test(text: &str, function: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else { return false };
    let above = before.rsplit("\n\n").next().unwrap_or_default();
    above.contains("#[test]") || before.contains("proptest! {")
}

#[track_caller]
fn check(row: &str, status: &Status) {
    match status {
        Tests(places) => {
            assert!(!places.is_empty(), "{row}: no test");
            for place in *places {
                let (path, function) = source(place);
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
                let text = fs::read_to_string(&path).unwrap_or_default();
                assert!(
                    is_test(&text, function),
                    "{row}: no test {function} in {}",
                    path.display()
                );
            }
        }
        NotDone(what) => assert!(!what.is_empty(), "{row}: no reason"),
    }
}

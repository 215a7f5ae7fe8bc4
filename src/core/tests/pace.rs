//! The rate of messages in virtual time: pausing, ending, and what goes on meanwhile.

use super::*;
use crate::app::raw_handler::on_frame;
use crate::words::rate::Rate;

fn texts(count: u8) -> Vec<u8> {
    (0..count).flat_map(|n| [0x81, 0x82, 0, 0, 0, 0, b'a' + n / 26, b'a' + n % 26]).collect()
}

/// The texts of unmasked short frames.
fn echoes(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        let (payload, later) = rest.split_at(usize::from(*len));
        if *first == 0x81 {
            all.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        bytes = later;
    }
    all
}

fn paced(rate: Rate) -> Net {
    Net::new(WebSockets::new().message_rate(rate))
}

#[test]
fn over_the_rate_messages_wait_and_none_is_lost() {
    let mut net = paced(Rate::per_second(10).burst(3));
    let client = net.open();
    net.input(client, &texts(50));
    let mut all = echoes(&net.take(client));
    assert_eq!(all.len(), 3);
    for tenth in 1..=47 {
        net.advance(Duration::from_millis(100));
        all.extend(echoes(&net.take(client)));
        // The wheel is at most two ticks late.
        assert!((2 + tenth..=3 + tenth).contains(&all.len()), "{} after {tenth}", all.len());
    }
    net.advance(secs(1));
    all.extend(echoes(&net.take(client)));
    let expected =
        echoes(&texts(50).chunks(8).flat_map(|f| [f[0], 2, f[6], f[7]]).collect::<Vec<_>>());
    assert_eq!(all, expected);
    net.expect(&[]);
    assert!(net.core.stats().rate_pauses >= 47);
}

#[test]
fn a_flood_over_the_rate_is_held_back_at_the_peer() {
    let mut net = paced(Rate::per_second(1));
    let client = net.open();
    let flood = texts(250).repeat(200); // 400 KB
    net.input(client, &flood);
    assert_eq!(echoes(&net.take(client)).len(), 1);
    assert!(net.core.shared.bytes_held <= 128 << 10, "{} held", net.core.shared.bytes_held);
    net.input(client, b"\x89\x80\0\0\0\0"); // behind it all
    net.advance(secs(100));
    assert!((99..=101).contains(&echoes(&net.take(client)).len()));
    net.expect(&[]);
}

#[test]
fn pings_are_answered_while_messages_wait() {
    let rate = Rate::per_minute(1);
    let mut net = Net::new(WebSockets::new().ping_period(None).message_rate(rate));
    let client = net.open();
    net.input(client, &texts(3));
    net.take(client);
    net.input(client, b"\x89\x81\0\0\0\0!");
    assert_eq!(net.take(client), b"\x8a\x01!");
    net.advance(secs(59));
    assert!(net.take(client).is_empty());
    net.advance(secs(2));
    assert_eq!(echoes(&net.take(client)), ["ab"]);
    net.expect(&[]);
}

#[test]
fn a_close_behind_what_waits_is_seen_in_its_turn() {
    let mut net = paced(Rate::per_second(1));
    let client = net.open();
    net.input(client, &[&texts(3)[..], b"\x88\x82\0\0\0\0\x03\xe8"].concat());
    net.eof(client);
    net.advance(Duration::from_millis(1_500));
    net.expect(&[]);
    net.advance(secs(2));
    assert!(net.take(client).ends_with(b"\x88\x02\x03\xe8"));
    net.expect(&["close 1000 clean"]);
    net.expect_empty();
}

#[test]
fn a_server_that_stops_does_not_wait_for_tokens() {
    let mut net = paced(Rate::per_minute(1));
    let client = net.open();
    net.input(client, &texts(3));
    net.take(client);
    net.shut_down(CloseCode::GOING_AWAY, secs(10));
    assert_eq!(net.take(client), b"\x88\x02\x03\xe9");
    net.input(client, b"\x88\x82\0\0\0\0\x03\xe9");
    net.expect(&["close 1001 clean"]);
}

#[test]
fn if_so_configured_the_rate_ends_the_session() {
    let rate = Rate::per_second(10).burst(3);
    let mut net = Net::new(WebSockets::new().message_rate(rate).message_rate_closes(true));
    let client = net.open();
    net.input(client, &texts(3));
    net.input(client, b"\x81\x82\0\0"); // the beginning of a message is no message
    net.expect(&[]);
    net.advance(Duration::from_millis(100));
    net.input(client, b"\0\0ab");
    net.expect(&[]);
    assert_eq!(echoes(&net.take(client)).len(), 4);
    net.input(client, &texts(1));
    net.expect(&["error Too many messages", "close 1008 unclean"]);
    assert!(net.take(client).ends_with(b"\x03\xf0Too many messages"));
}

#[test]
fn fragments_count_as_one_message_and_pings_as_none() {
    let mut net = paced(Rate::per_minute(2));
    let client = net.open();
    net.input(client, &b"\x89\x80\0\0\0\0".repeat(20));
    net.input(client, b"\x01\x81\0\0\0\0a");
    net.input(client, &b"\x00\x81\0\0\0\0a".repeat(20));
    net.input(client, b"\x80\x81\0\0\0\0a");
    net.input(client, &texts(1));
    assert_eq!(echoes(&net.take(client)).len(), 2);
}

#[test]
fn without_a_rate_nothing_is_kept_for_it() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.input(client, &texts(100));
    assert_eq!(echoes(&net.take(client)).len(), 100);
    assert!(net.core.connections.slab.iter().all(|(_, found)| found.state.extra.is_none()));
}

#[test]
fn in_raw_sessions_data_frames_are_counted() {
    let mut net = paced(Rate::per_minute(2));
    let mut application = Application::new();
    application.install(WebSockets::new().message_rate(Rate::per_minute(2)));
    application.routing(|route| {
        route.web_socket_raw("/", |_: &Call| on_frame(|session, frame| session.send_frame(frame)));
    });
    net.network = Network::new(application.build().unwrap());
    let client = net.open();
    net.input(client, b"\x89\x80\0\0\0\0"); // its handler echoes that too
    net.input(client, &texts(5));
    assert_eq!(echoes(&net.take(client)).len(), 2);
    net.advance(secs(31));
    assert_eq!(echoes(&net.take(client)).len(), 1);
}

//! Clients that mean no good: each is bounded in memory and time, and the others are served.

mod support;

use std::io::Write;

use support::*;
use wirewheel::{Application, Call, Limits, WebSockets, on_message};

/// An echo with short timeouts, so that a test of silence is short.
fn module(app: &mut Application) {
    hasty(app, WebSockets::new());
}

fn hasty(app: &mut Application, options: WebSockets) {
    let limits = Limits::new()
        .handshake_timeout(millis(150))
        .close_timeout(millis(150))
        .linger_timeout(millis(100));
    // Who waits for an attack to end answers no pings meanwhile.
    app.install(options.ping_period(None).limits(limits));
    app.routing(|route| {
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

/// A session that must be served whatever else goes on.
#[track_caller]
fn expect_served(witness: &mut Client) {
    witness.text("still there?");
    witness.expect_text("still there?");
}

#[test]
fn who_sends_nothing_is_hung_up_on_without_a_word() {
    let server = Running::start(module);
    let mut witness = server.upgrade_at_once("/");
    let mut silent = server.connect();
    expect_served(&mut witness);
    silent.expect_eof();
    expect_served(&mut witness);
}

#[test]
fn who_sends_half_a_request_gets_408() {
    let server = Running::start(module);
    let mut witness = server.upgrade_at_once("/");
    let mut half = server.saying("GET / HTTP/1.1\r\nHost: h\r\nX-");
    expect_served(&mut witness);
    assert_eq!(half.answer(false).status, 408);
    half.expect_eof();
}

#[test]
fn who_announces_a_gibibyte_gets_1009_at_once() {
    let server = Running::start(module);
    let mut witness = server.upgrade_at_once("/");
    let mut boaster = server.upgrade_at_once("/");
    boaster.write([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0]);
    boaster.expect_close(1009);
    boaster.expect_eof();
    expect_served(&mut witness);
}

#[test]
fn who_never_reads_is_closed_and_nobody_waits_for_them() {
    let (factory, events) = recorder(true);
    let server = Running::start(move |app| {
        app.install(WebSockets::new().write_timeout(millis(200)));
        app.routing(|route| {
            route.web_socket("/", factory);
            route.web_socket("/witness", |_: &Call| {
                on_message(|session, message| session.send(message))
            });
        });
    });
    let mut witness = server.upgrade("/witness");
    let mut deaf = server.upgrade("/");
    deaf.stream.set_nonblocking(true).unwrap();
    let frame = masked(BINARY, &[0; 60_000]);
    // The outbox takes 64 KiB; the socket's buffers take some megabytes before.
    let ended = (0..10_000).any(|_| {
        let _ = deaf.stream.write(&frame);
        expect_served(&mut witness);
        events.so_far().iter().any(|event| event.starts_with("close 1013"))
    });
    assert!(ended, "nothing was bounded");
    expect_served(&mut witness);
}

#[test]
fn who_disappears_is_forgotten() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new().ping_period(millis(50)).timeout(millis(100)));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    // Nothing is answered any more, as if the cable were cut; the socket stays open on our side.
    let vanished = server.upgrade("/");
    events.expect("connect /");
    assert!(events.next().starts_with("error Ping timeout"));
    events.expect("close 1011 \"Ping timeout\" by Local unclean");
    drop(vanished);
}

#[test]
fn a_flood_of_pings_does_not_starve_others() {
    let server = Running::start(|app| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    });
    let mut witness = server.upgrade("/");
    let mut flood = server.upgrade("/");
    let mut drain = flood.stream.try_clone().unwrap();
    let pings = masked(PING, b"x").repeat(20_000);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..10 {
                flood.write(&pings);
            }
            flood.send(CLOSE, &close_payload(1000, ""));
        });
        scope.spawn(move || {
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut drain, &mut all).unwrap();
            // Pongs of a turn that found the socket full may be left out; nothing else may.
            let (pongs, close) = all.split_at(all.len() - 4);
            assert_eq!(close, b"\x88\x02\x03\xe8");
            assert!(pongs.chunks(3).all(|pong| pong == b"\x8a\x01x"));
            assert!(!pongs.is_empty() && pongs.len() <= 600_000);
        });
        for _ in 0..50 {
            expect_served(&mut witness);
        }
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let server = Running::start(|app| {
        app.install(WebSockets::new().limits(Limits::new().max_connections(8)));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    });
    for round in 0..300 {
        let mut client = server.connect();
        if round % 3 == 0 {
            client.write("GET / HT");
            continue;
        }
        let mut client = client.upgraded("/");
        client.text("hello");
        client.expect_text("hello");
        if round % 3 == 1 {
            client.send(CLOSE, b"");
            assert_eq!(client.frame().first, CLOSE);
            client.expect_eof();
        }
    }
}

#[test]
fn a_bad_utf8_byte_ends_a_frame_that_is_not_complete() {
    let server = Running::start(module);
    let mut client = server.upgrade_at_once("/");
    let mut frame = masked(TEXT, &[b"abc".as_slice(), &[0xff], &[b'x'; 1000]].concat());
    frame.truncate(20);
    client.write(frame);
    client.expect_close(1007);
}

#[test]
fn a_flood_of_empty_fragments_ends_and_does_not_starve_others() {
    let server = Running::start(module);
    let mut witness = server.upgrade_at_once("/");
    let mut flood = server.upgrade_at_once("/");
    let mut drain = flood.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            flood.write(masked(TEXT & 0x7f, b""));
            let fragments = masked(0, b"").repeat(10_000);
            // 65,536 are allowed; the end of the connection ends the flood.
            while flood.stream.write_all(&fragments).is_ok() {}
        });
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut drain, &mut all); // a reset may cut it short
        assert!(all.starts_with(b"\x88"), "{all:?}");
        assert_eq!(all.get(2..4), Some(&1008_u16.to_be_bytes()[..]));
    });
    expect_served(&mut witness);
}

#[test]
fn a_flood_of_tiny_messages_does_not_starve_others() {
    let server = Running::start(module);
    let mut witness = server.upgrade_at_once("/");
    let mut flood = server.upgrade_at_once("/");
    let mut drain = flood.stream.try_clone().unwrap();
    let crumbs = masked(BINARY, b"x").repeat(20_000);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..10 {
                flood.write(&crumbs);
            }
            flood.send(CLOSE, &close_payload(1000, ""));
        });
        let echoes = scope.spawn(move || {
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut drain, &mut all).unwrap();
            all.len()
        });
        for _ in 0..50 {
            expect_served(&mut witness);
        }
        assert_eq!(echoes.join().unwrap(), 3 * 200_000 + 4, "every echo and the Close");
    });
}

#[test]
fn tiny_messages_of_who_never_reads_are_bounded() {
    let server = Running::start(|app| hasty(app, WebSockets::new().write_timeout(millis(200))));
    let mut witness = server.upgrade_at_once("/");
    let mut deaf = server.upgrade_at_once("/");
    let crumbs = masked(BINARY, b"x").repeat(20_000);
    // Ends when the server hangs up: with 1013, which nobody reads.
    while deaf.stream.write_all(&crumbs).is_ok() {}
    expect_served(&mut witness);
}

//! The acceptance cases of Ktor's own tests, over real sockets. Their numbers are those of the
//! parity list: A8, A14 and A17 belong to extensions, raw sessions and converters.

#![allow(clippy::cast_possible_truncation, reason = "lengths that a test made up")]
#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::time::Instant;

use support::*;
use wirewheel::{Application, Call, CloseCode, CloseReason, WebSockets, on_connect, on_message};

fn echo(app: &mut Application) {
    echo_under(app, WebSockets::new());
}

fn echo_under(app: &mut Application, options: WebSockets) {
    app.install(options);
    app.routing(|route| {
        let echo = |_: &Call| on_message(|session, message| session.send(message));
        route.web_socket("/", echo);
    });
}

#[test]
fn a1_text_and_close() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    let mut client = server.upgrade("/");
    client.write([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    client.write([0x88, 0x82, 0x37, 0xfa, 0x21, 0x3d, 0x34, 0x12]);
    client.expect_close(1000);
    client.expect_eof();
    drop(server);
    let expected = ["connect /", "text Hello", "close 1000 \"\" by Remote clean"];
    assert_eq!(events.rest(), expected);
}

#[test]
fn a2_fragmented_over_the_limit() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new().max_frame_size(1025));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    let mut client = server.upgrade("/");
    client.write(
        [
            masked(0x02, &[0; 1024]),
            masked(0x00, &[0; 1024]),
            masked(0x00, &[0; 1024]),
            masked(0x80, &[0; 1024]),
        ]
        .concat(),
    );
    client.expect_close(1009);
    client.expect_eof();
    events.expect("connect /");
    let how = "close 1009 \"message over 1025 bytes\" by Local unclean";
    events.expect(&format!("error message over 1025 bytes, {how}"));
    events.expect(how);
}

#[test]
fn a3_ping_and_pong_keep_it_open() {
    // A client that was kept from its answers says nothing of the server.
    assert!((0..20).any(|_| pings_that_are_answered_in_time_keep_it_open()));
}

/// Whether the client was in time: each ping is sent behind the pong before, less than the timeout ago.
fn pings_that_are_answered_in_time_keep_it_open() -> bool {
    let timeout = millis(300);
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new().ping_period(millis(100)).timeout(timeout));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    let mut last = Instant::now();
    let mut client = server.upgrade("/");
    for _ in 0..5 {
        let ping = client.frame();
        if ping.first == PING {
            client.send(PONG, &ping.payload);
        }
        let now = Instant::now();
        if now - last >= timeout {
            return false;
        }
        last = now;
        assert!(ping.first == PING && !ping.payload.is_empty(), "{ping:?}");
    }
    client.send(CLOSE, &close_payload(1000, ""));
    if last.elapsed() >= timeout {
        return false;
    }
    let answers = std::iter::repeat_with(|| client.frame());
    let answer = answers.into_iter().find(|frame| frame.first != PING); // one may have been on its way
    assert_eq!(answer, Some(Frame { first: CLOSE, payload: close_payload(1000, "") }));
    client.expect_eof();
    drop(server);
    let mut expected = vec!["connect /"];
    expected.extend(["pong true"; 5]);
    expected.push("close 1000 \"\" by Remote clean");
    assert_eq!(events.rest(), expected);
    true
}

#[test]
fn a4_server_closes_first() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| {
                    session.close(CloseReason::new(CloseCode::TRY_AGAIN_LATER, "test")?)
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    let frame = client.frame();
    assert_eq!((frame.first, &frame.payload[..]), (CLOSE, &b"\x03\xf5test"[..]));
    client.send(CLOSE, b"");
    client.expect_eof();
}

#[test]
fn a5_empty_close() {
    let server = Running::start(echo);
    let mut client = server.upgrade("/");
    client.send(CLOSE, b"");
    let frame = client.frame();
    assert_eq!((frame.first, frame.payload.len()), (CLOSE, 0));
    client.expect_eof();
}

#[test]
fn a6_125_messages_each_way() {
    let server = Running::start(echo);
    let mut client = server.upgrade("/");
    let digits: String = (1..=125).map(|n| char::from(b'0' + (n % 10) as u8)).collect();
    let sent: Vec<u8> = (1..=125).flat_map(|n| masked(TEXT, &digits.as_bytes()[..n])).collect();
    client.write(sent);
    for n in 1..=125 {
        client.expect_text(&digits[..n]);
    }
}

#[test]
fn a7_twenty_mebibytes() {
    let server = Running::start(|app| {
        // A slow machine takes longer for it than pings wait.
        let options = WebSockets::new().max_frame_size(20 << 20).outbox_bytes(32 << 20);
        echo_under(app, options.ping_period(None));
    });
    let client = server.upgrade("/");
    let mut state = 1u32;
    let payload: Vec<u8> = (0..20 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let frame = masked(BINARY, &payload);
    let writer = Client { stream: client.stream.try_clone().unwrap(), inbox: Vec::new() };
    let mut reader = client;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = writer;
            writer.write(frame);
        });
        let echoed = reader.frame();
        assert_eq!(echoed.first, BINARY);
        assert!(echoed.payload == payload, "the payload came back changed");
    });
}

#[test]
fn a9_answers_to_what_is_no_session() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/ws", |_: &Call| on_message(|_, _| Ok(())));
        });
    });
    let mut client = server.connect(); // one connection for all: each answer keeps it
    let plain = client.request("GET /ws HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(plain.status, 426);
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    assert_eq!(plain.header("sec-websocket-version"), Some("13"));
    let upgrade = upgrade_request("/ws", "");
    assert_eq!(client.request(&upgrade.replacen("GET", "POST", 1)).status, 405);
    assert_eq!(client.request(&upgrade_request("/none", "")).status, 404);
    let old = client.request(&upgrade.replacen("Version: 13", "Version: 12", 1));
    assert_eq!((old.status, old.header("sec-websocket-version")), (426, Some("13")));
    assert_eq!(client.request(&upgrade).status, 101);
}

#[test]
fn a10_parameters() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/{p}", |_: &Call| {
                on_connect(|session, call| {
                    let p = call.parameter("p").unwrap_or_default();
                    let x = call.query_parameter("x").unwrap_or_default();
                    session.send(format!("{p} x={x}"))
                })
            });
        });
    });
    server.upgrade("/aaa?x=1").expect_text("aaa x=1");
    server.upgrade("/%D1%8F?x=a%20b").expect_text("я x=a b");
}

#[test]
fn a11_the_peer_vanishes() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    // Idle, then gone by FIN.
    let client = server.upgrade("/");
    events.expect("connect /");
    drop(client);
    events.expect("close 1006 \"\" by Transport unclean");
    // In the middle of a frame, by FIN.
    let mut client = server.upgrade("/");
    events.expect("connect /");
    client.write(&masked(TEXT, b"never finished")[..9]);
    drop(client);
    events.expect("close 1006 \"\" by Transport unclean");
    // By RST, which is an error of the network.
    let client = server.upgrade("/");
    events.expect("connect /");
    socket2::SockRef::from(&client.stream).set_linger(Some(millis(0))).unwrap();
    drop(client);
    let error = events.next();
    assert!(error.starts_with("error connection lost: "), "{error}");
    events.expect("close 1006 \"\" by Transport unclean");
    assert_eq!(events.so_far(), Vec::<String>::new());
}

#[test]
fn a12_reason_and_ping_sizes() {
    assert!(CloseReason::new(CloseCode::NORMAL, "x".repeat(123)).is_ok());
    assert!(CloseReason::new(CloseCode::NORMAL, "x".repeat(124)).is_err());
    assert!(CloseReason::new(CloseCode::NORMAL, "я".repeat(62)).is_err());
    let cut = CloseReason::truncated(CloseCode::NORMAL, &"я".repeat(62)).unwrap();
    assert_eq!(cut.text(), "я".repeat(61));
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| {
                    session.ping(&[7; 125])?;
                    let refused = session.ping(&[7; 126]).is_err();
                    session.send(if refused { "refused" } else { "taken" })
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    let ping = client.frame();
    assert_eq!((ping.first, ping.payload.len()), (PING, 125));
    client.expect_text("refused");
}

#[test]
fn a13_a_reason_in_cyrillic() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    let mut client = server.upgrade("/");
    client.send(CLOSE, &close_payload(1000, "websocket закрыт"));
    assert_eq!(client.expect_close(1000), "websocket закрыт");
    events.expect("connect /");
    events.expect("close 1000 \"websocket закрыт\" by Remote clean");
}

#[test]
fn a15_strictness() {
    let server = Running::start(echo);
    let mut invalid = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5".to_vec();
    invalid.extend_from_slice(b"\xed\xa0\x80edited");
    let cases: [(Vec<u8>, u16); 5] = [
        (b"\x81\x05Hello".to_vec(), 1002),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, b"\x03\xed"), 1002),
        (masked(TEXT, &invalid), 1007),
        (masked(0xc1, b"rsv1"), 1002),
    ];
    for (bytes, code) in cases {
        let mut client = server.upgrade("/");
        client.write(&bytes);
        client.expect_close(code);
        client.expect_eof();
    }
}

#[test]
fn a16_ktors_handshake() {
    let server = Running::start(echo);
    let answer = server.connect().request(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Content-Type: application/json\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
}

#[test]
fn a18_a_hundred_at_once() {
    let server = Running::start(echo);
    let mut clients: Vec<Client> = (0..100).map(|_| server.upgrade("/")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.text(&format!("client {number}"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect_text(&format!("client {number}"));
    }
    for round in 0..100 {
        clients[0].text(&format!("round {round}"));
        clients[0].expect_text(&format!("round {round}"));
    }
}

//! Rows of the map of Ktor's behaviour for which the tests of the subjects show only a part: each row
//! whole, as `tests/ktor_parity.rs` words it.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use support::*;
use wirewheel::extension::{Agreement, Extension, ExtensionFactory, ExtensionOffer};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::testing::{Ending, TestApplication};
use wirewheel::{Application, Call, CloseCode, CloseReason, WebSockets, on_connect, on_message};

fn echo(app: &mut Application, options: WebSockets) {
    app.install(options);
    app.routing(|route| {
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

/// Row 4. Ktor looks at frames that arrive, and at nothing that is sent.
#[test]
fn max_frame_size_holds_for_a_frame_for_a_message_and_for_what_is_sent() {
    let server = Running::start(|app| {
        app.install(WebSockets::new().max_frame_size(100));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| match message.bytes().len() {
                    100 => session.send([7; 250]),
                    other => panic!("{other} bytes were let through"),
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    client.send(BINARY, &[1; 100]);
    let sizes: Vec<usize> = (0..3).map(|_| client.frame().payload.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    // The header alone is enough, whatever kind of frame it announces.
    for (first, length) in [(BINARY, 101_u16), (TEXT, 101), (0x02, 65_535), (PING, 126)] {
        let mut client = server.upgrade("/");
        let [high, low] = length.to_be_bytes();
        let header =
            if length < 126 { vec![first, 0x80 | low] } else { vec![first, 0xfe, high, low] };
        client.write([&header[..], &KEY].concat());
        client.expect_close(if first == PING { 1002 } else { 1009 });
    }
    // A message is held to it in sum, unless it has a limit of its own.
    let mut client = server.upgrade("/");
    client.write([masked(0x02, &[1; 60]), masked(0x80, &[1; 41])].concat());
    client.expect_close(1009);
}

/// Counts how often it is asked, and how many states there are.
struct Counted {
    asked: Rc<Cell<u32>>,
    states: Rc<Cell<u32>>,
}

struct State(Rc<Cell<u32>>);

impl Extension for State {}

impl Drop for State {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl ExtensionFactory for Counted {
    fn name(&self) -> &str {
        "x-counted"
    }

    fn negotiate(&self, _offer: &ExtensionOffer) -> Option<Agreement> {
        self.asked.set(self.asked.get() + 1);
        self.states.set(self.states.get() + 1);
        Some(Agreement::new(State(Rc::clone(&self.states))))
    }
}

/// Row 7. Ktor makes the state of every installed extension for every handshake.
#[test]
fn an_extension_has_a_state_only_for_who_agreed_on_it() {
    let (asked, states) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counted = Counted { asked: Rc::clone(&asked), states: Rc::clone(&states) };
    let app = TestApplication::new(|app: &mut Application| {
        echo(app, WebSockets::new().extension(counted))
    })
    .unwrap();
    let plain = app.web_socket("/");
    let (other, answer) =
        app.upgrade("/").header("Sec-WebSocket-Extensions", "x-other").connect().unwrap();
    assert_eq!(answer.header("sec-websocket-extensions"), None);
    assert_eq!((asked.get(), states.get()), (0, 0));
    let offer = app.upgrade("/").header("Sec-WebSocket-Extensions", "x-other, x-counted");
    let (mut agreed, answer) = offer.connect().unwrap();
    assert_eq!(answer.header("sec-websocket-extensions"), Some("x-counted"));
    assert_eq!((asked.get(), states.get()), (1, 1));
    agreed.send("through it");
    agreed.expect_text("through it");
    agreed.close(CloseReason::try_from(CloseCode::NORMAL).unwrap());
    app.advance(Duration::from_secs(5));
    assert_eq!(states.get(), 0, "it goes with its session");
    drop((plain, other));
}

/// Row 39.
#[test]
fn a_session_knows_its_whole_request() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/rooms/{room}", |call: &Call| {
                let kept = call.clone();
                on_message(move |session, _| {
                    assert_eq!(session.remote_addr(), kept.remote_addr());
                    session.send(format!(
                        "{} {} {} {} {} {} {:?} {:?} {:?} {:?}",
                        kept.method(),
                        kept.uri(),
                        kept.scheme(),
                        kept.host(),
                        kept.remote_addr(),
                        kept.local_addr(),
                        kept.parameter("room"),
                        kept.query_parameter("as"),
                        kept.header("user-agent"),
                        kept.cookie("id"),
                    ))
                })
            });
        });
    });
    let mut client = server.connect();
    let here = client.stream.local_addr().unwrap();
    let extra = "User-Agent: parity\r\nCookie: id=7\r\n";
    client.request(&upgrade_request("/rooms/a%20b?as=anna", extra));
    client.text("who am I?");
    client.expect_text(&format!(
        "GET /rooms/a%20b?as=anna http h {here} {} Some(\"a b\") Some(\"anna\") Some(\"parity\") Some(\"7\")",
        server.addr()
    ));
}

/// Row 61. There is no block that ends: a hook that returns leaves the session open, and `close` says
/// 1000 in four bytes.
#[test]
fn a_normal_end_is_1000_without_a_text() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| match message.text() {
                    Some("end") => session.close(CloseCode::NORMAL),
                    _ => session.send("still here"),
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    for _ in 0..2 {
        client.text("go on");
        client.expect_text("still here");
    }
    client.text("end");
    while client.inbox.len() < 4 {
        assert!(client.fill());
    }
    assert_eq!(client.inbox, [0x88, 0x02, 0x03, 0xe8]);
}

/// Rows 67 and 68. Ktor answers 1006 with 1000, and the others with themselves.
#[test]
fn codes_that_may_not_be_sent_are_answered_with_1002() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    for code in [1006, 0, 1, 999, 1004, 1005, 1015, 1016, 2000, 2999, 5000, 65_535] {
        let mut client = server.upgrade("/");
        events.expect("connect /");
        client.send(CLOSE, &close_payload(code, "whatever"));
        client.expect_close(1002);
        client.expect_eof();
        assert!(events.next().starts_with("error "), "{code}");
        assert!(events.next().starts_with("close 1002 "), "{code}");
    }
    for code in [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999] {
        let mut client = server.upgrade("/");
        events.expect("connect /");
        client.send(CLOSE, &close_payload(code, ""));
        client.expect_close(code);
        events.expect(&format!("close {code} \"\" by Remote clean"));
    }
}

/// Row 70. In Ktor the connection stays until the client ends it, however long that takes.
#[test]
fn after_both_closes_a_client_that_does_not_hang_up_is_cut_off() {
    let app = TestApplication::new(|app: &mut Application| {
        echo(app, WebSockets::new().ping_period(None))
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.answer_close(false);
    client.close(CloseReason::try_from(CloseCode::NORMAL).unwrap());
    client.expect_close(CloseCode::NORMAL);
    assert_eq!(app.stats().connections_open, 1, "it has its time to hang up");
    app.advance(Duration::from_secs(10));
    client.expect_end(Ending::Closed);
    assert_eq!(app.stats().connections_open, 0);
}

/// Row 72. Ktor drops what has not been read by then.
#[test]
fn what_arrived_before_a_reset_is_delivered() {
    let (tell, told) = channel();
    let (go_on, may_go_on) = channel();
    let events = Events::from_channel(told);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        let may_go_on = Rc::new(may_go_on);
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (heard, ended, may_go_on) = (tell.clone(), tell.clone(), Rc::clone(&may_go_on));
                on_message(move |_, message| {
                    let text = message.text().unwrap_or_default();
                    heard.send(text.to_owned())?;
                    if text == "wait" {
                        may_go_on.recv()?;
                    }
                    Ok(())
                })
                .on_close(move |_, close| {
                    let _ = ended.send(format!("closed {}", close.code()));
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    client.text("wait");
    events.expect("wait");
    // The loop stands still: these and the reset lie in the system's buffers together.
    for text in ["one", "two", "three"] {
        client.text(text);
    }
    socket2::SockRef::from(&client.stream).set_linger(Some(millis(0))).unwrap();
    drop(client);
    go_on.send(()).unwrap();
    for event in ["one", "two", "three", "closed 1006"] {
        events.expect(event);
    }
}

/// Row 75, each fault that it names.
#[test]
fn every_violation_is_answered_with_1002() {
    let server = Running::start(|app| echo(app, WebSockets::new()));
    let mut cases: Vec<Vec<u8>> = Vec::new();
    for opcode in (3..=7).chain(11..=15) {
        cases.push(masked(0x80 | opcode, b""));
        cases.push(masked(opcode, b"x"));
    }
    for control in [8, 9, 10] {
        cases.push(masked(control, b"")); // without FIN
        cases.push(vec![0x80 | control, 0x80 | 126]); // a length of 16 bits
        cases.push(vec![0x80 | control, 0x80 | 127]);
    }
    cases.push(masked(0x80, b"nothing to go on with"));
    cases.push(masked(0x00, b"nothing to go on with"));
    cases.push([masked(0x01, b"begun"), masked(TEXT, b"another")].concat());
    cases.push([masked(0x01, b"begun"), masked(0x02, b"another")].concat());
    cases.push([masked(0x01, b"a"), masked(0x80, b"b"), masked(0x80, b"c")].concat());
    for bytes in cases {
        let mut client = server.upgrade("/");
        client.write(&bytes);
        let mut frame = client.frame();
        if frame.first == TEXT {
            frame = client.frame(); // the message before the fault was whole
        }
        assert_eq!((frame.first, &frame.payload[..2]), (CLOSE, &b"\x03\xea"[..]), "{bytes:x?}");
        client.expect_eof();
    }
}

/// Row 96: what a flow is without options, and which options go together.
#[test]
fn a_flow_without_options_is_a_rendezvous() {
    let flow: SharedFlow = SharedFlow::new();
    let collected = flow.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let flow = collected.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
        });
    })
    .unwrap();
    assert!(flow.try_emit("nobody is there: lost, and at once"));
    assert_eq!(flow.subscription_count(), 0);
    let (mut one, mut slow) = (app.web_socket("/"), app.web_socket("/"));
    assert_eq!(flow.subscription_count(), 2);
    one.expect_nothing();
    slow.read_only(0);
    assert!(!flow.would_suspend());
    app.with_server(|_| flow.emit("first").unwrap());
    app.advance(Duration::from_millis(1));
    one.expect_text("first");
    app.with_server(|_| flow.emit("second").unwrap());
    app.advance(Duration::from_millis(1));
    assert!(flow.would_suspend(), "until all have taken the value");
    assert!(!flow.try_emit("third"));
    slow.read_on();
    app.advance(Duration::from_millis(1));
    assert!(!flow.would_suspend());
    slow.expect_text("first");
    slow.expect_text("second");
    drop(slow);
    // To drop something there has to be a buffer.
    for policy in [BufferOverflow::DropOldest, BufferOverflow::DropLatest] {
        let of = |options: FlowOptions| SharedFlow::<str>::with(options.on_buffer_overflow(policy));
        assert!(of(FlowOptions::new()).is_err(), "{policy:?}");
        assert!(of(FlowOptions::new().replay(1)).is_ok(), "{policy:?}");
        assert!(of(FlowOptions::new().extra_buffer(1)).is_ok(), "{policy:?}");
    }
}

//! Raw sessions over real sockets: every frame as it comes, nothing answered by itself, the checks of
//! the frame layer still there, and exactly one `on_close`.

mod support;

use std::sync::mpsc::{Sender, channel};

use support::{CLOSE, Events, PING, PONG, Running, TEXT, close_payload, masked, millis};
use wirewheel::compat::Compat;
use wirewheel::error::{HandlerError, SendError, SessionError};
use wirewheel::raw::{Frame, OpCode, RawHandler, on_frame};
use wirewheel::{
    Application, CloseCode, CloseInfo, CloseReason, HandlerResult, Limits, Message, Session,
    WebSockets, on_message,
};

/// Reports every hook, and does to each frame what it was told to.
struct Tap<F> {
    events: Sender<String>,
    act: F,
}

impl<F> RawHandler for Tap<F>
where
    F: FnMut(&mut Session<'_>, Frame<'_>) -> HandlerResult,
{
    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        let Frame { fin, rsv, opcode, payload } = frame;
        let text = String::from_utf8_lossy(payload);
        let bits = [rsv.rsv1(), rsv.rsv2(), rsv.rsv3()].map(u8::from);
        let _ = self.events.send(match payload.len() {
            0..=20 => format!("{opcode:?} {fin} {bits:?} {text}"),
            long => format!("{opcode:?} {fin} {bits:?} {long} bytes"),
        });
        (self.act)(session, frame)
    }

    fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
        let _ = self.events.send(format!("error {error}"));
    }

    fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
        let clean = if close.is_clean() { "clean" } else { "unclean" };
        let by = close.closed_by();
        let _ =
            self.events.send(format!("close {} {:?} {by:?} {clean}", close.code(), close.text()));
    }
}

fn start<F>(options: fn() -> WebSockets, act: F) -> (Running, Events)
where
    F: FnMut(&mut Session<'_>, Frame<'_>) -> HandlerResult + Clone + Send + 'static,
{
    let (events, inbox) = channel();
    let server = Running::start(move |app: &mut Application| {
        app.install(options());
        app.routing(|route| {
            route
                .web_socket_raw("/", move |_call| Tap { events: events.clone(), act: act.clone() });
        });
    });
    (server, Events::from_channel(inbox))
}

fn echo(session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
    session.send_frame(frame)
}

fn silent(_session: &mut Session<'_>, _frame: Frame<'_>) -> HandlerResult {
    Ok(())
}

#[test]
fn every_frame_is_handed_over_and_nothing_is_answered() {
    let (server, events) =
        start(WebSockets::new, |session: &mut Session<'_>, frame: Frame<'_>| match frame.payload {
            b"now" => session.send_frame(Frame::new(OpCode::Text, b"first answer")),
            _ => Ok(()),
        });
    let mut client = server.upgrade("/");
    client.send(PING, b"p");
    client.send(0x01, b"a");
    client.send(PONG, b"q");
    client.send(0x00, b"b");
    client.send(0x80, b"");
    client.send(0x82, &[7; 40_000]);
    client.text("now");
    for event in [
        "Ping true [0, 0, 0] p",
        "Text false [0, 0, 0] a",
        "Pong true [0, 0, 0] q",
        "Continuation false [0, 0, 0] b",
        "Continuation true [0, 0, 0] ",
        "Binary true [0, 0, 0] 40000 bytes",
        "Text true [0, 0, 0] now",
    ] {
        events.expect(event);
    }
    client.expect_text("first answer");
}

/// Ktor's counterpart answers nothing either, but never ends when its handler forgets the Close.
#[test]
fn a_close_is_the_handlers_to_answer_and_then_the_session_ends() {
    let (server, events) = start(WebSockets::new, echo);
    let mut client = server.upgrade("/");
    client.send(CLOSE, &close_payload(4000, "bye"));
    assert_eq!(client.expect_close(4000), "bye");
    client.expect_eof();
    events.expect("Close true [0, 0, 0] \u{f}\u{fffd}bye");
    events.expect("close 4000 \"bye\" Remote clean");
    drop(server);
    assert_eq!(events.rest(), Vec::<String>::new());
}

#[test]
fn a_close_that_nobody_answers_is_bounded_by_the_close_timeout() {
    let options = || WebSockets::new().limits(Limits::new().close_timeout(millis(100)));
    let (server, events) = start(options, silent);
    let mut client = server.upgrade("/");
    client.send(CLOSE, &close_payload(1000, ""));
    client.text("behind the Close"); // RFC 6455 section 5.5.1: it may not come, and is not handed over
    client.expect_eof();
    events.expect("Close true [0, 0, 0] \u{3}\u{fffd}");
    events.expect("close 1000 \"\" Remote unclean");
}

#[test]
fn after_our_close_frames_still_come_until_the_peers() {
    let (server, events) = start(WebSockets::new, |session: &mut Session<'_>, frame: Frame<'_>| {
        if frame.payload == b"end" {
            session.close(CloseReason::new(CloseCode::NORMAL, "enough")?)?;
            let refused = session.send_frame(frame).unwrap_err();
            assert!(matches!(refused, HandlerError::Send(SendError::Closing)));
        }
        Ok(())
    });
    let mut client = server.upgrade("/");
    client.text("end");
    assert_eq!(client.expect_close(1000), "enough");
    client.text("on its way");
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_eof();
    for event in [
        "Text true [0, 0, 0] end",
        "Text true [0, 0, 0] on its way",
        "Close true [0, 0, 0] \u{3}\u{fffd}",
        "close 1000 \"enough\" Local clean",
    ] {
        events.expect(event);
    }
}

#[test]
fn the_frame_layer_still_checks() {
    let bad: [(&[u8], u16); 9] = [
        (&[0x81, 0x01, b'x'], 1002), // no mask
        (&masked(0xc1, b"x"), 1002), // a reserved bit
        (&masked(0x83, b""), 1002),  // an opcode that is not defined
        (&masked(0x09, b""), 1002),  // a ping in fragments
        (&masked(0x80, b"x"), 1002), // a continuation of nothing
        (&[masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
        (&masked(CLOSE, b"\x03"), 1002), // a Close of one byte
        (&masked(CLOSE, b"\x03\xe8\xff"), 1007), // its text is not UTF-8
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], 1009), // 64 KiB and a byte
    ];
    let (server, events) = start(WebSockets::new, silent);
    for (bytes, code) in bad {
        let mut client = server.upgrade("/");
        client.write(bytes);
        client.expect_close(code);
        client.expect_eof();
        let told: Vec<String> = std::iter::repeat_with(|| events.next())
            .skip_while(|event| event.starts_with("Text"))
            .take(2)
            .collect();
        assert!(told[0].starts_with("error "), "{bytes:?}: {told:?}");
        assert!(told[1].starts_with(&format!("close {code} ")), "{bytes:?}: {told:?}");
    }
}

#[test]
fn reserved_bits_pass_where_they_are_let_through() {
    let (server, events) =
        start(|| WebSockets::new().compat(Compat::new().lenient_rsv(true)), echo);
    let mut client = server.upgrade("/");
    client.send(0xf1, b"bits");
    assert_eq!(client.frame().first, 0xf1);
    events.expect("Text true [1, 1, 1] bits");
}

#[test]
fn a_message_may_go_on_for_ever_since_nothing_of_it_is_kept() {
    let (server, events) = start(
        || WebSockets::new().max_fragments(3).max_message_size(10).max_frame_size(10),
        silent,
    );
    let mut client = server.upgrade("/");
    client.send(0x01, b"0123456789");
    for _ in 0..9 {
        client.send(0x00, b"0123456789");
    }
    client.send(0x80, b"end");
    let told: Vec<String> = (0..11).map(|_| events.next()).collect();
    assert_eq!(told[10], "Continuation true [0, 0, 0] end");
}

#[test]
fn the_peer_vanishes_from_a_raw_session() {
    let (server, events) = start(WebSockets::new, silent);
    drop(server.upgrade("/"));
    events.expect("close 1006 \"\" Transport unclean");
}

#[test]
fn frames_that_may_not_be_sent_are_refused_by_kind() {
    let (server, _events) = start(WebSockets::new, |session: &mut Session<'_>, _: Frame<'_>| {
        let long = [0; 126];
        let refused = |session: &mut Session<'_>, frame: Frame<'_>| match session.send_frame(frame)
        {
            Err(HandlerError::Send(error)) => error,
            other => panic!("{other:?}"),
        };
        let ping = Frame::new(OpCode::Ping, b"");
        assert_eq!(refused(session, Frame { fin: false, ..ping }), SendError::BadFrame);
        let too_big = SendError::TooBig { bytes: 126, limit: 125 };
        assert_eq!(refused(session, Frame::new(OpCode::Pong, &long)), too_big);
        assert_eq!(refused(session, Frame::new(OpCode::Ping, &long)), too_big);
        assert!(
            too_big
                .to_string()
                .ends_with("a control frame never holds more (RFC 6455 section 5.5)")
        );
        assert_eq!(refused(session, Frame::new(OpCode::Close, b"\x03")), SendError::BadFrame);
        let over = vec![0; (64 << 10) + 1];
        let too_big = SendError::TooBig { bytes: over.len(), limit: 64 << 10 };
        assert_eq!(refused(session, Frame::new(OpCode::Binary, &over)), too_big);
        assert!(too_big.to_string().contains("max_frame_size for send_frame"));
        assert!(session.set_ping_period(millis(100)).is_err());
        session.send_frame(Frame::new(OpCode::Text, b"all refused"))
    });
    let mut client = server.upgrade("/");
    client.text("go");
    client.expect_text("all refused");
}

#[test]
fn a_session_of_messages_sends_no_frames() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_call| {
                on_message(|session: &mut Session<'_>, message: Message<'_>| {
                    let frame = Frame::new(OpCode::Text, message.bytes());
                    match session.send_frame(frame) {
                        Err(HandlerError::Send(SendError::NotRaw)) => session.send("refused"),
                        other => other,
                    }
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    client.text("x");
    client.expect_text("refused");
}

#[test]
fn closures_make_a_raw_handler_and_a_server_that_stops_says_so() {
    let (events, inbox) = channel();
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket_raw("/", move |_call| {
                let events = events.clone();
                on_frame(|session, frame| session.send_frame(frame))
                    .on_connect(|session, _call| session.send("hello"))
                    .on_close(move |_session, close| {
                        let _ = events.send(format!("{} {}", close.code(), close.is_clean()));
                    })
            });
        });
    });
    let mut client = server.upgrade("/");
    client.expect_text("hello");
    client.send(TEXT, b"mirror");
    client.expect_text("mirror");
    server.0.shutdown(millis(5_000));
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
    client.expect_eof();
    assert_eq!(inbox.recv().unwrap(), "1001 true");
}

#[test]
fn pings_for_a_raw_route_are_refused_at_start_up() {
    let server = wirewheel::Server::bind("127.0.0.1:0", |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route
                .web_socket_raw("/raw", |_call| on_frame(|_session, _frame| Ok(())))
                .ping_period(millis(100));
        });
    });
    let mistake = server.unwrap().spawn().unwrap_err().to_string();
    assert_eq!(mistake, "route \"/raw\": ping_period: a raw session sends its own pings");
}

//! Flows: memory that is nobody's, work for each message, and the order of all that leaves a session.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use wirewheel::extension::{
    Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionMessage, ExtensionOffer,
};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::raw::{Frame, OpCode, RawHandler};
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, HandlerResult, Limits, Session,
    WebSockets, on_connect, on_message,
};

use crate::support::{
    CLOSE, Client, Events, Running, TEXT, close_payload, emulator, masked, measured, millis,
    upgrade_request,
};

/// Collects a flow, and sends the frames that it is told to.
struct Scripted {
    flow: SharedFlow,
    ends: Sender<String>,
}

impl RawHandler for Scripted {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.collect(&self.flow)
    }

    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        if frame.opcode == OpCode::Close {
            return Ok(()); // it answers ours
        }
        for step in frame.payload {
            match step {
                b'(' => {
                    session.send_frame(Frame { fin: false, ..Frame::new(OpCode::Text, b"(") })?
                }
                b'-' => {
                    let part = Frame::new(OpCode::Continuation, b"-");
                    session.send_frame(Frame { fin: false, ..part })?;
                }
                b')' => session.send_frame(Frame::new(OpCode::Continuation, b")"))?,
                b'e' => session.emit(&self.flow, "flow")?,
                b'p' => session.send_frame(Frame::new(OpCode::Ping, b""))?,
                b'x' => {
                    let payload = close_payload(1000, "");
                    session.send_frame(Frame::new(OpCode::Close, &payload))?;
                }
                b'c' => session.close(CloseReason::try_from(CloseCode::NORMAL)?)?,
                other => session.send_frame(Frame::new(OpCode::Text, &[*other]))?,
            }
        }
        Ok(())
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let _ = self.ends.send(format!("{} missed {}", close.code(), session.missed()));
    }
}

/// `/raw` is scripted and collects what is said at `/talk`.
fn raw_server() -> (Running, Events) {
    let (ends, inbox) = channel();
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new());
        let flow: SharedFlow = app.flow(FlowOptions::new().extra_buffer(100));
        let said = flow.clone();
        app.routing(move |route| {
            route.web_socket_raw("/raw", move |_call| Scripted {
                flow: flow.clone(),
                ends: ends.clone(),
            });
            route.web_socket("/talk", move |_: &Call| {
                let said = said.clone();
                on_message(move |session, message| {
                    if let Some(text) = message.text().filter(|text| !text.is_empty()) {
                        session.emit(&said, text)?;
                    }
                    session.send("done")
                })
            });
        });
    });
    (server, Events::from_channel(inbox))
}

/// What the peer gets, a letter for each frame: `f` is one of the flow, `x` a Close.
fn letters(client: &mut Client, count: usize) -> String {
    let letter = |client: &mut Client| {
        let frame = client.frame();
        match (frame.first, frame.payload.as_slice()) {
            (0x01, b"(") => '(',
            (0x00, b"-") => '-',
            (0x80, b")") => ')',
            (0x89, _) => 'p',
            (TEXT, [other]) => char::from(*other),
            (TEXT, _) => 'f',
            (CLOSE, _) => 'x',
            (first, payload) => panic!("{first:#04x} {payload:?}"),
        }
    };
    (0..count).map(|_| letter(client)).collect()
}

/// Others publish, and the turn in which they did is over.
fn publish(talker: &mut Client) {
    for text in ["news", ""] {
        talker.text(text);
        talker.expect_text("done");
    }
}

#[test]
fn no_flow_message_comes_between_the_frames_of_a_raw_message() {
    let (server, _ends) = raw_server();
    let (mut raw, mut talker) = (server.upgrade("/raw"), server.upgrade("/talk"));
    raw.text("a(");
    assert_eq!(letters(&mut raw, 2), "a(");
    publish(&mut talker);
    raw.text("-pe-");
    assert_eq!(letters(&mut raw, 3), "-p-");
    publish(&mut talker);
    raw.text(")be");
    // The own one that was published before `b` goes before it.
    assert_eq!(letters(&mut raw, 6), ")fffbf");
    raw.text("(-)e(-)");
    assert_eq!(letters(&mut raw, 7), "(-)f(-)");
}

#[test]
fn the_close_of_a_raw_session_is_behind_what_was_published_before_and_before_nothing_else() {
    for close in ["x", "c"] {
        let (server, ends) = raw_server();
        let (mut raw, mut talker) = (server.upgrade("/raw"), server.upgrade("/talk"));
        raw.text(&format!("ae{close}e"));
        let got = letters(&mut raw, 3);
        publish(&mut talker);
        raw.send(CLOSE, &close_payload(1000, ""));
        assert_eq!(got, "afx");
        raw.expect_eof();
        ends.expect("1000 missed 0");
    }
}

/// A message that never ends keeps back what was published behind its start: that is lost, and counted.
#[test]
fn the_close_within_a_raw_message_is_the_next_frame_and_what_it_cuts_off_is_counted() {
    for close in ["x", "c"] {
        let (server, ends) = raw_server();
        let (mut raw, mut talker) = (server.upgrade("/raw"), server.upgrade("/talk"));
        raw.text("(");
        assert_eq!(letters(&mut raw, 1), "(");
        publish(&mut talker);
        raw.text(&format!("e{close}"));
        assert_eq!(letters(&mut raw, 1), "x");
        raw.send(CLOSE, &close_payload(1000, ""));
        raw.expect_eof();
        ends.expect("1000 missed 2");
    }
}

/// `/{topic}` publishes what it is sent and collects it; a topic keeps 1 MiB.
fn topics(app: &mut Application, process_bytes: usize) {
    let flows: Rc<RefCell<HashMap<String, SharedFlow>>> = Rc::default();
    app.install(
        WebSockets::new().limits(Limits::new().process_bytes(process_bytes)).extension(Failing),
    );
    app.routing(move |route| {
        route.stats("/metrics");
        route.web_socket("/topics/{name}", move |call: &Call| {
            let options = FlowOptions::new().replay(1_000).extra_buffer(1_000);
            let name = call.parameter("name").unwrap_or_default().into_owned();
            let new = || SharedFlow::with(options).unwrap();
            let flow = flows.borrow_mut().entry(name).or_insert_with(new).clone();
            let said = flow.clone();
            on_connect(move |session, _| session.collect(&flow)).on_message(
                move |session, message| session.emit(&said, message.text().unwrap_or_default()),
            )
        });
    });
}

fn figure(server: &Running, name: &str) -> usize {
    let figures = server.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    let line = figures.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn topics_that_everybody_left_give_way_to_new_ones() {
    let server = Running::start(|app: &mut Application| topics(app, 4 << 20));
    let message = "x".repeat(60_000);
    for topic in 0..10 {
        let mut client = server.upgrade(&format!("/topics/{topic}"));
        for _ in 0..16 {
            client.text(&message);
            client.expect_text(&message);
        }
    }
    for topic in 10..13 {
        let path = format!("/topics/{topic}");
        let (mut reader, mut talker) = (server.upgrade(&path), server.upgrade(&path));
        for n in 0..20 {
            let message = format!("{n:060000}");
            talker.text(&message);
            reader.expect_text(&message);
            talker.expect_text(&message);
        }
    }
    assert!(figure(&server, "wirewheel_flow_messages_given_up_total") > 100);
    assert_eq!(figure(&server, "wirewheel_over_budget_total"), 0);
    assert!(figure(&server, "wirewheel_bytes_held") <= 4 << 20);
}

/// Fails at every message that says so.
struct Failing;

impl ExtensionFactory for Failing {
    fn name(&self) -> &str {
        "x-failing"
    }
    fn negotiate(&self, _offer: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Fails))
    }
}

struct Fails;

impl Extension for Fails {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _: usize,
    ) -> Result<(), ExtensionError> {
        match message.payload() {
            b"fail" => Err(ExtensionError::failed(CloseCode::NOT_CONSISTENT, "it does")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_session_whose_extension_fails_at_a_flow_message_is_closed_at_once() {
    let server = Running::start(|app: &mut Application| topics(app, 4 << 20));
    let mut talker = server.upgrade("/topics/a");
    let mut fails = server.connect();
    let offer = "Sec-WebSocket-Extensions: x-failing\r\n";
    assert_eq!(fails.request(&upgrade_request("/topics/a", offer)).status, 101);
    for text in ["well", "fail", "on"] {
        talker.text(text);
        talker.expect_text(text);
    }
    fails.expect_text("well");
    assert_eq!(fails.expect_close(1007), "it does");
    fails.expect_eof();
}

/// Every message was looked for among all keys, and everybody else waited.
#[test]
fn known_keys_of_a_flow_of_many_silence_nobody() {
    const KEYS: usize = 100_000;
    let server = Running::start(|app: &mut Application| {
        let newest = FlowOptions::new().extra_buffer(KEYS).max_bytes(64 << 20);
        let flow: SharedFlow = app.flow(newest.on_buffer_overflow(BufferOverflow::Latest));
        for key in 0..KEYS {
            flow.emit_latest(&key.to_string(), "old").unwrap();
        }
        let limits = Limits::new().process_bytes(128 << 20);
        app.install(WebSockets::new().ping_period(None).limits(limits));
        app.routing(move |route| {
            route.web_socket("/echo", |_: &Call| on_message(|session, m| session.send(m)));
            route.web_socket("/keys", move |_: &Call| {
                let flow = flow.clone();
                on_message(move |session, message| {
                    session.emit_latest(&flow, message.text().unwrap_or_default(), "new")
                })
            });
        });
    });
    let newest_first = (0..KEYS).rev().take(1_000);
    let burst: Vec<u8> =
        newest_first.flat_map(|key| masked(TEXT, key.to_string().as_bytes())).collect();
    let mut honest = server.upgrade("/echo");
    let mut flood: Vec<Client> = (0..10).map(|_| server.upgrade("/keys")).collect();
    measured(|| {
        flood.iter_mut().for_each(|client| client.write(&burst));
        flood.iter_mut().for_each(|client| client.send(0x89, b"all was taken"));
        let mut longest = millis(0);
        for _ in 0..50 {
            let begun = Instant::now();
            honest.text("there?");
            honest.expect_text("there?");
            longest = longest.max(begun.elapsed());
        }
        for client in &mut flood {
            assert_eq!(client.frame().payload, b"all was taken");
        }
        assert!(longest < millis(3_000) * u32::try_from(emulator::SLOWER).unwrap(), "{longest:?}");
    });
}

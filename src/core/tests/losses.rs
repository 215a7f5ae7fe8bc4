//! What a policy may drop, and what is counted: what is refused drops nothing, what is dropped is a whole
//! message, and each that is lost counts once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::compressed::connect;
use super::{secs, texts};
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{Handler, on_connect, on_message};
use crate::app::raw_handler::on_frame;
use crate::extension::Deflate;
use crate::flow::options::FlowOptions;
use crate::flow::shared_flow::SharedFlow;
use crate::protocol::extension::header::ExtensionOffer;
use crate::protocol::extension::{Agreement, Extension, ExtensionFactory, ExtensionMessage};
use crate::session::Session;
use crate::session::message_stream::MessageStream;
use crate::testing::simulation::codec::Codec;
use crate::testing::{TestApplication, TestClient};
use crate::words::close::CloseCode;
use crate::words::error::{HandlerError, HandlerResult, SendError};
use crate::words::extension::ExtensionError;
use crate::words::frame::{Frame, OpCode};
use crate::words::message::Message;
use crate::words::options::OutboxOverflow;

/// What sessions said of what they sent.
type Notes = Rc<RefCell<Vec<String>>>;

/// Digits of which no three are found twice, but for the first half of a message, which ends the one before.
fn digits(message: usize) -> String {
    let mut seed = 1_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{:02x}", seed >> 24)
    };
    let all: String = (0..500).map(|_| next()).collect();
    all[message * 80..message * 80 + 160].to_owned()
}

/// Refuses what is longer than 1,000 bytes; all sessions encode alike.
struct Short;

impl Extension for Short {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _: usize,
    ) -> Result<(), ExtensionError> {
        if message.payload().len() > 1_000 { Err(ExtensionError::TooBig) } else { Ok(()) }
    }

    fn share_key(&self) -> Option<u64> {
        Some(1)
    }
}

impl ExtensionFactory for Short {
    fn name(&self) -> &str {
        "x-short"
    }

    fn negotiate(&self, _: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Self))
    }
}

/// What is tried where there is no room, and cannot be sent in any case.
fn try_in_vain(session: &mut Session<'_>, what: &str) -> HandlerResult {
    match what {
        "binary" => session.send([7; 1_100]),
        "lines" => session.send("\n".repeat(1_100)),
        "too big for an extension" => session.send("x".repeat(1_100)),
        "a fragment too large for the outbox" => session.send_fragment("x".repeat(1_300), false),
        "a message too large for the outbox" => session.send("x".repeat(1_300)),
        other => session.send(other),
    }
}

/// Sends a message a second, three in all, and then tries something.
fn trying(what: &'static str, told: Notes) -> impl Handler {
    let mut number = 0;
    on_connect(|session, _| session.set_timer(secs(1)).map(drop).map_err(Into::into)).on_timer(
        move |session, _| {
            session.set_timer(secs(1))?;
            number += 1;
            match number {
                1..=3 => session.send(format!("{number}{}", " ".repeat(300))),
                4 => {
                    let result = try_in_vain(session, what)
                        .map_or_else(|it| it.to_string(), |()| "taken".into());
                    told.borrow_mut().push(format!("{result}, {} dropped", session.dropped()));
                    Ok(())
                }
                _ => Ok(()),
            }
        },
    )
}

/// A session at `/` or `/events` holds two messages that have not begun, and tries something: what its peer
/// gets, and what became of it.
fn with_two_that_wait(path: &str, what: &'static str) -> (Vec<String>, String) {
    let notes = Notes::default();
    let told = Rc::clone(&notes);
    let app = TestApplication::new(move |app: &mut Application| {
        let options =
            WebSockets::new().ping_period(None).on_outbox_full(OutboxOverflow::DropOldest);
        let options = options.outbox_bytes(1_200).max_outgoing_message_size(1_400);
        app.install(options.extension(Short));
        app.routing(move |route| {
            let also = Rc::clone(&told);
            route.web_socket("/", move |_: &Call| trying(what, Rc::clone(&told)));
            route.event_stream("/events", move |_: &Call| trying(what, Rc::clone(&also)));
        });
    })
    .unwrap();
    let mut got = Vec::new();
    if path == "/events" {
        let mut source = app.event_source(path);
        source.client().read_only(290);
        app.advance(secs(6));
        source.client().read_on();
        got.extend(std::iter::from_fn(|| source.receive()).map(|event| event.data));
    } else {
        let offer = app.upgrade(path).header("Sec-WebSocket-Extensions", "x-short");
        let (mut client, _) = offer.connect().unwrap();
        client.read_only(290);
        app.advance(secs(6));
        client.read_on();
        got.extend(texts(&mut client));
    }
    let got = got.iter().map(|text| text.trim().chars().take(5).collect()).collect();
    let note = notes.borrow().last().cloned().unwrap_or_default();
    (got, note)
}

/// What waited was dropped for a message that then was refused, or skipped.
#[test]
fn what_is_not_sent_drops_nothing_that_waits() {
    for (path, what, expected) in [
        ("/events", "binary", "taken, 1 dropped"),
        ("/events", "lines", ""),
        ("/", "too big for an extension", ""),
        ("/", "a fragment too large for the outbox", ""),
        ("/", "a message too large for the outbox", "taken, 1 dropped"),
        ("/events", "a message too large for the outbox", "taken, 1 dropped"),
    ] {
        let (got, note) = with_two_that_wait(path, what);
        assert_eq!(got, ["1", "2", "3"], "{path}: {what}: {note}");
        match expected {
            "" => assert!(note.ends_with(", 0 dropped") && !note.starts_with("taken"), "{note}"),
            expected => assert_eq!(note, expected, "{path}: {what}"),
        }
    }
}

/// A ping that was sent between the fragments of a message went with it.
#[test]
fn control_frames_between_fragments_are_dropped_with_no_message() {
    let app = TestApplication::new(|app: &mut Application| {
        let options = WebSockets::new().ping_period(None).outbox_bytes(100);
        app.install(options.on_outbox_full(OutboxOverflow::DropOldest));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| match message.text() {
                    Some("fragments") => {
                        session.send("begun")?;
                        session.send_fragment("lost in ", false)?;
                        session.ping(b"there?")?;
                        session.send_fragment("parts", true)
                    }
                    _ => session.send("x".repeat(90)),
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.answer_pings(false);
    client.read_only(3);
    for text in ["fragments", "fill", "fill"] {
        client.send(text);
    }
    client.read_on();
    let got: Vec<_> =
        std::iter::from_fn(|| client.receive_frame()).map(|frame| frame.first).collect();
    assert_eq!(got, [0x81, 0x89, 0x81]);
    assert_eq!(app.stats().dropped_oldest, 2);
}

/// A stream that the peer cut by its Close, and what waited behind it: two messages, one of them in parts.
#[test]
fn what_a_close_cuts_off_counts_by_messages() {
    let dropped = Rc::new(Cell::new(0));
    let told = Rc::clone(&dropped);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let told = Rc::clone(&told);
                on_message(|session, _| {
                    session.send_stream(MessageStream::binary(|piece| {
                        std::io::Write::write_all(piece, &[7; 1_000])
                    }))?;
                    for part in 0..4 {
                        session.send_fragment("part", part == 3)?;
                    }
                    session.send("whole")
                })
                .on_close(move |session, _| told.set(session.dropped()))
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.read_only(5_000);
    client.send("go");
    client.close(CloseCode::NORMAL);
    assert_eq!(dropped.get(), 3);
}

/// Numbers what it encodes, until it fails.
struct Numbered(u8);

impl Extension for Numbered {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _: usize,
    ) -> Result<(), ExtensionError> {
        self.0 += 1;
        if message.payload() == b"fail" {
            return Err(ExtensionError::failed(CloseCode::new(4001), "as it was asked to"));
        }
        let numbered = [message.payload(), b" ", &[b'0' + self.0]].concat();
        message.replace(numbered);
        Ok(())
    }
}

impl ExtensionFactory for Numbered {
    fn name(&self) -> &str {
        "x-numbered"
    }

    fn negotiate(&self, _: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Self(0)))
    }
}

/// What waited behind it was encoded all the same, by an extension that had failed.
#[test]
fn nothing_is_encoded_behind_a_message_that_an_extension_failed_at() {
    let dropped = Rc::new(Cell::new(0));
    let told = Rc::clone(&dropped);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None).extension(Numbered(0)));
        let flow: SharedFlow = SharedFlow::new();
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (told, flow, joined) = (Rc::clone(&told), flow.clone(), flow.clone());
                on_connect(move |session, _| session.collect(&joined))
                    .on_message(move |session, _| {
                        session.emit(&flow, "flow")?;
                        session.emit(&flow, "flow")?;
                        ["direct", "fail", "behind it"]
                            .into_iter()
                            .try_for_each(|it| session.send(it))
                    })
                    .on_close(move |session, _| told.set(session.dropped()))
            });
        });
    })
    .unwrap();
    let offer = app.upgrade("/").header("Sec-WebSocket-Extensions", "x-numbered");
    let (mut client, _) = offer.connect().unwrap();
    client.read_only(3);
    client.send("go");
    client.read_on();
    for text in ["flow 1", "flow 2", "direct 3"] {
        client.expect_text(text);
    }
    client.expect_close(CloseCode::new(4001));
    assert_eq!(dropped.get(), 2);
}

/// What has come in frames, inflated, up to the Close.
fn messages(client: &mut TestClient, codec: &mut Codec) -> Vec<Vec<u8>> {
    let (mut whole, mut open, mut is_packed) = (Vec::new(), Vec::new(), false);
    while let Some(frame) = client.receive_frame().filter(|frame| frame.first & 0x08 == 0) {
        if frame.first & 0x0f != 0 {
            is_packed = frame.first & 0x40 != 0;
        }
        open.extend_from_slice(&frame.payload);
        if frame.first & 0x80 != 0 {
            let bytes = std::mem::take(&mut open);
            whole.push(if is_packed { codec.unpack(&bytes).unwrap() } else { bytes });
        }
    }
    whole
}

/// A raw handler that compresses by itself: what was dropped of that would be missing in the peer's context.
#[test]
fn what_a_raw_handler_has_encoded_in_context_is_refused_and_not_dropped() {
    for policy in [OutboxOverflow::DropOldest, OutboxOverflow::DropNewest] {
        let notes = Notes::default();
        let told = Rc::clone(&notes);
        let app = TestApplication::new(move |app: &mut Application| {
            let options =
                WebSockets::new().ping_period(None).outbox_bytes(200).on_outbox_full(policy);
            app.install(options.extension(Deflate::new().server_context_takeover(true)));
            app.routing(move |route| {
                let raw = move |_: &Call| {
                    let told = Rc::clone(&told);
                    on_frame(move |session, frame| send_encoded(session, &frame, &told))
                };
                route.web_socket_raw("/", raw).negotiate_extensions(true);
            });
        })
        .unwrap();
        let (mut client, mut codec) = connect(&app);
        client.read_only(20);
        for number in 0..8_usize {
            client.send_frame(0x82, digits(number).as_bytes());
        }
        client.read_on();
        let got = messages(&mut client, &mut codec);
        let sent = (0..8_usize).map(|number| digits(number).into_bytes());
        assert!(sent.take(got.len()).eq(got.iter().cloned()), "{policy:?}");
        assert!((2..8).contains(&got.len()), "{policy:?}: {}", got.len());
        let refused =
            notes.borrow().iter().filter(|note| note.ends_with("refused, 0 dropped")).count();
        assert_eq!(got.len() + refused, 8, "{policy:?}: {:?}", notes.borrow());
    }
}

/// Sends the payload of a frame, compressed; once one was refused, no other is encoded behind it.
fn send_encoded(session: &mut Session<'_>, frame: &Frame<'_>, told: &Notes) -> HandlerResult {
    let is_refused = !told.borrow().is_empty();
    if !is_refused {
        let message = Message::from(frame.payload);
        let mut message = ExtensionMessage::of(&message);
        let extension = session.extension("permessage-deflate").unwrap();
        extension.encode(&mut message, 1_000).unwrap();
        assert!(message.rsv().rsv1());
        let payload = message.payload().to_vec();
        let frame = Frame { rsv: message.rsv(), ..Frame::new(OpCode::Binary, &payload) };
        match session.send_frame(frame) {
            Err(HandlerError::Send(SendError::Full { .. })) => {}
            sent => return sent,
        }
    }
    told.borrow_mut().push(format!("refused, {} dropped", session.dropped()));
    Ok(())
}

/// What the turn has gathered, and never wrote.
#[test]
fn bytes_that_were_gathered_and_not_written_count_as_lost() {
    for asked in ["abort", "break"] {
        let app = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new().ping_period(None));
            app.routing(|route| {
                route.web_socket("/", |_: &Call| {
                    on_message(|session, message| {
                        session.send("x".repeat(100))?;
                        if message.text() == Some("abort") {
                            session.abort();
                        }
                        Ok(())
                    })
                });
            });
        })
        .unwrap();
        let mut client = app.web_socket("/");
        if asked == "break" {
            client.break_after_receiving(0);
        }
        client.send(asked);
        let stats = app.stats();
        let expected = if asked == "abort" { (102, 0) } else { (0, 102) };
        assert_eq!((stats.lost_aborted, stats.lost_gone), expected, "{asked}");
        assert_eq!(stats.sessions_open, 0);
    }
}

/// Whoever sent it was told that it is on its way.
#[test]
fn what_others_send_behind_a_close_counts_as_dropped() {
    let dropped = Rc::new(Cell::new(0));
    let told = Rc::clone(&dropped);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let told = Rc::clone(&told);
                on_message(|session, _| session.close(CloseCode::NORMAL))
                    .on_close(move |session, _| told.set(session.dropped()))
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.answer_close(false);
    client.send("bye");
    app.with_server(|server| {
        let id = server.sessions().next().unwrap();
        server.send_to(id, "too late").unwrap();
        server.close(id, CloseCode::NORMAL).unwrap();
    });
    client.close(CloseCode::NORMAL);
    assert_eq!(dropped.get(), 1);
}

/// A client of a session that collects a flow under `DropOldest`, and what it sends is dropped by.
fn collecting(flow: &SharedFlow, has_masks: bool) -> (TestApplication, TestClient) {
    let flow = flow.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        let options = WebSockets::new().ping_period(None).outbox_bytes(2_000);
        app.install(options.on_outbox_full(OutboxOverflow::DropOldest));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said) = (flow.clone(), flow.clone());
                on_connect(move |session, _| {
                    session.set_masking(has_masks);
                    session.collect(&joined)
                })
                .on_message(move |session, message| match message.text() {
                    Some("flow") => session.emit(&said, &format!("flow{}", " ".repeat(900))),
                    text => {
                        session.send(format!("{}{}", text.unwrap_or_default(), " ".repeat(400)))
                    }
                })
            });
        });
    })
    .unwrap();
    let client = app.web_socket("/");
    (app, client)
}

/// A flow that suspends its publishers loses nothing; what it has for a session is not the outbox's to drop.
#[test]
fn no_policy_of_the_outbox_drops_what_a_flow_has_given_it() {
    for has_masks in [false, true] {
        let flow: SharedFlow = SharedFlow::new();
        let (app, mut client) = collecting(&flow, has_masks);
        client.read_only(0);
        client.send("flow");
        for number in 0..10 {
            client.send(number.to_string());
        }
        client.read_on();
        let got: Vec<_> = texts(&mut client).iter().map(|text| text.trim().to_owned()).collect();
        assert_eq!(got, ["flow", "8", "9"], "masks: {has_masks}");
        assert_eq!(app.stats().dropped_oldest, 8);
    }
}

/// What waits behind a flow's messages is as old as what waits in the outbox.
#[test]
fn the_oldest_goes_also_of_what_waits_behind_a_flow() {
    let flow = SharedFlow::with(FlowOptions::new().extra_buffer(10)).unwrap();
    let (app, mut client) = collecting(&flow, false);
    client.read_only(0);
    for text in ["flow", "flow"] {
        client.send(text);
    }
    for number in 0..10 {
        client.send(number.to_string());
    }
    client.read_on();
    let got: Vec<_> = texts(&mut client).iter().map(|text| text.trim().to_owned()).collect();
    assert_eq!(got, ["flow", "flow", "8", "9"]);
    assert_eq!(app.stats().dropped_oldest, 8);
}

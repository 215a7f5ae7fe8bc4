//! Event streams under virtual time: how they begin and end, what their clients get of flows, and who is
//! there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::on_connect;
use crate::app::response::{Accept, Response};
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::pool::GivesWay;
use crate::flow::shared_flow::SharedFlow;
use crate::session::Session;
use crate::testing::{Answer, Ending, TestApplication, TestClient, TestEventSource};
use crate::words::close::{CloseCode, CloseReason};
use crate::words::error::{HandlerError, HandlerResult, SendError};
use crate::words::limits::Limits;
use crate::words::options::OutboxOverflow;

/// A server of which `/events` and the WebSocket route `/socket` collect a flow.
struct Server {
    app: TestApplication,
    flow: SharedFlow,
    notes: Rc<RefCell<Vec<String>>>,
}

impl Server {
    fn new(flow: FlowOptions) -> Self {
        Self::with(flow, WebSockets::new())
    }

    fn with(options: FlowOptions, installed: WebSockets) -> Self {
        let flow: SharedFlow = SharedFlow::with(options).unwrap();
        let notes = Rc::new(RefCell::new(Vec::new()));
        let (on_stream, on_socket, noted) = (flow.clone(), flow.clone(), Rc::clone(&notes));
        let app = TestApplication::new(move |app: &mut Application| {
            app.install(installed);
            app.routing(move |route| {
                route.event_stream("/events", move |_: &Call| {
                    let (flow, errors, ends) = (on_stream.clone(), noted.clone(), noted.clone());
                    on_connect(move |session, _| session.collect(&flow))
                        .on_error(move |_, error| {
                            errors.borrow_mut().push(format!("error {error}"))
                        })
                        .on_close(move |session, close| {
                            let clean = if close.is_clean() { "clean" } else { "unclean" };
                            let by = close.closed_by();
                            let missed = session.missed();
                            ends.borrow_mut().push(format!(
                                "close {} {clean} by {by:?}, missed {missed}",
                                close.code()
                            ));
                        })
                });
                route.web_socket("/socket", move |_: &Call| {
                    let flow = on_socket.clone();
                    on_connect(move |session, _| session.collect(&flow))
                });
            });
        })
        .unwrap();
        Self { app, flow, notes }
    }

    fn emit(&self, text: &str) {
        self.app.with_server(|_| self.flow.emit(text)).unwrap();
    }

    fn set(&self, key: &str, value: &str) {
        self.app.with_server(|_| self.flow.emit_latest(key, value)).unwrap();
    }

    fn emit_numbers(&self, numbers: std::ops::Range<u32>) {
        numbers.for_each(|number| self.emit(&number.to_string()));
    }

    fn source(&self) -> TestEventSource {
        self.app.event_source("/events")
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.borrow_mut())
    }
}

fn replaying(messages: usize) -> FlowOptions {
    FlowOptions::new().replay(messages).on_buffer_overflow(BufferOverflow::DropOldest)
}

/// The newest values of so many keys.
fn newest(keys: usize) -> FlowOptions {
    FlowOptions::new().extra_buffer(keys).on_buffer_overflow(BufferOverflow::Latest)
}

/// Name and data of all events that came.
fn events(source: &mut TestEventSource) -> Vec<(String, String)> {
    std::iter::from_fn(|| source.receive()).map(|event| (event.name, event.data)).collect()
}

fn messages(data: &[&str]) -> Vec<(String, String)> {
    data.iter().map(|data| ("message".to_owned(), (*data).to_owned())).collect()
}

fn missed(count: &str) -> (String, String) {
    ("missed".to_owned(), count.to_owned())
}

/// One route whose handlers are made by `connect`.
fn app_of(
    options: WebSockets,
    connect: impl Fn(&mut Session<'_>) -> HandlerResult + Copy + 'static,
) -> TestApplication {
    TestApplication::new(move |app: &mut Application| {
        app.install(options);
        app.routing(move |route| {
            route.event_stream("/events", move |_: &Call| {
                on_connect(move |session, _| connect(session))
            });
        });
    })
    .unwrap()
}

fn timer_of_a_second(session: &mut Session<'_>) -> HandlerResult {
    session.set_timer(secs(1))?;
    Ok(())
}

fn request(app: &TestApplication, request: &str) -> (TestClient, Answer) {
    let mut client = app.connect();
    client.send_bytes(request.as_bytes());
    let answer = client.expect_answer();
    (client, answer)
}

/// What arrived behind the head.
fn rest(client: &TestClient) -> String {
    String::from_utf8(client.take_bytes()).unwrap()
}

#[test]
fn the_answer_is_one_that_nothing_keeps() {
    let server = Server::new(replaying(2));
    let source = server.source();
    let answer = source.answer();
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
    for (name, value) in [
        ("cache-control", Some("no-store")),
        ("x-accel-buffering", Some("no")),
        ("connection", Some("close")),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("date").is_some());
    let stats = server.app.stats();
    assert_eq!((stats.event_streams_open, stats.sessions_open, stats.requests_total), (1, 1, 1));
}

#[test]
fn a_flow_serves_both_forms_from_one_log() {
    let server = Server::new(replaying(3));
    server.emit("before");
    let (mut source, mut socket) = (server.source(), server.app.web_socket("/socket"));
    server.emit("two\nlines");
    assert_eq!(events(&mut source), messages(&["before", "two\nlines"]));
    socket.expect_text("before");
    socket.expect_text("two\nlines");
    assert_eq!((server.flow.subscription_count(), server.app.stats().messages_out), (2, 4));
}

/// However many there are: one frame, one event.
#[test]
fn a_message_is_encoded_once_for_each_form() {
    let held = |sockets: usize, sources: usize| {
        let server = Server::new(replaying(3));
        let _sockets: Vec<_> = (0..sockets).map(|_| server.app.web_socket("/socket")).collect();
        let mut sources: Vec<_> = (0..sources).map(|_| server.source()).collect();
        server.emit(&"x".repeat(1_000));
        for source in &mut sources {
            assert_eq!(source.receive().map(|event| event.data.len()), Some(1_000));
        }
        server.flow.inner.bytes()
    };
    let (frames, both) = (held(1, 0), held(1, 1));
    assert!((1_000..1_300).contains(&frames) && (1_000..1_300).contains(&(both - frames)));
    assert_eq!((held(200, 0), held(200, 200), held(0, 200)), (frames, both, both));
}

#[test]
fn who_comes_back_gets_what_followed_and_nothing_else() {
    let server = Server::new(replaying(10));
    let mut source = server.source();
    server.emit_numbers(0..3);
    assert_eq!(events(&mut source), messages(&["0", "1", "2"]));
    source.client().reset();
    server.emit_numbers(3..6);
    source.reconnect();
    server.emit("6");
    assert_eq!(events(&mut source), messages(&["3", "4", "5", "6"]));
}

/// Also from before the first event, whose id nobody has yet.
#[test]
fn who_loses_the_stream_before_the_first_event_misses_none() {
    for before in [0, 4] {
        let server = Server::new(replaying(2));
        server.emit_numbers(0..before);
        let mut source = server.source();
        let replayed = events(&mut source).len();
        assert_eq!(replayed, before.min(2) as usize);
        source.client().half_close();
        server.emit_numbers(before..before + 2);
        source.reconnect();
        assert_eq!(
            events(&mut source),
            messages(&[&before.to_string(), &(before + 1).to_string()]),
        );
    }
}

#[test]
fn what_the_log_has_no_more_is_said_to_be_missed() {
    let server = Server::new(replaying(2));
    let mut source = server.source();
    server.emit("0");
    assert_eq!(events(&mut source), messages(&["0"]));
    source.client().reset();
    server.emit_numbers(1..6);
    source.reconnect();
    let mut expected = vec![missed("3")];
    expected.extend(messages(&["4", "5"]));
    assert_eq!(events(&mut source), expected);
    // It is said once.
    source.client().reset();
    source.reconnect();
    assert_eq!(events(&mut source), []);
}

#[test]
fn an_id_of_another_epoch_or_of_nobody_gets_the_replay() {
    let server = Server::new(replaying(2));
    let other = Server::new(replaying(2));
    server.emit_numbers(0..3);
    let mut elsewhere = other.source();
    other.emit_numbers(0..3);
    assert_eq!(events(&mut elsewhere).len(), 3);
    let ahead = {
        let mut source = server.source();
        events(&mut source);
        let (epoch, number) = source.last_event_id().split_once('-').unwrap();
        assert_eq!((epoch.len(), number), (8, "3"));
        format!("{epoch}-4")
    };
    for id in [elsewhere.last_event_id(), "17", "x", "\u{fc}", &ahead] {
        let mut source = server.app.event_source_from("/events", id).unwrap();
        let mut expected = vec![missed("null")];
        expected.extend(messages(&["1", "2"]));
        assert_eq!(events(&mut source), expected, "{id:?}");
        source.client().reset();
        source.reconnect();
        assert_eq!(events(&mut source), [], "{id:?}");
    }
}

/// What had no room any more has nothing newer in its place.
#[test]
fn a_key_that_has_made_room_for_others_is_missed() {
    let server = Server::new(newest(2));
    let set = |key: &str, value: &str| server.set(key, value);
    let mut source = server.source();
    for (after, expected) in [
        (&["c2"][..], messages(&["c2"])),
        (&["c3", "d1"], messages(&["c3", "d1"])),
        (&["c4", "d2", "e1"], [vec![missed("null")], messages(&["d2", "e1"])].concat()),
    ] {
        ["a1", "c1"].iter().for_each(|value| set(&value[..1], value));
        assert_eq!(events(&mut source).last().unwrap().1, "c1");
        source.client().reset();
        after.iter().for_each(|value| set(&value[..1], value));
        source.reconnect();
        assert_eq!(events(&mut source), expected);
    }
}

/// The log of a flow that keeps the newest of each key: what was replaced is nothing that is missed.
#[test]
fn newest_values_go_on_with_the_keys_that_have_changed() {
    let server = Server::new(newest(10));
    let set = |key: &str, value: &str| server.set(key, value);
    set("a", "a1");
    set("b", "b1");
    let mut source = server.source();
    assert_eq!(events(&mut source), messages(&["a1", "b1"]));
    source.client().reset();
    ["a2", "a3", "a4"].iter().for_each(|value| set("a", value));
    source.reconnect();
    assert_eq!(events(&mut source), messages(&["a4"]));
    set("b", "b2");
    assert_eq!(events(&mut source), messages(&["b2"]));
    source.client().reset();
    server.app.advance(secs(1));
    assert_eq!(server.notes().last().unwrap().split(", ").last(), Some("missed 0"));
}

#[test]
fn a_flow_may_name_its_events() {
    let server = Server::new(replaying(2).event_name("news"));
    let mut source = server.source();
    server.emit("x");
    source.expect_event("news", "x");
}

#[test]
fn what_is_sent_directly_keeps_its_place_among_flow_messages() {
    thread_local! {
        static FLOW: SharedFlow = SharedFlow::with(replaying(5)).unwrap();
    }
    let app = app_of(WebSockets::new(), |session| {
        FLOW.with(|flow| {
            session.send("first")?;
            session.collect(flow)?;
            session.emit(flow, "second")?;
            session.send_event("named", "third")?;
            session.emit(flow, "fourth")?;
            session.close(CloseReason::new(CloseCode::NORMAL, "done")?)
        })
    });
    let mut source = app.event_source("/events");
    let mut expected = messages(&["first", "second"]);
    expected.push(("named".into(), "third".into()));
    expected.extend(messages(&["fourth"]));
    assert_eq!(events(&mut source), expected);
    assert!(source.is_over());
    source.client().expect_end(Ending::Closed);
}

/// A stream on which nothing waits is ended by its side alone, whoever ends it.
#[test]
fn a_stream_that_is_closed_from_elsewhere_is_over_at_once() {
    let server = Server::new(replaying(5));
    let mut source = server.source();
    server.app.with_server(|server| {
        let stream = server.sessions().next().unwrap();
        server.close(stream, CloseReason::new(CloseCode::NORMAL, "").unwrap()).unwrap();
    });
    assert!(source.is_over());
    source.client().expect_end(Ending::Closed);
}

#[test]
fn an_end_waits_for_what_was_published_before_it() {
    let server = Server::new(replaying(5));
    let mut source = server.source();
    source.client().read_only(10);
    let big = "x".repeat(2_000);
    (0..3).for_each(|_| server.emit(&big));
    server.app.shutdown(secs(60));
    assert!(!source.is_over() && server.notes().is_empty());
    source.client().read_on();
    assert_eq!(events(&mut source), messages(&[&big, &big, &big]));
    assert!(source.is_over());
    assert_eq!(server.notes(), ["close 1001 clean by Local, missed 0"]);
}

#[test]
fn names_and_kinds_of_session_are_checked() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.event_stream("/events", |_: &Call| {
                on_connect(|session, _| {
                    for name in ["", "a\nb", "\r"] {
                        let refused = session.send_event(name, "x").unwrap_err();
                        assert!(matches!(refused, HandlerError::Send(SendError::BadEventName)));
                    }
                    let frame = crate::words::frame::Frame::new(crate::raw::OpCode::Text, b"x");
                    let refused = session.send_frame(frame).unwrap_err();
                    assert!(matches!(refused, HandlerError::Send(SendError::NotRaw)));
                    Ok(())
                })
            });
            route.web_socket("/socket", |_: &Call| {
                on_connect(|session, _| {
                    let refused = session.send_event("a", "x").unwrap_err();
                    assert!(matches!(refused, HandlerError::Send(SendError::NotEventStream)));
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    app.event_source("/events").expect_nothing();
    app.web_socket("/socket").expect_nothing();
}

#[test]
fn fragments_become_one_event() {
    let app = app_of(WebSockets::new(), |session| {
        session.send_fragment("in ", false)?;
        session.send_fragment("two", true)
    });
    app.event_source("/events").expect_event("message", "in two");
}

/// Binary messages are skipped and counted, or go out in base64.
#[test]
fn an_event_carries_text() {
    for base64 in [false, true] {
        let flow: SharedFlow<[u8]> = SharedFlow::with(replaying(5)).unwrap();
        let collected = flow.clone();
        let told = Rc::new(RefCell::new(Vec::new()));
        let notes = Rc::clone(&told);
        let app = TestApplication::new(move |app: &mut Application| {
            app.routing(move |route| {
                let route = route.event_stream("/events", move |_: &Call| {
                    let (notes, flow) = (Rc::clone(&notes), collected.clone());
                    on_connect(move |session, _| {
                        session.send([0xff, 0xfe])?;
                        session.send("text")?;
                        session.collect(&flow)
                    })
                    .on_close(move |session, _| {
                        notes.borrow_mut().push((session.dropped(), session.missed()));
                    })
                });
                if base64 {
                    route.base64();
                }
            });
        })
        .unwrap();
        let mut source = app.event_source("/events");
        let mut other = app.event_source("/events");
        app.with_server(|_| flow.emit(&[1, 2, 3])).unwrap();
        let sent = if base64 { vec!["//4=", "text", "AQID"] } else { vec!["text"] };
        assert_eq!(events(&mut source), messages(&sent));
        assert_eq!(events(&mut other), messages(&sent));
        source.client().half_close();
        let skipped = u64::from(!base64);
        assert_eq!(*told.borrow(), [(skipped, skipped)]);
        assert_eq!(app.stats().binary_skipped, 4 * skipped);
    }
}

/// Sessions share what was made of a flow's message only where their routes write it alike.
#[test]
fn one_flow_goes_out_in_base64_and_not_at_once() {
    for base64_is_first in [false, true] {
        let flow: SharedFlow<[u8]> = SharedFlow::new();
        let collected = flow.clone();
        let app = TestApplication::new(move |app: &mut Application| {
            app.routing(move |route| {
                for (path, base64) in [("/text", false), ("/base64", true)] {
                    let flow = collected.clone();
                    let collect = move |_: &Call| {
                        let flow = flow.clone();
                        on_connect(move |session, _| session.collect(&flow))
                    };
                    let route = route.event_stream(path, collect);
                    if base64 {
                        route.base64();
                    }
                }
            });
        })
        .unwrap();
        let order = if base64_is_first { ["/base64", "/text"] } else { ["/text", "/base64"] };
        let mut sources = order.map(|path| app.event_source(path));
        app.with_server(|_| flow.emit(&[1, 2, 3])).unwrap();
        let [first, second] = sources.each_mut().map(events);
        let (text, base64) = if base64_is_first { (second, first) } else { (first, second) };
        assert_eq!((text, base64), (messages(&[]), messages(&["AQID"])));
    }
}

#[test]
fn a_message_that_line_breaks_make_too_long_is_refused() {
    let options = WebSockets::new().max_outgoing_message_size(1_000);
    let app = app_of(options, |session| {
        let breaks = "\n".repeat(1_000);
        let refused = session.send(&breaks).unwrap_err();
        assert!(matches!(refused, HandlerError::Send(SendError::TooBig { limit: 3_024, .. })));
        session.send("a".repeat(1_000))
    });
    app.event_source("/events").expect_event("message", &"a".repeat(1_000));
}

#[test]
fn a_head_is_answered_with_the_head() {
    let app = app_of(WebSockets::new(), |_| panic!("nobody is there"));
    let (mut client, answer) = request(&app, "HEAD /events HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(rest(&client), "");
    client.half_close();
    assert_eq!(app.stats().sessions_total, 0);
}

#[test]
fn a_client_of_http_1_0_gets_the_same() {
    let app = app_of(WebSockets::new(), |session| session.send("x"));
    for version in
        ["HTTP/1.0\r\n", "HTTP/1.0\r\nConnection: keep-alive\r\n", "HTTP/1.1\r\nHost: h\r\n"]
    {
        let (client, answer) = request(&app, &format!("GET /events {version}\r\n"));
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert_eq!(answer.header("transfer-encoding"), None);
        assert!(rest(&client).ends_with("\n\ndata: x\n\n"));
    }
}

/// RFC 9112 section 9.6: behind a "close" no further request is looked at.
#[test]
fn what_comes_behind_the_request_is_ignored() {
    let server = Server::new(replaying(2));
    let (mut client, _) = request(
        &server.app,
        "GET /events HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
    );
    rest(&client);
    for _ in 0..100 {
        client.send_bytes(
            b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n\x81\x85abcdefghi\x88\x80abcd\xff",
        );
        client.send_bytes(&vec![b'x'; 100_000]);
    }
    server.emit("still there");
    assert!(rest(&client).ends_with("data: still there\n\n"));
    let stats = server.app.stats();
    assert_eq!((stats.requests_total, stats.messages_in, stats.sessions_open), (1, 0, 1));
    assert!(stats.bytes_held < 2_000, "{}", stats.bytes_held);
}

#[test]
fn a_client_ends_a_stream_by_hanging_up() {
    let server = Server::new(replaying(2));
    server.source().client().half_close();
    assert_eq!(server.notes(), ["close 1005 clean by Remote, missed 0"]);
    server.source().client().reset();
    assert_eq!(server.notes().len(), 2, "an error, and the close");
    let stats = server.app.stats();
    let closed = (stats.closed_no_status, stats.closed_abnormal, stats.event_streams_open);
    assert_eq!((closed, server.flow.subscription_count()), ((1, 1, 0), 0));
}

#[test]
fn heartbeats_go_out_and_cost_nothing_while_they_arrive() {
    for timeout in [5, 10, 50] {
        let options = WebSockets::new().ping_period(secs(10)).timeout(secs(timeout));
        let server = Server::with(replaying(2), options.idle_timeout(secs(20)));
        let mut source = server.source();
        let held = server.app.stats().bytes_held;
        server.app.advance(secs(3_605));
        let heartbeats = source.comments() as u64;
        assert!((358..=360).contains(&heartbeats), "{heartbeats} with a timeout of {timeout} s");
        assert_eq!(server.app.stats().pings_out, heartbeats);
        assert!(!source.is_over() && server.notes().is_empty());
        assert_eq!(server.app.stats().bytes_held, held);
        source.expect_nothing();
    }
}

/// Nothing of it is acknowledged any more: found at the heartbeat, within a time and a half more.
#[test]
fn a_peer_that_is_gone_is_seen_by_what_it_does_not_take() {
    let options = WebSockets::new().ping_period(secs(10)).timeout(secs(5));
    let server = Server::with(replaying(2), options);
    let mut source = server.source();
    source.client().vanish();
    server.app.advance(secs(14));
    assert!(server.notes().is_empty());
    server.app.advance(secs(7));
    assert_eq!(server.notes(), ["error Ping timeout", "close 1011 unclean by Local, missed 0"]);
}

#[test]
fn a_slow_peer_holds_one_message_and_loses_what_the_flow_drops() {
    let server = Server::new(replaying(2));
    let mut source = server.source();
    assert_eq!(events(&mut source), []);
    source.client().read_only(10);
    server.emit_numbers(100..110);
    assert!(server.app.stats().bytes_held < 3_000);
    source.client().read_on();
    assert_eq!(events(&mut source), messages(&["100", "108", "109"]));
    source.client().half_close();
    assert_eq!(server.notes(), ["close 1005 clean by Remote, missed 7"]);
}

/// Of what is dropped nothing is left, wherever the socket stopped, and all of it is counted: a heartbeat
/// beside it is no message.
#[test]
fn policies_drop_whole_events() {
    for policy in [OutboxOverflow::DropOldest, OutboxOverflow::DropNewest] {
        for cut in 0..60 {
            let dropped = Rc::new(Cell::new(0));
            let told = Rc::clone(&dropped);
            let app = TestApplication::new(move |app: &mut Application| {
                app.install(WebSockets::new().on_outbox_full(policy).outbox_bytes(40));
                app.routing(move |route| {
                    route.event_stream("/events", move |_: &Call| {
                        let mut number = 0;
                        let told = Rc::clone(&told);
                        on_connect(|session, _| timer_of_a_second(session)).on_timer(
                            move |session, _| {
                                session.set_timer(secs(1))?;
                                number += 1;
                                session.send(format!("number {number}"))?;
                                session.ping(b"")?;
                                told.set(session.dropped());
                                Ok(())
                            },
                        )
                    });
                });
            })
            .unwrap();
            let mut source = app.event_source("/events");
            source.client().read_only(cut);
            app.advance(secs(10));
            source.client().read_on();
            app.advance(secs(2));
            let numbers: Vec<u32> = std::iter::from_fn(|| source.receive())
                .map(|event| event.data.strip_prefix("number ").unwrap().parse().unwrap())
                .collect();
            assert!(numbers.is_sorted() && numbers.len() < 11, "{policy:?} {cut}: {numbers:?}");
            assert!(numbers.ends_with(&[12]) || numbers.ends_with(&[11]), "{policy:?} {numbers:?}");
            let came = numbers.len() as u64;
            let sent = u64::from(*numbers.last().unwrap());
            assert_eq!(came + dropped.get(), sent, "{policy:?} {cut}: {numbers:?}");
        }
    }
}

/// Where it begins in a flow belongs to the answer: without it who comes back would miss something.
#[test]
fn no_policy_drops_where_a_flow_begins() {
    for cut in 0..80 {
        let flow: SharedFlow = SharedFlow::with(replaying(2)).unwrap();
        let collected = flow.clone();
        let app = TestApplication::new(move |app: &mut Application| {
            let options = WebSockets::new().on_outbox_full(OutboxOverflow::DropOldest);
            app.install(options.outbox_bytes(60));
            app.routing(move |route| {
                route.event_stream("/events", move |_: &Call| {
                    let flow = collected.clone();
                    on_connect(|session, _| timer_of_a_second(session)).on_timer(
                        move |session, _| {
                            session.set_timer(secs(1))?;
                            session.send("before")?;
                            session.collect(&flow)?;
                            session.send("behind")
                        },
                    )
                });
            });
        })
        .unwrap();
        let mut source = app.event_source("/events");
        source.client().read_only(cut);
        app.advance(secs(5));
        source.client().read_on();
        app.advance(secs(1));
        while source.receive().is_some() {}
        assert!(!source.last_event_id().is_empty(), "{cut}");
    }
}

#[test]
fn the_outbox_closes_where_its_policy_does() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().outbox_bytes(100));
        app.routing(|route| {
            route.event_stream("/events", |_: &Call| {
                on_connect(|session, _| timer_of_a_second(session)).on_timer(|session, _| {
                    session.set_timer(secs(1))?;
                    session.send("x".repeat(60))
                })
            });
        });
    })
    .unwrap();
    let mut source = app.event_source("/events");
    source.client().read_only(5);
    app.advance(secs(6));
    let stats = app.stats();
    assert_eq!((stats.closed_try_again, stats.sessions_open), (1, 0));
    source.client().read_on();
    assert_eq!(events(&mut source), messages(&[&"x".repeat(60)]), "what had begun");
    assert!(source.is_over());
}

#[test]
fn one_hook_asks_and_the_origin_rule_applies() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.on_upgrade(|call| match call.header("x-gone") {
                Some(_) => Err(Response::new(204)),
                None => Ok(Accept::new().header("X-Outer", "1")),
            });
            route
                .event_stream("/events", |_: &Call| on_connect(|session, _| session.send("x")))
                .on_request(|call| match call.header("x-who") {
                    Some(_) => Ok(Accept::new()
                        .header("Set-Cookie", "a=b")
                        .header("cache-control", "private")
                        .header("content-type", "text/html")),
                    None => Err(Response::text("who are you?").status(401)),
                });
        });
    })
    .unwrap();
    let status = |lines: &str| {
        request(&app, &format!("GET /events HTTP/1.1\r\nHost: box.local\r\n{lines}\r\n")).1.status
    };
    assert_eq!((status("X-Gone: 1\r\n"), status("")), (204, 401));
    assert_eq!(status("X-Who: me\r\nOrigin: http://evil.example\r\n"), 403);
    assert_eq!(status("X-Who: me\r\nOrigin: null\r\n"), 403);
    let (_client, answer) =
        request(&app, "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Who: me\r\n\r\n");
    assert_eq!((answer.status, answer.header("set-cookie")), (200, Some("a=b")));
    assert_eq!(answer.header("x-outer"), Some("1"));
    let head = answer.head.to_ascii_lowercase();
    assert_eq!(
        (head.matches("content-type").count(), head.matches("cache-control").count()),
        (1, 1)
    );
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
}

/// An `EventSource` comes back after 200 alone, so who is refused for now gets that.
#[test]
fn who_is_refused_for_now_is_told_when_to_come_back() {
    let limits =
        Limits::new().max_connections(1).handshake_rate(crate::options::Rate::per_second(1));
    let options = WebSockets::new().limits(limits);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options);
        app.routing(|route| {
            route.get("/page", |_| "page");
            route
                .event_stream("/events", |_: &Call| on_connect(|_, _| Ok(())))
                .retry(Duration::from_millis(100));
            route.web_socket("/events", |_: &Call| on_connect(|_, _| Ok(())));
        });
    })
    .unwrap();
    let refused = |app: &TestApplication, least: u64, most: u64| {
        let mut source = app.event_source("/events");
        let retry = source.retry().unwrap();
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        assert!(range.contains(&retry), "{retry:?}");
        assert_eq!(source.answer().header("cache-control"), Some("no-store"));
        assert_eq!(source.receive(), None);
        assert!(source.answer().header("content-length").is_some());
    };
    let mut first = app.event_source("/events");
    assert!(!first.is_over());
    refused(&app, 5_000, 7_500); // no place: others are told 5 s
    assert_eq!((app.get("/page").status, app.stats().refused_full), (503, 2));
    assert_eq!(app.upgrade("/events").connect().unwrap_err().status, 503, "no event source");
    first.client().half_close();
    refused(&app, 1_000, 10_000); // over the rate of requests
    assert_eq!(app.stats().refused_rate, 1);
}

#[test]
fn who_comes_to_a_server_that_stops_is_told_when_to_come_back() {
    let server = Server::new(replaying(2));
    let (mut held, mut other) = (server.source(), server.source());
    held.client().read_only(10);
    server.emit("goes out first");
    server.app.shutdown(secs(5));
    assert!(other.is_over() && !held.is_over());
    let mut refused = server.source();
    assert!((3.0..=4.5).contains(&refused.retry().unwrap().as_secs_f64()));
    assert!(refused.receive().is_none() && refused.is_over());
    assert_eq!(server.app.stats().event_streams_total, 2);
}

#[test]
fn a_route_has_one_answer_to_a_get() {
    let mistake = |add: fn(&mut crate::app::routing::Routing<'_>)| {
        let mut application = Application::new();
        application.install(WebSockets::new());
        application.routing(add);
        application.build().err()
    };
    assert!(
        mistake(|route| {
            route.get("/x", |_| "x");
            route.event_stream("/x", |_: &Call| on_connect(|_, _| Ok(())));
        })
        .unwrap()
        .contains("/x")
    );
    assert!(
        mistake(|route| {
            route.event_stream("/{a}", |_: &Call| on_connect(|_, _| Ok(())));
            route.event_stream("/{b}", |_: &Call| on_connect(|_, _| Ok(())));
        })
        .unwrap()
        .contains("event streams")
    );
    let unguarded = mistake(|route| {
        route.event_stream("/x", |_: &Call| on_connect(|_, _| Ok(())));
        route.on_upgrade(|_| Ok(Accept::new()));
    });
    assert!(unguarded.unwrap().contains("on_upgrade comes after"));
    let absurd = mistake(|route| {
        route.event_stream("/x", |_: &Call| on_connect(|_, _| Ok(()))).retry(Duration::ZERO);
    });
    assert!(absurd.unwrap().contains("retry"));
    assert_eq!(
        mistake(|route| {
            route.event_stream("/x", |_: &Call| on_connect(|_, _| Ok(())));
            route.web_socket("/x", |_: &Call| on_connect(|_, _| Ok(())));
        }),
        None
    );
}

/// Reading a stream's peer cannot pause: nothing is taken from it.
#[test]
fn a_stream_that_publishes_is_not_paused() {
    thread_local! {
        static FLOW: SharedFlow = SharedFlow::new();
    }
    let app = app_of(WebSockets::new(), |session| {
        session.pause();
        FLOW.with(|flow| {
            session.collect(flow)?;
            session.emit(flow, "a")?;
            session.emit(flow, "b")
        })?;
        assert!(!session.is_paused());
        Ok(())
    });
    let mut source = app.event_source("/events");
    assert_eq!(events(&mut source), messages(&["a", "b"]));
    source.client().half_close();
    assert_eq!(app.stats().sessions_open, 0);
}

/// Wherever the socket stops, what comes later is whole and in order.
#[test]
fn a_stream_may_be_cut_anywhere() {
    for piece in 1..40 {
        let server = Server::new(replaying(5));
        let mut source = server.source();
        source.client().limit_writes(piece);
        server.emit_numbers(0..5);
        server.app.advance(secs(1));
        assert_eq!(events(&mut source), messages(&["0", "1", "2", "3", "4"]));
    }
}

/// What a hook sent before it failed is gathered, and goes out when there is no stream any more.
#[test]
fn events_before_a_failure_arrive_whole_however_slowly_they_are_taken() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.event_stream("/events", |_: &Call| {
                on_connect(|session, _| timer_of_a_second(session)).on_timer(|session, _| {
                    // Taken for frames, the letters x would be a control frame, which overtakes.
                    session.send("a".repeat(150) + &"x".repeat(200))?;
                    session.send("the second")?;
                    panic!("the hook failed")
                })
            });
        });
    })
    .unwrap();
    app.tolerate_panics();
    let mut source = app.event_source("/events");
    source.client().limit_writes(2);
    app.advance(secs(1));
    source.expect_event("message", &("a".repeat(150) + &"x".repeat(200)));
    source.expect_event("message", "the second");
    assert!(source.is_over());
}

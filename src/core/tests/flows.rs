//! Flows under virtual time: replay, order, slow subscribers, and what the publisher feels of them.

use std::cell::RefCell;
use std::rc::Rc;

use std::time::Duration;

use super::{secs, texts};
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::testing::{Ending, Received, TestApplication, TestClient};
use crate::words::close::CloseCode;
use crate::words::limits::Limits;

/// `/listen` collects, `/talk` publishes what it gets, `/chat` does both, `/others` both but for its
/// own; all in one flow.
fn app_with(options: FlowOptions, installed: WebSockets) -> (TestApplication, SharedFlow) {
    let flow: SharedFlow = SharedFlow::with(options).unwrap();
    let (listen, talk, chat, others) = (flow.clone(), flow.clone(), flow.clone(), flow.clone());
    let module = move |app: &mut Application| {
        app.install(installed);
        app.routing(move |route| {
            route.web_socket("/listen", move |_: &Call| {
                let flow = listen.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
            route.web_socket("/talk", move |_: &Call| {
                let flow = talk.clone();
                on_message(move |session, message| {
                    session.emit(&flow, message.text().unwrap_or_default())?;
                    session.send("done")
                })
            });
            route.web_socket("/chat", move |_: &Call| {
                let (joined, said) = (chat.clone(), chat.clone());
                on_connect(move |session, _| {
                    session.send("welcome")?;
                    session.collect(&joined)
                })
                .on_message(move |session, message| {
                    session.emit(&said, message.text().unwrap_or_default())?;
                    session.send("said")
                })
            });
            route.web_socket("/others", move |_: &Call| {
                let (joined, said) = (others.clone(), others.clone());
                on_connect(move |session, _| session.collect_others(&joined)).on_message(
                    move |session, message| session.emit(&said, message.text().unwrap_or_default()),
                )
            });
        });
    };
    (TestApplication::new(module).unwrap(), flow)
}

fn app(options: FlowOptions) -> (TestApplication, SharedFlow) {
    app_with(options, WebSockets::new().ping_period(None))
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn everybody_gets_everything_in_order_and_the_publisher_too() {
    let (app, flow) = app(FlowOptions::new());
    let (mut one, mut two) = (app.web_socket("/chat"), app.web_socket("/chat"));
    one.send("from one");
    two.send("from two");
    assert_eq!(texts(&mut one), ["welcome", "from one", "said", "from two"]);
    assert_eq!(texts(&mut two), ["welcome", "from one", "from two", "said"]);
    assert_eq!(flow.subscription_count(), 2);
    drop(one);
    assert_eq!(flow.subscription_count(), 1);
}

#[test]
fn everybody_but_me() {
    let (app, _) = app(FlowOptions::new());
    let (mut one, mut two) = (app.web_socket("/others"), app.web_socket("/others"));
    one.send("hello");
    assert_eq!(texts(&mut one), [""; 0]);
    assert_eq!(texts(&mut two), ["hello"]);
}

#[test]
fn who_comes_late_gets_the_replay_first() {
    let (app, _) = app(FlowOptions::new().replay(2));
    let mut talker = app.web_socket("/talk");
    for n in numbers(0..5) {
        talker.send(&n);
    }
    let mut late = app.web_socket("/chat");
    talker.send("5");
    assert_eq!(texts(&mut late), ["welcome", "3", "4", "5"]);
}

#[test]
fn a_message_is_lost_where_nobody_collects() {
    let (app, flow) = app(FlowOptions::new());
    app.web_socket("/talk").send("lost");
    assert!(flow.try_emit("lost too"));
    assert_eq!(texts(&mut app.web_socket("/listen")), [""; 0]);
    assert_eq!(flow.dropped(), 0);
}

#[test]
fn a_suspended_publisher_goes_on_when_the_slowest_has_caught_up_and_nothing_is_lost() {
    let (app, flow) = app(FlowOptions::new().extra_buffer(4));
    let (mut slow, mut quick) = (app.web_socket("/listen"), app.web_socket("/listen"));
    let mut talker = app.web_socket("/talk");
    slow.read_only(0);
    for n in numbers(0..50) {
        talker.send(&n);
    }
    // One is pinned by the slow subscriber, four are in the buffer, one more overran it.
    assert_eq!(texts(&mut quick), numbers(0..6));
    assert_eq!(texts(&mut talker).len(), 6);
    assert!(!flow.try_emit("refused"), "it would have to wait");
    slow.read_on();
    assert_eq!(texts(&mut slow), numbers(0..50));
    assert_eq!(texts(&mut quick), numbers(6..50));
    assert_eq!((texts(&mut talker).len(), flow.dropped()), (44, 0));
}

#[test]
fn without_a_buffer_a_publisher_waits_for_everybody_each_time() {
    let (app, _) = app(FlowOptions::new());
    let mut slow = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    slow.read_only(0);
    for n in numbers(0..5) {
        talker.send(&n);
    }
    assert_eq!(texts(&mut talker).len(), 2, "one is pinned, one overran");
    slow.read_only(3);
    assert_eq!(texts(&mut talker).len(), 1);
    slow.read_on();
    assert_eq!(texts(&mut slow), numbers(0..5));
}

#[test]
fn a_suspended_publisher_answers_pings_and_is_pinged_but_owes_no_pong() {
    let pings = WebSockets::new().ping_period(secs(15)).write_timeout(secs(120));
    let (app, _) = app_with(FlowOptions::new(), pings);
    let mut slow = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    slow.read_only(0);
    slow.answer_pings(false);
    talker.answer_pings(false);
    for n in numbers(0..4) {
        talker.send(&n);
    }
    assert_eq!(texts(&mut talker).len(), 2);
    talker.ping(b"still there?");
    assert_eq!(talker.receive(), Some(Received::Pong(b"still there?".to_vec())));
    // The one who does not read is pinged, answers nothing and goes; then the publisher goes on.
    app.advance(secs(29));
    assert!(matches!(talker.receive(), Some(Received::Ping(_))));
    talker.expect_nothing();
    app.advance(Duration::from_millis(500)); // just before its second
    talker.expect_nothing();
    app.advance(Duration::from_millis(1_500));
    let went_on = std::iter::from_fn(|| talker.receive());
    assert_eq!(went_on.filter(|it| matches!(it, Received::Text(_))).count(), 2);
    // Now that it is read it owes an answer to the last one, and has as much time for it as anybody.
    app.advance(secs(13));
    talker.expect_nothing();
    app.advance(secs(2));
    talker.expect_close(CloseCode::INTERNAL_ERROR);
}

#[test]
fn the_oldest_are_dropped_for_those_who_lag_and_for_nobody_else() {
    let (app, flow) =
        app(FlowOptions::new().extra_buffer(3).on_buffer_overflow(BufferOverflow::DropOldest));
    let (mut slow, mut quick) = (app.web_socket("/listen"), app.web_socket("/listen"));
    let mut talker = app.web_socket("/talk");
    slow.read_only(0);
    for n in numbers(0..20) {
        talker.send(&n);
    }
    assert_eq!(texts(&mut quick), numbers(0..20));
    assert_eq!(texts(&mut talker).len(), 20, "the publisher feels nothing");
    slow.read_on();
    assert_eq!(texts(&mut slow), ["0", "17", "18", "19"], "the pinned one, then the newest three");
    assert_eq!(flow.dropped(), 16);
}

#[test]
fn the_latest_are_dropped_for_everybody() {
    let (app, flow) =
        app(FlowOptions::new().extra_buffer(3).on_buffer_overflow(BufferOverflow::DropLatest));
    let (mut slow, mut quick) = (app.web_socket("/listen"), app.web_socket("/listen"));
    let mut talker = app.web_socket("/talk");
    slow.read_only(0);
    for n in numbers(0..20) {
        talker.send(&n);
    }
    assert_eq!(texts(&mut quick), numbers(0..4));
    slow.read_on();
    assert_eq!(texts(&mut slow), numbers(0..4));
    assert_eq!(flow.dropped(), 16);
    talker.send("again");
    assert_eq!(texts(&mut slow), ["again"]);
}

#[test]
fn of_each_key_the_newest_is_kept() {
    let options = FlowOptions::new().replay(2).on_buffer_overflow(BufferOverflow::Latest);
    let (app, flow) = app(options);
    let mut slow = app.web_socket("/listen");
    slow.read_only(0);
    let emit = |key: &str, value: &str| {
        app.with_server(|_| flow.emit_latest(key, value)).unwrap();
    };
    emit("load", "load 1"); // pinned by the slow one
    for n in 2..10 {
        emit("load", &format!("load {n}"));
        emit("heat", &format!("heat {n}"));
    }
    slow.read_on();
    assert_eq!(texts(&mut slow), ["load 1", "load 9", "heat 9"]);
    assert_eq!(texts(&mut app.web_socket("/listen")), ["load 9", "heat 9"]);
    emit("third", "one key too many");
    assert_eq!(texts(&mut app.web_socket("/listen")), ["heat 9", "one key too many"]);
}

#[test]
fn a_log_at_its_limit_of_bytes_refuses_or_drops() {
    let small = FlowOptions::new().extra_buffer(1_000).max_bytes(4_000);
    let (app, flow) = app(small);
    let mut slow = app.web_socket("/listen");
    slow.read_only(0);
    assert!(flow.emit(&"x".repeat(5_000)).is_err(), "over the limit alone");
    let taken = (0..100).filter(|_| flow.emit(&"x".repeat(900)).is_ok()).count();
    assert!((3..=4).contains(&taken), "{taken}");
    let oldest = small.on_buffer_overflow(BufferOverflow::DropOldest);
    let (app, flow) = self::app(oldest);
    let mut slow = app.web_socket("/listen");
    slow.read_only(0);
    assert!((0..100).all(|_| flow.emit(&"x".repeat(900)).is_ok()));
    assert!(flow.dropped() >= 96);
}

#[test]
fn logs_count_against_the_memory_budget() {
    let installed = WebSockets::new().limits(Limits::new().process_bytes(20_000));
    let (app, flow) = app_with(FlowOptions::new().extra_buffer(1_000), installed);
    let mut slow = app.web_socket("/listen");
    slow.read_only(0);
    let taken = (0..100).filter(|_| flow.emit(&"x".repeat(900)).is_ok()).count();
    assert!((15..=21).contains(&taken), "{taken}");
    assert!(app.stats().bytes_held <= 20_000, "{}", app.stats().bytes_held);
    drop(slow);
    assert_eq!(app.stats().bytes_held, 0);
}

/// A session that says in the flow what it is told, and takes nothing of what comes behind its welcome.
fn stalled_chatter() -> (TestApplication, SharedFlow, TestClient) {
    let (app, flow) = app(FlowOptions::new().extra_buffer(100));
    let mut chatter = app.web_socket("/chat");
    assert_eq!(texts(&mut chatter), ["welcome"]);
    chatter.read_only(0);
    (app, flow, chatter)
}

#[test]
fn direct_messages_keep_their_place_among_those_of_the_flow() {
    let (app, flow, mut chatter) = stalled_chatter();
    app.with_server(|_| flow.emit("a")).unwrap();
    for n in numbers(0..3) {
        chatter.send(&n);
    }
    app.with_server(|_| flow.emit("b")).unwrap();
    chatter.send("3");
    chatter.read_on();
    let expected = ["a", "0", "said", "1", "said", "2", "said", "b", "3", "said"];
    assert_eq!(texts(&mut chatter), expected);
}

#[test]
fn a_flow_never_comes_between_the_fragments_of_a_message() {
    let flow: SharedFlow = SharedFlow::with(FlowOptions::new().extra_buffer(100)).unwrap();
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said) = (flow.clone(), flow.clone());
                on_connect(move |session, _| session.collect(&joined)).on_message(
                    move |session, message| {
                        match message.text().unwrap_or_default() {
                            "first" => session.send_fragment("1", false)?,
                            "last" => session.send_fragment("2", true)?,
                            other => session.emit(&said, other)?,
                        }
                        Ok(())
                    },
                )
            });
        });
    })
    .unwrap();
    for stalled in [false, true] {
        let mut client = app.web_socket("/");
        if stalled {
            client.read_only(0);
        }
        for step in ["a", "first", "b", "last", "c"] {
            client.send(step);
        }
        client.read_on();
        assert_eq!(texts(&mut client), ["a", "12", "b", "c"], "stalled: {stalled}");
    }
}

#[test]
fn large_flow_messages_are_cut_for_those_who_take_less() {
    let (app, flow) = app_with(
        FlowOptions::new(),
        WebSockets::new().ping_period(None).max_frame_size(10).max_outgoing_message_size(100),
    );
    let mut client = app.web_socket("/listen");
    flow.emit(&"x".repeat(25)).unwrap();
    flow.emit(&"y".repeat(101)).unwrap();
    app.advance(secs(0));
    let frames: Vec<usize> =
        std::iter::from_fn(|| client.receive_frame()).map(|frame| frame.payload.len()).collect();
    assert_eq!(frames, [10, 10, 5], "and of the one over the limit nothing");
}

#[test]
fn a_stalled_subscriber_is_cut_by_the_write_timeout_and_frees_the_publisher() {
    let installed = WebSockets::new().ping_period(None).write_timeout(secs(30));
    let (app, _) = app_with(FlowOptions::new(), installed);
    let mut slow = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    slow.read_only(1);
    for n in numbers(0..10) {
        talker.send(&n);
    }
    assert!(texts(&mut talker).len() < 10);
    app.advance(secs(31));
    assert_eq!(texts(&mut talker).len(), 8);
    assert_eq!(slow.ending(), Some(Ending::Reset));
    assert_eq!((app.stats().timeouts_write, app.stats().bytes_held), (1, 0));
}

/// Who closes wants no more of its flows, and gets all the same what was sent to itself alone.
#[test]
fn direct_messages_behind_flow_messages_go_out_before_the_answer_to_a_close() {
    let (app, flow, mut chatter) = stalled_chatter();
    numbers(0..3).iter().for_each(|n| app.with_server(|_| flow.emit(n)).unwrap());
    chatter.send("3");
    chatter.send_frame(0x88, &[]);
    chatter.read_on();
    assert_eq!(texts_until_close(&mut chatter).0, ["0", "said"]);
}

fn texts_until_close(client: &mut TestClient) -> (Vec<String>, bool) {
    let mut texts = Vec::new();
    loop {
        match client.receive() {
            Some(Received::Text(text)) => texts.push(text),
            Some(Received::Close(code, _)) => return (texts, code == CloseCode::TRY_AGAIN_LATER),
            other => panic!("{other:?} after {texts:?}"),
        }
    }
}

#[test]
fn a_close_comes_behind_what_was_published_before_it_and_ends_collecting() {
    let flow: SharedFlow = SharedFlow::with(FlowOptions::new().extra_buffer(10)).unwrap();
    let shared = flow.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said) = (shared.clone(), shared.clone());
                on_connect(move |session, _| session.collect(&joined)).on_message(
                    move |session, _| {
                        session.emit(&said, "before")?;
                        session.close(crate::CloseReason::try_from(CloseCode::TRY_AGAIN_LATER)?)?;
                        Ok(said.emit("after")?)
                    },
                )
            });
        });
    })
    .unwrap();
    for stalled in [false, true] {
        let mut client = app.web_socket("/");
        if stalled {
            client.read_only(0);
            app.with_server(|_| flow.emit("pinned")).unwrap();
        }
        client.send("go");
        client.read_on();
        let (texts, closed) = texts_until_close(&mut client);
        let expected: &[&str] = if stalled { &["pinned", "before"] } else { &["before"] };
        assert_eq!((texts, closed), (expected.iter().map(|t| t.to_string()).collect(), true));
        drop(client);
        assert_eq!(flow.subscription_count(), 0);
    }
}

#[test]
fn a_filter_may_use_the_flow_it_filters() {
    let flow: SharedFlow = SharedFlow::new();
    let seen = Rc::new(RefCell::new(0));
    let (shared, counter) = (flow.clone(), Rc::clone(&seen));
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, looked_at) = (shared.clone(), shared.clone());
                let counter = Rc::clone(&counter);
                on_connect(move |session, _| {
                    let (looked_at, counter) = (looked_at.clone(), Rc::clone(&counter));
                    session.collect_if(&joined, move |published| {
                        let publisher = published.publisher();
                        assert_eq!((looked_at.subscription_count(), publisher), (1, None));
                        *counter.borrow_mut() += 1;
                        published.message().text() != Some("no")
                    })
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    for text in ["yes", "no", "yes again"] {
        flow.emit(text).unwrap();
    }
    app.advance(secs(0));
    assert_eq!(texts(&mut client), ["yes", "yes again"]);
    assert!(*seen.borrow() >= 3);
}

/// The frames that have arrived, as first byte and payload.
fn frames(client: &mut TestClient) -> Vec<(u8, String)> {
    std::iter::from_fn(|| client.receive_frame())
        .map(|frame| (frame.first, String::from_utf8_lossy(&frame.payload).into_owned()))
        .collect()
}

/// A session whose messages say what it does with the flow, one letter each.
fn scripted(options: FlowOptions) -> (TestApplication, SharedFlow) {
    let flow: SharedFlow = SharedFlow::with(options).unwrap();
    let theirs = flow.clone();
    let module = move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let flow = theirs.clone();
                on_message(move |session, message| {
                    for step in message.text().unwrap_or_default().chars() {
                        match step {
                            'c' => session.collect(&flow)?,
                            's' => session.stop_collecting(&flow),
                            'e' => session.emit(&flow, "e")?,
                            '(' => session.send_fragment("(", false)?,
                            ')' => session.send_fragment(")", true)?,
                            _ => session.close(CloseCode::NORMAL)?,
                        }
                    }
                    Ok(())
                })
            });
        });
    };
    (TestApplication::new(module).unwrap(), flow)
}

/// Found by simulation: a Close waited behind flow messages, and they went into the open message.
#[test]
fn a_close_does_not_let_flow_messages_into_an_unfinished_message() {
    let (app, flow) = scripted(FlowOptions::new().replay(1));
    flow.emit("old").unwrap();
    let mut client = app.web_socket("/");
    client.send("(c.");
    assert_eq!(frames(&mut client), [(0x01, "(".into()), (0x88, "\u{3}\u{fffd}".into())]);
    client.expect_end(Ending::Closed);
}

/// Found by simulation: a replay is older than the last fragment that waits, and went before it.
#[test]
fn a_replay_does_not_get_between_fragments_that_wait() {
    let (app, _) = scripted(FlowOptions::new().replay(1).extra_buffer(5));
    let mut client = app.web_socket("/");
    client.send("c");
    client.read_only(0);
    client.send("ee()");
    client.read_only(3 + 3 + 2); // both messages, and the header of the first fragment
    client.send("sc");
    client.read_on();
    let expected = [(0x81, "e"), (0x81, "e"), (0x01, "("), (0x80, ")"), (0x81, "e")];
    assert_eq!(frames(&mut client), expected.map(|(first, text)| (first, text.to_owned())));
}

//! What a session that is not read holds, for how long, and how its peer's end is seen meanwhile.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
use crate::flow::options::FlowOptions;
use crate::flow::shared_flow::SharedFlow;
use crate::testing::frames::masked;
use crate::testing::{Ending, Received, TestApplication};
use crate::words::close::{CloseCode, CloseReason};
use crate::words::rate::Rate;

/// What a session may hold of its input: two read buffers, and what it is boxed in.
const HELD_MAX: u64 = (128 << 10) + 1_000;

/// How sessions end, and what they were told.
type Events = Rc<RefCell<Vec<String>>>;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Sessions that do what their messages say. Each resumes with its timer.
fn app(options: WebSockets) -> (TestApplication, Events) {
    let events = Events::default();
    let notes = Rc::clone(&events);
    let app = TestApplication::new(move |app: &mut Application| {
        let flow: SharedFlow = app.flow(FlowOptions::new());
        app.install(options);
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, flow) = (flow.clone(), flow.clone());
                let (note, pong) = (Rc::clone(&notes), Rc::clone(&notes));
                let (error, end) = (Rc::clone(&notes), Rc::clone(&notes));
                on_connect(move |session, call| match call.query() {
                    "collects" => session.collect(&joined),
                    _ => Ok(()),
                })
                .on_message(move |session, message| {
                    let text = message.text().unwrap_or_default();
                    match text.split_whitespace().next() {
                        Some("pause") => session.pause(),
                        Some("briefly") => {
                            session.pause();
                            session.set_timer(millis(1))?;
                        }
                        Some("wait") => {
                            session.pause();
                            session.set_timer(secs(3))?;
                        }
                        Some("emit") => session.emit(&flow, text)?,
                        _ => note.borrow_mut().push(text.to_owned()),
                    }
                    Ok(())
                })
                .on_timer(|session, _| {
                    session.resume();
                    Ok(())
                })
                .on_pong(move |_, _| {
                    pong.borrow_mut().push("pong".into());
                    Ok(())
                })
                .on_error(move |_, fault| error.borrow_mut().push(format!("error {fault}")))
                .on_close(move |_, close| end.borrow_mut().push(format!("close {}", close.code())))
            });
        });
    })
    .unwrap();
    (app, events)
}

fn quiet() -> WebSockets {
    WebSockets::new().ping_period(None)
}

fn frames(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| masked(0x81, text.as_bytes())).collect()
}

fn text_of(start: &str, bytes: usize) -> String {
    format!("{start:x<bytes$}")
}

#[track_caller]
fn expect(events: &Events, expected: &[&str]) {
    assert_eq!(*events.borrow(), expected);
}

#[test]
fn a_session_that_pauses_with_every_message_gives_back_what_it_took() {
    let (app, _) = app(quiet());
    let mut client = app.web_socket("/");
    let one = masked(0x81, text_of("briefly ", 100).as_bytes());
    client.send_bytes(&one.repeat(300));
    let mut most = 0;
    for _ in 0..20_000 {
        client.send_bytes(&one);
        app.advance(millis(8)); // a tick, and with it one message
        most = most.max(app.stats().bytes_held);
    }
    assert!(app.stats().messages_in >= 9_000, "{} taken", app.stats().messages_in);
    assert!(most <= HELD_MAX, "{most} held");
}

#[test]
fn a_publisher_that_collects_its_own_flow_gives_back_what_it_took() {
    let (app, events) = app(quiet());
    let mut client = app.web_socket("/?collects");
    let (mut most, mut came) = (0, 0);
    // It never catches up in full, so that something is always held.
    let some = masked(0x81, text_of("emit ", 100).as_bytes());
    client.read_only(5_000);
    client.send_bytes(&some.repeat(300));
    for _ in 0..30_000 {
        client.send_bytes(&some);
        client.read_only(104);
        came += std::iter::from_fn(|| client.receive()).count();
        most = most.max(app.stats().bytes_held);
    }
    client.read_on();
    came += std::iter::from_fn(|| client.receive()).count();
    assert_eq!(came, 30_300);
    // And what waits for it: an outbox, a pinned message.
    assert!(most <= HELD_MAX + (64 << 10), "{most} held");
    expect(&events, &[]);
}

#[test]
fn a_sender_at_exactly_its_rate_is_held_little() {
    let (app, events) = app(quiet().message_rate(Rate::per_second(1_000).burst(16)));
    let mut client = app.web_socket("/");
    let one = masked(0x81, text_of("pause-less ", 100).as_bytes());
    client.send_bytes(&one.repeat(300));
    let mut most = 0;
    for _ in 0..20_000 {
        client.send_bytes(&one);
        app.advance(millis(1));
        most = most.max(app.stats().bytes_held);
    }
    assert!(most <= HELD_MAX, "{most} held");
    assert!(app.stats().messages_in >= 19_900, "{} taken", app.stats().messages_in);
    assert_eq!(events.borrow().len() as u64, app.stats().messages_in);
}

#[test]
fn pings_among_what_is_held_are_answered_however_many_there_are() {
    let (app, events) = app(quiet());
    let mut client = app.web_socket("/");
    client.send_bytes(&frames(&["pause", "first"]));
    let mut flood = masked(0x89, b"?").repeat(9_000);
    flood.extend(frames(&["second"]));
    let mut pongs = 0;
    for _ in 0..20 {
        client.send_bytes(&flood);
        pongs += std::iter::from_fn(|| client.receive_frame()).count();
    }
    assert_eq!(pongs, 180_000);
    assert!(app.stats().bytes_held <= 3_000, "{} held", app.stats().bytes_held);
    expect(&events, &[]);
}

/// As those that come while nothing is held: `pause` withholds messages.
#[test]
fn the_hook_for_pings_runs_while_messages_are_held() {
    let heard: Rc<RefCell<Vec<String>>> = Rc::default();
    let pings = Rc::clone(&heard);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let pings = Rc::clone(&pings);
                on_message(|session, _| {
                    session.pause();
                    Ok(())
                })
                .on_ping(move |_, payload| {
                    pings.borrow_mut().push(format!("ping {}", payload.len()));
                    Ok(())
                })
            });
        });
    });
    let app = app.unwrap();
    let mut client = app.web_socket("/");
    client.send("pause");
    client.send("held");
    client.ping(b"a");
    client.ping(b"bc");
    assert_eq!(heard.take(), ["ping 1", "ping 2"]);
    assert_eq!((app.stats().pings_in, app.stats().messages_in), (2, 1));
}

#[test]
fn what_is_held_is_taken_before_the_peers_end_counts() {
    let (app, events) = app(quiet());
    let mut client = app.web_socket("/");
    client.send_bytes(&frames(&["wait", "one", "two"]));
    client.half_close();
    app.advance(millis(2_900));
    expect(&events, &[]);
    app.advance(millis(200));
    expect(&events, &["one", "two", "close 1006"]);
    assert_eq!(app.stats().sessions_open, 0);
}

#[test]
fn who_takes_what_is_held_bit_by_bit_gets_all_of_it() {
    let (app, events) = app(quiet());
    let mut client = app.web_socket("/");
    client.send_bytes(&frames(&["wait", "1", "wait", "2", "wait", "3", "wait", "4"]));
    client.half_close();
    app.advance(secs(13));
    expect(&events, &["1", "2", "3", "4", "close 1006"]);
}

/// However much is held: little is read on and its end is read, much is not.
#[test]
fn a_peer_that_ends_while_nothing_is_taken_is_found_gone() {
    for bytes in [10, 60_000, 500_000] {
        let (app, events) = app(quiet());
        let mut client = app.web_socket("/");
        client.send("pause");
        for _ in 0..bytes / 10_000 + 1 {
            client.send_bytes(&frames(&[&text_of("held ", bytes.min(10_000))]));
        }
        app.advance(secs(100));
        client.half_close();
        app.advance(millis(4_900));
        expect(&events, &[]);
        app.advance(millis(200));
        expect(&events, &["close 1006"]);
        client.expect_end(Ending::Closed);
        assert_eq!(app.stats().bytes_held, 0);
    }
}

#[test]
fn a_connection_that_fails_while_it_is_not_read_ends_the_session_at_once() {
    for bytes in [10, 60_000] {
        let (app, events) = app(quiet());
        let mut client = app.web_socket("/");
        client.send("pause");
        client.send_bytes(&frames(&[&text_of("held ", bytes)]));
        client.reset();
        expect(&events, &["error connection lost: connection reset", "close 1006"]);
    }
}

#[test]
fn a_suspended_publisher_and_one_over_its_rate_are_found_gone_too() {
    let (suspended, ends) = app(quiet());
    let mut slow = suspended.web_socket("/?collects");
    slow.read_only(0);
    let mut talker = suspended.web_socket("/");
    talker.send_bytes(&frames(&["emit 1", "emit 2", "emit 3", "emit 4"]));
    talker.half_close();
    suspended.advance(millis(5_100));
    expect(&ends, &["close 1006"]);

    let (paced, ends) = app(quiet().message_rate(Rate::per_minute(2)));
    let mut client = paced.web_socket("/");
    client.send_bytes(&frames(&["a", "b", "c", "d"]));
    client.half_close();
    paced.advance(millis(5_100));
    expect(&ends, &["a", "b", "close 1006"]);
}

/// The end was read with what is held, and nobody says it again.
#[test]
fn an_end_behind_a_last_message_that_begins_another_pause_is_not_lost() {
    let (paused, ends) = app(quiet());
    let mut client = paused.web_socket("/");
    client.send_bytes(&frames(&["wait", "pause"]));
    client.half_close();
    paused.advance(millis(3_100));
    expect(&ends, &["close 1006"]);

    let (paced, ends) = app(quiet().message_rate(Rate::per_second(1)));
    let mut client = paced.web_socket("/");
    client.send_bytes(&frames(&["a", "b"]));
    client.half_close();
    paced.advance(millis(1_100));
    expect(&ends, &["a", "b", "close 1006"]);
}

fn pinging() -> WebSockets {
    WebSockets::new().ping_period(secs(15)).timeout(secs(15))
}

#[test]
fn pongs_are_taken_out_of_what_is_held() {
    let (app, events) = app(pinging());
    let mut client = app.web_socket("/");
    client.send_bytes(&frames(&["pause", "held"]));
    app.advance(secs(61));
    assert_eq!(events.borrow().len(), 4, "{events:?}");
    assert!(events.borrow().iter().all(|event| event == "pong"));
}

/// Its pong may lie behind what is not read: it is enough that its system takes the ping.
#[test]
fn nobody_is_ended_for_a_pong_that_was_not_read() {
    let (app, events) = app(pinging());
    let mut client = app.web_socket("/");
    client.answer_pings(false);
    client.send("pause");
    client.send_bytes(&frames(&[&text_of("held ", 60_000)]).repeat(3));
    app.advance(secs(600));
    expect(&events, &[]);
    let pings =
        std::iter::from_fn(|| client.receive()).filter(|it| matches!(it, Received::Ping(_)));
    assert!((39..=40).contains(&pings.count()), "they go on at their period");
}

#[test]
fn a_ping_that_is_not_even_acknowledged_ends_the_session() {
    let (app, events) = app(pinging());
    let mut client = app.web_socket("/");
    client.send("pause");
    client.send_bytes(&frames(&[&text_of("held ", 60_000)]));
    client.read_only(0);
    app.advance(millis(29_900));
    expect(&events, &[]);
    app.advance(millis(200));
    expect(&events, &["error Ping timeout", "close 1011"]);
}

#[test]
fn pause_timeout_bounds_a_pause_and_is_off_by_default() {
    for (options, ends) in [(quiet(), false), (quiet().pause_timeout(secs(60)), true)] {
        let (app, events) = app(options);
        let mut client = app.web_socket("/");
        client.send("wait"); // three seconds, and then from the start
        app.advance(secs(2));
        client.send("pause");
        app.advance(secs(60));
        expect(&events, &[]);
        app.advance(millis(1_100));
        if ends {
            expect(&events, &["error Pause timeout", "close 1013"]);
            assert_eq!(client.expect_close(CloseCode::TRY_AGAIN_LATER), "Pause timeout");
            assert_eq!(app.stats().timeouts_pause, 1);
        } else {
            app.advance(secs(10_000));
            expect(&events, &[]);
        }
    }
}

#[test]
fn pause_timeout_counts_for_suspended_publishers_and_for_the_rate() {
    let (suspended, ends) = app(quiet().pause_timeout(secs(10)).write_timeout(secs(100)));
    let mut slow = suspended.web_socket("/?collects");
    slow.read_only(0);
    let mut talker = suspended.web_socket("/");
    talker.send_bytes(&frames(&["emit 1", "emit 2", "emit 3", "emit 4"]));
    suspended.advance(millis(10_100));
    expect(&ends, &["error Pause timeout", "close 1013"]);

    // A message each six seconds is no pause of ten.
    let (paced, ends) = app(quiet().pause_timeout(secs(10)).message_rate(Rate::per_minute(10)));
    let mut client = paced.web_socket("/");
    client.send_bytes(&frames(&["a"; 20]));
    paced.advance(secs(50));
    assert!(ends.borrow().len() >= 10 && ends.borrow().iter().all(|event| event == "a"));
    let (paced, ends) = app(quiet().pause_timeout(secs(10)).message_rate(Rate::per_minute(2)));
    let mut client = paced.web_socket("/");
    client.send_bytes(&frames(&["a"; 20]));
    paced.advance(millis(10_100));
    expect(&ends, &["a", "a", "error Pause timeout", "close 1013"]);
}

#[test]
fn absurd_pause_timeouts_are_refused_by_name() {
    for time in [Duration::ZERO, secs(u64::MAX)] {
        let refused = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new().pause_timeout(time));
        });
        let mistake = refused.unwrap_err().to_string();
        assert!(mistake.contains("pause_timeout"), "{mistake}");
    }
}

#[test]
fn no_ping_is_answered_behind_the_close_of_a_hook_for_a_pong_before_it() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(quiet());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| {
                    let _: () = session.pause();
                    Ok(())
                })
                .on_own_pong(|session, _| session.close(CloseReason::try_from(CloseCode::NORMAL)?))
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send_bytes(
        &[masked(0x89, b"before"), masked(0x8a, b""), masked(0x89, b"behind")].concat(),
    );
    assert_eq!(client.receive(), Some(Received::Pong(b"before".to_vec())));
    client.expect_close(CloseCode::NORMAL);
    client.expect_nothing();
}

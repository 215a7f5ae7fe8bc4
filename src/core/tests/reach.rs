//! What sessions do to each other and to the server, pausing, timers, and the outbox's policies.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::{secs, texts};
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
use crate::structures::ids::SessionId;
use crate::testing::frames::masked;
use crate::testing::{Ending, Received, TestApplication, TestClient};
use crate::words::close::{CloseCode, CloseReason};
use crate::words::error::{HandlerError, SendError};
use crate::words::options::OutboxOverflow;

type Ids = Rc<RefCell<Vec<SessionId>>>;

/// Sessions at `/` that do to the first of them what they are told.
fn reaching(options: WebSockets) -> (TestApplication, Ids) {
    let ids = Ids::default();
    let known = Rc::clone(&ids);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options);
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, known) = (Rc::clone(&known), Rc::clone(&known));
                on_connect(move |session, _| {
                    joined.borrow_mut().push(session.id());
                    Ok(())
                })
                .on_message(move |session, message| {
                    let first = known.borrow()[0];
                    let result = match message.text().unwrap_or_default() {
                        "close" => {
                            let reason = CloseReason::new(CloseCode::NORMAL, "told to")?;
                            session.server().close(first, reason)
                        }
                        "pause" => session.server().pause(first),
                        "resume" => session.server().resume(first),
                        "stop" => {
                            session.server().shutdown(secs(1));
                            Ok(())
                        }
                        _ => session.server().send_to(first, message),
                    };
                    session.send(format!("{result:?}"))
                })
            });
        });
    })
    .unwrap();
    (app, ids)
}

fn quiet() -> WebSockets {
    WebSockets::new().ping_period(None)
}

#[test]
fn a_session_sends_to_another_and_closes_it() {
    let (app, _) = reaching(quiet());
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    second.send("hello");
    assert_eq!(texts(&mut first), ["hello"]);
    second.send("close");
    assert_eq!(first.expect_close(CloseCode::NORMAL), "told to");
    second.send("too late");
    assert_eq!(texts(&mut second), ["Ok(())", "Ok(())", "Err(Gone)"]);
}

#[test]
fn a_stale_id_is_never_somebody_else() {
    let (app, ids) = reaching(quiet());
    let mut first = app.web_socket("/");
    first.close(CloseReason::try_from(CloseCode::NORMAL).unwrap());
    drop(first);
    let mut heir = app.web_socket("/");
    let slots: Vec<String> = ids.borrow().iter().map(ToString::to_string).collect();
    assert_eq!(slots, ["0.0", "0.1"], "the slot is used again");
    app.web_socket("/").send("for the first");
    heir.expect_nothing();
}

#[test]
fn commands_are_done_before_the_next_message_even_of_the_same_read() {
    let (app, _) = reaching(quiet());
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    // All in one read: to itself, in the order of the messages.
    let frames: Vec<u8> =
        ["a", "b", "close", "c"].iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();
    first.send_bytes(&frames);
    let said = ["Ok(())", "a", "Ok(())", "b", "Ok(())"];
    let got: Vec<_> = (0..5).map(|_| first.receive().unwrap()).collect();
    assert_eq!(got, said.map(|text| Received::Text(text.into())));
    first.expect_close(CloseCode::NORMAL);
    second.send("gone by now");
    assert_eq!(texts(&mut second), ["Err(Gone)"]);
}

#[test]
fn a_paused_session_is_not_read_but_answers_pings_and_is_read_on_later() {
    let (app, _) = reaching(WebSockets::new().ping_period(secs(15)).timeout(secs(15)));
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    second.send("pause");
    for text in ["1", "2"] {
        first.send(text);
        first.ping(text.as_bytes());
    }
    let pong = |text: &str| Some(Received::Pong(text.into()));
    assert_eq!((first.receive(), first.receive()), (pong("1"), pong("2")));
    first.answer_pings(false);
    app.advance(secs(100)); // its pongs could lie behind what is not read
    let pings = std::iter::from_fn(|| first.receive());
    assert_eq!(pings.filter(|received| matches!(received, Received::Ping(_))).count(), 6);
    second.send("resume");
    assert_eq!(texts(&mut first), ["Ok(())", "1", "Ok(())", "2"]);
    assert_eq!(texts(&mut second), ["Ok(())", "Ok(())"]);
    app.advance(secs(16));
    assert!(matches!(first.receive(), Some(Received::Ping(_))));
}

#[test]
fn a_paused_session_holds_one_read_buffer_and_loses_nothing() {
    let (app, _) = reaching(quiet());
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    second.send("pause");
    let text = "x".repeat(60_000);
    for _ in 0..10 {
        first.send(&text);
    }
    first.half_close();
    let held = app.stats().bytes_held;
    assert!((32 << 10..=70 << 10).contains(&held), "{held}");
    second.send("resume");
    let echoes = std::iter::from_fn(|| first.receive())
        .filter(|received| *received == Received::Text(text.clone()));
    assert_eq!(echoes.count(), 10, "who has shut its side may still read");
    assert_eq!(app.stats().messages_in, 12);
}

#[test]
fn a_pause_in_which_nothing_is_held_hides_no_end() {
    let (app, _) = reaching(quiet());
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    second.send("pause");
    first.half_close();
    second.send("for the first");
    assert_eq!(texts(&mut second), ["Ok(())", "Err(Gone)"]);
}

#[test]
fn closing_and_stopping_end_a_pause() {
    let (app, _) = reaching(quiet());
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    second.send("pause");
    first.send("held and dropped");
    second.send("close");
    first.expect_close(CloseCode::NORMAL);
    first.expect_end(Ending::Closed);
    second.send("stop");
    assert_eq!(texts_before_close(&mut second), (3, CloseCode::GOING_AWAY));
    assert!(app.is_stopped());
}

/// Found by the simulation, after 67,844 seeds.
#[test]
fn nothing_held_is_answered_behind_our_close() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(quiet());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| {
                    session.pause();
                    session.close(CloseReason::try_from(CloseCode::NORMAL)?)
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    let (text, ping) = (masked(0x81, b"bye"), masked(0x89, b"and?"));
    client.send_bytes(&[text, ping].concat());
    client.expect_close(CloseCode::NORMAL);
    assert_eq!(client.receive_frame(), None, "RFC 6455 section 5.5.1: nothing follows a Close");
    client.expect_end(Ending::Closed);
}

fn texts_before_close(client: &mut TestClient) -> (usize, CloseCode) {
    let mut count = 0;
    loop {
        match client.receive() {
            Some(Received::Text(_)) => count += 1,
            Some(Received::Close(code, _)) => return (count, code),
            other => panic!("{other:?}"),
        }
    }
}

/// A session that sends as many numbered messages of 1,000 bytes as it is told, and notes what
/// became of them.
fn flooding(options: WebSockets) -> (TestApplication, Rc<RefCell<Vec<String>>>) {
    let notes = Rc::new(RefCell::new(Vec::new()));
    let (told, drained) = (Rc::clone(&notes), Rc::clone(&notes));
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options);
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (told, drained) = (Rc::clone(&told), Rc::clone(&drained));
                on_message(move |session, message| {
                    let count: usize = message.text().unwrap_or_default().parse()?;
                    for number in 0..count {
                        match session.send(format!("{number:01000}")) {
                            Ok(()) => {}
                            Err(HandlerError::Send(SendError::Full { .. })) => {
                                told.borrow_mut().push(format!("full at {number}"));
                                break;
                            }
                            Err(other) => return Err(other),
                        }
                    }
                    told.borrow_mut().push(format!("dropped {}", session.dropped()));
                    Ok(())
                })
                .on_drain(move |session| {
                    drained.borrow_mut().push(format!("drained {}", session.buffered_bytes()));
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    (app, notes)
}

fn got(client: &mut TestClient) -> Vec<usize> {
    texts(client).iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn drop_newest_keeps_what_waits() {
    let options = quiet().outbox_bytes(5_000).on_outbox_full(OutboxOverflow::DropNewest);
    let (app, notes) = flooding(options);
    let mut client = app.web_socket("/");
    client.read_only(0);
    client.send("1"); // waits, so that the next ones go to the outbox
    client.send("20");
    assert_eq!(*notes.borrow(), ["dropped 0", "dropped 17"]);
    client.read_on();
    assert_eq!(got(&mut client), [0, 0, 1, 2]);
    assert_eq!(notes.borrow().last().unwrap(), "drained 0");
    assert_eq!(app.stats().dropped_newest, 17);
}

#[test]
fn drop_oldest_keeps_the_newest_and_what_has_begun() {
    let options = quiet().outbox_bytes(5_000).on_outbox_full(OutboxOverflow::DropOldest);
    let (app, notes) = flooding(options);
    let mut client = app.web_socket("/");
    client.read_only(10);
    client.send("1");
    client.send("20");
    assert_eq!(*notes.borrow(), ["dropped 0", "dropped 17"]);
    client.read_on();
    assert_eq!(got(&mut client), [0, 17, 18, 19]);
    assert_eq!(app.stats().dropped_oldest, 17);
}

#[test]
fn block_reports_and_drain_says_when_to_go_on() {
    let options = quiet().outbox_bytes(5_000).on_outbox_full(OutboxOverflow::Block);
    let (app, notes) = flooding(options);
    let mut client = app.web_socket("/");
    client.read_only(0);
    client.send("1");
    client.send("20");
    client.read_on();
    assert_eq!(got(&mut client), [0, 0, 1, 2]);
    assert_eq!(*notes.borrow(), ["dropped 0", "full at 3", "dropped 0", "drained 0"]);
}

#[test]
fn who_reads_at_once_is_not_told_of_a_drain() {
    let (app, notes) = flooding(quiet());
    let mut client = app.web_socket("/");
    app.with_server(|server| {
        let id = server.sessions().next().unwrap();
        server.send_to(id, "7").unwrap();
    });
    assert_eq!(got(&mut client), [7]);
    assert!(notes.borrow().is_empty(), "{:?}", notes.borrow());
}

#[test]
fn close_ends_the_session_with_1013() {
    let (app, notes) = flooding(quiet().outbox_messages(3));
    let mut client = app.web_socket("/");
    client.read_only(0);
    client.send("1");
    client.send("20");
    client.read_on();
    client.expect_close(CloseCode::TRY_AGAIN_LATER);
    assert_eq!(*notes.borrow(), ["dropped 0", "full at 2", "dropped 0"]);
}

/// Whatever a hook learned of the end by `close_info` stays what `on_close` says.
#[test]
fn an_abort_behind_a_close_does_not_change_the_end() {
    let ends: Rc<RefCell<Vec<CloseCode>>> = Rc::default();
    let notes = Rc::clone(&ends);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let notes = Rc::clone(&notes);
                on_message(move |session, message| {
                    if message.text() == Some("close") {
                        session.close(CloseReason::new(CloseCode::new(4001), "")?)?;
                    }
                    session.abort();
                    Ok(())
                })
                .on_close(move |session, close| {
                    assert_eq!(session.close_info(), Some(close));
                    notes.borrow_mut().push(close.code());
                })
            });
        });
    })
    .unwrap();
    for message in ["close", "abort"] {
        let mut client = app.web_socket("/");
        client.send(message);
        client.expect_end(Ending::Reset);
    }
    assert_eq!(*ends.borrow(), [CloseCode::new(4001), CloseCode::ABNORMAL]);
}

#[test]
fn timers_of_a_session_fire_in_order_and_can_be_taken_back() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(quiet());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                let mut names = Vec::new();
                on_message(|session, _| session.send("message"))
                    .on_timer(move |session, timer| {
                        if names.is_empty() {
                            names.push(timer);
                            session.set_timer(secs(1))?;
                        }
                        session.send("timer")
                    })
                    .on_connect(|session, _| {
                        session.set_timer(secs(2))?;
                        let never = session.set_timer(secs(1))?;
                        session.cancel_timer(never);
                        assert!(session.set_timer(Duration::ZERO).is_err());
                        while session.set_timer(secs(500)).is_ok() {}
                        Ok(())
                    })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    app.advance(Duration::from_millis(1_980));
    client.expect_nothing();
    app.advance(Duration::from_millis(20));
    client.expect_text("timer");
    client.send("x");
    client.expect_text("message");
    app.advance(secs(1));
    client.expect_text("timer");
    app.advance(secs(100));
    client.expect_nothing();
    client.close(CloseReason::try_from(CloseCode::NORMAL).unwrap());
    client.expect_close(CloseCode::NORMAL);
    app.advance(secs(1_000)); // the others ended with the session
}

#[test]
fn timers_of_the_application_keep_the_beat() {
    let beats = Rc::new(Cell::new(0));
    let once = Rc::new(Cell::new(0));
    let (counted, single) = (Rc::clone(&beats), Rc::clone(&once));
    let app = TestApplication::new(move |app: &mut Application| {
        app.every(secs(1), move |server| {
            counted.set(counted.get() + 1);
            if counted.get() == 3 {
                let single = Rc::clone(&single);
                let after = secs(10);
                server.after(after, move |_| single.set(single.get() + 1)).unwrap();
                let never = server.every(secs(1), |_| panic!("was taken back")).unwrap();
                server.cancel_timer(never);
            }
            if counted.get() == 5 {
                panic!("a timer that panics is over, and nothing else");
            }
        });
    })
    .unwrap();
    app.tolerate_panics();
    app.advance(Duration::from_millis(3_100));
    assert_eq!((beats.get(), once.get()), (3, 0));
    app.advance(secs(9));
    assert_eq!((beats.get(), once.get()), (5, 0), "the beat ended with its panic");
    app.advance(secs(1));
    assert_eq!(once.get(), 1);
}

/// There is nobody whose hang-up could be awaited.
#[test]
fn a_connection_that_broke_is_over_at_once_though_its_hook_panics() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|_, _| Ok(())).on_error(|_, error| panic!("told of {error}"))
            });
        });
    })
    .unwrap();
    app.tolerate_panics();
    let mut client = app.web_socket("/");
    client.reset();
    assert_eq!(client.ending(), Some(Ending::Closed));
    assert_eq!((app.stats().connections_open, app.stats().closed_abnormal), (0, 1));
}

/// The same where our Close was sent before, whose code the end keeps.
#[test]
fn one_that_broke_behind_our_close_is_over_at_once_too() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| session.close(CloseReason::try_from(CloseCode::NORMAL)?))
                    .on_close(|_, close| panic!("closed with {}", close.code()))
            });
        });
    })
    .unwrap();
    app.tolerate_panics();
    let mut client = app.web_socket("/");
    client.answer_close(false);
    client.send("bye");
    client.expect_close(CloseCode::NORMAL);
    client.reset();
    assert_eq!(client.ending(), Some(Ending::Closed));
    assert_eq!(app.stats().connections_open, 0);
}

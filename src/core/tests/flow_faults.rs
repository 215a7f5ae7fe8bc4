//! Flows where something else happens at the same time: publishing while others are written to,
//! unfinished fragments, flows that go away, equal deadlines.

use std::cell::RefCell;
use std::rc::Rc;

use super::{secs, texts};
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::testing::TestApplication;
use crate::testing::frames::masked;
use crate::words::close::{CloseCode, CloseReason};
use crate::words::limits::Limits;

fn quiet() -> WebSockets {
    WebSockets::new().ping_period(None)
}

fn flow(options: FlowOptions) -> SharedFlow {
    SharedFlow::with(options).unwrap()
}

/// Sessions at `/` collect the flow, say there what they are told, and say when they go.
fn room(flow: &SharedFlow) -> (TestApplication, Rc<RefCell<Vec<u64>>>) {
    let missed = Rc::new(RefCell::new(Vec::new()));
    let (shared, noted) = (flow.clone(), Rc::clone(&missed));
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said, left) = (shared.clone(), shared.clone(), shared.clone());
                let (timed, noted) = (Rc::clone(&noted), Rc::clone(&noted));
                on_connect(move |session, _| session.collect(&joined))
                    .on_message(move |session, message| {
                        match message.text().unwrap_or_default() {
                            "first" => session.send_fragment("1", false)?,
                            "last" => session.send_fragment("2", true)?,
                            "timer" => session.set_timer(secs(1)).map(drop)?,
                            other => session.emit(&said, other)?,
                        }
                        Ok(())
                    })
                    .on_timer(move |session, _| {
                        timed.borrow_mut().push(session.missed());
                        Ok(())
                    })
                    .on_close(move |session, _| {
                        noted.borrow_mut().push(session.missed());
                        let _ = left.emit("left");
                    })
            });
        });
    })
    .unwrap();
    (app, missed)
}

/// A message that was published while a flush was under way counted as offered, and waited for the
/// next one to be published.
#[test]
fn what_is_published_while_others_are_written_to_reaches_them() {
    let options = FlowOptions::new().extra_buffer(10);
    for overflow in [BufferOverflow::Suspend, BufferOverflow::DropOldest] {
        let (app, _) = room(&flow(options.on_buffer_overflow(overflow)));
        // Who came last is written to first.
        let (mut breaks, mut stays) = (app.web_socket("/"), app.web_socket("/"));
        breaks.break_after_receiving(0);
        stays.send("news");
        assert_eq!(texts(&mut stays), ["news", "left"], "{overflow:?}");
    }
}

/// With a buffer of one it was even dropped before anybody was offered it.
#[test]
fn what_is_published_while_others_are_written_to_is_not_dropped() {
    let one = FlowOptions::new().extra_buffer(1).on_buffer_overflow(BufferOverflow::DropOldest);
    let flow = flow(one);
    let (app, _) = room(&flow);
    let mut clients: Vec<_> = (0..4).map(|_| app.web_socket("/")).collect();
    let mut stays = clients.pop().unwrap();
    for client in &mut clients {
        client.break_after_receiving(0);
    }
    stays.send("news");
    assert_eq!(texts(&mut stays), ["news", "left", "left", "left"]);
    assert_eq!(flow.dropped(), 0);
}

/// It waited until something else was published.
#[test]
fn what_a_message_in_fragments_held_up_follows_its_end() {
    for stalled in [false, true] {
        let (app, _) = room(&flow(FlowOptions::new().extra_buffer(10)));
        let mut client = app.web_socket("/");
        if stalled {
            client.read_only(0);
        }
        for step in ["first", "held up", "last"] {
            client.send(step);
        }
        client.read_on();
        assert_eq!(texts(&mut client), ["12", "held up"], "stalled: {stalled}");
    }
}

/// Its bytes stayed on the account of the process: enough rooms that came and went spent the budget.
#[test]
fn a_flow_that_is_gone_gives_its_bytes_back() {
    let rooms: Rc<RefCell<Vec<SharedFlow>>> = Rc::default();
    let known = Rc::clone(&rooms);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let room = flow(FlowOptions::new().replay(10));
                known.borrow_mut().push(room.clone());
                on_connect(move |session, _| {
                    session.collect(&room)?;
                    session.emit(&room, &"x".repeat(1_000))
                })
            });
        });
    })
    .unwrap();
    drop(app.web_socket("/"));
    assert!(app.stats().bytes_held > 1_000, "the replay is kept");
    rooms.borrow_mut().clear();
    assert_eq!(app.stats().bytes_held, 0);
}

#[test]
fn what_a_stalled_session_misses_is_known_while_it_stalls_and_when_it_ends() {
    let options = FlowOptions::new().extra_buffer(3).on_buffer_overflow(BufferOverflow::DropOldest);
    let flow = flow(options);
    let (app, missed) = room(&flow);
    let mut client = app.web_socket("/");
    client.send("timer");
    client.read_only(0);
    for n in 0..10 {
        flow.emit(&n.to_string()).unwrap();
        app.advance(secs(0));
    }
    app.advance(secs(2));
    assert_eq!(*missed.borrow(), [6], "one is pinned, three wait");
    client.reset();
    assert_eq!(*missed.borrow(), [6, 6]);
}

#[test]
fn what_is_newest_goes_where_the_log_is_at_its_limit_of_bytes_and_the_policy_says_so() {
    let options = FlowOptions::new().extra_buffer(1_000).max_bytes(4_100);
    let flow = flow(options.on_buffer_overflow(BufferOverflow::DropLatest));
    let (app, _) = room(&flow);
    let mut client = app.web_socket("/");
    client.read_only(0);
    for n in 0..10 {
        flow.emit(&format!("{n:0900}")).unwrap();
        app.advance(secs(0));
    }
    client.read_on();
    let got: Vec<usize> = texts(&mut client).iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(got, [0, 1, 2, 3, 4], "one is pinned, four wait");
    assert_eq!(flow.dropped(), 5);
}

#[test]
fn timers_with_one_deadline_fire_in_the_order_in_which_they_were_set() {
    let fired = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&fired);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let set = Rc::new(RefCell::new(Vec::new()));
                let (ids, told) = (Rc::clone(&set), Rc::clone(&told));
                on_message(move |session, _| {
                    for delay in [1, 5, 5, 5] {
                        set.borrow_mut().push(session.set_timer(secs(delay))?);
                    }
                    Ok(())
                })
                .on_timer(move |_, timer| {
                    let place = ids.borrow().iter().position(|known| *known == timer);
                    told.borrow_mut().push(place.unwrap());
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send("go");
    app.advance(secs(6));
    assert_eq!(*fired.borrow(), [0, 1, 2, 3]);
}

/// A flow that had changed in the server's last turn was kept alive by it, and kept it alive.
#[test]
fn a_server_that_is_gone_leaves_no_flow_behind() {
    let flow: SharedFlow = SharedFlow::new();
    let (app, _) = room(&flow);
    let mut client = app.web_socket("/");
    client.read_only(0);
    for step in ["pinned", "overruns", "held"] {
        client.send(step);
    }
    let cell = Rc::downgrade(&flow.inner);
    drop((client, app, flow));
    assert_eq!(cell.strong_count(), 0);
}

/// Two sessions at `/`: what the second is told, it does to the first, which collects the flow.
fn reaching(flow: &SharedFlow) -> TestApplication {
    let first = Rc::new(RefCell::new(None));
    let shared = flow.clone();
    TestApplication::new(move |app: &mut Application| {
        app.install(quiet());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said, known) = (shared.clone(), shared.clone(), Rc::clone(&first));
                on_connect(move |session, _| {
                    let id = *known.borrow_mut().get_or_insert(session.id());
                    if id == session.id() { session.collect(&joined) } else { Ok(()) }
                })
                .on_message({
                    let known = Rc::clone(&first);
                    move |session, message| {
                        for step in message.text().unwrap_or_default().split(' ') {
                            let first = known.borrow().unwrap();
                            match step {
                                "emit" => session.emit(&said, "flow")?,
                                "close" => {
                                    let reason = CloseReason::try_from(CloseCode::NORMAL)?;
                                    session.server().close(first, reason)?;
                                }
                                other => session.server().send_to(first, other)?,
                            }
                        }
                        Ok(())
                    }
                })
            });
        });
    })
    .unwrap()
}

/// What was asked of a session came behind all that was published in the same hook.
#[test]
fn what_others_send_keeps_its_place_among_what_they_publish() {
    let flow = flow(FlowOptions::new().extra_buffer(100));
    for stalled in [false, true] {
        let app = reaching(&flow);
        let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
        if stalled {
            first.read_only(0);
        }
        second.send("a emit b c emit emit d");
        second.send("e emit");
        first.read_on();
        let expected = ["a", "flow", "b", "c", "flow", "flow", "d", "e", "flow"];
        assert_eq!(texts(&mut first), expected, "stalled: {stalled}");
    }
}

#[test]
fn a_close_that_others_ask_for_keeps_its_place_and_its_answer_has_the_usual_time() {
    let flow = flow(FlowOptions::new().extra_buffer(100));
    let app = reaching(&flow);
    let (mut first, mut second) = (app.web_socket("/"), app.web_socket("/"));
    first.answer_close(false);
    second.send("a emit close emit b");
    for text in ["a", "flow"] {
        first.expect_text(text);
    }
    first.expect_close(CloseCode::NORMAL);
    app.advance(secs(4));
    assert_eq!(app.stats().sessions_open, 2);
    app.advance(secs(2));
    assert_eq!(app.stats().sessions_open, 1, "close_timeout is 5 s");
}

/// It was lost without a trace: nobody is there to be told.
#[test]
fn what_others_send_and_a_session_cannot_take_counts_as_dropped() {
    let opened = Rc::new(RefCell::new(Vec::new()));
    let known = Rc::clone(&opened);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet().max_outgoing_message_size(100));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let known = Rc::clone(&known);
                on_connect(move |session, _| {
                    known.borrow_mut().push(session.id());
                    session.send_fragment("first ", false)
                })
                .on_message(|session, _| {
                    session.send_fragment("last", true)?;
                    session.send(format!("dropped {}", session.dropped()))
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    let id = opened.borrow()[0];
    for text in ["into the midst of a message", "x".repeat(101).as_str()] {
        assert_eq!(app.with_server(|server| server.send_to(id, text)), Ok(()));
    }
    client.send("go on");
    assert_eq!(texts(&mut client), ["first last", "dropped 2"]);
}

/// Many messages of one read were all copied for everybody before the first was written: the budget was
/// spent, and whoever happened to hold most had to go.
#[test]
fn a_read_full_of_messages_for_everybody_is_written_as_it_goes() {
    let limits = Limits::new().process_bytes(600_000);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(quiet().limits(limits));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| {
                    let me = session.id();
                    let mut server = session.server();
                    let others: Vec<_> = server.sessions().filter(|id| *id != me).collect();
                    others.into_iter().try_for_each(|id| Ok(server.send_to(id, message)?))
                })
            });
        });
    })
    .unwrap();
    let mut clients: Vec<_> = (0..200).map(|_| app.web_socket("/")).collect();
    let mut talker = app.web_socket("/");
    let said: Vec<String> = (0..50).map(|number| format!("{number:01000}")).collect();
    let bytes: Vec<u8> = said.iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();
    talker.send_bytes(&bytes);
    for client in &mut clients {
        assert!(texts(client) == said, "everybody gets everything in order");
    }
    let stats = app.stats();
    assert_eq!((stats.sessions_open, stats.over_budget, stats.bytes_held), (201, 0, 0));
}

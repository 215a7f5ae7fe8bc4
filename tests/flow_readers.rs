//! Readers of flows that are no sessions: what they are offered, what they take, and what the others feel.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wirewheel::flow::{BufferOverflow, FlowOptions, ReaderId, SharedFlow, Taken};
use wirewheel::testing::{Received, TestApplication, TestClient};
use wirewheel::{Application, Call, ServerRef, WebSockets, on_connect};

/// What a reader has taken, with what it missed before each.
type Heard = Rc<RefCell<Vec<(String, u64)>>>;

struct Room {
    app: TestApplication,
    flow: SharedFlow,
    heard: Heard,
    /// The reader takes nothing.
    full: Rc<Cell<bool>>,
    reader: ReaderId,
}

/// A session publishes what it says, and gets what all say; one reader takes what it is offered.
fn room(options: FlowOptions) -> Room {
    let flow: SharedFlow = SharedFlow::with(options).unwrap();
    let shared = flow.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said, asked) = (shared.clone(), shared.clone(), shared.clone());
                on_connect(move |session, _| session.collect(&joined)).on_message(
                    move |session, message| match message.text().unwrap().split_once('=') {
                        Some((key, _)) => session.emit_latest(&said, key, message.text().unwrap()),
                        None if message.text() == Some("missed?") => {
                            let missed = session.missed().to_string();
                            session.send(&missed)
                        }
                        None => session.emit(&asked, message.text().unwrap()),
                    },
                )
            });
        });
    })
    .unwrap();
    let (heard, full): (Heard, Rc<Cell<bool>>) = Default::default();
    let (into, stalled) = (Rc::clone(&heard), Rc::clone(&full));
    let reader = app.with_server(|server| {
        server.read_flow(&flow, move |_, batch| {
            if stalled.get() {
                return Taken::Later;
            }
            for offered in batch {
                into.borrow_mut().push((text_of(&offered), offered.missed()));
            }
            Taken::Yes
        })
    });
    Room { app, flow, heard, full, reader }
}

fn text_of(offered: &wirewheel::flow::Offered) -> String {
    offered.message().text().unwrap().to_owned()
}

impl Room {
    fn stall(&self) {
        self.full.set(true);
    }

    fn read_on(&self) {
        self.full.set(false);
        self.app.with_server(|server| server.read_on(self.reader));
    }

    fn heard(&self) -> Vec<(String, u64)> {
        self.heard.take()
    }
}

fn texts(client: &mut TestClient) -> Vec<String> {
    let each = std::iter::from_fn(|| client.receive());
    each.map(|received| match received {
        Received::Text(text) => text,
        other => panic!("{other:?}"),
    })
    .collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<(String, u64)> {
    range.map(|n| (n.to_string(), 0)).collect()
}

#[test]
fn under_suspend_a_slow_reader_holds_the_publisher_up_and_nothing_is_lost() {
    let room = room(FlowOptions::new().extra_buffer(2));
    room.stall();
    let mut anna = room.app.web_socket("/");
    for n in 0..9 {
        anna.send(n.to_string());
    }
    assert_eq!(texts(&mut anna), ["0", "1", "2"], "then she is not read any further");
    assert!(room.flow.would_suspend() && room.heard().is_empty());
    room.read_on();
    assert_eq!(texts(&mut anna), ["3", "4", "5", "6", "7", "8"]);
    assert_eq!((room.heard(), room.flow.dropped()), (numbered(0..9), 0));
}

#[test]
fn a_reader_is_told_which_session_published() {
    let room = room(FlowOptions::new().extra_buffer(10));
    let publishers: Rc<RefCell<Vec<_>>> = Rc::default();
    let into = Rc::clone(&publishers);
    room.app.with_server(|server| {
        server.read_flow(&room.flow, move |_, batch| {
            into.borrow_mut().extend(batch.map(|offered| offered.publisher()));
            Taken::Yes
        })
    });
    let (mut anna, mut bert) = (room.app.web_socket("/"), room.app.web_socket("/"));
    anna.send("a");
    bert.send("b");
    room.flow.emit("c").unwrap();
    anna.send("d");
    texts(&mut anna);
    let publishers = publishers.take();
    let [Some(first), Some(second), None, Some(fourth)] = publishers[..] else {
        panic!("{publishers:?}")
    };
    assert!(first == fourth && first != second, "{publishers:?}");
}

#[test]
fn under_drop_oldest_nobody_waits_for_a_slow_reader_and_it_knows_what_it_missed() {
    let policy = BufferOverflow::DropOldest;
    let room = room(FlowOptions::new().extra_buffer(2).on_buffer_overflow(policy));
    room.stall();
    let mut anna = room.app.web_socket("/");
    for n in 0..9 {
        anna.send(n.to_string());
        anna.expect_text(&n.to_string());
    }
    room.read_on();
    assert_eq!(room.heard(), [("7".to_owned(), 7), ("8".to_owned(), 0)]);
    assert_eq!(room.flow.dropped(), 7);
    anna.send("missed?");
    anna.expect_text("0");
}

#[test]
fn under_drop_latest_what_comes_while_a_reader_is_slow_is_dropped_for_all() {
    let policy = BufferOverflow::DropLatest;
    let room = room(FlowOptions::new().extra_buffer(2).on_buffer_overflow(policy));
    room.stall();
    let mut anna = room.app.web_socket("/");
    for n in 0..9 {
        anna.send(n.to_string());
    }
    assert_eq!(texts(&mut anna), ["0", "1"]);
    room.read_on();
    assert_eq!((room.heard(), room.flow.dropped()), (numbered(0..2), 7));
}

#[test]
fn under_latest_a_slow_reader_gets_the_newest_of_each_key() {
    let policy = BufferOverflow::Latest;
    let room = room(FlowOptions::new().extra_buffer(8).on_buffer_overflow(policy));
    room.stall();
    let mut anna = room.app.web_socket("/");
    for text in ["a=1", "b=1", "a=2", "a=3"] {
        anna.send(text);
        anna.expect_text(text);
    }
    room.read_on();
    // Of the two that were replaced, one lay before each of those that are left.
    assert_eq!(room.heard(), [("b=1".to_owned(), 1), ("a=3".to_owned(), 1)]);
}

#[test]
fn a_reader_that_takes_is_never_behind_however_much_comes_in_one_turn() {
    let policy = BufferOverflow::DropOldest;
    let room = room(FlowOptions::new().extra_buffer(1).on_buffer_overflow(policy));
    let mut anna = room.app.web_socket("/");
    let flow = room.flow.clone();
    room.app.with_server(move |_| {
        for n in 0..3_000 {
            flow.emit(&n.to_string()).unwrap();
        }
    });
    assert_eq!((room.heard(), room.flow.dropped()), (numbered(0..3_000), 0));
    assert_eq!(texts(&mut anna).len(), 3_000);
}

#[test]
fn what_is_published_while_a_reader_reads_is_offered_too_and_all_end() {
    let flow: SharedFlow = SharedFlow::new();
    let app = TestApplication::new(|_| {}).unwrap();
    let heard: Heard = Rc::default();
    let (into, again) = (Rc::clone(&heard), flow.clone());
    app.with_server(|server| {
        server.read_flow(&flow, move |_, batch| {
            for offered in batch {
                let n: u32 = text_of(&offered).parse().unwrap();
                into.borrow_mut().push((n.to_string(), offered.missed()));
                if n < 500 {
                    again.emit(&(n + 1).to_string()).unwrap();
                }
            }
            Taken::Yes
        });
    });
    app.with_server(|_| flow.emit("0").unwrap());
    assert_eq!(heard.take(), numbered(0..501));
}

#[test]
fn a_reader_is_not_offered_what_it_has_published_itself() {
    let room = room(FlowOptions::new());
    let mut anna = room.app.web_socket("/");
    let (flow, reader) = (room.flow.clone(), room.reader);
    room.app.with_server(move |_| flow.emit_as(reader, "from outside").unwrap());
    anna.expect_text("from outside");
    anna.send("from inside");
    assert_eq!(room.heard(), [("from inside".to_owned(), 0)]);
    // Another one is.
    let other: Heard = Rc::default();
    let into = Rc::clone(&other);
    room.app.with_server(|server| {
        server.read_flow(&room.flow, move |_, batch| {
            let each = batch.map(|offered| (text_of(&offered), offered.missed()));
            into.borrow_mut().extend(each);
            Taken::Yes
        });
    });
    let (flow, reader) = (room.flow.clone(), room.reader);
    room.app.with_server(move |_| flow.emit_as(reader, "again").unwrap());
    assert_eq!((other.take(), room.heard()), (vec![("again".to_owned(), 0)], vec![]));
}

#[test]
fn a_reader_has_not_missed_what_it_published_itself_and_was_dropped() {
    for policy in [BufferOverflow::DropOldest, BufferOverflow::Latest] {
        let room = room(FlowOptions::new().extra_buffer(3).on_buffer_overflow(policy));
        room.stall();
        for n in 0..20 {
            let (flow, reader, text) = (room.flow.clone(), room.reader, n.to_string());
            room.app.with_server(move |_| match n % 4 {
                0 => flow.emit(&text).unwrap(),
                1 => flow.emit_latest("key", &text).unwrap(),
                2 => flow.emit_as(reader, text).unwrap(),
                _ => flow.emit_latest_as(reader, "key", text).unwrap(),
            });
        }
        room.read_on();
        room.app.with_server(|_| room.flow.emit("last").unwrap());
        let heard = room.heard();
        let missed: u64 = heard.iter().map(|(_, missed)| missed).sum();
        assert_eq!(heard.len() as u64 + missed, 11, "{policy:?}: {heard:?}");
    }
}

#[test]
fn what_never_came_is_missed_by_all_but_the_reader_that_says_so() {
    let room = room(FlowOptions::new().replay(1));
    let mut anna = room.app.web_socket("/");
    let (flow, reader) = (room.flow.clone(), room.reader);
    room.app.with_server(move |_| {
        flow.skip_as(reader, 5);
        flow.emit_as(reader, "after five").unwrap();
    });
    assert_eq!(texts(&mut anna), ["after five"]);
    anna.send("missed?");
    anna.expect_text("5");
    anna.send("hello");
    assert_eq!(room.heard(), [("hello".to_owned(), 0)]);
    room.app.with_server(|_| room.flow.skip(2));
    anna.send("there");
    assert_eq!(room.heard(), [("there".to_owned(), 2)]);
    assert_eq!(texts(&mut anna), ["hello", "there"]);
    anna.send("missed?");
    anna.expect_text("7");
    // Who comes later has missed nothing.
    let mut late = room.app.web_socket("/");
    late.expect_text("there");
    late.send("missed?");
    late.expect_text("0");
    // A count from the network is any number.
    room.app.with_server(|_| (room.flow.skip(u64::MAX), room.flow.skip(u64::MAX)));
    anna.send("missed?");
    assert!(texts(&mut anna)[0].parse::<u64>().unwrap() > 1 << 50);
}

#[test]
fn the_message_after_which_a_reader_says_later_is_offered_again() {
    let flow: SharedFlow = SharedFlow::with(FlowOptions::new().replay(5)).unwrap();
    let app = TestApplication::new(|_| {}).unwrap();
    for n in 0..5 {
        flow.emit(&n.to_string()).unwrap();
    }
    let heard: Rc<RefCell<Vec<String>>> = Rc::default();
    let into = Rc::clone(&heard);
    let reader = app.with_server(|server| {
        server.read_flow(&flow, move |_, batch| {
            let mut room = 2;
            for offered in batch {
                if room == 0 {
                    return Taken::Later;
                }
                room -= 1;
                into.borrow_mut().push(text_of(&offered));
            }
            Taken::Yes
        })
    });
    assert_eq!(heard.take(), ["0", "1"], "the replay comes first");
    app.with_server(|_| flow.emit("5").unwrap());
    assert_eq!(heard.take(), [""; 0], "it waits until it is told to read on");
    app.with_server(|server| server.read_on(reader));
    assert_eq!(heard.take(), ["2", "3"]);
    app.with_server(|server| {
        server.read_on(reader);
        server.read_on(reader); // once is as good
    });
    assert_eq!(heard.take(), ["4", "5"]);
    app.with_server(|server| server.read_on(reader));
    app.advance(Duration::from_secs(1));
    assert_eq!(heard.take(), [""; 0]);
}

#[test]
fn a_reader_that_ends_leaves_its_flow_and_lets_publishers_go_on() {
    let (stops, panics) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let flow: SharedFlow = SharedFlow::new();
    let (joined, said) = (flow.clone(), flow.clone());
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said) = (joined.clone(), said.clone());
                on_connect(move |session, _| session.collect(&joined)).on_message(
                    move |session, message| session.emit(&said, message.text().unwrap()),
                )
            });
        });
    })
    .unwrap();
    app.tolerate_panics();
    let reader = |stops: &Rc<Cell<bool>>, panics: &Rc<Cell<bool>>| {
        let (stops, panics) = (Rc::clone(stops), Rc::clone(panics));
        app.with_server(|server| {
            server.read_flow(&flow, move |_, _batch| {
                assert!(!panics.get(), "as planned");
                if stops.get() { Taken::Stop } else { Taken::Later }
            })
        })
    };
    let mut anna = app.web_socket("/");
    let ends: [&dyn Fn(ReaderId); 3] = [&|_| stops.set(true), &|_| panics.set(true), &|reader| {
        app.with_server(|server| server.stop_reading(reader))
    }];
    for end in ends {
        stops.set(false);
        panics.set(false);
        let id = reader(&stops, &panics);
        assert_eq!(flow.subscription_count(), 2);
        anna.send("one");
        anna.send("two");
        assert_eq!(texts(&mut anna), ["one"], "she waits for the reader");
        end(id);
        app.with_server(|server| server.read_on(id));
        assert_eq!((texts(&mut anna), flow.subscription_count()), (vec!["two".to_owned()], 1));
        app.with_server(|server| (server.stop_reading(id), server.read_on(id))); // nobody
    }
}

#[test]
fn a_reader_may_end_itself_or_read_on_while_it_reads() {
    let flow: SharedFlow = SharedFlow::with(FlowOptions::new().replay(3)).unwrap();
    let app = TestApplication::new(|_| {}).unwrap();
    let id: Rc<Cell<Option<ReaderId>>> = Rc::default();
    let heard: Rc<RefCell<Vec<String>>> = Rc::default();
    let (into, own) = (Rc::clone(&heard), Rc::clone(&id));
    let reader = app.with_server(|server| {
        server.read_flow(&flow, move |server, batch| {
            let Some(offered) = batch.next() else { return Taken::Yes };
            into.borrow_mut().push(text_of(&offered));
            let own = own.get().unwrap();
            match &*text_of(&offered) {
                "again" if into.borrow().len() < 3 => server.read_on(own),
                "end" => server.stop_reading(own),
                _ => return Taken::Yes,
            }
            Taken::Later
        })
    });
    id.set(Some(reader));
    app.with_server(|_| flow.emit("again").unwrap());
    assert_eq!(heard.take(), ["again"; 3]);
    app.with_server(|_| flow.emit("end").unwrap());
    assert_eq!((heard.take(), flow.subscription_count()), (vec!["end".to_owned()], 0));
}

/// It asks to be called again, looks at nothing, and goes on only once the loop has had another turn.
#[test]
fn a_reader_that_has_itself_called_again_leaves_the_loop_to_others() {
    let flow: SharedFlow = SharedFlow::with(FlowOptions::new().replay(3)).unwrap();
    let app = TestApplication::new(|_| {}).unwrap();
    let id: Rc<Cell<Option<ReaderId>>> = Rc::default();
    let heard: Rc<RefCell<Vec<String>>> = Rc::default();
    let (into, own) = (Rc::clone(&heard), Rc::clone(&id));
    let (turned, told) = (Arc::new(AtomicBool::new(false)), Cell::new(false));
    let reader = app.with_server(|server| {
        server.read_flow(&flow, move |server, batch| {
            if turned.load(Ordering::Relaxed) {
                into.borrow_mut().extend(batch.map(|offered| text_of(&offered)));
                return Taken::Yes;
            }
            if !told.replace(true) {
                let turns = Arc::clone(&turned);
                let defer = move |_: &mut ServerRef<'_>| turns.store(true, Ordering::Relaxed);
                server.handle().defer(defer).unwrap();
            }
            server.read_on(own.get().unwrap());
            Taken::Later
        })
    });
    id.set(Some(reader));
    app.with_server(|_| flow.emit("hello").unwrap());
    assert_eq!(heard.take(), ["hello"]);
}

/// Values that were replaced before a reader came, and removed before it took them, are missed once.
#[test]
fn what_was_removed_of_a_replay_with_gaps_is_missed_once() {
    let options = FlowOptions::new().extra_buffer(9).on_buffer_overflow(BufferOverflow::Latest);
    let room = room(options);
    room.app.with_server(|server| server.stop_reading(room.reader));
    for key in ["a", "b", "c", "b"] {
        room.app.with_server(|_| room.flow.emit_latest(key, key).unwrap());
    }
    let heard: Heard = Rc::default();
    let (into, is_full) = (Rc::clone(&heard), Rc::new(Cell::new(true)));
    let full = Rc::clone(&is_full);
    let reader = room.app.with_server(|server| {
        server.read_flow(&room.flow, move |_, batch| {
            if full.get() {
                return Taken::Later;
            }
            into.borrow_mut().extend(batch.map(|offered| (text_of(&offered), offered.missed())));
            Taken::Yes
        })
    });
    room.app.with_server(|_| ["a", "b", "c"].map(|key| assert!(room.flow.remove(key))));
    is_full.set(false);
    room.app.with_server(|server| server.read_on(reader));
    room.app.with_server(|_| room.flow.emit_latest("d", "d").unwrap());
    assert_eq!(heard.take(), [("d".to_owned(), 3)]);
}

/// Each has room of its own for the keys that it is to be told of.
#[test]
fn a_reader_that_is_slow_to_hear_of_removed_keys_silences_no_other() {
    let options = FlowOptions::new().extra_buffer(1_000).max_bytes(1_000);
    let flow: SharedFlow =
        SharedFlow::with(options.on_buffer_overflow(BufferOverflow::Latest)).unwrap();
    let app = TestApplication::new(|_| {}).unwrap();
    let removed: Rc<Cell<u32>> = Rc::default();
    let count = Rc::clone(&removed);
    app.with_server(|server| {
        server.read_flow(&flow, |_, _| Taken::Later);
        server.read_flow(&flow, move |_, batch| {
            while batch.next_removed().is_some() {
                count.set(count.get() + 1);
            }
            batch.for_each(drop);
            Taken::Yes
        });
    });
    for n in 0..100 {
        let key = format!("a key of some length, number {n}");
        app.with_server(|_| flow.emit_latest(&key, "x").unwrap());
        app.with_server(|_| assert!(flow.remove(&key)));
    }
    assert_eq!(removed.get(), 100);
}

#[test]
fn a_reader_that_takes_nothing_of_what_it_is_offered_waits() {
    let flow: SharedFlow = SharedFlow::new();
    let app = TestApplication::new(|_| {}).unwrap();
    let called = Rc::new(Cell::new(0));
    let count = Rc::clone(&called);
    app.with_server(|server| {
        server.read_flow(&flow, move |_, _| {
            count.set(count.get() + 1);
            Taken::Yes
        });
    });
    app.with_server(|_| flow.emit("hello").unwrap());
    app.advance(Duration::from_secs(10));
    assert_eq!(called.get(), 1);
}

#[test]
fn readers_of_newest_values_are_told_of_removed_keys() {
    let options = FlowOptions::new().extra_buffer(4).on_buffer_overflow(BufferOverflow::Latest);
    let flow: SharedFlow = SharedFlow::with(options).unwrap();
    let shared = flow.clone();
    let heard: Rc<RefCell<Vec<String>>> = Rc::default();
    let (id, full) = (Rc::new(Cell::new(None::<ReaderId>)), Rc::new(Cell::new(false)));
    let (into, stalled) = (Rc::clone(&heard), Rc::clone(&full));
    let made = Rc::clone(&id);
    let app = TestApplication::new(move |app: &mut Application| {
        let reader = app.read_flow(&shared, move |_, batch| {
            if stalled.get() {
                return Taken::Later;
            }
            while let Some(key) = batch.next_removed() {
                into.borrow_mut().push(format!("-{key}"));
            }
            for offered in batch {
                into.borrow_mut().push(format!("+{}", offered.key().unwrap()));
            }
            Taken::Yes
        });
        made.set(Some(reader));
    })
    .unwrap();
    let reader = id.get().unwrap();
    app.with_server(|_| ["a", "b"].map(|key| flow.emit_latest(key, "x").unwrap()));
    app.with_server(|_| assert!(flow.remove("a") && !flow.remove("a")));
    app.with_server(|_| assert!(flow.remove_as(reader, "b"), "what it said itself"));
    assert_eq!(heard.take(), ["+a", "+b", "-a"]);
    // One that was published and removed while the reader was slow, and one that is there again.
    full.set(true);
    app.with_server(|_| {
        for key in ["c", "d"] {
            flow.emit_latest(key, "x").unwrap();
        }
        assert!(flow.remove("c") && flow.remove("d"));
        flow.emit_latest("d", "y").unwrap();
    });
    full.set(false);
    app.with_server(|server| server.read_on(reader));
    assert_eq!(heard.take(), ["-c", "-d", "+d"]);
    // What its other end has said anew is not to be removed there.
    full.set(true);
    app.with_server(|_| {
        assert!(flow.remove("d") && flow.emit_latest("e", "x").is_ok() && flow.remove("e"));
        assert!(!flow.is_from(reader, "d"), "it is yet to be told");
        flow.emit_latest_as(reader, "d", "z").unwrap();
        assert!(flow.is_from(reader, "d") && !flow.is_from(reader, "e"));
    });
    full.set(false);
    app.with_server(|server| server.read_on(reader));
    assert_eq!(heard.take(), ["-e"]);
    // And what it has brought it may take back, but nothing newer.
    app.with_server(|_| {
        assert!(flow.take_back(reader, "d") && !flow.take_back(reader, "d"));
        flow.emit_latest_as(reader, "d", "z").unwrap();
        flow.emit_latest("d", "newer").unwrap();
        assert!(!flow.is_from(reader, "d") && flow.is_from(reader, "e"), "it was told");
        assert!(!flow.take_back(reader, "d") && flow.remove_as(reader, "d"));
    });
    assert_eq!(heard.take(), Vec::<String>::new());
    // Keys without end, of which a reader is told that takes nothing.
    full.set(true);
    let held = app.stats().bytes_held;
    app.with_server(|_| {
        for n in 0..10_000 {
            let key = n.to_string();
            flow.emit_latest(&key, "x").unwrap();
            flow.remove(&key);
        }
    });
    let kept = app.stats().bytes_held - held;
    assert!((1..1_000).contains(&kept), "{kept}");
    app.with_server(|server| server.stop_reading(reader));
    assert_eq!(app.stats().bytes_held, held);
}

/// What it does not ask for is nothing that it waits for.
#[test]
fn a_reader_that_asks_for_no_removed_keys_hears_of_values_all_the_same() {
    let options = FlowOptions::new().extra_buffer(4).on_buffer_overflow(BufferOverflow::Latest);
    let flow: SharedFlow = SharedFlow::with(options).unwrap();
    let (shared, heard) = (flow.clone(), Rc::<RefCell<Vec<String>>>::default());
    let into = Rc::clone(&heard);
    let app = TestApplication::new(move |app: &mut Application| {
        app.read_flow(&shared, move |_, batch| {
            into.borrow_mut().extend(batch.map(|offered| text_of(&offered)));
            Taken::Yes
        });
    })
    .unwrap();
    app.with_server(|_| flow.emit_latest("a", "1").unwrap());
    let held = app.stats().bytes_held;
    app.with_server(|_| assert!(flow.remove("a")));
    assert!(app.stats().bytes_held <= held, "nothing is kept for it");
    app.with_server(|_| flow.emit_latest("b", "2").unwrap());
    // In one turn with what it is told of.
    app.with_server(|_| {
        flow.remove("b");
        flow.emit_latest("b", "3").unwrap();
    });
    app.with_server(|_| flow.emit_latest("b", "4").unwrap());
    assert_eq!(heard.take(), ["1", "2", "3", "4"]);
}

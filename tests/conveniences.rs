//! What programs write most often compiles as they write it first, and does what it says.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use wirewheel::error::{
    AskError, CloseReasonError, HandleError, NameError, SendError, ServerError,
};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::testing::{Received, TestApplication};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Handler, Limits, Message, Response, Server,
    ServerRef, WebSockets, on_connect, on_message,
};

const SECOND: Duration = Duration::from_secs(1);

/// A thread of its own.
fn spawn<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().spawn(act).unwrap()
}

/// A session at `/` with these hooks.
fn app<H: Handler + 'static>(factory: impl Fn(&Call) -> H + 'static) -> TestApplication {
    TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    })
    .unwrap()
}

#[test]
fn all_that_is_text_or_bytes_can_be_sent_owned_or_not() {
    let app = app(|_: &Call| {
        on_connect(|session, call| {
            session.send(format!("{} owned", call.path()))?;
            session.send(String::from("a string"))?;
            session.send("a literal")?;
            session.send(vec![1, 2])?;
            session.send([3, 4])?;
            session.send([5, 6])?;
            session.send(call.query_parameter("missing").unwrap_or_default())?;
            session.send_fragment(String::from("in two "), false)?;
            session.send_fragment("pieces", true)
        })
    });
    let mut client = app.web_socket("/");
    for text in ["/ owned", "a string", "a literal"] {
        client.expect_text(text);
    }
    for bytes in [[1, 2], [3, 4], [5, 6]] {
        client.expect_binary(&bytes);
    }
    client.expect_text("");
    client.expect_text("in two pieces");
}

#[test]
fn a_factory_may_choose_between_handlers() {
    let app = app(|call: &Call| -> Box<dyn Handler> {
        match call.query_parameter("echo").is_some() {
            true => Box::new(on_message(|session, message| session.send(message))),
            false => Box::new(on_connect(|session, _call| session.send("I only talk"))),
        }
    });
    app.web_socket("/").expect_text("I only talk");
    let mut echo = app.web_socket("/?echo");
    echo.send("hello");
    echo.expect_text("hello");
}

#[test]
fn a_code_closes_and_one_that_may_not_be_sent_is_refused_by_name() {
    let app = app(|_: &Call| {
        on_message(|session, message| match message.text() {
            Some("code") => session.close(CloseCode::NORMAL),
            Some("reason") => session.close(CloseReason::new(CloseCode::new(4000), "bye")?),
            _ => session.close(CloseCode::ABNORMAL),
        })
    });
    for (word, code, text) in [("code", 1000, ""), ("reason", 4000, "bye"), ("wrong", 1011, "")] {
        let mut client = app.web_socket("/");
        client.send(word);
        let came = client.receive();
        let Some(Received::Close(got, said)) = &came else { panic!("{word}: {came:?}") };
        assert_eq!((u16::from(*got), said.contains(text)), (code, true), "{word}: {came:?}");
    }
    let illegal = CloseReasonError::IllegalCode(CloseCode::ABNORMAL);
    app.with_server(|server| {
        let id = server.sessions().next();
        if let Some(id) = id {
            assert_eq!(server.close(id, CloseCode::ABNORMAL), Err(SendError::CloseReason(illegal)));
        }
    });
    let mut open = app.web_socket("/");
    let id = app.with_server(|server| server.sessions().last().unwrap());
    let refused = app.handle().close(id, CloseCode::ABNORMAL);
    assert_eq!(refused, Err(HandleError::CloseReason(illegal)));
    app.handle().close(id, CloseCode::GOING_AWAY).unwrap();
    app.advance(Duration::ZERO);
    open.expect_close(CloseCode::GOING_AWAY);
    open.close(CloseCode::NORMAL); // a client closes as easily; it has answered already
}

#[test]
fn sessions_are_sent_to_while_they_are_looped_over_and_one_can_send_to_itself() {
    let app = app(|_: &Call| {
        on_message(|session, message| {
            session.send_to(session.id(), "to myself")?;
            let mut server = session.server();
            for id in server.sessions() {
                server.send_to(id, message)?;
            }
            Ok(())
        })
    });
    let (mut one, mut other) = (app.web_socket("/"), app.web_socket("/"));
    one.send("to all");
    one.expect_text("to myself");
    one.expect_text("to all");
    other.expect_text("to all");
}

#[test]
fn a_flow_of_text_needs_no_type_and_threads_keep_the_newest_of_each_key() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        let newest = FlowOptions::new().extra_buffer(10).on_buffer_overflow(BufferOverflow::Latest);
        let readings = app.flow(newest);
        let (handle, key) = (app.handle(), app.flow_key(&readings));
        let sender = spawn(move || {
            for celsius in 0..100 {
                handle.emit_latest(key, "cellar", &format!("{celsius} degrees")).unwrap();
            }
            handle.emit_latest(key, "attic", "hot").unwrap();
        });
        sender.join().unwrap();
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let readings = readings.clone();
                on_connect(move |session, _call| session.collect(&readings))
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.expect_text("99 degrees");
    client.expect_text("hot");
    client.expect_nothing();
}

#[test]
fn the_newest_values_are_a_store_that_filters_and_tests_see() {
    let newest = FlowOptions::new().extra_buffer(10).on_buffer_overflow(BufferOverflow::Latest);
    let gauges: SharedFlow = SharedFlow::with(newest).unwrap();
    let shared = gauges.clone();
    let app = app(move |call: &Call| {
        let (gauges, room) = (shared.clone(), call.query().to_owned());
        on_connect(move |session, _call| {
            let room = room.clone();
            session.collect_if(&gauges, move |news| news.key().is_some_and(|key| key == room))
        })
    });
    gauges.emit_latest("attic", "31.0").unwrap();
    gauges.emit_latest("cellar", "11.5").unwrap();
    gauges.emit_latest("cellar", "11.6").unwrap();
    app.web_socket("/?cellar").expect_text("11.6");
    let text = |key: &str| gauges.get(key).map(|m| m.as_message().text().unwrap().to_owned());
    assert_eq!((text("attic").as_deref(), text("porch")), (Some("31.0"), None));
    // Whoever looks at them may publish: what is new is not among them.
    let mut seen = Vec::new();
    for (key, _value) in gauges.newest() {
        gauges.emit_latest(&key, "renewed").unwrap();
        seen.push(key.to_string());
    }
    assert_eq!(seen, ["attic", "cellar"]);
    assert!(gauges.remove("attic") && !gauges.remove("attic"));
    assert_eq!((text("attic"), text("cellar").as_deref()), (None, Some("renewed")));
    let mut late = app.web_socket("/?attic");
    late.expect_nothing();
}

/// The newest of the keys, dropped one by one: what one costs, of so many.
fn cost_of_a_key(keys: usize) -> f64 {
    let newest = FlowOptions::new().extra_buffer(keys).max_bytes(64 << 20);
    let gauges: SharedFlow =
        SharedFlow::with(newest.on_buffer_overflow(BufferOverflow::Latest)).unwrap();
    let names: Vec<String> = (0..keys).map(|key| key.to_string()).collect();
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let rounds = 100_000 / keys;
    let mut spent = 0.0;
    for _ in 0..rounds {
        names.iter().for_each(|key| gauges.emit_latest(key, "x").unwrap());
        let before = cpu();
        // Neither in the order in which they came nor in its reverse.
        (0..keys).for_each(|n| assert!(gauges.remove(&names[n * 7_919 % keys])));
        let after = cpu();
        spent +=
            (after.tv_sec - before.tv_sec) as f64 * 1e9 + (after.tv_nsec - before.tv_nsec) as f64;
        assert_eq!((gauges.newest().count(), gauges.dropped()), (0, 0));
    }
    spent / (rounds * keys) as f64
}

/// In CPU time of this thread alone, whatever else the machine does. A look through all of them would take a
/// hundred times as long among a hundred times as many.
#[test]
fn to_drop_a_key_costs_the_same_among_many() {
    let (few, many) = (cost_of_a_key(1_000), cost_of_a_key(100_000));
    assert!(many < 12.0 * few, "{few} ns among 1,000 keys, {many} among 100,000");
}

/// Pages, bodies, what guards and upgrade hooks refuse with, and pages for statuses.
#[test]
fn whatever_answers_reaches_the_server() {
    let count = || Response::with_server(|_call, server| server.session_count().to_string());
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/count", move |_call| {
                count().header("X-Own", "1").header("Content-Type", "x/y")
            });
            route.post("/send/{name}", |_call, body| {
                let text = body.text().unwrap_or_default().to_owned();
                Response::with_server(move |call, server| {
                    let name = call.parameter("name").unwrap_or_default();
                    server
                        .send_to_name(&name, text)
                        .map_or_else(|_| Response::new(404), |()| Response::new(204))
                })
            });
            route
                .post("/guarded", |_call, _body| "in")
                .guard(move |_call| Err(count().status(403)));
            route
                .web_socket("/{name}", |_call: &Call| {
                    on_connect(|session, call| {
                        Ok(session.set_name(&call.parameter("name").unwrap_or_default())?)
                    })
                })
                .on_upgrade(move |call| match call.query().is_empty() {
                    true => Ok(wirewheel::Accept::new()),
                    false => Err(count().status(401)),
                });
            route.get("/panics", |_call| {
                Response::with_server(|_call, _server| -> Response { panic!("on purpose") })
            });
            route.get("/within", move |_call| Response::with_server(move |_call, _server| count()));
            let once = count();
            route.get("/once", move |_call| once.clone());
            route.status_page(404, move |_call| count().status(404));
        });
    })
    .unwrap();
    let mut door = app.web_socket("/door");
    let answer = app.get("/count");
    assert_eq!((answer.status, answer.text(), answer.header("x-own")), (200, "1", Some("1")));
    assert_eq!(answer.header("content-length"), Some("1"));
    let mut client = app.connect();
    client.send_bytes(b"HEAD /count HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.expect_head().header("content-length"), Some("1"));
    assert_eq!(app.post("/send/door", "text/plain", "ding").status, 204);
    door.expect_text("ding");
    for (answer, status, text) in [
        (app.post("/send/nobody", "text/plain", "ding"), 404, "1"),
        (app.post("/guarded", "text/plain", ""), 403, "1"),
        (app.upgrade("/other?refused").connect().unwrap_err(), 401, "1"),
        (app.get("/no/where"), 404, "1"),
        (app.get("/within"), 200, "1"),
        (app.get("/once"), 200, "1"),
    ] {
        assert_eq!((answer.status, answer.text()), (status, text));
    }
    assert_eq!(app.get("/once").status, 500, "it was made for one request");
    app.tolerate_panics();
    assert_eq!(app.get("/panics").status, 500);
    assert_eq!(app.get("/count").text(), "1");
}

/// A device that answers questions of the form `17 what`.
fn devices() -> TestApplication {
    TestApplication::new(|app: &mut Application| {
        let limits = Limits::new().max_questions(3);
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            route.web_socket("/{name}", |_: &Call| {
                on_connect(|session, call| {
                    Ok(session.set_name(&call.parameter("name").unwrap_or_default())?)
                })
                .on_message(|session, message| {
                    let text = message.text().unwrap_or_default();
                    let (correlation, said) = text.split_once(' ').unwrap_or_default();
                    match session.answer(correlation, said) {
                        true => Ok(()),
                        false => session.send("nobody asked"),
                    }
                })
            });
        });
    })
    .unwrap()
}

/// As what is sent by an id: nobody else is told.
#[test]
fn what_another_thread_sends_to_a_name_without_room_counts_with_the_session() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().process_bytes(64 << 10)));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| Ok(session.set_name("it")?))
                    .on_message(|session, _| session.send(session.dropped().to_string()))
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    app.handle().send_to_name("it", "x".repeat(100_000)).unwrap();
    app.advance(Duration::ZERO);
    client.send("how many?");
    client.expect_text("1");
}

#[test]
fn a_name_is_one_session_s_until_it_ends_or_another_takes_it() {
    let app = devices();
    let mut seven = app.web_socket("/seven");
    app.handle().send_to_name("seven", "by its name").unwrap();
    app.advance(Duration::ZERO);
    seven.expect_text("by its name");
    let mut second = app.web_socket("/seven");
    second.expect_close(CloseCode::INTERNAL_ERROR);
    app.with_server(|server| {
        let id = server.find_session("seven").unwrap();
        assert_eq!(server.name_of(id), Some("seven"));
        assert_eq!(server.name(id, "seven"), Ok(()), "its own");
        assert_eq!(server.name(id, ""), Err(NameError::Length));
        assert_eq!(server.name(id, &"x".repeat(257)), Err(NameError::Length));
        assert_eq!(server.send_to_name("eight", "?"), Err(SendError::Gone));
    });
    let _eight = app.web_socket("/eight");
    app.with_server(|server| {
        let (seven, eight) = (server.find_session("seven"), server.find_session("eight").unwrap());
        assert_eq!(server.name(eight, "seven"), Err(NameError::Taken));
        assert_eq!(server.take_name(eight, "seven"), Ok(seven));
        assert_eq!(
            (server.find_session("seven"), server.find_session("eight")),
            (Some(eight), None)
        );
        assert_eq!(server.name_of(seven.unwrap()), None);
        server.close(eight, CloseCode::NORMAL).unwrap();
    });
    app.with_server(|server| assert_eq!(server.find_session("seven"), None, "it has ended"));
    assert_eq!(app.with_server(|server| server.session_count()), 1);
}

/// What came of each question, in order.
type Answers = Rc<RefCell<Vec<Result<String, AskError>>>>;

#[test]
fn a_question_has_one_answer_or_one_error() {
    let (app, answers) = (devices(), Answers::default());
    let mut valve = app.web_socket("/valve");
    let id = app.with_server(|server| server.find_session("valve").unwrap());
    let ask = |correlation: &str, seconds| {
        let answers = Rc::clone(&answers);
        let timeout = Duration::from_secs(seconds);
        app.with_server(|server| {
            let question = format!("{correlation} open");
            server.ask(id, correlation, question, timeout, move |_server, answer| {
                let answer = answer.map(|message| message.text().unwrap_or_default().to_owned());
                answers.borrow_mut().push(answer);
            })
        })
    };
    let answered = || std::mem::take(&mut *answers.borrow_mut());
    assert_eq!(ask("1", 5), Ok(()));
    assert_eq!(ask("1", 5), Err(AskError::Duplicate));
    assert_eq!(ask("2", 5), Ok(()));
    assert_eq!(ask("3", 0), Err(AskError::Invalid));
    assert_eq!(ask(&"x".repeat(257), 5), Err(AskError::Invalid));
    assert_eq!(ask("3", 7), Ok(()));
    assert_eq!(ask("4", 5), Err(AskError::TooMany));
    for question in ["1 open", "2 open", "3 open"] {
        valve.expect_text(question);
    }
    valve.send("2 done");
    assert_eq!(answered(), [Ok("done".into())]);
    valve.send("2 again");
    valve.expect_text("nobody asked");
    app.advance(Duration::from_secs(5));
    assert_eq!(answered(), [Err(AskError::Timeout)]);
    valve.send("1 late");
    valve.expect_text("nobody asked");
    assert_eq!(ask("1", 60), Ok(()));
    valve.reset();
    assert_eq!(answered(), [Err(AskError::Ended), Err(AskError::Ended)]);
    assert_eq!(ask("5", 5), Err(AskError::Send(SendError::Gone)));
    app.advance(Duration::from_secs(100));
    assert_eq!(answered(), []);
}

/// A peer may choose its name, and have much asked of it.
#[test]
fn names_and_open_questions_count_and_are_given_back() {
    let app = devices();
    let mut first = app.web_socket(&format!("/{}", "x".repeat(256)));
    let of_one = app.stats().bytes_held;
    assert!(of_one >= 256, "{of_one}");
    let mut other = app.web_socket("/other");
    let named = app.stats().bytes_held;
    assert!(named - of_one > 50, "{named}");
    let (one, two) = app.with_server(|server| {
        (server.find_session(&"x".repeat(256)).unwrap(), server.find_session("other").unwrap())
    });
    for correlation in ["1", &"y".repeat(256)] {
        let asked =
            |server: &mut ServerRef<'_>| server.ask(two, correlation, "", SECOND, |_, _| ());
        app.with_server(asked).unwrap();
    }
    let asked = app.stats().bytes_held;
    assert!(asked - named > 2 * 256, "{asked}");
    other.expect_text("");
    other.expect_text("");
    other.send("1 done");
    assert!((named..asked).contains(&app.stats().bytes_held));
    app.advance(SECOND);
    assert_eq!(app.stats().bytes_held, named, "one is answered, and one too late");
    app.with_server(|server| server.take_name(two, &"x".repeat(256)).unwrap());
    assert_eq!(app.stats().bytes_held, of_one, "one has the other's name, and one none");
    app.with_server(|server| server.ask(one, "2", "", SECOND, |_, _| ()).unwrap());
    first.reset();
    assert_eq!(app.stats().bytes_held, of_one);
    drop(other);
    assert_eq!(app.stats().bytes_held, 0);
}

/// Whatever it sends as one.
#[test]
fn an_answer_that_nobody_awaits_is_none() {
    let app = devices();
    let mut valve = app.web_socket("/valve");
    let id = app.with_server(|server| server.find_session("valve").unwrap());
    for _ in 0..2 {
        for answer in ["", " ", "1 open", &"1".repeat(60_000), &"€".repeat(20_000)] {
            valve.send(answer);
            valve.expect_text("nobody asked");
        }
        let question = |server: &mut ServerRef<'_>| server.ask(id, "7", "7", SECOND, |_, _| ());
        app.with_server(question).unwrap();
        valve.expect_text("7");
        app.advance(SECOND);
    }
}

/// Each is told how its own question ended, also where a thread has put it.
#[test]
fn the_limit_of_questions_holds_for_threads_too() {
    let app = devices();
    let _valve = app.web_socket("/valve");
    let id = app.with_server(|server| server.find_session("valve").unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..5 {
        let sender = sender.clone();
        let then = move |_: &mut ServerRef<'_>, answer: Result<Message<'_>, AskError>| {
            sender.send((number, answer.err())).unwrap();
        };
        app.handle().ask(id, number.to_string(), "", SECOND, then).unwrap();
    }
    drop(sender);
    app.advance(Duration::ZERO);
    let too_many = [3, 4].map(|number| (number, Some(AskError::TooMany)));
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), too_many);
    app.advance(SECOND);
    let late = [0, 1, 2].map(|number| (number, Some(AskError::Timeout)));
    assert_eq!(receiver.iter().collect::<Vec<_>>(), late);
}

#[test]
fn threads_ask_too_and_an_answer_may_ask_again() {
    let app = devices();
    let mut valve = app.web_socket("/valve");
    let id = app.with_server(|server| server.find_session("valve").unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    let told = sender.clone();
    let handle = app.handle();
    let thread = spawn(move || {
        handle.ask(id, "1", "1 state", SECOND, move |server, answer| {
            told.send(answer.map(|message| message.text() == Some("open"))).unwrap();
            let again = move |_: &mut ServerRef<'_>, answer: Result<Message<'_>, AskError>| {
                sender.send(answer.map(|_| true)).unwrap();
            };
            server.ask(id, "2", "2 why", SECOND, again).unwrap();
        })
    });
    thread.join().unwrap().unwrap();
    app.advance(Duration::ZERO);
    valve.expect_text("1 state");
    valve.send("1 open");
    valve.expect_text("2 why");
    valve.half_close();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [Ok(true), Err(AskError::Ended)]);
    let (sender, receiver) = std::sync::mpsc::channel();
    app.handle()
        .ask(id, "3", "", SECOND, move |_, answer| {
            sender.send(answer.err()).unwrap();
        })
        .unwrap();
    app.advance(Duration::ZERO);
    assert_eq!(receiver.recv(), Ok(Some(AskError::Send(SendError::Gone))));
}

/// Whenever it begins, and however often the clock has moved before.
#[test]
fn what_is_due_at_a_time_has_happened_when_the_clock_was_moved_by_it() {
    let app = app(|_: &Call| {
        on_connect(|session, _call| {
            session.set_timer(SECOND)?;
            Ok(())
        })
        .on_timer(|session, _| {
            session.set_timer(SECOND)?;
            session.send(format!("{}", session.now().as_secs()))
        })
    });
    app.advance(Duration::from_micros(1_234_567));
    let mut client = app.web_socket("/");
    for _ in 0..500 {
        app.advance(SECOND);
        let said = client.receive();
        assert!(matches!(said, Some(Received::Text(_))), "{said:?}");
        client.expect_nothing();
    }
    assert!(app.elapsed() < Duration::from_secs(501) + 501 * Duration::from_micros(8_192));
}

#[test]
fn every_hook_knows_the_time_of_the_test() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/now", |call| Response::text(call.now().as_secs().to_string()));
            route.web_socket("/", |call: &Call| {
                let made = call.now();
                on_connect(move |session, call| {
                    assert_eq!((made, call.now()), (session.now(), session.server().now()));
                    session.send(session.now().as_secs().to_string())
                })
            });
        });
    })
    .unwrap();
    app.advance(Duration::from_secs(3_600));
    assert_eq!(app.get("/now").text(), "3600");
    app.web_socket("/").expect_text("3600");
}

#[test]
fn a_hook_that_waits_for_its_own_server_is_refused() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        let handle = app.handle();
        app.every(Duration::from_millis(10), move |server| {
            for handle in [handle.clone(), server.handle()] {
                if matches!(handle.join(), Err(ServerError::JoinOnLoop)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            server.shutdown(SECOND);
        });
    })
    .unwrap()
    .spawn()
    .unwrap();
    server.join().unwrap();
    assert!(refused.load(Ordering::Relaxed) >= 2);
}

/// A wait in vain takes the time that was said, to the end of the tick, and not a whole look more.
#[cfg(feature = "client")]
#[test]
fn a_wait_for_a_request_ends_when_it_was_to() {
    let app = TestApplication::new(|_: &mut Application| {}).unwrap();
    let server = app.far_server("cloud.example", 80);
    let time = Duration::from_millis(60);
    let wait = || drop(server.expect_request_within(time));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(wait)).unwrap_err();
    let late = app.elapsed() - time;
    assert!(late < Duration::from_millis(9), "{late:?} late");
}

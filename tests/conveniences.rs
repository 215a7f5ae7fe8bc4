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

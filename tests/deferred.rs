//! Answers that come later: by timers, by threads, too late or never; in memory and under virtual time.

#![allow(clippy::disallowed_methods, reason = "threads of tests need no names")]

mod support;

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use support::*;
use wirewheel::body::{BodyHandler, BodyNext, IncomingBody};
use wirewheel::defer::Pending;
use wirewheel::testing::{Ending, TestApplication, TestClient};
use wirewheel::{
    Accept, Application, Call, CloseCode, Limits, Response, Routing, WebSockets, on_connect,
};

const LEFT: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::ZERO;

/// The answers that the application has, in the order of their requests.
#[derive(Clone, Default)]
struct Pendings(Rc<RefCell<Vec<Pending>>>);

impl Pendings {
    fn keep(&self, call: &Call) -> Response {
        self.0.borrow_mut().push(call.defer());
        Response::deferred()
    }

    fn take(&self) -> Pending {
        self.0.borrow_mut().remove(0)
    }

    fn are_cancelled(&self) -> Vec<bool> {
        self.0.borrow().iter().map(Pending::is_cancelled).collect()
    }
}

/// Does something with an answer on another thread, to its end.
fn on_a_thread(
    app: &TestApplication,
    pending: Pending,
    act: impl FnOnce(Pending) + Send + 'static,
) {
    thread::spawn(move || act(pending)).join().unwrap();
    app.advance(MOMENT);
}

/// An application with `/page`, `/post`, `/ws` and `/events` that defer, and what routes are added.
fn application(
    limits: Limits,
    more: impl FnOnce(&mut Routing<'_>, &Pendings),
) -> (TestApplication, Pendings) {
    let pendings = Pendings::default();
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            let of = pendings.clone();
            route.get("/page", move |call| of.keep(call));
            let of = pendings.clone();
            route.post("/post", move |call, _body| of.keep(call));
            route.get("/now", |_call| "now");
            let of = pendings.clone();
            route
                .web_socket("/ws", |call: &Call| {
                    let user = call.attached::<String>().cloned().unwrap_or_default();
                    on_connect(move |session, _call| session.send(&user))
                        .on_message(|session, message| session.send(message))
                })
                .on_upgrade(move |call| Err(of.keep(call)))
                .on_upgrade(|call| match call.attached::<String>().map(String::as_str) {
                    Some("mallory") => Err(Response::new(403)),
                    _ => Ok(Accept::new().header("X-Second", "asked")),
                });
            let of = pendings.clone();
            route
                .event_stream("/events", |_call: &Call| on_connect(|session, _| session.send("x")))
                .on_request(move |call| Err(of.keep(call)));
            more(route, &pendings);
        });
    })
    .unwrap();
    (app, pendings)
}

fn plain() -> (TestApplication, Pendings) {
    application(Limits::new(), |_route, _pendings| {})
}

/// A connection with a request whose answer is awaited.
fn ask(app: &TestApplication, path: &str) -> TestClient {
    let mut client = app.connect();
    client.send_bytes(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    client
}

/// What became of them all: answered, dropped, late, cancelled, refused; and how many are open.
fn outcomes(app: &TestApplication) -> ([u64; 5], u64) {
    let stats = app.stats();
    let outcomes = [
        stats.deferred_answered,
        stats.deferred_dropped,
        stats.deferred_late,
        stats.deferred_cancelled,
        stats.deferred_refused,
    ];
    (outcomes, stats.deferred_open)
}

/// Who waits for an answer and holds the most is refused as any other request is that comes at a bad time.
#[test]
fn whose_memory_is_wanted_is_refused_in_the_form_of_its_request() {
    for (request, status, body) in [
        ("GET /page", 503, "503 Service Unavailable\n"),
        ("HEAD /page", 503, ""),
        ("GET /events", 200, "retry: "),
    ] {
        let limits = Limits::new().process_bytes(40_000).max_head_bytes(16_000);
        let (app, pendings) = application(limits, |route, _| {
            route.default_header("X-Filtered", "yes");
        });
        let long = "x".repeat(14_000);
        let head = format!("{request} HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n\r\n");
        let mut clients: Vec<TestClient> = (0..4).map(|_| app.connect()).collect();
        clients.iter_mut().for_each(|client| client.send_bytes(head.as_bytes()));
        app.advance(MOMENT);
        assert!(app.stats().over_budget > 0, "{request}");
        let refused = pendings.are_cancelled().iter().position(|is_cancelled| *is_cancelled);
        let client = &mut clients[refused.unwrap()];
        let is_head = request.starts_with("HEAD");
        let answer = if is_head { client.expect_head() } else { client.expect_answer() };
        assert_eq!((answer.status, answer.header("X-Filtered")), (status, Some("yes")));
        assert_eq!(answer.header("Connection"), Some("close"), "{request}");
        assert!(is_head || answer.text().starts_with(body), "{request}: {}", answer.text());
        client.expect_nothing(); // behind its head or its body
    }
}

#[test]
fn pages_are_answered_later_and_pipelined_requests_keep_their_order() {
    let (app, pendings) = plain();
    let mut client = app.connect();
    let requests = "GET /page HTTP/1.1\r\nHost: h\r\n\r\nGET /now HTTP/1.1\r\nHost: h\r\n\r\n\
                    HEAD /page HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send_bytes(requests.as_bytes());
    client.send_bytes(b"GET /now HTTP/1.1\r\nHost: h\r\n\r\n"); // while nothing is read
    app.advance(Duration::from_secs(29));
    assert_eq!((app.stats().requests_total, pendings.are_cancelled()), (1, vec![false]));
    on_a_thread(&app, pendings.take(), |pending| pending.answer("first"));
    assert_eq!(client.expect_answer().text(), "first");
    assert_eq!(client.expect_answer().text(), "now");
    app.advance(Duration::from_secs(29)); // the second has a time of its own
    app.with_server(|server| pendings.take().answer_on(server, "of no length"));
    app.advance(MOMENT);
    let head = client.expect_head();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("12")));
    assert_eq!(client.expect_answer().text(), "now");
    assert_eq!(outcomes(&app), ([2, 0, 0, 0, 0], 0));
    app.advance(Duration::from_secs(80)); // keep_alive_timeout
    client.expect_end(Ending::Closed);
}

/// Nothing of them is read meanwhile, and some of them are deferred in their turn.
#[test]
fn a_thousand_requests_behind_a_deferred_one_are_answered_in_their_order() {
    let (app, pendings) = application(Limits::new(), |route, _pendings| {
        route.get("/number/{n}", |call| call.parameter("n").unwrap_or_default().into_owned());
    });
    let mut client = ask(&app, "/page");
    let line = |n: u32| match n % 100 {
        0 => "GET /page HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        _ => format!("GET /number/{n} HTTP/1.1\r\nHost: h\r\n\r\n"),
    };
    client.send_bytes((1..=1_000).map(line).collect::<String>().as_bytes());
    assert_eq!(app.stats().requests_total, 1);
    for n in (0..1_000).step_by(100) {
        app.advance(Duration::from_secs(20)); // each has a time of its own
        assert_eq!(pendings.are_cancelled(), [false]);
        pendings.take().answer(format!("late {n}"));
        app.advance(MOMENT);
        assert_eq!(client.expect_answer().text(), format!("late {n}"));
        for behind in n + 1..n + 100 {
            assert_eq!(client.expect_answer().text(), behind.to_string());
        }
    }
    pendings.take().answer("the last");
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text(), "the last");
    assert_eq!((outcomes(&app), app.stats().requests_total), (([11, 0, 0, 0, 0], 0), 1_001));
}

/// What came before its end is answered, whoever has to be waited for.
#[test]
fn requests_behind_a_deferred_one_are_answered_to_a_client_that_ends_its_side() {
    let (app, pendings) = plain();
    let mut client = app.connect();
    for path in ["/page", "/now", "/page", "/now"] {
        client.send_bytes(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    }
    client.half_close();
    for text in ["one", "two"] {
        assert_eq!(pendings.are_cancelled(), [true]);
        app.advance(LEFT - Duration::from_secs(1));
        pendings.take().answer(text);
        app.advance(MOMENT);
        assert_eq!(client.expect_answer().text(), text);
        assert_eq!(client.expect_answer().text(), "now");
    }
    client.expect_end(Ending::Closed);
    assert_eq!((outcomes(&app), app.stats().connections_open), (([2, 0, 0, 0, 0], 0), 0));
}

/// The answer may defer once more: the request waits on, with a time of its own.
#[test]
fn an_answer_may_defer_again() {
    let (app, pendings) = plain();
    let mut client = ask(&app, "/page");
    let (again, deferred) = channel();
    app.advance(LATE - Duration::from_secs(1));
    pendings.take().answer_with(move |call, _server| {
        again.send(call.defer()).unwrap();
        Response::deferred()
    });
    app.advance(LATE - Duration::from_secs(1));
    deferred.recv().unwrap().answer("at last");
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text(), "at last");
    client.send_bytes(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    pendings.take().answer(Response::deferred());
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().status, 500, "nobody has deferred it");
    assert_eq!(outcomes(&app), ([3, 0, 0, 0, 0], 0));
}

#[test]
fn an_upgrade_is_accepted_by_a_thread_and_the_hooks_behind_it_are_asked() {
    let (app, pendings) = plain();
    let mut client = app.upgrade("/ws").begin();
    client.send_frame(0x81, b"before the answer");
    app.advance(Duration::from_secs(20)); // handshake_timeout is 10 s
    assert_eq!(app.stats().sessions_total, 0);
    on_a_thread(&app, pendings.take(), |pending| {
        pending.accept_with(|call| {
            call.attach("anna".to_owned());
            Ok(Accept::new().header("X-First", "asked"))
        });
    });
    let answer = client.expect_upgrade().unwrap();
    let headers = [answer.header("x-first"), answer.header("x-second")];
    assert_eq!(headers, [Some("asked"), Some("asked")]);
    client.expect_text("anna");
    client.expect_text("before the answer");
    client.send("after it");
    client.expect_text("after it");
    client.close(CloseCode::NORMAL);

    let mut refused = app.upgrade("/ws").begin();
    on_a_thread(&app, pendings.take(), |pending| {
        pending.accept_with(|call| {
            call.attach("mallory".to_owned());
            Ok(Accept::new())
        });
    });
    assert_eq!(refused.expect_upgrade().unwrap_err().status, 403);
    let mut refused = app.upgrade("/ws").begin();
    on_a_thread(&app, pendings.take(), |pending| pending.answer(Response::new(401)));
    assert_eq!(refused.expect_upgrade().unwrap_err().status, 401);
    assert_eq!(outcomes(&app), ([3, 0, 0, 0, 0], 0));
}

#[test]
fn an_event_stream_is_begun_or_refused_later() {
    let (app, pendings) = plain();
    let mut client = ask(&app, "/events");
    app.advance(Duration::from_secs(20));
    pendings.take().accept(Accept::new());
    app.advance(MOMENT);
    let head = client.expect_head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(app.stats().event_streams_open, 1);
    let mut refused = ask(&app, "/events");
    pendings.take().answer(Response::text("not for you").status(403));
    app.advance(MOMENT);
    assert_eq!(refused.expect_answer().text(), "not for you");
    // An EventSource comes back after an answer of 200 alone.
    let mut dropped = ask(&app, "/events");
    drop(pendings.take());
    app.advance(MOMENT);
    let answer = dropped.expect_answer();
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("retry: "), "{answer:?}");
}

#[test]
fn what_is_dropped_or_late_gets_503() {
    let (app, pendings) = plain();
    for path in ["/page", "/ws"] {
        let mut client = if path == "/ws" { app.upgrade(path).begin() } else { ask(&app, path) };
        on_a_thread(&app, pendings.take(), drop);
        assert_eq!(client.expect_answer().status, 503, "{path}");
        assert_eq!(client.request("GET", "/now").text(), "now", "{path}");
    }
    let (mut page, mut upgrade) = (ask(&app, "/page"), app.upgrade("/ws").begin());
    app.advance(LATE - Duration::from_secs(1));
    assert_eq!(outcomes(&app), ([0, 2, 0, 0, 0], 2));
    app.advance(Duration::from_secs(1));
    assert_eq!(pendings.are_cancelled(), [true, true]);
    for client in [&mut page, &mut upgrade] {
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    pendings.take().answer("too late");
    pendings.take().accept(Accept::new());
    app.advance(MOMENT);
    assert_eq!(page.request("GET", "/now").text(), "now");
    assert_eq!(outcomes(&app), ([0, 2, 2, 0, 0], 0));
}

#[test]
fn so_many_are_open_and_no_more_whether_their_clients_wait_or_not() {
    let (app, pendings) = application(Limits::new().max_deferred(2), |_route, _pendings| {});
    let mut first = ask(&app, "/page");
    let mut second = app.upgrade("/ws").begin();
    let refused = ask(&app, "/page").expect_answer();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(app.upgrade("/ws").connect().unwrap_err().status, 503);
    assert_eq!(pendings.are_cancelled(), [false, false, true, true]);
    first.reset();
    // The application has still to find out.
    assert_eq!(ask(&app, "/page").expect_answer().status, 503);
    assert_eq!(outcomes(&app), ([0, 0, 0, 1, 3], 2));
    drop(pendings.take());
    app.advance(MOMENT);
    let mut third = ask(&app, "/page");
    pendings.take().answer(Response::new(401));
    app.advance(MOMENT);
    assert_eq!(second.expect_answer().status, 401);
    let count = pendings.are_cancelled().len();
    pendings.0.borrow_mut().drain(..count - 1);
    pendings.take().answer("the third");
    app.advance(MOMENT);
    assert_eq!(third.expect_answer().text(), "the third");
}

#[test]
fn a_client_that_leaves_is_seen_while_it_waits() {
    let (app, pendings) = plain();
    let mut gone = ask(&app, "/page");
    gone.reset();
    assert_eq!(pendings.are_cancelled(), [true]);
    assert_eq!(app.stats().connections_open, 0);
    pendings.take().answer("to nobody");
    // Most who end their side have left; who still reads gets the answer.
    let mut half = app.upgrade("/ws").begin();
    half.half_close();
    assert_eq!((pendings.are_cancelled(), app.stats().connections_open), (vec![true], 1));
    pendings.take().answer(Response::new(401));
    app.advance(MOMENT);
    assert_eq!(half.expect_answer().status, 401);
    half.expect_end(Ending::Closed);
    // Nobody is waited for without end.
    let mut silent = ask(&app, "/page");
    silent.half_close();
    app.advance(LEFT - Duration::from_secs(1));
    assert_eq!(app.stats().connections_open, 1);
    app.advance(Duration::from_secs(1));
    silent.expect_end(Ending::Closed);
    drop(pendings.take());
    app.advance(MOMENT);
    assert_eq!(outcomes(&app), ([1, 0, 0, 2, 0], 0));
}

/// An end is announced once, and may be known before the application defers again: for a hook that follows,
/// the same request once more, or one that was held behind it.
#[test]
fn a_client_that_has_left_is_known_to_have_whatever_is_deferred_behind_that() {
    let (app, pendings) = application(Limits::new(), |route, pendings| {
        let (first, second) = (pendings.clone(), pendings.clone());
        route
            .web_socket("/two", |_: &Call| on_connect(|_, _| Ok(())))
            .on_upgrade(move |call| Err(first.keep(call)))
            .on_upgrade(move |call| Err(second.keep(call)));
    });
    let mut client = app.upgrade("/two").begin();
    client.half_close();
    pendings.take().accept(Accept::new());
    app.advance(MOMENT);
    assert_eq!(pendings.are_cancelled(), [true]);
    app.advance(LEFT);
    assert_eq!(app.stats().connections_open, 0);
    drop(pendings.take());
    let mut client = app.connect();
    client.send_bytes("GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2).as_bytes());
    client.half_close();
    pendings.take().answer("one");
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text(), "one");
    assert_eq!(pendings.are_cancelled(), [true]);
    app.advance(LEFT);
    assert_eq!(app.stats().connections_open, 0);
    drop(pendings.take());
}

#[test]
fn a_stop_waits_within_its_grace() {
    let (app, pendings) = plain();
    let mut page = ask(&app, "/page");
    let mut upgrade = app.upgrade("/ws").begin();
    let mut refused = app.upgrade("/ws").begin();
    let mut cut = ask(&app, "/page");
    app.shutdown(Duration::from_secs(9));
    app.advance(Duration::from_secs(3));
    assert!(!app.is_stopped());
    pendings.take().answer("before the end");
    pendings.take().accept(Accept::new());
    pendings.take().answer(Response::new(401));
    app.advance(MOMENT);
    assert_eq!(page.expect_answer().text(), "before the end");
    assert_eq!(upgrade.expect_upgrade().unwrap_err().status, 503);
    assert_eq!(refused.expect_upgrade().unwrap_err().status, 401);
    app.advance(Duration::from_secs(7));
    assert!(app.is_stopped());
    cut.expect_end(Ending::Closed);
    assert_eq!(pendings.are_cancelled(), [true]);
    assert_eq!((outcomes(&app).0, app.stats().sessions_total), ([3, 0, 0, 1, 0], 0));
    drop(app);
    pendings.take().answer("to a server that is gone");
}

#[test]
fn the_origin_is_judged_before_anything_is_deferred() {
    let (app, pendings) = plain();
    let foreign = app.upgrade("/ws").header("Origin", "https://evil.example").connect();
    assert_eq!(foreign.unwrap_err().status, 403);
    let mut post = app.connect();
    post.send_bytes(
        b"POST /post HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(post.expect_answer().status, 403);
    assert!(pendings.are_cancelled().is_empty());
}

#[test]
fn any_response_is_given_on_the_loop_and_some_are_not_from_a_thread() {
    let (app, pendings) = plain();
    let mut client = ask(&app, "/page");
    on_a_thread(&app, pendings.take(), |pending| {
        pending.answer(Response::stream(|piece| write!(piece, "never")));
    });
    assert_eq!(client.expect_answer().status, 500);
    client.send_bytes(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    on_a_thread(&app, pendings.take(), |pending| {
        pending.answer_with(|call, server| {
            let mut left = server.session_count() + 2;
            let path = call.path().to_owned();
            Response::stream(move |piece| {
                left = left.saturating_sub(1);
                if left > 0 { piece.write_all(path.as_bytes()) } else { Ok(()) }
            })
        });
    });
    assert_eq!(client.expect_answer().text(), "/page");
    client.send_bytes(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    let file = Response::file("Cargo.toml");
    app.with_server(|server| pendings.take().answer_on(server, file));
    app.advance(MOMENT);
    assert!(client.expect_answer().text().starts_with("[package]"));
}

#[test]
fn mistakes_are_answered_with_500() {
    let (app, pendings) = application(Limits::new(), |route, _pendings| {
        route.get("/never", |_call| Response::deferred());
        route.get("/after-all", |call| {
            let _pending = call.defer();
            "after all"
        });
        route.status_page(404, |_call| Response::deferred());
    });
    assert_eq!(app.get("/never").status, 500);
    assert_eq!(app.get("/nowhere").status, 500);
    assert_eq!(app.get("/after-all").text(), "after all");
    let mut client = ask(&app, "/page");
    pendings.take().accept(Accept::new());
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().status, 500);
    let mut upgrade = app.upgrade("/ws").begin();
    pendings.take().accept(Accept::new().header("Upgrade", "h2c"));
    app.advance(MOMENT);
    assert_eq!(upgrade.expect_answer().status, 500);
    app.tolerate_panics();
    client.send_bytes(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    let panicking = |_call: &Call, _server: &mut wirewheel::ServerRef<'_>| -> Response {
        panic!("while it answers")
    };
    on_a_thread(&app, pendings.take(), move |pending| pending.answer_with(panicking));
    assert_eq!(client.expect_answer().status, 500);
    assert_eq!(client.request("GET", "/now").text(), "now");
}

#[test]
fn over_tls_it_is_the_same() {
    let pendings = Pendings::default();
    let of = pendings.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route
                .web_socket("/ws", |_call: &Call| on_connect(|session, _| session.send("hello")))
                .on_upgrade(move |call| Err(of.keep(call)));
        });
    })
    .unwrap();
    #[cfg(feature = "tls")]
    let app = app.over_tls();
    let mut client = app.upgrade("/ws").begin();
    client.send_frame(0x81, b"before the answer");
    app.advance(Duration::from_secs(20));
    pendings.take().accept(Accept::new());
    app.advance(MOMENT);
    client.expect_upgrade().unwrap();
    client.expect_text("hello");
    let mut gone = app.upgrade("/ws").begin();
    gone.half_close();
    assert_eq!(pendings.are_cancelled(), [true]);
    app.advance(LEFT);
    assert_eq!(app.stats().connections_open, 1);
}

#[test]
fn one_answer_is_deferred_once_and_not_when_it_is_over() {
    let calls: Rc<RefCell<Vec<Call>>> = Rc::default();
    let of = Rc::clone(&calls);
    let (app, pendings) = application(Limits::new(), move |route, pendings| {
        let pendings = pendings.clone();
        route.get("/twice", move |call| {
            of.borrow_mut().push(call.clone());
            pendings.keep(call);
            pendings.keep(call)
        });
    });
    let mut client = ask(&app, "/twice");
    assert_eq!(pendings.are_cancelled(), [false, true]);
    let (first, second) = (pendings.take(), pendings.take());
    second.answer("the second");
    first.answer("the first");
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text(), "the first");
    assert!(calls.borrow()[0].defer().is_cancelled());
    assert_eq!(outcomes(&app), ([1, 0, 0, 0, 0], 0));
}

/// Defers with its first piece, and answers on a thread before the body is whole.
struct Early(Call);

impl BodyHandler for Early {
    fn on_piece(&mut self, _body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        if piece.starts_with(b"a") {
            let pending = self.0.defer();
            thread::spawn(move || pending.answer("before the end")).join().unwrap();
        }
        BodyNext::Continue
    }

    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        Response::deferred()
    }
}

#[test]
fn bodies_are_answered_later_too() {
    let (app, pendings) = application(Limits::new(), |route, pendings| {
        route.receive("PUT", "/early", |call: &Call| Ok(Early(call.clone())));
        let of = pendings.clone();
        route.post("/guarded", |_call, _body| "not reached").guard(move |call| Err(of.keep(call)));
    });
    let mut client = app.connect();
    client.send_bytes(b"POST /post HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /n");
    client.send_bytes(b"ow HTTP/1.1\r\nHost: h\r\n\r\n");
    app.advance(Duration::from_secs(20));
    pendings.take().answer("three bytes");
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text(), "three bytes");
    assert_eq!(client.expect_answer().text(), "now");
    client.send_bytes(b"PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na");
    app.advance(MOMENT);
    client.send_bytes(b"bc");
    assert_eq!(client.expect_answer().text(), "before the end");
    // A guard refuses later; the body that was not asked for ends the connection.
    client.send_bytes(
        b"POST /guarded HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    pendings.take().answer(Response::new(401));
    app.advance(MOMENT);
    let answer = client.expect_answer();
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert_eq!(outcomes(&app), ([3, 0, 0, 0, 0], 0));
}

#[test]
fn what_is_kept_counts_and_is_given_back() {
    let (app, pendings) = plain();
    let mut client = app.connect();
    client.send_bytes(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    let waiting = app.stats().bytes_held;
    assert!(waiting > 300, "{waiting}");
    client.send_bytes(&[b'x'; 40_000]); // not read while nothing of it is wanted
    assert_eq!(app.stats().bytes_held, waiting);
    pendings.take().answer("done");
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text(), "done");
    client.expect_answer(); // 431
    app.advance(Duration::from_secs(5));
    assert_eq!(app.stats().bytes_held, 0);
}

#[test]
fn an_answer_waits_for_a_peer_that_does_not_take_what_was_before() {
    let (app, pendings) = application(Limits::new(), |route, _pendings| {
        route.get("/long", |_call| "x".repeat(40_000));
    });
    let mut client = app.connect();
    client.read_only(1_000);
    client
        .send_bytes(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\nGET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    let before = app.stats().bytes_held;
    pendings.take().answer("behind it".repeat(1_000));
    app.advance(Duration::from_secs(2));
    assert_eq!(app.stats().bytes_held, before + 9_000, "it counts while it waits");
    client.read_on();
    app.advance(MOMENT);
    assert_eq!(client.expect_answer().text().len(), 40_000);
    assert_eq!(client.expect_answer().text().len(), 9_000);
}

/// Over sockets, with an authority on a thread.
#[test]
fn a_slow_authority_on_a_thread_answers_over_sockets() {
    let (asks, asked) = channel::<Pending>();
    let authority = thread::spawn(move || authority(&asked));
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            let of = asks.clone();
            route
                .web_socket("/ws", |_call: &Call| on_connect(|session, _| session.send("hello")))
                .on_upgrade(move |call| {
                    of.send(call.defer()).unwrap();
                    Err(Response::deferred())
                });
            route.get("/now", |_call| "now");
        });
    });
    let mut sessions: Vec<_> = (0..20).map(|_| server.upgrade("/ws")).collect();
    for session in &mut sessions {
        session.expect_text("hello");
    }
    drop(sessions);
    drop(server);
    assert_eq!(authority.join().unwrap(), 20);
}

/// Whatever of it the server has not read: it ends its side, or resets the connection.
#[test]
fn a_client_that_leaves_is_seen_over_sockets() {
    let (asks, asked) = channel::<Pending>();
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().close_timeout(PATIENCE)));
        app.routing(|route| {
            route.get("/page", move |call| {
                asks.send(call.defer()).unwrap();
                Response::deferred()
            });
        });
    });
    let soon = |happens: &dyn Fn() -> bool| {
        let until = std::time::Instant::now() + PATIENCE;
        while !happens() && std::time::Instant::now() < until {
            thread::yield_now();
        }
        happens()
    };
    for behind in [0, 1, 100_000] {
        for resets in [true, false] {
            let mut client = server.connect();
            client.write("GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
            let pending = asked.recv_timeout(PATIENCE).unwrap();
            assert!(!pending.is_cancelled());
            client.write(vec![b'x'; behind]);
            if resets {
                socket2::SockRef::from(&client.stream).set_linger(Some(MOMENT)).unwrap();
                drop(client);
                assert!(soon(&|| pending.is_cancelled()), "{behind} bytes, reset");
            } else {
                client.stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert!(soon(&|| pending.is_cancelled()), "{behind} bytes, and the end");
                pending.answer("it reads all the same");
                assert_eq!(client.answer(false).body, "it reads all the same");
            }
        }
    }
    let open = || server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap().connections_open;
    assert!(soon(&|| open() == 0), "what came behind is answered, and the last is gone");
}

fn authority(asked: &Receiver<Pending>) -> usize {
    let pendings = asked.iter().inspect(|pending| assert!(!pending.is_cancelled()));
    pendings.map(|pending| pending.accept(Accept::new())).count()
}

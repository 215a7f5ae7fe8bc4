//! Requests whose bodies or answers take their time, and what the connection is owed behind them.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::cors::Cors;
use crate::app::handler::on_connect;
use crate::app::response::Response;
use crate::core::deferring::Pending;
use crate::structures::ids::BodyId;
use crate::structures::produced::BodyPiece;
use crate::testing::{Ending, TestApplication};
use crate::words::limits::Limits;

type Kept<T> = Rc<RefCell<Vec<T>>>;

/// Counts a body, and pauses after each piece.
struct Pausing(Kept<BodyId>);

impl BodyHandler for Pausing {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, _piece: &[u8]) -> BodyNext {
        self.0.borrow_mut().push(body.id());
        BodyNext::Pause
    }

    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
        Response::text(body.received().to_string())
    }
}

struct Server {
    app: TestApplication,
    bodies: Kept<BodyId>,
    deferred: Kept<Pending>,
}

/// Panics where it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a drop of the application's");
    }
}

fn server(limits: Limits) -> Server {
    let (bodies, deferred) = (Kept::default(), Kept::default());
    let (paused, pending) = (Rc::clone(&bodies), Rc::clone(&deferred));
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            route.cors(Cors::new().allowed_origins(["https://dashboard.example"]));
            route.get("/page", |_| "page");
            route.get("/fragile", |_| {
                let (fragile, mut left) = (Fragile, 1);
                Response::stream(move |piece| {
                    let _ = &fragile;
                    while left > 0 {
                        piece.write_all(b"streamed")?;
                        left -= 1;
                    }
                    Ok(())
                })
            });
            route.get("/attached", |call| {
                call.attach(Fragile);
                let mut left = 100;
                Response::stream(move |piece| {
                    left -= 1;
                    piece.write_all(if left > 0 { &[b'x'; 1_000] } else { &[] })
                })
            });
            route.get("/later", move |call| {
                pending.borrow_mut().push(call.defer());
                Response::deferred()
            });
            route.post("/whole", |_, body| body.bytes().len().to_string());
            route.receive("POST", "/pausing", move |_| Ok(Pausing(Rc::clone(&paused))));
            route.event_stream("/events", |_: &Call| on_connect(|_, _| Ok(())));
        });
    });
    Server { app: app.unwrap(), bodies, deferred }
}

impl Server {
    fn resume(&self) {
        for id in self.bodies.take() {
            self.app.with_server(|server| server.resume_body(id)).unwrap();
        }
    }
}

fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// The wait for the next request begins with the answer, not with the head of the request before, which a
/// long upload lies behind.
#[test]
fn behind_a_long_upload_the_connection_is_kept_as_behind_any() {
    let server = server(Limits::new());
    let mut client = server.app.connect();
    client.send_bytes(&post("/whole", 40_000));
    for _ in 0..4 {
        server.app.advance(secs(25));
        client.send_bytes(&[b'x'; 10_000]);
    }
    assert_eq!(client.expect_answer().text(), "40000");
    server.app.advance(secs(70));
    assert_eq!(client.ending(), None);
    assert_eq!(client.request("GET", "/page").text(), "page");
}

#[test]
fn a_head_held_behind_a_paused_body_has_all_its_time() {
    let server = server(Limits::new());
    let mut client = server.app.connect();
    let begun = [post("/pausing", 3), b"abcGET /page HTTP/1.1\r\nHo".to_vec()].concat();
    client.send_bytes(&begun);
    server.app.advance(secs(20));
    server.resume();
    assert_eq!(client.expect_answer().text(), "3");
    server.app.advance(secs(5));
    client.send_bytes(b"st: h\r\n\r\n");
    assert_eq!(client.expect_answer().text(), "page");
}

/// A browser takes an answer without leave to read it for the end of the stream, and does not come back.
#[test]
fn a_stream_that_is_refused_for_now_is_so_readably_for_pages_of_other_origins() {
    let server = server(Limits::new());
    let mut source = server.app.connect();
    server.app.shutdown(secs(5));
    source.send_bytes(
        b"GET /events HTTP/1.1\r\nHost: h\r\nOrigin: https://dashboard.example\r\n\r\n",
    );
    let refused = source.expect_answer();
    assert_eq!((refused.status, refused.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://dashboard.example"),
        "{}",
        refused.head
    );
}

#[test]
fn what_an_answer_holds_that_nobody_waits_for_may_panic_in_its_drop() {
    let server = server(Limits::new());
    server.app.tolerate_panics();
    let mut client = server.app.connect();
    client.send_bytes(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    client.reset();
    let pending = server.deferred.take().pop().unwrap();
    let fragile = Fragile;
    server.app.with_server(|server| {
        pending.answer_on(
            server,
            Response::stream(move |_| {
                let _ = &fragile;
                Ok(())
            }),
        );
    });
    assert_eq!(server.app.get("/page").text(), "page");
}

#[test]
fn what_makes_an_answer_may_panic_in_its_drop() {
    let server = server(Limits::new());
    server.app.tolerate_panics();
    let mut client = server.app.connect();
    client.send_bytes(b"GET /fragile HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.expect_answer();
    assert_eq!((answer.status, answer.text()), (200, "streamed"));
    assert_eq!(client.request("GET", "/page").text(), "page");
    client.send_bytes(b"HEAD /fragile HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.expect_head().status, 200);
    assert_eq!(client.request("GET", "/page").text(), "page");
}

/// Its end is that of the connection, so that whatever follows would be taken for a part of it.
#[test]
fn no_panic_puts_anything_into_an_answer_that_is_on_its_way() {
    let server = server(Limits::new());
    server.app.tolerate_panics();
    let mut client = server.app.connect();
    client.read_only(10_000);
    client.send_bytes(b"GET /attached HTTP/1.0\r\nHost: h\r\n\r\n");
    client.read_on();
    assert_eq!(client.ending(), Some(Ending::Reset));
}

/// More than a share of a turn: nothing else would have it go on.
#[test]
fn a_long_answer_that_was_deferred_goes_on_behind_its_first_share() {
    let server = server(Limits::new());
    let mut client = server.app.connect();
    client.send_bytes(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    let pending = server.deferred.take().pop().unwrap();
    server.app.with_server(|server| {
        let length = 3_000_000;
        let zeros = |piece: &mut BodyPiece<'_>| piece.write_all(&[0; 32 << 10]);
        pending.answer_on(server, Response::stream_sized(length, zeros));
    });
    assert_eq!(client.expect_answer().body.len(), 3_000_000);
}

#[test]
fn many_requests_behind_a_deferred_answer_go_on_behind_their_first_share() {
    let server = server(Limits::new());
    let mut client = server.app.connect();
    let page = "GET /page HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send_bytes(
        ["GET /later HTTP/1.1\r\nHost: h\r\n\r\n", &page.repeat(1_500)].concat().as_bytes(),
    );
    let pending = server.deferred.take().pop().unwrap();
    server.app.with_server(|server| pending.answer_on(server, "late"));
    assert_eq!(client.expect_answer().text(), "late");
    for number in 0..1_500 {
        assert_eq!(client.expect_answer().text(), "page", "{number}");
    }
}

#[test]
fn many_requests_behind_a_paused_body_go_on_behind_their_first_share() {
    let server = server(Limits::new());
    let mut client = server.app.connect();
    let page = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send_bytes(&[post("/pausing", 3), b"abc".to_vec(), page.repeat(1_500)].concat());
    server.resume();
    assert_eq!(client.expect_answer().text(), "3");
    for number in 0..1_500 {
        assert_eq!(client.expect_answer().text(), "page", "{number}");
    }
}

/// The ticks of the wheel are longer than a short window may be late by.
#[test]
fn a_body_that_stops_is_answered_however_short_the_time_is() {
    for millis in [1, 10, 50, 100, 150] {
        for phase in 0..16 {
            let app = TestApplication::new(move |app: &mut Application| {
                app.install(WebSockets::new().write_timeout(Duration::from_millis(millis)));
                app.routing(|route| {
                    route.post("/whole", |_, body| body.bytes().len().to_string());
                });
            });
            let app = app.unwrap();
            app.advance(Duration::from_micros(500 * phase));
            let mut slow = app.connect();
            slow.send_bytes(&post("/whole", 6));
            app.advance(Duration::from_millis(millis + 20));
            assert_eq!(slow.expect_answer().status, 408, "{millis} ms, {phase}");
        }
    }
}

/// A path of many pieces is paid for like one of few.
#[test]
fn what_a_request_keeps_of_its_path_is_no_multiple_of_it() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.put("/files/{path...}", |call: &Call, _| {
                let pieces = call.parameters("path");
                format!("{} {} {}", pieces.len(), call.parameter("path").unwrap(), pieces[1])
            });
        });
    });
    let app = app.unwrap();
    let mut client = app.connect();
    let path = format!("/files{}/b%2Fc", "/a".repeat(3_900));
    let head = format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n");
    client.send_bytes(head.as_bytes());
    let held = app.stats().bytes_held;
    assert!(held <= 3 * head.len() as u64, "{held} bytes are held for {}", head.len());
    client.send_bytes(b"abc");
    assert_eq!(client.expect_answer().text(), "3901 a a");
}

/// Requests before a session are no route's: what is installed holds for them, whichever route is the first.
#[test]
fn options_of_a_route_are_for_its_sessions_and_not_for_the_requests_of_others() {
    let long = vec![b'x'; 200_000];
    for (of_route, installed) in [(1, 60), (60, 1)] {
        let (bodies, long) = (Kept::default(), long.clone());
        let paused = Rc::clone(&bodies);
        let app = TestApplication::new(move |app: &mut Application| {
            let options = WebSockets::new().write_timeout(secs(installed));
            app.install(options.pause_timeout(secs(installed)));
            app.routing(|route| {
                route
                    .web_socket("/live", |_: &Call| on_connect(|_, _| Ok(())))
                    .write_timeout(secs(of_route))
                    .pause_timeout(secs(of_route));
                route.post("/whole", |_, body| body.bytes().len().to_string());
                route.receive("POST", "/pausing", move |_| Ok(Pausing(Rc::clone(&paused))));
                route.get("/long", move |_| Response::text("").body(long.clone()));
            });
        });
        let server = Server { app: app.unwrap(), bodies, deferred: Kept::default() };
        let [mut slow, mut pausing, mut reader] = std::array::from_fn(|_| server.app.connect());
        slow.send_bytes(&post("/whole", 6));
        slow.send_bytes(b"abc");
        pausing.send_bytes(&post("/pausing", 6));
        pausing.send_bytes(b"abc");
        reader.read_only(1_000);
        reader.send_bytes(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n");
        server.app.advance(secs(20));
        if installed == 1 {
            assert_eq!(slow.expect_answer().status, 408);
            assert_eq!(pausing.expect_answer().status, 503);
            assert_eq!(reader.ending(), Some(Ending::Reset));
            continue;
        }
        slow.send_bytes(b"def");
        assert_eq!(slow.expect_answer().text(), "6");
        server.resume();
        pausing.send_bytes(b"def");
        server.resume();
        assert_eq!(pausing.expect_answer().text(), "6");
        reader.read_on();
        assert_eq!(reader.expect_answer().body.len(), 200_000);
    }
}

//! Answers that are made while they are sent: chunks, lengths, failures, and a peer that does not read.

mod support;

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use support::*;
use wirewheel::testing::{Ending, TestApplication};
use wirewheel::{Application, Response, WebSockets};

/// Lines with their numbers, `count` of them, a thousand a piece.
fn lines(count: u32, calls: Rc<Cell<u32>>) -> Response {
    let mut numbers = 0..count;
    Response::stream(move |piece| {
        calls.set(calls.get() + 1);
        for number in numbers.by_ref().take(1_000) {
            writeln!(piece, "line {number}")?;
        }
        Ok(())
    })
}

fn expected(count: u32) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn module(app: &mut Application, calls: Rc<Cell<u32>>) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |_| "page");
        route.get("/lines/{count}", move |call| {
            let count = call.parameter("count").unwrap().parse().unwrap();
            lines(count, Rc::clone(&calls)).header("Content-Type", "text/plain")
        });
        route.get("/status/{status}", |call| {
            let status = call.parameter("status").unwrap().parse().unwrap();
            Response::stream(|piece| piece.write_all(b"x")).status(status)
        });
        route.get("/fails", |_| {
            let mut left = 3;
            Response::stream(move |piece| {
                left -= 1;
                if left == 0 {
                    return Err(io::Error::other("the sensor is gone"));
                }
                piece.write_all(&[b'x'; 1_000])
            })
        });
        route.get("/panics", |_| Response::stream(|_| panic!("no piece")));
        // So much is announced, and so much comes.
        route.get("/sized/{announced}/{comes}", |call| {
            let number = |name| call.parameter(name).unwrap().parse::<u64>().unwrap();
            let mut left = number("comes");
            Response::stream_sized(number("announced"), move |piece| {
                let now = left.min(700);
                left -= now;
                piece.write_all(&vec![b'y'; usize::try_from(now).unwrap()])
            })
        });
        route.post("/upper", |_, body| {
            let mut rest = body.bytes().to_ascii_uppercase();
            Response::stream(move |piece| piece.write_all(&std::mem::take(&mut rest)))
        });
    });
}

fn app() -> (TestApplication, Rc<Cell<u32>>) {
    let calls: Rc<Cell<u32>> = Rc::default();
    let for_routes = Rc::clone(&calls);
    (TestApplication::new(move |app| module(app, for_routes)).unwrap(), calls)
}

#[test]
fn an_answer_of_unknown_length_is_chunked_and_the_connection_goes_on() {
    let (app, calls) = app();
    let mut client = app.connect();
    for count in [0, 1, 1_000, 2_500] {
        let answer = client.request("GET", &format!("/lines/{count}"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!((answer.header("content-length"), answer.header("connection")), (None, None));
        assert!(answer.text() == expected(count), "{count}");
    }
    calls.set(0);
    let head = client.request("HEAD", "/lines/5");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    assert_eq!(calls.get(), 0, "nothing is made for HEAD");
    assert_eq!(client.send_body("POST", "/upper", "text/plain", "abc").text(), "ABC");
    assert_eq!(client.request("GET", "/").text(), "page");
    for status in [204, 205, 304] {
        let answer = client.request("GET", &format!("/status/{status}"));
        assert_eq!((answer.status, answer.header("transfer-encoding")), (status, None));
    }
    // Behind `Connection: close`, and pipelined before another.
    client.send_bytes(
        b"GET /lines/3 HTTP/1.1\r\nHost: h\r\n\r\n\
        GET /lines/2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(client.expect_answer().text(), expected(3));
    let last = client.expect_answer();
    assert_eq!((last.text(), last.header("connection")), (&*expected(2), Some("close")));
    client.half_close();
    client.expect_end(Ending::Closed);
}

#[test]
fn in_http_1_0_it_ends_with_the_connection() {
    let server = Running::start(|app| module(app, Rc::default()));
    for line in ["", "Connection: keep-alive\r\n"] {
        let mut client = server.connect();
        client.write(format!("GET /lines/2500 HTTP/1.0\r\n{line}\r\n"));
        let answer = client.answer(true);
        assert_eq!(
            (answer.header("transfer-encoding"), answer.header("connection")),
            (None, Some("close"))
        );
        while client.fill() {}
        assert!(client.inbox == expected(2_500).into_bytes());
    }
    // Of a length that is known, it goes on.
    let mut client = server.connect();
    client.write("GET /sized/2000/2000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer(false).body.len(), 2_000);
    assert_eq!(client.request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body, "page");
}

#[test]
fn what_fails_resets_so_that_the_part_is_not_the_whole() {
    let (app, _) = app();
    app.tolerate_panics();
    for path in ["/fails", "/panics", "/sized/2000/1999"] {
        for version in ["1.1", "1.0"] {
            let mut client = app.connect();
            client.send_bytes(format!("GET {path} HTTP/{version}\r\nHost: h\r\n\r\n").as_bytes());
            assert_eq!(client.ending(), Some(Ending::Reset));
        }
    }
    let mut client = app.connect();
    assert_eq!(
        client.request("GET", "/sized/1000/5000").body,
        [b'y'; 1_000],
        "no more than announced"
    );
    assert_eq!(client.request("GET", "/sized/0/7").body, b"");
    assert_eq!(client.request("GET", "/").text(), "page");
}

#[test]
fn no_more_is_made_than_the_peer_takes() {
    let (app, calls) = app();
    let mut client = app.connect();
    client.read_only(5_000);
    client.send_bytes(b"GET /lines/1000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(calls.get() <= 2, "{}", calls.get());
    assert!(app.stats().bytes_held < 64 << 10);
    client.read_on();
    assert!(client.expect_answer().text() == expected(1_000_000));
    assert_eq!(calls.get(), 1_001);
    app.advance(Duration::from_secs(20)); // in which it is seen that the peer has it
    assert_eq!(app.stats().bytes_held, 0);
    // A peer that takes nothing is cut.
    let mut client = app.connect();
    client.read_only(5_000);
    client.send_bytes(b"GET /lines/1000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    app.advance(Duration::from_secs(35));
    assert_eq!(client.ending(), Some(Ending::Reset));
}

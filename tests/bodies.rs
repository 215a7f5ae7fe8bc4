//! Request bodies: what is taken, how, and what is refused, in memory and under virtual time.

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use support::*;
use wirewheel::body::{
    BodyError, BodyHandler, BodyId, BodyNext, IncomingBody, MultipartHandler, MultipartLimits,
    Part, multipart,
};
use wirewheel::testing::{Ending, TestApplication, TestClient};
use wirewheel::{Application, Call, Limits, Response, WebSockets, on_message};

/// What the handlers of bodies in pieces have seen.
type Seen = Rc<RefCell<Vec<String>>>;

/// Takes pieces, and does what the query says at one of them.
struct Pieces {
    seen: Seen,
    ids: Rc<RefCell<Vec<BodyId>>>,
    does: String,
    ended: bool,
}

impl Pieces {
    fn note(&self, what: String) {
        self.seen.borrow_mut().push(what);
    }
}

impl BodyHandler for Pieces {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        self.ids.borrow_mut().push(body.id());
        self.note(String::from_utf8_lossy(piece).into_owned());
        match self.does.as_str() {
            "pause" => BodyNext::Pause,
            "answer" => BodyNext::Answer(Response::text("enough").status(409)),
            "panic" => panic!("a piece too much"),
            _ => BodyNext::Continue,
        }
    }

    fn on_resume(&mut self, _body: &mut IncomingBody<'_>) -> BodyNext {
        self.note("resumed".into());
        BodyNext::Continue
    }

    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
        self.ended = true;
        Response::text(format!("{} of {:?}", body.received(), body.expected()))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.ended {
            self.note("dropped".into());
        }
    }
}

struct App {
    app: TestApplication,
    seen: Seen,
    ids: Rc<RefCell<Vec<BodyId>>>,
}

impl App {
    fn new() -> Self {
        Self::with(Limits::new())
    }

    fn with(limits: Limits) -> Self {
        Self::installed(WebSockets::new().limits(limits))
    }

    fn installed(options: WebSockets) -> Self {
        let seen = Seen::default();
        let ids: Rc<RefCell<Vec<BodyId>>> = Rc::default();
        let (for_handlers, for_ids) = (Rc::clone(&seen), Rc::clone(&ids));
        let app = TestApplication::new(move |app: &mut Application| {
            app.install(options.hosts(["h"]));
            app.routing(|route| {
                route.get("/", |_| "page");
                route.get("/both", |_| "read");
                route.post("/both", |_, body| format!("written {}", body.bytes().len()));
                route.web_socket("/both", |_: &Call| on_message(|session, m| session.send(m)));
                route.post("/echo", |call, body| {
                    format!("{} {}", call.method(), String::from_utf8_lossy(body.bytes()))
                });
                route.put("/echo", |_, body| body.text().map(str::to_owned));
                route.patch("/echo", |_, _| Response::new(204));
                route.delete("/echo/{id}", |call, _| format!("{:?}", call.parameter("id")));
                route.options("/echo", |_, _| Response::new(204).header("Allow", "POST"));
                route.post("/form", |_, body| -> Result<String, BodyError> {
                    let form = body.form()?;
                    let pairs = form.pairs().map(|(name, value)| format!("{name}={value};"));
                    let first = [form.get("a"), form.get("c")];
                    Ok(format!("{} {first:?}", pairs.collect::<String>()))
                });
                route.post("/typed", |_, _| "ok").content_types(["text/csv", "Application/X"]);
                route.post("/long", |_, _| "ok").length_required();
                route.post("/guarded", |_, _| "in").guard(|call| match call.query() {
                    "" => Ok(()),
                    _ => Err(Response::text("no").status(401)),
                });
                route.post("/small", |_, _| "ok").max_body_size(10);
                route.post("/anybody", |_, _| "ok").allow_any_origin();
                route.post("/panics", |_, _| -> Response { panic!("a whole body") });
                let factory = move |call: &Call| {
                    let does = call.query().to_owned();
                    if does == "refuse" {
                        return Err(Response::text("not now").status(403));
                    }
                    let (seen, ids) = (Rc::clone(&for_handlers), Rc::clone(&for_ids));
                    Ok(Pieces { seen, ids, does, ended: false })
                };
                route.receive("POST", "/pieces", factory).max_body_size(1 << 20);
            });
        });
        Self { app: app.unwrap(), seen, ids }
    }

    #[cfg(feature = "tls")]
    fn over_tls(self) -> Self {
        Self { app: self.app.over_tls(), ..self }
    }

    fn client(&self) -> TestClient {
        self.app.connect()
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.borrow_mut())
    }

    fn resume(&self) {
        let id = *self.ids.borrow().last().unwrap();
        self.app.with_server(|server| server.resume_body(id).unwrap());
    }
}

fn head(line: &str, lines: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

fn post(path: &str, body: &str) -> String {
    head(&format!("POST {path}"), &format!("Content-Length: {}\r\n", body.len())) + body
}

fn chunked(path: &str, chunks: &[&str]) -> String {
    let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    head(&format!("POST {path}"), "Transfer-Encoding: chunked\r\n")
        + &chunks.collect::<String>()
        + "0\r\n\r\n"
}

#[test]
fn whole_bodies_of_every_method_and_framing() {
    let app = App::new();
    let mut client = app.client();
    for (request, status, text) in [
        (post("/echo", "hello"), 200, "POST hello"),
        (post("/echo", ""), 200, "POST "),
        (head("POST /echo", ""), 200, "POST "),
        (chunked("/echo", &["hel", "lo", " world"]), 200, "POST hello world"),
        (chunked("/echo", &[]), 200, "POST "),
        (head("PUT /echo", "Content-Length: 3\r\n") + "abc", 200, "abc"),
        (head("PATCH /echo", "Content-Length: 1\r\n") + "x", 204, ""),
        (head("DELETE /echo/7", ""), 200, "Some(\"7\")"),
        (head("DELETE /echo/7", "Content-Length: 2\r\n") + "ab", 200, "Some(\"7\")"),
        (head("OPTIONS /echo", ""), 204, ""),
        (head("OPTIONS *", ""), 204, ""),
        (head("GET /both", ""), 200, "read"),
        (post("/both", "12345"), 200, "written 5"),
    ] {
        client.send_bytes(request.as_bytes());
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.text()), (status, text), "{request}");
        // The same byte by byte, and behind it the connection goes on.
        for byte in request.bytes() {
            client.send_bytes(&[byte]);
        }
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.text()), (status, text), "{request}");
    }
    // All at once.
    client.send_bytes(
        (post("/echo", "a") + &chunked("/echo", &["b"]) + &head("GET /", "")).as_bytes(),
    );
    for text in ["POST a", "POST b", "page"] {
        assert_eq!(client.expect_answer().text(), text);
    }
    assert_eq!(app.app.stats().bytes_held, 0, "nothing of a body is kept");
}

#[test]
fn forms_text_and_types() {
    let app = App::new();
    let form = "a=1&b=%C3%A9+x&a=2";
    let answer = app.app.post("/form", "Application/x-www-form-urlencoded; charset=utf-8", form);
    assert_eq!(answer.text(), "a=1;b=é x;a=2; [Some(\"1\"), None]");
    for content_type in ["text/plain", "application/x-www-form-urlencodedx", "multipart/form-data"]
    {
        let answer = app.app.post("/form", content_type, form);
        assert_eq!(answer.status, 415, "{content_type}");
        assert!(answer.text().starts_with("415 Unsupported Media Type: a body of type"));
    }
    let mut client = app.client();
    client.send_bytes(post("/form", form).as_bytes());
    assert_eq!(client.expect_answer().status, 415, "no type at all");
    assert_eq!(client.send_body("PUT", "/echo", "text/plain", b"\xff").status, 400);
    assert_eq!(client.send_body("POST", "/typed", "TEXT/CSV; header=absent", "a").status, 200);
    assert_eq!(client.send_body("POST", "/typed", "application/x", "a").status, 200);
    assert_eq!(client.send_body("POST", "/typed", "text/plain", "a").status, 415);
    client.send_bytes(post("/typed", "a").as_bytes());
    assert_eq!(client.expect_answer().status, 415);
    client.send_bytes(post("/typed", "").as_bytes());
    assert_eq!(client.expect_answer().status, 200, "nothing has no type");
}

/// A head that is refused, what is sent behind it, the status, and whether the connection goes on.
#[test]
fn statuses_by_the_head() {
    let app = App::new();
    let length = |bytes: u64| format!("Content-Length: {bytes}\r\n");
    for (head, body, status, stays) in [
        (head("POST /", &length(3)), "abc", 405, true),
        (head("POST /none", &length(3)), "abc", 404, true),
        (head("BREW /", &length(3)), "abc", 501, true),
        (head("POST /", &length(70_000)), "", 405, false),
        (head("POST /", "Transfer-Encoding: chunked\r\n"), "", 405, false),
        (head("POST /small", &length(11)), "01234567890", 413, true),
        (head("POST /small", &length(70_000)), "", 413, false),
        (head("POST /small", &length(u64::MAX)), "", 413, false),
        (head("POST /small", "Content-Length: 99999999999999999999\r\n"), "", 413, false),
        (head("POST /echo", &length(65_537)), "", 413, false),
        (head("POST /long", "Transfer-Encoding: chunked\r\n"), "0\r\n\r\n", 411, false),
        (head("POST /long", ""), "", 411, true),
        (head("POST /long", &length(0)), "", 200, true),
        (head("POST /echo", "Content-Encoding: gzip\r\nContent-Length: 3\r\n"), "abc", 415, true),
        (
            head("POST /echo", "Content-Encoding: identity\r\nContent-Length: 3\r\n"),
            "abc",
            200,
            true,
        ),
        (head("POST /guarded?x", &length(3)), "abc", 401, true),
        (head("POST /guarded", &length(3)), "abc", 200, true),
        (head("POST /pieces?refuse", &length(3)), "abc", 403, true),
        (head("POST /echo", "Expect: more\r\nContent-Length: 3\r\n"), "", 417, false),
        (head("POST /echo", "Expect: 100-continue, x\r\nContent-Length: 3\r\n"), "", 417, false),
        ("POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), "", 411, true),
        ("DELETE /echo/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), "", 200, true),
        (head("GET /echo", ""), "", 405, true),
        (head("HEAD /both", ""), "", 200, true),
        (head("TRACE /", ""), "", 405, true),
        (head("GET /", "Content-Length: 3\r\n"), "abc", 200, true),
        (head("GET /", "Content-Length: 70000\r\n"), "", 413, false),
        (head("GET /", "Transfer-Encoding: chunked\r\n"), "", 413, false),
    ] {
        let mut client = app.client();
        client.send_bytes((head.clone() + body).as_bytes());
        let is_head = head.starts_with("HEAD");
        let answer = if is_head { client.expect_head() } else { client.expect_answer() };
        assert_eq!(answer.status, status, "{head}{answer:?}");
        assert_eq!(answer.header("connection") != Some("close"), stays, "{head}{answer:?}");
        if stays {
            assert_eq!(client.request("GET", "/").text(), "page", "{head}");
        } else {
            client.half_close();
            client.expect_end(Ending::Closed);
        }
    }
    let allow = |path: &str| {
        let answer = app.client().request("PROPPATCH", path).status;
        let answer = (answer, app.client().request("TRACE", path));
        (answer.0, answer.1.header("allow").map(str::to_owned))
    };
    assert_eq!(allow("/echo"), (501, Some("POST, PUT, PATCH, OPTIONS".into())));
    assert_eq!(allow("/both"), (501, Some("GET, HEAD, POST".into())));
    let answer = app.app.post("/echo", "text/plain", "x");
    assert_eq!(answer.header("accept-encoding"), None);
    let mut client = app.client();
    client.send_bytes(
        (head("POST /echo", "Content-Encoding: br\r\nContent-Length: 1\r\n") + "x").as_bytes(),
    );
    assert_eq!(client.expect_answer().header("accept-encoding"), Some("identity"));
}

#[test]
fn a_body_with_an_upgrade_is_refused_and_the_connection_ends() {
    let app = App::new();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, framing, body) in [
        ("GET /both", "Content-Length: 3\r\n", "abc"),
        ("GET /both", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("POST /both", "Content-Length: 3\r\n", "abc"),
        ("GET /none", "Content-Length: 3\r\n", "abc"),
    ] {
        let mut client = app.client();
        client.send_bytes((head(line, &format!("{upgrade}{framing}")) + body).as_bytes());
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{line}");
        client.half_close();
        client.expect_end(Ending::Closed);
    }
    // Without a body, what it could be upgraded to is not looked at.
    let mut client = app.client();
    client.send_bytes(head("POST /both", upgrade).as_bytes());
    assert_eq!(client.expect_answer().text(), "written 0");
    client.send_bytes(head("POST /", upgrade).as_bytes());
    assert_eq!(client.expect_answer().status, 405);
}

#[test]
fn a_hundred_is_sent_only_where_the_body_is_wanted() {
    let app = App::new();
    let expect = |path: &str, length: usize| {
        let mut client = app.client();
        let lines = format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
        client.send_bytes(head(&format!("POST {path}"), &lines).as_bytes());
        client
    };
    for path in ["/echo", "/pieces"] {
        let mut client = expect(path, 5);
        let answer = client.expect_head();
        assert_eq!((answer.status, answer.head.as_str()), (100, "HTTP/1.1 100 Continue\r\n\r\n"));
        client.send_bytes(b"he");
        client.send_bytes(b"llo");
        assert_eq!(client.expect_answer().status, 200);
        assert_eq!(client.request("GET", "/").text(), "page");
    }
    for (path, status) in [("/guarded?x", 401), ("/pieces?refuse", 403), ("/none", 404), ("/", 405)]
    {
        let mut client = expect(path, 5);
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}");
        client.half_close();
        client.expect_end(Ending::Closed);
    }
    let mut client = expect("/small", 11);
    assert_eq!(client.expect_answer().status, 413);
    let mut client = expect("/echo", 0);
    assert_eq!(client.expect_answer().status, 200, "there is nothing to wait for");
    // Who does not wait gets no 100.
    let mut client = app.client();
    let lines = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    client.send_bytes((head("POST /echo", lines) + "abc" + &head("GET /", "")).as_bytes());
    assert_eq!(client.expect_answer().text(), "POST abc");
    assert_eq!(client.expect_answer().text(), "page");
    // In HTTP/1.0 there is no 100 (RFC 9110 section 10.1.1).
    let mut client = app.client();
    client.send_bytes(format!("POST /echo HTTP/1.0\r\n{lines}\r\n").as_bytes());
    client.send_bytes(b"abc");
    assert_eq!(client.expect_answer().text(), "POST abc");
}

#[test]
fn bodies_in_pieces_come_as_they_are_sent() {
    let app = App::new();
    let mut client = app.client();
    client.send_bytes(head("POST /pieces", "Content-Length: 6\r\n").as_bytes());
    for piece in ["ab", "cd", "ef"] {
        client.send_bytes(piece.as_bytes());
    }
    assert_eq!(client.expect_answer().text(), "6 of Some(6)");
    assert_eq!(app.seen(), ["ab", "cd", "ef"]);
    client.send_bytes(chunked("/pieces", &["ab", "cd", "ef"]).as_bytes());
    assert_eq!(client.expect_answer().text(), "6 of None");
    assert_eq!(app.seen(), ["abcdef"], "of one read it is one piece");
    client.send_bytes(post("/pieces", "").as_bytes());
    assert_eq!(client.expect_answer().text(), "0 of Some(0)");
    assert_eq!(app.seen(), [""; 0]);
    // More than is taken: what came before was handed on.
    client.send_bytes(head("POST /pieces", "Transfer-Encoding: chunked\r\n").as_bytes());
    client.send_bytes(b"1\r\nx\r\n");
    client.send_bytes(b"100000\r\n");
    let answer = client.expect_answer();
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert_eq!(app.seen(), ["x", "dropped"]);
}

#[test]
fn an_answer_may_come_before_the_end_of_the_body() {
    let app = App::new();
    // Little is left of it: it is read to its end.
    let mut client = app.client();
    client.send_bytes(head("POST /pieces?answer", "Content-Length: 60000\r\n").as_bytes());
    client.send_bytes(b"first");
    let answer = client.expect_answer();
    assert_eq!((answer.status, answer.text(), answer.header("connection")), (409, "enough", None));
    client.send_bytes("x".repeat(59_995).as_bytes());
    assert_eq!(client.request("GET", "/").text(), "page");
    assert_eq!(app.seen(), ["first", "dropped"]);
    // Much, or nobody knows how much.
    for framing in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = app.client();
        client.send_bytes(head("POST /pieces?answer", framing).as_bytes());
        client.send_bytes(b"5\r\nfirst\r\n");
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.header("connection")), (409, Some("close")));
        client.send_bytes(head("GET /", "").as_bytes()); // is read and dropped
        client.half_close();
        client.expect_end(Ending::Closed);
    }
}

#[test]
fn a_paused_body_is_not_read_until_it_is_resumed() {
    let app = App::new();
    let mut client = app.client();
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 6\r\n") + "ab").as_bytes());
    client.send_bytes(b"cd");
    client.send_bytes(b"ef");
    app.app.advance(Duration::from_secs(3_600)); // as long as the application likes
    assert_eq!(app.seen(), ["ab"]);
    app.resume();
    assert_eq!(app.seen(), ["resumed", "cdef"], "what came meanwhile, in one read");
    client.send_bytes(head("GET /", "").as_bytes());
    app.resume();
    assert_eq!(client.expect_answer().text(), "6 of Some(6)");
    assert_eq!(client.expect_answer().text(), "page");
    app.resume(); // of a request that is over: nothing
    assert_eq!(app.seen(), ["resumed"]);
    assert_eq!(app.app.stats().bytes_held, 0);
}

#[test]
fn a_paused_body_whose_sender_leaves_is_dropped_in_time() {
    let app = App::new();
    let mut client = app.client();
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 6\r\n") + "ab").as_bytes());
    client.half_close();
    app.app.advance(Duration::from_secs(4));
    assert_eq!(app.seen(), ["ab"], "the application has close_timeout");
    app.app.advance(Duration::from_secs(2));
    assert_eq!(app.seen(), ["dropped"]);
    client.expect_end(Ending::Closed);
    // Whose rest was sent before is taken.
    let mut client = app.client();
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 6\r\n") + "ab").as_bytes());
    client.send_bytes(b"cdef");
    client.half_close();
    app.resume();
    app.resume();
    assert_eq!(client.expect_answer().text(), "6 of Some(6)");
    client.expect_end(Ending::Closed);
    // A reset is noticed at once.
    let mut client = app.client();
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 6\r\n") + "ab").as_bytes());
    app.seen();
    client.reset();
    assert_eq!(app.seen(), ["dropped"]);
}

/// What comes behind the answer is read and dropped: left unread, it would make a reset of the end.
#[test]
fn who_was_paused_for_too_long_is_heard_to_hang_up() {
    let app = App::installed(WebSockets::new().pause_timeout(Duration::from_secs(10)));
    let mut client = app.client();
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 9\r\n") + "ab").as_bytes());
    app.app.advance(Duration::from_secs(10));
    assert_eq!(client.expect_answer().status, 503);
    client.send_bytes(b"cdef");
    client.half_close();
    client.expect_end(Ending::Closed);
    assert_eq!(app.app.stats().timeouts_linger, 0);
}

/// What is left of a body after an early answer has its own time.
#[test]
fn the_rest_of_a_body_may_come_long_after_its_head() {
    let app = App::new();
    let mut client = app.client();
    client.send_bytes(head("POST /pieces", "Transfer-Encoding: chunked\r\n").as_bytes());
    for _ in 0..20 {
        app.app.advance(Duration::from_secs(1));
        client.send_bytes(format!("200\r\n{}\r\n", "x".repeat(512)).as_bytes());
    }
    client.send_bytes(b"0\r\n\r\n");
    assert_eq!(client.expect_answer().status, 200);
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 9000\r\n") + "ab").as_bytes());
    app.app.advance(Duration::from_secs(20));
    app.seen();
    client.send_bytes(&[b'x'; 998]);
    app.resume(); // and answers nothing yet
    app.app.advance(Duration::from_secs(20));
    client.send_bytes(&[b'x'; 8_000]);
    app.resume();
    app.resume();
    assert_eq!(client.expect_answer().text(), "9000 of Some(9000)");
    client.send_bytes(head("POST /pieces?answer", "Content-Length: 9000\r\n").as_bytes());
    app.app.advance(Duration::from_secs(25));
    client.send_bytes(b"first");
    assert_eq!(client.expect_answer().text(), "enough");
    app.app.advance(Duration::from_secs(5));
    client.send_bytes(&[b'x'; 8_995]);
    assert_eq!(client.request("GET", "/").text(), "page");
}

#[cfg(feature = "tls")]
#[test]
fn a_paused_body_over_tls_waits_with_all_that_came_behind_it() {
    let app = App::new().over_tls();
    let mut client = app.client();
    client.send_bytes((head("POST /pieces?pause", "Content-Length: 29999\r\n") + "ab").as_bytes());
    for _ in 0..3 {
        client.send_bytes(&[b'x'; 9_999]);
    }
    client.send_bytes((post("/echo", "next") + &post("/echo", "last")).as_bytes());
    client.half_close();
    assert_eq!(app.seen(), ["ab"]);
    // A piece for each read: of how many, the records decide.
    for _ in 0..9 {
        app.resume();
    }
    assert_eq!(client.expect_answer().text(), "29999 of Some(29999)");
    assert_eq!(client.expect_answer().text(), "POST next");
    assert_eq!(client.expect_answer().text(), "POST last");
}

#[test]
fn a_slow_body_has_a_deadline() {
    let app = App::new();
    let mut client = app.client();
    client.send_bytes((head("POST /echo", "Content-Length: 60000\r\n") + "a").as_bytes());
    for _ in 0..40 {
        app.app.advance(Duration::from_secs(1));
        if client.ending().is_some() {
            break;
        }
        client.send_bytes(&[b'x'; 100]); // less than min_rate
    }
    let answer = client.expect_answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    // Fast enough, however long it takes.
    let mut client = app.client();
    client.send_bytes(head("POST /echo", "Content-Length: 60000\r\n").as_bytes());
    for _ in 0..200 {
        app.app.advance(Duration::from_secs(1));
        client.send_bytes(&[b'x'; 300]);
    }
    assert_eq!(client.expect_answer().status, 200);
    // Framing is no progress.
    let mut client = app.client();
    client.send_bytes(head("POST /echo", "Transfer-Encoding: chunked\r\n").as_bytes());
    client.send_bytes(b"1;");
    for _ in 0..40 {
        app.app.advance(Duration::from_secs(1));
        client.send_bytes(&[b'x'; 200]);
    }
    assert_eq!(client.expect_answer().status, 408);
    assert_eq!(app.app.stats().timeouts_message, 2);
}

#[test]
fn foreign_pages_may_change_nothing() {
    let app = App::new();
    let from = |line: &str, origin: &str| {
        let mut client = app.client();
        let lines = format!("Origin: {origin}\r\nContent-Length: 1\r\n");
        client.send_bytes((head(line, &lines) + "x").as_bytes());
        client.expect_answer().status
    };
    for line in ["POST /echo", "PUT /echo", "PATCH /echo", "DELETE /echo/1", "POST /pieces"] {
        assert_eq!(from(line, "https://evil.example"), 403, "{line}");
        assert_eq!(from(line, "null"), 403, "{line}");
        assert!([200, 204].contains(&from(line, "http://h")), "{line}");
    }
    assert_eq!(from("OPTIONS /echo", "https://evil.example"), 204);
    assert_eq!(from("POST /anybody", "https://evil.example"), 200);
}

#[test]
fn a_panic_ends_one_request() {
    let app = App::new();
    app.app.tolerate_panics();
    for path in ["/panics", "/pieces?panic"] {
        let mut client = app.client();
        client.send_bytes((post(path, "GET / HT") + &head("GET /", "")).as_bytes());
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.header("connection")), (500, Some("close")));
        client.half_close();
        client.expect_end(Ending::Closed);
    }
    assert_eq!(app.seen(), ["GET / HT", "dropped"]);
    assert_eq!(app.app.get("/").text(), "page");
}

#[test]
fn malformed_bodies_end_the_connection() {
    let app = App::new();
    for (body, status) in [
        ("x\r\n", 400),
        ("1\nx\r\n0\r\n\r\n", 400),
        ("00000000000000001\r\nx\r\n0\r\n\r\n", 400),
        ("1\r\nxy\r\n0\r\n\r\n", 400),
        ("0\r\nA: b\r\n c\r\n\r\n", 400),
        ("ffffffff\r\n", 413),
    ] {
        let mut client = app.client();
        let request = head("POST /echo", "Transfer-Encoding: chunked\r\n") + body;
        client.send_bytes((request + &head("GET /", "")).as_bytes());
        let answer = client.expect_answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close")),
            "{body:?}"
        );
        client.half_close();
        client.expect_end(Ending::Closed);
    }
    let mut client = app.client();
    let extension = "x".repeat(9_000);
    let request = head("POST /echo", "Transfer-Encoding: chunked\r\n");
    client.send_bytes(format!("{request}1;{extension}\r\nx\r\n0\r\n\r\n").as_bytes());
    assert_eq!(client.expect_answer().status, 431);
}

#[test]
fn a_stop_waits_for_a_body_and_takes_no_further_request() {
    let app = App::new();
    let mut client = app.client();
    assert_eq!(client.request("GET", "/").text(), "page");
    client.send_bytes((head("POST /echo", "Content-Length: 4\r\n") + "ab").as_bytes());
    let mut first = app.client();
    first.send_bytes((head("POST /echo", "Content-Length: 4\r\n") + "ab").as_bytes());
    app.app.shutdown(Duration::from_secs(5));
    assert!(!app.app.is_stopped());
    for client in [&mut client, &mut first] {
        client.send_bytes(b"cd");
        let answer = client.expect_answer();
        assert_eq!((answer.text(), answer.header("connection")), ("POST abcd", Some("close")));
        client.half_close();
    }
    app.app.advance(Duration::from_secs(1));
    assert!(app.app.is_stopped());
}

/// What half bodies hold is bounded, told, and given back.
#[test]
fn half_bodies_are_held_within_the_budget() {
    let app = App::with(Limits::new().process_bytes(1 << 20).max_pending_handshakes(4));
    let mut clients: Vec<TestClient> = (0..40).map(|_| app.client()).collect();
    for client in &mut clients {
        client.send_bytes(head("POST /echo", "Content-Length: 60000\r\n").as_bytes());
        client.send_bytes(&[b'x'; 50_000]);
    }
    let held = app.app.stats().bytes_held;
    assert!((500_000..=1 << 20).contains(&held), "{held}");
    let over_budget = app.app.stats().over_budget;
    assert!(over_budget > 10, "{over_budget}");
    let mut refused = 0;
    for client in &mut clients {
        client.send_bytes(&[b'x'; 10_000]);
        let answer = client.expect_answer();
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        refused += u64::from(answer.status == 503);
    }
    assert_eq!((refused, app.app.stats().over_budget), (over_budget, over_budget));
    drop(clients);
    app.app.advance(Duration::from_secs(10));
    assert_eq!(app.app.stats().bytes_held, 0);
    assert_eq!(app.app.post("/echo", "text/plain", "x".repeat(60_000)).status, 200);
}

/// Notes what the parts of a form are, and pauses where it is told to.
struct Parts {
    seen: Vec<String>,
    pauses: bool,
    ids: Rc<RefCell<Vec<BodyId>>>,
}

impl Parts {
    fn next(&mut self, body: &IncomingBody<'_>, what: String) -> BodyNext {
        self.seen.push(what);
        self.ids.borrow_mut().push(body.id());
        if self.pauses { BodyNext::Pause } else { BodyNext::Continue }
    }
}

impl MultipartHandler for Parts {
    fn on_part(&mut self, body: &mut IncomingBody<'_>, part: &Part) -> BodyNext {
        let what = format!("{} {:?} {:?}", part.name(), part.file_name(), part.content_type());
        self.next(body, what)
    }
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        self.next(body, String::from_utf8_lossy(piece).into_owned())
    }
    fn on_part_end(&mut self, body: &mut IncomingBody<'_>) -> BodyNext {
        self.next(body, "end".into())
    }
    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        Response::text(self.seen.join("|"))
    }
}

const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--b\r\n\
    Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: x/y\r\n\r\n\
    12345\r\n--b--\r\n";
const FORM_TOLD: &str = "note None None|hello|end|file Some(\"a.bin\") Some(\"x/y\")|12345|end";

fn forms(pauses: bool) -> (TestApplication, Rc<RefCell<Vec<BodyId>>>) {
    let ids: Rc<RefCell<Vec<BodyId>>> = Rc::default();
    let of_handlers = Rc::clone(&ids);
    let app = TestApplication::new(move |app: &mut Application| {
        app.routing(|route| {
            route.receive("POST", "/form", move |call| {
                let ids = Rc::clone(&of_handlers);
                let limits = MultipartLimits::new().parts(2).head_bytes(300);
                multipart(call, limits, Parts { seen: Vec::new(), pauses, ids })
            });
        });
    });
    (app.unwrap(), ids)
}

#[test]
fn a_form_with_files_comes_in_parts() {
    let (app, _) = forms(false);
    let form = "multipart/form-data; boundary=b";
    assert_eq!(app.post("/form", form, FORM).text(), FORM_TOLD);
    let twice = format!("--b\r\nContent-Disposition: form-data; name=c\r\n\r\n\r\n{FORM}");
    for (content_type, body, status) in [
        ("text/plain", FORM, 415),
        ("multipart/form-data", FORM, 415),
        (form, "", 400),
        (form, &FORM[..FORM.len() - 5], 400),
        (form, &FORM.replace("name=\"note\"", "note"), 400),
        (form, &FORM.replace("hello", " --b"), 200),
        (form, &FORM.replace("hello", "--b"), 400), // a delimiter, and no part behind it
        (form, &FORM.replace("name=\"note\"", &format!("name=\"{}\"", "n".repeat(300))), 431),
        (form, &twice, 413),
    ] {
        let answer = app.post("/form", content_type, body);
        assert_eq!(answer.status, status, "{body:?} {answer:?}");
    }
}

#[test]
fn a_form_can_be_paused_in_the_middle_of_a_piece() {
    let (app, ids) = forms(true);
    let mut client = app.connect();
    let lines = format!(
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n",
        FORM.len()
    );
    client.send_bytes((head("POST /form", &lines) + FORM).as_bytes());
    for step in 1..=6 {
        assert_eq!(ids.borrow().len(), step);
        assert!(app.stats().bytes_held >= FORM.len() as u64 / 6, "the rest of the piece counts");
        let id = *ids.borrow().last().unwrap();
        app.with_server(|server| server.resume_body(id).unwrap());
    }
    assert_eq!(client.expect_answer().text(), FORM_TOLD);
    assert_eq!(app.stats().bytes_held, 0);
}

/// Over real sockets, with the system's own pieces.
#[test]
fn a_large_body_over_sockets_arrives_whole_while_it_is_paused_now_and_then() {
    struct Slow(u64, u32);
    impl BodyHandler for Slow {
        fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
            for byte in piece {
                assert_eq!(u64::from(*byte), self.0 % 251);
                self.0 += 1;
            }
            self.1 += 1;
            if self.1 % 16 != 0 {
                return BodyNext::Continue;
            }
            let id = body.id();
            let after = body.server().after(millis(1), move |server| {
                let _ = server.resume_body(id);
            });
            after.map_or(BodyNext::Continue, |_| BodyNext::Pause)
        }
        fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
            Response::text(format!("{} {}", self.0, body.received()))
        }
    }
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.receive("PUT", "/", |_: &Call| Ok(Slow(0, 0))).max_body_size(1 << 30);
        });
    });
    let bytes: Vec<u8> = (0..8_000_000_u64).map(|at| (at % 251) as u8).collect();
    let mut client = server.connect();
    client.write(head("PUT /", "Content-Length: 8000000\r\n"));
    client.write(&bytes);
    assert_eq!(client.answer(false).body, "8000000 8000000");
    client.write(head("PUT /", "Transfer-Encoding: chunked\r\n"));
    for chunk in bytes.chunks(77_777) {
        client.write(format!("{:X}\r\n", chunk.len()));
        client.write(chunk);
        client.write("\r\n");
    }
    client.write("0\r\n\r\n");
    assert_eq!(client.answer(false).body, "8000000 8000000");
}

/// The end of a body that is all there and was paused: its answer does not come into the middle of one that
/// waits, though the socket takes a little of each in one turn.
#[test]
fn the_answer_to_a_body_that_is_resumed_goes_behind_one_that_waits() {
    const SECOND: Duration = Duration::from_secs(1);
    for most in [1, 7, 50, 100] {
        let app = App::new();
        let mut client = app.client();
        client.limit_writes(most);
        client.block_writes_for(SECOND);
        let body = head("POST /pieces?pause", "Content-Length: 2\r\n") + "ab";
        client.send_bytes((head("GET /", "") + &body + &head("GET /", "")).as_bytes());
        let id = *app.ids.borrow().last().unwrap();
        app.app.with_server(|server| {
            server.after(SECOND, move |server| server.resume_body(id).unwrap()).unwrap();
        });
        app.app.jump(2 * SECOND);
        for text in ["page", "2 of Some(2)", "page"] {
            assert_eq!(client.expect_answer().text(), text, "{most} at once");
        }
    }
}

#[test]
fn a_body_says_what_it_was_sent_as() {
    let app = TestApplication::new(|app: &mut Application| {
        app.routing(|route| {
            route.post("/kind", |_, body| body.content_type().unwrap_or("nothing").to_owned());
        });
    });
    let app = app.unwrap();
    assert_eq!(
        app.post("/kind", "text/csv; header=present", "a,b").text(),
        "text/csv; header=present"
    );
    let mut client = app.connect();
    client.send_bytes(post("/kind", "a").as_bytes());
    assert_eq!(client.expect_answer().text(), "nothing");
}

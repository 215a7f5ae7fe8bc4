//! Requests with bodies written from RFC 9112 and RFC 9110, section by section, and the answers that are due.

use wirewheel::body::{BodyHandler, BodyNext, IncomingBody};
use wirewheel::{Application, Call, Response, WebSockets, on_message};

use crate::rfc9112::{Case, outcome};
use crate::support::Running;

/// A POST in chunks.
macro_rules! chunked {
    ($body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
    };
}

/// A POST with these lines, and what follows them.
macro_rules! post {
    ($lines:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: h\r\n", $lines)
    };
}

const CHUNKS: &[Case] = &[
    ("9112 7.1 one chunk", chunked!("5\r\nhello\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 chunks", chunked!("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 no chunk", chunked!("0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 zeros for the last", chunked!("0000\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 zeros before", chunked!("0005\r\nhello\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 capitals", chunked!("A\r\n0123456789\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 small letters", chunked!("a\r\n0123456789\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 line ends in the data", chunked!("4\r\n\r\n\r\n\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 looks like the end", chunked!("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 sixteen digits", chunked!("0000000000000001\r\nx\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1 seventeen digits", chunked!("00000000000000001\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 over 64 bits", chunked!("10000000000000000\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 the largest size", chunked!("ffffffffffffffff\r\nx"), "413 END"),
    ("9112 7.1 just over the limit", chunked!("65\r\n"), "413 END"),
    ("9112 7.1 no size", chunked!("\r\nhello\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 no hexadecimal digit", chunked!("g\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 hexadecimal as in C", chunked!("0x1\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 a sign", chunked!("+1\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 negative", chunked!("-1\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 underscore", chunked!("1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 space before", chunked!(" 1\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 space behind", chunked!("1 \r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 two sizes", chunked!("1 1\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 bare LF behind the size", chunked!("1\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 bare CR behind the size", chunked!("1\rx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 bare LF behind the data", chunked!("1\r\nx\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 bare CR behind the data", chunked!("1\r\nx\r0\r\n\r\n"), "400 END"),
    ("9112 7.1 too much data", chunked!("1\r\nxy\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 too little data", chunked!("3\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1 bare LF at the end", chunked!("1\r\nx\r\n0\n\n"), "400 END"),
    ("9112 7.1 bare LF at the very end", chunked!("1\r\nx\r\n0\r\n\n"), "400 END"),
    ("9112 7.1.1 an extension", chunked!("1;a=b\r\nx\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1.1 a quoted value", chunked!("1;a=\"b;c\"\r\nx\r\n0;d\r\n\r\n"), "200 OPEN"),
    ("9112 7.1.1 space around", chunked!("1 ; a = b\r\nx\r\n0\r\n\r\n"), "200 OPEN"),
    ("9112 7.1.1 bare LF within", chunked!("1;a\nb\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1.1 bare CR within", chunked!("1;a\rb\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1.1 NUL within", chunked!("1;a\0\r\nx\r\n0\r\n\r\n"), "400 END"),
    ("9112 7.1.2 a trailer", chunked!("1\r\nx\r\n0\r\nA: b\r\n\r\n"), "200 OPEN"),
    ("9112 7.1.2 of meaning in a head", chunked!("0\r\nContent-Length: 9\r\n\r\n"), "200 OPEN"),
    ("9112 7.1.2 without a colon", chunked!("0\r\nA\r\n\r\n"), "400 END"),
    ("9112 7.1.2 without a name", chunked!("0\r\n: b\r\n\r\n"), "400 END"),
    ("9112 7.1.2 space before the colon", chunked!("0\r\nA : b\r\n\r\n"), "400 END"),
    ("9112 5.2 a folded trailer", chunked!("0\r\nA: b\r\n c\r\n\r\n"), "400 END"),
    ("9110 5.5 NUL in a trailer", chunked!("0\r\nA: \0\r\n\r\n"), "400 END"),
    ("9112 2.2 bare LF in a trailer", chunked!("0\r\nA: b\n\r\n"), "400 END"),
];

const FRAMING: &[Case] = &[
    ("9112 6.2 a length", post!("Content-Length: 3\r\n\r\nabc"), "200 OPEN"),
    ("9112 6.2 of nothing", post!("Content-Length: 0\r\n\r\n"), "200 OPEN"),
    ("9112 6.3 item 7: neither", post!("\r\n"), "200 OPEN"),
    (
        "9112 6.3 both",
        post!("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "400 END",
    ),
    (
        "9112 6.1 capitals",
        post!("Transfer-Encoding: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        "200 OPEN",
    ),
    (
        "9112 6.1 on two lines",
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
        "400 END",
    ),
    ("9112 6.1 an empty member", post!("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"), "400 END"),
    ("9112 6.1 a parameter", post!("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), "400 END"),
    ("9112 6.1 quoted", post!("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), "400 END"),
    ("9112 6.1 in part", post!("Transfer-Encoding: chunked2\r\n\r\n0\r\n\r\n"), "400 END"),
    (
        "9112 6.1 gzip before it",
        post!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        "501 END",
    ),
    ("9112 6.1 gzip alone", post!("Transfer-Encoding: gzip\r\n\r\n"), "400 END"),
    (
        "9112 5.1 space before its colon",
        post!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        "400 END",
    ),
    ("9112 5.2 folded", post!("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), "400 END"),
    (
        "9112 6.1 in HTTP/1.0",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400 END",
    ),
    ("9110 8.6 a sign", post!("Content-Length: +3\r\n\r\nabc"), "400 END"),
    ("9110 8.6 a list", post!("Content-Length: 3,3\r\n\r\nabc"), "400 END"),
    (
        "9110 8.6 lines that differ",
        post!("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        "400 END",
    ),
    (
        "9110 8.6 lines that agree",
        post!("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        "400 END",
    ),
    ("9112 5.2 a leading blank", post!("Content-Length:\r\n 3\r\n\r\nabc"), "400 END"),
    ("9112 2.2 a blank before the name", post!(" Content-Length: 3\r\n\r\nabc"), "400 END"),
    ("9110 8.6 a fraction", post!("Content-Length: 3.0\r\n\r\nabc"), "400 END"),
    (
        "9110 8.6 beyond 64 bits",
        post!("Content-Length: 18446744073709551619\r\n\r\nabc"),
        "413 END",
    ),
    ("9110 8.6 without a length in HTTP/1.0", "POST / HTTP/1.0\r\n\r\n", "411 END"),
    ("9112 9.3 a length in HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "200 END"),
    (
        "9112 9.3.2 pipelined",
        post!(
            "Content-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nx\r\n0\r\n\r\nGET /page HTTP/1.1\r\nHost: h\r\n\r\n"
        ),
        "200 200 200 OPEN",
    ),
    (
        "9112 11.2 a request in a body",
        post!("Content-Length: 38\r\n\r\nGET /none HTTP/1.1\r\nHost: smuggled\r\n\r\n"),
        "200 OPEN",
    ),
    (
        "9112 11.2 a request in a chunk",
        chunked!("26\r\nGET /none HTTP/1.1\r\nHost: smuggled\r\n\r\n\r\n0\r\n\r\n"),
        "200 OPEN",
    ),
    (
        "9110 7.8 a body with an upgrade",
        "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 3\r\n\r\nabc",
        "400 END",
    ),
];

const METHODS: &[Case] = &[
    (
        "9110 9.1 PUT is not taken",
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
        "405 OPEN",
    ),
    (
        "9110 9.1 unknown, with a body",
        "BREW / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
        "501 OPEN",
    ),
    (
        "9110 9.3.3 POST elsewhere",
        "POST /none HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
        "404 OPEN",
    ),
    ("9110 9.3.4 PUT", "PUT /stored HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "200 OPEN"),
    ("9110 9.3.5 DELETE", "DELETE /stored HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9110 9.3.7 OPTIONS of a path", "OPTIONS /stored HTTP/1.1\r\nHost: h\r\n\r\n", "204 OPEN"),
    ("9110 9.3.7 OPTIONS of the server", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "204 OPEN"),
    ("9110 9.3.1 GET of what is posted to", "GET /stored HTTP/1.1\r\nHost: h\r\n\r\n", "405 OPEN"),
    (
        "9110 9.3.2 HEAD of what is posted to",
        "HEAD /stored HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD:405 OPEN",
    ),
    (
        "5789 PATCH in pieces",
        "PATCH /pieces HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "200 OPEN",
    ),
    (
        "9110 10.1.1 a body that is there",
        post!("Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"),
        "200 OPEN",
    ),
    (
        "9110 10.1.1 a body that is refused",
        post!("Expect: 100-continue\r\nContent-Length: 101\r\n\r\n"),
        "413 END",
    ),
    ("9110 10.1.1 unknown", post!("Expect: more\r\nContent-Length: 3\r\n\r\n"), "417 END"),
    ("9110 8.4 gzip", post!("Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"), "415 OPEN"),
    (
        "9110 8.4 identity",
        post!("Content-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc"),
        "200 OPEN",
    ),
    ("9110 15.5.14 too long", post!("Content-Length: 70000\r\n\r\n"), "413 END"),
    (
        "9112 9.6 close behind a body",
        post!("Connection: close\r\nContent-Length: 1\r\n\r\nx"),
        "200 END",
    ),
];

/// Counts what comes.
struct Count(usize);

impl BodyHandler for Count {
    fn on_piece(&mut self, _body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        self.0 += piece.len();
        BodyNext::Continue
    }
    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        Response::text(self.0.to_string())
    }
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/page", |_| "page");
        route.post("/", |_, body| format!("{}", body.bytes().len())).max_body_size(100);
        route.put("/stored", |_, _| "put");
        route.delete("/stored", |_, _| "deleted");
        route.options("/stored", |_, _| Response::new(204));
        route.receive("PATCH", "/pieces", |_: &Call| Ok(Count(0)));
        route.web_socket("/echo", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

#[test]
fn bodies_by_section_get_the_answers_that_are_due() {
    let server = Running::start(module);
    let cases: Vec<&Case> = [CHUNKS, FRAMING, METHODS].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    for (section, request, expected) in cases {
        for piece in [usize::MAX, 7, 1] {
            let told = outcome(&server, request, expected, piece);
            assert_eq!(&told, expected, "{section}: {request:?} in pieces of {piece}");
        }
    }
}

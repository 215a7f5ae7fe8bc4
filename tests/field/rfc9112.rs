//! Requests written from RFC 9112 and RFC 9110, section by section, and the answers that are due.

use wirewheel::{Application, Call, WebSockets, on_message};

use crate::support::Running;

/// A section, what is sent, and what comes back: the status of each answer, and behind them `OPEN`
/// where a further request is answered or `END` where the connection ends.
pub(crate) type Case = (&'static str, &'static str, &'static str);

const SYNTAX: &[Case] = &[
    ("9112 2.1", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9112 2.2 an empty line before", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9112 2.2 bare LF ends the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n", "400 END"),
    ("9112 2.2 bare LF ends a line", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "400 END"),
    ("9112 2.2 bare LF ends the head", "GET / HTTP/1.1\r\nHost: h\r\n\n", "400 END"),
    ("9112 2.2 bare LF throughout", "GET / HTTP/1.1\nHost: h\n\n", "400 END"),
    ("9112 2.2 bare LF before", "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 2.2 bare CR in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", "400 END"),
    ("9112 2.2 bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 2.2 bare CR ends lines", "GET / HTTP/1.1\rHost: h\r\r\n\r\n", "400 END"),
    ("9112 2.2 space before the first line", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", "400 END"),
    ("9112 2.3 version in lower case", "GET / http/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 2.3 version of two digits", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", "400 END"),
    ("9110 2.5 a higher minor version", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9110 15.6.6 another major version", "GET / HTTP/3.0\r\nHost: h\r\n\r\n", "505 END"),
    ("9110 15.6.6 another major version", "GET / HTTP/0.9\r\nHost: h\r\n\r\n", "505 END"),
    ("9112 3 HTTP/0.9", "GET /\r\n\r\n", "400 END"),
    ("9112 3 two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3 space behind", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3 tab between", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3 space within the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3 space before", " GET / HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3 another protocol", "GET / ICY/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.1 method in lower case", "get / HTTP/1.1\r\nHost: h\r\n\r\n", "501 OPEN"),
    ("9112 3.1 method of no token", "G(T / HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9110 9.1 an unknown method", "FROB / HTTP/1.1\r\nHost: h\r\n\r\n", "501 OPEN"),
    ("9110 9.3.8 TRACE", "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "405 OPEN"),
];

const TARGETS: &[Case] = &[
    ("9112 3.2 no Host", "GET / HTTP/1.1\r\n\r\n", "400 END"),
    ("9112 3.2 no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "200 END"),
    ("9112 3.2 two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "400 END"),
    (
        "9112 3.2 two Hosts, absolute",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nhost: i\r\n\r\n",
        "400 END",
    ),
    ("9112 3.2 two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n", "400 END"),
    ("9112 3.2 an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "200 OPEN"),
    ("9110 7.2 space in Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 END"),
    ("9110 7.2 list in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400 END"),
    ("9110 7.2 user in Host", "GET / HTTP/1.1\r\nHost: user@h\r\n\r\n", "400 END"),
    ("9110 7.2 path in Host", "GET / HTTP/1.1\r\nHost: h/path\r\n\r\n", "400 END"),
    ("9110 7.2 scheme in Host", "GET / HTTP/1.1\r\nHost: http://h\r\n\r\n", "400 END"),
    ("9110 7.2 query in Host", "GET / HTTP/1.1\r\nHost: h?x\r\n\r\n", "400 END"),
    ("9110 7.2 open bracket in Host", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "400 END"),
    ("9110 7.2 IPv6 without brackets", "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", "400 END"),
    ("9110 7.2 name in brackets", "GET / HTTP/1.1\r\nHost: [h]\r\n\r\n", "400 END"),
    ("9110 7.2 behind the brackets", "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", "400 END"),
    ("9110 7.2 port of letters", "GET / HTTP/1.1\r\nHost: h:http\r\n\r\n", "400 END"),
    ("9110 7.2 two ports", "GET / HTTP/1.1\r\nHost: h:1:2\r\n\r\n", "400 END"),
    ("9110 7.2 port too large", "GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", "400 END"),
    ("9110 7.2 the largest port", "GET / HTTP/1.1\r\nHost: h:65535\r\n\r\n", "200 OPEN"),
    ("9110 7.2 an empty port", "GET / HTTP/1.1\r\nHost: h:\r\n\r\n", "200 OPEN"),
    ("9110 7.2 IPv6 and port", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", "200 OPEN"),
    ("9112 3.2.1 a path of dots", "GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", "404 OPEN"),
    ("9112 3.2.1 no path", "GET ?x HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.1 a relative path", "GET x HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.2 http", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9112 3.2.2 wss", "GET WSS://h/page?x HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9112 3.2.2 an empty path", "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9112 3.2.2 a query alone", "GET http://h?a=/none HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
    ("9112 3.2.2 in HTTP/1.0", "GET http://h/ HTTP/1.0\r\n\r\n", "200 END"),
    ("9112 3.2.2 another host", "GET http://a/page HTTP/1.1\r\nHost: b\r\n\r\n", "200 OPEN"),
    ("9110 4.2.1 without a host", "GET http:///page HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9110 4.2.4 with a user", "GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.2 a bad authority", "GET http://[::1/ HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.2 absolute without Host", "GET http://h/ HTTP/1.1\r\n\r\n", "400 END"),
    ("9112 3.2.3 authority-form", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "405 END"),
    ("9112 3.2.3 CONNECT without a port", "CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.3 CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.3 GET of an authority", "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9112 3.2.4 asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "204 OPEN"),
    ("9112 3.2.4 from absolute-form", "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", "204 OPEN"),
    ("9112 3.2.4 a path named so", "OPTIONS /* HTTP/1.1\r\nHost: h\r\n\r\n", "404 OPEN"),
    ("9112 3.2.4 GET of an asterisk", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", "400 END"),
    ("9110 4.1 a broken escape", "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "400 OPEN"),
    ("9110 4.1 a fragment", "GET /page#/none HTTP/1.1\r\nHost: h\r\n\r\n", "200 OPEN"),
];

const FIELDS: &[Case] = &[
    ("9112 5.1 space before the colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", "400 END"),
    ("9112 5.1 tab before the colon", "GET / HTTP/1.1\r\nHost: h\r\nX\t: y\r\n\r\n", "400 END"),
    ("9112 5.1 no space behind it", "GET / HTTP/1.1\r\nHost:h\r\n\r\n", "200 OPEN"),
    ("9112 5.1 much space around", "GET / HTTP/1.1\r\nHost: \t h \t \r\n\r\n", "200 OPEN"),
    ("9112 5.1 no colon", "GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", "400 END"),
    ("9112 5.1 no name", "GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", "400 END"),
    ("9112 5.2 obs-fold", "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n", "400 END"),
    ("9112 5.2 obs-fold with a tab", "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\tz\r\n\r\n", "400 END"),
    (
        "9112 5.2 obs-fold of a length",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n 3\r\n\r\nabc",
        "400 END",
    ),
    ("9110 5.1 names in any case", "GET / HTTP/1.1\r\nhOsT: h\r\n\r\n", "200 OPEN"),
    ("9110 5.1 a name of no token", "GET / HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n", "400 END"),
    ("9110 5.5 NUL", "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", "400 END"),
    ("9110 5.5 a control character", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", "400 END"),
    ("9110 5.5 DEL", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", "400 END"),
    ("9110 5.5 a form feed", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x0cb\r\n\r\n", "400 END"),
    ("9110 5.5 a tab within", "GET / HTTP/1.1\r\nHost: h\r\nX: a\tb\r\n\r\n", "200 OPEN"),
    ("9110 5.5 nothing", "GET / HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n", "200 OPEN"),
    ("9110 5.5 obs-text", "GET / HTTP/1.1\r\nHost: h\r\nX: caf\u{e9}\r\n\r\n", "200 OPEN"),
    (
        "9110 5.6.1 empty members",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: ,, close ,\r\n\r\n",
        "200 END",
    ),
];

const BODIES: &[Case] = &[
    (
        "9112 6.1 chunked and a length",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.1 a length and chunked",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.1 in HTTP/1.0",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.1 chunked twice",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.1 chunked on two lines",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.1 an unknown coding",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "501 END",
    ),
    (
        "9112 6.3 chunked is not the last",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.3 identity",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
        "400 END",
    ),
    (
        "9112 6.3 chunked in part",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "400 END",
    ),
    ("9112 6.3 no coding", "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", "400 END"),
    (
        "9112 6.3 a chunked body",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "413 END",
    ),
    ("9112 6.3 a body", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "200 OPEN"),
    (
        "9112 6.3 a body that looks like a request",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 34\r\n\r\nGET /none HTTP/1.1\r\nHost: evil\r\n\r\n",
        "200 OPEN",
    ),
    (
        "9110 8.6 two lengths",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "400 END",
    ),
    (
        "9110 8.6 the same twice",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "400 END",
    ),
    ("9110 8.6 a list", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc", "400 END"),
    ("9110 8.6 a sign", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", "400 END"),
    ("9110 8.6 negative", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "400 END"),
    (
        "9110 8.6 hexadecimal",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\nabc",
        "400 END",
    ),
    (
        "9110 8.6 a space within",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1 2\r\n\r\n",
        "400 END",
    ),
    ("9110 8.6 nothing", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", "400 END"),
    (
        "9110 8.6 zeros before",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0003\r\n\r\nabc",
        "200 OPEN",
    ),
    (
        "9110 8.6 beyond 64 bits",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551617\r\n\r\nx",
        "413 END",
    ),
    (
        "9110 10.1.1 a body that waits",
        "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        "405 END",
    ),
    (
        "9110 10.1.1 no body",
        "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
        "200 OPEN",
    ),
    (
        "9110 10.1.1 another expectation",
        "GET / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n",
        "417 OPEN",
    ),
    ("9110 10.1.1 in HTTP/1.0", "GET / HTTP/1.0\r\nExpect: more\r\n\r\n", "200 END"),
];

const CONNECTIONS: &[Case] = &[
    ("9112 9.3 close", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "200 END"),
    (
        "9112 9.3 close beside others",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, CLOSE\r\n\r\n",
        "200 END",
    ),
    (
        "9112 9.3 close on a second line",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: te\r\nConnection: close\r\n\r\n",
        "200 END",
    ),
    ("9112 9.3 nothing in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "200 END"),
    (
        "9112 9.3 keep-alive in HTTP/1.0",
        "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        "200 OPEN",
    ),
    (
        "9112 9.3 close and keep-alive",
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        "200 END",
    ),
    (
        "9112 9.3.2 pipelined",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nHEAD /none HTTP/1.1\r\nHost: h\r\n\r\n\
         GET /echo HTTP/1.1\r\nHost: h\r\n\r\n",
        "200 HEAD:404 426 OPEN",
    ),
    (
        "9112 9.6 behind a close",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "200 END",
    ),
    (
        "9112 9.6 behind a bad head",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "400 END",
    ),
    ("9110 9.3.2 HEAD", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD:200 OPEN"),
    (
        "9110 7.8 an upgrade to something else",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "200 OPEN",
    ),
    (
        "9110 7.8 Upgrade without its option",
        "GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
        "426 OPEN",
    ),
    (
        "9110 7.8 in HTTP/1.0",
        "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "200 END",
    ),
    (
        "9110 15.5.22 with close",
        "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "426 END",
    ),
];

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |_| "page");
        route.get("/page", |_| "page");
        route.web_socket("/echo", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

/// What comes back for `request`, in the words of a [`Case`], when it is written in pieces of that size.
pub(crate) fn outcome(server: &Running, request: &str, expected: &str, piece: usize) -> String {
    let mut client = server.connect();
    // A byte of 0x80 and above stands for itself, and not for its encoding.
    let bytes: Vec<u8> = request.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    for piece in bytes.chunks(piece) {
        if std::io::Write::write_all(&mut client.stream, piece).is_err() {
            break; // refused already
        }
    }
    let mut told = Vec::new();
    for word in expected.split(' ') {
        match word {
            "OPEN" => {
                let answer = client.request("GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
                told.push(if answer.body == "page" { "OPEN".into() } else { answer.head });
            }
            "END" => {
                client.expect_eof();
                told.push("END".into());
            }
            status => {
                let head = status.starts_with("HEAD:");
                let mut answer = client.answer(head);
                // RFC 9110 section 15.2: there may be a 100 before the final answer, as there is when the
                // server had read the whole head and none of the body.
                while answer.status == 100 {
                    answer = client.answer(head);
                }
                told.push(format!("{}{}", if head { "HEAD:" } else { "" }, answer.status));
            }
        }
    }
    told.join(" ")
}

#[test]
fn requests_by_section_get_the_answers_that_are_due() {
    let server = Running::start(module);
    let tables = [SYNTAX, TARGETS, FIELDS, BODIES, CONNECTIONS];
    let cases: Vec<&Case> = tables.into_iter().flatten().collect();
    assert!(cases.len() >= 60);
    for (section, request, expected) in cases {
        for piece in [usize::MAX, 7] {
            let told = outcome(&server, request, expected, piece);
            assert_eq!(&told, expected, "{section}: {request:?} in pieces of {piece}");
        }
    }
}

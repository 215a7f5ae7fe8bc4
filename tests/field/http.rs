//! HTTP on the same port, by RFC 9110 and 9112: what answers owe, how connections go on, what is spoken.

use std::time::Instant;

use wirewheel::{Accept, Application, Call, Limits, Response, WebSockets, on_connect, on_message};

use crate::support::{Answer, PATIENCE, Running, TEXT, masked, millis, upgrade_request};

/// Sockets at `/echo` and `/picky`, pages at `/`, `/twice`, `/whole` and, telling the request, `/told`.
fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |_| "page");
        route
            .get("/status", |call| Response::text("x").status(call.query().parse().unwrap_or(500)));
        route.get("/told", |call| {
            let agent = call.header_bytes("user-agent").unwrap_or_default();
            let shown = call.header("user-agent").unwrap_or_default();
            format!(
                "{} {} {:?} {agent:02x?} {shown}",
                call.path(),
                call.query(),
                call.header("host")
            )
        });
        route.get("/twice", |_| {
            Response::text("{}")
                .header("content-type", "application/json")
                .header("ETag", "\"1\"")
                .header("etag", "\"2\"")
                .header("Set-Cookie", "a=1")
                .header("Set-Cookie", "b=2")
                .header("Vary", "Origin")
                .header("Vary", "Accept")
        });
        route
            .get("/dated", |_| Response::text("x").header("Date", "Sun, 06 Nov 1994 08:49:37 GMT"));
        route.web_socket("/echo", |_: &Call| on_message(|session, message| session.send(message)));
        route
            .web_socket("/picky", |_: &Call| on_connect(|session, _| session.send("in")))
            .on_upgrade(|call| match call.query() {
                "no" => Err(Response::text("no").status(403)),
                _ => Ok(Accept::new().header("Server", "a").header("server", "b")),
            });
        route.web_socket("/v1", |_: &Call| on_connect(|_, _| Ok(()))).protocol("v1");
        route
            .web_socket("/from", |_: &Call| on_connect(|_, _| Ok(())))
            .allowed_origins(["https://a.b"]);
    });
}

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

/// The values of every line of that name.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// Each kind of answer, asked in each way in which a connection can go on or not.
#[test]
fn every_answer_obeys_what_its_request_says_of_the_connection() {
    let server = Running::start(module);
    let upgrade = |path: &str, change: (&str, &str)| {
        let request = upgrade_request(path, "");
        assert!(request.contains(change.0), "{change:?}");
        request.replacen(change.0, change.1, 1)
    };
    let requests = [
        (get("/", ""), 200),
        (get("/none", ""), 404),
        (get("/%zz", ""), 400),
        (get("/", "").replacen("GET", "HEAD", 1), 200),
        (get("/", "").replacen("GET", "PUT", 1), 405),
        (get("/", "").replacen("GET /", "OPTIONS *", 1), 204),
        (get("/status?404", ""), 404),
        (get("/status?204", ""), 204),
        (get("/status?205", ""), 205),
        (get("/status?304", ""), 304),
        (get("/status?426", ""), 426),
        (get("/echo", ""), 426),
        (get("/", "Expect: the impossible\r\n"), 417),
        (get("/", "Content-Length: 3\r\n") + "abc", 200),
        (upgrade("/none", ("13", "13")), 404),
        (upgrade("/picky?no", ("13", "13")), 403),
        (upgrade("/v1", ("13", "13")), 400),
        (upgrade("/from", ("Host: h", "Host: h\r\nOrigin: https://c.d")), 403),
        (upgrade("/echo", ("Version: 13", "Version: 8")), 426),
        (upgrade("/echo", ("dGhl", "!")), 400),
        (upgrade("/echo", ("GET", "POST")), 405),
        (upgrade("/echo", ("GET", "HEAD")), 426),
    ];
    for (request, status) in &requests {
        let head_only = request.starts_with("HEAD");
        for (close, version) in [(false, "1.1"), (true, "1.1"), (false, "1.0"), (true, "1.0")] {
            let keeps = version == "1.0" && !close;
            let line =
                if close { "Connection: foo, Close\r\n" } else { "Connection: Keep-Alive\r\n" };
            let asked = request.replacen("HTTP/1.1", &format!("HTTP/{version}"), 1).replacen(
                "\r\n",
                &format!("\r\n{line}"),
                1,
            );
            let mut client = server.connect();
            client.write(&asked);
            let answer = client.answer(head_only);
            let why = format!("{asked}{answer:?}");
            // In HTTP/1.0 there is neither an upgrade nor an expectation.
            if version == "1.1" {
                assert_eq!(answer.status, *status, "{why}");
            }
            let told = answer.header("connection").unwrap_or_default().to_ascii_lowercase();
            let told: Vec<&str> = told.split(", ").filter(|told| !told.is_empty()).collect();
            assert_eq!(told.contains(&"close"), close, "{why}");
            assert_eq!(told.contains(&"keep-alive"), keeps, "{why}");
            assert_eq!(told.contains(&"upgrade"), answer.status == 426, "{why}");
            if close {
                client.expect_eof();
            } else {
                assert_eq!(client.request(&get("/", "")).body, "page", "{why}");
            }
        }
    }
    // Without a word on the connection, HTTP/1.0 ends it.
    let mut client = server.connect();
    let answer = client.request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    client.expect_eof();
}

#[test]
fn every_answer_has_what_the_rfc_says_it_must_have() {
    let server = Running::start(module);
    for (request, status) in [
        (get("/", ""), 200),
        (get("/status?301", ""), 301),
        (get("/none", ""), 404),
        (get("/echo", ""), 426),
        (get("/status?426", ""), 426),
        (get("/status?405", ""), 405),
        (get("/", "").replacen("GET", "DELETE", 1), 405),
        (get("/", "").replacen("GET", "BREW", 1), 501),
        (get("/status?503", ""), 503),
        (upgrade_request("/echo", ""), 101),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 505),
        (get(&format!("/{}", "x".repeat(9_000)), ""), 431),
        (get("/", "Content-Length: 1000000\r\n"), 413),
        (get("/", "Expect: x\r\n"), 417),
    ] {
        let answer = server.connect().request(&request);
        assert_eq!(answer.status, status, "{answer:?}");
        // RFC 9110 section 6.6.1.
        let [date] = values(&answer, "date")[..] else { panic!("no date, or two: {answer:?}") };
        let shape: String =
            date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert!(shape.ends_with(" 0000 00:00:00 GMT") && shape.len() == 29, "{date}");
        if status == 426 {
            // Sections 7.8 and 15.5.22.
            assert_eq!(values(&answer, "upgrade"), ["websocket"], "{answer:?}");
            assert!(answer.header("connection").unwrap().contains("Upgrade"), "{answer:?}");
            assert_eq!(values(&answer, "sec-websocket-version"), ["13"], "{answer:?}");
        }
        if status == 405 {
            assert_eq!(values(&answer, "allow"), ["GET, HEAD"], "section 15.5.6: {answer:?}");
        }
    }
    let answer = server.connect().request(&get("/dated", ""));
    assert_eq!(values(&answer, "date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
}

#[test]
fn the_date_is_the_present_one() {
    let server = Running::start(module);
    let mut client = server.connect();
    let first = client.request(&get("/", "")).header("date").unwrap().to_owned();
    let begun = Instant::now();
    let second = loop {
        let date = client.request(&get("/", "")).header("date").unwrap().to_owned();
        if date != first {
            break date;
        }
        assert!(begun.elapsed() < PATIENCE, "it stays {first}");
    };
    assert_ne!(second, first);
}

#[test]
fn a_header_of_one_value_has_the_later_one() {
    let server = Running::start(module);
    let answer = server.connect().request(&get("/twice", ""));
    assert_eq!(values(&answer, "content-type"), ["application/json"]);
    assert_eq!(values(&answer, "etag"), ["\"2\""]);
    assert_eq!(values(&answer, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(values(&answer, "vary"), ["Origin", "Accept"]);
    let answer = server.connect().request(&upgrade_request("/picky", ""));
    assert_eq!((answer.status, values(&answer, "server")), (101, vec!["b"]));
}

/// RFC 9110 section 5.5: bytes of 0x80 and above are opaque, and nothing looks at these.
#[test]
fn bytes_that_are_no_text_change_nothing_and_can_be_read() {
    let server = Running::start(module);
    for byte in 0x80..=0xff_u8 {
        let mut client = server.connect();
        let line = [b"User-Agent: caf", &[byte][..], b"\r\nCookie: ", &[byte], b"=1\r\n"].concat();
        client.write([b"GET /told HTTP/1.1\r\nHost: h\r\n", &line[..], b"\r\n"].concat());
        let answer = client.answer(false);
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(&format!("[63, 61, 66, {byte:02x}]")), "{answer:?}");
        let upgrade = upgrade_request("/echo", "").replacen("\r\n", "\r\nX: ~\r\n", 1);
        let upgrade: Vec<u8> =
            upgrade.bytes().map(|known| if known == b'~' { byte } else { known }).collect();
        client.write(upgrade);
        assert_eq!(client.answer(false).status, 101, "{byte:02x}");
        client.text("hello");
        client.expect_text("hello");
    }
    let mut client = server.connect();
    client.write(get("/told", "User-Agent: \u{fc}\r\n"));
    assert!(client.answer(false).body.ends_with("[c3, bc] \u{fc}"));
}

/// What is read is read strictly: a byte that is no text makes it what it is not.
#[test]
fn bytes_that_are_no_text_are_no_part_of_what_is_read() {
    let server = Running::start(module);
    for (from, to, status) in [
        ("Host: h", &b"Host: h\xe9"[..], 400),
        ("Host: h", b"Host: h\r\nContent-Length: 1\xe9", 400),
        ("Host: h", b"Host: h\r\nTransfer-Encoding: chunked\xe9", 400),
        ("dGhlI", b"dGhl\xe9", 400),
        ("Version: 13", b"Version: 13\xe9", 426),
        ("Host: h", b"Host: h\r\nSec-WebSocket-Protocol: v1, \xe9", 400),
        ("Host: h", b"Host: h\r\nOrigin: https://a.b\xe9", 403),
        ("websocket", b"websocket\xe9", 426),
        ("Connection: Upgrade", b"Connection: \xe9, Upgrade", 101),
        ("GET", b"G\xe9T", 400),
        ("Host: h", b"Host: h\r\nX\xe9: y", 400),
    ] {
        let request = upgrade_request("/from", "");
        let (before, behind) = request.split_once(from).unwrap();
        let mut client = server.connect();
        client.write([before.as_bytes(), to, behind.as_bytes()].concat());
        assert_eq!(client.answer(false).status, status, "{}", String::from_utf8_lossy(to));
    }
}

#[test]
fn the_target_names_the_same_path_in_every_form() {
    let server = Running::start(module);
    for (target, told) in [
        ("/told?a=b", "/told a=b Some(\"h\")"),
        ("http://x/told?a=b", "/told a=b Some(\"x\")"),
        ("HTTPS://x:443/told", "/told  Some(\"x:443\")"),
        ("ws://x/told", "/told  Some(\"x\")"),
        ("wSs://[::1]:8/told?http://y/admin", "/told http://y/admin Some(\"[::1]:8\")"),
        ("/told#x?y", "/told  Some(\"h\")"),
    ] {
        let answer = server.connect().request(&get(target, ""));
        assert!(answer.body.starts_with(told), "{target}: {answer:?}");
    }
    for target in ["http://h?x=/told", "http://h#/told", "wss://h", "http://h/", "http://h?/told"] {
        assert_eq!(server.connect().request(&get(target, "")).body, "page", "{target}");
    }
    let mut client = server.connect();
    assert_eq!(client.request(&upgrade_request("wss://device.local/echo?x", "")).status, 101);
    client.text("hello");
    client.expect_text("hello");
}

#[test]
fn an_expectation_has_its_final_answer_and_no_body_is_taken_for_a_request() {
    let server = Running::start(module);
    let smuggled = get("/none", "");
    for (method, lines, status) in [
        ("POST", "Expect: 100-continue\r\n", 405),
        ("POST", "Expect: 100-Continue , 100-continue\r\n", 405),
        ("GET", "Expect: 100-continue\r\n", 200),
        ("POST", "Expect: 200-maybe\r\n", 417),
        ("POST", "Expect: 100-continue, x\r\n", 417),
    ] {
        for sent_at_once in [false, true] {
            let length = format!("Content-Length: {}\r\n", smuggled.len());
            let mut client = server.connect();
            client.write(get("/", &(lines.to_owned() + &length)).replacen("GET", method, 1));
            if sent_at_once {
                client.write(&smuggled);
            }
            let answer = client.answer(false);
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
            client.expect_eof(); // no 100, no second answer
        }
    }
    // Of any length, and chunked: the client did not send it yet.
    for body in ["Content-Length: 5000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let lines = format!("Expect: 100-continue\r\n{body}");
        let mut client = server.connect();
        let answer = client.request(&get("/", &lines).replacen("GET", "PUT", 1));
        assert_eq!((answer.status, answer.header("connection")), (405, Some("close")));
        client.expect_eof();
    }
    // Without a body there is nothing to wait for.
    let mut client = server.connect();
    assert_eq!(client.request(&get("/", "Expect: 100-continue\r\n")).header("connection"), None);
    assert_eq!(client.request(&get("/", "Expect: x\r\n")).status, 417);
    assert_eq!(
        client.request(&get("/", "Expect: 100-continue\r\nContent-Length: 0\r\n")).status,
        200
    );
    // RFC 9110 section 10.1.1: from HTTP/1.0 it is ignored, and the body comes.
    client.write(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: x\r\nContent-Length: 2\r\n\r\n",
    );
    assert_eq!(client.answer(false).status, 200);
    client.write("ab");
    assert_eq!(client.request(&get("/", "")).status, 200);
}

#[test]
fn who_sends_nothing_gets_nothing_and_who_begins_gets_408() {
    let server = Running::start(|app| {
        let limits = Limits::new().handshake_timeout(millis(300)).keep_alive_timeout(millis(600));
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            route.get("/", |_| "page");
        });
    });
    server.connect().expect_eof();
    let mut begun = server.saying("\r\n");
    assert_eq!(begun.answer(false).status, 408);
    let since = Instant::now();
    let mut kept = server.saying(get("/", ""));
    assert_eq!(kept.answer(false).status, 200);
    kept.expect_eof();
    assert!(since.elapsed() > millis(550), "its own time, not that of a head");
    let mut late = server.saying(get("/", "") + "GET / HT");
    assert_eq!(late.answer(false).status, 200);
    assert_eq!(late.answer(false).status, 408);
}

/// What stands at that place of a large body.
fn letter(place: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyz"[place / 1_000 % 26]
}

/// Answered before the peer reads, more than any socket buffer holds, up to more than all memory.
#[test]
fn a_large_body_arrives_or_is_refused_when_it_is_made() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/{mib}", |call| {
                let mib: usize = call.parameter("mib").unwrap().parse().unwrap();
                let body: Vec<u8> = (0..mib << 20).map(letter).collect();
                Response::new(200).header("Content-Type", "text/plain").body(body)
            });
        });
    });
    for (mib, status) in [(1, 200), (20, 200), (30, 500)] {
        for last in [false, true] {
            let mut client = server.connect();
            let line = if last { "Connection: close\r\n" } else { "" };
            client.write(get(&format!("/{mib}"), line));
            if !last {
                client.write(get("/0", "")); // waits behind it
            }
            let answer = client.answer(false);
            assert_eq!(answer.status, status, "{mib} MiB");
            if status == 200 {
                let whole = answer.body.bytes().enumerate();
                assert!(answer.body.len() == mib << 20);
                assert!(whole.into_iter().all(|(n, byte)| byte == letter(n)));
            }
            if last {
                client.expect_eof();
            } else {
                assert_eq!(client.answer(false).status, 200);
            }
        }
        let head =
            server.connect().request(&get(&format!("/{mib}"), "").replacen("GET", "HEAD", 1));
        assert_eq!(head.status, status);
    }
    // Two at once do not fit: the second is told so, and the first arrives.
    let mut first = server.connect();
    first.write(get("/20", ""));
    assert!(first.fill());
    let second = server.connect().request(&get("/20", ""));
    assert_eq!((second.status, second.header("retry-after")), (503, Some("1")));
    assert_eq!(first.answer(false).body.len(), 20 << 20);
    assert_eq!(first.request(&get("/20", "")).status, 200);
}

/// Every byte of a long head by itself: it is the same head, and costs no more than its bytes.
#[test]
fn heads_that_dribble_in_are_the_same_heads() {
    let server = Running::start(module);
    let mut client = server.connect();
    let agent = "x".repeat(2_000);
    let request = get("/told?a", &format!("User-Agent: {agent}\r\n"));
    for _ in 0..2 {
        for byte in request.bytes() {
            client.write([byte]);
        }
        let answer = client.answer(false);
        assert!(answer.status == 200 && answer.body.ends_with(&agent));
    }
}

#[test]
fn what_was_begun_on_the_wrong_port_is_refused_at_once() {
    let server = Running::start(module);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x01\x02\0\x50",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut client = server.connect();
        client.write(bytes);
        let answer = client.answer(false);
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{bytes:?}");
        client.expect_eof();
    }
}

/// The upgrade's own connection is told apart from that of the refusals before it.
#[test]
fn one_connection_through_refusals_to_a_session() {
    let server = Running::start(module);
    let mut client = server.connect();
    assert_eq!(client.request(&get("/echo", "")).status, 426);
    assert_eq!(client.request(&upgrade_request("/picky?no", "")).status, 403);
    assert_eq!(client.request(&upgrade_request("/v1", "")).status, 400);
    assert_eq!(client.request(&get("/", "").replacen("GET", "HEAD", 1)).status, 200);
    let lines = "Connection: close\r\n"; // of no meaning for a connection that is HTTP no more
    let answer = client.request(&upgrade_request("/echo", lines));
    assert_eq!((answer.status, answer.header("connection")), (101, Some("Upgrade")));
    client.write(masked(TEXT, b"still"));
    client.expect_text("still");
    client.half_close();
    client.expect_eof();
}

//! HTTP on the same port: answers, keep-alive, subprotocols, the upgrade hook, origins.

mod support;

use support::*;
use wirewheel::{Accept, Application, Call, Response, WebSockets, on_connect, on_message};

fn protocol_of(_: &Call) -> impl wirewheel::Handler + use<> {
    on_connect(|session, call| session.send(call.protocol().unwrap_or("none")))
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |_| Response::html("<p>page</p>"));
        route.get("/health", |_| Response::json("{\"ok\":true}"));
        route.web_socket("/health", protocol_of);
        route.web_socket("/chat", protocol_of).protocol("chat.v1");
        route.web_socket("/chat", protocol_of).protocol("chat.v2");
        route.web_socket("/open", protocol_of).protocol("chat.v1");
        route.web_socket("/open", protocol_of);
        route.web_socket("/pick", protocol_of).select_protocol(|_, offered| {
            offered.iter().find(|name| name.starts_with("v")).map(|&name| name.to_owned())
        });
        route.web_socket("/wild", protocol_of).select_protocol(|_, _| Some("mine".into()));
        route.web_socket("/pages", protocol_of).allowed_origins(["https://a.example"]);
        route.route("/private", |route| {
            route.on_upgrade(|call| match call.header("authorization") {
                Some("Bearer secret") => Ok(Accept::new().header("Set-Cookie", "seen=1")),
                _ => Err(Response::json("{\"error\":\"who?\"}")
                    .status(401)
                    .header("WWW-Authenticate", "Bearer")),
            });
            route.web_socket("/{room}", protocol_of).on_upgrade(|call| {
                match call.parameter("room").as_deref() {
                    Some("closed") => Err(Response::text("closed").status(403)),
                    _ => Ok(Accept::new().header("X-Room", "open")),
                }
            });
        });
        route
            .web_socket("/split", protocol_of)
            .on_upgrade(|_| Ok(Accept::new().header("X", "a\r\nSec-WebSocket-Protocol: evil")));
    });
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn get_and_head_share_a_connection() {
    let server = Running::start(module);
    let mut client = server.connect();
    for _ in 0..3 {
        let page = client.request(&get("/"));
        assert_eq!((page.status, &page.body[..]), (200, "<p>page</p>"));
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("connection"), None);
    }
    let head = client.request(&get("/").replacen("GET", "HEAD", 1));
    assert_eq!((head.status, head.header("content-length")), (200, Some("11")));
    let health = client.request(&get("/health?x"));
    assert_eq!(health.body, "{\"ok\":true}");
    // And the same connection upgrades.
    assert_eq!(client.request(&upgrade_request("/health", "")).status, 101);
    client.expect_text("none");
}

#[test]
fn connection_close_and_http_1_0_end_the_connection() {
    let server = Running::start(module);
    for request in
        ["GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]
    {
        let mut client = server.connect();
        let answer = client.request(request);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        client.expect_eof();
    }
}

#[test]
fn every_refusal_has_a_length_and_a_text() {
    let server = Running::start(module);
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(9000));
    let lines = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(64));
    let chunked = "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, status, stays) in [
        (get("/none"), 404, true),
        (get("/chat"), 426, true),
        (get("/%zz"), 400, true),
        (get("/").replacen("GET", "DELETE", 1), 405, true),
        (upgrade_request("/chat", ""), 400, true),
        (upgrade_request("/open", "").replacen("Version: 13", "Version: 8", 1), 426, true),
        (upgrade_request("/open", "").replacen("dGhl", "!!!!", 1), 400, true),
        (upgrade_request("/pages", "Origin: https://b.example\r\n"), 403, true),
        (chunked.to_owned(), 413, false),
        (get("/").replacen("\r\n\r\n", "\r\nContent-Length: 99999\r\n\r\n", 1), 413, false),
        ("not http at all\r\n\r\n".to_owned(), 400, false),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, false),
        ("GET / HTTP/3.0\r\nHost: h\r\n\r\n".to_owned(), 505, false),
        (long, 431, false),
        (lines, 431, false),
    ] {
        let mut client = server.connect();
        let answer = client.request(&request);
        assert_eq!(answer.status, status, "{request:.60}");
        assert!(answer.body.starts_with(&format!("{status} ")), "{answer:?}");
        assert!(answer.header("content-length").is_some());
        if stays {
            assert_eq!(client.request(&get("/")).status, 200, "after {status}");
        } else {
            assert_eq!(answer.header("connection"), Some("close"));
            client.expect_eof();
        }
    }
}

#[test]
fn a_small_body_is_passed_over() {
    let server = Running::start(module);
    let mut client = server.connect();
    client.write("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nGET /none HT");
    client.write(get("/health"));
    assert_eq!(client.answer(false).body, "<p>page</p>");
    assert_eq!(client.answer(false).body, "{\"ok\":true}");
}

#[test]
fn subprotocol_is_negotiated() {
    let server = Running::start(module);
    let ask = |path: &str, offer: &str| {
        let mut client = server.connect();
        let lines = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let answer = client.request(&upgrade_request(path, &lines));
        (answer.status, answer.header("sec-websocket-protocol").map(str::to_owned))
    };
    let agreed = |name: &str| (101, Some(name.to_owned()));
    // The server's order counts, not the client's.
    assert_eq!(ask("/chat", "chat.v2, chat.v1"), agreed("chat.v1"));
    assert_eq!(ask("/chat", "x, chat.v2"), agreed("chat.v2"));
    assert_eq!(ask("/chat", "x\r\nSec-WebSocket-Protocol: chat.v2"), agreed("chat.v2"));
    assert_eq!(ask("/chat", "Chat.v1"), (400, None), "letter by letter");
    assert_eq!(ask("/open", "chat.v1"), agreed("chat.v1"));
    assert_eq!(ask("/open", "other"), (101, None));
    let mut client = server.connect();
    let refusal = client.request(&upgrade_request("/chat", ""));
    assert_eq!(refusal.status, 400);
    assert!(refusal.body.contains("no subprotocol on offer"), "{}", refusal.body);
    let second = upgrade_request("/chat", "Sec-WebSocket-Protocol: chat.v1\r\n");
    assert_eq!(client.request(&second).status, 101, "the connection stays usable");
    client.expect_text("chat.v1");
}

#[test]
fn protocol_picker_chooses() {
    let server = Running::start(module);
    let mut client = server.connect();
    let request = upgrade_request("/pick", "Sec-WebSocket-Protocol: a, v7, v8\r\n");
    let answer = client.request(&request);
    assert_eq!(answer.header("sec-websocket-protocol"), Some("v7"));
    client.expect_text("v7");
    let mut client = server.connect();
    let request = upgrade_request("/wild", "Sec-WebSocket-Protocol: a\r\n");
    assert_eq!(client.request(&request).status, 500, "not what the client offered");
}

#[test]
fn upgrade_hook_rejects_and_adds_headers() {
    let server = Running::start(module);
    let mut client = server.connect();
    let answer = client.request(&upgrade_request("/private/a", ""));
    assert_eq!((answer.status, &answer.body[..]), (401, "{\"error\":\"who?\"}"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    let token = "Authorization: Bearer secret\r\n";
    let answer = client.request(&upgrade_request("/private/closed", token));
    assert_eq!((answer.status, &answer.body[..]), (403, "closed"));
    let answer = client.request(&upgrade_request("/private/a", token));
    assert_eq!((answer.status, answer.header("set-cookie")), (101, Some("seen=1")));
    assert_eq!(answer.header("x-room"), Some("open"));
    let answer = server.connect().request(&upgrade_request("/split", ""));
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (500, None));
}

#[test]
fn origins_are_checked() {
    let server = Running::start(module);
    for (lines, status) in [
        ("Origin: https://a.example\r\n", 101),
        ("Origin: HTTPS://A.EXAMPLE\r\n", 101),
        ("", 101),
        ("Origin: https://a.example.evil\r\n", 403),
        ("Origin: http://a.example\r\n", 403),
        ("Origin: null\r\n", 403),
    ] {
        let answer = server.connect().request(&upgrade_request("/pages", lines));
        assert_eq!(answer.status, status, "{lines:?}");
    }
}

#[test]
fn pipelined_frame_behind_the_upgrade() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/", |_| "page");
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    });
    let mut client = server.connect();
    let all =
        [get("/").into_bytes(), upgrade_request("/", "").into_bytes(), masked(TEXT, b"early")];
    client.write(all.concat());
    assert_eq!(client.answer(false).body, "page");
    assert_eq!(client.answer(false).status, 101);
    client.expect_text("early");
    // The same in single bytes.
    let mut client = server.connect();
    for byte in all.concat() {
        client.write([byte]);
    }
    assert_eq!(client.answer(false).body, "page");
    assert_eq!(client.answer(false).status, 101);
    client.expect_text("early");
}

#[test]
fn route_priority_over_a_socket() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/{...}", |_| "tail");
            route.get("/a/{id}", |call| format!("id {}", call.parameter("id").unwrap_or_default()));
            route.get("/a/b", |_| "constant");
            route.get("/f/{name}.json", |call| {
                format!("file {}", call.parameter("name").unwrap_or_default())
            });
        });
    });
    let mut client = server.connect();
    for (path, body) in [
        ("/a/b", "constant"),
        ("/a/c%20d", "id c d"),
        ("/f/x.json", "file x"),
        ("/f/x.xml", "tail"),
        ("/", "tail"),
    ] {
        assert_eq!(client.request(&get(path)).body, body, "{path}");
    }
}

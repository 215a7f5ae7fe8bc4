//! Pages in memory: a folder in the program, conditions of answers that an application makes, default
//! headers, pages for statuses, CORS and the rule about origins.

use std::time::Duration;

use wirewheel::extension::Deflate;
use wirewheel::pages::{Cors, Folder};
use wirewheel::testing::{Answer, Ending, TestApplication};
use wirewheel::{Accept, Application, Call, Response, Routing, WebSockets, on_message};

const PAGES: &[(&str, &[u8])] = &[
    ("index.html", b"start"),
    ("app.js", b"original"),
    ("app.js.gz", b"gzipped"),
    ("docs/index.html", b"docs"),
    (".hidden", b"hidden"),
    ("big.bin", &[7; 200_000]),
];

fn serve(routes: impl FnOnce(&mut Routing<'_>)) -> TestApplication {
    serve_with(WebSockets::new(), routes)
}

fn serve_with(options: WebSockets, routes: impl FnOnce(&mut Routing<'_>)) -> TestApplication {
    TestApplication::new(|app: &mut Application| {
        app.install(options);
        app.routing(routes);
    })
    .unwrap()
}

fn mistake(routes: impl FnOnce(&mut Routing<'_>)) -> String {
    let started = TestApplication::new(|app: &mut Application| app.routing(routes));
    started.unwrap_err().to_string()
}

fn ask(app: &TestApplication, method: &str, path: &str, lines: &str) -> Answer {
    let mut client = app.connect();
    if method == "HEAD" {
        return client.request("HEAD", path); // the only one whose answer has a length and no body
    }
    client.send_bytes(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n").as_bytes());
    client.expect_answer()
}

fn get(app: &TestApplication, path: &str, lines: &str) -> Answer {
    ask(app, "GET", path, lines)
}

/// The lines of an answer that begin so.
fn lines<'a>(answer: &'a Answer, start: &str) -> Vec<&'a str> {
    answer.head.lines().filter(|line| line.starts_with(start)).collect()
}

#[test]
fn a_folder_in_the_program_is_served_as_one_on_disk() {
    let app = serve(|route| {
        route.folder("/", Folder::embedded(PAGES).single_page("index.html"));
        route.web_socket("/ws", |_: &Call| on_message(|session, it| session.send(it)));
    });
    for (path, lines, status, body) in [
        ("/", "", 200, "start"),
        ("/docs/", "", 200, "docs"),
        ("/app.js", "", 200, "original"),
        ("/app.js", "Accept-Encoding: gzip\r\n", 200, "gzipped"),
        ("/app.js", "Range: bytes=2-3\r\n", 206, "ig"),
        ("/app.js", "Range: bytes=8-\r\n", 416, "416 Range Not Satisfiable\n"),
        ("/app.js", "Accept-Encoding: br, *;q=0\r\n", 406, "406 Not Acceptable\n"),
        ("/deep", "Accept: text/html\r\n", 200, "start"),
        ("/deep", "", 404, "404 Not Found\n"),
        ("/.hidden", "", 404, "404 Not Found\n"),
        ("/docs/../app.js", "", 404, "404 Not Found\n"),
        ("/ws", "", 404, "404 Not Found\n"), // no upgrade: it may be a file
    ] {
        let answer = get(&app, path, lines);
        assert_eq!((answer.status, answer.text()), (status, body), "{path} {lines}");
    }
    assert_eq!(get(&app, "/docs", "").header("location"), Some("./docs/"));
    let page = get(&app, "/app.js", "");
    let etag = page.header("etag").unwrap();
    assert!(etag.starts_with('"') && page.header("last-modified").is_none());
    assert_eq!(get(&app, "/app.js", &format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(get(&app, "/app.js", &format!("If-Match: {etag}\r\n")).status, 200);
    let coded = format!("Accept-Encoding: gzip\r\nIf-None-Match: {etag}\r\n");
    assert_eq!(get(&app, "/app.js", &coded).text(), "gzipped", "another representation");
    assert_eq!(ask(&app, "HEAD", "/app.js", "").header("content-length"), Some("8"));
    assert_eq!(ask(&app, "POST", "/app.js", "").status, 405);
    // Long ones go out in pieces, and nothing of them is held.
    let mut client = app.connect();
    client.read_only(1_000);
    client.send_bytes(b"GET /big.bin HTTP/1.1\r\nHost: h\r\nRange: bytes=100-\r\n\r\n");
    assert!(app.stats().bytes_held < 100_000, "{}", app.stats().bytes_held);
    client.read_on();
    let answer = client.expect_answer();
    assert_eq!((answer.status, answer.body), (206, vec![7; 199_900]));
}

#[test]
fn answers_of_an_application_have_conditions_if_it_says_so() {
    let app = serve(|route| {
        route.get("/state", |call: &Call| {
            Response::json("{\"level\":3}").header("ETag", "\"seven\"").conditional(call)
        });
        route.get("/plain", |_: &Call| Response::text("0123456789").header("ETag", "\"seven\""));
    });
    let known = "If-None-Match: \"seven\"\r\n";
    assert_eq!(get(&app, "/state", known).status, 304);
    assert_eq!(get(&app, "/state", "If-Match: \"six\"\r\n").status, 412);
    assert_eq!(get(&app, "/state", "Range: bytes=-2\r\n").text(), "3}");
    let head = ask(&app, "HEAD", "/state", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("11")));
    assert_eq!(get(&app, "/plain", &format!("{known}Range: bytes=0-1\r\n")).text(), "0123456789");
}

/// Each cookie is a line of its own (RFC 6265 section 3), and so may be each challenge; `Vary` only grows.
#[test]
fn all_lines_of_one_name_stay_when_answers_are_put_together() {
    let app = serve(|route| {
        route.cors(Cors::new().allowed_origins(["https://a.example"]));
        route.status_page(401, |_| Response::text("log in").header("Vary", "Accept-Language"));
        route.get("/private", |_| {
            let refusal = wirewheel::auth::basic_challenge("box");
            refusal.header("WWW-Authenticate", "Bearer realm=\"box\"")
        });
        route.get("/login", |_| {
            let made = Response::with_server(|_, _| Response::new(204).header("X-Own", "kept"));
            let cookies = made.header("Set-Cookie", "sid=1").header("Set-Cookie", "csrf=2");
            cookies.header("X-Own", "not taken")
        });
    });
    let answer = get(&app, "/login", "");
    assert_eq!(lines(&answer, "Set-Cookie").len(), 2, "{}", answer.head);
    assert_eq!(lines(&answer, "X-Own"), ["X-Own: kept"]);
    let answer = get(&app, "/private", "Origin: https://a.example\r\n");
    assert_eq!(lines(&answer, "WWW-Authenticate").len(), 2, "{}", answer.head);
    assert_eq!(lines(&answer, "Vary"), ["Vary: Accept-Language", "Vary: Origin"]);
    assert_eq!(answer.text(), "log in");
}

/// RFC 9110 section 15.4.5: what it says of content would be taken for that of the copy.
#[test]
fn a_304_gets_no_default_for_its_content() {
    let app = serve(|route| {
        route.default_header("Content-Language", "en");
        route.default_header("X-Box", "here");
        route.get("/", |call| {
            let page = Response::html("hallo").header("Content-Language", "de");
            page.header("ETag", "\"1\"").conditional(call)
        });
    });
    assert_eq!(lines(&get(&app, "/", ""), "Content-Language"), ["Content-Language: de"]);
    let answer = get(&app, "/", "If-None-Match: \"1\"\r\n");
    assert_eq!((answer.status, lines(&answer, "X-Box").len()), (304, 1));
    assert_eq!(lines(&answer, "Content-"), [] as [&str; 0], "{}", answer.head);
}

/// As clients send it that end a body as if it were a line of text (RFC 9112 section 2.2).
#[test]
fn empty_lines_behind_a_request_begin_no_other() {
    let app = serve(|route| {
        route.post("/", |_, body| body.bytes().len().to_string());
    });
    let mut client = app.connect();
    let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\r\n";
    for _ in 0..2 {
        client.send_bytes(request.as_bytes());
        assert_eq!(client.expect_answer().text(), "3");
        app.advance(Duration::from_secs(60));
        client.send_bytes(b"\r\n\r\n");
        assert_eq!(client.ending(), None);
    }
    app.advance(Duration::from_secs(80));
    client.expect_end(Ending::Closed); // without a word: no 408
}

#[test]
fn default_headers_are_in_every_answer_of_their_scope() {
    let app = serve(|route| {
        route.default_header("X-Box", "outer");
        route.get("/page", |_: &Call| "page");
        route.get("/own", |_: &Call| Response::text("own").header("x-box", "its own"));
        route.web_socket("/ws", |_: &Call| on_message(|session, it| session.send(it)));
        route.route("/api", |route| {
            route.default_header("X-Box", "inner");
            route.default_header("X-More", "more");
            route.get("/state", |_: &Call| "{}");
        });
        route.folder("/files", Folder::embedded(PAGES));
    });
    for (path, expected) in [
        ("/page", "X-Box: outer"),
        ("/own", "x-box: its own"),
        ("/missing", "X-Box: outer"),
        ("/ws", "X-Box: outer"),
        ("/%ff", "X-Box: outer"),
        ("/api/state", "X-Box: inner"),
        ("/api/missing", "X-Box: inner"),
        ("/api", "X-Box: inner"),
        ("/apis", "X-Box: outer"),
        ("/files/app.js", "X-Box: outer"),
    ] {
        let answer = get(&app, path, "");
        let is_it = |line: &&str| line.get(..6).is_some_and(|it| it.eq_ignore_ascii_case("x-box:"));
        let found: Vec<_> = answer.head.lines().filter(is_it).collect();
        assert_eq!(found, [expected], "{path}");
    }
    let etag = get(&app, "/files/app.js", "").header("etag").unwrap().to_owned();
    let unchanged = get(&app, "/files/app.js", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((unchanged.status, unchanged.header("x-box")), (304, Some("outer")));
    assert_eq!(get(&app, "/api/state", "").header("x-more"), Some("more"));
    assert_eq!(get(&app, "/page", "").header("x-more"), None);
    let (_, upgraded) = app.upgrade("/ws").connect().unwrap();
    assert_eq!(upgraded.header("x-box"), None);
    for (name, value) in [("X Y", "a"), ("X", "a\r\nb"), ("Content-Length", "3")] {
        let text = mistake(|route| route.default_header(name, value));
        assert!(
            text.contains("default_header at \"/\"") && text.contains("may not be set"),
            "{text}"
        );
    }
}

/// It has no length while it is to be made, and is not empty for that.
#[test]
fn a_page_that_is_made_with_the_server_is_that_of_its_scope() {
    let app = serve(|route| {
        route.status_page(404, |_: &Call| "lost");
        route.route("/counts", |route| {
            route.status_page(404, |_: &Call| {
                Response::with_server(|_, server| server.session_count().to_string())
            });
        });
    });
    for (path, body) in [("/x", "lost"), ("/counts/x", "0")] {
        let answer = get(&app, path, "");
        assert_eq!((answer.status, answer.text()), (404, body), "{path}");
    }
}

#[test]
fn a_header_that_may_not_be_set_makes_a_500_whatever_is_set_behind_it() {
    let bad = || Response::text("x").header("X", "a\nb");
    let app = serve(|route| {
        route.get("/page", move |_: &Call| bad().status(201).header("X-Own", "1").body("mine"));
        route.get("/made", move |_: &Call| {
            Response::with_server(move |_, _| bad()).status(201).header("X-Own", "1")
        });
    });
    for path in ["/page", "/made"] {
        let answer = get(&app, path, "");
        assert_eq!((answer.status, answer.text()), (500, "500 Internal Server Error\n"), "{path}");
        assert_eq!(answer.header("x-own"), None, "{path}");
    }
}

/// What a handshake gets whose last line is this one.
fn handshake(app: &TestApplication, path: &str, line: &str) -> Answer {
    let version = if line.contains("Version") { "" } else { "Sec-WebSocket-Version: 13\r\n" };
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    ask(app, "GET", path, &[upgrade, key, version, line].concat())
}

#[test]
fn a_status_has_a_page_where_nobody_wrote_an_answer() {
    let app = serve_with(WebSockets::new().extension(Deflate::new()), |route| {
        route.status_page(404, |call| Response::html(format!("lost at {}", call.path())));
        route.status_page(405, |_: &Call| "only reading");
        route.status_page(401, |_: &Call| "log in");
        route.status_page(500, |_: &Call| "sorry");
        route.status_page(426, |_: &Call| "a WebSocket is here");
        route.status_page(503, |_: &Call| -> Response { panic!("worse") });
        route.status_page(416, |_: &Call| "shorter than that");
        route.status_page(400, |_: &Call| "no handshake");
        route.default_header("X-Box", "here");
        route.get("/mine", |_: &Call| Response::text("mine").status(404));
        route.get("/empty", |_: &Call| Response::new(404));
        route.get("/panic", |_: &Call| -> Response { panic!("bad") });
        route.get("/busy", |_: &Call| Response::new(503));
        route.folder("/files", Folder::embedded(PAGES));
        route.route("/api", |route| {
            route.status_page(404, |_: &Call| Response::json("{\"error\":404}"));
        });
        route.web_socket("/ws", |_: &Call| on_message(|session, it| session.send(it)));
        let fails =
            route.web_socket("/fails", |_: &Call| on_message(|session, it| session.send(it)));
        fails.on_upgrade(|_| panic!("bad"));
        route.route("/in", |route| {
            route.on_upgrade(|_| Err(Response::new(401).header("WWW-Authenticate", "Bearer")));
            route.on_upgrade(|_| Ok(Accept::new()));
            route.web_socket("/ws", |_: &Call| on_message(|session, it| session.send(it)));
        });
    });
    app.tolerate_panics();
    for (path, status, body) in [
        ("/missing", 404, "lost at /missing"),
        ("/files/missing", 404, "lost at /files/missing"),
        ("/mine", 404, "mine"),
        ("/empty", 404, "lost at /empty"),
        ("/panic", 500, "sorry"),
        ("/busy", 500, "500 Internal Server Error\n"),
        ("/api/x", 404, "{\"error\":404}"),
        ("/in/ws", 426, "a WebSocket is here"),
    ] {
        let answer = get(&app, path, "");
        assert_eq!((answer.status, answer.text()), (status, body), "{path}");
    }
    assert_eq!(get(&app, "/missing", "").header("content-type"), Some("text/html; charset=utf-8"));
    let post = ask(&app, "POST", "/mine", "");
    assert_eq!((post.status, post.text()), (405, "only reading"));
    assert!(post.header("allow").is_some_and(|allow| allow.contains("GET")));
    let refused = app.upgrade("/in/ws").connect().unwrap_err();
    assert_eq!((refused.status, refused.text()), (401, "log in"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    // A handshake that is refused is one more of those answers.
    for (path, line, status, text) in [
        ("/fails", "", 500, "sorry"),
        ("/in/ws", "Sec-WebSocket-Version: 12\r\n", 426, "a WebSocket is here"),
        ("/ws", "Sec-WebSocket-Extensions: ;;\r\n", 400, "no handshake"),
    ] {
        let refused = handshake(&app, path, line);
        assert_eq!((refused.status, refused.text()), (status, text), "{path}");
        assert_eq!(refused.header("x-box"), Some("here"), "{path}");
    }
    // RFC 9110 section 15.5.17: who asked for what is not there is told how much is.
    let beyond = get(&app, "/files/", "Range: bytes=100000-\r\n");
    assert_eq!((beyond.status, beyond.text()), (416, "shorter than that"));
    assert!(beyond.header("content-range").is_some_and(|range| range.starts_with("bytes */")));
    let head = ask(&app, "HEAD", "/missing", "");
    assert_eq!((head.status, head.header("content-length")), (404, Some("16")));
    let text = mistake(|route| route.status_page(200, |_: &Call| "x"));
    assert!(text.contains("status_page at \"/\": 200 is no error"), "{text}");
}

/// It is written a share at a time, like any other long answer.
#[test]
fn a_long_page_for_who_is_too_slow_arrives_whole() {
    for length in [1_000, 300_000, 3_000_000] {
        let app = serve(|route| {
            route.status_page(408, move |_: &Call| "x".repeat(length));
            route.post("/form", |_: &Call, _| "taken");
        });
        let mut client = app.connect();
        client.send_bytes(b"POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx");
        app.advance(Duration::from_secs(120));
        let answer = client.expect_answer();
        assert_eq!((answer.status, answer.text().len()), (408, length));
        client.expect_end(Ending::Closed);
    }
}

const PAGE: &str = "Origin: https://dashboard.example\r\n";
const STRANGER: &str = "Origin: https://evil.example\r\n";
const ASKS_TO_PUT: &str =
    "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-y\r\n";

/// One scope has the list of the WebSocket rule, one anybody, and one within that a list of its own.
fn shared_with_pages() -> TestApplication {
    let options = WebSockets::new().allowed_origins(["https://dashboard.example"]);
    serve_with(options, |route| {
        route.get("/private", |_: &Call| "private");
        route.route("/api", |route| {
            route.cors(Cors::new().methods(["PUT"]).headers(["X-Y"]).credentials(true));
            route.get("/state", |_: &Call| "{}");
            route.web_socket("/ws", |_: &Call| on_message(|session, it| session.send(it)));
        });
        route.route("/public", |route| {
            route.cors(Cors::new().allow_any_origin());
            route.get("/figures", |_: &Call| "1");
            route.post("/figures", |_: &Call, _| "2");
            route.route("/inner", |route| {
                let one = Cors::new().allowed_origins(["https://one.example"]).methods(["POST"]);
                route.cors(one);
                route.get("/figures", |_: &Call| "3");
                route.post("/figures", |_: &Call, _| "4");
            });
        });
    })
}

fn allows(answer: &Answer) -> Option<String> {
    answer.header("access-control-allow-origin").map(str::to_owned)
}

#[test]
fn pages_that_may_open_a_websocket_may_read_what_cors_is_said_of() {
    let app = shared_with_pages();
    let dashboard = Some("https://dashboard.example".to_owned());
    for (path, lines, expected) in [
        ("/api/state", PAGE, &dashboard),
        ("/api/missing", PAGE, &dashboard),
        ("/api/state", STRANGER, &None),
        ("/api/state", "", &None),
        ("/private", PAGE, &None),
        ("/public/figures", STRANGER, &Some("*".to_owned())),
        ("/public/inner/figures", STRANGER, &None),
    ] {
        let answer = get(&app, path, lines);
        assert_eq!(&allows(&answer), expected, "{path} {lines}");
        let is_listed = path.starts_with("/api") || path.starts_with("/public/inner");
        let vary = is_listed.then_some("Origin");
        assert_eq!(answer.header("vary"), vary, "{path} {lines}");
    }
    // What changes something wants more than leave to read.
    let post = |path: &str, lines: &str| {
        let lines = format!("{lines}Content-Type: text/plain\r\nContent-Length: 0\r\n");
        let answer = ask(&app, "POST", path, &lines);
        (answer.status, allows(&answer))
    };
    let one = "Origin: https://one.example\r\n";
    assert_eq!(post("/public/figures", STRANGER), (403, Some("*".into())));
    assert_eq!(post("/public/figures", PAGE), (200, Some("*".into())));
    assert_eq!(post("/public/inner/figures", STRANGER), (403, None));
    assert_eq!(post("/public/inner/figures", one), (200, Some("https://one.example".into())));
    // The same list lets in, or keeps out, for WebSockets.
    let upgrade = |lines: &str| {
        let (name, origin) = lines.trim_end().split_once(": ").unwrap();
        app.upgrade("/api/ws").header(name, origin).connect().map(|(_, answer)| answer)
    };
    assert_eq!(upgrade(PAGE).unwrap().status, 101);
    assert_eq!(upgrade(STRANGER).unwrap_err().status, 403);
}

#[test]
fn a_preflight_is_answered_for_the_pages_and_methods_of_its_scope() {
    let app = shared_with_pages();
    let dashboard = Some("https://dashboard.example".to_owned());
    let preflight = ask(&app, "OPTIONS", "/api/state", &format!("{PAGE}{ASKS_TO_PUT}"));
    assert_eq!((preflight.status, allows(&preflight)), (204, dashboard));
    assert_eq!(
        lines(&preflight, "Access-Control-"),
        [
            "Access-Control-Allow-Methods: GET, HEAD, PUT",
            "Access-Control-Allow-Headers: X-Y",
            "Access-Control-Allow-Origin: https://dashboard.example",
            "Access-Control-Allow-Credentials: true",
        ]
    );
    let refused = ask(&app, "OPTIONS", "/api/state", &format!("{STRANGER}{ASKS_TO_PUT}"));
    assert_eq!((refused.status, allows(&refused)), (403, None));
    assert!(refused.text().contains("https://evil.example"), "{}", refused.text());
    for (path, lines) in [("/private", format!("{PAGE}{ASKS_TO_PUT}")), ("/api/state", PAGE.into())]
    {
        let answer = ask(&app, "OPTIONS", path, &lines);
        assert!(answer.header("access-control-allow-methods").is_none(), "{path}");
    }
    let text = mistake(|route| route.cors(Cors::new()));
    assert!(text.contains("cors at \"/\"") && text.contains("allowed_origins"), "{text}");
}

#[test]
fn an_event_stream_is_read_by_the_pages_that_cors_lists() {
    let app = serve(|route| {
        route.default_header("X-Box", "here");
        route.default_header("Cache-Control", "max-age=60");
        route.cors(Cors::new().allowed_origins(["https://dashboard.example"]).credentials(true));
        route.event_stream("/events", |_: &Call| on_message(|_, _| Ok(())));
    });
    let ask = |lines: &str| {
        let mut client = app.connect();
        client.send_bytes(format!("GET /events HTTP/1.1\r\nHost: h\r\n{lines}\r\n").as_bytes());
        client.expect_head()
    };
    let answer = ask(PAGE);
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    assert_eq!(lines(&answer, "Cache-Control"), ["Cache-Control: no-store"]);
    assert_eq!(answer.header("x-box"), Some("here"));
    assert_eq!(
        lines(&answer, "Access-Control-"),
        [
            "Access-Control-Allow-Origin: https://dashboard.example",
            "Access-Control-Allow-Credentials: true"
        ]
    );
    let refused = ask(STRANGER);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
}

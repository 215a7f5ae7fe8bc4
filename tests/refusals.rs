//! Refusals in the log: a line for each reason, and not one for each request.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use support::*;
use wirewheel::{Accept, Application, Call, Limits, Response, WebSockets, on_connect, on_message};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Capture;

impl Log for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wirewheel")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// The lines since the last call.
fn lines() -> Vec<(Level, String)> {
    std::mem::take(&mut *LINES.lock().unwrap())
}

fn module(app: &mut Application) {
    // A turn that a busy machine has made slow has a line too.
    let limits = Limits::new().slow_callback(None);
    let limits = limits.handshake_timeout(Duration::from_millis(200)).max_head_bytes(1_000);
    app.install(WebSockets::new().limits(limits));
    app.routing(|route| {
        route.get("/page", |_| "page");
        route.get("/broken", |_| Response::text("x").header("Bad Name", "x"));
        route.get("/gone", |_| Response::new(410));
        route.get("/panics", |_| -> Response { panic!("on purpose") });
        route.web_socket("/", |_: &Call| {
            on_message(|_, message| match message.text() {
                Some("big") => Err(std::fmt::Error.into()),
                _ => panic!("on purpose"),
            })
        });
        route.web_socket("/chat", |_: &Call| on_connect(|_, _| Ok(()))).protocol("chat");
        route.web_socket("/private", |_: &Call| on_connect(|_, _| Ok(()))).on_upgrade(|call| {
            match call.header("authorization") {
                Some(_) => Ok(Accept::new()),
                None => Err(Response::new(401)),
            }
        });
    });
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// One test, because a process has one logger.
#[test]
fn who_is_refused_is_told_why_and_so_is_the_log_once_a_second() {
    log::set_logger(&Capture).unwrap();
    log::set_max_level(LevelFilter::Info);
    let server = Running::start(module);
    lines();
    each_reason_has_its_line(&server);
    a_second_has_one_line(&server);
    mistakes_of_the_application_are_errors(&server);
    // A page that answers so may mean it.
    assert_eq!(server.saying(get("/gone")).answer(false).status, 410);
    assert_eq!(lines(), []);
}

fn each_reason_has_its_line(server: &Running) {
    let evil = "Origin: https://evil.example\r\n";
    for (request, status, path, reason) in [
        (
            upgrade_request("/private?token=secret", ""),
            401,
            "GET \"/private\"",
            "an upgrade hook refused it",
        ),
        (
            upgrade_request("/", evil),
            403,
            "GET \"/\"",
            "Origin \"https://evil.example\" is not allowed",
        ),
        (get("/no\"where?token=secret"), 404, "GET \"/no\\\"where\"", "nothing is registered"),
        (get("/%zz"), 400, "GET \"/%zz\"", "encoding"),
        (get("/page").replace("GET", "PUT"), 405, "PUT \"/page\"", "does not take this method"),
        (get("/"), 426, "GET \"/\"", "a proxy in front has to pass Upgrade"),
        (upgrade_request("/chat", ""), 400, "GET \"/chat\"", "no subprotocol"),
        (upgrade_request("/", "Content-Length: 5\r\n"), 400, "GET \"/\"", "an upgrade has no body"),
        (
            format!("{}X: {}\r\n\r\n", get("/").trim_end(), "y".repeat(2_000)),
            431,
            "",
            "max_head_bytes",
        ),
        ("\x16\x03\x01\x02\r\n\r\n".into(), 400, "", "it begins with TLS"),
        ("SSH-2.0-x\r\n\r\n".into(), 400, "", "it begins with SSH"),
        ("GET\r\n\r\n".into(), 400, "", "no HTTP request"),
        (
            get("/page").replace("Host: h", "Host: h\r\nTransfer-Encoding: gzip, chunked"),
            501,
            "",
            "other than chunked",
        ),
        (
            get("/page").replace("Host: h", "Host: h\r\nExpect: more"),
            417,
            "GET \"/page\"",
            "expects",
        ),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".into(), 505, "", "HTTP/1.1"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Half".into(), 408, "", "in time"),
        (
            get("/page").replace("\r\n\r\n", "\r\nContent-Length: 9999\r\n\r\n"),
            413,
            "GET \"/page\"",
            "body",
        ),
    ] {
        let answer = server.saying(&request).answer(false);
        assert_eq!(answer.status, status, "{request:?}");
        let seen = lines();
        assert_eq!(seen.len(), 1, "{request:?}: {seen:?}");
        let (level, line) = &seen[0];
        // Who speaks something else has been configured so, and somebody is waiting for it to work.
        let due = if reason.contains("begins with") { Level::Warn } else { Level::Info };
        assert_eq!(*level, due, "{line}");
        assert!(line.starts_with(&format!("{status} to 127.0.0.1:")), "{line}");
        assert!(line.contains(path) && line.contains(reason), "{line}");
        assert!(!line.contains("secret"), "the query may hold a token: {line}");
    }
}

fn a_second_has_one_line(server: &Running) {
    let long = format!("/{}?token=secret", "x%0a".repeat(200));
    // However long a path is, and however often it is asked for: until the second is over nothing is said.
    let mut client = server.saying(get(&long));
    let mut asked = 0;
    let seen = loop {
        assert_eq!(client.answer(false).status, 404);
        asked += 1;
        let seen = lines();
        match asked {
            _ if seen.is_empty() => {}
            // More than a second after the one before, on a machine that stood still: it begins anew.
            1 => asked = 0,
            _ => break seen,
        }
        client.write(get(&long));
    };
    let line = &seen[0].1;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(line.len() < 300 && line.is_ascii() && !line.contains("secret"), "{line}");
    assert!(line.ends_with(&format!("({} more like it left out)", asked - 1)), "{asked}: {line}");
}

/// The most that one a second makes.
fn lines_since(begun: Instant) -> usize {
    usize::try_from(begun.elapsed().as_secs()).unwrap() + 2
}

fn mistakes_of_the_application_are_errors(server: &Running) {
    // What the application does wrong is an error, whoever brings it about and however often.
    for (path, status, reason) in [
        ("/broken", 500, "header \"Bad Name\" may not be set"),
        ("/panics", 500, "\"/panics\": handler panicked: on purpose"),
    ] {
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(server.saying(get(path)).answer(false).status, status);
        }
        let seen = lines();
        assert!((1..=lines_since(begun)).contains(&seen.len()), "{seen:?}");
        assert_eq!(seen[0].0, Level::Error);
        assert!(seen[0].1.contains(reason), "{seen:?}");
    }
    for text in ["big", "panic"] {
        let begun = Instant::now();
        for _ in 0..20 {
            let mut client = server.upgrade_at_once("/");
            client.text(text);
            client.expect_close(1011);
        }
        let seen = lines();
        assert!((1..=lines_since(begun)).contains(&seen.len()), "{seen:?}");
        assert_eq!(seen[0].0, Level::Error);
    }
}

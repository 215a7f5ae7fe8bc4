//! The logging contract: which target says what at which level.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::sync::Mutex;
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};
use support::*;
use wirewheel::{Call, Limits, WebSockets, on_message};

static LINES: Mutex<Vec<(Level, String, String)>> = Mutex::new(Vec::new());

struct Capture;

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target().starts_with("wirewheel") {
            let line = (record.level(), record.target().to_owned(), record.args().to_string());
            LINES.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

/// The lines of one target at one level.
fn lines(target: &str, level: Level) -> Vec<String> {
    let lines = LINES.lock().unwrap();
    let wanted = lines.iter().filter(|(l, t, _)| *l == level && t == target);
    wanted.map(|(_, _, text)| text.clone()).collect()
}

/// One test, because a process has one logger.
#[test]
fn each_target_says_what_it_promises_at_its_level() {
    log::set_logger(&Capture).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let server = Running::start(|app| {
        app.install(WebSockets::new().limits(Limits::new().slow_callback(None).max_connections(2)));
        app.routing(|route| {
            route.web_socket("/room/{name}", |_: &Call| {
                on_message(|_, message| match message.text() {
                    Some("fail") => Err(std::fmt::Error.into()),
                    Some("panic") => panic!("on purpose"),
                    _ => Ok(()),
                })
            });
        });
    });
    let addr = server.addr();
    let mut gone = server.upgrade("/room/a");
    let mut failing = server.upgrade("/room/b");
    let begun = Instant::now();
    for _ in 0..5 {
        // Over the limit: one line a second, however many there are.
        let answer = server.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(answer.status, 503);
    }
    for _ in 0..3 {
        // Likewise of what was spoken where HTTP is expected.
        let mut client = server.connect();
        client.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        assert_eq!(client.answer(false).status, 400);
    }
    // On a machine that stands still in between, more seconds.
    let most = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    gone.text("hello");
    drop(gone);
    failing.text("fail");
    failing.expect_close(1011);
    failing.expect_eof();
    drop(failing);
    let mut panicking = server.upgrade("/room/c");
    panicking.text("panic");
    panicking.expect_close(1011);
    panicking.expect_eof();
    drop(panicking);
    drop(server);

    let info = lines("wirewheel::server", Level::Info);
    assert_eq!(info.len(), 2, "limits are warned of: {info:?}");
    assert_eq!(info[0], format!("bound to {addr}"));
    assert!(info[1].starts_with("stopping"));
    let debug = lines("wirewheel::session", Level::Debug);
    assert_eq!(debug.iter().filter(|line| line.contains("opened: /room/{name} from")).count(), 3);
    assert!(
        debug.iter().any(|line| line.contains("closed: 1006 by Transport, not clean")),
        "{debug:?}"
    );
    assert!(debug.iter().any(|line| line.contains("closed: 1011 by Local")), "{debug:?}");
    let trace = lines("wirewheel::frame", Level::Trace);
    assert!(trace.iter().any(|line| line.contains("in: Text, 5 bytes")), "{trace:?}");
    let warn = lines("wirewheel::server", Level::Warn);
    let (full, wrong): (Vec<_>, Vec<_>) =
        warn.iter().partition(|line| line.starts_with("503 to 127.0.0.1:"));
    assert!((1..=most).contains(&full.len()) && (1..=most).contains(&wrong.len()), "{warn:?}");
    assert!(full[0].ends_with("for GET \"/\": max_connections is reached"), "{warn:?}");
    assert!(wrong.iter().all(|line| line.starts_with("400 to 127.0.0.1:")), "{warn:?}");
    assert!(wrong[0].contains("begins with TLS (https:// or wss://)"), "{warn:?}");
    let error = lines("wirewheel::session", Level::Error);
    assert_eq!(error.len(), 2, "a peer that vanished is no error: {error:?}");
    assert!(error[0].contains("/room/{name}: handler failed"), "{error:?}");
    assert!(error[1].contains("/room/{name}: handler panicked: on purpose"), "{error:?}");
    ask_for_a_page_that_panics();
    let error = lines("wirewheel::server", Level::Error);
    assert_eq!(error.len(), 1, "{error:?}");
    assert!(error[0].contains("/page/a%0aforged"), "{error:?}");
    assert!(error[0].contains("handler panicked: no page a\\nforged\\u{1b}[2J"), "{error:?}");
    assert!(error[0].len() < 5_000 && !error[0].contains(char::is_control), "{error:?}");
}

/// What a stranger wrote is in its line: decoded line feeds in the panic's text, and in the path controls
/// of a terminal in bytes of 0x80 and above.
fn ask_for_a_page_that_panics() {
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/page/{name}", |call: &Call| -> String {
                panic!("no page {}", call.parameter("name").unwrap_or_default());
            });
        });
    });
    let path = format!("/page/a%0aforged%1b[2J\u{9b}2J{}", "x".repeat(5_000));
    let answer = server.connect().request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_eq!(answer.status, 500);
}

//! A hook that holds the loop is named in the log and counted.

mod support;

use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use support::*;
use wirewheel::{Application, Call, Limits, WebSockets, on_message};

/// Keeps every warning.
struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wirewheel")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn module(app: &mut Application) {
    app.install(WebSockets::new().limits(Limits::new().slow_callback(millis(100))));
    app.routing(|route| {
        route.stats("/metrics");
        route.web_socket("/rooms/{room}", |_: &Call| {
            on_message(|session, message| {
                if message.text() == Some("dawdle") {
                    dawdle();
                }
                session.send(message)
            })
        });
    });
}

#[allow(clippy::disallowed_methods, reason = "this is the fault that is to be found")]
fn dawdle() {
    std::thread::sleep(millis(150));
}

#[test]
fn a_slow_hook_is_named_with_its_route() {
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(LevelFilter::Warn);
    let server = Running::start(module);
    let mut client = server.upgrade("/rooms/kitchen");
    client.text("quick");
    client.expect_text("quick");
    client.text("dawdle");
    client.expect_text("dawdle");
    // The answer goes out before the turn is over; the next answer comes after it.
    let figures = server.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    let counted = figures.lines().find_map(|line| line.strip_prefix("wirewheel_slow_turns_total "));
    assert_ne!(counted, Some("0"), "{figures}"); // more than once on a loaded machine
    let warnings = WARNINGS.0.lock().unwrap();
    let named = "a session of route /rooms/{room} blocked the event loop for ";
    assert!(warnings.iter().any(|warning| warning.starts_with(named)), "{warnings:?}");
}

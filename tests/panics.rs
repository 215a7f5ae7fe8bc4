//! A panic in the application's code ends one session, or gives one 500; everybody else is served.

mod support;

use std::sync::Once;

use support::*;
use wirewheel::{
    Accept, Application, Call, CloseInfo, Handler, HandlerResult, Message, Response, Session,
    SessionError, WebSockets, on_connect, on_message,
};

/// Keeps the panics of these tests off the output; any other is printed as ever.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let planned = info.payload().downcast_ref::<String>();
            if !planned.is_some_and(|text| text.starts_with("planned")) {
                usual(info);
            }
        }));
    });
}

fn plan(place: &str) {
    panic!("planned in {place}");
}

/// Panics in every hook that `hooks` names, and reports all that are called.
struct Fragile {
    hooks: String,
    events: std::sync::mpsc::Sender<String>,
}

impl Fragile {
    fn enter(&self, hook: &str, told: &str) {
        let _ = self.events.send(format!("{hook}{told}"));
        if self.hooks.split('+').any(|planned| planned == hook) {
            plan(hook);
        }
    }
}

impl Handler for Fragile {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.send("sent before")?;
        self.enter("connect", "");
        Ok(())
    }
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.enter("message", "");
        session.send(message)
    }
    fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
        self.enter("error", &format!(": {error}"));
    }
    fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
        self.enter("close", &format!(": {} clean={}", close.code(), close.is_clean()));
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        // A panic while another unwinds would end the process, here as everywhere in Rust.
        if !std::thread::panicking() {
            self.enter("drop", "");
        }
    }
}

fn module(events: std::sync::mpsc::Sender<String>) -> impl FnOnce(&mut Application) + Send {
    move |app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/echo", |_: &Call| on_message(|s, message| s.send(message)));
            route.web_socket("/fragile/{hooks}", move |call: &Call| Fragile {
                hooks: call.parameter("hooks").unwrap_or_default().into_owned(),
                events: events.clone(),
            });
            route.web_socket("/factory", |_: &Call| {
                plan("factory");
                on_connect(|_, _| Ok(()))
            });
            route.web_socket("/hook", |_: &Call| on_connect(|_, _| Ok(()))).on_upgrade(|_| {
                plan("hook");
                Ok(Accept::new())
            });
            route.get("/page", |_| {
                plan("page");
                Response::text("never")
            });
            route.get("/fine", |_| "fine");
        });
    }
}

/// Runs one session whose hooks panic as named, and says which were called.
fn events_of(hooks: &str) -> Vec<String> {
    hush();
    let (events, inbox) = std::sync::mpsc::channel();
    let server = Running::start(module(events));
    let mut witness = server.upgrade("/echo");
    let mut client = server.upgrade(&format!("/fragile/{hooks}"));
    client.expect_text("sent before");
    if !hooks.contains("connect") {
        client.text("go");
        if !hooks.contains("message") {
            client.expect_text("go");
            client.send(CLOSE, &close_payload(1000, ""));
            client.expect_close(1000);
        }
    }
    if hooks.contains("connect") || hooks.contains("message") {
        assert_eq!(client.expect_close(1011), "Internal error");
    }
    client.expect_eof();
    witness.text("served");
    witness.expect_text("served");
    drop((witness, client, server));
    inbox.iter().collect()
}

#[test]
fn a_panic_in_a_hook_ends_its_session_with_1011() {
    let events = events_of("connect");
    let error = "error: handler panicked: planned in connect";
    assert_eq!(events, ["connect", error, "close: 1011 clean=false", "drop"]);
    let events = events_of("message");
    let error = "error: handler panicked: planned in message";
    assert_eq!(events, ["connect", "message", error, "close: 1011 clean=false", "drop"]);
}

#[test]
fn hooks_that_panic_one_after_the_other_are_each_called_once() {
    let error = "error: handler panicked: planned in message";
    let close = "close: 1011 clean=false";
    assert_eq!(events_of("message+error+drop"), ["connect", "message", error, close, "drop"]);
    assert_eq!(events_of("message+error+close"), ["connect", "message", error, close]);
}

#[test]
fn a_panic_at_the_end_leaves_the_end_as_it_was() {
    let close = "close: 1000 clean=true";
    assert_eq!(events_of("close"), ["connect", "message", close]);
    assert_eq!(events_of("drop"), ["connect", "message", close, "drop"]);
}

#[test]
fn a_panic_before_the_session_gives_500_and_the_connection_stays_usable() {
    hush();
    let server = Running::start(module(std::sync::mpsc::channel().0));
    let mut client = server.connect();
    for path in ["/factory", "/hook"] {
        assert_eq!(client.request(&upgrade_request(path, "")).status, 500);
    }
    assert_eq!(client.request("GET /page HTTP/1.1\r\nHost: h\r\n\r\n").status, 500);
    let fine = client.request("GET /fine HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((fine.status, fine.body.as_str()), (200, "fine"));
}

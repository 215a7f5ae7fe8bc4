//! A panic in the application's code ends one session, or gives one 500; everybody else is served.

mod support;

use std::sync::Once;

use support::*;
use wirewheel::error::SessionError;
use wirewheel::{
    Accept, Application, Call, CloseInfo, Handler, HandlerResult, Message, Response, Session,
    WebSockets, on_connect, on_message,
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

/// What a panic was given, whose drop panics in turn, and so does what that one was given.
struct Nested(u32);

impl Drop for Nested {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Self(self.0 - 1));
        }
    }
}

/// Panics when it is dropped, once it was told to.
struct FragileDrop(&'static str);

impl Drop for FragileDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            plan(self.0);
        }
    }
}

/// Keeps what `Nested` says off the output too.
fn hush_all() {
    static ONCE: Once = Once::new();
    hush();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Nested>() {
                usual(info);
            }
        }));
    });
}

fn expect_served(witness: &mut Client) {
    witness.text("served");
    witness.expect_text("served");
}

#[test]
fn what_a_panic_carries_may_panic_in_its_drop() {
    hush_all();
    let server = Running::start(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/echo", |_: &Call| on_message(|s, message| s.send(message)));
            route.web_socket("/nested", |_: &Call| {
                on_message(|_, message| {
                    let depth = message.text().and_then(|text| text.parse().ok());
                    std::panic::panic_any(Nested(depth.unwrap_or(0)))
                })
            });
            route.get("/nested", |_| -> &'static str { std::panic::panic_any(Nested(1)) });
        });
    });
    let mut witness = server.upgrade("/echo");
    for depth in ["0", "1", "2", "5"] {
        let mut client = server.upgrade("/nested");
        client.text(depth);
        assert_eq!(client.expect_close(1011), "Internal error");
        client.expect_eof();
        let page = server.connect().request("GET /nested HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(page.status, 500);
        server.0.defer(|_| std::panic::panic_any(Nested(3))).unwrap();
        expect_served(&mut witness);
    }
}

/// The condition is asked while the answer to the upgrade is still in the turn's buffer.
#[test]
#[cfg(feature = "deflate")]
fn a_panic_while_a_message_is_encoded_loses_nothing_that_was_said_before() {
    hush();
    let server = Running::start(|app| {
        let deflate = wirewheel::extension::Deflate::new().compress_if_bigger_than(0).compress_if(
            |message| {
                if message.text() == Some("fall") {
                    plan("condition");
                }
                true
            },
        );
        app.install(WebSockets::new().extension(deflate));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| {
                    session.send("a")?;
                    session.send("fall")
                })
            });
            route.web_socket("/echo", |_: &Call| on_message(|s, message| s.send(message)));
        });
    });
    let mut witness = server.upgrade("/echo");
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut client = server.connect();
    assert_eq!(client.request(&upgrade_request("/", offer)).status, 101);
    assert_eq!(client.frame().first & 0x0f, TEXT & 0x0f, "what was sent before");
    assert_eq!(client.expect_close(1011), "Internal error");
    client.expect_eof();
    expect_served(&mut witness);
}

#[test]
fn a_watch_whose_parts_panic_in_their_drop_ends_alone() {
    hush();
    let (tell, told) = std::sync::mpsc::channel();
    let server = Running::start(move |app| {
        module(std::sync::mpsc::channel().0)(app);
        for stops in ["stop", "panic"] {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut theirs, b"x").unwrap();
            let (tell, captured) = (tell.clone(), FragileDrop("a watch's callback"));
            app.watch(ours, wirewheel::watch::Ready::READABLE, move |_, _, _| {
                let _ = (&captured, &theirs);
                tell.send(stops).unwrap();
                if stops == "panic" {
                    plan("a watch");
                }
                wirewheel::watch::Watch::Stop
            });
        }
        // It cannot be watched, and goes at once.
        let captured = FragileDrop("a watch of a file");
        let regular = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        app.watch(regular, wirewheel::watch::Ready::READABLE, move |_, _, _| {
            let _ = &captured;
            wirewheel::watch::Watch::Stop
        });
    });
    let mut witness = server.upgrade("/echo");
    for _ in 0..2 {
        told.recv_timeout(PATIENCE).unwrap();
    }
    expect_served(&mut witness);
}

/// What timers, orders and stop hooks hold is dropped where nobody's hook runs.
#[test]
fn what_is_left_at_the_end_may_panic_in_its_drop() {
    hush();
    let server = Running::start(|app| {
        module(std::sync::mpsc::channel().0)(app);
        let captured = FragileDrop("a timer");
        app.every(std::time::Duration::from_secs(3_600), move |_| {
            let _ = &captured;
        });
    });
    let mut witness = server.upgrade("/echo");
    let captured = FragileDrop("an order");
    server.0.defer(move |_| drop(captured)).unwrap();
    let captured = FragileDrop("a timer that is taken back");
    server
        .0
        .defer(move |server| {
            let timer = server.after(std::time::Duration::from_secs(9), move |_| drop(captured));
            if let Ok(timer) = timer {
                server.cancel_timer(timer);
            }
        })
        .unwrap();
    expect_served(&mut witness);
    // `Running` joins when it is dropped: the end is as without them.
}

#[test]
fn a_join_inside_a_hook_is_refused_and_the_owner_still_joins() {
    let (give, given) = std::sync::mpsc::channel::<wirewheel::Handle>();
    let (tell, told) = std::sync::mpsc::channel();
    let given = std::sync::Mutex::new(Some(given));
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let handle = given.lock().unwrap().take().unwrap().recv().unwrap();
                let tell = tell.clone();
                on_message(move |session, message| {
                    let _ = tell.send(handle.join().unwrap_err().to_string());
                    session.send(message)
                })
            });
        });
    });
    give.send(server.0.clone()).unwrap();
    let mut client = server.upgrade("/");
    expect_served(&mut client);
    let told = told.recv_timeout(PATIENCE).unwrap();
    assert!(told.starts_with("join was called on the server's own thread"), "{told}");
    server.0.shutdown(std::time::Duration::ZERO);
    let drained = server.0.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (0, 1), "the owner hears how it ended");
}

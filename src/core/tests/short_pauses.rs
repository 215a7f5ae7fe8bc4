//! Sessions and bodies whose reading is paused again and again, for a moment each: nobody who is gone, or
//! dribbles, is waited for any longer for that.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::handler::{Handler, on_connect, on_message};
use crate::app::response::Response;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::reader::Taken;
use crate::flow::shared_flow::SharedFlow;
use crate::session::Session;
use crate::structures::ids::TimerId;
use crate::testing::{Received, TestApplication, TestClient};
use crate::words::close::CloseCode;
use crate::words::error::HandlerResult;
use crate::words::message::Message;

/// Publishes once a second in a flow that somebody collects, and what it gets too: each time its reading is
/// suspended until all have taken it.
struct Publisher {
    flow: SharedFlow,
    notes: Rc<RefCell<Vec<String>>>,
}

impl Handler for Publisher {
    fn on_connect(&mut self, session: &mut Session<'_>, _: &Call) -> HandlerResult {
        session.set_timer(secs(1)).map(drop).map_err(Into::into)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _: TimerId) -> HandlerResult {
        session.set_timer(secs(1))?;
        session.emit(&self.flow, "tick")
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        session.emit(&self.flow, message.text().unwrap_or_default())
    }

    fn on_pong(&mut self, _: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.notes.borrow_mut().push(format!("pong after {} ms", rtt.as_millis()));
        Ok(())
    }

    fn on_own_pong(&mut self, _: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.notes.borrow_mut().push(format!("own pong of {} bytes", payload.len()));
        Ok(())
    }
}

fn publishing(options: WebSockets) -> (TestApplication, Rc<RefCell<Vec<String>>>) {
    let (flow, notes) = (SharedFlow::new(), Rc::<RefCell<Vec<String>>>::default());
    let noted = Rc::clone(&notes);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options);
        app.routing(move |route| {
            let collected = flow.clone();
            route.web_socket("/listen", move |_: &Call| {
                let flow = collected.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
            route.web_socket("/talk", move |_: &Call| Publisher {
                flow: flow.clone(),
                notes: Rc::clone(&noted),
            });
        });
    });
    (app.unwrap(), notes)
}

#[test]
fn a_publisher_that_is_gone_is_noticed() {
    let (app, _) = publishing(WebSockets::new().ping_period(secs(15)).timeout(secs(10)));
    let _listener = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    talker.answer_pings(false);
    app.advance(secs(16));
    assert!(matches!(talker.receive(), Some(Received::Ping(_))), "it has its pings");
    app.advance(secs(10));
    talker.expect_close(CloseCode::INTERNAL_ERROR);
}

#[test]
fn a_publisher_that_is_idle_is_noticed() {
    let options = WebSockets::new().ping_period(None).idle_timeout(secs(30));
    let (app, _) = publishing(options);
    let _listener = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    app.advance(secs(29));
    talker.expect_nothing();
    app.advance(secs(2));
    talker.expect_close(CloseCode::GOING_AWAY);
}

/// What comes while messages are held has come.
#[test]
fn a_ping_or_pong_within_a_pause_is_something_that_came() {
    let options = WebSockets::new().ping_period(None).idle_timeout(secs(40));
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options);
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                let mut is_paused = false;
                on_message(|session, _| session.set_timer(secs(20)).map(drop).map_err(Into::into))
                    .on_timer(move |session, _| {
                        if std::mem::replace(&mut is_paused, true) {
                            session.resume();
                            return Ok(());
                        }
                        session.pause();
                        session.set_timer(secs(3)).map(drop).map_err(Into::into)
                    })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send("pause");
    app.advance(secs(22));
    client.ping(b"here"); // in a pause from 20 s to 23 s
    assert_eq!(client.receive(), Some(Received::Pong(b"here".to_vec())));
    app.advance(secs(39));
    client.expect_nothing();
    app.advance(secs(3));
    client.expect_close(CloseCode::GOING_AWAY);
}

#[test]
fn a_pong_behind_a_pause_is_that_of_its_ping() {
    let (app, notes) = publishing(WebSockets::new().ping_period(secs(15)));
    let _listener = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    talker.answer_pings(false);
    for _ in 0..3 {
        let ping = (0..20).find_map(|_| {
            app.advance(secs(1));
            talker.receive()
        });
        let Some(Received::Ping(payload)) = ping else { panic!("no ping: {ping:?}") };
        talker.send("it pauses");
        app.advance(Duration::from_millis(100));
        talker.send_frame(0x8a, &payload);
        talker.send_frame(0x8a, &7_u64.to_be_bytes()); // what a program may have sent itself
    }
    let notes = notes.take();
    assert_eq!(notes.iter().filter(|note| note.starts_with("pong")).count(), 3, "{notes:?}");
    assert_eq!(notes.iter().filter(|note| note.starts_with("own")).count(), 3, "{notes:?}");
}

/// They went out while nothing was read: nobody awaits them any more, and the program never sent them.
#[test]
fn pongs_of_pings_that_went_out_in_a_long_pause_are_not_the_programs() {
    let (app, notes) = publishing(WebSockets::new().ping_period(secs(15)));
    let mut listener = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    listener.read_only(0); // the publisher waits for it
    app.advance(secs(80));
    listener.read_on();
    app.advance(secs(1));
    let notes = notes.take();
    assert!(!notes.iter().any(|note| note.starts_with("own")), "{notes:?}");
    talker.send("both live");
    talker.expect_nothing();
}

#[test]
fn who_dribbles_a_message_is_noticed() {
    let options = WebSockets::new().ping_period(None).write_timeout(secs(20));
    let (app, _) = publishing(options);
    let _listener = app.web_socket("/listen");
    let mut talker = app.web_socket("/talk");
    talker.send_bytes(&[0x81, 0xfe, 0x10, 0, 1, 2, 3, 4]); // 4,096 bytes
    for _ in 0..22 {
        talker.send_bytes(b"x");
        app.advance(secs(1));
    }
    talker.expect_close(CloseCode::VIOLATED_POLICY);
}

/// Pauses after each piece, and is resumed at once.
struct Pausing;

impl BodyHandler for Pausing {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, _: &[u8]) -> BodyNext {
        let id = body.id();
        let _ = body.server().after(Duration::from_millis(10), move |server| {
            let _ = server.resume_body(id);
        });
        BodyNext::Pause
    }

    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
        Response::text(body.received().to_string())
    }
}

#[test]
fn who_dribbles_a_body_is_noticed() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().write_timeout(secs(20)));
        app.routing(|route| _ = route.receive("POST", "/upload", |_| Ok(Pausing)));
    });
    let app = app.unwrap();
    let mut client = app.connect();
    client.send_bytes(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
    for _ in 0..11 {
        client.send_bytes(b"x");
        app.advance(secs(2));
    }
    assert_eq!(client.expect_answer().status, 408);
}

/// Its sessions say how long a message was, and have a smaller limit after a second.
pub(super) fn lowering_its_limit(options: WebSockets) -> TestApplication {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(options);
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| session.set_timer(secs(1)).map(drop).map_err(Into::into))
                    .on_timer(|session, _| session.set_max_frame_size(1_024).map_err(Into::into))
                    .on_message(|session, message| session.send(message.bytes().len().to_string()))
            });
        });
    });
    app.unwrap()
}

/// The header of a frame of 4,096 bytes.
pub(super) const OVER_THE_LIMIT: [u8; 8] = [0x82, 0xfe, 0x10, 0, 1, 2, 3, 4];

/// Sends such a frame, in the middle of which the limit changes.
pub(super) fn send_over_the_change(app: &TestApplication, client: &mut TestClient) {
    client.send_bytes(&OVER_THE_LIMIT);
    client.send_bytes(&[0; 1_000]);
    app.advance(secs(2));
    client.send_bytes(&[0; 3_096]);
}

/// A frame that has begun has the limit that it began with.
#[test]
fn a_smaller_limit_holds_for_the_next_frame() {
    let app = lowering_its_limit(WebSockets::new());
    let mut client = app.web_socket("/");
    send_over_the_change(&app, &mut client);
    client.expect_text("4096");
    client.send_bytes(&OVER_THE_LIMIT);
    client.expect_close(CloseCode::TOO_BIG);
}

/// A reader that takes nothing must not make a flow grow over its limit, however long the keys are.
#[test]
fn removed_keys_are_bounded_in_bytes_and_go_first_where_memory_is_short() {
    let options =
        FlowOptions::new().extra_buffer(10_000).on_buffer_overflow(BufferOverflow::Latest);
    let flow: SharedFlow = SharedFlow::with(options.max_bytes(100_000)).unwrap();
    let shared = flow.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        app.read_flow(&shared, |_, _| Taken::Later);
    });
    let app = app.unwrap();
    app.with_server(|_| {
        for n in 0..1_000 {
            let key = format!("{n}-{}", "k".repeat(5_000));
            flow.emit_latest(&key, "x").unwrap();
            flow.remove(&key);
        }
    });
    let held = app.stats().bytes_held;
    assert!((10_000..=101_000).contains(&held), "{held}");
}

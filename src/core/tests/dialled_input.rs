//! What comes on a connection that was dialled, before its dialer has looked at it: how much is kept, and
//! that all of it arrives.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::app::handler::on_connect;
use crate::context::dialers::Dialer;
use crate::protocol::handshake::AcceptKey;
use crate::session::Session;
#[cfg(feature = "tls")]
use crate::testing::AUTHORITY;
use crate::testing::frames::unmasked;
use crate::testing::{Ending, FarServer, TestApplication, TestClient};
use crate::words::connect::{DialerState, Reconnect};
#[cfg(feature = "tls")]
use crate::words::{tls::Pem, tls_client::Roots};

/// What a session may hold of its input: two read buffers, and what it is boxed in.
const HELD_MAX: u64 = (128 << 10) + 1_000;

/// Messages behind the server's answer: several read buffers of them.
const MESSAGES: usize = 300;
const MESSAGE_BYTES: usize = 1_000;

/// An application with a dialer, whose sessions pause at once and for three seconds.
struct Pausing {
    app: TestApplication,
    dialer: Dialer,
    /// Messages that came in sessions.
    came: Rc<Cell<usize>>,
    /// Texts that came in sessions, how they ended, and why there was none.
    notes: Rc<RefCell<Vec<String>>>,
    errors: Rc<RefCell<Vec<String>>>,
}

impl Pausing {
    fn new(url: &str, options: ConnectOptions) -> Self {
        let (came, notes) = (Rc::<Cell<usize>>::default(), Rc::<RefCell<Vec<String>>>::default());
        let (counted, noted, failed) = (Rc::clone(&came), Rc::clone(&notes), Rc::clone(&notes));
        let options = options.on_failure(move |error, _| {
            failed.borrow_mut().push(error.to_string());
            Reconnect::Retry
        });
        let errors = Rc::<RefCell<Vec<String>>>::default();
        let faults = Rc::clone(&errors);
        let mut dialer = None;
        let app = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new());
            let factory = move |_: &Call| {
                let (counted, faults) = (Rc::clone(&counted), Rc::clone(&faults));
                let (said, closed) = (Rc::clone(&noted), Rc::clone(&noted));
                on_connect(|session, _| {
                    session.pause();
                    session.set_timer(secs(3)).map(drop)?;
                    Ok(())
                })
                .on_timer(|session, _| {
                    session.resume();
                    Ok(())
                })
                .on_message(move |_, message| {
                    counted.set(counted.get() + 1);
                    said.borrow_mut().extend(message.text().map(str::to_owned));
                    Ok(())
                })
                .on_error(move |_, error| faults.borrow_mut().push(error.to_string()))
                .on_close(move |_, close| {
                    closed.borrow_mut().push(format!("closed {}", close.code()));
                })
            };
            dialer = Some(app.connect(url, options, factory));
        });
        Self { app: app.unwrap(), dialer: dialer.unwrap(), came, notes, errors }
    }

    fn direct() -> (Self, FarServer) {
        let it = Self::new("ws://cloud.example/", ConnectOptions::new());
        let server = it.app.far_server("cloud.example", 80);
        (it, server)
    }

    /// Its connection through a proxy, on which only so many bytes of the handshake are taken.
    fn behind_proxy(taken: usize) -> (Self, TestClient) {
        let options = ConnectOptions::new().proxy("http://proxy.example:3128").ping_period(None);
        let it = Self::new("ws://cloud.example/", options);
        let mut client = it.app.far_server("proxy.example", 3128).expect_request().into_client();
        client.read_only(taken);
        client.send_bytes(b"HTTP/1.1 200 Connection established\r\n\r\n");
        (it, client)
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.borrow_mut())
    }
}

/// A server's answer with many messages behind it.
fn answer(key: &str) -> Vec<u8> {
    let messages = unmasked(0x82, &[7; MESSAGE_BYTES]).repeat(MESSAGES);
    [switching(key).into_bytes(), messages].concat()
}

/// The answer to a handshake.
pub(super) fn switching(key: &str) -> String {
    format!(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
    )
}

/// The key that answers a handshake.
fn accept_key_in(request: &[u8]) -> String {
    let request = String::from_utf8(request.to_vec()).unwrap();
    let key = request.split("Sec-WebSocket-Key: ").nth(1).and_then(|rest| rest.lines().next());
    AcceptKey::of(key.unwrap()).as_str().to_owned()
}

#[test]
fn a_session_that_pauses_as_it_begins_holds_no_more_than_another() {
    let (it, server) = Pausing::direct();
    let request = server.expect_request();
    let key = request.accept_key();
    let mut client = request.into_client();
    client.send_bytes(&answer(&key));
    assert_eq!((it.dialer.state(), it.came.get()), (DialerState::Open, 0));
    let held = it.app.stats().bytes_held;
    assert!(held <= HELD_MAX, "{held} held");
    it.app.advance(secs(4));
    assert_eq!((it.came.get(), it.notes()), (MESSAGES, Vec::new()));
}

#[test]
fn the_end_behind_such_a_session_is_seen_behind_its_messages() {
    let (it, server) = Pausing::direct();
    let request = server.expect_request();
    let key = request.accept_key();
    let client = request.into_client();
    client.send_and_end(&answer(&key));
    assert_eq!((it.dialer.state(), it.came.get()), (DialerState::Open, 0));
    assert!(it.app.stats().bytes_held <= HELD_MAX, "{} held", it.app.stats().bytes_held);
    it.app.advance(secs(4));
    assert_eq!((it.came.get(), it.notes()), (MESSAGES, vec!["closed 1006".to_owned()]));
    assert!(it.errors.take().is_empty(), "over TCP an end is an end");
}

/// What was read before an end without close_notify is what the peer has said, whoever has it wait.
#[cfg(feature = "tls")]
#[test]
fn what_is_held_comes_before_an_end_without_a_word_of_tls() {
    let last = [&b"\x81\x03one"[..], b"\x81\x03two"].concat();
    let closed = [&last[..], b"\x88\x02\x03\xe8"].concat();
    for (bytes, end) in [(&last, "closed 1006"), (&closed, "closed 1000")] {
        let options = ConnectOptions::new().roots(Roots::pem(Pem::bytes(AUTHORITY)));
        let it = Pausing::new("wss://small.example/dev", options);
        let server = it.app.far_server("small.example", 443);
        server.speak_tls();
        let mut session = server.expect_request().accept();
        session.send_bytes(bytes);
        session.cut();
        it.app.advance(secs(2));
        assert_eq!(it.notes(), Vec::<String>::new());
        it.app.advance(secs(2));
        let errors = it.errors.take();
        assert_eq!(errors.len(), usize::from(end == "closed 1006"), "{errors:?}");
        assert!(errors.iter().all(|error| error.contains("end of file")), "{errors:?}");
        assert_eq!(it.notes(), ["one", "two", end]);
    }
}

/// What a hook asks of the server comes before the next message, and holds up none of them for longer.
#[test]
fn messages_behind_the_answer_come_whatever_hooks_ask_of_the_server() {
    for asks_on_connect in [false, true] {
        let came = Rc::<RefCell<Vec<String>>>::default();
        let (heard, closed) = (Rc::clone(&came), Rc::clone(&came));
        let ask = |session: &mut Session<'_>| {
            session.server().after(secs(1_000), |_| {}).map(drop).map_err(Into::into)
        };
        let app = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new());
            let options = ConnectOptions::new().ping_period(None);
            app.connect("ws://cloud.example/", options, move |_: &Call| {
                let (heard, closed) = (Rc::clone(&heard), Rc::clone(&closed));
                on_connect(move |session, _| if asks_on_connect { ask(session) } else { Ok(()) })
                    .on_message(move |session, message| {
                        heard.borrow_mut().push(message.text().unwrap_or_default().to_owned());
                        ask(session)
                    })
                    .on_close(move |_, close| {
                        closed.borrow_mut().push(format!("closed {}", close.code()));
                    })
            });
        });
        let app = app.unwrap();
        let request = app.far_server("cloud.example", 80).expect_request();
        let head = switching(&request.accept_key());
        let frames = [&b"\x81\x01a\x81\x01b\x81\x01c"[..], b"\x88\x02\x03\xe8"].concat();
        request.into_client().send_bytes(&[head.as_bytes(), &frames].concat());
        assert_eq!(*came.borrow(), ["a", "b", "c", "closed 1000"], "{asks_on_connect}");
    }
}

/// A refusal, its body and the end come at once: the answer is what the application is told.
#[test]
fn a_refusal_is_told_whatever_end_is_behind_it() {
    for body in ["no".to_owned(), "no ".repeat(100_000)] {
        let refusal = format!("HTTP/1.1 403 x\r\n\r\n{body}");
        for ends in [TestClient::send_and_end, TestClient::send_and_reset] {
            let (it, server) = Pausing::direct();
            let client = server.expect_request().into_client();
            ends(&client, refusal.as_bytes());
            let notes = it.notes();
            assert!(notes.len() == 1 && notes[0].contains("403"), "{notes:?}");
            assert!(it.app.stats().bytes_held <= HELD_MAX);
        }
    }
}

/// No part of an answer is taken for a request, and no deadline of one is looked at again and again.
#[test]
fn an_answer_that_begins_before_the_request_is_out_is_an_answer() {
    let (it, mut client) = Pausing::behind_proxy(10);
    client.send_bytes(b"HTTP/1.1 403 x\r\nContent-Length: 99\r\n\r\n");
    client.send_bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.read_on();
    let turns = it.app.stats().loop_turns;
    it.app.advance(secs(8));
    let turns = it.app.stats().loop_turns - turns;
    assert!(turns <= 4, "{turns} turns in which nothing happened");
    let sent = client.take_bytes();
    assert!(sent.starts_with(b"GET / HTTP/1.1\r\n") && sent.ends_with(b"\r\n\r\n"));
    assert_eq!((it.app.stats().requests_total, it.notes()), (0, Vec::new()));
    client.send_bytes(&[b'x'; 99]);
    assert!(it.notes()[0].contains("403"));
}

/// Who has answered by the key alone, and takes the rest of the request not at all.
#[test]
fn the_rest_of_a_request_is_waited_for_no_longer_than_other_bytes() {
    let whole = {
        let (_it, client) = Pausing::behind_proxy(usize::MAX);
        client.take_bytes().len()
    };
    let (it, mut client) = Pausing::behind_proxy(whole - 1);
    let key = accept_key_in(&client.take_bytes());
    client.send_bytes(&answer(&key));
    assert_eq!(it.dialer.state(), DialerState::Open);
    it.app.advance(secs(33));
    assert_eq!(it.notes(), ["closed 1013"]);
    assert_eq!(client.ending(), Some(Ending::Reset));
}

//! What a server that is dialled may send, before its answer and after it: for the fuzzer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::app::handler::on_message;
#[cfg(feature = "deflate")]
use crate::protocol::extension::deflate::Deflate;
use crate::words::connect::{DialerState, Reconnect};
use crate::words::limits::Limits;

use super::TestApplication;

/// Stands for the accept key in what a server sends, which nobody could guess.
const KEY: u8 = 0x07;

/// Sends bytes in pieces that end at `cuts`, and all at once: what the application is told must not depend
/// on that. `rules` chooses the options and what the server says first.
pub(crate) fn compare(rules: u8, cuts: &[usize], bytes: &[u8]) -> Result<(), String> {
    let whole = told(rules, &[], bytes);
    let pieces = told(rules, cuts, bytes);
    // A head is looked at when its first bytes are there and when all are: what is broken in between and
    // has no end is awaited in vain.
    let is_broken = whole.last().is_some_and(|note| note.contains("it is no HTTP/1.1"));
    let is_awaited = pieces.last().is_some_and(|note| note.starts_with("connect_timeout was over"));
    if whole == pieces || is_broken && is_awaited {
        return Ok(());
    }
    Err(format!("{whole:?} at once, {pieces:?} in pieces"))
}

/// What the application is told, in order.
fn told(rules: u8, cuts: &[usize], bytes: &[u8]) -> Vec<String> {
    let notes: Rc<RefCell<Vec<String>>> = Rc::default();
    let (of_failures, of_ends, of_sessions) =
        (Rc::clone(&notes), Rc::clone(&notes), Rc::clone(&notes));
    let options = options(rules)
        .on_failure(move |error, _| {
            of_failures.borrow_mut().push(error.to_string());
            Reconnect::Stop
        })
        .on_lost(move |close, _| {
            of_ends.borrow_mut().push(format!("{}", close.code()));
            Reconnect::Stop
        });
    let mut dialer = None;
    let app = TestApplication::new(|app: &mut Application| {
        let limits = Limits::new().max_head_bytes(400).max_head_lines(12);
        app.install(WebSockets::new().limits(limits));
        dialer = Some(app.connect("ws://far.example/", options, move |call: &Call| {
            let notes = Rc::clone(&of_sessions);
            notes.borrow_mut().push(format!("{:?}", call.protocol()));
            on_message(move |session, message| {
                notes.borrow_mut().push(format!("{:?}", message.bytes()));
                session.send(message)
            })
        }));
    });
    let (Ok(app), Some(dialer)) = (app, dialer) else { panic!("the application does not start") };
    let request = app.far_server("far.example", 80).expect_request();
    let sent = answer(rules, &request.accept_key(), bytes);
    let mut client = request.into_client();
    let mut from = 0;
    for &cut in cuts.iter().chain([&sent.len()]) {
        let to = cut.clamp(from, sent.len());
        client.send_bytes(sent.get(from..to).unwrap_or_default());
        from = to;
    }
    app.advance(Duration::from_secs(60)); // whatever is awaited in vain
    check_frames(&client.take_bytes());
    client.half_close();
    app.advance(Duration::from_secs(60));
    assert_eq!(dialer.state(), DialerState::Stopped, "it goes on after the end");
    drop(dialer);
    app.advance(Duration::ZERO);
    app.audit_empty();
    notes.take()
}

fn options(rules: u8) -> ConnectOptions {
    let options = ConnectOptions::new()
        .protocol("a")
        .protocol("b")
        .ping_period(None)
        .max_frame_size([125, 300, 1_000, 70_000][usize::from(rules & 3)])
        .redirects(rules >> 2 & 1);
    #[cfg(feature = "deflate")]
    let options = if rules & 8 == 0 { options.extension(Deflate::new()) } else { options };
    options
}

/// What the server sends: as it stands, or behind an answer that is right.
fn answer(rules: u8, key: &str, bytes: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    if rules & 16 == 0 {
        let extension = match rules & 8 == 0 && cfg!(feature = "deflate") {
            true => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            false => "",
        };
        let head = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n{extension}\
             Sec-WebSocket-Accept: {key}\r\n\r\n"
        );
        sent.extend_from_slice(head.as_bytes());
        sent.extend_from_slice(bytes);
        return sent;
    }
    for &byte in bytes {
        if byte == KEY && sent.ends_with(b"Sec-WebSocket-Accept: ") {
            sent.extend_from_slice(key.as_bytes());
        } else {
            sent.push(byte);
        }
    }
    sent
}

/// RFC 6455 section 5.3: every frame of a client has a mask, whatever it was sent.
fn check_frames(mut bytes: &[u8]) {
    while let &[first, second, ref rest @ ..] = bytes {
        assert!(second & 0x80 != 0, "a frame without a mask: {first:02x} {second:02x}");
        assert!(matches!(first & 15, 0..=2 | 8..=10), "no such frame: {first:02x}");
        let (length, rest) = match (second & 0x7f, rest) {
            (126, &[a, b, ref rest @ ..]) => (usize::from(a) << 8 | usize::from(b), rest),
            (127, &[0, 0, 0, 0, 0, a, b, c, ref rest @ ..]) => {
                (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c), rest)
            }
            (length, rest) if length < 126 => (usize::from(length), rest),
            _ => panic!("a frame that ends in its header"),
        };
        match rest.get(4 + length..) {
            Some(next) => bytes = next,
            None => panic!("a frame that is not whole"),
        }
    }
    assert!(bytes.is_empty());
}

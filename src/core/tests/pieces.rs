//! Messages in pieces under virtual time: how they arrive, what is held of them, and how they end.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::on_message;
use crate::app::piece_handler::on_piece;
#[cfg(feature = "deflate")]
use crate::extension::Deflate;
use crate::extension::{
    Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionOffer, MessagePiece,
    PieceExtension,
};
use crate::session::message_stream::MessageStream;
#[cfg(feature = "deflate")]
use crate::testing::simulation::codec::Codec;
use crate::testing::{Ending, Received, TestApplication, TestClient};
use crate::words::close::CloseCode;
use crate::words::message::Rsv;

/// What a handler was told.
#[derive(Clone, Debug, Default)]
struct Notes(Rc<RefCell<Vec<Note>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Note {
    Piece { bytes: Vec<u8>, offset: u64, edges: (bool, bool) },
    Error(String),
    Close(u16),
}

impl Notes {
    /// The bytes of all pieces, which are held to what is said of them; the messages that ended.
    #[track_caller]
    fn messages(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut whole, mut open, mut is_open) = (Vec::new(), Vec::new(), false);
        for note in &*self.0.borrow() {
            let Note::Piece { bytes, offset, edges: (first, last) } = note else { continue };
            assert_eq!((*offset, *first), (open.len() as u64, !is_open));
            open.extend_from_slice(bytes);
            is_open = !last;
            if *last {
                whole.push(std::mem::take(&mut open));
            }
        }
        (whole, open)
    }

    fn pieces(&self) -> usize {
        let notes = self.0.borrow();
        notes.iter().filter(|note| matches!(note, Note::Piece { .. })).count()
    }

    fn last(&self) -> Option<Note> {
        self.0.borrow().last().cloned()
    }
}

/// A server that notes the pieces of messages at `/`, pausing behind each at `/paused`.
fn start(options: WebSockets) -> (TestApplication, Notes) {
    let notes = Notes::default();
    let told = notes.clone();
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options.ping_period(None));
        app.routing(|route| {
            for (path, pauses) in [("/", false), ("/paused", true)] {
                let told = told.clone();
                route.web_socket_pieces(path, move |_: &Call| {
                    let (errors, closes, told) = (told.clone(), told.clone(), told.clone());
                    on_piece(move |session, piece| {
                        let (bytes, offset) = (piece.bytes().to_vec(), piece.offset());
                        assert_eq!(piece.text().map(str::as_bytes).unwrap_or(&bytes), bytes);
                        let edges = (piece.is_first(), piece.is_last());
                        told.0.borrow_mut().push(Note::Piece { bytes, offset, edges });
                        if pauses {
                            session.pause();
                            session.set_timer(Duration::from_millis(100))?;
                        }
                        Ok(())
                    })
                    .on_timer(|session, _| {
                        session.resume();
                        Ok(())
                    })
                    .on_error(move |_, error| {
                        errors.0.borrow_mut().push(Note::Error(error.to_string()));
                    })
                    .on_close(move |_, close| {
                        closes.0.borrow_mut().push(Note::Close(close.code().into()));
                    })
                });
            }
        });
    })
    .unwrap();
    (app, notes)
}

/// Each byte of a message stands for so many.
const REPEATED: usize = 100_000;

/// Repeats the byte that it has begun, so many times more.
struct Repeats {
    left: usize,
}

impl PieceExtension for Repeats {
    fn decode_some(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
        room: usize,
    ) -> Result<usize, ExtensionError> {
        for (taken, byte) in piece.bytes.iter().enumerate() {
            let length = self.left.min(room - body.len());
            body.resize(body.len() + length, *byte);
            self.left -= length;
            if self.left > 0 {
                return Ok(taken);
            }
            self.left = REPEATED;
        }
        Ok(piece.bytes.len())
    }

    fn encode_some(
        &mut self,
        _piece: &MessagePiece<'_>,
        _body: &mut Vec<u8>,
    ) -> Result<Rsv, ExtensionError> {
        Ok(Rsv::NONE)
    }
}

impl Extension for Repeats {
    fn in_pieces(&mut self) -> Option<&mut dyn PieceExtension> {
        Some(self)
    }
}

struct Repeating;

impl ExtensionFactory for Repeating {
    fn name(&self) -> &str {
        "x-repeats"
    }

    fn takes_pieces(&self) -> bool {
        true
    }

    fn negotiate(&self, _offer: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Repeats { left: REPEATED }))
    }
}

/// What an extension makes of a few bytes comes at once, however many pieces that are.
#[test]
fn bytes_that_stand_for_many_pieces_wait_for_nothing() {
    for path in ["/", "/paused"] {
        let (app, notes) = start(WebSockets::new().extension(Repeating));
        let upgrade = app.upgrade(path).header("Sec-WebSocket-Extensions", "x-repeats");
        let (mut client, _) = upgrade.connect().unwrap();
        client.send_frame(0x82, b"abc");
        client.send_frame(0x82, b"d");
        if path == "/paused" {
            app.advance(Duration::from_secs(5)); // fewer than 50 pieces
        }
        let expected = [&b"abc"[..], b"d"]
            .map(|bytes| bytes.iter().flat_map(|byte| vec![*byte; REPEATED]).collect::<Vec<u8>>());
        let (messages, rest) = notes.messages();
        assert!(messages == expected && rest.is_empty(), "{} at {path}", messages.len());
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

#[test]
fn a_message_larger_than_any_limit_of_frames_arrives_in_pieces_and_nothing_is_held() {
    let (app, notes) = start(WebSockets::new().max_frame_size(1_000));
    let mut client = app.web_socket("/");
    let message = pattern(3 << 20);
    let idle = app.stats().bytes_held;
    // One frame, then the same in many.
    client.send_frame(0x82, &message[..]);
    let fragments: Vec<&[u8]> = message.chunks(300_000).collect();
    for (number, fragment) in fragments.iter().enumerate() {
        let first = if number == 0 { 0x02 } else { 0 };
        let fin = if number + 1 == fragments.len() { 0x80 } else { 0 };
        client.send_frame(first | fin, fragment);
        client.ping(b"between");
        assert_eq!(client.receive(), Some(Received::Pong(b"between".to_vec())));
        assert!(app.stats().bytes_held - idle < 1_000, "{} held", app.stats().bytes_held);
    }
    let (whole, open) = notes.messages();
    assert_eq!((whole.len(), open.len()), (2, 0));
    assert!(whole.iter().all(|whole| *whole == message));
    assert_eq!(app.stats().messages_in, 2);
}

#[test]
fn empty_messages_and_fragments_are_one_empty_piece_at_their_end() {
    let (app, notes) = start(WebSockets::new());
    let mut client = app.web_socket("/");
    client.send("");
    for (first, payload) in [(0x01, &b""[..]), (0x00, b"a"), (0x00, b""), (0x80, b"")] {
        client.send_frame(first, payload);
    }
    let notes: Vec<Note> = notes.0.borrow().clone();
    let piece = |bytes: &[u8], offset, edges| Note::Piece { bytes: bytes.to_vec(), offset, edges };
    let expected =
        [piece(b"", 0, (true, true)), piece(b"a", 0, (true, false)), piece(b"", 1, (false, true))];
    assert_eq!(notes, expected);
}

/// RFC 6455 section 8.1: as soon as it is seen, and wherever the text is cut.
#[test]
fn text_is_checked_as_it_arrives() {
    let text = "κόσμε 😀 €";
    for size in 1..text.len() {
        let (app, notes) = start(WebSockets::new());
        let mut client = app.web_socket("/");
        client.limit_reads(1 + size % 3);
        for (number, fragment) in text.as_bytes().chunks(size).enumerate() {
            client.send_frame(u8::from(number == 0), fragment);
        }
        client.send_frame(0x80, b"");
        assert_eq!(notes.messages().0, [text.as_bytes()], "in fragments of {size}");
        client.send_frame(0x01, &text.as_bytes()[..3]);
        client.send_frame(0x00, b"x"); // and the message does not end
        client.expect_close(CloseCode::NOT_CONSISTENT);
        let (_, open) = notes.messages();
        assert_eq!((open.as_slice(), notes.last()), ("κ".as_bytes(), Some(Note::Close(1007))));
    }
}

#[test]
fn a_message_over_its_own_limit_ends_with_1009_before_it_has_come() {
    let (app, notes) = start(WebSockets::new().max_piecewise_message_size(100_000));
    let mut client = app.web_socket("/");
    client.send(vec![1; 100_000]);
    client.send_frame(0x02, &[1; 60_000]);
    assert_eq!(notes.messages().1.len(), 60_000);
    // The header of the fragment that is too much, and nothing of its payload.
    client.send_bytes(b"\x80\xfe\x9c\x41\0\0\0\0");
    client.expect_close(CloseCode::TOO_BIG);
    assert_eq!(notes.messages().1.len(), 60_000);
    assert_eq!(app.stats().closed_too_big, 1);
}

#[test]
fn a_handler_that_pauses_gets_no_further_piece_and_pings_are_answered() {
    let (app, notes) = start(WebSockets::new());
    let mut client = app.web_socket("/paused");
    client.limit_reads(1_000);
    let message = pattern(10_000);
    client.send_frame(0x02, &message[..5_000]);
    client.send_frame(0x80, &message[5_000..]);
    client.ping(b"there?");
    assert_eq!(notes.pieces(), 1);
    let mut had = 1;
    while notes.messages().0.is_empty() {
        if let Some(received) = client.receive() {
            assert_eq!(received, Received::Pong(b"there?".to_vec()));
        }
        app.advance(Duration::from_millis(100));
        assert_eq!(notes.pieces(), had + 1);
        had += 1;
    }
    assert_eq!(notes.messages().0, [message]);
    assert!(had >= 2, "{had} pieces");
}

#[test]
fn a_peer_that_stops_within_a_message_is_out_of_time_and_the_handler_is_told() {
    let (app, notes) = start(WebSockets::new().write_timeout(Duration::from_secs(30)));
    let mut client = app.web_socket("/");
    client.send_frame(0x01, b"begun");
    app.advance(Duration::from_secs(29));
    assert_eq!(notes.pieces(), 1);
    app.advance(Duration::from_secs(2));
    client.expect_close(CloseCode::VIOLATED_POLICY);
    assert_eq!(notes.last(), Some(Note::Close(1008)));
    // And one that goes away.
    let mut client = app.web_socket("/");
    client.send_frame(0x01, b"begun");
    client.reset();
    assert_eq!(notes.last(), Some(Note::Close(1006)));
}

#[test]
fn after_our_close_no_piece_is_handed_over() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket_pieces("/", |_: &Call| {
                on_piece(|session, piece| {
                    assert!(piece.is_first(), "behind the Close");
                    session.close(CloseCode::NORMAL)
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.answer_close(false);
    client.send_frame(0x01, b"one");
    client.send_frame(0x80, &[0xff; 100_000]);
    client.expect_close(CloseCode::NORMAL);
    client.close(CloseCode::NORMAL);
    assert_eq!(app.stats().closed_normal, 1);
}

#[test]
fn a_message_counts_once_and_takes_one_token() {
    use crate::words::rate::Rate;
    let options = WebSockets::new().message_rate(Rate::per_second(1)).message_rate_closes(true);
    let (app, notes) = start(options);
    let mut client = app.web_socket("/");
    for first in [0x01, 0x00, 0x00, 0x80] {
        client.send_frame(first, b"piece");
    }
    assert_eq!((notes.messages().0.len(), app.stats().messages_in), (1, 1));
    client.send("one too many");
    client.expect_close(CloseCode::VIOLATED_POLICY);
}

/// An echo of the guide: however slowly its client reads, all comes back, and little is held.
#[test]
fn an_echo_in_pieces_goes_at_the_pace_of_its_reader() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket_pieces("/", |_: &Call| {
                on_piece(|session, piece| {
                    session.send_piece(piece, piece.is_last())?;
                    if session.awaits_drain() {
                        session.pause();
                    }
                    Ok(())
                })
                .on_drain(|session| {
                    session.resume();
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    let idle = app.stats().bytes_held;
    let text = "κόσμε ".repeat(100_000);
    client.read_only(10_000);
    client.send_fragments(text.as_str(), 7_001);
    let held = app.stats().bytes_held - idle;
    assert!((1..=128 << 10).contains(&held), "{held} held");
    client.read_on();
    client.expect_text(&text);
    assert_eq!(app.stats().bytes_held, idle);
    client.send_fragments("short", 1);
    client.expect_text("short");
}

/// A server that streams what the client asks for, with something sent behind it.
fn streaming(options: WebSockets) -> TestApplication {
    TestApplication::new(move |app: &mut Application| {
        app.install(options.ping_period(None));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| {
                    let asked = message.text().unwrap_or_default();
                    if asked == "close" {
                        session.send_stream(numbers(asked, 1_000))?;
                        return session.close(CloseCode::NORMAL);
                    }
                    session.send("before")?;
                    session.send_stream(numbers(asked, 100_000))?;
                    session.send("behind")
                })
            });
        });
    })
    .unwrap()
}

/// Numbers as text, up to a thing that goes wrong.
fn numbers(asked: &str, most: u32) -> MessageStream {
    let (asked, mut next) = (asked.to_owned(), 0..most);
    MessageStream::text(move |piece| {
        use std::io::Write;
        if next.start > 2_000 {
            match asked.as_str() {
                "fail" => return Err(io::Error::other("the disk is gone")),
                "panic" => panic!("planned"),
                "bytes" => return piece.write_all(&[0xff]),
                "cut" if next.start < most => {
                    next = most..most;
                    return piece.write_all(&"é".as_bytes()[..1]);
                }
                _ => {}
            }
        }
        next.by_ref().take(1_000).try_for_each(|number| write!(piece, "{number} "))
    })
}

fn all_numbers(most: u32) -> String {
    (0..most).map(|number| format!("{number} ")).collect()
}

#[test]
fn a_stream_goes_out_as_the_peer_takes_it_with_pongs_between_and_the_rest_behind() {
    let app = streaming(WebSockets::new());
    let mut client = app.web_socket("/");
    client.read_only(100_000);
    let idle = app.stats().bytes_held;
    client.send("all");
    app.advance(Duration::from_millis(10));
    let held = app.stats().bytes_held - idle;
    assert!((1..20_000).contains(&held), "{held} held");
    client.ping(b"there?");
    client.read_on();
    let mut frames = Vec::new();
    while let Some(frame) = client.receive_frame() {
        frames.push(frame);
    }
    let kinds: Vec<u8> = frames.iter().map(|frame| frame.first).collect();
    let pong = kinds.iter().position(|first| *first == 0x8a).expect("the ping is answered");
    assert!(pong > 2 && pong + 5 < kinds.len(), "between the fragments: {kinds:02x?}");
    assert_eq!((kinds[0], kinds[1], kinds[kinds.len() - 1]), (0x81, 0x01, 0x81));
    let text: Vec<u8> = frames[1..frames.len() - 1]
        .iter()
        .filter(|frame| frame.first != 0x8a)
        .flat_map(|frame| frame.payload.clone())
        .collect();
    assert!(text == all_numbers(100_000).into_bytes());
    assert_eq!(frames.last().unwrap().payload, b"behind");
    assert_eq!(app.stats().messages_out, 3);
    app.advance(Duration::from_secs(1));
    assert_eq!(app.stats().bytes_held, idle, "nothing is left of it");
}

#[test]
fn a_stream_before_a_close_goes_out_whole() {
    let app = streaming(WebSockets::new().max_frame_size(700));
    let mut client = app.web_socket("/");
    client.read_only(1_000);
    client.send("close");
    client.read_on();
    client.expect_text(&all_numbers(1_000));
    client.expect_close(CloseCode::NORMAL);
    client.expect_end(Ending::Closed);
}

/// Nothing of what waited behind it may look like a part of it.
#[test]
fn a_stream_that_fails_ends_the_session_with_1011() {
    for asked in ["fail", "panic", "bytes", "cut"] {
        let app = streaming(WebSockets::new());
        app.tolerate_panics();
        let mut client = app.web_socket("/");
        client.send(asked);
        client.expect_text("before");
        let mut frames = Vec::new();
        while let Some(frame) = client.receive_frame() {
            frames.push(frame);
        }
        let close = frames.pop().unwrap();
        assert_eq!((close.first, &close.payload[..2]), (0x88, &[0x03, 0xf3][..]), "{asked}");
        assert!(frames.iter().all(|frame| frame.first & 0x8f == frame.first & 0x01), "{frames:?}");
        assert_eq!(app.stats().closed_internal, 1, "{asked}");
    }
}

#[test]
fn a_peer_that_closes_within_a_stream_gets_its_answer_and_no_more_of_it() {
    let app = streaming(WebSockets::new());
    let mut client = app.web_socket("/");
    client.read_only(50_000);
    client.send("all");
    client.close(CloseCode::NORMAL);
    client.read_on();
    let mut last = None;
    while let Some(frame) = client.receive_frame() {
        last = Some(frame);
    }
    assert_eq!(last.map(|frame| frame.first), Some(0x88));
    assert_eq!(app.stats().closed_normal, 1);
}

/// What waits behind a stream is held to the limits of the outbox, however fast the peer is.
#[test]
fn what_waits_behind_a_stream_is_bounded() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().ping_period(None).outbox_bytes(1_000));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| {
                    session.send_stream(MessageStream::binary(|_| Ok(())))?;
                    (0..200).try_for_each(|_| session.send([7; 100]))
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send("go");
    let mut got = 0;
    while let Some(Received::Binary(_)) = client.receive() {
        got += 1;
    }
    assert!(got <= 11, "{got} messages");
    assert_eq!(app.stats().closed_try_again, 1);
}

/// However fast the peer is: whoever was refused is told when there is room.
#[test]
fn what_was_refused_because_of_a_stream_can_be_sent_when_it_is_over() {
    use crate::words::options::OutboxOverflow;
    let app = TestApplication::new(|app: &mut Application| {
        let options = WebSockets::new().ping_period(None).outbox_bytes(1_000);
        app.install(options.on_outbox_full(OutboxOverflow::Block));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| {
                    session.send_stream(numbers("", 3))?;
                    session.send([7; 900])?;
                    assert!(session.send([7; 900]).is_err(), "there is no room");
                    Ok(())
                })
                .on_drain(|session| session.send("there is room"))
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    for _ in 0..2 {
        client.send("go");
        client.expect_text("0 1 2 ");
        client.expect_binary(&[7; 900]);
        client.expect_text("there is room");
        client.expect_nothing();
    }
}

/// Two streams, and fragments of the application's own: one after the other.
#[test]
fn streams_wait_for_each_other_and_for_no_fragments() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| {
                    // Whoever makes a stream is not asked within a hook.
                    let shared = Rc::new(RefCell::new(()));
                    let lent = Rc::clone(&shared);
                    let stream = MessageStream::binary(move |_| {
                        drop(lent.borrow_mut());
                        Ok(())
                    });
                    let _held = shared.borrow_mut();
                    session.send_fragment("open ", false)?;
                    assert!(session.send_stream(numbers("", 10)).is_err());
                    session.send_fragment("and closed", true)?;
                    session.send_stream(numbers("", 3))?;
                    session.send_stream(numbers("", 0))?;
                    session.send_stream(stream)?;
                    session.send_fragment("frag", false)?;
                    session.send_fragment("ments", true)
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send("go");
    for text in ["open and closed", "0 1 2 ", ""] {
        client.expect_text(text);
    }
    client.expect_binary(b"");
    client.expect_text("fragments");
    client.expect_nothing();
}

#[cfg(feature = "deflate")]
mod deflated {
    use super::*;

    fn connect(app: &TestApplication, path: &str, level: u32) -> (TestClient, Codec) {
        let upgrade = app.upgrade(path).header("Sec-WebSocket-Extensions", "permessage-deflate");
        let (client, answer) = upgrade.connect().unwrap();
        let agreed = answer.header("sec-websocket-extensions").unwrap();
        (client, Codec::agreed(agreed, level).unwrap())
    }

    fn deflates() -> [Deflate; 2] {
        let keeping = Deflate::new().client_context_takeover(true).server_context_takeover(true);
        [Deflate::new(), keeping]
    }

    fn text(length: usize) -> String {
        let words = ["zero ", "one ", "zwölf ", "€ ", "elf "];
        let mut text: String = (0..length).map(|at| words[(at % 7).pow(2) % 7 % 5]).collect();
        text.truncate(length & !7);
        while !text.is_char_boundary(text.len()) {
            text.pop();
        }
        text
    }

    #[test]
    fn it_is_inflated_as_it_arrives_in_any_framing() {
        for deflate in deflates() {
            let (app, notes) = start(WebSockets::new().extension(deflate));
            let (mut client, mut codec) = connect(&app, "/", 6);
            let mut sent = Vec::new();
            for (number, size) in [1, 7, 1_000, 1_000_000].into_iter().enumerate() {
                let message = text(if size == 1 { 600 } else { 60_000 });
                let packed = codec.pack(message.as_bytes(), number % 2 == 0);
                let fragments: Vec<&[u8]> = packed.chunks(size).collect();
                for (number, fragment) in fragments.iter().enumerate() {
                    let first = if number == 0 { 0x41 } else { 0 };
                    let fin = if number + 1 == fragments.len() { 0x80 } else { 0 };
                    client.send_frame(first | fin, fragment);
                }
                sent.push(message.clone().into_bytes());
                client.send(message.as_str()); // RFC 7692 section 6: or not compressed
                sent.push(message.into_bytes());
            }
            assert!(notes.messages().0 == sent);
        }
    }

    /// A thousand bytes are a mebibyte: handed over a bounded piece at a time, and no more of them while the
    /// handler has paused.
    #[test]
    fn a_bomb_comes_in_small_pieces_and_stops_with_a_pause() {
        let (app, notes) = start(WebSockets::new().extension(Deflate::new()));
        let (mut client, mut codec) = connect(&app, "/paused", 9);
        let packed = codec.pack(&vec![0; 1 << 20], false);
        assert!(packed.len() < 1_200);
        client.send_frame(0xc2, &packed);
        for pieces in 1..=20 {
            assert_eq!(notes.pieces(), pieces);
            assert!(app.stats().bytes_held < 60_000, "{} held", app.stats().bytes_held);
            let most = notes.0.borrow().iter().fold(0, |most, note| match note {
                Note::Piece { bytes, .. } => most.max(bytes.len()),
                _ => most,
            });
            assert!(most <= 40_000, "{most} in a piece");
            app.advance(Duration::from_millis(100));
        }
        app.advance(Duration::from_secs(10));
        assert_eq!(notes.messages().0, [vec![0; 1 << 20]]);
    }

    #[test]
    fn the_limit_holds_for_what_it_inflates_to() {
        let options = WebSockets::new().max_piecewise_message_size(300_000);
        let (app, notes) = start(options.extension(Deflate::new()));
        let (mut client, mut codec) = connect(&app, "/", 9);
        client.send_frame(0xc2, &codec.pack(&vec![0; 300_000], false));
        assert_eq!(notes.messages().0, [vec![0; 300_000]]);
        client.send_frame(0xc2, &codec.pack(&vec![0; 1 << 20], false));
        client.expect_close(CloseCode::TOO_BIG);
        let (_, open) = notes.messages();
        assert!(open.len() <= 300_000, "{} handed over", open.len());
    }

    #[test]
    fn faults_in_it_are_seen_before_its_end() {
        let (app, notes) = start(WebSockets::new().extension(Deflate::new()));
        let (mut client, mut codec) = connect(&app, "/", 6);
        client.send_frame(0x41, &codec.pack(b"no text: \xff", false));
        client.expect_close(CloseCode::NOT_CONSISTENT);
        let (mut client, _) = connect(&app, "/", 6);
        client.send_frame(0x41, b"\x07\x07\x07\x07");
        client.expect_close(CloseCode::NOT_CONSISTENT);
        let (mut client, mut codec) = connect(&app, "/", 6);
        client.send_frame(0xc1, &codec.pack(&"€".as_bytes()[..2], false));
        client.expect_close(CloseCode::NOT_CONSISTENT);
        assert_eq!(notes.last(), Some(Note::Close(1007)));
        assert_eq!(app.stats().bytes_held, 0);
    }

    /// Pieces and streams are compressed as they go, and a message that is not to be is not.
    #[test]
    fn what_is_sent_in_pieces_is_compressed_and_keeps_nothing() {
        for (deflate, keeps) in deflates().into_iter().zip([false, true]) {
            let app = TestApplication::new(move |app: &mut Application| {
                app.install(WebSockets::new().ping_period(None).extension(deflate));
                app.routing(|route| {
                    route.web_socket_pieces("/", |_: &Call| {
                        on_piece(|session, piece| session.send_piece(piece, piece.is_last()))
                    });
                    route.web_socket("/stream", |_: &Call| {
                        on_message(|session, message| {
                            let on = message.text() != Some("plain");
                            session.send_stream(numbers("", 50_000).compressed(on))?;
                            session.send("x".repeat(500))
                        })
                    });
                });
            })
            .unwrap();
            let (mut client, mut codec) = connect(&app, "/", 6);
            let sent = text(200_000);
            for on in [true, true, false] {
                match on {
                    true => client.send_frame(0xc1, &codec.pack(sent.as_bytes(), false)),
                    false => client.send(sent.as_str()),
                }
                let (first, payload) = whole(&mut client);
                assert_eq!(first, 0x41, "also what has come uncompressed");
                assert!(payload.len() < sent.len() / 4, "{} bytes", payload.len());
                assert!(codec.unpack(&payload).unwrap() == sent.as_bytes());
                assert!(keeps || app.stats().bytes_held < 1_000, "{}", app.stats().bytes_held);
            }
            client.send("");
            let (_, payload) = whole(&mut client);
            assert_eq!(codec.unpack(&payload).unwrap(), b"");
            let (mut client, mut codec) = connect(&app, "/stream", 6);
            for (asked, bit) in [("all", 0x40), ("plain", 0), ("all", 0x40)] {
                client.send(asked);
                let (first, payload) = whole(&mut client);
                assert_eq!(first, 0x01 | bit);
                let text = if bit == 0 { payload } else { codec.unpack(&payload).unwrap() };
                assert!(text == all_numbers(50_000).into_bytes());
                let behind = client.receive_frame().unwrap();
                assert_eq!(codec.unpack(&behind.payload).unwrap(), [b'x'; 500]);
            }
        }
    }

    /// A message in fragments: its first byte without FIN, and its payload.
    fn whole(client: &mut TestClient) -> (u8, Vec<u8>) {
        let mut payload = Vec::new();
        let mut start = None;
        while let Some(frame) = client.receive_frame() {
            let first = *start.get_or_insert(frame.first & 0x7f);
            payload.extend(frame.payload);
            if frame.first & 0x80 != 0 {
                return (first, payload);
            }
        }
        panic!("{} bytes, and no end", payload.len());
    }
}

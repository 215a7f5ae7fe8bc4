//! Sessions with permessage-deflate under virtual time, where the context that both ends keep meets
//! what else happens to messages.

use std::cell::Cell;
use std::rc::Rc;

use super::short_pauses::{OVER_THE_LIMIT, lowering_its_limit, send_over_the_change};
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::on_message;
use crate::app::raw_handler::on_frame;
use crate::extension::Deflate;
use crate::testing::simulation::codec::Codec;
use crate::testing::simulation::content::{self, FROM_SESSION};
use crate::testing::{TestApplication, TestClient};
use crate::words::close::CloseCode;
use crate::words::options::OutboxOverflow;

/// A client to whom `/` sends as many numbered messages as it says, and its end of the compression.
fn client(
    policy: OutboxOverflow,
    deflate: fn() -> Deflate,
) -> (TestApplication, TestClient, Codec) {
    let app = TestApplication::new(|app: &mut Application| {
        let options = WebSockets::new().on_outbox_full(policy).outbox_bytes(400);
        app.install(options.ping_period(None).extension(deflate()));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                let mut number = 0;
                on_message(move |session, message| {
                    for _ in 0..message.text().unwrap_or_default().parse().unwrap_or(0) {
                        session.send(content::message(FROM_SESSION, number, 150))?;
                        number += 1;
                    }
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    let (client, codec) = connect(&app);
    (app, client, codec)
}

pub(super) fn connect(app: &TestApplication) -> (TestClient, Codec) {
    let upgrade = app.upgrade("/").header("Sec-WebSocket-Extensions", "permessage-deflate");
    let (client, answer) = upgrade.connect().unwrap();
    let codec = Codec::agreed(answer.header("sec-websocket-extensions").unwrap(), 6).unwrap();
    (client, codec)
}

/// The next message that has arrived, inflated if it has to be.
fn next_message(client: &mut TestClient, codec: &mut Codec) -> Option<Vec<u8>> {
    let frame = client.receive_frame()?;
    Some(match frame.first {
        0xc1 => codec.unpack(&frame.payload).unwrap(),
        0x81 => frame.payload,
        other => panic!("a frame that begins with {other:#04x}"),
    })
}

/// The numbers of the messages that have arrived, each of which inflates to what was sent.
fn numbers(client: &mut TestClient, codec: &mut Codec) -> Vec<usize> {
    let mut numbers = Vec::new();
    while let Some(message) = next_message(client, codec) {
        let (_, number) = content::read(&message).unwrap_or_else(|| {
            panic!("behind {numbers:?} comes {}", String::from_utf8_lossy(&message))
        });
        numbers.push(number);
    }
    numbers
}

/// Whether what is sent is encoded or not, each message counts once.
#[test]
fn a_message_that_extensions_encode_counts_as_sent() {
    let (app, mut client, mut codec) = client(OutboxOverflow::Close, Deflate::new);
    client.send("3");
    assert_eq!(numbers(&mut client, &mut codec), [0, 1, 2]);
    assert_eq!(app.stats().messages_out, 3);
}

#[test]
fn a_context_that_a_session_keeps_counts_as_held() {
    let held = |deflate| {
        let (app, mut client, mut codec) = client(OutboxOverflow::Close, deflate);
        client.send("1");
        assert_eq!(numbers(&mut client, &mut codec), [0]);
        app.stats().bytes_held
    };
    let (kept, lent) = (held(|| Deflate::new().server_context_takeover(true)), held(Deflate::new));
    assert!((100 << 10..400 << 10).contains(&(kept - lent)), "{kept} and {lent}");
}

/// The peer's context holds every message that was compressed: one that is taken back afterwards would
/// be missing in it for ever.
#[test]
fn what_is_dropped_for_a_slow_reader_leaves_the_context_whole() {
    for policy in [OutboxOverflow::DropOldest, OutboxOverflow::DropNewest] {
        for keeps in [true, false] {
            let deflate: fn() -> Deflate =
                if keeps { || Deflate::new().server_context_takeover(true) } else { Deflate::new };
            let (_app, mut client, mut codec) = client(policy, deflate);
            client.send("5");
            assert_eq!(numbers(&mut client, &mut codec), [0, 1, 2, 3, 4]);
            client.read_only(50);
            client.send("1");
            for _ in 0..40 {
                client.send("1");
            }
            client.read_on();
            client.send("2");
            let numbers = numbers(&mut client, &mut codec);
            assert!(numbers.is_sorted() && numbers.ends_with(&[46, 47]), "{policy:?} {numbers:?}");
            assert!((3..30).contains(&numbers.len()), "{policy:?}, {keeps}: {numbers:?}");
        }
    }
}

/// Only the end of a message in fragments shows how much room it needs. Refused, it is as if it had not
/// been sent: it can be sent again, and nothing of what came before it is lost.
#[test]
fn the_last_fragment_that_finds_no_room_can_be_sent_again() {
    for policy in [OutboxOverflow::Block, OutboxOverflow::DropNewest, OutboxOverflow::DropOldest] {
        let refused = Rc::new(Cell::new(0));
        let counter = Rc::clone(&refused);
        let app = TestApplication::new(move |app: &mut Application| {
            let options = WebSockets::new().on_outbox_full(policy).outbox_bytes(200);
            app.install(options.ping_period(None).extension(Deflate::new()));
            app.routing(|route| {
                route.web_socket("/", move |_: &Call| {
                    let refused = Rc::clone(&counter);
                    on_message(move |session, message| match message.text().unwrap_or_default() {
                        // Behind this the last fragment has no room.
                        "fill" => session.send(content::message(FROM_SESSION, 2, 120)),
                        "begin" => session.send_fragment("a".repeat(60), false),
                        last => {
                            let sent = session.send_fragment(last, true);
                            refused.set(refused.get() + u32::from(sent.is_err()));
                            assert_eq!(session.dropped(), 0, "what is refused is not lost");
                            Ok(())
                        }
                    })
                });
            });
        })
        .unwrap();
        let (mut client, mut codec) = connect(&app);
        client.read_only(10);
        for message in ["fill", "begin", "begin", "b", "b"] {
            client.send(message);
        }
        assert_eq!(refused.get(), 2, "{policy:?}");
        client.read_on();
        client.send("b");
        let first = next_message(&mut client, &mut codec).unwrap();
        assert_eq!(content::read(&first), Some((FROM_SESSION, 2)), "{policy:?}");
        let whole = next_message(&mut client, &mut codec).unwrap();
        assert_eq!(whole, format!("{}b", "a".repeat(120)).as_bytes(), "{policy:?}");
    }
}

/// An encoding that saves nothing is a little longer than its message, so a frame of one may be longer
/// than `max_frame_size`. Whatever a raw session is handed, it can send back.
#[test]
fn a_raw_session_may_send_every_frame_that_it_may_be_handed() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new().max_frame_size(125).extension(Deflate::new()));
        app.routing(|route| {
            let mirror = |_: &Call| on_frame(|session, frame| session.send_frame(frame));
            route.web_socket_raw("/", mirror).negotiate_extensions(true);
        });
    })
    .unwrap();
    let (mut client, _) = connect(&app);
    for (first, bytes) in [(0xc2, 126), (0x42, 296), (0x00, 296), (0x80, 1_000), (0x82, 125)] {
        client.send_frame(first, &vec![7; bytes]);
        let back = client.receive_frame().map(|frame| (frame.first, frame.payload.len()));
        assert_eq!(back, Some((first, bytes)));
    }
    client.send_frame(0x82, &[7; 126]);
    client.expect_close(CloseCode::TOO_BIG);
}

/// A frame that is compressed may be larger than what comes of it: not one of a message that is not.
#[test]
fn frames_of_a_message_without_compression_are_held_to_their_limit() {
    let app = TestApplication::new(|app: &mut Application| {
        let options = WebSockets::new().max_frame_size(1_000).max_message_size(9_000);
        app.install(options.ping_period(None).extension(Deflate::new()));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    })
    .unwrap();
    for (first, more, code) in [
        (0x01, 1_000, None),
        (0x01, 1_001, Some(vec![0x03, 0xf1])),
        (0x02, 1_001, Some(vec![0x03, 0xf1])), // 1009
    ] {
        let (mut client, _) = connect(&app);
        client.send_frame(first, b"a");
        client.send_frame(0x80, &vec![b'a'; more]);
        let answer = client.receive_frame().unwrap();
        let closed = (answer.first == 0x88).then(|| answer.payload[..2].to_vec());
        assert_eq!(closed, code, "{first} and {more} bytes");
    }
}

/// A frame that has begun has the limit that it began with, as it has without extensions.
#[test]
fn a_smaller_limit_holds_for_the_next_frame() {
    let app = lowering_its_limit(WebSockets::new().ping_period(None).extension(Deflate::new()));
    let (mut client, mut codec) = connect(&app);
    send_over_the_change(&app, &mut client);
    assert_eq!(next_message(&mut client, &mut codec).unwrap(), b"4096");
    client.send_bytes(&OVER_THE_LIMIT);
    client.expect_close(CloseCode::TOO_BIG);
}

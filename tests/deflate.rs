//! permessage-deflate over real sockets: what is agreed on, what goes over the wire, and each fault of
//! Ktor's deflate by name.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use support::{
    BINARY, CLOSE, Client, Events, PING, Running, TEXT, masked, recorder, upgrade_request,
};
use wirewheel::extension::{Deflate, ExtensionMessage};
use wirewheel::flow::SharedFlow;
use wirewheel::raw::{Frame, OpCode, Rsv, on_frame};
use wirewheel::{
    Application, Call, HandlerResult, Limits, Message, Session, WebSockets, on_connect, on_message,
};

const NEITHER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const SMALL_WINDOW: &str = "permessage-deflate; server_max_window_bits=9";
const TEXT_OF_80: &str =
    "a text that repeats itself, a text that repeats itself, a text that repeats itself";

fn start(deflate: fn() -> Deflate) -> (Running, Events) {
    let (factory, events) = recorder(true);
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new().max_message_size(1 << 20).extension(deflate()));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    (server, events)
}

fn keeping() -> Deflate {
    Deflate::new().server_context_takeover(true).client_context_takeover(true)
}

/// A client that offers this, and the answer.
fn offer(server: &Running, offers: &str) -> (Client, Option<String>) {
    let mut client = server.connect();
    let line = format!("Sec-WebSocket-Extensions: {offers}\r\n");
    let answer = client.request(&upgrade_request("/", &line));
    assert_eq!(answer.status, 101, "{answer:?}");
    let header = answer.header("sec-websocket-extensions").map(|value| value.trim().to_owned());
    (client, header)
}

/// The client's end of an agreement that keeps both contexts.
struct Codec {
    deflate: Compress,
    inflate: Decompress,
}

impl Codec {
    fn new() -> Self {
        let deflate = Compress::new(Compression::new(6), false);
        Self { deflate, inflate: Decompress::new(false) }
    }

    fn pack(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(data.len() + 1_000);
        self.deflate.compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        out
    }

    fn unpack(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 << 20);
        let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
        self.inflate.decompress_vec(&whole, &mut out, FlushDecompress::Sync).unwrap();
        out
    }
}

/// Ktor ignores the server's flags and every window size, and takes the first offer or none.
#[test]
fn the_first_offer_that_can_be_met_is_agreed_on() {
    let (server, _) = start(Deflate::new);
    for offers in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits", // Chrome's
        "permessage-deflate; server_max_window_bits=8, permessage-deflate",
        "permessage-deflate; server_max_window_bits=x, x-webkit-deflate-frame, permessage-deflate",
    ] {
        assert_eq!(offer(&server, offers).1.as_deref(), Some(NEITHER), "{offers}");
    }
    let bits = "permessage-deflate; server_max_window_bits=10; client_max_window_bits=12";
    let expected = format!("{NEITHER}; server_max_window_bits=10; client_max_window_bits=12");
    assert_eq!(offer(&server, bits).1, Some(expected));
}

/// In Ktor these are answered with 500.
#[test]
fn an_offer_that_cannot_be_met_leaves_the_session_uncompressed() {
    let (server, _) = start(Deflate::new);
    for offers in [
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; unknown=1",
    ] {
        let (mut client, header) = offer(&server, offers);
        assert_eq!(header, None, "{offers}");
        client.text(TEXT_OF_80);
        client.expect_text(TEXT_OF_80);
        client.send(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        client.expect_close(1002);
    }
}

#[test]
fn without_contexts_every_message_stands_alone() {
    let (server, _events) = start(Deflate::new);
    let (mut client, _) = offer(&server, "permessage-deflate");
    let packed = Codec::new().pack(TEXT_OF_80.as_bytes());
    let mut frames = Vec::new();
    for _ in 0..3 {
        client.send(0xc1, &packed);
        frames.push(client.frame());
    }
    assert!(frames.iter().all(|frame| frame.first == 0xc1 && *frame == frames[0]));
    assert_eq!(Codec::new().unpack(&frames[2].payload), TEXT_OF_80.as_bytes());
    assert!(frames[0].payload.len() < 40, "{}", frames[0].payload.len());
}

#[test]
fn with_contexts_the_second_message_is_smaller_both_ways() {
    let (server, _events) = start(keeping);
    let (mut client, header) = offer(&server, "permessage-deflate");
    assert_eq!(header.as_deref(), Some("permessage-deflate"));
    let mut codec = Codec::new();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let packed = codec.pack(TEXT_OF_80.as_bytes());
        client.send(0xc1, &packed);
        let frame = client.frame();
        assert_eq!(codec.unpack(&frame.payload), TEXT_OF_80.as_bytes());
        sizes.push((packed.len(), frame.payload.len()));
    }
    assert!(sizes[1].0 < sizes[0].0 && sizes[1].1 < sizes[0].1, "{sizes:?}");
    // A client that wants no context from the server gets none.
    let (_, header) = offer(&server, "permessage-deflate; server_no_context_takeover");
    assert_eq!(header.as_deref(), Some("permessage-deflate; server_no_context_takeover"));
}

/// Ktor's connection dies of its second empty message.
#[test]
fn empty_messages_pass_in_every_form() {
    let (server, events) = start(keeping);
    let (mut client, _) = offer(&server, "permessage-deflate");
    let mut codec = Codec::new();
    for _ in 0..3 {
        client.send(0xc1, b"\x00");
        assert_eq!(client.frame().payload, b"");
        client.send(0xc2, b"");
        assert_eq!(client.frame().payload, b"");
        client.send(TEXT, b"");
        assert_eq!(client.frame().payload, b"");
        client.send(0xc1, &codec.pack(TEXT_OF_80.as_bytes()));
        let frame = client.frame();
        assert_eq!(codec.unpack(&frame.payload), TEXT_OF_80.as_bytes());
    }
    assert_eq!(events.so_far().len(), 1 + 3 * 4);
}

/// In Ktor every message after a final block arrives empty.
#[test]
fn a_final_block_breaks_nothing() {
    for deflate in [Deflate::new, keeping] {
        let (server, events) = start(deflate);
        let (mut client, _) = offer(&server, "permessage-deflate");
        client.send(0xc1, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
        client.send(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        client.send(0xc1, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
        let told: Vec<String> = (0..4).map(|_| events.next()).collect();
        assert_eq!(told, ["connect /", "text Hello", "text Hello", "text Hello"]);
    }
}

/// Ktor sets the bit on every fragment and compresses each for itself.
#[test]
fn what_is_sent_in_fragments_is_one_compressed_message() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new().max_frame_size(20).extension(Deflate::new()));
        app.routing(|route| {
            route.web_socket("/", |_call| {
                on_message(|session: &mut Session<'_>, _: Message<'_>| -> HandlerResult {
                    let (first, last) = TEXT_OF_80.split_at(30);
                    session.send_fragment(first, false)?;
                    session.ping(b"between")?;
                    session.send_fragment(last, true)
                })
            });
        });
    });
    let (mut client, _) = offer(&server, "permessage-deflate");
    client.text("go");
    assert_eq!(client.frame().first, PING);
    let (first, last) = (client.frame(), client.frame());
    assert_eq!((first.first, first.payload.len(), last.first), (0x41, 20, 0x80));
    let payload = [first.payload, last.payload].concat();
    assert_eq!(Codec::new().unpack(&payload), TEXT_OF_80.as_bytes());
}

#[test]
fn compressed_fragments_with_control_frames_between_them_in_any_pieces() {
    let (server, events) = start(keeping);
    let (mut client, _) = offer(&server, "permessage-deflate");
    events.expect("connect /");
    let mut codec = Codec::new();
    for piece_bytes in [1, 3, 1_000] {
        let packed = codec.pack(TEXT_OF_80.as_bytes());
        let (first, last) = packed.split_at(packed.len() / 2);
        let bytes =
            [masked(0x41, first), masked(PING, b"p"), masked(0x00, b""), masked(0x80, last)];
        for piece in bytes.concat().chunks(piece_bytes) {
            client.write(piece);
        }
        assert_eq!(client.frame().payload, b"p");
        assert_eq!(codec.unpack(&client.frame().payload), TEXT_OF_80.as_bytes());
        events.expect(&format!("text {TEXT_OF_80}"));
        // RFC 7692 section 6: compressed and plain messages may alternate.
        client.text("plain");
        assert_eq!(client.frame().payload, b"plain");
        events.expect("text plain");
    }
}

#[test]
fn the_bit_where_it_must_not_be_is_1002() {
    let (server, _events) = start(Deflate::new);
    for bytes in [
        [masked(0x41, b"\xf2\x48"), masked(0xc0, b"\xcd\xc9\xc9\x07\x00")].concat(),
        masked(0xc9, b"p"),
        masked(0xc8, b""),
        masked(0xe1, b"\x00"),
        masked(0xd1, b"\x00"),
    ] {
        let (mut client, _) = offer(&server, "permessage-deflate");
        client.write(&bytes);
        client.expect_close(1002);
    }
}

/// Ktor closes with 1000 on either.
#[test]
fn corrupt_data_is_1007_and_so_is_text_that_is_not_utf8() {
    let (server, events) = start(Deflate::new);
    let (mut client, _) = offer(&server, "permessage-deflate");
    client.send(0xc2, b"\x07\xff\xff");
    assert_eq!(client.expect_close(1007), "corrupt compressed data");
    let (mut client, _) = offer(&server, "permessage-deflate");
    client.send(0xc1, &Codec::new().pack(b"\xff\xfe\xff\xfe"));
    client.expect_close(1007);
    drop(client);
    drop(server);
    let closes = events.rest().iter().filter(|event| event.starts_with("close 1007")).count();
    assert_eq!(closes, 2);
}

/// A message under the limit on the wire may be over it inflated, and the other way round.
#[test]
fn the_limit_is_that_of_the_inflated_message() {
    let (server, events) = start(Deflate::new);
    let (mut client, _) = offer(&server, "permessage-deflate");
    let most = vec![b'x'; 1 << 20];
    client.send(0xc2, &Codec::new().pack(&most));
    let mut answer = client.frame();
    while answer.first & 0x80 == 0 {
        answer = client.frame();
    }
    let over = vec![b'x'; (1 << 20) + 1];
    client.send(0xc2, &Codec::new().pack(&over));
    client.expect_close(1009);
    events.expect("connect /");
    events.expect("binary 1048576");
    let told = events.next();
    assert!(told.starts_with("error message over 1048576 bytes, close 1009"), "{told}");
    // Stored blocks without end add up to more than any message of the limit could be.
    let (mut client, _) = offer(&server, "permessage-deflate");
    client.send(0x42, b"\x00\x00\x00\xff\xff");
    let empty_blocks = masked(0x00, &b"\x00\x00\x00\xff\xff".repeat(13_000));
    for _ in 0..20 {
        if std::io::Write::write_all(&mut client.stream, &empty_blocks).is_err() {
            break; // it has hung up
        }
    }
    client.expect_close(1009);
}

/// A raw handler applies what was agreed on by itself, or leaves it.
#[test]
fn a_raw_handler_inflates_and_deflates_by_hand() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new().extension(Deflate::new()));
        app.routing(|route| {
            let reverse = |session: &mut Session<'_>, frame: Frame<'_>| -> HandlerResult {
                let mut message = ExtensionMessage::new(true, frame.rsv, frame.payload);
                let deflate = session.extension("permessage-deflate").expect("agreed on");
                deflate.decode(&mut message, 1_000)?;
                let reversed: Vec<u8> = message.payload().iter().rev().copied().collect();
                let mut answer = ExtensionMessage::new(true, Rsv::NONE, reversed);
                deflate.encode(&mut answer, 1_000)?;
                let (rsv, payload) = (answer.rsv(), answer.into_payload());
                session.send_frame(Frame {
                    fin: true,
                    rsv,
                    opcode: OpCode::Text,
                    payload: &payload,
                })
            };
            route
                .web_socket_raw("/", move |_call: &Call| on_frame(reverse))
                .negotiate_extensions(true);
        });
    });
    let (mut client, header) = offer(&server, "permessage-deflate");
    assert_eq!(header.as_deref(), Some(NEITHER));
    client.send(0xc1, &Codec::new().pack(TEXT_OF_80.as_bytes()));
    let frame = client.frame();
    assert_eq!(frame.first, 0xc1);
    let reversed: Vec<u8> = TEXT_OF_80.bytes().rev().collect();
    assert_eq!(Codec::new().unpack(&frame.payload), reversed);
}

/// What a session keeps for a message in progress counts for the memory budget: a few bytes
/// as they are; an inflater, and room for what they inflate to, from 48 KiB on.
#[test]
fn inflaters_of_messages_that_never_end_are_bounded() {
    let (factory, _events) = recorder(true);
    let server = Running::start(move |app: &mut Application| {
        let limits = Limits::new().process_bytes(512 << 10);
        app.install(WebSockets::new().limits(limits).extension(Deflate::new()));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    let begin = |payload: &[u8]| {
        let (mut client, _) = offer(&server, "permessage-deflate");
        client.send(0x41, payload);
        client
    };
    let mut held: Vec<Client> = (0..50).map(|_| begin(b"\xf2\x48")).collect();
    // Stored blocks, as long inflated as they are; with the inflater 112 KiB each.
    let stored = [&b"\x00\xff\x3f\x00\xc0"[..], &[b'x'; 0x3fff]].concat().repeat(3);
    held.extend((0..4).map(|_| begin(&stored)));
    for client in &mut held {
        client.send(PING, b"held");
        assert_eq!(client.frame().payload, b"held");
    }
    // The fifth would be over it: one of the five pays.
    held.push(begin(&stored));
    for client in &mut held {
        client.send(PING, b"still");
    }
    let ended = held.iter_mut().map(Client::frame).filter(|frame| frame.first == CLOSE);
    assert_eq!(ended.map(|close| close.payload[..2].to_vec()).collect::<Vec<_>>(), [[3, 0xf5]]);
}

/// A broadcast is compressed once for all who keep no context, and for each who does.
#[test]
fn a_broadcast_is_compressed_once_for_equal_parameters() {
    for (keeps, offers, compressions) in [
        (false, ["permessage-deflate"; 4], 1),
        (false, ["permessage-deflate", SMALL_WINDOW, "permessage-deflate", SMALL_WINDOW], 2),
        (true, ["permessage-deflate"; 4], 4),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let server = Running::start(move |app: &mut Application| {
            let deflate = Deflate::new().server_context_takeover(keeps).compress_if(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                true
            });
            app.install(WebSockets::new().extension(deflate));
            let flow: SharedFlow = SharedFlow::default();
            app.routing(move |route| {
                route.web_socket("/", move |_call: &Call| {
                    let (joined, spoken) = (flow.clone(), flow.clone());
                    on_connect(move |session, _call| session.collect(&joined)).on_message(
                        move |session, message| {
                            session.emit(&spoken, message.text().unwrap_or_default())
                        },
                    )
                });
            });
        });
        let mut clients = offers.map(|offers| offer(&server, offers).0);
        clients[0].text(TEXT_OF_80);
        let frames = clients.each_mut().map(Client::frame);
        for frame in &frames {
            assert_eq!(Codec::new().unpack(&frame.payload), TEXT_OF_80.as_bytes());
        }
        assert_eq!(count.load(Ordering::SeqCst), compressions, "{offers:?}");
    }
}

#[test]
fn conditions_say_what_is_compressed_and_nothing_gets_larger() {
    let (server, _events) = start(|| {
        Deflate::new()
            .compress_if_bigger_than(40)
            .compress_if(|message: &Message<'_>| message.is_text())
    });
    let (mut client, _) = offer(&server, "permessage-deflate");
    let repeated = "x".repeat(41);
    let noise = "q7#Kd!mZ0v^Pw&3s*Lr(9y)Bf_2h+Jc=8n-Gt{5x}Aq[1u]Ej|6i:Oz";
    for (first, text, compressed) in [
        (TEXT, repeated.as_str(), true),
        (TEXT, &repeated[1..], false),
        (BINARY, &repeated, false),
        (TEXT, noise, false),
    ] {
        client.send(first, text.as_bytes());
        let frame = client.frame();
        assert_eq!(frame.first, if compressed { first | 0x40 } else { first }, "{text}");
        if !compressed {
            assert_eq!(frame.payload, text.as_bytes());
        }
    }
}

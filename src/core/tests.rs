//! The core under virtual time: a fake network, a clock that is told, and what happens when.

mod admission;
#[cfg(feature = "tls")]
mod backlog;
#[cfg(feature = "client")]
mod byte_streams;
#[cfg(feature = "deflate")]
mod compressed;
#[cfg(feature = "client")]
mod dialled_input;
#[cfg(feature = "client")]
mod dialling;
#[cfg(all(feature = "client", feature = "tls"))]
mod dialling_tls;
mod event_streams;
mod flow_faults;
mod flow_memory;
mod flow_rounds;
mod flows;
mod held;
mod linear;
mod loops;
#[cfg(feature = "deflate")]
mod losses;
mod memory_budget;
mod overload;
mod pace;
mod pieces;
mod prepared;
mod progress;
mod reach;
mod requests;
mod shares;
mod short_pauses;
mod spare;
mod streams;
#[cfg(all(feature = "client", feature = "tls-client-auth"))]
mod tls_clients;
mod unread;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use super::Disposal;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
use crate::app::response::Response;
use crate::structures::wire::scripted::ScriptedWire;
use crate::testing::frames::{UPGRADE, upgrade_request};
use crate::testing::network::{LinkId, Network, PeerEnd};
use crate::testing::{Received, TestClient};
use crate::words::close::{CloseCode, CloseReason};
use crate::words::limits::Limits;

/// The test kit's network, with peers that do nothing of their own.
struct Net {
    network: Network,
    events: Rc<RefCell<Vec<String>>>,
}

impl Deref for Net {
    type Target = Network;
    fn deref(&self) -> &Network {
        &self.network
    }
}

impl DerefMut for Net {
    fn deref_mut(&mut self) -> &mut Network {
        &mut self.network
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// All texts that have arrived, and nothing else has.
fn texts(client: &mut TestClient) -> Vec<String> {
    std::iter::from_fn(|| client.receive())
        .map(|received| match received {
            Received::Text(text) => text,
            other => panic!("{other:?}"),
        })
        .collect()
}

impl Net {
    /// A server that echoes at `/`, says `big` 60,000 bytes long, and notes how sessions end.
    fn new(options: WebSockets) -> Self {
        let events = Rc::new(RefCell::new(Vec::new()));
        let notes = Rc::clone(&events);
        let mut application = Application::new();
        application.install(options);
        application.routing(|route| {
            route.get("/page", |_| "page");
            route.get("/file", |call| Response::file(call.query()));
            route.web_socket("/", move |_: &Call| {
                let (errors, closes) = (Rc::clone(&notes), Rc::clone(&notes));
                on_message(|session, message| match message.text() {
                    Some("bye") => session.close(CloseReason::try_from(CloseCode::NORMAL)?),
                    Some("big") => session.send(vec![7; 60_000]),
                    _ => session.send(message),
                })
                .on_error(move |_, error| errors.borrow_mut().push(format!("error {error}")))
                .on_close(move |_, close| {
                    let how = if close.is_clean() { "clean" } else { "unclean" };
                    let told = format!("close {} {how}", close.code());
                    closes.borrow_mut().push(told);
                })
            });
            route.web_socket("/greet", |_: &Call| on_connect(|session, _| session.send("hello")));
        });
        Self { network: Network::new(application.build().unwrap()), events }
    }

    fn accept(&mut self) -> LinkId {
        self.connect(SocketAddr::from(([127, 0, 0, 1], 4000)))
    }

    fn open(&mut self) -> LinkId {
        let index = self.accept();
        self.input(index, upgrade_request("/", "").as_bytes());
        assert!(self.take(index).starts_with(b"HTTP/1.1 101 "));
        index
    }

    fn input(&mut self, client: LinkId, bytes: &[u8]) {
        self.send(client, bytes);
    }

    fn text(&mut self, client: LinkId, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.input(client, &frame);
    }

    fn eof(&mut self, client: LinkId) {
        self.end(client, PeerEnd::Shut);
    }

    /// The peer's socket takes this much.
    fn room(&mut self, client: LinkId, bytes: usize) {
        self.link(client).socket.room = bytes;
    }

    fn writable(&mut self, client: LinkId, room: usize) {
        self.room(client, room);
        self.pump();
    }

    fn take(&mut self, client: LinkId) -> Vec<u8> {
        std::mem::take(&mut self.link(client).socket.got)
    }

    fn shut(&mut self, client: LinkId) -> bool {
        self.link(client).socket.shut
    }

    fn gone(&mut self, client: LinkId) -> Option<Disposal> {
        self.link(client).socket.gone
    }

    #[track_caller]
    fn expect(&self, events: &[&str]) {
        assert_eq!(*self.events.borrow(), events);
    }

    /// Everything that was held is given back.
    #[track_caller]
    fn expect_empty(&self) {
        assert_eq!(self.core.connections.slab.len(), 0);
        assert_eq!(self.core.shared.bytes_held, 0);
        assert_eq!(self.core.connections.wheel.next_deadline(), None);
        assert_eq!(self.core.connections.pending.count(), 0);
    }
}

#[test]
fn a_slow_head_gets_408_and_silence_ends_without_a_word() {
    let mut net = Net::new(WebSockets::new());
    let silent = net.accept();
    let half = net.accept();
    net.input(half, b"GET / HTTP/1.1\r\nHo");
    net.advance(Duration::from_millis(9_990));
    assert!(net.take(silent).is_empty() && net.take(half).is_empty());
    net.advance(Duration::from_millis(20));
    assert!(net.take(half).starts_with(b"HTTP/1.1 408 "));
    // A browser that connects in advance would take an answer for that of the request it sends next.
    assert!(net.take(silent).is_empty());
    assert!(net.shut(half) && net.shut(silent));
    assert_eq!(net.core.stats().timeouts_handshake, 2);
    net.advance(secs(3)); // linger
    assert_eq!(net.gone(silent), Some(Disposal::Close), "what arrived there stays there");
    assert_eq!(net.core.stats().timeouts_linger, 2);
    net.expect_empty();
}

/// The wheel looks every 8.192 ms: a deadline that falls on such a tick is not left to the next one.
#[test]
fn a_head_is_late_at_its_deadline_itself() {
    let time = Duration::from_micros(1_000 << 13);
    let mut net = Net::new(WebSockets::new().limits(Limits::new().handshake_timeout(time)));
    let half = net.accept();
    net.input(half, b"GET / HTTP/1.1\r\nHo");
    net.advance(time);
    assert!(net.take(half).starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn dribbling_does_not_buy_time() {
    let mut net = Net::new(WebSockets::new());
    let slow = net.accept();
    for byte in b"GET / HTTP/1.1\r\n" {
        net.input(slow, &[*byte]);
        net.advance(Duration::from_millis(700));
    }
    assert!(net.take(slow).starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn between_requests_silence_is_no_fault() {
    let mut net = Net::new(WebSockets::new());
    let client = net.accept();
    net.advance(secs(8));
    net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(net.take(client).ends_with(b"page"));
    net.advance(secs(74));
    assert!(!net.shut(client), "the time begins anew with each request");
    net.advance(secs(2));
    assert!(net.take(client).is_empty() && net.shut(client));
}

/// The time for a head begins with its first byte, however long the silence before it was.
#[test]
fn a_head_behind_a_silence_has_all_its_time() {
    let mut net = Net::new(WebSockets::new());
    let client = net.accept();
    for _ in 0..3 {
        net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(net.take(client).ends_with(b"page"));
        net.advance(secs(70));
        net.input(client, b"GET /page HTTP/1.1\r\nHo");
        net.advance(secs(9));
        net.input(client, b"st: h\r\n\r\n");
        assert!(net.take(client).ends_with(b"page"));
    }
    net.input(client, b"GET /page HTTP/1.1\r\nHo");
    net.advance(secs(11));
    assert!(net.take(client).starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn keep_alive_has_a_time_of_its_own() {
    let limits = Limits::new().handshake_timeout(secs(30)).keep_alive_timeout(secs(3));
    let mut net = Net::new(WebSockets::new().limits(limits));
    let (silent, client) = (net.accept(), net.accept());
    net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    net.advance(secs(4));
    assert!(net.shut(client) && !net.shut(silent));
    let refused = Limits::new().keep_alive_timeout(Duration::ZERO).check().unwrap_err();
    assert!(refused.starts_with("keep_alive_timeout is 0ns"), "{refused}");
}

#[test]
fn a_day_of_pings() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    let mut pings = 0;
    for _ in 0..86_400 / 15 {
        net.advance(secs(16));
        let frame = net.take(client);
        if frame.is_empty() {
            continue;
        }
        assert_eq!((frame[0], frame.len()), (0x89, 10));
        let mut pong = vec![0x8a, 0x88, 0, 0, 0, 0];
        pong.extend_from_slice(&frame[2..]);
        net.input(client, &pong);
        pings += 1;
    }
    assert!(pings > 5_000, "{pings} pings");
    net.expect(&[]);
}

#[test]
fn a_ping_without_pong_ends_the_session_in_bounded_time() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.advance(secs(16));
    assert_eq!(net.take(client)[0], 0x89);
    net.input(client, b"\x8a\x81\0\0\0\0?"); // only the exact pong counts
    net.advance(secs(15));
    assert!(net.take(client).ends_with(b"\x03\xf3Ping timeout"));
    net.expect(&["error Ping timeout", "close 1011 unclean"]);
    net.advance(secs(6));
    assert_eq!(net.gone(client), Some(Disposal::Close), "it has all that was sent");
    net.expect_empty();
}

#[test]
fn a_ping_timeout_with_a_stalled_peer_is_freed_within_the_close_timeout() {
    let mut net = Net::new(WebSockets::new().write_timeout(secs(60)));
    let client = net.open();
    net.room(client, 0);
    net.text(client, "waits");
    net.advance(Duration::from_millis(29_900));
    net.expect(&[]);
    net.advance(Duration::from_millis(200)); // ping at 15 s, its time is over at 30 s
    assert_eq!(net.events.borrow().last().unwrap(), "close 1011 unclean");
    net.advance(secs(6));
    assert_eq!(net.gone(client), Some(Disposal::Reset));
    net.expect_empty();
}

#[test]
fn idle_timeout_ends_with_1001() {
    let mut net = Net::new(WebSockets::new().ping_period(None).idle_timeout(secs(60)));
    let client = net.open();
    net.advance(secs(50));
    net.text(client, "still here");
    net.advance(secs(50));
    net.expect(&[]);
    net.advance(secs(11));
    net.expect(&["error Idle timeout", "close 1001 unclean"]);
}

#[test]
fn a_peer_that_does_not_answer_our_close_is_dropped() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.text(client, "bye");
    assert_eq!(net.take(client), b"\x88\x02\x03\xe8");
    net.advance(Duration::from_millis(4_900));
    net.expect(&[]);
    net.advance(Duration::from_millis(200));
    net.expect(&["close 1000 unclean"]);
    assert!(net.shut(client), "and has two seconds more to take the last bytes");
    net.advance(secs(3));
    net.expect_empty();
}

#[test]
fn a_clean_close_is_gone_with_the_peers_end() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.text(client, "bye");
    net.input(client, b"\x88\x82\0\0\0\0\x03\xe8");
    net.expect(&["close 1000 clean"]);
    assert!(net.shut(client) && net.gone(client).is_none());
    net.eof(client);
    assert_eq!(net.gone(client), Some(Disposal::Close));
    net.expect_empty();
}

#[test]
fn what_was_sent_before_the_close_arrives_at_a_slow_reader() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.room(client, 10);
    net.text(client, "big");
    net.text(client, "bye");
    for _ in 0..20 {
        net.advance(secs(1));
        net.writable(client, 3_300);
    }
    let got = net.take(client);
    assert_eq!(got.len(), 60_004 + 4);
    assert!(got.ends_with(b"\x88\x02\x03\xe8"));
    net.expect(&[]); // the peer's five seconds begin only now
    net.input(client, b"\x88\x82\0\0\0\0\x03\xe8");
    net.expect(&["close 1000 clean"]);
}

#[test]
fn pongs_overtake_queued_data() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.room(client, 0);
    net.text(client, "one");
    net.text(client, "two");
    net.input(client, b"\x89\x81\0\0\0\0!");
    net.writable(client, usize::MAX);
    assert_eq!(net.take(client), b"\x8a\x01!\x81\x03one\x81\x03two");
}

#[test]
fn a_reader_that_makes_no_progress_is_closed() {
    let mut net = Net::new(WebSockets::new().ping_period(None));
    let client = net.open();
    net.room(client, 0);
    net.text(client, "waits");
    net.text(client, "big");
    net.advance(secs(20));
    net.writable(client, 8_000); // as much as half a minute is worth
    net.advance(secs(20));
    net.expect(&[]);
    net.writable(client, 1); // that is none
    net.advance(secs(11));
    net.expect(&["error Write timeout", "close 1013 unclean"]);
    net.advance(secs(6));
    net.expect_empty();
}

/// In the same call, whether or not the system tells of it again.
#[test]
fn a_wire_that_breaks_while_it_is_written_to_ends_the_session_at_once() {
    let mut net = Net::new(WebSockets::new());
    net.open();
    let slot = net.core.connections.slab.next_occupied(0).unwrap();
    let (now, mut frame) = (net.now, *b"\x81\x84\0\0\0\0echo");
    let mut wire = ScriptedWire { is_broken: true, ..ScriptedWire::default() };
    net.core.handle_input(now, slot, &mut frame, &mut wire);
    net.expect(&["error connection lost: connection reset", "close 1006 unclean"]);
}

#[test]
fn an_outbox_over_its_limit_ends_with_1013() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.room(client, 100);
    net.text(client, "big");
    assert!(net.core.shared.bytes_held >= 59_000);
    net.text(client, "big");
    net.expect(&["error Try again later", "close 1013 unclean"]);
    net.writable(client, usize::MAX);
    assert!(net.take(client).ends_with(b"\x03\xf5Try again later"));
    net.eof(client);
    net.expect_empty();
}

#[test]
fn the_memory_budget_ends_who_goes_over_it() {
    let limits = Limits::new().process_bytes(100_000);
    let mut net = Net::new(WebSockets::new().limits(limits));
    let clients: Vec<LinkId> = (0..2).map(|_| net.open()).collect();
    for &client in &clients {
        net.room(client, 0);
        net.text(client, "big");
    }
    net.expect(&["error Try again later", "close 1013 unclean"]);
    net.text(clients[0], "the first lives");
    assert_eq!(net.events.borrow().len(), 2);
}

#[test]
fn a_gibibyte_is_refused_by_its_header() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    net.input(client, b"\x82\xff\0\0\0\0\x40\0\0\0");
    net.expect(&["error frame of 1073741824 bytes, limit 65536", "close 1009 unclean"]);
    assert_eq!(net.core.shared.bytes_held, 0);
}

#[test]
fn a_partial_frame_grows_as_it_arrives() {
    let mut net = Net::new(WebSockets::new().max_frame_size(1 << 20));
    let client = net.open();
    net.input(client, b"\x82\xff\0\0\0\0\0\x10\0\0\0\0\0\0");
    assert!(net.core.shared.bytes_held < 1_000, "{} held", net.core.shared.bytes_held);
    for _ in 0..15 {
        net.input(client, &[0; 1 << 16]);
    }
    assert!(net.core.shared.bytes_held <= (1 << 20) + 1_000);
    net.input(client, &[0; 1 << 16]);
    assert_eq!(net.core.shared.bytes_held, 0);
    assert_eq!(net.take(client).len(), (1 << 20) + 10, "the echo");
}

#[test]
fn any_chunking_gives_the_same_echoes() {
    let mut bytes = Vec::new();
    for text in ["a", "", "κόσμε"] {
        bytes.extend([0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0]);
        bytes.extend(text.as_bytes());
    }
    bytes.extend(b"\x01\x81\0\0\0\0x\x89\x80\0\0\0\0\x80\x81\0\0\0\0y");
    let mut whole = Net::new(WebSockets::new());
    let client = whole.open();
    whole.input(client, &bytes);
    let expected = whole.take(client);
    assert!(expected.ends_with(b"\x8a\x00\x81\x02xy"));
    for size in 1..bytes.len() {
        let mut net = Net::new(WebSockets::new());
        let client = net.open();
        bytes.chunks(size).for_each(|chunk| net.input(client, chunk));
        assert_eq!(net.take(client), expected, "chunks of {size}");
    }
}

#[test]
fn too_many_fragments_end_with_1008() {
    let mut net = Net::new(WebSockets::new().max_fragments(100));
    let client = net.open();
    net.input(client, b"\x01\x80\0\0\0\0");
    for _ in 0..100 {
        net.input(client, b"\x00\x80\0\0\0\0");
    }
    net.expect(&["error message of over 100 fragments", "close 1008 unclean"]);
}

#[test]
fn over_max_connections_there_is_503_and_then_a_pause() {
    let mut net = Net::new(WebSockets::new().limits(Limits::new().max_connections(2)));
    let clients: Vec<LinkId> = (0..2).map(|_| net.open()).collect();
    let over_limit: Vec<LinkId> = (0..16).map(|_| net.accept()).collect();
    assert!(net.core.accepts_at().is_none());
    let later = net.accept();
    assert!(net.link(later).is_waiting());
    net.input(over_limit[3], b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(net.take(over_limit[3]).starts_with(b"HTTP/1.1 503 "));
    net.eof(over_limit[3]);
    assert!(net.link(later).is_open(), "accepting goes on when a slot is free");
    net.text(clients[0], "served meanwhile");
    assert!(net.take(clients[0]).ends_with(b"served meanwhile"));
}

#[test]
fn pipelined_requests_wait_while_answers_do() {
    let mut net = Net::new(WebSockets::new());
    let client = net.accept();
    net.room(client, 20);
    let request = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n";
    net.input(client, request);
    net.input(client, &[&request[..], &request[..]].concat());
    net.writable(client, usize::MAX);
    let answers = String::from_utf8(net.take(client)).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
}

#[test]
fn the_answer_and_the_greeting_survive_short_writes() {
    let request = upgrade_request("/greet", "");
    for room in 0..140 {
        let mut net = Net::new(WebSockets::new());
        let client = net.accept();
        net.room(client, room);
        net.input(client, request.as_bytes());
        net.writable(client, usize::MAX);
        let got = net.take(client);
        assert!(got.starts_with(b"HTTP/1.1 101 "), "room {room}");
        assert!(got.ends_with(b"\r\n\r\n\x81\x05hello"), "room {room}");
    }
}

#[test]
fn a_drain_ends_when_all_have_answered_and_not_before() {
    let mut net = Net::new(WebSockets::new());
    let (one, two) = (net.open(), net.open());
    net.shut_down(CloseCode::GOING_AWAY, secs(10));
    for index in [one, two] {
        assert_eq!(net.take(index), b"\x88\x02\x03\xe9");
    }
    let late = net.accept();
    net.input(one, b"\x88\x82\0\0\0\0\x03\xe9");
    net.eof(one);
    assert!(!net.core.is_drained());
    net.input(two, b"\x88\x82\0\0\0\0\x03\xe9");
    net.eof(two);
    assert!(net.core.is_drained(), "who came late does not hold it up");
    net.input(late, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(net.take(late).starts_with(b"HTTP/1.1 503 "));
}

#[test]
fn fragments_out_of_order_end_with_1002() {
    for (frames, fault) in [
        (&b"\x80\x80\0\0\0\0"[..], "error continuation of nothing"),
        (b"\x01\x80\0\0\0\0\x82\x80\0\0\0\0", "error new message inside an unfinished one"),
    ] {
        let mut net = Net::new(WebSockets::new());
        let client = net.open();
        net.input(client, frames);
        net.expect(&[fault, "close 1002 unclean"]);
    }
}

#[test]
fn answers_that_nobody_reads_are_held_to_the_memory_budget() {
    let limits = Limits::new().process_bytes(8_192);
    let mut net = Net::new(WebSockets::new().limits(limits));
    let request = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n";
    let deaf = net.accept();
    net.room(deaf, 0);
    net.input(deaf, request);
    net.input(deaf, &request.repeat(1_000));
    assert_eq!(net.gone(deaf), Some(Disposal::Reset));
    net.expect_empty();
}

#[test]
fn what_waits_is_told() {
    let mut application = Application::new();
    application.install(WebSockets::new());
    application.routing(|route| {
        route.web_socket("/", |_: &Call| {
            on_connect(|session, _| {
                let before = session.buffered_bytes();
                session.send("12345")?;
                assert_eq!(session.buffered_bytes() - before, 7);
                Ok(())
            })
        });
    });
    let mut net = Net::new(WebSockets::new());
    net.network = Network::new(application.build().unwrap());
    let client = net.accept();
    net.input(client, upgrade_request("/", "").as_bytes());
    assert!(net.take(client).ends_with(b"\x81\x0512345"));
}

#[test]
fn without_pings_an_open_session_leaves_nothing_to_wake_for() {
    let mut net = Net::new(WebSockets::new().ping_period(None));
    let session = net.open();
    assert_eq!(net.core.poll_timeout(), None);
    net.text(session, "hi");
    assert_eq!(net.core.poll_timeout(), None);
}

/// A file of that size that takes no room on the disk, and a request for it.
fn sparse_file(name: &str, bytes: u64) -> (std::path::PathBuf, String) {
    let path = std::env::temp_dir().join(format!("wirewheel-core-{name}-{}", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let request = format!("GET /file?{} HTTP/1.1\r\nHost: h\r\n\r\n", path.display());
    (path, request)
}

#[test]
fn of_a_large_file_one_piece_waits_and_a_slow_peer_is_not_cut_off() {
    let mut net = Net::new(WebSockets::new());
    let (path, request) = sparse_file("large", 1 << 30);
    let index = net.accept();
    net.room(index, 1_000);
    net.input(index, request.as_bytes());
    let head = String::from_utf8_lossy(&net.take(index)).into_owned();
    assert!(head.contains("\r\nContent-Length: 1073741824\r\n"), "{head}");
    // An hour at 300 bytes a second, far past every timeout of a request.
    for _ in 0..720 {
        net.advance(secs(5));
        net.writable(index, 1_500);
        assert_eq!(net.take(index).len(), 1_500);
        assert!(net.core.shared.bytes_held <= 80 << 10, "{}", net.core.shared.bytes_held);
    }
    assert_eq!(net.gone(index), None);
    // Then it takes nothing more.
    net.advance(secs(31));
    assert_eq!(net.gone(index), Some(Disposal::Reset));
    net.expect_empty();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn requests_wait_behind_a_file() {
    let mut net = Net::new(WebSockets::new());
    let size = 3 << 20; // more than one turn's share
    let (path, request) = sparse_file("behind", size);
    let index = net.accept();
    net.input(index, (request + "GET /page HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    let text = String::from_utf8(net.take(index)).unwrap();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    let (file, page) = rest.split_at(usize::try_from(size).unwrap());
    assert!(head.starts_with("HTTP/1.1 200 ") && file.bytes().all(|byte| byte == 0));
    assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("\r\n\r\npage"), "{page}");
    net.advance(secs(78));
    net.expect_empty(); // silent afterwards, as behind any answer
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_stop_lets_a_file_end() {
    let mut net = Net::new(WebSockets::new());
    let (path, request) = sparse_file("stop", 300_000);
    let index = net.accept();
    net.room(index, 1_000);
    net.input(index, request.as_bytes());
    net.shut_down(CloseCode::GOING_AWAY, secs(10));
    assert_eq!(net.take(index).len(), 1_000);
    net.writable(index, usize::MAX);
    assert!(net.take(index).len() > 299_000);
    assert!(net.shut(index));
    net.eof(index);
    net.expect_empty();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_peer_that_reads_its_answer_slowly_is_not_cut_off() {
    let mut net = Net::new(WebSockets::new());
    let index = net.accept();
    net.room(index, 10);
    net.input(index, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    net.advance(secs(25)); // past the time for a request head
    assert_eq!(net.gone(index), None);
    net.writable(index, usize::MAX);
    assert!(net.take(index).ends_with(b"\r\n\r\npage"));
}

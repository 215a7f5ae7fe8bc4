//! Progress in virtual time: who takes bytes, or sends them, lives; who does not is ended in time.

use super::*;
use crate::session::Session;
use crate::testing::TestApplication;
use crate::testing::network::{Buffers, Pace};
use crate::words::error::HandlerResult;

const BUFFER: usize = 2_500_000;

/// A send buffer of that size, before a peer whose system takes only what a test says.
fn full_behind(send: usize) -> Buffers {
    Buffers { send, receive: 0, segment: 1_460 }
}

/// A server that sends so many bytes on request, in a message, a page, or behind a Close.
fn serving(options: WebSockets, bytes: usize) -> Net {
    let events = Rc::new(RefCell::new(Vec::new()));
    let notes = Rc::clone(&events);
    let mut application = Application::new();
    let limits = Limits::new().process_bytes(32 << 20);
    application.install(options.max_message_size(8 << 20).limits(limits));
    application.routing(move |route| {
        route.get("/page", move |_| Response::text("p".repeat(bytes)));
        route.web_socket("/", move |_: &Call| {
            let closes = Rc::clone(&notes);
            let send =
                move |session: &mut Session<'_>| -> HandlerResult { session.send(vec![7; bytes]) };
            on_message(move |session, message| match message.text() {
                Some("big") => send(session),
                Some("bye") => {
                    send(session)?;
                    session.close(CloseReason::try_from(CloseCode::NORMAL)?)
                }
                Some("twice") => send(session).and_then(|()| send(session)),
                _ => session.send(message),
            })
            .on_close(move |_, close| {
                let how = if close.is_clean() { "clean" } else { "unclean" };
                closes.borrow_mut().push(format!("close {} {how}", close.code()));
            })
        });
    });
    Net { network: Network::new(application.build().unwrap()), events }
}

/// A peer whose system takes so much a second of a send buffer, and who answers the pings in it.
struct Reader {
    link: LinkId,
    rate: usize,
    unread: Vec<u8>,
    payload: usize,
    closed: bool,
}

impl Reader {
    fn new(net: &mut Net, rate: usize) -> Self {
        let link = net.open();
        net.link(link).set_buffers(full_behind(BUFFER));
        Self { link, rate, unread: Vec::new(), payload: 0, closed: false }
    }

    /// A second goes by.
    fn read(&mut self, net: &mut Net) {
        net.advance(secs(1));
        net.acknowledge(self.link, self.rate);
        self.unread.extend(net.take(self.link));
        while let Some((first, payload)) = self.frame() {
            match first {
                0x89 => {
                    let masked = [&[0x8a, 0x80 | 8, 0, 0, 0, 0], &payload[..]].concat();
                    net.input(self.link, &masked);
                }
                0x88 => {
                    self.closed = true;
                    let echo = [&[0x88, 0x80 | 2, 0, 0, 0, 0], &payload[..]].concat();
                    net.input(self.link, &echo);
                }
                _ => self.payload += payload.len(),
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let &[first, second, ..] = &self.unread[..] else { return None };
        let header = match second {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        let extended = self.unread.get(2..header)?;
        let length = match header {
            2 => usize::from(second),
            _ => extended.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        let payload = self.unread.get(header..header + length)?.to_vec();
        self.unread.drain(..header + length);
        Some((first, payload))
    }
}

#[test]
fn a_steady_reader_at_5_kb_a_second_gets_megabytes() {
    for (said, bytes) in [("big", 4 << 20), ("bye", 6_000_000), ("twice", 2_000_000)] {
        let mut net = serving(WebSockets::new(), bytes);
        let mut reader = Reader::new(&mut net, 5_000);
        net.text(reader.link, said);
        let all = if said == "twice" { 2 * bytes } else { bytes };
        for _ in 0..all / 5_000 + 10 {
            reader.read(&mut net);
        }
        assert_eq!((reader.payload, reader.closed), (all, said == "bye"), "{said}");
        if said == "bye" {
            net.expect(&["close 1000 clean"]);
        } else {
            net.expect(&[]);
        }
        let stats = net.core.stats();
        assert_eq!((stats.timeouts_write, stats.timeouts_ping, stats.timeouts_close), (0, 0, 0));
        assert_eq!(stats.lost_stalled + stats.lost_gone, 0);
    }
}

#[test]
fn a_page_arrives_at_5_kb_a_second_and_then_the_next_request_is_waited_for() {
    let bytes = 1 << 20;
    let mut net = serving(WebSockets::new(), bytes);
    let client = net.accept();
    net.link(client).set_buffers(full_behind(BUFFER)); // takes it whole
    net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut got = 0;
    for _ in 0..bytes / 5_000 + 2 {
        net.advance(secs(1));
        net.acknowledge(client, 5_000);
        got += net.take(client).len();
    }
    assert!(got > bytes);
    net.advance(secs(8));
    assert!(!net.shut(client), "the wait began when the page was there");
    net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    net.acknowledge(client, usize::MAX);
    assert!(net.take(client).len() > bytes);
}

/// The first that takes nothing is told apart from who takes one byte every ten seconds by nothing.
#[test]
fn who_takes_next_to_nothing_is_ended_within_the_write_timeout() {
    for taken in [0, 1] {
        let mut net = serving(WebSockets::new().ping_period(None), 4 << 20);
        let reader = Reader::new(&mut net, 0);
        net.text(reader.link, "big");
        for _ in 0..3 {
            net.expect(&[]);
            net.advance(secs(10));
            net.acknowledge(reader.link, taken);
        }
        net.advance(secs(2));
        net.expect(&["close 1013 unclean"]);
        assert_eq!(net.gone(reader.link), Some(Disposal::Reset), "freed too");
        let lost = net.core.stats().lost_stalled;
        let header = 10 * (4 << 20) / (64 << 10) + 20; // of each frame, and the Close
        assert!((4 << 20..=(4 << 20) + header).contains(&(lost + 3 * taken as u64)), "{lost}");
        net.expect_empty();
    }
}

/// A hook blocked the loop, say: nobody saw what the peer took meanwhile.
#[test]
fn what_was_taken_before_the_first_look_counts() {
    let mut net = serving(WebSockets::new().ping_period(None), 4 << 20);
    let reader = Reader::new(&mut net, 0);
    net.text(reader.link, "big");
    net.link(reader.link).socket.acknowledge(8_000);
    net.jump(secs(25));
    net.advance(secs(29)); // so long it has taken nothing, and no longer
    net.expect(&[]);
    net.advance(secs(3));
    net.expect(&["close 1013 unclean"]);
}

/// What others send is begun to be counted without the socket, which has a long life behind it.
#[test]
fn a_steady_reader_of_what_others_send_lives_whatever_it_was_sent_before() {
    for before in [0, 1 << 30, 3 << 30, u32::MAX - 500_000] {
        let mut net = serving(WebSockets::new(), 0);
        let mut reader = Reader::new(&mut net, 5_000);
        net.link(reader.link).set_buffers(full_behind(10_000));
        net.link(reader.link).socket.begin_at(before);
        net.run(|server| {
            for id in server.sessions() {
                server.send_to(id, vec![7; 1 << 20]).unwrap();
            }
        });
        for _ in 0..(1 << 20) / 5_000 + 20 {
            reader.read(&mut net);
        }
        net.expect(&[]);
        assert_eq!(reader.payload, 1 << 20, "after {before} bytes");
    }
}

#[test]
fn who_stops_taking_is_ended_as_long_after_that() {
    let mut net = serving(WebSockets::new().ping_period(None), 4 << 20);
    let mut reader = Reader::new(&mut net, 20_000);
    net.text(reader.link, "big");
    for _ in 0..47 {
        reader.read(&mut net);
    }
    net.advance(secs(29));
    net.expect(&[]);
    net.advance(secs(3));
    net.expect(&["close 1013 unclean"]);
}

/// The same for a Close and for an answer with one: time-outs of the last bytes begin when they are there.
#[test]
fn the_last_bytes_of_a_peer_that_takes_nothing_wait_no_longer() {
    let mut net = serving(WebSockets::new().ping_period(None), 1 << 20);
    let mut reader = Reader::new(&mut net, 40_000);
    net.text(reader.link, "bye"); // all is in the send buffer
    for _ in 0..10 {
        reader.read(&mut net);
    }
    net.expect(&[]);
    net.advance(secs(33));
    net.expect(&["close 1000 unclean"]);
    assert_eq!(net.gone(reader.link), Some(Disposal::Reset));
    assert!(net.core.stats().lost_stalled > 600_000);
    net.expect_empty();
}

#[test]
fn a_message_that_comes_on_by_a_byte_every_ten_seconds_is_no_life() {
    for (begins, piece) in [
        (&b"\x82\xfe\xea\x60\0\0\0\0"[..], &b"x"[..]),
        (&b"\x01\x81\0\0\0\0x"[..], &b"\x00\x81\0\0\0\0x"[..]),
        (&b"\x82"[..], &b""[..]),
    ] {
        let mut net = Net::new(WebSockets::new());
        let client = net.open();
        net.input(client, begins);
        for _ in 0..2 {
            net.advance(secs(10));
            net.input(client, piece);
            net.expect(&[]);
        }
        net.advance(Duration::from_millis(10_100));
        net.expect(&["error Message timeout", "close 1008 unclean"]);
        assert_eq!(net.core.stats().timeouts_message, 1);
    }
}

#[test]
fn a_frame_at_1500_bytes_a_second_arrives_though_no_pong_fits_into_it() {
    let mut net = Net::new(WebSockets::new().max_frame_size(70_000));
    let client = net.open();
    net.input(client, b"\x82\xfe\xea\x60\0\0\0\0");
    for _ in 0..40 {
        net.advance(secs(1));
        net.input(client, &[7; 1_500]);
    }
    net.expect(&[]);
    assert!(net.take(client).len() > 60_000, "the echo");
}

/// Whatever they carry, and in whatever pieces they come.
#[test]
fn pongs_that_answer_nothing_are_no_sign_of_life() {
    for piece in [1, 3, 7] {
        let mut net = Net::new(WebSockets::new());
        let client = net.open();
        let pongs = b"\x8a\x81\0\0\0\0!".repeat(100);
        let mut pongs = pongs.chunks(piece);
        for _ in 0..59 {
            net.advance(Duration::from_millis(500));
            net.input(client, pongs.next().unwrap());
        }
        net.expect(&[]);
        net.advance(secs(1));
        net.expect(&["error Ping timeout", "close 1011 unclean"]);
    }
}

#[test]
fn any_other_frame_postpones_the_pong() {
    for frame in [&b"\x81\x81\0\0\0\0x"[..], b"\x89\x80\0\0\0\0", b"\x01\x80\0\0\0\0"] {
        let mut net = Net::new(WebSockets::new());
        let client = net.open();
        net.advance(secs(25)); // a ping went out after 15
        net.input(client, frame);
        net.advance(secs(14));
        net.expect(&[]);
        net.advance(secs(2));
        net.expect(&["error Ping timeout", "close 1011 unclean"]);
    }
}

/// Its system takes what it is sent, and nobody is behind it.
#[test]
fn a_stopped_process_that_is_sent_a_trickle_is_ended_in_time() {
    let mut net = Net::new(WebSockets::new());
    let client = net.open();
    for second in 1..=30 {
        net.expect(&[]);
        net.run(|server| {
            let id = server.sessions().next().unwrap();
            server.send_to(id, "x".repeat(100).as_str())
        });
        net.advance(if second < 30 { secs(1) } else { Duration::from_millis(1_100) });
    }
    net.expect(&["error Ping timeout", "close 1011 unclean"]);
    let _ = client;
}

/// Bytes that are taken postpone the end only until the ping itself was.
#[test]
fn a_ping_behind_other_bytes_has_its_time_from_when_it_was_taken() {
    let mut net = serving(WebSockets::new(), 1 << 20);
    let reader = Reader::new(&mut net, 0);
    net.text(reader.link, "big");
    net.advance(secs(14));
    let queued = net.link(reader.link).socket.unacknowledged();
    net.advance(secs(2)); // the ping is behind that
    for _ in 0..40 {
        net.advance(secs(1));
        net.acknowledge(reader.link, queued / 40 + 1); // and nobody answers
    }
    assert!(net.link(reader.link).socket.unacknowledged() == 0);
    net.expect(&[]);
    net.advance(secs(28)); // its buffer was full, so it may have much to read before the ping
    net.expect(&[]);
    net.advance(secs(4));
    net.expect(&["close 1011 unclean"]);
}

/// The wait for its pong was doubled because its buffer was full; a frame that comes then is one more
/// sign of life and takes none of that time away.
#[test]
fn a_sign_of_life_does_not_shorten_the_wait_for_a_pong() {
    let mut net = serving(WebSockets::new(), 1 << 20);
    let reader = Reader::new(&mut net, 0);
    net.text(reader.link, "big");
    net.advance(secs(14));
    let queued = net.link(reader.link).socket.unacknowledged();
    net.advance(secs(2));
    for _ in 0..40 {
        net.advance(secs(1));
        net.acknowledge(reader.link, queued / 40 + 1);
    }
    net.advance(secs(10));
    net.input(reader.link, b"\x89\x80\0\0\0\0");
    net.network.audit().unwrap();
    net.advance(secs(18));
    net.expect(&[]);
    net.advance(secs(4));
    net.expect(&["close 1011 unclean"]);
}

#[test]
fn a_peer_that_is_cut_off_is_ended_by_the_ping_that_it_does_not_take() {
    let mut net = serving(WebSockets::new(), 1 << 20);
    let reader = Reader::new(&mut net, 0);
    net.text(reader.link, "big");
    net.link(reader.link).set_pace(Pace::Vanished);
    net.advance(Duration::from_millis(30_900));
    net.expect(&["close 1011 unclean"]);
}

#[test]
fn a_day_of_a_slow_reader_that_is_sent_as_much_as_it_takes() {
    let mut net = serving(WebSockets::new(), 20_000);
    let mut reader = Reader::new(&mut net, 1_000);
    for minute in 0..24 * 60 {
        if minute % 2 == 0 {
            net.text(reader.link, "big");
        }
        for _ in 0..60 {
            reader.read(&mut net);
        }
        net.expect(&[]);
    }
    assert_eq!(reader.payload, 20_000 * 24 * 30);
}

#[test]
fn until_the_deadline_of_a_stop_whoever_takes_bytes_gets_them() {
    for (grace, arrives) in [(60, true), (20, false)] {
        let mut net = serving(WebSockets::new(), 1 << 20);
        let mut reader = Reader::new(&mut net, 40_000);
        net.link(reader.link).set_buffers(full_behind(64 << 10));
        net.text(reader.link, "big");
        net.shut_down(CloseCode::GOING_AWAY, secs(grace));
        for _ in 0..grace - 1 {
            reader.read(&mut net);
        }
        if arrives {
            assert_eq!((reader.payload, reader.closed), (1 << 20, true));
            net.expect(&["close 1001 clean"]);
        }
        net.advance(secs(2));
        assert!(net.stopped);
        let lost = net.core.stats().lost_stopped;
        assert_eq!(lost > 0, !arrives, "{lost} bytes");
        assert_eq!(net.core.drained().cut, usize::from(!arrives));
    }
}

/// The machine slept while the peer's system took the last bytes: its program, which was asleep too or is
/// slower, has its time to read them from when the server sees that.
#[test]
fn who_got_the_last_bytes_while_the_machine_slept_is_waited_for_all_the_same() {
    let mut net = serving(WebSockets::new(), 1 << 20);
    let reader = Reader::new(&mut net, 0);
    net.text(reader.link, "bye");
    net.input(reader.link, b"\x88\x82\0\0\0\0\x03\xe8"); // its Close
    net.expect(&["close 1000 clean"]);
    let socket = &mut net.link(reader.link).socket;
    let all = socket.unacknowledged();
    socket.acknowledge(all);
    net.jump(secs(90));
    assert_eq!(net.link(reader.link).socket.gone, None, "of 2 s nothing has gone by");
    net.advance(Duration::from_millis(1_700));
    assert_eq!(net.link(reader.link).socket.gone, None);
    net.advance(Duration::from_millis(400));
    assert!(net.link(reader.link).socket.gone.is_some());
}

#[test]
fn activity_is_what_came_last_from_the_peer() {
    let app = TestApplication::new(|app| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| session.set_timer(secs(3)).map(drop).map_err(Into::into))
                    .on_timer(|session, _| {
                        session.send(session.last_activity().as_millis().to_string())
                    })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    app.advance(secs(2));
    client.send("wait");
    app.advance(secs(1));
    client.send_frame(0x8a, b"heard"); // a pong
    app.advance(secs(3));
    let millis: Vec<u64> = texts(&mut client).iter().map(|text| text.parse().unwrap()).collect();
    // The wheel looks every 8.192 ms.
    assert!(matches!(millis[..], [1_980..=2_020]), "{millis:?}");
}

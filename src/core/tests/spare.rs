//! The buffers of large messages that the loop keeps: for how long, how many, and who goes first.

use super::*;

const MIB: usize = 1 << 20;

fn net(process_bytes: usize) -> Net {
    let limits = Limits::new().process_bytes(process_bytes);
    let largest = process_bytes.min(16 * MIB);
    Net::new(
        WebSockets::new()
            .max_frame_size(largest)
            .outbox_bytes(64 * MIB)
            .ping_period(None)
            .limits(limits),
    )
}

/// A frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0xff];
    bytes.extend((payload.len() as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Bytes by which a part that is missing, or is there twice, is found.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + u8::try_from((at / 1_000) % 26).unwrap()).collect()
}

impl Net {
    fn spare(&self) -> usize {
        self.core.shared.spare.bytes()
    }

    /// Sends a message and has its echo.
    #[track_caller]
    fn expect_echo(&mut self, client: LinkId, first: u8, payload: &[u8]) {
        self.input(client, &frame(first, payload));
        let echo = self.take(client);
        assert_eq!(echo.first(), Some(&first));
        assert!(echo.ends_with(payload) && echo.len() == payload.len() + 10);
        self.audit().unwrap();
    }

    #[track_caller]
    fn expect_spare(&self, bytes: usize) {
        assert_eq!(self.spare(), bytes);
        self.audit().unwrap();
    }
}

#[test]
fn the_buffer_of_a_large_message_is_kept_for_five_seconds_and_no_timer_for_none() {
    for first in [0x82, 0x81] {
        let mut net = net(24 * MIB);
        let client = net.open();
        net.expect_echo(client, first, &pattern(100_000));
        net.expect_spare(0); // what is no larger than that is not kept
        net.expect_echo(client, first, &pattern(MIB));
        net.expect_spare(MIB);
        assert_eq!(net.core.shared.bytes_held, 0, "its connection holds nothing");
        assert_eq!(net.core.stats().bytes_held, MIB as u64, "and it counts");
        net.advance(Duration::from_millis(4_990));
        net.expect_spare(MIB);
        net.advance(Duration::from_millis(20));
        net.expect_spare(0);
        net.advance(secs(40)); // what the connection had to do by then is in time
        assert_eq!((net.next_event(), net.core.shared.timers.armed()), (None, 0), "it sleeps");
    }
}

#[test]
fn what_is_used_is_kept_on_by_one_timer() {
    let mut net = net(24 * MIB);
    let client = net.open();
    for _ in 0..20 {
        net.expect_echo(client, 0x82, &pattern(MIB));
        net.expect_spare(MIB);
        assert_eq!(net.core.shared.timers.armed(), 1);
        net.advance(secs(3));
    }
    net.expect_spare(MIB);
    net.advance(Duration::from_millis(2_010));
    net.expect_spare(0);
    assert_eq!(net.core.shared.timers.armed(), 0);
}

#[test]
fn the_next_message_takes_the_buffer_and_its_connection_pays_for_it() {
    let mut net = net(24 * MIB);
    let (client, other) = (net.open(), net.open());
    net.expect_echo(client, 0x82, &pattern(MIB));
    let next = frame(0x81, &pattern(MIB));
    net.input(other, &next[..14]);
    net.expect_spare(MIB);
    net.input(other, &next[14..10_000]);
    net.expect_spare(MIB); // too little came for it
    net.input(other, &next[10_000..70_000]);
    net.expect_spare(0);
    assert!(net.core.shared.bytes_held >= MIB);
    net.input(other, &next[70_000..]);
    assert!(net.take(other).ends_with(&next[14..]));
    net.expect_spare(MIB);
    assert_eq!(net.core.shared.bytes_held, 0);
}

#[test]
fn the_buffer_of_an_echo_comes_back_when_the_peer_has_taken_it() {
    for first in [0x82, 0x81] {
        for room in [0, 3, 10, 50_000, MIB + 9] {
            let mut net = net(24 * MIB);
            let client = net.open();
            net.room(client, room);
            let payload = pattern(MIB);
            net.input(client, &frame(first, &payload));
            // It waits in the message's own buffer, or copied behind a header that waits too.
            let held = net.core.shared.bytes_held;
            assert!((MIB..MIB + 1_000).contains(&held), "{held} held with room for {room}");
            assert_eq!(net.spare(), if room < 10 { MIB } else { 0 }, "room for {room}");
            net.audit().unwrap();
            // A control frame does not come between its parts, and another message not before it.
            net.input(client, b"\x89\x82\0\0\0\0hi\x81\x82\0\0\0\0ho");
            net.writable(client, usize::MAX);
            let out = net.take(client);
            let (echo, rest) = if room == 0 {
                out.strip_prefix(b"\x8a\x02hi").unwrap().split_at(MIB + 10)
            } else {
                out.split_at(MIB + 10)
            };
            assert_eq!(echo[0], first);
            assert!(echo[10..] == payload, "room for {room}");
            assert_eq!(rest, if room == 0 { &b"\x81\x02ho"[..] } else { b"\x8a\x02hi\x81\x02ho" });
            assert_eq!(net.core.shared.bytes_held, 0);
            net.expect_spare(if room < 10 { 2 * MIB + 10 - room } else { MIB });
        }
    }
}

#[test]
fn fragments_and_what_the_application_sends_use_it_too() {
    let mut net = net(24 * MIB);
    let client = net.open();
    for _ in 0..3 {
        let mut fragments = frame(0x02, &pattern(300_000));
        (0..3).for_each(|_| fragments.extend(frame(0x00, &pattern(300_000))));
        fragments.extend(frame(0x80, &pattern(100_000)));
        net.input(client, &fragments);
        assert_eq!(net.take(client).len(), 1_300_000 + 10);
        net.audit().unwrap();
    }
    let kept = net.spare();
    assert!(kept >= 1_300_000);
    // What the peer does not take of a message that is no echo is copied, into a buffer that is kept.
    net.run(|server| {
        let id = server.sessions().next().unwrap();
        server.send_to(id, vec![7; 1_200_000]).unwrap();
    });
    assert_eq!(net.take(client).len(), 1_200_000 + 10);
    net.audit().unwrap();
    assert!(net.spare() >= kept);
}

#[test]
fn it_is_given_up_before_a_connection_is_ended() {
    let mut net = net(4 * MIB);
    let clients: Vec<LinkId> = (0..7).map(|_| net.open()).collect();
    net.expect_echo(clients[0], 0x82, &pattern(MIB));
    net.expect_spare(MIB);
    // Six begin messages of 600,000 bytes.
    for &client in &clients[1..] {
        net.input(client, &frame(0x82, &pattern(600_000))[..590_000]);
        net.audit().unwrap();
    }
    net.expect_spare(0);
    net.expect(&[]);
    assert_eq!(net.core.stats().over_budget, 0);
    net.input(clients[0], &frame(0x82, &pattern(MIB))[..1_000_000]);
    assert_eq!(net.core.stats().over_budget, 1, "with nothing left to give up, the largest goes");
    net.audit().unwrap();
}

#[test]
fn many_who_send_large_messages_at_once_do_not_grow_it() {
    let mut net = net(40 * MIB);
    let clients: Vec<LinkId> = (0..30).map(|_| net.open()).collect();
    let message = frame(0x82, &pattern(MIB));
    let (begin, end) = message.split_at(MIB / 2);
    for _ in 0..3 {
        clients.iter().for_each(|&client| net.input(client, begin));
        for &client in &clients {
            net.input(client, end);
            assert_eq!(net.take(client).len(), MIB + 10);
            assert!(net.spare() <= 10 * MIB);
            net.audit().unwrap();
        }
        assert!(net.spare() > 9 * MIB);
    }
    net.advance(secs(6));
    net.expect_spare(0);
}

#[test]
fn each_of_several_loops_keeps_its_part() {
    let limits = Limits::new().process_bytes(24 * MIB).divided_by(4);
    let mut net = Net::new(WebSockets::new().max_frame_size(6 * MIB).limits(limits));
    let clients = [net.open(), net.open()];
    let message = frame(0x82, &pattern(MIB));
    clients.iter().for_each(|&client| net.input(client, &message[..MIB / 2]));
    clients.iter().for_each(|&client| net.input(client, &message[MIB / 2..]));
    net.expect_spare(MIB); // of at most 1.5 MiB
}

#[test]
fn what_a_connection_leaves_behind_is_kept_and_freed_in_time() {
    let mut net = net(24 * MIB);
    let (sender, deaf) = (net.open(), net.open());
    net.input(sender, &frame(0x82, &pattern(MIB))[..MIB / 2 + 100_000]);
    net.room(deaf, 100);
    net.input(deaf, &frame(0x82, &pattern(MIB)));
    net.end(sender, PeerEnd::Reset);
    net.end(deaf, PeerEnd::Reset);
    assert_eq!((net.live(), net.core.shared.bytes_held), (0, 0));
    assert!(net.spare() > 2 * MIB - 1_000);
    net.audit().unwrap();
    net.advance(secs(6));
    net.expect_spare(0);
    assert_eq!(net.next_event(), None);
}

#[test]
fn a_hook_that_panics_takes_nothing_with_it() {
    let mut application = Application::new();
    application.install(WebSockets::new().max_frame_size(4 * MIB).ping_period(None));
    application.routing(|route| {
        route.web_socket("/", |_: &Call| {
            on_message(|session, message| {
                session.send(message)?;
                panic!("with a message that is lent")
            })
        });
    });
    let network = Network::new(application.build().unwrap());
    let mut net = Net { network, events: Rc::default() };
    net.tolerates = |_| true;
    let client = net.open();
    net.room(client, 50_000);
    net.input(client, &frame(0x82, &pattern(MIB)));
    net.audit().unwrap();
    assert!(net.core.shared.bytes_held >= MIB, "its echo waits");
    net.writable(client, usize::MAX);
    net.audit().unwrap();
    assert!(net.take(client).starts_with(&frame(0x82, &[])[..1]));
    net.eof(client);
    net.advance(secs(10));
    net.expect_spare(0);
    net.expect_empty();
}

/// What is inflated, or comes as it is beside that, is put together in spare buffers as well.
#[cfg(feature = "deflate")]
#[test]
fn a_session_with_an_extension_uses_it_too() {
    let limits = Limits::new().process_bytes(24 * MIB);
    let options = WebSockets::new().max_frame_size(4 * MIB).ping_period(None).limits(limits);
    let mut net = Net::new(options.extension(crate::extension::Deflate::new()));
    let client = net.accept();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    net.input(client, upgrade_request("/", offer).as_bytes());
    assert!(net.take(client).starts_with(b"HTTP/1.1 101 "));
    let message = frame(0x82, &pattern(MIB));
    let (begin, end) = message.split_at(200_000);
    net.input(client, begin);
    net.input(client, end);
    assert!(net.take(client).starts_with(b"\xc2"), "its echo is compressed");
    let kept = net.spare();
    assert!(kept >= MIB);
    net.input(client, begin);
    net.expect_spare(0);
    net.input(client, end);
    net.expect_spare(kept);
    net.advance(secs(6));
    net.expect_spare(0);
}

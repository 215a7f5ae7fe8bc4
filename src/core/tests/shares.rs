//! What one connection may cause in a turn: the rest of its input waits, and nothing of it is lost.

use super::*;

/// A share of this size is spent by few requests.
const SHARE: usize = 16 << 10;

fn with_small_shares() -> Net {
    Net::new(WebSockets::new().limits(Limits::new().read_budget_bytes(SHARE)))
}

impl Net {
    /// How many turns the loop takes until it would wait.
    fn turns_for(&mut self, client: LinkId, bytes: &[u8]) -> u64 {
        let before = self.core.stats().loop_turns;
        self.input(client, bytes);
        self.core.stats().loop_turns - before
    }
}

#[test]
fn pipelined_requests_beyond_a_share_are_answered_in_the_turns_that_follow() {
    let mut net = with_small_shares();
    let client = net.accept();
    let requests = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(400);
    let turns = net.turns_for(client, &requests);
    assert!(turns > 400 * 1_024 / SHARE as u64, "{turns} turns");
    let answers = net.take(client);
    let starts = answers.windows(15).filter(|bytes| bytes == b"HTTP/1.1 200 OK");
    assert_eq!(starts.count(), 400);
    assert_eq!(net.core.stats().requests_total, 400);
    net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(net.take(client).ends_with(b"page") && net.shut(client));
}

#[test]
fn a_session_begins_behind_requests_that_waited() {
    let mut net = with_small_shares();
    let client = net.accept();
    let mut bytes = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(50);
    bytes.extend_from_slice(upgrade_request("/", "").as_bytes());
    bytes.extend_from_slice(b"\x81\x85\0\0\0\0first\x81\x86\0\0\0\0second");
    net.input(client, &bytes);
    assert!(net.take(client).ends_with(b"\r\n\r\n\x81\x05first\x81\x06second"));
}

/// The peer has shut its side behind them: they are answered all the same.
#[test]
fn requests_that_wait_for_their_turn_are_answered_before_the_end_counts() {
    let mut net = with_small_shares();
    let client = net.accept();
    net.link(client).socket.room = 0; // the answers wait, so that the end comes first
    net.input(client, &b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100));
    net.eof(client);
    net.writable(client, usize::MAX);
    let answers = net.take(client);
    let starts = answers.windows(15).filter(|bytes| bytes == b"HTTP/1.1 200 OK");
    assert_eq!(starts.count(), 100);
    net.expect_empty();
}

#[test]
fn messages_that_make_much_of_little_wait_too() {
    let mut net = with_small_shares();
    let client = net.open();
    let turns = net.turns_for(client, &b"\x81\x83\0\0\0\0big".repeat(40));
    assert!(turns >= 40 / 2, "{turns} turns"); // 60,000 bytes each
    assert_eq!(net.take(client).len(), 40 * (60_000 + 4));
    net.text(client, "still there");
    assert!(net.take(client).ends_with(b"still there"));
    net.eof(client);
    net.expect_empty();
}

#[test]
fn a_newcomer_is_served_between_the_shares_of_others() {
    let mut net = with_small_shares();
    let flood: Vec<LinkId> = (0..30).map(|_| net.open()).collect();
    let honest = net.open();
    for &link in &flood {
        net.link(link).send(&b"\x81\x83\0\0\0\0big".repeat(20));
    }
    net.one_turn();
    net.link(honest).send(b"\x81\x85\0\0\0\0hello");
    net.one_turn();
    assert_eq!(net.take(honest), b"\x81\x05hello");
    let all = 20 * (60_000 + 4);
    assert!(flood.iter().all(|&link| net.link(link).socket.got.len() < all), "nobody is done");
    net.pump();
    assert!(flood.iter().all(|&link| net.take(link).len() == all), "everybody gets everything");
}

/// A machine that was suspended, or a hook that blocked, while requests waited with the server.
#[test]
fn requests_that_wait_for_their_turn_are_not_out_of_time() {
    let mut net = with_small_shares();
    let clients: Vec<LinkId> = (0..30).map(|_| net.accept()).collect();
    for &client in &clients {
        net.link(client).send(&b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100));
    }
    net.one_turn();
    net.jump(secs(100));
    for client in clients {
        let answers = net.take(client);
        let starts = answers.windows(15).filter(|bytes| bytes == b"HTTP/1.1 200 OK");
        assert_eq!(starts.count(), 100, "{}", String::from_utf8_lossy(&answers));
        net.input(client, b"GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(net.take(client).ends_with(b"page"), "still served");
    }
}

/// The same with pongs behind messages that have not been read, or not been taken.
#[test]
fn messages_that_wait_for_their_turn_are_not_out_of_time() {
    for count in [20, 100, 4_000] {
        let limits = Limits::new().read_budget_bytes(SHARE);
        let mut net = Net::new(WebSockets::new().ping_period(secs(15)).limits(limits));
        let clients: Vec<LinkId> = (0..30).map(|_| net.open()).collect();
        net.advance(secs(16));
        for &client in &clients {
            let told = net.take(client);
            let payload = told.strip_prefix(b"\x89\x08").expect("a ping");
            let mut bytes = b"\x81\x83\0\0\0\0big".repeat(10);
            bytes.extend(b"\x81\x80\0\0\0\0".repeat(count));
            bytes.extend(b"\x8a\x88\0\0\0\0");
            bytes.extend(payload);
            net.link(client).send(&bytes);
        }
        net.one_turn();
        net.jump(secs(49));
        for client in clients {
            assert!(net.take(client).len() >= 10 * (60_000 + 4) + 2 * count);
            net.text(client, "still there");
            assert!(net.take(client).ends_with(b"still there"), "{count} behind");
        }
    }
}

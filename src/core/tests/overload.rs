//! More who begin than there is room for: nobody is ended young, and one client pays for itself.

use super::admission::with;
use super::*;
use crate::words::limits::OVER_LIMIT_MAX;
use crate::words::proxy::ProxyHeader;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn few(pending: usize) -> Net {
    with(Limits::new().max_pending_handshakes(pending))
}

impl Net {
    /// Connects whether or not it is accepted.
    fn knock(&mut self, peer: &str) -> LinkId {
        self.connect(peer.parse().unwrap())
    }

    /// Whether its time is over. Whoever has sent nothing is hung up on without a word.
    fn is_ended(&mut self, link: LinkId) -> bool {
        let told = self.take(link);
        (told.is_empty() || told.starts_with(b"HTTP/1.1 408 ")) && self.shut(link)
    }

    fn is_served(&mut self, link: LinkId) -> bool {
        self.take(link).starts_with(b"HTTP/1.1 101 ")
    }
}

fn upgrade() -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n").into_bytes()
}

#[test]
fn over_the_pending_handshakes_the_oldest_goes() {
    let mut net = few(3);
    let mut waiting: Vec<LinkId> = Vec::new();
    for begun in [&b"GET"[..], b"", b""] {
        let link = net.accept();
        net.input(link, begun);
        waiting.push(link);
        net.advance(millis(100));
    }
    let late = net.accept();
    net.input(late, &upgrade());
    net.advance(millis(1_190));
    assert!(waiting.iter().all(|link| net.take(*link).is_empty()), "nobody is old enough");
    assert!(net.link(late).is_waiting() && !net.is_served(late));
    net.advance(millis(20));
    assert!(net.is_served(late), "what waited in the backlog is served");
    assert!(net.take(waiting[0]).starts_with(b"HTTP/1.1 408 "));
    assert!(net.shut(waiting.remove(0)));
    assert!(waiting.iter().all(|link| net.take(*link).is_empty()), "one goes for one that comes");
    net.text(late, "served");
    assert!(net.take(late).ends_with(b"served"));
}

/// An evicted connection was counted for ever: after enough of them every newcomer was evicted.
#[test]
fn evicted_handshakes_are_no_longer_counted() {
    let mut net = few(3);
    for _ in 0..10 {
        net.accept();
        net.advance(secs(2));
    }
    assert_eq!(net.core.connections.pending.count(), 3);
    net.advance(secs(20));
    net.expect_empty();
}

#[test]
fn one_client_with_many_pays_for_itself_and_slow_others_keep_their_time() {
    let mut net = few(10);
    let slow = net.knock("192.0.2.1:1"); // the oldest of all
    net.input(slow, b"GET / HTTP/1.1\r\nHo");
    net.advance(millis(100));
    let mut silent: Vec<LinkId> = (0..13).map(|_| net.knock("192.0.2.66:1")).collect();
    for round in 0..50 {
        let newcomer = net.knock("192.0.2.3:1");
        net.input(newcomer, &upgrade());
        let mut waited = 0;
        while !net.is_served(newcomer) {
            waited += 1;
            assert!(waited < 16, "round {round}: not in after 1.6 s");
            // Whoever is ended is back at once.
            for link in &mut silent {
                if net.is_ended(*link) {
                    net.eof(*link);
                    *link = net.knock("192.0.2.66:1");
                }
            }
            net.advance(millis(100));
        }
        net.eof(newcomer);
        if round == 5 {
            net.input(slow, b"st: h\r\n\r\n");
            assert!(net.take(slow).starts_with(b"HTTP/1.1 426 "), "it had its own time");
        }
    }
}

#[test]
fn a_herd_that_asks_a_second_later_is_all_let_in() {
    let mut net = few(16);
    let herd: Vec<LinkId> =
        (0..1_000).map(|n| net.knock(&format!("10.0.{}.{}:1", n / 250, n % 250))).collect();
    net.advance(millis(300));
    for quarter in herd.chunks(250) {
        for &link in quarter {
            net.input(link, &upgrade());
        }
        net.advance(millis(230));
    }
    assert!(herd.iter().all(|&link| net.is_served(link)));
}

#[test]
fn what_is_accepted_next_waits_for_the_time_of_the_first_and_the_loop_sleeps_until_then() {
    let mut net = few(2);
    net.knock("192.0.2.1:1");
    net.advance(millis(700));
    net.knock("192.0.2.2:1");
    let (began, late) = (net.now, net.knock("192.0.2.3:1"));
    let next = net.next_event().unwrap();
    assert_eq!(next.since(began), millis(800));
    net.advance(millis(800));
    assert!(net.link(late).is_open());
}

#[test]
fn a_place_that_becomes_free_is_taken_before_anybody_is_ended() {
    let mut net = few(2);
    let (gone, stays) = (net.knock("192.0.2.1:1"), net.knock("192.0.2.2:1"));
    let late = net.knock("192.0.2.3:1");
    net.eof(gone);
    assert!(net.link(late).is_open());
    net.advance(secs(2));
    assert!(net.take(stays).is_empty(), "there was room for all");
}

/// A balancer's connections are its clients' as soon as it has named them.
#[test]
fn behind_a_balancer_each_client_counts_for_itself() {
    let options = WebSockets::new().limits(Limits::new().max_pending_handshakes(4));
    let options = options.trusted_proxies(["10.0.0.0/8"]);
    let mut net = Net::new(options.proxy_header(ProxyHeader::ProxyProtocol));
    let knock = |net: &mut Net, client: &str| {
        let link = net.knock("10.0.0.1:1");
        net.input(link, format!("PROXY TCP4 {client} 10.0.0.9 1 80\r\n").as_bytes());
        link
    };
    let honest = knock(&mut net, "192.0.2.1"); // the oldest
    net.advance(millis(10));
    let mut silent: Vec<LinkId> = (0..3).map(|_| knock(&mut net, "192.0.2.66")).collect();
    for _ in 0..16 {
        // The one that comes is accepted as the balancer's, and named right after.
        silent.push(knock(&mut net, "192.0.2.66"));
        net.advance(millis(500));
    }
    assert!(net.take(honest).is_empty(), "it has its own time");
    assert!(silent.into_iter().filter(|&link| net.is_ended(link)).count() > 3);
}

/// Those whose head is awaited stand in the order of their coming, so that whoever is gone goes from the
/// list only with the first, or when there are too many.
#[test]
fn behind_a_slow_peer_those_who_left_are_forgotten() {
    let mut net = few(2);
    let slow = net.accept_from("192.0.2.1:1").unwrap();
    for _ in 0..100 {
        assert_eq!(net.status_from("192.0.2.2:1", ""), 426);
        assert!(
            net.core.connections.pending.listed() <= 2 * 2 + OVER_LIMIT_MAX,
            "{}",
            net.core.connections.pending.listed()
        );
    }
    assert_eq!(net.ask(slow, UPGRADE), 101);
    net.end_all();
}

#[test]
fn who_is_only_to_be_told_that_it_is_full_holds_no_place_for_long() {
    let mut net = with(Limits::new().max_connections(1));
    let session = net.open();
    let silent: Vec<LinkId> = (0..OVER_LIMIT_MAX).map(|_| net.accept()).collect();
    let late = net.accept();
    net.input(late, &upgrade());
    assert!(net.link(late).is_waiting());
    net.advance(millis(1_600));
    for &link in &silent {
        net.eof(link);
    }
    let answer = String::from_utf8(net.take(late)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
    net.text(session, "served");
    assert!(net.take(session).ends_with(b"served"));
}

/// Places of timers that are over stayed for ever, with the room of the most there ever were.
#[test]
fn a_burst_of_timers_is_given_back_while_others_go_on() {
    let mut net = Net::new(WebSockets::new());
    net.open(); // its pings stay on the wheel
    let fired = Rc::new(std::cell::Cell::new(0));
    for round in 1..=3 {
        net.run(|server| {
            server.every(Duration::from_secs(3_600), |_| ()).unwrap();
            for n in 0..20_000_u64 {
                let fired = Rc::clone(&fired);
                let timer = server.after(Duration::from_millis(1 + n % 900), move |_| {
                    fired.set(fired.get() + 1);
                });
                if n % 2 == 0 {
                    server.cancel_timer(timer.unwrap());
                }
            }
        });
        net.advance(secs(60));
        assert_eq!(fired.get(), round * 10_000);
        let held = net.core.shared.timers.running_slots();
        assert!(held <= 64 * round, "places for {held}");
    }
}

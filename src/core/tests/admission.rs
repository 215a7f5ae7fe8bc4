//! Who is let in: limits for each client, rates, and who the client is behind a proxy.

use super::*;
use crate::core::arrivals::Full;
use crate::protocol::proxy_protocol::tests::v2;
use crate::words::limits::CLIENTS_MAX;
use crate::words::proxy::ProxyHeader;
use crate::words::rate::Rate;

impl Net {
    pub(super) fn accept_from(&mut self, peer: &str) -> Result<LinkId, Full> {
        let client = self.connect(peer.parse().unwrap());
        if self.link(client).is_open() { Ok(client) } else { Err(Full) }
    }

    /// The status that a request with these headers gets, on a connection that is there.
    pub(super) fn ask(&mut self, index: LinkId, headers: &str) -> u16 {
        self.input(index, format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes());
        let got = String::from_utf8_lossy(&self.take(index)).into_owned();
        got.split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
    }

    /// The same on a connection of its own, which is given up unless it became a session.
    pub(super) fn status_from(&mut self, peer: &str, headers: &str) -> u16 {
        let Ok(index) = self.accept_from(peer) else { return 0 };
        let status = self.ask(index, headers);
        if status != 101 {
            self.eof(index);
        }
        status
    }

    pub(super) fn upgrade_from(&mut self, peer: &str) -> u16 {
        self.status_from(peer, UPGRADE)
    }

    pub(super) fn end_all(&mut self) {
        (0..self.link_count()).for_each(|client| self.eof(client));
        self.expect_empty();
        assert!(self.core.connections.admission.is_empty(), "a client is still counted");
    }
}

pub(super) fn with(limits: Limits) -> Net {
    Net::new(WebSockets::new().limits(limits))
}

#[test]
fn one_address_has_so_many_connections_and_others_have_theirs() {
    let mut net = with(Limits::new().per_address(2));
    assert_eq!(net.upgrade_from("192.0.2.1:1"), 101);
    assert_eq!(net.upgrade_from("192.0.2.1:2"), 101);
    assert_eq!(net.upgrade_from("192.0.2.1:3"), 429);
    assert_eq!(net.upgrade_from("192.0.2.2:1"), 101);
    // Those that only wait to be told 429 have a limit too.
    let told: Vec<_> = (0..10).map(|_| net.accept_from("192.0.2.1:9")).collect();
    assert_eq!(told.iter().filter(|result| result.is_ok()).count(), 4);
    assert_eq!(net.core.stats().refused_address, 1 + 6);
    // A place that becomes free is free.
    net.eof(0);
    told.into_iter().flatten().for_each(|index| net.eof(index));
    assert_eq!(net.upgrade_from("192.0.2.1:4"), 101);
    assert_eq!(net.upgrade_from("192.0.2.1:5"), 429);
    net.end_all();
}

#[test]
fn a_64_of_ipv6_is_one_client() {
    let mut net = with(Limits::new().per_address(1));
    assert_eq!(net.upgrade_from("[2001:db8::1]:1"), 101);
    assert_eq!(net.upgrade_from("[2001:db8::2]:1"), 429);
    assert_eq!(net.upgrade_from("[2001:db8:0:1::2]:1"), 101);
    assert_eq!(net.upgrade_from("0.0.0.0:0"), 101); // a Unix socket's peer
    assert_eq!(net.upgrade_from("0.0.0.0:0"), 101);
    net.end_all();
}

#[test]
fn devices_of_a_private_network_are_clients_of_their_own() {
    let mut net = with(Limits::new().per_address(1));
    for n in 1..=25 {
        assert_eq!(net.upgrade_from(&format!("[fd00::{n:x}]:1")), 101);
        assert_eq!(net.upgrade_from(&format!("[fe80::{n:x}%2]:1")), 101);
    }
    assert_eq!(net.upgrade_from("[fd00::1]:2"), 429);
    assert_eq!(net.upgrade_from("[::ffff:192.0.2.1]:1"), 101);
    assert_eq!(net.upgrade_from("192.0.2.1:2"), 429, "one address, whatever its form");
    net.end_all();
}

#[test]
fn requests_have_a_rate_for_each_client() {
    let mut net = with(Limits::new().handshake_rate(Rate::per_minute(6).burst(2)));
    let one = "192.0.2.1:1";
    let statuses: Vec<u16> = (0..4).map(|_| net.upgrade_from(one)).collect();
    assert_eq!(statuses, [101, 101, 429, 429]);
    assert_eq!(net.upgrade_from("192.0.2.2:1"), 101);
    net.advance(Duration::from_millis(9_900));
    assert_eq!(net.upgrade_from(one), 429);
    net.advance(Duration::from_millis(200));
    assert_eq!(net.upgrade_from(one), 101);
    assert_eq!(net.upgrade_from(one), 429);
    let index = net.accept_from(one).unwrap();
    net.input(index, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = String::from_utf8(net.take(index)).unwrap();
    assert!(answer.contains("\r\nRetry-After: 10\r\n"), "{answer}");
    assert_eq!(net.core.stats().refused_rate, 5);
}

/// Whoever comes last is held to the rate, however many came before: who has been silent for longest is
/// forgotten for it.
#[test]
fn the_table_of_rates_is_bounded_and_forgets_the_oldest() {
    let mut net = with(Limits::new().handshake_rate(Rate::per_second(1)));
    let at = |n: usize| format!("10.{}.{}.{}:1", n >> 16, n >> 8 & 255, n & 255);
    for n in 0..CLIENTS_MAX + 500 {
        assert_eq!(net.status_from(&at(n), ""), 426);
        assert_eq!(net.status_from(&at(n), ""), 429, "newcomer {n} is not held to it");
        assert!(net.core.connections.admission.buckets() <= CLIENTS_MAX);
    }
    for n in CLIENTS_MAX + 500 - CLIENTS_MAX / 2..CLIENTS_MAX + 500 {
        assert_eq!(net.status_from(&at(n), ""), 429, "{n} asked lately");
    }
    net.advance(secs(2));
    assert_eq!(net.status_from(&at(CLIENTS_MAX), ""), 426);
    assert_eq!(net.core.connections.admission.buckets(), 1, "full buckets are thrown out");
}

#[test]
fn many_64s_do_not_open_the_door_to_others() {
    let mut net = with(Limits::new().handshake_rate(Rate::per_minute(10).burst(3)));
    let honest = "192.0.2.1:1";
    let statuses: Vec<u16> = (0..4).map(|_| net.status_from(honest, "")).collect();
    assert_eq!(statuses, [426, 426, 426, 429]);
    for n in 0..4_200 {
        net.status_from(&format!("[2001:db8:{:x}:{:x}::1]:1", n >> 8, n & 255), "");
        if n % 100 == 0 {
            assert_eq!(net.status_from(honest, ""), 429, "who goes on asking is not forgotten");
        }
    }
    let newcomer = "[2001:db8:ffff::1]:1";
    let statuses: Vec<u16> = (0..4).map(|_| net.status_from(newcomer, "")).collect();
    assert_eq!(statuses, [426, 426, 426, 429]);
}

#[test]
fn without_the_limits_nothing_is_kept() {
    let mut net = with(Limits::new());
    for _ in 0..50 {
        assert_eq!(net.upgrade_from("192.0.2.1:1"), 101);
    }
    assert!(net.core.connections.admission.is_empty());
    assert_eq!(net.core.connections.admission.buckets(), 0);
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let limits = Limits::new().per_address(1);
    let mut net = Net::new(WebSockets::new().limits(limits).trusted_proxies(["10.0.0.0/8"]));
    let behind = |client: &str| format!("X-Forwarded-For: {client}\r\n{UPGRADE}");
    assert_eq!(net.status_from("10.0.0.1:1", &behind("192.0.2.1")), 101);
    assert_eq!(net.status_from("10.0.0.1:2", &behind("192.0.2.2")), 101);
    assert_eq!(net.status_from("10.0.0.1:3", &behind("9.9.9.9, 192.0.2.1")), 429, "spoofed left");
    assert_eq!(net.status_from("10.0.0.2:1", &behind("192.0.2.1, 10.0.0.7")), 429);
    // The proxy itself is not counted, however often it asks.
    for _ in 0..5 {
        assert_eq!(net.status_from("10.0.0.1:4", UPGRADE), 101);
    }
    // Others are who they are, whatever they write.
    assert_eq!(net.status_from("192.0.2.9:1", &behind("1.2.3.4")), 101);
    assert_eq!(net.status_from("192.0.2.9:2", &behind("5.6.7.8")), 429);
    net.end_all();
}

#[test]
fn one_connection_of_a_proxy_carries_the_requests_of_many() {
    let limits = Limits::new().per_address(1).handshake_rate(Rate::per_minute(2));
    let mut net = Net::new(WebSockets::new().limits(limits).trusted_proxies(["10.0.0.1"]));
    let proxy = net.accept_from("10.0.0.1:1").unwrap();
    for _ in 0..2 {
        assert_eq!(net.ask(proxy, "X-Forwarded-For: 192.0.2.1\r\n"), 426);
    }
    assert_eq!(net.ask(proxy, "X-Forwarded-For: 192.0.2.1\r\n"), 429);
    assert_eq!(net.ask(proxy, "X-Forwarded-For: 192.0.2.2\r\n"), 426, "still usable for others");
    let headers = format!("X-Forwarded-For: 192.0.2.2\r\n{UPGRADE}");
    assert_eq!(net.ask(proxy, &headers), 101);
    assert_eq!(net.upgrade_from("192.0.2.2:1"), 429, "it counts where it comes from");
    net.end_all();
}

fn behind_balancer() -> Net {
    let options = WebSockets::new().limits(Limits::new().per_address(1));
    let options = options.trusted_proxies(["10.0.0.0/8"]);
    Net::new(options.proxy_header(ProxyHeader::ProxyProtocol))
}

const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 0, 80];

#[test]
fn a_proxy_header_in_any_pieces_names_the_client() {
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n");
    for header in [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\n".to_vec(),
        v2(0x21, 0x11, &[&V4[..], b"\x04\x00\x02tl"].concat()),
    ] {
        let bytes = [&header[..], request.as_bytes()].concat();
        for size in [1, 7, bytes.len()] {
            let mut net = behind_balancer();
            let index = net.accept_from("10.0.0.1:1").unwrap();
            bytes.chunks(size).for_each(|chunk| net.input(index, chunk));
            assert!(net.take(index).starts_with(b"HTTP/1.1 101 "), "chunks of {size}");
            let again = net.accept_from("10.0.0.1:2").unwrap();
            net.input(again, &bytes);
            assert!(net.take(again).starts_with(b"HTTP/1.1 429 "), "it counts for the client");
            assert_eq!(net.upgrade_from("192.0.2.1:9"), 429);
            net.end_all();
        }
    }
}

/// The four that are told have a short time to ask, further ones are hung up on: as without a proxy.
#[test]
fn behind_a_proxy_header_further_ones_are_hung_up_on_too() {
    let mut net = behind_balancer();
    let ends: Vec<LinkId> = (0..8)
        .map(|_| {
            let index = net.accept_from("10.0.0.1:1").unwrap();
            net.input(index, b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\n");
            index
        })
        .collect();
    let gone: Vec<bool> = ends.iter().map(|&index| net.gone(index).is_some()).collect();
    assert_eq!(gone, [false, false, false, false, false, true, true, true]);
    assert_eq!(net.core.stats().refused_address, 3);
    assert_eq!(net.ask(ends[1], UPGRADE), 429);
    net.advance(secs(2)); // min_pending_age is 1.5 s
    let shut: Vec<bool> = ends[..5].iter().map(|&index| net.shut(index)).collect();
    assert_eq!(shut, [false, true, true, true, true]);
    assert_eq!(net.ask(ends[0], UPGRADE), 101);
    net.end_all();
}

/// Who is not named does not get the rights of the proxy, and cannot give itself a name.
#[test]
fn a_proxy_header_that_names_nobody_speaks_for_somebody_unknown() {
    let mut unix = [0; 216];
    unix[0] = b'/';
    let nowhere = [0, 0, 0, 0, 192, 0, 2, 2, 1, 2, 0, 80];
    let headers = [
        v2(0x20, 0, b""),         // LOCAL
        v2(0x20, 0x11, &V4),      // LOCAL, whatever it carries
        v2(0x21, 0, b""),         // UNSPEC
        v2(0x21, 0x31, &unix),    // Unix
        v2(0x21, 0x12, &V4),      // a datagram
        v2(0x21, 0x11, &nowhere), // 0.0.0.0
        v2(0x21, 0x21, &[0; 36]), // ::
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 127.0.0.1 \xff\xfe 1 2\r\n".to_vec(),
        b"PROXY TCP4 0.0.0.0 192.0.2.2 1 2\r\n".to_vec(),
        b"PROXY TCP6 :: ::1 1 2\r\n".to_vec(),
    ];
    let forged = format!("X-Forwarded-For: 192.0.2.9\r\nForwarded: for=192.0.2.9\r\n{UPGRADE}");
    for header in &headers {
        let mut net = behind_balancer();
        let index = net.accept_from("10.0.0.1:1").unwrap();
        net.input(index, header);
        assert_eq!(net.ask(index, &forged), 101, "{header:?}");
        // They are one client, whatever they write and however they came.
        for other in &headers {
            let index = net.accept_from("10.0.0.1:2").unwrap();
            net.input(index, other);
            assert_eq!(net.ask(index, &forged), 429, "{header:?} and {other:?}");
            net.eof(index);
        }
        assert_eq!(net.upgrade_from("192.0.2.9:1"), 101, "whom they named has its place");
        net.end_all();
    }
}

#[test]
fn a_header_that_names_nobody_speaks_for_somebody_unknown() {
    for (header, name) in [
        (ProxyHeader::XForwardedFor, "X-Forwarded-For: "),
        (ProxyHeader::Forwarded, "Forwarded: for="),
    ] {
        let limits = Limits::new().per_address(1);
        let options = WebSockets::new().limits(limits).trusted_proxies(["10.0.0.0/8", "unix"]);
        let mut net = Net::new(options.proxy_header(header));
        let as_named = |client: &str| format!("{name}{client}\r\n{UPGRADE}");
        assert_eq!(net.status_from("10.0.0.1:1", &as_named("0.0.0.0")), 101);
        for nobody in ["0.0.0.0", "\"[::]:1\"", "unknown", "_hidden", "unix:", "300.1.1.1", ""] {
            assert_eq!(net.status_from("10.0.0.1:2", &as_named(nobody)), 429, "{name}{nobody}");
            assert_eq!(net.status_from("0.0.0.0:0", &as_named(nobody)), 429, "{name}{nobody}");
        }
        // A proxy without the header speaks for itself.
        for proxy in ["10.0.0.1:3", "0.0.0.0:0"] {
            assert_eq!(net.status_from(proxy, UPGRADE), 101);
            assert_eq!(net.status_from(proxy, UPGRADE), 101);
        }
        net.end_all();
    }
}

/// On one connection of a proxy: somebody unknown, the proxy itself, somebody known.
#[test]
fn one_connection_of_a_unix_proxy_speaks_for_many() {
    let limits = Limits::new().handshake_rate(Rate::per_minute(1));
    let options = WebSockets::new().limits(limits).trusted_proxies(["unix"]);
    let mut net = Net::new(options);
    let proxy = net.accept_from("0.0.0.0:0").unwrap();
    assert_eq!(net.ask(proxy, "X-Forwarded-For: unknown\r\n"), 426);
    assert_eq!(net.ask(proxy, "X-Forwarded-For: unknown\r\n"), 429);
    for _ in 0..3 {
        assert_eq!(net.ask(proxy, ""), 426, "its own checks are not counted");
    }
    assert_eq!(net.ask(proxy, "X-Forwarded-For: 192.0.2.1\r\n"), 426);
    assert_eq!(net.ask(proxy, "X-Forwarded-For: 192.0.2.1\r\n"), 429);
    assert_eq!(net.ask(proxy, "X-Forwarded-For: 0.0.0.0\r\n"), 429);
}

#[test]
fn a_proxy_header_is_for_trusted_proxies_and_they_must_send_one() {
    let mut net = behind_balancer();
    assert_eq!(net.status_from("10.0.0.1:1", UPGRADE), 400, "no header");
    let stranger = net.accept_from("192.0.2.9:1").unwrap();
    net.input(stranger, b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n");
    assert!(net.take(stranger).starts_with(b"HTTP/1.1 400 "));
    assert_eq!(net.upgrade_from("192.0.2.8:1"), 101, "strangers come without one");
    // The client of a TCP proxy writes what it likes into its headers.
    let index = net.accept_from("10.0.0.1:2").unwrap();
    net.input(index, &v2(0x21, 0x11, &V4));
    assert_eq!(net.ask(index, &format!("X-Forwarded-For: 192.0.2.8\r\n{UPGRADE}")), 101);
    assert_eq!(net.upgrade_from("192.0.2.1:1"), 429);
    // One header counts, and this is not it, even where it names a proxy.
    for _ in 0..2 {
        let index = net.accept_from("10.0.0.1:3").unwrap();
        net.input(index, b"PROXY TCP4 10.0.0.7 10.0.0.1 1 2\r\n");
        assert_eq!(net.ask(index, &format!("X-Forwarded-For: 192.0.2.8\r\n{UPGRADE}")), 101);
    }
    // An endless one is cut off by its time, as any head is.
    let slow = net.accept_from("10.0.0.1:4").unwrap();
    net.input(slow, b"PROXY ");
    net.advance(secs(11));
    assert!(net.take(slow).starts_with(b"HTTP/1.1 408 "));
}

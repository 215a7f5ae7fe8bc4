//! The entry points of the fuzzer (`fuzz/`): one function a target, which panics at a finding. Only there
//! with `--cfg fuzzing` and in this crate's own tests, which replay the corpora.
#![allow(missing_docs, reason = "for the targets in fuzz/, not for users")]

#[cfg(feature = "deflate")]
mod compressed;

use std::net::IpAddr;
#[cfg(all(feature = "tls", feature = "client"))]
use std::time::Duration;

use crate::app::pattern::{BETWEEN_PIECES, Pattern, path_segments};
use crate::protocol::extension::header::{ExtensionOffer, offered_extensions};
use crate::protocol::forwarded::{Client, read_forwarded, read_x_forwarded};
use crate::protocol::frame::Masking;
use crate::protocol::handshake::{self, Upgrade};
use crate::protocol::head::{HeadLimits, HeadStatus, RequestHead, parse_head};
use crate::protocol::oracle::bodies::check_body;
use crate::protocol::oracle::{OracleRules, compare, compare_head};
use crate::protocol::origin::{Authority, Origin};
use crate::protocol::proxy_protocol::{ProxyStart, parse_proxy_header};
use crate::protocol::target::is_authority;
use crate::structures::wheel_model::{Operation, agrees_with_a_map};
#[cfg(feature = "client")]
use crate::testing::far_answers;
#[cfg(feature = "tls")]
use crate::testing::network::tls_peer::{BothEnds, TlsPeer};
use crate::testing::simulation;
use crate::testing::simulation::choices::Choices;
#[cfg(feature = "tls")]
use crate::transport::tls::engine::{Ending, Engine, RECORD_MAX, Scratch};
#[cfg(all(feature = "tls", feature = "client"))]
use crate::{
    testing::network::tls_peer::{AUTHORITY, FarTls},
    transport::tls::connector::{TlsConnectors, TlsStart},
    words::tls_client::{ClientTlsOptions, Roots},
};

/// A target: the name that its file in `fuzz/fuzz_targets` has, and what it does.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("head", head),
    ("frames", frames),
    ("extensions", extensions),
    ("bodies", bodies),
    ("routes", routes),
    ("proxy", proxy),
    ("wheel", wheel),
    ("core", core),
    #[cfg(feature = "tls")]
    ("tls", tls),
    #[cfg(all(feature = "tls", feature = "client"))]
    ("dialled_tls", dialled_tls),
    #[cfg(feature = "client")]
    ("answers", answers),
    #[cfg(feature = "deflate")]
    ("deflate", deflate),
];

#[track_caller]
fn found(result: Result<(), String>) {
    if let Err(what) = result {
        panic!("{what}");
    }
}

/// Where to cut, then what is cut: a count, so many places of two bytes, the rest.
fn cuts(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return (Vec::new(), data) };
    let (cuts, rest) = rest.split_at(rest.len().min(2 * usize::from(count % 16)));
    let cuts = cuts.chunks_exact(2).map(|two| usize::from(two[0]) << 8 | usize::from(two[1]));
    (cuts.collect(), rest)
}

/// Request heads: cutting changes nothing, and what is read of one can be asked for and is what was sent.
pub fn head(data: &[u8]) {
    let (cuts, bytes) = cuts(data);
    found(compare_head(bytes, &cuts));
    let Some((head, length)) = whole_head(bytes) else { return };
    let sent = &bytes[..length];
    assert!(
        !sent.starts_with(b"\n") && !sent.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r')
    );
    // One host at most, and one that can be one; a target that is a path where there are paths.
    let hosts: Vec<&str> = head.all("host").collect();
    assert!(
        hosts.len() <= 1 && hosts.iter().all(|host| is_authority(host.as_bytes())),
        "{hosts:?}"
    );
    let (method, target) = (head.method(), head.target());
    assert!(target.starts_with('/') || method == "CONNECT" || (method, target) == ("OPTIONS", "*"));
    assert!(!target.contains('#'), "{target:?}");
    for (name, _) in head.lines().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        for value in head.all_bytes(name) {
            let found = value.is_empty() || sent.windows(value.len()).any(|window| window == value);
            assert!(found, "{name}: {value:02x?} was not sent");
        }
    }
    let upgrade = handshake::examine(&head);
    assert!(
        (method == "GET" && head.minor_version > 0) || !matches!(upgrade, Upgrade::WebSocket(_))
    );
    offered_extensions(&head);
    read_forwarded(&head, |address| address.is_loopback());
    read_x_forwarded(&head, |address| address.is_loopback());
    path_segments(target);
}

fn whole_head(bytes: &[u8]) -> Option<(RequestHead, usize)> {
    let limits = HeadLimits { max_bytes: 8 << 10, max_lines: 64 };
    match parse_head(bytes, &limits, &mut 0) {
        Ok(HeadStatus::Complete { head, length }) => {
            assert!(length <= bytes.len());
            Some((head, length))
        }
        Ok(HeadStatus::Partial) | Err(_) => None,
    }
}

/// Frames, through the reader of messages and the one of frames, against tungstenite: a byte of rules,
/// cuts, the stream.
pub fn frames(data: &[u8]) {
    let Some((&rules, data)) = data.split_first() else { return };
    let (cuts, bytes) = cuts(data);
    let rules = OracleRules {
        max_frame_size: [125, 300, 1_000, 70_000][usize::from(rules & 3)],
        max_message_size: [1, 125, 700, 70_000][usize::from(rules >> 2 & 3)],
        masking: [Masking::Required, Masking::Optional, Masking::Forbidden, Masking::Required]
            [usize::from(rules >> 4 & 3)],
    };
    found(compare(bytes, &cuts, rules).map(|_| ()));
}

/// `Sec-WebSocket-Extensions`: what is offered, written again, is offered the same.
pub fn extensions(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    if value.contains(['\r', '\n']) || value.len() > 1_000 {
        return;
    }
    let Some(offers) = offers_of(value) else { return };
    let mut again = Vec::new();
    for offer in &offers {
        let parameters = offer.parameters().map(|(name, value)| match value {
            Some(value) => format!("; {name}=\"{value}\""),
            None => format!("; {name}"),
        });
        again.push(format!("{}{}", offer.name(), parameters.collect::<String>()));
    }
    assert_eq!(offers_of(&again.join(" , ")).as_ref(), Some(&offers), "{value:?}");
}

fn offers_of(value: &str) -> Option<Vec<ExtensionOffer>> {
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Extensions: {value}\r\n\r\n");
    whole_head(text.as_bytes()).and_then(|(head, _)| offered_extensions(&head))
}

/// Compressed messages: a byte of options, cuts, and what is inflated, whole and in pieces.
#[cfg(feature = "deflate")]
pub fn deflate(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let (cuts, bytes) = cuts(data);
    match offers_of("permessage-deflate; client_max_window_bits").as_deref() {
        Some([offer]) => compressed::check(options, bytes, &cuts, offer),
        _ => panic!("a plain offer is understood"),
    }
}

/// Bodies: a byte of options, cuts, the bytes that follow a head.
pub fn bodies(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let (cuts, bytes) = cuts(data);
    check_body(options, bytes, &cuts);
}

/// A path in the first line, patterns in the others.
pub fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let path = lines.next().unwrap_or_default();
    let Some(segments) = path_segments(path) else { return };
    let patterns: Vec<Pattern> = lines.filter_map(|line| Pattern::parse(line).ok()).collect();
    let fits: Vec<_> = patterns.iter().filter_map(|pattern| pattern.fit(&segments)).collect();
    for (one, other) in fits.iter().zip(fits.iter().skip(1)) {
        assert_eq!(one.compare(other), other.compare(one).reverse(), "{text:?}");
    }
    for fit in &fits {
        assert!(fit.compare(fit).is_eq());
        for (name, value) in &fit.parameters {
            for piece in value.split(BETWEEN_PIECES) {
                let taken = segments.iter().any(|segment| segment.contains(piece));
                assert!(taken, "{name} has {piece:?}, which the path does not have: {text:?}");
            }
        }
    }
}

/// PROXY headers: what is complete stays the same with more bytes behind it, and what is bad is bad
/// with less or more.
pub fn proxy(data: &[u8]) {
    const MAX: usize = 536;
    let whole = parse_proxy_header(data, MAX);
    for end in 0..data.len().min(2 * MAX) {
        match parse_proxy_header(&data[..end], MAX) {
            Ok(ProxyStart::Partial) => {}
            Ok(ProxyStart::Complete { length, .. }) => {
                assert!(length <= end);
                assert_eq!(parse_proxy_header(&data[..end], MAX), whole);
            }
            Err(_) => assert!(whole.is_err()),
        }
    }
    headers_of_proxies(&String::from_utf8_lossy(data));
}

/// The same bytes as the values of headers: nobody is a client without an address, or named by the wrong
/// header, and what is named as a host is one.
fn headers_of_proxies(text: &str) {
    let value: String = text.chars().filter(|letter| !letter.is_control()).take(500).collect();
    let is_trusted = |address: IpAddr| address.is_loopback();
    for name in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Origin"] {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\n\r\n");
        let Some((head, _)) = whole_head(text.as_bytes()) else { continue };
        let said = (read_forwarded(&head, is_trusted), read_x_forwarded(&head, is_trusted));
        for (said, own) in [(said.0, "Forwarded"), (said.1, "X-Forwarded-For")] {
            match said.client {
                Client::Known(address) => assert!(!address.ip().is_unspecified()),
                Client::Unknown => {}
                Client::Proxy => assert_ne!(name, own),
            }
            assert!(name == own || said.client == Client::Proxy);
            assert!(said.host.is_none_or(|host| Authority::parse(host).is_some()));
        }
        let own = Authority::parse(&value).filter(|own| own.port.is_none());
        if let Some(Origin::Of { authority, .. }) = Origin::parse(&format!("http://{value}")) {
            // What stands in both lines is the same host, however it is spelled.
            assert!(own.is_none_or(|own| own.host.is_same(&authority.host)));
        }
    }
}

/// Wheel operations against a sorted map, three bytes each.
pub fn wheel(data: &[u8]) {
    let operations = data.chunks_exact(3).map(|three| {
        let number = u64::from(three[1]) << 8 | u64::from(three[2]);
        let pick = usize::from(three[2]);
        match three[0] % 8 {
            0..=2 => Operation::Arm(number),
            3 => Operation::Cancel(pick),
            4 => Operation::Rearm(pick, u64::from(three[1]) << 4),
            5 => Operation::Advance(number),
            6 => Operation::GiveBack,
            _ => Operation::Advance(u64::from(three[2])),
        }
    });
    found(agrees_with_a_map(operations));
}

/// Operations on the core, as the simulator does them: every choice comes from the bytes.
pub fn core(data: &[u8]) {
    if let Err(failure) = simulation::run(Choices::from_bytes(data)) {
        panic!("step {}: {}\n{}", failure.step, failure.what, failure.trail.join("\n"));
    }
}

/// A client's records, changed on the way by steps of four bytes: what to do, where, with which byte. What
/// arrives is what was sent, up to where it was changed.
#[cfg(feature = "tls")]
pub fn tls(data: &[u8]) {
    thread_local!(static ENDS: BothEnds = BothEnds::new(512));
    ENDS.with(|ends| {
        let Some(engine) = ends.acceptor.engine() else { return };
        let mut far = TlsPeer::new(ends);
        let way = far.seal(b"");
        Tunnel::new(far, way, engine).run(data);
    });
}

/// The same of a server's records, on their way to us who have dialled it.
#[cfg(all(feature = "tls", feature = "client"))]
pub fn dialled_tls(data: &[u8]) {
    thread_local!(static SERVER: FarTls = FarTls::new());
    let roots = Roots::pem(AUTHORITY);
    let options = ClientTlsOptions { roots: Some(roots), ..ClientTlsOptions::default() };
    let connector = TlsConnectors::default().find(&options).unwrap();
    let start = TlsStart::new(connector, "small.example").unwrap();
    let mut engine = start.engine(Some(Duration::from_secs(1_700_000_000))).unwrap();
    let mut far = SERVER.with(TlsPeer::server);
    let mut hello = Scratch::default();
    engine.open(&mut [], &mut [], &mut hello);
    far.arrived.extend_from_slice(hello.as_slice());
    let way = far.open(&mut Vec::new());
    Tunnel::new(far, way, engine).run(data);
}

/// What a server that is dialled sends before its answer and after it: a byte of rules, cuts, the bytes.
#[cfg(feature = "client")]
pub fn answers(data: &[u8]) {
    let Some((&rules, data)) = data.split_first() else { return };
    let (cuts, bytes) = cuts(data);
    found(far_answers::compare(rules, &cuts, bytes));
}

/// Both ends of TLS, and what is between them.
#[cfg(feature = "tls")]
struct Tunnel {
    far: TlsPeer,
    /// The far end has said that nothing more comes.
    is_ended: bool,
    /// On the way from there to the engine.
    way: Vec<u8>,
    engine: Engine,
    /// What has come to the engine and is not done with.
    held: Vec<u8>,
    arrived: Vec<u8>,
}

#[cfg(feature = "tls")]
impl Tunnel {
    fn new(far: TlsPeer, way: Vec<u8>, engine: Engine) -> Self {
        Self { far, is_ended: false, way, engine, held: Vec::new(), arrived: Vec::new() }
    }

    fn run(mut self, data: &[u8]) {
        let mut sent = Vec::new();
        for step in data.chunks_exact(4).take(200) {
            let number = usize::from(step[1]) << 8 | usize::from(step[2]);
            match step[0] % 8 {
                0 | 1 => self.change(step[0] & 15, number, step[3]),
                2 => {
                    let plain = vec![step[3]; number % 20_000];
                    sent.extend_from_slice(&plain);
                    self.way.extend(self.far.seal(&plain));
                }
                3 => {
                    self.way.extend(self.far.seal_end());
                    self.is_ended = true;
                }
                4 => {
                    if self.deliver(number) {
                        break;
                    }
                }
                _ => {
                    if self.deliver(usize::MAX) {
                        break;
                    }
                }
            }
        }
        assert!(sent.starts_with(&self.arrived), "other bytes than were sent");
    }

    /// Changes a byte on the way, cuts some out, doubles some or puts some in.
    fn change(&mut self, how: u8, number: usize, byte: u8) {
        let place = number % self.way.len().max(1);
        let end = place.saturating_add(usize::from(byte)).min(self.way.len());
        match how / 4 {
            0 => self.way.iter_mut().skip(place).take(1).for_each(|it| *it ^= byte),
            1 => drop(self.way.drain(place..end)),
            2 => {
                let doubled = self.way[place..end].to_vec();
                self.way.splice(place..place, doubled).for_each(drop);
            }
            _ => self.way.splice(place..place, [0x16, 3, byte, 0, byte]).for_each(drop),
        }
    }

    /// Brings so many bytes to the engine, and its answers back: whether that was the end.
    fn deliver(&mut self, most: usize) -> bool {
        let count = most.min(self.way.len());
        self.held.extend(self.way.drain(..count));
        let mut plain = vec![0; self.held.len()];
        let mut answers = Scratch::default();
        let opened = self.engine.open(&mut self.held, &mut plain, &mut answers);
        assert!(opened.used <= self.held.len() && opened.plain <= plain.len());
        self.held.drain(..opened.used);
        self.arrived.extend_from_slice(&plain[..opened.plain]);
        // rustls asserts that no alert is due behind its end: whatever comes there is dropped.
        if !self.is_ended {
            self.far.arrived.extend_from_slice(answers.as_slice());
            self.way.extend(self.far.open(&mut Vec::new()));
        }
        match opened.ending {
            Some(Ending::Failed(why)) => {
                assert_ne!(why.to_string(), "rustls panicked");
                true
            }
            Some(_) => true,
            // A message of a handshake may be in many records.
            None => {
                assert!(
                    self.held.len() <= (64 << 10) + 2 * RECORD_MAX,
                    "{} bytes held",
                    self.held.len()
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frames::masked;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn folder(kind: &str, target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// A step of the targets of TLS in which what is next arrives as it is.
    const NEXT: [u8; 4] = [5, 0, 0, 0];

    /// What each target starts from.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let upgrade = b"GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
            Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        match target {
            "head" => vec![
                [b"\x02\x00\x03\x00\x20", &upgrade[..]].concat(),
                b"\x00POST /x HTTP/1.0\nContent-Length: 3\n\nabc".to_vec(),
                b"\x01\x00\x09GET / HTTP/2.0\r\n\r\n".to_vec(),
                b"\x00OPTIONS * HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                b"\x01\x00\x0aGET wss://h:1?a=/b#c HTTP/1.1\r\nHost: [::1]\r\nX: caf\xe9\r\n\r\n".to_vec(),
                b"\x00POST /x HTTP/1.2\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
                    .to_vec(),
            ],
            "frames" => vec![
                [&[0, 2, 0, 1, 0, 9][..], &masked(0x81, "κόσμε".as_bytes())].concat(),
                [&[1, 0][..], &masked(0x01, b"\xce"), &masked(0x89, b"p"), &masked(0x80, b"\xba")]
                    .concat(),
                [&[0, 0][..], &masked(0x88, b"\x03\xe8bye")].concat(),
                [&[7, 1, 0, 5][..], &masked(0x82, &[7; 300])].concat(),
                [&[16, 0][..], b"\x81\x02ab\x82\x00"].concat(),
                b"\x03\x00\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04".to_vec(),
                // With the bit that an extension may have claimed, here and there.
                [&[3, 1, 0, 9][..], &masked(0x41, b"de"), &masked(0x8a, b""), &masked(0x80, b"f")]
                    .concat(),
                [&[3, 0][..], &masked(0x02, b"de"), &masked(0xc0, b"f")].concat(),
                // From a server, and once with a mask.
                [&[32, 2, 0, 3, 0, 9][..], b"\x01\x02ab\x89\x01p\x80\x01c\x82\x7e\x00\x7e", &[7; 126]]
                    .concat(),
                [&[32, 0][..], b"\x82\x01a", &masked(0x82, b"b")].concat(),
            ],
            "extensions" => vec![
                b"permessage-deflate; client_max_window_bits".to_vec(),
                b"a; b=\"c\\\"d\", a;b , e; f = g".to_vec(),
                b",, x;y=\"\" ,".to_vec(),
            ],
            "bodies" => vec![
                b"\x02\x02\x00\x03\x00\x095;a=b\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\nGET".to_vec(),
                b"\x02\x00ffffffffffffffff\r\n".to_vec(),
                b"\x03\x01\x00\x140000000000000001;x\r\ny\r\n000\r\n\r\n".to_vec(),
                b"\x00\x03\x00\x05\x00\x40\x00\x52--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\
                    \r\n--\r\n--b\r\nContent-Disposition: form-data; name=f; filename=\"x\"\r\n\
                    Content-Type: a/b\r\n\r\n\r\n--b--"
                    .to_vec(),
                b"\x05\x01\x00\x02abcdefgh".to_vec(),
            ],
            "routes" => vec![
                b"/a/b.json\n/{x}/{y}.json\n/a/{z...}\n/a/*\n/a/b.json\n/a/{q?}".to_vec(),
                b"/%61//\n/{p}/\n/a\n{\n".to_vec(),
            ],
            "deflate" => vec![
                b"\x01\x02\x00\x01\x00\x04\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec(),
                b"\x05\x00\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00".to_vec(),
                b"\x06\x01\x00\x03\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00".to_vec(),
                b"\x00\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00".to_vec(),
                b"\x00\x00\xff\xff".to_vec(),
            ],
            "proxy" => vec![
                b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\nGET".to_vec(),
                b"PROXY UNKNOWN ff\r\n".to_vec(),
                b"for=192.0.2.1;proto=https;host=\"[::1]:80\", for=_x".to_vec(),
                b"http://box.example:8443".to_vec(),
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x01\x02\0\x50G"
                    .to_vec(),
            ],
            "wheel" => vec![
                [[0, 0, 9], [0, 9, 0], [6, 0, 8], [4, 7, 1], [3, 0, 0], [5, 9, 9]].concat(),
                (0..200u8).flat_map(|n| [n, n.wrapping_mul(7), n.wrapping_mul(13)]).collect(),
            ],
            // A handshake and data; a changed hello; cuts, doubles and an end; all in small pieces.
            "tls" | "dialled_tls" => vec![
                [NEXT, NEXT, [2, 0, 30, 7], NEXT, [2, 64, 1, 9], NEXT].concat(),
                [[0, 0, 40, 1], NEXT, NEXT].concat(),
                [NEXT, NEXT, [2, 1, 0, 3], [8, 0, 9, 30], NEXT, [3, 0, 0, 0], NEXT].concat(),
                [[4, 0, 7, 0].repeat(60), vec![2, 0, 100, 1], [4, 0, 50, 0].repeat(12)].concat(),
                [NEXT, NEXT, [2, 0, 99, 1], [9, 0, 20, 60], NEXT].concat(),
                [[12, 0, 0, 9], NEXT].concat(),
            ],
            "answers" => vec![
                [
                    &[8, 2, 0, 30, 0, 140][..],
                    b"\x81\x02hi\x89\x01p\x01\x01a\x80\x01b\x88\x02\x03\xe8",
                ]
                .concat(),
                [&[8, 0][..], b"\x82\x7e\x00\x7e", &[7; 126], b"\x81\x82\0\0\0\0hi"].concat(),
                b"\x00\x00\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\x82\x00".to_vec(),
                [
                    &[24, 1, 0, 60][..],
                    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 x\r\nUpgrade: WebSocket\r\n",
                    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Protocol: b\r\n",
                    b"Sec-WebSocket-Accept: \x07\r\n\r\n\x81\x02hi",
                ]
                .concat(),
                [
                    &[16, 2, 0, 9, 0, 70][..],
                    b"HTTP/1.1 503 x\r\nRetry-After: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
                    b"3\r\nabc\r\n0\r\n\r\n",
                ]
                .concat(),
                b"\x14\x00HTTP/1.1 307 x\r\nLocation: ws://far.example/again\r\n\r\n".to_vec(),
                b"\x14\x00HTTP/1.0 301 x\r\nLocation: https://far.example/\r\nContent-Length: 3\r\n\r\nabc"
                    .to_vec(),
                b"\x10\x01\x00\x04SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            ],
            _ => (1..=6u64)
                .map(|seed| {
                    let mut choices = Choices::from_seed(seed);
                    let len = 100 * choices.size_below(8) + 50;
                    (0..len).map(|_| choices.pick(&[0u8, 1, 4, 6, 14, 40, 200])).collect()
                })
                .collect(),
        }
    }

    /// The committed seeds are these; `WIREWHEEL_WRITE_SEEDS=1` writes them.
    #[test]
    fn seed_corpora_are_what_this_makes() {
        for &(target, _) in TARGETS {
            let folder = folder("seeds", target);
            for (number, seed) in seeds(target).into_iter().enumerate() {
                let path = folder.join(format!("{number:02}"));
                if std::env::var_os("WIREWHEEL_WRITE_SEEDS").is_some() {
                    fs::create_dir_all(&folder).unwrap();
                    fs::write(&path, &seed).unwrap();
                }
                assert!(fs::read(&path).unwrap() == seed, "{} is stale", path.display());
            }
        }
    }

    /// Every seed, what a longer run found, and what a run left behind on this machine.
    #[test]
    fn corpora_are_replayed() {
        for &(target, run) in TARGETS {
            assert!(!files(&folder("seeds", target)).is_empty(), "{target} has no seeds");
            for kind in ["seeds", "findings", "corpus"] {
                for path in files(&folder(kind, target)) {
                    run(&fs::read(&path).unwrap());
                }
            }
        }
    }

    #[test]
    fn every_target_has_its_file() {
        for &(target, _) in TARGETS {
            let file = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("fuzz/fuzz_targets/{target}.rs"));
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(&format!("wirewheel::fuzzing::{target}(")), "{target}");
        }
    }
}

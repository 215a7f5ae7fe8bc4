//! Random pipelined requests, most of them right and some of them a smuggler's, each from a number.
#![allow(unreachable_pub, reason = "shared by several test crates")]

/// A source of chance that gives the same for the same number everywhere (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap_or(0) % n
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).unwrap_or(0)).collect()
    }

    pub fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

const METHODS: &[&[u8]] =
    &[b"GET", b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS", b"get", b"CONNECT"];
const BODY_METHODS: &[&[u8]] = &[b"POST", b"POST", b"POST", b"PUT", b"PATCH", b"DELETE"];
const TARGETS: &[&[u8]] = &[
    b"/",
    b"/a",
    b"/a/b?c=d",
    b"/%41",
    b"//x",
    b"http://h/abs",
    b"wss://h:1?q=/s",
    b"HTTP://h",
    b"*",
    b"/x#y",
    b"h:80",
    b"/%zz",
    b"/caf\xc3\xa9",
    b"/\xff",
];
const HOSTS: &[&[u8]] = &[b"h", b"h:80", b"", b"[::1]:8080", b"a b", b"u@h", b"[::1", b"h:x"];
/// Lines that change what a connection or a body is.
const FRAMING: &[&[u8]] = &[
    b"Connection: close",
    b"Connection: keep-alive",
    b"connection: x,Close ",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 05",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length:",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked, x",
    b"Transfer-Encoding: \x0bchunked",
    b"Expect: 100-continue",
    b"Expect: x",
    b"Host: other",
    b"Content_Length: 5",
    b"Transfer_Encoding: chunked",
    b"\tfolded: x",
    b" Content-Length: 5",
    b"X: a\0b",
    b"X: a\rb",
    b"NoColon",
    b": no name",
    b"X(: y",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
];
const PLAIN: &[&[u8]] = &[
    b"User-Agent: caf\xe9",
    b"Cookie: a=1; b=\xff",
    b"Accept: */*",
    b"X-Long: yyyyyyyyyyyyyyyyyyyyyyyyyyy",
    b"X:",
    b"X:  \t spaced \t ",
    b"Origin: http://h",
    b"Referer: http://h/?x=GET / HTTP/1.1",
];
const UPGRADE: &[u8] =
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Requests one behind the other. `upgrades` are among them only where they are asked for.
pub fn stream(dice: &mut Dice, upgrades: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..=dice.below(6) {
        let begin = bytes.len();
        request(dice, number, upgrades, &mut bytes);
        if dice.one_in(20) {
            spoil(dice, &mut bytes, begin);
        }
    }
    bytes
}

fn request(dice: &mut Dice, number: usize, upgrades: bool, out: &mut Vec<u8>) {
    if dice.one_in(20) {
        out.extend_from_slice(b"\r\n");
    }
    let has_body = dice.one_in(3);
    let is_plain = !has_body && !dice.one_in(6);
    out.extend_from_slice(match has_body {
        true => dice.pick(BODY_METHODS),
        false if is_plain => b"GET",
        false => dice.pick(METHODS),
    });
    out.push(b' ');
    if dice.one_in(8) {
        out.extend_from_slice(dice.pick(TARGETS));
    } else {
        out.extend_from_slice(format!("/n{number}-{}", dice.below(1_000)).as_bytes());
    }
    out.extend_from_slice(if dice.one_in(8) { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    if !dice.one_in(60) {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(if dice.one_in(25) { dice.pick(HOSTS) } else { b"h" });
        out.extend_from_slice(b"\r\n");
    }
    for _ in 0..dice.below(4) {
        out.extend_from_slice(if dice.one_in(14) { dice.pick(FRAMING) } else { dice.pick(PLAIN) });
        out.extend_from_slice(b"\r\n");
    }
    if upgrades && dice.one_in(15) {
        out.extend_from_slice(UPGRADE);
    }
    if has_body { whole_body(dice, out) } else { body(dice, out) }
}

/// What a body may be: nothing, text, what looks like the end of one, a request, any bytes.
fn content(dice: &mut Dice) -> Vec<u8> {
    match dice.below(6) {
        0 => Vec::new(),
        1 => b"abcde".to_vec(),
        2 => b"0\r\n\r\n".to_vec(),
        3 => b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        _ => {
            let count = dice.below(600);
            dice.bytes(count)
        }
    }
}

/// The end of a head and a body that is right, in one of the forms that it may have.
fn whole_body(dice: &mut Dice, out: &mut Vec<u8>) {
    if dice.one_in(12) {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    let content = content(dice);
    if dice.one_in(2) {
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", content.len()).as_bytes());
        return out.extend_from_slice(&content);
    }
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = content.as_slice();
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(1 + dice.below(rest.len()));
        let size = match dice.below(3) {
            0 => format!("{:x}", chunk.len()),
            1 => format!("{:X}", chunk.len()),
            _ => format!("{:06x}", chunk.len()),
        };
        out.extend_from_slice(size.as_bytes());
        if dice.one_in(6) {
            out.extend_from_slice(dice.pick(&[b";a", b";a=b", b" ;a=\"b;c\"", b";a;b=c"]));
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = later;
    }
    out.extend_from_slice(dice.pick(&[b"0\r\n", b"0\r\n", b"000\r\n", b"0;last\r\n"]));
    if dice.one_in(6) {
        out.extend_from_slice(dice.pick(&[
            b"A: b\r\n",
            b"Content-Length: 5\r\n",
            b"X-Mark: mine\r\n",
        ]));
    }
    out.extend_from_slice(b"\r\n");
}

/// The end of a head, and often what looks like a body, or like one and a request.
fn body(dice: &mut Dice, out: &mut Vec<u8>) {
    let hidden = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    match dice.below(30) {
        0 => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", hidden.len()).as_bytes());
            out.extend_from_slice(hidden);
        }
        1 => out.extend_from_slice(b"Content-Length: 5\r\n\r\nabcde"),
        2 => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
        3 => {
            out.extend_from_slice(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n");
            out.extend_from_slice(b"22\r\n");
            out.extend_from_slice(hidden);
            out.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        4 => {
            out.extend_from_slice(
                b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
            );
        }
        _ => out.extend_from_slice(b"\r\n"),
    }
}

/// Changes one thing in what follows `begin`.
fn spoil(dice: &mut Dice, bytes: &mut Vec<u8>, begin: usize) {
    let at = begin + dice.below(bytes.len() - begin);
    match dice.below(6) {
        0 => bytes[at] = u8::try_from(dice.below(256)).unwrap_or(0),
        1 => bytes.insert(at, dice.pick(&[b"\r", b"\n", b" ", b"\0", b":", b"\x80"])[0]),
        2 => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        // A line end that has lost its half.
        _ => {
            let ends: Vec<usize> =
                (begin + 1..bytes.len()).filter(|&place| bytes[place] == b'\n').collect();
            if !ends.is_empty() {
                bytes.remove(ends[dice.below(ends.len())] - usize::from(dice.one_in(2)));
            }
        }
    }
}

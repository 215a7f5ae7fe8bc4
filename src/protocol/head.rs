//! The HTTP/1.1 request head: read under limits, kept compactly, looked up by name (RFC 9112).

use std::mem::MaybeUninit;
use std::ops::{Deref, Range};

use crate::protocol::framing::{Framing, Single};
use crate::protocol::head_error::HeadError;
use crate::protocol::header_lines::{
    HeaderLines, LinesAsSent, LinesBuilder, goes_on_with, place_in,
};
use crate::protocol::target::Target;

/// How much head a request may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) max_bytes: usize,
    pub(crate) max_lines: usize,
}

/// Header lines for which there is room without asking the allocator.
const LINES_INLINE: usize = 64;

/// What the bytes so far make.
#[derive(Debug)]
pub(crate) enum HeadStatus {
    /// The head goes on.
    Partial,
    /// It is complete, and took `length` bytes.
    Complete { head: RequestHead, length: usize },
}

/// A request without its body.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// The head as it was sent, or, where not all is kept so, method, target and header lines, one after the
    /// other. `Host` says what the request is for, also where the target does.
    lines: HeaderLines,
    method: Range<u32>,
    target: Range<u32>,
    pub(crate) minor_version: u8,
    pub(crate) framing: Framing,
}

impl Deref for RequestHead {
    type Target = HeaderLines;

    fn deref(&self) -> &HeaderLines {
        &self.lines
    }
}

/// Reads the head at the start of `bytes`. `scanned` remembers, from call to call with more bytes of
/// the same head, how far the search for its end has come, so that a head that dribbles in byte by
/// byte costs no more than one that comes at once.
pub(crate) fn parse_head(
    bytes: &[u8],
    limits: &HeadLimits,
    scanned: &mut usize,
) -> Result<HeadStatus, HeadError> {
    match searched(bytes, limits, scanned) {
        Some(bytes) => read_head(bytes, limits),
        None => Ok(HeadStatus::Partial),
    }
}

/// As much of a head as is to be read, which the limit on bytes bounds. `None` if its end is still to come:
/// what is new since the last call has no blank line.
#[inline]
pub(super) fn searched<'b>(
    bytes: &'b [u8],
    limits: &HeadLimits,
    scanned: &mut usize,
) -> Option<&'b [u8]> {
    let looked_at = bytes.len().min(limits.max_bytes);
    // The blank line may have begun up to three bytes before what is new.
    let new = bytes.get(scanned.saturating_sub(3)..looked_at).unwrap_or_default();
    let is_partial = *scanned > 0 && bytes.len() < limits.max_bytes && !has_blank_line(new);
    *scanned = looked_at;
    if is_partial { None } else { bytes.get(..looked_at) }
}

/// Lends room for as many header lines as the limit allows.
#[inline]
pub(super) fn with_room_for_lines<'b, R>(
    limits: &HeadLimits,
    read: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> R,
) -> R {
    if limits.max_lines > LINES_INLINE {
        return read(&mut vec![MaybeUninit::uninit(); limits.max_lines]);
    }
    let mut inline = [const { MaybeUninit::uninit() }; LINES_INLINE];
    read(inline.get_mut(..limits.max_lines).unwrap_or_default())
}

/// Reads what is within the limit on bytes.
fn read_head(bytes: &[u8], limits: &HeadLimits) -> Result<HeadStatus, HeadError> {
    with_room_for_lines(limits, |lines| read_into(lines, bytes, limits))
}

#[inline]
fn read_into<'b>(
    lines: &mut [MaybeUninit<httparse::Header<'b>>],
    bytes: &'b [u8],
    limits: &HeadLimits,
) -> Result<HeadStatus, HeadError> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, lines) {
        Ok(httparse::Status::Complete(length)) => {
            let bytes = bytes.get(..length).unwrap_or_default();
            let head = RequestHead::new(bytes, &request)?;
            Ok(HeadStatus::Complete { head, length })
        }
        Ok(httparse::Status::Partial) if bytes.len() >= limits.max_bytes => {
            Err(HeadError::TooLarge)
        }
        Ok(httparse::Status::Partial) => Ok(HeadStatus::Partial),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => read_other_version(bytes, limits),
        Err(_) => Err(HeadError::Malformed),
    }
}

/// A head of another version than 1.0 and 1.1. What is looked at is there by the time that the version is
/// found to be another, so cutting a head does not change the answer.
#[cold]
fn read_other_version(bytes: &[u8], limits: &HeadLimits) -> Result<HeadStatus, HeadError> {
    let Some(version_at) = version_at(bytes) else { return Err(HeadError::Malformed) };
    let version = bytes.get(version_at..).unwrap_or_default();
    let minor = version.strip_prefix(b"HTTP/1.").and_then(<[u8]>::first);
    match minor.filter(|digit| matches!(digit, b'2'..=b'9')) {
        Some(_) => {
            // RFC 9110 section 6.2: a higher minor version is read "as if the message was in the highest
            // minor version within that major version to which the recipient is conformant".
            let (before, behind) = (bytes.get(..version_at), version.get(8..).unwrap_or_default());
            let as_known = [before.unwrap_or_default(), b"HTTP/1.1", behind].concat();
            read_head(&as_known, limits)
        }
        None if version.starts_with(b"HTTP/") => Err(HeadError::UnsupportedVersion),
        None => Err(HeadError::Malformed),
    }
}

/// Where the third word of the request line begins.
fn version_at(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut spaces = bytes.iter().enumerate().skip(start).filter(|(_, byte)| **byte == b' ');
    spaces.nth(1).and_then(|(second, _)| second.checked_add(1))
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// Without a branch, so that many bytes are looked at together.
pub(super) fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let later = bytes.get(1..).unwrap_or_default();
    let bare =
        |bare: bool, (&before, &byte): (&u8, &u8)| bare | ((byte == b'\n') & (before != b'\r'));
    bytes.starts_with(b"\n") || bytes.iter().zip(later).fold(false, bare)
}

/// Whether the first line of a head ends in CR LF where the reader found its end, and the head in two of
/// them, so that none has to be looked for there. `false` where that is not sure.
fn ends_around_lines(head: &[u8], request: &httparse::Request<'_, '_>) -> bool {
    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let first = if request.version == Some(1) { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" };
    head.starts_with(method.as_bytes())
        && place_in(head, path.as_bytes()).is_some_and(|path| goes_on_with(head, &path, first))
        && head.ends_with(b"\r\n\r\n")
}

impl RequestHead {
    fn new(bytes: &[u8], request: &httparse::Request<'_, '_>) -> Result<Self, HeadError> {
        let method = request.method.unwrap_or_default();
        let target = Target::parse(method, request.path.unwrap_or_default());
        let Some(target) = target else { return Err(HeadError::Malformed) };
        let mut framing = Framing::default();
        let mut lines = LinesAsSent::new(bytes, request.headers.len());
        for (header, number) in request.headers.iter().zip(0..) {
            // The reader has taken off the blanks around it (RFC 9112 section 5).
            framing.note(number, header.name, header.value);
            lines.push(header.name, header.value);
        }
        // RFC 9112 section 2.2 lets a recipient take a line feed alone for the end of a line. Where one does
        // and another does not, two readers see two requests.
        let each_ends = lines.each_ends() && ends_around_lines(bytes, request);
        if !each_ends && has_bare_line_feed(bytes) {
            return Err(HeadError::Malformed);
        }
        let minor_version = request.version.unwrap_or(1);
        framing.check(minor_version)?;
        let kept = match &target {
            Target { authority: None, lacks_slash: false, rest } => {
                Kept::as_sent(lines, bytes, method, rest)
            }
            _ => None,
        };
        let kept = kept.or_else(|| Kept::gathered(request, method, &target, framing));
        let Kept { lines, method, target } = kept.ok_or(HeadError::Malformed)?;
        Ok(Self { lines, method, target, minor_version, framing })
    }

    pub(crate) fn method(&self) -> &str {
        self.lines.slice(&self.method)
    }

    /// The target without its authority: path and query as they were sent, `*`, or what CONNECT names.
    pub(crate) fn target(&self) -> &str {
        self.lines.slice(&self.target)
    }

    /// The value of the one line that says which version of WebSocket is meant; `None` if there is not one.
    pub(super) fn websocket_version(&self) -> Option<&str> {
        self.single(self.framing.websocket_version)
    }

    /// The same of the key of the opening handshake.
    pub(super) fn websocket_key(&self) -> Option<&str> {
        self.single(self.framing.websocket_key)
    }

    fn single(&self, line: Single) -> Option<&str> {
        match line {
            Single::At(number) => self.lines.value(number),
            Single::Nowhere | Single::Several => None,
        }
    }

    /// Host and port that the request is for, whatever the form of its target. Empty if nothing says.
    pub(crate) fn host(&self) -> &str {
        self.first("host").unwrap_or_default()
    }
}

/// The lines of a head as they are kept, and where its method and its target lie.
struct Kept {
    lines: HeaderLines,
    method: Range<u32>,
    target: Range<u32>,
}

impl Kept {
    fn as_sent(lines: LinesAsSent<'_>, head: &[u8], method: &str, target: &str) -> Option<Self> {
        let (method, target) = (method.as_bytes(), target.as_bytes());
        let (method, target) = (place_in(head, method)?, place_in(head, target)?);
        Some(Self { lines: lines.finish()?, method, target })
    }

    /// One by one, where something is to be changed: a host that the target names, a byte that is no text.
    #[cold]
    fn gathered(
        request: &httparse::Request<'_, '_>,
        method: &str,
        target: &Target<'_>,
        framing: Framing,
    ) -> Option<Self> {
        let sizes =
            request.headers.iter().map(|line| line.name.len().saturating_add(line.value.len()));
        let mut lines = LinesBuilder::new(sizes.sum(), request.headers.len());
        let places = (lines.append(method.as_bytes()), append_target(&mut lines, target));
        let authority = target.authority.map(str::as_bytes);
        for header in request.headers.iter() {
            match authority {
                // RFC 9112 section 3.2.2: "MUST ignore the received Host header field (if any) and
                // instead use the host information of the request-target".
                Some(authority) if header.name.eq_ignore_ascii_case("host") => {
                    lines.push(header.name, authority);
                }
                _ => lines.push(header.name, header.value),
            }
        }
        if let Some(authority) = authority.filter(|_| !framing.has_host()) {
            lines.push("Host", authority);
        }
        Some(Self { lines: lines.finish()?, method: places.0, target: places.1 })
    }
}

fn append_target(lines: &mut LinesBuilder, target: &Target<'_>) -> Range<u32> {
    let slash = if target.lacks_slash { lines.append(b"/") } else { lines.append(b"") };
    slash.start..lines.append(target.rest.as_bytes()).end
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_lines: 64 };

    fn parse(bytes: &[u8]) -> Result<HeadStatus, HeadError> {
        parse_head(bytes, &LIMITS, &mut 0)
    }

    /// A head for tests of what is built on it.
    pub(crate) fn head(text: &str) -> RequestHead {
        match parse(text.as_bytes()) {
            Ok(HeadStatus::Complete { head, .. }) => head,
            other => panic!("no head: {other:?}"),
        }
    }

    #[test]
    fn lines_of_one_name_are_merged_and_asked_in_any_case() {
        let head = head(
            "GET /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: keep-alive ,, Foo\r\nconnection:Upgrade\r\n\r\n",
        );
        assert_eq!((head.method(), head.target()), ("GET", "/a?b=c"));
        let tokens: Vec<_> = head.tokens("CONNECTION").collect();
        assert_eq!(tokens, ["keep-alive", "Foo", "Upgrade"]);
        assert_eq!(head.first("host"), Some("x"));
    }

    #[test]
    fn heads_that_are_refused() {
        let cases: &[(&str, u16)] = &[
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / FTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: u@a\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", 400),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
            ("GET / HTTP/11.1\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400), // HTTP/0.9
        ];
        for &(text, status) in cases {
            let result = parse(text.as_bytes()).map(|_| ()).map_err(HeadError::status);
            assert_eq!(result, Err(status), "{text:?}");
        }
    }

    /// Wherever a line ends, in a head that is kept as it was sent and in one that is not.
    #[test]
    fn no_line_ends_in_a_line_feed_alone() {
        for head in [
            "GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\nZ:\r\nA: b \r\n\r\n",
            "GET http://h/a HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(matches!(parse(head.as_bytes()), Ok(HeadStatus::Complete { .. })), "{head:?}");
            for (end, _) in head.match_indices("\r\n") {
                let bare = [&head[..end], &head[end + 1..]].concat();
                let status = parse(bare.as_bytes()).map(|_| ());
                assert_eq!(status, Err(HeadError::Malformed), "{bare:?}");
            }
        }
    }

    /// The same lines, in whichever way they are kept: with a byte that is no text in one, and without.
    #[test]
    fn a_head_is_kept_as_it_was_sent_or_gathered() {
        for sent in [
            "GET /x?y#z HTTP/1.1\r\nHost: h\r\nA: \t b \t\r\nEmpty:\r\na:  c,d\r\n\r\n",
            "OPTIONS * HTTP/1.0\r\nLong-Name-Of-A-Line-That-Has-More-Than-Sixty-Four-Letters-In-Its-Name:\
             v\r\n\r\n",
        ] {
            let opaque = sent.replace("\r\n\r\n", "\r\nOther: \u{e9}\r\n\r\n").into_bytes();
            let at = opaque.iter().position(|byte| *byte == 0xc3).unwrap();
            let opaque = [&opaque[..at], &opaque[at + 1..]].concat();
            let Ok(HeadStatus::Complete { head: gathered, .. }) = parse(&opaque) else {
                panic!("refused")
            };
            let kept = head(sent);
            let lines: Vec<_> = kept.lines().collect();
            assert_eq!(lines, gathered.lines().take(lines.len()).collect::<Vec<_>>());
            assert_eq!((kept.method(), kept.target()), (gathered.method(), gathered.target()));
            for (name, value) in &lines {
                assert_eq!(
                    kept.all(name).collect::<Vec<_>>(),
                    gathered.all(name).collect::<Vec<_>>()
                );
                assert!(kept.all(&name.to_lowercase()).any(|known| known == *value));
            }
            assert_eq!((kept.first("b"), kept.first("other")), (None, None));
        }
    }

    #[test]
    fn heads_that_pass() {
        for text in [
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", // RFC 9112 section 2.2
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n", // RFC 9110 section 6.2
            "\r\nGET / HTTP/1.9\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t z \t\r\n\r\n",
        ] {
            assert!(matches!(parse(text.as_bytes()), Ok(HeadStatus::Complete { .. })), "{text:?}");
        }
        assert_eq!(head("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n").target(), "/b?c");
        assert_eq!(head("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").target(), "/");
    }

    #[test]
    fn the_host_of_an_absolute_target_is_the_host() {
        for (text, host) in [
            ("GET / HTTP/1.1\r\nHost: b\r\n\r\n", "b"),
            ("GET http://a:8080?x HTTP/1.1\r\nX: y\r\nhost: b\r\n\r\n", "a:8080"),
            ("GET http://a:8080?x HTTP/1.0\r\nX: y\r\n\r\n", "a:8080"),
        ] {
            assert_eq!(head(text).first("host"), Some(host), "{text:?}");
        }
        assert_eq!(head("GET / HTTP/1.0\r\n\r\n").first("host"), None);
        let ambiguous = b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n";
        assert_eq!(parse(ambiguous).map(|_| ()), Err(HeadError::Malformed));
    }

    #[test]
    fn bytes_that_are_no_text_change_nothing_else() {
        let text = b"GET /x HTTP/1.1\r\nHost: h\r\nA: caf\xe9\r\nB: b\r\nA: \xc3\r\n\xa9: x\r\n";
        assert!(parse(text).is_err(), "a name is a token");
        let text = b"GET /x HTTP/1.1\r\nHost: h\r\nA: caf\xe9, d\r\nB: \xc3\xa9\r\nA: \xc3\r\nC: x\r\n\r\n";
        let Ok(HeadStatus::Complete { head, .. }) = parse(text) else { panic!("refused") };
        let bytes: Vec<&[u8]> = head.all_bytes("a").collect();
        assert_eq!(bytes, [&b"caf\xe9, d"[..], b"\xc3"]);
        assert_eq!(head.all_bytes("b").next(), Some("é".as_bytes()));
        assert_eq!(head.all("a").collect::<Vec<_>>(), ["caf\u{fffd}, d", "\u{fffd}"]);
        assert_eq!(head.tokens("a").collect::<Vec<_>>(), ["caf\u{fffd}", "d", "\u{fffd}"]);
        assert_eq!((head.first("b"), head.first("c")), (Some("é"), Some("x")));
        assert_eq!((head.method(), head.target(), head.first("host")), ("GET", "/x", Some("h")));
    }

    #[test]
    fn the_limits_hold_to_the_byte_and_the_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        let with = |max_bytes, max_lines| {
            parse_head(head, &HeadLimits { max_bytes, max_lines }, &mut 0).map(|_| ())
        };
        assert_eq!(with(head.len(), 2), Ok(()));
        assert_eq!(with(head.len() - 1, 2), Err(HeadError::TooLarge));
        assert_eq!(with(head.len(), 1), Err(HeadError::TooLarge));
        let mut many = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        many.push_str(&"X: y\r\n".repeat(199));
        many.push_str("\r\n");
        let limits = HeadLimits { max_bytes: 8192, max_lines: 200 };
        assert!(parse_head(many.as_bytes(), &limits, &mut 0).is_ok());
    }

    #[test]
    fn a_head_in_pieces_is_partial_until_its_last_byte() {
        let whole = b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
        let mut scanned = 0;
        for end in 0..whole.len() {
            let status = parse_head(&whole[..end], &LIMITS, &mut scanned);
            assert!(matches!(status, Ok(HeadStatus::Partial)), "at {end}");
        }
        let Ok(HeadStatus::Complete { head, length }) = parse_head(whole, &LIMITS, &mut scanned)
        else {
            panic!("not complete")
        };
        assert_eq!((head.target(), length), ("/x", whole.len()));
        for split in 0..whole.len() {
            let mut scanned = 0;
            let _ = parse_head(&whole[..split], &LIMITS, &mut scanned);
            let status = parse_head(whole, &LIMITS, &mut scanned);
            assert!(matches!(status, Ok(HeadStatus::Complete { .. })), "split at {split}");
        }
    }
}

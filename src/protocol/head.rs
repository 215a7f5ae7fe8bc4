//! Owns the HTTP/1.1 request head: read under limits, kept compactly, asked by name (RFC 9112).

use std::mem::MaybeUninit;
use std::ops::Range;

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

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Not HTTP, or a smuggler's ambiguity.
    Malformed,
    /// Over a limit.
    TooLarge,
    /// Not HTTP/1.x.
    UnsupportedVersion,
}

impl HeadError {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 431,
            Self::UnsupportedVersion => 505,
        }
    }
}

/// A request without its body.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Method, target and header lines, one after the other.
    text: Box<str>,
    method: Range<u32>,
    target: Range<u32>,
    /// Host and port of a target in absolute form.
    authority: Option<Range<u32>>,
    pub(crate) minor_version: u8,
    headers: Box<[Line]>,
}

#[derive(Debug)]
struct Line {
    name: Range<u32>,
    value: Range<u32>,
}

/// Reads the head at the start of `bytes`. `scanned` remembers, from call to call with more bytes of
/// the same head, how far the search for its end has come, so that a head that dribbles in byte by
/// byte costs no more than one that comes at once.
pub(crate) fn parse_head(
    bytes: &[u8],
    limits: &HeadLimits,
    scanned: &mut usize,
) -> Result<HeadStatus, HeadError> {
    let looked_at = bytes.len().min(limits.max_bytes);
    // The blank line may have begun up to three bytes before what is new.
    let new = bytes.get(scanned.saturating_sub(3)..looked_at).unwrap_or_default();
    if *scanned > 0 && bytes.len() < limits.max_bytes && !has_blank_line(new) {
        *scanned = looked_at;
        return Ok(HeadStatus::Partial);
    }
    *scanned = looked_at;
    let mut inline = [const { MaybeUninit::uninit() }; LINES_INLINE];
    let mut larger;
    let lines = if limits.max_lines <= LINES_INLINE {
        inline.get_mut(..limits.max_lines).unwrap_or_default()
    } else {
        larger = vec![MaybeUninit::uninit(); limits.max_lines];
        larger.as_mut_slice()
    };
    let mut request = httparse::Request::new(&mut []);
    let bytes_in_limit = bytes.get(..looked_at).unwrap_or_default();
    match request.parse_with_uninit_headers(bytes_in_limit, lines) {
        Ok(httparse::Status::Complete(length)) => {
            let head = RequestHead::new(&request)?;
            head.check_framing()?;
            Ok(HeadStatus::Complete { head, length })
        }
        Ok(httparse::Status::Partial) if bytes.len() >= limits.max_bytes => {
            Err(HeadError::TooLarge)
        }
        Ok(httparse::Status::Partial) => Ok(HeadStatus::Partial),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(httparse::Error::Version) if names_http(bytes) => Err(HeadError::UnsupportedVersion),
        Err(_) => Err(HeadError::Malformed),
    }
}

/// Whether HTTP stands where the version does. What is looked at is there by the time that the version
/// is found to be wrong, so cutting a head does not change the answer.
fn names_http(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n').filter(|line| line.len() > 1);
    let version = lines.next().and_then(|line| line.split(|&byte| byte == b' ').nth(2));
    version.is_some_and(|version| version.starts_with(b"HTTP/"))
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

impl RequestHead {
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "lengths of parts of one head, which is limited"
    )]
    fn new(request: &httparse::Request<'_, '_>) -> Result<Self, HeadError> {
        let (method, target) =
            (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        let lines = request.headers.iter().map(|line| line.name.len() + line.value.len());
        let mut text = String::with_capacity(method.len() + target.len() + lines.sum::<usize>());
        let method = append(&mut text, method);
        let (authority, target) = origin_form(target);
        let authority = authority.map(|authority| append(&mut text, authority));
        let target = append(&mut text, target);
        let mut headers = Vec::with_capacity(request.headers.len());
        for header in request.headers.iter() {
            // Nothing that this server reads may hold other than UTF-8; RFC 9110 section 5.5 calls
            // other bytes opaque, and an opaque name or token is of no use here.
            let value = std::str::from_utf8(header.value).map_err(|_| HeadError::Malformed)?;
            headers.push(Line {
                name: append(&mut text, header.name),
                value: append(&mut text, value.trim_matches([' ', '\t'])),
            });
        }
        Ok(Self {
            text: text.into(),
            method,
            target,
            authority,
            minor_version: request.version.unwrap_or(1),
            headers: headers.into(),
        })
    }

    /// Refuses what two readers could understand in two ways (RFC 9112 sections 3.2 and 6.3).
    fn check_framing(&self) -> Result<(), HeadError> {
        let hosts = self.all("host").count();
        if hosts > 1 || (hosts == 0 && self.minor_version >= 1) {
            return Err(HeadError::Malformed);
        }
        let lengths = self.all("content-length").count();
        let bad_length =
            |length: &str| length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit());
        let chunked = self.first("transfer-encoding").is_some();
        if lengths > 1 || (lengths == 1 && chunked) || self.all("content-length").any(bad_length) {
            return Err(HeadError::Malformed);
        }
        Ok(())
    }

    #[inline]
    fn slice(&self, range: &Range<u32>) -> &str {
        self.text.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    pub(crate) fn method(&self) -> &str {
        self.slice(&self.method)
    }

    /// The target in origin form: path and query, as they were sent.
    pub(crate) fn target(&self) -> &str {
        self.slice(&self.target)
    }

    /// Host and port that the request is for: those of a target in absolute form, else `Host`
    /// (RFC 9112 section 3.2.2: "MUST ignore the received Host header field"). Empty if neither says.
    pub(crate) fn host(&self) -> &str {
        match &self.authority {
            Some(authority) => self.slice(authority),
            None => self.first("host").unwrap_or_default(),
        }
    }

    /// Every header line in order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|line| (self.slice(&line.name), self.slice(&line.value)))
    }

    /// The values of every line of that name, in order.
    #[inline]
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        // The lengths differ nearly always, and are at hand.
        let of_length = move |line: &&Line| line.name.len() == name.len();
        self.headers
            .iter()
            .filter(of_length)
            .filter(move |line| self.slice(&line.name).eq_ignore_ascii_case(name))
            .map(|line| self.slice(&line.value))
    }

    /// The value of the first line of that name.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The members of a list header, of all its lines (RFC 9110 sections 5.3 and 5.6.1).
    pub(crate) fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|token| token.trim_matches([' ', '\t']))
            .filter(|token| !token.is_empty())
    }

    /// Whether a list header has that member, in any case of letters.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        let is_token = |known: &[u8]| known.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
        self.all(name).map(str::as_bytes).any(|value| {
            is_token(value)
                || (value.contains(&b',') && value.split(|&byte| byte == b',').any(is_token))
        })
    }
}

/// Authority, and path with query, of a target (RFC 9112 section 3.2: a server must accept the absolute
/// form too).
fn origin_form(target: &str) -> (Option<&str>, &str) {
    let Some((_, rest)) = target.split_once("://").filter(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws")
    }) else {
        return (None, target);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    (rest.get(..end), rest.get(end..).filter(|path| !path.is_empty()).unwrap_or("/"))
}

fn append(text: &mut String, piece: &str) -> Range<u32> {
    // Invariant: a head is far shorter than 4 GiB: max_head_bytes is at most 1 GiB.
    let start = u32::try_from(text.len()).unwrap_or(u32::MAX);
    text.push_str(piece);
    start..u32::try_from(text.len()).unwrap_or(u32::MAX)
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
        assert!(head.has_token("connection", "upgrade"));
        assert_eq!(head.first("host"), Some("x"));
    }

    #[test]
    fn heads_that_are_refused() {
        let cases: [(&str, u16); 16] = [
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
        ];
        for (text, status) in cases {
            let result = parse(text.as_bytes()).map(|_| ()).map_err(HeadError::status);
            assert_eq!(result, Err(status), "{text:?}");
        }
    }

    #[test]
    fn heads_that_pass() {
        for text in [
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", // RFC 9112 section 2.2
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        ] {
            assert!(matches!(parse(text.as_bytes()), Ok(HeadStatus::Complete { .. })), "{text:?}");
        }
        assert_eq!(head("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n").target(), "/b?c");
        assert_eq!(head("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").target(), "/");
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

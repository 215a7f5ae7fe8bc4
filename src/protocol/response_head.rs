//! The head of an HTTP/1.1 answer, read under limits (RFC 9112 section 4).

use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::protocol::date::parse_http_date;
use crate::protocol::head::{HeadLimits, has_bare_line_feed, searched, with_room_for_lines};
use crate::protocol::header_lines::{HeaderLines, LinesBuilder};

/// What a server answered, without its body.
///
/// ```
/// use wirewheel::client::ResponseHead;
/// fn is_busy(head: &ResponseHead) -> bool {
///     let lines = head.headers().count();
///     head.status() == 503 && lines > 0 && head.header("retry-after").is_some()
/// }
/// ```
pub struct ResponseHead {
    lines: HeaderLines,
    status: u16,
    minor_version: u8,
}

/// What the bytes so far make.
#[derive(Debug)]
pub(crate) enum ResponseStatus {
    Partial,
    /// The head is complete, and took so many bytes.
    Complete(ResponseHead, usize),
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseFault {
    /// Not HTTP/1.x.
    Malformed,
    /// Over a limit.
    TooLarge,
}

/// Reads the head at the start of `bytes`. `scanned` remembers how far the search for its end has come.
pub(crate) fn parse_response(
    bytes: &[u8],
    limits: &HeadLimits,
    scanned: &mut usize,
) -> Result<ResponseStatus, ResponseFault> {
    match searched(bytes, limits, scanned) {
        Some(bytes) => with_room_for_lines(limits, |lines| read_into(lines, bytes, limits)),
        None => Ok(ResponseStatus::Partial),
    }
}

fn read_into<'b>(
    lines: &mut [MaybeUninit<httparse::Header<'b>>],
    bytes: &'b [u8],
    limits: &HeadLimits,
) -> Result<ResponseStatus, ResponseFault> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, bytes, lines) {
        Ok(httparse::Status::Complete(length)) => {
            if has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
                return Err(ResponseFault::Malformed);
            }
            let head = ResponseHead::new(&response).ok_or(ResponseFault::Malformed)?;
            Ok(ResponseStatus::Complete(head, length))
        }
        Ok(httparse::Status::Partial) if bytes.len() >= limits.max_bytes => {
            Err(ResponseFault::TooLarge)
        }
        Ok(httparse::Status::Partial) => Ok(ResponseStatus::Partial),
        Err(httparse::Error::TooManyHeaders) => Err(ResponseFault::TooLarge),
        Err(_) => Err(ResponseFault::Malformed),
    }
}

impl ResponseHead {
    fn new(response: &httparse::Response<'_, '_>) -> Option<Self> {
        let bytes =
            response.headers.iter().map(|line| line.name.len().saturating_add(line.value.len()));
        let mut lines = LinesBuilder::new(bytes.sum(), response.headers.len());
        for header in response.headers.iter() {
            lines.push(header.name, header.value.trim_ascii());
        }
        let (status, minor_version) = (response.code?, response.version?);
        Some(Self { lines: lines.finish()?, status, minor_version })
    }

    /// The status, such as 101.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of the first header line of that name, in any case of letters. Bytes that are no UTF-8
    /// are shown as U+FFFD.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.lines.first(name)
    }

    /// Every header line in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.lines()
    }

    pub(crate) fn lines(&self) -> &HeaderLines {
        &self.lines
    }

    pub(crate) fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Whether one of the tokens of a list header is this one, in any case of letters.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.lines.tokens(name).any(|known| known.eq_ignore_ascii_case(token))
    }

    /// How long the server asks to be left alone (RFC 9110 section 10.2.3): seconds, or a date, which is
    /// compared with the answer's own, since this box's clock may have never been set.
    pub(crate) fn retry_after(&self, since_1970: Option<Duration>) -> Option<Duration> {
        let value = self.header("retry-after")?;
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        let now = self.header("date").and_then(parse_http_date).or(since_1970)?;
        Some(parse_http_date(value)?.saturating_sub(now))
    }
}

impl fmt::Debug for ResponseHead {
    /// Without the values of its lines, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("headers", &names)
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_lines: 64 };

    pub(crate) fn answer(text: &str) -> ResponseHead {
        match parse_response(text.as_bytes(), &LIMITS, &mut 0) {
            Ok(ResponseStatus::Complete(head, _)) => head,
            other => panic!("no head: {other:?}"),
        }
    }

    #[test]
    fn an_answer_in_pieces_is_partial_until_its_last_byte() {
        let whole = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nA: b\r\na: c\r\n\r\nrest";
        let length = whole.len() - 4;
        let mut scanned = 0;
        for end in 0..length {
            let status = parse_response(&whole[..end], &LIMITS, &mut scanned);
            assert!(matches!(status, Ok(ResponseStatus::Partial)), "at {end}");
        }
        let Ok(ResponseStatus::Complete(head, taken)) =
            parse_response(whole, &LIMITS, &mut scanned)
        else {
            panic!("not complete")
        };
        assert_eq!((head.status(), taken, head.header("retry-after")), (503, length, Some("7")));
        assert_eq!(head.lines().all("A").collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "\x15\x03\x01\x00\x02\x02",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            let result = parse_response(text.as_bytes(), &LIMITS, &mut 0);
            assert!(matches!(result, Err(ResponseFault::Malformed)), "{text:?}: {result:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(9000));
        let result = parse_response(long.as_bytes(), &LIMITS, &mut 0);
        assert!(matches!(result, Err(ResponseFault::TooLarge)));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(65));
        let result = parse_response(many.as_bytes(), &LIMITS, &mut 0);
        assert!(matches!(result, Err(ResponseFault::TooLarge)));
    }

    /// Also where that is raised over the default.
    #[test]
    fn so_many_lines_are_taken_as_the_limit_says() {
        let limits = HeadLimits { max_lines: 100, ..LIMITS };
        for (count, fits) in [(64, true), (65, true), (100, true), (101, false)] {
            let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
            match parse_response(text.as_bytes(), &limits, &mut 0) {
                Ok(ResponseStatus::Complete(head, _)) => {
                    assert_eq!((head.headers().count(), fits), (count, true));
                }
                fault => {
                    assert!(matches!(fault, Err(ResponseFault::TooLarge)) && !fits, "{count}");
                }
            }
        }
    }

    #[test]
    fn a_server_says_when_to_come_back_in_seconds_or_by_date() {
        let wait = |lines: &str, now: Option<u64>| {
            let head = answer(&format!("HTTP/1.1 503 x\r\n{lines}\r\n"));
            head.retry_after(now.map(Duration::from_secs)).map(|wait| wait.as_secs())
        };
        let date = "Retry-After: Sun, 06 Nov 2033 08:49:37 GMT\r\n";
        let at = 2_014_879_777;
        assert_eq!(wait("Retry-After: 120\r\n", None), Some(120));
        assert_eq!(wait("Retry-After: 99999999999999999999\r\n", None), Some(u64::MAX));
        assert_eq!(wait(date, Some(at - 30)), Some(30));
        assert_eq!(wait(date, Some(at + 30)), Some(0));
        assert_eq!(wait(date, None), None);
        let both = format!("Date: Sun, 06 Nov 2033 08:49:30 GMT\r\n{date}");
        assert_eq!(wait(&both, Some(0)), Some(7)); // this box believes that it is 1970
        for nonsense in ["", "Retry-After:\r\n", "Retry-After: -1\r\n", "Retry-After: soon\r\n"] {
            assert_eq!(wait(nonsense, Some(at)), None, "{nonsense:?}");
        }
    }
}

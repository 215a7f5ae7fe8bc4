//! The body of a request, taken out of its framing as it comes (RFC 9112 sections 6 and 7.1).

use crate::protocol::framing::BodyFraming;
use crate::protocol::token::is_token_byte;

/// The most hexadecimal digits of a chunk's size: 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// What is known of a body between two reads. It keeps no byte of it.
#[derive(Clone, Debug)]
pub(crate) struct BodyDecoder {
    state: State,
    /// Bytes of content that are still to come: of the body, or of the present chunk.
    left: u64,
    /// Digits of the present chunk's size so far.
    digits: u8,
    /// Bytes of content that further chunks may bring.
    room: u64,
    /// Bytes that further chunk extensions and trailers may have.
    overhead_left: usize,
    received: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Content whose length was announced.
    Content,
    /// `chunk-size [ chunk-ext ] CRLF`
    Size,
    Blank,
    Extension,
    SizeLf,
    /// `chunk-data CRLF`
    Chunk,
    ChunkCr,
    ChunkLf,
    /// `trailer-section CRLF`
    LineStart,
    Name,
    Value,
    ValueLf,
    LastLf,
    Done,
}

/// What some bytes amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// So many of them belong to the body; all of them, unless it ends before.
    pub(crate) taken: usize,
    /// So much content stands at the start of the buffer now.
    pub(crate) content: usize,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// 400: two readers could find its end at two places.
    Malformed,
    /// 413: more content than is taken.
    TooLong,
    /// 431: chunk extensions or trailers over their limit.
    Overhead,
}

impl BodyFault {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLong => 413,
            Self::Overhead => 431,
        }
    }
}

impl BodyDecoder {
    /// The reader of a body with at most `max_content` bytes, in whose chunk extensions and trailers
    /// together are at most `max_overhead`.
    pub(crate) fn new(
        framing: BodyFraming,
        max_content: u64,
        max_overhead: usize,
    ) -> Result<Self, BodyFault> {
        let (state, left) = match framing {
            BodyFraming::None => (State::Done, 0),
            BodyFraming::Length(length) if length > max_content => return Err(BodyFault::TooLong),
            BodyFraming::Length(length) => (State::Content, length),
            BodyFraming::Chunked => (State::Size, 0),
        };
        let (room, overhead_left) = (max_content, max_overhead);
        Ok(Self { state, left, digits: 0, room, overhead_left, received: 0 })
    }

    /// Takes the body out of the start of `input`: its content is moved to the front, over its framing,
    /// so that it is in one piece.
    #[allow(clippy::arithmetic_side_effects, reason = "at and content are at most input.len()")]
    pub(crate) fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, BodyFault> {
        let (mut at, mut content) = (0, 0);
        while self.state != State::Done && at < input.len() {
            if let State::Content | State::Chunk = self.state {
                let available = input.len() - at;
                let length =
                    usize::try_from(self.left).map_or(available, |left| left.min(available));
                if at != content {
                    input.copy_within(at..at + length, content);
                }
                (at, content) = (at + length, content + length);
                self.take_content(length as u64);
            } else if let Some(&byte) = input.get(at) {
                at += 1;
                self.state = self.step(byte)?;
            }
        }
        Ok(Decoded { taken: at, content })
    }

    #[allow(clippy::arithmetic_side_effects, reason = "length is at most left")]
    fn take_content(&mut self, length: u64) {
        self.left -= length;
        self.received = self.received.saturating_add(length);
        if self.left == 0 {
            self.state = if self.state == State::Content { State::Done } else { State::ChunkCr };
        }
    }

    /// One byte of framing. A line ends with CR LF and with nothing else: what one reader takes for the
    /// end of a line and another does not moves the end of the body.
    fn step(&mut self, byte: u8) -> Result<State, BodyFault> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b' ' | b'\t') if self.digits > 0 => self.overhead(State::Blank),
            (State::Size, _) => self.size_digit(byte),
            (State::Blank, b' ' | b'\t') => self.overhead(State::Blank),
            (State::Blank, b';') => Ok(State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) if is_text(byte) => self.overhead(State::Extension),
            (State::SizeLf, b'\n') => self.begin_chunk(),
            (State::ChunkCr, b'\r') => Ok(State::ChunkLf),
            (State::ChunkLf, b'\n') => {
                self.digits = 0;
                Ok(State::Size)
            }
            (State::LineStart, b'\r') => Ok(State::LastLf),
            (State::LineStart | State::Name, _) if is_token_byte(byte) => {
                self.overhead(State::Name)
            }
            (State::Name, b':') => self.overhead(State::Value),
            (State::Value, b'\r') => Ok(State::ValueLf),
            (State::Value, _) if is_text(byte) => self.overhead(State::Value),
            (State::ValueLf, b'\n') => Ok(State::LineStart),
            (State::LastLf, b'\n') => Ok(State::Done),
            _ => Err(BodyFault::Malformed),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, BodyFault> {
        let digit = char::from(byte).to_digit(16).ok_or(BodyFault::Malformed)?;
        self.digits = self.digits.saturating_add(1);
        if self.digits > SIZE_DIGITS_MAX {
            return Err(BodyFault::Malformed);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn begin_chunk(&mut self) -> Result<State, BodyFault> {
        if self.left == 0 {
            return Ok(State::LineStart); // the last chunk
        }
        self.room = self.room.checked_sub(self.left).ok_or(BodyFault::TooLong)?;
        Ok(State::Chunk)
    }

    /// RFC 9112 section 7.1.1: "A recipient ought to limit the total length of chunk extensions".
    fn overhead(&mut self, next: State) -> Result<State, BodyFault> {
        self.overhead_left = self.overhead_left.checked_sub(1).ok_or(BodyFault::Overhead)?;
        Ok(next)
    }

    /// Whether the last byte of the body was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of content that have come.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// What of the body has not come.
    pub(crate) fn rest(&self) -> BodyFraming {
        match self.state {
            State::Done => BodyFraming::None,
            State::Content => BodyFraming::Length(self.left),
            _ => BodyFraming::Chunked,
        }
    }
}

/// What may stand in a line: no control character but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of a chunked body that comes in pieces of that size, and what was left behind it.
    fn decoded(body: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), BodyFault> {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked, 1_000, 20)?;
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in body.chunks(piece) {
            let mut piece = piece.to_vec();
            let one = decoder.decode(&mut piece)?;
            assert!(one.content <= one.taken && one.taken <= piece.len());
            content.extend_from_slice(&piece[..one.content]);
            taken += one.taken;
        }
        assert_eq!(decoder.received(), content.len() as u64);
        assert_eq!(decoder.is_done(), decoder.rest() == BodyFraming::None);
        Ok((content, body.len() - taken, decoder.is_done()))
    }

    #[test]
    fn chunked_bodies_by_rfc_9112_section_7_1() {
        let done: &[(&str, &str, usize)] = &[
            ("0\r\n\r\n", "", 0),
            ("000\r\n\r\nGET", "", 3),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nrest", "hello world", 4),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0),
            ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5;a=b\r\nhello\r\n0;last\r\n\r\n", "hello", 0),
            ("5 ; a = \"b;c\"\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", 0),
            ("0\r\nA: b\r\n\r\n", "", 0),
            ("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\nGET", "x", 3),
        ];
        for &(body, content, left) in done {
            for piece in 1..=body.len() {
                let all = decoded(body.as_bytes(), piece);
                assert_eq!(all, Ok((content.into(), left, true)), "{body:?} by {piece}");
            }
        }
        for part in ["", "5", "5;x", "5\r", "5\r\nhel", "5\r\nhello\r", "0\r\n", "0\r\nA: b\r\n\r"]
        {
            assert!(matches!(decoded(part.as_bytes(), 100), Ok((_, 0, false))), "{part:?}");
        }
    }

    #[test]
    fn chunked_bodies_that_are_refused() {
        use BodyFault::{Malformed, Overhead, TooLong};
        let faults: &[(&str, BodyFault)] = &[
            ("\r\n", Malformed),
            ("x\r\n", Malformed),
            ("-1\r\n", Malformed),
            ("+1\r\n", Malformed),
            ("0x1\r\n", Malformed),
            (" 1\r\n", Malformed),
            (";\r\n", Malformed),
            ("1 \r\nx\r\n", Malformed),
            ("1 2\r\n", Malformed),
            ("1_0\r\n", Malformed),
            ("00000000000000001\r\nx\r\n0\r\n\r\n", Malformed),
            ("1\nx\r\n0\r\n\r\n", Malformed),
            ("1\rx", Malformed),
            ("1\r\nxy\r\n", Malformed),
            ("1\r\nx\n", Malformed),
            ("1\r\nx\r0", Malformed),
            ("1\r\nx0\r\n\r\n", Malformed),
            ("1;a\nx\r\n0\r\n\r\n", Malformed),
            ("1;a\rb\r\nx\r\n0\r\n\r\n", Malformed),
            ("1;a\0\r\nx\r\n", Malformed),
            ("0\r\n\n", Malformed),
            ("0\r\n\rX", Malformed),
            ("0\r\n: b\r\n\r\n", Malformed),
            ("0\r\nA : b\r\n\r\n", Malformed),
            ("0\r\nA\r\n\r\n", Malformed),
            ("0\r\n A: b\r\n\r\n", Malformed),
            ("0\r\nA: b\r\n c\r\n\r\n", Malformed),
            ("0\r\nA: b\n\r\n", Malformed),
            ("0\r\nA: b\rc\r\n\r\n", Malformed),
            ("0\r\nA: b\0\r\n\r\n", Malformed),
            ("3e9\r\n", TooLong),
            ("ffffffffffffffff\r\n", TooLong),
            ("1;123456789012345678901\r\n", Overhead),
            ("0\r\nA: 123456789012345678901\r\n\r\n", Overhead),
        ];
        assert!(decoded(b"3e8\r\n", 9).is_ok(), "the very limit");
        for &(body, fault) in faults {
            for piece in 1..=body.len() {
                assert_eq!(decoded(body.as_bytes(), piece), Err(fault), "{body:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_length_is_taken_to_its_last_byte() {
        let limit = |length| BodyDecoder::new(BodyFraming::Length(length), 10, 0).map(|_| ());
        assert_eq!((limit(10), limit(11)), (Ok(()), Err(BodyFault::TooLong)));
        let mut decoder = BodyDecoder::new(BodyFraming::Length(5), 10, 0).unwrap();
        let mut first = *b"hel";
        assert_eq!(decoder.decode(&mut first), Ok(Decoded { taken: 3, content: 3 }));
        assert_eq!(decoder.rest(), BodyFraming::Length(2));
        let mut second = *b"loGET";
        assert_eq!(decoder.decode(&mut second), Ok(Decoded { taken: 2, content: 2 }));
        assert!(decoder.is_done() && second.starts_with(b"lo"));
        assert_eq!(decoder.decode(&mut second), Ok(Decoded { taken: 0, content: 0 }));
        assert!(BodyDecoder::new(BodyFraming::None, 0, 0).unwrap().is_done());
    }

    /// Many short chunks are under no other limit than that of the content.
    #[test]
    fn the_limits_count_over_all_chunks() {
        let mut body = "1\r\nx\r\n".repeat(1_000);
        assert!(decoded(body.as_bytes(), 7).is_ok());
        body.push_str("1\r\nx\r\n");
        assert_eq!(decoded(body.as_bytes(), 7), Err(BodyFault::TooLong));
        let extended = "1;abcde\r\nx\r\n".repeat(4);
        assert!(decoded(extended.as_bytes(), 7).is_ok());
        let extended = "1;abcde\r\nx\r\n".repeat(5);
        assert_eq!(decoded(extended.as_bytes(), 7), Err(BodyFault::Overhead));
    }
}

//! The differential oracle: the same bytes, in any chunking, through this crate's reader and
//! through tungstenite's `WebSocketContext` amount to the same messages and the same class of fault;
//! and through the readers of frames (`framewise`) and of pieces (`piecewise`) too.
//!
//! Where the two may differ is one list, [`Difference`]; anything else is a bug. Request heads have
//! no second reader here, but cutting them may change nothing either.

pub(crate) mod bodies;
pub(crate) mod framewise;
pub(crate) mod piecewise;
pub(crate) mod verdict;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};

use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::structures::assembled::Assembled;
use crate::structures::spare_buffers::SpareBuffers;
use crate::words::close::CloseCode;
use crate::words::error::ProtocolError;

use crate::protocol::close::read_close;
use crate::protocol::extension::header::offered_extensions;
use crate::protocol::frame::{FrameRules, Masking, OpCode, ShortMessage};
use crate::protocol::head::{HeadLimits, HeadStatus, parse_head};
use crate::protocol::head_error::HeadError;
use crate::protocol::message_reader::{Incoming, next_message};

use verdict::{Seen, Verdict, pieces};

/// Where the two may differ once the frame that is at fault is complete. (Before that they always
/// may: this crate speaks at the byte that shows a fault, tungstenite at the end of the frame.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// A length in more bytes than it needs, or with its top bit set: 1002 here (RFC 6455 section
    /// 5.2, "MUST"); tungstenite takes the one and reports the size of the other.
    LengthEncoding,
    /// A Close with a code that may not be sent: 1002 here; tungstenite reports a Close with 1002
    /// in its place.
    CloseCode,
    /// A Close with 1014, which the IANA registry has and tungstenite does not know.
    CloseCode1014,
    /// One frame with a fault against the protocol and another against size or text: the two look
    /// at them in another order.
    TwoFaults,
}

/// The limits that both are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OracleRules {
    /// At least 125: below that tungstenite refuses control frames, and this crate does not.
    pub(crate) max_frame_size: usize,
    pub(crate) max_message_size: usize,
    pub(crate) masking: Masking,
}

impl OracleRules {
    fn of_frames(self) -> FrameRules {
        FrameRules {
            max_frame_size: self.max_frame_size,
            max_coded_frame_size: self.max_frame_size,
            max_message_size: self.max_message_size,
            max_fragments: u32::MAX,
            masking: self.masking,
            allowed_rsv: 0,
            claimed_rsv: 0,
        }
    }
}

/// Compares the two on `bytes`, cut at `cuts`; says what was met of the list of differences.
pub(crate) fn compare(
    bytes: &[u8],
    cuts: &[usize],
    rules: OracleRules,
) -> Result<(Verdict, BTreeSet<Difference>), String> {
    let (bytewise, consumed) = by_wirewheel(bytes.chunks(1), rules);
    let (ours, _) = by_wirewheel(pieces(bytes, cuts).into_iter(), rules);
    if ours != bytewise {
        return Err(format!("the cuts {cuts:?} change {bytewise:?} to {ours:?}"));
    }
    let mut differences = BTreeSet::new();
    // Complete the frame that is at fault, which tungstenite waits for.
    let completed = if ours.fault.is_some() {
        complete_frame_at(bytes, consumed.saturating_sub(1))
    } else {
        bytes.to_vec()
    };
    framewise::agree(&completed, cuts, &rules.of_frames(), &ours)?;
    piecewise::agree(&completed, cuts, &rules.of_frames(), &ours)?;
    let theirs = by_tungstenite(pieces(&completed, cuts), rules);
    if ours == theirs {
        return Ok((ours, differences));
    }
    let frame = Shape::at(&completed, consumed.saturating_sub(1));
    let known = match (&ours, &theirs) {
        _ if differ_by_1014(&ours, &theirs) => Some(Difference::CloseCode1014),
        (Verdict { fault: Some(1002), .. }, _) if frame.has_bad_length() => {
            Some(Difference::LengthEncoding)
        }
        (Verdict { fault: Some(1002), seen }, Verdict { fault: None, seen: more })
            if is_with_bad_close(seen, more) && frame.has_bad_close_code() =>
        {
            Some(Difference::CloseCode)
        }
        (Verdict { fault: Some(1002), seen }, Verdict { fault: Some(other), seen: same })
            if seen == same && frame.has_second_fault(*other, rules) =>
        {
            Some(Difference::TwoFaults)
        }
        _ => None,
    };
    let Some(known) = known else {
        return Err(format!("wirewheel: {ours:?}\ntungstenite: {theirs:?}\nbytes: {bytes:02x?}"));
    };
    differences.insert(known);
    Ok((ours, differences))
}

/// The verdict, and how many bytes had arrived when it was reached.
fn by_wirewheel<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    rules: OracleRules,
) -> (Verdict, usize) {
    let (rules, masking) = (rules.of_frames(), rules.masking);
    let mut verdict = Verdict::default();
    let (mut partial, mut arrived) = (None, 0);
    let mut spare = SpareBuffers::new(0);
    for piece in pieces {
        arrived += piece.len();
        let mut rx = piece.to_vec();
        let mut rest = rx.as_mut_slice();
        while !verdict.is_over() && !rest.is_empty() {
            // As the core does: whole short messages are recognised without the reader.
            let limit = rules.max_frame_size.min(rules.max_message_size);
            let may_be_short = partial.is_none() && masking != Masking::Forbidden;
            let short = may_be_short.then(|| seen_short(rest, limit)).flatten();
            let step = match short {
                Some(step) => step,
                None => next_message(&mut partial, rest, &rules, &mut spare)
                    .and_then(|(incoming, used)| Ok((seen(incoming)?, used))),
            };
            let (seen, used) = match step {
                Ok(step) => step,
                Err(error) => {
                    verdict.fault = Some(error.close_code().into());
                    break;
                }
            };
            verdict.seen.extend(seen);
            rest = &mut rest[used..];
        }
        if verdict.is_over() {
            break;
        }
    }
    (verdict, arrived)
}

/// A short message at the start of `bytes`, and how many bytes it takes.
fn seen_short(
    bytes: &mut [u8],
    limit: usize,
) -> Option<Result<(Option<Seen>, usize), ProtocolError>> {
    let ShortMessage { text, payload, end } = ShortMessage::unmask(bytes, limit)?;
    let seen = if text {
        let text = std::str::from_utf8(payload).map_err(|_| ProtocolError::InvalidUtf8);
        text.map(|text| Seen::Text(text.into()))
    } else {
        Ok(Seen::Binary(payload.into()))
    };
    Some(seen.map(|seen| (Some(seen), end)))
}

fn seen(incoming: Incoming<'_>) -> Result<Option<Seen>, ProtocolError> {
    Ok(Some(match incoming {
        Incoming::Nothing => return Ok(None),
        Incoming::Text(text, _) => Seen::Text(text.into()),
        Incoming::Binary(bytes, _) => Seen::Binary(bytes.into()),
        Incoming::Assembled(Assembled::Text(text), _) => Seen::Text(text),
        Incoming::Assembled(Assembled::Binary(bytes), _) => Seen::Binary(bytes),
        Incoming::Control(OpCode::Ping, payload) => Seen::Ping(payload.into_owned()),
        Incoming::Control(OpCode::Pong, payload) => Seen::Pong(payload.into_owned()),
        Incoming::Control(_, payload) => {
            let close = read_close(&payload)?;
            Seen::Close(close.map(|(code, text)| (code.into(), text.to_owned())))
        }
    }))
}

/// Bytes in pieces, then `WouldBlock`; takes whatever is written.
struct Pieces<'a>(std::vec::IntoIter<&'a [u8]>, &'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.next().ok_or(ErrorKind::WouldBlock)?;
        }
        let n = self.1.len().min(buffer.len());
        let (now, later) = self.1.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.1 = later;
        Ok(n)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn by_tungstenite(pieces: Vec<&[u8]>, rules: OracleRules) -> Verdict {
    let config = WebSocketConfig::default()
        .read_buffer_size(64)
        .max_frame_size(Some(rules.max_frame_size))
        .max_message_size(Some(rules.max_message_size))
        .accept_unmasked_frames(rules.masking == Masking::Optional);
    let role = if rules.masking == Masking::Forbidden { Role::Client } else { Role::Server };
    let mut context = WebSocketContext::new(role, Some(config));
    let mut stream = Pieces(pieces.into_iter(), &[]);
    let mut verdict = Verdict::default();
    while !verdict.is_over() {
        match context.read(&mut stream) {
            Ok(message) => verdict.seen.push(match message {
                Message::Text(text) => Seen::Text(text.as_str().into()),
                Message::Binary(bytes) => Seen::Binary(bytes.into()),
                Message::Ping(bytes) => Seen::Ping(bytes.into()),
                Message::Pong(bytes) => Seen::Pong(bytes.into()),
                Message::Close(close) => Seen::Close(
                    close.map(|close| (close.code.into(), close.reason.as_str().into())),
                ),
                Message::Frame(_) => unreachable!("read gives no raw frames"),
            }),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
            Err(tungstenite::Error::Capacity(_)) => verdict.fault = Some(1009),
            Err(tungstenite::Error::Utf8(_)) => verdict.fault = Some(1007),
            Err(_) => verdict.fault = Some(1002),
        }
    }
    verdict
}

fn differ_by_1014(ours: &Verdict, theirs: &Verdict) -> bool {
    let (Some((Seen::Close(Some((1014, _))), before)), Some((Seen::Close(Some((1002, _))), same))) =
        (ours.seen.split_last(), theirs.seen.split_last())
    else {
        return false;
    };
    before == same
}

fn is_with_bad_close(seen: &[Seen], more: &[Seen]) -> bool {
    matches!(more.split_last(), Some((Seen::Close(Some((1002, _))), same)) if same == seen)
}

/// A frame as it lies in the bytes, read by nobody's code but this.
struct Shape<'a> {
    frame: &'a [u8],
    header_len: usize,
    payload_len: u64,
}

impl<'a> Shape<'a> {
    /// The frame that byte `at` belongs to.
    fn at(bytes: &'a [u8], at: usize) -> Self {
        let mut rest = bytes;
        loop {
            let shape = Self::first(rest);
            let end = (shape.header_len as u64).saturating_add(shape.payload_len);
            let here = bytes.len() - rest.len();
            match usize::try_from(end) {
                Ok(end) if end < rest.len() && here + end <= at => rest = &rest[end..],
                _ => return shape,
            }
        }
    }

    fn first(bytes: &'a [u8]) -> Self {
        let second = bytes.get(1).copied().unwrap_or(0x80);
        let extended = match second & 127 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut payload_len = u64::from(second & 127);
        if extended > 0 {
            payload_len = (0..extended).fold(0, |length, index| {
                (length << 8) | u64::from(bytes.get(2 + index).copied().unwrap_or(0))
            });
        }
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        Self { frame: bytes, header_len: 2 + extended + mask, payload_len }
    }

    fn payload(&self) -> Vec<u8> {
        let end = usize::try_from(self.payload_len).map_or(self.frame.len(), |len| {
            self.frame.len().min(self.header_len.saturating_add(len))
        });
        let mut payload = self.frame.get(self.header_len..end).unwrap_or_default().to_vec();
        if self.frame.get(1).is_some_and(|second| second & 0x80 != 0) {
            let mask = &self.frame[self.header_len - 4..self.header_len];
            payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= mask[index % 4]);
        }
        payload
    }

    fn has_bad_length(&self) -> bool {
        match self.frame.get(1).map(|second| second & 127) {
            Some(126) => self.payload_len < 126,
            Some(127) => self.payload_len <= 0xffff || self.payload_len >> 63 != 0,
            _ => false,
        }
    }

    fn has_bad_close_code(&self) -> bool {
        let payload = self.payload();
        let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        self.frame[0] & 15 == 8 && code.is_some_and(|code| !CloseCode::new(code).may_be_sent())
    }

    /// Whether this frame has a fault of the class `code` too, beside the one that was reported.
    fn has_second_fault(&self, code: u16, rules: OracleRules) -> bool {
        match code {
            1009 => self.payload_len > rules.max_frame_size.min(rules.max_message_size) as u64,
            1007 => self.has_bad_close_code(),
            _ => false,
        }
    }
}

/// The bytes up to the end of the frame that byte `at` belongs to, filled up with zeros.
fn complete_frame_at(bytes: &[u8], at: usize) -> Vec<u8> {
    let frame = Shape::at(bytes, at);
    let start = bytes.len() - frame.frame.len();
    let mut bytes = bytes.to_vec();
    if bytes.len() - start == 1 {
        bytes.push(0x80); // masked and empty: no second fault
    }
    // What is longer than this is over every limit of the oracle, which its header shows.
    let wanted = frame.header_len + usize::try_from(frame.payload_len).unwrap_or(0).min(1 << 20);
    bytes.resize(start + wanted, 0);
    bytes
}

/// Reads a head that arrives in pieces, as the core does: everything so far, each time.
fn head_of(pieces: &[&[u8]], limits: &HeadLimits) -> Result<Option<(String, usize)>, HeadError> {
    let (mut scanned, mut arrived) = (0, Vec::new());
    for piece in pieces {
        arrived.extend_from_slice(piece);
        if let HeadStatus::Complete { head, length } = parse_head(&arrived, limits, &mut scanned)? {
            return Ok(Some((format!("{head:?} {:?}", offered_extensions(&head)), length)));
        }
    }
    Ok(None)
}

/// Cuts change neither a head, nor the extensions it offers, nor why it is refused; a refusal may only
/// come later, with the blank line or the limit, because a head that dribbles in is not read again at
/// every byte.
pub(crate) fn compare_head(bytes: &[u8], cuts: &[usize]) -> Result<(), String> {
    let limits = HeadLimits { max_bytes: 200, max_lines: 4 };
    let whole = head_of(&[bytes], &limits);
    for pieces in [pieces(bytes, cuts), bytes.chunks(1).collect()] {
        let cut = head_of(&pieces, &limits);
        let waits = whole.is_err() && cut == Ok(None);
        if cut != whole && !waits {
            return Err(format!("whole: {whole:?}\nin pieces: {cut:?}\n{bytes:02x?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: OracleRules =
        OracleRules { max_frame_size: 300, max_message_size: 700, masking: Masking::Required };

    /// One frame, well formed but for what `twist` does to it.
    fn frame(first: u8, payload: &[u8], key: [u8; 4], twist: u8) -> Vec<u8> {
        let mask = if twist == 1 { 0 } else { 0x80 };
        let mut frame = vec![if twist == 2 { first | 0x20 } else { first }];
        let len = payload.len();
        match len {
            // Twists 3 and 4: a length in more bytes than it needs.
            _ if twist == 3 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
            _ if twist == 4 => {
                frame.push(mask | 127);
                frame.extend((len as u64).to_be_bytes());
            }
            0..=125 => frame.push(mask | u8::try_from(len).unwrap()),
            _ => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        let key = if mask == 0 { [0; 4] } else { key };
        if mask != 0 {
            frame.extend(key);
        }
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
        frame
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => ".{0,40}".prop_map(String::into_bytes),
            2 => proptest::collection::vec(any::<u8>(), 0..20),
            1 => proptest::collection::vec(Just(b'x'), 100..400),
            2 => (990u16..1020, "[a-zé]{0,60}").prop_map(|(code, text)| {
                [&code.to_be_bytes()[..], text.as_bytes()].concat()
            }),
        ]
    }

    /// Frames of a client, or of a server.
    fn frames(masked: bool) -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            20 => prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a]),
            2 => Just(0x88),
            1 => any::<u8>(),
        ];
        let twist = prop_oneof![30 => Just(0u8), 1 => 1u8..5];
        let one = (first, payload(), any::<[u8; 4]>(), twist);
        let stream = proptest::collection::vec(one, 1..12).prop_map(move |frames| {
            let frames = frames.iter();
            let encoded = frames.flat_map(|(first, payload, key, twist)| {
                // Twist 1 is the fault of the wrong mask.
                let twist = if *twist < 2 && !masked { 1 - *twist } else { *twist };
                frame(*first, payload, *key, twist)
            });
            encoded.collect::<Vec<u8>>()
        });
        (stream, any::<usize>(), any::<u8>(), 0u8..8).prop_map(|(stream, at, byte, twist)| {
            let mut bytes = stream;
            let at = at % (bytes.len() + 1);
            match twist {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] ^= byte,
                2 => bytes.insert(at, byte),
                _ => {}
            }
            bytes
        })
    }

    fn rules() -> impl Strategy<Value = OracleRules> {
        let message = prop::sample::select(vec![1usize, 60, 300, 700]);
        let max_frame_size = prop::sample::select(vec![125usize, 300, 1000]);
        let masking = vec![Masking::Required, Masking::Optional, Masking::Forbidden];
        (max_frame_size, message, prop::sample::select(masking)).prop_map(
            |(max_frame_size, max_message_size, masking)| OracleRules {
                max_frame_size,
                max_message_size,
                masking,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn both_see_the_same_in_any_chunking(
            bytes in frames(true),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
            rules in rules(),
        ) {
            compare(&bytes, &cuts, rules).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn both_see_the_same_of_a_server(
            bytes in frames(false),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
            rules in rules(),
        ) {
            let rules = OracleRules { masking: Masking::Forbidden, ..rules };
            compare(&bytes, &cuts, rules).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn both_see_the_same_in_noise(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
            rules in rules(),
        ) {
            compare(&bytes, &cuts, rules).map_err(TestCaseError::fail)?;
        }
    }

    fn head() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            6 => Just("GET /a?b HTTP/1.1\r\nHost: h\r\n".to_owned()),
            1 => Just("\r\nGET / HTTP/1.0\n".to_owned()),
            1 => Just("GET / HTTP/2.0\r\n".to_owned()),
            1 => "[ -~]{0,30}\r\n",
        ];
        let line = prop_oneof![
            4 => "[A-Za-z]{1,8}: [ -~]{0,30}\r\n",
            1 => Just("Content-Length: 1\r\n".to_owned()),
            1 => r#"Sec-WebSocket-Extensions: [ab]( ?; ?c(=1|="\\?d")?)?( ?, ?e)?\r\n"#,
            1 => Just("Transfer-Encoding: chunked\n".to_owned()),
            1 => "[ -~]{0,20}\r\n",
        ];
        let end = prop_oneof![4 => Just("\r\n"), 1 => Just("\n"), 1 => Just(""), 1 => Just("\r")];
        let lines = proptest::collection::vec(line, 0..6);
        (first, lines, end, any::<usize>(), any::<u8>(), 0u8..6).prop_map(
            |(first, lines, end, at, byte, twist)| {
                let mut bytes = format!("{first}{}{end}rest", lines.concat()).into_bytes();
                let at = at % bytes.len();
                match twist {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = byte,
                    _ => {}
                }
                bytes
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_head_is_the_same_in_any_chunking(
            bytes in head(),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
        ) {
            compare_head(&bytes, &cuts).map_err(TestCaseError::fail)?;
        }
    }

    #[track_caller]
    fn met(bytes: &[u8]) -> (Verdict, Vec<Difference>) {
        let (verdict, met) = compare(bytes, &[], RULES).unwrap();
        (verdict, met.into_iter().collect())
    }

    /// The list has no entry that never happens.
    #[test]
    fn every_difference_is_real() {
        let key = [1, 2, 3, 4];
        let (verdict, differences) = met(&frame(0x81, b"long", key, 3));
        assert_eq!((verdict.fault, differences), (Some(1002), vec![Difference::LengthEncoding]));
        let (verdict, differences) = met(b"\x82\xff\x80\0\0\0\0\0\0\0");
        assert_eq!((verdict.fault, differences), (Some(1002), vec![Difference::LengthEncoding]));
        let (verdict, differences) = met(&frame(0x88, &1005u16.to_be_bytes(), key, 0));
        assert_eq!((verdict.fault, differences), (Some(1002), vec![Difference::CloseCode]));
        let (verdict, differences) = met(&frame(0x88, &1014u16.to_be_bytes(), key, 0));
        assert_eq!((verdict.fault, differences), (None, vec![Difference::CloseCode1014]));
        let (verdict, differences) = met(&frame(0x82, &[0; 301], key, 2));
        assert_eq!((verdict.fault, differences), (Some(1002), vec![Difference::TwoFaults]));
    }

    /// The oracle is no yes-man: it sees messages, and each class of fault.
    #[test]
    fn verdicts_are_what_they_should_be() {
        let key = [9, 8, 7, 6];
        let stream = [
            frame(0x01, "κό".as_bytes(), key, 0),
            frame(0x89, b"!", key, 0),
            frame(0x80, "σμε".as_bytes(), key, 0),
            frame(0x82, &[0; 126], key, 0),
        ]
        .concat();
        let seen =
            vec![Seen::Ping(b"!".into()), Seen::Text("κόσμε".into()), Seen::Binary(vec![0; 126])];
        assert_eq!(met(&stream), (Verdict { seen: seen.clone(), fault: None }, vec![]));
        for (frame, code) in [
            (frame(0x81, b"\xff", key, 0), 1007),
            (frame(0x80, b"", key, 0), 1002),
            (frame(0x82, &[0; 301], key, 0), 1009),
            (frame(0x81, b"", key, 1), 1002),
        ] {
            let fault = Verdict { seen: seen.clone(), fault: Some(code) };
            assert_eq!(met(&[&stream[..], &frame].concat()), (fault, vec![]));
        }
    }
}

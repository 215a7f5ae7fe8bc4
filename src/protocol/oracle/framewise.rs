//! The comparison for sessions that look below messages: `frame_reader` finds the same frames in any
//! chunking and in both ways of handing them out, and they amount to what `message_reader` made of the bytes.

use crate::protocol::close::read_close;
use crate::protocol::frame::{FrameHeader, FrameRules, OpCode};
use crate::protocol::frame_reader::{Assembly, Step, next_step};
use crate::words::error::ProtocolError;

use super::verdict::{Seen, Verdict, pieces};

/// A frame: FIN, reserved bits, opcode, payload.
pub(crate) type Whole = (bool, u8, OpCode, Vec<u8>);

/// What a stream of bytes amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    pub(crate) whole: Vec<Whole>,
    /// What was handed out of a frame whose rest has not arrived.
    begun: Vec<u8>,
    pub(crate) fault: Option<ProtocolError>,
}

/// Compares on `bytes`, cut at `cuts`, with `expected`, which the reader says of them.
pub(super) fn agree(
    bytes: &[u8],
    cuts: &[usize],
    rules: &FrameRules,
    expected: &Verdict,
) -> Result<(), String> {
    // With the bit of an extension, and without.
    for claimed_rsv in [4, 0] {
        let rules = FrameRules { claimed_rsv, ..*rules };
        let put_together = in_any_chunking(bytes, cuts, &rules, Assembly::EveryFrame)?;
        let as_it_arrives = in_any_chunking(bytes, cuts, &rules, Assembly::ControlOnly)?;
        if as_it_arrives != (Frames { begun: as_it_arrives.begun.clone(), ..put_together }) {
            return Err(format!("handed out as it arrives: {as_it_arrives:?}\n{bytes:02x?}"));
        }
        let verdict = verdict(as_it_arrives, rules.max_message_size);
        if claimed_rsv == 0 && verdict != *expected {
            return Err(format!("frames: {verdict:?}\nreader: {expected:?}\n{bytes:02x?}"));
        }
    }
    Ok(())
}

fn in_any_chunking(
    bytes: &[u8],
    cuts: &[usize],
    rules: &FrameRules,
    assembly: Assembly,
) -> Result<Frames, String> {
    let whole = frames([bytes].into_iter(), rules, assembly);
    let in_pieces = frames(pieces(bytes, cuts).into_iter(), rules, assembly);
    let bytewise = frames(bytes.chunks(1), rules, assembly);
    if whole == in_pieces && whole == bytewise {
        return Ok(whole);
    }
    Err(format!("{assembly:?}, whole: {whole:?}\ncut: {in_pieces:?}\nbytewise: {bytewise:?}"))
}

/// The frames of a stream that arrives in these chunks. Between messages nothing may be kept.
pub(crate) fn frames<'a>(
    chunks: impl Iterator<Item = &'a [u8]>,
    rules: &FrameRules,
    assembly: Assembly,
) -> Frames {
    let mut frames = Frames::default();
    let (mut slot, mut is_open) = (None, false);
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut rest = &mut chunk[..];
        while !rest.is_empty() {
            let (header, used) = match next_step(&mut slot, rest, rules, assembly) {
                Ok((step, used)) => (frames.take(step), used),
                Err(fault) => {
                    frames.fault = Some(fault);
                    return frames;
                }
            };
            if let Some(header) = header {
                is_open = if header.opcode.is_control() { is_open } else { !header.fin };
                assert!(is_open || slot.is_none(), "something is kept between messages");
            }
            rest = &mut rest[used..];
        }
    }
    frames
}

impl Frames {
    /// The header of the frame that is complete with this.
    fn take(&mut self, step: Step<'_>) -> Option<FrameHeader> {
        let (header, payload) = match step {
            Step::Nothing => return None,
            Step::Frame(header, payload) => (header, payload.into_owned()),
            Step::Piece { header, payload, starts, ends } => {
                assert_eq!(starts, self.begun.is_empty(), "the first piece, and no other, starts");
                self.begun.extend_from_slice(payload);
                if !ends {
                    return None;
                }
                (header, std::mem::take(&mut self.begun))
            }
        };
        self.whole.push((header.fin, header.rsv, header.opcode, payload));
        Some(header)
    }
}

/// The frames put together to messages, and held to what holds of messages.
fn verdict(frames: Frames, max_message_size: usize) -> Verdict {
    let mut verdict = Verdict::default();
    let mut open: Option<(bool, Vec<u8>)> = None;
    for (fin, _, opcode, payload) in frames.whole {
        let seen = match opcode {
            OpCode::Ping => Ok(Some(Seen::Ping(payload))),
            OpCode::Pong => Ok(Some(Seen::Pong(payload))),
            OpCode::Close => read_close(&payload).map(|close| {
                Some(Seen::Close(close.map(|(code, text)| (code.into(), text.to_owned()))))
            }),
            OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                let (text, mut body) =
                    open.take().unwrap_or_else(|| (opcode == OpCode::Text, Vec::new()));
                body.extend(payload);
                let seen = data(text, &body, fin, max_message_size);
                open = (!fin).then_some((text, body));
                seen
            }
        };
        match seen {
            Ok(seen) => verdict.seen.extend(seen),
            Err(fault) => verdict.fault = Some(fault.close_code().into()),
        }
        if verdict.is_over() {
            return verdict;
        }
    }
    verdict.fault = frames.fault.map(|fault| fault.close_code().into());
    verdict
}

/// A message, if it is whole; or what is wrong with it so far.
fn data(text: bool, body: &[u8], fin: bool, max: usize) -> Result<Option<Seen>, ProtocolError> {
    if body.len() > max {
        return Err(ProtocolError::MessageTooBig { limit: max as u64 });
    }
    let seen = match std::str::from_utf8(body) {
        _ if !text => Seen::Binary(body.into()),
        Ok(text) => Seen::Text(text.into()),
        Err(error) if fin || error.error_len().is_some() => return Err(ProtocolError::InvalidUtf8),
        Err(_) => return Ok(None),
    };
    Ok(fin.then_some(seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Masking;
    use crate::protocol::oracle::OracleRules;
    use crate::protocol::oracle::verdict::fragmented;

    const RULES: OracleRules =
        OracleRules { max_frame_size: 125, max_message_size: 5, masking: Masking::Optional };

    fn verdict_of(bytes: &[u8]) -> Verdict {
        let rules = RULES.of_frames();
        let frames = frames(bytes.chunks(2), &rules, Assembly::ControlOnly);
        verdict(frames, rules.max_message_size)
    }

    /// It is no yes-man: it sees messages and each class of fault, and says so if another does not.
    #[test]
    fn frames_amount_to_messages_and_faults() {
        let start = b"\x01\x02\xce\xba\x89\x01!\x00\x01\xcf";
        let seen = vec![Seen::Ping(b"!".into())];
        assert_eq!(verdict_of(start), Verdict { seen, fault: None });
        for (bytes, expected) in fragmented() {
            assert_eq!(verdict_of(&bytes), expected, "{bytes:02x?}");
            let rules = RULES.of_frames();
            assert_eq!(agree(&bytes, &[3, 4], &rules, &expected), Ok(()));
            let other = Verdict { fault: Some(1011), ..expected };
            assert!(agree(&bytes, &[3, 4], &rules, &other).is_err());
        }
    }
}

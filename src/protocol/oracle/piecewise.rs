//! The comparison for sessions that take messages in pieces: however the bytes are cut, the pieces amount to
//! what `message_reader` made of them.

use crate::protocol::close::read_close;
use crate::protocol::frame::{FrameRules, OpCode};
use crate::protocol::piece_reader::{Content, NextPiece, PieceReader, PieceStep, next_piece};
use crate::words::error::{ProtocolError, SessionError};

use super::verdict::{Seen, Verdict, pieces};

/// Compares on `bytes`, cut at `cuts`, with `expected`, which the reader of whole messages says of them.
pub(super) fn agree(
    bytes: &[u8],
    cuts: &[usize],
    rules: &FrameRules,
    expected: &Verdict,
) -> Result<(), String> {
    let chunkings: [Vec<&[u8]>; 3] = [vec![bytes], pieces(bytes, cuts), bytes.chunks(1).collect()];
    for chunks in chunkings {
        let verdict = verdict(&chunks, rules);
        if verdict != *expected {
            let lengths: Vec<_> = chunks.iter().map(|chunk| chunk.len()).collect();
            return Err(format!(
                "in pieces of {lengths:?}: {verdict:?}\nreader: {expected:?}\n{bytes:02x?}"
            ));
        }
    }
    Ok(())
}

/// What a stream that arrives in these chunks amounts to. Between messages nothing may be kept.
fn verdict(chunks: &[&[u8]], rules: &FrameRules) -> Verdict {
    let (mut reader, mut slot) = (PieceReader::default(), None);
    let (mut verdict, mut open) = (Verdict::default(), None);
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut rest = &mut chunk[..];
        while !rest.is_empty() && !verdict.is_over() {
            let step = next_piece(&mut reader, None, &mut slot, rest, rules);
            let seen = step.map_err(code_of).and_then(|(step, used)| {
                Ok((seen(step, &mut open).map_err(|error| u16::from(error.close_code()))?, used))
            });
            match seen {
                Ok((seen, used)) => {
                    assert!(used > 0, "it makes no progress");
                    let ends = matches!(seen, Some(Seen::Text(_) | Seen::Binary(_)));
                    assert!(!ends || slot.is_none(), "something is kept between messages");
                    verdict.seen.extend(seen);
                    rest = &mut rest[used..];
                }
                Err(code) => verdict.fault = Some(code),
            }
        }
    }
    verdict
}

fn code_of(error: SessionError) -> u16 {
    error.close_code().into()
}

/// What is whole with this step. Pieces are held to what is said of them.
fn seen(
    step: PieceStep<'_>,
    open: &mut Option<(bool, Vec<u8>)>,
) -> Result<Option<Seen>, ProtocolError> {
    Ok(match step {
        PieceStep::Nothing => None,
        PieceStep::Control(OpCode::Ping, payload) => Some(Seen::Ping(payload.into_owned())),
        PieceStep::Control(OpCode::Pong, payload) => Some(Seen::Pong(payload.into_owned())),
        PieceStep::Control(_, payload) => {
            let close = read_close(&payload)?;
            Some(Seen::Close(close.map(|(code, text)| (code.into(), text.to_owned()))))
        }
        PieceStep::Piece(piece) => put_together(&piece, open),
    })
}

fn put_together(piece: &NextPiece<'_>, open: &mut Option<(bool, Vec<u8>)>) -> Option<Seen> {
    let (text, bytes) = match &piece.content {
        Content::Text(text) => (true, text.as_bytes()),
        Content::Binary(bytes) => (false, &bytes[..]),
    };
    assert_eq!(piece.first, open.is_none(), "the first piece, and no other, is the first");
    assert!(piece.last || !bytes.is_empty(), "only the last piece is empty");
    let (kind, body) = open.get_or_insert((text, Vec::new()));
    assert_eq!((*kind, body.len() as u64), (text, piece.offset));
    body.extend_from_slice(bytes);
    let (text, body) = open.take_if(|_| piece.last)?;
    Some(match text {
        true => Seen::Text(String::from_utf8(body).expect("its pieces are text")),
        false => Seen::Binary(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Masking;
    use crate::protocol::oracle::OracleRules;
    use crate::protocol::oracle::verdict::fragmented;

    const RULES: OracleRules =
        OracleRules { max_frame_size: 125, max_message_size: 5, masking: Masking::Optional };

    /// It is no yes-man: it sees messages and each class of fault, and says so if another does not.
    #[test]
    fn pieces_amount_to_messages_and_faults() {
        for (bytes, expected) in fragmented() {
            let rules = RULES.of_frames();
            assert_eq!(agree(&bytes, &[3, 4], &rules, &expected), Ok(()));
            let other = Verdict { fault: Some(1011), ..expected };
            assert!(agree(&bytes, &[3, 4], &rules, &other).is_err());
        }
    }
}

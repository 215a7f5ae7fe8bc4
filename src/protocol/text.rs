//! Text that arrives in pieces: checked once, as it comes, and never inside out.

use crate::words::error::ProtocolError;

/// A growing text. Pieces may be cut inside a character; what is invalid is said at the first byte
/// that cannot be part of any text (RFC 6455 section 8.1, and RFC 3629 for what UTF-8 is).
#[derive(Debug, Default)]
pub(crate) struct TextBuffer {
    text: String,
    /// The start of a character whose rest has not arrived: `tail_len` bytes, at most three.
    tail: [u8; 4],
    tail_len: u8,
}

impl TextBuffer {
    /// Adds a piece. The buffer never grows past `ceiling` bytes of capacity before it has to.
    pub(crate) fn push(&mut self, mut piece: &[u8], ceiling: usize) -> Result<(), ProtocolError> {
        while self.tail_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.push_tail(byte)?;
        }
        let valid = match std::str::from_utf8(piece) {
            Ok(text) => text,
            Err(error) if error.error_len().is_some() => return Err(ProtocolError::InvalidUtf8),
            Err(error) => {
                let (whole, cut) = piece.split_at(error.valid_up_to());
                for &byte in cut {
                    self.push_tail(byte)?;
                }
                std::str::from_utf8(whole).map_err(|_| ProtocolError::InvalidUtf8)?
            }
        };
        self.text.reserve_exact(growth(
            self.text.len(),
            self.text.capacity(),
            valid.len(),
            ceiling,
        ));
        self.text.push_str(valid);
        Ok(())
    }

    /// Adds a byte to the character that is incomplete.
    #[allow(clippy::arithmetic_side_effects, reason = "the slot exists, so tail_len is below 4")]
    fn push_tail(&mut self, byte: u8) -> Result<(), ProtocolError> {
        // Invariant: three bytes that are still incomplete make four at most, and four bytes are a
        // character or an error; so the index is always inside.
        if let Some(slot) = self.tail.get_mut(usize::from(self.tail_len)) {
            *slot = byte;
            self.tail_len += 1;
        }
        let tail = self.tail.get(..usize::from(self.tail_len)).unwrap_or_default();
        match std::str::from_utf8(tail) {
            Ok(text) => {
                self.text.push_str(text);
                self.tail_len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_some() => Err(ProtocolError::InvalidUtf8),
            Err(_) => Ok(()),
        }
    }

    /// The text, if it does not end inside a character.
    pub(crate) fn finish(self) -> Result<String, ProtocolError> {
        if self.tail_len == 0 { Ok(self.text) } else { Err(ProtocolError::InvalidUtf8) }
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.text.capacity()
    }
}

/// How much more to reserve so that `added` bytes fit: as they arrive, doubling, but not past what
/// can ever come.
#[allow(
    clippy::arithmetic_side_effects,
    reason = "lengths of what lies in memory; `needed` is over `len`"
)]
pub(super) fn growth(len: usize, capacity: usize, added: usize, ceiling: usize) -> usize {
    let needed = len + added;
    if needed <= capacity {
        return 0;
    }
    needed.max(capacity.saturating_mul(2).min(ceiling)) - len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(pieces: &[&[u8]]) -> Result<String, ProtocolError> {
        let mut buffer = TextBuffer::default();
        for piece in pieces {
            buffer.push(piece, 1 << 20)?;
        }
        buffer.finish()
    }

    #[test]
    fn the_first_impossible_byte_is_refused_at_once() {
        let mut buffer = TextBuffer::default();
        buffer.push("κόσμε".as_bytes(), 100).unwrap();
        buffer.push(&[0xed], 100).unwrap();
        assert_eq!(buffer.push(&[0xa0], 100), Err(ProtocolError::InvalidUtf8));
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_refused() {
        assert_eq!(in_pieces(&[&[0xe2, 0x82]]), Err(ProtocolError::InvalidUtf8));
        assert_eq!(in_pieces(&[&[0xe2], &[0x82], &[0xac]]), Ok("€".into()));
    }

    #[test]
    fn memory_doubles_but_stops_at_the_ceiling() {
        let mut buffer = TextBuffer::default();
        for _ in 0..10 {
            buffer.push(&[b'x'; 100], 1_000).unwrap();
        }
        assert_eq!(buffer.memory(), 1_000);
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_gives(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..24),
                ".{0,12}".prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(0usize..24, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&c| c <= bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(in_pieces(&pieces).ok(), String::from_utf8(bytes.clone()).ok());
        }
    }
}

//! Text that arrives in pieces: checked once, as it comes, and never inside out.

use crate::structures::spare_buffers::SpareBuffers;
use crate::words::error::ProtocolError;

/// The text that bytes are, all of which are there (RFC 6455 section 8.1).
#[inline]
pub(crate) fn checked_text(bytes: &[u8]) -> Result<&str, ProtocolError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| ProtocolError::InvalidUtf8)
}

/// A growing text. Pieces may be cut inside a character; what is invalid is said at the first byte
/// that cannot be part of any text (RFC 6455 section 8.1, and RFC 3629 for what UTF-8 is).
#[derive(Debug, Default)]
pub(crate) struct TextBuffer {
    text: String,
    cut: CutChar,
}

impl TextBuffer {
    /// Adds a piece. The buffer never grows past `ceiling` bytes of capacity before it has to, unless by
    /// taking one that is kept.
    pub(crate) fn push(
        &mut self,
        mut piece: &[u8],
        ceiling: usize,
        spare: &mut SpareBuffers,
    ) -> Result<(), ProtocolError> {
        while !self.cut.is_empty() {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.text.extend(self.cut.push(byte)?);
        }
        let whole = self.cut.take(piece)?;
        self.make_room(whole.len(), ceiling, spare);
        self.text.push_str(whole);
        Ok(())
    }

    fn make_room(&mut self, added: usize, ceiling: usize, spare: &mut SpareBuffers) {
        let (length, capacity) = (self.text.len(), self.text.capacity());
        let more = growth(length, capacity, added, ceiling);
        if more == 0 {
            return;
        }
        let kept = spare.take(length, added, ceiling);
        // It is empty, and so is text: this never fails, and looks at nothing.
        let Some(Ok(mut text)) = kept.map(String::from_utf8) else {
            return self.text.reserve_exact(more);
        };
        text.push_str(&self.text);
        spare.put(std::mem::replace(&mut self.text, text).into_bytes());
    }

    /// The buffer of a text that nobody needs any more.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// The text, if it does not end inside a character.
    pub(crate) fn finish(self) -> Result<String, ProtocolError> {
        if self.cut.is_empty() { Ok(self.text) } else { Err(ProtocolError::InvalidUtf8) }
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.text.capacity()
    }
}

/// The start of a character whose rest has not arrived: at most three bytes, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CutChar {
    bytes: [u8; 4],
    len: u8,
}

impl CutChar {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it lacks; 0 if there is none.
    pub(crate) fn missing(&self) -> usize {
        let lead = self.so_far().first().copied();
        lead.map_or(0, |lead| char_len(lead).saturating_sub(usize::from(self.len)))
    }

    /// Its bytes, which are no longer kept.
    pub(crate) fn give_up(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.so_far());
        self.len = 0;
    }

    /// Adds a byte: the character, if it is whole with that.
    #[allow(clippy::arithmetic_side_effects, reason = "the slot exists, so len is below 4")]
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<char>, ProtocolError> {
        // Invariant: three bytes that are still incomplete make four at most, and four bytes are a
        // character or an error; so the index is always inside.
        if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            *slot = byte;
            self.len += 1;
        }
        match std::str::from_utf8(self.so_far()) {
            Ok(text) => {
                let whole = text.chars().next();
                self.len = 0;
                Ok(whole)
            }
            Err(error) if error.error_len().is_some() => Err(ProtocolError::InvalidUtf8),
            Err(_) => Ok(None),
        }
    }

    /// The text of a piece, but for a character that is cut at its end, which is kept. To be called while
    /// none is.
    fn take<'p>(&mut self, piece: &'p [u8]) -> Result<&'p str, ProtocolError> {
        let whole = self.keep_end(piece)?;
        let whole = piece.get(..whole).unwrap_or_default();
        checked_text(whole)
    }

    /// Goes through a piece of a text, of which nothing but a character that is cut is kept.
    pub(crate) fn check(&mut self, mut piece: &[u8]) -> Result<(), ProtocolError> {
        while !self.is_empty() {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.push(byte)?;
        }
        self.take(piece).map(drop)
    }

    /// Keeps a character that is cut at the end of a piece, while none is kept: how many bytes are before
    /// it, which may be any.
    pub(crate) fn keep_end(&mut self, piece: &[u8]) -> Result<usize, ProtocolError> {
        // Found from behind, so that a text is looked through once, and not once more up to its cut.
        let whole = piece.len().saturating_sub(cut_at_end(piece));
        for &byte in piece.get(whole..).unwrap_or_default() {
            self.push(byte)?;
        }
        Ok(whole)
    }

    fn so_far(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// How many bytes the last character of a text has, if it is not whole; 0 if it is.
fn cut_at_end(text: &[u8]) -> usize {
    let is_lead = |byte: &u8| *byte & 0xc0 != 0x80;
    let behind = text.iter().rev().take(3).position(is_lead);
    let Some(length) = behind.map(|behind| behind.saturating_add(1)) else { return 0 };
    let lead = text.iter().rev().find(|byte| is_lead(byte)).copied().unwrap_or_default();
    if char_len(lead) > length { length } else { 0 }
}

/// How many bytes a character has that begins with this one; 1 where none does.
fn char_len(lead: u8) -> usize {
    match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    }
}

/// Makes room for `added` bytes, as [`growth`] has it or in a buffer that is kept.
pub(super) fn make_room(
    bytes: &mut Vec<u8>,
    added: usize,
    ceiling: usize,
    spare: &mut SpareBuffers,
) {
    let more = growth(bytes.len(), bytes.capacity(), added, ceiling);
    if more == 0 {
        return;
    }
    let Some(mut kept) = spare.take(bytes.len(), added, ceiling) else {
        return bytes.reserve_exact(more);
    };
    kept.extend_from_slice(bytes);
    spare.put(std::mem::replace(bytes, kept));
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
        let (mut buffer, mut spare) = (TextBuffer::default(), SpareBuffers::new(0));
        for piece in pieces {
            buffer.push(piece, 1 << 20, &mut spare)?;
        }
        buffer.finish()
    }

    #[test]
    fn the_first_impossible_byte_is_refused_at_once() {
        let (mut buffer, mut spare) = (TextBuffer::default(), SpareBuffers::new(0));
        buffer.push("κόσμε".as_bytes(), 100, &mut spare).unwrap();
        buffer.push(&[0xed], 100, &mut spare).unwrap();
        assert_eq!(buffer.push(&[0xa0], 100, &mut spare), Err(ProtocolError::InvalidUtf8));
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_refused() {
        assert_eq!(in_pieces(&[&[0xe2, 0x82]]), Err(ProtocolError::InvalidUtf8));
        assert_eq!(in_pieces(&[&[0xe2], &[0x82], &[0xac]]), Ok("€".into()));
    }

    #[test]
    fn a_cut_character_says_what_it_lacks() {
        let mut cut = CutChar::default();
        assert_eq!(cut.missing(), 0);
        for (text, lacks) in [("a€", [2, 1]), ("é", [1, 1]), ("😀", [3, 2])] {
            let bytes = text.as_bytes();
            let lead = bytes.len() - text.chars().last().unwrap().len_utf8();
            for (kept, lacks) in (1..bytes.len() - lead).zip(lacks) {
                let whole = cut.take(&bytes[..lead + kept]).unwrap();
                assert_eq!((whole, cut.missing()), (&text[..lead], lacks), "{text}");
                let mut out = Vec::new();
                cut.give_up(&mut out);
                assert_eq!((out.as_slice(), cut.is_empty()), (&bytes[lead..lead + kept], true));
            }
        }
    }

    #[test]
    fn memory_doubles_but_stops_at_the_ceiling() {
        let (mut buffer, mut spare) = (TextBuffer::default(), SpareBuffers::new(0));
        for _ in 0..10 {
            buffer.push(&[b'x'; 100], 1_000, &mut spare).unwrap();
        }
        assert_eq!(buffer.memory(), 1_000);
    }

    #[test]
    fn a_text_goes_on_in_a_buffer_that_is_kept() {
        let (mut buffer, mut spare) = (TextBuffer::default(), SpareBuffers::new(8 << 20));
        spare.put(Vec::with_capacity(1 << 20));
        buffer.push("é".repeat(1_000).as_bytes(), 1 << 20, &mut spare).unwrap();
        assert_eq!(buffer.memory(), 2_000, "too little came for that");
        buffer.push("é".repeat(40_000).as_bytes(), 1 << 20, &mut spare).unwrap();
        assert_eq!((buffer.memory(), spare.bytes()), (1 << 20, 0));
        assert_eq!(buffer.finish(), Ok("é".repeat(41_000)));
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

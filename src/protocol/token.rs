//! Tokens of header lines, and sets of bytes.

/// A set of bytes in which one is looked up instead of being compared with range after range.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// ASCII's letters and digits, and these.
    #[allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a byte has 256 values"
    )]
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            set[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut rest = others;
        while let Some((byte, later)) = rest.split_first() {
            set[*byte as usize] = true;
            rest = later;
        }
        Self(set)
    }

    #[inline]
    pub(super) fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|is_in| *is_in)
    }
}

static TOKEN: ByteSet = ByteSet::alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.has(byte)
}

/// Whether a text can be the value of a header line: nothing in it ends the line.
pub(crate) fn is_header_value(text: &str) -> bool {
    !text.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 127)
}

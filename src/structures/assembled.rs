//! A message that was put together from what came bit by bit: its buffer is its own.

use std::ops::Range;

use crate::words::message::Payload;

/// Text that was checked, or bytes.
#[derive(Debug)]
pub(crate) enum Assembled {
    Text(String),
    Binary(Vec<u8>),
}

impl Assembled {
    pub(crate) fn payload(&self) -> Payload<'_> {
        match self {
            Self::Text(text) => Payload::Text(text),
            Self::Binary(bytes) => Payload::Binary(bytes),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Binary(bytes) => bytes.capacity(),
        }
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Where these bytes lie in the message, if they are a part of it and no copy.
    pub(crate) fn range_of(&self, part: &[u8]) -> Option<Range<usize>> {
        let whole = self.bytes();
        let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        (end <= whole.len()).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_where_it_lies() {
        let message = Assembled::Binary(vec![7; 100]);
        assert_eq!(message.range_of(&message.bytes()[10..30]), Some(10..30));
        assert_eq!(message.range_of(message.bytes()), Some(0..100));
        assert_eq!(message.range_of(&[7; 20]), None, "a copy");
        let text = Assembled::Text("0123456789".repeat(10));
        assert_eq!(text.range_of(&text.bytes()[99..]), Some(99..100));
    }
}

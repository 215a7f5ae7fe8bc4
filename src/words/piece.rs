//! The piece of a message, as a handler gets it that takes messages in pieces.

use std::fmt;

use crate::words::message::{AsMessage, Message, Payload};

/// A part of a message, borrowed for the time of the hook; see [`PieceHandler`](crate::pieces::PieceHandler).
///
/// How a message is cut follows from how it arrives, and means nothing: pieces are no frames. Text is cut
/// between characters. A piece is empty only where the message ends, or has nothing in it at all.
///
/// ```
/// use wirewheel::message::Payload;
/// use wirewheel::pieces::Piece;
/// fn describe(piece: &Piece<'_>) -> String {
///     let kind = match piece.payload() {
///         Payload::Text(text) => format!("{} characters", text.chars().count()),
///         Payload::Binary(bytes) => format!("{} bytes", bytes.len()),
///     };
///     let edges = (piece.is_first(), piece.is_last());
///     format!("{kind} from byte {} on, first and last: {edges:?}", piece.offset())
/// }
/// fn length(piece: &Piece<'_>) -> Option<u64> {
///     piece.is_last().then(|| piece.offset() + piece.bytes().len() as u64)
/// }
/// fn is_text(piece: &Piece<'_>) -> bool {
///     piece.text().is_some() == piece.is_text()
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    message: Message<'a>,
    offset: u64,
    first: bool,
    last: bool,
}

impl<'a> Piece<'a> {
    pub(crate) fn new(message: Message<'a>, offset: u64, (first, last): (bool, bool)) -> Self {
        Self { message, offset, first, last }
    }

    /// Text or bytes, to match on. All pieces of a message are of one kind.
    pub fn payload(&self) -> Payload<'a> {
        self.message.payload()
    }

    /// The text, if it is of a text message.
    pub fn text(&self) -> Option<&'a str> {
        self.message.text()
    }

    /// Its bytes, whatever its kind.
    pub fn bytes(&self) -> &'a [u8] {
        self.message.bytes()
    }

    /// Whether it is of a text message.
    pub fn is_text(&self) -> bool {
        self.message.is_text()
    }

    /// How many bytes of the message came before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether a message begins with it.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Whether its message ends with it.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

impl AsMessage for Piece<'_> {
    fn as_message(&self) -> Message<'_> {
        self.message
    }
}

impl fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, first, last) = (self.offset, self.first, self.last);
        f.debug_struct("Piece")
            .field("payload", &self.message)
            .field("offset", &offset)
            .field("first", &first)
            .field("last", &last)
            .finish()
    }
}

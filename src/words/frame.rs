//! The frame as a raw session sees it, and what kinds of frames there are.

use crate::words::message::Rsv;

/// What a frame is (RFC 6455 section 5.2; Ktor's `FrameType`).
///
/// ```
/// use wirewheel::raw::{Frame, OpCode};
/// let frame = Frame::new(OpCode::Pong, b"");
/// let counts = match frame.opcode {
///     OpCode::Text | OpCode::Binary | OpCode::Continuation => true,
///     OpCode::Close | OpCode::Ping | OpCode::Pong => false,
/// };
/// assert_eq!(counts, !frame.opcode.is_control());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpCode {
    /// A further fragment of the message that has begun.
    Continuation,
    /// Text, or the first fragment of it.
    Text,
    /// Bytes, or the first fragment of them.
    Binary,
    /// The closing handshake.
    Close,
    /// A question that a pong answers.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl OpCode {
    /// The opcode of these four bits, if it is defined.
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether this is a control frame: never in fragments, at most 125 bytes, and allowed between
    /// the fragments of a message (RFC 6455 section 5.5).
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// One frame as it is on the wire but for its mask (Ktor's `Frame`): what a
/// [`RawHandler`](crate::raw::RawHandler) is handed and what
/// [`send_frame`](crate::Session::send_frame) takes.
///
/// ```
/// use wirewheel::raw::{Frame, OpCode, Rsv};
/// let frame = Frame::new(OpCode::Text, b"hello");
/// assert!(frame.fin && frame.rsv == Rsv::NONE);
/// let fragment = Frame { fin: false, ..frame };
/// assert_eq!(fragment.payload, b"hello");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The last frame of its message.
    pub fin: bool,
    /// The reserved bits: an extension's, or those that `lenient_rsv` lets through.
    pub rsv: Rsv,
    /// What it is.
    pub opcode: OpCode,
    /// The payload, unmasked. At most 125 bytes in a control frame.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame that is a whole message or a control frame, without reserved bits.
    pub const fn new(opcode: OpCode, payload: &'a [u8]) -> Self {
        Self { fin: true, rsv: Rsv::NONE, opcode, payload }
    }
}

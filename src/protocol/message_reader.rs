//! The message reader, above the frame reader: whole messages straight from the read buffer, everything
//! else put together, text checked as it comes.

use std::borrow::Cow;

use crate::words::error::ProtocolError;
use crate::words::message::Rsv;

use crate::protocol::frame::{FrameHeader, FrameRules, OpCode, apply_mask};
use crate::protocol::frame_reader::{Assembly, PartialFrame, Step, whole_frame};
use crate::protocol::text::{TextBuffer, growth};

/// What the next bytes turned out to be.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// Nothing is complete with what was taken.
    Nothing,
    /// A control frame, possibly between two fragments.
    Control(OpCode, Cow<'a, [u8]>),
    /// A text message that lies whole in the read buffer.
    Text(&'a str, Rsv),
    /// A binary message that lies whole in the read buffer.
    Binary(&'a [u8], Rsv),
    /// A text message put together from several reads or fragments.
    AssembledText(String, Rsv),
    /// A binary message put together from several reads or fragments.
    AssembledBinary(Vec<u8>, Rsv),
}

/// A frame or message that is unfinished. A connection between messages has none.
#[derive(Debug, Default)]
pub(crate) struct PartialMessage {
    pub(crate) frame: PartialFrame,
    message: Option<OpenMessage>,
}

/// A message whose last fragment has not arrived.
#[derive(Debug)]
struct OpenMessage {
    body: Body,
    rsv: Rsv,
}

#[derive(Debug)]
enum Body {
    Text(TextBuffer),
    Binary(Vec<u8>),
}

/// Takes bytes from the start of `rx`, unmasking in place, and says what they are and how many were
/// taken. To be called again with the rest until all are.
#[inline]
pub(crate) fn next_message<'a>(
    partial: &mut Option<Box<PartialMessage>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
) -> Result<(Incoming<'a>, usize), ProtocolError> {
    if partial.is_none() {
        if rx.is_empty() {
            return Ok((Incoming::Nothing, 0));
        }
        if let Some((header, end)) = whole_frame(rx, rules)? {
            let payload = rx.get_mut(header.header_len..end).unwrap_or_default();
            return whole_message(&header, payload, rules).map(|incoming| (incoming, end));
        }
    }
    in_parts(partial, rx, rules)
}

/// The one path of short messages: nothing is stored and nothing is copied.
#[inline]
fn whole_message<'a>(
    header: &FrameHeader,
    payload: &'a mut [u8],
    rules: &FrameRules,
) -> Result<Incoming<'a>, ProtocolError> {
    apply_mask(payload, header.mask, 0);
    let rsv = Rsv::from_bits(header.rsv);
    match header.opcode {
        OpCode::Text => {
            check_message_size(payload.len() as u64, rules)?;
            match std::str::from_utf8(payload) {
                Ok(text) => Ok(Incoming::Text(text, rsv)),
                Err(_) => Err(ProtocolError::InvalidUtf8),
            }
        }
        OpCode::Binary | OpCode::Continuation => {
            check_message_size(payload.len() as u64, rules)?;
            Ok(Incoming::Binary(payload, rsv))
        }
        OpCode::Close | OpCode::Ping | OpCode::Pong => {
            Ok(Incoming::Control(header.opcode, Cow::Borrowed(payload)))
        }
    }
}

fn check_message_size(len: u64, rules: &FrameRules) -> Result<(), ProtocolError> {
    let limit = rules.max_message_size as u64;
    if len > limit { Err(ProtocolError::MessageTooBig { limit }) } else { Ok(()) }
}

/// Everything that does not lie whole in one read: one step.
#[cold]
fn in_parts<'a>(
    slot: &mut Option<Box<PartialMessage>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
) -> Result<(Incoming<'a>, usize), ProtocolError> {
    let partial = slot.get_or_insert_with(Box::default);
    let (step, used) = partial.frame.step(rx, rules, Assembly::ControlOnly)?;
    // Before any of the payload is kept: a header that announces too much is refused at once.
    check_message_size(partial.frame.announced(), rules)?;
    let incoming = match step {
        Step::Nothing => Incoming::Nothing,
        Step::Frame(header, payload) if header.opcode.is_control() => {
            Incoming::Control(header.opcode, payload)
        }
        Step::Frame(header, payload) => partial.take(&header, &payload, true, rules)?,
        Step::Piece { header, payload, ends, .. } => partial.take(&header, payload, ends, rules)?,
    };
    if partial.frame.is_idle() {
        *slot = None;
    }
    Ok((incoming, used))
}

impl PartialMessage {
    /// Bytes held.
    #[allow(clippy::arithmetic_side_effects, reason = "capacities, each at most isize::MAX")]
    pub(crate) fn memory(&self) -> usize {
        let body = match self.message.as_ref().map(|message| &message.body) {
            Some(Body::Text(text)) => text.memory(),
            Some(Body::Binary(bytes)) => bytes.capacity(),
            None => 0,
        };
        size_of::<Self>() + self.frame.payload_memory() + body
    }

    /// Adds a data frame, or a piece of one: the message, if it is whole with that.
    fn take<'a>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        ends: bool,
        rules: &FrameRules,
    ) -> Result<Incoming<'a>, ProtocolError> {
        let mut message = self.message.take().unwrap_or_else(|| OpenMessage::new(header));
        // A message of one frame cannot outgrow it; one of several cannot outgrow the limit.
        let is_only = header.fin && header.opcode != OpCode::Continuation;
        let ceiling = if is_only { header.payload_len } else { rules.max_message_size };
        message.push(payload, ceiling)?;
        if ends && header.fin {
            return message.finish();
        }
        self.message = Some(message);
        Ok(Incoming::Nothing)
    }
}

impl OpenMessage {
    fn new(header: &FrameHeader) -> Self {
        let body = match header.opcode {
            OpCode::Text => Body::Text(TextBuffer::default()),
            _ => Body::Binary(Vec::new()),
        };
        Self { body, rsv: Rsv::from_bits(header.rsv) }
    }

    fn push(&mut self, piece: &[u8], ceiling: usize) -> Result<(), ProtocolError> {
        match &mut self.body {
            Body::Text(text) => text.push(piece, ceiling)?,
            Body::Binary(bytes) => {
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity(), piece.len(), ceiling));
                bytes.extend_from_slice(piece);
            }
        }
        Ok(())
    }

    fn finish<'a>(self) -> Result<Incoming<'a>, ProtocolError> {
        Ok(match self.body {
            Body::Text(text) => Incoming::AssembledText(text.finish()?, self.rsv),
            Body::Binary(bytes) => Incoming::AssembledBinary(bytes, self.rsv),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of connections may be in the middle of a message.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_is_kept_of_an_unfinished_message_is_small() {
        assert!(size_of::<PartialFrame>() <= 104, "{}", size_of::<PartialFrame>());
        assert!(size_of::<PartialMessage>() <= 160, "{}", size_of::<PartialMessage>());
    }
}

//! The message reader, above the frame reader: whole messages straight from the read buffer, everything
//! else put together, text checked as it comes.

use std::borrow::Cow;

use crate::structures::assembled::Assembled;
use crate::structures::spare_buffers::SpareBuffers;
use crate::words::error::ProtocolError;
use crate::words::message::Rsv;

use crate::protocol::frame::{FrameHeader, FrameRules, OpCode, apply_mask, extend_unmasked};
use crate::protocol::frame_reader::{Assembly, PartialFrame, Step, whole_frame};
use crate::protocol::text::{TextBuffer, checked_text, make_room};

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
    /// A message put together from several reads or fragments.
    Assembled(Assembled, Rsv),
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
/// taken. To be called again with the rest until all are. What is large is put together in spare buffers.
#[inline]
pub(crate) fn next_message<'a>(
    partial: &mut Option<Box<PartialMessage>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
    spare: &mut SpareBuffers,
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
    in_parts(partial, rx, rules, spare)
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
            Ok(Incoming::Text(checked_text(payload)?, rsv))
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
    spare: &mut SpareBuffers,
) -> Result<(Incoming<'a>, usize), ProtocolError> {
    let partial = slot.get_or_insert_with(Box::default);
    let Some(header_bytes) = partial.frame.open_frame(rx, rules)? else {
        return Ok((Incoming::Nothing, rx.len()));
    };
    // Before any of the payload is kept: a header that announces too much is refused at once. One that was
    // taken before has its limit of then.
    if header_bytes > 0 {
        check_message_size(partial.frame.announced(), rules)?;
    }
    let rest = rx.get_mut(header_bytes..).unwrap_or_default();
    let (incoming, used) = match partial.frame.header() {
        Some(header) if partial.is_binary(&header) => {
            partial.take_masked(&header, rest, rules, spare)?
        }
        _ => partial.take_unmasked(rest, rules, spare)?,
    };
    if partial.frame.is_idle() {
        *slot = None;
    }
    Ok((incoming, header_bytes.saturating_add(used)))
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

    /// The buffer of a message that nobody needs any more.
    pub(crate) fn into_buffer(self) -> Option<Vec<u8>> {
        match self.message?.body {
            Body::Text(text) => Some(text.into_buffer()),
            Body::Binary(bytes) => Some(bytes),
        }
    }

    /// Whether the frame of that header is one of a binary message.
    fn is_binary(&self, header: &FrameHeader) -> bool {
        let message = self.message.as_ref();
        header.opcode == OpCode::Binary
            || header.opcode == OpCode::Continuation
                && message.is_some_and(|message| matches!(message.body, Body::Binary(_)))
    }

    /// Takes what there is of such a frame.
    fn take_masked<'a>(
        &mut self,
        header: &FrameHeader,
        rx: &[u8],
        rules: &FrameRules,
        spare: &mut SpareBuffers,
    ) -> Result<(Incoming<'a>, usize), ProtocolError> {
        let (part, at, ends) = self.frame.take_masked(rx);
        let incoming = self.take(header, ends, rules, |message, ceiling| {
            if let Body::Binary(bytes) = &mut message.body {
                make_room(bytes, part.len(), ceiling, spare);
                extend_unmasked(bytes, part, header.mask, at);
            }
            Ok(())
        })?;
        Ok((incoming, part.len()))
    }

    /// Takes what there is of any other frame. Text is looked at as it comes, and has no mask by then.
    fn take_unmasked<'a>(
        &mut self,
        rx: &'a mut [u8],
        rules: &FrameRules,
        spare: &mut SpareBuffers,
    ) -> Result<(Incoming<'a>, usize), ProtocolError> {
        let (step, used) = self.frame.take_payload(rx, Assembly::ControlOnly);
        let (header, payload, ends) = match step {
            Step::Nothing => return Ok((Incoming::Nothing, used)),
            Step::Frame(header, payload) if header.opcode.is_control() => {
                return Ok((Incoming::Control(header.opcode, payload), used));
            }
            Step::Frame(header, payload) => (header, payload, true),
            Step::Piece { header, payload, ends, .. } => (header, Cow::Borrowed(payload), ends),
        };
        let incoming =
            self.take(&header, ends, rules, |message, ceiling| match &mut message.body {
                Body::Text(text) => text.push(&payload, ceiling, spare),
                Body::Binary(_) => Ok(()), // is taken masked
            })?;
        Ok((incoming, used))
    }

    /// Has `add` add a data frame, or a piece of one and whether it ends there: the message, if it is whole
    /// with that.
    fn take<'a>(
        &mut self,
        header: &FrameHeader,
        ends: bool,
        rules: &FrameRules,
        add: impl FnOnce(&mut OpenMessage, usize) -> Result<(), ProtocolError>,
    ) -> Result<Incoming<'a>, ProtocolError> {
        let mut message = self.message.take().unwrap_or_else(|| OpenMessage::new(header));
        // A message of one frame cannot outgrow it; one of several cannot outgrow the limit.
        let is_only = header.fin && header.opcode != OpCode::Continuation;
        let ceiling = if is_only { header.payload_len } else { rules.max_message_size };
        add(&mut message, ceiling)?;
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

    fn finish<'a>(self) -> Result<Incoming<'a>, ProtocolError> {
        let message = match self.body {
            Body::Text(text) => Assembled::Text(text.finish()?),
            Body::Binary(bytes) => Assembled::Binary(bytes),
        };
        Ok(Incoming::Assembled(message, self.rsv))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of connections may be in the middle of a message.
    #[test]
    fn what_is_kept_of_an_unfinished_message_is_small() {
        assert!(size_of::<PartialFrame>() <= 104, "{}", size_of::<PartialFrame>());
        assert!(size_of::<PartialMessage>() <= 160, "{}", size_of::<PartialMessage>());
    }
}

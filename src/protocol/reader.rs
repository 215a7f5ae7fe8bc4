//! Owns the way from bytes to messages: whole frames straight from the read buffer, everything else
//! through a partial state that exists only while something is unfinished.

use crate::structures::progress::Window;
use crate::words::error::ProtocolError;
use crate::words::message::Rsv;

use crate::protocol::frame::{
    CONTROL_PAYLOAD_MAX, FrameHeader, FrameRules, HEADER_BYTES_MAX, OpCode, apply_mask,
};
use crate::protocol::text::{TextBuffer, growth};

/// What the next bytes turned out to be.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// All bytes are taken and nothing is complete.
    Nothing,
    /// A control frame, possibly between two fragments.
    Control(OpCode, ControlPayload),
    /// A text message that lies whole in the read buffer.
    Text(&'a str, Rsv),
    /// A binary message that lies whole in the read buffer.
    Binary(&'a [u8], Rsv),
    /// A text message put together from several reads or fragments.
    AssembledText(String, Rsv),
    /// A binary message put together from several reads or fragments.
    AssembledBinary(Vec<u8>, Rsv),
}

/// The payload of a control frame, at most 125 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlPayload {
    bytes: [u8; CONTROL_PAYLOAD_MAX],
    len: u8,
}

impl ControlPayload {
    const EMPTY: Self = Self { bytes: [0; CONTROL_PAYLOAD_MAX], len: 0 };

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Adds what fits; the header check has made sure that all does.
    #[allow(clippy::arithmetic_side_effects, reason = "the place exists, so len is below 125")]
    fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
                *place = byte;
                self.len += 1;
            }
        }
    }
}

/// A frame or message that is unfinished. A connection between messages has none.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The bytes of a header that is not complete.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    frame: Option<OpenFrame>,
    message: Option<OpenMessage>,
    /// In what time how much of it has to come.
    pub(crate) window: Option<Window>,
}

/// A frame whose header is known and whose payload is arriving.
#[derive(Debug)]
struct OpenFrame {
    header: FrameHeader,
    /// Payload bytes taken so far. Invariant: at most `header.payload_len`.
    taken: usize,
    control: ControlPayload,
}

/// A message whose last fragment has not arrived.
#[derive(Debug)]
struct OpenMessage {
    body: Body,
    rsv: Rsv,
    fragments: u32,
}

#[derive(Debug)]
enum Body {
    Text(TextBuffer),
    Binary(Vec<u8>),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// Takes bytes from the start of `rx`, unmasking in place, and says what they are and how many were
/// taken. To be called again with the rest until it says [`Incoming::Nothing`].
#[inline]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "14 bytes of header and a length that has passed its limit of 1 GiB"
)]
pub(crate) fn next<'a>(
    partial: &mut Option<Box<Partial>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
) -> Result<(Incoming<'a>, usize), ProtocolError> {
    if partial.is_none() {
        if rx.is_empty() {
            return Ok((Incoming::Nothing, 0));
        }
        if let Some(header) = FrameHeader::read(rx, rules)? {
            let end = header.header_len + header.payload_len;
            if header.fin && end <= rx.len() && header.opcode != OpCode::Continuation {
                return whole_frame(header, rx.get_mut(..end).unwrap_or_default(), rules)
                    .map(|incoming| (incoming, end));
            }
        }
    }
    in_parts(partial, rx, rules)
}

/// The one path of short messages: nothing is stored and nothing is copied.
#[inline]
fn whole_frame<'a>(
    header: FrameHeader,
    frame: &'a mut [u8],
    rules: &FrameRules,
) -> Result<Incoming<'a>, ProtocolError> {
    let payload = frame.get_mut(header.header_len..).unwrap_or_default();
    apply_mask(payload, header.mask, 0);
    let rsv = Rsv::from_bits(header.rsv);
    match header.opcode {
        OpCode::Text => {
            check_message_size(payload.len(), rules)?;
            match std::str::from_utf8(payload) {
                Ok(text) => Ok(Incoming::Text(text, rsv)),
                Err(_) => Err(ProtocolError::InvalidUtf8),
            }
        }
        OpCode::Binary | OpCode::Continuation => {
            check_message_size(payload.len(), rules)?;
            Ok(Incoming::Binary(payload, rsv))
        }
        OpCode::Close | OpCode::Ping | OpCode::Pong => {
            let mut control = ControlPayload::EMPTY;
            control.push(payload);
            Ok(Incoming::Control(header.opcode, control))
        }
    }
}

fn check_message_size(len: usize, rules: &FrameRules) -> Result<(), ProtocolError> {
    if len > rules.max_message_size {
        return Err(ProtocolError::MessageTooBig { limit: rules.max_message_size as u64 });
    }
    Ok(())
}

/// The same where so much of a header is there: its length is not known yet, and no more than the
/// longest.
pub(super) fn until_pong_ends(header: Option<&[u8]>) -> Option<usize> {
    match header.and_then(<[u8]>::first) {
        None => Some(0),
        Some(first) => (first & 0x0f == 0x0a).then_some(HEADER_BYTES_MAX),
    }
}

pub(super) fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Everything that does not lie whole in one read.
#[cold]
#[allow(clippy::arithmetic_side_effects, reason = "used stays within rx, taken within payload_len")]
fn in_parts<'a>(
    slot: &mut Option<Box<Partial>>,
    rx: &mut [u8],
    rules: &FrameRules,
) -> Result<(Incoming<'a>, usize), ProtocolError> {
    let partial = slot.get_or_insert_with(|| Box::new(Partial::new()));
    let mut used = 0;
    loop {
        let rest = rx.get_mut(used..).unwrap_or_default();
        let Some(mut frame) = partial.frame.take() else {
            match partial.take_header(rest, rules)? {
                Some(taken) => used += taken,
                None => return Ok((Incoming::Nothing, rx.len())),
            }
            continue;
        };
        let wanted = frame.header.payload_len - frame.taken;
        let end = wanted.min(rest.len());
        let piece = rest.get_mut(..end).unwrap_or_default();
        partial.take_payload(&mut frame, piece, rules)?;
        used += end;
        if frame.taken < frame.header.payload_len {
            partial.frame = Some(frame);
            return Ok((Incoming::Nothing, used));
        }
        if frame.header.opcode.is_control() {
            if partial.message.is_none() {
                *slot = None;
            }
            return Ok((Incoming::Control(frame.header.opcode, frame.control), used));
        }
        if frame.header.fin {
            if let Some(message) = partial.message.take() {
                *slot = None;
                return Ok((message.finish()?, used));
            }
        }
    }
}

impl Partial {
    const fn new() -> Self {
        let header = [0; HEADER_BYTES_MAX];
        Self { header, header_len: 0, frame: None, message: None, window: None }
    }

    /// The window for what is missing, the bytes of the message that came, and those that are announced:
    /// any number unless its last frame has begun.
    #[allow(clippy::arithmetic_side_effects, reason = "taken is at most payload_len")]
    pub(crate) fn unfinished(&mut self) -> (&mut Option<Window>, u32, u32) {
        let came = self.message.as_ref().map_or(0, |message| message.body.len());
        let last = self.frame.as_ref().filter(|it| it.header.fin && !it.header.opcode.is_control());
        let rest = last.map_or(usize::MAX, |frame| frame.header.payload_len - frame.taken);
        (&mut self.window, saturated(came), saturated(rest))
    }

    /// If a Pong is on its way, or nothing at all: how many bytes of it are missing.
    #[allow(clippy::arithmetic_side_effects, reason = "taken is at most payload_len")]
    pub(crate) fn until_pong_ends(&self) -> Option<usize> {
        match &self.frame {
            Some(frame) if frame.header.opcode == OpCode::Pong => {
                Some(frame.header.payload_len - frame.taken)
            }
            Some(_) => None,
            None => until_pong_ends(self.header.get(..usize::from(self.header_len))),
        }
    }

    /// How many bytes there are until the next frame header begins; `None` inside a header.
    #[allow(clippy::arithmetic_side_effects, reason = "taken is at most payload_len")]
    pub(crate) fn until_header(&self) -> Option<usize> {
        match &self.frame {
            Some(frame) => Some(frame.header.payload_len - frame.taken),
            None => (self.header_len == 0).then_some(0),
        }
    }

    /// Bytes held for payload.
    #[allow(clippy::arithmetic_side_effects, reason = "a capacity, which is at most isize::MAX")]
    pub(crate) fn memory(&self) -> usize {
        let body = match self.message.as_ref().map(|message| &message.body) {
            Some(Body::Text(text)) => text.memory(),
            Some(Body::Binary(bytes)) => bytes.capacity(),
            None => 0,
        };
        size_of::<Self>() + body
    }

    /// Completes the header byte by byte: how many were taken, or `None` if all were and it is not
    /// complete.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "header_len is below 14 where a place exists; index lies inside rx"
    )]
    fn take_header(
        &mut self,
        rx: &[u8],
        rules: &FrameRules,
    ) -> Result<Option<usize>, ProtocolError> {
        for (index, &byte) in rx.iter().enumerate() {
            if let Some(place) = self.header.get_mut(usize::from(self.header_len)) {
                *place = byte;
                self.header_len += 1;
            }
            let bytes = self.header.get(..usize::from(self.header_len)).unwrap_or_default();
            if let Some(header) = FrameHeader::read(bytes, rules)? {
                self.header_len = 0;
                self.open_frame(header, rules)?;
                return Ok(Some(index + 1));
            }
        }
        Ok(None)
    }

    /// Checks that the frame may come here and now, before any of its payload is taken.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "each fragment is held to max_fragments, at most 2^30"
    )]
    fn open_frame(&mut self, header: FrameHeader, rules: &FrameRules) -> Result<(), ProtocolError> {
        if !header.opcode.is_control() {
            // RFC 6455 section 5.4: fragments of one message are not interleaved with another's.
            match (header.opcode, &mut self.message) {
                (OpCode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
                (OpCode::Continuation, Some(message)) => message.fragments += 1,
                (_, Some(_)) => return Err(ProtocolError::UnfinishedMessage),
                (opcode, message @ None) => {
                    let body = if opcode == OpCode::Text {
                        Body::Text(TextBuffer::default())
                    } else {
                        Body::Binary(Vec::new())
                    };
                    *message =
                        Some(OpenMessage { body, rsv: Rsv::from_bits(header.rsv), fragments: 1 });
                }
            }
            if let Some(message) = &self.message {
                check_message_size(message.body.len().saturating_add(header.payload_len), rules)?;
                if message.fragments > rules.max_fragments {
                    return Err(ProtocolError::TooManyFragments { limit: rules.max_fragments });
                }
            }
        }
        self.frame = Some(OpenFrame { header, taken: 0, control: ControlPayload::EMPTY });
        Ok(())
    }

    #[allow(clippy::arithmetic_side_effects, reason = "the piece is at most what the frame lacks")]
    fn take_payload(
        &mut self,
        frame: &mut OpenFrame,
        piece: &mut [u8],
        rules: &FrameRules,
    ) -> Result<(), ProtocolError> {
        apply_mask(piece, frame.header.mask, frame.taken);
        frame.taken += piece.len();
        if frame.header.opcode.is_control() {
            frame.control.push(piece);
            return Ok(());
        }
        let Some(message) = &mut self.message else { return Ok(()) };
        // A message of one frame cannot outgrow it; one of several cannot outgrow the limit.
        let ceiling = if frame.header.fin && message.fragments == 1 {
            frame.header.payload_len
        } else {
            rules.max_message_size
        };
        match &mut message.body {
            Body::Text(text) => text.push(piece, ceiling)?,
            Body::Binary(bytes) => {
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity(), piece.len(), ceiling));
                bytes.extend_from_slice(piece);
            }
        }
        Ok(())
    }
}

impl OpenMessage {
    fn finish<'a>(self) -> Result<Incoming<'a>, ProtocolError> {
        Ok(match self.body {
            Body::Text(text) => Incoming::AssembledText(text.finish()?, self.rsv),
            Body::Binary(bytes) => Incoming::AssembledBinary(bytes, self.rsv),
        })
    }
}

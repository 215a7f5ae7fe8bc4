//! The reader of messages whose handler takes them in pieces: nothing of a message is kept but a character
//! that is cut, and what its extension needs to go on.

use std::borrow::Cow;

use crate::protocol::extension::in_pieces::PieceExtension;
use crate::protocol::extension::{MessagePiece, fault, too_big, wire_limit};
use crate::protocol::frame::{FrameHeader, FrameRules, OpCode, apply_mask};
use crate::protocol::frame_reader::{Assembly, PartialFrame, Step, whole_frame};
use crate::protocol::text::CutChar;
use crate::words::close::CloseCode;
use crate::words::error::{ProtocolError, SessionError};
use crate::words::extension::ExtensionError;
use crate::words::message::{Message, Rsv};
use crate::words::piece::Piece;

/// What a piece has at most, about, of a message that is decoded.
const DECODED_BYTES: usize = 32 << 10;
/// How much of a frame is unmasked for the extension at a time: what it leaves is masked again.
const CODED_BYTES: usize = 4 << 10;

/// A message that arrives in pieces, if one does.
#[derive(Debug, Default)]
pub(crate) struct PieceReader {
    message: Option<OpenMessage>,
}

#[derive(Debug)]
struct OpenMessage {
    text: bool,
    rsv: Rsv,
    /// The extension decodes it.
    coded: bool,
    /// A piece of it was handed over.
    begun: bool,
    /// The extension was handed a piece.
    decoding: bool,
    /// Bytes that were handed over.
    handed_over: u64,
    cut: CutChar,
}

/// What the next bytes turned out to be.
#[derive(Debug)]
pub(crate) enum PieceStep<'a> {
    /// Nothing is to be handed over.
    Nothing,
    /// A control frame, possibly between two fragments.
    Control(OpCode, Cow<'a, [u8]>),
    /// A part of a message.
    Piece(NextPiece<'a>),
}

/// A part of a message, to be handed over.
#[derive(Debug)]
pub(crate) struct NextPiece<'a> {
    pub(crate) content: Content<'a>,
    pub(crate) offset: u64,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

#[derive(Debug)]
pub(crate) enum Content<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
}

/// Takes bytes from the start of `rx`, unmasking in place, at most one piece: what it is, and how many were
/// taken. To be called again with the rest until all are. Between messages nothing is kept in `slot`.
pub(crate) fn next_piece<'a>(
    reader: &mut PieceReader,
    extension: Option<&mut dyn PieceExtension>,
    slot: &mut Option<Box<PartialFrame>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
) -> Result<(PieceStep<'a>, usize), SessionError> {
    if slot.is_none() {
        if rx.is_empty() {
            return Ok((PieceStep::Nothing, 0));
        }
        if let Some((header, end)) = whole_frame(rx, rules).map_err(SessionError::Protocol)? {
            // The usual: nothing is stored, and nothing copied.
            if header.opcode.is_control() || !is_coded(&header, extension.is_some(), rules) {
                let payload = rx.get_mut(header.header_len..end).unwrap_or_default();
                apply_mask(payload, header.mask, 0);
                return Ok((whole(&header, payload, rules)?, end));
            }
        }
    }
    let partial = slot.get_or_insert_with(Box::default);
    let step = reader.step(partial, extension, rx, rules)?;
    if partial.is_idle() {
        *slot = None;
    }
    Ok(step)
}

/// A whole frame that is a whole message, or a control frame.
fn whole<'a>(
    header: &FrameHeader,
    payload: &'a [u8],
    rules: &FrameRules,
) -> Result<PieceStep<'a>, SessionError> {
    if header.opcode.is_control() {
        return Ok(PieceStep::Control(header.opcode, Cow::Borrowed(payload)));
    }
    let mut message = OpenMessage::new(header, false);
    message.check_size(payload.len() as u64, rules)?;
    message.hand_over(Cow::Borrowed(payload), true, rules.max_message_size)
}

/// An extension has not kept to its part: whatever follows would make no sense.
#[cold]
fn took_too_little() -> SessionError {
    SessionError::Extension(ExtensionError::failed(CloseCode::INTERNAL_ERROR, "bytes were left"))
}

/// Whether the extension decodes the message that begins with this frame.
fn is_coded(header: &FrameHeader, has_extension: bool, rules: &FrameRules) -> bool {
    // One that owns no bit leaves no sign of what it did.
    has_extension && (rules.claimed_rsv == 0 || header.rsv & rules.claimed_rsv != 0)
}

impl PieceReader {
    #[allow(clippy::arithmetic_side_effects, reason = "parts of one read buffer")]
    fn step<'a>(
        &mut self,
        partial: &mut PartialFrame,
        extension: Option<&mut dyn PieceExtension>,
        rx: &'a mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        let opened = partial.open_frame(rx, rules).map_err(SessionError::Protocol)?;
        let (Some(header_bytes), Some(header)) = (opened, partial.header()) else {
            return Ok((PieceStep::Nothing, rx.len()));
        };
        let rest = rx.get_mut(header_bytes..).unwrap_or_default();
        let (step, used) = if header.opcode.is_control() {
            let (step, used) = partial.take_payload(rest, Assembly::ControlOnly);
            match step {
                Step::Frame(_, payload) => (PieceStep::Control(header.opcode, payload), used),
                Step::Nothing | Step::Piece { .. } => (PieceStep::Nothing, used),
            }
        } else {
            if header.opcode != OpCode::Continuation && self.message.is_none() {
                let coded = is_coded(&header, extension.is_some(), rules);
                self.message = Some(OpenMessage::new(&header, coded));
            }
            let Some(message) = &mut self.message else { return Ok((PieceStep::Nothing, 0)) };
            // Before any of the payload is looked at: a header that announces too much is refused at once.
            message.check_size(partial.announced(), rules)?;
            let (step, used) = match extension.filter(|_| message.coded) {
                Some(extension) => message.decode(partial, extension, rest, rules)?,
                None => message.take(partial, rest, rules.max_message_size)?,
            };
            if matches!(&step, PieceStep::Piece(piece) if piece.last) {
                self.message = None;
            }
            (step, used)
        };
        Ok((step, header_bytes + used))
    }
}

impl OpenMessage {
    fn new(header: &FrameHeader, coded: bool) -> Self {
        Self {
            text: header.opcode == OpCode::Text,
            rsv: Rsv::from_bits(header.rsv),
            coded,
            begun: false,
            decoding: false,
            handed_over: 0,
            cut: CutChar::default(),
        }
    }

    fn check_size(&self, announced: u64, rules: &FrameRules) -> Result<(), SessionError> {
        let limit = rules.max_message_size;
        let most = if self.coded { wire_limit(limit) } else { limit };
        if announced > most as u64 { Err(too_big(limit)) } else { Ok(()) }
    }

    /// Takes a piece of a message that nobody decodes.
    fn take<'a>(
        &mut self,
        partial: &mut PartialFrame,
        rx: &'a mut [u8],
        limit: usize,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        // The bytes that are missing of a character come first, and are a piece with those that came before.
        let most = if self.cut.is_empty() { usize::MAX } else { self.cut.missing() };
        let fin = partial.header().is_some_and(|header| header.fin);
        let (payload, ends) = partial.look(rx, most);
        let used = payload.len();
        partial.took(payload, used);
        let last = ends && fin;
        if self.cut.is_empty() {
            return Ok((self.hand_over(Cow::Borrowed(payload), last, limit)?, used));
        }
        let mut bytes = Vec::new();
        self.cut.give_up(&mut bytes);
        bytes.extend_from_slice(payload);
        Ok((self.hand_over(Cow::Owned(bytes), last, limit)?, used))
    }

    /// Takes as much of a message as decodes to a piece.
    #[allow(clippy::arithmetic_side_effects, reason = "parts of one read buffer")]
    fn decode<'a>(
        &mut self,
        partial: &mut PartialFrame,
        extension: &mut dyn PieceExtension,
        rx: &mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        let limit = rules.max_message_size;
        let fin = partial.header().is_some_and(|header| header.fin);
        let mut body = Vec::new();
        self.cut.give_up(&mut body);
        let (mut used, mut last) = (0, false);
        while !last {
            let rest = rx.get_mut(used..).unwrap_or_default();
            let (payload, ends) = partial.look(rest, CODED_BYTES);
            let piece =
                MessagePiece::new(self.text, self.rsv, payload, (!self.decoding, ends && fin));
            let taken = extension.decode_some(&piece, &mut body, DECODED_BYTES);
            let taken = taken.map_err(|error| fault(error, limit))?.min(payload.len());
            self.decoding = true;
            let is_whole = taken == payload.len();
            if !is_whole && body.len() < DECODED_BYTES {
                return Err(took_too_little());
            }
            partial.took(payload, taken);
            used += taken;
            last = is_whole && ends && fin;
            if (is_whole && ends) || used == rx.len() || body.len() >= DECODED_BYTES {
                break;
            }
        }
        Ok((self.hand_over(Cow::Owned(body), last, limit)?, used))
    }

    /// Hands bytes over, but for a character that is cut at their end.
    fn hand_over<'a>(
        &mut self,
        bytes: Cow<'a, [u8]>,
        last: bool,
        limit: usize,
    ) -> Result<PieceStep<'a>, SessionError> {
        let content = self.content(bytes).map_err(SessionError::Protocol)?;
        let offset = self.handed_over;
        self.handed_over = offset.saturating_add(content.len() as u64);
        // A thousand bytes may decode to a mebibyte: the limit holds for what comes out.
        if self.handed_over > limit as u64 {
            return Err(too_big(limit));
        }
        if last && !self.cut.is_empty() {
            return Err(SessionError::Protocol(ProtocolError::InvalidUtf8));
        }
        if content.len() == 0 && !last {
            return Ok(PieceStep::Nothing);
        }
        let first = !std::mem::replace(&mut self.begun, true);
        Ok(PieceStep::Piece(NextPiece { content, offset, first, last }))
    }

    /// RFC 6455 section 8.1: what is no text is said as soon as it is seen.
    fn content<'a>(&mut self, bytes: Cow<'a, [u8]>) -> Result<Content<'a>, ProtocolError> {
        if !self.text {
            return Ok(Content::Binary(bytes));
        }
        let whole = self.cut.keep_end(&bytes)?;
        let invalid = ProtocolError::InvalidUtf8;
        Ok(Content::Text(match bytes {
            Cow::Borrowed(bytes) => {
                let text = std::str::from_utf8(bytes.get(..whole).unwrap_or_default());
                Cow::Borrowed(text.map_err(|_| invalid)?)
            }
            Cow::Owned(mut bytes) => {
                bytes.truncate(whole);
                Cow::Owned(String::from_utf8(bytes).map_err(|_| invalid)?)
            }
        }))
    }
}

impl Content<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl NextPiece<'_> {
    pub(crate) fn as_piece(&self) -> Piece<'_> {
        let message = match &self.content {
            Content::Text(text) => Message::from(&**text),
            Content::Binary(bytes) => Message::from(&**bytes),
        };
        Piece::new(message, self.offset, (self.first, self.last))
    }
}

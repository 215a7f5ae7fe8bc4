//! The frame reader: bytes to frames, or to the pieces of frames as they arrive, for both roles.
//!
//! It knows headers, limits, the order of fragments and control frames. What data frames amount to is
//! decided above it: by `message_reader`, by extensions, or by a raw handler.

use std::borrow::Cow;

use crate::structures::progress::Window;
use crate::words::error::ProtocolError;

use crate::protocol::frame::{FrameHeader, FrameRules, HEADER_BYTES_MAX, OpCode, apply_mask};
use crate::protocol::text::growth;

/// What the next bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// All bytes are taken and nothing more can be said.
    Nothing,
    /// A whole frame, borrowed if it lies whole in the read buffer.
    Frame(FrameHeader, Cow<'a, [u8]>),
    /// A part of a data frame whose rest has not arrived, or the rest. It is not empty.
    Piece {
        /// The header of its frame.
        header: FrameHeader,
        payload: &'a [u8],
        /// The frame begins here.
        starts: bool,
        /// The frame ends here.
        ends: bool,
    },
}

/// Which frames are put together before they are handed out. Control frames always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assembly {
    /// All: a raw session sees frames, not pieces.
    EveryFrame,
    /// None but control frames: data is handed out as it arrives.
    ControlOnly,
}

/// A frame that is unfinished, or a message between two of its frames.
#[derive(Debug, Default)]
pub(crate) struct PartialFrame {
    position: Position,
    /// Frames of the message that goes on behind the current one; 0 if none does.
    fragments: u32,
    /// Payload bytes that the headers of the current message have announced.
    announced: u64,
    /// In what time how much of the rest has to come.
    pub(crate) window: Option<Window>,
}

#[derive(Debug)]
enum Position {
    /// In front of a header, or inside it: the bytes of it that are there.
    Header { bytes: [u8; HEADER_BYTES_MAX], len: u8 },
    /// Inside a payload.
    Payload(OpenFrame),
}

impl Default for Position {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER_BYTES_MAX], len: 0 }
    }
}

/// A frame whose header is known and whose payload is arriving.
#[derive(Debug)]
struct OpenFrame {
    header: FrameHeader,
    /// Payload bytes taken so far. Invariant: at most `header.payload_len`.
    taken: usize,
    /// The payload so far, if it is put together.
    payload: Vec<u8>,
}

/// Finds a frame that lies whole at the start of `rx` and is no part of a message in several frames:
/// its header and where it ends. It needs no state; everything else goes through a [`PartialFrame`].
#[inline]
pub(crate) fn whole_frame(
    rx: &[u8],
    rules: &FrameRules,
) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
    let Some(header) = FrameHeader::read(rx, rules)? else { return Ok(None) };
    // A message that is taken in pieces may have a frame of all that a usize can say.
    let end = header.header_len.saturating_add(header.payload_len);
    let is_whole = header.fin && end <= rx.len() && header.opcode != OpCode::Continuation;
    Ok(is_whole.then_some((header, end)))
}

/// Takes bytes from the start of `rx`, unmasking in place, and says what they are and how many were
/// taken. To be called again with the rest until all are. Between messages nothing is kept in `slot`.
pub(crate) fn next_step<'a>(
    slot: &mut Option<Box<PartialFrame>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
    assembly: Assembly,
) -> Result<(Step<'a>, usize), ProtocolError> {
    if slot.is_none() {
        if rx.is_empty() {
            return Ok((Step::Nothing, 0));
        }
        if let Some((header, end)) = whole_frame(rx, rules)? {
            let payload = rx.get_mut(header.header_len..end).unwrap_or_default();
            apply_mask(payload, header.mask, 0);
            return Ok((Step::Frame(header, Cow::Borrowed(payload)), end));
        }
    }
    let partial = slot.get_or_insert_with(Box::default);
    let step = partial.step(rx, rules, assembly)?;
    if partial.is_idle() {
        *slot = None;
    }
    Ok(step)
}

impl OpenFrame {
    #[allow(clippy::arithmetic_side_effects, reason = "taken is at most payload_len")]
    fn rest(&self) -> usize {
        self.header.payload_len - self.taken
    }

    /// Unmasks the bytes at the start of `rx` that belong to this frame.
    #[allow(clippy::arithmetic_side_effects, reason = "the piece is at most what the frame lacks")]
    fn take<'a>(&mut self, rx: &'a mut [u8]) -> &'a [u8] {
        let end = self.rest().min(rx.len());
        let piece = rx.get_mut(..end).unwrap_or_default();
        apply_mask(piece, self.header.mask, self.taken);
        self.taken += end;
        piece
    }

    fn keep(&mut self, piece: &[u8]) {
        let kept = &mut self.payload;
        let ceiling = self.header.payload_len;
        kept.reserve_exact(growth(kept.len(), kept.capacity(), piece.len(), ceiling));
        kept.extend_from_slice(piece);
    }
}

/// Taking bytes.
impl PartialFrame {
    /// One step, as [`next_step`].
    #[allow(clippy::arithmetic_side_effects, reason = "parts of one read buffer")]
    pub(crate) fn step<'a>(
        &mut self,
        rx: &'a mut [u8],
        rules: &FrameRules,
        assembly: Assembly,
    ) -> Result<(Step<'a>, usize), ProtocolError> {
        let Some(header_bytes) = self.open_frame(rx, rules)? else {
            return Ok((Step::Nothing, rx.len()));
        };
        let rest = rx.get_mut(header_bytes..).unwrap_or_default();
        let (step, used) = self.take_payload(rest, assembly);
        Ok((step, header_bytes + used))
    }

    /// Takes the header of the next frame, if that has not begun: how many bytes it took, or `None` if it
    /// took all and is not whole.
    pub(crate) fn open_frame(
        &mut self,
        rx: &[u8],
        rules: &FrameRules,
    ) -> Result<Option<usize>, ProtocolError> {
        let Position::Header { .. } = self.position else { return Ok(Some(0)) };
        let Some((header, used)) = self.take_header(rx, rules)? else { return Ok(None) };
        self.begin(&header, rules)?;
        self.position = Position::Payload(OpenFrame { header, taken: 0, payload: Vec::new() });
        Ok(Some(used))
    }

    /// Completes the header: it and how many bytes were taken, or `None` if all were and it is not
    /// complete. One of which a part came before is completed byte by byte.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "len is below 14 where a slot exists; index lies inside rx"
    )]
    fn take_header(
        &mut self,
        rx: &[u8],
        rules: &FrameRules,
    ) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
        let Position::Header { bytes, len } = &mut self.position else { return Ok(None) };
        if *len == 0 {
            if let Some(header) = FrameHeader::read(rx, rules)? {
                return Ok(Some((header, header.header_len)));
            }
        }
        for (index, &byte) in rx.iter().enumerate() {
            if let Some(slot) = bytes.get_mut(usize::from(*len)) {
                *slot = byte;
                *len += 1;
            }
            let so_far = bytes.get(..usize::from(*len)).unwrap_or_default();
            if let Some(header) = FrameHeader::read(so_far, rules)? {
                return Ok(Some((header, index + 1)));
            }
        }
        Ok(None)
    }

    /// Checks that the frame may come here and now, before any of its payload is taken.
    fn begin(&mut self, header: &FrameHeader, rules: &FrameRules) -> Result<(), ProtocolError> {
        // RFC 6455 section 5.4: control frames "MAY be injected in the middle of a fragmented message".
        if header.opcode.is_control() {
            return Ok(());
        }
        // The same section: fragments of one message are not interleaved with another's.
        match (header.opcode == OpCode::Continuation, self.fragments > 0) {
            (true, false) => return Err(ProtocolError::UnexpectedContinuation),
            (false, true) => return Err(ProtocolError::UnfinishedMessage),
            _ => {}
        }
        self.announced = self.announced.saturating_add(header.payload_len as u64);
        self.fragments = self.fragments.saturating_add(1);
        if self.fragments > rules.max_fragments {
            return Err(ProtocolError::TooManyFragments { limit: rules.max_fragments });
        }
        if header.fin {
            self.fragments = 0;
        }
        Ok(())
    }

    /// Takes what `rx` has of the payload that has begun, as it came: the part, where in the payload it
    /// begins, and whether it ends that.
    pub(crate) fn take_masked<'a>(&mut self, rx: &'a [u8]) -> (&'a [u8], usize, bool) {
        let Position::Payload(frame) = &mut self.position else { return (&[], 0, false) };
        let at = frame.taken;
        let part = rx.get(..frame.rest().min(rx.len())).unwrap_or_default();
        frame.taken = at.saturating_add(part.len());
        let ends = frame.rest() == 0;
        if ends {
            self.position = Position::default();
        }
        (part, at, ends)
    }

    pub(crate) fn take_payload<'a>(
        &mut self,
        rx: &'a mut [u8],
        assembly: Assembly,
    ) -> (Step<'a>, usize) {
        let Position::Payload(frame) = &mut self.position else { return (Step::Nothing, 0) };
        let header = frame.header;
        let starts = frame.taken == 0;
        let payload = frame.take(rx);
        let (used, ends) = (payload.len(), frame.rest() == 0);
        let step = if starts && ends {
            Step::Frame(header, Cow::Borrowed(payload))
        } else if assembly == Assembly::EveryFrame || header.opcode.is_control() {
            frame.keep(payload);
            match ends {
                true => Step::Frame(header, Cow::Owned(std::mem::take(&mut frame.payload))),
                false => Step::Nothing,
            }
        } else if payload.is_empty() {
            Step::Nothing
        } else {
            Step::Piece { header, payload, starts, ends }
        };
        if ends {
            self.position = Position::default();
        }
        (step, used)
    }
}

/// Taking the payload of a data frame as far as it is wanted.
impl PartialFrame {
    /// The header of the frame that has begun.
    pub(crate) fn header(&self) -> Option<FrameHeader> {
        match &self.position {
            Position::Payload(frame) => Some(frame.header),
            Position::Header { .. } => None,
        }
    }

    /// At most so many bytes from the start of `rx` that belong to the frame, unmasked, and whether it ends
    /// with them. To be followed by [`took`](Self::took).
    pub(crate) fn look<'a>(&self, rx: &'a mut [u8], most: usize) -> (&'a mut [u8], bool) {
        let Position::Payload(frame) = &self.position else { return (&mut [], false) };
        let end = frame.rest().min(rx.len()).min(most);
        let payload = rx.get_mut(..end).unwrap_or_default();
        apply_mask(payload, frame.header.mask, frame.taken);
        (payload, end == frame.rest())
    }

    /// So many bytes were taken of what was looked at; the others are masked again, to be looked at later.
    pub(crate) fn took(&mut self, payload: &mut [u8], count: usize) {
        let Position::Payload(frame) = &mut self.position else { return };
        frame.taken = frame.taken.saturating_add(count);
        if let Some(rest) = payload.get_mut(count..) {
            apply_mask(rest, frame.header.mask, frame.taken);
        }
        if frame.rest() == 0 {
            self.position = Position::default();
        }
    }
}

/// Asking.
impl PartialFrame {
    /// Whether nothing is unfinished, so that it need not be kept.
    pub(crate) fn is_idle(&self) -> bool {
        self.fragments == 0 && matches!(self.position, Position::Header { len: 0, .. })
    }

    /// Payload bytes that the headers of the current message have announced.
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    /// How many bytes there are until the next frame header begins; `None` inside a header.
    pub(crate) fn until_header(&self) -> Option<usize> {
        match &self.position {
            Position::Payload(frame) => Some(frame.rest()),
            Position::Header { len, .. } => (*len == 0).then_some(0),
        }
    }

    /// If a Pong is on its way, or nothing at all: how many bytes of it are missing. Inside its header
    /// that is not known yet, and is no more than the longest.
    pub(crate) fn until_pong_ends(&self) -> Option<usize> {
        match &self.position {
            Position::Payload(frame) => (frame.header.opcode == OpCode::Pong).then(|| frame.rest()),
            Position::Header { len: 0, .. } => Some(0),
            Position::Header { bytes: [first, ..], .. } => {
                (first & 0x0f == 0x0a).then_some(HEADER_BYTES_MAX)
            }
        }
    }

    /// Bytes held for payload.
    pub(crate) fn payload_memory(&self) -> usize {
        match &self.position {
            Position::Payload(frame) => frame.payload.capacity(),
            Position::Header { .. } => 0,
        }
    }

    /// The window for what is missing, the payload bytes of the message that came, modulo 2^32, and
    /// those that are announced: any number unless the last frame has begun. Of a `raw` session a message
    /// that goes on is not kept, so only a frame has to come on.
    #[allow(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
    pub(crate) fn unfinished(&mut self, raw: bool) -> Option<(&mut Option<Window>, u32, u32)> {
        let (mut came, mut rest) = (self.announced, usize::MAX);
        match &self.position {
            Position::Payload(frame) if !frame.header.opcode.is_control() => {
                came = came.saturating_sub(frame.rest() as u64);
                if raw || frame.header.fin {
                    rest = frame.rest();
                }
            }
            Position::Header { len: 0, .. } if raw => {
                self.window = None;
                return None;
            }
            _ => {}
        }
        let rest = u32::try_from(rest).unwrap_or(u32::MAX);
        Some((&mut self.window, came as u32, rest))
    }
}

#[cfg(all(repository, test))]
mod tests;

//! Owns the way from bytes to frames for sessions that look below messages: raw ones, and those whose
//! extensions decode a message while it arrives. Others go through `reader`, which is shorter.

use std::borrow::Cow;

use crate::structures::progress::Window;
use crate::words::error::ProtocolError;

use crate::protocol::frame::{FrameHeader, FrameRules, HEADER_BYTES_MAX, OpCode, apply_mask};
use crate::protocol::reader::{saturated, until_pong_ends};
use crate::protocol::text::growth;

/// What the next bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// All bytes are taken and nothing more can be said.
    Nothing,
    /// A whole frame, borrowed if it lies whole in the read buffer.
    Frame(FrameHeader, Cow<'a, [u8]>),
    /// A part of a data frame whose rest has not arrived, or the rest.
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

/// A frame or message that is unfinished. A connection between messages has none.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The bytes of a header that is not complete.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// A message has begun and its last frame has not.
    message_open: bool,
    fragments: u32,
    frame: Option<OpenFrame>,
    /// Bytes of data that came while it was there, modulo 2^32.
    came: u32,
    /// In what time how much of it has to come.
    pub(crate) window: Option<Window>,
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

/// Takes bytes from the start of `rx`, unmasking in place, and says what they are and how many were
/// taken. To be called again with the rest until it says [`Step::Nothing`].
#[allow(clippy::arithmetic_side_effects, reason = "parts of one read buffer")]
pub(crate) fn next_step<'a>(
    slot: &mut Option<Box<Progress>>,
    rx: &'a mut [u8],
    rules: &FrameRules,
    assembly: Assembly,
) -> Result<(Step<'a>, usize), ProtocolError> {
    if rx.is_empty() {
        return Ok((Step::Nothing, 0));
    }
    let (header, header_bytes) = match slot.as_deref_mut() {
        Some(progress) if progress.frame.is_some() => {
            return payload(slot, rx, assembly);
        }
        Some(progress) if progress.header_len > 0 => match progress.take_header(rx, rules)? {
            Some(found) => found,
            None => return Ok((Step::Nothing, rx.len())),
        },
        _ => match FrameHeader::read(rx, rules)? {
            Some(header) => (header, header.header_len),
            None => {
                let taken = rx.len();
                slot.get_or_insert_with(Box::default).keep_header(rx);
                return Ok((Step::Nothing, taken));
            }
        },
    };
    begin_frame(slot, &header, rules)?;
    let end = header_bytes.saturating_add(header.payload_len);
    if end <= rx.len() {
        let payload = rx.get_mut(header_bytes..end).unwrap_or_default();
        apply_mask(payload, header.mask, 0);
        count(slot, &header, payload.len());
        end_frame(slot);
        return Ok((Step::Frame(header, Cow::Borrowed(payload)), end));
    }
    let progress = slot.get_or_insert_with(Box::default);
    progress.frame = Some(OpenFrame { header, taken: 0, payload: Vec::new() });
    let rest = rx.get_mut(header_bytes..).unwrap_or_default();
    let (step, taken) = payload(slot, rest, assembly)?;
    Ok((step, header_bytes + taken))
}

/// Notes that a frame has begun, if it may come here (RFC 6455 section 5.4).
fn begin_frame(
    slot: &mut Option<Box<Progress>>,
    header: &FrameHeader,
    rules: &FrameRules,
) -> Result<(), ProtocolError> {
    if header.opcode.is_control() {
        return Ok(());
    }
    let open = slot.as_deref().is_some_and(|progress| progress.message_open);
    match (header.opcode == OpCode::Continuation, open) {
        (true, false) => return Err(ProtocolError::UnexpectedContinuation),
        (false, true) => return Err(ProtocolError::UnfinishedMessage),
        (false, false) if header.fin => return Ok(()),
        _ => {}
    }
    let progress = slot.get_or_insert_with(Box::default);
    progress.message_open = !header.fin;
    progress.fragments = progress.fragments.saturating_add(1);
    if progress.fragments > rules.max_fragments {
        return Err(ProtocolError::TooManyFragments { limit: rules.max_fragments });
    }
    if header.fin {
        progress.fragments = 0;
    }
    Ok(())
}

/// Counts what came of a message that is not whole.
fn count(slot: &mut Option<Box<Progress>>, header: &FrameHeader, bytes: usize) {
    if let Some(progress) = slot.as_deref_mut().filter(|_| !header.opcode.is_control()) {
        progress.came = progress.came.wrapping_add(saturated(bytes));
    }
}

/// Lets the progress go with the last frame that needs it.
fn end_frame(slot: &mut Option<Box<Progress>>) {
    if slot.as_deref().is_some_and(|progress| !progress.message_open) {
        *slot = None;
    }
}

/// Bytes of the payload of the frame that is open.
#[allow(
    clippy::arithmetic_side_effects,
    reason = "taken is at most payload_len, and end what it lacks"
)]
fn payload<'a>(
    slot: &mut Option<Box<Progress>>,
    rx: &'a mut [u8],
    assembly: Assembly,
) -> Result<(Step<'a>, usize), ProtocolError> {
    let Some(progress) = slot.as_deref_mut() else { return Ok((Step::Nothing, rx.len())) };
    let Some(mut frame) = progress.frame.take() else { return Ok((Step::Nothing, 0)) };
    let header = frame.header;
    let end = (header.payload_len - frame.taken).min(rx.len());
    let piece = rx.get_mut(..end).unwrap_or_default();
    apply_mask(piece, header.mask, frame.taken);
    let starts = frame.taken == 0;
    frame.taken += end;
    if !header.opcode.is_control() {
        progress.came = progress.came.wrapping_add(saturated(end));
    }
    let ends = frame.taken == header.payload_len;
    let whole = assembly == Assembly::EveryFrame || header.opcode.is_control();
    if whole {
        let kept = &mut frame.payload;
        kept.reserve_exact(growth(kept.len(), kept.capacity(), end, header.payload_len));
        kept.extend_from_slice(piece);
    }
    if ends {
        end_frame(slot);
    } else {
        let kept = if whole { std::mem::take(&mut frame.payload) } else { Vec::new() };
        progress.frame = Some(OpenFrame { payload: kept, ..frame });
        return match whole || end == 0 {
            true => Ok((Step::Nothing, end)),
            false => Ok((Step::Piece { header, payload: piece, starts, ends }, end)),
        };
    }
    let step = if whole {
        Step::Frame(header, Cow::Owned(frame.payload))
    } else {
        Step::Piece { header, payload: piece, starts, ends }
    };
    Ok((step, end))
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            message_open: false,
            fragments: 0,
            frame: None,
            came: 0,
            window: None,
        }
    }
}

impl Progress {
    /// How many bytes there are until the next frame header begins; `None` inside a header.
    #[allow(clippy::arithmetic_side_effects, reason = "taken is at most payload_len")]
    pub(crate) fn until_header(&self) -> Option<usize> {
        match &self.frame {
            Some(frame) => Some(frame.header.payload_len - frame.taken),
            None => (self.header_len == 0).then_some(0),
        }
    }

    /// Bytes held.
    #[allow(clippy::arithmetic_side_effects, reason = "a capacity, which is at most isize::MAX")]
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.frame.as_ref().map_or(0, |frame| frame.payload.capacity())
    }

    /// The window for what is missing, the bytes that came, and those that are announced: any number
    /// unless the last frame has begun. Of a `raw` session a message that goes on is not kept, so only a
    /// frame has to come on.
    #[allow(clippy::arithmetic_side_effects, reason = "taken is at most payload_len")]
    pub(crate) fn unfinished(&mut self, raw: bool) -> Option<(&mut Option<Window>, u32, u32)> {
        let rest = match &self.frame {
            Some(frame) if !frame.header.opcode.is_control() && (raw || frame.header.fin) => {
                frame.header.payload_len - frame.taken
            }
            None if raw && self.header_len == 0 => {
                self.window = None;
                return None;
            }
            _ => usize::MAX,
        };
        Some((&mut self.window, self.came, saturated(rest)))
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

    /// Keeps the start of a header. Invariant: it is incomplete, so it is shorter than the longest.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "the place exists, so header_len is below 14"
    )]
    fn keep_header(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(place) = self.header.get_mut(usize::from(self.header_len)) {
                *place = byte;
                self.header_len += 1;
            }
        }
    }

    /// Completes the header byte by byte: it and how many bytes were taken, or `None` if all were
    /// and it is not complete.
    #[allow(clippy::arithmetic_side_effects, reason = "index lies inside the read buffer")]
    fn take_header(
        &mut self,
        rx: &[u8],
        rules: &FrameRules,
    ) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
        for (index, byte) in rx.iter().enumerate() {
            self.keep_header(std::slice::from_ref(byte));
            let bytes = self.header.get(..usize::from(self.header_len)).unwrap_or_default();
            if let Some(header) = FrameHeader::read(bytes, rules)? {
                self.header_len = 0;
                return Ok(Some((header, index + 1)));
            }
        }
        Ok(None)
    }
}

#[cfg(all(repository, test))]
mod tests;

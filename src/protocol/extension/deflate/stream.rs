//! The deflate streams: compressing whole messages, inflating pieces of them under a limit, and
//! what the sessions of a loop share.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::protocol::text::growth;
use crate::words::close::CloseCode;
use crate::words::extension::ExtensionError;

/// What an inflater holds, window included.
pub(super) const INFLATER_BYTES: usize = 48 << 10;

/// The bytes that end every flushed stream and are left out on the wire (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The most streams in one message. Section 7.2.3.4 allows a final block anywhere, and a stream
/// begins anew behind it; each costs a reset, which two bytes of payload must not buy without end.
const STREAMS_MAX: u32 = 256;

/// The least room that inflating gets.
const STEP_BYTES: usize = 1 << 10;

/// What a compressor holds: two windows, hash chains of a window, hash heads, pending output.
#[allow(clippy::arithmetic_side_effects, reason = "a window has 15 bits at most")]
pub(super) fn compressor_bytes(window_bits: u8) -> usize {
    (4 << window_bits) + (196 << 10)
}

/// The streams that the sessions of one installation share.
#[derive(Default)]
pub(super) struct Streams {
    /// One for each window size in use.
    compressors: RefCell<Vec<Compressor>>,
    /// One that is between messages.
    spare: RefCell<Option<Box<Inflater>>>,
}

impl Streams {
    pub(super) fn compress(&self, level: u32, window_bits: u8, payload: &[u8]) -> Option<Vec<u8>> {
        self.with_compressor(level, window_bits, |shared| shared.compress(payload, false))
    }

    /// Adds a piece of a message to `out`. It builds on nothing that came before it: whoever else compresses
    /// between two pieces leaves no trace.
    pub(super) fn compress_piece(
        &self,
        level: u32,
        window_bits: u8,
        (piece, last): (&[u8], bool),
        out: &mut Vec<u8>,
    ) -> Option<()> {
        self.with_compressor(level, window_bits, |shared| {
            let done = shared.compress_piece(piece, last, out);
            shared.stream.reset();
            done
        })
    }

    fn with_compressor<R>(
        &self,
        level: u32,
        window_bits: u8,
        act: impl FnOnce(&mut Compressor) -> Option<R>,
    ) -> Option<R> {
        let mut compressors = self.compressors.try_borrow_mut().ok()?;
        let known = compressors.iter().position(|known| known.window_bits == window_bits);
        let index = known.unwrap_or(compressors.len());
        if known.is_none() {
            compressors.push(Compressor::new(level, window_bits));
        }
        compressors.get_mut(index).and_then(act)
    }

    pub(super) fn take_inflater(&self) -> Box<Inflater> {
        self.spare.take().unwrap_or_default()
    }

    /// Keeps one inflater for the next message; all others are freed.
    pub(super) fn give_back(&self, mut inflater: Box<Inflater>) {
        inflater.reset();
        self.spare.replace(Some(inflater));
    }
}

/// Compresses whole messages.
pub(super) struct Compressor {
    stream: Compress,
    window_bits: u8,
}

impl Compressor {
    pub(super) fn new(level: u32, window_bits: u8) -> Self {
        let stream = Compress::new_with_window_bits(Compression::new(level), false, window_bits);
        Self { stream, window_bits }
    }

    /// The payload of the message (RFC 7692 section 7.2.1), unless that would not be smaller. Then the
    /// context is forgotten: the peer does not see what went into it.
    pub(super) fn compress(&mut self, payload: &[u8], keeps_context: bool) -> Option<Vec<u8>> {
        let compressed = self.flush(payload);
        if compressed.is_none() || !keeps_context {
            self.stream.reset();
        }
        compressed
    }

    #[allow(clippy::arithmetic_side_effects, reason = "lengths of what lies in memory")]
    fn flush(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let worth_it = payload.len() + TAIL.len(); // the tail is taken off again
        let mut out = Vec::with_capacity(worth_it.min(payload.len() / 4 + 64));
        let mut rest = payload;
        while !self.write_some(&mut rest, &mut out)? {
            if out.len() >= worth_it {
                return None;
            }
            out.reserve_exact(growth(out.len(), out.capacity(), 64, worth_it + 1));
        }
        out.truncate(out.strip_suffix(&TAIL)?.len());
        (out.len() < payload.len()).then_some(out)
    }

    /// Adds a piece of a message to `out`, whether or not that gets smaller: what follows stands on a whole
    /// byte, behind an empty block (RFC 7692 section 7.2.1), of which the message's last has but the start.
    pub(super) fn compress_piece(
        &mut self,
        piece: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        if piece.is_empty() {
            out.extend(last.then_some(0)); // section 7.2.3.6: the start of a block without content
            return Some(());
        }
        out.reserve((piece.len() / 4).saturating_add(64));
        let mut rest = piece;
        while !self.write_some(&mut rest, out)? {
            out.reserve(rest.len().max(64));
        }
        if last {
            out.truncate(out.strip_suffix(&TAIL)?.len());
        }
        Some(())
    }

    /// Compresses from the start of `rest` into what room `out` has: whether that was all.
    #[allow(clippy::arithmetic_side_effects, reason = "a counter that only grows")]
    fn write_some(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<bool> {
        let before = self.stream.total_in();
        self.stream.compress_vec(rest, out, FlushCompress::Sync).ok()?;
        let taken = usize::try_from(self.stream.total_in() - before).ok()?;
        *rest = rest.get(taken..)?;
        Some(rest.is_empty() && out.len() < out.capacity())
    }
}

/// Inflates messages piece by piece.
pub(super) struct Inflater {
    stream: Decompress,
    /// Final blocks in this message.
    streams: u32,
    /// Nothing of the message awaits the tail: it has no byte yet, or its last one ended a final
    /// block. Peers that forget the byte for it (section 7.2.3.4 and 7.2.3.6) are understood.
    complete: bool,
}

impl Default for Inflater {
    fn default() -> Self {
        // A window of 15 bits inflates what smaller ones compressed, and the backend saves nothing
        // with a smaller one.
        Self { stream: Decompress::new(false), streams: 0, complete: true }
    }
}

impl Inflater {
    fn reset(&mut self) {
        self.stream.reset(false);
        self.streams = 0;
        self.complete = true;
    }

    /// Adds to `body` what `bytes` inflate to; never more than one byte over `limit`.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ExtensionError> {
        while !bytes.is_empty() || body.len() == body.capacity() {
            let room = limit.saturating_add(1).saturating_sub(body.len());
            if room == 0 {
                return Err(ExtensionError::TooBig);
            }
            let wanted = room.min(STEP_BYTES.max(bytes.len().saturating_mul(2)));
            let more = growth(body.len(), body.capacity(), wanted, limit.saturating_add(1));
            body.reserve_exact(more);
            if !self.inflate_some(&mut bytes, body)? {
                break;
            }
        }
        if body.len() > limit { Err(ExtensionError::TooBig) } else { Ok(()) }
    }

    /// Adds to `body` what `bytes` inflate to, up to `room` bytes and what the last of them amounts to: how
    /// many of `bytes` that took. The stream holds no more than a few bits and one copy of 258 bytes back, so
    /// what comes of the last byte is a few KiB at most.
    #[allow(clippy::arithmetic_side_effects, reason = "the rest is a part of the whole")]
    pub(super) fn feed_some(
        &mut self,
        bytes: &[u8],
        body: &mut Vec<u8>,
        room: usize,
    ) -> Result<usize, ExtensionError> {
        let mut rest = bytes;
        while if rest.is_empty() { body.len() == body.capacity() } else { body.len() < room } {
            // Doubled, so that little is moved, and not past the room.
            let wanted = rest.len().saturating_mul(4).max(body.len());
            let wanted = wanted.min(room.saturating_sub(body.len()));
            body.reserve_exact(wanted.max(STEP_BYTES));
            if !self.inflate_some(&mut rest, body)? {
                break;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Inflates from the start of `bytes` into what room `body` has: false if there is no more to come of
    /// them.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "the counter of the stream only grows; streams stops at STREAMS_MAX"
    )]
    fn inflate_some(
        &mut self,
        bytes: &mut &[u8],
        body: &mut Vec<u8>,
    ) -> Result<bool, ExtensionError> {
        let corrupt =
            || ExtensionError::failed(CloseCode::NOT_CONSISTENT, "corrupt compressed data");
        self.complete &= bytes.is_empty();
        let (taken, made) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress_vec(bytes, body, FlushDecompress::Sync);
        let status = status.map_err(|_| corrupt())?;
        let taken = usize::try_from(self.stream.total_in() - taken).unwrap_or(bytes.len());
        *bytes = bytes.get(taken..).unwrap_or_default();
        if status == Status::StreamEnd {
            // RFC 7692 section 7.2.3.4: what follows a final block is a stream of its own.
            self.streams += 1;
            if self.streams > STREAMS_MAX {
                return Err(corrupt());
            }
            self.stream.reset(false);
            self.complete = bytes.is_empty();
            return Ok(!self.complete);
        }
        let moves = taken > 0 || self.stream.total_out() != made;
        // Nothing moves: all is read, or the data asks for what is not there.
        if moves || bytes.is_empty() { Ok(moves) } else { Err(corrupt()) }
    }

    /// The message has ended: what its sender left out is put back (RFC 7692 section 7.2.2).
    pub(super) fn end_message(
        &mut self,
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ExtensionError> {
        if !self.complete {
            self.feed(&TAIL, body, limit)?;
        }
        self.streams = 0;
        self.complete = true;
        Ok(())
    }
}

#[cfg(all(repository, test))]
mod tests;

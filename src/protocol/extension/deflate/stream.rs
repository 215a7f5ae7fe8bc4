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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inflate(
        inflater: &mut Inflater,
        payload: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, ExtensionError> {
        let mut body = Vec::new();
        inflater.feed(payload, &mut body, limit)?;
        inflater.end_message(&mut body, limit)?;
        Ok(body)
    }

    /// A raw stream that ends with a flush of this kind.
    fn deflated(data: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut stream = Compress::new(Compression::new(9), false);
        let mut out = Vec::with_capacity(data.len() / 500 + 1_000);
        stream.compress_vec(data, &mut out, flush).unwrap();
        assert_eq!(stream.total_in(), data.len() as u64);
        out
    }

    /// Bytes without a pattern (xorshift).
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_ne_bytes()[1]
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    /// RFC 7692 section 7.2.3: its examples, byte by byte.
    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let mut inflater = Inflater::default();
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        assert_eq!(inflate(&mut inflater, hello, 5).unwrap(), b"Hello");
        // 7.2.3.2: with the window of the message before.
        assert_eq!(inflate(&mut inflater, b"\xf2\x00\x11\x00\x00", 5).unwrap(), b"Hello");
        // 7.2.3.3: not compressed.
        let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
        assert_eq!(inflate(&mut inflater, stored, 5).unwrap(), b"Hello");
        // 7.2.3.5: two blocks.
        let two = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
        assert_eq!(inflate(&mut inflater, two, 5).unwrap(), b"Hello");
        // 7.2.3.4: a final block, in the form that is sent, and then another message.
        let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
        assert_eq!(inflate(&mut inflater, last, 5).unwrap(), b"Hello");
        assert_eq!(inflate(&mut inflater, hello, 5).unwrap(), b"Hello");
        // 7.2.3.6: an empty message; and the same from peers that send no byte for it.
        assert_eq!(inflate(&mut inflater, b"\x00", 5).unwrap(), b"");
        assert_eq!(inflate(&mut inflater, b"", 5).unwrap(), b"");
        // A final block with nothing behind it, from peers that forget the byte.
        assert_eq!(inflate(&mut inflater, b"\xf3\x48\xcd\xc9\xc9\x07\x00", 5).unwrap(), b"Hello");
        assert_eq!(inflate(&mut inflater, hello, 5).unwrap(), b"Hello");
    }

    #[test]
    fn a_compressor_writes_what_the_rfc_shows() {
        let mut compressor = Compressor::new(6, 15);
        // Too short to be smaller: 7 bytes for 5.
        assert_eq!(compressor.compress(b"Hello", true), None);
        let text = b"Hello, Hello, Hello, Hello";
        let first = compressor.compress(text, true).unwrap();
        let second = compressor.compress(text, true).unwrap();
        assert!(second.len() < first.len(), "the context helps: {first:?}, {second:?}");
        let mut inflater = Inflater::default();
        assert_eq!(inflate(&mut inflater, &first, 99).unwrap(), text);
        assert_eq!(inflate(&mut inflater, &second, 99).unwrap(), text);
        // What is not sent compressed leaves no trace in the context.
        let noise = noise(2_000);
        assert_eq!(compressor.compress(&noise, true), None);
        let third = compressor.compress(text, true).unwrap();
        assert_eq!(inflate(&mut inflater, &third, 99).unwrap(), text);
    }

    #[test]
    fn every_window_size_round_trips_and_keeps_to_its_window() {
        // The only repetition is 600 bytes back: out of sight for 9 bits.
        let half = noise(600);
        let data = [&half[..], &half].concat();
        let sizes: Vec<usize> = (9..=15)
            .map(|bits| {
                let mut compressor = Compressor::new(9, bits);
                let Some(out) = compressor.compress(&data, false) else { return data.len() };
                assert_eq!(inflate(&mut Inflater::default(), &out, data.len()).unwrap(), data);
                out.len()
            })
            .collect();
        assert_eq!(sizes[0], data.len(), "{sizes:?}");
        assert!(sizes[2..].iter().all(|&size| size < 700), "{sizes:?}");
    }

    #[test]
    fn at_most_a_byte_over_the_limit_is_inflated() {
        let limit = 2 << 20;
        let zeros = vec![0; 8 << 20];
        for flush in [FlushCompress::Sync, FlushCompress::Full, FlushCompress::Finish] {
            let bomb = deflated(&zeros, flush);
            for piece_bytes in [bomb.len(), 64, 1] {
                let mut inflater = Inflater::default();
                let mut body = Vec::new();
                let ends: Vec<_> = bomb
                    .chunks(piece_bytes)
                    .map(|piece| inflater.feed(piece, &mut body, limit))
                    .take_while(Result::is_ok)
                    .collect();
                assert!(ends.len() < bomb.len().div_ceil(piece_bytes), "it was stopped");
                assert!(inflater.stream.total_out() <= limit as u64 + 1);
                assert!(body.capacity() <= limit + 1, "{}", body.capacity());
            }
        }
    }

    #[test]
    fn a_message_of_the_limit_passes_and_a_byte_more_does_not() {
        for limit in [1, 100, 1_023, 1_024, 1_025, 70_000] {
            let data = vec![7; limit];
            let payload = deflated(&data, FlushCompress::Sync);
            let payload = payload.strip_suffix(&TAIL).unwrap();
            assert_eq!(inflate(&mut Inflater::default(), payload, limit), Ok(data));
            let less = inflate(&mut Inflater::default(), payload, limit - 1);
            assert_eq!(less, Err(ExtensionError::TooBig), "{limit}");
        }
    }

    #[test]
    fn corrupt_data_is_refused_and_final_blocks_are_counted() {
        for corrupt in [&b"\x07"[..], b"\xff\xff\xff", b"\x00\x05\x00\x00\x00Hello"] {
            let error = inflate(&mut Inflater::default(), corrupt, 99).unwrap_err();
            assert_eq!(error.close_code(), CloseCode::NOT_CONSISTENT, "{corrupt:?}");
        }
        let finals = |count: usize| b"\x03\x00".repeat(count);
        let most = STREAMS_MAX as usize;
        assert_eq!(inflate(&mut Inflater::default(), &finals(most), 9), Ok(Vec::new()));
        assert!(inflate(&mut Inflater::default(), &finals(most + 1), 9).is_err());
    }

    #[test]
    fn between_messages_one_inflater_is_kept() {
        let streams = Streams::default();
        let (first, second) = (streams.take_inflater(), streams.take_inflater());
        streams.give_back(first);
        streams.give_back(second);
        assert!(streams.spare.borrow().is_some());
        let mut kept = streams.take_inflater();
        assert!(streams.spare.borrow().is_none());
        assert_eq!(inflate(&mut kept, b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5).unwrap(), b"Hello");
    }

    /// What these bytes make, cut at these places.
    fn in_pieces(bytes: &[u8], cuts: &[usize], limit: usize) -> Result<Vec<u8>, ExtensionError> {
        let mut inflater = Inflater::default();
        let mut body = Vec::new();
        let mut start = 0;
        for end in cuts.iter().copied().chain([bytes.len()]) {
            inflater.feed(&bytes[start..end], &mut body, limit)?;
            start = end;
        }
        inflater.end_message(&mut body, limit)?;
        Ok(body)
    }

    fn places(cuts: &[prop::sample::Index], len: usize) -> Vec<usize> {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
        places.sort_unstable();
        places
    }

    proptest! {
        /// Whatever arrives, and however it is cut: the same end, and never over the limit.
        #[test]
        fn any_bytes_in_any_pieces_have_one_outcome(
            start in prop::sample::select(vec![&b""[..], b"\xf2\x48", b"\x03\x00", b"\x00\x05\x00"]),
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
            limit in 1usize..300,
        ) {
            let bytes = [start, &bytes].concat();
            let whole = in_pieces(&bytes, &[], limit);
            prop_assert_eq!(&in_pieces(&bytes, &places(&cuts, bytes.len()), limit), &whole);
            prop_assert!(whole.map_or(0, |body| body.len()) <= limit);
        }

        /// What is compressed inflates again, with a context and without, at every level and window.
        #[test]
        fn messages_make_the_round_trip(
            messages in proptest::collection::vec("[ab]{0,300}|.{0,40}", 1..6),
            level in 0u32..10, window_bits in 9u8..16, keeps_context: bool,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut compressor = Compressor::new(level, window_bits);
            let mut inflater = Inflater::default();
            for message in &messages {
                let Some(packed) = compressor.compress(message.as_bytes(), keeps_context) else {
                    continue;
                };
                prop_assert!(packed.len() < message.len());
                let got = inflate(&mut inflater, &packed, message.len());
                prop_assert_eq!(got.as_deref(), Ok(message.as_bytes()));
                if !keeps_context {
                    let cuts = places(&cuts, packed.len());
                    let got = in_pieces(&packed, &cuts, message.len());
                    prop_assert_eq!(got.as_deref(), Ok(message.as_bytes()));
                }
            }
        }
    }
}

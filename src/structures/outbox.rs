//! The outbox: what waits for one peer that does not read right now.

mod bytes;

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::rc::Rc;

use crate::structures::assembled::Assembled;
use crate::structures::byte_queue::ByteQueue;
use crate::structures::footprint::footprint;
use crate::structures::spare_buffers::SpareBuffers;
use crate::structures::wire::Wire;

use bytes::Bytes;

/// The most bytes of control frames that wait.
pub(crate) const CONTROL_BYTES_MAX: usize = 4 << 10;

/// Slices handed to the system at once.
const SLICES_MAX: usize = 16;

/// Encoded frames and answers in the order they go out, with a lane for control frames that
/// overtakes data between two frames, never inside one (RFC 6455 section 5.4: control frames may be
/// injected in the middle of a fragmented message, but are not fragmented themselves).
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    data: VecDeque<Segment>,
    /// Bytes of the first segment that went out. Invariant: less than its length.
    written: usize,
    /// Bytes of the first segment up to the end of the frame that has begun; `written` if none has.
    frame_end: usize,
    /// Whole control frames, but for the start of the first if that went out.
    control: ByteQueue,
    /// Bytes of `control` up to the end of the frame that has begun; 0 if none has.
    control_frame_end: usize,
    /// Bytes of data that did not go out.
    buffered: usize,
    /// What the segments hold, as the allocator counts.
    held: usize,
    /// Of that, what whoever sent it to many shares with all of them until it is offered to a socket: within
    /// a turn all of them have it, and it is there once.
    unoffered: usize,
}

/// What is written or dropped as one.
#[derive(Debug)]
struct Segment {
    bytes: Bytes,
    kind: Kind,
    /// A flow gave it, and it is not the outbox's to drop.
    is_flows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Encoded frames.
    Frames,
    /// An HTTP answer, or the rest of what has begun: nothing may interrupt it.
    Opaque,
    /// An event of an event stream, where there are no control frames.
    Event,
}

impl Segment {
    fn len(&self) -> usize {
        self.bytes.as_slice().len()
    }

    fn is_opaque(&self) -> bool {
        self.kind == Kind::Opaque
    }

    /// Whether it is a message from its first byte to its last.
    fn is_whole_message(&self) -> bool {
        if self.kind != Kind::Frames {
            return self.kind == Kind::Event;
        }
        is_whole_message(self.bytes.as_slice())
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Nothing waits any more.
    Done,
    /// The socket takes no more at present.
    Blocked,
}

/// The length of the frame that starts at `at`, or of what is there of it.
pub(crate) fn frame_len(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let &[_, second, ref more @ ..] = rest else { return rest.len() };
    let (extended, length) = match (second & 127, more) {
        (126, &[a, b, ..]) => (2, u64::from(u16::from_be_bytes([a, b]))),
        (127, &[a, b, c, d, e, f, g, h, ..]) => (8, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        (short, _) => (0, u64::from(short)),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(2 + extended + mask)
        .min(rest.len())
}

fn is_control(first: u8) -> bool {
    first & 0x08 != 0
}

/// RFC 6455 section 5.5.1: nothing is sent behind a Close, so it never overtakes.
fn is_close(first: u8) -> bool {
    first & 0x0f == 8
}

/// Whether these frames are a message from its first to its last.
pub(crate) fn is_whole_message(frames: &[u8]) -> bool {
    let starts = frames.first().is_some_and(|first| !is_control(*first) && first & 0x0f != 0);
    starts && ends_message(frames)
}

/// Whether the last of these frames ends a message.
pub(crate) fn ends_message(frames: &[u8]) -> bool {
    let (mut at, mut ends) = (0, false);
    while let Some(first) = frames.get(at) {
        ends = is_last_of_message(*first);
        at += frame_len(frames, at).max(1);
    }
    ends
}

/// A ping or a pong.
fn is_overtaking(first: u8) -> bool {
    is_control(first) && !is_close(first)
}

/// Ends a data message.
fn is_last_of_message(first: u8) -> bool {
    !is_control(first) && first & 0x80 != 0
}

/// Putting in.
impl Outbox {
    /// Queues frames that belong together.
    pub(crate) fn push_frames(&mut self, bytes: Vec<u8>) {
        self.push(Bytes::Own(bytes), Kind::Frames);
    }

    /// Queues an event.
    pub(crate) fn push_event(&mut self, bytes: Vec<u8>) {
        self.push(Bytes::Own(bytes), Kind::Event);
    }

    /// Queues one shared event of which `written` bytes went out; if any did, nothing may wait.
    pub(crate) fn push_shared_event(&mut self, event: Rc<[u8]>, written: usize) {
        debug_assert!(written == 0 || self.data.is_empty(), "what has begun goes first");
        if written < event.len() {
            let end = event.len();
            self.push(Bytes::Shared(event), Kind::Event);
            self.buffered -= written;
            if written > 0 {
                (self.written, self.frame_end) = (written, end);
            }
        }
    }

    /// Queues one shared message of which `written` bytes went out; if any did, nothing may wait.
    pub(crate) fn push_shared(&mut self, frames: Rc<[u8]>, written: usize) {
        debug_assert!(written == 0 || self.data.is_empty(), "what has begun goes first");
        let begun = written > 0 && written < frames.len();
        self.push(Bytes::Shared(frames), Kind::Frames);
        if let Some(segment) = self.data.front().filter(|_| begun) {
            self.buffered -= written;
            self.written = written;
            while self.frame_end < written {
                self.frame_end += frame_len(segment.bytes.as_slice(), self.frame_end).max(1);
            }
        }
    }

    /// Queues one shared message that no socket was offered, since others send it here.
    pub(crate) fn push_shared_unoffered(&mut self, frames: Rc<[u8]>) {
        self.unoffered += frames.len();
        self.push_shared(frames, 0);
    }

    /// Queues bytes that are no frames.
    pub(crate) fn push_opaque(&mut self, bytes: Vec<u8>) {
        self.push(Bytes::Own(bytes), Kind::Opaque);
    }

    /// Queues the rest of a frame that has begun: a part of a message that came.
    pub(crate) fn push_received(&mut self, message: Rc<Assembled>, part: Range<usize>) {
        let bytes = Bytes::Received(Box::new((message, part)));
        self.push(bytes, Kind::Opaque);
    }

    fn push(&mut self, bytes: Bytes, kind: Kind) {
        let segment = Segment { bytes, kind, is_flows: false };
        if segment.len() > 0 {
            self.buffered += segment.len();
            self.held += segment.bytes.held();
            self.data.push_back(segment);
        }
    }

    /// What was queued last is a message of a flow, which has a policy of its own.
    pub(crate) fn note_flow_message(&mut self) {
        if let Some(last) = self.data.back_mut() {
            last.is_flows = true;
        }
    }

    /// Queues what is left of encoded frames of which `written` bytes went out: a segment for each
    /// message, whole control frames in their lane. The cut may be anywhere.
    pub(crate) fn push_rest(&mut self, frames: &[u8], written: usize, spare: &mut SpareBuffers) {
        let mut open: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < frames.len() {
            let first = frames.get(at).copied().unwrap_or_default();
            let range = at..at + frame_len(frames, at).max(1);
            at = range.end;
            if range.end <= written {
                continue;
            }
            let begun = range.start < written;
            let rest = frames.get(range.start.max(written)..range.end).unwrap_or_default();
            if is_overtaking(first) && !begun {
                // Also one between the fragments of a message: it is dropped with none.
                self.control.push(rest);
                continue;
            }
            let mut bytes = open.take().unwrap_or_else(|| spare.buffer(rest.len()));
            bytes.extend_from_slice(rest);
            if begun {
                // Invariant: only the first of a rest has begun, and nothing waits before a rest but
                // the end of an HTTP answer; so the end of the begun frame is the end of a segment,
                // which nothing may interrupt: what an opaque one is.
                self.push_opaque(bytes);
            } else if is_last_of_message(first) || is_close(first) {
                self.push_frames(bytes);
            } else {
                open = Some(bytes);
            }
        }
        if let Some(bytes) = open {
            self.push_frames(bytes);
        }
    }

    /// Queues what is left of events and comments of which `written` bytes went out, each by itself. The cut
    /// may be anywhere.
    pub(crate) fn push_rest_of_events(&mut self, events: &[u8], written: usize) {
        let mut start = 0;
        while let Some(rest) = events.get(start..).filter(|rest| !rest.is_empty()) {
            // An event ends with an empty line, and has none within.
            let end =
                rest.windows(2).position(|two| two == b"\n\n").map_or(rest.len(), |at| at + 2);
            let event = rest.get(..end).unwrap_or_default();
            match written.saturating_sub(start) {
                // A comment is no message, so that no policy drops it as one.
                0 if !event.starts_with(b":") => self.push_event(event.to_vec()),
                gone => self.push_opaque(event.get(gone..).unwrap_or_default().to_vec()),
            }
            start += end;
        }
    }

    /// Queues a control frame before the data that has not begun. False if there is no room.
    #[must_use]
    pub(crate) fn push_control(&mut self, frame: &[u8]) -> bool {
        if self.control_bytes() + frame.len() > CONTROL_BYTES_MAX {
            return false;
        }
        self.control.push(frame);
        true
    }

    /// Drops all data and control frames that have not begun: the bytes of data that were dropped.
    pub(crate) fn drop_what_has_not_begun(&mut self) -> usize {
        let before = self.buffered;
        self.unoffered = 0;
        let begun =
            self.frame_end > self.written || self.data.front().is_some_and(Segment::is_opaque);
        if begun {
            self.data.truncate(1);
            if let Some(first) = self.data.front_mut().filter(|first| !first.is_opaque()) {
                let begun = first.bytes.as_slice().get(..self.frame_end).unwrap_or_default();
                first.bytes = Bytes::Own(begun.to_vec());
            }
        } else {
            self.data.clear();
            self.written = 0;
            self.frame_end = 0;
        }
        self.control.truncate(self.control_frame_end);
        self.buffered = self.data.iter().map(Segment::len).sum::<usize>() - self.written;
        self.held = self.data.iter().map(|segment| segment.bytes.held()).sum();
        before.saturating_sub(self.buffered)
    }

    /// Where the messages stand that are whole and have not begun, from the oldest, and their lengths.
    pub(crate) fn droppable(&self) -> impl Iterator<Item = (usize, usize)> {
        let segments = self.data.iter().enumerate().skip(usize::from(self.written > 0));
        let whole = segments.filter(|(_, it)| !it.is_flows && it.is_whole_message());
        whole.map(|(place, segment)| (place, segment.len()))
    }

    /// Drops the oldest message that is whole and has not begun: the bytes it made room for.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        let place = self.droppable().next()?.0;
        let segment = self.data.remove(place)?;
        self.unoffered = 0;
        self.buffered -= segment.len();
        self.held -= segment.bytes.held();
        Some(segment.len())
    }
}

/// Taking out.
impl Outbox {
    /// Writes until nothing waits or the wire takes less than it is offered. Large buffers go to the spare
    /// ones as soon as all of them is out.
    pub(crate) fn write_to(
        &mut self,
        wire: &mut dyn Wire,
        spare: &mut SpareBuffers,
    ) -> Result<Flush, ErrorKind> {
        if wire.has_socket() {
            self.unoffered = 0; // what is left then was refused, and waits for this peer
        }
        while !self.is_empty() {
            let mut ranges = [const { (Lane::Data(0), 0..0) }; SLICES_MAX];
            let count = self.plan(&mut ranges);
            let planned = ranges.get(..count).unwrap_or_default();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, (lane, range)) in slices.iter_mut().zip(planned) {
                *slice = IoSlice::new(self.bytes(lane).get(range.clone()).unwrap_or_default());
            }
            let offered: usize = planned.iter().map(|(_, range)| range.len()).sum();
            let slices = slices.get(..count).unwrap_or_default();
            let written = wire.write_vectored(slices).map_err(|error| error.kind())?;
            self.advance(planned, written.min(offered), spare);
            if written < offered {
                return Ok(Flush::Blocked);
            }
        }
        Ok(Flush::Done)
    }

    fn bytes(&self, lane: &Lane) -> &[u8] {
        match lane {
            Lane::Control => self.control.as_slice(),
            Lane::Data(number) => {
                self.data.get(*number).map_or(&[][..], |segment| segment.bytes.as_slice())
            }
        }
    }

    /// What goes out next: the frame that has begun, then control frames, then data.
    fn plan(&self, ranges: &mut [(Lane, Range<usize>); SLICES_MAX]) -> usize {
        let mut places = ranges.iter_mut();
        let mut count = 0;
        let mut put = |lane: Lane, range: Range<usize>| {
            if !range.is_empty() {
                if let Some(place) = places.next() {
                    *place = (lane, range);
                    count += 1;
                }
            }
        };
        let mut data_from = self.written;
        if self.control_frame_end > 0 {
            // A control frame has begun, which it does only between data frames.
            put(Lane::Control, 0..self.control.len());
        } else if !self.control.is_empty() {
            let uninterrupted = match self.data.front() {
                Some(first) if first.is_opaque() => first.len(),
                _ => self.frame_end.max(self.written),
            };
            put(Lane::Data(0), self.written..uninterrupted);
            data_from = uninterrupted;
            put(Lane::Control, 0..self.control.len());
        }
        for (number, segment) in self.data.iter().enumerate().take(SLICES_MAX) {
            let from = if number == 0 { data_from } else { 0 };
            put(Lane::Data(number), from..segment.len());
        }
        count
    }

    fn advance(
        &mut self,
        planned: &[(Lane, Range<usize>)],
        mut written: usize,
        spare: &mut SpareBuffers,
    ) {
        let mut finished = 0;
        for (lane, range) in planned {
            let taken = written.min(range.len());
            written -= taken;
            if taken == 0 {
                break;
            }
            let end = range.start + taken;
            match *lane {
                Lane::Control => {
                    let control = self.control.as_slice();
                    while self.control_frame_end < end {
                        self.control_frame_end += frame_len(control, self.control_frame_end).max(1);
                    }
                    self.control_frame_end -= end;
                    self.control.consume(end);
                }
                Lane::Data(number) => {
                    self.buffered -= taken;
                    let Some(segment) = self.data.get(number) else { continue };
                    if end == segment.len() {
                        finished = number + 1;
                        (self.written, self.frame_end) = (0, 0);
                    } else {
                        self.written = end;
                        while segment.kind == Kind::Frames && self.frame_end < end {
                            self.frame_end += frame_len(segment.bytes.as_slice(), self.frame_end);
                        }
                        if segment.kind != Kind::Frames {
                            self.frame_end = segment.len();
                        }
                    }
                }
            }
        }
        for segment in self.data.drain(..finished.min(self.data.len())) {
            self.held -= segment.bytes.held();
            segment.bytes.give_back(spare);
        }
    }

    /// Gives up what waits: its connection is over.
    pub(crate) fn give_back(&mut self, spare: &mut SpareBuffers) {
        self.data.drain(..).for_each(|segment| segment.bytes.give_back(spare));
        *self = Self::default();
    }
}

#[derive(Clone, Copy, Debug)]
enum Lane {
    Control,
    /// The segment of that number.
    Data(usize),
}

/// Asking.
impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.control.is_empty()
    }

    /// Bytes of data that wait; control frames have room of their own.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// Bytes of control frames that wait.
    pub(crate) fn control_bytes(&self) -> usize {
        self.control.len()
    }

    /// Bytes that wait before the end of the last control frame; all of what has begun if there is none.
    pub(crate) fn bytes_to_control_end(&self) -> usize {
        let uninterrupted = match self.data.front() {
            Some(first) if first.is_opaque() || self.control.is_empty() => first.len(),
            _ => self.frame_end.max(self.written),
        };
        uninterrupted - self.written + self.control_bytes()
    }

    /// Messages that wait, whole or in part.
    pub(crate) fn messages(&self) -> usize {
        self.data.len()
    }

    /// Bytes held, as the allocator counts.
    pub(crate) fn memory(&self) -> usize {
        self.held - self.unoffered
            + footprint(self.data.capacity() * size_of::<Segment>())
            + footprint(self.control.capacity())
    }
}

#[cfg(all(repository, test))]
#[allow(clippy::cast_possible_truncation, reason = "lengths that a test made up")]
mod tests;

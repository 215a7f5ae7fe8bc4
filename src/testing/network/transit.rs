//! The way from the server's socket to the peer's program, with the buffers of both systems in between:
//! what was given to a socket is not what has arrived.
//!
//! ```text
//!   write --> send queue --(segments, as far as the window is open)--> receive queue --> the program
//!             until acknowledged                                       at its own pace
//! ```
//!
//! A segment and its acknowledgment take no time; what takes time is the program. Bytes move between
//! the turns of the loop, so that within one a socket takes what its buffer holds and no more.
#![cfg_attr(
    not(all(repository, any(test, fuzzing))),
    allow(dead_code, reason = "clients of the public test kit have no buffers")
)]

use std::collections::VecDeque;
use std::time::Duration;

use crate::words::time::Time;

/// Sizes of what lies between a socket and a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    /// What the server's system holds until it is acknowledged.
    pub(crate) send: usize,
    /// What the peer's system holds until its program reads.
    pub(crate) receive: usize,
    /// The most bytes of a segment.
    pub(crate) segment: usize,
}

impl Buffers {
    /// About what systems have of their own.
    #[cfg(feature = "client")]
    pub(super) const USUAL: Self = Self { send: 64 << 10, receive: 64 << 10, segment: 1_448 };
}

/// How the peer's program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All that is there, at once.
    All,
    /// So many bytes each time; at least 1 of each.
    Steadily { bytes: usize, every: Duration },
    /// Not at all.
    Nothing,
    /// The peer is off the network: nothing is acknowledged any more either.
    Vanished,
}

/// How the server's side of the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Its end follows the last byte.
    Announced,
    /// The end has arrived behind the last byte.
    Arrived,
    /// A reset has.
    Reset,
}

/// One direction of a connection, from the server to the peer.
#[derive(Debug)]
pub(crate) struct Transit {
    buffers: Buffers,
    /// Written and not acknowledged.
    sent: Vec<u8>,
    /// Acknowledged and not read.
    received: Vec<u8>,
    /// What the peer's system has said that it takes.
    window: usize,
    pace: Pace,
    /// The program reads no more than this: it has room for no more.
    room: usize,
    /// When the program reads next, if it reads by the clock.
    next_read: Time,
    end: End,
    /// When its system had everything, the end included.
    ended_at: Option<Time>,
    /// Bytes that a reset has thrown away.
    lost: usize,
    /// Those of them that the peer's system had acknowledged.
    unread: Vec<u8>,
    progress: Progress,
}

/// When the peer took something.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes acknowledged so far.
    acknowledged: usize,
    /// How many were acknowledged before a time, whenever that changed.
    history: VecDeque<(Time, usize)>,
    /// When bytes moved last, or could have.
    now: Time,
}

/// Older changes are forgotten.
const HISTORY_MAX: usize = 4_096;

impl Transit {
    pub(crate) fn new(buffers: Buffers) -> Self {
        Self {
            buffers,
            sent: Vec::new(),
            received: Vec::new(),
            window: buffers.receive,
            pace: Pace::All,
            room: usize::MAX,
            next_read: Time::ZERO,
            end: End::Open,
            ended_at: None,
            lost: 0,
            unread: Vec::new(),
            progress: Progress::default(),
        }
    }

    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Gives the program room for so many bytes; true if it can read because of that.
    #[cfg_attr(not(feature = "client"), allow(dead_code, reason = "for dialled connections"))]
    pub(super) fn set_room(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.room, bytes);
        before == 0 && bytes > 0 && !self.received.is_empty()
    }
}

/// The server's side.
impl Transit {
    /// Takes what there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.buffers.send.saturating_sub(self.sent.len()));
        self.sent.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        taken
    }

    /// Whether the system would say that there is room again: Linux does at a third of the buffer.
    pub(super) fn is_writable(&self) -> bool {
        self.end == End::Reset
            || self.sent.len() <= self.buffers.send - self.buffers.send.div_ceil(3)
    }

    /// Bytes that the peer's system has not acknowledged; its end counts as one, which is what
    /// `SIOCOUTQ` says (tcp(7)).
    pub(crate) fn unacknowledged(&self) -> usize {
        self.sent.len() + usize::from(self.end == End::Announced)
    }

    /// Whether bytes wait for a window to open, and none is on its way.
    pub(super) fn is_peer_full(&self) -> bool {
        self.pace != Pace::Vanished && !self.sent.is_empty()
    }

    /// The peer's system takes so many bytes at the word of a test, whatever its window.
    #[cfg(all(repository, test))]
    pub(super) fn acknowledge(&mut self, bytes: usize) -> Vec<u8> {
        self.sent.drain(..bytes.min(self.sent.len())).collect()
    }

    /// The server sends nothing more.
    pub(super) fn shut(&mut self) {
        if self.end == End::Open {
            self.end = End::Announced;
        }
    }

    /// What has not arrived at the program never will: RFC 9293 section 3.10.7.4 flushes all queues.
    pub(super) fn reset(&mut self) {
        if self.end != End::Arrived || !self.received.is_empty() {
            self.lost += self.sent.len() + self.received.len();
            self.sent.clear();
            self.unread = std::mem::take(&mut self.received);
            self.end = End::Reset;
        }
    }
}

/// What the systems and the program do by themselves.
impl Transit {
    /// Moves what can be moved at this moment; `got` is what the program has read.
    pub(super) fn exchange(&mut self, now: Time, got: &mut Vec<u8>) {
        if self.end == End::Reset {
            return;
        }
        self.progress.now = now;
        let before = self.progress.acknowledged;
        loop {
            while self.deliver() {}
            if !self.read(now, got) {
                break;
            }
        }
        if self.progress.acknowledged > before {
            self.progress.history.push_back((now, before));
            if self.progress.history.len() > HISTORY_MAX {
                self.progress.history.pop_front();
            }
        }
        if self.sent.is_empty() && self.end == End::Announced && self.pace != Pace::Vanished {
            (self.end, self.ended_at) = (End::Arrived, Some(now));
        }
    }

    /// Segments arrive as far as the window is open.
    fn deliver(&mut self) -> bool {
        let piece = self.sent.len().min(self.window).min(self.buffers.segment);
        if piece == 0 || self.pace == Pace::Vanished {
            return false;
        }
        move_front(&mut self.sent, piece, &mut self.received);
        self.window -= piece;
        self.progress.acknowledged += piece;
        true
    }

    /// The program reads what is its turn; whether that has opened the window.
    fn read(&mut self, now: Time, got: &mut Vec<u8>) -> bool {
        if self.received.is_empty() || self.room == 0 {
            return false;
        }
        let most = match self.pace {
            Pace::All => usize::MAX,
            Pace::Steadily { bytes, every } if self.next_read <= now => {
                // It may have been late; what it missed is no reason to read faster than it can.
                let late = now.since(self.next_read) >= every;
                self.next_read = if late { now } else { self.next_read }.after(every);
                bytes
            }
            Pace::Steadily { .. } | Pace::Nothing | Pace::Vanished => return false,
        };
        let piece = most.min(self.received.len()).min(self.room);
        self.room -= if self.room == usize::MAX { 0 } else { piece };
        move_front(&mut self.received, piece, got);
        self.open_window()
    }

    /// A receiver waits until a step is worth telling (RFC 9293 section 3.8.6.2.2).
    fn open_window(&mut self) -> bool {
        let room = self.buffers.receive - self.received.len();
        let step = room - self.window;
        if step < self.buffers.segment.min(self.buffers.receive.div_ceil(2)) {
            return false;
        }
        self.window = room;
        true
    }

    /// When something moves next by itself.
    pub(super) fn next_move(&self) -> Option<Time> {
        let is_paced = matches!(self.pace, Pace::Steadily { .. });
        let reads = is_paced && self.room > 0 && !self.received.is_empty();
        reads.then_some(self.next_read)
    }
}

fn move_front(from: &mut Vec<u8>, count: usize, to: &mut Vec<u8>) {
    to.extend_from_slice(&from[..count]);
    from.drain(..count);
}

/// What a test may ask.
impl Transit {
    /// Whether the peer's program has seen the server's end, behind every byte.
    pub(crate) fn is_ended(&self) -> bool {
        self.end == End::Arrived && self.received.is_empty()
    }

    /// Whether the peer has seen a reset.
    pub(crate) fn is_reset(&self) -> bool {
        self.end == End::Reset
    }

    /// Bytes that a reset has thrown away.
    #[cfg(all(repository, test))]
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }

    /// Bytes that the peer's system took from one time to another, both included.
    pub(crate) fn taken_between(&self, from: Time, until: Time) -> usize {
        let before = |wanted: &dyn Fn(Time) -> bool| {
            let change = self.progress.history.iter().find(|(at, _)| wanted(*at));
            change.map_or(self.progress.acknowledged, |(_, before)| *before)
        };
        before(&|at| at > until) - before(&|at| at >= from)
    }

    /// What a reset has thrown away of what the peer's system had acknowledged: the last bytes of all that
    /// it did.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// When the peer's system acknowledged a byte that so many behind it follow until the last that it
    /// acknowledged.
    pub(super) fn acknowledged_at(&self, followers: usize) -> Option<Time> {
        let progress = &self.progress;
        let position = progress.acknowledged.checked_sub(followers)?.checked_sub(1)?;
        let change = progress.history.iter().rev().find(|(_, before)| *before <= position);
        change.map(|(at, _)| *at)
    }

    /// When it was reset.
    pub(crate) fn reset_at(&self) -> Option<Time> {
        self.is_reset().then_some(self.progress.now)
    }

    /// Since when the peer's system has had everything, the server's end included, whether or not its
    /// program has.
    pub(crate) fn ended_at(&self) -> Option<Time> {
        self.ended_at
    }

    /// Since when the peer's system had had all that was sent, if a reset threw away nothing else.
    pub(crate) fn all_taken_at(&self) -> Option<Time> {
        let (at, _) = self.progress.history.back()?;
        (self.lost == self.unread.len()).then_some(*at)
    }

    /// Whether its program or its machine has stopped for good, as far as is known.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.pace, Pace::Nothing | Pace::Vanished)
    }

    /// Whether nothing more can happen to what was sent.
    pub(super) fn is_over(&self) -> bool {
        self.is_reset() || self.is_ended()
    }
}

#[cfg(all(repository, test))]
mod tests;

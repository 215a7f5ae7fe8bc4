//! Progress of one direction of a connection: whether bytes move at the least rate that counts.

use std::time::Duration;

use crate::words::time::Time;

/// In so many parts a window is looked at, so that who stops is found out of time by no more than one.
const LOOKS: u32 = 32;

/// What a look may be late by, however short the window: ticks of the wheel, and a loop with other work.
const LATE: Duration = Duration::from_millis(50);

/// What has to move: `min_rate` bytes a second over `window`, or all that waits where that is less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Least {
    pub(crate) window: Duration,
    /// Bytes a second.
    pub(crate) min_rate: u32,
}

impl Least {
    /// The bytes that move in a window of somebody who is just fast enough.
    pub(crate) fn bytes(self) -> u32 {
        let micros = self.window.as_micros().saturating_mul(u128::from(self.min_rate));
        u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX).max(1)
    }

    /// How long a connection is left between two looks.
    pub(crate) fn between_looks(self) -> Duration {
        self.window / LOOKS
    }
}

/// A stretch of time in which bytes have to move; it begins anew as soon as they have.
///
/// Positions are counts of bytes modulo 2^32; one that falls behind is no progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    since: Time,
    /// When it was last looked at, in milliseconds since then.
    looked_millis: u32,
    /// The position at its start, and the bytes that waited then.
    position: u32,
    waited: u32,
    /// Nobody was asked at the very start, which may cost a system call: so it begins with the first look.
    has_start: bool,
}

impl Window {
    /// One whose start is that of the first look.
    pub(crate) fn begin(now: Time) -> Self {
        Self { has_start: false, ..Self::begin_at(now, 0, 0) }
    }

    /// One whose start is known.
    pub(crate) fn begin_at(now: Time, position: u32, waiting: u32) -> Self {
        Self { since: now, looked_millis: 0, position, waited: waiting, has_start: true }
    }

    /// When it began.
    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// Nothing could move for so long, of which it knows nothing.
    pub(crate) fn delay(&mut self, time: Duration) {
        self.since = self.since.after(time);
    }

    /// When it was last looked at.
    pub(crate) fn looked(&self) -> Time {
        self.since.after_millis(self.looked_millis)
    }

    /// When it has to be looked at next.
    pub(crate) fn next_look(&self, least: Least) -> Time {
        self.looked().after(least.between_looks()).min(self.since.after(least.window))
    }

    /// Bytes moved, or not: false if the window is over and too few did.
    pub(crate) fn look(&mut self, now: Time, position: u32, waiting: u32, least: Least) -> bool {
        if !self.has_start {
            // What moved before it, nobody saw: a window that began earlier would hold that against the peer.
            *self = Self::begin_at(now, position, waiting);
            return true;
        }
        // For a whole window nobody looked: the loop was away, or the machine slept, and what waits here
        // could not move.
        if self.looked().after(least.window + least.between_looks().max(LATE)) < now {
            *self = Self::begin_at(now, position, waiting);
            return true;
        }
        self.note_look(now);
        let moved = position.wrapping_sub(self.position);
        let moved = if moved > u32::MAX / 2 { 0 } else { moved };
        if moved >= self.waited.min(least.bytes()) {
            *self = Self::begin_at(now, position, waiting);
            return true;
        }
        now < self.since.after(least.window)
    }

    fn note_look(&mut self, now: Time) {
        self.looked_millis = u32::try_from(now.since(self.since).as_millis()).unwrap_or(u32::MAX);
    }
}

#[cfg(all(repository, test))]
mod tests;

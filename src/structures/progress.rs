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

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Least = Least { window: Duration::from_secs(30), min_rate: 256 };

    /// Whether somebody who moves `bytes` every `seconds` of an endless queue is still there after an hour.
    fn lives(bytes: u32, seconds: u64, first: u32) -> bool {
        let mut position = first;
        let mut window = Window::begin(Time::ZERO);
        let mut moves = Time::ZERO.after(Duration::from_secs(seconds));
        while window.looked() < Time::ZERO.after(Duration::from_secs(3_600)) {
            let now = window.next_look(LEAST);
            while moves <= now {
                position = position.wrapping_add(bytes);
                moves = moves.after(Duration::from_secs(seconds));
            }
            if !window.look(now, position, 1 << 20, LEAST) {
                return false;
            }
        }
        true
    }

    #[test]
    fn who_moves_bytes_at_the_least_rate_lives_in_pieces_of_any_size() {
        for first in [0, u32::MAX - 5_000] {
            for (bytes, seconds) in [(5_000, 1), (300, 1), (65_536, 28), (8_000, 27)] {
                assert!(lives(bytes, seconds, first), "{bytes} bytes every {seconds} s");
            }
            for (bytes, seconds) in [(0, 1), (1, 1), (1, 29), (200, 1), (65_536, 40)] {
                assert!(!lives(bytes, seconds, first), "{bytes} bytes every {seconds} s");
            }
        }
    }

    #[test]
    fn who_is_just_fast_enough_lives_wherever_the_first_look_falls() {
        let position = |now: Time| u32::try_from(now.as_micros() * 256 / 1_000_000).unwrap();
        for late in [0, 1, 900, 15_000, 29_999, 90_000] {
            let mut window = Window::begin(Time::ZERO);
            let mut now = window.next_look(LEAST).after(Duration::from_millis(late));
            while now < Time::ZERO.after(Duration::from_secs(600)) {
                assert!(window.look(now, position(now), 1 << 20, LEAST), "{late} ms late, {now:?}");
                now = window.next_look(LEAST);
            }
        }
    }

    #[test]
    fn what_moved_before_the_first_look_is_not_held_against_the_peer() {
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        let mut window = Window::begin(Time::ZERO);
        assert!(window.look(at(25), 8_000, 1 << 20, LEAST));
        assert!(window.look(at(30), 8_000, 1 << 20, LEAST), "it took enough in these 30 s");
        assert!(!window.look(at(55), 8_000, 1 << 20, LEAST), "and nothing in those");
    }

    #[test]
    fn a_window_in_which_nobody_looked_is_not_held_against_the_peer() {
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        for away in [31, 95, 1_000] {
            let mut window = Window::begin_at(Time::ZERO, 0, 1 << 20);
            assert!(window.look(at(1), 0, 1 << 20, LEAST));
            assert!(window.look(at(1 + away), 100, 1 << 20, LEAST), "away for {away} s");
            assert!(window.look(at(30 + away), 100, 1 << 20, LEAST), "away for {away} s");
            assert!(!window.look(at(31 + away), 100, 1 << 20, LEAST), "away for {away} s");
        }
    }

    /// As the wheel has it, whose ticks are longer than the looks of a short window.
    #[test]
    fn a_late_look_is_no_absence() {
        for window in [1, 10, 50, 100, 150, 1_500].map(Duration::from_millis) {
            let least = Least { window, min_rate: 256 };
            for late in [1, 8, 17, 49].map(Duration::from_millis) {
                let mut one = Window::begin_at(Time::ZERO, 0, 100);
                assert!(
                    !one.look(Time::ZERO.after(window + late), 0, 100, least),
                    "{window:?} {late:?}"
                );
            }
        }
    }

    #[test]
    fn no_more_is_owed_than_waited() {
        let mut window = Window::begin_at(Time::ZERO, 0, 10);
        let end = Time::ZERO.after(LEAST.window);
        assert!(window.look(end, 10, 0, LEAST), "all that waited");
        assert!(window.look(end.after(LEAST.window), 10, 0, LEAST), "nothing waits");
    }

    #[test]
    fn who_stops_is_found_within_a_window_and_a_look() {
        let mut window = Window::begin_at(Time::ZERO, 0, 1 << 20);
        let stops = Time::ZERO.after(Duration::from_secs(10));
        let now = loop {
            let now = window.next_look(LEAST);
            let position = u32::try_from(now.min(stops).as_micros() / 100).unwrap(); // 10 kB/s
            if !window.look(now, position, 1 << 20, LEAST) {
                break now;
            }
        };
        assert!(now.since(stops) <= LEAST.window + LEAST.between_looks());
        assert!(now.since(stops) >= LEAST.window - Duration::from_secs(1));
    }

    /// A queue that counts more than the bytes in it, as that of a Unix socket, may grow faster than
    /// bytes are written.
    #[test]
    fn a_position_that_falls_back_is_no_progress() {
        let mut window = Window::begin_at(Time::ZERO, 100, 1 << 20);
        assert!(!window.look(Time::ZERO.after(LEAST.window), 50, 1 << 20, LEAST));
    }

    #[test]
    fn a_short_window_wants_a_byte_at_least() {
        let least = Least { window: Duration::from_millis(1), min_rate: 256 };
        let mut window = Window::begin_at(Time::ZERO, 0, 100);
        assert!(!window.look(Time::ZERO.after(least.window), 0, 100, least));
    }
}

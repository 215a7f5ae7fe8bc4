//! The one measure of time inside the crate: microseconds since the loop began.
//!
//! Only the shell reads a clock. Everything below it is handed a [`Time`], so that a test can run
//! a day of pings in a millisecond.

use std::time::Duration;

/// A point in time, in microseconds since the loop began.
///
/// It never goes back: the shell derives it from a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(u64);

impl Time {
    /// When the loop began.
    pub(crate) const ZERO: Self = Self(0);

    /// `micros` microseconds after the loop began.
    pub(crate) const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the loop began.
    pub(crate) const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time `duration` later, stopping at the end of time.
    pub(crate) fn after(self, duration: Duration) -> Self {
        // `as_micros` counts in 128 bits, which a deadline need not.
        let whole = duration.as_secs().saturating_mul(1_000_000);
        let micros = whole.saturating_add(u64::from(duration.subsec_micros()));
        Self(self.0.saturating_add(micros))
    }

    /// The earlier of two times, each of which may be never.
    #[inline]
    pub(crate) fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The time so many milliseconds later.
    pub(crate) fn after_millis(self, millis: u32) -> Self {
        Self(self.0.saturating_add(u64::from(millis).saturating_mul(1_000)))
    }

    /// The time `duration` before, or the beginning.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_and_since_are_inverse() {
        let start = Time::from_micros(7);
        let later = start.after(Duration::from_millis(3));
        assert_eq!(later.as_micros(), 3_007);
        assert_eq!(later.since(start), Duration::from_millis(3));
    }

    #[test]
    fn never_is_later_than_any_time() {
        let (one, two) = (Some(Time::from_micros(1)), Some(Time::from_micros(2)));
        for (a, b, earlier) in
            [(one, two, one), (two, one, one), (one, None, one), (None, two, two)]
        {
            assert_eq!(Time::earlier(a, b), earlier);
        }
        assert_eq!(Time::earlier(None, None), None);
    }

    #[test]
    fn the_ends_saturate() {
        assert_eq!(Time::from_micros(5).after(Duration::MAX).as_micros(), u64::MAX);
        assert_eq!(Time::ZERO.since(Time::from_micros(9)), Duration::ZERO);
    }
}

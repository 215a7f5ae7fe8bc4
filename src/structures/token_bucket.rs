//! The token bucket: one number, and no timer.

use crate::words::rate::Rate;
use crate::words::time::Time;

/// A bucket of tokens as the time at which it will be full again (the generic cell rate algorithm):
/// a bucket that is full is the same as none at all, and refilling costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    full_at: Time,
}

impl TokenBucket {
    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Time, rate: Rate) -> bool {
        if self.next_token(rate) > now {
            return false;
        }
        let base = self.full_at.max(now).as_micros();
        self.full_at = Time::from_micros(base.saturating_add(rate.interval_micros()));
        true
    }

    /// When there is a token; a time that has passed if there is one now.
    pub(crate) fn next_token(&self, rate: Rate) -> Time {
        let spent = self.full_at.as_micros().saturating_add(rate.interval_micros());
        Time::from_micros(spent.saturating_sub(rate.depth_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn the_burst_and_then_one_for_each_interval() {
        let rate = Rate::per_second(10).burst(3);
        let mut bucket = TokenBucket::default();
        let mut now = Time::from_micros(5);
        let taken = (0..10).filter(|_| bucket.take(now, rate)).count();
        assert_eq!(taken, 3);
        assert_eq!(bucket.next_token(rate), now.after(Duration::from_millis(100)));
        now = now.after(Duration::from_millis(99));
        assert!(!bucket.take(now, rate));
        now = now.after(Duration::from_millis(1));
        assert!(bucket.take(now, rate) && !bucket.take(now, rate));
        now = now.after(Duration::from_millis(300));
        let refilled = (0..10).filter(|_| bucket.take(now, rate)).count();
        assert_eq!(refilled, 3);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_gives_more_than_burst_and_rate(
            count in 1u32..1_000,
            burst in 1u32..50,
            steps in proptest::collection::vec(0u64..100_000, 1..200),
        ) {
            let rate = Rate::per_second(count).burst(burst);
            let mut bucket = TokenBucket::default();
            let mut now = Time::ZERO;
            let mut taken: Vec<u64> = Vec::new();
            for step in steps {
                now = now.after(Duration::from_micros(step));
                let due = bucket.next_token(rate) <= now;
                prop_assert_eq!(bucket.take(now, rate), due);
                if due {
                    taken.push(now.as_micros());
                }
            }
            for (first, &from) in taken.iter().enumerate() {
                for (last, &to) in taken.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (to - from) / rate.interval_micros();
                    prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }
}

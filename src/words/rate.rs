//! Rates: so many in so long, and how many at once.

use std::time::Duration;

use crate::words::bounds::LONGEST_TIMEOUT;

/// So many in so long, and as many at once as the burst: a token bucket.
///
/// ```
/// use wirewheel::options::Rate;
/// let steady = Rate::per_second(100); // 100 at once, then one every 10 ms
/// let strict = Rate::per_minute(30).burst(5); // 5 at once, then one every 2 s
/// assert_ne!(steady, strict);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    period: Duration,
    burst: u32,
}

impl Rate {
    /// `count` a second; the burst is the same number.
    pub const fn per_second(count: u32) -> Self {
        Self { count, period: Duration::from_secs(1), burst: count }
    }

    /// `count` a minute; the burst is the same number.
    pub const fn per_minute(count: u32) -> Self {
        Self { count, period: Duration::from_secs(60), burst: count }
    }

    /// Sets how many may come at once after a time of silence.
    #[must_use]
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// The time in which one token comes, in microseconds.
    pub(crate) fn interval_micros(self) -> u64 {
        let period = u64::try_from(self.period.as_micros()).unwrap_or(u64::MAX);
        (period / u64::from(self.count.max(1))).max(1)
    }

    /// How far ahead of time the bucket may be emptied, in microseconds.
    pub(crate) fn depth_micros(self) -> u64 {
        self.interval_micros().saturating_mul(u64::from(self.burst))
    }

    /// Refuses zero and absurd values by name.
    pub(crate) fn check(self, name: &str) -> Result<(), String> {
        if self.count == 0 || self.burst == 0 {
            return Err(format!("{name} is {self:?}: count and burst must be at least 1"));
        }
        let micros = self.period.as_micros() / u128::from(self.count);
        if micros == 0 || Duration::from_micros(self.depth_micros()) > LONGEST_TIMEOUT {
            return Err(format!(
                "{name} is {self:?}: it must be at most 1,000,000 a second, and the burst must \
                 refill within 366 days"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_absurd_rates_are_refused_by_name() {
        for bad in [
            Rate::per_second(0),
            Rate::per_second(5).burst(0),
            Rate::per_second(1_000_001),
            Rate::per_minute(1).burst(u32::MAX),
        ] {
            assert!(bad.check("message_rate").unwrap_err().starts_with("message_rate is"));
        }
        for good in [Rate::per_second(1), Rate::per_second(1_000_000), Rate::per_minute(1)] {
            assert_eq!(good.check("message_rate"), Ok(()));
        }
    }
}

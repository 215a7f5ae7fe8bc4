//! The delays between attempts that fail: jittered exponential back-off.

use std::time::Duration;

/// The bounds of the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackoffBounds {
    /// What doubles: the second delay is drawn from half to whole of twice this.
    pub(crate) first: Duration,
    /// What it doubles up to.
    pub(crate) largest: Duration,
}

/// The first delay is drawn from up to this: whoever loses a server that restarts loses it together with
/// all others, so that nothing but chance keeps them apart when they come back.
const SPREAD: Duration = Duration::from_secs(3);

/// How many delays there were since all was well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Invariant: at most 30, where it stays.
    failures: u8,
}

impl Backoff {
    /// The next delay. `random` is drawn anew for each.
    pub(crate) fn next(&mut self, bounds: &BackoffBounds, random: u32) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1).min(30);
        match failures.checked_sub(1) {
            None => part_of(SPREAD.min(bounds.largest), random),
            // Twice at once: those who fail in the first delays of all would come back among them, and
            // a server that is there again after two seconds would see three waves in one.
            Some(doublings) => {
                let full = bounds.first.saturating_mul(2 << doublings).min(bounds.largest);
                full / 2 + part_of(full / 2, random)
            }
        }
    }

    /// A delay from half to whole of the largest, for what will hardly be better soon. All later ones are
    /// as long.
    pub(crate) fn at_the_cap(&mut self, bounds: &BackoffBounds, random: u32) -> Duration {
        self.failures = 30;
        bounds.largest / 2 + part_of(bounds.largest / 2, random)
    }

    /// All was well: the next delay is a first one again.
    pub(crate) fn start_anew(&mut self) {
        self.failures = 0;
    }
}

/// A part of a time, drawn evenly.
fn part_of(time: Duration, random: u32) -> Duration {
    let micros = time.as_micros().saturating_mul(u128::from(random)) >> 32;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: BackoffBounds =
        BackoffBounds { first: Duration::from_secs(1), largest: Duration::from_secs(60) };

    #[test]
    fn delays_double_up_to_the_largest_and_start_anew() {
        for (random, lowest) in [(0, true), (u32::MAX, false)] {
            let mut backoff = Backoff::default();
            let mut next = || backoff.next(&BOUNDS, random).as_secs_f64().round();
            let delays = [(); 9].map(|()| next());
            let whole = [3.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0];
            let half = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0];
            assert_eq!(delays, if lowest { half } else { whole });
            backoff.start_anew();
            assert!(backoff.next(&BOUNDS, random) <= SPREAD);
        }
    }

    #[test]
    fn long_delays_are_spread_over_their_half_too() {
        let day = Duration::from_secs(86_400);
        let bounds = BackoffBounds { first: Duration::from_secs(60), largest: day };
        let delays = [0, 1 << 31, u32::MAX].map(|it| Backoff::default().at_the_cap(&bounds, it));
        assert_eq!(delays.map(|delay| (delay.as_secs_f64() / 3_600.0).round()), [12.0, 18.0, 24.0]);
    }

    #[test]
    fn a_cap_below_the_spread_holds_from_the_start() {
        let second = Duration::from_secs(1);
        let short = BackoffBounds { first: second / 10, largest: second };
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert!(backoff.next(&short, u32::MAX) <= second);
        }
        assert!(backoff.at_the_cap(&short, 0) >= second / 2);
    }

    #[test]
    fn times_without_measure_do_not_overflow() {
        let endless = BackoffBounds { first: Duration::MAX, largest: Duration::MAX };
        let mut backoff = Backoff::default();
        for _ in 0..300 {
            assert!(backoff.next(&endless, u32::MAX) <= Duration::MAX);
        }
    }
}

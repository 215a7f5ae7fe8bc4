//! The search for hooks that block the loop: the loop measures its turns, and events one by one
//! only after a turn was slow.

use std::time::Duration;

use crate::words::time::Time;

/// How long events are measured one by one after a slow turn.
const HUNT: Duration = Duration::from_secs(10);

/// Longer than any turn.
const NEVER: u64 = u64::MAX;

/// What blocked the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) took: Duration,
    /// Whose event it was, by slot; `None` if it was one of several.
    pub(crate) culprit: Option<u32>,
}

/// Measures turns against a threshold.
#[derive(Debug)]
pub(crate) struct SlowWatch {
    /// In microseconds, as it is looked at in each turn; [`NEVER`] where nothing is too slow.
    threshold: u64,
    hunting_until: Time,
    /// Events of connections in this turn, and the slot of the last.
    events: u32,
    last: u32,
    /// One of this turn's events has been named already.
    named: bool,
}

impl SlowWatch {
    pub(crate) fn new(threshold: Option<Duration>) -> Self {
        // Rounded up: what is as long as the threshold is not shorter in microseconds either.
        let micros = |threshold: Duration| threshold.as_nanos().div_ceil(1_000);
        let threshold = threshold.map_or(NEVER, |it| u64::try_from(micros(it)).unwrap_or(NEVER));
        Self { threshold, hunting_until: Time::ZERO, events: 0, last: 0, named: false }
    }

    /// An event of a connection is about to be acted on. True if the clock is to be read for
    /// [`event_ended`](Self::event_ended).
    #[inline]
    pub(crate) fn event_begins(&mut self, now: Time, index: u32) -> bool {
        self.events = self.events.wrapping_add(1); // a turn has at most some thousand
        self.last = index;
        now < self.hunting_until
    }

    /// The event that began last is over.
    pub(crate) fn event_ended(&mut self, began: Time, ended: Time) -> Option<Slow> {
        let took = self.slow(began, ended)?;
        self.named = true;
        Some(Slow { took, culprit: Some(self.last) })
    }

    /// A turn is over.
    #[inline]
    pub(crate) fn turn_ended(&mut self, began: Time, ended: Time) -> Option<Slow> {
        let (events, named) = (self.events, self.named);
        (self.events, self.named) = (0, false);
        let took = self.slow(began, ended)?;
        self.hunting_until = ended.after(HUNT);
        let culprit = (events == 1).then_some(self.last);
        (!named).then_some(Slow { took, culprit })
    }

    /// How long that took, if it was too long.
    #[inline]
    fn slow(&self, began: Time, ended: Time) -> Option<Duration> {
        let took = ended.as_micros().saturating_sub(began.as_micros());
        (took >= self.threshold).then(|| ended.since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    fn slow(millis: u64, culprit: Option<u32>) -> Option<Slow> {
        Some(Slow { took: Duration::from_millis(millis), culprit })
    }

    #[test]
    fn a_turn_with_one_event_names_it_at_once() {
        let mut watch = SlowWatch::new(Some(Duration::from_millis(100)));
        assert!(!watch.event_begins(at(0), 7));
        assert_eq!(watch.turn_ended(at(0), at(99)), None);
        assert!(!watch.event_begins(at(100), 7));
        assert_eq!(watch.turn_ended(at(100), at(200)), slow(100, Some(7)));
    }

    #[test]
    fn of_several_events_the_slow_one_is_hunted() {
        let mut watch = SlowWatch::new(Some(Duration::from_millis(100)));
        watch.event_begins(at(0), 1);
        watch.event_begins(at(0), 2);
        assert_eq!(watch.turn_ended(at(0), at(150)), slow(150, None));
        // From here each is measured.
        assert!(watch.event_begins(at(1_000), 1));
        assert_eq!(watch.event_ended(at(1_000), at(1_001)), None);
        assert!(watch.event_begins(at(1_000), 2));
        assert_eq!(watch.event_ended(at(1_001), at(1_121)), slow(120, Some(2)));
        assert_eq!(watch.turn_ended(at(1_000), at(1_121)), None, "it is named already");
        // The hunt goes on after each slow turn and then ends.
        assert!(watch.event_begins(at(11_120), 1));
        assert!(!watch.event_begins(at(11_121), 1));
    }

    #[test]
    fn off_is_off() {
        let mut watch = SlowWatch::new(None);
        assert!(!watch.event_begins(at(0), 1));
        assert_eq!(watch.turn_ended(at(0), at(100_000)), None);
        assert!(!watch.event_begins(at(100_000), 1));
    }
}

//! Lines of the log that strangers can cause: so many a second, and a word about the others.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

/// The clock, for what the server's own timers do not cover: the programs outlive the server, and so
/// does the log.
#[allow(clippy::disallowed_methods, reason = "the hub's one place where time comes in")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Sparing {
    per_second: u32,
    since: Cell<Option<Instant>>,
    said: Cell<u32>,
    unsaid: Cell<u64>,
}

impl Sparing {
    /// At most so many a second.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, since: Cell::new(None), said: Cell::new(0), unsaid: Cell::new(0) }
    }

    pub(crate) fn say(&self, level: Level, line: &dyn fmt::Display) {
        let Some(unsaid) = self.permit(now()) else { return };
        match unsaid {
            0 => log::log!(level, "{line}"),
            _ => log::log!(level, "{line} ({unsaid} more like this before)"),
        }
    }

    /// How many were not said since the last, if one may be said now.
    fn permit(&self, now: Instant) -> Option<u64> {
        let in_second = |since: &Instant| now.duration_since(*since) < Duration::from_secs(1);
        if self.since.get().filter(in_second).is_none() {
            self.since.set(Some(now));
            self.said.set(0);
        }
        if self.said.get() >= self.per_second {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.said.set(self.said.get() + 1);
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_of_a_second_are_said_and_the_rest_is_counted() {
        let sparing = Sparing::new(2);
        let begun = now();
        let at = |millis: u64| sparing.permit(begun + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1000), at(1001), at(1002)], [Some(2), Some(0), None]);
        assert_eq!(at(5000), Some(1));
    }
}

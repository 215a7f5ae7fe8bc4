//! Versions of messages, and the clock that gives them: a hybrid logical clock (Kulkarni and others, 2014).

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use wirewheel::Message;
use wirewheel::message::{MessageBuf, Payload};

/// What a version takes at the beginning of a message.
pub(crate) const VERSION_BYTES: usize = 32;
/// How far other clocks may be ahead, in microseconds. What is said to come from later could outdo all
/// that is said until then.
pub(super) const AHEAD_MAX: u64 = 3_600_000_000;
/// How many messages may be said behind the newest that is believed.
const COUNTED_MAX: u64 = 1_000_000;
/// A clock before this (2020) was never set, and cannot tell who is ahead of it.
pub(super) const SET: u64 = 1_577_836_800_000_000;
/// What such a clock believes (2100).
const UNSET_MAX: u64 = 4_102_444_800_000_000;

/// When a message was said, in microseconds since 1970 or more, and where: a greater one is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(super) number: u64,
    pub(super) hub: u64,
}

/// The clock of a hub.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Another one whenever the hub is started: it remembers no version then.
    hub: Cell<u64>,
    /// The one before, if the clock of the box was set back since.
    former: Cell<u64>,
    last: Cell<u64>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let hub = drawn_hub();
        Self { hub: Cell::new(hub), former: Cell::new(hub), last: Cell::new(0) }
    }

    /// The version of a message that is said here now, at a time by the clock of this box.
    pub(super) fn next(&self, now: u64) -> Version {
        // A clock that goes back, or that begins in 1970, counts on from what was heard.
        let number = now.max(self.believed(now).saturating_add(1));
        self.last.set(number);
        Version { number, hub: self.hub.get() }
    }

    /// Goes on behind a version that was heard, and is believed.
    pub(super) fn follow(&self, version: Version, now: u64) {
        self.last.set(self.believed(now).max(version.number));
    }

    /// The last number. If the clock was set back since, nobody would believe what counts on from there; and
    /// who believed it at that time takes nothing older of a hub of this name: so it has another.
    fn believed(&self, now: u64) -> u64 {
        let last = self.last.get();
        let heard = Version { number: last.saturating_sub(COUNTED_MAX), hub: 0 };
        if believes(heard, now) {
            return last;
        }
        self.last.set(0);
        self.former.set(self.hub.replace(drawn_hub()));
        0
    }

    /// Whether a version is of this hub.
    pub(super) fn is_own(&self, version: Version) -> bool {
        [&self.hub, &self.former].iter().any(|own| own.get() == version.hub)
    }
}

fn drawn_hub() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Whether a version may have been made by now, at a time by the clock of this box.
pub(super) fn believes(version: Version, now: u64) -> bool {
    version.number <= if now < SET { UNSET_MAX } else { now.saturating_add(AHEAD_MAX) }
}

impl Version {
    /// A message with its version in front.
    pub(super) fn before(self, message: Message<'_>) -> MessageBuf {
        let version = format!("{:016x}{:016x}", self.number, self.hub);
        match message.payload() {
            Payload::Text(text) => (version + text).into(),
            Payload::Binary(bytes) => [version.as_bytes(), bytes].concat().into(),
        }
    }

    /// The version of a message on a link, and the message.
    pub(super) fn split(message: Message<'_>) -> Option<(Self, MessageBuf)> {
        let (version, _) = message.bytes().split_at_checked(VERSION_BYTES)?;
        let version = std::str::from_utf8(version).ok()?;
        let is_hexadecimal = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if !version.bytes().all(is_hexadecimal) {
            return None; // a sign, which parsing would take
        }
        let (number, hub) = version.split_at_checked(VERSION_BYTES / 2)?;
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        let version = Self { number: half(number)?, hub: half(hub)? };
        let rest = match message.payload() {
            Payload::Text(text) => text.get(VERSION_BYTES..)?.into(),
            Payload::Binary(bytes) => bytes.get(VERSION_BYTES..)?.into(),
        };
        Some((version, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_was_written_and_nothing_else_is_one() {
        let version = Version { number: 0x1234, hub: u64::MAX };
        for message in [MessageBuf::from("h\u{e9}llo"), MessageBuf::from(""), vec![0, 255].into()] {
            let stamped = version.before(message.as_message());
            assert_eq!(Version::split(stamped.as_message()), Some((version, message)));
        }
        let zeros = "0".repeat(31);
        for wrong in [
            "",
            "hello",
            &zeros,
            &format!("+{zeros}"),
            &format!("{zeros}F"),
            &format!("{zeros}\u{e9}"),
        ] {
            assert_eq!(Version::split(wrong.into()), None, "{wrong:?}");
        }
        let largest = "f".repeat(32);
        let version = Version { number: u64::MAX, hub: u64::MAX };
        assert_eq!(Version::split(largest.as_str().into()), Some((version, "".into())));
    }

    #[test]
    fn the_future_is_believed_for_an_hour_and_by_a_clock_that_was_never_set() {
        let at = |number| Version { number, hub: 7 };
        for now in [SET, 2 * SET] {
            assert!(believes(at(now + AHEAD_MAX), now) && believes(at(0), now));
            assert!(!believes(at(now + AHEAD_MAX + 1), now));
        }
        assert!(believes(at(SET), 0) && believes(at(UNSET_MAX), 0));
        assert!(!believes(at(u64::MAX), 0) && believes(at(u64::MAX), u64::MAX));
    }

    #[test]
    fn a_clock_counts_on_from_what_it_heard_and_never_back() {
        let (clock, now) = (Clock::new(), 2 * SET);
        let first = clock.next(now);
        let ahead = Version { number: now + AHEAD_MAX, hub: 7 };
        clock.follow(ahead, now);
        let next = clock.next(now);
        assert_eq!(next, Version { number: ahead.number + 1, ..first });
        clock.follow(first, now);
        assert!(clock.next(now + 1) > next);
        assert!(clock.next(now - AHEAD_MAX / 2).number < now, "nobody would believe it now");
        assert_ne!(clock.next(now).hub, Clock::new().next(now).hub);
    }

    /// A box whose clock was wrong, or was never set, is one among others as soon as it is right.
    #[test]
    fn a_clock_that_was_set_back_begins_anew_under_another_name() {
        for (before, heard) in [(2 * SET + 2 * AHEAD_MAX, 0), (0, UNSET_MAX)] {
            let clock = Clock::new();
            let wrong = clock.next(before);
            clock.follow(Version { number: heard, hub: 7 }, before);
            let last = clock.next(before);
            assert!(wrong < last && !believes(last, 2 * SET));
            let right = clock.next(2 * SET);
            assert!(right.number == 2 * SET && right.hub != wrong.hub);
            assert_eq!(clock.next(2 * SET), Version { number: 2 * SET + 1, ..right });
            assert!([wrong, last, right].iter().all(|version| clock.is_own(*version)));
            assert!(!clock.is_own(Version { number: 2 * SET, hub: 7 }));
        }
    }
}

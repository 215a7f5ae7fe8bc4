//! The numbers of messages: those of this link's own, and what those of others say of what never came.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The number of a message: of a sequence that began with its epoch, which no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    epoch: u64,
    count: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.count)
    }
}

impl Number {
    /// A number as it was written; `None` for what a foreign publisher may have in that place.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (epoch, count) = text.as_bytes().split_at_checked(16)?;
        let [b'-', count @ ..] = count else { return None };
        let mut number = Self { epoch: 0, count: 0 };
        for &digit in epoch {
            number.epoch = number.epoch << 4 | u64::from(char::from(digit).to_digit(16)?);
        }
        for &digit in count {
            let digit = char::from(digit).to_digit(10)?;
            number.count = number.count.checked_mul(10)?.checked_add(digit.into())?;
        }
        (!count.is_empty()).then_some(number)
    }
}

/// The numbers that this link gives to what it sends of one flow.
#[derive(Debug)]
pub(crate) struct OwnNumbers(Number);

impl OwnNumbers {
    pub(crate) fn new() -> Self {
        // The standard library's own randomness: an epoch is no secret.
        Self(Number { epoch: RandomState::new().build_hasher().finish(), count: 0 })
    }

    /// So many messages are not sent: whoever gets the next one sees it.
    pub(crate) fn pass(&mut self, count: u64) {
        self.0.count = self.0.count.saturating_add(count);
    }

    /// Whether it is one of these: what this link has sent comes back.
    pub(crate) fn has(&self, number: Number) -> bool {
        self.0.epoch == number.epoch
    }

    /// The number of the next message.
    pub(crate) fn take(&mut self) -> Number {
        self.pass(1);
        self.0
    }
}

/// What is known of the publishers of one flow on other boxes.
#[derive(Debug, Default)]
pub(crate) struct OtherNumbers {
    by_epoch: BTreeMap<u64, Publisher>,
    /// Numbers, with their epochs, of values that came since the broker had kept them, beyond what the
    /// publisher is known up to: with each connection they come again.
    kept: BTreeSet<(u64, u64)>,
    /// Counts what was heard, to know who was not heard for longest.
    clock: u64,
}

#[derive(Debug, Default)]
struct Publisher {
    /// Up to which number everything has come, or is counted as missed; `None` before the first.
    up_to: Option<u64>,
    /// Values beyond that came since the broker had kept them.
    kept: u64,
    heard: u64,
}

/// With its place in the map.
const PUBLISHER_BYTES: usize = 2 * (size_of::<u64>() + size_of::<Publisher>());

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new, and so many before it never came.
    Take { missed: u64 },
    /// It was there before.
    Drop,
}

/// More kept values of one flow are not remembered: they are taken again when they come again.
const KEPT_MAX: usize = 16 << 10;
/// Of one, with its place in the set.
const KEPT_BYTES: usize = 2 * size_of::<(u64, u64)>();

/// More publishers of one flow are not remembered: who comes back after so many others has a new epoch.
const PUBLISHERS_MAX: usize = 256;

impl OtherNumbers {
    /// What it keeps, about: a map's nodes are between half full and full.
    pub(crate) fn bytes(&self) -> usize {
        self.by_epoch.len() * PUBLISHER_BYTES + self.kept.len() * KEPT_BYTES
    }

    /// A message with that number has come; `retained` says that the broker had kept it.
    pub(crate) fn hear(&mut self, number: Number, retained: bool) -> Verdict {
        self.clock += 1;
        self.make_room(number.epoch);
        let publisher = self.by_epoch.entry(number.epoch).or_default();
        publisher.heard = self.clock;
        match publisher.up_to {
            Some(up_to) if number.count <= up_to => Verdict::Drop,
            _ if self.kept.contains(&(number.epoch, number.count)) => Verdict::Drop,
            // Values that were kept come in any order, and between them lie those that newer ones replaced.
            _ if retained => {
                publisher.kept += 1;
                if self.kept.len() < KEPT_MAX {
                    self.kept.insert((number.epoch, number.count));
                }
                Verdict::Take { missed: 0 }
            }
            known => {
                let kept = std::mem::take(&mut publisher.kept);
                publisher.up_to = Some(number.count);
                if kept > 0 {
                    self.forget_kept(number.epoch);
                }
                let between = known.map_or(0, |up_to| number.count - up_to - 1);
                Verdict::Take { missed: between.saturating_sub(kept) }
            }
        }
    }

    fn make_room(&mut self, epoch: u64) {
        if self.by_epoch.len() < PUBLISHERS_MAX || self.by_epoch.contains_key(&epoch) {
            return;
        }
        let oldest = self.by_epoch.iter().min_by_key(|(_, it)| it.heard).map(|(epoch, _)| *epoch);
        if let Some(epoch) = oldest {
            self.by_epoch.remove(&epoch);
            self.forget_kept(epoch);
        }
    }

    fn forget_kept(&mut self, epoch: u64) {
        let of_epoch = (epoch, 0)..=(epoch, u64::MAX);
        while let Some(kept) = self.kept.range(of_epoch.clone()).next().copied() {
            self.kept.remove(&kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(epoch: u64, count: u64) -> Number {
        Number { epoch, count }
    }

    fn take(missed: u64) -> Verdict {
        Verdict::Take { missed }
    }

    #[test]
    fn gaps_are_counted_once_and_a_new_epoch_is_none() {
        let mut others = OtherNumbers::default();
        assert_eq!(others.hear(number(1, 70), false), take(0), "who was there before is no gap");
        assert_eq!(others.hear(number(1, 71), false), take(0));
        assert_eq!(others.hear(number(1, 71), false), Verdict::Drop, "sent twice");
        assert_eq!(others.hear(number(1, 75), false), take(3));
        assert_eq!(others.hear(number(1, 72), false), Verdict::Drop, "it is counted as missed");
        assert_eq!(others.hear(number(2, 1), false), take(0));
        assert_eq!(others.hear(number(1, 76), false), take(0));
    }

    #[test]
    fn values_that_come_again_are_dropped_and_those_that_were_replaced_are_missed() {
        let mut others = OtherNumbers::default();
        for count in [9, 5, 7] {
            assert_eq!(others.hear(number(1, count), true), take(0), "at the first join");
        }
        assert_eq!(others.hear(number(1, 10), false), take(0));
        // The link is down while 11 to 16 are published; 13 and 16 are what was kept.
        assert_eq!(others.hear(number(1, 9), true), Verdict::Drop);
        assert_eq!(others.hear(number(1, 16), true), take(0));
        assert_eq!(others.hear(number(1, 13), true), take(0));
        assert_eq!(others.hear(number(1, 16), true), Verdict::Drop, "with the next connection");
        assert_eq!(others.hear(number(1, 17), false), take(4));
    }

    #[test]
    fn kept_values_without_end_take_no_memory_without_end() {
        let (mut others, most) = (OtherNumbers::default(), KEPT_MAX as u64);
        for count in (1..=2 * most).chain(1..=most) {
            others.hear(number(1, count), true);
        }
        assert!(others.bytes() <= PUBLISHER_BYTES + KEPT_MAX * KEPT_BYTES);
        assert_eq!(others.hear(number(1, 1), true), Verdict::Drop);
        assert_eq!(others.hear(number(1, 2 * most + 1), false), take(0));
        assert_eq!(others.bytes(), PUBLISHER_BYTES);
        for epoch in 2..2_000 {
            others.hear(number(epoch, 5), true);
        }
        assert_eq!(others.bytes(), PUBLISHERS_MAX * (PUBLISHER_BYTES + KEPT_BYTES));
    }

    #[test]
    fn epochs_without_end_take_no_memory_without_end() {
        let mut others = OtherNumbers::default();
        for epoch in 0..10_000 {
            others.hear(number(epoch, 1), false);
            assert_eq!(others.hear(number(0, epoch + 2), false), take(0), "heard lately");
        }
        assert!(others.by_epoch.len() <= PUBLISHERS_MAX);
    }

    #[test]
    fn what_others_write_in_its_place_is_no_number() {
        let mut own = OwnNumbers::new();
        own.pass(2);
        let third = own.take();
        assert_eq!((Number::parse(&third.to_string()), third.count), (Some(third), 3));
        for text in
            ["", "-", "1-1", "+00000000000000a-1", "000000000000000a-+1", "000000000000000a-"]
        {
            assert_eq!(Number::parse(text), None, "{text:?}");
        }
        assert_eq!(Number::parse("000000000000000a-99999999999999999999"), None);
    }

    proptest! {
        /// Whatever is lost, repeated or restarted on the way: taken and missed are together what was
        /// published between the first and the last that came.
        #[test]
        fn what_was_taken_and_missed_is_what_was_published(
            fates in proptest::collection::vec(0u8..4, 1..200),
        ) {
            let (mut others, mut counted, mut first, mut last) = (OtherNumbers::default(), 0, None, 0);
            for (count, fate) in (1u64..).zip(fates) {
                let copies = match fate { 0 => 0, 1 => 2, _ => 1 };
                for _ in 0..copies {
                    if let Verdict::Take { missed } = others.hear(number(7, count), false) {
                        counted += 1 + missed;
                    }
                    first.get_or_insert(count);
                    last = count;
                }
            }
            prop_assert_eq!(counted, first.map_or(0, |first| last - first + 1));
        }
    }
}

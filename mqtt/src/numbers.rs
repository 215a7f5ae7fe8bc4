//! The numbers of messages: those of this link's own, and what those of others say of what never came.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::keys::{KEY_BYTES, Keys, Known, place_of};

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
    /// By their epochs, in that order; a map of its own would make the hub larger by more than 256 of them are.
    by_epoch: Vec<(u64, Publisher)>,
    /// Of flows of newest values.
    keys: Keys,
    /// Counts what was heard, to know who was not heard for longest.
    clock: u64,
}

#[derive(Debug, Default)]
struct Publisher {
    /// The first number that came but was not kept, and the highest: what never came between them is counted
    /// as missed.
    span: Option<(u64, u64)>,
    /// What came and is not to be counted as missed next: kept values beyond the highest, and those that were
    /// counted before they came.
    credit: u64,
    /// The highest number of a key that is remembered no longer.
    forgotten: u64,
    heard: u64,
}

/// With its place in a list that is half full.
const PUBLISHER_BYTES: usize = 2 * (size_of::<u64>() + size_of::<Publisher>());

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new, and so many before it never came.
    Take { missed: u64 },
    /// It was there before.
    Drop,
}

/// More publishers of one flow are not remembered: who comes back after so many others has a new epoch.
const PUBLISHERS_MAX: usize = 256;

impl OtherNumbers {
    /// What it keeps, about.
    pub(crate) fn bytes(&self) -> usize {
        self.by_epoch.len() * PUBLISHER_BYTES + self.keys.len() * KEY_BYTES
    }

    /// A message with that number has come, in a flow of newest values of that key; `retained` says that the
    /// broker had kept it.
    pub(crate) fn hear(&mut self, number: Number, key: Option<&str>, retained: bool) -> Verdict {
        self.clock += 1;
        let Number { epoch, count } = number;
        let place = self.place_for(epoch);
        let publisher = &mut self.by_epoch[place].1;
        publisher.heard = self.clock;
        let up_to = publisher.span.map(|(_, up_to)| up_to);
        let is_behind = up_to.is_some_and(|up_to| count <= up_to);
        let name = key.map(|key| self.keys.name(key));
        let is_old = match name.map(|name| self.keys.get(name).and_then(|known| known.heard)) {
            // All in one topic, and in order.
            None => is_behind,
            Some(Some(last)) if last.epoch == epoch => count <= last.count,
            // Another box spoke of it last: in its topic this comes behind that.
            Some(Some(_)) => false,
            // A broker may bring it behind later ones of other keys. Where it may be one that is forgotten,
            // it is not taken twice.
            Some(None) => is_behind && count <= publisher.forgotten,
        };
        if is_old {
            return Verdict::Drop;
        }
        let missed = publisher.come(count, name.is_some() && (retained || is_behind));
        if let Some(name) = name {
            self.at(name).heard = Some(number);
        }
        Verdict::Take { missed }
    }

    /// Where the publisher of an epoch stands, from now on if it is new.
    fn place_for(&mut self, epoch: u64) -> usize {
        if let Ok(place) = place_of(&self.by_epoch, &epoch) {
            return place;
        }
        if self.by_epoch.len() >= PUBLISHERS_MAX {
            let all = self.by_epoch.iter().enumerate();
            let oldest = all.min_by_key(|(_, (_, it))| it.heard).map(|(place, _)| place);
            oldest.map(|place| self.by_epoch.remove(place));
        }
        let place = place_of(&self.by_epoch, &epoch).unwrap_or_else(|place| place);
        self.by_epoch.insert(place, (epoch, Publisher::default()));
        place
    }

    fn at(&mut self, name: u64) -> &mut Known {
        let Self { by_epoch, keys, .. } = self;
        keys.at(name, |gone| {
            let Some(Number { epoch, count }) = gone.heard else { return };
            if let Ok(place) = place_of(by_epoch, &epoch) {
                let publisher = &mut by_epoch[place].1;
                publisher.forgotten = publisher.forgotten.max(count);
            }
        })
    }
}

/// Whose the newest value of a key is.
impl OtherNumbers {
    /// This link has said something of a key, or what it said stands again: the name by which to speak of it.
    pub(crate) fn note_sent(&mut self, key: &str, number: Number, connection: u64) -> u64 {
        let name = self.keys.name(key);
        let known = self.at(name);
        (known.sent, known.connection) = (number.count, connection);
        name
    }

    /// What was sent of the key of that name was lost.
    pub(crate) fn note_lost(&mut self, name: u64) {
        if let Some(known) = self.keys.get_mut(name) {
            known.connection = 0;
        }
    }

    /// The broker brings what this link has said itself: how that is to what it has said of the key last, as
    /// long as it stands. If it is that, the broker of that connection has it.
    pub(crate) fn hear_own(&mut self, key: &str, number: Number, connection: u64) -> Ordering {
        let mut none = Known::default();
        let known = self.keys.get_mut(self.keys.name(key)).unwrap_or(&mut none);
        let order = number.count.cmp(&known.sent);
        if order.is_eq() {
            known.connection = connection;
        }
        order
    }

    /// The newest value of a key is none of this link's own, or one that it does not send.
    pub(crate) fn disown(&mut self, key: &str) {
        if let Some(known) = self.keys.get_mut(self.keys.name(key)) {
            (known.sent, known.connection) = (0, 0);
        }
    }

    /// The broker has brought a value of that key: it is there, unless this link has sent a newer one.
    pub(crate) fn note_shown(&mut self, key: &str, connection: u64) {
        let known = self.at(self.keys.name(key));
        if known.sent == 0 {
            known.connection = connection;
        }
    }

    /// The newest value of a key was taken back: the same is to be taken anew.
    pub(crate) fn forget(&mut self, key: &str) {
        if let Some(known) = self.keys.get_mut(self.keys.name(key)) {
            *known = Known::default();
        }
    }

    /// Whether the newest value is another's, and has not come on that connection.
    pub(crate) fn is_unseen(&self, key: &str, connection: u64) -> bool {
        let known = self.keys.get(self.keys.name(key)).filter(|known| known.sent == 0);
        known.is_some_and(|known| known.connection > 0 && known.connection != connection)
    }

    /// Whether the newest value is this link's own, and the broker of that connection may not have it.
    pub(crate) fn is_unknown(&self, key: &str, connection: u64) -> bool {
        let known = self.keys.get(self.keys.name(key));
        known.is_some_and(|known| known.sent > 0 && known.connection != connection)
    }
}

impl Publisher {
    /// What is taken has that number: how many before it never came.
    fn come(&mut self, count: u64, out_of_order: bool) -> u64 {
        match &mut self.span {
            // Kept values come in any order, and between them lie those that newer ones replaced; what comes
            // late was counted as missed. What is before the first was not.
            span if out_of_order => {
                self.credit += u64::from(span.is_some_and(|(first, _)| count > first));
                0
            }
            None => {
                self.span = Some((count, count));
                0
            }
            Some((_, up_to)) => {
                let between = count - *up_to - 1;
                *up_to = count;
                let missed = between.saturating_sub(self.credit);
                self.credit -= between - missed;
                missed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::keys::KEYS_MAX;
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
        assert_eq!(
            others.hear(number(1, 70), None, false),
            take(0),
            "who was there before is no gap"
        );
        assert_eq!(others.hear(number(1, 71), None, false), take(0));
        assert_eq!(others.hear(number(1, 71), None, false), Verdict::Drop, "sent twice");
        assert_eq!(others.hear(number(1, 75), None, false), take(3));
        assert_eq!(
            others.hear(number(1, 72), None, false),
            Verdict::Drop,
            "it is counted as missed"
        );
        assert_eq!(others.hear(number(2, 1), None, false), take(0));
        assert_eq!(others.hear(number(1, 76), None, false), take(0));
    }

    #[test]
    fn values_that_come_again_are_dropped_and_those_that_were_replaced_are_missed() {
        let mut others = OtherNumbers::default();
        for (count, key) in [(9, "a"), (5, "b"), (7, "c")] {
            assert_eq!(
                others.hear(number(1, count), Some(key), true),
                take(0),
                "at the first join"
            );
        }
        assert_eq!(others.hear(number(1, 10), Some("b"), false), take(0));
        // The link is down while 11 to 16 are published; 13 and 16 are what was kept.
        assert_eq!(others.hear(number(1, 9), Some("a"), true), Verdict::Drop);
        assert_eq!(others.hear(number(1, 16), Some("c"), true), take(0));
        assert_eq!(others.hear(number(1, 13), Some("b"), true), take(0));
        assert_eq!(
            others.hear(number(1, 16), Some("c"), true),
            Verdict::Drop,
            "with the next connection"
        );
        assert_eq!(others.hear(number(1, 17), Some("a"), false), take(4));
    }

    #[test]
    fn what_comes_behind_later_numbers_of_other_keys_is_taken_and_taken_off_what_is_missed_next() {
        let mut others = OtherNumbers::default();
        assert_eq!(others.hear(number(1, 10), Some("a"), false), take(0));
        assert_eq!(
            others.hear(number(1, 4), Some("b"), true),
            take(0),
            "of before the first: no credit"
        );
        assert_eq!(others.hear(number(1, 14), Some("a"), false), take(3));
        assert_eq!(others.hear(number(1, 12), Some("c"), false), take(0));
        assert_eq!(others.hear(number(1, 12), Some("c"), false), Verdict::Drop);
        assert_eq!(others.hear(number(1, 13), Some("a"), false), Verdict::Drop, "older than 14");
        assert_eq!(
            others.hear(number(1, 17), Some("a"), false),
            take(1),
            "15 and 16, but 12 has come"
        );
        assert_eq!(others.hear(number(1, 19), Some("a"), false), take(1));
        // Behind what another box has said of the key.
        assert_eq!(others.hear(number(2, 1), Some("c"), false), take(0));
        assert_eq!(others.hear(number(1, 18), Some("c"), false), take(0));
    }

    #[test]
    fn whose_a_value_is_and_who_knows_it() {
        let (mut others, own) = (OtherNumbers::default(), number(9, 3));
        assert!(!others.is_unknown("a", 1));
        let name = others.note_sent("a", own, 1);
        assert!(!others.is_unknown("a", 1) && others.is_unknown("a", 2));
        let older = others.hear_own("a", number(9, 2), 2);
        assert!(older.is_lt() && others.is_unknown("a", 2));
        assert!(others.hear_own("a", own, 2).is_eq() && !others.is_unknown("a", 2));
        others.note_lost(name);
        assert!(others.is_unknown("a", 2));
        others.disown("a");
        assert!(!others.is_unknown("a", 3));
        assert!(others.hear_own("a", own, 3).is_gt(), "another's stands");
        assert!(others.hear_own("b", own, 3).is_gt() && !others.is_unknown("b", 4));
    }

    #[test]
    fn keys_without_end_take_no_memory_without_end_and_none_is_taken_twice() {
        let (mut others, most) = (OtherNumbers::default(), 2 * KEYS_MAX as u64);
        let mut hear = |count: u64, retained| {
            let verdict = others.hear(number(1, count), Some(&count.to_string()), retained);
            assert!(others.bytes() <= PUBLISHER_BYTES + KEYS_MAX * KEY_BYTES);
            verdict
        };
        for count in 1..=most {
            assert_eq!(hear(count, true), take(0));
        }
        assert_eq!(hear(most + 1, false), take(0));
        // Those that are forgotten and those that are not.
        for count in 1..=most {
            assert_eq!(hear(count, false), Verdict::Drop, "{count}");
        }
    }

    #[test]
    fn epochs_without_end_take_no_memory_without_end() {
        let mut others = OtherNumbers::default();
        for epoch in 0..10_000 {
            others.hear(number(epoch, 1), None, false);
            assert_eq!(others.hear(number(0, epoch + 2), None, false), take(0), "heard lately");
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
                    if let Verdict::Take { missed } = others.hear(number(7, count), None, false) {
                        counted += 1 + missed;
                    }
                    first.get_or_insert(count);
                    last = count;
                }
            }
            prop_assert_eq!(counted, first.map_or(0, |first| last - first + 1));
        }

        /// The same of newest values that come late behind others: once what was counted before it came is
        /// made up for by what is missed later.
        #[test]
        fn a_value_that_comes_late_is_counted_once(
            fates in proptest::collection::vec((0u8..4, 0u64..6), 1..200),
        ) {
            let mut others = OtherNumbers::default();
            let keys = 5;
            // Each with the place where it comes: later ones of its own key come behind it.
            let mut coming: Vec<(u64, u64)> = Vec::new();
            let mut behind = [0; 5];
            for (count, (fate, late)) in (2u64..).zip(fates) {
                let before = &mut behind[usize::try_from(count % keys).unwrap()];
                *before = (count + late).max(*before);
                let copies = match fate { 0 => 0, 1 => 2, _ => 1 };
                coming.extend((0..copies).map(|_| (*before, count)));
            }
            coming.sort_by_key(|(at, _)| *at);
            let last = 1_000;
            let (mut taken, mut missed, mut distinct) = (0, 0, BTreeMap::new());
            let all = coming.iter().map(|(_, count)| *count);
            for count in [1].into_iter().chain(all).chain([last]) {
                let key = (count % keys).to_string();
                distinct.insert(count, ());
                if let Verdict::Take { missed: more } = others.hear(number(7, count), Some(&key), false) {
                    (taken, missed) = (taken + 1, missed + more);
                }
            }
            prop_assert_eq!(taken, distinct.len() as u64, "whatever comes is taken, and once");
            prop_assert_eq!(taken + missed, last);
        }
    }
}

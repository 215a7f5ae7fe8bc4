//! The cursors of a log's subscribers: how many stand where.

use std::collections::BTreeMap;

/// The cursors of all subscribers, as numbers of the entries that they take next. Nearly all stand
/// at the end or take the newest: these are two counters, and only the others are kept in order.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    /// The number that the next entry gets.
    end: u64,
    /// At the end: they have taken everything.
    at_end: u32,
    /// They have everything but the newest.
    at_newest: u32,
    behind: BTreeMap<u64, u32>,
    count: u32,
}

impl Cursors {
    /// The number that the next entry gets.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// An entry is added: its number.
    pub(crate) fn push(&mut self) -> u64 {
        let number = self.end;
        if self.at_newest > 0 {
            // Whoever stood at the last one stands behind it now.
            *self.behind.entry(number.saturating_sub(1)).or_default() += self.at_newest;
        }
        self.at_newest = std::mem::take(&mut self.at_end);
        self.end += 1;
        number
    }

    pub(crate) fn join(&mut self, cursor: u64) {
        self.count += 1;
        self.add(cursor);
    }

    pub(crate) fn leave(&mut self, cursor: u64) {
        self.count = self.count.saturating_sub(1);
        self.remove(cursor);
    }

    /// One subscriber goes on. True if nobody stands any more where it stood.
    #[inline(always)] // a call would be 4 % of a delivery
    pub(crate) fn advance(&mut self, from: u64, to: u64) -> bool {
        if to == self.end && from + 1 == to {
            self.at_newest = self.at_newest.saturating_sub(1);
            self.at_end += 1;
            return self.at_newest == 0;
        }
        self.advance_behind(from, to)
    }

    #[inline(never)]
    fn advance_behind(&mut self, from: u64, to: u64) -> bool {
        self.add(to);
        self.remove(from)
    }

    /// Where the slowest stands; at the end if there is nobody.
    pub(crate) fn slowest(&self) -> u64 {
        match self.behind.first_key_value() {
            Some((cursor, _)) => *cursor,
            None if self.at_newest > 0 => self.end.saturating_sub(1),
            None => self.end,
        }
    }

    /// The same besides one that stands at `one`.
    pub(crate) fn slowest_besides(&self, one: u64) -> u64 {
        let is_another = |(cursor, count): &(&u64, &u32)| **cursor != one || **count > 1;
        let newest = self.end.saturating_sub(1);
        match self.behind.iter().find(is_another) {
            Some((cursor, _)) => *cursor,
            None if self.at_newest > u32::from(one == newest) => newest,
            None => self.end,
        }
    }

    fn add(&mut self, cursor: u64) {
        match self.end.saturating_sub(cursor) {
            0 => self.at_end += 1,
            1 => self.at_newest += 1,
            _ => *self.behind.entry(cursor).or_default() += 1,
        }
    }

    /// True if nobody stands there any more.
    fn remove(&mut self, cursor: u64) -> bool {
        let counter = match self.end.saturating_sub(cursor) {
            0 => &mut self.at_end,
            1 => &mut self.at_newest,
            _ => match self.behind.get_mut(&cursor) {
                Some(counter) => counter,
                None => return false,
            },
        };
        *counter = counter.saturating_sub(1);
        let nobody = *counter == 0;
        if nobody {
            self.behind.remove(&cursor);
        }
        nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list of all cursors.
        #[test]
        fn the_slowest_is_the_lowest_of_all(
            steps in proptest::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut cursors = Cursors::default();
            let mut all: Vec<u64> = Vec::new();
            for (step, choice) in steps {
                match step {
                    0 => prop_assert_eq!(cursors.push() + 1, cursors.end()),
                    1 => {
                        let cursor = cursors.end().saturating_sub(choice.index(5) as u64);
                        cursors.join(cursor);
                        all.push(cursor);
                    }
                    2 if !all.is_empty() => cursors.leave(all.swap_remove(choice.index(all.len()))),
                    3 if !all.is_empty() => {
                        let one = choice.index(all.len());
                        let (from, to) = (all[one], (all[one] + 1 + choice.index(2) as u64));
                        if to <= cursors.end() {
                            all[one] = to;
                            prop_assert_eq!(cursors.advance(from, to), !all.contains(&from));
                        }
                    }
                    _ => {}
                }
                let lowest = all.iter().copied().min().unwrap_or_else(|| cursors.end());
                prop_assert_eq!((cursors.slowest(), cursors.count() as usize), (lowest, all.len()));
            }
        }
    }
}

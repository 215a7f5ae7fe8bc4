//! The log of a flow: numbered entries, and how far its subscribers have come.

use std::collections::{BTreeMap, VecDeque};

use crate::structures::cursors::Cursors;
use crate::structures::footprint::footprint;

/// Entries in the order they were added. A subscriber is nothing but a cursor: the number of the
/// entry it takes next, which only grows. Numbers are not used twice.
#[derive(Debug)]
pub(crate) struct FlowLog<E> {
    entries: Entries<E>,
    cursors: Cursors,
    /// Entries before this one were or are being offered to everybody.
    announced: u64,
    /// Entries before this one have been offered to whoever could take them.
    offered: u64,
    /// Entries before this one are being offered.
    offering: u64,
    /// How many of the newest stay for subscribers that come later.
    replay: usize,
    bytes: usize,
    /// Entries before this one may have been dropped, with nothing in their place.
    dropped: u64,
}

#[derive(Debug)]
struct Logged<E> {
    bytes: usize,
    value: E,
}

#[derive(Debug)]
enum Entries<E> {
    /// Without gaps, up to the end.
    Row(VecDeque<Logged<E>>),
    /// From which any may be taken out.
    Sparse(BTreeMap<u64, Box<Logged<E>>>),
}

/// Places that a row keeps for new entries whatever it holds.
const SPARE_PLACES: usize = 16;

impl<E> FlowLog<E> {
    /// What an entry of a row takes beside what its value refers to; a row has up to a quarter more
    /// places than entries.
    pub(crate) const ROW_ENTRY_BYTES: usize = size_of::<Logged<E>>() / 4 * 5;
    /// The same of a log from which entries are taken out: nodes are half full at least, and hold no
    /// more than where the entries are.
    pub(crate) const SPARSE_ENTRY_BYTES: usize =
        footprint(size_of::<Logged<E>>()) + 2 * size_of::<(u64, Box<Logged<E>>)>();

    /// A log that drops its oldest entries alone.
    pub(crate) fn new(replay: usize) -> Self {
        Self::of(Entries::Row(VecDeque::new()), replay)
    }

    /// A log from which any entry may be [`removed`](Self::remove).
    pub(crate) fn sparse(replay: usize) -> Self {
        Self::of(Entries::Sparse(BTreeMap::new()), replay)
    }

    fn of(entries: Entries<E>, replay: usize) -> Self {
        let cursors = Cursors::default();
        let (announced, offered, offering) = (0, 0, 0);
        Self { entries, cursors, announced, offered, offering, replay, bytes: 0, dropped: 0 }
    }

    /// Adds an entry that counts as `bytes`: its number.
    pub(crate) fn push(&mut self, value: E, bytes: usize) -> u64 {
        // How many await an entry is not kept with it: the cursors are counted, so that to join, to leave and
        // to drop cost the same whatever the log holds.
        let number = self.cursors.push();
        self.bytes += bytes;
        let logged = Logged { bytes, value };
        match &mut self.entries {
            Entries::Row(row) => {
                if row.len() == row.capacity() {
                    // Of what is paid for by its entries not much may be empty.
                    row.reserve_exact(SPARE_PLACES.max(row.len() / 4));
                }
                row.push_back(logged);
            }
            Entries::Sparse(map) => {
                map.insert(number, Box::new(logged));
            }
        }
        self.release();
        number
    }

    /// The entry that a cursor takes next, with its number.
    #[inline]
    pub(crate) fn at(&self, cursor: u64) -> Option<(u64, &E)> {
        match &self.entries {
            Entries::Row(row) => {
                let first = self.first_of(row);
                let number = cursor.max(first);
                let position = usize::try_from(number - first).ok()?;
                row.get(position).map(|entry| (number, &entry.value))
            }
            Entries::Sparse(map) => {
                map.range(cursor..).next().map(|(number, entry)| (*number, &entry.value))
            }
        }
    }

    /// The entry that a cursor takes next, if it is the newest too: then its number is the cursor.
    #[inline]
    pub(crate) fn only_from(&self, cursor: u64) -> Option<&E> {
        // Asked first for the newest alone: nearly every delivery is of that.
        if cursor.wrapping_add(1) != self.cursors.end() {
            return None;
        }
        let newest = match &self.entries {
            Entries::Row(row) => row.back(),
            Entries::Sparse(map) => map.get(&cursor).map(|entry| &**entry),
        };
        newest.map(|entry| &entry.value)
    }

    /// Changes what the entry of that number holds beside its content: what it counts as, is told by
    /// `change`, which is told what it counts as now.
    pub(crate) fn change(&mut self, number: u64, change: impl FnOnce(&mut E, usize) -> usize) {
        let first = self.first_number();
        let entry = match &mut self.entries {
            Entries::Row(row) => {
                let position = number.checked_sub(first).and_then(|n| usize::try_from(n).ok());
                position.and_then(|position| row.get_mut(position))
            }
            Entries::Sparse(map) => map.get_mut(&number).map(|entry| &mut **entry),
        };
        if let Some(entry) = entry {
            let bytes = change(&mut entry.value, entry.bytes);
            self.bytes = self.bytes.saturating_sub(entry.bytes).saturating_add(bytes);
            entry.bytes = bytes;
        }
    }

    /// The number of the oldest entry; the next number if there is none.
    pub(crate) fn first_number(&self) -> u64 {
        match &self.entries {
            Entries::Row(row) => self.first_of(row),
            Entries::Sparse(map) => {
                map.keys().next().map_or_else(|| self.cursors.end(), |first| *first)
            }
        }
    }

    #[inline]
    fn first_of(&self, row: &VecDeque<Logged<E>>) -> u64 {
        self.cursors.end() - row.len() as u64
    }

    /// A subscriber has taken, or passes over, what is before `to`. True if that may have been awaited by
    /// nobody else: then [`release`](Self::release) is to be called.
    #[inline]
    pub(crate) fn advance(&mut self, from: u64, to: u64) -> bool {
        self.cursors.advance(from, to)
    }

    /// The first entry of the replay.
    pub(crate) fn replay_start(&self) -> u64 {
        match &self.entries {
            Entries::Row(_) => self.cursors.end() - self.len().min(self.replay) as u64,
            Entries::Sparse(_) => self.first_number(), // its replay is all that it holds
        }
    }

    /// Whether nothing is lost to who has all entries before that number and takes what is there now. In a
    /// sparse log an entry that was taken out has a newer one in its place.
    pub(crate) fn goes_on_from(&self, number: u64) -> bool {
        // The log may have more than the replay, where a slow subscriber has not taken it.
        (self.dropped..=self.cursors.end()).contains(&number)
    }

    /// How many entries that number is before the replay, where all of them were dropped.
    pub(crate) fn missed_from(&self, number: u64) -> Option<u64> {
        match &self.entries {
            Entries::Row(_) => self.replay_start().checked_sub(number),
            Entries::Sparse(_) => None, // of others there are newer ones
        }
    }

    /// A further subscriber. What it is to be offered was not offered to everybody now, however long
    /// others had it.
    pub(crate) fn join(&mut self, cursor: u64) -> u64 {
        self.cursors.join(cursor);
        // Who joins within a round does not lag by what it was not offered.
        self.offered = self.offered.min(cursor);
        self.offering = self.offering.min(cursor);
        cursor
    }

    /// A subscriber leaves at its cursor.
    pub(crate) fn leave(&mut self, cursor: u64) {
        self.cursors.leave(cursor);
        self.release();
    }

    /// Gives up what everybody has taken and the replay does not hold.
    pub(crate) fn release(&mut self) {
        // Each entry goes once, so that this costs what was pushed.
        while self.len() > self.replay && !self.oldest_is_awaited() {
            self.drop_oldest();
        }
    }

    /// Drops the oldest entry, whoever awaits it.
    pub(crate) fn drop_oldest(&mut self) -> Option<E> {
        let first = self.first_number();
        let dropped = match &mut self.entries {
            Entries::Row(row) => {
                let dropped = row.pop_front();
                // Given back in large steps: a log that breathes by a few entries does not reallocate.
                if row.capacity() > 4 * SPARE_PLACES && row.len() < row.capacity() / 2 {
                    row.shrink_to(row.len() + row.len() / 4);
                }
                dropped
            }
            Entries::Sparse(map) => map.pop_first().map(|(_, entry)| *entry),
        };
        if dropped.is_some() {
            self.dropped = first + 1;
        }
        self.take_out(dropped)
    }

    /// Takes one entry out of a sparse log, whoever awaits it.
    pub(crate) fn remove(&mut self, number: u64) -> Option<E> {
        let removed = match &mut self.entries {
            // A row has no gaps: its numbers follow from where it ends.
            Entries::Row(_) => None,
            Entries::Sparse(map) => map.remove(&number).map(|entry| *entry),
        };
        self.take_out(removed)
    }

    fn take_out(&mut self, entry: Option<Logged<E>>) -> Option<E> {
        let entry = entry?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry.value)
    }

    /// What is there now is about to be offered to everybody, if any of it is new: whether it is.
    pub(crate) fn begin_offering(&mut self) -> bool {
        let is_new = self.announced < self.cursors.end();
        if is_new {
            self.announced = self.cursors.end();
            self.offering = self.announced;
        }
        is_new
    }

    /// It has been: whoever has not taken one of them lags. What was added meanwhile, and who joined
    /// meanwhile, is not meant.
    pub(crate) fn end_offering(&mut self) {
        self.offered = self.offering;
    }

    /// The number up to which entries are being offered.
    pub(crate) fn offering(&self) -> u64 {
        self.offering
    }

    /// Entries that the slowest subscriber has not taken.
    pub(crate) fn pending(&self) -> usize {
        self.between(self.cursors.slowest(), self.cursors.end())
    }

    /// The same besides a subscriber that stands at `one`.
    pub(crate) fn pending_besides(&self, one: u64) -> usize {
        self.between(self.cursors.slowest_besides(one), self.cursors.end())
    }

    /// Entries that the slowest subscriber was offered and has not taken.
    pub(crate) fn lagging(&self) -> usize {
        self.between(self.cursors.slowest(), self.offered)
    }

    /// How many entries there are from that number on.
    pub(crate) fn count_from(&self, number: u64) -> usize {
        self.between(number, self.cursors.end())
    }

    /// How many entries there are from one number up to another. Not for hot paths of sparse logs.
    fn between(&self, from: u64, to: u64) -> usize {
        match &self.entries {
            Entries::Row(row) => {
                let from = from.max(self.first_of(row));
                usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
            }
            Entries::Sparse(map) if from < to => map.range(from..to).count(),
            Entries::Sparse(_) => 0,
        }
    }

    /// Whether some subscriber has not taken the entry of that number.
    pub(crate) fn is_awaited(&self, number: u64) -> bool {
        self.cursors.slowest() <= number
    }

    /// Whether there is an oldest entry that some subscriber has not taken.
    pub(crate) fn oldest_is_awaited(&self) -> bool {
        self.len() > 0 && self.is_awaited(self.first_number())
    }

    /// The number that the next entry gets.
    #[inline]
    pub(crate) fn next_number(&self) -> u64 {
        self.cursors.end()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.entries {
            Entries::Row(row) => row.len(),
            Entries::Sparse(map) => map.len(),
        }
    }

    pub(crate) fn subscribers(&self) -> u32 {
        self.cursors.count()
    }

    /// What the entries count as together.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take<E>(log: &mut FlowLog<E>, from: u64, to: u64) {
        if log.advance(from, to) {
            log.release();
        }
    }

    fn join<E>(log: &mut FlowLog<E>) -> u64 {
        log.join(log.replay_start())
    }

    #[test]
    fn who_comes_back_goes_on_where_nothing_is_lost() {
        let mut row = FlowLog::new(2);
        let mut sparse = FlowLog::sparse(2);
        for n in 0..5 {
            row.push(n, 1);
            sparse.push(n, 1);
        }
        sparse.remove(3);
        let from = |log: &FlowLog<i32>| (0..8).filter(|n| log.goes_on_from(*n)).collect::<Vec<_>>();
        // Of both the first three were dropped: what is missing beside them was taken out.
        assert_eq!((from(&row), from(&sparse)), (vec![3, 4, 5], vec![3, 4, 5]));
        let slow = row.join(4);
        assert_eq!((row.pending(), row.at(slow), row.count_from(3)), (1, Some((4, &4)), 2));
    }

    #[test]
    fn without_subscribers_only_the_replay_stays() {
        let mut log = FlowLog::new(2);
        for n in 0..5 {
            log.push(n, 10);
        }
        assert_eq!((log.len(), log.pending(), log.bytes()), (2, 0, 20));
        let cursor = join(&mut log);
        assert_eq!(log.at(cursor), Some((3, &3)));
        assert_eq!(log.pending(), 2);
    }

    #[test]
    fn who_lags_is_counted_only_once_all_were_offered() {
        let mut log = FlowLog::new(0);
        let slow = join(&mut log);
        log.push('a', 1);
        assert_eq!((log.pending(), log.lagging()), (1, 0));
        assert!(log.begin_offering());
        log.push('b', 1);
        log.end_offering();
        assert_eq!((log.pending(), log.lagging()), (2, 1));
        assert!(log.begin_offering(), "what came meanwhile is new");
        log.end_offering();
        assert!(!log.begin_offering());
        log.leave(slow);
        assert_eq!((log.pending(), log.lagging(), log.len()), (0, 0, 0));
    }

    #[test]
    fn who_joins_while_others_are_offered_something_does_not_lag_before_it_was_offered_it() {
        let mut log = FlowLog::new(3);
        let quick = join(&mut log);
        for n in 0..3 {
            log.push(n, 1);
        }
        assert!(log.begin_offering());
        let late = join(&mut log);
        take(&mut log, quick, 3);
        log.end_offering();
        assert_eq!((log.pending(), log.lagging()), (3, 0));
        assert!(!log.begin_offering(), "nothing is new: who joined is offered it alone");
        log.push(3, 1);
        assert!(log.begin_offering());
        log.end_offering();
        assert_eq!((late, log.lagging()), (0, 4), "now it was offered all of them");
    }

    #[test]
    fn a_row_that_was_long_gives_its_places_back() {
        let mut log = FlowLog::new(0);
        let cursor = join(&mut log);
        for n in 0..10_000 {
            log.push(n, 1);
        }
        take(&mut log, cursor, 10_000);
        let Entries::Row(row) = &log.entries else { panic!("a row") };
        assert!(row.is_empty() && row.capacity() <= 8 * SPARE_PLACES, "{}", row.capacity());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Join,
        Leave(usize),
        Take(usize),
        DropOldest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            2 => Just(Step::Join),
            1 => (0usize..8).prop_map(Step::Leave),
            6 => (0usize..8).prop_map(Step::Take),
            1 => Just(Step::DropOldest),
        ]
    }

    proptest! {
        /// A sparse log against a list of what is in it and of all cursors.
        #[test]
        fn any_entry_can_be_taken_out_of_a_sparse_log(
            steps in proptest::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..120),
        ) {
            let mut log = FlowLog::sparse(usize::MAX);
            let mut live: Vec<u64> = Vec::new();
            let mut cursors: Vec<u64> = Vec::new();
            for (step, choice) in steps {
                match step {
                    0 => live.push(log.push((), 1)),
                    1 => cursors.push(join(&mut log)),
                    2 if !live.is_empty() => {
                        let number = live.remove(choice.index(live.len()));
                        prop_assert!(log.remove(number).is_some() && log.remove(number).is_none());
                    }
                    3 if !cursors.is_empty() => {
                        let one = choice.index(cursors.len());
                        let cursor = &mut cursors[one];
                        let next = live.iter().copied().find(|number| *number >= *cursor);
                        prop_assert_eq!(log.at(*cursor).map(|(number, ())| number), next);
                        if let Some(number) = next {
                            take(&mut log, *cursor, number + 1);
                            *cursor = number + 1;
                        }
                    }
                    4 if !cursors.is_empty() => {
                        log.leave(cursors.swap_remove(choice.index(cursors.len())));
                    }
                    _ => {}
                }
                let slowest = cursors.iter().copied().min().unwrap_or_else(|| log.next_number());
                let pending = live.iter().filter(|number| **number >= slowest).count();
                let counted = (log.pending(), log.len(), log.bytes());
                prop_assert_eq!(counted, (pending, live.len(), live.len()));
                let newest = live.last().filter(|number| **number + 1 == log.next_number());
                let only = log.only_from(log.next_number().wrapping_sub(1));
                prop_assert_eq!(only.is_some(), newest.is_some());
            }
        }

        /// Against a model in which every subscriber has a queue of its own.
        #[test]
        fn every_subscriber_gets_what_a_queue_of_its_own_would_give(
            replay in 0usize..4,
            steps in proptest::collection::vec(step(), 0..120),
        ) {
            let mut log = FlowLog::new(replay);
            let mut recent: VecDeque<u64> = VecDeque::new();
            let mut queues: Vec<(u64, VecDeque<u64>)> = Vec::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        log.push(next, 1);
                        queues.iter_mut().for_each(|(_, queue)| queue.push_back(next));
                        recent.push_back(next);
                        if recent.len() > replay {
                            recent.pop_front();
                        }
                        next += 1;
                    }
                    Step::Join => queues.push((join(&mut log), recent.clone())),
                    Step::Leave(n) if n < queues.len() => log.leave(queues.remove(n).0),
                    Step::Take(n) if n < queues.len() => {
                        let (cursor, queue) = &mut queues[n];
                        let expected = queue.pop_front();
                        let got = log.at(*cursor).map(|(number, value)| (number, *value));
                        prop_assert_eq!(got.map(|(_, value)| value), expected);
                        if let Some((number, _)) = got {
                            take(&mut log, *cursor, number + 1);
                            *cursor = number + 1;
                        }
                    }
                    Step::DropOldest => {
                        let oldest = log.at(0).map(|(_, value)| *value);
                        prop_assert_eq!(log.drop_oldest(), oldest);
                        recent.retain(|value| Some(*value) != oldest);
                        queues.iter_mut().for_each(|(_, q)| q.retain(|v| Some(*v) != oldest));
                    }
                    Step::Leave(_) | Step::Take(_) => {}
                }
                let slowest = queues.iter().map(|(_, queue)| queue.len()).max().unwrap_or(0);
                prop_assert_eq!(log.pending(), slowest);
                prop_assert_eq!(log.len(), slowest.max(recent.len()));
                prop_assert_eq!(log.bytes(), log.len());
                prop_assert_eq!(log.subscribers() as usize, queues.len());
            }
        }
    }
}

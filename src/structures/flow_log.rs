//! Owns the log of a flow: numbered entries, and how many subscribers have yet to take each.

use std::collections::VecDeque;

/// Entries in the order they were added. A subscriber is nothing but a cursor: the number of the
/// entry it takes next.
///
/// Invariant: cursors only grow, so of two entries the later one is awaited by at least as many
/// subscribers as the earlier one.
#[derive(Debug)]
pub(crate) struct FlowLog<E> {
    entries: VecDeque<Logged<E>>,
    /// The number of the next entry; numbers are not used twice, also where entries are dropped.
    next: u64,
    /// Entries before this one have been offered to whoever could take them.
    offered: u64,
    /// Entries before this one are being offered.
    offering: u64,
    subscribers: u32,
    /// How many of the newest stay for subscribers that come later.
    replay: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Logged<E> {
    number: u64,
    /// Subscribers that have not taken it.
    awaited_by: u32,
    bytes: usize,
    value: E,
}

impl<E> FlowLog<E> {
    pub(crate) fn new(replay: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            next: 0,
            offered: 0,
            offering: 0,
            subscribers: 0,
            replay,
            bytes: 0,
        }
    }

    /// Adds an entry that counts as `bytes`.
    pub(crate) fn push(&mut self, value: E, bytes: usize) {
        let entry = Logged { number: self.next, awaited_by: self.subscribers, bytes, value };
        self.next += 1;
        self.bytes += bytes;
        self.entries.push_back(entry);
        self.release();
    }

    /// The entry that a cursor takes next, with its number.
    #[inline]
    pub(crate) fn at(&self, cursor: u64) -> Option<(u64, &E)> {
        self.entries.get(self.position(cursor)).map(|entry| (entry.number, &entry.value))
    }

    /// The entry that a cursor takes next, with its number, if it is the newest too.
    #[inline]
    pub(crate) fn only_from(&self, cursor: u64) -> Option<(u64, &E)> {
        let newest = self.entries.back()?;
        (newest.number == cursor).then_some((newest.number, &newest.value))
    }

    /// The entry of that number, to change what it holds beside its content.
    pub(crate) fn at_mut(&mut self, number: u64) -> Option<&mut E> {
        self.entry(number).map(|entry| &mut entry.value)
    }

    /// The entry of that number counts as more bytes from now on.
    pub(crate) fn grow(&mut self, number: u64, bytes: usize) {
        if let Some(entry) = self.entry(number) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
    }

    #[inline]
    fn entry(&mut self, number: u64) -> Option<&mut Logged<E>> {
        // Usually all take the newest.
        if self.entries.back().is_some_and(|newest| newest.number == number) {
            return self.entries.back_mut();
        }
        let position = self.position(number);
        self.entries.get_mut(position).filter(|entry| entry.number == number)
    }

    /// Where the first entry stands that is not before `cursor`.
    #[inline]
    fn position(&self, cursor: u64) -> usize {
        let first = self.entries.front().map_or(self.next, |entry| entry.number);
        // Without gaps the distance is the place; dropped entries only move it to the front.
        let guess = usize::try_from(cursor.saturating_sub(first)).unwrap_or(usize::MAX);
        match self.entries.get(guess) {
            Some(entry) if entry.number == cursor => guess,
            _ => self.entries.partition_point(|entry| entry.number < cursor),
        }
    }

    /// One subscriber has taken the entry of that number.
    #[inline]
    pub(crate) fn take(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.awaited_by = entry.awaited_by.saturating_sub(1);
            if entry.awaited_by == 0 {
                self.release();
            }
        }
    }

    /// A further subscriber: its cursor, at the first entry of the replay.
    pub(crate) fn join(&mut self) -> u64 {
        self.subscribers += 1;
        let from = self.entries.len().saturating_sub(self.replay);
        for entry in self.entries.iter_mut().skip(from) {
            entry.awaited_by += 1;
        }
        self.entries.get(from).map_or(self.next, |entry| entry.number)
    }

    /// A subscriber leaves at its cursor.
    pub(crate) fn leave(&mut self, cursor: u64) {
        self.subscribers = self.subscribers.saturating_sub(1);
        let from = self.position(cursor);
        for entry in self.entries.iter_mut().skip(from) {
            entry.awaited_by = entry.awaited_by.saturating_sub(1);
        }
        self.release();
    }

    /// Gives up what everybody has taken and the replay does not hold.
    fn release(&mut self) {
        while self.entries.len() > self.replay
            && self.entries.front().is_some_and(|entry| entry.awaited_by == 0)
        {
            self.drop_oldest();
        }
    }

    /// Drops the oldest entry, whoever awaits it.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let dropped = self.entries.pop_front();
        self.bytes -= dropped.as_ref().map_or(0, |entry| entry.bytes);
        dropped.is_some()
    }

    /// Drops the first entry of which `is_meant` holds, whoever awaits it.
    pub(crate) fn drop_first(&mut self, is_meant: impl Fn(&E) -> bool) {
        let found = self.entries.iter().position(|entry| is_meant(&entry.value));
        if let Some(dropped) = found.and_then(|position| self.entries.remove(position)) {
            self.bytes -= dropped.bytes;
        }
    }

    /// The entries that are there now are about to be offered; whether any is new.
    pub(crate) fn begin_offering(&mut self) -> bool {
        self.offering = self.next;
        self.offered < self.next
    }

    /// They have been: whoever has not taken one of them lags. What was added meanwhile is not
    /// meant.
    pub(crate) fn end_offering(&mut self) {
        self.offered = self.offering;
    }

    /// Entries that the slowest subscriber has not taken.
    pub(crate) fn pending(&self) -> usize {
        self.entries.len() - self.first_awaited()
    }

    /// Entries that the slowest subscriber was offered and has not taken.
    pub(crate) fn lagging(&self) -> usize {
        self.position(self.offered).saturating_sub(self.first_awaited())
    }

    fn first_awaited(&self) -> usize {
        self.entries.partition_point(|entry| entry.awaited_by == 0)
    }

    /// The number that the next entry gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn subscribers(&self) -> u32 {
        self.subscribers
    }

    /// What the entries count as together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_subscribers_only_the_replay_stays() {
        let mut log = FlowLog::new(2);
        for n in 0..5 {
            log.push(n, 10);
        }
        assert_eq!((log.len(), log.pending(), log.bytes()), (2, 0, 20));
        let cursor = log.join();
        assert_eq!(log.at(cursor), Some((3, &3)));
        assert_eq!(log.pending(), 2);
    }

    #[test]
    fn who_lags_is_counted_only_once_all_were_offered() {
        let mut log = FlowLog::new(0);
        let slow = log.join();
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
                    Step::Join => queues.push((log.join(), recent.clone())),
                    Step::Leave(n) if n < queues.len() => log.leave(queues.remove(n).0),
                    Step::Take(n) if n < queues.len() => {
                        let (cursor, queue) = &mut queues[n];
                        let expected = queue.pop_front();
                        let got = log.at(*cursor).map(|(number, value)| (number, *value));
                        prop_assert_eq!(got.map(|(_, value)| value), expected);
                        if let Some((number, _)) = got {
                            log.take(number);
                            *cursor = number + 1;
                        }
                    }
                    Step::DropOldest => {
                        let oldest = log.at(0).map(|(_, value)| *value);
                        prop_assert_eq!(log.drop_oldest(), oldest.is_some());
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

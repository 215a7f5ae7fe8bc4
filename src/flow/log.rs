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
#[cfg(all(repository, test))]
mod tests;

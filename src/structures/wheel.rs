//! The timer wheel: a hashed wheel on an arena, with O(1) arm and cancel.

use std::ops::Range;
use std::time::Duration;

use crate::words::time::Time;

/// A tick is this many microseconds, as a power of two: 8.192 ms.
pub(super) const TICK_BITS: u32 = 13;
/// Slots of the wheel; one turn of it is 8.4 s. A deadline further off stays in its slot and is
/// passed over until its turn comes.
const SLOTS: usize = DUE as usize;
/// The list of entries that are due and not popped yet stands behind the slots.
const DUE: u32 = 1024;
const NOBODY: u32 = u32::MAX;
/// Room for so many entries is not worth giving back.
const ROOM_KEPT: usize = 1024;

/// Names an armed entry. Whoever armed it holds it once and gives it back by `cancel` or `rearm`,
/// or forgets it when the entry is popped; so it can never name another's entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

/// Deadlines with a token each.
#[derive(Debug)]
pub(crate) struct TimerWheel {
    entries: Vec<Entry>,
    /// Room for so many entries is kept.
    reserved: usize,
    /// The head of the chain of unused entries.
    free: u32,
    /// While room is being given back: entries from this one on are not used again, unless there are no
    /// others, and those that are in use leave when they are armed anew. Invariant: no unused one of them is
    /// in the chain.
    keep_below: u32,
    len: usize,
    /// The heads of the chains: one for each slot, one for what is due.
    heads: Vec<u32>,
    /// For each slot a tick that is not after any of its entries.
    lower_bounds: Vec<u64>,
    /// A bit for each slot that is not empty.
    occupied: [u64; SLOTS / 64],
    /// Invariant: no entry outside the due list has a tick before this one.
    earliest: u64,
    /// The tick that was expired last: whatever is armed later goes after it.
    expired: u64,
}

#[derive(Debug)]
struct Entry {
    tick: u64,
    token: u32,
    /// The chain it stands in; `NOBODY` while unused.
    list: u32,
    next: u32,
    previous: u32,
}

/// The first tick that does not begin before `at`: a timer never fires early.
fn tick_of(at: Time) -> u64 {
    (at.as_micros() >> TICK_BITS) + u64::from(at.as_micros() & ((1 << TICK_BITS) - 1) != 0)
}

/// How far to move a clock, by that time at least, so that whatever is due then has fired, if it was armed a
/// tick before or earlier.
#[allow(dead_code, reason = "for the test kit alone")]
pub(crate) fn until_fired(now: Time, time: Duration) -> Duration {
    time_of(tick_of(now.after(time))).since(now)
}

fn time_of(tick: u64) -> Time {
    Time::from_micros(tick.saturating_mul(1 << TICK_BITS))
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder is below SLOTS")]
fn slot_of(tick: u64) -> u32 {
    (tick % SLOTS as u64) as u32
}

impl TimerWheel {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new() -> Self {
        Self::with_room(0)
    }

    /// One with room for so many entries, which it keeps: grown among what comes and goes, it would keep the
    /// allocator from giving that back.
    pub(crate) fn with_room(entries: usize) -> Self {
        Self {
            entries: Vec::with_capacity(entries),
            reserved: entries,
            free: NOBODY,
            keep_below: NOBODY,
            len: 0,
            heads: vec![NOBODY; SLOTS + 1],
            lower_bounds: vec![u64::MAX; SLOTS],
            occupied: [0; SLOTS / 64],
            earliest: u64::MAX,
            expired: 0,
        }
    }

    /// Arms a deadline. One that has passed fires at the next tick.
    pub(crate) fn arm(&mut self, token: u32, at: Time) -> TimerKey {
        // After the tick that is being expired, so that arming from a timer cannot loop for ever.
        let tick = tick_of(at).max(self.expired + 1);
        let entry = Entry { tick, token, list: NOBODY, next: NOBODY, previous: NOBODY };
        if self.free == NOBODY {
            self.make_room();
        }
        let index = self.free;
        if let Some(place) = self.entries.get_mut(index as usize) {
            self.free = place.next;
            *place = entry;
        }
        self.len += 1;
        let slot = slot_of(tick);
        self.link(index, slot);
        if let Some(word) = self.occupied.get_mut(slot as usize / 64) {
            *word |= 1 << (slot % 64);
        }
        if let Some(bound) = self.lower_bounds.get_mut(slot as usize) {
            *bound = (*bound).min(tick);
        }
        self.earliest = self.earliest.min(tick);
        TimerKey(index)
    }

    /// The last tick that was looked at: whatever is armed goes after it.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(super) fn expired(&self) -> u64 {
        self.expired
    }

    /// How many deadlines are armed.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes a deadline back.
    #[allow(clippy::needless_pass_by_value, reason = "a key is given back, not kept")]
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.unlink(key.0);
        self.release(key.0);
    }

    /// Moves a deadline.
    pub(crate) fn rearm(&mut self, key: TimerKey, at: Time) -> TimerKey {
        let Some(token) = self.entries.get(key.0 as usize).map(|entry| entry.token) else {
            return key;
        };
        if key.0 >= self.keep_below {
            let moved = self.arm(token, at);
            self.cancel(key);
            return moved;
        }
        self.cancel(key);
        self.arm(token, at)
    }

    /// The next token whose deadline has come, in the order of ticks; its entry is gone.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<u32> {
        let tick = now.as_micros() >> TICK_BITS;
        if self.earliest > tick && self.heads.last() == Some(&NOBODY) {
            return None;
        }
        self.pop_slow(tick)
    }

    fn pop_slow(&mut self, now: u64) -> Option<u32> {
        loop {
            let due = self.heads.last().copied().filter(|&index| index != NOBODY);
            if let Some(index) = due {
                let token = self.entries.get(index as usize)?.token;
                self.unlink(index);
                self.release(index);
                return Some(token);
            }
            if self.earliest > now {
                return None;
            }
            let tick = self.earliest;
            self.expired = tick;
            self.collect(tick);
            self.earliest = self.find_earliest(tick);
        }
    }

    /// Moves the entries of one tick to the due list.
    fn collect(&mut self, tick: u64) {
        let slot = slot_of(tick);
        let mut bound = u64::MAX;
        let mut index = self.heads.get(slot as usize).copied().unwrap_or(NOBODY);
        while let Some(entry) = self.entries.get(index as usize) {
            let (next, at) = (entry.next, entry.tick);
            if at <= tick {
                self.unlink(index);
                self.link(index, DUE);
            } else {
                bound = bound.min(at);
            }
            index = next;
        }
        if let Some(place) = self.lower_bounds.get_mut(slot as usize) {
            *place = bound;
        }
    }

    /// A tick after `tick`, and not after any entry. Looks at the slots that are not empty, from the
    /// next one on; usually the first of them has it.
    fn find_earliest(&self, tick: u64) -> u64 {
        let mut best = u64::MAX;
        let start = slot_of(tick) as usize + 1;
        for step in 0..=SLOTS / 64 {
            let word_index = (start / 64 + step) % (SLOTS / 64);
            let mut word = self.occupied.get(word_index).copied().unwrap_or(0);
            while word != 0 {
                let slot = word_index * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                best = best.min(self.lower_bounds.get(slot).copied().unwrap_or(u64::MAX));
            }
            // What lies in the words up to here comes before anything in the words after.
            let passed = (step as u64 + 1) * 64 - start as u64 % 64;
            if best <= tick.saturating_add(passed) {
                break;
            }
        }
        best.max(tick + 1)
    }

    /// When `pop_due` may have something; never later than the earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let something_due = self.heads.last() != Some(&NOBODY);
        let at = if something_due { Time::ZERO } else { time_of(self.earliest) };
        (something_due || self.earliest != u64::MAX).then_some(at)
    }

    fn link(&mut self, index: u32, list: u32) {
        let Some(head) = self.heads.get_mut(list as usize) else { return };
        let second = std::mem::replace(head, index);
        if let Some(entry) = self.entries.get_mut(second as usize) {
            entry.previous = index;
        }
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.list = list;
            entry.next = second;
            entry.previous = NOBODY;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index as usize) else { return };
        let (list, next, previous) = (entry.list, entry.next, entry.previous);
        debug_assert_ne!(list, NOBODY, "a key names an armed entry");
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = previous;
        }
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = next;
        } else if let Some(head) = self.heads.get_mut(list as usize) {
            *head = next;
            if next == NOBODY && list != DUE {
                self.clear_slot(list as usize);
            }
        }
    }

    fn clear_slot(&mut self, slot: usize) {
        if let Some(word) = self.occupied.get_mut(slot / 64) {
            *word &= !(1 << (slot % 64));
        }
        if let Some(bound) = self.lower_bounds.get_mut(slot) {
            *bound = u64::MAX;
        }
    }

    fn release(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.list = NOBODY;
            self.len -= 1;
            if index < self.keep_below {
                entry.next = self.free;
                self.free = index;
            } else {
                self.trim();
            }
        }
        if self.len == 0 {
            // Nobody holds a key: the arena starts anew. What was reserved is not exchanged for new pages:
            // glibc takes what was mapped and freed for a reason to map and trim only what is larger from
            // then on.
            self.entries.clear();
            if self.entries.capacity() > self.reserved {
                self.entries.shrink_to(self.reserved);
            }
            (self.free, self.keep_below) = (NOBODY, NOBODY);
            self.earliest = u64::MAX;
        }
    }

    /// One more is armed than there are unused entries. Those that were to leave are used again first: they
    /// may stay for as long as one behind them does, and others would take ever more room beside them.
    #[inline(never)]
    fn make_room(&mut self) {
        while self.free == NOBODY && self.keep_below != NOBODY {
            let keep = self.keep_below as usize;
            let more = (2 * keep).min(self.entries.len()); // by as many as there are, so that it seldom is
            self.chain(keep..more);
            self.keep_below = match more < self.entries.len() {
                true => u32::try_from(more).unwrap_or(NOBODY),
                false => NOBODY,
            };
        }
        if self.free == NOBODY {
            // Invariant: tokens are u32, so there are fewer entries than NOBODY.
            self.free = u32::try_from(self.entries.len()).unwrap_or(NOBODY);
            self.entries.push(Entry {
                tick: 0,
                token: 0,
                list: NOBODY,
                next: NOBODY,
                previous: NOBODY,
            });
        }
    }

    /// Puts the unused ones of these before the chain.
    fn chain(&mut self, indices: Range<usize>) {
        for index in indices.rev() {
            let Some(entry) = self.entries.get_mut(index) else { continue };
            if entry.list == NOBODY {
                entry.next = self.free;
                self.free = u32::try_from(index).unwrap_or(NOBODY);
            }
        }
    }

    /// Begins to give back the room of a burst that is over, if there was one. Costs nothing where there was
    /// none, so that it may be called as often as something of a burst is over.
    pub(crate) fn give_back(&mut self) {
        let room = self.entries.len();
        if room <= ROOM_KEPT.max(4 * self.len) || self.keep_below != NOBODY {
            return;
        }
        let keep = (2 * self.len).max(ROOM_KEPT / 2);
        self.keep_below = u32::try_from(keep).unwrap_or(NOBODY);
        self.free = NOBODY;
        self.chain(0..keep);
        self.trim();
    }

    /// Drops unused entries at the end, as far as they are to be given back.
    #[cold]
    fn trim(&mut self) {
        let keep = self.keep_below as usize;
        while self.entries.len() > keep
            && self.entries.last().is_some_and(|entry| entry.list == NOBODY)
        {
            self.entries.pop();
        }
        if self.entries.len() <= keep {
            self.entries.shrink_to(self.reserved);
            self.keep_below = NOBODY;
        }
    }
}

#[cfg(all(repository, test))]
#[path = "wheel/tests.rs"] // a benchmark has this file beside others
mod tests;

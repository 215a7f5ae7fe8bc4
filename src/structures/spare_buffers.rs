//! The buffers of large messages that are kept for the next ones.

use std::time::Duration;

use crate::words::time::Time;

/// Smaller buffers are not kept: an allocator has those without asking the system. From here glibc and musl
/// map fresh pages for each, and every one of them is faulted in and cleared.
const LARGE_BYTES: usize = 128 << 10;

/// How long a buffer is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// How many are kept.
const BUFFERS_MAX: usize = 32;

/// So many times as large as what has come of a message its buffer may be where a kept one is taken: who has
/// sent a header gets nothing for that.
const AHEAD_MAX: usize = 64;

/// Buffers without content, with a bound on their bytes.
#[derive(Debug)]
pub(crate) struct SpareBuffers {
    /// The longest unused first.
    kept: Vec<Kept>,
    /// Their capacities together. Invariant: at most `most`.
    bytes: usize,
    most: usize,
    /// Smaller ones are not kept.
    least: usize,
    /// The time, which whoever uses it says.
    pub(crate) now: Time,
}

#[derive(Debug)]
struct Kept {
    buffer: Vec<u8>,
    since: Time,
}

impl Kept {
    fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Giving and taking.
impl SpareBuffers {
    /// None yet, of at most so many bytes together.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Vec::new(), bytes: 0, most, least: LARGE_BYTES, now: Time::ZERO }
    }

    /// Takes a buffer that nobody needs any more: kept if it is large and there is room, else freed.
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if !self.keeps(capacity) {
            return;
        }
        if !self.make_room(capacity) {
            return free(buffer);
        }
        buffer.clear();
        self.bytes += capacity;
        self.kept.push(Kept { buffer, since: self.now });
    }

    /// Whether there is room for one of that capacity, for which smaller ones go: it saves more than they do.
    fn make_room(&mut self, capacity: usize) -> bool {
        let capacities = self.kept.iter().map(Kept::capacity);
        let smaller = capacities.filter(|kept| *kept < capacity).sum::<usize>();
        if capacity > self.most - self.bytes + smaller {
            return false;
        }
        while capacity > self.most - self.bytes || self.kept.len() >= BUFFERS_MAX {
            let capacities = self.kept.iter().map(Kept::capacity).enumerate();
            let smallest = capacities.min_by_key(|(_, kept)| *kept);
            let Some((at, bytes)) = smallest.filter(|(_, kept)| *kept < capacity) else {
                return false;
            };
            self.bytes -= bytes;
            free(self.kept.remove(at).buffer);
        }
        true
    }

    /// An empty buffer for the `there` bytes of a message and as many more as `added`, of `wanted` that may
    /// come in all; `None` if none is kept that fits.
    pub(crate) fn take(&mut self, there: usize, added: usize, wanted: usize) -> Option<Vec<u8>> {
        let needed = there.saturating_add(added);
        // One that is hardly larger is not worth copying what is there: to grow is less.
        let least = needed.max(there.saturating_mul(2));
        // What it takes counts as its own: with too large a one it would be the first to be ended.
        let most = wanted.max(needed).saturating_mul(2).min(needed.saturating_mul(AHEAD_MAX));
        if most < self.least {
            return None;
        }
        let fitting = self.kept.iter().enumerate().filter_map(|(at, kept)| {
            let capacity = kept.capacity();
            (least..=most).contains(&capacity).then_some((capacity, at))
        });
        // The smallest in which all has room, else the largest. Of several the one used last, so that those
        // that are too many are not used, and go.
        let (capacity, at) = fitting.min_by_key(|&(capacity, at)| {
            let lacks = wanted.saturating_sub(capacity);
            (lacks, capacity, usize::MAX - at)
        })?;
        self.bytes -= capacity;
        Some(self.kept.remove(at).buffer)
    }

    /// A buffer with room for so many bytes: a kept one, or a new one.
    pub(crate) fn buffer(&mut self, bytes: usize) -> Vec<u8> {
        self.take(0, bytes, bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
    }
}

/// Giving up.
impl SpareBuffers {
    /// Frees what nobody has used for its time.
    pub(crate) fn free_unused(&mut self) {
        let now = self.now;
        let unused = self.kept.partition_point(|kept| kept.since.after(KEPT_FOR) <= now);
        self.free_first(unused);
    }

    /// Frees so many bytes or a little more, those first that were not used for longest; all, if there are
    /// not so many.
    pub(crate) fn free_bytes(&mut self, bytes: usize) {
        let mut freed = 0;
        let needed = self.kept.iter().take_while(|kept| {
            let is_needed = freed < bytes;
            freed += kept.capacity();
            is_needed
        });
        let count = needed.count();
        self.free_first(count);
    }

    fn free_first(&mut self, count: usize) {
        for Kept { buffer, .. } in self.kept.drain(..count) {
            self.bytes -= buffer.capacity();
            free(buffer);
        }
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
    }
}

/// Asking.
impl SpareBuffers {
    /// The bytes of all that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a buffer of that capacity is worth being kept.
    pub(crate) fn keeps(&self, capacity: usize) -> bool {
        capacity >= self.least
    }

    /// When the next one goes if nobody uses it.
    pub(crate) fn next_free(&self) -> Option<Time> {
        self.kept.first().map(|kept| kept.since.after(KEPT_FOR))
    }
}

/// For tests.
#[cfg(all(repository, any(test, fuzzing)))]
impl SpareBuffers {
    /// Keeps smaller ones too.
    pub(crate) fn keep_from(&mut self, bytes: usize) {
        self.least = bytes;
    }

    /// Whether the count of its bytes is right, and each buffer empty.
    pub(crate) fn check(&self) -> Result<(), String> {
        let capacities = self.kept.iter().map(|kept| kept.capacity());
        let bytes = capacities.sum::<usize>();
        if bytes != self.bytes || self.kept.iter().any(|kept| !kept.buffer.is_empty()) {
            return Err(format!("{bytes} spare bytes, {} counted", self.bytes));
        }
        Ok(())
    }
}

/// Gives a large buffer back to the system.
fn free(mut buffer: Vec<u8>) {
    // glibc takes a mapped block that is freed for a sign that such blocks come and go: the next ones it has
    // in its heap, which does not shrink below twice their size. Of one that was made small it does not.
    buffer.clear();
    buffer.shrink_to(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn spare(capacities: &[usize]) -> SpareBuffers {
        let mut spare = SpareBuffers::new(64 * MIB);
        for (at, capacity) in (1..).zip(capacities) {
            spare.now = Time::ZERO.after(Duration::from_secs(at));
            spare.put(Vec::with_capacity(*capacity));
        }
        spare
    }

    fn capacities(spare: &SpareBuffers) -> Vec<usize> {
        spare.kept.iter().map(|kept| kept.capacity()).collect()
    }

    #[test]
    fn what_is_kept_is_large_empty_and_bounded() {
        let mut spare = SpareBuffers::new(3 * MIB);
        spare.put(vec![7; LARGE_BYTES - 1]);
        assert_eq!(spare.bytes(), 0, "too small to be worth it");
        (0..5).for_each(|_| spare.put(vec![7; MIB]));
        assert_eq!((spare.bytes(), spare.kept.len()), (3 * MIB, 3));
        assert!(spare.take(0, MIB, MIB).unwrap().is_empty());
        spare.put(vec![7; LARGE_BYTES]);
        spare.put(vec![7; 3 * MIB / 2]);
        assert_eq!(capacities(&spare), [MIB, 3 * MIB / 2], "smaller ones go for a larger one");
        spare.put(vec![7; MIB]);
        spare.put(vec![7; 4 * MIB]);
        assert_eq!(capacities(&spare), [MIB, 3 * MIB / 2], "and none where that is not enough");
        let mut many = SpareBuffers::new(64 * MIB);
        (0..100).for_each(|_| many.put(vec![7; LARGE_BYTES]));
        assert_eq!(many.kept.len(), BUFFERS_MAX);
    }

    #[test]
    fn the_smallest_that_has_room_is_taken_else_the_largest() {
        let mut spare = spare(&[4 * MIB, MIB, 2 * MIB]);
        assert_eq!(spare.take(0, MIB / 2, 2 * MIB).unwrap().capacity(), 2 * MIB);
        assert_eq!(spare.take(0, MIB, 8 * MIB).unwrap().capacity(), 4 * MIB);
        assert_eq!(spare.take(0, MIB + 1, 8 * MIB), None, "what has come has no room in it");
        assert_eq!(
            spare.take(MIB / 2 + 1, 1, 8 * MIB),
            None,
            "growing is less than copying so much"
        );
        assert_eq!(spare.take(0, MIB, 8 * MIB).unwrap().capacity(), MIB);
        assert_eq!((spare.take(0, MIB, MIB), spare.bytes()), (None, 0));
    }

    #[test]
    fn who_has_sent_little_gets_no_large_buffer() {
        let mut spare = spare(&[16 * MIB]);
        assert_eq!(spare.take(0, 14, 16 * MIB), None);
        assert_eq!(spare.take(0, 16 * MIB / AHEAD_MAX - 1, 16 * MIB), None);
        assert_eq!(spare.take(0, 4 * MIB, 4 * MIB), None, "it would never use most of it");
        assert!(spare.take(0, 16 * MIB / AHEAD_MAX, 16 * MIB).is_some());
        // One read of 64 KiB with a header in it is enough for a mebibyte.
        assert!(self::spare(&[MIB]).take(0, (64 << 10) - 14, MIB).is_some());
    }

    #[test]
    fn what_is_not_used_goes_and_what_is_used_stays() {
        let mut spare = spare(&[MIB, MIB, MIB]); // put at 1, 2 and 3 s
        let second = |at| Time::ZERO.after(Duration::from_secs(at));
        assert_eq!(spare.next_free(), Some(second(6)));
        spare.now = second(5);
        spare.free_unused();
        let used = spare.take(0, MIB, MIB).unwrap();
        spare.put(used);
        spare.now = second(7);
        spare.free_unused();
        assert_eq!(
            (spare.bytes(), spare.next_free()),
            (MIB, Some(second(10))),
            "the one used last"
        );
        spare.now = second(10);
        spare.free_unused();
        assert_eq!((spare.bytes(), spare.next_free()), (0, None));
    }

    #[test]
    fn as_much_is_freed_as_is_needed_the_longest_unused_first() {
        let mut spare = spare(&[MIB, 2 * MIB, 3 * MIB]);
        spare.free_bytes(0);
        assert_eq!(spare.bytes(), 6 * MIB);
        spare.free_bytes(MIB);
        assert_eq!(capacities(&spare), [2 * MIB, 3 * MIB]);
        spare.free_bytes(2 * MIB + 1);
        assert_eq!((spare.bytes(), spare.next_free()), (0, None));
    }
}

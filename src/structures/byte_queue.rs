//! A queue of bytes that gives back what was taken from its front.

/// Bytes in the order they came. What is held is at most four times what waits, however bytes are
/// added and taken, and the work for each byte does not depend on how many wait.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    /// Bytes at the front that were taken. Invariant: fewer than those that wait, or none.
    taken: usize,
}

/// Putting in and taking out.
impl ByteQueue {
    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let needed = self.len() + bytes.len();
        if self.taken + needed > self.bytes.capacity() {
            // The first bytes get exactly their room: most often nothing is added to them.
            let spare = if self.is_empty() { 0 } else { needed / 2 };
            let mut roomier = Vec::with_capacity(needed + spare);
            roomier.extend_from_slice(self.as_slice());
            (self.bytes, self.taken) = (roomier, 0);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes bytes from the front, at most all.
    pub(crate) fn consume(&mut self, count: usize) {
        self.taken += count.min(self.len());
        self.give_back();
    }

    /// Moving the rest costs no more than what was taken since it was last moved.
    fn give_back(&mut self) {
        let waits = self.len();
        if (self.taken > 0 && self.taken >= waits) || self.bytes.capacity() / 4 > waits {
            (self.bytes, self.taken) = (self.as_slice().to_vec(), 0);
        }
    }

    /// Keeps the first `count` bytes.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.taken + count);
        self.give_back();
    }

    /// Moves `count` bytes from `from` to `to`, which lies before it.
    pub(crate) fn move_forward(&mut self, from: usize, count: usize, to: usize) {
        let from = self.taken + from;
        if from + count <= self.bytes.len() {
            self.bytes.copy_within(from..from + count, self.taken + to);
        }
    }

    /// Takes `count` bytes out at `at`.
    pub(crate) fn remove(&mut self, at: usize, count: usize) {
        let end = (self.taken + at + count).min(self.bytes.len());
        self.bytes.drain((self.taken + at).min(end)..end);
        self.give_back();
    }
}

/// Asking.
impl ByteQueue {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.taken..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the bytes of a pattern")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whoever adds as much as is taken keeps what waits, and not what went through.
    #[test]
    fn what_was_taken_is_given_back() {
        let mut queue = ByteQueue::default();
        queue.push(&[7; 1_000]);
        for round in 0..100_000 {
            queue.push(&[7; 100]);
            queue.consume(100);
            assert!(queue.capacity() <= 4 * 1_100, "{} in round {round}", queue.capacity());
        }
        queue.consume(1_000);
        assert_eq!((queue.len(), queue.capacity()), (0, 0));
    }

    proptest! {
        #[test]
        fn it_is_a_queue_that_holds_little(
            steps in proptest::collection::vec((0u8..4, 0usize..300, 0usize..300), 0..60),
        ) {
            let (mut queue, mut model, mut next) = (ByteQueue::default(), Vec::new(), 0_u8);
            for (kind, size, place) in steps {
                match kind {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..size).map(|n| next.wrapping_add(n as u8)).collect();
                        next = next.wrapping_add(size as u8);
                        queue.push(&bytes);
                        model.extend(bytes);
                    }
                    2 => {
                        queue.consume(size);
                        model.drain(..size.min(model.len()));
                    }
                    _ => {
                        queue.remove(place, size);
                        let end = (place + size).min(model.len());
                        model.drain(place.min(end)..end);
                    }
                }
                prop_assert_eq!(queue.as_slice(), &model[..]);
                prop_assert!(queue.capacity() <= 4 * queue.len() + 3, "{queue:?}");
            }
        }
    }
}

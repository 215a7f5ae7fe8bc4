//! The set of open sessions, for those who reach for one that is not their own.

use crate::structures::slab::{Key, RESERVED_MAX};

/// The open sessions, by their slot. A slot costs four bytes and a bit.
#[derive(Debug, Default)]
pub(crate) struct OpenSessions {
    generations: Vec<u32>,
    /// A bit for each slot that an open session has.
    open: Vec<u64>,
    count: usize,
}

impl OpenSessions {
    /// With room for so many slots, as the slab has it: it outlives the connections.
    pub(crate) fn for_slots(slots: usize) -> Self {
        let words = slots.min(RESERVED_MAX).div_ceil(64);
        Self {
            generations: Vec::with_capacity(words * 64),
            open: Vec::with_capacity(words),
            count: 0,
        }
    }

    pub(crate) fn insert(&mut self, key: Key) {
        let (word, bit) = Self::bit(key.index);
        if word >= self.open.len() {
            self.open.resize(word + 1, 0);
            self.generations.resize((word + 1) * 64, 0);
        }
        if let (Some(bits), Some(generation)) =
            (self.open.get_mut(word), self.generations.get_mut(key.index as usize))
        {
            self.count += usize::from(*bits & bit == 0);
            *bits |= bit;
            *generation = key.generation;
        }
    }

    pub(crate) fn remove(&mut self, key: Key) {
        if self.contains(key) {
            let (word, bit) = Self::bit(key.index);
            if let Some(bits) = self.open.get_mut(word) {
                *bits &= !bit;
                self.count -= 1;
            }
        }
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        let (word, bit) = Self::bit(key.index);
        self.open.get(word).is_some_and(|bits| bits & bit != 0)
            && self.generations.get(key.index as usize) == Some(&key.generation)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Key> {
        self.generations.iter().zip(0u32..).filter_map(|(&generation, index)| {
            let (word, bit) = Self::bit(index);
            let open = self.open.get(word).is_some_and(|bits| bits & bit != 0);
            open.then_some(Key { index, generation })
        })
    }

    fn bit(index: u32) -> (usize, u64) {
        (index as usize / 64, 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_open_for_one_generation_at_a_time() {
        let mut sessions = OpenSessions::default();
        let old = Key { index: 70, generation: 1 };
        let new = Key { index: 70, generation: 2 };
        sessions.insert(old);
        sessions.insert(Key { index: 3, generation: 9 });
        assert!(sessions.contains(old) && !sessions.contains(new));
        sessions.remove(new); // stale or not yet there: nothing happens
        assert_eq!(sessions.iter().map(|key| key.index).collect::<Vec<_>>(), [3, 70]);
        sessions.remove(old);
        sessions.insert(new);
        assert!(!sessions.contains(old) && sessions.contains(new));
        assert_eq!(sessions.len(), 2);
    }
}

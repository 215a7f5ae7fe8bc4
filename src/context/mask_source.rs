//! The source of what nobody can foresee: masks of frames that are sent masked, and what is left to chance.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use rustix::rand::{GetRandomFlags, getrandom};

#[cfg(any(test, fuzzing, feature = "testing"))]
use crate::words::mix::mixed;

/// Bytes taken from the system at once: a call for each mask would cost more than the frame.
const BLOCK_BYTES: usize = 512;

/// Random numbers from the system, as RFC 6455 section 10.3 asks for masks: "derived from a strong source
/// of entropy", and so that the next one cannot be told from those before.
pub(crate) struct MaskSource {
    block: [u8; BLOCK_BYTES],
    /// What was taken of the block. Invariant: a multiple of 4, and at most its length.
    taken: usize,
    /// Where the system has none yet, early after the start of a box, or does not know the call: keyed
    /// anew by the standard library, which takes what it can get.
    reserve: RandomState,
    drawn: u64,
    /// Where it is to be foreseen, what the blocks follow from.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    seed: Option<u64>,
}

impl Default for MaskSource {
    fn default() -> Self {
        let (block, taken) = ([0; BLOCK_BYTES], BLOCK_BYTES);
        Self {
            block,
            taken,
            reserve: RandomState::new(),
            drawn: 0,
            #[cfg(any(test, fuzzing, feature = "testing"))]
            seed: None,
        }
    }
}

impl fmt::Debug for MaskSource {
    /// Without what is in store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskSource").finish_non_exhaustive()
    }
}

impl MaskSource {
    #[inline]
    pub(crate) fn next_mask(&mut self) -> [u8; 4] {
        let end = self.taken.wrapping_add(4);
        if let Some(&[a, b, c, d]) = self.block.get(self.taken..end) {
            self.taken = end;
            return [a, b, c, d];
        }
        self.refill()
    }

    /// A number that is left to chance.
    pub(crate) fn next_number(&mut self) -> u32 {
        u32::from_be_bytes(self.next_mask())
    }

    /// From here on everything follows from this number: for an application in memory, whose tests are the
    /// same every time.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn repeat_from(&mut self, seed: u64) {
        (self.seed, self.taken) = (Some(seed), BLOCK_BYTES);
    }

    #[cfg(any(test, fuzzing, feature = "testing"))]
    fn repeat(&mut self, mut seed: u64) {
        for piece in self.block.chunks_exact_mut(8) {
            seed = seed.wrapping_add(1);
            let number = mixed(seed, 0);
            let number = mixed(number ^ (number >> 31), seed);
            piece.copy_from_slice(&(number ^ (number >> 29)).to_be_bytes());
        }
        (self.seed, self.taken) = (Some(seed), 0);
    }

    #[cold]
    fn refill(&mut self) -> [u8; 4] {
        #[cfg(any(test, fuzzing, feature = "testing"))]
        if let Some(seed) = self.seed {
            self.repeat(seed);
            return self.next_mask();
        }
        // Without a wait: the system may take minutes to gather what it starts with.
        match getrandom(&mut self.block, GetRandomFlags::NONBLOCK) {
            Ok(BLOCK_BYTES) => {
                self.taken = 0;
                self.next_mask()
            }
            Ok(_) | Err(_) => self.draw_from_reserve(),
        }
    }

    fn draw_from_reserve(&mut self) -> [u8; 4] {
        self.drawn = self.drawn.wrapping_add(1);
        let [a, b, c, d, ..] = self.reserve.hash_one(self.drawn).to_ne_bytes();
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_differ_across_blocks_and_sources() {
        let (mut one, mut other) = (MaskSource::default(), MaskSource::default());
        let mut masks: Vec<[u8; 4]> =
            (0..1_000).flat_map(|_| [one.next_mask(), other.next_mask()]).collect();
        masks.sort_unstable();
        masks.dedup();
        // Of 2,000 drawn from 2^32, two are the same once in some 2,000 runs.
        assert!(masks.len() >= 1_998, "{}", masks.len());
        let bits: u32 = masks.iter().map(|mask| u32::from_ne_bytes(*mask).count_ones()).sum();
        assert!((30_000..34_000).contains(&bits), "{bits} of 64,000 bits are ones");
    }

    #[test]
    fn without_the_system_there_are_masks_all_the_same() {
        let mut source = MaskSource::default();
        let mut masks: Vec<_> = (0..100).map(|_| source.draw_from_reserve()).collect();
        masks.sort_unstable();
        masks.dedup();
        assert!(masks.len() >= 99, "{}", masks.len());
    }
}

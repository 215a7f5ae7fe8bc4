//! The source of masks for frames that are sent masked.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Masks that a peer cannot foresee (RFC 6455 section 10.3), from the standard library's keyed hash.
#[derive(Debug, Default)]
pub(crate) struct MaskSource {
    seed: RandomState,
    count: u64,
}

impl MaskSource {
    pub(crate) fn next_mask(&mut self) -> [u8; 4] {
        self.count = self.count.wrapping_add(1);
        let [a, b, c, d, ..] = self.seed.hash_one(self.count).to_ne_bytes();
        [a, b, c, d]
    }
}

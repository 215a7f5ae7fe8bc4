//! A key made of several numbers.

/// A key that tells apart the same keys as `key` and, among them, the words. Quick rather than
/// strong: nobody from outside chooses the words.
#[inline]
pub(crate) fn mixed(key: u64, word: u64) -> u64 {
    (key.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_their_order_count() {
        let of = |words: &[u64]| words.iter().copied().fold(0, mixed);
        let mut keys: Vec<u64> = (0..1_000).map(|n| of(&[n, 65_536, 65_536])).collect();
        keys.extend((1_001..2_000).map(|n| of(&[1, n, 65_536])));
        keys.extend([of(&[1, 2, 3]), of(&[3, 2, 1]), of(&[1, 2])]);
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}

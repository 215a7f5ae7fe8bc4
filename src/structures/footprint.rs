//! The cost of an allocation beyond its bytes.

/// What the allocator takes for `bytes`: a word for itself, in steps of 16, and 32 at least (glibc;
/// musl's classes are as coarse). Counting bytes alone would let a peer pay 3 for 32.
pub(crate) const fn footprint(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let taken = bytes.saturating_add(8 + 15) & !15;
    if taken < 32 { 32 } else { taken }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_things_cost_more_than_their_bytes() {
        let sizes = [0, 1, 24, 25, 40, 41, 1_000, 65_536];
        assert_eq!(sizes.map(footprint), [0, 32, 32, 48, 48, 64, 1_008, 65_552]);
        assert_eq!(footprint(usize::MAX), usize::MAX & !15);
    }
}

//! The counter type of the statistics: arithmetic that cannot fail, whatever is counted.

use std::ops::{AddAssign, SubAssign};

/// A count of 64 bits. `+=` comes round at the end, which no server lives to see; `-=` stops at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counter(u64);

impl Counter {
    #[inline]
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl AddAssign<u64> for Counter {
    #[inline]
    fn add_assign(&mut self, more: u64) {
        self.0 = self.0.wrapping_add(more);
    }
}

impl SubAssign<u64> for Counter {
    #[inline]
    fn sub_assign(&mut self, less: u64) {
        self.0 = self.0.saturating_sub(less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_round_upwards_and_stops_at_zero_downwards() {
        let mut count = Counter::default();
        count += 3;
        count -= 1;
        assert_eq!(count.get(), 2);
        count -= 5;
        assert_eq!(count.get(), 0);
        count += u64::MAX;
        count += 2;
        assert_eq!(count.get(), 1);
    }
}

//! The choices of a simulation: all that is random comes from one seed, or from given bytes.

/// A source of choices. The same source gives the same choices on every machine.
#[derive(Debug)]
pub(crate) enum Choices {
    /// Sebastiano Vigna's SplitMix64: 64 bits of state, and every seed is a good one.
    #[cfg_attr(not(test), allow(dead_code, reason = "a fuzzer has bytes"))]
    Seed(u64),
    /// Bytes that a fuzzer makes; zeros behind them.
    Script { bytes: Vec<u8>, at: usize },
}

impl Choices {
    #[cfg(test)]
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self::Seed(seed)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self::Script { bytes: bytes.into(), at: 0 }
    }

    /// Whether all bytes are used up; a seed never is.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Script { bytes, at } if at >= &bytes.len())
    }

    /// True for one of so many sources; nothing is drawn for it, so that their runs stay what they are.
    pub(crate) fn is_one_in(&self, n: u64) -> bool {
        let number = match self {
            Self::Seed(seed) => *seed,
            Self::Script { bytes, .. } => bytes.len() as u64,
        };
        number % n == n - 1
    }

    /// Another source, for somebody else.
    #[cfg(feature = "client")]
    pub(crate) fn split(&mut self) -> Self {
        Self::Seed(self.next(8))
    }

    fn next(&mut self, bytes: usize) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
            Self::Script { bytes: script, at } => (0..bytes).fold(0, |number, _| {
                let byte = script.get(*at).copied().unwrap_or(0);
                *at += 1;
                (number << 8) | u64::from(byte)
            }),
        }
    }

    /// A number from 0 to `n - 1`; 0 for an `n` of 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let bytes = if n <= 256 { 1 } else { 4 };
        self.next(bytes) % n.max(1)
    }

    /// The same as a size.
    pub(crate) fn size_below(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap_or(0)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.size_below(from.len())]
    }
}

//! Owns what all sessions of a loop share while one of them runs.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::words::options::Limits;
use crate::words::time::Time;

use super::stats::Stats;
use super::warnings::Warnings;

/// The loop's own: the present time, the buffer of the turn, the limits, the account of memory.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The time of this turn.
    pub(crate) now: Time,
    /// What the session that runs now sends. Invariant: empty between turns.
    pub(crate) tx: Vec<u8>,
    /// How many bytes at the start of `tx` are no frames but an HTTP answer.
    pub(crate) opaque_prefix: usize,
    /// `tx` is written as soon as it is this long.
    pub(crate) tx_flush_bytes: usize,
    pub(crate) limits: Limits,
    /// Bytes held by all connections in partial messages and outboxes.
    pub(crate) bytes_held: usize,
    pub(crate) masks: MaskSource,
    pub(crate) warnings: Warnings,
    /// What was counted; the figures of `bytes_held` are filled in by [`Shared::snapshot`].
    pub(crate) stats: Stats,
    /// What the application's last panic said, for whoever wants to know.
    pub(crate) last_panic: Option<String>,
}

impl Shared {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            now: Time::ZERO,
            tx: Vec::new(),
            opaque_prefix: 0,
            tx_flush_bytes: limits.read_buffer_bytes,
            limits,
            bytes_held: 0,
            masks: MaskSource { seed: RandomState::new(), count: 0 },
            warnings: Warnings::default(),
            stats: Stats::default(),
            last_panic: None,
        }
    }

    /// Accounts for a connection that held `before` bytes and now holds `after`.
    pub(crate) fn account(&mut self, before: usize, after: usize) {
        self.bytes_held = self.bytes_held.saturating_sub(before).saturating_add(after);
    }

    /// The statistics as of now.
    pub(crate) fn snapshot(&self) -> Stats {
        Stats { bytes_held: self.bytes_held as u64, ..self.stats.clone() }
    }
}

/// Masks that a peer cannot foresee (RFC 6455 section 10.3), from the standard library's keyed hash.
#[derive(Debug)]
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

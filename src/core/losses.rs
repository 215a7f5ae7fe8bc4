//! The count of bytes that were taken for sending and do not arrive: each once, under the reason that
//! came first.

use crate::context::stats::Counters;

/// Why bytes that were taken for sending do not arrive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Overflow,
    OverBudget,
    Stopped,
    Stalled,
    Gone,
    Aborted,
}

impl Loss {
    pub(super) fn count(self, stats: &mut Counters, bytes: usize) {
        let counter = match self {
            Self::Overflow => &mut stats.lost_overflow,
            Self::OverBudget => &mut stats.lost_over_budget,
            Self::Stopped => &mut stats.lost_stopped,
            Self::Stalled => &mut stats.lost_stalled,
            Self::Gone => &mut stats.lost_gone,
            Self::Aborted => &mut stats.lost_aborted,
        };
        *counter += bytes as u64;
    }
}

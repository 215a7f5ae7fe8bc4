//! The shares of a turn: what one connection may read and cause in it, and when the turn is late.

use crate::core::turn::Reading;

/// Shares after which a turn is late.
const SHARES_PER_TURN: usize = 4;
/// The part of its share, and of the read buffer, that a connection gets in a late turn.
const LATE_PART: usize = 16;

/// What has been read and caused in this turn, against what may be.
pub(super) struct Shares {
    /// What one connection may read at a time, and cause by it, in bytes: `read_budget_bytes`.
    pub(super) each: usize,
    /// How much is read at once.
    room: usize,
    /// How much is read at once in a turn that is not late: the read buffer.
    whole_room: usize,
    /// What was read and caused in this turn, in bytes.
    worked: usize,
    /// What `worked` is when a turn becomes late.
    late_at: usize,
}

impl Shares {
    pub(super) fn new(each: usize, room: usize) -> Self {
        let late_at = each.saturating_mul(SHARES_PER_TURN);
        Self { each, room, whole_room: room, worked: 0, late_at }
    }

    /// How much of a socket is read at once, of one that is read.
    #[inline]
    pub(super) fn room(&self, reading: Reading) -> usize {
        if reading == Reading::HalfBuffer { self.room / 2 } else { self.room }
    }

    #[inline]
    pub(super) fn is_late(&self) -> bool {
        self.worked >= self.late_at
    }

    /// Counts work. Once the turn is late, so much may each further connection cause.
    #[inline]
    pub(super) fn note(&mut self, work: usize) -> Option<usize> {
        // Far from wrapping: it begins anew with each turn, and ends soon after `late_at`.
        self.worked = self.worked.wrapping_add(work);
        self.is_late().then(|| {
            // Not nothing: whoever says little is served in a late turn too, however many flood it.
            self.room = self.whole_room / LATE_PART;
            self.each / LATE_PART
        })
    }

    /// Each has a whole share again; it is named if the turn was late.
    #[inline]
    pub(super) fn begin(&mut self) -> Option<usize> {
        // Most turns are not late, and change nothing here: the core is not asked for each of them.
        let was_late = self.is_late();
        self.worked = 0;
        was_late.then(|| {
            self.room = self.whole_room;
            self.each
        })
    }
}

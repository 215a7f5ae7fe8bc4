//! The spare of a loop: buffers of large messages between the last one and the next, and the message that a
//! hook is lent.

use std::ops::Range;
use std::rc::{Rc, Weak};

use crate::structures::assembled::Assembled;
use crate::structures::spare_buffers::SpareBuffers;

/// The part of `process_bytes` that it may take.
pub(super) const SHARE: usize = 4;

/// What [`LoopState`](crate::context::loop_state::LoopState) has of it.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(super) buffers: SpareBuffers,
    /// What connections and flows may hold at present: `process_bytes` without what is spare.
    pub(crate) leaves: usize,
    /// A timer is set for those that nobody uses.
    pub(super) timed: bool,
    /// The message that the present hook is lent.
    pub(super) lent: Weak<Assembled>,
}

impl Spare {
    pub(crate) fn new(process_bytes: usize) -> Self {
        let buffers = SpareBuffers::new(process_bytes / SHARE);
        Self { buffers, leaves: process_bytes, timed: false, lent: Weak::new() }
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.buffers.bytes()
    }

    /// Whether a buffer of that capacity is worth being kept.
    pub(crate) fn keeps(&self, capacity: usize) -> bool {
        self.buffers.keeps(capacity)
    }

    /// The message that the present hook is lent, and where in it these bytes are, if they are a part of it.
    pub(crate) fn lent_message(&self, part: &[u8]) -> Option<(Rc<Assembled>, Range<usize>)> {
        let message = self.lent.upgrade()?;
        let range = message.range_of(part)?;
        Some((message, range))
    }
}

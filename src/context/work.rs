//! The work that one connection may cause before the others are served: counted in bytes, as what is
//! read is, and at what it takes rather than at what the peer had to send for it.

/// A request as such: it is routed, and its answer put together.
pub(crate) const REQUEST_WORK: usize = 1 << 10;
/// A byte of a head, of which each may be a token of its own.
pub(crate) const HEAD_BYTE_WORK: usize = 4;
/// A file that is opened, or a page of figures that is written.
pub(crate) const PAGE_WORK: usize = 16 << 10;
/// A session that begins.
pub(crate) const UPGRADE_WORK: usize = 8 << 10;

/// Work done since the present connection's part of the turn began. Small messages count as what was
/// read; here is what a few bytes can make much of.
#[derive(Debug)]
pub(crate) struct Work {
    done: usize,
    budget: usize,
}

impl Work {
    pub(crate) fn new(budget: usize) -> Self {
        Self { done: 0, budget }
    }

    pub(crate) fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
    }

    /// Another connection has its part, or the same one has another.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.done = 0;
    }

    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// True if that was all for now.
    pub(crate) fn add(&mut self, work: usize) -> bool {
        self.done = self.done.saturating_add(work);
        self.is_spent()
    }

    /// Whether the rest has to wait for the next turn.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.done >= self.budget
    }
}

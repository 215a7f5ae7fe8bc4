//! The deferred answers of a server: how many are open, and what became of them.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::context::mailbox::Mailbox;

/// By which answers are deferred. `A` is what other threads send to the loop.
pub(crate) struct Deferrals<A> {
    pub(crate) mailbox: Mailbox<A>,
    counts: Rc<Counts>,
}

#[derive(Debug)]
struct Counts {
    max: usize,
    /// Given to the application and not given back, whether a client still waits for it or not.
    open: Cell<usize>,
    last: Cell<u64>,
    cancelled: Cell<u64>,
}

impl<A> fmt::Debug for Deferrals<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferrals").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<A> Deferrals<A> {
    pub(crate) fn new(max: usize, mailbox: Mailbox<A>) -> Self {
        let (open, last, cancelled) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { mailbox, counts: Rc::new(Counts { max, open, last, cancelled }) }
    }

    /// One more answer is deferred; `None` if as many are open as there may be.
    pub(crate) fn begin(&self) -> Option<Ticket> {
        let counts = &self.counts;
        if counts.open.get() >= counts.max {
            return None;
        }
        counts.open.set(counts.open.get().saturating_add(1));
        counts.last.set(counts.last.get().wrapping_add(1));
        let cancelled = Arc::default();
        Some(Ticket {
            number: counts.last.get(),
            cancelled,
            counts: Rc::clone(counts),
            is_settled: false,
        })
    }

    /// The application has given one back: answered, or dropped.
    pub(crate) fn given_back(&self) {
        self.counts.open.set(self.counts.open.get().saturating_sub(1));
    }

    /// How many are open.
    pub(crate) fn open(&self) -> u64 {
        self.counts.open.get() as u64
    }

    /// How many times nobody was there any more to be answered.
    pub(crate) fn cancelled(&self) -> u64 {
        self.counts.cancelled.get()
    }
}

/// A deferred answer, on the side of the request that waits for it. Once it is dropped the application
/// sees that nobody waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    cancelled: Arc<AtomicBool>,
    counts: Rc<Counts>,
    is_settled: bool,
}

impl Ticket {
    /// Where the application looks whether anybody waits.
    pub(crate) fn cancellation(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// The client has most likely left.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// The request is answered, and counted as what it was answered with.
    pub(crate) fn settle(&mut self) {
        self.is_settled = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
        if !self.is_settled {
            self.counts.cancelled.set(self.counts.cancelled.get().wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_back_once_and_nobody_waits_behind_a_ticket_that_is_gone() {
        let deferrals = Deferrals::<()>::new(2, Mailbox::default());
        let first = deferrals.begin().unwrap();
        let mut second = deferrals.begin().unwrap();
        assert!(deferrals.begin().is_none());
        assert_ne!(first.number, second.number);
        let seen = [first.cancellation(), second.cancellation()];
        let are_cancelled = || seen.each_ref().map(|seen| seen.load(Ordering::Acquire));
        drop(first);
        assert_eq!((are_cancelled(), deferrals.cancelled()), ([true, false], 1));
        // The application still works for nobody: that counts until it has seen it.
        assert!(deferrals.begin().is_none());
        deferrals.given_back();
        assert_eq!(deferrals.open(), 1);
        second.settle();
        drop(second);
        assert_eq!((are_cancelled(), deferrals.cancelled()), ([true, true], 1));
    }
}

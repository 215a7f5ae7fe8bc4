//! The loops of a hub as they know each other: whether all are there, and whether each still turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wirewheel::{Application, Handle, ServerRef};

/// What all loops share. A clone names the same.
#[derive(Clone, Debug)]
pub(crate) struct Loops(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    count: usize,
    /// One of each loop that is set up.
    handles: Mutex<Vec<Handle>>,
    asked: AtomicUsize,
    answered: AtomicUsize,
}

impl Loops {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Inner {
            count,
            handles: Mutex::default(),
            asked: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
        }))
    }

    /// One more is set up: whether all are.
    pub(crate) fn enter(&self, app: &Application) -> bool {
        let mut handles = self.0.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.push(app.handle());
        handles.len() == self.0.count
    }

    /// Whether each has turned since this was asked last; to be asked by one loop alone.
    pub(crate) fn have_turned(&self) -> bool {
        if self.0.count == 1 {
            return true; // the one that asks
        }
        if self.0.answered.load(Ordering::Acquire) < self.0.asked.load(Ordering::Relaxed) {
            return false;
        }
        let handles = self.0.handles.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in &*handles {
            let inner = Arc::clone(&self.0);
            let answer =
                move |_: &mut ServerRef<'_>| _ = inner.answered.fetch_add(1, Ordering::Release);
            // A mailbox that is full stays unanswered: nobody has looked into it.
            let _ = handle.defer(answer);
            self.0.asked.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

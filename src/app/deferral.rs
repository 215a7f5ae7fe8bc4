//! Whether the answer to a request may be deferred, and is: what its [`Call`](crate::Call) knows of it.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::context::commands::Settlement;
use crate::context::deferrals::{Deferrals, Ticket};
use crate::context::loop_state::Order;
use crate::context::mailbox::Mailbox;
use crate::structures::slab::Key;

/// The state of it. While a hook runs it may be deferred, once.
#[derive(Default)]
pub(crate) struct Deferral(RefCell<State>);

#[derive(Default)]
enum State {
    /// The request has its answer, or nobody waits for one.
    #[default]
    Closed,
    /// A hook may defer it, on this connection.
    Open(Key, Rc<Deferrals<Order>>),
    /// There were too many.
    TooMany,
    Deferred(Box<Waiting>),
}

/// What is known of a deferred answer while it is awaited.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    /// What the application said before its hook was over.
    pub(crate) early: Option<Settlement>,
    /// The headers that the upgrade hooks so far have accepted with, and how many they are.
    pub(crate) accepted: Vec<(String, String)>,
    pub(crate) hooks_done: usize,
}

/// Whom an answer is for, and the way to it from any thread.
pub(crate) struct Address {
    pub(crate) to: Key,
    pub(crate) number: u64,
    pub(crate) mailbox: Mailbox<Order>,
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// What a hook that defers leaves behind.
pub(crate) enum Begun {
    Waiting(Box<Waiting>),
    TooMany,
    /// It returned a deferred answer without having deferred it.
    Nothing,
}

impl fmt::Debug for Deferral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferral")
    }
}

impl Deferral {
    /// From now on a hook may defer the answer.
    pub(crate) fn open(&self, key: Key, deferrals: &Rc<Deferrals<Order>>) {
        *self.0.borrow_mut() = State::Open(key, Rc::clone(deferrals));
    }

    /// From now on none may: what was deferred is over.
    pub(crate) fn close(&self) {
        let before = mem::take(&mut *self.0.borrow_mut());
        drop(before); // what the application gave may ask for this in its drop
    }

    /// Defers it; `None` where nobody would wait for the answer.
    pub(crate) fn begin(&self) -> Option<Address> {
        let state = &mut *self.0.borrow_mut();
        let State::Open(key, deferrals) = state else { return None };
        let Some(ticket) = deferrals.begin() else {
            *state = State::TooMany;
            return None;
        };
        let (to, number, cancelled) = (*key, ticket.number, ticket.cancellation());
        let mailbox = deferrals.mailbox.clone();
        let accepted = Vec::new();
        *state =
            State::Deferred(Box::new(Waiting { ticket, early: None, accepted, hooks_done: 0 }));
        Some(Address { to, number, mailbox, cancelled })
    }

    /// Whether a hook has deferred it, or tried to.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(&*self.0.borrow(), State::Deferred(_) | State::TooMany)
    }

    /// So many upgrade hooks have accepted, the last of them as far as it knows yet.
    pub(crate) fn note_hooks(&self, accepted: Vec<(String, String)>, hooks_done: usize) {
        if let State::Deferred(waiting) = &mut *self.0.borrow_mut() {
            (waiting.accepted, waiting.hooks_done) = (accepted, hooks_done);
        }
    }

    /// The answer of that number has come while the hooks of the request still run; it is taken if it is
    /// this request's.
    pub(crate) fn settle_early(&self, number: u64, settlement: &mut Option<Settlement>) {
        match &mut *self.0.borrow_mut() {
            State::Deferred(waiting) if waiting.ticket.number == number => {
                waiting.early = settlement.take();
            }
            _ => {}
        }
    }

    /// Bytes of memory that an answer takes which came early.
    pub(crate) fn memory(&self) -> usize {
        match &*self.0.borrow() {
            State::Deferred(waiting) => waiting.early.as_ref().map_or(0, |early| early.bytes),
            State::Closed | State::Open(..) | State::TooMany => 0,
        }
    }

    /// The hooks are over: what they have left.
    pub(crate) fn take(&self) -> Begun {
        match mem::take(&mut *self.0.borrow_mut()) {
            State::Deferred(waiting) => Begun::Waiting(waiting),
            State::TooMany => Begun::TooMany,
            State::Closed | State::Open(..) => Begun::Nothing,
        }
    }
}

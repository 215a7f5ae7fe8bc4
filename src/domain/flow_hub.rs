//! Owns what the flows of one server share: the account of their bytes, the order of all that is
//! sent, and which flow gives way where bytes are short.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::flow_cell::FlowCell;

/// How many flows are looked at to make room at one time.
const LOOKED_AT_MAX: usize = 64;

/// What the flows of one server share.
#[derive(Debug, Default)]
pub(crate) struct FlowHub {
    /// Bytes of all logs together.
    bytes: Cell<usize>,
    /// What they may come to, together with what connections hold.
    limit: usize,
    held_by_connections: Cell<usize>,
    stamp: Cell<u64>,
    /// Flows with something new, or with publishers that may go on.
    touched: RefCell<Vec<Rc<FlowCell>>>,
    /// The flows that hold something, in the order in which they give way.
    holders: RefCell<BTreeMap<Rank, Weak<FlowCell>>>,
    given_up: Cell<u64>,
}

/// When a flow gives way: those that nobody collects before the others, and of each kind the one in
/// which nothing was published for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) collected: bool,
    pub(super) used: u64,
}

/// What a flow that was asked to give way has done.
pub(super) struct GaveWay {
    /// Messages that were given up.
    pub(super) messages: u64,
    /// False if it was only put in its place.
    pub(super) looked_at: bool,
    /// Where it stands from now on; `None` if it holds nothing.
    pub(super) rank: Option<Rank>,
}

impl FlowHub {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Messages of logs that were given up because `process_bytes` was spent.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.get()
    }

    /// Notes what connections hold: so much less is there for logs.
    pub(crate) fn note_connections(&self, bytes: usize) {
        self.held_by_connections.set(bytes);
    }

    /// A log that held `before` bytes holds `after`.
    pub(super) fn account(&self, before: usize, after: usize) {
        self.bytes.set((self.bytes.get() + after).saturating_sub(before));
    }

    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes.get() + self.held_by_connections.get())
    }

    /// The next place in the one order of all that is sent.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamp.set(self.stamp.get() + 1);
        self.stamp.get()
    }

    pub(super) fn touch(&self, flow: &Rc<FlowCell>) {
        self.touched.borrow_mut().push(Rc::clone(flow));
    }

    /// Takes the list of flows that somebody has to look at.
    pub(crate) fn take_touched(&self) -> Vec<Rc<FlowCell>> {
        let touched = self.touched.take();
        touched.iter().for_each(|flow| flow.unlist());
        touched
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.touched.borrow().is_empty()
    }
}

/// Giving way.
impl FlowHub {
    /// A flow holds something from now on: where it stands. A place is nobody else's.
    pub(super) fn list(&self, flow: Weak<FlowCell>, collected: bool) -> Rank {
        let rank = Rank { collected, used: self.next_stamp() };
        self.holders.borrow_mut().insert(rank, flow);
        rank
    }

    pub(super) fn unlist(&self, rank: Rank) {
        self.holders.borrow_mut().remove(&rank);
    }

    /// Makes room for `bytes` as far as flows hold what nobody awaits: encodings and messages that are
    /// there only for sessions that may come. Of a flow that nobody collects that is all.
    ///
    /// The cost is bounded: flows that have nothing to give stand last afterwards.
    #[inline]
    pub(crate) fn make_room(&self, bytes: usize) {
        if self.room() < bytes {
            self.give_way(bytes);
        }
    }

    #[cold]
    fn give_way(&self, bytes: usize) {
        let mut in_vain = 0;
        while self.room() < bytes && in_vain < LOOKED_AT_MAX {
            let Some((rank, flow)) = self.holders.borrow_mut().pop_first() else { return };
            let Some(cell) = flow.upgrade() else { continue };
            let gave = cell.give_way(self, rank, || self.room() < bytes);
            self.given_up.set(self.given_up.get() + gave.messages);
            if let Some(rank) = gave.rank {
                self.holders.borrow_mut().insert(rank, flow);
            }
            // What was put in its place, or gave something, was paid for when that was published.
            in_vain += usize::from(gave.looked_at && gave.messages == 0);
        }
    }
}

//! The pool that the flows of one server share: the account of their bytes, the order of all that is
//! sent, and which flow gives way where bytes are short. It knows of a flow only that it gives way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// How many flows are looked at to make room at one time.
const LOOKED_AT_MAX: usize = 64;

/// What the flows of one server share.
#[derive(Debug)]
pub(crate) struct FlowPool<F> {
    /// Bytes of all logs together.
    bytes: Cell<usize>,
    /// What they may come to, together with what connections hold.
    limit: usize,
    held_by_connections: Cell<usize>,
    stamp: Cell<u64>,
    /// Flows with something new, or with publishers that may go on.
    touched: RefCell<Vec<Rc<F>>>,
    /// The flows that hold something, in the order in which they give way.
    holders: RefCell<BTreeMap<Rank, Weak<F>>>,
    given_up: Cell<u64>,
}

/// When a flow gives way: by what it would give up, and of each kind the one first in which nothing was
/// published for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) gives: Gives,
    pub(crate) used: u64,
}

/// What a flow gives up, what is missed least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gives {
    /// What can be made again.
    Encodings,
    /// What is there for nobody, as nobody collects it.
    All,
    /// What all who collect it have taken.
    Replay,
}

/// What a flow that was asked to give way has done.
pub(crate) struct GaveWay {
    /// Messages that were given up.
    pub(crate) messages: u64,
    /// Where it stands from now on; `None` if it holds nothing.
    pub(crate) rank: Option<Rank>,
    /// It is the one that needs the room: it gives way by itself.
    pub(crate) asks: bool,
    /// It was looked at for nothing. (That it was put in its place was paid for by what was published.)
    pub(crate) in_vain: bool,
}

/// What holds messages in a pool, and gives some of them up where others need the room.
pub(crate) trait GivesWay: Sized {
    /// What it holds, in bytes.
    fn bytes(&self) -> usize;

    /// Gives up what nobody awaits, oldest first, as long as the pool is short of room. One in which
    /// something was published since it was listed moves to its place first.
    fn give_way(&self, pool: &FlowPool<Self>, rank: Rank, is_short: impl Fn() -> bool) -> GaveWay;

    /// Drops its oldest messages as long as there is need, where its policy is to drop; whether it did.
    fn drop_awaited(&self, is_needed: impl Fn() -> bool) -> bool;

    /// The pool's list of flows to be looked at was taken.
    fn unlist(&self);
}

impl<F: GivesWay> FlowPool<F> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: Cell::default(),
            held_by_connections: Cell::default(),
            stamp: Cell::default(),
            touched: RefCell::default(),
            holders: RefCell::default(),
            given_up: Cell::default(),
        }
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
    pub(crate) fn account(&self, before: usize, after: usize) {
        self.bytes.set((self.bytes.get() + after).saturating_sub(before));
    }

    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes.get() + self.held_by_connections.get())
    }

    /// The next place in the one order of all that is sent.
    pub(crate) fn next_stamp(&self) -> u64 {
        // 64 bits: at a billion a second it lasts for five centuries.
        self.stamp.set(self.stamp.get() + 1);
        self.stamp.get()
    }

    pub(crate) fn touch(&self, flow: &Rc<F>) {
        self.touched.borrow_mut().push(Rc::clone(flow));
    }

    /// Takes the list of flows that somebody has to look at.
    pub(crate) fn take_touched(&self) -> Vec<Rc<F>> {
        let touched = self.touched.take();
        touched.iter().for_each(|flow| flow.unlist());
        touched
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.touched.borrow().is_empty()
    }
}

/// Giving way.
impl<F: GivesWay> FlowPool<F> {
    /// A flow holds something from now on: where it stands. A place is nobody else's.
    pub(crate) fn list(&self, flow: Weak<F>, gives: Gives) -> Rank {
        let rank = Rank { gives, used: self.next_stamp() };
        self.holders.borrow_mut().insert(rank, flow);
        rank
    }

    pub(crate) fn unlist(&self, rank: Rank) {
        self.holders.borrow_mut().remove(&rank);
    }

    /// Makes room for `bytes` as far as flows hold what nobody awaits: encodings, and messages that are
    /// there only for sessions that may come.
    ///
    /// The cost is bounded: flows that have nothing to give stand last afterwards.
    #[inline]
    pub(crate) fn make_room(&self, bytes: usize) {
        if self.room() < bytes {
            self.give_way(bytes, Gives::Replay);
        }
    }

    /// The same for an encoding, to which no replay gives way that somebody who collects has use of.
    pub(crate) fn make_room_for_encoding(&self, bytes: usize) {
        if self.room() < bytes {
            self.give_way(bytes, Gives::All);
        }
    }

    /// The flow that holds most, of all that hold something.
    #[cold]
    pub(crate) fn largest(&self) -> Option<Rc<F>> {
        let holders = self.holders.borrow();
        holders.values().filter_map(Weak::upgrade).max_by_key(|flow| flow.bytes())
    }

    /// Has a flow drop what somebody awaits, as its policy has it, as long as there is no room: whether
    /// it dropped anything.
    #[cold]
    pub(crate) fn drop_awaited(&self, flow: &F) -> bool {
        flow.drop_awaited(|| self.room() == 0)
    }

    #[cold]
    fn give_way(&self, bytes: usize, at_most: Gives) {
        let begun = self.stamp.get();
        let mut in_vain = 0;
        let mut asking = None;
        while self.room() < bytes && in_vain < LOOKED_AT_MAX {
            let mut holders = self.holders.borrow_mut();
            let Some(first) = holders.first_entry() else { break };
            let rank = *first.key();
            // Whoever was asked in this search stands behind `begun` now, so that it ends.
            if rank.gives > at_most || rank.used > begun {
                break; // they have all been asked
            }
            // Taken out while it is asked, so that one that holds nothing afterwards is listed no more.
            let flow = first.remove();
            drop(holders);
            let Some(holder) = flow.upgrade() else { continue };
            // The list is not borrowed here: where this is the flow's last handle, its end unlists it.
            let gave = holder.give_way(self, rank, || self.room() < bytes);
            self.given_up.set(self.given_up.get() + gave.messages);
            // It puts itself in order when it has made its room; until then it keeps its place.
            if gave.asks {
                asking = Some((rank, flow));
            } else if let Some(rank) = gave.rank {
                self.holders.borrow_mut().insert(rank, flow);
                in_vain += usize::from(gave.in_vain);
            }
        }
        self.holders.borrow_mut().extend(asking);
    }
}

//! The mail of one loop: what other loops have sent waits here for as long as the seed likes.
//!
//! What is of one kind and from one loop keeps its order, and nothing else does: a loop that runs meanwhile
//! may see any part of what was sent, as threads do.

use std::collections::{BTreeMap, VecDeque};

use crate::context::loop_state::Order;
use crate::context::mailbox::{Inbox, Mailbox};
use crate::context::parcels::{Content, Load, Parcel};

use crate::testing::simulation::choices::Choices;

/// The mailbox that all know, and the one that the loop looks into.
pub(super) struct Post {
    known: Mailbox<Order>,
    /// `None` once the loop is over.
    sent: Option<Inbox<Order>>,
    own: Mailbox<Order>,
    /// What was sent of flows, by the loop that has.
    parcels: BTreeMap<usize, VecDeque<Parcel<Order>>>,
    /// There may be more than what woke the loop last.
    has_rest: bool,
}

impl Post {
    pub(super) fn new() -> Self {
        let known = Mailbox::default();
        let sent = Some(known.inbox());
        Self { known, sent, own: Mailbox::default(), parcels: BTreeMap::new(), has_rest: false }
    }

    pub(super) fn mailbox(&self) -> &Mailbox<Order> {
        &self.known
    }

    /// What the loop looks into.
    pub(super) fn inbox(&self) -> Inbox<Order> {
        self.own.inbox()
    }

    /// The loop is over.
    pub(super) fn close(&mut self) {
        self.sent = None;
        self.parcels.clear();
        self.has_rest = false;
    }

    /// Takes what was sent of flows out of the mailbox, so that it is known from whom it is.
    pub(super) fn sort(&mut self) {
        let Some(sent) = &self.sent else { return };
        for parcel in sent.take_parcels() {
            self.parcels.entry(parcel.from).or_default().push_back(parcel);
        }
    }

    /// Whether something waits that the loop could be woken for.
    pub(super) fn has_mail(&self) -> bool {
        let is_woken = self.sent.as_ref().is_some_and(Inbox::has_orders);
        is_woken || self.has_rest || !self.parcels.is_empty()
    }

    /// Hands all of it to the loop, and wakes it.
    pub(super) fn deliver_all(&mut self) {
        self.sort();
        let Some(sent) = &self.sent else { return };
        self.has_rest = false;
        sent.turn().for_each(|order| self.own.send_owed(order));
        sent.take_stop().into_iter().for_each(|stop| self.own.stop(stop));
        for parcel in std::mem::take(&mut self.parcels).into_values().flatten() {
            self.own.send_parcel(parcel);
        }
        self.own.wake();
    }

    /// Hands a part of it to the loop, and wakes it.
    pub(super) fn deliver_some(&mut self, choices: &mut Choices) {
        self.sort();
        let Some(sent) = &self.sent else { return };
        self.has_rest = true;
        let orders = choices.pick(&[0, 1, 3, 1_000]);
        // By hand, since a further one that the iterator looks for would be taken out.
        let mut of_turn = sent.turn();
        (0..orders).map_while(|_| of_turn.next()).for_each(|order| self.own.send_owed(order));
        drop(of_turn);
        if choices.one_in(2) {
            sent.take_stop().into_iter().for_each(|stop| self.own.stop(stop));
        }
        let senders: Vec<_> = self.parcels.keys().copied().collect();
        if let Some(sender) = senders.get(choices.size_below(senders.len())) {
            let most = choices.pick(&[1, 2, 1_000]);
            self.deliver_parcels(*sender, most);
        }
        self.own.wake();
    }

    fn deliver_parcels(&mut self, sender: usize, most: usize) {
        let Some(waiting) = self.parcels.get_mut(&sender) else { return };
        for _ in 0..most {
            let Some(parcel) = waiting.pop_front() else { break };
            self.own.send_parcel(parcel);
        }
        if waiting.is_empty() {
            self.parcels.remove(&sender);
        }
    }
}

/// What is on its way of one flow.
impl Post {
    /// What that loop has sent this one.
    pub(super) fn published_by(&self, from: usize, flow: &str) -> Load {
        self.sum(from, flow, |content| match content {
            Content::Published(_, published) => {
                let mut load = Load::default();
                published.iter().for_each(|bridged| load.add(bridged.load()));
                load
            }
            _ => Load::default(),
        })
    }

    /// What that loop tells this one that it has published.
    pub(super) fn done_by(&self, from: usize, flow: &str) -> Load {
        self.sum(from, flow, |content| match content {
            Content::Done(_, load) => *load,
            _ => Load::default(),
        })
    }

    fn sum(&self, from: usize, flow: &str, of: impl Fn(&Content<Order>) -> Load) -> Load {
        let mut sum = Load::default();
        let mut add = |parcel: &Parcel<Order>| {
            if parcel.from == from && *parcel.flow == *flow {
                sum.add(of(&parcel.content));
            }
        };
        self.parcels.values().flatten().for_each(&mut add);
        self.known.for_each_parcel(&mut add);
        self.own.for_each_parcel(&mut add);
        sum
    }
}

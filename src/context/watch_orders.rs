//! What the loop is to do with descriptors of the application, in the order in which it was said. `W` is a
//! descriptor with its callback.

use std::collections::VecDeque;

use crate::context::watch::Ready;
use crate::structures::ids::WatchId;
use crate::structures::slab::GenerationBits;

#[derive(Debug)]
pub(crate) struct WatchOrders<W> {
    orders: VecDeque<WatchOrder<W>>,
    last: WatchId,
}

#[derive(Debug)]
pub(crate) enum WatchOrder<W> {
    /// To watch one.
    Begin(WatchId, W),
    /// To watch it for something else.
    Change(WatchId, Ready),
}

impl<W> Default for WatchOrders<W> {
    fn default() -> Self {
        Self::of_loop(GenerationBits::NONE)
    }
}

impl<W> WatchOrders<W> {
    /// Those of a loop whose ids have these bits, above a count of as many as anybody watches.
    pub(crate) fn of_loop(bits: GenerationBits) -> Self {
        let last = WatchId(u64::from(bits.first()) << 32);
        Self { orders: VecDeque::new(), last }
    }

    pub(crate) fn begin(&mut self, watched: W) -> WatchId {
        self.last = WatchId(self.last.0.wrapping_add(1));
        self.orders.push_back(WatchOrder::Begin(self.last, watched));
        self.last
    }

    pub(crate) fn change(&mut self, id: WatchId, interest: Ready) {
        self.orders.push_back(WatchOrder::Change(id, interest));
    }

    pub(crate) fn next(&mut self) -> Option<WatchOrder<W>> {
        self.orders.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

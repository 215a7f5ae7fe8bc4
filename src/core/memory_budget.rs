//! The memory budget, which ends the connection that holds most when it is spent.

use std::rc::Rc;

use crate::context::loop_state::LoopState;
use crate::flow::inner::FlowInner;
use crate::flow::pool::GivesWay;

use crate::core::connections::Connections;

/// What all connections and flows hold, against `process_bytes`.
pub(super) struct MemoryBudget<'t> {
    pub(super) connections: &'t Connections,
    pub(super) shared: &'t LoopState,
}

impl MemoryBudget<'_> {
    /// Who is to be evicted: while more bytes are held than `process_bytes` allows, the connection that
    /// holds most of them. To be asked after every `handle_*`, until it says `None`.
    ///
    /// The connections are looked through only when the budget is spent, and every time that ends
    /// one that held at least the average: so much has to arrive before the next look. Before that,
    /// flows give up what nobody awaits. A flow that holds more than any connection drops what its
    /// policy lets it drop; where it drops nothing, the slowest of those who collect it and lag is who
    /// holds most.
    pub(super) fn largest_holder(&self) -> Option<u32> {
        if !self.is_over() {
            return None;
        }
        // Replays and encodings nobody awaits are cheaper to lose than a session.
        self.shared.flows.make_room(1);
        // Other loops have accepted that: nobody who is here has to go for it.
        let beyond = self.shared.bridges.beyond_limits();
        while self.shared.memory().saturating_sub(beyond) > self.shared.spare.leaves {
            let largest = self.largest();
            let held = largest.map_or(0, |(_, held)| held as usize);
            match self.shared.flows.largest().filter(|flow| flow.bytes() > held) {
                Some(flow) if self.shared.flows.drop_awaited(&flow) => {}
                Some(flow) => {
                    // It holds the log for all: ending anybody else would free nothing.
                    return self.slowest(&flow).or_else(|| largest.map(|(index, _)| index));
                }
                None => return largest.map(|(index, _)| index),
            }
        }
        None
    }

    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.shared.memory() > self.shared.spare.leaves
    }

    /// Who makes a flow hold what it holds.
    #[cold]
    fn slowest(&self, flow: &Rc<FlowInner>) -> Option<u32> {
        let mut slowest = None;
        flow.for_each_subscriber(|index| {
            let connection = self.connections.slab.at(index);
            let cursor = connection.and_then(|connection| connection.state.cursor_in(flow));
            if let Some(cursor) = cursor {
                if slowest.is_none_or(|(_, lowest)| cursor < lowest) {
                    slowest = Some((index, cursor));
                }
            }
        });
        // Without anyone who lags it is kept for other loops, or for a reader.
        slowest.filter(|(_, lowest)| *lowest < flow.end()).map(|(index, _)| index)
    }

    #[cold]
    fn largest(&self) -> Option<(u32, u32)> {
        let mut largest = None;
        let mut most = 0;
        for (index, connection) in self.connections.slab.iter() {
            if connection.charged > most {
                most = connection.charged;
                largest = Some((index, most));
            }
        }
        largest
    }
}

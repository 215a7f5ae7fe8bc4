//! Owns the byte budget of the process: who has to go when it is spent.

use std::rc::Rc;

use crate::flow::inner::FlowInner;
use crate::flow::pool::GivesWay;
use crate::structures::wire::Wire;
use crate::words::error::SessionError;

use super::Core;
use crate::core::connection::{Disposal, Stage};
use crate::core::ending::Loss;
use crate::core::turn::Turn;

impl Core {
    /// Who is to be handed to [`handle_offender`](Self::handle_offender): while more bytes are held
    /// than `process_bytes` allows, the connection that holds most of them. To be asked after every
    /// `handle_*`, until it says `None`.
    ///
    /// The connections are looked through only when the budget is spent, and every time that ends
    /// one that held at least the average: so much has to arrive before the next look. Before that,
    /// flows give up what nobody awaits. A flow that holds more than any connection drops what its
    /// policy lets it drop; where it drops nothing, the slowest of those who collect it is who holds
    /// most.
    pub(crate) fn poll_offender(&self) -> Option<u32> {
        if !self.is_over_budget() {
            return None;
        }
        self.shared.flows.make_room(1);
        while self.is_over_budget() {
            let largest = self.largest();
            let held = largest.map_or(0, |(_, held)| held as usize);
            match self.shared.flows.largest().filter(|flow| flow.bytes() > held) {
                Some(flow) if self.shared.flows.drop_awaited(&flow) => {}
                Some(flow) => {
                    return self.slowest(&flow).or_else(|| largest.map(|(index, _)| index));
                }
                None => return largest.map(|(index, _)| index),
            }
        }
        None
    }

    /// Who makes a flow hold what it holds.
    #[cold]
    fn slowest(&self, flow: &Rc<FlowInner>) -> Option<u32> {
        let mut slowest = None;
        flow.for_each_subscriber(|index| {
            let connection = self.connections.at(index);
            let cursor = connection.and_then(|connection| connection.state.cursor_in(flow));
            if let Some(cursor) = cursor {
                if slowest.is_none_or(|(_, lowest)| cursor < lowest) {
                    slowest = Some((index, cursor));
                }
            }
        });
        slowest.map(|(index, _)| index)
    }

    #[inline]
    pub(super) fn is_over_budget(&self) -> bool {
        self.shared.memory() > self.shared.limits.process_bytes
    }

    #[cold]
    fn largest(&self) -> Option<(u32, u32)> {
        let mut largest = None;
        let mut most = 0;
        for (index, connection) in self.connections.iter() {
            if connection.charged > most {
                most = connection.charged;
                largest = Some((index, most));
            }
        }
        largest
    }

    /// Ends the connection that [`poll_offender`](Self::poll_offender) named.
    pub(crate) fn handle_offender(&mut self, index: u32, wire: &mut dyn Wire) {
        self.shared.stats.over_budget += 1;
        let now = self.shared.now;
        self.turn(now, index, wire, |turn| turn.give_up());
    }
}

impl Turn<'_> {
    /// Ends a connection for what it holds.
    fn give_up(&mut self) {
        match self.connection.stage {
            // 1013, and what waits is dropped but for the frame that has begun.
            Stage::Session(_) => self.fail_and_lose(SessionError::Overloaded, Loss::OverBudget),
            // A peer that does not read its answers, or its Close, would not read a refusal either.
            Stage::Http(_) | Stage::Finishing => {
                self.lose(Loss::OverBudget);
                self.drop_socket(Disposal::Reset);
            }
            Stage::Closed(_) => {}
        }
    }

    /// Keeps the account of what this connection holds.
    #[inline]
    pub(crate) fn charge(&mut self) {
        if !self.connection.holds_nothing() {
            self.charge_what_is_held();
        }
    }

    fn charge_what_is_held(&mut self) {
        let (before, held) = (self.connection.charged as usize, self.connection.memory());
        if held != before {
            self.connection.charged = u32::try_from(held).unwrap_or(u32::MAX);
            self.shared.account(before, self.connection.charged as usize);
        }
    }
}

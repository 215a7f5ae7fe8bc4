//! The books between two servers of this code, of which one has dialled the other: what a session has
//! accepted arrives at the other one's, in either direction, or is lost for exactly one reason.

use std::cell::RefCell;
use std::rc::Rc;

use crate::words::close::{CloseInfo, ClosedBy};

use super::losses::{FaultKind, LossCause};
use super::upstream::{FIRST_DIALLED, Upstream};
use super::world::{Log, World};

/// One direction of a connection that is over at both ends.
struct Direction<'a> {
    from: &'a Log,
    to: &'a Log,
    /// The worlds of both.
    sender: &'a World,
    receiver: &'a World,
    /// One of both servers has ended connections because `process_bytes` was spent.
    over_budget: bool,
}

impl Upstream {
    /// Closes the books of all sessions that are over at both ends.
    pub(super) fn settle_between(
        &mut self,
        world: &Rc<RefCell<World>>,
        over_budget: bool,
    ) -> Result<(), String> {
        let mut losses = Vec::new();
        {
            let (own, far) = (&*world.borrow(), &*self.far_world.borrow());
            for (&name, far_log) in far.sessions.range(FIRST_DIALLED..) {
                let Some(own_log) = own.sessions.get(&name) else { continue };
                let is_over = own_log.end.is_some() && (far_log.end.is_some() || far_log.killed);
                if !is_over || !self.settled.insert(name) {
                    continue;
                }
                let there = Direction {
                    from: own_log,
                    to: far_log,
                    sender: own,
                    receiver: far,
                    over_budget,
                };
                let back = Direction {
                    from: far_log,
                    to: own_log,
                    sender: far,
                    receiver: own,
                    over_budget,
                };
                for (direction, what) in [(there, "dialled"), (back, "accepted")] {
                    let lost = direction.settle();
                    losses.push(lost.map_err(|why| {
                        format!(
                            "what was sent in session {name} by the side that has {what}: {why}"
                        )
                    })?);
                }
            }
        }
        let tally = &mut world.borrow_mut().tally;
        tally.between += losses.len() / 2;
        losses.into_iter().flatten().for_each(|loss| tally.between_losses.count(loss));
        Ok(())
    }
}

impl Direction<'_> {
    /// Why something is missing; `None` if nothing is.
    fn settle(&self) -> Result<Option<LossCause>, String> {
        let (sent, arrived) = (self.from.sent.len(), self.to.heard.arrived);
        let (lost, dropped) = (sent - arrived.min(sent), self.from.dropped);
        if lost == 0 {
            return Ok(None);
        }
        if lost <= dropped {
            return Ok(Some(LossCause::Overflow));
        }
        let account = format!(
            "{lost} of {sent} messages are missing, {dropped} were dropped; ends: {:?} and {:?}, \
             faults: {:?} and {:?}",
            self.from.end, self.to.end, self.from.fault, self.to.fault
        );
        // Before a Close that came and was answered nothing can be missing, unless it says that.
        let is_whole = |end: &CloseInfo| end.is_clean() && end.closed_by() == ClosedBy::Remote;
        let is_said = self.from.fault.is_some_and(|fault| fault.kind == FaultKind::Overloaded);
        if self.to.end.as_ref().is_some_and(is_whole) && !is_said {
            return Err(account);
        }
        self.reason().map(Some).ok_or(account)
    }

    fn reason(&self) -> Option<LossCause> {
        if self.from.aborted || self.to.aborted {
            return Some(LossCause::Aborted);
        }
        if self.is_gone() {
            return Some(LossCause::Gone);
        }
        match self.from.fault.map(|fault| fault.kind) {
            Some(FaultKind::Overloaded) if self.sender.closes_when_full => {
                return Some(LossCause::Overflow);
            }
            Some(FaultKind::Overloaded) => return Some(LossCause::OverBudget),
            Some(FaultKind::PingTimeout | FaultKind::WriteTimeout) => {
                return Some(LossCause::Stalled);
            }
            _ => {}
        }
        if self.sender.stops_at.is_some() || self.receiver.stops_at.is_some() {
            return Some(LossCause::Stopped);
        }
        if self.over_budget {
            return Some(LossCause::OverBudget);
        }
        // Whoever waits for a Close that does not come within `close_timeout` knows that it may have lost
        // something; and whoever is paused answers none.
        let is_unclean = self.from.end.as_ref().is_some_and(|end| !end.is_clean());
        (is_unclean && self.sender.mood.may_be_slow()).then_some(LossCause::Stalled)
    }

    /// Whether the receiver's end, or that of the connection, came first.
    fn is_gone(&self) -> bool {
        let ended_first = |end: &CloseInfo| end.closed_by() == ClosedBy::Local;
        let is_disturbed = self.from.disturbed || self.to.disturbed || self.to.killed;
        is_disturbed || self.to.fault.is_some() || self.to.end.as_ref().is_some_and(ended_first)
    }
}

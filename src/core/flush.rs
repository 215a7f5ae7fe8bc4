//! The flush after the events of a turn: flows to their subscribers, and what sessions were sent by others.

use std::hint::black_box;
use std::rc::Rc;

use crate::flow::inner::FlowInner;
use crate::flow::reader::Taken;
use crate::session::read_pause::ReadPause;
use crate::session::send::Outgoing;
use crate::structures::wire::Wire;
use crate::words::time::Time;

use crate::core::connection::Stage;
use crate::core::panics::drop_caught;
use crate::core::rounds::NextRound;
use crate::core::session_output::SessionOutput;
use crate::core::turn::Reading;
use crate::core::turns::Core;

/// The work of one flush: so many sessions to which one message goes, or fewer to which more goes.
/// The rest has its turns in the next flushes, and everything else between them.
pub(super) const FLUSH_WORK: usize = 1024;

impl Core {
    /// Whether something is left to do that no event and no deadline will announce.
    pub(crate) fn has_work(&self) -> bool {
        #[cfg(feature = "client")]
        if self.has_dial_work() {
            return true;
        }
        #[cfg(feature = "tls")]
        if self.shared.reload_requested {
            return true;
        }
        self.has_to_flush() || !self.shared.watches.is_empty() || self.shared.stop_request.is_some()
    }

    /// Whether a flush has something to do.
    #[inline]
    fn has_to_flush(&self) -> bool {
        let shared = &self.shared;
        !shared.to_flush.is_empty()
            || !self.rounds.is_empty()
            || !shared.to_resume.is_empty()
            || !shared.flows.is_quiet()
            || !shared.readers.is_quiet()
            || !self.read_by_readers.is_empty()
    }

    /// Whether what other loops have sent waits for a flow to move.
    #[inline]
    pub(super) fn has_waiting_bridges(&self) -> bool {
        self.shared.bridges.some_wait()
    }

    /// Gathers whom there is something to write to, behind those whom the last flush did not come to.
    /// Each that [`poll_flush`](Self::poll_flush) names is then to be handed to
    /// [`handle_flush`](Self::handle_flush), and [`end_flush`](Self::end_flush) to be called, whether
    /// all were named or not.
    ///
    /// What a flow has is offered in rounds: a round is over once all have been handled who collected
    /// the flow when it began. Who lags is decided only then; what is published meanwhile is for the
    /// next round.
    ///
    /// False if there is nothing to flush, as after most turns, and nothing of that to be called.
    #[inline]
    pub(crate) fn begin_flush(&mut self) -> bool {
        (self.flushed, self.shared.pull_work) = (0, 0);
        // While some wait, their copies are still there. But where there is always somebody, input must not
        // wait for ever: what is copied counts for the sessions that it is for.
        let has_waited = std::mem::replace(&mut self.has_input_waited, self.shared.copies_wait());
        if self.rounds.is_empty() || has_waited {
            self.shared.copied_bytes = 0;
        }
        let has_to_flush = self.has_to_flush();
        if has_to_flush {
            self.begin_rounds();
        }
        has_to_flush
    }

    #[inline(never)]
    fn begin_rounds(&mut self) {
        if !self.shared.to_flush.is_empty() {
            let listed = &mut self.shared.to_flush;
            self.rounds.begin(None, |left| left.append(listed));
        }
        for flow in self.shared.flows.take_touched() {
            // Once a round is on its way, what is published meanwhile is for the next.
            if flow.begin_offering() {
                let offered = Rc::clone(&flow);
                self.rounds.begin(Some(flow), |left| {
                    offered.for_each_subscriber(|index| left.push(index));
                });
            } else {
                self.list_readers(flow);
            }
        }
    }

    /// Whom to write to next; `None` if there is nobody, or enough was done for this turn.
    #[inline]
    pub(crate) fn poll_flush(&mut self) -> Option<u32> {
        self.rounds.next().or_else(|| self.next_round())
    }

    #[inline(never)]
    fn next_round(&mut self) -> Option<u32> {
        while self.flushed.saturating_add(self.shared.pull_work) < FLUSH_WORK {
            match self.rounds.go_on() {
                NextRound::Sessions => {
                    self.flushed = self.flushed.saturating_add(self.rounds.present().len());
                    self.fetch_ahead();
                    return self.rounds.next();
                }
                NextRound::Over(flow) => self.list_readers(flow),
                NextRound::Nothing => break,
            }
        }
        None
    }

    /// Reads what the turns of the next sessions begin with. Since their last turns the system's own
    /// work for thousands of sockets has pushed it out of the caches; here the misses overlap, while
    /// within the turns each would be waited for.
    fn fetch_ahead(&self) {
        let next = self.rounds.present().iter();
        let cursors =
            next.filter_map(|&index| self.connections.slab.at(index)?.state.first_cursor());
        black_box(cursors.fold(0, u64::wrapping_add));
    }

    /// Writes what waits for one connection.
    pub(crate) fn handle_flush(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        if !self.deliver_plain(now, index, wire) {
            self.flush_turn(now, index, wire);
        }
    }

    /// What most of these turns are, without what a turn is for: no code of the application runs, and nothing
    /// is left to be looked at. False if it was more, or something came up; nothing of it is done twice then.
    #[inline]
    fn deliver_plain(&mut self, now: Time, index: u32, wire: &mut dyn Wire) -> bool {
        self.shared.now = now;
        let Some(connection) = self.connections.slab.at_mut(index) else { return false };
        let state = &mut connection.state;
        state.listed = false;
        if !matches!(connection.stage, Stage::Session(_)) || state.extra.is_some() {
            return false;
        }
        let route = self.routes.options(state.route);
        let mut out = Outgoing { state, shared: &mut self.shared, route, wire };
        out.deliver_plain() && connection.state.extra.is_none()
    }

    #[inline(never)]
    fn flush_turn(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        let more = self.caught_turn(now, index, wire, |turn| {
            let all_is_out = SessionOutput { turn: &mut *turn }.flush_fast();
            if all_is_out {
                return false;
            }
            let more = turn.flush_listed();
            turn.conclude();
            more
        });
        if more == Some(true) {
            self.flush_again(index);
        }
        self.after_turn(now);
    }

    /// Lets others go first. The round is not over before this one was offered all that is offered.
    #[cold]
    fn flush_again(&mut self, index: u32) {
        let Some(connection) = self.connections.slab.at_mut(index) else { return };
        let round = self.rounds.current();
        match round.and_then(|round| Some((round.flow.clone()?, round))) {
            Some((flow, round)) if connection.state.is_before(&flow, flow.offering()) => {
                round.repeat(index);
            }
            _ => connection.state.list_for_flush(&mut self.shared),
        }
    }

    /// A flow was offered to all sessions that collect it: its readers follow.
    fn list_readers(&mut self, flow: Rc<FlowInner>) {
        // Not in the rounds of sessions, which are for thousands: a reader takes many messages at a time.
        let readers = &mut self.shared.readers;
        if flow.for_each_reader(|id| readers.list(id)) {
            self.read_by_readers.push(flow);
        } else {
            self.unsettled.push(flow);
        }
    }

    /// Has the next reader take what its flow has for it, as far as one may go at a time; false if there is
    /// none, or enough was done for this turn.
    #[cold]
    fn read_next(&mut self, now: Time) -> bool {
        // A message for a reader is as much work as one for a session.
        if self.flushed.saturating_add(self.shared.pull_work) >= FLUSH_WORK {
            return false;
        }
        // Out of the table while it runs: its code may add readers, and end this one.
        let Some((id, mut reader)) = self.shared.readers.take_due() else { return false };
        let outcome = self.with_server(now, "reader", |server| {
            let mut batch = reader.reading.batch();
            let taken = (reader.read)(server, &mut batch);
            batch.end(taken)
        });
        let goes_on = match outcome {
            Some((looked_at, taken)) => {
                // One that looks at nothing and has itself called again is work too.
                self.flushed = self.flushed.saturating_add(looked_at.max(1));
                (taken != Taken::Stop).then_some(taken == Taken::Yes)
            }
            // Offered the same again, it would panic for ever.
            None => None,
        };
        match goes_on {
            Some(goes_on) => {
                drop_caught("a reader", self.shared.readers.put_back(id, reader, goes_on))
            }
            None => drop_caught("a reader", (reader, self.shared.readers.forget(id))),
        }
        true
    }

    /// Behind the sessions come the readers. Of the flows whose rounds are over, drops what their policies
    /// drop, and lets their publishers go on.
    pub(crate) fn end_flush(&mut self, now: Time) {
        while !self.shared.readers.is_quiet() && self.read_next(now) {}
        // A reader that was not offered everything does not lag yet.
        if self.shared.readers.is_quiet() {
            self.unsettled.append(&mut self.read_by_readers);
        }
        for flow in self.unsettled.drain(..) {
            for key in flow.settle() {
                let Some(connection) = self.connections.slab.get_mut(key) else { continue };
                let extra = connection.state.extra.as_deref_mut();
                let Some(pause) = extra.and_then(|extra| extra.read_pause.as_deref_mut()) else {
                    continue;
                };
                pause.flow_goes_on();
                if pause.is_over() {
                    self.shared.to_resume.push(key.index);
                }
            }
        }
        self.resuming.append(&mut self.shared.to_resume);
    }

    /// The next connection that may be read again; to be handed to
    /// [`handle_resume`](Self::handle_resume).
    pub(crate) fn poll_resume(&mut self) -> Option<u32> {
        self.resuming.pop()
    }

    /// Whether something of a connection is held that nothing stops any more.
    pub(crate) fn is_waiting_for_its_turn(&self, index: u32) -> bool {
        let pause =
            self.connections.slab.at(index).and_then(|connection| connection.state.read_pause());
        pause.is_some_and(ReadPause::is_over)
    }

    /// Delivers what was held while reading was paused.
    pub(crate) fn handle_resume(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
    ) -> Option<Reading> {
        self.shared.work.begin();
        // Others are to be written to first; it stays in the list.
        if self.shared.must_yield() {
            self.shared.to_resume.push(index);
            return None;
        }
        let reading = self.resume_turn(now, index, wire);
        self.finish_input(now, index, wire, reading)
    }
}

//! Owns what is written after the events of a turn: flows to their subscribers, and what sessions
//! were sent by others.

use std::hint::black_box;

use crate::structures::wire::Wire;
use crate::words::time::Time;

use super::Core;
use super::connection::Stage;
use super::turn::{Reading, Turn};

/// Sessions whose memory is fetched together.
const FETCHED_TOGETHER: usize = 16;

impl Core {
    /// Whether something is left to do that no event and no deadline will announce.
    pub(crate) fn has_work(&self) -> bool {
        let shared = &self.shared;
        !shared.to_flush.is_empty()
            || !shared.to_resume.is_empty()
            || !shared.flows.is_quiet()
            || !shared.new_watches.is_empty()
            || shared.stop_request.is_some()
    }

    /// Gathers whom there is something to write to. Each that [`poll_flush`](Self::poll_flush)
    /// names is then to be handed to [`handle_flush`](Self::handle_flush), and
    /// [`end_flush`](Self::end_flush) to be called.
    pub(crate) fn begin_flush(&mut self) {
        self.shared.copied_bytes = 0;
        for flow in self.shared.flows.take_touched() {
            if flow.begin_offering() {
                flow.for_each_subscriber(|index| {
                    if let Some(connection) = self.connections.at_mut(index) {
                        self.shared.list_for_flush(&mut connection.state);
                    }
                });
            }
            self.unsettled.push(flow);
        }
        self.flushing.append(&mut self.shared.to_flush);
    }

    #[inline]
    pub(crate) fn poll_flush(&mut self) -> Option<u32> {
        if !self.flushing.is_empty() && self.flushing.len() % FETCHED_TOGETHER == 0 {
            self.fetch_ahead();
        }
        self.flushing.pop()
    }

    /// Reads what the turns of the next sessions begin with. Since their last turns the system's own
    /// work for thousands of sockets has pushed it out of the caches; here the misses overlap, while
    /// within the turns each would be waited for.
    fn fetch_ahead(&self) {
        let next = self.flushing.iter().rev().take(FETCHED_TOGETHER);
        let cursors = next.filter_map(|&index| self.connections.at(index)?.state.first_cursor());
        black_box(cursors.fold(0, u64::wrapping_add));
    }

    /// Writes what waits for one connection.
    pub(crate) fn handle_flush(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        self.caught_turn(now, index, wire, |turn| {
            if !turn.flush_plainly() {
                turn.flush_listed();
                turn.conclude();
            }
        });
        self.after_turn(now);
    }

    /// Whoever can take has taken: flows drop what their policy drops, and publishers go on.
    pub(crate) fn end_flush(&mut self) {
        for flow in self.unsettled.drain(..) {
            for key in flow.settle() {
                let Some(connection) = self.connections.get_mut(key) else { continue };
                let extra = connection.state.extra.as_deref_mut();
                let Some(hold) = extra.and_then(|extra| extra.hold.as_deref_mut()) else {
                    continue;
                };
                hold.flow_goes_on();
                if hold.is_over() {
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

    /// Delivers what was held while reading was paused.
    pub(crate) fn handle_resume(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
    ) -> Option<Reading> {
        if self.shared.copies_wait() {
            self.shared.to_resume.push(index);
            return None;
        }
        let reading = self.turn(now, index, wire, |turn| turn.resume()).flatten();
        self.finish_input(now, index, wire, reading)
    }

    /// Commands first, then the rest of the input that waited for them.
    #[inline]
    pub(super) fn finish_input(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        reading: Option<Reading>,
    ) -> Option<Reading> {
        if self.shared.asked { self.finish_asked(now, index, wire, reading) } else { reading }
    }

    #[inline(never)]
    fn finish_asked(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        mut reading: Option<Reading>,
    ) -> Option<Reading> {
        while self.shared.asked {
            self.after_turn(now);
            let waits = self.connections.at_mut(index).is_some_and(|connection| {
                connection.state.hold().is_some_and(|hold| hold.is_over())
            });
            if waits && self.shared.copies_wait() {
                self.shared.to_resume.push(index);
                return self.turn(now, index, wire, |turn| turn.reading());
            }
            if waits {
                reading = self.turn(now, index, wire, |turn| turn.resume()).flatten();
            }
        }
        reading
    }
}

impl Turn<'_> {
    /// What is usual: a message for many, of which the socket takes all. True if that was so: then
    /// nothing has come up, and nothing is held that was not held before.
    #[inline]
    fn flush_plainly(&mut self) -> bool {
        self.connection.state.listed = false;
        matches!(self.connection.stage, Stage::Session(_))
            && self.connection.state.extra.is_none()
            && self.session().pull_only_one()
            && self.connection.state.extra.is_none()
    }

    #[inline(never)]
    fn flush_listed(&mut self) {
        let extra = self.connection.state.extra.as_deref();
        if extra.is_some_and(|extra| extra.blocked && !extra.outbox.is_empty()) {
            return; // only a WRITABLE event can help
        }
        if extra.is_some_and(|extra| !extra.outbox.is_empty()) {
            self.writable();
        } else if self.connection.state.collected.is_some() {
            let waited = self.connection.state.is_waiting();
            self.pull();
            if waited && !self.connection.state.is_waiting() {
                self.drained();
            }
        }
    }

    /// Takes from the flows what the socket has room for.
    pub(super) fn pull(&mut self) {
        if matches!(self.connection.stage, Stage::Session(_)) {
            self.session().pull();
            if self.connection.state.extra.is_some() {
                self.act_on_wire_fault();
            }
        }
    }
}

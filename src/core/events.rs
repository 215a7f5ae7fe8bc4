//! What the driver tells the core, and what it asks of it.

use std::error::Error;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use log::info;

use crate::context::adoptions::Adopted;
use crate::context::commands::{Drained, StopRequest};
use crate::context::detached::Handover;
use crate::context::loop_state::NewWatch;
use crate::context::watch_orders::WatchOrder;
#[cfg(feature = "tls")]
use crate::context::{loops::Place, mailbox::Mailbox};
use crate::session::read_pause::ReadEnd;
use crate::structures::wire::Wire;
use crate::words::close::{CloseCode, CloseReason};
use crate::words::network::ClientKey;
use crate::words::time::Time;

use crate::core::arrivals::{Admitted, Full};
use crate::core::connection::Disposal;
#[cfg(feature = "client")]
use crate::core::dials::Dials;
use crate::core::memory_budget::MemoryBudget;
use crate::core::turn::Reading;
use crate::core::turns::{Core, Drain};

/// Events of a connection.
impl Core {
    /// Bytes arrived; they are unmasked in place.
    #[inline(always)] // into its one caller: a call would be 5 % of an echo
    pub(crate) fn handle_input(
        &mut self,
        now: Time,
        index: u32,
        rx: &mut [u8],
        wire: &mut dyn Wire,
    ) -> Reading {
        self.shared.stats.bytes_in += rx.len() as u64;
        // Each connection has a share of its own, whoever came before it in this turn.
        self.shared.work.begin();
        let reading = self.caught_turn(now, index, wire, |turn| turn.input(rx));
        self.finish_input(now, index, wire, reading).unwrap_or(Reading::Continue)
    }

    /// The socket takes bytes again.
    pub(crate) fn handle_writable(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
    ) -> Reading {
        self.shared.work.begin();
        let reading = self.turn(now, index, wire, |turn| turn.writable());
        self.finish_input(now, index, wire, reading).unwrap_or(Reading::Continue)
    }

    /// The peer has shut its side.
    pub(crate) fn handle_eof(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        #[cfg(feature = "client")]
        if (Dials { core: self }).ended(now, index, None, wire) {
            return;
        }
        self.turn(now, index, wire, |turn| turn.peer_ended(ReadEnd::Shut));
        self.after_turn(now);
    }

    /// The peer has ended its side, or the connection failed (and how), while the core does not want
    /// the socket to be read, so that no read will tell. May be said again.
    pub(crate) fn handle_hang_up(
        &mut self,
        now: Time,
        index: u32,
        failure: Option<io::ErrorKind>,
        wire: &mut dyn Wire,
    ) {
        // An end without a failure is read behind the answer.
        #[cfg(feature = "client")]
        if failure.is_some() && (Dials { core: self }).ended(now, index, failure, wire) {
            return;
        }
        self.turn(now, index, wire, |turn| turn.hung_up(failure));
        self.after_turn(now);
    }

    /// The connection failed.
    pub(crate) fn handle_error(
        &mut self,
        now: Time,
        index: u32,
        kind: io::ErrorKind,
        wire: &mut dyn Wire,
    ) {
        #[cfg(feature = "client")]
        if (Dials { core: self }).ended(now, index, Some(kind), wire) {
            return;
        }
        self.turn(now, index, wire, |turn| turn.broken(kind));
        self.after_turn(now);
    }

    /// What [`poll_due`](Self::poll_due) named is due.
    pub(crate) fn handle_timeout(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        self.turn(now, index, wire, |turn| turn.timeout());
        self.after_turn(now);
    }
}

/// New connections.
impl Core {
    /// When a further connection is taken; `None` while only somebody's leaving makes room. Until
    /// then, whoever comes waits in the system's backlog.
    pub(crate) fn accepts_at(&mut self) -> Option<Time> {
        self.connections.accepts_at(&self.shared)
    }

    /// Whether a further connection is taken now.
    pub(crate) fn accepts(&mut self, now: Time) -> bool {
        self.connections.accepts(now, &self.shared)
    }

    /// A connection was accepted: whether it is let in.
    pub(crate) fn admit(&mut self, now: Time, peer: SocketAddr) -> Result<Admitted, Full> {
        self.connections.admit(now, peer, &mut self.shared)
    }

    /// The loop that gets it, if it is another one.
    pub(crate) fn other_loop(&mut self, now: Time, admitted: Admitted) -> Option<usize> {
        self.connections.other_loop(now, admitted, &self.shared)
    }

    /// It is on its way to that loop.
    pub(crate) fn hand_to_loop(&mut self, number: usize, adopted: Adopted) {
        let Some(place) = &self.shared.place else { return };
        let (peer, counted) = (adopted.peer, adopted.handed.is_some_and(|handed| handed.counted));
        // It fails only where that loop is over, which ends the server.
        if place.hand_over(number, adopted).is_err() {
            self.forget(peer, counted);
        }
    }

    /// A connection that was let in has come to nothing.
    pub(crate) fn forget(&mut self, peer: SocketAddr, counted: bool) {
        self.connections.forget(peer, counted, &self.shared);
    }

    /// A connection that was let in: the slot it has from now on.
    pub(crate) fn handle_accept(
        &mut self,
        now: Time,
        peer: SocketAddr,
        admitted: Admitted,
    ) -> Result<u32, Full> {
        self.connections.enter(now, peer, admitted, &mut self.shared, &self.routes)
    }

    /// Whether somebody waits to be adopted.
    #[inline]
    pub(crate) fn has_adopted(&self) -> bool {
        !self.shared.deferrals.mailbox.adoptions().is_empty()
    }

    /// The next connection that was accepted by somebody else.
    #[inline]
    pub(crate) fn poll_adopted(&self) -> Option<Adopted> {
        let adoptions = self.shared.deferrals.mailbox.adoptions();
        let waited = adoptions.len();
        let adopted = adoptions.pop()?;
        if let Some(place) = &self.shared.place {
            place.took_one_of(waited);
        }
        Some(adopted)
    }

    /// A connection that was to be adopted is hung up on.
    pub(crate) fn note_not_adopted(&self, peer: SocketAddr, error: &dyn Error) {
        let line = || format!("{peer} could not be adopted: {error}");
        self.shared.warnings.note("adopt", self.shared.now, line);
    }

    /// Whether a connection that was accepted just now has to begin with a PROXY header.
    pub(crate) fn awaits_proxy_header(&self, index: u32) -> bool {
        self.connections.awaits_proxy_header(index)
    }

    /// The local address of a connection that was accepted just now, where it is known.
    pub(crate) fn note_local_addr(&mut self, index: u32, local: Option<SocketAddr>) {
        self.connections.note_local_addr(index, local);
    }

    /// Whether it is the only loop, or the one that accepts.
    #[cfg(feature = "tls")]
    pub(crate) fn is_first_loop(&self) -> bool {
        self.shared.place.as_ref().is_none_or(Place::is_first)
    }

    /// Certificates are to be read again at the end of this turn.
    #[cfg(feature = "tls")]
    pub(crate) fn request_reload(&mut self) {
        self.shared.reload_requested = true;
    }

    /// The other loops hear that certificates were read again.
    #[cfg(feature = "tls")]
    pub(crate) fn tell_certificates(&self) {
        let place = self.shared.place.iter();
        place.for_each(|place| place.others().for_each(Mailbox::note_certificates));
    }

    /// Says what was counted, where other loops want to know.
    #[inline]
    pub(crate) fn publish_stats(&self) {
        self.shared.publish_stats();
    }

    /// The other loops are to stop as well, unless they were the ones who said so.
    pub(crate) fn stop_other_loops(&self, now: Time, request: &StopRequest) {
        let ends = now.after(request.grace);
        if self.draining.as_ref().is_none_or(|drain| ends < drain.deadline) {
            self.tell_other_loops(request);
        }
    }

    /// The other loops are to stop as well.
    pub(crate) fn tell_other_loops(&self, request: &StopRequest) {
        if let Some(place) = &self.shared.place {
            place.others().for_each(|mailbox| mailbox.stop(request.clone()));
        }
    }

    /// What goes with the connection that left the loop from this slot.
    pub(crate) fn take_handover(&mut self, slot: u32) -> Option<Handover> {
        let handovers = &mut self.shared.handovers;
        let found = handovers.iter().position(|handover| handover.slot == slot)?;
        Some(handovers.swap_remove(found))
    }

    /// The socket of a connection that was to leave the loop is lost.
    pub(crate) fn note_not_detached(&self, error: &io::Error) {
        let line = || format!("a connection could not be detached: {error}");
        self.shared.warnings.note("detached", self.shared.now, line);
    }

    /// The time of this turn.
    pub(crate) fn now(&self) -> Time {
        self.shared.now
    }

    /// A connection that left the loop is over: it counts no more.
    #[allow(clippy::arithmetic_side_effects, reason = "it was counted when it came")]
    pub(crate) fn release_detached(&mut self, client: Option<ClientKey>) {
        self.connections.release_detached(client);
        self.shared.stats.connections_open -= 1;
        self.shared.note_connection_ended();
    }

    /// The system ran out of descriptors or memory for connections.
    pub(crate) fn note_exhausted(&mut self, now: Time, error: &io::Error) {
        self.shared.stats.accept_exhausted += 1;
        self.shared.warnings.note("accept", now, || format!("accepting pauses: {error}"));
    }
}

/// A stop.
impl Core {
    /// Begins to stop: requests get 503, sessions a Close. Every slot that
    /// [`next_connection`](Self::next_connection) names is then to be handed to `handle_drain`.
    pub(crate) fn begin_drain(&mut self, now: Time, code: CloseCode, grace: Duration) {
        // Before anybody gets a Close: what these hooks send still finds open sessions.
        for hook in mem::take(&mut self.shared.stop_hooks.0) {
            self.with_server(now, "on_shutdown", hook);
        }
        let deadline = now.after(grace);
        let earlier = self.draining.take();
        let remaining = self.connections.begin_drain();
        info!(target: "wirewheel::server", "stopping: {remaining} connections have {grace:?}");
        let reason = CloseReason::own(code, "");
        // A second stop may hurry, never prolong.
        let deadline = earlier.map_or(deadline, |drain| drain.deadline.min(deadline));
        self.draining = Some(Drain { reason, deadline, is_over: false });
        self.shared.draining = true;
        #[cfg(feature = "client")]
        Dials { core: self }.stop_all(now);
    }

    /// Says good-bye to one connection.
    pub(crate) fn handle_drain(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        let Some(reason) = self.draining.as_ref().map(|drain| drain.reason.clone()) else { return };
        self.turn(now, index, wire, |turn| turn.drain(&reason));
        self.after_turn(now);
    }

    /// Ends one connection at once: the grace is over.
    pub(crate) fn handle_grace_end(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        self.turn(now, index, wire, |turn| turn.end_at_once());
        self.after_turn(now);
    }

    /// Whether a stop has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Whether a stop is complete: all have gone to whom something was owed.
    pub(crate) fn is_drained(&self) -> bool {
        self.connections.is_drained()
    }

    /// Whether nothing is left to be done, as the end of the last turn found.
    pub(crate) fn is_over(&self) -> bool {
        self.draining.as_ref().is_some_and(|drain| drain.is_over)
    }

    /// Whether other loops have to be over first: this one hears what is asked of the server meanwhile, by
    /// signals too.
    fn waits_for_other_loops(&self) -> bool {
        let place = self.shared.place.as_ref().filter(|place| place.is_first());
        place.is_some_and(|place| place.others().any(|mailbox| !mailbox.is_closed()))
    }

    /// The loop ends: nobody is here to hear what becomes of questions to sessions of other loops.
    fn end_questions(&mut self, now: Time) {
        // As many as there are: what is done about one may be to ask again.
        for _ in 0..self.shared.questions.len() {
            let settled = self.shared.with_names_and_questions(|_, it| it.settle_first());
            settled.into_iter().for_each(|timer| self.shared.timers.cancel(timer));
            self.shared.has_deferred_work = true;
        }
        self.after_turn(now);
    }

    /// How sessions have ended since a stop began.
    pub(crate) fn drained(&self) -> Drained {
        self.shared.drained
    }

    /// Whether a stop has begun and its grace is over.
    pub(crate) fn is_grace_over(&self, now: Time) -> bool {
        self.draining.as_ref().is_some_and(|drain| drain.deadline <= now)
    }

    /// A stop that was asked for on this loop: the others are told, whatever they know already.
    pub(crate) fn poll_stop(&mut self) -> Option<StopRequest> {
        let request = self.shared.stop_request.take()?;
        self.tell_other_loops(&request);
        Some(request)
    }
}

/// What is due, and what is over.
impl Core {
    /// The next connection whose time may be up; call until `None`.
    pub(crate) fn poll_due(&mut self, now: Time) -> Option<u32> {
        let index = loop {
            let token = self.connections.wheel.pop_due(now)?;
            if !self.run_timer(now, token) {
                break token;
            }
        };
        if let Some(connection) = self.connections.slab.at_mut(index) {
            // The entry is gone from the wheel: `settle` arms the next.
            connection.timer = None;
            connection.state.timing_changed = true;
        }
        Some(index)
    }

    /// When `poll_due` has to be asked next.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        // The grace is no connection's, so it has no entry in the wheel.
        let drain = self.draining.as_ref().filter(|_| !self.is_drained());
        let drain = drain.map(|drain| drain.deadline);
        Time::earlier(self.connections.wheel.next_deadline(), drain)
    }

    /// Whether [`poll_eviction`](Self::poll_eviction) or [`poll_closed`](Self::poll_closed) has
    /// something.
    #[inline]
    pub(crate) fn has_ends(&self) -> bool {
        !self.connections.closed.is_empty() || self.budget().is_over()
    }

    /// Whether a connection is over and its socket not dropped. Memory may stay over its budget, where nobody
    /// is left who could be ended for it: whoever waits for an end to that waits for ever.
    #[cfg(feature = "client")]
    pub(super) fn has_closed(&self) -> bool {
        !self.connections.closed.is_empty()
    }

    /// The next connection that is over; its socket is to be dropped at once.
    pub(crate) fn poll_closed(&mut self) -> Option<(u32, Disposal)> {
        let closed = self.connections.closed.pop();
        #[cfg(feature = "client")]
        if let Some((slot, _)) = closed {
            self.dial_table.note_gone(slot);
        }
        closed
    }

    /// The connection that is to be handed to [`handle_eviction`](Self::handle_eviction); to be asked
    /// after every `handle_*`, until it says `None`.
    pub(crate) fn poll_eviction(&mut self) -> Option<u32> {
        if self.budget().is_over() {
            self.shared.give_up_spare(); // which nobody misses
        }
        self.budget().largest_holder()
    }

    /// Ends the connection that [`poll_eviction`](Self::poll_eviction) named.
    pub(crate) fn handle_eviction(&mut self, index: u32, wire: &mut dyn Wire) {
        self.shared.stats.over_budget += 1;
        // Within a turn: its time is not asked for again, so that both are one moment.
        let now = self.shared.now;
        self.turn(now, index, wire, |turn| turn.evict());
        self.after_turn(now);
    }

    fn budget(&self) -> MemoryBudget<'_> {
        MemoryBudget { connections: &self.connections, shared: &self.shared }
    }

    /// Whether dialers have something to do that no event and no deadline will announce.
    #[cfg(feature = "client")]
    pub(crate) fn has_dial_work(&self) -> bool {
        let shared = &self.shared;
        self.dial_table.has_work() || shared.dialers.has_work() || !shared.dial_input.is_empty()
    }

    /// A connection that was dialled, and on which something has arrived.
    #[cfg(feature = "client")]
    pub(crate) fn poll_dial_input(&mut self) -> Option<u32> {
        self.shared.dial_input.pop()
    }

    /// The first connection at or after a slot.
    pub(crate) fn next_connection(&self, from: u32) -> Option<u32> {
        self.connections.slab.next_occupied(from)
    }

    /// A descriptor that is to be watched from now on.
    pub(crate) fn poll_watch(&mut self) -> Option<WatchOrder<NewWatch>> {
        self.shared.watches.next()
    }
}

/// Work and statistics.
impl Core {
    /// Work that the last `handle_*` of a connection has caused beyond reading; at most a little more
    /// than `read_budget_bytes`, unless a single message or answer takes more.
    #[inline]
    pub(crate) fn work_done(&self) -> usize {
        self.shared.work.done()
    }

    /// How much work a connection may cause from now on before the others are served.
    pub(crate) fn set_share(&mut self, work: usize) {
        self.shared.work.set_budget(work);
    }

    /// Something blocked the loop for longer than `slow_callback`: `culprit` if it is known who.
    pub(crate) fn note_slow(&mut self, now: Time, took: Duration, culprit: Option<u32>) {
        self.shared.stats.slow_turns += 1;
        let route = culprit.map(|index| {
            let (gone, route, session) = self.connections.last_gone;
            match self.connections.slab.at_mut(index) {
                Some(found) => (found.state.route, found.state.was_session()),
                None => (route, session && gone == index),
            }
        });
        self.shared.warnings.note("slow_callback", now, || match route {
            Some((route, true)) => {
                let pattern = self.routes.name(route);
                format!("a session of route {pattern} blocked the event loop for {took:?}")
            }
            Some((_, false)) => format!("an HTTP request blocked the event loop for {took:?}"),
            None => format!("a turn took {took:?}; the next ones are measured event by event"),
        });
    }

    /// The loop begins another turn.
    pub(crate) fn note_turn(&mut self) {
        self.shared.stats.loop_turns += 1;
        // Whoever comes only now may know already that a folder was replaced.
        self.close_folders();
    }

    /// And has ended it.
    #[inline]
    pub(crate) fn note_turn_end(&mut self, now: Time) {
        self.close_folders();
        // Asked once: what other loops answer is heard to the last.
        if self.is_drained() && !self.waits_for_other_loops() {
            self.end_questions(now);
            self.draining.iter_mut().for_each(|drain| drain.is_over = true);
        }
    }

    /// Closes what the folders of the application have opened.
    #[inline]
    fn close_folders(&self) {
        self.routes.open_folders.close();
    }

    /// The statistics as of now.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn stats(&self) -> crate::context::stats::Stats {
        self.shared.snapshot()
    }

    /// What is left to chance follows from this number.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn repeat_chance(&mut self, seed: u64) {
        self.shared.masks.repeat_from(seed);
    }

    /// Smaller buffers are kept too for the next messages.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn keep_buffers_from(&mut self, bytes: usize) {
        self.shared.keep_buffers_from(bytes);
    }

    /// What the last panic of the application said, once.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn take_panic(&mut self) -> Option<String> {
        self.shared.warnings.last_panic.take()
    }
}

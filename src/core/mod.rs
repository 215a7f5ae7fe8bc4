//! Layer 4, core: every decision of the whole server, without a socket, a clock or a thread.
//!
//! It is called by the [`driver`] alone, whose head says in which order, and what follows. `handle_*`
//! say what happened and when, and lend a [`Wire`] to write through; `poll_*` say what is to be done.
//!
//! ```text
//!   socket bytes --> handle_input --> Turn: head | frames --> hooks --> Wire, Outbox
//!   poll_timeout <-- wheel <-- settle <-- (deadlines moved?)
//! ```
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod admission;
mod answer;
mod arrivals;
#[cfg(all(repository, any(test, fuzzing)))]
mod audit;
mod commands;
mod connection;
pub(crate) mod driver;
mod ending;
mod fast_path;
mod flush;
mod frame_input;
mod http;
mod memory_budget;
mod pace;
pub(crate) mod panics;
mod pause;
mod pending;
mod progress;
mod refusals;
mod rounds;
pub(crate) mod sockets;
mod streamed_body;
#[cfg(all(repository, test))]
mod tests;
mod turn;

use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use log::info;

use crate::app::application::Built;
use crate::app::route_table::RouteTable;
use crate::context::commands::Drained;
use crate::context::loop_state::LoopState;
use crate::flow::inner::FlowInner;
use crate::session::state::{PingBehind, SessionState};
use crate::structures::slab::Slab;
use crate::structures::wheel::TimerWheel;
use crate::structures::wire::Wire;
use crate::words::close::{CloseCode, CloseReason};
use crate::words::limits::{BUSY_BYTES, CONNECTION_BYTES, SURPLUS_MAX};
use crate::words::time::Time;

use admission::Admission;
use connection::{Connection, HttpStage, SpareStages, Stage};
use panics::{caught, drop_caught};
use pending::{Pending, client_of};
use rounds::Rounds;
use turn::{Reading, Turn};

pub(crate) use connection::Disposal;

// The ceiling that Limits promises counts on it: slab entry and generation, wheel entry, socket.
const _: () = assert!(size_of::<Option<Connection>>() + 4 + 24 + 8 <= CONNECTION_BYTES);
// And on this: what is boxed while it is needed, with the allocator's 16 bytes for each.
const _: () = assert!(size_of::<HttpStage>() + SessionState::BOXED_BYTES + 3 * 16 <= BUSY_BYTES);
// The one in a session, the other in what is none.
const _: () = assert!(size_of::<PingBehind>() <= size_of::<HttpStage>());

/// The whole server.
pub(crate) struct Core {
    shared: LoopState,
    admission: Admission,
    routes: RouteTable,
    connections: Slab<Connection>,
    wheel: TimerWheel,
    pending: Pending,
    closed: Vec<(u32, Disposal)>,
    spare_stages: SpareStages,
    /// Connections that are to be written to and were not handled yet.
    rounds: Rounds,
    /// How many this flush has come to.
    flushed: usize,
    /// Flows that were offered to everybody.
    unsettled: Vec<Rc<FlowInner>>,
    /// Connections that may be read again.
    resuming: Vec<u32>,
    draining: Option<Drain>,
    /// Who has gone last: place, route, and whether it was a session.
    last_gone: (u32, u16, bool),
}

/// A stop that has begun.
struct Drain {
    reason: CloseReason,
    deadline: Time,
    /// Connections from before it that are still there. Later ones are only told 503.
    remaining: usize,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

/// Flows know the server whose sessions collect them, and it lists those that changed: the circle has
/// to be opened.
impl Drop for Core {
    fn drop(&mut self) {
        // Leaving, they change flows once more.
        let mut from = 0;
        while let Some(index) = self.connections.next_occupied(from) {
            drop_caught("what a connection held", self.connections.remove(index));
            from = index.saturating_add(1);
        }
        self.shared.flows.take_touched();
    }
}

/// Inputs.
impl Core {
    #[allow(clippy::arithmetic_side_effects, reason = "max_connections is at most 2^30")]
    pub(crate) fn new(built: Built) -> Self {
        let capacity = built.limits.max_connections + SURPLUS_MAX;
        let mut core = Self {
            pending: Pending::new(built.limits.max_pending_handshakes),
            admission: Admission::new(&built.limits, built.proxies),
            shared: LoopState::new(built.limits, built.on_loop),
            routes: built.routes,
            connections: Slab::new(capacity),
            wheel: TimerWheel::new(),
            closed: Vec::new(),
            spare_stages: SpareStages::default(),
            rounds: Rounds::default(),
            flushed: 0,
            unsettled: Vec::new(),
            resuming: Vec::new(),
            draining: None,
            last_gone: (0, 0, false),
        };
        core.after_turn(Time::ZERO); // the application's timers begin
        core
    }

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
        self.turn(now, index, wire, |turn| turn.peer_shut());
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
        self.turn(now, index, wire, |turn| turn.broken(kind));
        self.after_turn(now);
    }

    /// What [`poll_due`](Self::poll_due) named is due.
    pub(crate) fn handle_timeout(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        self.turn(now, index, wire, |turn| match turn.connection.stage {
            Stage::Http(_) => turn.http_timeout(),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => turn.session_timeout(),
        });
        self.after_turn(now);
    }

    /// Begins to stop: requests get 503, sessions a Close. Every place that
    /// [`next_connection`](Self::next_connection) names is then to be handed to `handle_drain`.
    pub(crate) fn begin_drain(&mut self, now: Time, code: CloseCode, grace: Duration) {
        for hook in mem::take(&mut self.shared.stop_hooks.0) {
            self.with_server(now, "on_shutdown", hook);
        }
        let deadline = now.after(grace);
        let earlier = self.draining.take();
        let remaining = earlier.as_ref().map_or(self.connections.len(), |drain| drain.remaining);
        info!(target: "wirewheel::server", "stopping: {remaining} connections have {grace:?}");
        let reason = CloseReason::own(code, "");
        let deadline = earlier.map_or(deadline, |drain| drain.deadline.min(deadline));
        self.draining = Some(Drain { reason, deadline, remaining });
        self.shared.draining = true;
    }

    /// Says good-bye to one connection.
    pub(crate) fn handle_drain(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        let Some(reason) = self.draining.as_ref().map(|drain| drain.reason.clone()) else { return };
        self.turn(now, index, wire, |turn| turn.drain(&reason));
        self.after_turn(now);
    }

    /// Ends one connection at once: the grace is over.
    pub(crate) fn handle_cut(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        self.turn(now, index, wire, |turn| turn.cut());
        self.after_turn(now);
    }
}

/// Outputs.
impl Core {
    /// The next connection whose time may be up; call until `None`.
    pub(crate) fn poll_due(&mut self, now: Time) -> Option<u32> {
        let index = loop {
            let token = self.wheel.pop_due(now)?;
            if !self.run_timer(now, token) {
                break token;
            }
        };
        if let Some(connection) = self.connections.at_mut(index) {
            connection.timer = None;
            connection.state.timing_changed = true;
        }
        Some(index)
    }

    /// When `poll_due` has to be asked next.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let drain = self.draining.as_ref().map(|drain| drain.deadline);
        [self.wheel.next_deadline(), drain].into_iter().flatten().min()
    }

    /// Whether [`poll_offender`](Self::poll_offender) or [`poll_closed`](Self::poll_closed) has
    /// something.
    #[inline]
    pub(crate) fn has_ends(&self) -> bool {
        !self.closed.is_empty() || self.is_over_budget()
    }

    /// The next connection that is over; its socket is to be dropped at once.
    pub(crate) fn poll_closed(&mut self) -> Option<(u32, Disposal)> {
        self.closed.pop()
    }

    /// The first connection at or after a place.
    pub(crate) fn next_connection(&self, from: u32) -> Option<u32> {
        self.connections.next_occupied(from)
    }

    /// What the last panic of the application said, once.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn take_panic(&mut self) -> Option<String> {
        self.shared.last_panic.take()
    }

    /// The statistics as of now.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn stats(&self) -> crate::context::stats::Stats {
        self.shared.snapshot()
    }

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

    /// Whether a stop has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Something held the loop for longer than `slow_callback`: `culprit` if it is known who.
    pub(crate) fn note_slow(&mut self, now: Time, took: Duration, culprit: Option<u32>) {
        self.shared.stats.slow_turns += 1;
        let route = culprit.map(|index| {
            let (gone, route, session) = self.last_gone;
            match self.connections.at_mut(index) {
                Some(found) => (found.state.route, found.state.was_session()),
                None => (route, session && gone == index),
            }
        });
        self.shared.warnings.note("slow_callback", now, || match route {
            Some((route, true)) => {
                let pattern = self.routes.route(route).map_or("", |route| &route.pattern);
                format!("a session of route {pattern} held the loop for {took:?}")
            }
            Some((_, false)) => format!("a plain request held the loop for {took:?}"),
            None => format!("a turn took {took:?}; the next ones are measured event by event"),
        });
    }

    /// The loop begins another turn.
    pub(crate) fn note_turn(&mut self) {
        self.shared.stats.loop_turns += 1;
    }

    /// How sessions have ended since a stop began.
    pub(crate) fn drained(&self) -> Drained {
        self.shared.drained
    }

    /// Whether a stop has begun and all who were there have gone, but for those who never sent a
    /// byte: browsers keep such connections in store, and nobody owes them an answer.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining.as_ref().is_some_and(|drain| {
            drain.remaining == 0
                || (drain.remaining <= self.pending.count() && self.all_are_silent())
        })
    }

    #[cold]
    fn all_are_silent(&self) -> bool {
        self.connections.iter().all(|(_, known)| match &known.stage {
            Stage::Http(http) => known.late || (!http.has_answered && http.held.is_empty()),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => known.late,
        })
    }

    /// Whether a stop has begun and its grace is over.
    pub(crate) fn is_grace_over(&self, now: Time) -> bool {
        self.draining.as_ref().is_some_and(|drain| drain.deadline <= now)
    }
}

/// One turn and what follows from it.
impl Core {
    /// A turn that is concluded whatever is done in it.
    fn turn<R>(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        act: impl FnOnce(&mut Turn<'_>) -> R,
    ) -> Option<R> {
        self.caught_turn(now, index, wire, |turn| {
            let result = act(turn);
            turn.conclude();
            result
        })
    }

    /// A turn whose `act` concludes it.
    #[inline(always)] // each kind of turn has a copy of its own anyway, and one caller
    fn caught_turn<R>(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        act: impl FnOnce(&mut Turn<'_>) -> R,
    ) -> Option<R> {
        self.shared.now = now;
        let connection = self.connections.at_mut(index)?;
        let was_pending = connection.is_pending();
        let client = (was_pending && self.pending.is_crowded()).then(|| client_of(connection));
        let mut turn = Turn {
            connection,
            shared: &mut self.shared,
            admission: &mut self.admission,
            spare_stages: &mut self.spare_stages,
            routes: &self.routes,
            wire,
        };
        let result = match caught(|| act(&mut turn)) {
            Ok(result) => Some(result),
            Err(panic) => {
                turn.recover(panic);
                None
            }
        };
        debug_assert!(turn.shared.tx.is_empty(), "a turn leaves nothing behind");
        let needs_settling = turn.connection.state.timing_changed;
        if was_pending && (client.is_some() || !turn.connection.is_pending()) {
            self.follow_pending(index, client);
        }
        if needs_settling {
            self.settle(index);
        }
        result
    }

    /// Brings wheel and slab in line with a connection whose deadline may have moved earlier.
    fn settle(&mut self, index: u32) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        connection.state.timing_changed = false;
        if let Stage::Closed(disposal) = connection.stage {
            self.remove(index, disposal);
            return;
        }
        let options = self.routes.options(connection.state.route);
        let Some(deadline) = connection.deadline(&self.shared.limits, options) else {
            // Nothing will ever be due: an entry that is left, such as the one for the request
            // head, would wake the loop for nothing.
            if let Some(timer) = connection.timer.take() {
                self.wheel.cancel(timer);
            }
            return;
        };
        connection.timer = match connection.timer.take() {
            Some(timer) if connection.armed <= deadline => Some(timer),
            Some(timer) => {
                connection.armed = deadline;
                Some(self.wheel.rearm(timer, deadline))
            }
            None => {
                connection.armed = deadline;
                Some(self.wheel.arm(index, deadline))
            }
        };
    }

    fn remove(&mut self, index: u32, disposal: Disposal) {
        let Some(mut connection) = self.connections.remove(index) else { return };
        self.last_gone = (index, connection.state.route, connection.state.was_session());
        connection.uncount(&mut self.admission);
        if let Some(timer) = connection.timer.take() {
            self.wheel.cancel(timer);
        }
        self.shared.account(connection.charged as usize, 0);
        self.shared.stats.connections_open -= 1;
        if let Some(drain) = self.draining.as_mut().filter(|_| !connection.late) {
            drain.remaining = drain.remaining.saturating_sub(1);
        }
        self.closed.push((index, disposal));
        let state = &mut connection.state;
        let failed = state.extra.as_deref().is_some_and(|extra| extra.fault.is_some());
        if failed || state.pipeline.is_some() || state.collected.is_some() {
            // Mostly they are gone by now. An error, an extension or a filter is the application's.
            drop_caught("what a connection held", connection);
        }
    }
}

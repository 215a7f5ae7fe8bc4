//! The table of all connections: their slots, their entries on the timer wheel, who of them still waits for
//! a first request, and what is kept for the next ones.

use std::hint::black_box;

use crate::app::application::Proxies;
use crate::app::route_table::RouteTable;
use crate::context::clients::ClientTable;
use crate::context::loop_state::{LoopState, OnLoop};
use crate::session::state::{Extra, PingBehind, SessionState};
use crate::structures::slab::{GenerationBits, RESERVED_MAX, Slab};
use crate::structures::wheel::TimerWheel;
use crate::words::limits::{BUSY_BYTES, CONNECTION_BYTES, Limits, OVER_LIMIT_MAX};
use crate::words::time::Time;

use crate::core::admission::Admission;
use crate::core::connection::{Connection, Disposal, Stage};
use crate::core::http_stage::{HttpStage, SpareStages};
use crate::core::panics::drop_caught;
use crate::core::pending::{ClientId, Pending, Waiting, client_of};

// The ceiling that Limits promises counts on it: slab entry and generation, wheel entry, socket.
const _: () = assert!(size_of::<Option<Connection>>() + 4 + 24 + 8 <= CONNECTION_BYTES);
// And on this: what is boxed while it is needed, with the allocator's 16 bytes for each.
const _: () = assert!(size_of::<HttpStage>() + SessionState::BOXED_BYTES + 3 * 16 <= BUSY_BYTES);
// The one in a session, the other in what is none.
const _: () = assert!(size_of::<PingBehind>() <= size_of::<HttpStage>());

/// All connections.
pub(super) struct Connections {
    pub(super) slab: Slab<Connection>,
    /// Their deadlines, and the timers of the application.
    pub(super) wheel: TimerWheel,
    pub(super) pending: Pending,
    pub(super) admission: Admission,
    pub(super) spare_stages: SpareStages,
    /// Slots whose connections are over and whose sockets are still to be dropped.
    pub(super) closed: Vec<(u32, Disposal)>,
    /// How many have left the loop, and count until the application lets them go.
    pub(super) detached: usize,
    /// Connections from before a stop that are still there; `None` before a stop begins. Later ones
    /// only get 503.
    pub(super) left_to_drain: Option<usize>,
    /// The connection that was removed last: slot, route, and whether it was a session.
    pub(super) last_gone: (u32, u16, bool),
    /// How many this side has made.
    #[cfg(feature = "client")]
    pub(super) dialled: usize,
}

/// Room for so many connections that others make, and for all that this side does.
fn connections_slab(accepted: usize, bits: GenerationBits) -> Slab<Connection> {
    #[cfg_attr(not(feature = "client"), allow(unused_mut, reason = "nothing is dialled"))]
    let mut slab = Slab::new(accepted).of_loop(bits);
    #[cfg(feature = "client")]
    slab.raise_capacity(crate::context::dialers::DIALERS_MAX);
    slab
}

impl Connections {
    #[allow(clippy::arithmetic_side_effects, reason = "max_connections is at most 2^30")]
    pub(super) fn new(limits: &Limits, proxies: Proxies, on_loop: &OnLoop) -> Self {
        let slots = limits.max_connections + OVER_LIMIT_MAX;
        let clients = match &on_loop.place {
            Some(place) => ClientTable::Shared(place.clients()),
            None => ClientTable::Own(Box::default()),
        };
        // Where such a box is freed, the allocator puts the next one: not behind all pages of the slab, which
        // it could not give back then.
        drop(black_box(Box::<Extra>::default()));
        Self {
            slab: connections_slab(slots, on_loop.bits),
            // As the slab's own: it outlives the connections.
            wheel: TimerWheel::with_room(slots.min(RESERVED_MAX)),
            pending: Pending::new(limits.max_pending_handshakes),
            admission: Admission::new(limits, proxies, clients),
            spare_stages: SpareStages::default(),
            closed: Vec::new(),
            detached: 0,
            left_to_drain: None,
            last_gone: (0, 0, false),
            #[cfg(feature = "client")]
            dialled: 0,
        }
    }

    /// Brings wheel and slab in line with a connection whose deadline may have moved earlier.
    pub(super) fn settle(&mut self, index: u32, shared: &mut LoopState, routes: &RouteTable) {
        let Some(connection) = self.slab.at_mut(index) else { return };
        // Activity moves deadlines only later and never comes here: the wheel is armed too early then.
        connection.state.timing_changed = false;
        if let Stage::Closed(disposal) = connection.stage {
            self.remove(index, disposal, shared);
            return;
        }
        let options = routes.options(connection.state.route);
        let Some(deadline) = connection.deadline(&shared.limits, options) else {
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

    fn remove(&mut self, index: u32, disposal: Disposal, shared: &mut LoopState) {
        let Some(connection) = self.slab.at_mut(index) else { return };
        self.last_gone = (index, connection.state.route, connection.state.was_session());
        // Before anything of the application is dropped, which may panic.
        connection.uncount(&mut self.admission);
        let is_dialled = connection.is_dialled();
        #[cfg(feature = "client")]
        if is_dialled {
            self.dialled = self.dialled.saturating_sub(1);
        }
        if let Some(timer) = connection.timer.take() {
            self.wheel.cancel(timer);
        }
        shared.account(connection.charged as usize, 0);
        if disposal == Disposal::Detach {
            self.detached = self.detached.saturating_add(1);
        } else {
            shared.stats.connections_open -= 1;
            if !is_dialled {
                shared.note_connection_ended();
            }
        }
        if let Some(left) = self.left_to_drain.as_mut().filter(|_| !connection.late) {
            *left = left.saturating_sub(1);
        }
        self.closed.push((index, disposal));
        let state = &mut connection.state;
        if shared.spare.keeps(connection.charged as usize) {
            shared.with_spare(|spare| state.give_back(spare));
        }
        let failed = state.extra.as_deref().is_some_and(|extra| extra.fault.is_some());
        if failed || state.pipeline.is_some() || state.collected.is_some() {
            // Mostly they are gone by now. An error, an extension or a filter is the application's.
            drop_caught("what a connection held", self.slab.remove(index));
        } else {
            self.slab.discard(index);
        }
    }

    /// Drops all of them, whose handlers are the application's.
    pub(super) fn drop_all(&mut self) {
        let mut from = 0;
        while let Some(index) = self.slab.next_occupied(from) {
            drop_caught("what a connection held", self.slab.remove(index));
            from = index.saturating_add(1);
        }
    }
}

/// A stop of the server.
impl Connections {
    /// From now on, those who come are late: how many are left of those who are there.
    pub(super) fn begin_drain(&mut self) -> usize {
        *self.left_to_drain.get_or_insert(self.slab.len())
    }

    /// Whether a stop has begun and all who were there have gone, but for those who never sent a
    /// byte: browsers keep such connections in store, and nobody owes them an answer.
    pub(super) fn is_drained(&self) -> bool {
        self.left_to_drain.is_some_and(|left| {
            left == 0 || (left <= self.pending.count() && self.all_are_silent())
        })
    }

    #[cold]
    fn all_are_silent(&self) -> bool {
        self.slab.iter().all(|(_, known)| match &known.stage {
            Stage::Http(http) => known.late || http.is_silent(),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => known.late,
        })
    }
}

/// Connections whose first request is awaited.
impl Connections {
    /// A connection that was pending has had a turn; `client` is whose it was, where that matters.
    pub(super) fn update_pending(&mut self, index: u32, client: Option<ClientId>) {
        let Some(connection) = self.slab.at(index) else { return };
        let Some(since) = connection.waiting_since() else {
            return self.pending.leave(&self.slab, client.flatten());
        };
        let (key, named) = (connection.state.id.0, client_of(connection));
        if let Some(before) = client.filter(|before| *before != named) {
            self.pending.rename(&self.slab, before, named, Waiting { key, since });
        }
    }

    /// Over the limit of pending handshakes, whoever is first to go has had its time: it is old
    /// enough, or nobody would have been accepted.
    pub(super) fn make_room_for_pending(
        &mut self,
        now: Time,
        shared: &mut LoopState,
        routes: &RouteTable,
    ) {
        if !self.pending.is_full() {
            return;
        }
        let Some(first) = self.pending.first_to_go(&self.slab) else { return };
        let Some(connection) = self.slab.get_mut(first.key) else { return };
        let client = client_of(connection);
        if let Stage::Http(http) = &mut connection.stage {
            // Ended by its deadline like any other, so that it gets its 408 where one is due.
            http.expired = true;
        }
        connection.state.timing_changed = true;
        let peer = connection.state.remote_addr();
        shared.warnings.note("max_pending_handshakes", now, || {
            format!("max_pending_handshakes reached: {peer}, whose client has most, has to go")
        });
        self.pending.leave(&self.slab, client);
        self.settle(first.key.index, shared, routes);
    }
}

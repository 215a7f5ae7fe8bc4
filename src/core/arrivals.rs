//! New connections: whether one is taken, and whether it only gets a refusal.

use std::net::SocketAddr;

use crate::app::route_table::RouteTable;
use crate::context::loop_state::LoopState;
use crate::context::loops::Place;
use crate::session::state::SessionState;
use crate::structures::slab::Key;
use crate::words::limits::OVER_LIMIT_MAX;
use crate::words::network::{ClientKey, canonical};
use crate::words::time::Time;

use crate::core::admission::{OverLimit, Verdict, note_dropped};
use crate::core::connection::{Connection, Stage};
use crate::core::connections::Connections;
use crate::core::http_stage::HttpStage;
use crate::core::pending::Waiting;

/// A connection that is let in, if only to be refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub(super) over_limit: Option<OverLimit>,
    /// It counts for its client; one of a proxy will, once a request tells whose it is.
    pub(super) counted: bool,
}

impl Admitted {
    /// Let in by the loop that accepts.
    pub(super) fn by_another_loop(counted: bool) -> Self {
        Self { over_limit: None, counted }
    }

    pub(super) fn is_counted(self) -> bool {
        self.counted
    }
}

/// A connection is not taken: it is to be hung up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Connections {
    /// When a further connection is taken; `None` while only somebody's leaving makes room. Until
    /// then, whoever comes waits in the system's backlog.
    #[allow(clippy::arithmetic_side_effects, reason = "max_connections is at most 2^30")]
    pub(super) fn accepts_at(&mut self, shared: &LoopState) -> Option<Time> {
        let limit = shared.limits.max_connections + OVER_LIMIT_MAX;
        match &shared.place {
            None if self.accepted() >= limit => return None,
            Some(place) if place.is_first() => {
                if place.connections() >= limit {
                    return None;
                }
                // Its own table of those who have not asked yet is no matter where another serves them.
                if place.least_loaded(false).is_some() && self.left_to_drain.is_none() {
                    return Some(Time::ZERO);
                }
            }
            // What another loop hands over is let in already.
            None | Some(_) => {}
        }
        if !self.pending.is_full() {
            return Some(Time::ZERO);
        }
        let first = self.pending.first_to_go(&self.slab)?;
        Some(first.since.after(shared.limits.min_pending_age))
    }

    /// Whether a further connection is taken now.
    pub(super) fn accepts(&mut self, now: Time, shared: &LoopState) -> bool {
        self.accepts_at(shared).is_some_and(|at| at <= now)
    }

    /// Whether a connection is let in; if so, it is counted for its client.
    pub(super) fn admit(
        &mut self,
        now: Time,
        peer: SocketAddr,
        shared: &mut LoopState,
    ) -> Result<Admitted, Full> {
        if !self.accepts(now, shared) {
            return Err(Full);
        }
        // An IPv4 client on a dual-stack socket is the same client.
        let peer = canonical(peer);
        let proxied = self.admission.is_proxy(peer.ip());
        let over_limit = self.over_limit(now, peer, proxied, shared)?;
        Ok(Admitted { over_limit, counted: !proxied })
    }

    /// The loop that gets a connection which was let in, if it is another one. Where all are asked to leave,
    /// or this one is, nobody is handed on.
    pub(super) fn other_loop(
        &mut self,
        now: Time,
        admitted: Admitted,
        shared: &LoopState,
    ) -> Option<usize> {
        let place = shared.place.as_ref()?;
        // Who is only to be refused takes no place of a loop that serves.
        let stays = admitted.over_limit.is_some() || self.left_to_drain.is_some();
        let own_has_room = !self.pending.is_full() || {
            let first = self.pending.first_to_go(&self.slab);
            first.is_some_and(|first| first.since.after(shared.limits.min_pending_age) <= now)
        };
        let number = if stays { None } else { place.least_loaded(own_has_room) };
        let number = number.unwrap_or_else(|| place.number());
        place.count_connection(number);
        (number != place.number()).then_some(number)
    }

    /// A connection that was let in has come to nothing.
    pub(super) fn forget(&mut self, peer: SocketAddr, counted: bool, shared: &LoopState) {
        if counted {
            self.admission.leave(|| ClientKey::of(canonical(peer).ip()));
        }
        shared.note_connection_ended();
    }

    /// A connection that was let in: the slot it has from now on.
    pub(super) fn enter(
        &mut self,
        now: Time,
        peer: SocketAddr,
        admitted: Admitted,
        shared: &mut LoopState,
        routes: &RouteTable,
    ) -> Result<u32, Full> {
        let peer = canonical(peer);
        // The key is known only once the slot is taken, and is put in right after.
        let nobody = Key { index: 0, generation: 0 };
        let mut http = HttpStage::new(now, admitted.over_limit);
        http.awaits_proxy_header = self.admission.awaits_proxy_header(peer.ip());
        http.proxied = !admitted.counted && !http.awaits_proxy_header;
        let connection = Connection {
            state: SessionState::new(nobody, peer, now),
            stage: Stage::Http(self.spare_stages.boxed(http)),
            timer: None,
            armed: Time::ZERO,
            charged: 0,
            late: self.left_to_drain.is_some(),
            counted: admitted.counted,
            #[cfg(feature = "client")]
            is_dialled: false,
        };
        let Ok(key) = self.slab.insert(connection) else { return Err(Full) };
        if let Some(connection) = self.slab.get_mut(key) {
            connection.state.id.0 = key;
        }
        shared.stats.connections_total += 1;
        shared.stats.connections_open += 1;
        // Before the newcomer is entered, which must not be the one to go.
        self.make_room_for_pending(now, shared, routes);
        self.pending.enter(&self.slab, Waiting { key, since: now });
        // Arms its first timer: a peer that never sends a byte is due like any other.
        self.settle(key.index, shared, routes);
        Ok(key.index)
    }

    /// How many connections others have made, those that have left the loop among them.
    fn accepted(&self) -> usize {
        let all = self.slab.len().saturating_add(self.detached);
        #[cfg(feature = "client")]
        let all = all.saturating_sub(self.dialled);
        all
    }

    /// A connection that this side has made: the slot it has from now on, unless there is none left.
    #[cfg(feature = "client")]
    pub(super) fn adopt_dialled(
        &mut self,
        now: Time,
        peer: SocketAddr,
        shared: &mut LoopState,
    ) -> Option<u32> {
        let nobody = Key { index: 0, generation: 0 };
        let mut http = HttpStage::new(now, None);
        http.has_answered = true; // nobody's first request is awaited
        http.dialling = Some(Box::default());
        let connection = Connection {
            state: SessionState::new(nobody, canonical(peer), now),
            stage: Stage::Http(self.spare_stages.boxed(http)),
            timer: None,
            armed: Time::ZERO,
            charged: 0,
            late: self.left_to_drain.is_some(),
            counted: false,
            is_dialled: true,
        };
        let key = self.slab.insert(connection).ok()?;
        self.slab.get_mut(key)?.state.id.0 = key;
        self.dialled = self.dialled.saturating_add(1);
        shared.stats.connections_open += 1;
        Some(key.index)
    }

    /// What a connection is over, so that it is only told so; some are not even that.
    fn over_limit(
        &mut self,
        now: Time,
        peer: SocketAddr,
        proxied: bool,
        shared: &mut LoopState,
    ) -> Result<Option<OverLimit>, Full> {
        let verdict = if proxied {
            Verdict::Admitted // whose connection it is will be known with its request
        } else {
            self.admission.enter(|| ClientKey::of(peer.ip()))
        };
        if verdict == Verdict::Dropped {
            note_dropped(shared, now, peer);
            return Err(Full);
        }
        // 503 needs a slot too; beyond those, whoever comes waits in the backlog.
        let accepted = shared.place.as_ref().map_or_else(|| self.accepted(), Place::connections);
        if accepted >= shared.limits.max_connections {
            return Ok(Some(OverLimit::Server)); // the log is told too, when it asks for something
        }
        Ok((verdict != Verdict::Admitted).then_some(OverLimit::Client))
    }

    /// Whether a connection has to begin with a PROXY header.
    pub(super) fn awaits_proxy_header(&self, index: u32) -> bool {
        let stage = self.slab.at(index).map(|connection| &connection.stage);
        matches!(stage, Some(Stage::Http(http)) if http.awaits_proxy_header)
    }

    /// The local address of a connection that was accepted just now, where it is known.
    pub(super) fn note_local_addr(&mut self, index: u32, local: Option<SocketAddr>) {
        if let Some(Stage::Http(http)) = self.slab.at_mut(index).map(|it| &mut it.stage) {
            http.local_addr = local;
        }
    }
}

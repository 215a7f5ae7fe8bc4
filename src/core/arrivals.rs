//! Who comes: whether a connection is taken, and what it is only told.

use std::io;
use std::net::SocketAddr;

use crate::session::state::SessionState;
use crate::structures::slab::Key;
use crate::words::limits::SURPLUS_MAX;
use crate::words::network::{ClientKey, canonical};
use crate::words::time::Time;

use super::Core;
use crate::core::admission::{Surplus, Verdict};
use crate::core::connection::{Connection, HttpStage, Stage};
use crate::core::pending::Waiting;

/// A connection is not taken: it is to be hung up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Core {
    /// When a further connection is taken; `None` while only somebody's leaving makes room. Until
    /// then, whoever comes waits in the system's backlog.
    #[allow(clippy::arithmetic_side_effects, reason = "max_connections is at most 2^30")]
    pub(crate) fn accepts_at(&mut self) -> Option<Time> {
        let limits = &self.shared.limits;
        if self.connections.len() >= limits.max_connections + SURPLUS_MAX {
            return None;
        }
        if !self.pending.is_full() {
            return Some(Time::ZERO);
        }
        let first = self.pending.first_to_go(&self.connections)?;
        Some(first.since.after(limits.min_pending_age))
    }

    /// Whether a further connection is taken now.
    pub(crate) fn accepts(&mut self, now: Time) -> bool {
        self.accepts_at().is_some_and(|at| at <= now)
    }

    /// A connection was accepted: the place it has from now on.
    pub(crate) fn handle_accept(&mut self, now: Time, peer: SocketAddr) -> Result<u32, Full> {
        if !self.accepts(now) {
            return Err(Full);
        }
        let peer = canonical(peer);
        let proxied = self.admission.is_proxy(peer.ip());
        let surplus = self.surplus(now, peer, proxied)?;
        // The key is known only once the place is taken; the state is told it right after.
        let nobody = Key { index: 0, generation: 0 };
        let mut http = HttpStage::new(now, surplus);
        http.awaits_proxy_header = self.admission.awaits_proxy_header(peer.ip());
        http.proxied = proxied && !http.awaits_proxy_header;
        let connection = Connection {
            state: SessionState::new(nobody, peer, now),
            stage: Stage::Http(self.spare_stages.place(http)),
            timer: None,
            armed: Time::ZERO,
            charged: 0,
            late: self.draining.is_some(),
            counted: !proxied,
        };
        let Ok(key) = self.connections.insert(connection) else { return Err(Full) };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.state.id.0 = key;
        }
        self.shared.stats.connections_total += 1;
        self.shared.stats.connections_open += 1;
        self.make_room_for_pending(now);
        self.pending.enter(&self.connections, Waiting { key, since: now });
        self.settle(key.index);
        Ok(key.index)
    }

    /// What a connection is over, so that it is only told so; some are not even that.
    fn surplus(
        &mut self,
        now: Time,
        peer: SocketAddr,
        proxied: bool,
    ) -> Result<Option<Surplus>, Full> {
        let verdict = if proxied {
            Verdict::Welcome // whose connection it is will be known with its request
        } else {
            self.admission.enter(|| ClientKey::of(peer.ip()))
        };
        if verdict == Verdict::Unwelcome {
            self.shared
                .warnings
                .note("per_address", now, || format!("per_address reached: {peer} is hung up on"));
            self.shared.stats.refused_address += 1;
            return Err(Full);
        }
        if self.connections.len() >= self.shared.limits.max_connections {
            return Ok(Some(Surplus::Server)); // the log is told too, when it asks for something
        }
        Ok((verdict != Verdict::Welcome).then_some(Surplus::Client))
    }

    /// The local address of a connection that was accepted just now, where it is known.
    pub(crate) fn note_local_addr(&mut self, index: u32, local: Option<SocketAddr>) {
        if let Some(Stage::Http(http)) = self.connections.at_mut(index).map(|it| &mut it.stage) {
            http.local_addr = local;
        }
    }

    /// The system ran out of descriptors or memory for connections.
    pub(crate) fn note_exhausted(&mut self, now: Time, error: &io::Error) {
        self.shared.stats.accept_exhausted += 1;
        self.shared.warnings.note("accept", now, || format!("accepting pauses: {error}"));
    }
}

//! The audit: whether the core's books agree with each other, for tests that ask after every
//! step.

#[cfg(all(repository, test))]
use std::rc::Rc;

#[cfg(all(repository, test))]
use crate::context::bridges::BridgeEnd;
#[cfg(all(repository, test))]
use crate::flow::inner::FlowInner;

use crate::core::connection::{Connection, Stage};
use crate::core::turns::Core;

/// A look into the books of a core.
pub(crate) struct Audit<'c>(pub(crate) &'c Core);

impl Audit<'_> {
    /// The first entry that does not agree.
    pub(crate) fn check(&self) -> Result<(), String> {
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let (mut held, mut pending, mut armed, mut early, mut open) = (0, 0, 0, 0, 0_u64);
        let mut from = 0;
        while let Some(index) = self.0.connections.slab.next_occupied(from) {
            from = index + 1;
            let Some(connection) = self.0.connections.slab.at(index) else { break };
            let checked =
                self.check_one(connection).and_then(|()| self.check_input(index, connection));
            checked.map_err(|what| format!("slot {index}: {what}"))?;
            held += connection.memory();
            pending += usize::from(connection.is_pending());
            armed += usize::from(connection.timer.is_some());
            early += usize::from(!connection.late);
            open += u64::from(matches!(connection.stage, Stage::Session(_)));
        }
        #[cfg(feature = "client")]
        let armed = armed + self.0.dial_table.armed();
        #[cfg(feature = "client")]
        self.0.dial_table.check()?;
        #[cfg(feature = "client")]
        self.0.shared.dialers.check()?;
        // Once all is over nobody calls the core any more.
        #[cfg(feature = "client")]
        if self.0.dial_table.has_work() && !self.0.is_drained() {
            return Err("dialers were left with something to do".into());
        }
        let shared = &self.0.shared;
        let armed = armed + shared.timers.armed();
        held += shared.names.bytes() + shared.questions.bytes();
        shared.readers.check()?;
        shared.check_spare()?;
        if !self.0.is_drained() {
            shared.check_spare_times()?; // once all is over, no timer runs
        }
        check(shared.tx.is_empty() && shared.opaque_prefix == 0, "a turn left bytes behind")?;
        check(self.0.connections.closed.is_empty(), "a closed connection was not polled")?;
        let held = held + shared.bridges.bytes_on_the_way();
        check(held == shared.bytes_held, &format!("{held} held, {} charged", shared.bytes_held))?;
        check(
            pending == self.0.connections.pending.count(),
            "the count of pending connections is off",
        )?;
        check(armed == self.0.connections.wheel.len(), "the wheel has entries that nobody holds")?;
        check(shared.stats.sessions_open.get() == open, "sessions_open is off")?;
        let live = (self.0.connections.slab.len() + self.0.connections.detached) as u64;
        check(shared.stats.connections_open.get() == live, "connections_open is off")?;
        let remaining = self.0.connections.left_to_drain;
        check(remaining.is_none_or(|remaining| remaining == early), "the drain's count is off")
    }

    fn check_one(&self, connection: &Connection) -> Result<(), String> {
        let options = self.0.routes.options(connection.state.route);
        let limits = &self.0.shared.limits;
        if connection.memory() != connection.charged as usize {
            return Err(format!("holds {}, charged {}", connection.memory(), connection.charged));
        }
        if matches!(connection.stage, Stage::Closed(_)) {
            return Err("closed and still there".into());
        }
        if connection.state.timing_changed {
            return Err("a deadline moved and the wheel was not told".into());
        }
        match (connection.deadline(limits, options), &connection.timer) {
            (Some(deadline), Some(_)) if connection.armed > deadline => {
                Err(format!("armed for {:?}, due at {deadline:?}", connection.armed))
            }
            (Some(_), None) => Err("a deadline without a timer".into()),
            _ => Ok(()),
        }
    }

    /// What waits and may go on is listed to do so: no event will say it again.
    fn check_input(&self, index: u32, connection: &Connection) -> Result<(), String> {
        let may_go_on =
            connection.state.read_pause().is_some_and(|pause| pause.is_over() && pause.held() > 0);
        let Core { resuming, shared, .. } = self.0;
        match may_go_on && !resuming.contains(&index) && !shared.to_resume.contains(&index) {
            true => Err("input waits that nobody goes on with".to_owned()),
            false => Ok(()),
        }
    }

    /// Every connection is a session that holds nothing beyond its slot.
    #[cfg(all(test, feature = "client"))]
    pub(crate) fn check_bare(&self) -> Result<(), String> {
        self.check()?;
        match self.0.connections.slab.iter().find(|(_, connection)| !connection.is_bare_session()) {
            Some((index, _)) => Err(format!("the session in slot {index} holds something")),
            None => Ok(()),
        }
    }

    /// How many requests wait for an answer that was deferred.
    #[cfg(repository)]
    pub(crate) fn deferred(&self) -> u64 {
        let connections = self.0.connections.slab.iter();
        let deferred = connections.filter(|(_, connection)| match &connection.stage {
            Stage::Http(http) => http.deferred().is_some(),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => false,
        });
        deferred.count() as u64
    }

    /// Whether a socket that is left unread has a reason for that which is still there.
    #[cfg(repository)]
    pub(crate) fn may_leave_unread(&self, slot: u32) -> bool {
        let Some(connection) = self.0.connections.slab.at(slot) else { return false };
        match &connection.stage {
            Stage::Http(http) => {
                http.deferred().is_some() || http.is_paused() || connection.holds_output()
            }
            Stage::Session(_) => connection.state.read_pause().is_some(),
            // Where it did not read its answers, it is read again once they are out.
            Stage::Finishing => connection.holds_output(),
            Stage::Closed(_) => false,
        }
    }

    /// Whether a connection that is no session may wait for its peer without an end.
    #[cfg(repository)]
    pub(crate) fn waits_for_ever(&self, slot: u32) -> bool {
        let Some(connection) = self.0.connections.slab.at(slot) else { return false };
        match &connection.stage {
            // How long the application may pause is its own business.
            Stage::Http(http) => connection.timer.is_none() && !http.is_paused(),
            Stage::Finishing => connection.timer.is_none(),
            Stage::Session(_) | Stage::Closed(_) => false,
        }
    }

    /// Whether a connection has something to do that needs no more than a socket which takes bytes.
    #[cfg(repository)]
    pub(crate) fn has_more_to_write(&self, slot: u32) -> bool {
        let Some(connection) = self.0.connections.slab.at(slot) else { return false };
        let Stage::Http(http) = &connection.stage else { return connection.holds_output() };
        #[cfg(feature = "client")]
        if http.dialling.is_some() {
            return false; // a request may wait for the other side's TLS
        }
        connection.holds_output() || http.yielded || http.streams()
    }

    /// Everything is given back.
    pub(crate) fn check_empty(&self) -> Result<(), String> {
        self.check()?;
        if self.0.connections.slab.len() > 0
            || self.0.shared.bytes_held > 0
            // Those of the application are its own business.
            || self.0.connections.wheel.len() > self.0.shared.timers.armed()
        {
            return Err(format!(
                "{} connections, {} bytes, {} timers are left",
                self.0.connections.slab.len(),
                self.0.shared.bytes_held,
                self.0.connections.wheel.len()
            ));
        }
        Ok(())
    }

    /// The flow of that name on this loop, of those that several loops share.
    #[cfg(all(repository, test))]
    pub(crate) fn bridge(&self, name: &str) -> Option<(Rc<FlowInner>, Rc<dyn BridgeEnd>)> {
        self.0.shared.bridges.find(name)
    }

    /// What a connection may hold at most for its peer: the outbox, one message over it, controls.
    pub(crate) fn bytes_held(&self) -> usize {
        self.0.shared.bytes_held
    }
}

#[cfg(repository)]
impl Connection {
    /// Whether bytes wait in its outbox.
    fn holds_output(&self) -> bool {
        self.state.extra.as_deref().is_some_and(|extra| !extra.outbox.is_empty())
    }
}

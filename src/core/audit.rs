//! Owns the audit: whether the core's books agree with each other, for tests that ask after every
//! step.

use super::Core;
use crate::core::connection::{Connection, Stage};

impl Core {
    /// The first entry that does not agree.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let (mut held, mut pending, mut armed, mut early, mut open) = (0, 0, 0, 0, 0_u64);
        let mut from = 0;
        while let Some(index) = self.connections.next_occupied(from) {
            from = index + 1;
            let Some(connection) = self.connections.at(index) else { break };
            self.audit_one(connection).map_err(|what| format!("place {index}: {what}"))?;
            held += connection.memory();
            pending += usize::from(connection.is_pending());
            armed += usize::from(connection.timer.is_some());
            early += usize::from(!connection.late);
            open += u64::from(matches!(connection.stage, Stage::Session(_)));
        }
        let shared = &self.shared;
        check(shared.tx.is_empty() && shared.opaque_prefix == 0, "a turn left bytes behind")?;
        check(self.closed.is_empty(), "a closed connection was not polled")?;
        check(held == shared.bytes_held, &format!("{held} held, {} charged", shared.bytes_held))?;
        check(pending == self.pending.count(), "the count of pending connections is off")?;
        check(armed == self.wheel.len(), "the wheel has entries that nobody holds")?;
        check(shared.stats.sessions_open.get() == open, "sessions_open is off")?;
        let live = self.connections.len() as u64;
        check(shared.stats.connections_open.get() == live, "connections_open is off")?;
        let remaining = self.draining.as_ref().map(|drain| drain.remaining);
        check(remaining.is_none_or(|remaining| remaining == early), "the drain's count is off")
    }

    fn audit_one(&self, connection: &Connection) -> Result<(), String> {
        let options = self.routes.options(connection.state.route);
        let limits = &self.shared.limits;
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

    /// Everything is given back.
    pub(crate) fn audit_empty(&self) -> Result<(), String> {
        self.audit()?;
        if self.connections.len() > 0 || self.shared.bytes_held > 0 || self.wheel.len() > 0 {
            return Err(format!(
                "{} connections, {} bytes, {} timers are left",
                self.connections.len(),
                self.shared.bytes_held,
                self.wheel.len()
            ));
        }
        Ok(())
    }

    /// What a connection may hold at most for its peer: the outbox, one message over it, controls.
    pub(crate) fn bytes_held(&self) -> usize {
        self.shared.bytes_held
    }
}

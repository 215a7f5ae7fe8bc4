//! What leaves a session outside of its own input: flow messages, and what waited in its outbox.

use crate::session::state::Phase;

use crate::core::connection::Stage;
use crate::core::turn::{Reading, Turn};

/// A session's turn in which it is written to.
pub(super) struct SessionOutput<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

impl SessionOutput<'_, '_> {
    /// What is usual with extensions: a message for many, of which the socket takes all. True if that was
    /// so: then nothing has come up, and nothing is held that was not held before. Without extensions that
    /// was tried before the turn.
    #[inline]
    pub(super) fn flush_fast(&mut self) -> bool {
        matches!(self.turn.connection.stage, Stage::Session(_))
            && self.turn.connection.state.pipeline.is_some()
            && self.turn.connection.state.extra.is_none()
            && self.turn.outgoing().deliver_fast()
            && self.turn.connection.state.extra.is_none()
    }

    /// Takes from the flows what the socket has room for: true if there may be more.
    pub(super) fn pull(&mut self) -> bool {
        if !matches!(self.turn.connection.stage, Stage::Session(_)) {
            return false;
        }
        // Only as much as the socket takes: what waits stays in the flow's log, once for all.
        let more = self.turn.outgoing().pull();
        if self.turn.connection.state.extra.is_some() {
            self.turn.act_on_fault();
        }
        more
    }

    /// The outbox is empty again.
    pub(super) fn drained(&mut self) -> Reading {
        if self.turn.connection.state.collected.is_some() {
            if self.pull() {
                self.turn.connection.state.list_for_flush(self.turn.shared);
            }
            if self.turn.connection.state.is_waiting() {
                // What looked at the outbox looks at something else where others go first.
                self.turn.connection.state.timing_changed = true;
                return self.turn.reading();
            }
        }
        if let (Phase::Open, Some(extra)) =
            (self.turn.connection.state.phase, self.turn.connection.state.extra.as_deref_mut())
        {
            extra.window = None; // of a session that stays open nobody waits for the rest
        }
        match &self.turn.connection.stage {
            // What had to go out before the end of an event stream is out.
            Stage::Session(_) if self.turn.has_said_all() => self.turn.closed_cleanly(),
            Stage::Session(_) if self.turn.connection.state.phase == Phase::Closing => {
                // Our Close is out only now; from here the peer has its time to answer.
                let (now, patience) = (self.turn.shared.now, self.turn.shared.limits.close_timeout);
                self.turn.connection.state.extra().await_peer(now, patience);
                self.turn.connection.state.timing_changed = true;
            }
            Stage::Session(_) if self.turn.connection.state.was_slow() => {
                self.turn.call_and_act(|handler, session| handler.on_drain(session));
            }
            Stage::Session(_) | Stage::Http(_) | Stage::Closed(_) => {}
            Stage::Finishing => self.turn.after_flush(),
        }
        self.turn.connection.state.release_idle();
        self.turn.reading()
    }
}

//! The deadlines of a session, and of a connection that is finishing, when they have come.

use crate::session::read_pause::ReadEnd;
use crate::session::state::Phase;
use crate::words::error::SessionError;
use crate::words::time::Time;

use crate::core::connection::{Disposal, Stage};
use crate::core::deadlines::part_of;
use crate::core::losses::Loss;
use crate::core::pings::Pings;
use crate::core::progress::Queue;
use crate::core::turn::Turn;

/// A connection's turn in which a deadline may have come.
pub(super) struct SessionTimeouts<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

impl SessionTimeouts<'_, '_> {
    /// The deadline of a session, or of a connection that is finishing, may have come.
    pub(super) fn act(&mut self) {
        match (&self.turn.connection.stage, self.turn.connection.state.phase) {
            (Stage::Session(_), Phase::Open) => self.open_timeout(),
            (Stage::Session(_) | Stage::Finishing, _) => self.leaving_timeout(),
            (Stage::Http(_) | Stage::Closed(_), _) => {}
        }
    }

    fn open_timeout(&mut self) {
        let is_bare = self.turn.connection.state.extra.is_none();
        // First: a peer that takes nothing would not take a Close with any other reason.
        if !is_bare && self.turn.progress().is_stuck() {
            return self.turn.fail(SessionError::WriteTimeout);
        }
        if self.is_left_unfinished() {
            return self.turn.fail(SessionError::MessageTimeout);
        }
        if !is_bare && self.is_rare_due() {
            return;
        }
        let (now, least) = (self.turn.shared.now, self.turn.least());
        let options = self.turn.connection.state.options(self.turn.options());
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        // A ping that is due as well would only delay it.
        if due(self.turn.connection.idle_deadline(options)) {
            self.turn.fail(SessionError::IdleTimeout);
        } else {
            if due(self.turn.connection.ping_deadline(options, least)) {
                Pings { turn: self.turn }.ping_due();
            }
            self.token_due();
            self.fire_timers();
        }
    }

    /// Acts on a deadline that only a session with an `Extra` can have; false if none is over.
    fn is_rare_due(&mut self) -> bool {
        let now = self.turn.shared.now;
        let options = self.turn.connection.state.options(self.turn.options());
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        let extra = self.turn.connection.state.extra.as_deref();
        if due(extra.and_then(|extra| extra.deadline)) {
            // A raw handler did not answer the peer's Close.
            self.turn.closing_is_over(true);
        } else if due(self.turn.connection.gone_deadline(&self.turn.shared.limits)) {
            // What is held of it was not taken in time.
            let end = self.turn.connection.state.read_pause().and_then(|pause| pause.read_end);
            self.turn.session_ended(end.unwrap_or(ReadEnd::Shut));
        } else if due(self.turn.connection.pause_deadline(options)) {
            self.turn.fail(SessionError::PauseTimeout);
        } else {
            return false;
        }
        true
    }

    /// Whether the time of what the peer began is over, and too little of it came.
    fn is_left_unfinished(&mut self) -> bool {
        let options = self.turn.connection.state.options(self.turn.options());
        let deadline = self.turn.connection.unfinished_deadline(options);
        deadline.is_some_and(|at| at <= self.turn.shared.now)
            && !self.turn.progress().look_at_unfinished()
    }

    /// Calls `on_timer` for each timer of the session that is over, in their order.
    fn fire_timers(&mut self) {
        let now = self.turn.shared.now;
        while self.turn.connection.state.phase == Phase::Open {
            let Some(extra) = self.turn.connection.state.extra.as_deref_mut() else { return };
            let due = extra.timers.iter().enumerate().filter(|(_, (_, at))| *at <= now);
            let Some((first, _)) = due.min_by_key(|(_, (_, at))| *at) else { break };
            let (timer, _) = extra.timers.remove(first); // of equal ones the first set is first
            self.turn.call_and_act(|handler, session| handler.on_timer(session, timer));
        }
        self.turn.flush();
        self.turn.connection.state.release_idle();
    }

    /// Goes on reading once there is a token again.
    fn token_due(&mut self) {
        let state = &mut self.turn.connection.state;
        let slot = state.id.0.index;
        let pause = state.extra.as_deref_mut().and_then(|extra| extra.read_pause.as_deref_mut());
        if pause.is_some_and(|pause| pause.time_has_come(self.turn.shared.now) && pause.is_over()) {
            self.turn.shared.to_resume.push(slot);
        }
    }
}

/// Deadlines of leaving.
impl SessionTimeouts<'_, '_> {
    /// The deadline of a session that closes, or of a connection that is finishing, may have come.
    fn leaving_timeout(&mut self) {
        let now = self.turn.shared.now;
        if self.turn.progress().is_stuck() {
            return self.leave(Queue::Stuck);
        }
        let look = self.turn.connection.leave_look(&self.turn.shared.limits, self.turn.least());
        if look.is_none_or(|at| now < at) {
            return;
        }
        let lasts = self.turn.connection.wait(&self.turn.shared.limits);
        let queue = self.turn.progress().look_at_queue();
        let extra = self.turn.connection.state.extra();
        match queue {
            Queue::Moving if extra.unacknowledged => {
                extra.deadline = Some(now.after(lasts));
                return;
            }
            // It has everything since the last look, which was long ago if the machine slept since: the wait
            // is never shorter for that.
            Queue::Empty if extra.unacknowledged => {
                let least = now.after(lasts.saturating_sub(part_of(lasts)));
                extra.deadline = extra.deadline.max(Some(least));
            }
            Queue::Empty | Queue::Moving | Queue::Stuck => {}
        }
        // From here the wait is an ordinary one: the peer has everything, or will never take it.
        extra.unacknowledged = false;
        if queue == Queue::Stuck || extra.deadline.is_some_and(|at| at <= now) {
            self.leave(queue);
        }
    }

    /// Waits no longer for the peer.
    fn leave(&mut self, queue: Queue) {
        if matches!(self.turn.connection.stage, Stage::Session(_)) {
            return self.turn.closing_is_over(queue == Queue::Empty);
        }
        self.turn.shared.stats.timeouts_linger += 1;
        if queue == Queue::Empty {
            // What arrived there stays there: a reset might take it away again.
            self.turn.drop_socket(Disposal::Close);
        } else {
            self.turn.lose(Loss::Stalled);
            self.turn.drop_socket(Disposal::Reset);
        }
    }
}

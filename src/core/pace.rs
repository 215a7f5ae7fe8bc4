//! Owns the rate of messages: what a session does whose tokens are spent.

use crate::words::error::SessionError;
use crate::words::rate::Rate;

use crate::core::turn::Turn;

impl Turn<'_> {
    /// Takes a token for a message. False if there is none, and the session ends for it.
    ///
    /// Reading pauses as soon as the last token is taken, so that a message without one is not even
    /// looked at.
    #[cold]
    pub(super) fn spend_token(&mut self, rate: Rate) -> bool {
        let (now, closes) = (self.shared.now, self.options().message_rate_closes);
        let extra = self.connection.state.extra();
        let taken = extra.tokens.take(now, rate);
        if closes {
            if !taken {
                self.fail(SessionError::TooManyMessages);
            }
            return taken;
        }
        let next = extra.tokens.next_token(rate);
        if next > now {
            extra.read_pause.get_or_insert_default().wait_until(now, next);
            self.connection.state.timing_changed = true;
            self.shared.stats.rate_pauses += 1;
        }
        true
    }

    /// Goes on reading once there is a token again.
    pub(super) fn token_due(&mut self) {
        let state = &mut self.connection.state;
        let slot = state.id.0.index;
        let hold = state.extra.as_deref_mut().and_then(|extra| extra.read_pause.as_deref_mut());
        if hold.is_some_and(|hold| hold.time_has_come(self.shared.now) && hold.is_over()) {
            self.shared.to_resume.push(slot);
        }
    }
}

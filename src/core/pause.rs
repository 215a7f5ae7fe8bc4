//! One turn of a session whose reading is paused, by the application, by a flow or by the rate of messages,
//! or whose input waits for others.

use crate::protocol::frame_reader::PartialFrame;
use crate::session::read_pause::{ReadPause, UnreadInput};
use crate::session::state::Phase;
use crate::words::error::SessionError;
use crate::words::rate::Rate;
use crate::words::time::Time;

use crate::core::connection::Stage;
use crate::core::session_input::SessionTurn;
use crate::core::turn::Reading;

impl SessionTurn<'_, '_> {
    /// Whether the rest of the input has to wait: reading is paused, or a hook asked something of
    /// others, which they are to do first.
    #[inline]
    pub(super) fn must_wait(&self) -> bool {
        self.turn.shared.has_deferred_work || self.turn.connection.state.read_pause().is_some()
    }

    /// Keeps what arrives while reading is paused, and answers the pings in it.
    #[cold]
    pub(super) fn keep_unread(&mut self, rx: &[u8]) {
        if rx.is_empty() || !matches!(self.turn.connection.stage, Stage::Session(_)) {
            return;
        }
        let into_frame = self.until_header();
        let pause = self.turn.connection.state.extra().read_pause.get_or_insert_default();
        // What the hook was not given stays masked and unread, in the order in which it came.
        pause.keep(rx, into_frame);
        self.take_unread_controls();
    }

    /// How many bytes there are until a frame header begins, if that can be told and matters: raw
    /// sessions answer their pings themselves.
    fn until_header(&self) -> Option<usize> {
        let state = &self.turn.connection.state;
        match state.pipeline.as_deref() {
            // Of a byte stream nothing is a ping.
            Some(pipeline) if pipeline.is_raw() || pipeline.events().is_some() => None,
            _ => state.partial_frame().map_or(Some(0), PartialFrame::until_header),
        }
    }

    fn take_unread_controls(&mut self) {
        let rules = self.turn.connection.state.rules(self.turn.options());
        // After our Close a ping needs no answer, and none may follow it (RFC 6455 section 5.5.1): a hook for
        // a pong may have sent one.
        while self.turn.connection.state.phase == Phase::Open {
            let extra = self.turn.connection.state.extra.as_deref_mut();
            let pause = extra.and_then(|extra| extra.read_pause.as_deref_mut());
            // Where only the rest of one read waits, its pings are answered in their turn.
            let held = pause.filter(|pause| pause.since().is_some());
            let Some(control) = held.and_then(|pause| pause.next_control(&rules)) else { break };
            self.turn.connection.state.last_activity = self.turn.shared.now;
            self.control(control.opcode, &control.payload);
        }
        self.turn.flush();
    }

    /// Goes on with what is held, if nothing stops that any more. `None` if there is no session and
    /// nothing of one, whose reading this could concern.
    pub(crate) fn resume(&mut self) -> Option<Reading> {
        if matches!(self.turn.connection.stage, Stage::Http(_) | Stage::Closed(_)) {
            return None;
        }
        let extra = self.turn.connection.state.extra.as_deref_mut();
        let over = extra.and_then(|extra| extra.read_pause.take_if(|pause| pause.is_over()));
        let Some(mut pause) = over else { return Some(self.turn.reading()) };
        if let Some(since) = pause.since() {
            self.go_on_waiting(since);
        }
        // Out of the state, since hooks that are called for it may pause again.
        let mut input = pause.take();
        if input.is_empty() {
            self.note_unfinished();
            self.turn.connection.state.release_idle();
            return Some(self.turn.reading());
        }
        if self.turn.connection.state.awaiting_pong {
            self.pings().note_sign_of_life(input.as_mut_slice()); // the pong may be further behind
        }
        let taken = self.take_input(input.as_mut_slice());
        input.consume(taken, self.until_header());
        if input.is_empty() {
            if let Some(end) = pause.read_end {
                self.turn.peer_ended(end); // whether or not the last message has begun another pause
            }
        } else {
            self.put_back(input, taken, &pause);
        }
        Some(self.turn.reading())
    }

    /// What was sent in the meantime is read only now: all that is waited for has so much more time. It does
    /// not begin anew: a session may be paused again and again, for a moment each, and its peer be gone.
    fn go_on_waiting(&mut self, since: Time) {
        let now = self.turn.shared.now;
        let paused = |from: Time| now.since(from.max(since));
        let state = &mut self.turn.connection.state;
        state.last_activity = state.last_activity.after(paused(state.last_activity));
        if state.awaiting_pong {
            let more = u32::try_from(paused(state.ping_base).as_millis()).unwrap_or(u32::MAX);
            state.heard_millis = state.heard_millis.saturating_add(more);
        }
        if let Some((Some(window), _, _)) = state.unfinished() {
            window.delay(paused(window.since()));
        }
        state.timing_changed = true;
    }

    fn put_back(&mut self, input: UnreadInput, taken: usize, before: &ReadPause) {
        if !matches!(self.turn.connection.stage, Stage::Session(_)) {
            return;
        }
        let now = self.turn.shared.now;
        let pause = self.turn.connection.state.extra().read_pause.get_or_insert_default();
        pause.put_back(input);
        // The end was read once; no event will say it again.
        pause.read_end = before.read_end;
        if let Some(at) = before.peer_ended() {
            pause.note_peer_end(if taken > 0 { now } else { at });
            self.turn.connection.state.timing_changed = true;
        }
        self.take_unread_controls();
    }
}

/// The rate of messages.
impl SessionTurn<'_, '_> {
    /// Takes a token for a message. False if there is none, and the session ends for it.
    ///
    /// Reading pauses as soon as the last token is taken, so that a message without one is not even
    /// looked at.
    #[cold]
    pub(super) fn spend_token(&mut self, rate: Rate) -> bool {
        let (now, closes) = (self.turn.shared.now, self.turn.options().message_rate_closes);
        let extra = self.turn.connection.state.extra();
        let taken = extra.tokens.take(now, rate);
        if closes {
            if !taken {
                self.turn.fail(SessionError::TooManyMessages);
            }
            return taken;
        }
        let next = extra.tokens.next_token(rate);
        if next > now {
            extra.read_pause.get_or_insert_default().wait_until(now, next);
            self.turn.connection.state.timing_changed = true;
            self.turn.shared.stats.rate_pauses += 1;
        }
        true
    }
}

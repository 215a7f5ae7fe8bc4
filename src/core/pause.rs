//! Owns one connection's turn while its reading is paused, or its input waits for others.

use crate::domain::session_state::Phase;
use crate::protocol::frame::OpCode;
use crate::protocol::reader::Partial;

use super::connection::Stage;
use super::turn::{Reading, Turn};

impl Turn<'_> {
    /// Whether the rest of the input has to wait: reading is paused, or a hook asked something of
    /// others, which they are to do first.
    #[inline]
    pub(super) fn must_wait(&self) -> bool {
        self.shared.asked || self.connection.state.hold().is_some()
    }

    /// Keeps what arrives while reading is paused, and answers the pings in it.
    #[cold]
    pub(super) fn hold_input(&mut self, rx: &[u8]) {
        if rx.is_empty() || !matches!(self.connection.stage, Stage::Session(_)) {
            return;
        }
        let into_frame = self.until_header();
        let hold = self.connection.state.extra().hold.get_or_insert_default();
        hold.keep(rx, into_frame);
        self.answer_held_pings();
    }

    /// How many bytes there are until a frame header begins, if that can be told and matters: raw
    /// sessions answer their pings themselves.
    fn until_header(&self) -> Option<usize> {
        let state = &self.connection.state;
        match state.pipeline.as_deref() {
            Some(pipeline) => (!pipeline.raw && pipeline.progress.is_none()).then_some(0),
            None => state.partial.as_deref().map_or(Some(0), Partial::until_header),
        }
    }

    #[allow(
        clippy::arithmetic_side_effects,
        reason = "counters of 64 bits, which do not come round in a lifetime"
    )]
    fn answer_held_pings(&mut self) {
        if self.connection.state.phase != Phase::Open {
            return; // after our Close a ping needs no answer, and none may follow it
        }
        let rules = self.connection.state.rules(self.options());
        loop {
            let extra = self.connection.state.extra.as_deref_mut();
            let hold = extra.and_then(|extra| extra.hold.as_deref_mut());
            let held = hold.filter(|hold| hold.stops_reading);
            let Some(control) = held.and_then(|hold| hold.next_control(&rules)) else { break };
            if control.opcode == OpCode::Ping {
                self.shared.stats.pings_in += 1;
                self.session().send_control(OpCode::Pong, &control.payload);
            }
        }
        self.flush();
    }

    /// Goes on with what is held, if nothing stops that any more. `None` if there is no session and
    /// nothing of one, whose reading this could concern.
    #[allow(clippy::arithmetic_side_effects, reason = "both are parts of what was held")]
    pub(crate) fn resume(&mut self) -> Option<Reading> {
        if matches!(self.connection.stage, Stage::Http(_) | Stage::Closed(_)) {
            return None;
        }
        let extra = self.connection.state.extra.as_deref_mut();
        let over = extra.and_then(|extra| extra.hold.take_if(|hold| hold.is_over()));
        let Some(mut hold) = over else { return Some(self.reading()) };
        let state = &mut self.connection.state;
        if hold.stops_reading {
            // The peer could not be heard: its time to answer begins anew.
            state.ping_base = self.shared.now;
            state.last_activity = self.shared.now;
            state.awaiting_pong = false;
            state.timing_changed = true;
            if let Some((window, _, _)) = state.unfinished() {
                *window = None;
            }
        }
        let peer_shut = hold.peer_shut;
        let (mut bytes, taken) = hold.take();
        if taken < bytes.len() {
            let now_taken = self.take_input(bytes.get_mut(taken..).unwrap_or_default());
            self.put_back(bytes, taken + now_taken, peer_shut);
        } else {
            self.note_unfinished();
            self.connection.state.release_idle();
        }
        if peer_shut && self.connection.state.hold().is_none() {
            self.peer_shut();
        }
        Some(self.reading())
    }

    fn put_back(&mut self, bytes: Vec<u8>, taken: usize, peer_shut: bool) {
        if taken < bytes.len() && matches!(self.connection.stage, Stage::Session(_)) {
            let into_frame = self.until_header();
            let hold = self.connection.state.extra().hold.get_or_insert_default();
            hold.put_back(bytes, taken, into_frame);
            hold.peer_shut |= peer_shut;
            self.answer_held_pings();
        }
    }

    /// The peer has shut its side while something of it is held: that comes first.
    pub(super) fn hold_end(&mut self) -> bool {
        let extra = self.connection.state.extra.as_deref_mut();
        let hold = extra.and_then(|extra| extra.hold.as_deref_mut());
        let held = hold.filter(|hold| hold.held() > 0);
        held.map(|hold| hold.peer_shut = true).is_some()
    }

    /// Whether the socket is to be read: at half a read buffer that is held, no more.
    pub(super) fn reading(&self) -> Reading {
        match self.connection.state.hold() {
            Some(hold) if hold.held() >= self.shared.limits.read_buffer_bytes / 2 => {
                Reading::Paused
            }
            Some(_) => Reading::Sparing,
            None => Reading::Continue,
        }
    }
}

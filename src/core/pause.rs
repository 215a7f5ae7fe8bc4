//! Owns one connection's turn while its reading is paused, or its input waits for others.

use std::io::ErrorKind;

use crate::protocol::frame::OpCode;
use crate::protocol::frame_reader::PartialFrame;
use crate::session::read_pause::{ReadPause, UnreadInput};
use crate::session::state::Phase;

use crate::core::connection::Stage;
use crate::core::turn::{Reading, Turn};

impl Turn<'_> {
    /// Whether the rest of the input has to wait: reading is paused, or a hook asked something of
    /// others, which they are to do first.
    #[inline]
    pub(super) fn must_wait(&self) -> bool {
        self.shared.has_deferred_work || self.connection.state.read_pause().is_some()
    }

    /// Keeps what arrives while reading is paused, and answers the pings in it.
    #[cold]
    pub(super) fn hold_input(&mut self, rx: &[u8]) {
        if rx.is_empty() || !matches!(self.connection.stage, Stage::Session(_)) {
            return;
        }
        let into_frame = self.until_header();
        let hold = self.connection.state.extra().read_pause.get_or_insert_default();
        hold.keep(rx, into_frame);
        self.take_held_controls();
    }

    /// How many bytes there are until a frame header begins, if that can be told and matters: raw
    /// sessions answer their pings themselves.
    fn until_header(&self) -> Option<usize> {
        let state = &self.connection.state;
        match state.pipeline.as_deref() {
            Some(pipeline) if pipeline.raw => None,
            _ => state.partial_frame().map_or(Some(0), PartialFrame::until_header),
        }
    }

    fn take_held_controls(&mut self) {
        if self.connection.state.phase != Phase::Open {
            return; // after our Close a ping needs no answer, and none may follow it
        }
        let rules = self.connection.state.rules(self.options());
        loop {
            let extra = self.connection.state.extra.as_deref_mut();
            let hold = extra.and_then(|extra| extra.read_pause.as_deref_mut());
            let held = hold.filter(|hold| hold.since().is_some());
            let Some(control) = held.and_then(|hold| hold.next_control(&rules)) else { break };
            if control.opcode == OpCode::Ping {
                self.shared.stats.pings_in += 1;
                self.outgoing().send_control(OpCode::Pong, &control.payload);
            } else {
                self.pong(&control.payload);
            }
        }
        self.flush();
    }

    /// Goes on with what is held, if nothing stops that any more. `None` if there is no session and
    /// nothing of one, whose reading this could concern.
    pub(crate) fn resume(&mut self) -> Option<Reading> {
        if matches!(self.connection.stage, Stage::Http(_) | Stage::Closed(_)) {
            return None;
        }
        let extra = self.connection.state.extra.as_deref_mut();
        let over = extra.and_then(|extra| extra.read_pause.take_if(|hold| hold.is_over()));
        let Some(mut hold) = over else { return Some(self.reading()) };
        let state = &mut self.connection.state;
        if hold.since().is_some() {
            // What it sent in the meantime is read only now: its time to answer begins anew.
            state.ping_base = self.shared.now;
            state.last_activity = self.shared.now;
            state.awaiting_pong = false;
            state.timing_changed = true;
            if let Some((window, _, _)) = state.unfinished() {
                *window = None;
            }
        }
        let mut input = hold.take();
        if input.is_empty() {
            self.note_unfinished();
            self.connection.state.release_idle();
            return Some(self.reading());
        }
        if self.connection.state.awaiting_pong {
            self.note_sign_of_life(input.as_mut_slice()); // the pong may be further behind
        }
        let taken = self.take_input(input.as_mut_slice());
        input.consume(taken, self.until_header());
        if input.is_empty() {
            if hold.end_was_read {
                self.peer_shut(); // whether or not the last message has begun another pause
            }
        } else {
            self.put_back(input, taken, &hold);
        }
        Some(self.reading())
    }

    fn put_back(&mut self, input: UnreadInput, taken: usize, before: &ReadPause) {
        if !matches!(self.connection.stage, Stage::Session(_)) {
            return;
        }
        let now = self.shared.now;
        let hold = self.connection.state.extra().read_pause.get_or_insert_default();
        hold.put_back(input);
        hold.end_was_read = before.end_was_read;
        if let Some(at) = before.peer_ended() {
            hold.note_peer_end(if taken > 0 { now } else { at });
            self.connection.state.timing_changed = true;
        }
        self.take_held_controls();
    }

    /// The peer has shut its side while something of it is held: that comes first.
    pub(super) fn hold_end(&mut self) -> bool {
        let now = self.shared.now;
        let extra = self.connection.state.extra.as_deref_mut();
        let hold = extra.and_then(|extra| extra.read_pause.as_deref_mut());
        let Some(hold) = hold.filter(|hold| hold.held() > 0) else { return false };
        hold.end_was_read = true;
        hold.note_peer_end(now);
        self.connection.state.timing_changed = true;
        true
    }

    /// The peer has ended its side, or the connection failed, while the socket is not read.
    pub(crate) fn hung_up(&mut self, failure: Option<ErrorKind>) {
        let now = self.shared.now;
        let extra = self.connection.state.extra.as_deref_mut();
        let hold = extra.and_then(|extra| extra.read_pause.as_deref_mut());
        match (hold, failure) {
            (Some(_), Some(kind)) => self.broken(kind),
            // There may be more behind what is held, and the application may still take it.
            (Some(hold), None) => {
                hold.note_peer_end(now);
                self.connection.state.timing_changed = true;
            }
            (None, _) => {} // what stops the reading is an answer, whose writing tells
        }
    }

    /// Whether the socket is to be read: at half a read buffer that is held, no more.
    pub(super) fn reading(&self) -> Reading {
        match self.connection.state.read_pause() {
            Some(hold) if hold.held() >= self.shared.limits.read_buffer_bytes / 2 => {
                Reading::Paused
            }
            Some(_) => Reading::Sparing,
            None => Reading::Continue,
        }
    }
}

//! Owns the short way: whole messages of a session that holds nothing, from the read buffer to the hook
//! and from the turn's buffer to the wire. Whatever is rare is asked for once and done elsewhere.

use crate::protocol::frame::ShortMessage;
use crate::session::state::Phase;
use crate::words::error::{ProtocolError, SessionError};
use crate::words::message::{Message, Payload, Rsv};
use crate::words::options::SessionOptions;

use crate::core::turn::{Reading, Turn};

impl Turn<'_> {
    /// Bytes of an upgraded connection.
    #[inline(never)]
    pub(super) fn session_input(&mut self, rx: &mut [u8]) -> Reading {
        let mut taken = 0;
        if self.connection.state.awaiting_pong && !self.is_lone_pong(rx) {
            self.note_sign_of_life(rx);
        }
        // This part of the turn has only begun, so no share is spent yet.
        if self.connection.state.can_read_fast() && !self.shared.copies_wait() {
            taken = self.take_short(rx);
            if taken == rx.len() && self.connection.state.extra.is_none() {
                self.conclude_plainly();
                return Reading::Continue;
            }
        }
        self.input_with_care(rx.get_mut(taken..).unwrap_or_default())
    }

    /// Whether all that came is the answer to a ping, as most clients send it: masked, with the 8 bytes of
    /// the ping.
    #[inline]
    fn is_lone_pong(&self, rx: &[u8]) -> bool {
        rx.len() == 14 && rx.starts_with(&[0x8a, 0x88]) && self.connection.state.can_read_fast()
    }

    /// Delivers whole messages from the start of `rx` until something else comes, or until a hook
    /// leaves something to be looked at: how many bytes that took. The session has nothing unfinished.
    #[inline(always)] // a call would be 4 % of an echo, and the compiler makes it one
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "a message ends within what was left of the read buffer"
    )]
    pub(super) fn take_short(&mut self, rx: &mut [u8]) -> usize {
        let route = self.options();
        let limit = self.connection.state.options(route).short_limit();
        self.connection.state.last_activity = self.shared.now;
        let mut taken = 0;
        while let Some(rest) = rx.get_mut(taken..) {
            let Some(short) = ShortMessage::find(rest, limit) else { break };
            taken += short.end;
            self.deliver_short(route, short.text, short.unmask(rest));
            if self.connection.state.extra.is_some() || self.shared.has_deferred_work {
                break;
            }
        }
        taken
    }

    #[inline(always)] // likewise
    fn deliver_short(&mut self, route: &SessionOptions, text: bool, payload: &[u8]) {
        let payload = if text {
            match std::str::from_utf8(payload) {
                Ok(text) => Payload::Text(text),
                Err(_) => return self.fail(SessionError::Protocol(ProtocolError::InvalidUtf8)),
            }
        } else {
            Payload::Binary(payload)
        };
        self.deliver_under(route, Message::new(payload, Rsv::NONE));
    }

    /// The end of a turn in which nothing rare has come up, so that there is only the writing to do.
    #[inline]
    fn conclude_plainly(&mut self) {
        debug_assert!(self.connection.state.phase == Phase::Open, "all else leaves an `Extra`");
        if let Some(outcome) = self.shared.write_out(self.wire) {
            self.wrote_in_part(outcome);
            self.charge();
        } else if self.connection.charged != 0 || self.connection.state.collected.is_some() {
            self.charge();
        }
    }
}

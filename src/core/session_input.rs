//! One turn of a session: bytes in, messages to the hook. The fast path comes first: whole messages of a
//! session that holds nothing, from the read buffer to the hook and from the turn's buffer to the wire.
//! Whatever is rare is asked for once and done elsewhere.

use log::{Level, log_enabled, trace};

use crate::protocol::close::read_close;
use crate::protocol::frame::{OpCode, ShortMessage, apply_mask};
use crate::protocol::message_reader::{Incoming, next_message};
use crate::protocol::text::checked_text;
use crate::session::Session;
use crate::session::send::Outgoing;
use crate::session::state::Phase;
use crate::structures::assembled::Assembled;
use crate::words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
use crate::words::error::SessionError;
use crate::words::message::{Message, Payload, Rsv};
use crate::words::options::SessionOptions;

use crate::core::connection::Stage;
use crate::core::pings::Pings;
use crate::core::turn::{Reading, Turn};

/// A connection's turn once it is upgraded.
pub(super) struct SessionTurn<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

/// The fast path.
impl SessionTurn<'_, '_> {
    /// Bytes of an upgraded connection.
    #[inline(never)]
    pub(super) fn input(mut self, rx: &mut [u8]) -> Reading {
        let mut taken = 0;
        if self.turn.connection.state.awaiting_pong && self.take_lone_pong(rx) {
            self.turn.conclude();
            return self.turn.reading();
        }
        // This part of the turn has only begun, so no share is spent yet.
        if self.turn.connection.state.can_read_fast() && !self.turn.shared.copies_wait() {
            let all_is_taken;
            (taken, all_is_taken) = self.take_short(rx);
            if all_is_taken {
                self.conclude_fast();
                return Reading::Continue;
            }
        }
        self.input_slow(rx.get_mut(taken..).unwrap_or_default())
    }

    /// Most of what arrives while a pong is awaited is that pong, as most clients send it: masked, with the
    /// 8 bytes of the ping. It is taken if it is all that came; whatever else came is left, and is looked at
    /// for what it says of the wait.
    #[inline(never)]
    fn take_lone_pong(&mut self, rx: &mut [u8]) -> bool {
        let of_client =
            self.turn.connection.state.can_read_fast() && !self.turn.connection.is_dialled();
        match rx {
            [0x8a, 0x88, a, b, c, d, payload @ ..] if payload.len() == 8 && of_client => {
                // It is kept as it came, like all input.
                if self.turn.shared.copies_wait() {
                    return false;
                }
                apply_mask(payload, [*a, *b, *c, *d], 0);
                self.turn.connection.state.last_activity = self.turn.shared.now;
                self.control(OpCode::Pong, payload);
                self.turn.connection.state.release_idle();
                true
            }
            _ => {
                self.pings().note_sign_of_life(rx);
                false
            }
        }
    }

    /// Delivers whole messages from the start of `rx` until something else comes, or until a hook
    /// leaves something to be looked at: how many bytes that took, and whether it was all of them, with
    /// nothing left to be looked at. The session is open and has nothing unfinished.
    #[inline(always)] // a call would be 4 % of an echo, and the compiler makes it one
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "a message ends within what was left of the read buffer"
    )]
    fn take_short(&mut self, rx: &mut [u8]) -> (usize, bool) {
        let route = self.turn.options();
        let limit = self.turn.connection.state.options(route).short_limit();
        self.turn.connection.state.last_activity = self.turn.shared.now;
        #[cfg(feature = "client")]
        if self.turn.connection.is_dialled {
            return self.take_short_of_server(route, limit, rx);
        }
        let mut taken = 0;
        while taken < rx.len() {
            let Some(rest) = rx.get_mut(taken..) else { break };
            let Some(short) = ShortMessage::unmask(rest, limit) else { break };
            taken += short.end;
            // Whatever a hook leaves behind shows in one of the two; nothing else need be asked for
            // each message.
            if !self.deliver_short(route, short.text, short.payload) {
                return (taken, false);
            }
            if self.turn.shared.has_deferred_work {
                break;
            }
        }
        (taken, taken == rx.len())
    }

    /// The same where the peer is the server, whose messages have no mask.
    #[cfg(feature = "client")]
    #[inline(never)]
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "a message ends within what was left of the read buffer"
    )]
    fn take_short_of_server(
        &mut self,
        route: &SessionOptions,
        limit: usize,
        rx: &[u8],
    ) -> (usize, bool) {
        let mut taken = 0;
        while let Some(rest) = rx.get(taken..) {
            let Some(short) = ShortMessage::find(rest, limit) else { break };
            taken += short.end;
            if !self.deliver_short(route, short.text, short.payload) {
                return (taken, false);
            }
            if self.turn.shared.has_deferred_work {
                break;
            }
        }
        (taken, taken == rx.len())
    }

    /// False if it has left something to be looked at, as each end of the session does.
    #[inline(always)] // likewise
    fn deliver_short(&mut self, route: &SessionOptions, text: bool, payload: &[u8]) -> bool {
        debug_assert!(self.turn.connection.state.phase == Phase::Open, "what ends it stops this");
        let payload = if text {
            match checked_text(payload) {
                Ok(text) => Payload::Text(text),
                Err(error) => {
                    self.turn.fail(SessionError::Protocol(error));
                    return false;
                }
            }
        } else {
            Payload::Binary(payload)
        };
        self.deliver_open(route, Message::new(payload, Rsv::NONE))
    }

    /// The end of a turn in which nothing rare has come up, so that there is only the writing to do.
    #[inline]
    fn conclude_fast(&mut self) {
        debug_assert!(
            self.turn.connection.state.phase == Phase::Open,
            "all else leaves an `Extra`"
        );
        // Whatever gathers more than a short message writes it at once.
        if let Some(outcome) = self.turn.shared.write_short_out(self.turn.wire) {
            self.turn.wrote_in_part(outcome);
            self.turn.charge();
        } else if self.turn.connection.charged != 0
            || self.turn.connection.state.collected.is_some()
        {
            self.turn.charge();
        }
    }
}

/// Any input.
impl<'a> SessionTurn<'_, 'a> {
    /// Bytes of a session that holds something, or of which something has to be looked at.
    #[inline(never)]
    fn input_slow(mut self, rx: &mut [u8]) -> Reading {
        let mut taken = 0;
        // No token is taken and no message begun: the input is kept as it came.
        if self.turn.shared.must_yield() {
            self.turn.shared.to_resume.push(self.turn.connection.state.id.0.index);
        } else if self.turn.connection.state.read_pause().is_none() {
            taken = self.take_input(rx);
        }
        if taken < rx.len() {
            self.keep_unread(rx.get(taken..).unwrap_or_default());
        }
        self.turn.conclude();
        self.turn.reading()
    }

    /// Delivers what is in `rx`, up to where the rest has to wait: how many bytes that took.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "used is at most what was left of the read buffer"
    )]
    pub(super) fn take_input(&mut self, rx: &mut [u8]) -> usize {
        self.turn.connection.state.last_activity = self.turn.shared.now;
        if self.turn.connection.state.pipeline.is_some() {
            return self.frame_input(rx);
        }
        let mut taken = 0;
        while taken < rx.len() && self.takes_input() {
            let rest = rx.get_mut(taken..).unwrap_or_default();
            let state = &self.turn.connection.state;
            let is_between = state.phase == Phase::Open && state.partial.is_none();
            let used = if is_between { self.take_short(rest).0 } else { 0 };
            // A message in fragments, or a frame longer than what came, is the reader's.
            taken += if used > 0 { used } else { self.step(rest) };
        }
        self.turn.flush();
        self.note_unfinished();
        self.turn.connection.state.release_idle();
        taken
    }

    /// Whether there is a session still, and nothing for which the rest of its input has to wait.
    fn takes_input(&self) -> bool {
        matches!(self.turn.connection.stage, Stage::Session(_)) && !self.must_wait()
    }

    /// Whatever is no short message: takes some bytes, all if nothing becomes complete.
    #[inline(never)]
    fn step(&mut self, rx: &mut [u8]) -> usize {
        let rules = self.turn.connection.state.rules(self.turn.options());
        // The rules are those of now: a hook may have changed them since the last frame.
        let partial = &mut self.turn.connection.state.partial;
        let step = self.turn.shared.with_spare(|spare| next_message(partial, rx, &rules, spare));
        let (incoming, used) = match step {
            Ok(step) => step,
            Err(error) => {
                self.turn.fail(SessionError::Protocol(error));
                return 0; // the session is over
            }
        };
        match incoming {
            Incoming::Nothing => {}
            Incoming::Text(text, rsv) => self.deliver(Message::new(Payload::Text(text), rsv)),
            Incoming::Binary(bytes, rsv) => self.deliver(Message::new(Payload::Binary(bytes), rsv)),
            Incoming::Assembled(message, rsv) => self.deliver_assembled(message, rsv),
            Incoming::Control(opcode, payload) => self.control(opcode, &payload),
        }
        used
    }

    /// Delivers a message that has a buffer of its own. A large one is lent: what the hook sends of it is
    /// not copied where it has to wait, and the buffer is kept for the next.
    fn deliver_assembled(&mut self, message: Assembled, rsv: Rsv) {
        if !self.turn.shared.spare.keeps(message.capacity()) {
            return self.deliver(Message::new(message.payload(), rsv));
        }
        let lent = self.turn.shared.lend(message);
        self.deliver(Message::new(lent.payload(), rsv));
        self.turn.shared.take_back(lent);
    }

    /// Begins the window of what is unfinished, or begins it anew as soon as enough came.
    #[inline]
    pub(super) fn note_unfinished(&mut self) {
        let state = &self.turn.connection.state;
        if state.partial.is_some() || state.pipeline.is_some() {
            self.turn.progress().look_at_unfinished();
        }
    }

    pub(super) fn pings(&mut self) -> Pings<'_, 'a> {
        Pings { turn: self.turn }
    }
}

/// What came.
impl SessionTurn<'_, '_> {
    pub(super) fn deliver(&mut self, message: Message<'_>) {
        // After our Close, messages still in flight are dropped: `close` ends delivery.
        if self.turn.connection.state.phase == Phase::Open {
            self.deliver_open(self.turn.options(), message);
        }
    }

    /// Hands a message to the hook of an open session under these options of its route. False if that has
    /// left something to be looked at.
    #[inline(always)] // as `take_short`
    fn deliver_open(&mut self, route: &SessionOptions, message: Message<'_>) -> bool {
        if log_enabled!(target: "wirewheel::frame", Level::Trace) {
            // Not the message itself, which would be copied for the hook then.
            self.trace_message(message.is_text(), message.bytes().len());
        }
        if let Some(rate) = route.message_rate {
            if !self.spend_token(rate) {
                return false;
            }
        }
        self.turn.shared.stats.messages_in += 1;
        let Stage::Session(handler) = &mut self.turn.connection.stage else { return false };
        let (state, shared) = (&mut self.turn.connection.state, &mut *self.turn.shared);
        let mut session = Session { out: Outgoing { state, shared, route, wire: self.turn.wire } };
        let result = handler.on_message(&mut session, message);
        let goes_on = result.is_ok() && self.turn.connection.state.extra.is_none();
        if !goes_on {
            self.turn.after_hook(result);
        }
        goes_on
    }

    #[cold]
    fn trace_message(&self, is_text: bool, length: usize) {
        let kind = if is_text { "Text" } else { "Binary" };
        let id = self.turn.connection.state.id;
        trace!(target: "wirewheel::frame", "{id} in: {kind}, {length} bytes");
    }

    pub(super) fn control(&mut self, opcode: OpCode, payload: &[u8]) {
        trace!(target: "wirewheel::frame", "{} in: {opcode:?}, {} bytes", self.turn.connection.state.id,
            payload.len());
        match opcode {
            OpCode::Ping if self.turn.connection.state.phase == Phase::Open => {
                self.turn.shared.stats.pings_in += 1;
                // RFC 6455 section 5.5.3: the same payload; before the hook, so that it cannot be
                // forgotten.
                self.turn.outgoing().send_control(OpCode::Pong, payload);
                self.turn.call_and_act(|handler, session| handler.on_ping(session, payload));
            }
            OpCode::Pong if self.turn.connection.state.phase == Phase::Open => {
                self.pings().pong(payload)
            }
            OpCode::Close => match read_close(payload) {
                Ok(close) => self.peer_close(close),
                Err(error) => self.turn.fail(SessionError::Protocol(error)),
            },
            // After our Close a ping needs no answer (RFC 6455 section 5.5.2).
            OpCode::Ping | OpCode::Pong | OpCode::Text | OpCode::Binary | OpCode::Continuation => {}
        }
    }

    /// The peer's Close: an answer to ours, or the first.
    fn peer_close(&mut self, close: Option<(CloseCode, &str)>) {
        let (code, text) = close.unwrap_or((CloseCode::NO_STATUS, ""));
        // RFC 6455 section 5.5.1: one Close each; the peer's answers ours.
        if self.turn.connection.state.phase == Phase::Closing {
            return self.turn.answered(code, text);
        }
        self.turn.outgoing().leave_flows(); // the peer wants no more of them
        // RFC 6455 section 5.5.1: the code that came is sent back.
        let echo = close.map(|(code, text)| CloseReason::own(code, text));
        self.turn.outgoing().queue_close(echo.as_ref(), false);
        self.turn.end(&CloseInfo::new(code, text, ClosedBy::Remote, true));
        self.turn.finish();
    }
}

//! Owns one connection's turn: the session half. Bytes in, hooks called, frames and closes out.

use std::io;

use log::{Level, log_enabled, trace};

use crate::app::endpoint::Endpoint;
use crate::app::route_table::RouteTable;
use crate::context::loop_state::LoopState;
use crate::context::warnings::Target;
use crate::protocol::close::read_close;
use crate::protocol::frame::OpCode;
use crate::protocol::message_reader::{Incoming, next_message};
use crate::session::Session;
use crate::session::send::Outgoing;
use crate::session::state::Phase;
use crate::structures::outbox::Flush;
use crate::structures::wire::Wire;
use crate::words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
use crate::words::error::{HandlerError, HandlerResult, SendError, SessionError};
use crate::words::message::{Message, Payload};
use crate::words::options::SessionOptions;
use crate::words::time::Time;

use crate::core::admission::Admission;
use crate::core::connection::{Connection, Disposal, SpareStages, Stage};
use crate::core::ending::Loss;

/// Whether the socket of a connection is to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Read until it is drained.
    Continue,
    /// Read with half a buffer at a time: what arrives is held.
    Sparing,
    /// Leave it; a later turn says when to go on.
    Paused,
    /// Leave it, and call `handle_writable` in the next turn: there is more to write, but the
    /// others come first.
    Again,
}

impl Reading {
    /// Whether the socket is read at all.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Continue | Self::Sparing)
    }
}

/// A connection, with all that it needs for the time of one turn.
pub(crate) struct Turn<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) shared: &'a mut LoopState,
    pub(crate) admission: &'a mut Admission,
    pub(crate) spare_stages: &'a mut SpareStages,
    pub(crate) routes: &'a RouteTable,
    pub(crate) wire: &'a mut dyn Wire,
}

impl<'a> Turn<'a> {
    pub(crate) fn options(&self) -> &'a SessionOptions {
        self.routes.options(self.connection.state.route)
    }

    /// Bytes from the socket, whatever the stage; what follows from them is concluded.
    #[inline]
    pub(crate) fn input(&mut self, rx: &mut [u8]) -> Reading {
        if let Stage::Session(_) = self.connection.stage {
            return self.session_input(rx);
        }
        self.input_of_no_session(rx)
    }

    #[inline(never)]
    fn input_of_no_session(&mut self, rx: &mut [u8]) -> Reading {
        let reading = match &self.connection.stage {
            Stage::Http(_) => self.http_input(rx),
            // Lingering: RFC 6455 section 7.1.1 and 1.4; what comes after the Close is dropped.
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => Reading::Continue,
        };
        self.conclude();
        reading
    }

    /// Bytes of a session that holds something, or of which something has to be looked at.
    #[inline(never)]
    pub(super) fn input_with_care(&mut self, rx: &mut [u8]) -> Reading {
        let mut taken = 0;
        if self.shared.must_yield() {
            self.shared.to_resume.push(self.connection.state.id.0.index);
        } else if self.connection.state.read_pause().is_none() {
            taken = self.take_input(rx);
        }
        if taken < rx.len() {
            self.hold_input(rx.get(taken..).unwrap_or_default());
        }
        self.conclude();
        self.reading()
    }

    /// Ends what a turn does to its connection: what the socket does not take is held from now on, and
    /// has to be paid for.
    #[inline]
    pub(crate) fn conclude(&mut self) {
        self.flush();
        self.charge();
    }

    /// Delivers what is in `rx`, up to where the rest has to wait: how many bytes that took.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "used is at most what was left of the read buffer"
    )]
    pub(super) fn take_input(&mut self, rx: &mut [u8]) -> usize {
        self.connection.state.last_activity = self.shared.now;
        if self.connection.state.pipeline.is_some() {
            return self.framed_input(rx);
        }
        let mut taken = 0;
        while taken < rx.len() && self.takes_input() {
            let rest = rx.get_mut(taken..).unwrap_or_default();
            let used = match self.connection.state.partial {
                None => self.take_short(rest),
                Some(_) => 0,
            };
            taken += if used > 0 { used } else { self.step(rest) };
        }
        self.flush();
        self.note_unfinished();
        self.connection.state.release_idle();
        taken
    }

    /// Whether there is a session still, and nothing for which the rest of its input has to wait.
    fn takes_input(&self) -> bool {
        matches!(self.connection.stage, Stage::Session(_)) && !self.must_wait()
    }

    /// Whatever is no short message: takes some bytes, all if nothing becomes complete.
    #[inline(never)]
    fn step(&mut self, rx: &mut [u8]) -> usize {
        let rules = self.connection.state.rules(self.options());
        let step = next_message(&mut self.connection.state.partial, rx, &rules);
        let (incoming, used) = match step {
            Ok(step) => step,
            Err(error) => {
                self.fail(SessionError::Protocol(error));
                return 0; // the session is over
            }
        };
        match incoming {
            Incoming::Nothing => {}
            Incoming::Text(text, rsv) => self.deliver(Message::new(Payload::Text(text), rsv)),
            Incoming::Binary(bytes, rsv) => self.deliver(Message::new(Payload::Binary(bytes), rsv)),
            Incoming::AssembledText(text, rsv) => {
                self.deliver(Message::new(Payload::Text(&text), rsv));
            }
            Incoming::AssembledBinary(bytes, rsv) => {
                self.deliver(Message::new(Payload::Binary(&bytes), rsv));
            }
            Incoming::Control(opcode, payload) => self.control(opcode, &payload),
        }
        used
    }

    pub(super) fn deliver(&mut self, message: Message<'_>) {
        self.deliver_under(self.options(), message);
    }

    /// Hands a message to the hook of a session under these options of its route.
    #[inline(always)] // as `take_short`
    pub(super) fn deliver_under(&mut self, route: &SessionOptions, message: Message<'_>) {
        // After our Close, messages still in flight are dropped: `close` ends delivery.
        if self.connection.state.phase != Phase::Open {
            return;
        }
        if log_enabled!(target: "wirewheel::frame", Level::Trace) {
            self.trace_message(&message);
        }
        if let Some(rate) = route.message_rate {
            if !self.spend_token(rate) {
                return;
            }
        }
        self.shared.stats.messages_in += 1;
        let Stage::Session(handler) = &mut self.connection.stage else { return };
        let (state, shared) = (&mut self.connection.state, &mut *self.shared);
        let mut session = Session { out: Outgoing { state, shared, route, wire: self.wire } };
        let result = handler.on_message(&mut session, message);
        if result.is_err() || self.connection.state.extra.is_some() {
            self.after_hook(result);
        }
    }

    #[cold]
    fn trace_message(&self, message: &Message<'_>) {
        let kind = if message.is_text() { "Text" } else { "Binary" };
        let (id, length) = (self.connection.state.id, message.bytes().len());
        trace!(target: "wirewheel::frame", "{id} in: {kind}, {length} bytes");
    }

    pub(super) fn control(&mut self, opcode: OpCode, payload: &[u8]) {
        trace!(target: "wirewheel::frame", "{} in: {opcode:?}, {} bytes", self.connection.state.id,
            payload.len());
        match opcode {
            OpCode::Ping if self.connection.state.phase == Phase::Open => {
                self.shared.stats.pings_in += 1;
                self.outgoing().send_control(OpCode::Pong, payload);
                self.call_and_act(|handler, session| handler.on_ping(session, payload));
            }
            OpCode::Pong if self.connection.state.phase == Phase::Open => self.pong(payload),
            OpCode::Close => match read_close(payload) {
                Ok(close) => self.peer_close(close),
                Err(error) => self.fail(SessionError::Protocol(error)),
            },
            // After our Close a ping needs no answer (RFC 6455 section 5.5.2).
            OpCode::Ping | OpCode::Pong | OpCode::Text | OpCode::Binary | OpCode::Continuation => {}
        }
    }

    /// A pong counts only if it carries exactly the payload of the ping that awaits it; any other is the
    /// application's.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        let state = &mut self.connection.state;
        let expected = state.ping_base.as_micros().to_be_bytes();
        if !state.awaiting_pong || payload != expected {
            return self.call_and_act(|handler, session| handler.on_own_pong(session, payload));
        }
        let rtt = self.shared.now.since(state.ping_base);
        state.rtt_micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX - 1);
        self.shared.stats.pongs_in += 1;
        self.shared.stats.rtt_micros += u64::from(state.rtt_micros);
        state.awaiting_pong = false;
        state.ping_base = self.shared.now;
        state.timing_changed = true;
        if let Some(extra) = state.extra.as_deref_mut() {
            extra.ping = None;
        }
        self.call_and_act(|handler, session| handler.on_pong(session, rtt));
    }

    /// The peer's Close: an answer to ours, or the first.
    fn peer_close(&mut self, close: Option<(CloseCode, &str)>) {
        let (code, text) = close.unwrap_or((CloseCode::NO_STATUS, ""));
        if self.connection.state.phase == Phase::Closing {
            return self.answered(code, text);
        }
        self.outgoing().leave_flows(); // the peer wants no more of them
        let echo = close.map(|(code, text)| CloseReason::own(code, text));
        self.outgoing().queue_close(echo.as_ref(), false);
        self.end(&CloseInfo::new(code, text, ClosedBy::Remote, true));
        self.finish();
    }

    /// Acts on what a hook returned, noted or asked for.
    pub(crate) fn after_hook(&mut self, result: HandlerResult) {
        let extra = self.connection.state.extra.as_deref_mut();
        let (fault, aborted) =
            extra.map_or((None, false), |extra| (extra.fault.take(), extra.aborted));
        if aborted {
            let known = self.session().close_info().cloned();
            self.end(&known.unwrap_or_else(|| {
                CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Local, false)
            }));
            self.lose(Loss::Aborted);
            self.drop_socket(Disposal::Reset);
        } else if let Some(fault) = fault {
            self.fail(fault);
        } else {
            match result {
                Ok(()) | Err(HandlerError::Send(SendError::Closing)) => {}
                Err(HandlerError::Send(error @ SendError::TooBig { .. })) => {
                    self.note_too_big(error)
                }
                Err(HandlerError::Convert(error)) if error.is_the_peers() => {
                    self.fail(SessionError::Content(error));
                }
                Err(error) => self.fail(SessionError::Handler(error)),
            }
            if self.has_answered_close() {
                self.closed_cleanly();
            }
        }
    }

    /// A hook gave up on a message that it may not send: nothing was sent, and nothing ends.
    #[cold]
    fn note_too_big(&self, error: SendError) {
        let state = &self.connection.state;
        let route = self.routes.route(state.route);
        let kind = ("too big", state.route);
        self.shared.warnings.line(Level::Warn, Target::Session, kind, self.shared.now, || {
            let pattern = route.map_or("", |route| route.pattern.as_str());
            format!("{} {pattern}: a message was not sent: {error}", state.id)
        });
    }

    /// Calls a hook that may fail.
    pub(super) fn call_and_act(
        &mut self,
        hook: impl FnOnce(&mut dyn Endpoint, &mut Session<'_>) -> HandlerResult,
    ) {
        let mut result = Ok(());
        self.call(|handler, session| result = hook(handler, session));
        if result.is_err() || self.connection.state.extra.is_some() {
            self.after_hook(result);
        }
    }

    pub(super) fn call(&mut self, hook: impl FnOnce(&mut dyn Endpoint, &mut Session<'_>)) {
        let route = self.options();
        let Stage::Session(handler) = &mut self.connection.stage else { return };
        let (state, shared) = (&mut self.connection.state, &mut *self.shared);
        let mut session = Session { out: Outgoing { state, shared, route, wire: self.wire } };
        hook(&mut **handler, &mut session);
    }

    pub(crate) fn session(&mut self) -> Session<'_> {
        Session { out: self.outgoing() }
    }

    pub(crate) fn outgoing(&mut self) -> Outgoing<'_> {
        let route = self.options();
        Outgoing { state: &mut self.connection.state, shared: self.shared, route, wire: self.wire }
    }

    /// Writes what the turn has gathered, and acts on a wire that turned out broken.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if !self.shared.tx.is_empty() {
            self.flush_gathered();
        }
    }

    fn flush_gathered(&mut self) {
        if let Some(outcome) = self.shared.write_out(self.wire) {
            self.wrote_in_part(outcome);
        } else if self.connection.state.extra.is_some() {
            self.act_on_wire_fault();
        }
    }

    /// What the socket did not take waits in the outbox, unless the wire turned out broken.
    #[cold]
    pub(super) fn wrote_in_part(&mut self, outcome: io::Result<usize>) {
        self.outgoing().written_in_part(outcome);
        self.act_on_wire_fault();
    }

    pub(super) fn act_on_wire_fault(&mut self) {
        let extra = self.connection.state.extra();
        if let Some(SessionError::Network(kind)) = extra.fault {
            extra.fault = None;
            self.broken(kind);
        }
    }

    /// Acts on a fault that arose where no hook ran, in the turn in which it did.
    pub(super) fn act_on_fault(&mut self) {
        self.act_on_wire_fault();
        let extra = self.connection.state.extra.as_deref_mut();
        if let Some(fault) = extra.and_then(|extra| extra.fault.take()) {
            self.fail(fault);
        }
    }

    /// The socket takes bytes again.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "64-bit counters, and sums of bytes that lie in memory"
    )]
    pub(crate) fn writable(&mut self) -> Reading {
        let extra = self.connection.state.extra.as_deref_mut();
        let Some(extra) = extra.filter(|extra| !extra.outbox.is_empty()) else {
            return match self.connection.stage {
                Stage::Http(ref http) if http.body.is_some() || http.yielded => self.http_drained(),
                _ => self.reading(),
            };
        };
        extra.blocked = false;
        let held = extra.outbox.buffered_bytes() + extra.outbox.control_bytes();
        let outcome = extra.outbox.write_to(self.wire);
        let left = extra.outbox.buffered_bytes() + extra.outbox.control_bytes();
        self.shared.stats.bytes_out += held.saturating_sub(left) as u64;
        match outcome {
            Ok(flush) => {
                if flush == Flush::Done {
                    return self.drained();
                }
                extra.blocked = self.wire.has_socket();
                extra.slow |= extra.blocked;
            }
            Err(kind) => self.broken(kind),
        }
        match self.connection.stage {
            Stage::Http(_) => Reading::Paused, // further requests wait for their turn
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => self.reading(),
        }
    }

    /// The outbox is empty again.
    pub(super) fn drained(&mut self) -> Reading {
        if self.connection.state.collected.is_some() {
            if self.pull() {
                self.connection.state.list_for_flush(self.shared);
            }
            if self.connection.state.is_waiting() {
                return self.reading();
            }
        }
        if let (Phase::Open, Some(extra)) =
            (self.connection.state.phase, self.connection.state.extra.as_deref_mut())
        {
            extra.window = None; // of a session that stays open nobody waits for the rest
        }
        match &self.connection.stage {
            Stage::Http(_) => return self.http_drained(),
            Stage::Session(_) if self.connection.state.phase == Phase::Closing => {
                // Our Close is out only now; from here the peer has its time to answer.
                let (now, patience) = (self.shared.now, self.shared.limits.close_timeout);
                self.connection.state.extra().await_peer(now, patience);
                self.connection.state.timing_changed = true;
            }
            Stage::Session(_) if self.connection.state.was_slow() => {
                self.call_and_act(|handler, session| handler.on_drain(session));
            }
            Stage::Session(_) | Stage::Closed(_) => {}
            Stage::Finishing => self.after_flush(),
        }
        self.connection.state.release_idle();
        self.reading()
    }

    /// The deadline of a session, or of a connection that is finishing, may have come.
    pub(crate) fn session_timeout(&mut self) {
        match (&self.connection.stage, self.connection.state.phase) {
            (Stage::Session(_), Phase::Open) => self.open_timeout(),
            (Stage::Session(_) | Stage::Finishing, _) => self.leaving_timeout(),
            (Stage::Http(_) | Stage::Closed(_), _) => {}
        }
    }

    fn open_timeout(&mut self) {
        let is_plain = self.connection.state.extra.is_none();
        if !is_plain && self.is_stuck() {
            return self.fail(SessionError::WriteTimeout);
        }
        if self.is_left_unfinished() {
            return self.fail(SessionError::MessageTimeout);
        }
        if !is_plain && self.is_rare_due() {
            return;
        }
        let (now, least) = (self.shared.now, self.least());
        let options = self.connection.state.options(self.options());
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        if due(self.connection.idle_deadline(options)) {
            self.fail(SessionError::IdleTimeout);
        } else {
            if due(self.connection.ping_deadline(options, least)) {
                self.ping_due();
            }
            self.token_due();
            self.fire_timers();
        }
    }

    /// Acts on a deadline that only a session with an `Extra` can have; false if none is over.
    fn is_rare_due(&mut self) -> bool {
        let now = self.shared.now;
        let options = self.connection.state.options(self.options());
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        let extra = self.connection.state.extra.as_deref();
        if due(extra.and_then(|extra| extra.deadline)) {
            // A raw handler did not answer the peer's Close.
            self.closing_is_over(true);
        } else if due(self.connection.gone_deadline(&self.shared.limits)) {
            self.peer_is_gone();
        } else if due(self.connection.pause_deadline(options)) {
            self.fail(SessionError::PauseTimeout);
        } else {
            return false;
        }
        true
    }

    /// Calls `on_timer` for each timer of the session that is over, in their order.
    fn fire_timers(&mut self) {
        let now = self.shared.now;
        while self.connection.state.phase == Phase::Open {
            let Some(extra) = self.connection.state.extra.as_deref_mut() else { return };
            let due = extra.timers.iter().enumerate().filter(|(_, (_, at))| *at <= now);
            let Some((place, _)) = due.min_by_key(|(_, (_, at))| *at) else { break };
            let (timer, _) = extra.timers.remove(place); // of equal ones the first set is first
            self.call_and_act(|handler, session| handler.on_timer(session, timer));
        }
        self.flush();
        self.connection.state.release_idle();
    }
}

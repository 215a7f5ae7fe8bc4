//! Owns one connection's turn: the session half. Bytes in, hooks called, frames and closes out.

use std::io;
use std::time::Duration;

use log::{debug, error, trace};

use crate::domain::route_table::RouteTable;
use crate::domain::session::Session;
use crate::domain::session_state::Phase;
use crate::domain::shared::Shared;
use crate::protocol::close::read_close;
use crate::protocol::frame::OpCode;
use crate::protocol::reader::{self, Incoming};
use crate::structures::outbox::Flush;
use crate::structures::wire::Wire;
use crate::words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
use crate::words::error::{HandlerError, HandlerResult, SendError, SessionError};
use crate::words::message::{Message, Payload};
use crate::words::options::SessionOptions;
use crate::words::time::Time;

use super::admission::Admission;
use super::connection::{Connection, Disposal, SpareStages, Stage};

/// Whether the socket of a connection is to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Read until it is drained.
    Continue,
    /// Leave it; a later turn says when to go on.
    Paused,
    /// Leave it, and call `handle_writable` in the next turn: there is more to write, but the
    /// others come first.
    Again,
}

/// A connection, with all that it needs for the time of one turn.
pub(crate) struct Turn<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) shared: &'a mut Shared,
    pub(crate) admission: &'a mut Admission,
    pub(crate) spare_stages: &'a mut SpareStages,
    pub(crate) routes: &'a RouteTable,
    pub(crate) wire: &'a mut dyn Wire,
    /// The server stops: requests are refused.
    pub(crate) draining: bool,
}

impl<'a> Turn<'a> {
    pub(crate) fn options(&self) -> &'a SessionOptions {
        self.routes.options(self.connection.state.route)
    }

    /// Bytes from the socket, whatever the stage.
    pub(crate) fn input(&mut self, rx: &mut [u8]) -> Reading {
        match &self.connection.stage {
            Stage::Session(_) => {
                self.session_input(rx);
                Reading::Continue
            }
            Stage::Http(_) => self.http_input(rx),
            // Lingering: RFC 6455 section 7.1.1 and 1.4; what comes after the Close is dropped.
            Stage::Finishing | Stage::Closed(_) => Reading::Continue,
        }
    }

    /// Bytes of an upgraded connection.
    pub(crate) fn session_input(&mut self, rx: &mut [u8]) {
        let route = self.options();
        self.connection.state.last_activity = self.shared.now;
        if self.connection.state.pipeline.is_some() {
            return self.framed_input(rx);
        }
        let mut rules = self.connection.state.rules(route);
        let mut taken = 0;
        while let Stage::Session(_) = self.connection.stage {
            let rest = rx.get_mut(taken..).unwrap_or_default();
            let step = reader::next(&mut self.connection.state.partial, rest, &rules);
            let (incoming, used) = match step {
                Ok(step) => step,
                Err(error) => {
                    self.fail(SessionError::Protocol(error));
                    break;
                }
            };
            taken += used;
            match incoming {
                Incoming::Nothing => break,
                Incoming::Text(text, rsv) => {
                    self.deliver(Message::new(Payload::Text(text), rsv));
                }
                Incoming::Binary(bytes, rsv) => {
                    self.deliver(Message::new(Payload::Binary(bytes), rsv));
                }
                Incoming::AssembledText(text, rsv) => {
                    self.deliver(Message::new(Payload::Text(&text), rsv));
                }
                Incoming::AssembledBinary(bytes, rsv) => {
                    self.deliver(Message::new(Payload::Binary(&bytes), rsv));
                }
                Incoming::Control(opcode, payload) => self.control(opcode, payload.as_slice()),
            }
            if self.connection.state.extra.is_some() {
                rules = self.connection.state.rules(route); // a hook may have changed them
            }
        }
        self.flush();
        self.connection.state.release_idle();
    }

    #[inline]
    pub(super) fn deliver(&mut self, message: Message<'_>) {
        // After our Close, messages still in flight are dropped: `close` ends delivery.
        if self.connection.state.phase != Phase::Open {
            return;
        }
        trace!(target: "wirewheel::frame", "{} in: {}, {} bytes", self.connection.state.id,
            if message.is_text() { "Text" } else { "Binary" }, message.bytes().len());
        self.shared.stats.messages_in += 1;
        let route = self.options();
        let Stage::Session(handler) = &mut self.connection.stage else { return };
        let mut session = Session {
            state: &mut self.connection.state,
            shared: self.shared,
            route,
            wire: self.wire,
        };
        let result = handler.on_message(&mut session, message);
        if result.is_err() || self.connection.state.extra.is_some() {
            self.after_hook(result);
        }
    }

    pub(super) fn control(&mut self, opcode: OpCode, payload: &[u8]) {
        trace!(target: "wirewheel::frame", "{} in: {opcode:?}, {} bytes", self.connection.state.id,
            payload.len());
        match opcode {
            OpCode::Ping if self.connection.state.phase == Phase::Open => {
                self.shared.stats.pings_in += 1;
                self.session().send_control(OpCode::Pong, payload);
            }
            OpCode::Pong => self.pong(payload),
            OpCode::Close => match read_close(payload) {
                Ok(close) => self.peer_close(close),
                Err(error) => self.fail(SessionError::Protocol(error)),
            },
            // After our Close a ping needs no answer (RFC 6455 section 5.5.2).
            OpCode::Ping | OpCode::Text | OpCode::Binary | OpCode::Continuation => {}
        }
    }

    /// A pong counts only if it carries exactly the payload of the ping that awaits it.
    fn pong(&mut self, payload: &[u8]) {
        let state = &mut self.connection.state;
        let expected = state.ping_base.as_micros().to_be_bytes();
        if !state.awaiting_pong || state.phase != Phase::Open || payload != expected {
            return;
        }
        let rtt = self.shared.now.since(state.ping_base);
        state.rtt_micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX - 1);
        self.shared.stats.pongs_in += 1;
        self.shared.stats.rtt_micros += u64::from(state.rtt_micros);
        state.awaiting_pong = false;
        state.ping_base = self.shared.now;
        state.timing_changed = true;
        let route = self.options();
        let Stage::Session(handler) = &mut self.connection.stage else { return };
        let mut session = Session {
            state: &mut self.connection.state,
            shared: self.shared,
            route,
            wire: self.wire,
        };
        let result = handler.on_pong(&mut session, rtt);
        self.after_hook(result);
    }

    /// The peer's Close: an answer to ours, or the first.
    fn peer_close(&mut self, close: Option<(CloseCode, &str)>) {
        if self.connection.state.phase == Phase::Closing {
            return self.closed_cleanly();
        }
        let (code, text) = close.unwrap_or((CloseCode::NO_STATUS, ""));
        let echo = close.map(|(code, text)| CloseReason::own(code, text));
        self.session().queue_close(echo.as_ref(), false);
        self.end(&CloseInfo::new(code, text, ClosedBy::Peer, true));
        self.finish(self.options().write_timeout);
    }

    /// Acts on what a hook returned, noted or asked for.
    pub(crate) fn after_hook(&mut self, result: HandlerResult) {
        let extra = self.connection.state.extra.as_deref_mut();
        let (fault, aborted) =
            extra.map_or((None, false), |extra| (extra.fault.take(), extra.aborted));
        if aborted {
            self.end(&CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Server, false));
            self.drop_socket(Disposal::Reset);
        } else if let Some(fault) = fault {
            self.fail(fault);
        } else {
            match result {
                Ok(()) | Err(HandlerError::Send(SendError::Closing)) => {}
                Err(error) => self.fail(SessionError::Handler(error)),
            }
            if self.has_answered_close() {
                self.closed_cleanly();
            }
        }
    }

    /// Fails the session (RFC 6455 section 7.1.7): Close with the fault's code where one can be
    /// sent, `on_error`, `on_close`; the peer's answer is not awaited.
    pub(crate) fn fail(&mut self, fault: SessionError) {
        if !matches!(self.connection.stage, Stage::Session(_)) {
            return;
        }
        self.log_fault(&fault);
        self.count_fault(&fault);
        let (code, text) = (fault.close_code(), fault.close_text());
        let by = if code == CloseCode::ABNORMAL { ClosedBy::Peer } else { ClosedBy::Server };
        let known = self.session().close_info().cloned();
        if self.connection.state.phase == Phase::Open && code != CloseCode::ABNORMAL {
            let Ok(reason) = CloseReason::truncated(code, &text) else { return };
            // A peer that does not read would never see a Close behind its queue.
            let at_once = !matches!(
                fault,
                SessionError::Protocol(_)
                    | SessionError::Extension(_)
                    | SessionError::Handler(_)
                    | SessionError::Panic(_)
            );
            self.session().queue_close(Some(&reason), at_once);
        }
        // A Close that is on the wire already stays the truth.
        let info = known.unwrap_or_else(|| CloseInfo::new(code, &text, by, false));
        self.connection.state.extra().close = Some(info.clone());
        self.connection.state.phase = Phase::Ended;
        self.call(|handler, session| handler.on_error(session, &fault));
        self.end(&info);
        if code == CloseCode::ABNORMAL {
            self.drop_socket(Disposal::Close);
        } else {
            self.finish(self.shared.limits.close_timeout);
        }
    }

    pub(crate) fn log_fault(&self, fault: &SessionError) {
        let id = self.connection.state.id;
        let route = self.routes.route(self.connection.state.route);
        let pattern = route.map_or("", |route| route.pattern.as_str());
        match fault {
            SessionError::Handler(error) => {
                error!(target: "wirewheel::session", "{id} {pattern}: handler failed: {error}");
            }
            SessionError::Panic(_) => {
                error!(target: "wirewheel::session", "{id} {pattern}: {fault}");
            }
            SessionError::Network(_)
            | SessionError::Protocol(_)
            | SessionError::Extension(_)
            | SessionError::PingTimeout
            | SessionError::IdleTimeout => {
                debug!(target: "wirewheel::session", "{id} {pattern}: {fault}");
            }
            SessionError::WriteTimeout | SessionError::Overloaded => {
                self.shared.warnings.note("session over a limit", self.shared.now, || {
                    format!("{id} {pattern}: {fault}")
                });
            }
        }
    }

    fn count_fault(&mut self, fault: &SessionError) {
        let stats = &mut self.shared.stats;
        match fault {
            SessionError::PingTimeout => stats.timeouts_ping += 1,
            SessionError::IdleTimeout => stats.timeouts_idle += 1,
            SessionError::WriteTimeout => stats.timeouts_write += 1,
            _ => {}
        }
    }

    /// Calls `on_close`, for the one and last time, and lets the handler go.
    pub(crate) fn end(&mut self, info: &CloseInfo) {
        let state = &mut self.connection.state;
        debug!(target: "wirewheel::session", "{} closed: {} by {:?}{}", state.id, info.code(),
            info.closed_by(), if info.is_clean() { "" } else { ", not clean" });
        state.phase = Phase::Ended;
        state.partial = None;
        state.extra().close = Some(info.clone());
        if let Stage::Session(_) = self.connection.stage {
            self.shared.stats.count_close(info.code());
            // Taken out first: if `on_close` panics, it has been called all the same.
            let stage = std::mem::replace(&mut self.connection.stage, Stage::Finishing);
            if let Stage::Session(mut handler) = stage {
                handler.on_close(&mut self.session(), info);
            }
        }
        // A hook that sent or aborted after the end asked for nothing that is left to do.
        self.connection.state.pipeline = None;
        let extra = self.connection.state.extra();
        extra.fault = None;
        extra.aborted = false;
    }

    fn call(
        &mut self,
        hook: impl FnOnce(&mut dyn crate::domain::endpoint::Endpoint, &mut Session<'_>),
    ) {
        let route = self.options();
        let Stage::Session(handler) = &mut self.connection.stage else { return };
        let mut session = Session {
            state: &mut self.connection.state,
            shared: self.shared,
            route,
            wire: self.wire,
        };
        hook(&mut **handler, &mut session);
    }

    pub(crate) fn session(&mut self) -> Session<'_> {
        let route = self.options();
        Session { state: &mut self.connection.state, shared: self.shared, route, wire: self.wire }
    }

    /// Writes what the turn has gathered, and acts on a wire that turned out broken.
    pub(crate) fn flush(&mut self) {
        if self.shared.tx.is_empty() {
            return;
        }
        self.session().flush();
        if self.connection.state.extra.is_some() {
            self.act_on_wire_fault();
        }
    }

    fn act_on_wire_fault(&mut self) {
        let extra = self.connection.state.extra();
        if let Some(SessionError::Network(kind)) = extra.fault {
            extra.fault = None;
            self.broken(kind);
        }
    }

    /// The connection failed under us.
    pub(crate) fn broken(&mut self, kind: io::ErrorKind) {
        match self.connection.stage {
            Stage::Session(_) if self.connection.state.phase == Phase::Closing => {
                let info = self.session().close_info().cloned();
                if let Some(info) = info {
                    self.end(&info);
                }
                self.drop_socket(Disposal::Close);
            }
            Stage::Session(_) => self.fail(SessionError::Network(kind)),
            Stage::Http(_) | Stage::Finishing | Stage::Closed(_) => {
                self.drop_socket(Disposal::Close);
            }
        }
    }

    /// The peer has shut its side.
    pub(crate) fn peer_shut(&mut self) {
        match &self.connection.stage {
            Stage::Session(_) => {
                // Known if we sent a Close, or a raw handler was handed the peer's.
                let known = self.session().close_info().cloned();
                let info = known.unwrap_or_else(|| {
                    CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Peer, false)
                });
                self.end(&info);
                self.drop_socket(Disposal::Close);
            }
            Stage::Http(_) => {
                self.connection.state.extra().peer_shut = true;
                if self.end_behind_file() {
                    return;
                }
                // It may still read: an answer on its way goes out first.
                self.finish(self.options().write_timeout);
            }
            Stage::Finishing => {
                self.connection.state.extra().peer_shut = true;
                self.after_flush();
            }
            Stage::Closed(_) => {}
        }
    }

    /// Nothing more is read. What is queued has `patience` to go out, then our side is shut, and the
    /// peer's hang-up is awaited, so that the last bytes and the Close arrive instead of a reset.
    pub(crate) fn finish(&mut self, patience: Duration) {
        if matches!(self.connection.stage, Stage::Closed(_)) {
            return;
        }
        self.connection.stage = Stage::Finishing;
        let state = &mut self.connection.state;
        state.phase = Phase::Ended;
        state.partial = None;
        state.timing_changed = true;
        state.extra().deadline = Some(self.shared.now.after(patience));
        self.flush();
        self.after_flush();
    }

    /// Shuts our side once the queue is empty.
    fn after_flush(&mut self) {
        if !matches!(self.connection.stage, Stage::Finishing) {
            return;
        }
        let lingering_ends = self.shared.now.after(self.shared.limits.linger_timeout);
        let extra = self.connection.state.extra();
        if !extra.outbox.is_empty() {
            return;
        }
        if extra.peer_shut {
            self.drop_socket(Disposal::Close);
        } else if !extra.shut {
            extra.shut = true;
            extra.deadline = Some(lingering_ends);
            self.connection.state.timing_changed = true;
            self.wire.shutdown_write();
        }
    }

    pub(crate) fn drop_socket(&mut self, disposal: Disposal) {
        self.connection.stage = Stage::Closed(disposal);
        self.connection.state.timing_changed = true;
        self.shared.tx.clear();
        self.shared.opaque_prefix = 0;
    }

    /// The socket takes bytes again.
    pub(crate) fn writable(&mut self) -> Reading {
        let now = self.shared.now;
        let extra = self.connection.state.extra.as_deref_mut();
        let Some(extra) = extra.filter(|extra| !extra.outbox.is_empty()) else {
            return match self.connection.stage {
                Stage::Http(ref http) if http.file.is_some() => self.http_drained(),
                _ => Reading::Continue,
            };
        };
        let before = extra.outbox.buffered_bytes();
        let held = before + extra.outbox.control_bytes();
        let outcome = extra.outbox.write_to(self.wire);
        let left = extra.outbox.buffered_bytes() + extra.outbox.control_bytes();
        self.shared.stats.bytes_out += held.saturating_sub(left) as u64;
        match outcome {
            Ok(flush) => {
                if extra.outbox.buffered_bytes() < before {
                    extra.progress = now;
                }
                if flush == Flush::Done {
                    return self.drained();
                }
            }
            Err(kind) => self.broken(kind),
        }
        match self.connection.stage {
            Stage::Http(_) => Reading::Paused, // further requests wait for their turn
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => Reading::Continue,
        }
    }

    /// The outbox is empty again.
    fn drained(&mut self) -> Reading {
        match &self.connection.stage {
            Stage::Http(_) => return self.http_drained(),
            Stage::Session(_) if self.connection.state.phase == Phase::Closing => {
                // Our Close is out only now; from here the peer has its time to answer.
                let deadline = self.shared.now.after(self.shared.limits.close_timeout);
                self.connection.state.extra().deadline = Some(deadline);
                self.connection.state.timing_changed = true;
            }
            Stage::Session(_) | Stage::Closed(_) => {}
            Stage::Finishing => self.after_flush(),
        }
        self.connection.state.release_idle();
        Reading::Continue
    }

    /// The deadline of a session, or of a connection that is finishing, may have come.
    pub(crate) fn session_timeout(&mut self) {
        let now = self.shared.now;
        let options = self.connection.state.options(self.options());
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        let extra = self.connection.state.extra.as_deref();
        let stuck = extra.is_some_and(|extra| {
            !extra.outbox.is_empty() && extra.progress.after(options.write_timeout) <= now
        });
        let waited = due(extra.and_then(|extra| extra.deadline));
        let idle = due(self.connection.idle_deadline(options));
        let ping = due(self.connection.ping_deadline(options));
        match (&self.connection.stage, self.connection.state.phase) {
            (Stage::Session(_), Phase::Open) if stuck => self.fail(SessionError::WriteTimeout),
            // A raw handler did not answer the peer's Close.
            (Stage::Session(_), Phase::Open) if waited => self.closing_is_over(),
            (Stage::Session(_), Phase::Open) if idle => self.fail(SessionError::IdleTimeout),
            (Stage::Session(_), Phase::Open) if ping => self.ping_due(),
            // RFC 6455 section 7.1.1: the peer had its time to answer our Close.
            (Stage::Session(_), Phase::Closing) if waited || stuck => self.closing_is_over(),
            (Stage::Finishing, _) if waited || stuck => {
                self.shared.stats.timeouts_linger += 1;
                self.drop_socket(Disposal::Reset);
            }
            _ => {}
        }
    }

    /// The wait for the second Close is over.
    fn closing_is_over(&mut self) {
        self.shared.stats.timeouts_close += 1;
        let info = self.session().close_info().cloned();
        if let Some(info) = info {
            self.end(&info);
        }
        self.drop_socket(Disposal::Close);
    }

    /// A ping period, or the wait for a pong, is over.
    fn ping_due(&mut self) {
        if self.connection.state.awaiting_pong {
            self.fail(SessionError::PingTimeout);
            return;
        }
        let state = &mut self.connection.state;
        state.ping_base = self.shared.now;
        state.awaiting_pong = true;
        state.timing_changed = true;
        // The payload is the time it went out: nothing to store, and no other pong fits.
        let payload = state.ping_base.as_micros().to_be_bytes();
        self.shared.stats.pings_out += 1;
        self.session().send_control(OpCode::Ping, &payload);
        self.flush();
    }

    /// The server stops: says good-bye, or hangs up where no session is.
    pub(crate) fn drain(&mut self, reason: &CloseReason) {
        match &self.connection.stage {
            Stage::Session(_) if self.connection.state.phase == Phase::Open => {
                let result = self.session().close(reason.clone());
                self.after_hook(result);
                self.flush();
            }
            Stage::Http(http) if http.held.is_empty() && http.answered > 0 => {
                if self.end_behind_file() {
                    return;
                }
                self.finish(self.shared.limits.linger_timeout);
            }
            Stage::Http(_) | Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => {}
        }
    }

    /// The time for good-byes is over.
    pub(crate) fn cut(&mut self) {
        if matches!(self.connection.stage, Stage::Session(_)) {
            let info = self.session().close_info().cloned().unwrap_or_else(|| {
                CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Server, false)
            });
            self.end(&info);
        }
        self.drop_socket(Disposal::Close);
    }
}

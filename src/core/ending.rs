//! The end of a connection: faults, Closes, hang-ups, the last bytes.

use std::io;
use std::time::Duration;

use log::{Level, debug};

use crate::context::warnings::Target;
use crate::session::read_pause::ReadEnd;
use crate::session::state::Phase;
use crate::session::subscriptions::Collected;
use crate::words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
use crate::words::error::SessionError;
use crate::words::quoted::on_one_line;
use crate::words::time::Time;

use crate::core::connection::{Disposal, Stage};
use crate::core::losses::Loss;
use crate::core::turn::Turn;

impl Turn<'_> {
    /// Fails the session (RFC 6455 section 7.1.7): Close with the fault's code where one can be
    /// sent, `on_error`, `on_close`; the peer's answer is not awaited.
    pub(crate) fn fail(&mut self, fault: SessionError) {
        let loss = match fault {
            SessionError::Overloaded => Loss::Overflow,
            _ => Loss::Stalled,
        };
        self.fail_and_lose(fault, loss);
    }

    /// The same, where that is why a peer that takes nothing does not get what waits for it.
    pub(super) fn fail_and_lose(&mut self, fault: SessionError, loss: Loss) {
        // A hook may have ended the session already; it ends once.
        if !matches!(self.connection.stage, Stage::Session(_)) {
            return;
        }
        self.log_fault(&fault);
        self.count_fault(&fault);
        let (code, text) = (fault.close_code(), fault.close_text());
        // RFC 6455 section 7.4.1: 1006 is never sent, and says that the peer has gone.
        let by = if code == CloseCode::ABNORMAL { ClosedBy::Transport } else { ClosedBy::Local };
        let known = self.session().close_info().cloned();
        let reason = CloseReason::truncated(code, &text).ok().filter(|_| by == ClosedBy::Local);
        // Such a peer would never see a Close behind its queue.
        let takes_nothing = fault.says_that_nothing_is_taken();
        let is_open = self.connection.state.phase == Phase::Open;
        if let Some(reason) = reason.as_ref().filter(|_| is_open) {
            // Nothing of a flow may follow the Close (RFC 6455 section 5.5.1).
            self.outgoing().leave_flows();
            if takes_nothing {
                self.lose_what_has_not_begun(loss);
            }
            self.outgoing().queue_close(Some(reason), takes_nothing);
        }
        // A Close that is on the wire already stays the truth.
        let text = reason.as_ref().map_or("", CloseReason::text); // as it was sent
        let info = known.unwrap_or_else(|| CloseInfo::new(code, text, by, false));
        self.connection.state.extra().close = Some(info.clone());
        // Before the hook runs: what it sends is refused, and it cannot fail the session again.
        self.connection.state.phase = Phase::Ended;
        self.call(|handler, session| handler.on_error(session, &fault));
        self.end(&info);
        match fault {
            // The connection is broken: nobody would take a Close, or what waits.
            _ if code == CloseCode::ABNORMAL => {
                self.lose(Loss::Gone);
                self.drop_socket(Disposal::Close);
            }
            // Found dead already: should it be there after all, it has that long to take the Close.
            SessionError::WriteTimeout => self.finish_within(self.least().between_looks()),
            SessionError::PingTimeout => self.finish_within(self.shared.limits.close_timeout),
            _ => self.finish(),
        }
    }

    pub(crate) fn log_fault(&self, fault: &SessionError) {
        let id = self.connection.state.id;
        let pattern = self.routes.name(self.connection.state.route);
        match fault {
            // What a peer sends may bring these about, as often as it likes.
            SessionError::Handler(error) => {
                self.note_session_error("handler failed", || {
                    format!("{id} {pattern}: handler failed: {error}")
                });
            }
            SessionError::Panic(_) => {
                self.note_session_error("handler panicked", || format!("{id} {pattern}: {fault}"));
            }
            SessionError::Network(_)
            | SessionError::Protocol(_)
            | SessionError::Extension(_)
            | SessionError::Content(_)
            | SessionError::PingTimeout
            | SessionError::IdleTimeout
            | SessionError::MessageTimeout
            | SessionError::CertificateRefused
            | SessionError::TooManyMessages => {
                debug!(target: "wirewheel::session", "{id} {pattern}: {}",
                    on_one_line(&fault.to_string()));
            }
            SessionError::WriteTimeout | SessionError::PauseTimeout | SessionError::Overloaded => {
                self.shared.warnings.note("session over a limit", self.shared.now, || {
                    format!("{id} {pattern}: {fault}")
                });
            }
        }
    }

    fn note_session_error(&self, kind: &'static str, text: impl FnOnce() -> String) {
        let (kind, now) = ((kind, self.connection.state.route), self.shared.now);
        self.shared.warnings.line(Level::Error, Target::Session, kind, now, text);
    }

    fn count_fault(&mut self, fault: &SessionError) {
        let stats = &mut self.shared.stats;
        match fault {
            SessionError::PingTimeout => stats.timeouts_ping += 1,
            SessionError::IdleTimeout => stats.timeouts_idle += 1,
            SessionError::WriteTimeout => stats.timeouts_write += 1,
            SessionError::PauseTimeout => stats.timeouts_pause += 1,
            SessionError::MessageTimeout => stats.timeouts_message += 1,
            _ => {}
        }
    }

    /// Calls `on_close`, for the one and last time, and lets the handler go.
    #[allow(clippy::arithmetic_side_effects, reason = "at most as many as there are connections")]
    pub(crate) fn end(&mut self, info: &CloseInfo) {
        let state = &mut self.connection.state;
        debug!(target: "wirewheel::session", "{} closed: {} by {:?}{}{}", state.id, info.code(),
            info.closed_by(), info.differing_answer(), if info.is_clean() { "" } else { ", not clean" });
        state.phase = Phase::Ended;
        if let Some(buffer) = state.partial.take().and_then(|partial| partial.into_buffer()) {
            self.shared.keep_buffer(buffer);
        }
        let extra = state.extra();
        extra.close = Some(info.clone());
        // Timers of a session end with it.
        extra.timers = Vec::new();
        if extra.read_pause.take().is_some() {
            self.shared.to_resume.push(state.id.0.index); // what comes now is read and dropped
        }
        self.outgoing().leave_flows();
        if let Stage::Session(_) = self.connection.stage {
            // Before `on_close`, which may look at who else is there.
            self.shared.session_ended(self.connection.state.id.0);
            if self.shared.draining {
                let drained = &mut self.shared.drained;
                *(if info.is_clean() { &mut drained.clean } else { &mut drained.cut }) += 1;
            }
            self.shared.stats.count_close(info.code());
            self.shared.stats.event_streams_open -= u64::from(!self.connection.state.is_read());
            // Taken out first: if `on_close` panics, it has been called all the same.
            let stage = std::mem::replace(&mut self.connection.stage, Stage::Finishing);
            if let Stage::Session(mut handler) = stage {
                handler.on_close(&mut self.session(), info);
            }
        }
        // A hook that sent or aborted after the end asked for nothing that is left to do.
        // Asked while there is a pipeline, which alone knows what is spoken.
        self.connection.state.extra().shuts_first = self.connection.state.is_byte_stream();
        if self.connection.state.is_event_stream() {
            // Whoever writes it sees no stream any more, and must take none of it for frames.
            self.shared.opaque_prefix = self.shared.tx.len();
        }
        self.connection.state.pipeline = None;
        let extra = self.connection.state.extra();
        extra.fault = None;
        extra.aborted = false;
    }

    /// The connection failed under us.
    pub(crate) fn broken(&mut self, kind: io::ErrorKind) {
        // Known before a hook runs, which may panic: whatever becomes of it, nobody is waited for.
        self.connection.state.extra().broken = true;
        match self.connection.stage {
            // The Closes were not both seen, so the end stays unclean; it is no error either.
            Stage::Session(_) if self.connection.state.phase == Phase::Closing => {
                let info = self.session().close_info().cloned();
                if let Some(info) = info {
                    self.end(&info);
                }
                self.lose(Loss::Gone);
                self.drop_socket(Disposal::Close);
            }
            Stage::Session(_) => self.fail(SessionError::Network(kind)),
            Stage::Http(_) | Stage::Finishing | Stage::Closed(_) => {
                self.lose(Loss::Gone);
                self.drop_socket(Disposal::Close);
            }
        }
    }

    /// The peer's side was read to its end.
    pub(crate) fn peer_ended(&mut self, end: ReadEnd) {
        if self.keep_end(end) {
            return;
        }
        match &self.connection.stage {
            Stage::Session(_) => self.session_ended(end),
            Stage::Http(_) => {
                self.request_hung_up();
                self.connection.state.extra().peer_shut = true;
                if self.end_after_body() {
                    return;
                }
                // It may still read: an answer on its way goes out first.
                self.finish();
            }
            Stage::Finishing => {
                self.connection.state.extra().peer_shut = true;
                self.after_flush();
            }
            Stage::Closed(_) => {}
        }
    }

    /// The peer's side of a session has ended, and nothing more of it is waited for.
    pub(super) fn session_ended(&mut self, end: ReadEnd) {
        match end {
            ReadEnd::Shut => self.peer_is_gone(),
            // Where there is no session many end a connection without a word.
            #[cfg(feature = "tls")]
            ReadEnd::Truncated => self.broken(io::ErrorKind::UnexpectedEof),
        }
    }

    /// It may still read.
    fn peer_is_gone(&mut self) {
        // Known if we sent a Close, or a raw handler was handed the peer's.
        let known = self.session().close_info().cloned();
        let info = known.unwrap_or_else(|| match self.connection.state.is_event_stream() {
            // Its client has no other way to end it.
            true => CloseInfo::new(CloseCode::NO_STATUS, "", ClosedBy::Remote, true),
            false => CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Transport, false),
        });
        self.end(&info);
        self.connection.state.extra().peer_shut = true;
        self.finish(); // what is queued goes out first
    }

    /// What comes is read and dropped from here. What is queued goes out as long as the peer takes it,
    /// then our side is shut, and the peer's hang-up is awaited, so that the last bytes and the Close
    /// arrive instead of a reset, which input that was not read would become.
    pub(crate) fn finish(&mut self) {
        self.finish_by(None);
    }

    /// The same where all that has only so long.
    fn finish_within(&mut self, patience: Duration) {
        self.finish_by(Some(self.shared.now.after(patience)));
    }

    fn finish_by(&mut self, deadline: Option<Time>) {
        if matches!(self.connection.stage, Stage::Closed(_)) {
            return;
        }
        self.connection.stage = Stage::Finishing;
        let state = &mut self.connection.state;
        state.phase = Phase::Ended;
        state.partial = None;
        state.timing_changed = true;
        let extra = state.extra();
        // A wait for the Close is over; the one for the hang-up begins in `after_flush`, and once: what the
        // peer sends then (what is no TLS, say) does not begin it anew.
        if !extra.shut {
            (extra.deadline, extra.unacknowledged) = (deadline, false);
        }
        extra.ping = None;
        self.flush();
        self.after_flush();
    }

    /// Shuts our side once the queue is empty.
    pub(super) fn after_flush(&mut self) {
        if !matches!(self.connection.stage, Stage::Finishing) {
            return;
        }
        if !self.wire.has_socket() {
            // Another session, a timer or a handle has ended it: this turn's flush has the socket.
            return self.connection.state.list_for_flush(self.shared);
        }
        let (now, linger) = (self.shared.now, self.shared.limits.linger_timeout);
        let extra = self.connection.state.extra();
        // The end of our side would cut off what waits.
        if !extra.outbox.is_empty() {
            return;
        }
        if extra.peer_shut && self.wire.backlog() == 0 {
            self.drop_socket(Disposal::Close);
        } else if !extra.shut {
            extra.shut = true;
            #[cfg(feature = "client")]
            let waits = self.connection.is_dialled && !extra.shuts_first;
            // One that was set already, for a peer found dead, is not prolonged.
            if extra.deadline.is_none() {
                extra.await_peer(now, linger);
            }
            self.connection.state.timing_changed = true;
            // RFC 6455 section 7.1.1: the server closes first, and waits for the peer to follow. "A client
            // SHOULD wait for the server to close the connection".
            #[cfg(feature = "client")]
            if waits {
                return;
            }
            self.wire.shutdown_write();
        }
    }

    pub(crate) fn drop_socket(&mut self, disposal: Disposal) {
        self.count_loss(Loss::Gone, self.queued()); // nothing, where the reason was said
        self.connection.stage = Stage::Closed(disposal);
        self.connection.state.timing_changed = true;
        self.shared.forget_gathered();
    }

    /// The wait for the second Close is over.
    pub(super) fn closing_is_over(&mut self, everything_arrived: bool) {
        self.shared.stats.timeouts_close += 1;
        let info = self.session().close_info().cloned();
        if let Some(info) = info {
            self.end(&info);
        }
        if everything_arrived {
            self.finish();
        } else {
            self.lose(Loss::Stalled);
            self.drop_socket(Disposal::Reset);
        }
    }

    /// The server stops: says good-bye, or hangs up where no session is.
    pub(crate) fn drain(&mut self, reason: &CloseReason) {
        match &self.connection.stage {
            Stage::Session(_) if self.connection.state.phase == Phase::Open => {
                let result = self.session().begin_close(reason);
                self.after_hook(result);
                self.flush();
            }
            // Between requests nothing is owed. One whose first request is on its way gets 503 for it.
            Stage::Http(http)
                if http.unread.is_empty() && http.has_answered && http.receiving.is_none() =>
            {
                if self.end_after_body() {
                    return;
                }
                self.finish();
            }
            Stage::Http(_) | Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => {}
        }
    }

    /// The time for good-byes is over.
    pub(crate) fn end_at_once(&mut self) {
        if matches!(self.connection.stage, Stage::Session(_)) {
            let info =
                self.session().close_info().cloned().unwrap_or_else(|| {
                    CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Local, false)
                });
            self.end(&info);
        }
        // The system goes on with what it has.
        self.count_loss(Loss::Stopped, self.queued().saturating_add(self.wire.backlog()));
        self.forget_queued();
        self.drop_socket(Disposal::Close);
    }
}

/// What comes first.
impl Turn<'_> {
    /// Lets the connection end once its answer is out; false if there is none on its way.
    pub(super) fn end_after_body(&mut self) -> bool {
        let Stage::Http(http) = &mut self.connection.stage else { return false };
        if let Some(answer) = http.streamed() {
            answer.is_last = true;
        }
        http.answering.is_some()
    }

    /// The peer has shut its side while something of it is held: that comes first.
    fn keep_end(&mut self, end: ReadEnd) -> bool {
        let now = self.shared.now;
        let extra = self.connection.state.extra.as_deref_mut();
        let pause = extra.and_then(|extra| extra.read_pause.as_deref_mut());
        let Some(pause) = pause.filter(|pause| pause.held() > 0) else { return false };
        pause.read_end = Some(end);
        pause.note_peer_end(now);
        self.connection.state.timing_changed = true;
        true
    }

    /// The same while a body is paused, or an answer is deferred. Else what stops the reading is an answer,
    /// whose writing tells.
    fn request_hung_up(&mut self) {
        let now = self.shared.now;
        let Stage::Http(http) = &mut self.connection.stage else { return };
        if let Some(deferred) = http.deferred_mut() {
            deferred.note_peer_end(now);
            self.connection.state.timing_changed = true;
            return;
        }
        let paused = http.receiving.as_deref_mut().filter(|it| it.paused_since.is_some());
        let Some(receiving) = paused else { return };
        // The rest of the body may be in the socket.
        receiving.peer_ended.get_or_insert(now);
        self.connection.state.timing_changed = true;
    }

    /// The peer has ended its side, or the connection failed, while the socket is not read.
    pub(crate) fn hung_up(&mut self, failure: Option<io::ErrorKind>) {
        let now = self.shared.now;
        let extra = self.connection.state.extra.as_deref_mut();
        let pause = extra.and_then(|extra| extra.read_pause.as_deref_mut());
        match (pause, failure) {
            // Whatever stops the reading: nothing arrives there any more.
            (_, Some(kind)) => self.broken(kind),
            // There may be more behind what is held, and the application may still take it.
            (Some(pause), None) => {
                pause.note_peer_end(now);
                self.connection.state.timing_changed = true;
            }
            (None, None) => self.request_hung_up(),
        }
    }
}

/// The second Close.
impl Turn<'_> {
    /// The peer has answered our Close.
    pub(super) fn answered(&mut self, code: CloseCode, text: &str) {
        if let Some(close) = &mut self.connection.state.extra().close {
            close.note_second(code, text);
        }
        self.closed_cleanly();
    }

    /// Both Closes were exchanged.
    pub(super) fn closed_cleanly(&mut self) {
        if !matches!(self.connection.stage, Stage::Session(_)) {
            return;
        }
        if let Some(info) = self.session().close_info().cloned() {
            self.end(&info.cleanly());
        }
        self.finish();
    }

    /// Whether our Close ends the session: a raw handler has answered the peer's, or an event stream has
    /// nothing more to send before its end.
    pub(super) fn has_said_all(&self) -> bool {
        let state = &self.connection.state;
        if state.phase != Phase::Closing {
            return false;
        }
        if state.is_event_stream() {
            return !state.collected.as_deref().is_some_and(Collected::holds_direct);
        }
        let close = state.extra.as_deref().and_then(|extra| extra.close.as_ref());
        close.is_some_and(|close| close.closed_by() == ClosedBy::Remote)
    }
}

/// What was taken for sending and does not arrive: counted once, under the reason that came first.
impl Turn<'_> {
    /// Bytes of messages and answers that wait, in the outbox or to be written in this turn.
    fn queued(&self) -> usize {
        let extra = self.connection.state.extra.as_deref();
        let waiting = extra.map_or(0, |extra| extra.outbox.buffered_bytes());
        waiting.saturating_add(self.shared.tx.len())
    }

    fn forget_queued(&mut self) {
        if let Some(extra) = self.connection.state.extra.as_deref_mut() {
            self.shared.with_spare(|spare| extra.outbox.give_back(spare));
        }
        // What was gathered for this peer must not go out to the next one.
        self.shared.forget_gathered();
    }

    /// Gives up all that the peer has not taken: the socket is to be dropped.
    pub(super) fn lose(&mut self, why: Loss) {
        // Given to the system is not delivered: a reset throws that away too.
        let unsent = self.wire.unsent().unwrap_or(0);
        self.count_loss(why, self.queued().saturating_add(unsent));
        self.forget_queued();
    }

    /// Gives up what waits but for a frame that has begun.
    pub(super) fn lose_what_has_not_begun(&mut self, why: Loss) {
        let extra = self.connection.state.extra.as_deref_mut();
        // A frame that has begun is completed: cut short, it would make garbage of the Close behind it.
        let lost = extra.map_or(0, |extra| extra.outbox.drop_what_has_not_begun());
        self.count_loss(why, lost);
    }

    fn count_loss(&mut self, why: Loss, bytes: usize) {
        why.count(&mut self.shared.stats, bytes);
    }
}

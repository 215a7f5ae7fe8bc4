//! What happens to a connection, handed on to the turn of the stage that it is in.

use crate::context::commands::Command;
use crate::session::state::Phase;
use crate::structures::outbox::Flush;
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::{HandlerError, SessionError};

use crate::core::connection::{Disposal, Stage};
use crate::core::deferred_turn::DeferredTurn;
use crate::core::http_turn::HttpTurn;
use crate::core::losses::Loss;
use crate::core::panics::{Panicked, caught};
use crate::core::request_body::BodyTurn;
use crate::core::responder::Responder;
use crate::core::session_input::SessionTurn;
use crate::core::session_output::SessionOutput;
use crate::core::session_timeouts::SessionTimeouts;
use crate::core::turn::{Reading, Turn};

/// Events of the socket.
impl Turn<'_> {
    /// Bytes from the socket, whatever the stage; what follows from them is concluded.
    #[inline]
    pub(crate) fn input(&mut self, rx: &mut [u8]) -> Reading {
        if let Stage::Session(_) = self.connection.stage {
            return SessionTurn { turn: self }.input(rx);
        }
        self.input_without_session(rx)
    }

    #[inline(never)]
    fn input_without_session(&mut self, rx: &mut [u8]) -> Reading {
        let reading = match &self.connection.stage {
            #[cfg(feature = "client")]
            Stage::Http(http) if http.dialling.is_some() => self.dialling_input(rx),
            Stage::Http(_) => HttpTurn { turn: self }.input(rx),
            // Lingering: RFC 6455 section 7.1.1 and 1.4; what comes after the Close is dropped.
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => Reading::Continue,
        };
        self.conclude();
        reading
    }

    /// Bytes of an answer: what they amount to is for the dialer, after the events of this turn.
    #[cfg(feature = "client")]
    fn dialling_input(&mut self, rx: &[u8]) -> Reading {
        if let Stage::Http(http) = &mut self.connection.stage {
            http.unread.extend_from_slice(rx);
            if let Some(dialling) = http.dialling.as_deref_mut() {
                if !std::mem::replace(&mut dialling.has_input, true) {
                    self.shared.dial_input.push(self.connection.state.id.0.index);
                }
            }
        }
        self.reading_of_answer()
    }

    /// How a connection is read on which an answer is awaited.
    #[cfg(feature = "client")]
    fn reading_of_answer(&self) -> Reading {
        match &self.connection.stage {
            // One read is kept, and no more: what follows may be a session's, which decides how it is read.
            Stage::Http(http) if http.awaits_dialer() => Reading::Again,
            _ => Reading::Continue,
        }
    }

    /// The whole request is out: nothing but its dialer's deadline is waited for.
    #[cfg(feature = "client")]
    fn request_is_out(&mut self) -> Reading {
        if let Some(extra) = self.connection.state.extra.as_deref_mut() {
            extra.window = None;
        }
        self.connection.state.timing_changed = true;
        self.connection.state.release_idle();
        self.reading_of_answer()
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
                #[cfg(feature = "client")]
                Stage::Http(ref http) if http.dialling.is_some() => self.reading_of_answer(),
                // Its share of an earlier turn was spent; no byte waits, but work does.
                Stage::Http(ref http) if http.answering.is_some() || http.yielded => {
                    HttpTurn { turn: self }.drained()
                }
                Stage::Finishing => {
                    self.after_flush(); // what it waited for may have been below the core
                    Reading::Continue
                }
                Stage::Http(ref http) if http.is_paused() => Reading::Paused,
                _ => self.reading(),
            };
        };
        extra.blocked = false;
        let held = extra.outbox.buffered_bytes() + extra.outbox.control_bytes();
        let wire = &mut *self.wire;
        let outcome = self.shared.with_spare(|spare| extra.outbox.write_to(wire, spare));
        let left = extra.outbox.buffered_bytes() + extra.outbox.control_bytes();
        self.shared.stats.bytes_out += held.saturating_sub(left) as u64;
        match outcome {
            Ok(flush) => {
                if flush == Flush::Done {
                    return self.drained();
                }
                // Without a socket (in a flush on behalf of others) nothing was offered, so nothing was
                // refused.
                extra.blocked = self.wire.has_socket();
                extra.slow |= extra.blocked;
            }
            Err(kind) => self.broken(kind),
        }
        match self.connection.stage {
            // A server may answer by the head of a request, and take the rest later or never.
            #[cfg(feature = "client")]
            Stage::Http(ref http) if http.dialling.is_some() => self.reading_of_answer(),
            Stage::Http(_) => Reading::Paused, // further requests wait for their turn
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => self.reading(),
        }
    }

    /// The outbox is empty again.
    fn drained(&mut self) -> Reading {
        match self.connection.stage {
            // What is held of an answer is no request.
            #[cfg(feature = "client")]
            Stage::Http(ref http) if http.dialling.is_some() => self.request_is_out(),
            Stage::Http(_) => HttpTurn { turn: self }.drained(),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => {
                SessionOutput { turn: self }.drained()
            }
        }
    }
}

/// What the core asks for.
impl Turn<'_> {
    /// A deadline may have come.
    pub(super) fn timeout(&mut self) {
        match self.connection.stage {
            Stage::Http(_) => {
                HttpTurn { turn: self }.timeout();
                // The page of a refusal may be longer than its share of this turn.
                if matches!(&self.connection.stage, Stage::Http(http) if http.streams()) {
                    self.shared.to_resume.push(self.connection.state.id.0.index);
                }
            }
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => {
                SessionTimeouts { turn: self }.act();
            }
        }
    }

    /// True if there is more that this session could take at once.
    #[inline(never)]
    pub(super) fn flush_listed(&mut self) -> bool {
        let mut slow = false;
        if let Some(extra) = self.connection.state.extra.as_deref() {
            if !extra.outbox.is_empty() {
                // Where it is blocked only a WRITABLE event can help. Else what follows is listed.
                if !extra.blocked {
                    self.writable();
                }
                return false;
            }
            slow = extra.slow;
        }
        if matches!(self.connection.stage, Stage::Finishing) {
            self.after_flush();
            return false;
        }
        // Direct messages wait behind flow messages: once those are out, the peer has caught up. A hook that
        // sent something may have taken them along.
        let waited = slow || self.connection.state.is_waiting();
        let more = self.connection.state.collected.is_some() && SessionOutput { turn: self }.pull();
        if waited && !self.connection.state.is_waiting() {
            SessionOutput { turn: self }.drained();
        }
        more
    }

    /// Goes on with input that waited; `None` if there is no session whose reading this could concern.
    pub(super) fn resume(&mut self) -> Option<Reading> {
        if let Stage::Http(http) = &self.connection.stage {
            if http.deferred().is_some() {
                return Some(HttpTurn { turn: self }.resume_deferred());
            }
            // Listed twice, it is resumed once.
            let resumed = http.receiving.as_deref().is_some_and(|it| it.resumed);
            let streams = http.streams();
            return match resumed {
                true => Some(HttpTurn { turn: self }.resume()),
                false => streams.then(|| HttpTurn { turn: self }.drained()),
            };
        }
        SessionTurn { turn: self }.resume()
    }

    /// Does to this session what another part of the loop asked for.
    pub(super) fn command(&mut self, command: Command) {
        let sends = matches!(command, Command::Send { .. } | Command::SendPrepared { .. });
        let mut session = self.session();
        let result = match command {
            Command::Send { message, .. } => session.send(&message),
            Command::SendPrepared { message, .. } => session.send_prepared(&message),
            Command::Close { reason, .. } => session.begin_close(&reason),
            Command::NoteDropped(_) => {
                session.out.state.note_dropped();
                Ok(())
            }
            Command::Pause(_) => {
                session.pause();
                Ok(())
            }
            Command::Resume(_) => {
                session.resume();
                Ok(())
            }
            Command::ResumeBody(_) | Command::Answer { .. } => Ok(()), // no session's
        };
        // Who sent it is not there any more: a message that is not taken is counted. What else follows
        // is for the outbox's policy, which has acted by now.
        let is_refused = matches!(result, Err(HandlerError::Send(_)));
        if is_refused && sends {
            session.out.state.note_dropped();
        }
        self.after_hook(if is_refused { Ok(()) } else { result });
    }

    fn is_waiting(&self) -> bool {
        self.connection.state.extra.as_deref().is_some_and(|extra| !extra.outbox.is_empty())
    }

    /// Ends a connection for what it holds.
    pub(super) fn evict(&mut self) {
        match self.connection.stage {
            // 1013, and what waits is dropped but for the frame that has begun.
            Stage::Session(_) => self.fail_and_lose(SessionError::Overloaded, Loss::OverBudget),
            // Who sends a body, or waits for an answer, may take one, and its bytes are given back at once.
            Stage::Http(ref http)
                if (http.receiving.is_some() || http.deferred().is_some())
                    && !self.is_waiting() =>
            {
                if http.receiving.is_some() {
                    BodyTurn { turn: self }.evict();
                } else {
                    DeferredTurn { turn: self }.evict();
                }
                // It may not have been read: what comes now is, and dropped, and its end is seen.
                self.shared.to_resume.push(self.connection.state.id.0.index);
            }
            // A peer that does not read its answers, or its Close, would not read a refusal either.
            Stage::Http(_) | Stage::Finishing => {
                self.lose(Loss::OverBudget);
                self.drop_socket(Disposal::Reset);
            }
            Stage::Closed(_) => {}
        }
    }
}

/// A turn ends after this many panics, whatever is left to do. `on_message`, `on_error` and
/// `on_close` of one session may each panic, and so may the drop of its handler.
const PANICS_MAX: u32 = 5;

/// Panics.
impl Turn<'_> {
    /// Brings the connection to its end after a panic, going on where that panicked again: a hook
    /// that has run is not run again.
    #[cold]
    #[allow(clippy::arithmetic_side_effects, reason = "stops at PANICS_MAX")]
    pub(super) fn recover(&mut self, first: Panicked) {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(panic) = next.take() {
            count += 1;
            // For whoever tests handlers; the log has it as well.
            self.shared.warnings.last_panic = Some(panic.0.clone());
            if count > PANICS_MAX {
                // Once more for the drop of the handler.
                if caught(|| self.drop_socket(Disposal::Reset)).is_err() {
                    self.drop_socket(Disposal::Reset);
                }
                return;
            }
            let done = caught(|| {
                self.end_after(panic);
                self.flush();
                self.charge();
            });
            next = done.err();
        }
    }

    fn end_after(&mut self, Panicked(text): Panicked) {
        match (&self.connection.stage, self.connection.state.phase) {
            (Stage::Session(_), Phase::Ended) => {
                // `on_error` panicked: `on_close` is left.
                self.log_fault(&SessionError::Panic(text));
                let info = self.session().close_info().cloned().unwrap_or_else(|| {
                    CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Local, false)
                });
                self.end(&info);
                self.leave_after(info.code());
            }
            (Stage::Session(_), _) => self.fail(SessionError::Panic(text)),
            (Stage::Http(_), _) => {
                self.log().error(("request panicked", 500), || {
                    format!("{}: request handling panicked: {text}", self.log().who())
                });
                if self.connection.http().is_some_and(|http| http.streams()) {
                    // Its head is out: a 500 behind that would be a part of its body.
                    self.lose(Loss::Aborted);
                    return self.drop_socket(Disposal::Reset);
                }
                Responder { turn: self }.refuse(500);
            }
            (Stage::Finishing, _) => {
                // `on_close` panicked, or the drop of the handler: what was to follow, follows.
                self.log_fault(&SessionError::Panic(text));
                let extra = self.connection.state.extra();
                let code = extra.close.as_ref().map_or(CloseCode::NORMAL, CloseInfo::code);
                if extra.aborted {
                    self.drop_socket(Disposal::Reset);
                } else {
                    self.leave_after(code);
                }
            }
            (Stage::Closed(_), _) => self.log_fault(&SessionError::Panic(text)),
        }
    }

    /// Where the connection broke there is nobody to wait for.
    fn leave_after(&mut self, code: CloseCode) {
        let extra = self.connection.state.extra();
        if extra.broken || (code == CloseCode::ABNORMAL && !extra.peer_shut) {
            self.lose(Loss::Gone);
            self.drop_socket(Disposal::Close);
        } else {
            self.finish();
        }
    }
}

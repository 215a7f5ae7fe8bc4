//! A connection with all that one turn of it needs, whatever stage it is in: the session that hooks see, the
//! calls of hooks and what follows from them, and the writing of what was gathered.

use std::io;

use log::Level;

use crate::app::endpoint::Endpoint;
use crate::app::route_table::RouteTable;
use crate::context::loop_state::LoopState;
use crate::context::warnings::Target;
use crate::session::Session;
use crate::session::send::Outgoing;
use crate::structures::progress::Least;
use crate::structures::wire::Wire;
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::{HandlerError, HandlerResult, SendError, SessionError};
use crate::words::options::SessionOptions;

use crate::core::admission::Admission;
use crate::core::connection::{Connection, Disposal, Stage};
use crate::core::http_stage::SpareStages;
use crate::core::losses::Loss;
use crate::core::progress::PeerProgress;
use crate::core::request_log::RequestLog;

/// Whether the socket of a connection is to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Read until it is drained.
    Continue,
    /// Read with half a buffer at a time: what arrives is held.
    HalfBuffer,
    /// Leave it; a later turn says when to go on.
    Paused,
    /// Leave it, and call `handle_writable` in the next turn: there is more to write, but the
    /// others come first.
    Again,
}

impl Reading {
    /// Whether the socket is read at all.
    #[inline]
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Continue | Self::HalfBuffer)
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

/// What callbacks see.
impl<'a> Turn<'a> {
    pub(crate) fn options(&self) -> &'a SessionOptions {
        self.routes.options(self.connection.state.route)
    }

    pub(super) fn session(&mut self) -> Session<'_> {
        Session { out: self.outgoing() }
    }

    /// What leaves the session, below what hooks may do.
    pub(super) fn outgoing(&mut self) -> Outgoing<'_> {
        let route = self.options();
        Outgoing { state: &mut self.connection.state, shared: self.shared, route, wire: self.wire }
    }

    /// How the peer gets on with what was written and with what it has begun to send.
    pub(super) fn progress(&mut self) -> PeerProgress<'_> {
        let least = self.least();
        PeerProgress {
            state: &mut self.connection.state,
            wire: &*self.wire,
            now: self.shared.now,
            least,
        }
    }

    /// The log's lines about requests of this connection.
    pub(super) fn log(&self) -> RequestLog<'_> {
        RequestLog {
            warnings: &self.shared.warnings,
            state: &self.connection.state,
            now: self.shared.now,
        }
    }

    pub(super) fn least(&self) -> Least {
        let window = self.connection.state.options(self.options()).write_timeout;
        Least { window, min_rate: self.shared.limits.min_rate }
    }
}

/// Hooks, and what follows from them.
impl Turn<'_> {
    pub(super) fn call(&mut self, hook: impl FnOnce(&mut dyn Endpoint, &mut Session<'_>)) {
        let route = self.options();
        // The handler and the session are lent apart, so that a hook can be handed both.
        let Stage::Session(handler) = &mut self.connection.stage else { return };
        let (state, shared) = (&mut self.connection.state, &mut *self.shared);
        let mut session = Session { out: Outgoing { state, shared, route, wire: self.wire } };
        hook(&mut **handler, &mut session);
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

    /// Acts on what a hook returned, noted or asked for.
    pub(super) fn after_hook(&mut self, result: HandlerResult) {
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
                // That the session is closing is no fault of a hook that sent behind it.
                Ok(()) | Err(HandlerError::Send(SendError::Closing)) => {}
                Err(HandlerError::Send(error @ SendError::TooBig { .. })) => {
                    self.note_too_big(error)
                }
                // What cannot be converted came from the peer: 1007, not 1011.
                Err(HandlerError::Convert(error)) if error.is_the_peers() => {
                    self.fail(SessionError::Content(error));
                }
                Err(error) => self.fail(SessionError::Handler(error)),
            }
            // A raw handler sends the second Close itself, in whichever hook it likes.
            if self.has_said_all() {
                self.closed_cleanly();
            }
        }
    }

    /// A hook gave up on a message that it may not send: nothing was sent, and nothing ends.
    #[cold]
    fn note_too_big(&self, error: SendError) {
        let state = &self.connection.state;
        let name = self.routes.name(state.route);
        let kind = ("too big", state.route);
        self.shared.warnings.line(Level::Warn, Target::Session, kind, self.shared.now, || {
            format!("{} {name}: a message was not sent: {error}", state.id)
        });
    }

    /// Acts on a fault that arose where no hook ran, in the turn in which it did.
    pub(super) fn act_on_fault(&mut self) {
        self.act_on_wire_fault();
        let extra = self.connection.state.extra.as_deref_mut();
        if let Some(fault) = extra.and_then(|extra| extra.fault.take()) {
            self.fail(fault);
        }
    }
}

/// What leaves, and what is held.
impl Turn<'_> {
    /// Writes what the turn has gathered, and acts on a wire that turned out broken.
    #[inline]
    pub(super) fn flush(&mut self) {
        if !self.shared.tx.is_empty() {
            self.flush_gathered();
        }
    }

    fn flush_gathered(&mut self) {
        if self.connection.state.waiting().is_some() {
            // The answer to a body that was paused, say: it goes behind the one before it, also where the
            // socket would take it by now.
            return self.wrote_in_part(Ok(0));
        }
        // What the socket takes at once is never copied into an outbox.
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

    fn act_on_wire_fault(&mut self) {
        let extra = self.connection.state.extra();
        if let Some(SessionError::Network(kind)) = extra.fault {
            extra.fault = None;
            self.broken(kind);
        }
    }

    /// Ends what a turn does to its connection: what the socket does not take is held from now on, and
    /// has to be paid for.
    #[inline]
    pub(super) fn conclude(&mut self) {
        self.flush();
        self.charge();
    }

    /// Keeps the account of what this connection holds.
    #[inline]
    pub(super) fn charge(&mut self) {
        if !self.connection.is_bare_session() {
            self.update_charge();
        }
    }

    fn update_charge(&mut self) {
        // Capacities count, not lengths: they are what the allocator keeps.
        let (before, held) = (self.connection.charged as usize, self.connection.memory());
        if held != before {
            self.connection.charged = u32::try_from(held).unwrap_or(u32::MAX);
            self.shared.account(before, self.connection.charged as usize);
        }
    }

    /// The driver comes back with the next turn. Where TLS has kept something back, that takes as long as the
    /// peer takes to make room for it, which is watched from here.
    #[cold]
    pub(super) fn watch_backlog(&mut self) {
        if self.wire.backlog() > 0 {
            self.progress().watch_answer();
        }
    }

    /// Whether the socket is to be read: at half a read buffer that is held, no more.
    pub(super) fn reading(&self) -> Reading {
        match self.connection.state.read_pause() {
            // Half a buffer is held, and the next read brings at most half: together one buffer.
            Some(pause) if pause.held() >= self.shared.limits.read_buffer_bytes / 2 => {
                Reading::Paused
            }
            Some(_) => Reading::HalfBuffer,
            None => Reading::Continue,
        }
    }
}

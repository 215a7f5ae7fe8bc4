//! One connection from accept to hang-up, and the stage it is in.

use crate::app::endpoint::Endpoint;
use crate::session::state::SessionState;
use crate::structures::wheel::TimerKey;
use crate::words::time::Time;

use crate::core::admission::Admission;
use crate::core::http_stage::HttpStage;

/// One connection. Idle, this is all it costs beside its wheel entry and its socket.
pub(crate) struct Connection {
    pub(crate) state: SessionState,
    pub(crate) stage: Stage,
    pub(crate) timer: Option<TimerKey>,
    /// What the wheel is armed for. Invariant: not after the true deadline, so that activity, which
    /// only moves the deadline later, never touches the wheel.
    pub(crate) armed: Time,
    /// Bytes that the account of the loop holds for this connection.
    pub(crate) charged: u32,
    /// It came when the server was stopping already.
    pub(crate) late: bool,
    /// It counts against `per_address` of its client.
    pub(crate) counted: bool,
    /// This side has dialled it, and is the client.
    #[cfg(feature = "client")]
    pub(crate) is_dialled: bool,
}

/// What a connection is there for at present.
pub(crate) enum Stage {
    /// Requests are awaited.
    Http(Box<HttpStage>),
    /// A session runs, or ends by a handshake.
    Session(Box<dyn Endpoint>),
    /// Nothing is read any more: what is queued goes out, then the peer's hang-up is awaited.
    Finishing,
    /// Over; the socket is to be dropped.
    Closed(Disposal),
}

/// How the shell drops a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposal {
    /// An ordinary end.
    Close,
    /// At once: the peer sees a reset.
    Reset,
    /// Not at all: the application gets it.
    Detach,
}

impl Connection {
    /// Whether this side has dialled it, so that the peer is a server.
    #[inline]
    pub(crate) fn is_dialled(&self) -> bool {
        #[cfg(feature = "client")]
        return self.is_dialled;
        #[cfg(not(feature = "client"))]
        false
    }

    /// Whether no request head was complete yet.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        matches!(&self.stage, Stage::Http(http)
            if !http.has_answered
                && !http.expired
                && http.receiving.is_none()
                && http.answering.is_none())
    }

    /// The stage of HTTP, if it is in that.
    #[inline]
    pub(crate) fn http(&mut self) -> Option<&mut HttpStage> {
        match &mut self.stage {
            Stage::Http(http) => Some(http),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => None,
        }
    }

    /// Since when its head is awaited, if it is.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        match &self.stage {
            Stage::Http(http) if self.is_pending() => Some(http.since),
            Stage::Http(_) | Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => None,
        }
    }

    /// Counts the connection no longer against `per_address` of its client.
    pub(crate) fn uncount(&mut self, admission: &mut Admission) {
        if std::mem::take(&mut self.counted) {
            admission.leave(|| self.state.client_key());
        }
    }

    /// Whether it is a session of which nothing is, or was, held beyond the slot.
    #[inline]
    pub(crate) fn is_bare_session(&self) -> bool {
        self.charged == 0 && !self.state.owns_memory() && matches!(self.stage, Stage::Session(_))
    }

    /// Bytes held beyond the slot.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "sums of capacities, which all together fit the address space"
    )]
    pub(crate) fn memory(&self) -> usize {
        let of_stage = match &self.stage {
            Stage::Http(http) => {
                let receiving = http.receiving.as_ref().map_or(0, |it| it.memory());
                let answer = http.answering.as_ref().map_or(0, |answer| answer.memory());
                http.unread.capacity() + receiving + answer
            }
            Stage::Session(endpoint) => endpoint.bytes_held(),
            Stage::Finishing | Stage::Closed(_) => 0,
        };
        of_stage + self.state.memory()
    }
}

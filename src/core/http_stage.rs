//! The state of a connection that speaks HTTP.

use std::net::SocketAddr;

#[cfg(feature = "client")]
use crate::words::bounds::LONGEST_TIMEOUT;
use crate::words::limits::Limits;
use crate::words::time::Time;

use crate::core::admission::OverLimit;
use crate::core::deferred_answer::DeferredAnswer;
#[cfg(feature = "client")]
use crate::core::dialling::Dialling;
use crate::core::receiving::Receiving;
use crate::core::streamed_body::StreamedAnswer;

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct HttpStage {
    /// A head that is not complete, or requests held back until their predecessor's answer is out.
    pub(crate) unread: Vec<u8>,
    /// How far the search for the end of the head has come.
    pub(crate) scanned: usize,
    /// Bytes of the last request's body that are still to be passed over.
    pub(crate) skip: u64,
    /// When the wait for the present head began: with its first byte, or the connection, or the end
    /// of the answer before it.
    pub(crate) since: Time,
    /// A request was answered.
    pub(crate) has_answered: bool,
    /// `None` if only the wire knows.
    pub(crate) local_addr: Option<SocketAddr>,
    /// Accepted only to be refused, and for which limit.
    pub(crate) over_limit: Option<OverLimit>,
    /// A PROXY header has to come first.
    pub(crate) awaits_proxy_header: bool,
    /// It comes from a trusted proxy, whose headers say who the client is.
    pub(crate) proxied: bool,
    /// The present request, while its body is awaited.
    pub(crate) receiving: Option<Box<Receiving>>,
    /// The present answer, or the rest of it, while it is awaited. Requests wait behind it.
    pub(crate) answering: Option<Box<Answering>>,
    /// Requests are held because this connection has had its share of a turn.
    pub(crate) yielded: bool,
    /// Pushed out by younger connections: its time is over whatever the clock says.
    pub(crate) expired: bool,
    /// This side is the client, and an answer is awaited.
    #[cfg(feature = "client")]
    pub(crate) dialling: Option<Box<Dialling>>,
}

/// An answer that is not out yet.
#[derive(Debug)]
pub(crate) enum Answering {
    /// Its body goes out as the peer takes it.
    Streamed(StreamedAnswer),
    /// The application gives it later.
    Deferred(DeferredAnswer),
}

impl HttpStage {
    pub(crate) fn new(now: Time, over_limit: Option<OverLimit>) -> Self {
        Self {
            unread: Vec::new(),
            scanned: 0,
            skip: 0,
            since: now,
            has_answered: false,
            local_addr: None,
            receiving: None,
            answering: None,
            over_limit,
            awaits_proxy_header: false,
            proxied: false,
            yielded: false,
            expired: false,
            #[cfg(feature = "client")]
            dialling: None,
        }
    }
}

impl Answering {
    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        let beyond = match self {
            Self::Streamed(answer) => answer.memory(),
            Self::Deferred(answer) => answer.memory(),
        };
        size_of::<Self>().saturating_add(beyond)
    }
}

/// HTTP stages of connections that are sessions now, for the next connections. Taken from the allocator
/// each time, they would lie among the pages of the slab and keep it from giving those back.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "they move between here and `Stage` as they are")]
pub(crate) struct SpareStages(Vec<Box<HttpStage>>);

const SPARE_STAGES_MAX: usize = 64;

impl SpareStages {
    pub(crate) fn boxed(&mut self, http: HttpStage) -> Box<HttpStage> {
        match self.0.pop() {
            Some(mut spare) => {
                *spare = http;
                spare
            }
            None => Box::new(http),
        }
    }

    pub(crate) fn recycle(&mut self, spare: Box<HttpStage>) {
        // A burst of handshakes must not leave its stages behind for ever.
        if self.0.len() < SPARE_STAGES_MAX {
            self.0.push(spare);
        }
    }
}

impl HttpStage {
    /// When the wait for the present head is over, or for the next one to begin.
    pub(crate) fn deadline(&self, limits: &Limits) -> Time {
        match self {
            _ if self.expired => Time::ZERO,
            // Its dialer has the time.
            #[cfg(feature = "client")]
            Self { dialling: Some(_), .. } => self.since.after(LONGEST_TIMEOUT),
            _ if self.is_between_requests() => self.since.after(limits.keep_alive_timeout),
            // It takes one of the few slots for connections that are only refused.
            Self { over_limit: Some(_), .. } => {
                self.since.after(limits.handshake_timeout.min(limits.min_pending_age))
            }
            _ => self.since.after(limits.handshake_timeout),
        }
    }

    fn is_between_requests(&self) -> bool {
        self.has_answered && self.unread.is_empty() && self.skip == 0
    }

    /// Whether nothing of a request has come yet.
    pub(crate) fn is_silent(&self) -> bool {
        !self.has_answered
            && self.unread.is_empty()
            && self.receiving.is_none()
            && self.answering.is_none()
    }

    /// Whether something has come of an answer that its dialer has not looked at.
    #[cfg(feature = "client")]
    pub(crate) fn awaits_dialer(&self) -> bool {
        self.dialling.as_deref().is_some_and(|dialling| dialling.has_input)
    }

    /// Whether the application wants no more of a body for now.
    pub(crate) fn is_paused(&self) -> bool {
        self.receiving.as_deref().is_some_and(|it| it.paused_since.is_some())
    }

    /// Whether the body of an answer is on its way.
    pub(super) fn streams(&self) -> bool {
        matches!(self.answering.as_deref(), Some(Answering::Streamed(_)))
    }

    /// The answer whose body is on its way.
    pub(crate) fn streamed(&mut self) -> Option<&mut StreamedAnswer> {
        match self.answering.as_deref_mut()? {
            Answering::Streamed(answer) => Some(answer),
            Answering::Deferred(_) => None,
        }
    }

    /// The answer that the application gives later.
    pub(crate) fn deferred(&self) -> Option<&DeferredAnswer> {
        match self.answering.as_deref()? {
            Answering::Deferred(answer) => Some(answer),
            Answering::Streamed(_) => None,
        }
    }

    pub(crate) fn deferred_mut(&mut self) -> Option<&mut DeferredAnswer> {
        match self.answering.as_deref_mut()? {
            Answering::Deferred(answer) => Some(answer),
            Answering::Streamed(_) => None,
        }
    }

    pub(super) fn take_deferred(&mut self) -> Option<DeferredAnswer> {
        match *self.answering.take()? {
            Answering::Deferred(answer) => Some(answer),
            streamed @ Answering::Streamed(_) => {
                self.answering = Some(Box::new(streamed));
                None
            }
        }
    }

    /// How many of `available` bytes belong to the last request's body.
    #[allow(clippy::arithmetic_side_effects, reason = "passed is at most skip")]
    pub(super) fn pass_over(&mut self, available: usize) -> usize {
        let passed = self.skip.min(available as u64);
        self.skip -= passed;
        usize::try_from(passed).unwrap_or(available)
    }
}

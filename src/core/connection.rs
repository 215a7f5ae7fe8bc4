//! Owns one connection from accept to hang-up: which stage it is in and when its time is up.

use std::net::SocketAddr;

use crate::app::endpoint::Endpoint;
use crate::session::read_pause::ReadPause;
use crate::session::state::{Phase, SessionState};
use crate::structures::progress::Least;
use crate::structures::wheel::TimerKey;
use crate::words::limits::Limits;
use crate::words::options::SessionOptions;
use crate::words::time::Time;

use crate::core::admission::Surplus;
use crate::core::streamed_body::FileAnswer;

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
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct HttpStage {
    /// A head that is not complete, or requests held back until their predecessor's answer is out.
    pub(crate) held: Vec<u8>,
    /// How far the search for the end of the head has come.
    pub(crate) scanned: usize,
    /// Bytes of a request's body that are still to be passed over.
    pub(crate) skip: u64,
    /// When the wait for the present head began: with its first byte, or the connection, or the end
    /// of the answer before it.
    pub(crate) since: Time,
    /// A request was answered.
    pub(crate) has_answered: bool,
    /// `None` if only the wire knows.
    pub(crate) local_addr: Option<SocketAddr>,
    /// Let in only to be told that there is no place.
    pub(crate) surplus: Option<Surplus>,
    /// A PROXY header has to come first.
    pub(crate) awaits_proxy_header: bool,
    /// It comes from a trusted proxy, whose headers say who the client is.
    pub(crate) proxied: bool,
    /// The rest of the present answer. Requests wait behind it.
    pub(crate) body: Option<Box<FileAnswer>>,
    /// Requests are held because this connection has had its share of a turn.
    pub(crate) yielded: bool,
    /// Pushed out by younger connections: its time is over whatever the clock says.
    pub(crate) expired: bool,
}

impl HttpStage {
    pub(crate) fn new(now: Time, surplus: Option<Surplus>) -> Self {
        Self {
            held: Vec::new(),
            scanned: 0,
            skip: 0,
            since: now,
            has_answered: false,
            local_addr: None,
            body: None,
            surplus,
            awaits_proxy_header: false,
            proxied: false,
            yielded: false,
            expired: false,
        }
    }
}

/// HTTP stages of connections that are sessions now, for the next connections. Taken from the allocator
/// each time, they would lie among the pages of the slab and keep it from giving those back.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "they move between here and `Stage` as they are")]
pub(crate) struct SpareStages(Vec<Box<HttpStage>>);

const SPARE_STAGES_MAX: usize = 64;

impl SpareStages {
    pub(crate) fn place(&mut self, http: HttpStage) -> Box<HttpStage> {
        match self.0.pop() {
            Some(mut spare) => {
                *spare = http;
                spare
            }
            None => Box::new(http),
        }
    }

    pub(crate) fn keep(&mut self, spare: Box<HttpStage>) {
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
            _ if self.is_between_requests() => self.since.after(limits.keep_alive_timeout),
            // It holds one of the few places of those who are only told that there is none.
            Self { surplus: Some(_), .. } => {
                self.since.after(limits.handshake_timeout.min(limits.min_pending_age))
            }
            _ => self.since.after(limits.handshake_timeout),
        }
    }

    fn is_between_requests(&self) -> bool {
        self.has_answered && self.held.is_empty() && self.skip == 0
    }
}

impl Connection {
    /// Whether no request head was complete yet.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        matches!(&self.stage, Stage::Http(http) if !http.has_answered && !http.expired)
    }

    /// When something has to be done although nothing happens.
    pub(crate) fn deadline(&self, limits: &Limits, route: &SessionOptions) -> Option<Time> {
        let Some(extra) = self.state.extra.as_deref() else {
            return self.plain_deadline(limits, route);
        };
        let options = self.state.options(route);
        let least = Least { window: options.write_timeout, min_rate: limits.min_rate };
        let write = self.write_look(least);
        let own = match (&self.stage, self.state.phase) {
            // An answer on its way has as long as the peer takes of it in time (`write`).
            (Stage::Http(http), _) if http.body.is_some() || write.is_some() => None,
            // What is left of the last answer moves that deadline on.
            (Stage::Http(http), _) => {
                earliest([Some(http.deadline(limits)), self.answer_look(limits, least)])
            }
            (Stage::Session(_), Phase::Open) => earliest([
                self.ping_deadline(options, least),
                self.unfinished_deadline(options),
                self.idle_deadline(options),
                // A raw handler has its time to answer the peer's Close.
                extra.deadline,
                extra.timers.iter().map(|(_, at)| *at).min(),
                self.state.read_pause().and_then(ReadPause::until),
                self.pause_deadline(options),
                self.gone_deadline(limits),
            ]),
            (Stage::Session(_) | Stage::Finishing, _) => self.leave_look(limits, least),
            (Stage::Closed(_), _) => None,
        };
        earliest([own, write])
    }

    /// The same of one that has no `Extra`: all but these ask for something in it.
    #[inline]
    fn plain_deadline(&self, limits: &Limits, options: &SessionOptions) -> Option<Time> {
        match (&self.stage, self.state.phase) {
            (Stage::Session(_), Phase::Open) => {
                let ping = options.ping_period.map(|period| match self.state.awaiting_pong {
                    true => self.pong_wait_ends(options),
                    false => self.state.ping_base.after(period),
                });
                let idle = options.idle_timeout.map(|idle| self.state.last_activity.after(idle));
                earliest([ping, self.unfinished_deadline(options), idle])
            }
            (Stage::Http(http), _) if http.body.is_none() => Some(http.deadline(limits)),
            (Stage::Http(_) | Stage::Session(_) | Stage::Finishing | Stage::Closed(_), _) => None,
        }
    }

    pub(crate) fn ping_deadline(&self, options: &SessionOptions, least: Least) -> Option<Time> {
        let period = options.ping_period?;
        Some(match self.state.awaiting_pong {
            true => self.pong_deadline(options, least),
            false => self.state.ping_base.after(period),
        })
    }

    /// When the application has not taken anything for too long.
    pub(crate) fn pause_deadline(&self, options: &SessionOptions) -> Option<Time> {
        let since =
            self.state.read_pause().filter(|hold| !hold.is_over()).and_then(ReadPause::since)?;
        options.pause_timeout.map(|pause| since.after(pause))
    }

    /// When the application has had its time to take what a peer left behind that is gone.
    pub(crate) fn gone_deadline(&self, limits: &Limits) -> Option<Time> {
        let hold = self.state.read_pause().filter(|hold| !hold.is_over());
        hold.and_then(ReadPause::peer_ended).map(|ended| ended.after(limits.close_timeout))
    }

    /// None while the peer is not read: what it sends is not seen.
    pub(crate) fn idle_deadline(&self, options: &SessionOptions) -> Option<Time> {
        if self.state.is_read_paused() {
            return None;
        }
        options.idle_timeout.map(|idle| self.state.last_activity.after(idle))
    }

    /// Whether it is a session of which nothing is, or was, held beyond the place in the slab.
    #[inline]
    pub(crate) fn holds_nothing(&self) -> bool {
        self.charged == 0 && !self.state.owns_memory() && matches!(self.stage, Stage::Session(_))
    }

    /// Bytes held beyond the place in the slab.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "sums of capacities, which all together fit the address space"
    )]
    pub(crate) fn memory(&self) -> usize {
        let http = match &self.stage {
            Stage::Http(http) => {
                http.held.capacity() + http.body.as_ref().map_or(0, |answer| answer.memory())
            }
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => 0,
        };
        http + self.state.memory()
    }
}

fn earliest<const N: usize>(deadlines: [Option<Time>; N]) -> Option<Time> {
    deadlines.iter().copied().flatten().min() // by reference: moved, so many would be copied first
}

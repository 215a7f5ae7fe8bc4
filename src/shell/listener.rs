//! The listener: one accept at a time, and what to do when descriptors run out.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use log::warn;
use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::{Interest, Registry, Token};

use crate::session::state::NO_ADDR;
use crate::words::time::Time;

use super::listen::{Kind, Opened};
use super::unix_path::SocketFile;

/// The first pause after descriptors ran out; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Connections that may come to nothing one after the other. More in a row are no accident of the
/// network: accept itself is refused, as by a filter of system calls, and takes nobody away.
const FAILURES_MAX: u32 = 16;

/// A listening socket that is served.
#[derive(Debug)]
pub(crate) struct Listener {
    acceptor: Acceptor,
    /// Removed when the listener goes.
    _file: Option<SocketFile>,
    /// It was handed over by somebody who keeps it.
    pub(crate) handed_over: bool,
    /// No longer accepted from.
    pub(crate) released: bool,
    /// Connections may wait: the edge came, and accept has not said WouldBlock since.
    pub(crate) waiting: bool,
    /// Not to be asked before this time.
    pub(crate) retry_at: Option<Time>,
    backoff: Duration,
    /// Accepts in a row that came to nothing.
    failures: u32,
    /// The local address of every connection, where the socket listens at one alone: it saves asking
    /// the system each time.
    pub(crate) address: Option<SocketAddr>,
}

#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// Where it listens; `None` if that is no address, or any.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok().filter(|it| !it.ip().is_unspecified()),
            Self::Unix(_) => Some(NO_ADDR),
        }
    }

    fn accept(&self) -> Accepted {
        match self {
            Self::Tcp(socket) => socket.accept(),
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                // The calls made on a stream are the same for both kinds, so one type serves.
                Ok((TcpStream::from(OwnedFd::from(stream)), NO_ADDR))
            }
        }
    }
}

type Accepted = io::Result<(TcpStream, SocketAddr)>;

/// What an accept gave.
pub(crate) enum AcceptOutcome {
    Connection(TcpStream, SocketAddr),
    /// That one came to nothing; ask again.
    Again,
    /// Nobody waits.
    Drained,
    /// Descriptors or memory ran out, or accept is refused altogether: pause until `retry_at`.
    Exhausted(io::Error),
}

impl Listener {
    /// Serves a socket: its events come with `token`.
    pub(crate) fn new(opened: Opened, registry: &Registry, token: Token) -> io::Result<Self> {
        let descriptor = OwnedFd::from(opened.socket);
        let acceptor = match opened.kind {
            Kind::Tcp => {
                let mut socket = TcpListener::from_std(descriptor.into());
                registry.register(&mut socket, token, Interest::READABLE)?;
                Acceptor::Tcp(socket)
            }
            Kind::Unix => {
                let mut socket = UnixListener::from_std(descriptor.into());
                registry.register(&mut socket, token, Interest::READABLE)?;
                Acceptor::Unix(socket)
            }
        };
        let (waiting, backoff) = (true, BACKOFF_MIN);
        let address = acceptor.address();
        Ok(Self {
            acceptor,
            _file: opened.file,
            handed_over: opened.handed_over,
            released: false,
            waiting,
            retry_at: None,
            backoff,
            failures: 0,
            address,
        })
    }

    /// What was missing may be there again; how long to pause if it is not stays as it was.
    pub(crate) fn retry(&mut self) {
        self.retry_at = None;
    }

    /// Leaves who comes from now on to whoever handed the socket over: they wait in its backlog for
    /// the next process.
    pub(crate) fn release(&mut self, registry: &Registry) {
        if self.released {
            return;
        }
        let done = match &mut self.acceptor {
            Acceptor::Tcp(socket) => registry.deregister(socket),
            Acceptor::Unix(socket) => registry.deregister(socket),
        };
        if let Err(error) = done {
            warn!(target: "wirewheel::server", "a socket cannot be released: {error}");
        }
        (self.released, self.waiting) = (true, false);
    }

    /// Whether it is to be asked now.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.waiting && self.retry_at.is_none_or(|at| at <= now)
    }

    pub(crate) fn accept(&mut self, now: Time, reserve: &mut Reserve) -> AcceptOutcome {
        let accepted = self.acceptor.accept();
        self.judge(accepted, now, reserve)
    }

    /// What an accept's result means, and what follows for the next one.
    fn judge(&mut self, accepted: Accepted, now: Time, reserve: &mut Reserve) -> AcceptOutcome {
        let error = match accepted {
            Ok((stream, peer)) => {
                (self.backoff, self.retry_at, self.failures) = (BACKOFF_MIN, None, 0);
                return AcceptOutcome::Connection(stream, peer);
            }
            Err(error) => error,
        };
        if error.kind() == ErrorKind::WouldBlock {
            (self.waiting, self.failures) = (false, 0);
            return AcceptOutcome::Drained;
        }
        if concerns_one_connection(error.kind()) {
            self.failures = self.failures.saturating_add(1);
            if self.failures <= FAILURES_MAX {
                return AcceptOutcome::Again;
            }
        } else {
            // At the limit of descriptors accept fails even where nobody waits, and the edge does
            // not come again: so somebody who does wait is told by a hang-up, and a timer asks again.
            reserve.hang_up_on_one(&self.acceptor);
        }
        self.retry_at = Some(now.after(self.backoff));
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        AcceptOutcome::Exhausted(error)
    }
}

/// Errors of the connection that was to be accepted, which is gone with them: accept(2) says to
/// treat those of the network like EAGAIN. All others concern the process or the system.
fn concerns_one_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::PermissionDenied
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::Unsupported
    )
}

/// A descriptor held back, to be able to hang up on somebody when there is none left.
#[derive(Debug)]
pub(crate) struct Reserve(Option<File>);

impl Reserve {
    pub(crate) fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn hang_up_on_one(&mut self, acceptor: &Acceptor) {
        if self.0.take().is_some() {
            drop(acceptor.accept());
        }
        *self = Self::new();
    }
}

#[cfg(all(repository, test))]
mod tests;

//! Owns listening: one accept at a time, and what to do when descriptors run out.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};

use crate::words::time::Time;

/// The first pause after descriptors ran out; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// Connections may wait: the edge came, and accept has not said WouldBlock since.
    pub(crate) waiting: bool,
    /// Not to be asked before this time.
    pub(crate) retry_at: Option<Time>,
    backoff: Duration,
}

/// What an accept gave.
pub(crate) enum AcceptOutcome {
    Connection(TcpStream, SocketAddr),
    /// That one came to nothing; ask again.
    Again,
    /// Nobody waits.
    Drained,
    /// Descriptors or memory ran out: pause until `retry_at`.
    Exhausted(io::Error),
}

impl Listener {
    pub(crate) fn new(socket: TcpListener) -> Self {
        Self { socket, waiting: true, retry_at: None, backoff: BACKOFF_MIN }
    }

    /// Whether it is to be asked now.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.waiting && self.retry_at.is_none_or(|at| at <= now)
    }

    pub(crate) fn accept(&mut self, now: Time, reserve: &mut Reserve) -> AcceptOutcome {
        match self.socket.accept() {
            Ok((stream, peer)) => {
                self.backoff = BACKOFF_MIN;
                self.retry_at = None;
                AcceptOutcome::Connection(stream, peer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.waiting = false;
                AcceptOutcome::Drained
            }
            Err(error) if concerns_one_connection(error.kind()) => AcceptOutcome::Again,
            Err(error) => {
                // At the limit of descriptors accept fails even where nobody waits, and the edge
                // does not come again: so somebody who does wait is told by a hang-up, and a timer
                // asks again.
                reserve.hang_up_on_one(&self.socket);
                self.retry_at = Some(now.after(self.backoff));
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                AcceptOutcome::Exhausted(error)
            }
        }
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

    fn hang_up_on_one(&mut self, socket: &TcpListener) {
        if self.0.take().is_some() {
            drop(socket.accept());
        }
        *self = Self::new();
    }
}

//! The server as a part of somebody else's loop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::context::commands::Drained;
use crate::context::loop_state::ServerRef;
use crate::words::adopt::AdoptError;
use crate::words::error::{Result, ServerError};

use super::poll_loop::PollLoop;

/// A server that another loop turns, by [`Server::into_driver`](crate::Server::into_driver).
///
/// The other loop waits until the descriptor ([`AsFd`]) is readable or
/// [`next_deadline`](Self::next_deadline) has come, and calls [`turn`](Self::turn). Both have to be asked
/// again after each turn, and after anything else that was done with the server. Several turns for one
/// event, or one for none, do no harm.
///
/// The descriptor is an epoll instance. All that concerns the server makes it readable: connections, other
/// threads with a [`Handle`](crate::Handle), descriptors that are [watched](crate::Application::watch), and
/// signals. It may be waited for by level or by edge. Nothing is to be read from it, and nothing registered
/// with it.
///
/// A loop around poll(2):
///
/// ```
/// use std::ops::ControlFlow;
/// use std::os::fd::AsFd;
/// use std::time::{Duration, Instant};
/// use wirewheel::{Application, Server};
/// # use rustix::event::{PollFd, PollFlags, Timespec, poll};
/// /// Waits with poll(2) until it is readable, or the time is over.
/// fn wait(descriptor: impl AsFd, time: Option<Duration>) -> std::io::Result<()> {
///     // ..
/// #     let time = time.map(|time| Timespec::try_from(time).unwrap());
/// #     poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], time.as_ref())?;
/// #     Ok(())
/// }
///
/// let mut server = Server::bind("127.0.0.1:0", |app: &mut Application| {
///     app.every(Duration::from_millis(10), |server| server.shutdown(Duration::ZERO));
/// })?
/// .into_driver()?;
/// server.stop_at_signals()?; // as Server::run does, where the program has no handlers of its own
/// let drained = loop {
///     if let ControlFlow::Break(drained) = server.turn()? {
///         break drained;
///     }
///     let time = server.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
///     wait(&server, time)?; // and for what else the program has
/// };
/// assert_eq!(drained.cut, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropped, it hangs up on everybody: [`shutdown`](ServerRef::shutdown) first, and turn on until it is over.
pub struct ServerDriver {
    poll_loop: PollLoop,
}

impl fmt::Debug for ServerDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerDriver").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}

impl AsFd for ServerDriver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll_loop.as_fd()
    }
}

impl AsRawFd for ServerDriver {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl ServerDriver {
    pub(crate) fn new(poll_loop: PollLoop) -> Self {
        Self { poll_loop }
    }

    /// When [`turn`](Self::turn) is to be called although the descriptor is not readable: it may be now, or
    /// have been; `None` if nothing is due, and once the server is over. Rounded down to the milliseconds of
    /// poll(2), a wait ends too early and is repeated: round up.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        self.poll_loop.next_deadline()
    }

    /// Does what can be done now, without waiting: a bounded part of it, as each turn of
    /// [`Server::run`](crate::Server::run). Says how sessions have ended once the server is over; then
    /// nothing is left to be done, and further calls say it again; handles say that it has stopped, nobody
    /// listens, and signals are given back.
    ///
    /// # Errors
    /// [`ServerError::Loop`] if the system fails the epoll instance. It will not get better.
    pub fn turn(&mut self) -> Result<ControlFlow<Drained>> {
        let drained = self.poll_loop.turn_at_once().map_err(ServerError::Loop)?;
        Ok(drained.map_or(ControlFlow::Continue(()), ControlFlow::Break))
    }

    /// Runs `action` with the server now, between turns: what it sends goes out in the next one. `None` if
    /// it panicked, which is logged. Once the server is over nobody is there to send to.
    ///
    /// ```
    /// use wirewheel::embedding::ServerDriver;
    /// fn broadcast(server: &mut ServerDriver, text: &str) {
    ///     server.with_server(|server| {
    ///         for id in server.sessions() {
    ///             let _ = server.send_to(id, text); // it may have left meanwhile
    ///         }
    ///     });
    /// }
    /// ```
    pub fn with_server<R>(&mut self, action: impl FnOnce(&mut ServerRef<'_>) -> R) -> Option<R> {
        self.poll_loop.with_server(action)
    }

    /// Takes a connection that somebody else has accepted; see [`ServerRef::adopt`].
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use wirewheel::embedding::ServerDriver;
    /// /// The other loop has a listener of its own that is ready.
    /// fn accept(server: &mut ServerDriver, listener: &TcpListener) -> std::io::Result<()> {
    ///     let (stream, peer) = listener.accept()?;
    ///     if let Err(error) = server.adopt(stream, Vec::new(), peer) {
    ///         eprintln!("{peer}: {error}"); // it was hung up on
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`ServerRef::adopt`].
    pub fn adopt(
        &mut self,
        stream: impl Into<OwnedFd>,
        already_read: Vec<u8>,
        peer: SocketAddr,
    ) -> std::result::Result<(), AdoptError> {
        let adopt = |server: &mut ServerRef<'_>| server.adopt(stream, already_read, peer);
        self.with_server(adopt).unwrap_or(Err(AdoptError::Stopped))
    }

    /// Has SIGINT and SIGTERM stop the server, as [`Server::run`](crate::Server::run) does. Without it,
    /// signals are left alone.
    ///
    /// # Errors
    /// [`ServerError::Loop`] if the system has no descriptor left for it.
    pub fn stop_at_signals(&mut self) -> Result<()> {
        self.poll_loop.accept_signals().map_err(ServerError::Loop)
    }

    /// How long a stop waits for everybody where nobody says.
    pub(crate) fn grace(&self) -> Duration {
        self.poll_loop.grace()
    }

    /// The same with waiting: all of a program that is nothing but the server.
    pub(crate) fn run(&mut self) -> io::Result<Drained> {
        self.poll_loop.run()
    }
}

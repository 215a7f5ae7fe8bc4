//! A connection that leaves the loop after its upgrade, for a thread that may block.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::words::network::ClientKey;

/// A connection after its upgrade, which the loop has nothing more to do with; see
/// [`Routing::detached`](crate::Routing::detached). It can be sent to another thread.
///
/// Dropped, it is closed, and its client gets no answer to its upgrade.
///
/// ```
/// use std::io;
/// use std::net::TcpStream;
/// use wirewheel::detach::Detached;
///
/// /// On a thread of its own.
/// fn talk(connection: Detached) -> io::Result<()> {
///     let (fd, received, slot) = connection.into_parts()?;
///     let stream = TcpStream::from(fd); // a UnixStream where a Unix socket is listened on
///     // .. what the client sent behind its request is in `received`, and comes before what is read.
///     drop((stream, received));
///     drop(slot); // from here on the connection does not count any more
///     Ok(())
/// }
/// ```
pub struct Detached {
    pub(crate) fd: OwnedFd,
    pub(crate) write_blocking: WriteBlocking,
    /// Answers, the last of them to the upgrade, that were not written.
    pub(crate) unsent: Vec<u8>,
    pub(crate) received: Vec<u8>,
    pub(crate) slot: DetachedSlot,
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Detached {
    /// Accepts the upgrade: makes the socket a blocking one and writes the answer (101). Returns the
    /// socket, what the client has sent behind its request, and the guard by which the connection counts.
    ///
    /// The parts are what `tungstenite::WebSocket::from_partially_read` takes, once the descriptor is a
    /// `TcpStream` or, behind a Unix listener, a `UnixStream`. No limit, timeout or ping of the server
    /// applies to it: set timeouts on the stream.
    ///
    /// To be called on the thread that is to use the connection, since the write may wait for the client.
    ///
    /// # Errors
    /// Where the client has gone, or the system refuses; then the connection is closed.
    pub fn into_parts(self) -> io::Result<(OwnedFd, Vec<u8>, DetachedSlot)> {
        let fd = (self.write_blocking)(self.fd, &self.unsent)?;
        Ok((fd, self.received, self.slot))
    }
}

/// By which a detached connection counts in `max_connections` and `per_address` until this is dropped,
/// on whichever thread: keep it as long as the socket.
///
/// ```
/// use std::net::TcpStream;
/// use wirewheel::detach::DetachedSlot;
/// struct Client {
///     stream: TcpStream,
///     _slot: DetachedSlot, // fields are dropped in this order
/// }
/// ```
pub struct DetachedSlot(pub(crate) Option<Release>);

/// Makes a socket a blocking one and writes all of the bytes to it.
pub(crate) type WriteBlocking = fn(OwnedFd, &[u8]) -> io::Result<OwnedFd>;

/// A socket that the loop has given up.
pub(crate) struct FreedSocket {
    pub(crate) fd: OwnedFd,
    pub(crate) write_blocking: WriteBlocking,
    pub(crate) release: Release,
}

/// Tells the loop that a detached connection is over.
pub(crate) type Release = Box<dyn FnOnce() + Send>;

impl fmt::Debug for DetachedSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedSlot").finish_non_exhaustive()
    }
}

impl Drop for DetachedSlot {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

/// What goes with a connection that leaves the loop.
pub(crate) struct Handover {
    /// The slot that its socket still has.
    pub(crate) slot: u32,
    /// Whom it counts for in `per_address`.
    pub(crate) client: Option<ClientKey>,
    pub(crate) unsent: Vec<u8>,
    pub(crate) received: Vec<u8>,
    /// The application's.
    pub(crate) take: Box<dyn FnOnce(Detached)>,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("slot", &self.slot).finish_non_exhaustive()
    }
}

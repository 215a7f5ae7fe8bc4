//! One connection's socket: reading, and the [`Wire`] that the core writes through.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use mio::Registry;
use mio::net::TcpStream;
use socket2::SockRef;

use crate::core::Disposal;
use crate::core::sockets::{self, Notes};
use crate::session::state::NO_ADDR;
use crate::structures::wire::Wire;
use crate::transport::channel::Channel;
#[cfg(feature = "tls")]
use crate::transport::secured::{Changes, Secured, SecuredRead};
use crate::transport::stream::{ReadOutcome, Stream};

/// A non-blocking stream socket, TCP or Unix.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes that it took so far, modulo 2^32.
    written: u32,
    notes: Notes,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, written: 0, notes: Notes::default() }
    }

    /// What becomes of a read that failed; one that was interrupted is made again.
    #[cold]
    fn read_failed(&self, mut error: io::Error, buffer: &mut [u8]) -> ReadOutcome {
        loop {
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return ReadOutcome::Drained,
                kind => return ReadOutcome::Failed(kind),
            }
            // By another name: called from two places, the usual way would be a call there as well.
            match (&*SockRef::from(&self.stream)).read(buffer) {
                Ok(0) => return ReadOutcome::Eof,
                Ok(n) => return ReadOutcome::Bytes(n),
                Err(again) => error = again,
            }
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
    fn count(&mut self, written: usize) {
        self.written = self.written.wrapping_add(written as u32);
    }

    /// Gives the socket to somebody else.
    pub(crate) fn detach(mut self, registry: &Registry) -> io::Result<OwnedFd> {
        registry.deregister(&mut self.stream)?;
        Ok(self.stream.into())
    }

    /// Gives the socket up.
    pub(crate) fn dispose(self, disposal: Disposal) {
        if disposal == Disposal::Reset {
            // A linger of zero turns close into a reset; if that fails, close is all there is.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// For TLS, which is not to cost those anything that have none.
impl Stream for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        // By another name, as above.
        match (&*SockRef::from(&self.stream)).read(buffer) {
            Ok(0) => ReadOutcome::Eof,
            Ok(n) => ReadOutcome::Bytes(n),
            Err(error) => self.read_failed(error, buffer),
        }
    }

    #[cfg(feature = "tls")]
    fn note_blocked(&mut self) {
        self.notes.blocked = true;
    }
}

impl sockets::Socket for Socket {
    type Plain = Self;

    #[inline]
    fn wire(&mut self) -> &mut dyn Wire {
        self
    }

    #[inline]
    fn take_failure(&mut self) -> Option<ErrorKind> {
        self.stream.take_error().ok().flatten().map(|error| error.kind())
    }

    #[inline]
    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}

impl sockets::PlainSocket for Socket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        match (&self.stream).read(buffer) {
            Ok(0) => ReadOutcome::Eof,
            Ok(n) => ReadOutcome::Bytes(n),
            Err(error) => self.read_failed(error, buffer),
        }
    }
}

impl sockets::Socket for Channel<Socket> {
    type Plain = Socket;

    #[inline]
    fn wire(&mut self) -> &mut dyn Wire {
        Self::wire(self)
    }

    #[cfg(feature = "tls")]
    fn read_secured(&mut self, buffer: &mut [u8], room: usize, late: bool) -> SecuredRead {
        self.secured().map_or(SecuredRead::Drained, |secured| secured.read(buffer, room, late))
    }

    #[cfg(feature = "tls")]
    fn flush_backlog(&mut self) -> io::Result<bool> {
        self.secured().map_or(Ok(true), Secured::flush)
    }

    #[cfg(feature = "tls")]
    #[inline]
    fn take_changes(&mut self) -> Option<Changes> {
        self.secured().and_then(Secured::take_changes)
    }

    fn take_failure(&mut self) -> Option<ErrorKind> {
        (**self).take_failure()
    }

    #[inline]
    fn notes(&mut self) -> &mut Notes {
        (**self).notes()
    }
}

/// Writing.
impl Socket {
    /// What becomes of a write that did not take all; one that was interrupted is made again.
    #[cold]
    fn write_on(&mut self, bytes: &[u8], first: io::Result<usize>) -> io::Result<usize> {
        let mut first = Some(first);
        self.outcome(bytes.len(), |mut stream| first.take().unwrap_or_else(|| stream.write(bytes)))
    }

    #[inline]
    fn outcome(
        &mut self,
        offered: usize,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match write(&self.stream) {
                Ok(written) => {
                    self.count(written);
                    if written < offered {
                        self.notes.blocked = true;
                    }
                    return Ok(written);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        self.notes.blocked = true;
                        return Ok(0);
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

/// The way out of a turn, straight to the system.
impl Wire for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.stream).write(bytes) {
            Ok(written) if written == bytes.len() => {
                self.count(written);
                Ok(written)
            }
            outcome => self.write_on(bytes, outcome),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        // `writev` raises SIGPIPE where the peer has gone; that is only for the process to want.
        self.outcome(offered, |stream| {
            SockRef::from(stream).send_vectored_with_flags(slices, libc::MSG_NOSIGNAL)
        })
    }

    fn shutdown_write(&mut self) {
        // Fails only where the peer is gone, and then reading says so.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn written(&self) -> u32 {
        self.written
    }

    fn unsent(&self) -> Option<usize> {
        wirewheel_sendq::unsent(&self.stream).ok()
    }

    fn peer_is_full(&self) -> bool {
        let waiting = self.unsent().filter(|&bytes| bytes > 0);
        waiting.is_some() && waiting == wirewheel_sendq::not_sent(&self.stream).ok()
    }

    fn can_be_detached(&self) -> bool {
        true
    }

    fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap_or(NO_ADDR)
    }

    #[allow(clippy::disallowed_methods, reason = "the shell reads the clock")]
    fn since_1970(&self) -> Option<Duration> {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()
    }
}

/// Makes a socket that has left the loop a blocking one, and writes all of the bytes to it.
pub(super) fn write_blocking(fd: OwnedFd, mut bytes: &[u8]) -> io::Result<OwnedFd> {
    let socket = socket2::Socket::from(fd);
    socket.set_nonblocking(false)?;
    while !bytes.is_empty() {
        // A client that has gone is an error, and no signal for the process.
        match socket.send_with_flags(bytes, libc::MSG_NOSIGNAL) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn over_tcp() -> OwnedFd {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        ours.into()
    }

    fn over_unix() -> OwnedFd {
        UnixStream::pair().unwrap().0.into()
    }

    /// A library in a program of another language, or in a Rust program that changed it, finds
    /// SIGPIPE at its default action: the end of the process.
    #[test]
    fn no_write_to_a_peer_that_has_gone_raises_a_signal() {
        let raised = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&raised)).unwrap();
        for gone in [over_tcp, over_unix] {
            type Write = fn(&mut Socket) -> io::Result<usize>;
            let writes: [Write; 2] = [
                |socket| socket.write(b"whole"),
                |socket| socket.write_vectored(&[IoSlice::new(b"in "), IoSlice::new(b"pieces")]),
            ];
            for write in writes {
                let mut socket = Socket::new(TcpStream::from_std(gone().into()));
                // Over TCP the first write is taken, and answered by a reset.
                let broken = (0..10_000).find_map(|_| write(&mut socket).err());
                let kind = broken.map(|error| error.kind());
                assert!(
                    matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)),
                    "{kind:?}"
                );
                let again = write(&mut socket).map_err(|error| error.kind());
                assert_eq!(again, Err(ErrorKind::BrokenPipe));
                assert!(!raised.load(Ordering::Relaxed), "SIGPIPE");
            }
        }
    }
}

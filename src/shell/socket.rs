//! Owns one connection's socket: reading, and the [`Wire`] that the core writes through.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, SystemTime};

use mio::net::TcpStream;

use crate::core::Disposal;
use crate::core::driver::{self, Notes, ReadOutcome};
use crate::domain::session_state::NO_ADDR;
use crate::structures::wire::Wire;

/// A non-blocking stream socket, TCP or Unix.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// The last write took less than it was given: a WRITABLE event is news. Without it, WRITABLE
    /// events are ignored.
    blocked: bool,
    notes: Notes,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, blocked: false, notes: Notes::default() }
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
            match (&self.stream).read(buffer) {
                Ok(0) => return ReadOutcome::Eof,
                Ok(n) => return ReadOutcome::Bytes(n),
                Err(again) => error = again,
            }
        }
    }

    /// Gives the socket up.
    pub(crate) fn dispose(self, disposal: Disposal) {
        if disposal == Disposal::Reset {
            // A linger of zero turns close into a reset; if that fails, close is all there is.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl driver::Socket for Socket {
    #[inline]
    fn wire(&mut self) -> &mut dyn Wire {
        self
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        match (&self.stream).read(buffer) {
            Ok(0) => ReadOutcome::Eof,
            Ok(n) => ReadOutcome::Bytes(n),
            Err(error) => self.read_failed(error, buffer),
        }
    }

    #[inline]
    fn take_blocked(&mut self) -> bool {
        std::mem::take(&mut self.blocked)
    }

    fn note_blocked(&mut self) {
        self.blocked = true;
    }

    #[inline]
    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
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
                    if written < offered {
                        self.blocked = true;
                    }
                    return Ok(written);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        self.blocked = true;
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
            Ok(written) if written == bytes.len() => Ok(written),
            outcome => self.write_on(bytes, outcome),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.outcome(offered, |mut stream| stream.write_vectored(slices))
    }

    fn shutdown_write(&mut self) {
        // Fails only where the peer is gone, and then reading says so.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap_or(NO_ADDR)
    }

    #[allow(clippy::disallowed_methods, reason = "the shell reads the clock")]
    fn since_1970(&self) -> Option<Duration> {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()
    }
}

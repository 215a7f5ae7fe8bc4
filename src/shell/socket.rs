//! Owns one connection's socket: reading, and the [`Wire`] that the core writes through.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;

use crate::core::{Disposal, Reading};
use crate::domain::session_state::NO_ADDR;
use crate::structures::wire::Wire;

/// A non-blocking stream socket, TCP or Unix.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// The last write took less than it was given: a WRITABLE event is news. Without it, WRITABLE
    /// events are ignored.
    blocked: Cell<bool>,
    /// Bytes that it took so far, modulo 2^32.
    written: Cell<u32>,
    /// It stands in the list of sockets to be read without an event.
    pub(crate) listed: bool,
    /// Whether the core wants it to be read at present.
    pub(crate) reading: Reading,
}

/// What a read gave.
pub(crate) enum ReadOutcome {
    Bytes(usize),
    Drained,
    Eof,
    Failed(ErrorKind),
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (blocked, written) = (Cell::new(false), Cell::new(0));
        Self { stream, blocked, written, listed: false, reading: Reading::Continue }
    }

    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> ReadOutcome {
        match (&self.stream).read(buffer) {
            Ok(0) => ReadOutcome::Eof,
            Ok(n) => ReadOutcome::Bytes(n),
            Err(error) => self.read_failed(error, buffer),
        }
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

    /// Whether a WRITABLE event matters, which it does once.
    #[inline]
    pub(crate) fn take_blocked(&self) -> bool {
        self.blocked.replace(false)
    }

    /// Makes the next WRITABLE event matter.
    pub(crate) fn note_blocked(&self) {
        self.blocked.set(true);
    }

    #[inline]
    fn count(&self, written: usize) {
        #[allow(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
        self.written.set(self.written.get().wrapping_add(written as u32));
    }

    pub(crate) fn wire(&self) -> SocketWire<'_> {
        SocketWire { socket: self }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Gives the socket up.
    pub(crate) fn dispose(self, disposal: Disposal) {
        if disposal == Disposal::Reset {
            // A linger of zero turns close into a reset; if that fails, close is all there is.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// The way out of a turn, straight to the socket.
pub(crate) struct SocketWire<'a> {
    socket: &'a Socket,
}

impl SocketWire<'_> {
    /// What becomes of a write that did not take all; one that was interrupted is made again.
    #[cold]
    fn write_on(&self, bytes: &[u8], first: io::Result<usize>) -> io::Result<usize> {
        let mut first = Some(first);
        self.outcome(bytes.len(), |mut stream| first.take().unwrap_or_else(|| stream.write(bytes)))
    }

    #[inline]
    fn outcome(
        &self,
        offered: usize,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match write(&self.socket.stream) {
                Ok(written) => {
                    self.socket.count(written);
                    if written < offered {
                        self.socket.blocked.set(true);
                    }
                    return Ok(written);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        self.socket.blocked.set(true);
                        return Ok(0);
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

impl Wire for SocketWire<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.socket.stream).write(bytes) {
            Ok(written) if written == bytes.len() => {
                self.socket.count(written);
                Ok(written)
            }
            outcome => self.write_on(bytes, outcome),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.outcome(offered, |mut stream| stream.write_vectored(slices))
    }

    fn shutdown_write(&mut self) {
        // Fails only where the peer is gone, and then reading says so.
        let _ = self.socket.stream.shutdown(Shutdown::Write);
    }

    fn written(&self) -> u32 {
        self.socket.written.get()
    }

    fn unsent(&self) -> Option<usize> {
        wirewheel_sendq::unsent(&self.socket.stream).ok()
    }

    fn peer_is_full(&self) -> bool {
        let waiting = self.unsent().filter(|&bytes| bytes > 0);
        waiting.is_some() && waiting == wirewheel_sendq::not_sent(&self.socket.stream).ok()
    }

    fn local_addr(&self) -> SocketAddr {
        self.socket.stream.local_addr().unwrap_or(NO_ADDR)
    }
}

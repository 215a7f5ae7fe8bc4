//! Owns the contract of the one way to write through at once.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

/// Where a turn's bytes go. The shell's socket implements it, and so do the tests' fakes.
pub(crate) trait Wire {
    /// Writes what fits and says how much; 0 is "not now", never an error. An error means that the
    /// connection is broken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// The same from several pieces.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Half-close: tells the peer, behind the last byte, that nothing more comes.
    fn shutdown_write(&mut self);

    /// The local address of the connection.
    fn local_addr(&self) -> SocketAddr;

    /// The wall clock, as the time since 1970 began; `None` if it is not at hand. A wire in memory has
    /// always the same.
    fn since_1970(&self) -> Option<Duration> {
        Some(Duration::from_secs(1_700_000_000))
    }

    /// How many bytes were written so far, modulo 2^32.
    fn written(&self) -> u32;

    /// How many of those the peer's system has not taken yet; `None` where that is not known. It may be
    /// a system call: to be asked where a deadline depends on it, never for a message.
    fn unsent(&self) -> Option<usize>;

    /// Whether bytes wait and none is on its way: the peer's buffer is full, so that from here its system
    /// takes no more than the peer reads. False where that is not known.
    fn peer_is_full(&self) -> bool {
        false
    }

    /// Whether what a short write left waits for the socket, and not just for a later turn.
    fn has_socket(&self) -> bool {
        true
    }
}

/// A wire that takes nothing: for a turn of a connection whose socket is not at hand. What it is
/// offered waits in the outbox until the connection is flushed.
#[derive(Debug)]
pub(crate) struct NoWire;

impl Wire for NoWire {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write_vectored(&mut self, _slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(0)
    }

    fn shutdown_write(&mut self) {}

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    fn since_1970(&self) -> Option<Duration> {
        None
    }

    fn written(&self) -> u32 {
        0
    }

    fn unsent(&self) -> Option<usize> {
        None
    }

    fn has_socket(&self) -> bool {
        false
    }
}

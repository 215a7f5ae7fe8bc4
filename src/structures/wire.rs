//! The contract of the one way to write through at once.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

#[cfg(feature = "tls")]
use crate::words::tls::TlsPeer;

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

    /// Bytes that the peer's system has taken of all that were written, modulo 2^32, and those it has not.
    /// Where the system cannot tell, what was written counts as taken.
    fn taken(&self) -> (u32, u32) {
        let unsent = self.unsent().map_or(0, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        (self.written().wrapping_sub(unsent), unsent)
    }

    /// Whether bytes wait and none is on its way: the peer's buffer is full, so that from here its system
    /// takes no more than the peer reads. False where that is not known.
    fn peer_is_full(&self) -> bool {
        false
    }

    /// How many of the bytes that were taken only this process has, so that they are lost with the
    /// socket.
    fn backlog(&self) -> usize {
        0
    }

    /// What the peer has shown in its TLS handshake; `None` where there was none.
    #[cfg(feature = "tls")]
    fn tls_peer(&self) -> Option<TlsPeer> {
        None
    }

    /// Whether its socket can be given to somebody else: not one in memory, nor one whose bytes are only
    /// to be read here.
    fn can_be_detached(&self) -> bool {
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

/// The wire of tests that have no network.
#[cfg(all(repository, test))]
pub(crate) mod scripted {
    use super::*;

    /// A wire that takes what its script says, and keeps it.
    #[derive(Default)]
    pub(crate) struct ScriptedWire {
        /// What the next writes take, the last one first.
        pub(crate) takes: Vec<usize>,
        /// What each later write takes.
        pub(crate) then_takes: usize,
        pub(crate) is_broken: bool,
        pub(crate) out: Vec<u8>,
    }

    impl Wire for ScriptedWire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            if self.is_broken {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let mut room = self.takes.pop().unwrap_or(self.then_takes);
            let before = self.out.len();
            for slice in slices {
                let taken = room.min(slice.len());
                self.out.extend_from_slice(&slice[..taken]);
                room -= taken;
            }
            Ok(self.out.len() - before)
        }

        fn shutdown_write(&mut self) {}

        fn written(&self) -> u32 {
            0
        }

        fn unsent(&self) -> Option<usize> {
            None
        }

        fn local_addr(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], 80))
        }
    }
}

//! The server's socket of a connection in memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::Disposal;
use crate::core::sockets::Notes;
use crate::structures::wire::Wire;
use crate::transport::stream::{ReadOutcome, Stream};
use crate::words::time::Time;

#[cfg(feature = "tls")]
use super::tls_peer::TlsPeer;
use super::transit::Transit;

/// The server's socket of a link.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    /// What has arrived and the server has not read.
    pub(super) arrived: VecDeque<u8>,
    /// The end has arrived.
    pub(super) ended: bool,
    /// What arrived at the peer and was not taken.
    pub(crate) got: Vec<u8>,
    /// The peer's TLS, which opens what arrives before it is got.
    #[cfg(feature = "tls")]
    pub(super) peer: Option<Box<TlsPeer>>,
    /// What the wall clock shows.
    pub(super) since_1970: Duration,
    /// Bytes written so far, modulo 2^32.
    pub(super) written: u32,
    /// What lies between the server and the peer's program; without it what is written has arrived.
    pub(super) transit: Option<Transit>,
    /// Bytes that the socket still takes; `usize::MAX` for no such limit.
    pub(crate) room: usize,
    /// At most this much is taken at once.
    pub(crate) write_piece: usize,
    /// Takes nothing until then.
    pub(crate) blocked_until: Option<Time>,
    /// The link breaks after so many further bytes to the peer.
    pub(crate) breaks_after_out: Option<usize>,
    /// A write took less than it was given: the system tells when there is room again.
    pub(super) awaits_room: bool,
    /// What the driver notes of it.
    pub(super) notes: Notes,
    /// The server has shut its side.
    pub(crate) shut: bool,
    /// The server is done with it.
    pub(crate) gone: Option<Disposal>,
    pub(super) broken: bool,
    /// The peer's end is a reset, behind what has arrived: Linux gives that out first.
    pub(super) ends_with_reset: bool,
    /// What the core must never do.
    pub(super) violation: Option<&'static str>,
}

impl FakeSocket {
    pub(super) fn new() -> Self {
        Self {
            arrived: VecDeque::new(),
            ended: false,
            got: Vec::new(),
            #[cfg(feature = "tls")]
            peer: None,
            since_1970: Duration::from_secs(1_700_000_000),
            written: 0,
            transit: None,
            room: usize::MAX,
            write_piece: usize::MAX,
            blocked_until: None,
            breaks_after_out: None,
            awaits_room: false,
            notes: Notes::default(),
            shut: false,
            gone: None,
            broken: false,
            ends_with_reset: false,
            violation: None,
        }
    }

    /// Where it goes what arrives at the peer.
    pub(super) fn arrivals(&mut self) -> &mut Vec<u8> {
        #[cfg(feature = "tls")]
        if let Some(peer) = &mut self.peer {
            return &mut peer.arrived;
        }
        &mut self.got
    }

    /// Where it would go if the peer's program read it now: to its TLS, or to `plain`.
    #[cfg(all(repository, any(test, fuzzing)))]
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::needless_pass_by_ref_mut, reason = "TLS keeps it")
    )]
    pub(super) fn arrivals_to<'a>(&'a mut self, plain: &'a mut Vec<u8>) -> &'a mut Vec<u8> {
        #[cfg(feature = "tls")]
        if let Some(peer) = &mut self.peer {
            return &mut peer.arrived;
        }
        plain
    }

    /// Whether the link is broken: by the peer, or by a fault on the way.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What lies between, if the link has buffers.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn transit(&self) -> Option<&Transit> {
        self.transit.as_ref()
    }

    /// Bytes that were written and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.transit.as_ref().map_or(0, Transit::unacknowledged)
    }

    /// So many of them are taken by the peer, whose program has them.
    #[cfg(all(repository, test))]
    pub(crate) fn acknowledge(&mut self, bytes: usize) {
        if let Some(transit) = &mut self.transit {
            let taken = transit.acknowledge(bytes);
            self.arrivals().extend(taken);
        }
    }

    /// So many bytes were written before, as in a long life.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn begin_at(&mut self, position: u32) {
        self.written = position;
    }

    /// Whether a write would take something, or say that the link is broken.
    pub(super) fn is_writable(&self) -> bool {
        let has_room = self.transit.as_ref().is_none_or(Transit::is_writable);
        self.broken || (has_room && self.room > 0 && self.blocked_until.is_none())
    }

    /// Whether the peer has seen the server's end behind all that was sent.
    pub(crate) fn is_end_seen(&self) -> bool {
        self.transit.as_ref().map_or(self.shut, Transit::is_ended)
    }

    /// Nothing that is on its way arrives any more.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
        if let Some(transit) = &mut self.transit {
            transit.reset();
        }
    }
}

impl Wire for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shut {
            self.violation = Some("something is written behind a half-close");
        }
        if self.breaks_after_out == Some(0) {
            self.break_off();
        }
        if self.broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let mut taken = bytes.len().min(self.room).min(self.write_piece);
        if self.blocked_until.is_some() {
            taken = 0;
        }
        taken = taken.min(self.breaks_after_out.unwrap_or(usize::MAX));
        let piece = bytes.get(..taken).unwrap_or_default();
        match &mut self.transit {
            Some(transit) => taken = transit.write(piece),
            None => self.arrivals().extend_from_slice(piece),
        }
        if let Some(left) = &mut self.breaks_after_out {
            *left -= taken;
        }
        if self.room != usize::MAX {
            self.room -= taken;
        }
        self.written = self.written.wrapping_add(u32::try_from(taken).unwrap_or(0));
        if taken < bytes.len() {
            (self.awaits_room, self.notes.blocked) = (true, true);
        }
        Ok(taken)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for slice in slices {
            let taken = match self.write(slice) {
                Ok(taken) => taken,
                Err(_) if written > 0 => break, // the next write says so
                Err(error) => return Err(error),
            };
            written += taken;
            if taken < slice.len() {
                break;
            }
        }
        Ok(written)
    }

    fn shutdown_write(&mut self) {
        self.shut = true;
        if let Some(transit) = &mut self.transit {
            transit.shut();
        }
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 80))
    }

    fn since_1970(&self) -> Option<Duration> {
        Some(self.since_1970)
    }

    fn written(&self) -> u32 {
        self.written
    }

    fn unsent(&self) -> Option<usize> {
        Some(self.unacknowledged())
    }

    fn peer_is_full(&self) -> bool {
        self.transit.as_ref().is_some_and(Transit::is_peer_full)
    }
}

impl Stream for FakeSocket {
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        if self.broken {
            return ReadOutcome::Failed(ErrorKind::ConnectionReset);
        }
        match self.arrived.read(buffer) {
            Ok(0) if self.ended && self.ends_with_reset => {
                ReadOutcome::Failed(ErrorKind::ConnectionReset)
            }
            Ok(0) if self.ended => ReadOutcome::Eof,
            Ok(0) | Err(_) => ReadOutcome::Drained,
            Ok(n) => ReadOutcome::Bytes(n),
        }
    }

    #[cfg(feature = "tls")]
    fn note_blocked(&mut self) {
        self.notes.blocked = true;
    }
}

//! One connection in memory, seen from between its ends: what the system of a real server would hold
//! of it, and what it would tell.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;

use crate::core::Disposal;
use crate::core::driver::{Notes, ReadOutcome, Readiness, Socket};
use crate::structures::wire::Wire;
use crate::testing::far_end::FarEnd;
use crate::words::time::Time;

/// One connection. Its fields are the options of a test, and what arrived.
pub(crate) struct Link {
    /// Its slot in the core; `None` before it is accepted and after it is over.
    pub(super) slot: Option<u32>,
    pub(crate) address: SocketAddr,
    pub(crate) socket: FakeSocket,
    /// What the peer sent and is on its way.
    inbound: VecDeque<u8>,
    /// What has arrived and the server has not read.
    arrived: VecDeque<u8>,
    /// The server reads at most this much at once: it arrives in such pieces.
    pub(crate) read_piece: usize,
    /// The peer's side ends like this, behind what it sent.
    end: Option<PeerEnd>,
    /// The end has arrived.
    ended: bool,
    /// Something has come that the system has not told yet.
    is_news: bool,
    /// The driver has used it since its peer has looked.
    pub(super) touched: bool,
    notes: Notes,
    /// The link breaks after so many further bytes to the server.
    pub(crate) breaks_after_in: Option<usize>,
    /// The peer, if it acts of its own.
    pub(crate) far_end: Option<FarEnd>,
}

/// How a peer ends its side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// A half-close: it sends nothing more.
    Shut,
    /// A reset.
    Reset,
}

/// The server's way out of a link.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    /// What arrived at the peer and was not taken.
    pub(crate) got: Vec<u8>,
    /// Bytes that the socket's buffer still takes; `usize::MAX` for a peer that reads.
    pub(crate) room: usize,
    /// At most this much is taken at once.
    pub(crate) write_piece: usize,
    /// Takes nothing until then.
    pub(crate) blocked_until: Option<Time>,
    /// The link breaks after so many further bytes to the peer.
    pub(crate) breaks_after_out: Option<usize>,
    /// A write took less than it was given: the system tells when there is room again.
    awaits_room: bool,
    /// The driver's own note of it, which it takes.
    blocked: bool,
    /// The server has shut its side.
    pub(crate) shut: bool,
    /// The server is done with it.
    pub(crate) gone: Option<Disposal>,
    broken: bool,
    /// What the core must never do.
    pub(super) violation: Option<&'static str>,
}

impl FakeSocket {
    fn new() -> Self {
        Self {
            got: Vec::new(),
            room: usize::MAX,
            write_piece: usize::MAX,
            blocked_until: None,
            breaks_after_out: None,
            awaits_room: false,
            blocked: false,
            shut: false,
            gone: None,
            broken: false,
            violation: None,
        }
    }

    /// Whether the link is broken.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether a write would take something, or say that the link is broken.
    fn is_writable(&self) -> bool {
        self.broken || (self.room > 0 && self.blocked_until.is_none())
    }
}

impl Wire for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shut {
            self.violation = Some("something is written behind a half-close");
        }
        if self.breaks_after_out == Some(0) {
            self.broken = true;
        }
        if self.broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let mut taken = bytes.len().min(self.room).min(self.write_piece);
        if self.blocked_until.is_some() {
            taken = 0;
        }
        if let Some(left) = &mut self.breaks_after_out {
            taken = taken.min(*left);
            *left -= taken;
        }
        if self.room != usize::MAX {
            self.room -= taken;
        }
        self.got.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if taken < bytes.len() {
            (self.awaits_room, self.blocked) = (true, true);
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
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 80))
    }
}

impl Socket for Link {
    fn wire(&mut self) -> &mut dyn Wire {
        &mut self.socket
    }

    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        if self.socket.broken {
            return ReadOutcome::Failed(ErrorKind::ConnectionReset);
        }
        match self.arrived.read(buffer) {
            Ok(0) if self.ended => ReadOutcome::Eof,
            Ok(0) | Err(_) => ReadOutcome::Drained,
            Ok(n) => ReadOutcome::Bytes(n),
        }
    }

    fn take_blocked(&mut self) -> bool {
        std::mem::take(&mut self.socket.blocked)
    }

    fn note_blocked(&mut self) {
        self.socket.blocked = true;
    }

    fn take_failure(&mut self) -> Option<ErrorKind> {
        self.socket.broken.then_some(ErrorKind::ConnectionReset)
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}

/// What the peer does.
impl Link {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            slot: None,
            address,
            socket: FakeSocket::new(),
            inbound: VecDeque::new(),
            arrived: VecDeque::new(),
            read_piece: usize::MAX,
            end: None,
            ended: false,
            is_news: false,
            touched: false,
            notes: Notes::default(),
            breaks_after_in: None,
            far_end: None,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.end.is_none() {
            self.inbound.extend(bytes);
        }
    }

    pub(super) fn end(&mut self, end: PeerEnd) {
        if end == PeerEnd::Reset {
            self.break_off(); // a reset overtakes what was not read
        }
        self.end.get_or_insert(end);
    }

    fn break_off(&mut self) {
        self.inbound.clear();
        self.arrived.clear();
        self.socket.broken = true;
    }

    /// Lets a peer that acts of its own see what has arrived.
    pub(super) fn react(&mut self) {
        let Some(far_end) = &mut self.far_end else { return };
        let answer = far_end.react(&mut self.socket.got, self.socket.shut);
        self.send(&answer.bytes);
        if answer.hangs_up {
            self.end.get_or_insert(PeerEnd::Shut);
        }
    }

    /// Whether it waits to be accepted.
    pub(crate) fn is_waiting(&self) -> bool {
        self.slot.is_none() && self.socket.gone.is_none()
    }
}

/// What the system does.
impl Link {
    /// What the system tells of it at this moment, if there is news: as epoll does, once, and then all
    /// that it is ready for.
    pub(super) fn take_event(&mut self, now: Time) -> Option<Readiness> {
        self.arrive();
        if self.socket.blocked_until.is_some_and(|until| until <= now) {
            self.socket.blocked_until = None;
        }
        let writable = self.socket.is_writable();
        self.is_news |= writable && std::mem::take(&mut self.socket.awaits_room);
        let ended = self.ended || self.socket.broken;
        let readable = ended || !self.arrived.is_empty();
        std::mem::take(&mut self.is_news).then_some(Readiness { writable, readable, ended })
    }

    /// What is on its way arrives, or a piece of it.
    fn arrive(&mut self) {
        if self.breaks_after_in == Some(0) {
            self.breaks_after_in = None;
            self.break_off();
        }
        let room = self.read_piece.saturating_sub(self.arrived.len());
        let most = room.min(self.breaks_after_in.unwrap_or(usize::MAX));
        let piece = self.inbound.len().min(most);
        if let Some(left) = &mut self.breaks_after_in {
            *left -= piece;
        }
        self.arrived.extend(self.inbound.drain(..piece));
        let ends = self.inbound.is_empty() && self.end.is_some() || self.socket.broken;
        self.is_news |= piece > 0 || (ends && !self.ended);
        self.ended |= ends;
    }
}

#[cfg(test)]
impl Link {
    /// Whether the server has it.
    pub(crate) fn is_open(&self) -> bool {
        self.slot.is_some()
    }
}

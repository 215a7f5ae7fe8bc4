//! One connection in memory, seen from between its ends: what the system of a real server would hold
//! of it, and what it would tell.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;

use crate::core::Disposal;
use crate::core::sockets::{Notes, ReadOutcome, Readiness, Socket};
use crate::structures::wire::Wire;
use crate::testing::far_end::FarEnd;
use crate::words::time::Time;

use super::transit::Transit;
#[cfg(all(repository, any(test, fuzzing)))]
use super::transit::{Buffers, Pace};

/// Names a link; never used again for another.
pub(crate) type LinkId = usize;

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
    /// So much of what the peer sends fits into the server's system; the rest is on its way.
    pub(crate) receive_buffer: usize,
    /// The peer's side ends like this, behind what it sent.
    end: Option<PeerEnd>,
    /// The end has arrived.
    ended: bool,
    /// The system has seen that the link is broken.
    failed: bool,
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
    /// Bytes written so far, modulo 2^32.
    written: u32,
    /// What lies between the server and the peer's program; without it what is written has arrived.
    transit: Option<Transit>,
    /// Bytes that the socket still takes; `usize::MAX` for no such limit.
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
            written: 0,
            transit: None,
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
            self.got.extend(transit.acknowledge(bytes));
        }
    }

    /// Whether a write would take something, or say that the link is broken.
    fn is_writable(&self) -> bool {
        let has_room = self.transit.as_ref().is_none_or(Transit::is_writable);
        self.broken || (has_room && self.room > 0 && self.blocked_until.is_none())
    }

    /// Whether the peer has seen the server's end behind all that was sent.
    pub(crate) fn is_end_seen(&self) -> bool {
        self.transit.as_ref().map_or(self.shut, Transit::is_ended)
    }

    /// Nothing that is on its way arrives any more.
    fn break_off(&mut self) {
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
            None => self.got.extend_from_slice(piece),
        }
        if let Some(left) = &mut self.breaks_after_out {
            *left -= taken;
        }
        if self.room != usize::MAX {
            self.room -= taken;
        }
        self.written = self.written.wrapping_add(u32::try_from(taken).unwrap_or(0));
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
        if let Some(transit) = &mut self.transit {
            transit.shut();
        }
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 80))
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
            receive_buffer: usize::MAX,
            end: None,
            ended: false,
            failed: false,
            is_news: false,
            touched: false,
            notes: Notes::default(),
            breaks_after_in: None,
            far_end: None,
        }
    }

    /// What is sent from now on goes through buffers, and the peer's program reads at its pace.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn set_buffers(&mut self, buffers: Buffers) {
        self.socket.transit = Some(Transit::new(buffers));
    }

    /// How the peer's program reads from now on; only for a link with buffers.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        if let Some(transit) = &mut self.socket.transit {
            transit.set_pace(pace);
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.end.is_none() {
            self.inbound.extend(bytes);
        }
    }

    /// How much of what was sent the server has not read.
    pub(crate) fn unread(&self) -> usize {
        self.inbound.len().saturating_add(self.arrived.len())
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
        self.socket.break_off();
    }

    /// Lets a peer that acts of its own see what has arrived.
    pub(super) fn react(&mut self) {
        let Some(far_end) = &mut self.far_end else { return };
        let ended = self.socket.is_end_seen();
        let answer = far_end.react(&mut self.socket.got, ended);
        self.send(&answer.bytes);
        if answer.hangs_up {
            self.end.get_or_insert(PeerEnd::Shut);
        }
    }

    /// Whether nothing more arrives of what the server sent, and it is done with it.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn is_settled(&self) -> bool {
        let is_over = |transit: &Transit| transit.is_over() || transit.is_stopped();
        self.socket.gone.is_some() && self.socket.transit.as_ref().is_none_or(is_over)
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
        self.exchange(now);
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

    /// What the server has sent goes on its way; whether its peer may have something to react to.
    fn exchange(&mut self, now: Time) {
        let FakeSocket { transit, got, .. } = &mut self.socket;
        let Some(transit) = transit else { return };
        let before = got.len();
        transit.exchange(now, got);
        if got.len() > before || transit.is_over() {
            self.react();
        }
    }

    /// The server has closed it. The system goes on to deliver, unless the server wanted a reset or has
    /// not read what came: then (RFC 9293 section 3.6.1, RFC 2525 section 2.17) a reset goes out.
    pub(super) fn dispose(&mut self, disposal: Disposal) {
        self.slot = None;
        self.socket.gone = Some(disposal);
        let Some(transit) = &mut self.socket.transit else { return };
        if disposal == Disposal::Reset || !self.arrived.is_empty() {
            transit.reset();
        } else {
            transit.shut();
        }
    }

    /// What becomes of it once the server has closed it: whatever still comes is answered by a reset.
    /// False if nothing more can happen.
    pub(super) fn linger(&mut self, now: Time) -> bool {
        self.exchange(now);
        let Some(transit) = &mut self.socket.transit else { return false };
        if !self.inbound.is_empty() {
            transit.reset();
        }
        !transit.is_over()
    }

    /// When something moves next by itself.
    pub(super) fn next_move(&self) -> Option<Time> {
        let unblocked = self.socket.blocked_until.filter(|_| self.slot.is_some());
        let reads = self.socket.transit.as_ref().and_then(Transit::next_move);
        [unblocked, reads].into_iter().flatten().min()
    }

    /// What is on its way arrives, or a piece of it.
    fn arrive(&mut self) {
        if self.breaks_after_in == Some(0) {
            self.breaks_after_in = None;
            self.break_off();
        }
        let buffer = self.read_piece.min(self.receive_buffer);
        let room = buffer.saturating_sub(self.arrived.len());
        let most = room.min(self.breaks_after_in.unwrap_or(usize::MAX));
        let piece = self.inbound.len().min(most);
        if let Some(left) = &mut self.breaks_after_in {
            *left -= piece;
        }
        self.arrived.extend(self.inbound.drain(..piece));
        let ends = self.inbound.is_empty() && self.end.is_some() || self.socket.broken;
        // A failure is news even behind an end (`EPOLLERR`).
        let fails = self.socket.broken && !std::mem::replace(&mut self.failed, self.socket.broken);
        self.is_news |= piece > 0 || (ends && !self.ended) || fails;
        self.ended |= ends;
    }
}

#[cfg(all(repository, any(test, fuzzing)))]
impl Link {
    /// Whether the server has it.
    pub(crate) fn is_open(&self) -> bool {
        self.slot.is_some()
    }
}

#[cfg(all(repository, test))]
mod tests;

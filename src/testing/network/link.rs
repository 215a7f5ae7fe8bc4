//! One connection in memory, seen from between its ends: what the system of a real server would hold
//! of it, and what it would tell.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::rc::Rc;

#[cfg(all(feature = "client", feature = "tls"))]
use super::tls_peer::FarTls;
#[cfg(feature = "tls")]
use super::tls_peer::{BothEnds, TlsPeer};
use crate::core::Disposal;
use crate::core::sockets::{Notes, PlainSocket, Readiness, Socket};
use crate::structures::wire::Wire;
use crate::testing::far_end::FarEnd;
use crate::transport::channel::Channel;
use crate::transport::stream::{ReadOutcome, Stream};
#[cfg(all(feature = "client", feature = "tls"))]
use crate::transport::tls::connector::TlsStart;
#[cfg(feature = "tls")]
use crate::transport::{
    secured::{Changes, Secured, SecuredRead},
    tls::acceptor::Acceptor,
};
use crate::words::time::Time;

use super::fake_socket::FakeSocket;
use super::transit::Transit;
#[cfg(any(feature = "client", all(repository, any(test, fuzzing))))]
use super::transit::{Buffers, Pace};

/// Names a link; never used again for another.
pub(crate) type LinkId = usize;

/// Names an application in memory; never used again for another.
pub(crate) type HostId = usize;

/// One connection. Its fields are the options of a test, and what arrived.
pub(crate) struct Link {
    /// Its slot in the core; `None` before it is accepted and after it is over.
    pub(super) slot: Option<u32>,
    pub(crate) address: SocketAddr,
    pub(crate) socket: Channel<FakeSocket>,
    /// The TLS of the listener that it came to.
    #[cfg(feature = "tls")]
    acceptor: Option<Rc<Acceptor>>,
    /// What the peer sent and is on its way.
    inbound: VecDeque<u8>,
    /// The server reads at most this much at once: it arrives in such pieces.
    pub(crate) read_piece: usize,
    /// So much of what the peer sends fits into the server's system; the rest is on its way.
    pub(crate) receive_buffer: usize,
    /// The peer's side ends like this, behind what it sent.
    end: Option<PeerEnd>,
    /// The system has seen that the link is broken.
    failed: bool,
    /// Something has come that the system has not told yet.
    is_news: bool,
    /// The driver has used it since its peer has looked.
    pub(super) touched: bool,
    /// The link breaks after so many further bytes to the server.
    pub(crate) breaks_after_in: Option<usize>,
    /// The peer, if it acts of its own.
    pub(crate) far_end: Option<FarEnd>,
}

/// A ping of the server: two bytes of header, and the time it was sent.
#[cfg(all(repository, any(test, fuzzing)))]
const PING_BYTES: usize = 10;

/// Whether this is such a ping, sent before now.
#[cfg(all(repository, any(test, fuzzing)))]
fn is_ping(frame: &[u8], now: Time) -> bool {
    let Some((&[0x89, 8], payload)) = frame.split_first_chunk() else { return false };
    payload.try_into().is_ok_and(|micros| u64::from_be_bytes(micros) <= now.as_micros())
}

/// How a peer ends its side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// A half-close: it sends nothing more.
    Shut,
    /// The same where TLS says nothing of it.
    #[cfg(feature = "tls")]
    Cut,
    /// A reset.
    Reset,
}

impl Socket for Link {
    type Plain = Self;

    fn wire(&mut self) -> &mut dyn Wire {
        self.socket.wire()
    }

    #[cfg(feature = "tls")]
    fn read_secured(&mut self, buffer: &mut [u8], room: usize, late: bool) -> SecuredRead {
        let secured = self.socket.secured();
        secured.map_or(SecuredRead::Drained, |secured| secured.read(buffer, room, late))
    }

    #[cfg(feature = "tls")]
    fn flush_backlog(&mut self) -> io::Result<bool> {
        self.socket.secured().map_or(Ok(true), Secured::flush)
    }

    #[cfg(feature = "tls")]
    fn take_changes(&mut self) -> Option<Changes> {
        self.socket.secured().and_then(Secured::take_changes)
    }

    fn take_failure(&mut self) -> Option<ErrorKind> {
        let ended = self.socket.ended && self.socket.ends_with_reset;
        (self.socket.broken || ended).then_some(ErrorKind::ConnectionReset)
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.socket.notes
    }
}

impl PlainSocket for Link {
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        self.socket.read(buffer)
    }
}

/// What the peer does.
impl Link {
    #[cfg(feature = "tls")]
    pub(super) fn over_tls(address: SocketAddr, ends: &BothEnds) -> Self {
        let mut link = Self::new(address);
        link.acceptor = Some(Rc::clone(&ends.acceptor));
        link.socket.peer = Some(Box::new(TlsPeer::new(ends)));
        link.send(b""); // its ClientHello
        link
    }

    /// The peer speaks TLS from here on, as a server.
    #[cfg(all(feature = "client", feature = "tls"))]
    pub(crate) fn speak_tls(&mut self, tls: &FarTls) {
        let mut peer = TlsPeer::server(tls);
        peer.arrived = std::mem::take(&mut self.socket.got);
        self.socket.peer = Some(Box::new(peer));
    }

    /// The next record that the peer sends is broken.
    #[cfg(feature = "tls")]
    pub(crate) fn break_next_record(&mut self) {
        if let Some(peer) = &mut self.socket.peer {
            peer.breaks_next = true;
        }
    }

    /// Of what is on its way to the server only so much is.
    #[cfg(feature = "tls")]
    pub(crate) fn keep_first(&mut self, bytes: usize) {
        self.inbound.truncate(bytes);
    }

    /// What is wrong with what came from the server, or what its alert says.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_fault(&self) -> Option<&str> {
        self.socket.peer.as_deref()?.fault.as_deref()
    }

    /// Whether the server's close_notify has come.
    #[cfg(feature = "tls")]
    pub(crate) fn is_tls_closed(&self) -> bool {
        self.socket.peer.as_deref().is_some_and(|peer| peer.closed)
    }

    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            slot: None,
            address,
            socket: Channel::Plain(FakeSocket::new()),
            #[cfg(feature = "tls")]
            acceptor: None,
            inbound: VecDeque::new(),
            read_piece: usize::MAX,
            receive_buffer: usize::MAX,
            end: None,
            failed: false,
            is_news: false,
            touched: false,
            breaks_after_in: None,
            far_end: None,
        }
    }

    /// One end of a connection between two applications, whose TLS is their own.
    #[cfg(feature = "client")]
    pub(super) fn between(
        address: SocketAddr,
        #[cfg(feature = "tls")] ends: Option<&BothEnds>,
    ) -> Self {
        let mut link = Self::new(address);
        #[cfg(feature = "tls")]
        if let Some(ends) = ends {
            link.acceptor = Some(Rc::clone(&ends.acceptor));
        }
        link.set_buffers(Buffers::USUAL);
        link
    }

    /// What is sent from now on goes through buffers, and the peer's program reads at its pace.
    #[cfg(any(feature = "client", all(repository, any(test, fuzzing))))]
    pub(crate) fn set_buffers(&mut self, buffers: Buffers) {
        self.socket.transit = Some(Transit::new(buffers));
    }

    /// How the peer's program reads from now on; only for a link with buffers.
    #[cfg(any(feature = "client", all(repository, any(test, fuzzing))))]
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        if let Some(transit) = &mut self.socket.transit {
            transit.set_pace(pace);
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        #[cfg(feature = "tls")]
        if let Some(peer) = &mut self.socket.peer {
            let records = peer.seal(bytes);
            return self.send_raw(&records);
        }
        self.send_raw(bytes);
    }

    /// Sends bytes as they are, whatever they mean.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        if self.end.is_none() {
            self.inbound.extend(bytes);
        }
    }

    /// How much of what was sent the server has not read.
    pub(crate) fn unread(&self) -> usize {
        self.inbound.len().saturating_add(self.socket.arrived.len())
    }

    pub(super) fn end(&mut self, end: PeerEnd) {
        match end {
            PeerEnd::Reset => self.break_off(), // it overtakes what was not read
            #[cfg(feature = "tls")]
            PeerEnd::Shut => self.say_end(),
            #[cfg(not(feature = "tls"))]
            PeerEnd::Shut => {}
            #[cfg(feature = "tls")]
            PeerEnd::Cut => {}
        }
        self.end.get_or_insert(end);
    }

    /// The peer ends the connection with a reset that comes behind what it sent.
    #[cfg(all(repository, test, feature = "client"))]
    pub(crate) fn end_with_reset(&mut self) {
        self.socket.ends_with_reset = true;
        self.end = Some(PeerEnd::Shut);
    }

    fn break_off(&mut self) {
        self.inbound.clear();
        self.socket.arrived.clear();
        self.socket.break_off();
    }

    /// Lets a peer that acts of its own see what has arrived.
    pub(super) fn react(&mut self) {
        #[cfg(feature = "tls")]
        self.open_arrivals();
        let Some(far_end) = &mut self.far_end else { return };
        let ended = self.socket.is_end_seen();
        let answer = far_end.react(&mut self.socket.got, ended);
        self.send(&answer.bytes);
        if answer.hangs_up {
            self.end(PeerEnd::Shut);
        }
    }

    /// What no correct end does, if the application's has done it.
    pub(super) fn violation(&self) -> Option<&'static str> {
        self.socket.violation.or_else(|| self.far_end.as_ref()?.violation)
    }

    /// Has the peer's TLS open what arrived, and answer it.
    #[cfg(feature = "tls")]
    fn open_arrivals(&mut self) {
        if let Some(mut peer) = self.socket.peer.take() {
            let answer = peer.open(&mut self.socket.got);
            self.socket.peer = Some(peer);
            self.send_raw(&answer);
        }
    }

    /// The peer's TLS says that nothing more comes.
    #[cfg(feature = "tls")]
    fn say_end(&mut self) {
        if let Some(peer) = &mut self.socket.peer {
            let records = peer.seal_end();
            self.send_raw(&records);
        }
    }

    /// How the application's side has ended, once all that was sent before has been taken by the peer's
    /// system; a reset waits for nothing.
    #[cfg(feature = "client")]
    pub(super) fn sent_end(&self) -> Option<PeerEnd> {
        let is_reset = self.socket.transit.as_ref().is_some_and(Transit::is_reset);
        if self.socket.broken || is_reset {
            return Some(PeerEnd::Reset);
        }
        self.socket.is_end_seen().then_some(PeerEnd::Shut)
    }

    /// Gives the peer room for so many bytes; true if it takes something because of that.
    #[cfg(feature = "client")]
    pub(super) fn set_room(&mut self, bytes: usize) -> bool {
        self.socket.transit.as_mut().is_some_and(|transit| transit.set_room(bytes))
    }

    /// Whether nothing more arrives of what the server sent, and it is done with it.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn is_settled(&self) -> bool {
        let is_over = |transit: &Transit| transit.is_over() || transit.is_stopped();
        self.socket.gone.is_some() && self.socket.transit.as_ref().is_none_or(is_over)
    }

    /// When the peer's system took the last ping that a reset has thrown away, if its program had not
    /// read one.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn unread_ping_taken_at(&mut self, now: Time) -> Option<Time> {
        let unread = self.socket.transit.as_ref()?.unread().to_vec();
        let (mut plain, mut taken_at) = (Vec::new(), None);
        // By single bytes, since only the last byte of a record says what is in it.
        for (at, byte) in unread.iter().enumerate() {
            let before = plain.len();
            self.socket.arrivals_to(&mut plain).push(*byte);
            #[cfg(feature = "tls")]
            if let Some(peer) = &mut self.socket.peer {
                peer.open(&mut plain);
            }
            let fresh = plain.get(before.saturating_sub(PING_BYTES - 1)..).unwrap_or_default();
            if fresh.windows(PING_BYTES).any(|frame| is_ping(frame, now)) {
                let transit = self.socket.transit.as_ref()?;
                taken_at = transit.acknowledged_at(unread.len() - at - 1);
            }
        }
        taken_at
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
        let ended = self.socket.ended || self.socket.broken;
        let readable = ended || !self.socket.arrived.is_empty();
        std::mem::take(&mut self.is_news).then_some(Readiness { writable, readable, ended })
    }

    /// What the server has sent goes on its way, and its peer may have something to react to.
    fn exchange(&mut self, now: Time) {
        let Some(mut transit) = self.socket.transit.take() else { return };
        let arrivals = self.socket.arrivals();
        let before = arrivals.len();
        transit.exchange(now, arrivals);
        let reacts = arrivals.len() > before || transit.is_over();
        self.socket.transit = Some(transit);
        if reacts {
            self.react();
        }
    }

    /// The server has taken it, with a PROXY header before everything else or without.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "only TLS comes behind it"))]
    pub(super) fn adopt(&mut self, slot: u32, proxy_header: bool) -> io::Result<()> {
        self.slot = Some(slot);
        #[cfg(feature = "tls")]
        if let Channel::Plain(socket) = &mut self.socket {
            let socket = std::mem::replace(socket, FakeSocket::new());
            let (channel, secured) = Channel::new(socket, self.acceptor.clone(), proxy_header);
            self.socket = channel;
            return secured;
        }
        Ok(())
    }

    /// It speaks TLS from here on, as a client.
    #[cfg(all(feature = "client", feature = "tls"))]
    pub(super) fn secure(&mut self, start: &TlsStart) -> io::Result<()> {
        let channel = std::mem::replace(&mut self.socket, Channel::Plain(FakeSocket::new()));
        let (channel, begun) = channel.secure(start);
        self.socket = channel;
        begun
    }

    /// The server has closed it. The system goes on to deliver, unless the server wanted a reset or has
    /// not read what came: then (RFC 9293 section 3.6.1, RFC 2525 section 2.17) a reset goes out.
    pub(super) fn dispose(&mut self, disposal: Disposal) {
        self.slot = None;
        let fresh = Channel::Plain(FakeSocket::new());
        let in_order = disposal == Disposal::Close;
        let socket = std::mem::replace(&mut self.socket, fresh).into_stream(in_order);
        self.socket = Channel::Plain(socket);
        self.socket.gone = Some(disposal);
        let arrived = !self.socket.arrived.is_empty();
        let Some(transit) = &mut self.socket.transit else { return };
        if disposal == Disposal::Reset || arrived {
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
        Time::earlier(unblocked, reads)
    }

    /// What is on its way arrives, or a piece of it.
    fn arrive(&mut self) {
        if self.breaks_after_in == Some(0) {
            self.breaks_after_in = None;
            self.break_off();
        }
        let buffer = self.read_piece.min(self.receive_buffer);
        let room = buffer.saturating_sub(self.socket.arrived.len());
        let most = room.min(self.breaks_after_in.unwrap_or(usize::MAX));
        let piece = self.inbound.len().min(most);
        if let Some(left) = &mut self.breaks_after_in {
            *left -= piece;
        }
        self.socket.arrived.extend(self.inbound.drain(..piece));
        let ends = self.inbound.is_empty() && self.end.is_some() || self.socket.broken;
        // A failure is news even behind an end (`EPOLLERR`).
        let fails = self.socket.broken && !std::mem::replace(&mut self.failed, self.socket.broken);
        self.is_news |= piece > 0 || (ends && !self.socket.ended) || fails;
        self.socket.ended |= ends;
    }
}

#[cfg(all(repository, any(test, fuzzing)))]
impl Link {
    /// Whether the server has it.
    pub(crate) fn is_open(&self) -> bool {
        self.slot.is_some()
    }

    /// Whether what is sent arrives at once. Over TLS the first piece of a record says nothing.
    pub(crate) fn arrives_whole(&self) -> bool {
        self.read_piece == usize::MAX
    }

    /// What the driver notes of it.
    pub(super) fn driver_notes(&self) -> &Notes {
        &self.socket.notes
    }
}

#[cfg(all(repository, test))]
mod tests;

//! Owns a network in memory: links whose far ends are scripts, a clock that is told, and the core
//! between them, driven as the shell drives it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::{Core, Disposal, Reading};
use crate::domain::application::Built;
use crate::domain::server_ref::ServerRef;
use crate::structures::wire::Wire;
use crate::words::close::CloseCode;
use crate::words::time::Time;

use super::far_end::FarEnd;

/// Names a link; never used again for another.
pub(crate) type LinkId = usize;

/// Turns of the loop at one moment of the clock: a reaction to what was due may be due at once, but
/// not for ever.
const ROUNDS_MAX: usize = 100;

/// The core, its clock, and everybody who is connected to it.
pub(crate) struct Network {
    pub(crate) core: Core,
    pub(crate) now: Time,
    links: Vec<Link>,
    /// Who has a place in the slab.
    places: BTreeMap<u32, LinkId>,
    /// Connected and not accepted yet.
    backlog: VecDeque<LinkId>,
    read_buffer_bytes: usize,
    /// Which panics of the application are part of the test, by what they say.
    pub(crate) tolerates: fn(&str) -> bool,
    /// A stop has begun and is complete.
    pub(crate) stopped: bool,
}

/// One connection, seen from between its ends.
pub(crate) struct Link {
    /// Its place in the slab; `None` before it is accepted and after it is over.
    place: Option<u32>,
    pub(crate) address: SocketAddr,
    pub(crate) socket: FakeSocket,
    /// What the peer sent and the server has not read.
    inbound: VecDeque<u8>,
    /// The server reads at most this much at once.
    pub(crate) read_piece: usize,
    /// The peer's side ends like this, behind what it sent.
    end: Option<PeerEnd>,
    end_told: bool,
    /// Whether the core wants it to be read at present.
    reading: Reading,
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

/// The server's end of a link.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    /// What arrived at the peer and was not taken.
    pub(crate) got: Vec<u8>,
    /// Bytes that the socket's buffer still takes; `usize::MAX` for a peer that reads.
    pub(crate) room: usize,
    /// At most this much is taken at once.
    pub(crate) write_piece: usize,
    /// The system's send buffer, if what it holds is not the peer's at once.
    pub(crate) send_buffer: Option<usize>,
    /// What is in it.
    pub(crate) sending: VecDeque<u8>,
    written: u32,
    /// Nobody acknowledges what was sent: the peer is cut off, and not just slow.
    pub(crate) cut_off: bool,
    /// Takes nothing until then.
    pub(crate) blocked_until: Option<Time>,
    /// The link breaks after so many further bytes to the peer.
    pub(crate) breaks_after_out: Option<usize>,
    /// The last write took less than it was given.
    wants_write: bool,
    /// The server has shut its side.
    pub(crate) shut: bool,
    /// The server is done with it.
    pub(crate) gone: Option<Disposal>,
    broken: bool,
    /// What the core must never do.
    violation: Option<&'static str>,
}

impl FakeSocket {
    fn new() -> Self {
        Self {
            got: Vec::new(),
            room: usize::MAX,
            write_piece: usize::MAX,
            send_buffer: None,
            sending: VecDeque::new(),
            written: 0,
            cut_off: false,
            blocked_until: None,
            breaks_after_out: None,
            wants_write: false,
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

    /// Whether a WRITABLE event is due.
    fn is_writable(&self) -> bool {
        // As the system: not before a third of its buffer is free again.
        let room = self.send_buffer.is_none_or(|size| self.sending.len() <= size / 3 * 2);
        self.wants_write && (self.broken || (self.room > 0 && self.blocked_until.is_none() && room))
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
        let buffer = self.send_buffer.map(|size| size.saturating_sub(self.sending.len()));
        let room = self.room.min(buffer.unwrap_or(usize::MAX));
        let mut taken = bytes.len().min(room).min(self.write_piece);
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
        let bytes_taken = bytes.get(..taken).unwrap_or_default();
        match self.send_buffer {
            Some(_) => self.sending.extend(bytes_taken),
            None => self.got.extend_from_slice(bytes_taken),
        }
        self.written = self.written.wrapping_add(u32::try_from(taken).unwrap_or(0));
        if taken < bytes.len() {
            self.wants_write = true;
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

    fn written(&self) -> u32 {
        self.written
    }

    fn unsent(&self) -> Option<usize> {
        Some(self.sending.len())
    }

    fn peer_is_full(&self) -> bool {
        !self.sending.is_empty() && !self.cut_off
    }
}

/// What peers do.
impl Network {
    pub(crate) fn new(built: Built) -> Self {
        Self {
            read_buffer_bytes: built.limits.read_buffer_bytes,
            core: Core::new(built),
            now: Time::ZERO,
            links: Vec::new(),
            places: BTreeMap::new(),
            backlog: VecDeque::new(),
            tolerates: |_| false,
            stopped: false,
        }
    }

    /// A peer connects. While the server is full it waits in the backlog.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> LinkId {
        let id = self.links.len();
        self.links.push(Link {
            place: None,
            address,
            socket: FakeSocket::new(),
            inbound: VecDeque::new(),
            read_piece: usize::MAX,
            end: None,
            end_told: false,
            reading: Reading::Continue,
            breaks_after_in: None,
            far_end: None,
        });
        self.backlog.push_back(id);
        self.accept();
        id
    }

    pub(crate) fn link(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id]
    }

    /// How many links there ever were.
    pub(crate) fn link_count(&self) -> usize {
        self.links.len()
    }

    /// The peer sends bytes.
    pub(crate) fn send(&mut self, id: LinkId, bytes: &[u8]) {
        let link = &mut self.links[id];
        if link.end.is_none() {
            link.inbound.extend(bytes);
        }
        self.pump();
    }

    /// The peer ends its side.
    pub(crate) fn end(&mut self, id: LinkId, end: PeerEnd) {
        let link = &mut self.links[id];
        if end == PeerEnd::Reset {
            link.inbound.clear(); // a reset overtakes what was not read
            link.socket.broken = true;
        }
        link.end.get_or_insert(end);
        self.pump();
    }

    /// The peer's system takes bytes out of the send buffer.
    #[cfg(all(repository, test))]
    pub(crate) fn acknowledge(&mut self, id: LinkId, bytes: usize) {
        let socket = &mut self.links[id].socket;
        let taken = socket.sending.drain(..bytes.min(socket.sending.len()));
        socket.got.extend(taken);
        self.pump();
    }

    /// The clock moves, from deadline to deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        loop {
            self.run_due();
            let next = self.next_event().filter(|&next| next <= end && !self.stopped);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
        }
        self.now = end;
    }

    /// The clock jumps without stopping at what becomes due on the way, as after a suspended machine.
    pub(crate) fn jump(&mut self, by: Duration) {
        self.now = self.now.after(by);
        self.run_due();
    }

    /// When something happens next of its own.
    pub(crate) fn next_event(&self) -> Option<Time> {
        let live = self.places.values().map(|&id| &self.links[id]);
        let blocked = live.filter_map(|link| link.socket.blocked_until).min();
        [self.core.poll_timeout(), blocked].into_iter().flatten().min()
    }

    /// Code of the application runs on the loop.
    pub(crate) fn run<R>(&mut self, action: impl FnOnce(&mut ServerRef<'_>) -> R) -> Option<R> {
        let result = self.core.with_server(self.now, "action", action);
        self.pump();
        result
    }

    /// The server begins to stop.
    pub(crate) fn shut_down(&mut self, code: CloseCode, grace: Duration) {
        self.core.begin_drain(self.now, code, grace);
        self.for_each_place(|core, now, place, socket| core.handle_drain(now, place, socket));
        self.pump();
    }
}

/// What the shell does.
impl Network {
    /// Lets everything happen that can happen at this moment.
    pub(crate) fn pump(&mut self) {
        loop {
            let mut moved = self.accept();
            let mut from = 0;
            while let Some((&place, &id)) = self.places.range(from..).next() {
                while self.step(id) {
                    moved = true;
                }
                from = place + 1;
            }
            if !self.flush() && !moved {
                break;
            }
        }
        self.stopped |= self.core.is_drained();
    }

    /// What the loop does after the events of a turn. False if nothing was left to do.
    fn flush(&mut self) -> bool {
        if !self.core.has_work() {
            return false;
        }
        let now = self.now;
        self.core.begin_flush();
        while let Some(place) = self.core.poll_flush() {
            let Some(&id) = self.places.get(&place) else { continue };
            self.core.handle_flush(now, place, &mut self.links[id].socket);
            self.after_call(id);
        }
        self.core.end_flush();
        while let Some(place) = self.core.poll_resume() {
            let Some(&id) = self.places.get(&place) else { continue };
            let link = &mut self.links[id];
            if let Some(reading) = self.core.handle_resume(now, place, &mut link.socket) {
                link.note(reading);
            }
            self.after_call(id);
        }
        assert!(self.core.poll_watch().is_none(), "descriptors are not watched in memory");
        if let Some(request) = self.core.poll_stop() {
            self.core.begin_drain(now, request.code, request.grace);
            self.for_each_place(|core, now, place, socket| core.handle_drain(now, place, socket));
        }
        true
    }

    fn accept(&mut self) -> bool {
        let mut moved = false;
        while self.core.has_room() {
            let Some(id) = self.backlog.pop_front() else { break };
            let address = self.links[id].address;
            moved = true;
            let Ok(place) = self.core.handle_accept(self.now, address) else {
                self.links[id].socket.gone = Some(Disposal::Close);
                continue;
            };
            self.links[id].place = Some(place);
            assert!(self.places.insert(place, id).is_none(), "place {place} is given twice");
            self.after_call(id);
        }
        moved
    }

    /// One event of one link: writable, bytes, the end. False if it has none.
    fn step(&mut self, id: LinkId) -> bool {
        let (link, now) = (&mut self.links[id], self.now);
        let Some(place) = link.place else { return false };
        let may_break = link.breaks_after_in.unwrap_or(usize::MAX);
        let room = match link.reading {
            Reading::Continue => self.read_buffer_bytes,
            Reading::Sparing => self.read_buffer_bytes / 2,
            Reading::Paused | Reading::Again => 0,
        };
        let piece = link.inbound.len().min(link.read_piece).min(room).min(may_break);
        if link.socket.is_writable() {
            link.socket.wants_write = false;
            let reading = self.core.handle_writable(now, place, &mut link.socket);
            link.note(reading);
        } else if link.breaks_after_in == Some(0) {
            link.breaks_after_in = None;
            link.inbound.clear();
            link.socket.broken = true;
        } else if piece > 0 {
            if let Some(left) = &mut link.breaks_after_in {
                *left -= piece;
            }
            let mut rx = vec![0; piece];
            assert!(link.inbound.read_exact(&mut rx).is_ok(), "a piece is at most what is there");
            let reading = self.core.handle_input(now, place, &mut rx, &mut link.socket);
            link.note(reading);
        } else if let Some(end) = link.end_to_tell() {
            link.end_told = true;
            match end {
                PeerEnd::Shut => self.core.handle_eof(now, place, &mut link.socket),
                PeerEnd::Reset => {
                    let kind = ErrorKind::ConnectionReset;
                    self.core.handle_error(now, place, kind, &mut link.socket);
                }
            }
        } else {
            return false;
        }
        self.after_call(id);
        true
    }

    /// What is due at this moment, and what becomes due by it.
    fn run_due(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.run_due_once();
            if self.stopped || self.next_event().is_none_or(|next| next > self.now) {
                return;
            }
        }
        panic!("the loop would spin: something is due whatever is done");
    }

    fn run_due_once(&mut self) {
        let now = self.now;
        for &id in self.places.values() {
            let link = &mut self.links[id];
            if link.socket.blocked_until.is_some_and(|until| until <= now) {
                link.socket.blocked_until = None;
            }
        }
        self.pump();
        while let Some(place) = self.core.poll_due(now) {
            let Some(&id) = self.places.get(&place) else {
                panic!("a deadline of place {place}, which nobody has");
            };
            self.core.handle_timeout(now, place, &mut self.links[id].socket);
            self.after_call(id);
        }
        if self.core.is_grace_over(now) {
            self.for_each_place(|core, now, place, socket| core.handle_cut(now, place, socket));
        }
        self.pump();
    }

    fn for_each_place(&mut self, act: impl Fn(&mut Core, Time, u32, &mut FakeSocket)) {
        let mut from = 0;
        while let Some(place) = self.core.next_connection(from) {
            let Some(&id) = self.places.get(&place) else { panic!("nobody has place {place}") };
            act(&mut self.core, self.now, place, &mut self.links[id].socket);
            self.after_call(id);
            from = place + 1;
        }
    }

    /// Drops what is over, and lets the peer react.
    fn after_call(&mut self, id: LinkId) {
        let mut offenders = Vec::new();
        while let Some(place) = self.core.poll_offender() {
            let Some(&id) = self.places.get(&place) else { panic!("nobody has place {place}") };
            self.core.handle_offender(place, &mut self.links[id].socket);
            offenders.push(id);
        }
        while let Some((place, disposal)) = self.core.poll_closed() {
            let Some(id) = self.places.remove(&place) else { panic!("nobody had place {place}") };
            self.links[id].place = None;
            self.links[id].socket.gone = Some(disposal);
        }
        if let Some(panic) = self.core.take_panic().filter(|panic| !(self.tolerates)(panic)) {
            panic!("the application panicked: {panic} (TestApplication::tolerate_panics lets it)");
        }
        if let Some(violation) = self.links[id].socket.violation {
            panic!("link {id}: {violation}");
        }
        self.react(id);
        offenders.into_iter().for_each(|id| self.react(id));
    }

    /// Lets a peer that acts of its own see what has arrived.
    pub(crate) fn react(&mut self, id: LinkId) {
        let link = &mut self.links[id];
        if let Some(far_end) = &mut link.far_end {
            let answer = far_end.react(&mut link.socket.got, link.socket.shut);
            if link.end.is_none() {
                link.inbound.extend(answer.bytes);
                if answer.hangs_up {
                    link.end = Some(PeerEnd::Shut);
                }
            }
        }
    }
}

impl Link {
    /// What the core wants of the socket now.
    fn note(&mut self, reading: Reading) {
        self.reading = reading;
        self.socket.wants_write |= reading == Reading::Again;
    }

    /// Whether it waits to be accepted.
    pub(crate) fn is_waiting(&self) -> bool {
        self.place.is_none() && self.socket.gone.is_none()
    }

    /// What a read would give behind the last byte, if it was not given yet.
    fn end_to_tell(&self) -> Option<PeerEnd> {
        let broken = self.socket.broken.then_some(PeerEnd::Reset);
        let end = broken.or(self.end)?;
        let next = !self.end_told && self.reading.reads() && self.inbound.is_empty();
        next.then_some(end)
    }
}

/// For the simulation.
#[cfg(all(repository, any(test, fuzzing)))]
impl Network {
    /// How many connections the server has.
    pub(crate) fn live(&self) -> usize {
        self.places.len()
    }

    /// Ends every connection at once.
    pub(crate) fn cut_all(&mut self) {
        self.for_each_place(|core, now, place, socket| core.handle_cut(now, place, socket));
    }

    /// The books of the core agree, and each of its connections has a link.
    pub(crate) fn audit(&self) -> Result<(), String> {
        self.core.audit()?;
        let mut from = 0;
        let mut count = 0;
        while let Some(place) = self.core.next_connection(from) {
            if !self.places.contains_key(&place) {
                return Err(format!("nobody has place {place}"));
            }
            (from, count) = (place + 1, count + 1);
        }
        if count == self.places.len() { Ok(()) } else { Err("a link without a place".into()) }
    }
}

#[cfg(test)]
impl Link {
    /// Whether the server has it.
    pub(crate) fn is_open(&self) -> bool {
        self.place.is_some()
    }
}

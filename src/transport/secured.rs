//! A socket with TLS: records in, plain bytes out, and back.
//!
//! ```text
//!   socket --> held (a record that is not whole) --> Engine --> plain bytes
//!   socket <-- backlog (records it did not take)  <-- Engine <-- plain bytes
//! ```
//!
//! What was written is accepted for good: it goes out before anything behind it, and
//! [`Wire::backlog`] says how much of it only this process has.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::proxy_protocol::{ProxyStart, parse_proxy_header};
use crate::structures::wire::Wire;
use crate::words::tls::TlsPeer;

use super::channel::{Changes, Handshake, Input, ReadOutcome, Received, Stream};
use super::tls::acceptor::Acceptor;
use super::tls::engine::{Ending, Engine, HEADER_BYTES, RECORD_MAX, Scratch};

/// The most bytes held of a peer: a record, and a handshake message that is not whole before it.
pub(crate) const HELD_MAX: usize = 2 * RECORD_MAX;

/// Plain bytes sealed at once: what the socket does not take of them waits in the backlog.
const SEALED_AT_ONCE: usize = 32 << 10;

/// Work that a handshake counts as: reading so many bytes takes about as long.
const HANDSHAKE_WORK: usize = 64 << 10;

/// Room that is made for a record when its first bytes are there; a peer has to send before it gets more.
const FIRST_HELD: usize = 512;

/// A socket with TLS.
#[derive(Debug)]
pub(crate) struct Secured<S> {
    pub(super) stream: S,
    engine: Engine,
    acceptor: Rc<Acceptor>,
    /// What came and is not whole.
    held: Vec<u8>,
    /// How many bytes have to be held before there is anything to do.
    needed: u32,
    /// Bytes at the start of `backlog` that the socket has taken.
    sent: u32,
    /// Records that the socket has not taken.
    backlog: Vec<u8>,
    /// What was `held` when the core was told last.
    told: u32,
    stage: Stage,
    /// What the next read says instead of reading.
    ending: Option<Box<Ending>>,
    /// The name that the peer asked for.
    server_name: Option<Rc<str>>,
    /// The handshake that was completed, until that is told.
    handshake: Option<Handshake>,
    /// The peer's side has ended, by close_notify or by the socket, and that was told.
    peer_ended: bool,
    /// Our side is to end, and has once the backlog is out.
    shut: bool,
    /// The core had something to write that could not be sealed yet.
    wants_write: bool,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A PROXY header comes before everything else.
    ProxyHeader,
    /// Nothing came yet.
    Start,
    Handshake,
    Open,
    /// The peer does not speak TLS: bytes go through as they are.
    Plain,
    /// TLS is over: nothing can be sealed, and what comes is dropped.
    Over,
}

impl<S: Stream> Secured<S> {
    pub(super) fn new(
        stream: S,
        engine: Engine,
        acceptor: Rc<Acceptor>,
        proxy_header: bool,
    ) -> Self {
        Self {
            stream,
            engine,
            acceptor,
            held: Vec::new(),
            needed: 1,
            sent: 0,
            backlog: Vec::new(),
            told: 0,
            stage: if proxy_header { Stage::ProxyHeader } else { Stage::Start },
            ending: None,
            server_name: None,
            handshake: None,
            peer_ended: false,
            shut: false,
            wants_write: false,
        }
    }

    /// What has changed since this was asked last.
    #[inline]
    pub(super) fn take_changes(&mut self) -> Option<Changes> {
        let held = self.held.capacity().saturating_add(self.backlog.capacity());
        if held == self.told as usize && self.handshake.is_none() {
            return None;
        }
        self.told = u32::try_from(held).unwrap_or(u32::MAX);
        Some(Changes { held, handshake: self.handshake.take() })
    }
}

/// Reading.
impl<S: Stream> Secured<S> {
    /// As [`Channel::read`](super::channel::Channel::read). The first half of `buffer` is for what is
    /// plain, the second for records.
    #[inline(never)]
    pub(super) fn read(&mut self, buffer: &mut [u8], room: usize, late: bool) -> ReadOutcome {
        if let Some(ending) = self.ending.take() {
            return self.end(*ending);
        }
        if late && matches!(self.stage, Stage::Start | Stage::Handshake) {
            return ReadOutcome::Later;
        }
        let half = buffer.len() / 2;
        let (plain, records) = buffer.split_at_mut(half);
        let kept = self.held.len();
        let filled = kept.saturating_add(room).min(records.len());
        let (came, more) = if kept >= self.needed as usize {
            (0, true) // a PROXY header came with what follows it
        } else {
            let Some(space) = records.get_mut(kept..filled) else { return ReadOutcome::Drained };
            match self.stream.receive(space) {
                Received::Bytes(n) => (n, n == space.len()),
                Received::Eof => return self.socket_ended(),
                Received::Drained => return ReadOutcome::Drained,
                Received::Failed(kind) => return ReadOutcome::Failed(kind),
            }
        };
        let whole = kept.saturating_add(came);
        if whole < self.needed as usize {
            self.hold(records.get(kept..whole).unwrap_or_default());
            return ReadOutcome::Input(Input { bytes: 0, work: came, more });
        }
        let Some(records) = records.get_mut(..whole) else { return ReadOutcome::Drained };
        if kept > 0 {
            let Some(start) = records.get_mut(..kept) else { return ReadOutcome::Drained };
            start.copy_from_slice(&self.held);
            self.held = Vec::new();
        }
        self.take(records, plain, Input { bytes: 0, work: came, more })
    }

    /// What bytes mean that came, at the stage that the connection is in.
    fn take(&mut self, records: &mut [u8], plain: &mut [u8], input: Input) -> ReadOutcome {
        match self.stage {
            // RFC 8446 section 6.1: what comes behind a close_notify is ignored.
            _ if self.peer_ended => ReadOutcome::Input(input),
            Stage::Open | Stage::Handshake => self.open(records, plain, input),
            Stage::Start if is_tls(records) => {
                self.stage = Stage::Handshake;
                self.open(records, plain, input)
            }
            Stage::Start => {
                self.stage = Stage::Plain;
                ReadOutcome::NotTls
            }
            Stage::ProxyHeader => self.proxy_header(records, plain, input),
            Stage::Plain => pass(records, plain, input),
            Stage::Over => ReadOutcome::Input(input),
        }
    }

    fn proxy_header(&mut self, came: &mut [u8], plain: &mut [u8], input: Input) -> ReadOutcome {
        let length = match parse_proxy_header(came, self.acceptor.max_proxy_header) {
            Ok(ProxyStart::Partial) => {
                self.hold(came);
                self.needed = saturated(came.len().saturating_add(1));
                return ReadOutcome::Input(input);
            }
            Ok(ProxyStart::Complete { length, .. }) => {
                self.stage = Stage::Start;
                length
            }
            Err(_) => {
                self.stage = Stage::Plain; // the core says what is wrong
                came.len()
            }
        };
        let (header, rest) = came.split_at_mut_checked(length).unwrap_or_default();
        self.held = rest.to_vec();
        self.needed = 1;
        pass(header, plain, Input { more: true, ..input })
    }

    /// Opens what is whole, and holds the rest.
    fn open(&mut self, records: &mut [u8], plain: &mut [u8], mut input: Input) -> ReadOutcome {
        let was_open = self.stage == Stage::Open;
        if !was_open {
            self.acceptor.set_time(self.stream.since_1970());
        }
        let mut scratch = self.acceptor.scratch();
        let opened = self.engine.open(records, plain, &mut scratch);
        let left = records.get(opened.used..).unwrap_or_default();
        let mut ending = opened.ending;
        if ending.is_none() && left.len() > HELD_MAX {
            ending = Some(Ending::Failed("a handshake message is too long".into()));
        }
        if ending.is_none() {
            self.needed = saturated(HEADER_BYTES);
            if !left.is_empty() {
                self.needed = saturated(until_whole(left));
                self.hold(left);
            }
        }
        if !was_open {
            input.work = input.work.saturating_add(self.handshake_work(&scratch));
        }
        let sent = self.send(&mut scratch);
        self.acceptor.keep(scratch);
        if let Err(error) = sent {
            ending.get_or_insert_with(|| Ending::Broken(error.kind()));
        }
        if matches!(ending, Some(Ending::Failed(_) | Ending::Broken(_))) {
            self.stage = Stage::Over;
        }
        input.bytes = opened.plain;
        match ending {
            None => ReadOutcome::Input(input),
            Some(ending) if input.bytes == 0 => self.end(ending),
            Some(ending) => {
                self.ending = Some(Box::new(ending));
                ReadOutcome::Input(Input { more: true, ..input })
            }
        }
    }

    /// Notes how far the handshake has come, and says what the last step has cost.
    fn handshake_work(&mut self, answer: &Scratch) -> usize {
        if let Some(name) = self.acceptor.asked_name() {
            self.server_name = Some(name);
        }
        if let Some(resumed) = self.engine.handshake() {
            self.stage = Stage::Open;
            self.handshake = Some(if resumed { Handshake::Resumed } else { Handshake::Full });
            if std::mem::take(&mut self.wants_write) {
                self.stream.note_blocked();
            }
        }
        if answer.is_empty() { 0 } else { HANDSHAKE_WORK }
    }

    fn end(&mut self, ending: Ending) -> ReadOutcome {
        match ending {
            Ending::PeerClosed => {
                self.peer_ended = true;
                ReadOutcome::Eof
            }
            Ending::Failed(reason) => ReadOutcome::TlsFailed(reason),
            Ending::Broken(kind) => ReadOutcome::Failed(kind),
        }
    }

    /// The socket says that nothing more comes.
    fn socket_ended(&mut self) -> ReadOutcome {
        if std::mem::replace(&mut self.peer_ended, true) {
            return ReadOutcome::Drained;
        }
        if self.stage == Stage::Open { ReadOutcome::Truncated } else { ReadOutcome::Eof }
    }

    /// Holds bytes until more come. Room is made as they do, up to what is needed and no more.
    fn hold(&mut self, bytes: &[u8]) {
        let (len, capacity) = (self.held.len(), self.held.capacity());
        let wanted = len.saturating_add(bytes.len());
        if wanted > capacity {
            let ample = capacity.saturating_mul(2).max(FIRST_HELD).min(self.needed as usize);
            self.held.reserve_exact(ample.max(wanted).saturating_sub(len));
        }
        self.held.extend_from_slice(bytes);
    }
}

/// Writing.
impl<S: Stream> Secured<S> {
    /// Sends what waits: whether all of it is out.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        if self.backlog.is_empty() {
            return Ok(true);
        }
        let waiting = self.backlog.get(self.sent as usize..).unwrap_or_default();
        let (offered, written) = (waiting.len(), self.stream.write(waiting)?);
        if written < offered {
            self.sent = self.sent.saturating_add(saturated(written));
            return Ok(false);
        }
        (self.backlog, self.sent) = (Vec::new(), 0);
        if self.shut {
            self.stream.shutdown_write();
        }
        Ok(true)
    }

    /// Sends records that were made just now; what the socket does not take waits. Whether it took all.
    fn send(&mut self, scratch: &mut Scratch) -> io::Result<bool> {
        let records = scratch.as_slice();
        if records.is_empty() {
            return Ok(self.backlog.is_empty());
        }
        let written = if self.backlog.is_empty() { self.stream.write(records)? } else { 0 };
        let rest = records.get(written..).unwrap_or_default();
        self.backlog.reserve_exact(rest.len());
        self.backlog.extend_from_slice(rest);
        scratch.clear();
        Ok(self.backlog.is_empty())
    }

    /// Seals and sends: how many of the bytes are accepted, which is not more than is sealed at once for
    /// a socket that does not take them.
    fn write_sealed(&mut self, bytes: &[u8], scratch: &mut Scratch) -> io::Result<usize> {
        let mut accepted: usize = 0;
        for part in bytes.chunks(SEALED_AT_ONCE) {
            if !self.engine.seal(&mut self.held, part, scratch)? {
                self.stage = Stage::Over;
                return Err(ErrorKind::ConnectionAborted.into());
            }
            accepted = accepted.saturating_add(part.len());
            if !self.send(scratch)? {
                break;
            }
        }
        Ok(accepted)
    }

    /// Whether something can be sealed and sent now.
    fn can_write(&mut self) -> io::Result<bool> {
        match self.stage {
            Stage::Open => self.flush(),
            Stage::ProxyHeader | Stage::Start | Stage::Handshake => {
                self.wants_write = true;
                Ok(false)
            }
            Stage::Plain | Stage::Over => Err(ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Tells the peer that nothing more comes (RFC 8446 section 6.1), if it can be told.
    pub(super) fn say_end(&mut self) {
        if self.stage != Stage::Open || self.shut {
            return;
        }
        let mut scratch = self.acceptor.scratch();
        let sealed = self.engine.seal_end(&mut self.held, &mut scratch);
        // Fails only where the peer is gone, and then reading says so.
        let _ = sealed.and_then(|_| self.send(&mut scratch));
        self.acceptor.keep(scratch);
    }
}

impl<S: Stream> Wire for Secured<S> {
    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stage == Stage::Plain {
            return self.stream.write(bytes);
        }
        if !self.can_write()? {
            return Ok(0);
        }
        let mut scratch = self.acceptor.scratch();
        let written = self.write_sealed(bytes, &mut scratch);
        self.acceptor.keep(scratch);
        written
    }

    /// Pieces go into records together: each record costs more than copying does.
    #[inline(never)]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.stage == Stage::Plain {
            return self.stream.write_vectored(slices);
        }
        if !self.can_write()? {
            return Ok(0);
        }
        let mut scratch = self.acceptor.scratch();
        let mut joined = std::mem::take(&mut scratch.joined);
        let mut written = Ok(0);
        let mut rest = slices.iter().map(|slice| &**slice);
        let mut next = rest.next();
        while let Some(slice) = next {
            let room = SEALED_AT_ONCE.saturating_sub(joined.len()).min(slice.len());
            let (now, later) = slice.split_at_checked(room).unwrap_or_default();
            joined.extend_from_slice(now);
            next = if later.is_empty() { rest.next() } else { Some(later) };
            if joined.len() < SEALED_AT_ONCE && next.is_some() {
                continue;
            }
            let accepted = self.write_sealed(&joined, &mut scratch);
            joined.clear();
            written = written.and_then(|before: usize| Ok(before.saturating_add(accepted?)));
            if written.is_err() || !self.backlog.is_empty() {
                break;
            }
        }
        scratch.joined = joined;
        self.acceptor.keep(scratch);
        written
    }

    fn shutdown_write(&mut self) {
        self.say_end();
        self.shut = true;
        if self.backlog.is_empty() {
            self.stream.shutdown_write();
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr()
    }

    fn since_1970(&self) -> Option<Duration> {
        self.stream.since_1970()
    }

    /// Counted in bytes of records, as [`unsent`](Wire::unsent): of those the peer's system knows.
    fn written(&self) -> u32 {
        self.stream.written().wrapping_add(saturated(self.backlog()))
    }

    fn unsent(&self) -> Option<usize> {
        self.stream.unsent().map(|unsent| unsent.saturating_add(self.backlog()))
    }

    fn peer_is_full(&self) -> bool {
        self.stream.peer_is_full()
    }

    fn backlog(&self) -> usize {
        self.backlog.len().saturating_sub(self.sent as usize)
    }

    fn tls_peer(&self) -> Option<TlsPeer> {
        (self.stage == Stage::Open).then(|| TlsPeer {
            server_name: self.server_name.clone(),
            certificates: self.engine.peer_certificates(),
        })
    }
}

/// Hands bytes through as they are.
fn pass(came: &[u8], plain: &mut [u8], input: Input) -> ReadOutcome {
    if let Some(place) = plain.get_mut(..came.len()) {
        place.copy_from_slice(came);
    }
    ReadOutcome::Input(Input { bytes: came.len().min(plain.len()), ..input })
}

/// Whether this may be the start of a connection with TLS: all but text is left to TLS to refuse.
fn is_tls(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| !first.is_ascii_graphic())
}

/// How many of these bytes, and of those that follow, have to be there until one more record is whole.
fn until_whole(bytes: &[u8]) -> usize {
    let mut at: usize = 0;
    loop {
        let header = bytes.get(at..).unwrap_or_default();
        let &[_, _, _, high, low, ..] = header else { return at.saturating_add(HEADER_BYTES) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        at = at.saturating_add(HEADER_BYTES).saturating_add(length);
        if at > bytes.len() {
            return at;
        }
    }
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

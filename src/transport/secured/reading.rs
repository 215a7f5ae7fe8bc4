//! Reading of a socket with TLS: what is held until it is whole, and what it means at each stage.

use crate::protocol::proxy_protocol::{ProxyStart, parse_proxy_header};
use crate::transport::stream::{ReadOutcome, Stream};
use crate::transport::tls::engine::{Ending, HEADER_BYTES, RECORD_MAX, Scratch, failed};

use super::{
    CHAIN_UNCOUNTED, HELD_MAX, Handshake, Input, Secured, SecuredRead, Stage, Waiting, saturated,
};

/// Work that a handshake counts as: with a signature by RSA it takes longer than reading so many bytes.
const HANDSHAKE_WORK: usize = 128 << 10;

/// Room that is made for a record when its first bytes are there; a peer has to send before it gets more.
const FIRST_HELD: usize = 512;

impl<S: Stream> Secured<S> {
    /// Reads once, at most `room` bytes of the socket. What is plain lies at the start of `buffer` then,
    /// whose second half is for records. In a turn that is late no handshake is made.
    #[inline(never)]
    pub(crate) fn read(&mut self, buffer: &mut [u8], room: usize, late: bool) -> SecuredRead {
        if let Some(ending) = self.take_ending() {
            return self.end(ending);
        }
        if late && matches!(self.stage, Stage::Start | Stage::Handshake) {
            return SecuredRead::Later;
        }
        let half = buffer.len() / 2;
        let (plain, records) = buffer.split_at_mut(half);
        let (kept, needed) = self.kept_and_needed();
        // A whole record at least, whatever is left of the turn: a part of one would have to be held.
        let filled = kept.saturating_add(room.max(RECORD_MAX)).min(records.len());
        let (came, more) = if kept >= needed {
            (0, true) // a PROXY header came with what follows it
        } else {
            let Some(space) = records.get_mut(kept..filled) else { return SecuredRead::Drained };
            match self.stream.read(space) {
                ReadOutcome::Bytes(n) => (n, n == space.len()),
                ReadOutcome::Eof => return self.socket_ended(),
                ReadOutcome::Drained => return SecuredRead::Drained,
                ReadOutcome::Failed(kind) => return SecuredRead::Failed(kind),
            }
        };
        let whole = kept.saturating_add(came);
        if whole < needed {
            self.hold(records.get(kept..whole).unwrap_or_default(), needed);
            return SecuredRead::Input(Input { bytes: 0, work: came, more });
        }
        let Some(records) = records.get_mut(..whole) else { return SecuredRead::Drained };
        if kept > 0 {
            let Some(start) = records.get_mut(..kept) else { return SecuredRead::Drained };
            let waiting = self.waiting();
            start.copy_from_slice(&waiting.held);
            waiting.held = Vec::new();
        }
        self.take(records, plain, Input { bytes: 0, work: came, more })
    }

    /// What bytes mean that came, at the stage that the connection is in.
    fn take(&mut self, records: &mut [u8], plain: &mut [u8], input: Input) -> SecuredRead {
        match self.stage {
            // RFC 8446 section 6.1: what comes behind a close_notify is ignored.
            _ if self.peer_ended => SecuredRead::Input(input),
            Stage::Open | Stage::Handshake => self.open(records, plain, input),
            Stage::Start if is_tls(records) => {
                self.stage = Stage::Handshake;
                self.open(records, plain, input)
            }
            Stage::Start => {
                self.stage = Stage::Plain;
                SecuredRead::NotTls
            }
            Stage::ProxyHeader => self.proxy_header(records, plain, input),
            Stage::Plain => pass(records, plain, input),
            Stage::Over => SecuredRead::Input(input),
        }
    }

    fn proxy_header(&mut self, came: &mut [u8], plain: &mut [u8], input: Input) -> SecuredRead {
        let length = match parse_proxy_header(came, self.shared.max_proxy_header) {
            Ok(ProxyStart::Partial) => {
                self.hold(came, came.len().saturating_add(1));
                return SecuredRead::Input(input);
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
        if !rest.is_empty() {
            let waiting = self.waiting();
            (waiting.held, waiting.needed) = (rest.to_vec(), 1);
        }
        pass(header, plain, Input { more: true, ..input })
    }

    /// Opens what is whole, and holds the rest.
    fn open(&mut self, records: &mut [u8], plain: &mut [u8], mut input: Input) -> SecuredRead {
        let was_open = self.stage == Stage::Open;
        if !was_open {
            self.shared.set_time(self.stream.since_1970());
        }
        let mut scratch = self.shared.scratch();
        let opened = self.engine.open(records, plain, &mut scratch);
        let left = records.get(opened.used..).unwrap_or_default();
        let mut ending = opened.ending;
        if ending.is_none() && left.len() > HELD_MAX {
            ending = Some(failed("a handshake message is too long"));
        }
        if ending.is_none() && !left.is_empty() {
            self.hold(left, until_whole(left));
        }
        let mut plain = opened.plain;
        if !was_open {
            input.work = input.work.saturating_add(self.handshake_work(&scratch));
            // RFC 8446 section 4.6.1: a ticket is to last no longer than the certificate. It is followed by
            // the next one without end.
            if self.handshake == Some(Handshake::Resumed) && self.is_refused() {
                (self.handshake, plain) = (None, 0);
                scratch.clear(); // it has the next ticket
                ending = Some(failed("the client's certificate is not valid any more"));
            }
        }
        let sent = if self.shut {
            // Nothing follows the end of our side (RFC 8446 section 6.1), not even an alert.
            scratch.clear();
            Ok(true)
        } else {
            self.send(&mut scratch)
        };
        self.shared.keep(scratch);
        self.release_idle();
        if let Err(error) = sent {
            ending.get_or_insert_with(|| Ending::Broken(error.kind()));
        }
        if matches!(ending, Some(Ending::Failed(_) | Ending::Broken(_))) {
            self.stage = Stage::Over;
        }
        input.bytes = plain;
        match ending {
            None => SecuredRead::Input(input),
            Some(ending) if input.bytes == 0 => self.end(ending),
            Some(ending) => {
                self.waiting().ending = Some(ending);
                SecuredRead::Input(Input { more: true, ..input })
            }
        }
    }

    /// Notes how far the handshake has come, and says what the last step has cost.
    fn handshake_work(&mut self, answer: &Scratch) -> usize {
        if let Some(name) = self.shared.asked_name() {
            self.server_name = Some(name);
        }
        if let Some(resumed) = self.engine.handshake() {
            self.stage = Stage::Open;
            let chain = self.engine.chain_bytes().saturating_sub(CHAIN_UNCOUNTED);
            self.chain = u16::try_from(chain).unwrap_or(u16::MAX);
            self.handshake = Some(if resumed { Handshake::Resumed } else { Handshake::Full });
            if std::mem::take(&mut self.wants_write) {
                self.stream.note_blocked();
            }
        }
        if answer.is_empty() { 0 } else { HANDSHAKE_WORK }
    }

    /// Whether a client that has resumed would not be let in now by the certificate of the first handshake.
    fn is_refused(&self) -> bool {
        #[cfg(feature = "tls-client-auth")]
        return self.shared.refuses(&self.engine) == Some(true);
        #[cfg(not(feature = "tls-client-auth"))]
        false
    }

    fn take_ending(&mut self) -> Option<Ending> {
        let ending = self.waiting.as_deref_mut()?.ending.take();
        self.release_idle();
        ending
    }

    /// How many bytes are held, and how many have to be before there is anything to do.
    fn kept_and_needed(&self) -> (usize, usize) {
        match self.waiting.as_deref() {
            Some(Waiting { held, needed, .. }) if !held.is_empty() => {
                (held.len(), *needed as usize)
            }
            _ if matches!(self.stage, Stage::Open | Stage::Handshake) => (0, HEADER_BYTES),
            _ => (0, 1),
        }
    }

    fn end(&mut self, ending: Ending) -> SecuredRead {
        match ending {
            Ending::PeerClosed => {
                self.peer_ended = true;
                SecuredRead::Eof
            }
            Ending::Failed(reason) => SecuredRead::TlsFailed(reason),
            Ending::Broken(kind) => SecuredRead::Failed(kind),
        }
    }

    /// The socket says that nothing more comes.
    fn socket_ended(&mut self) -> SecuredRead {
        if std::mem::replace(&mut self.peer_ended, true) {
            return SecuredRead::Drained;
        }
        if self.stage == Stage::Open { SecuredRead::Truncated } else { SecuredRead::Eof }
    }

    /// Holds bytes until so many are there. Room is made as they come, up to what is needed and no more.
    fn hold(&mut self, bytes: &[u8], needed: usize) {
        let waiting = self.waiting();
        waiting.needed = saturated(needed);
        let held = &mut waiting.held;
        let wanted = held.len().saturating_add(bytes.len());
        if wanted > held.capacity() {
            let ample = held.capacity().saturating_mul(2).max(FIRST_HELD).min(needed);
            held.reserve_exact(ample.max(wanted).saturating_sub(held.len()));
        }
        held.extend_from_slice(bytes);
    }
}

/// Hands bytes through as they are.
fn pass(came: &[u8], plain: &mut [u8], input: Input) -> SecuredRead {
    if let Some(place) = plain.get_mut(..came.len()) {
        place.copy_from_slice(came);
    }
    SecuredRead::Input(Input { bytes: came.len().min(plain.len()), ..input })
}

/// Whether this may be the start of a connection with TLS: all but text is left to TLS to refuse.
fn is_tls(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| !first.is_ascii_graphic())
}

/// How many of these bytes, and of those that follow, have to be there before there is anything to do.
fn until_whole(bytes: &[u8]) -> usize {
    let &[_, _, _, high, low, ..] = bytes else { return HEADER_BYTES };
    let whole = HEADER_BYTES.saturating_add(usize::from(u16::from_be_bytes([high, low])));
    // A record that is whole has been taken in, and holds a part of a handshake message. That is joined in
    // place with what follows it: behind the first header there is none that could be read.
    if whole > bytes.len() { whole } else { bytes.len().saturating_add(1) }
}

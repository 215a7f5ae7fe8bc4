//! Writing to a socket with TLS: bytes are sealed as they come, and what the socket does not take waits.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::structures::wire::Wire;
use crate::transport::stream::Stream;
use crate::transport::tls::engine::{SEALED_AT_ONCE, Scratch};
use crate::words::tls::TlsPeer;

use super::{Secured, Stage, held, saturated};

impl<S: Stream> Secured<S> {
    /// Sends what waits: whether all of it is out.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let Some(waiting) = self.waiting.as_deref_mut() else { return Ok(true) };
        if waiting.backlog.is_empty() {
            return Ok(true);
        }
        let rest = waiting.backlog.get(waiting.sent as usize..).unwrap_or_default();
        let (offered, written) = (rest.len(), self.stream.write(rest)?);
        if written < offered {
            waiting.sent = waiting.sent.saturating_add(saturated(written));
            return Ok(false);
        }
        (waiting.backlog, waiting.sent) = (Vec::new(), 0);
        self.release_idle();
        if self.shut {
            self.stream.shutdown_write();
        }
        Ok(true)
    }

    /// Sends records that were made just now; what the socket does not take waits. Whether it took all.
    pub(super) fn send(&mut self, scratch: &mut Scratch) -> io::Result<bool> {
        let records = scratch.as_slice();
        let is_behind = self.is_behind();
        if records.is_empty() {
            return Ok(!is_behind);
        }
        let written = if is_behind { 0 } else { self.stream.write(records)? };
        let rest = records.get(written..).unwrap_or_default();
        if rest.is_empty() {
            scratch.clear();
            return Ok(true);
        }
        let backlog = &mut self.waiting().backlog;
        backlog.reserve_exact(rest.len());
        backlog.extend_from_slice(rest);
        scratch.clear();
        Ok(false)
    }

    /// Whether records wait to go out.
    fn is_behind(&self) -> bool {
        self.waiting.as_deref().is_some_and(|waiting| !waiting.backlog.is_empty())
    }

    /// Seals and sends: how many of the bytes are accepted, which is not more than is sealed at once for
    /// a socket that does not take them.
    fn write_sealed(&mut self, bytes: &[u8], scratch: &mut Scratch) -> io::Result<usize> {
        let mut accepted: usize = 0;
        for part in bytes.chunks(SEALED_AT_ONCE) {
            if !self.engine.seal(held(&mut self.waiting), part, scratch)? {
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
    pub(crate) fn say_end(&mut self) {
        if self.stage != Stage::Open || self.shut {
            return;
        }
        let mut scratch = self.shared.scratch();
        let sealed = self.engine.seal_end(held(&mut self.waiting), &mut scratch);
        // Fails only where the peer is gone, and then reading says so.
        let _ = sealed.and_then(|_| self.send(&mut scratch));
        self.shared.keep(scratch);
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
        let mut scratch = self.shared.scratch();
        let written = self.write_sealed(bytes, &mut scratch);
        self.shared.keep(scratch);
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
        let mut scratch = self.shared.scratch();
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
            if written.is_err() || self.is_behind() {
                break;
            }
        }
        scratch.joined = joined;
        self.shared.keep(scratch);
        written
    }

    fn shutdown_write(&mut self) {
        self.say_end();
        self.shut = true;
        if !self.is_behind() {
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
        let waiting = self.waiting.as_deref();
        waiting.map_or(0, |it| it.backlog.len().saturating_sub(it.sent as usize))
    }

    fn tls_peer(&self) -> Option<TlsPeer> {
        (self.stage == Stage::Open).then(|| TlsPeer {
            server_name: self.server_name.clone(),
            certificates: self.engine.peer_certificates(),
        })
    }
}

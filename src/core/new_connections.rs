//! The driver's part in new connections: those that it accepts, and those that somebody else has accepted,
//! which are served alike.

use std::net::SocketAddr;

use crate::context::adoptions::Adopted;
use crate::words::adopt::AdoptError;
use crate::words::time::Time;

use crate::core::driver::Driver;
use crate::core::sockets::{Accept, Socket, Sockets};
#[cfg(feature = "tls")]
use crate::core::tls::TlsEvents;
use crate::core::turn::Reading;

impl<S: Sockets> Driver<S> {
    /// Accepts who waits, up to the budget of a turn.
    pub(super) fn accept(&mut self, now: Time) {
        for _ in 0..self.accept_budget {
            // Before each: the last one may have taken the last slot.
            if !self.core.accepts(now) || (self.adopt_one(now) && !self.core.accepts(now)) {
                return;
            }
            match self.sockets.accept(now) {
                Accept::Connection(accepted, peer, local) => {
                    self.adopt(now, accepted, peer, local);
                }
                Accept::Again => {}
                Accept::Drained if self.core.has_adopted() => {}
                Accept::Drained => return,
                Accept::Exhausted(error) => self.core.note_exhausted(now, &error),
            }
        }
    }

    /// Gives a connection its slot, which it has from now on unless it is hung up on.
    fn adopt(
        &mut self,
        now: Time,
        accepted: S::Accepted,
        peer: SocketAddr,
        local: Option<SocketAddr>,
    ) -> Option<u32> {
        let Ok(slot) = self.core.handle_accept(now, peer) else {
            self.sockets.refuse(accepted);
            return None;
        };
        // Before the first byte, since a request may ask for it.
        self.core.note_local_addr(slot, local);
        let proxy_header = self.core.awaits_proxy_header(slot);
        if let Err(error) = self.sockets.adopt(slot, accepted, proxy_header) {
            let kind = error.kind();
            self.with_wire(slot, |core, wire| core.handle_error(now, slot, kind, wire));
        }
        self.end_and_drop();
        Some(slot)
    }

    /// Takes one of those that wait: whether there was one.
    #[inline]
    fn adopt_one(&mut self, now: Time) -> bool {
        let Some(adopted) = self.core.poll_adopted() else { return false };
        self.take_over(now, adopted);
        true
    }

    #[cold]
    fn take_over(&mut self, now: Time, adopted: Adopted) {
        let Adopted { fd, mut received, peer } = adopted;
        // Whoever is on the loop was told so; another thread could not know the limit.
        if received.len() > self.rx.len() {
            let (bytes, limit) = (received.len(), self.rx.len());
            return self.core.note_not_adopted(peer, &AdoptError::TooMuchRead { bytes, limit });
        }
        match self.sockets.take_over(fd) {
            Ok(accepted) => {
                if let Some(slot) = self.adopt(now, accepted, peer, None) {
                    self.first_input(now, slot, &mut received);
                }
            }
            Err(error) => self.core.note_not_adopted(peer, &error),
        }
    }

    /// Serves what was read of a connection before it came here, as if it had been read just now.
    fn first_input(&mut self, now: Time, slot: u32, bytes: &mut [u8]) {
        // It may be over already, such as one that could not be registered.
        let Some(socket) = self.sockets.socket(slot) else { return };
        if bytes.is_empty() {
            return;
        }
        let reading = self.core.handle_input(now, slot, bytes, socket.wire());
        socket.notes().reading = reading;
        #[cfg(feature = "tls")]
        TlsEvents { core: &mut self.core }.follow(slot, socket);
        self.note_work(bytes.len());
        self.end_and_drop();
        if reading == Reading::Again {
            self.list_to_write(slot);
        }
    }
}

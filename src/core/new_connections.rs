//! The driver's part in new connections: those that it accepts, and those that somebody else has accepted,
//! which are served alike.

use std::net::SocketAddr;

use crate::context::adoptions::{Adopted, Handed};
use crate::words::adopt::AdoptError;
use crate::words::time::Time;

use crate::core::arrivals::Admitted;
use crate::core::driver::Driver;
use crate::core::sockets::{Accept, Socket, Sockets};
#[cfg(feature = "tls")]
use crate::core::tls::TlsEvents;
use crate::core::turn::Reading;

/// A connection that is new here.
struct New<A> {
    accepted: A,
    peer: SocketAddr,
    /// Where it was made to, if that is known.
    local: Option<SocketAddr>,
    /// What was read from it.
    received: Vec<u8>,
}

impl<S: Sockets> Driver<S> {
    /// Accepts who waits, up to the budget of a turn.
    #[inline]
    pub(super) fn accept(&mut self, now: Time) {
        if self.core.has_adopted() || self.sockets.next_accept().is_some() {
            self.accept_waiting(now);
        }
    }

    #[inline(never)]
    fn accept_waiting(&mut self, now: Time) {
        for _ in 0..self.accept_budget {
            // Before each: the last one may have taken the last slot.
            if !self.core.accepts(now) || (self.adopt_one(now) && !self.core.accepts(now)) {
                return;
            }
            match self.sockets.accept(now) {
                Accept::Connection(accepted, peer, local) => {
                    self.admit(now, New { accepted, peer, local, received: Vec::new() });
                }
                Accept::Again => {}
                Accept::Drained if self.core.has_adopted() => {}
                Accept::Drained => return,
                Accept::Exhausted(error) => self.core.note_exhausted(now, &error),
            }
        }
    }

    /// When somebody who waits can be accepted; the later of the two: before the core has room, an accept
    /// would find nothing to do, however often the loop woke for it.
    #[inline(never)]
    pub(super) fn accepts_from(&mut self, waited_at: Time) -> Option<Time> {
        Some(self.core.accepts_at()?.max(waited_at))
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
        let Adopted { fd, received, peer, handed } = adopted;
        // Whoever is on the loop was told so; another thread could not know the limit.
        if received.len() > self.rx.len() {
            let (bytes, limit) = (received.len(), self.rx.len());
            return self.core.note_not_adopted(peer, &AdoptError::TooMuchRead { bytes, limit });
        }
        let local = handed.and_then(|handed| handed.local);
        let accepted = self.sockets.take_over(fd, handed.and_then(|handed| handed.listener));
        match (accepted, handed) {
            (Ok(accepted), None) => self.admit(now, New { accepted, peer, local, received }),
            (Ok(accepted), Some(handed)) => {
                let admitted = Admitted::by_another_loop(handed.counted);
                self.enter(now, admitted, New { accepted, peer, local, received });
            }
            (Err(error), handed) => {
                self.core.note_not_adopted(peer, &error);
                // The loop that accepted it has counted it, and nobody else would take that back.
                if let Some(handed) = handed {
                    self.core.forget(peer, handed.counted);
                }
            }
        }
    }

    /// Lets a connection in, unless it is hung up on, and finds the loop that serves it.
    fn admit(&mut self, now: Time, new: New<S::Accepted>) {
        let Ok(admitted) = self.core.admit(now, new.peer) else {
            return self.sockets.refuse(new.accepted);
        };
        match self.core.other_loop(now, admitted) {
            None => self.enter(now, admitted, new),
            Some(number) => self.hand_over(number, admitted, new),
        }
    }

    /// Before its first byte is read, so that whatever is known of a connection is known where it is served.
    #[cold]
    fn hand_over(&mut self, number: usize, admitted: Admitted, new: New<S::Accepted>) {
        let New { accepted, peer, local, received } = new;
        // Of its count, since it comes to nothing where that loop is over.
        let counted = admitted.is_counted();
        match self.sockets.give_up(accepted) {
            Ok((fd, listener)) => {
                let handed = Some(Handed { listener, local, counted });
                self.core.hand_to_loop(number, Adopted { fd, received, peer, handed });
            }
            Err(error) => {
                self.core.note_not_adopted(peer, &error);
                self.core.forget(peer, counted);
            }
        }
    }

    /// Gives a connection its slot.
    fn enter(&mut self, now: Time, admitted: Admitted, new: New<S::Accepted>) {
        let New { accepted, peer, local, mut received } = new;
        let Ok(slot) = self.core.handle_accept(now, peer, admitted) else {
            self.core.forget(peer, admitted.is_counted());
            return self.sockets.refuse(accepted);
        };
        // Before the first byte, since a request may ask for it.
        self.core.note_local_addr(slot, local);
        let proxy_header = self.core.awaits_proxy_header(slot);
        if let Err(error) = self.sockets.adopt(slot, accepted, proxy_header) {
            let kind = error.kind();
            self.with_wire(slot, |core, wire| core.handle_error(now, slot, kind, wire));
        }
        self.end_and_drop();
        self.first_input(now, slot, &mut received);
    }

    /// Serves what was read of a connection before it came here, as if it had been read just now.
    fn first_input(&mut self, now: Time, slot: u32, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        // It may be over already, such as one that could not be registered.
        let Some(socket) = self.sockets.socket(slot) else { return };
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

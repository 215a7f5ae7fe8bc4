//! The part of a turn in which dialers act.

use std::net::SocketAddr;

use crate::words::time::Time;

use crate::core::dial_orders::{Attempt, Dialled};
use crate::core::dials::Dials;
use crate::core::driver::Driver;
use crate::core::sockets::Sockets;

impl<S: Sockets> Driver<S> {
    /// Does what dialers want, and tells them what came of it.
    pub(super) fn dial(&mut self, now: Time) {
        self.end_and_drop(); // whose time was over
        while self.core.has_dial_work() || self.sockets.has_dialled() {
            // Answers first: what they bring about may be ordered in the same turn.
            while let Some(slot) = self.core.poll_dial_input() {
                self.with_wire(slot, |core, wire| Dials { core }.advance(now, slot, wire));
            }
            while let Some(order) = self.dials().poll(now) {
                self.sockets.dial(order);
            }
            match self.sockets.next_dialled() {
                Some(Dialled::Resolved(attempt, result)) => {
                    self.dials().resolved(now, attempt, result);
                }
                Some(Dialled::NoThread(attempt, error)) => {
                    self.dials().no_lookup(now, attempt, error);
                }
                Some(Dialled::NotConnected(attempt, address, error)) => {
                    self.dials().not_connected(now, attempt, address, error);
                }
                Some(Dialled::Connected(attempt, peer, connection)) => {
                    self.adopt_dialled(now, attempt, peer, connection);
                }
                None => {}
            }
            // A slot is free again before the next connection gets one.
            self.end_and_drop();
        }
    }

    fn adopt_dialled(
        &mut self,
        now: Time,
        attempt: Attempt,
        peer: SocketAddr,
        connection: S::Accepted,
    ) {
        let Some(slot) = self.dials().connected(now, attempt, peer) else {
            return self.sockets.refuse(connection);
        };
        if let Err(error) = self.sockets.adopt(slot, connection, false) {
            let kind = error.kind();
            return self.with_wire(slot, |core, wire| core.handle_error(now, slot, kind, wire));
        }
        self.with_wire(slot, |core, wire| Dials { core }.ready(now, slot, wire));
    }

    fn dials(&mut self) -> Dials<'_> {
        Dials { core: &mut self.core }
    }
}

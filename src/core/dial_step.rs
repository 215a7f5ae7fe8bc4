//! The part of a turn in which dialers act, step by step.

use std::net::SocketAddr;

use crate::structures::wire::Wire;
use crate::words::time::Time;

use crate::core::dial_orders::{Attempt, Dialled};
#[cfg(feature = "tls")]
use crate::core::dial_tls::DialTls;
use crate::core::dials::Dials;
use crate::core::sockets::{Socket, Sockets};
#[cfg(feature = "tls")]
use crate::core::tls::TlsEvents;
use crate::core::turns::Core;
#[cfg(feature = "tls")]
use crate::transport::tls::connector::TlsStart;

/// Does what dialers want, and tells them one thing that came of it; false if there was nothing. Connections
/// that are over are to be dropped before the next step, so that their slots are free.
pub(super) fn dial_step<S: Sockets>(now: Time, core: &mut Core, sockets: &mut S) -> bool {
    // Before it is done: even where nothing is ordered, connections may be over.
    let has_work = core.has_dial_work();
    // Answers first: what they bring about may be ordered in the same step.
    while let Some(slot) = core.poll_dial_input() {
        with_wire(core, sockets, slot, |core, wire| Dials { core }.advance(now, slot, wire));
    }
    while let Some(order) = (Dials { core }).poll(now) {
        sockets.dial(order);
    }
    #[cfg(feature = "tls")]
    while let Some((slot, start)) = (DialTls { core }).poll(now) {
        secure(now, core, sockets, slot, &start);
    }
    // An attempt that has gone on elsewhere has left its connection: nobody gets that slot before it is gone.
    if core.has_closed() {
        return true;
    }
    match sockets.next_dialled() {
        Some(Dialled::Resolved(attempt, result)) => Dials { core }.resolved(now, attempt, result),
        Some(Dialled::NoThread(attempt, error)) => Dials { core }.no_lookup(now, attempt, error),
        Some(Dialled::NotConnected(attempt, address, error)) => {
            Dials { core }.not_connected(now, attempt, address, error);
        }
        Some(Dialled::Connected(attempt, peer, connection)) => {
            adopt(now, core, sockets, attempt, peer, connection);
        }
        None => return Dials { core }.act_on_due(now) || has_work,
    }
    true
}

fn adopt<S: Sockets>(
    now: Time,
    core: &mut Core,
    sockets: &mut S,
    attempt: Attempt,
    peer: SocketAddr,
    connection: S::Accepted,
) {
    let Some(slot) = (Dials { core }).connected(now, attempt, peer) else {
        return sockets.refuse(connection);
    };
    // It is there even if it cannot be watched; then it has failed, and the attempt with it.
    let adopted = sockets.adopt(slot, connection, false).map_err(|error| error.kind());
    with_wire(core, sockets, slot, |core, wire| match adopted {
        Ok(()) => Dials { core }.ready(now, slot, wire),
        Err(kind) => core.handle_error(now, slot, kind, wire),
    });
}

#[cfg(feature = "tls")]
fn secure<S: Sockets>(now: Time, core: &mut Core, sockets: &mut S, slot: u32, start: &TlsStart) {
    // The ClientHello is out, or waits: either is the connection's from here.
    let begun = sockets.secure(slot, start);
    let Some(socket) = sockets.socket(slot) else { return };
    TlsEvents { core }.follow(slot, socket);
    if let Err(error) = begun {
        core.handle_error(now, slot, error.kind(), socket.wire());
    }
}

fn with_wire<S: Sockets>(
    core: &mut Core,
    sockets: &mut S,
    slot: u32,
    act: impl FnOnce(&mut Core, &mut dyn Wire),
) {
    if let Some(socket) = sockets.socket(slot) {
        act(core, socket.wire());
    }
}

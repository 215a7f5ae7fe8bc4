//! The hand-over of an upgraded connection to a thread of the application: what goes with it, and what
//! still counts.

use crate::context::detached::{Detached, DetachedSlot, FreedSocket, Handover};
use crate::words::network::ClientKey;

use crate::core::connection::Disposal;
use crate::core::connections::Connections;
use crate::core::http_turn::HttpTurn;
use crate::core::sockets::Sockets;
use crate::core::turns::Core;

impl HttpTurn<'_, '_> {
    /// The connection leaves the loop, with the answers that are not written and what came behind the
    /// request; `take` is for the application to have it.
    pub(super) fn hand_over(&mut self, take: Box<dyn FnOnce(Detached)>, received: &[u8]) {
        let connection = &mut *self.turn.connection;
        let shared = &mut *self.turn.shared;
        // Nothing is in the outbox: while anything is, no request is dealt with. So all that the client
        // is owed is what this turn has gathered, and that keeps its order on the thread.
        let unsent = std::mem::take(&mut shared.tx);
        shared.stats.bytes_out += unsent.len() as u64;
        // It counts for its client until the application lets it go, not until the slot is free.
        let counted = std::mem::take(&mut connection.counted);
        shared.handovers.push(Handover {
            slot: connection.state.id.0.index,
            client: connection.state.client_key().filter(|_| counted),
            unsent,
            received: received.to_vec(),
            take,
        });
        self.turn.drop_socket(Disposal::Detach);
    }
}

impl Connections {
    /// A connection that left the loop is over.
    pub(super) fn release_detached(&mut self, client: Option<ClientKey>) {
        self.detached = self.detached.saturating_sub(1);
        self.admission.leave(|| client);
    }
}

/// Lets the application have a socket that is the loop's no more.
#[cold]
pub(super) fn hand_over<S: Sockets>(core: &mut Core, sockets: &mut S, slot: u32) {
    let Some(handover) = core.take_handover(slot) else { return };
    let Handover { client, unsent, received, take, .. } = handover;
    match sockets.detach(slot, client) {
        Ok(FreedSocket { fd, write_blocking, release }) => {
            let slot = DetachedSlot(Some(release));
            let detached = Detached { fd, write_blocking, unsent, received, slot };
            core.with_server(core.now(), "detached route", |_server| take(detached));
        }
        // The client has its answer still to come, and gets an end in its place.
        Err(error) => {
            core.note_not_detached(&error);
            core.release_detached(client);
        }
    }
}

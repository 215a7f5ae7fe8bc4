//! The flows that several loops share, as the core serves them: what other loops send, and what waits for a
//! flow to move.

use std::sync::Arc;

use crate::context::bridges::BridgeEnd;
use crate::context::loop_state::Order;
use crate::context::parcels::{Content, Load, Parcel};
use crate::words::time::Time;

use crate::core::turns::Core;

/// The bridges of this loop.
pub(super) struct SharedFlows<'c> {
    pub(super) core: &'c mut Core,
}

impl SharedFlows<'_> {
    /// Another loop has sent this.
    pub(super) fn receive(&mut self, now: Time, parcel: Parcel<Order>) {
        let Parcel { flow, from, content } = parcel;
        let shared = &mut self.core.shared;
        match (shared.bridges.get(&flow), content) {
            // In its place, so that what is published behind it finds the flow, or does not.
            (_, Content::Run(action)) => _ = self.core.with_server(now, "order", action),
            (Some(bridge), Content::Published(number, published)) => {
                // Kept first: where the flow has no room now, it may have after the flush.
                bridge.receive(from, number, published);
                self.publish(&flow, &*bridge);
            }
            (Some(bridge), Content::Done(number, load)) => {
                let bytes = bridge.done(from, number, load);
                // It was this loop's memory until the other one had published it.
                shared.account(bytes, 0);
                if let Some(reader) = bridge.reader() {
                    shared.readers.read_on(reader);
                }
            }
            // A module that sets up each loop differently, or it was forgotten: nobody collects it here.
            (None, Content::Published(number, published)) => {
                let mut load = Load::default();
                published.iter().for_each(|bridged| load.add(bridged.load()));
                if let Some(place) = &shared.place {
                    place.send(from, &flow, Content::Done(number, load));
                }
            }
            (None, Content::Done(..)) => {}
        }
    }

    /// Subscribers may have taken what others waited for.
    #[cold]
    pub(super) fn go_on(&mut self) {
        // Nothing but a turn of this loop moves its flows, so that no waking is needed for this.
        for name in self.core.shared.bridges.take_waiting() {
            if let Some(bridge) = self.core.shared.bridges.get(&name) {
                self.publish(&name, &*bridge);
            }
        }
    }

    fn publish(&mut self, name: &Arc<str>, bridge: &dyn BridgeEnd) {
        let shared = &mut self.core.shared;
        let cursor = bridge.reader().and_then(|reader| shared.readers.cursor(reader));
        if bridge.publish(cursor.unwrap_or(u64::MAX)) {
            shared.bridges.list_waiting(name);
        }
    }
}

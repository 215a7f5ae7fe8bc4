//! The flows that all loops have, as the application opens and forgets them.

use std::rc::Rc;
use std::sync::Arc;

use crate::flow::inner::{FlowInner, Flows};
use crate::flow::options::FlowOptions;

use crate::context::bridges::Bridge;
use crate::context::loop_state::{LoopState, Order, ReadFlow, ServerRef};
use crate::context::parcels::Content;
use crate::context::readers::Readers;

/// Has such a flow read, where there are other loops, in a server whose flows have that pool or, before there
/// is one, for later.
pub(crate) fn read_for_others(
    bridge: &Rc<Bridge<Order>>,
    flow: &Rc<FlowInner>,
    pool: Option<&Rc<Flows>>,
    readers: &mut Readers<ReadFlow>,
) {
    let sending = Rc::clone(bridge);
    let read: ReadFlow = Box::new(move |server, batch| {
        let most = server.shared.limits.process_bytes;
        let memory = most.saturating_sub(server.shared.memory());
        let (taken, bytes) = sending.read(batch, memory);
        server.shared.account(0, bytes); // it is kept until the other loops have published it
        taken
    });
    bridge.read_by(readers.add(flow, pool, read));
}

impl LoopState {
    /// The flow of that name for the application of this loop: made with these options, which were checked,
    /// if it is not there.
    pub(crate) fn hold_shared_flow(&mut self, name: &str, options: FlowOptions) -> Rc<FlowInner> {
        let (flow, was_held) = match self.bridges.hold(name) {
            Some(known) => known,
            None => {
                let flow = self.open_shared_flow(&Arc::from(name), options);
                self.bridges.hold(name);
                (flow, false)
            }
        };
        if let Some(place) = self.place.as_ref().filter(|_| !was_held) {
            let name = Arc::from(name);
            // In this order, so that no loop that hears of an earlier end drops it behind this.
            place.hold(&name);
            for number in place.other_numbers() {
                let opened = Arc::clone(&name);
                let open = move |server: &mut ServerRef<'_>| {
                    let shared = &mut *server.shared;
                    // What another loop sent may have come first, be it the flow or the end of it, behind
                    // which nobody would forget it once more.
                    let is_held = shared.place.as_ref().is_some_and(|place| place.is_held(&opened));
                    if is_held && !shared.bridges.contains(&opened) {
                        shared.open_shared_flow(&opened, options);
                    }
                };
                place.send(number, &name, Content::Run(Box::new(open)));
            }
        }
        flow
    }

    /// The application of this loop needs it no more.
    pub(crate) fn let_shared_flow_go(&mut self, name: &str) {
        if !self.bridges.let_go(name) {
            return;
        }
        if let Some(place) = &self.place {
            if !place.let_go(name) {
                return; // that of another loop does
            }
            let name = Arc::from(name);
            for number in place.other_numbers() {
                let forgotten = Arc::clone(&name);
                let forget = move |server: &mut ServerRef<'_>| {
                    let place = server.shared.place.as_ref();
                    // Another loop may have asked for it since.
                    if !place.is_some_and(|place| place.is_held(&forgotten)) {
                        server.shared.forget_shared_flow(&forgotten);
                    }
                };
                place.send(number, &name, Content::Run(Box::new(forget)));
            }
        }
        self.forget_shared_flow(name);
    }

    /// Makes a flow that all loops have, whose name is not taken on this one.
    fn open_shared_flow(&mut self, name: &Arc<str>, options: FlowOptions) -> Rc<FlowInner> {
        let flow = Rc::new(FlowInner::new(options));
        flow.belong_to(&self.flows);
        if let Some(bridge) = self.bridges.add(name, &flow, self.place.as_ref()) {
            read_for_others(&bridge, &flow, Some(&self.flows), &mut self.readers);
        }
        flow
    }

    /// Drops it, unless the application of this loop needs it.
    fn forget_shared_flow(&mut self, name: &str) {
        let Some(bridge) = self.bridges.forget(name) else { return };
        let bytes = bridge.close();
        self.account(bytes, 0);
        if let Some(reader) = bridge.reader() {
            drop(self.readers.forget(reader)); // and what it holds of the bridge
        }
        drop(bridge);
        if let Some(place) = &self.place {
            place.forget_counts();
        }
    }
}

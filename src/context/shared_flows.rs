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
        if let Some(flow) = self.bridges.held(name) {
            return flow;
        }
        let name = Arc::from(name);
        let number = self.place.as_ref().map_or(0, |place| place.hold(&name));
        let flow = self.open_shared_flow(&name, number, options);
        self.bridges.hold(&name);
        self.on_other_loops(&name, move |shared, name| {
            // What another loop sent may have come first, be it the flow or the end of it, behind which
            // nobody would forget it once more.
            if shared.place.as_ref().and_then(|place| place.held(name)) == Some(number) {
                shared.open_shared_flow(name, number, options);
            }
        });
        flow
    }

    /// The application of this loop needs it no more.
    pub(crate) fn let_shared_flow_go(&mut self, name: &str) {
        if !self.bridges.let_go(name) {
            return;
        }
        let Some(place) = &self.place else { return self.forget_shared_flow(name, 0) };
        let Some(number) = place.let_go(name) else { return }; // the application of another loop does
        self.on_other_loops(&Arc::from(name), move |shared, name| {
            shared.forget_shared_flow(name, number);
        });
        self.forget_shared_flow(name, number);
    }

    /// Has every other loop do the same with the flow of that name.
    fn on_other_loops(
        &self,
        name: &Arc<str>,
        act: impl Fn(&mut Self, &Arc<str>) + Copy + Send + 'static,
    ) {
        let Some(place) = &self.place else { return };
        for number in place.other_numbers() {
            let flow = Arc::clone(name);
            let order = move |server: &mut ServerRef<'_>| act(&mut *server.shared, &flow);
            place.send(number, name, Content::Run(Box::new(order)));
        }
    }

    /// The flow of that name and number, made if it is not there. One of before that is there still has
    /// ended, with its replay, on whichever loop.
    fn open_shared_flow(
        &mut self,
        name: &Arc<str>,
        number: u64,
        options: FlowOptions,
    ) -> Rc<FlowInner> {
        self.forget_shared_flow(name, number.saturating_sub(1));
        if let Some(flow) = self.bridges.flow(name) {
            return flow;
        }
        let flow = Rc::new(FlowInner::new(options));
        flow.belong_to(&self.flows);
        if let Some(bridge) = self.bridges.add(name, number, &flow, self.place.as_ref()) {
            read_for_others(&bridge, &flow, Some(&self.flows), &mut self.readers);
        }
        flow
    }

    /// Drops it, up to that number, unless the application of this loop needs it.
    fn forget_shared_flow(&mut self, name: &str, up_to: u64) {
        let Some(bridge) = self.bridges.forget(name, up_to) else { return };
        let bytes = bridge.close();
        self.account(bytes, 0);
        if let Some(reader) = bridge.reader() {
            drop(self.readers.forget(reader)); // and what it holds of the bridge
        }
        drop(bridge);
        if let Some(place) = &self.place {
            place.forget_count(name);
        }
    }
}

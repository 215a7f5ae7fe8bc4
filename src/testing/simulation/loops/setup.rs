//! What is drawn of a server with several loops before it begins, and the application that each loop runs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::{Application, Built, WebSockets};
use crate::app::call::Call;
use crate::app::response::Response;
use crate::context::loop_state::{LoopPlace, Order};
use crate::context::mailbox::Mailbox;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::testing::simulation::choices::Choices;
use crate::words::limits::Limits;

use super::ledger::{FlowBook, Ledger};
use super::member::{KEYS_OF_A_LOOP, Member};

/// What a run's server is like.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) loops: usize,
    pub(super) flows: Vec<FlowOptions>,
    pub(super) max_connections: usize,
    pub(super) per_address: Option<usize>,
    /// Memory is no reason for anything.
    pub(super) is_ample: bool,
    process_bytes: usize,
    write_timeout: Duration,
}

impl Setup {
    pub(super) fn draw(choices: &mut Choices) -> Self {
        let loops = 2 + choices.size_below(3);
        let flows = 1 + choices.size_below(3);
        let is_ample = !choices.one_in(4);
        Self {
            loops,
            flows: (0..flows).map(|_| draw_flow(choices, is_ample)).collect(),
            max_connections: choices.pick(&[3, 8, 30]),
            per_address: choices.pick(&[None, Some(2), Some(5)]),
            is_ample,
            process_bytes: if is_ample { 64 << 20 } else { loops * 30_000 },
            write_timeout: Duration::from_millis(choices.pick(&[500, 600_000])),
        }
    }

    pub(super) fn ledger(&self, choices: Choices) -> Ledger {
        let flows = self.flows.iter().map(|options| {
            let keys = options.capacity() >= KEYS_OF_A_LOOP * self.loops;
            let keeps_all_keys = keys && self.is_ample && options.max_bytes > 10_000;
            FlowBook::new(options.on_buffer_overflow, keeps_all_keys, self.loops)
        });
        Ledger::new(choices, self.is_ample, flows.collect())
    }

    fn options(&self) -> WebSockets {
        let mut limits = Limits::new()
            .max_connections(self.max_connections)
            .max_pending_handshakes(400)
            .handshake_timeout(Duration::from_secs(20))
            .min_pending_age(Duration::from_secs(20))
            .linger_timeout(Duration::from_millis(500))
            .process_bytes(self.process_bytes)
            .read_buffer_bytes(2_048);
        if let Some(most) = self.per_address {
            limits = limits.per_address(most);
        }
        WebSockets::new()
            .ping_period(None)
            .write_timeout(self.write_timeout)
            .max_frame_size(1_000)
            .outbox_bytes(8_000)
            .limits(limits)
    }

    /// The application of one loop, and its flows.
    pub(super) fn build(
        &self,
        place: &LoopPlace,
        mailbox: &Mailbox<Order>,
        ledger: &Rc<RefCell<Ledger>>,
    ) -> (Built, Rc<[SharedFlow]>) {
        let application = Application::new().reached_by(mailbox.clone(), Vec::new());
        let mut application = application.at(place.clone());
        application.install(self.options());
        let named = self.flows.iter().enumerate();
        let flows: Rc<[SharedFlow]> = named
            .map(|(which, options)| application.shared_flow(&flow_name(which), *options))
            .collect();
        let (ledger, own, number) = (Rc::clone(ledger), Rc::clone(&flows), place.number());
        application.routing(move |route| {
            let deferring = Rc::clone(&ledger);
            route.get("/later", move |call| {
                deferring.borrow_mut().deferred.push(call.defer());
                Response::deferred()
            });
            route.web_socket("/s", move |call: &Call| Member::join(&ledger, &own, number, call));
        });
        match application.build() {
            Ok(built) => (built, flows),
            Err(mistake) => panic!("the simulation's application: {mistake}"),
        }
    }
}

/// The name of a flow on all loops.
pub(super) fn flow_name(which: usize) -> String {
    format!("flow {which}")
}

fn draw_flow(choices: &mut Choices, is_ample: bool) -> FlowOptions {
    let policy = choices.pick(&[
        BufferOverflow::Suspend,
        BufferOverflow::DropOldest,
        BufferOverflow::Latest,
        BufferOverflow::DropLatest,
    ]);
    let policy = match policy {
        // Whether a message was dropped for all is not to be told apart from what memory takes.
        BufferOverflow::DropLatest if !is_ample => BufferOverflow::DropOldest,
        policy => policy,
    };
    FlowOptions::new()
        .replay(choices.size_below(3))
        .extra_buffer(1 + choices.size_below(12))
        .on_buffer_overflow(policy)
        .max_bytes(choices.pick(&[2_000, 200_000]))
}

//! What flows are counted at is what they take: bytes held against bytes allocated. One test, since the
//! allocator counts for the whole program.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wirewheel::extension::{
    Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionMessage, ExtensionOffer,
};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::testing::{TestApplication, TestClient};
use wirewheel::{Application, Call, WebSockets, on_connect};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 4_000;

/// Encodes a message as itself, for the sessions of one number.
struct Copy(u64);

impl Extension for Copy {
    fn encode(&mut self, _: &mut ExtensionMessage<'_>, _: usize) -> Result<(), ExtensionError> {
        Ok(())
    }

    fn share_key(&self) -> Option<u64> {
        Some(self.0)
    }
}

struct Copying;

impl ExtensionFactory for Copying {
    fn name(&self) -> &str {
        "x-copy"
    }

    fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Copy(offer.parameter("as")??.parse().ok()?)))
    }
}

/// Sessions collect the flow.
fn app(flow: &SharedFlow) -> TestApplication {
    let flow = flow.clone();
    TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None).extension(Copying));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let flow = flow.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
        });
    })
    .unwrap()
}

fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn connect(app: &TestApplication, number: u64) -> TestClient {
    let offer = format!("x-copy; as={number}");
    app.upgrade("/").header("Sec-WebSocket-Extensions", &offer).connect().unwrap().0
}

/// Emits messages by `emit` while sessions of so many numbers collect them, and compares.
fn compare(options: FlowOptions, numbers: u64, emit: fn(&SharedFlow, usize)) {
    let flow = SharedFlow::with(options.max_bytes(16 << 20)).unwrap();
    let app = app(&flow);
    let mut clients: Vec<TestClient> = (1..=numbers).map(|number| connect(&app, number)).collect();
    let (held, before) = (app.stats().bytes_held, allocated());
    for number in 0..MESSAGES {
        app.with_server(|_| emit(&flow, number));
        for client in &mut clients {
            while client.receive().is_some() {}
        }
    }
    let held = usize::try_from(app.stats().bytes_held - held).unwrap();
    let taken = allocated() - before;
    // A table of keys is a half to seven eighths full, and counted at two thirds.
    let (least, most) = (taken - taken / 10, 2 * taken);
    assert!((least..=most).contains(&held), "{held} held, {taken} allocated, {options:?}");
}

#[test]
fn what_a_flow_keeps_is_counted_at_what_it_takes() {
    let row = FlowOptions::new().replay(MESSAGES).on_buffer_overflow(BufferOverflow::DropOldest);
    let newest =
        FlowOptions::new().extra_buffer(MESSAGES).on_buffer_overflow(BufferOverflow::Latest);
    for numbers in [1, 2, 4] {
        compare(row, numbers, |flow, number| flow.emit(&format!("value {number}")).unwrap());
        compare(newest, numbers, |flow, number| {
            flow.emit_latest(&format!("key {number}"), "v").unwrap();
        });
    }
}

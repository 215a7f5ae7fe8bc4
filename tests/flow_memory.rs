//! What flows are counted at is what they take: bytes held against bytes allocated. One test, since the
//! allocator counts for the whole program.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wirewheel::extension::Deflate;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::testing::{TestApplication, TestClient};
use wirewheel::{Application, Call, WebSockets, on_connect};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 4_000;

/// Sessions collect the flow.
fn app(flow: &SharedFlow) -> TestApplication {
    let flow = flow.clone();
    TestApplication::new(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None).extension(Deflate::new()));
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

/// A session whose messages are encoded for a window of so many bits.
fn connect(app: &TestApplication, bits: u8) -> TestClient {
    let offer = format!("permessage-deflate; server_max_window_bits={bits}");
    app.upgrade("/").header("Sec-WebSocket-Extensions", &offer).connect().unwrap().0
}

/// Emits messages by `emit` while sessions with so many windows collect them, and compares.
fn compare(options: FlowOptions, windows: u8, emit: fn(&SharedFlow, usize)) {
    let flow = SharedFlow::with(options.max_bytes(16 << 20)).unwrap();
    let app = app(&flow);
    let mut clients: Vec<TestClient> = (9..9 + windows).map(|bits| connect(&app, bits)).collect();
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
    for windows in [1, 2, 4] {
        compare(row, windows, |flow, number| flow.emit(&format!("value {number}")).unwrap());
        compare(newest, windows, |flow, number| {
            flow.emit_latest(&format!("key {number}"), "v").unwrap();
        });
    }
}

//! Micro-benchmarks: frame reader, unmasking, UTF-8, timer wheel, outbox, routes, flow.
//!
//! The library's lower layers are compiled into this program as they stand, since none of this is
//! public: `cargo run --release --manifest-path benches/micro/Cargo.toml -- --bench [FILTER]`.
#![allow(dead_code, unused_imports, reason = "only a part of the layers is used here")]

#[path = "../../../src/domain/mod.rs"]
mod domain;
#[path = "../../../src/protocol/mod.rs"]
mod protocol;
#[path = "../../../src/structures/mod.rs"]
mod structures;
#[path = "../../../src/words/mod.rs"]
mod words;

// What the layers' documentation and macros call by its public name.
pub use domain::application::{Application, WebSockets};
pub use domain::call::Call;
pub use domain::flow::{FlowOptions, SharedFlow};
pub use domain::handler::{Handler, Hooks, on_message};
pub use domain::session::Session;
pub use words::error::{HandlerError, HandlerResult, SendError};
pub use words::message::Message;

use std::hint::black_box;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use protocol::frame::{FrameHeader, FrameRules, OpCode, ShortMessage, apply_mask, write_frame};
use protocol::head::{HeadLimits, HeadStatus, parse_head};
use protocol::reader;
use structures::outbox::Outbox;
use structures::wheel::TimerWheel;
use structures::wire::Wire;
use words::time::Time;

const RULES: FrameRules = FrameRules {
    max_frame_size: 64 << 10,
    max_message_size: 64 << 10,
    max_fragments: 65_536,
    accept_unmasked: false,
    allowed_rsv: 0,
    claimed_rsv: 0,
};
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn text(bytes: usize) -> Vec<u8> {
    "Grüße aus dem Heizungskeller; ".bytes().cycle().take(bytes - bytes % 2).collect()
}

fn masked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, true, opcode, payload, Some(MASK));
    frame
}

fn frames(c: &mut Criterion) {
    let short = masked(OpCode::Binary, &[7; 20]);
    c.bench_function("reader/short message of 20 B", |b| {
        let mut short = short.clone();
        // Masked again by the next round: as many bytes each time.
        b.iter(|| ShortMessage::unmask(black_box(&mut short), 64 << 10).map(|found| found.end));
    });
    c.bench_function("reader/header by the general path", |b| {
        b.iter(|| FrameHeader::read(black_box(&short), &RULES));
    });
    let long = masked(OpCode::Binary, &[7; 4096]);
    c.bench_function("reader/4 KiB message in two reads", |b| {
        b.iter_batched_ref(
            || (None, long.clone()),
            |(partial, bytes)| {
                let (first, second) = bytes.split_at_mut(2_000);
                black_box(reader::next(partial, first, &RULES).is_ok());
                black_box(reader::next(partial, second, &RULES).is_ok());
            },
            BatchSize::SmallInput,
        );
    });
}

fn masks(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for bytes in [20, 125, 1024, 16 << 10] {
        let mut payload = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{bytes} B"), |b| {
            b.iter(|| apply_mask(black_box(&mut payload), black_box(MASK), 0));
        });
    }
}

fn utf8(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf-8");
    let ascii = vec![b'x'; 1024];
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("1 KiB of ASCII", |b| {
        b.iter(|| std::str::from_utf8(black_box(&ascii)).is_ok());
    });
    let umlauts = text(1024);
    group.bench_function("1 KiB with umlauts", |b| {
        b.iter(|| std::str::from_utf8(black_box(&umlauts)).is_ok());
    });
    let frame = masked(OpCode::Text, &umlauts);
    group.bench_function("1 KiB with umlauts, cut inside a character", |b| {
        b.iter_batched_ref(
            || (None, frame.clone()),
            |(partial, bytes)| {
                let (first, second) = bytes.split_at_mut(8 + 3);
                black_box(reader::next(partial, first, &RULES).is_ok());
                black_box(reader::next(partial, second, &RULES).is_ok());
            },
            BatchSize::SmallInput,
        );
    });
}

fn wheel(c: &mut Criterion) {
    let mut wheel = TimerWheel::new();
    for token in 0..10_000 {
        let _ = wheel.arm(token, Time::from_micros(15_000_000 + u64::from(token) * 900));
    }
    c.bench_function("wheel/arm and cancel beside 10,000", |b| {
        b.iter(|| {
            let key = wheel.arm(1, Time::from_micros(black_box(7_000_000)));
            wheel.cancel(key);
        });
    });
    c.bench_function("wheel/a turn with nothing due", |b| {
        b.iter(|| wheel.pop_due(black_box(Time::from_micros(1_000))));
    });
}

/// Takes everything.
struct Sink;

impl Wire for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        Ok(black_box(bytes).len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, ErrorKind> {
        Ok(black_box(slices).iter().map(|slice| slice.len()).sum())
    }

    fn shutdown_write(&mut self) {}

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }
}

fn outbox(c: &mut Criterion) {
    let mut frame = Vec::new();
    write_frame(&mut frame, true, OpCode::Text, &[b'x'; 100], None);
    c.bench_function("outbox/queue 64 messages of 100 B and write them", |b| {
        b.iter_batched_ref(
            || (Outbox::default(), vec![frame.clone(); 64]),
            |(outbox, frames)| {
                for frame in frames.drain(..) {
                    outbox.push_frames(frame);
                }
                black_box(outbox.write_to(&mut Sink).is_ok());
            },
            BatchSize::SmallInput,
        );
    });
}

fn routes(c: &mut Criterion) {
    let mut app = Application::new();
    app.install(WebSockets::new());
    app.routing(|route| {
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            route.get(&format!("/{name}/{{id}}"), |_call: &Call| "ok");
        }
        route.web_socket("/rooms/{room}", |_call: &Call| {
            on_message(|session, message| session.send(message))
        });
    });
    let built = app.build().expect("nothing is wrong with it");
    let request = b"GET /rooms/kitchen?x=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nUser-Agent: bench\r\n\r\n";
    let limits = HeadLimits { max_bytes: 8 << 10, max_lines: 64 };
    c.bench_function("head/parse", |b| {
        b.iter(|| parse_head(black_box(request), &limits, &mut 0).is_ok());
    });
    let Ok(HeadStatus::Complete { head, .. }) = parse_head(request, &limits, &mut 0) else {
        panic!("the head is complete")
    };
    c.bench_function("router/nine routes, one parameter", |b| {
        b.iter(|| {
            black_box(built.routes.resolve(black_box(&head), true, &[]));
        });
    });
}

fn flows(c: &mut Criterion) {
    let flow: SharedFlow = SharedFlow::with(FlowOptions::new().replay(64)).expect("valid");
    let message = "x".repeat(100);
    c.bench_function("flow/emit 100 B into a log of 64", |b| {
        b.iter(|| flow.emit(black_box(&message)).is_ok());
    });
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = frames, masks, utf8, wheel, outbox, routes, flows
}
criterion_main!(all);

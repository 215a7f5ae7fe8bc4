//! One publisher, and subscribers of which one in a hundred never reads, under each policy: the
//! others get every message in order, memory stays within its limits, a broadcast allocates one frame; where
//! half of them are event streams, one of each kind.
//!
//! 1,000 subscribers, or as many as the first argument says. They live in a process of their own,
//! which is this program again; the limit on descriptors is raised as far as the system allows.

#![allow(clippy::print_stdout, reason = "a program that reports figures")]
#![allow(clippy::disallowed_methods, reason = "the load runs in real time")]

mod arguments;
mod swarm;

#[path = "../support/emulator.rs"]
#[allow(dead_code, reason = "other tests start programs by a shell")]
#[allow(unreachable_pub, reason = "shared by several test crates")]
mod emulator;
#[path = "../../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

use std::alloc::System;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::options::ListenOptions;
use wirewheel::{
    Application, Call, Handle, Limits, Server, Stats, WebSockets, on_connect, on_message,
};

use arguments::Task;
use swarm::{EVENT_BYTES, FRAME_BYTES, PAYLOAD_BYTES, Plan};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The longest that a step of the load may take.
const PATIENCE: Duration = Duration::from_secs(120 * emulator::SLOWER);
const MESSAGES: usize = 200;
/// Longer than all of it takes.
const NEVER: Duration = Duration::from_secs(600);
/// What a log's entry or a pinned message takes beside its frame, and an allocator's rounding.
const ENTRY_BYTES: usize = 256;
const READ_BUFFER_BYTES: usize = 64 << 10;
const OUTBOX_BYTES: usize = 64 << 10;

/// How a server deals with those who do not read, and how much its publisher sends at once.
struct Policy {
    name: &'static str,
    /// Messages that are published before all who read have them; all of them if it is 0.
    window: usize,
    /// `None`: not through a flow, but to each session.
    flow: Option<FlowOptions>,
    /// A stalled session is ended after that time.
    write_timeout: Duration,
    limits: Limits,
    /// What may be held for the subscribers and for each that stalls, beside what the log may take.
    held_for_each: (usize, usize),
    /// Every second of those who read is an event stream.
    mixed: bool,
    /// Whether those who stalled are still there, and are told at the end what they missed.
    stalled_stay: bool,
    expect: fn(&Stats, usize),
}

fn policies(subscribers: usize) -> [Policy; 4] {
    let limits = Limits::new()
        .max_connections(subscribers + 64)
        .close_timeout(Duration::from_secs(1))
        .slow_callback(None);
    [
        Policy {
            name: "drop oldest",
            window: 8,
            flow: Some(
                FlowOptions::new().extra_buffer(64).on_buffer_overflow(BufferOverflow::DropOldest),
            ),
            write_timeout: NEVER,
            limits: limits.clone(),
            // At most one message for each that is behind, if only for a moment.
            held_for_each: (FRAME_BYTES + ENTRY_BYTES, 0),
            mixed: false,
            stalled_stay: true,
            expect: |stats, _| assert_eq!(stats.sessions_closed(), 0, "nobody had to go"),
        },
        Policy {
            name: "drop oldest, half event streams",
            window: 8,
            flow: Some(
                FlowOptions::new().extra_buffer(64).on_buffer_overflow(BufferOverflow::DropOldest),
            ),
            write_timeout: NEVER,
            limits: limits.clone(),
            // The same, of whichever kind.
            held_for_each: (EVENT_BYTES + ENTRY_BYTES, 0),
            mixed: true,
            stalled_stay: true,
            expect: |stats, _| {
                assert_eq!(stats.sessions_closed(), 0, "nobody had to go");
                assert!(stats.event_streams_open > 0 && stats.binary_skipped == 0);
            },
        },
        Policy {
            name: "close",
            window: 8,
            flow: None,
            // A copy for each: all of one broadcast wait until it is written.
            write_timeout: NEVER,
            limits: limits.clone().process_bytes(32 << 20),
            held_for_each: (FRAME_BYTES + 2 * ENTRY_BYTES, 2 * OUTBOX_BYTES),
            mixed: false,
            stalled_stay: false,
            expect: |stats, stalled| assert_eq!(stats.closed_try_again, stalled as u64),
        },
        Policy {
            name: "suspend",
            window: 0,
            flow: Some(FlowOptions::new().extra_buffer(16)),
            // Those who read are not to be ended where the machine stands still for a while.
            write_timeout: Duration::from_secs(8),
            limits,
            // At most one message for each that is behind, if only for a moment.
            held_for_each: (FRAME_BYTES + ENTRY_BYTES, 0),
            mixed: false,
            stalled_stay: false,
            expect: |stats, stalled| assert_eq!(stats.timeouts_write, stalled as u64),
        },
    ]
}

trait Closed {
    fn sessions_closed(&self) -> u64;
}

impl Closed for Stats {
    fn sessions_closed(&self) -> u64 {
        self.closed_abnormal + self.closed_try_again + self.closed_internal + self.closed_protocol
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["swarm", rest @ ..] = arguments.as_slice() {
        return swarm::run(&Plan::from_arguments(rest));
    }
    let size = match arguments::task(&arguments, 1_000) {
        Task::Run(size) => size,
        Task::List { any, terse } => return arguments::print_list(any, terse),
        Task::Nothing => return,
    };
    arguments::check();
    let subscribers = size.min(raise_descriptors().saturating_sub(64));
    if subscribers < size {
        println!("{size} subscribers are asked for; descriptors allow {subscribers}");
    }
    for policy in policies(subscribers) {
        measure(policy, subscribers);
    }
}

/// Raises the limit on descriptors to the hard one, and says what it is.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap())
}

fn serve(policy: &Policy) -> (Handle, usize) {
    let (options, limits) = (policy.flow, policy.limits.clone());
    let write_timeout = policy.write_timeout;
    let kinds = 1 + usize::from(policy.mixed);
    let log = options.as_ref().map_or(0, |_| kinds * (64 + 16) * (EVENT_BYTES + ENTRY_BYTES));
    let module = move |app: &mut Application| {
        let direct = options.is_none();
        let flow: SharedFlow<[u8]> = SharedFlow::with(options.unwrap_or_default()).unwrap();
        app.install(
            WebSockets::new()
                .ping_period(None)
                .write_timeout(write_timeout)
                .outbox_bytes(OUTBOX_BYTES)
                .limits(limits),
        );
        app.routing(move |route| {
            let published = flow.clone();
            let streamed = flow.clone();
            let stream = route.event_stream("/events", move |_: &Call| {
                let flow = streamed.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
            stream.base64();
            route.web_socket("/listen", move |_: &Call| {
                let flow = flow.clone();
                on_connect(move |session, _| session.collect(&flow))
                    .on_message(|session, _| session.send(format!("missed {}", session.missed())))
            });
            route.web_socket("/talk", move |_: &Call| {
                let flow = published.clone();
                on_message(move |session, message| {
                    if !direct {
                        return session.emit(&flow, message.bytes());
                    }
                    let me = session.id();
                    let mut server = session.server();
                    for id in server.sessions().filter(|id| *id != me).collect::<Vec<_>>() {
                        server.send_to(id, message)?;
                    }
                    Ok(())
                })
            });
        });
    };
    // Small, so that who does not read is soon noticed.
    let small = ListenOptions::new().send_buffer_bytes(8 << 10);
    (Server::bind_with("127.0.0.1:0", &small, module).unwrap().spawn().unwrap(), log)
}

fn measure(policy: Policy, subscribers: usize) {
    let stalled = subscribers / 100;
    let (handle, log_bytes) = serve(&policy);
    let plan = Plan {
        addr: handle.local_addr(),
        readers: subscribers - stalled,
        stalled,
        messages: MESSAGES,
        window: policy.window,
        mixed: policy.mixed,
        stalled_stay: policy.stalled_stay,
    };
    let mut swarm = Swarm::start(&plan);
    swarm.expect("connected");
    let (before, rss_before) = (stats(&handle), rss_bytes());

    // The first broadcast finds buffers that grow once; the second one shows what each costs.
    swarm.go_on();
    swarm.expect("first");
    let region = Region::new(ALLOCATOR);
    swarm.go_on();
    swarm.expect("second");
    let allocated = region.change();

    swarm.go_on();
    let began = Instant::now();
    let (mut held, mut rss) = (0, 0);
    let report = swarm.wait(|| {
        held = held.max(stats(&handle).bytes_held);
        rss = rss.max(rss_bytes());
    });
    let took = began.elapsed();
    (policy.expect)(&stats(&handle), stalled);
    swarm.finish();
    handle.shutdown(Duration::ZERO);
    handle.join().unwrap();

    let held = usize::try_from(held.saturating_sub(before.bytes_held)).unwrap();
    let rss = rss.saturating_sub(rss_before);
    let (each, each_stalled) = policy.held_for_each;
    let allowed = log_bytes + READ_BUFFER_BYTES + subscribers * each + stalled * each_stalled;
    println!(
        "{}: {subscribers} subscribers, {stalled} stalled: {report}; {:.1} s; held {} of {} KiB \
         allowed, RSS + {} KiB; a broadcast allocates {} times, {} bytes",
        policy.name,
        took.as_secs_f64(),
        held >> 10,
        allowed >> 10,
        rss >> 10,
        allocated.allocations + allocated.reallocations,
        allocated.bytes_allocated,
    );
    assert!(held <= allowed, "more is held than the log and the outboxes may hold");
    assert!(rss <= 2 * allowed + (8 << 20), "memory grew by more than is accounted for");
    if policy.flow.is_some() {
        // The frame; an event is its data in base64 too, and grows while it is put together.
        let most = if policy.mixed { 6 * PAYLOAD_BYTES } else { 2 * PAYLOAD_BYTES };
        assert!(allocated.bytes_allocated < most, "more than one of each kind is allocated");
    }
}

fn stats(handle: &Handle) -> Stats {
    handle.stats().unwrap().recv_timeout(PATIENCE).unwrap()
}

fn rss_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The process of the clients.
struct Swarm {
    child: Child,
    lines: Receiver<String>,
}

impl Swarm {
    fn start(plan: &Plan) -> Self {
        let mut child = emulator::command(env::current_exe().unwrap())
            .arg("swarm")
            .args(plan.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|text| line.send(text).is_ok())
        });
        Self { child, lines }
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    #[track_caller]
    fn expect(&self, line: &str) {
        assert_eq!(self.lines.recv_timeout(PATIENCE).expect("the swarm goes on"), line);
    }

    /// Waits for the swarm's last line, and looks at the server meanwhile.
    fn wait(&self, mut look: impl FnMut()) -> String {
        let deadline = Instant::now() + PATIENCE;
        let report = loop {
            look();
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(report) => break report,
                Err(RecvTimeoutError::Timeout) => {
                    assert!(Instant::now() < deadline, "the swarm does not end");
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the swarm failed"),
            }
        };
        look();
        report
    }

    fn finish(mut self) {
        self.go_on();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it is over, unless an assertion failed
    }
}

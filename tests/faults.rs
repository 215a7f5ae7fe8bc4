//! Faults of the world outside, over real sockets and with real processes: clients that are stopped,
//! killed and reset, logs on a full disk, a link that is slow and loses packets.
//!
//! Clients that are to be stopped or killed are processes of their own: this test binary again, told
//! by its environment what to be (`a_part_for_a_child`).

#![allow(clippy::disallowed_methods, reason = "waiting for another process has a bound")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::*;
use wirewheel::{Application, Call, WebSockets, on_message};

const FLOOD_MESSAGES: u8 = 100;
const FLOOD_BYTES: usize = 80_000;

/// An echo; "flood" is answered with eight megabytes, more than the system's buffers take.
fn module(app: &mut Application) {
    let options = WebSockets::new().max_frame_size(100_000).outbox_bytes(10_000_000);
    app.install(options.ping_period(None)); // a witness under an emulator would get one
    app.routing(|route| {
        route.stats("/stats");
        route.web_socket("/", |_: &Call| {
            on_message(|session, message| {
                if message.text() != Some("flood") {
                    return session.send(message);
                }
                (0..FLOOD_MESSAGES).try_for_each(|n| session.send(vec![n; FLOOD_BYTES]))
            })
        });
    });
}

/// A figure of the server.
fn figure(server: &Running, name: &str) -> u64 {
    let page = server.connect().request("GET /stats HTTP/1.1\r\nHost: h\r\n\r\n").body;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("wirewheel_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

/// Asks until it is so: what a signal or a reset does to another process has no moment of its own.
#[track_caller]
fn expect_figure(server: &Running, name: &str, expected: u64) {
    let begun = Instant::now();
    let mut last = figure(server, name);
    while last != expected {
        assert!(begun.elapsed() < PATIENCE, "{name} is {last}, expected {expected}");
        last = figure(server, name);
    }
}

#[track_caller]
fn expect_served(witness: &mut Client) {
    witness.text("served");
    witness.expect_text("served");
}

/// A part of a test in a process of its own.
struct Part {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Part {
    fn start(part: &str, addr: SocketAddr) -> Self {
        Self::start_with_stderr(part, Some(addr), Stdio::inherit())
    }

    fn start_with_stderr(part: &str, addr: Option<SocketAddr>, stderr: Stdio) -> Self {
        let mut child = emulator::command(std::env::current_exe().unwrap())
            .args(["a_part_for_a_child", "--exact", "--nocapture"])
            .env("WIREWHEEL_PART", part)
            .env("WIREWHEEL_ADDR", addr.map_or_else(String::new, |addr| addr.to_string()))
            .stderr(stderr)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    /// Waits until it says that it has come so far.
    #[track_caller]
    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        while !line.ends_with(&format!("{word}\n")) {
            line.clear();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "it ended without {word:?}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what the children of the tests here do.
#[test]
#[allow(clippy::print_stdout, reason = "how a child says how far it has come")]
fn a_part_for_a_child() {
    let Ok(part) = std::env::var("WIREWHEEL_PART") else { return };
    let addr = || std::env::var("WIREWHEEL_ADDR").unwrap().parse().unwrap();
    let say = |word: &str| {
        println!("{word}");
        std::io::stdout().flush().unwrap();
    };
    match part.as_str() {
        "reader" => {
            let mut client = Client::connect(addr()).upgraded("/");
            client.text("flood");
            say("ready");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            for n in 0..FLOOD_MESSAGES {
                let frame = client.frame();
                assert_eq!((frame.first, frame.payload), (BINARY, vec![n; FLOOD_BYTES]));
            }
            say("done");
            client.expect_eof();
        }
        "half-frame" => {
            let mut client = Client::connect(addr()).upgraded("/");
            let frame = masked(TEXT, &[b'x'; 50_000]);
            client.write(&frame[..30_000]);
            say("ready");
            client.expect_eof();
        }
        "logging" => {
            env_logger::builder().filter_level(log::LevelFilter::Trace).init();
            let server = Running::start(module);
            say(&format!("addr {}", server.addr()));
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        "lossy" => lossy_link(),
        other => panic!("no part {other:?}"),
    }
}

#[test]
fn a_client_that_is_stopped_gets_everything_when_it_goes_on() {
    let server = Running::start(module);
    let mut witness = server.upgrade("/");
    let mut reader = Part::start("reader", server.addr());
    reader.expect("ready");
    reader.signal(Signal::STOP);
    let begun = Instant::now();
    while figure(&server, "bytes_held") == 0 {
        assert!(begun.elapsed() < PATIENCE, "its answer does not wait in the server");
    }
    expect_served(&mut witness);
    reader.signal(Signal::CONT);
    reader.child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    reader.expect("done");
    expect_figure(&server, "bytes_held", 0);
    expect_served(&mut witness);
}

#[test]
fn clients_that_are_killed_in_mid_frame_leave_nothing_behind() {
    let server = Running::start(module);
    let mut witness = server.upgrade("/");
    let mut clients: Vec<Part> = (0..5).map(|_| Part::start("half-frame", server.addr())).collect();
    clients.iter_mut().for_each(|client| client.expect("ready"));
    expect_figure(&server, "sessions_open", 6);
    for client in &clients {
        client.signal(Signal::KILL);
    }
    expect_figure(&server, "sessions_open", 1);
    expect_figure(&server, "bytes_held", 0);
    expect_served(&mut witness);
}

#[test]
fn a_storm_of_resets_is_weathered() {
    let server = Running::start(module);
    let mut witness = server.upgrade("/");
    for round in 0..300 {
        let mut client = server.connect();
        match round % 4 {
            0 => {}
            1 => client.write("GET / HTTP/1.1\r\nHo"),
            2 => client.write(upgrade_request("/", "") + "\u{1}"),
            _ => {
                client = client.upgraded("/");
                client.write(&masked(TEXT, b"flood")[..9]);
            }
        }
        // A linger of zero: dropping it is a reset.
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        if round % 50 == 0 {
            expect_served(&mut witness);
        }
    }
    expect_figure(&server, "sessions_open", 1);
    expect_figure(&server, "connections_open", 2); // the witness, and who asks
    expect_figure(&server, "bytes_held", 0);
    expect_served(&mut witness);
}

/// Everything that is logged goes to a disk without room.
#[test]
fn a_full_disk_for_logs_is_no_end() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut server = Part::start_with_stderr("logging", None, full.into());
    let mut line = String::new();
    let addr: SocketAddr = loop {
        line.clear();
        assert!(server.says.read_line(&mut line).unwrap() > 0, "it ended");
        // Where tests run one by one, the name of the test stands before it.
        if let Some((_, addr)) = line.split_once("addr ") {
            break addr.trim().parse().unwrap();
        }
    };
    for _ in 0..20 {
        let mut client = Client::connect(addr).upgraded("/");
        client.text("full");
        client.expect_text("full");
    }
    drop(server.child.stdin.take());
    assert!(server.child.wait().unwrap().success());
}

/// 50 ms and 2 % of packets lost, in a network namespace of its own; skipped where making one is not
/// permitted.
#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn a_slow_and_lossy_link_only_takes_longer() {
    let rules = "ip link set lo up && tc qdisc add dev lo root netem delay 50ms loss 2%";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", script]);
        command
    };
    let permitted = unshare(rules).stderr(Stdio::null()).status();
    if !permitted.is_ok_and(|status| status.success()) {
        println!("skipped: no network namespace with netem here");
        return;
    }
    let status = unshare(&format!("{rules} && exec \"$0\" a_part_for_a_child --exact"))
        .args(emulator::words(std::env::current_exe().unwrap()))
        .env("WIREWHEEL_PART", "lossy")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Server and clients within the namespace: whole answers, ends in order.
fn lossy_link() {
    let server = Running::start(module);
    let mut clients: Vec<Client> = (0..5).map(|_| server.upgrade("/")).collect();
    for client in &mut clients {
        client.text("first");
        client.send(BINARY, &vec![7; 60_000]);
    }
    for client in &mut clients {
        client.expect_text("first");
        assert_eq!(client.frame().payload, vec![7; 60_000]);
        client.send(CLOSE, &close_payload(1000, ""));
        client.expect_close(1000);
        client.expect_eof();
    }
}

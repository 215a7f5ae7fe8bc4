//! How little the hub takes: memory that is limited from outside, and sleep.

mod support;

use std::fs;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use support::Hub;
use support::client::{Client, PING, PONG, TEXT, emulator};

/// Address space that the hub may have, in KiB.
const SPACE_KIB: u32 = 32 << 10;
const CONNECTIONS: usize = 5_000;

/// Lets this process have as many descriptors as it may.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most > CONNECTIONS as u64 + 100), "{limit:?}");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn five_thousand_sessions_with_pings_live_in_32_mib_of_address_space() {
    raise_descriptors();
    let mut shell = Command::new("sh");
    let script = format!("ulimit -v {SPACE_KIB}; ulimit -n 5200; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).args(emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub")));
    shell.args(["--echo", "--listen", "127.0.0.1:0", "--memory", "16m"]);
    shell.args(["--max-connections", "5000", "--ping-period", "4s", "--timeout", "30s"]);
    let hub = Hub::of(shell);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| hub.upgrade("/echo")).collect();
    // The second ping comes only to those whose first one was answered.
    for _ in 0..2 {
        for client in &mut clients {
            let ping = client.frame();
            assert_eq!(ping.first, PING);
            client.send(PONG, &ping.payload);
        }
    }
    for client in clients.iter_mut().step_by(100) {
        client.text("still there");
        loop {
            let frame = client.frame();
            if frame.first == TEXT {
                assert_eq!(frame.payload, b"still there");
                break;
            }
            client.send(PONG, &frame.payload);
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", hub.child.id())).unwrap();
    let space = limits.lines().find(|line| line.starts_with("Max address space")).unwrap();
    assert!(space.contains(&(SPACE_KIB * 1024).to_string()), "{space}");
}

/// How often a process went to sleep so far, since each wait that is not over at once counts.
fn sleeps(pid: u32) -> u64 {
    field(pid, "voluntary_ctxt_switches").parse().unwrap()
}

fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

#[test]
fn an_idle_hub_sleeps() {
    let hub = Hub::start(&["--echo", "--topics", "--ping-period", "0"]);
    let mut clients: Vec<Client> = (0..200).map(|_| hub.upgrade("/echo")).collect();
    for client in &mut clients {
        client.text("hello");
        client.expect_text("hello");
    }
    let pid = hub.child.id();
    let quiet = &mut clients[0].stream;
    quiet.set_read_timeout(Some(support::client::millis(2000))).unwrap();
    // The first time may have the end of the turn with the last answer in it.
    let slept = (0..3).any(|_| {
        let before = sleeps(pid);
        std::io::Read::read(quiet, &mut [0]).unwrap_err();
        sleeps(pid) == before
    });
    assert!(slept, "woken within 2 s of idleness, each time");
    hub.signal(Signal::TERM);
}

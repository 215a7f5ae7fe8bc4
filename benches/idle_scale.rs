//! Prints what idle connections take, the server's processes and the kernel apart, at 10,000, at as many as
//! one process may have here (20,000 at most), and at five times as many; and what follows for 1,000,000.
//!
//! Run it with `cargo bench --bench idle_scale`. Servers and clients are processes of their own, each with a
//! limit of descriptors of its own; a server has its own loopback address. The kernel's part is what its
//! slabs grow by, and is for both ends of a connection, since both are on this machine. It needs a gibibyte,
//! which it looks for.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "a program, not a library")]

mod echo_server;
#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wirewheel::{Limits, Listen, WebSockets};

type Anything = Result<(), Box<dyn Error>>;

const FIRST: usize = 10_000;
const PER_PROCESS_MAX: usize = 20_000;
const PROCESSES: usize = 5;
/// What is open in a process beside its connections.
const OTHER_DESCRIPTORS: usize = 50;
/// Longer than all of this takes.
const LONG: Duration = Duration::from_secs(600);
const MILLION: f64 = 1e6;
/// What both ends of a connection take of the kernel, at most, and their processes.
const BYTES_MAX: usize = 10 << 10;

fn main() -> Anything {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address] => serve(address),
        ["hold", address, count] => hold(address, count.parse()?),
        _ => measure_all(limit.maximum),
    }
}

fn serve(address: &str) -> Anything {
    let limits = Limits::new().max_connections(PER_PROCESS_MAX).process_bytes(4 << 30);
    let limits = limits.max_pending_handshakes(PER_PROCESS_MAX);
    // The clients answer none, and would be ended.
    let options = WebSockets::new().limits(limits).ping_period(LONG);
    echo_server::serve_echo(Listen::from(address), options)
}

/// Opens so many sessions, says so, and holds them until nobody listens any more.
fn hold(address: &str, count: usize) -> Anything {
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        let mut session = TcpStream::connect(address)?;
        session.write_all(frames::upgrade_request("/", "").as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 512];
            let n = session.read(&mut bytes)?;
            head.extend_from_slice(bytes.get(..n).filter(|it| !it.is_empty()).ok_or("it hung up")?);
        }
        sessions.push(session);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn measure_all(descriptors: Option<u64>) -> Anything {
    let most =
        descriptors.map_or(PER_PROCESS_MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let most = most.min(PER_PROCESS_MAX).saturating_sub(OTHER_DESCRIPTORS);
    let available = meminfo(&["MemAvailable"])?;
    let mut last = None;
    for (processes, each) in [(1, FIRST.min(most)), (1, most), (PROCESSES, most)] {
        let connections = processes * each;
        if connections * BYTES_MAX > available / 2 {
            println!("{connections} connections: left out, there is not the memory for them");
            continue;
        }
        let (user, kernel) = measure(processes, each)?;
        println!(
            "{connections} connections to {processes} servers: {user:.0} bytes each of the servers' \
             processes, {kernel:.0} of the kernel for both ends"
        );
        last = Some((user, kernel / 2.0));
    }
    let (user, kernel) = last.ok_or("nothing was measured")?;
    println!(
        "1000000 connections, each a session at rest: 1000000 x ({user:.0} + {kernel:.0}) bytes: \
         {:.0} MB of the servers' processes and {:.2} GB of the kernel",
        MILLION * user / 1e6,
        MILLION * kernel / 1e9
    );
    Ok(())
}

/// Bytes of the servers' processes and of the kernel for each connection.
fn measure(processes: usize, each: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let mut servers = Vec::new();
    for number in 1..=processes {
        servers.push(Part::start(&["serve", &format!("127.0.0.{number}:0")])?);
    }
    let mut clients = Vec::new();
    // The first session of each takes what all share.
    for server in &servers {
        clients.push(Part::start(&["hold", &server.said, "1"])?);
    }
    let (user, kernel) = (settled(|| resident(&servers))?, settled(slabs)?);
    for server in &servers {
        clients.push(Part::start(&["hold", &server.said, &(each - 1).to_string()])?);
    }
    let (user_after, kernel_after) = (settled(|| resident(&servers))?, settled(slabs)?);
    let connections = (processes * (each - 1)) as f64;
    let of = |after: usize, before: usize| after.saturating_sub(before) as f64 / connections;
    Ok((of(user_after, user), of(kernel_after, kernel)))
}

/// A process of this program, and the first line that it said. It is ended with it.
struct Part {
    process: Child,
    said: String,
    _output: BufReader<ChildStdout>,
}

impl Part {
    fn start(words: &[&str]) -> Result<Self, Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        let mut process =
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut said = String::new();
        output.read_line(&mut said)?;
        if said.is_empty() {
            return Err(format!("{words:?} ended: {}", process.wait()?).into());
        }
        Ok(Self { process, said: said.trim().to_owned(), _output: output })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Either may be over already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A figure that has stood still for half a second, or what it is after ten.
fn settled(read: impl Fn() -> Result<usize, Box<dyn Error>>) -> Result<usize, Box<dyn Error>> {
    let (mut last, mut stood) = (read()?, 0);
    for _ in 0..100 {
        thread::park_timeout(Duration::from_millis(100));
        let now = read()?;
        // Others on the machine take and give a little all the time.
        stood = if now.abs_diff(last) <= 64 << 10 { stood + 1 } else { 0 };
        last = now;
        if stood == 5 {
            break;
        }
    }
    Ok(last)
}

fn resident(servers: &[Part]) -> Result<usize, Box<dyn Error>> {
    let each = servers.iter().map(|server| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id()))?;
        kibibytes(&status, "RssAnon")
    });
    each.sum()
}

fn slabs() -> Result<usize, Box<dyn Error>> {
    meminfo(&["Slab", "KernelStack", "PageTables"])
}

fn meminfo(names: &[&str]) -> Result<usize, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    names.iter().map(|name| kibibytes(&text, name)).sum()
}

/// The bytes that a line of such a file says in KiB.
fn kibibytes(text: &str, name: &str) -> Result<usize, Box<dyn Error>> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("no {name}"))?.parse::<usize>()? << 10)
}

//! The ceiling of `Limits` against the resident set of a server under attack: the server is a
//! process of its own, at the defaults, so that nobody else's memory counts.
#![allow(clippy::disallowed_methods, reason = "waiting for another process has a bound")]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use socket2::{Domain, Type};
use support::*;
use wirewheel::{
    Application, Call, HandlerResult, Limits, ListenOptions, Server, Session, WebSockets,
    on_message,
};

/// Set in the process that is to be the server.
const SERVE: &str = "WIREWHEEL_CEILING_SERVES";

fn raise_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.stats("/metrics");
        route.web_socket("/", |_: &Call| {
            on_message(|session, message| match message.text() {
                Some("whole") => fill(session, 16_000),
                Some("crumbs") => fill(session, 1),
                _ => session.send(message),
            })
        });
    });
}

/// Sends until the peer's socket is full, and then until the outbox nearly is. What is this large
/// goes straight out or waits.
fn fill(session: &mut Session<'_>, bytes: usize) -> HandlerResult {
    while session.buffered_bytes() == 0 {
        session.send(&[7; 20_000])?;
    }
    while session.buffered_bytes() + bytes < 64_000 {
        session.send(&vec![7; bytes])?;
    }
    Ok(())
}

/// Not a test of its own: what the other process runs.
#[test]
fn serve() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    raise_descriptors();
    // What a peer does not read is to wait in the server and not in the system.
    let options = ListenOptions::new().send_buffer_bytes(4_096);
    let server = Server::bind_with("127.0.0.1:0", &options, module).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nat {}", server.local_addr()).unwrap();
    out.flush().unwrap();
    server.run().unwrap();
}

/// The server, and what its memory was before anybody came.
struct Victim {
    child: Child,
    addr: SocketAddr,
    before: usize,
}

impl Victim {
    fn start() -> Self {
        let mut child = emulator::command(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--nocapture", "--test-threads", "1"])
            .env(SERVE, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let mut told = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("at ").map(|address| address.parse().unwrap()));
        let addr = told.next().expect("the server's address");
        let mut victim = Self { child, addr, before: 0 };
        // One session of everything, so that what is needed once is there.
        let mut first = Client::connect(addr).upgraded("/");
        first.text("hello");
        first.expect_text("hello");
        victim.before = victim.memory("VmRSS");
        victim
    }

    /// In bytes.
    fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    /// The most that the attack made it grow, in bytes.
    fn growth(&self) -> usize {
        self.memory("VmHWM").saturating_sub(self.before)
    }

    /// A figure of its own account, of what it has come to by now.
    fn figure(&self, name: &str) -> usize {
        let request = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
        let figures = Client::connect(self.addr).request(request).body;
        let mut lines = figures.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().unwrap().trim().parse().unwrap()
    }

    /// The attack arrived, so that its growth means something.
    #[track_caller]
    fn expect_held(&self, bytes: usize) {
        let begun = Instant::now();
        loop {
            let held = self.figure("wirewheel_bytes_held"); // a request: the server has its turns
            if held >= bytes {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it holds {held}");
        }
    }

    #[track_caller]
    fn expect_connections(&self, count: usize) {
        assert!(self.figure("wirewheel_connections_open") >= count);
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A connection whose end takes next to nothing, so that the rest waits at the server.
fn deaf(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

/// Attackers that became sessions, all at once.
fn sessions(victim: &Victim, count: usize) -> Vec<TcpStream> {
    let request = upgrade_request("/", "");
    let mut streams: Vec<TcpStream> = Vec::new();
    while streams.len() < count {
        let batch = (count - streams.len()).min(200);
        let mut fresh: Vec<TcpStream> = (0..batch).map(|_| deaf(victim.addr)).collect();
        fresh.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
        for stream in &mut fresh {
            let mut answer = [0; 129];
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 101 "));
        }
        streams.append(&mut fresh);
    }
    streams
}

/// Sends as far as it goes; an attacker that is hung up on has done its part.
fn send(streams: &mut [TcpStream], bytes: &[u8]) {
    for stream in streams {
        match stream.write_all(bytes) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every attack, each on a server of its own: the name, and the growth.
fn attacks() -> Vec<(&'static str, usize)> {
    let mut results = Vec::new();
    let mut attack = |name: &'static str, act: &dyn Fn(&Victim)| {
        let victim = Victim::start();
        act(&victim);
        results.push((name, victim.growth()));
    };
    attack("sessions that say nothing", &|victim| {
        let streams = sessions(victim, 4_000);
        victim.expect_connections(4_000);
        drop(streams);
    });
    attack("most of a large message from each of few", &|victim| {
        let mut streams = sessions(victim, 500);
        for step in masked(BINARY, &[7; 65_000]).chunks(10_000).take(6) {
            send(&mut streams, step);
        }
        victim.expect_held(20 << 20);
    });
    attack("a part, and again as much, from each of many", &|victim| {
        let mut streams = sessions(victim, 4_000);
        // The smaller buffers leave holes that the larger do not fit into.
        for step in masked(BINARY, &[7; 65_000]).chunks(1_450).take(4) {
            send(&mut streams, step);
        }
        victim.expect_held(20 << 20);
    });
    attack("fragments that never end", &|victim| {
        let mut streams = sessions(victim, 1_000);
        let mut frame = masked(TEXT & 0x7f, b"");
        frame.extend(masked(0, &[b'x'; 500]).repeat(60));
        for step in frame.chunks(8_000) {
            send(&mut streams, step);
        }
        victim.expect_held(20 << 20);
    });
    attack("large messages that nobody reads", &|victim| {
        let mut streams = sessions(victim, 450);
        send(&mut streams, &masked(TEXT, b"whole"));
        victim.expect_held(20 << 20);
    });
    attack("crumbs that nobody reads", &|victim| {
        let mut streams = sessions(victim, 300);
        send(&mut streams, &masked(TEXT, b"crumbs"));
        victim.expect_held(20 << 20);
    });
    attack("heads that never end", &|victim| {
        let first = "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n";
        let head = format!("{first}GET / HTTP/1.1\r\nX: {}", "x".repeat(8_000));
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..3_200 {
            let mut stream = [TcpStream::connect(victim.addr).unwrap()];
            send(&mut stream, head.as_bytes());
            streams.extend(stream);
        }
        victim.expect_held(20 << 20);
    });
    results
}

#[test]
fn the_worst_attack_stays_under_the_ceiling_and_reaches_half_of_it() {
    raise_descriptors();
    let ceiling = Limits::new().memory_ceiling();
    let results = attacks();
    let mut out = std::io::stdout();
    for (name, growth) in &results {
        let of = format!("{} KiB of {} KiB", growth >> 10, ceiling >> 10);
        writeln!(out, "{name}: grew by {of}").unwrap();
    }
    for (name, growth) in &results {
        assert!(*growth <= ceiling, "{name}: grew by {growth}, ceiling {ceiling}");
    }
    let worst = results.iter().map(|(_, growth)| *growth).max().unwrap();
    assert!(worst * 2 >= ceiling, "the worst attack took {worst} of {ceiling}");
}

//! The ceiling of `Limits` against the resident set of a server under attack: the server is a
//! process of its own, at the defaults, so that nobody else's memory counts.
#![allow(clippy::disallowed_methods, reason = "waiting for another process has a bound")]

#[path = "ceiling/large.rs"]
mod large;
#[cfg(feature = "tls")]
#[path = "ceiling/secured.rs"]
mod secured;
mod support;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use socket2::{Domain, Type};
use support::*;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::options::ListenOptions;
use wirewheel::{
    Application, Call, HandlerResult, Limits, Routing, Server, Session, WebSockets, on_connect,
    on_message,
};

/// Set in the process that is to be the server.
const SERVE: &str = "WIREWHEEL_CEILING_SERVES";

fn raise_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

fn module(app: &mut Application) {
    // Attackers answer no pings; a busy machine takes longer for an attack than those are waited for.
    let mut options = WebSockets::new().ping_period(None);
    if std::env::var(SERVE).as_deref() == Ok("1") {
        options = options.limits(Limits::new().handshake_timeout(4 * PATIENCE));
    }
    #[cfg(feature = "deflate")]
    let options = options.extension(wirewheel::extension::Deflate::new());
    app.install(options);
    app.routing(|route| {
        // Takes a message a tick, and none more where it is told to stop.
        route.web_socket("/pauses", |_: &Call| {
            on_message(|session, message| {
                session.pause();
                if message.text() != Some("stop") {
                    session.set_timer(millis(1))?;
                }
                Ok(())
            })
            .on_timer(|session, _| {
                session.resume();
                Ok(())
            })
        });
        route.post("/body", |_, body| body.bytes().len().to_string());
        route.stats("/metrics");
        flows(route);
        route.web_socket("/", |_: &Call| {
            on_message(|session, message| match message.text() {
                Some("whole") => fill(session, 16_000),
                Some("crumbs") => fill(session, 1),
                _ => session.send(message),
            })
        });
    });
}

/// `/topics/{name}` publishes what it is sent, collects it and keeps 1 MiB of it; `/keys` keeps a value
/// for each text that it is sent.
fn flows(route: &mut Routing<'_>) {
    let topics: Rc<RefCell<HashMap<String, SharedFlow<[u8]>>>> = Rc::default();
    route.web_socket("/topics/{name}", move |call: &Call| {
        let options =
            FlowOptions::new().replay(1 << 20).on_buffer_overflow(BufferOverflow::DropOldest);
        let name = call.parameter("name").unwrap_or_default().into_owned();
        let new = || SharedFlow::with(options).unwrap();
        let flow = topics.borrow_mut().entry(name).or_insert_with(new).clone();
        let said = flow.clone();
        on_connect(move |session, _| session.collect(&flow))
            .on_message(move |session, message| session.emit(&said, message.bytes()))
    });
    let newest =
        FlowOptions::new().extra_buffer(1 << 20).on_buffer_overflow(BufferOverflow::Latest);
    let values: SharedFlow = SharedFlow::with(newest).unwrap();
    route.web_socket("/keys", move |_: &Call| {
        let (collected, said) = (values.clone(), values.clone());
        on_connect(move |session, _| session.collect(&collected)).on_message(
            move |session, message| {
                session.emit_latest(&said, message.text().unwrap_or_default(), "v")
            },
        )
    });
}

/// Sends until the peer's socket is full, and then until the outbox nearly is. What is this large
/// goes straight out or waits.
fn fill(session: &mut Session<'_>, bytes: usize) -> HandlerResult {
    while session.buffered_bytes() == 0 {
        session.send([7; 30_000])?;
    }
    while session.buffered_bytes() + bytes < 64_000 {
        session.send(vec![7; bytes])?;
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
    let is_large = std::env::var(SERVE).as_deref() == Ok(large::LARGE);
    let module: fn(&mut Application) = if is_large { large::module } else { module };
    let server = Server::bind_with("127.0.0.1:0", &options, module).unwrap();
    #[cfg_attr(
        not(feature = "tls"),
        allow(unused_mut, clippy::useless_vec, reason = "TLS has one more")
    )]
    let mut addresses = vec![server.local_addr()];
    #[cfg(feature = "tls")]
    let server = secured::listen_if_wanted(server, &options, &mut addresses);
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut out = std::io::stdout();
    writeln!(out, "\nat {}", addresses.join(" ")).unwrap();
    out.flush().unwrap();
    server.run().unwrap();
}

/// The server, and what its memory was before anybody came.
struct Victim {
    child: Child,
    addr: SocketAddr,
    /// Where it speaks TLS, if it does.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there is none"))]
    secured: Option<SocketAddr>,
    before: usize,
}

impl Victim {
    fn start() -> Self {
        let mut victim = Self::serving("1");
        victim.note_memory();
        victim
    }

    fn serving(what: &str) -> Self {
        let mut child = emulator::command(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--nocapture", "--test-threads", "1"])
            .env(SERVE, what)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let told = lines.find_map(|line| Some(line.strip_prefix("at ")?.to_owned()));
        let told = told.expect("the server's addresses");
        let mut addresses = told.split(' ').map(|address| address.parse().unwrap());
        let addr = addresses.next().unwrap();
        Self { child, addr, secured: addresses.next(), before: 0 }
    }

    fn note_memory(&mut self) {
        // One session of everything, so that what is needed once is there.
        let mut first = Client::connect(self.addr).upgraded("/");
        first.text("hello");
        first.expect_text("hello");
        self.before = self.memory("VmRSS");
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
    sessions_at(victim, count, "/", "")
}

fn sessions_at(victim: &Victim, count: usize, path: &str, extra: &str) -> Vec<TcpStream> {
    let request = upgrade_request(path, extra);
    let mut streams: Vec<TcpStream> = Vec::new();
    while streams.len() < count {
        let batch = (count - streams.len()).min(200);
        let mut fresh: Vec<TcpStream> = (0..batch).map(|_| deaf(victim.addr)).collect();
        fresh.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
        for stream in &mut fresh {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                answer.extend(byte);
            }
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
    attack_sessions(&mut |name, act| results.push(attack(name, act)));
    attack_requests(&mut |name, act| results.push(attack(name, act)));
    results
}

/// Runs an attack of that name.
type Attack<'a> = dyn FnMut(&'static str, &dyn Fn(&Victim)) + 'a;

fn attack(name: &'static str, act: &dyn Fn(&Victim)) -> (&'static str, usize) {
    let victim = Victim::start();
    act(&victim);
    (name, victim.growth())
}

fn attack_sessions(attack: &mut Attack<'_>) {
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
}

fn attack_requests(attack: &mut Attack<'_>) {
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
    attack("a part of a body, and again as much, from each of many", &|victim| {
        let mut streams = bodies(victim, 4_000, 60_000);
        for _ in 0..4 {
            send(&mut streams, &[b'x'; 1_450]);
        }
        victim.expect_held(20 << 20);
    });
    attack("most of a body from each of few, in short chunks", &|victim| {
        let mut streams = bodies(victim, 450, 0);
        let chunk = [&b"64;a\r\n"[..], &[b'x'; 100], b"\r\n"].concat();
        for _ in 0..6 {
            send(&mut streams, &chunk.repeat(80));
        }
        victim.expect_held(20 << 20);
    });
}

/// Attackers that began a body of that length, or of none that is known.
fn bodies(victim: &Victim, count: usize, length: usize) -> Vec<TcpStream> {
    let framing = match length {
        0 => "Transfer-Encoding: chunked".to_owned(),
        _ => format!("Content-Length: {length}"),
    };
    let head = format!("POST /body HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
    let connect = |_| {
        let mut stream = [TcpStream::connect(victim.addr).unwrap()];
        send(&mut stream, head.as_bytes());
        stream
    };
    (0..count).flat_map(connect).collect()
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

/// Sends what the peers take at the moment of an endless row of this frame, of which each has had so much.
fn press(streams: &mut [TcpStream], had: &mut [usize], frame: &[u8]) {
    let row = frame.repeat(9);
    for (stream, had) in streams.iter_mut().zip(had) {
        stream.set_nonblocking(true).unwrap();
        let next = &row[*had % frame.len()..];
        *had += stream.write(next).unwrap_or(0); // nothing, or it was hung up on
    }
}

/// A message of 55 kB that comes in pieces, so that it has to be held, and its echo.
#[track_caller]
fn expect_honest_traffic(victim: &Victim) {
    let mut client = Client::connect(victim.addr).upgraded("/");
    let mut beside = Client::connect(victim.addr).upgraded("/");
    let text = "x".repeat(55_000);
    for piece in masked(TEXT, text.as_bytes()).chunks(10_000) {
        client.write(piece);
        beside.text("the loop has its turns");
        beside.expect_text("the loop has its turns");
    }
    client.expect_text(&text);
}

#[track_caller]
fn expect_under_the_ceiling(victim: &Victim, attack: &str) {
    let (growth, ceiling) = (victim.growth(), Limits::new().memory_ceiling());
    let mut out = std::io::stdout();
    writeln!(out, "{attack}: grew by {} KiB of {} KiB", growth >> 10, ceiling >> 10).unwrap();
    assert!(growth <= ceiling, "{attack}: grew by {growth}, ceiling {ceiling}");
}

/// What went through a session that is read now and then is not held.
#[test]
fn sessions_that_take_one_message_at_a_time_stay_under_the_ceiling() {
    raise_descriptors();
    let victim = Victim::start();
    let mut streams = sessions_at(&victim, 400, "/pauses", "");
    let (begun, mut had, mut most) = (Instant::now(), vec![0; 400], 0);
    let message = masked(TEXT, &[b'x'; 8_000]);
    // What is held goes down as soon as nobody presses, so it is asked for in between.
    while had.iter().sum::<usize>() < 100 << 20 || most < 8 << 20 {
        press(&mut streams, &mut had, &message);
        most = most.max(victim.figure("wirewheel_bytes_held"));
        let sent = had.iter().sum::<usize>();
        assert!(begun.elapsed() < 6 * PATIENCE, "{sent} bytes were taken, {most} held");
    }
    expect_under_the_ceiling(&victim, "one message at a time");
    drop(streams);
    expect_honest_traffic(&victim);
}

/// Who is not read and hangs up is no longer held, though nobody ever goes on with it.
#[test]
fn peers_that_leave_while_they_are_not_read_take_with_them_what_is_held() {
    raise_descriptors();
    let victim = Victim::start();
    for _ in 0..2 {
        let mut streams = sessions_at(&victim, 300, "/pauses", "");
        send(&mut streams, &[masked(TEXT, b"stop"), masked(TEXT, &[b'x'; 50_000])].concat());
        victim.expect_held(12 << 20);
        drop(streams);
        let begun = Instant::now();
        while victim.figure("wirewheel_bytes_held") > 1 << 20 {
            assert!(begun.elapsed() < PATIENCE, "their end was not seen");
        }
    }
    expect_under_the_ceiling(&victim, "peers that leave while they are not read");
    expect_honest_traffic(&victim);
}

/// Messages that have begun hold what arrived of them, and an inflater only for as much.
#[cfg(feature = "deflate")]
#[test]
fn compressed_messages_that_never_end_stay_under_the_ceiling() {
    raise_descriptors();
    let victim = Victim::start();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut streams = sessions_at(&victim, 600, "/", offer);
    let begun = masked(0xc2, &[0xf2; 60_000]);
    send(&mut streams, &begun[..8 + 7]);
    expect_honest_traffic(&victim); // while they are there
    assert!(victim.figure("wirewheel_bytes_held") < 1 << 20);
    drop(streams);
    let stored = [&b"\x00\xff\x3f\x00\xc0"[..], &[b'x'; 0x3fff]].concat().repeat(3);
    let mut streams = sessions_at(&victim, 400, "/", offer);
    send(&mut streams, &masked(0x42, &stored));
    victim.expect_held(20 << 20);
    expect_under_the_ceiling(&victim, "compressed messages that never end");
    drop(streams);
    expect_honest_traffic(&victim);
}

/// On its topic, so many messages of so many bytes: all were taken once the last has come back. What is
/// said is of no use to a compressor.
fn fill_topic(client: &mut Client, count: usize, bytes: usize) {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut batch = Vec::new();
    for _ in 0..count {
        let payload = (0..bytes).map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()[0]
        });
        batch.extend(masked(BINARY, &payload.collect::<Vec<u8>>()));
        if batch.len() >= 60_000 {
            client.write(&batch);
            client.expect_pong();
            batch.clear();
        }
    }
    client.write(&batch);
    client.expect_pong();
}

impl Client {
    /// Passes over what comes before the answer to a ping: all that was sent before it was taken.
    #[track_caller]
    fn expect_pong(&mut self) {
        self.send(PING, b"");
        while self.frame().first != PONG {}
    }
}

/// Publishers and subscribers of a topic that is new go on as if nothing had been.
#[track_caller]
fn expect_a_new_topic_works(victim: &Victim) {
    let path = "/topics/honest";
    let mut reader = Client::connect(victim.addr).upgraded(path);
    let mut talker = Client::connect(victim.addr).upgraded(path);
    for n in 0..20_u8 {
        talker.send(BINARY, &[n; 50_000]);
        assert_eq!(reader.frame().payload, [n; 50_000]);
        assert_eq!(talker.frame().payload, [n; 50_000]);
    }
    assert_eq!(victim.figure("wirewheel_over_budget_total"), 0, "no session had to go");
}

#[test]
fn topics_that_everybody_left_stay_under_the_ceiling_and_make_room() {
    for (topics, count, bytes) in [(40, 16, 60_000), (30, 12_000, 1)] {
        let victim = Victim::start();
        for topic in 0..topics {
            let mut client = Client::connect(victim.addr).upgraded(&format!("/topics/{topic}"));
            fill_topic(&mut client, count, bytes);
        }
        victim.expect_held(20 << 20);
        expect_a_new_topic_works(&victim);
        expect_under_the_ceiling(&victim, "topics that everybody left");
    }
}

/// Who collects them holds nothing that it awaits.
#[test]
fn topics_that_keep_much_for_those_to_come_make_room_too() {
    let victim = Victim::start();
    let clients: Vec<Client> = (0..40)
        .map(|topic| {
            let mut client = Client::connect(victim.addr).upgraded(&format!("/topics/{topic}"));
            fill_topic(&mut client, 16, 60_000);
            client
        })
        .collect();
    victim.expect_held(20 << 20);
    expect_a_new_topic_works(&victim);
    expect_under_the_ceiling(&victim, "topics that keep much");
    victim.expect_connections(clients.len());
}

/// One message is kept in four more encodings.
#[cfg(feature = "deflate")]
#[test]
fn encodings_for_many_windows_stay_under_the_ceiling_and_make_room() {
    let victim = Victim::start();
    for topic in 0..12 {
        let path = format!("/topics/{topic}");
        let mut readers = Vec::new();
        for bits in 9..=12 {
            let window = format!("permessage-deflate; server_max_window_bits={bits}");
            let offer = format!("Sec-WebSocket-Extensions: {window}\r\n");
            let mut reader = Client::connect(victim.addr);
            assert_eq!(reader.request(&upgrade_request(&path, &offer)).status, 101);
            readers.push(reader);
        }
        let mut talker = Client::connect(victim.addr).upgraded(&path);
        for _ in 0..8 {
            fill_topic(&mut talker, 2, 60_000);
            for reader in &mut readers {
                (0..2).for_each(|_| drop(reader.frame()));
            }
        }
    }
    expect_a_new_topic_works(&victim);
    expect_under_the_ceiling(&victim, "encodings for many windows");
}

#[test]
fn keys_that_a_client_makes_up_stay_under_the_ceiling() {
    let victim = Victim::start();
    let mut client = Client::connect(victim.addr).upgraded("/keys");
    for number in 0..1_500 {
        client.text(&format!("{number:060000}"));
        loop {
            let frame = client.frame();
            match frame.first {
                TEXT => break assert_eq!(frame.payload, b"v"),
                PING => client.send(PONG, &frame.payload), // on a slow machine this takes a while
                first => panic!("{first:#04x}"),
            }
        }
    }
    expect_a_new_topic_works(&victim);
    expect_under_the_ceiling(&victim, "keys that a client makes up");
    assert!(victim.growth() < 8 << 20, "one flow of 1 MiB grew by {}", victim.growth());
}

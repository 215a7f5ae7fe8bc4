//! Floods beside an honest client: the longest silence that it hears while 64 connections send 256 KiB
//! each at once, and what a steady sender, or logins that are asked elsewhere, do to its round trips.
//!
//! Run it with `cargo bench --bench floods [-- NAME...]`: `tokens`, `pages`, `files`, `metrics`,
//! `deflate`, `steady`, `logins`; with `--features tls` also `handshakes`, 200 at once. The server is a
//! process of its own. It fails where a limit is not met.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;
mod logins;
#[cfg(feature = "tls")]
mod storm;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use wirewheel::extension::Deflate;
use wirewheel::{Application, Call, Limits, Response, Server, WebSockets, on_message};

use frames::upgrade_request;

type Anything<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const CONNECTIONS: usize = 64;
const BYTES_EACH: usize = 256 << 10;
/// The longest that an honest client waits for an echo while the others flood.
const SILENCE_MAX: Duration = Duration::from_millis(250);
const HONEST_PERIOD: Duration = Duration::from_millis(10);
/// How much a steady sender may lengthen the others' median round trip.
const STRETCH_MAX: f64 = 2.0;
const STEADY_BYTES_PER_SECOND: usize = 1 << 20;
/// Longer than any flood takes.
const PATIENCE: Duration = Duration::from_secs(120);

const FLOODS: [&str; 5] = ["tokens", "pages", "files", "metrics", "deflate"];

fn main() -> Anything<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words == ["serve"] {
        serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |name: &str| words.is_empty() || words.contains(&name);
    let mut met = true;
    for name in FLOODS.into_iter().filter(|name| wanted(name)) {
        met &= flood(name)?;
    }
    #[cfg(feature = "tls")]
    if wanted("handshakes") {
        let served = Served::start()?;
        met &= storm::storm(served.secured)?;
    }
    if wanted("steady") {
        met &= steady(Duration::from_secs(60))?;
    }
    if wanted("logins") {
        met &= logins::logins()?;
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn serve() -> Anything {
    let path = std::env::temp_dir().join(format!("wirewheel-flood-{}", std::process::id()));
    std::fs::write(&path, "a file of twenty-two B")?;
    let shown = path.clone();
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        let limits = Limits::new().max_deferred(logins::DEFERRED_MAX);
        app.install(WebSockets::new().extension(Deflate::new()).limits(limits));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
            route
                .web_socket("/spoken", |_: &Call| on_message(|_, _| Ok(())))
                .protocol("never-offered");
            route.get("/page", |_| "a page");
            route.get("/file", move |_| Response::file(&shown));
            route.stats("/metrics");
            logins::add_routes(route);
        });
    })?;
    #[cfg(feature = "tls")]
    let server = server.listen(storm::listen())?;
    let addresses: Vec<String> = server.local_addrs().iter().map(ToString::to_string).collect();
    println!("{}", addresses.join(" "));
    server.run()?;
    std::fs::remove_file(path)?;
    Ok(())
}

/// The server's process, which ends with this value.
struct Served {
    child: Child,
    addr: SocketAddr,
    #[cfg(feature = "tls")]
    secured: SocketAddr,
}

impl Served {
    fn start() -> Anything<Self> {
        let mut child =
            Command::new(std::env::current_exe()?).arg("serve").stdout(Stdio::piped()).spawn()?;
        let mut addresses = String::new();
        let out = child.stdout.as_mut().ok_or("no output")?;
        BufReader::new(out).read_line(&mut addresses)?;
        let mut addresses = addresses.split_whitespace().map(str::parse);
        Ok(Self {
            child,
            addr: addresses.next().ok_or("no address")??,
            #[cfg(feature = "tls")]
            secured: addresses.next().ok_or("no address with TLS")??,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One flood; whether the honest client heard something often enough.
fn flood(name: &str) -> Anything<bool> {
    let served = Served::start()?;
    let addr = served.addr;
    let payload = flood_bytes(name)?;
    let (begins, left) = (Barrier::new(CONNECTIONS + 1), AtomicUsize::new(CONNECTIONS));
    let mut honest = Honest::connect(addr)?;
    let (longest, took) = thread::scope(|scope| -> Anything<_> {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let sent = flooder(addr, name, &payload, &begins);
                left.fetch_sub(1, Ordering::SeqCst);
                if let Err(error) = sent {
                    println!("{name}: a flooder failed: {error}");
                }
            });
        }
        honest.exchange()?;
        begins.wait();
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        while left.load(Ordering::SeqCst) > 0 {
            longest = longest.max(honest.exchange()?);
            thread::park_timeout(HONEST_PERIOD);
        }
        Ok((longest, began.elapsed()))
    })?;
    let met = longest < SILENCE_MAX;
    println!(
        "{name}: the flood took {} ms, the longest silence {} ms, limit {} ms: {}",
        took.as_millis(),
        longest.as_millis(),
        SILENCE_MAX.as_millis(),
        verdict(met)
    );
    Ok(met)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "NOT MET" }
}

/// What one connection sends: as many whole requests or messages as fit, the last of which ends it.
fn flood_bytes(name: &str) -> Anything<Vec<u8>> {
    let (one, last) = match name {
        "tokens" => {
            let letters = || ('a'..='z').chain('A'..='Z');
            let pairs = letters().flat_map(|a| letters().map(move |b| format!("{a}{b},")));
            let tokens: String = pairs.take(2_600).collect(); // all different
            let offer = format!("Sec-WebSocket-Protocol: {tokens}last\r\n");
            let head = upgrade_request("/spoken", &offer);
            (head.into_bytes(), goodbye("/page"))
        }
        "pages" => (b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), goodbye("/page")),
        "files" => (b"GET /file HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), goodbye("/page")),
        "metrics" => (b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), goodbye("/page")),
        "deflate" => (frame(0xc2, &deflated_zeros(65_000)?), frame(0x88, &[])),
        _ => return Err(format!("no flood is called {name}").into()),
    };
    let mut bytes = one.repeat((BYTES_EACH - last.len()) / one.len());
    bytes.extend(last);
    Ok(bytes)
}

fn goodbye(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes()
}

/// A whole message as permessage-deflate has it (RFC 7692 section 7.2.1).
fn deflated_zeros(len: usize) -> Anything<Vec<u8>> {
    let mut out = Vec::with_capacity(1_024);
    Compress::new(Compression::best(), false).compress_vec(
        &vec![0; len],
        &mut out,
        FlushCompress::Sync,
    )?;
    out.truncate(out.len() - 4);
    Ok(out)
}

/// A client's frame of at most 125 bytes, under a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    assert!(len < 126, "a short frame");
    [&[first, 0x80 | len, 0, 0, 0, 0][..], payload].concat()
}

/// Sends all of it once everybody is there, and reads what comes until the end.
fn flooder(addr: SocketAddr, name: &str, bytes: &[u8], begins: &Barrier) -> Anything {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let ready = connect(addr).and_then(|mut stream| {
        if name == "deflate" {
            upgrade(&mut stream, offer)?;
        }
        Ok(stream)
    });
    begins.wait();
    let stream = ready?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| drain(&stream));
        let sent = (&stream).write_all(bytes);
        if sent.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let drained = reader.join().unwrap_or_else(|_| Err("the reader panicked".into()));
        sent?;
        drained
    })
}

fn drain(mut stream: &TcpStream) -> Anything {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn connect(addr: SocketAddr) -> Anything<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn upgrade(stream: &mut (impl Read + Write), extra: &str) -> Anything {
    stream.write_all(upgrade_request("/", extra).as_bytes())?;
    read_head(stream)
}

/// The head of an answer that lets in.
fn read_head(stream: &mut impl Read) -> Anything {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") { Ok(()) } else { Err("no upgrade".into()) }
}

/// Somebody who says a little and expects it back.
struct Honest<S>(S);

impl Honest<TcpStream> {
    fn connect(addr: SocketAddr) -> Anything<Self> {
        let mut stream = connect(addr)?;
        upgrade(&mut stream, "")?;
        Ok(Self(stream))
    }
}

impl<S: Read + Write> Honest<S> {
    /// How long an echo takes. A ping in between is read over.
    fn exchange(&mut self) -> Anything<Duration> {
        let began = Instant::now();
        self.0.write_all(&frame(0x82, &[7; 20]))?;
        loop {
            let mut header = [0; 2];
            self.0.read_exact(&mut header)?;
            let mut payload = vec![0; usize::from(header[1])];
            self.0.read_exact(&mut payload)?;
            match header[0] {
                0x82 => return Ok(began.elapsed()),
                0x89 => self.0.write_all(&frame(0x8a, &payload))?,
                other => return Err(format!("an answer of {other:#x}").into()),
            }
        }
    }

    /// The median of the round trips of this time.
    fn median(&mut self, time: Duration) -> Anything<Duration> {
        let mut trips = self.trips(time)?;
        trips.sort_unstable();
        trips.get(trips.len() / 2).copied().ok_or_else(|| "no round trips".into())
    }

    /// The round trips of this time.
    fn trips(&mut self, time: Duration) -> Anything<Vec<Duration>> {
        let began = Instant::now();
        let mut trips = Vec::new();
        while began.elapsed() < time {
            trips.push(self.exchange()?);
            thread::park_timeout(HONEST_PERIOD);
        }
        Ok(trips)
    }
}

/// 1 MiB of small messages a second by one peer; whether the other's median stays within twice its own.
fn steady(time: Duration) -> Anything<bool> {
    let served = Served::start()?;
    let mut honest = Honest::connect(served.addr)?;
    let alone = honest.median(time / 6)?;
    let mut stream = connect(served.addr)?;
    upgrade(&mut stream, "")?;
    let over = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        let reader = scope.spawn(|| drain(&stream));
        let sender = scope.spawn(|| send_steadily(&stream, &over));
        let beside = honest.median(time);
        over.store(true, Ordering::SeqCst);
        let sent = sender.join().unwrap_or_else(|_| Err("the sender panicked".into()));
        let drained = reader.join().unwrap_or_else(|_| Err("the reader panicked".into()));
        sent.and(drained).and(beside)
    })?;
    let stretch = beside.as_secs_f64() / alone.as_secs_f64();
    let met = stretch <= STRETCH_MAX;
    println!(
        "steady: median round trip {} us alone, {} us beside 1 MiB/s of 100 B messages: {stretch:.2} \
         times, limit {STRETCH_MAX}: {}",
        alone.as_micros(),
        beside.as_micros(),
        verdict(met)
    );
    Ok(met)
}

/// A hundredth of a second's share at a time.
fn send_steadily(mut stream: &TcpStream, over: &AtomicBool) -> Anything {
    let message = frame(0x82, &[7; 100]);
    let share = message.repeat(STEADY_BYTES_PER_SECOND / 100 / 100);
    let began = Instant::now();
    for turn in 1.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        stream.write_all(&share)?;
        let due = HONEST_PERIOD * turn;
        thread::park_timeout(due.saturating_sub(began.elapsed()));
    }
    stream.write_all(&frame(0x88, &[]))?;
    Ok(())
}

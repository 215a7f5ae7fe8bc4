//! What the integration tests share: a server with a recording handler, and a client that speaks
//! bytes and frames over a real socket.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::cast_possible_truncation, reason = "lengths that a test made up")]
#![allow(unreachable_pub, reason = "shared by several test crates")]

pub mod cargo;
pub mod emulator;
#[path = "../../src/testing/frames.rs"]
mod frames;
pub mod loops;
pub mod program;
pub mod streams;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use wirewheel::error::SessionError;
use wirewheel::message::Payload;
use wirewheel::{
    Application, Call, CloseInfo, Handler, HandlerResult, Message, Server, ServerRef, Session,
};

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use frames::{KEY, masked, upgrade_request};
use loops::{Served, start};

/// The longest that a test waits for what must happen: a machine that others use stands still for seconds.
pub const PATIENCE: Duration = Duration::from_secs(30 * emulator::SLOWER);
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A folder for sockets: their paths hold 107 bytes, which a long `TMPDIR` alone may take.
pub fn socket_folder() -> PathBuf {
    let folder = std::env::temp_dir();
    if folder.as_os_str().len() <= 50 { folder } else { "/tmp".into() }
}

/// A program that is not ours. Where it is missing nothing is tested, but in the step that installs it.
#[allow(clippy::print_stdout, reason = "who runs the test is told")]
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.is_file());
    if found.is_none() {
        assert!(std::env::var_os("WIREWHEEL_PROXY_STREAMS").is_none(), "{name} is not installed");
        println!("{name} is not installed: nothing is tested");
    }
    found
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Asks until it is so.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "a test that hangs is to end")]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

/// A port for another program. It lies below those that the system gives to who asks for any: nobody is given
/// it before that program listens.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    let mut ports = (0..10_000).map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}

/// Does what is measured in real time, up to four times: a machine that others use stands still for longer
/// than is allowed now and then, and a fault is there each time.
pub fn measured(mut act: impl FnMut()) {
    for _ in 0..3 {
        if catch_unwind(AssertUnwindSafe(&mut act)).is_ok() {
            return;
        }
    }
    act();
}

/// A server that is stopped when the test ends.
pub struct Running(pub Served);

impl Running {
    pub fn start(module: impl FnOnce(&mut Application) + Send + 'static) -> Self {
        Self::of(Server::bind("127.0.0.1:0", module).unwrap())
    }

    pub fn of<M: FnOnce(&mut Application) + Send + 'static>(server: Server<M>) -> Self {
        Self(start(server).unwrap())
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    pub fn upgrade(&self, path: &str) -> Client {
        self.connect().upgraded(path)
    }

    /// Does something while the loop stands still. What is connected and said meanwhile is there at once for
    /// the server: none of its time-outs is too short for a client that is kept from its next line.
    pub fn while_held<T>(&self, act: impl FnOnce() -> T) -> T {
        let (release, released) = channel::<()>();
        let (begun, begins) = channel();
        let hold = move |_: &mut ServerRef<'_>| {
            begun.send(()).unwrap();
            let _ = released.recv();
        };
        self.0.defer(hold).unwrap();
        begins.recv_timeout(PATIENCE).unwrap();
        let result = act();
        drop(release);
        result
    }

    /// A client that has said this when the server sees it.
    pub fn saying(&self, bytes: impl AsRef<[u8]>) -> Client {
        self.while_held(|| {
            let mut client = self.connect();
            client.write(bytes);
            client
        })
    }

    /// As [`Self::upgrade`], where the server waits for a head but a moment.
    #[track_caller]
    pub fn upgrade_at_once(&self, path: &str) -> Client {
        self.saying(upgrade_request(path, "")).answered_101()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.shutdown(Duration::ZERO);
        if !thread::panicking() {
            self.0.join().unwrap();
        }
    }
}

/// What a handler was told, in words: `connect /path`, `text ..`, `binary N`, `error ..`,
/// `close CODE reason by whom clean`.
pub struct Events(Receiver<String>);

impl Events {
    pub fn from_channel(inbox: Receiver<String>) -> Self {
        Self(inbox)
    }

    #[track_caller]
    pub fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("an event")
    }

    #[track_caller]
    pub fn expect(&self, event: &str) {
        assert_eq!(self.next(), event);
    }

    /// Everything that is there by now, without waiting.
    pub fn so_far(&self) -> Vec<String> {
        self.0.try_iter().collect()
    }

    /// Everything until all handlers are gone.
    pub fn rest(&self) -> Vec<String> {
        self.0.iter().collect()
    }
}

/// A handler that reports every hook; it echoes if it is told to.
pub struct Recorder {
    events: Sender<String>,
    echo: bool,
}

/// A factory of recorders, and what they report.
pub fn recorder(echo: bool) -> (impl Fn(&Call) -> Recorder + Send + Clone + 'static, Events) {
    let (events, inbox) = channel();
    (move |_: &Call| Recorder { events: events.clone(), echo }, Events(inbox))
}

impl Recorder {
    fn report(&self, event: String) {
        let _ = self.events.send(event);
    }
}

impl Handler for Recorder {
    fn on_connect(&mut self, _session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.report(format!("connect {}", call.uri()));
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        match message.payload() {
            Payload::Text(text) => self.report(format!("text {text}")),
            Payload::Binary(bytes) => self.report(format!("binary {}", bytes.len())),
        }
        if self.echo { session.send(message) } else { Ok(()) }
    }

    fn on_pong(&mut self, _session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.report(format!("pong {}", rtt > Duration::ZERO));
        Ok(())
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.report(format!("error {error}, {}", told(session.close_info())));
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        assert_eq!(session.close_info(), Some(close));
        self.report(told(Some(close)));
    }
}

fn told(close: Option<&CloseInfo>) -> String {
    close.map_or_else(String::new, |close| {
        let (code, reason) = (close.code(), close.text());
        let how = if close.is_clean() { "clean" } else { "unclean" };
        format!("close {code} {reason:?} by {:?} {how}", close.closed_by())
    })
}

/// A client that writes what a test tells it to, legal or not.
pub struct Client {
    pub stream: TcpStream,
    /// What arrived and was not asked for yet.
    pub inbox: Vec<u8>,
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// An answer from the server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

pub fn close_payload(code: u16, text: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], text.as_bytes()].concat()
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, inbox: Vec::new() }
    }

    #[track_caller]
    pub fn upgraded(mut self, path: &str) -> Self {
        self.write(upgrade_request(path, ""));
        self.answered_101()
    }

    /// Whose upgrade was asked for is a session.
    #[track_caller]
    pub fn answered_101(mut self) -> Self {
        let answer = self.answer(false);
        assert_eq!(answer.status, 101, "{answer:?}");
        self
    }

    /// Upgraded as [`Self::upgraded`], or nothing where the server hung up before it answered.
    #[track_caller]
    pub fn upgraded_unless_hung_up_on(mut self, path: &str) -> Option<Self> {
        self.stream.write_all(upgrade_request(path, "").as_bytes()).ok()?;
        if !self.try_fill().unwrap_or(false) {
            return None;
        }
        let answer = self.answer(false);
        assert_eq!(answer.status, 101, "{answer:?}");
        Some(self)
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(masked(first, payload));
    }

    pub fn text(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    /// Sends one request and reads its answer.
    #[track_caller]
    pub fn request(&mut self, text: &str) -> Answer {
        self.write(text);
        self.answer(text.starts_with("HEAD"))
    }

    /// Reads an answer; that to HEAD has no body.
    #[track_caller]
    pub fn answer(&mut self, head_only: bool) -> Answer {
        let end = loop {
            let end = self.inbox.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => assert!(self.fill(), "the connection ended within a head"),
            }
        };
        let head = String::from_utf8(self.take(end)).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
        if !head_only {
            answer.body = String::from_utf8(self.read(length)).unwrap();
        }
        answer
    }

    /// Reads more; false at the end.
    pub fn fill(&mut self) -> bool {
        self.try_fill().unwrap_or_else(|error| panic!("reading: {error}"))
    }

    fn try_fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 65_536];
        let n = loop {
            match self.stream.read(&mut buffer) {
                // A process that was stopped and goes on is told so, as this read has a time-out.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.inbox.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        self.inbox.drain(..n).collect()
    }

    #[track_caller]
    fn read(&mut self, n: usize) -> Vec<u8> {
        while self.inbox.len() < n {
            assert!(self.fill(), "the connection ended early; so far {:?}", self.inbox);
        }
        self.take(n)
    }

    /// A message that may come in several frames, as one.
    #[track_caller]
    pub fn message(&mut self) -> Frame {
        let mut message = self.frame();
        while message.first & 0x80 == 0 {
            let next = self.frame();
            assert_eq!(next.first & 0x0f, 0, "a continuation");
            message.first |= next.first & 0x80;
            message.payload.extend(next.payload);
        }
        message
    }

    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        let header = self.read(2);
        let len = match header[1] & 127 {
            126 => u16::from_be_bytes(self.read(2).try_into().unwrap()) as usize,
            127 => u64::from_be_bytes(self.read(8).try_into().unwrap()) as usize,
            short => short as usize,
        };
        let mask = if header[1] & 0x80 == 0 { vec![0; 4] } else { self.read(4) };
        let mut payload = self.read(len);
        payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= mask[i % 4]);
        Frame { first: header[0], payload }
    }

    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        let frame = self.frame();
        assert_eq!((frame.first, String::from_utf8_lossy(&frame.payload).as_ref()), (TEXT, text));
    }

    /// The next frame is a Close with that code; its text comes back.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let frame = self.frame();
        assert_eq!(frame.first, CLOSE, "{frame:?}");
        let (head, text) = frame.payload.split_at(2);
        assert_eq!(u16::from_be_bytes(head.try_into().unwrap()), code, "{frame:?}");
        String::from_utf8(text.to_vec()).unwrap()
    }

    /// All text up to the first place where this comes, and that.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        let mut searched = 0;
        loop {
            let from = searched.min(self.inbox.len());
            let found =
                self.inbox[from..].windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                return String::from_utf8(self.take(from + at + end.len())).unwrap();
            }
            searched = self.inbox.len().saturating_sub(end.len());
            let more = self.fill();
            assert!(more, "no {end:?} in {:?}", String::from_utf8_lossy(&self.inbox));
        }
    }

    /// Nothing more comes but the end.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        while self.fill() {}
        assert!(self.inbox.is_empty(), "before the end: {:?}", self.inbox);
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

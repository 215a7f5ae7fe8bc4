//! The clients: readers that check every byte, some that do not read, and one that publishes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::frames::upgrade_request;

pub(crate) const PAYLOAD_BYTES: usize = 1_024;
pub(crate) const FRAME_BYTES: usize = PAYLOAD_BYTES + 4;
/// What a message takes as an event: in base64, with its id and field names, at most.
pub(crate) const EVENT_BYTES: usize = PAYLOAD_BYTES.div_ceil(3) * 4 + 64;
/// The number of a message stands at the start of its payload.
const DIGITS: usize = 8;
/// The longest that clients wait for a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the swarm is to do.
pub(crate) struct Plan {
    pub(crate) addr: SocketAddr,
    pub(crate) readers: usize,
    pub(crate) stalled: usize,
    pub(crate) messages: usize,
    /// Messages that are on their way at once; 0: no limit.
    pub(crate) window: usize,
    /// Every second reader listens to an event stream.
    pub(crate) mixed: bool,
    pub(crate) stalled_stay: bool,
}

impl Plan {
    pub(crate) fn to_arguments(&self) -> [String; 7] {
        [
            self.addr.to_string(),
            self.readers.to_string(),
            self.stalled.to_string(),
            self.messages.to_string(),
            self.window.to_string(),
            self.mixed.to_string(),
            self.stalled_stay.to_string(),
        ]
    }

    pub(crate) fn from_arguments(arguments: &[&str]) -> Self {
        let [addr, readers, stalled, messages, window, mixed, stalled_stay] = arguments else {
            panic!("not the arguments of a swarm: {arguments:?}");
        };
        Self {
            addr: addr.parse().unwrap(),
            readers: readers.parse().unwrap(),
            stalled: stalled.parse().unwrap(),
            messages: messages.parse().unwrap(),
            window: window.parse().unwrap(),
            mixed: mixed.parse().unwrap(),
            stalled_stay: stalled_stay.parse().unwrap(),
        }
    }
}

pub(crate) fn run(plan: &Plan) {
    crate::raise_descriptors();
    let mut stalled: Vec<TcpStream> =
        (0..plan.stalled).map(|_| upgraded(plan.addr, "/listen", true)).collect();
    let mut readers = Readers::connect(plan);
    let publisher = publish(upgraded(plan.addr, "/talk", false));
    say("connected");

    let mut published = 0;
    for name in ["first", "second"] {
        wait_for_go();
        publisher.send(1).unwrap();
        published += 1;
        readers.read_until(published);
        say(name);
    }
    wait_for_go();
    let mut longest_pause = Duration::ZERO;
    while published < plan.messages {
        let left = plan.messages - published;
        let next = if plan.window == 0 { left } else { plan.window.min(left) };
        publisher.send(next).unwrap();
        published += next;
        longest_pause = longest_pause.max(readers.read_until(published));
    }
    let mut report = format!("{} got all {published} in order", plan.readers);
    if plan.window == 0 {
        report += &format!(", the publisher waited {:.1} s", longest_pause.as_secs_f64());
        assert!(longest_pause > Duration::from_secs(1), "it did not wait: {longest_pause:?}");
    }
    if plan.stalled_stay {
        let missed: Vec<usize> =
            stalled.iter_mut().map(|stream| ask_what_was_missed(stream, published)).collect();
        let (least, most) = (missed.iter().min().unwrap(), missed.iter().max().unwrap());
        report += &format!(", the stalled were told that they missed {least} to {most}");
        assert!(*least > 0, "{missed:?}");
    }
    say(&report);
    wait_for_go();
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn say(line: &str) {
    println!("{line}");
}

fn wait_for_go() {
    io::stdin().read_line(&mut String::new()).unwrap();
}

/// Connects and upgrades. A stalled client has the smallest buffer, so that it is full soon.
fn upgraded(addr: SocketAddr, path: &str, stalls: bool) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    if stalls {
        socket.set_recv_buffer_size(4 << 10).unwrap();
    }
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let is_stream = path == "/events";
    let request = match is_stream {
        true => format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"),
        false => upgrade_request(path, ""),
    };
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let status = if is_stream { &b"HTTP/1.1 200 "[..] } else { b"HTTP/1.1 101 " };
    assert!(head.starts_with(status), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A thread that publishes as many further messages as it is told.
fn publish(mut stream: TcpStream) -> Sender<usize> {
    let (more, told) = channel::<usize>();
    thread::spawn(move || {
        let mut number = 0;
        for count in told {
            for _ in 0..count {
                let payload = payload(number);
                let mut frame = vec![0x82, 0xfe, 0x04, 0x00, 0, 0, 0, 0]; // masked with zeros
                frame.extend_from_slice(&payload);
                stream.write_all(&frame).unwrap();
                number += 1;
            }
        }
    });
    more
}

fn payload(number: usize) -> Vec<u8> {
    let mut payload = format!("{number:0DIGITS$}").into_bytes();
    payload.resize(PAYLOAD_BYTES, b'x');
    payload
}

/// Those who read, and what they have got.
struct Readers {
    poll: Poll,
    events: Events,
    all: Vec<Reader>,
    buffer: Vec<u8>,
    /// What messages look like.
    expected: Expected,
    /// Messages that all have got together.
    got: usize,
}

struct Reader {
    stream: mio::net::TcpStream,
    /// The message that comes next, and how much of its frame has come.
    number: usize,
    at: usize,
    /// What has come of the present line, where it is an event stream.
    line: Option<Vec<u8>>,
}

/// What a message is to look like.
struct Expected {
    /// The frame of a message, whose number is put in.
    frame: Vec<u8>,
    /// The lines of events with the messages so far.
    data: Vec<Vec<u8>>,
}

impl Readers {
    fn connect(plan: &Plan) -> Self {
        let poll = Poll::new().unwrap();
        let all = (0..plan.readers).map(|place| {
            let is_stream = plan.mixed && place % 2 == 0;
            let path = if is_stream { "/events" } else { "/listen" };
            let stream = upgraded(plan.addr, path, false);
            stream.set_nonblocking(true).unwrap();
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(place), Interest::READABLE).unwrap();
            Reader { stream, number: 0, at: 0, line: is_stream.then(Vec::new) }
        });
        let all = all.collect();
        let frame = [&[0x82, 0x7e, 0x04, 0x00], payload(0).as_slice()].concat();
        let expected = Expected { frame, data: Vec::new() };
        let events = Events::with_capacity(1_024);
        Self { poll, events, all, buffer: vec![0; 64 << 10], expected, got: 0 }
    }

    /// Reads until all have `messages`; how long the longest pause between two of them was.
    fn read_until(&mut self, messages: usize) -> Duration {
        let mut longest_pause = Duration::ZERO;
        let mut last = Instant::now();
        while self.got < messages * self.all.len() {
            self.poll.poll(&mut self.events, Some(PATIENCE)).unwrap();
            assert!(!self.events.is_empty(), "nothing came for {PATIENCE:?}");
            longest_pause = longest_pause.max(last.elapsed());
            for event in &self.events {
                let reader = &mut self.all[event.token().0];
                self.got += reader.read(&mut self.buffer, &mut self.expected);
            }
            last = Instant::now();
        }
        longest_pause
    }
}

impl Reader {
    /// Reads what there is; how many messages that completed.
    fn read(&mut self, buffer: &mut [u8], expected: &mut Expected) -> usize {
        let before = self.number;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => panic!("the connection of a reader ended at message {}", self.number),
                Ok(n) => {
                    match self.line.take() {
                        Some(line) => self.check_lines(line, &buffer[..n], &mut expected.data),
                        None => self.check(&buffer[..n], &mut expected.frame),
                    }
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("a reader at message {}: {error}", self.number),
            }
        }
        self.number - before
    }

    fn check(&mut self, mut bytes: &[u8], expected: &mut [u8]) {
        while !bytes.is_empty() {
            let mut digits = self.number;
            for digit in expected[4..4 + DIGITS].iter_mut().rev() {
                *digit = b"0123456789"[digits % 10];
                digits /= 10;
            }
            let (now, later) = bytes.split_at(bytes.len().min(expected.len() - self.at));
            assert_eq!(now, &expected[self.at..self.at + now.len()], "message {}", self.number);
            self.at += now.len();
            if self.at == expected.len() {
                (self.number, self.at) = (self.number + 1, 0);
            }
            bytes = later;
        }
    }
}

/// The line in which an event has that message.
fn data_line(number: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut line = b"data: ".to_vec();
    for three in payload(number).chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        let letter =
            |at: usize| if at <= three.len() { LETTERS[bits >> (18 - 6 * at) & 63] } else { b'=' };
        line.extend((0..4).map(letter));
    }
    line
}

impl Reader {
    /// The same of an event stream: ids and comments may be anything, data may not.
    fn check_lines(&mut self, mut begun: Vec<u8>, bytes: &[u8], data: &mut Vec<Vec<u8>>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            let Some(line) = begun.strip_suffix(b"\n") else { continue };
            assert!(!line.starts_with(b"event: missed"), "at message {}", self.number);
            if line.starts_with(b"data: ") {
                while data.len() <= self.number {
                    data.push(data_line(data.len()));
                }
                assert!(line == data[self.number], "message {}", self.number);
                self.number += 1;
            }
            begun.clear();
        }
        self.line = Some(begun);
    }
}

/// Reads all that waited, and what the server says was missed; that is the gap in the numbers.
///
/// Who lags is decided once the last message was offered to all, which the readers can be ahead of: what
/// is dropped only then is in the next answer.
fn ask_what_was_missed(stream: &mut TcpStream, published: usize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Seen { got: 0, next: 0 };
    loop {
        stream.write_all(b"\x81\x81\0\0\0\0?").unwrap();
        let missed = seen.read_answer(stream);
        let counted = seen.got + missed;
        assert!(counted <= published, "{} came, {missed} are counted as missed", seen.got);
        if counted == published {
            return missed;
        }
        assert!(Instant::now() < deadline, "every message came or is counted as missed: {counted}");
    }
}

/// What a stalled client has read at last.
struct Seen {
    got: usize,
    /// The lowest number that may come next.
    next: usize,
}

impl Seen {
    /// Reads the messages before the next answer, and the number in it.
    fn read_answer(&mut self, stream: &mut TcpStream) -> usize {
        loop {
            let mut header = [0; 2];
            stream.read_exact(&mut header).unwrap();
            if header[0] == 0x81 {
                let mut text = vec![0; header[1].into()];
                stream.read_exact(&mut text).unwrap();
                let text = String::from_utf8(text).unwrap();
                return text.strip_prefix("missed ").unwrap().parse().unwrap();
            }
            let mut rest = [0; FRAME_BYTES - 2];
            stream.read_exact(&mut rest).unwrap();
            let digits = std::str::from_utf8(&rest[2..2 + DIGITS]).unwrap();
            let number = digits.parse::<usize>().unwrap();
            assert!(number >= self.next, "{number} comes after {}", self.next);
            assert_eq!(&rest[2..], payload(number).as_slice());
            *self = Self { got: self.got + 1, next: number + 1 };
        }
    }
}

//! Clients of a broker that do nothing but read and write: what of a figure is not a link's.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Sub;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

/// What a loop has used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// How often it has waited.
    pub(crate) turns: u64,
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), turns: self.turns - before.turns }
    }
}

/// The CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// A connection that the broker has taken under this name.
fn connected(port: u16, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    // MQTT 5, clean start, no keep-alive, no properties.
    let mut body =
        [&[0, 4][..], b"MQTT", &[5, 2, 0, 0, 0, 0, short(name.len())], name.as_bytes()].concat();
    let mut packet = vec![0x10, short(body.len())];
    packet.append(&mut body);
    stream.write_all(&packet).unwrap();
    read_packet(&mut stream, 0x20);
    stream
}

fn subscribed(port: u16, topic: &str) -> TcpStream {
    let mut stream = connected(port, "bare-reader");
    let topic = topic.as_bytes();
    let rest = [&[0, 1, 0, 0, short(topic.len())], topic, &[0]].concat();
    stream.write_all(&[&[0x82, short(rest.len())], &rest[..]].concat()).unwrap();
    read_packet(&mut stream, 0x90);
    stream
}

fn short(length: usize) -> u8 {
    u8::try_from(length).ok().filter(|length| *length < 128).expect("what is sent is short")
}

fn read_packet(stream: &mut TcpStream, kind: u8) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], kind, "{head:x?}");
    stream.read_exact(&mut vec![0; head[1].into()]).unwrap();
}

/// One that reads as a link does, whenever something is there, and looks for nothing but where packets end.
pub(crate) struct BareReader(JoinHandle<Used>);

impl BareReader {
    /// It reads so many packets.
    pub(crate) fn start(port: u16, topic: &str, count: u64) -> Self {
        let stream = subscribed(port, topic);
        Self(spawn(move || read_packets(stream, count)))
    }

    /// What it has used.
    pub(crate) fn join(self) -> Used {
        self.0.join().unwrap()
    }
}

fn read_packets(stream: TcpStream, count: u64) -> Used {
    stream.set_nonblocking(true).unwrap();
    let mut stream = mio::net::TcpStream::from_std(stream);
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(64));
    poll.registry().register(&mut stream, Token(0), Interest::READABLE).unwrap();
    let (mut buffer, mut packets, mut turns) = (vec![0; 64 << 10], Packets::default(), 0);
    let before = thread_cpu();
    while packets.count < count {
        poll.poll(&mut events, None).unwrap();
        turns += 1;
        loop {
            let length = match stream.read(&mut buffer) {
                Ok(0) => panic!("the broker has hung up"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            };
            packets.see(&buffer[..length]);
            // Told once that there is something, it is not told again of what it leaves.
            if length < buffer.len() {
                break;
            }
        }
    }
    Used { cpu: thread_cpu() - before, turns }
}

/// Counts packets of which some begin in one piece and end in another.
#[derive(Default)]
struct Packets {
    count: u64,
    /// The header of a packet, as far as it has come.
    header: Vec<u8>,
    /// How much is missing of the packet behind it.
    left: usize,
}

impl Packets {
    fn see(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.left.min(bytes.len());
            (self.left, bytes) = (self.left - skipped, &bytes[skipped..]);
            let Some((first, rest)) = bytes.split_first() else { return };
            self.header.push(*first);
            bytes = rest;
            if self.header.len() > 1 && first & 0x80 == 0 {
                let low_first = self.header[1..].iter().rev();
                self.left =
                    low_first.fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
                self.count += 1;
                self.header.clear();
            }
        }
    }
}

/// The times from one client to another, one message of a byte at a time.
pub(crate) fn times(port: u16, count: usize) -> Vec<Duration> {
    let (mut from, mut to) = (connected(port, "bare-writer"), subscribed(port, "bare"));
    let message = [&[0x30, 8, 0, 4][..], b"bare", &[0, b'x']].concat();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..count {
            assert_eq!(to.read(&mut buffer).unwrap(), 10);
            tell.send(Instant::now()).unwrap();
        }
    });
    let times = (0..count).map(|_| {
        let said = Instant::now();
        from.write_all(&message).unwrap();
        told.recv().unwrap().saturating_duration_since(said)
    });
    let times = times.collect();
    reader.join().unwrap();
    times
}

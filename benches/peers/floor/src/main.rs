//! The floor: a bare epoll loop that does what an echo cannot do without (recv, header, unmask,
//! send), and none of what a server needs (limits, timeouts, UTF-8, closing handshake, fairness).
//!
//! `bench-floor PORT [echo|broadcast]`; `broadcast` sends each message to all by a plain loop of
//! `send` calls.

use std::error::Error;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType, sockopt,
};
use sha1::{Digest, Sha1};

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 512 << 10;

struct Connection {
    fd: OwnedFd,
    upgraded: bool,
    rest: Option<Box<Rest>>,
}

/// What is unfinished on the way in and on the way out.
#[derive(Default)]
struct Rest {
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Floor {
    epoll: OwnedFd,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    rx: Vec<u8>,
    tx: Vec<u8>,
    broadcast: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let port: u16 = words.next().ok_or("usage: bench-floor PORT [echo|broadcast]")?.parse()?;
    let broadcast = words.next().is_some_and(|mode| mode == "broadcast");
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &SocketAddrV4::new([127, 0, 0, 1].into(), port))?;
    rustix::net::listen(&listener, 4096)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut floor = Floor {
        epoll,
        connections: Vec::new(),
        rx: vec![0; READ_BYTES],
        tx: Vec::new(),
        broadcast,
    };
    let mut events = Vec::with_capacity(512);
    loop {
        events.clear();
        match epoll::wait(&floor.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        for event in &events {
            let (flags, data) = (event.flags, event.data);
            match data.u64() {
                LISTENER => floor.accept(&listener)?,
                fd => {
                    let fd = usize::try_from(fd)?;
                    if flags.contains(EventFlags::OUT) {
                        floor.write(fd);
                    }
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        floor.read(fd);
                    }
                }
            }
        }
    }
}

impl Floor {
    fn accept(&mut self, listener: &OwnedFd) -> Result<(), Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(fd) = rustix::net::accept_with(listener, flags) {
            sockopt::set_tcp_nodelay(&fd, true)?;
            let index = usize::try_from(fd.as_raw_fd()).unwrap_or_default();
            epoll::add(&self.epoll, &fd, EventData::new_u64(index as u64), EventFlags::IN)?;
            if index >= self.connections.len() {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection { fd, upgraded: false, rest: None });
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let carried = connection.rest.as_mut().map_or(0, |rest| {
            let carried = rest.input.len();
            if self.rx.len() < carried + READ_BYTES {
                self.rx.resize(carried + READ_BYTES, 0);
            }
            self.rx[..carried].copy_from_slice(&rest.input);
            rest.input.clear();
            carried
        });
        let room = &mut self.rx[carried..carried + READ_BYTES];
        let end = match rustix::net::recv(&connection.fd, room, RecvFlags::empty()) {
            Ok((0, _)) => return self.connections[index] = None,
            Ok((n, _)) => carried + n,
            Err(Errno::AGAIN) => carried,
            Err(_) => return self.connections[index] = None,
        };
        let mut taken = 0;
        if !connection.upgraded {
            let Some(len) = find_head(&self.rx[..end]) else { return self.keep(index, 0, end) };
            taken = len;
            connection.upgraded = true;
            answer(&self.rx[..len], &mut self.tx);
            self.flush(index);
        }
        while let Some(used) = echo(&mut self.rx[taken..end], &mut self.tx) {
            taken += used;
            if self.broadcast {
                self.flush_to_all();
            }
        }
        if !self.tx.is_empty() {
            self.flush(index);
        }
        if taken < end {
            self.keep(index, taken, end);
        } else if let Some(connection) = &mut self.connections[index] {
            connection.rest = connection.rest.take().filter(|rest| !rest.output.is_empty());
        }
    }

    fn keep(&mut self, index: usize, from: usize, to: usize) {
        if let Some(connection) = &mut self.connections[index] {
            connection.rest.get_or_insert_default().input.extend_from_slice(&self.rx[from..to]);
        }
    }

    fn flush(&mut self, index: usize) {
        if let Some(connection) = &mut self.connections[index] {
            send(connection, &self.epoll, &self.tx);
        }
        self.tx.clear();
    }

    /// The plain loop of `send` calls.
    fn flush_to_all(&mut self) {
        for connection in self.connections.iter_mut().flatten().filter(|it| it.upgraded) {
            send(connection, &self.epoll, &self.tx);
        }
        self.tx.clear();
    }

    fn write(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let output = connection.rest.as_mut().map(|rest| std::mem::take(&mut rest.output));
        send(connection, &self.epoll, &output.unwrap_or_default());
        if connection.rest.as_ref().is_none_or(|rest| rest.output.is_empty()) {
            let data = EventData::new_u64(index as u64);
            let _ = epoll::modify(&self.epoll, &connection.fd, data, EventFlags::IN);
        }
    }
}

fn send(connection: &mut Connection, epoll: &OwnedFd, bytes: &[u8]) {
    if let Some(rest) = connection.rest.as_mut().filter(|rest| !rest.output.is_empty()) {
        return rest.output.extend_from_slice(bytes);
    }
    let sent = match rustix::net::send(&connection.fd, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => 0,
        Err(_) => return, // reading will show it
    };
    if sent < bytes.len() {
        connection.rest.get_or_insert_default().output.extend_from_slice(&bytes[sent..]);
        let data = EventData::new_u64(connection.fd.as_raw_fd().unsigned_abs().into());
        let _ = epoll::modify(epoll, &connection.fd, data, EventFlags::IN | EventFlags::OUT);
    }
}

/// Unmasks the frame at the start of `bytes` into `out`, with a header of ours: how long it was, or
/// `None` if it is not all there.
fn echo(bytes: &mut [u8], out: &mut Vec<u8>) -> Option<usize> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, header) = match second & 127 {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let mask = u32::from_ne_bytes(bytes.get(header..header + 4)?.try_into().ok()?);
    let used = header + 4 + length;
    let payload = bytes.get_mut(header + 4..used)?;
    let wide = u64::from(mask) << 32 | u64::from(mask);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in chunks.by_ref() {
        let eight: &mut [u8; 8] = chunk.try_into().ok()?;
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    let keys = mask.to_ne_bytes();
    for (byte, key) in chunks.into_remainder().iter_mut().zip(keys.into_iter().chain(keys)) {
        *byte ^= key;
    }
    // The reply's header goes where the mask was: header and payload are one piece.
    let start = 4;
    bytes.copy_within(..header, start);
    bytes[start] = first;
    bytes[start + 1] = second & 127;
    out.extend_from_slice(&bytes[start..used]);
    Some(used)
}

fn find_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// RFC 6455 section 4.2.2, for requests that are what they should be.
fn answer(head: &[u8], out: &mut Vec<u8>) {
    let head = String::from_utf8_lossy(head);
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("Sec-WebSocket-Key").then(|| value.trim())
    });
    let digest = Sha1::new()
        .chain_update(key.unwrap_or_default())
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    out.extend_from_slice(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            data_encoding::BASE64.encode(&digest)
        )
        .as_bytes(),
    );
}

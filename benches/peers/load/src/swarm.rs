//! Owns the clients' sockets: connecting, upgrading, and the epoll loop they stand in.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType, sockopt,
};

use crate::secured::{self, Secured};
use crate::traffic::masked_frame;
use crate::{Outcome, Plan};

/// How long a server may stay silent while something is awaited.
const PATIENCE_SECONDS: i64 = 20;
/// Events taken at once.
const EVENTS: usize = 512;
/// One key for all: the server has to compute its answer every time anyway.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const LISTEN: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";
/// More heads than any server here sends.
const HEAD_MAX: usize = 2048;

/// Connections of one run, by number.
pub(crate) struct Swarm {
    epoll: OwnedFd,
    port: u16,
    request: String,
    /// All but the first read event streams.
    events: bool,
    tls: Option<secured::Shared>,
    /// Counts connections ever made, for source addresses.
    made: u32,
    pub(crate) clients: Vec<Client>,
}

pub(crate) struct Client {
    fd: OwnedFd,
    tls: Option<Secured>,
    stage: Stage,
    head: Vec<u8>,
    wants_write: bool,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Open,
}

/// What is ready, and for what.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) index: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Swarm {
    pub(crate) fn new(plan: &Plan, deflate: bool) -> Outcome<Self> {
        let port = plan.port;
        let extension = if deflate {
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\n"
        } else {
            ""
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n{extension}\r\n"
        );
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let tls = secured::shared(plan)?;
        let events = plan.events;
        Ok(Self { epoll, port, request, events, tls, made: 0, clients: Vec::new() })
    }

    /// Opens so many more, 64 at a time.
    pub(crate) fn open(&mut self, count: usize) -> Outcome {
        let end = self.clients.len() + count;
        let mut open = self.clients.len();
        let mut ready = Vec::new();
        while open < end {
            while self.clients.len() < end && self.clients.len() < open + 64 {
                let client = self.connect(self.clients.len())?;
                self.clients.push(client);
            }
            self.wait(&mut ready)?;
            for event in &ready {
                if self.advance(*event)? {
                    open += 1;
                }
            }
        }
        Ok(())
    }

    /// Begins a connection; `index` is what its events carry.
    fn connect(&mut self, index: usize) -> Outcome<Client> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        // From ever other source addresses: one address has ports for 28,000 connections only, and
        // those that were closed keep theirs for a minute.
        self.made += 1;
        let source = Ipv4Addr::from_bits(0x7f01_0001 + self.made % 0xf_0000);
        rustix::net::bind(&fd, &SocketAddrV4::new(source, 0))?;
        match rustix::net::connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(format!("connect: {error}").into()),
        }
        let flags = EventFlags::IN | EventFlags::OUT;
        epoll::add(&self.epoll, &fd, EventData::new_u64(index as u64), flags)?;
        let tls = self.tls.as_ref().map(Secured::new).transpose()?;
        Ok(Client { fd, tls, stage: Stage::Connecting, head: Vec::new(), wants_write: true })
    }

    /// Closes a connection and begins another in its place.
    pub(crate) fn replace(&mut self, index: usize) -> Outcome {
        self.clients[index] = self.connect(index)?;
        Ok(())
    }

    /// Waits for events; none within the patience is an error.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>) -> Outcome {
        self.wait_for(ready, Timespec { tv_sec: PATIENCE_SECONDS, tv_nsec: 0 })?;
        if ready.is_empty() {
            return Err("the server is silent".into());
        }
        Ok(())
    }

    pub(crate) fn wait_for(&mut self, ready: &mut Vec<Ready>, timeout: Timespec) -> Outcome {
        let mut events: [std::mem::MaybeUninit<Event>; EVENTS] =
            [const { std::mem::MaybeUninit::uninit() }; EVENTS];
        let (events, _) = epoll::wait(&self.epoll, &mut events, Some(&timeout))?;
        ready.clear();
        for event in events {
            let (flags, data) = (event.flags, event.data);
            let client = self.clients.get_mut(usize::try_from(data.u64())?);
            if let Some(Client { fd, tls: Some(tls), .. }) = client {
                tls.flush(fd)?;
            }
            ready.push(Ready {
                index: usize::try_from(data.u64())?,
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                writable: flags.contains(EventFlags::OUT),
            });
        }
        Ok(())
    }

    /// Takes a connection that is not open a step further: whether it is open now.
    pub(crate) fn advance(&mut self, ready: Ready) -> Outcome<bool> {
        let listens = self.events && ready.index > 0;
        let client = &mut self.clients[ready.index];
        match client.stage {
            Stage::Open => return Ok(false),
            Stage::Connecting if ready.writable => {
                let request = if listens { LISTEN } else { &self.request }.as_bytes();
                let sent = client.send(request)?;
                if sent < request.len() {
                    return Err("the request did not go out whole".into());
                }
                client.stage = Stage::Upgrading;
                self.want_write(ready.index, false)?;
            }
            Stage::Connecting => {}
            Stage::Upgrading if ready.readable => {
                let mut bytes = [0; HEAD_MAX];
                let n = client.receive(&mut bytes)?;
                client.head.extend_from_slice(&bytes[..n]);
                if listens {
                    return client.begin_listening();
                }
                if client.head.ends_with(b"\r\n\r\n") {
                    let head = std::str::from_utf8(&client.head)?;
                    if !head.starts_with("HTTP/1.1 101") || !head.contains(ACCEPT) {
                        return Err(format!("no upgrade: {head}").into());
                    }
                    client.head = Vec::new();
                    client.stage = Stage::Open;
                    return Ok(true);
                }
                if client.head.len() > HEAD_MAX {
                    return Err("the answer has no end".into());
                }
            }
            Stage::Upgrading => {}
        }
        Ok(false)
    }

    /// Whether WRITABLE events of a connection matter.
    fn want_write(&mut self, index: usize, wants: bool) -> Outcome {
        let client = &mut self.clients[index];
        if client.wants_write != wants {
            client.wants_write = wants;
            let flags = if wants { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &client.fd, EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }

    /// Sends what the socket takes; says how much.
    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) -> Outcome<usize> {
        let client = &mut self.clients[index];
        let sent = client.send(bytes)?;
        let is_behind = client.tls.as_ref().is_some_and(Secured::is_behind);
        self.want_write(index, is_behind || sent < bytes.len())?;
        Ok(sent)
    }

    /// Receives what is there of an event stream: how many events with this data are complete now.
    pub(crate) fn receive_events(
        &mut self,
        index: usize,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Outcome<usize> {
        self.receive_whole(index, buffer, |rest| {
            let Some(end) = rest.windows(2).position(|two| two == b"\n\n") else { return Ok(None) };
            let event = &rest[..end];
            let data_at = event.windows(6).position(|six| six == b"data: ");
            if data_at.is_some_and(|at| &event[at + 6..] != data) {
                return Err(format!("connection {index}: other data than was sent").into());
            }
            Ok(Some((end + 2, data_at.is_some())))
        })
    }

    /// Receives what is there of masked frames: how many with this payload are complete now.
    pub(crate) fn receive_masked(
        &mut self,
        index: usize,
        payload: &[u8],
        buffer: &mut [u8],
    ) -> Outcome<usize> {
        let whole = |rest: &[u8]| Ok(masked_frame(rest, payload)?.map(|length| (length, true)));
        self.receive_whole(index, buffer, whole)
    }

    /// Receives what is there and keeps what is not whole: how many count of those that are. `whole` says of
    /// the first how many bytes it has, and whether it counts.
    fn receive_whole(
        &mut self,
        index: usize,
        buffer: &mut [u8],
        whole: impl Fn(&[u8]) -> Outcome<Option<(usize, bool)>>,
    ) -> Outcome<usize> {
        let client = &mut self.clients[index];
        let n = client.receive(buffer)?;
        client.head.extend_from_slice(&buffer[..n]);
        let (mut taken, mut count) = (0, 0);
        while let Some((length, counts)) = whole(&client.head[taken..])? {
            taken += length;
            count += usize::from(counts);
        }
        client.head.drain(..taken);
        Ok(count)
    }

    /// Takes a connection that was made elsewhere, does not block and is open.
    pub(crate) fn adopt(&mut self, fd: OwnedFd) -> Outcome {
        let data = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &fd, data, EventFlags::IN)?;
        let (stage, head) = (Stage::Open, Vec::new());
        self.clients.push(Client { fd, tls: None, stage, head, wants_write: false });
        Ok(())
    }

    /// Receives what is there; 0 means nothing at present, the server's hang-up is an error.
    pub(crate) fn receive(&mut self, index: usize, buffer: &mut [u8]) -> Outcome<usize> {
        self.clients[index].receive(buffer)
    }
}

impl Client {
    /// Whether the head of an event stream is there; what came behind it stays.
    fn begin_listening(&mut self) -> Outcome<bool> {
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head = std::str::from_utf8(&self.head[..end])?;
        if !head.starts_with("HTTP/1.1 200") || !head.contains("text/event-stream") {
            return Err(format!("no event stream: {head}").into());
        }
        self.head.drain(..end + 4);
        self.stage = Stage::Open;
        Ok(true)
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome<usize> {
        if let Some(tls) = &mut self.tls {
            return tls.send(&self.fd, bytes);
        }
        match rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(format!("send: {error}").into()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        match &mut self.tls {
            Some(tls) => tls.receive(&self.fd, buffer),
            None => receive(&self.fd, buffer),
        }
    }
}

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Outcome<usize> {
    match rustix::net::recv(fd, buffer, RecvFlags::empty()) {
        Ok((0, _)) => Err("the server hung up".into()),
        Ok((n, _)) => Ok(n),
        Err(Errno::AGAIN) => Ok(0),
        Err(error) => Err(format!("recv: {error}").into()),
    }
}

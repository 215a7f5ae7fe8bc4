//! Too many at once, and a system that refuses.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};
use wirewheel::{Application, Call, WebSockets, on_message};

use crate::support::*;

fn echo(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

/// A connection that begins from one of the addresses of loopback.
fn begin(from: u8, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0));
    socket.bind(&SockAddr::from(source)).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        result => result.unwrap(),
    }
    TcpStream::from_std(OwnedFd::from(socket).into())
}

/// Every descriptor that this process may have; how many that is.
fn all_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// One of a herd: connects, asks at its time, and is in when it has its 101. Whoever is turned away
/// comes again.
struct Returning {
    stream: TcpStream,
    asks_at: Option<Instant>,
    is_in: bool,
}

/// A restart of the server: all its clients are back in the same moment, each sends its request within
/// the second that follows, as devices do that are slow or far away.
#[test]
fn a_herd_that_returns_at_once_is_in_within_ten_seconds() {
    measured(a_herd_is_in);
}

fn a_herd_is_in() {
    let wanted = 3_900;
    let herd = wanted.min((all_descriptors().saturating_sub(400) / 2) as usize);
    let server = Running::start(echo);
    let mut poll = Poll::new().unwrap();
    let began = Instant::now();
    let mut clients: Vec<Returning> = (0..herd)
        .map(|number| {
            let mut stream = begin(1, server.addr());
            let interest = Interest::READABLE;
            poll.registry().register(&mut stream, Token(number), interest).unwrap();
            let delay = millis(300 + (number as u64 * 7_919) % 700);
            Returning { stream, asks_at: Some(began + delay), is_in: false }
        })
        .collect();
    let request = upgrade_request("/", "");
    let (mut inside, mut turned_away) = (0, 0);
    let mut events = Events::with_capacity(1_024);
    while inside < herd {
        let waited = began.elapsed();
        let most = Duration::from_secs(10 * emulator::SLOWER);
        assert!(waited < most, "{inside} of {herd} in, {turned_away} turned away");
        poll.poll(&mut events, Some(millis(10))).unwrap();
        let now = Instant::now();
        for client in &mut clients {
            if client.asks_at.is_some_and(|at| at <= now)
                && client.stream.write(request.as_bytes()).is_ok()
            {
                client.asks_at = None;
            }
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            let mut answer = [0; 1_024];
            match client.stream.read(&mut answer) {
                Ok(n) if answer[..n].starts_with(b"HTTP/1.1 101 ") => {
                    inside += usize::from(!std::mem::replace(&mut client.is_in, true));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ if client.is_in => panic!("a session was ended"),
                _ => {
                    turned_away += 1;
                    client.stream = begin(1, server.addr());
                    let token = event.token();
                    poll.registry()
                        .register(&mut client.stream, token, Interest::READABLE)
                        .unwrap();
                    client.asks_at = Some(now + millis(300));
                }
            }
        }
    }
    assert_eq!(turned_away, 0, "nobody was too slow");
}

/// Silent connections of one client, each of which is there again as soon as it is ended.
struct Besiegers {
    poll: Poll,
    streams: Vec<TcpStream>,
    server: SocketAddr,
    /// They send the beginning of a head instead of nothing.
    begin_heads: bool,
    ended: usize,
}

impl Besiegers {
    fn new(server: SocketAddr, count: usize, begin_heads: bool) -> Self {
        let poll = Poll::new().unwrap();
        let mut this = Self { poll, streams: Vec::new(), server, begin_heads, ended: 0 };
        for place in 0..count {
            let stream = this.another(place);
            this.streams.push(stream);
        }
        this
    }

    fn another(&self, place: usize) -> TcpStream {
        let mut stream = begin(2, self.server);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(place), interest).unwrap();
        stream
    }

    fn go_on(&mut self, time: Duration) {
        let mut events = Events::with_capacity(1_024);
        self.poll.poll(&mut events, Some(time)).unwrap();
        for event in &events {
            let place = event.token().0;
            if self.begin_heads && event.is_writable() {
                let _ = self.streams[place].write(b"GET / HTTP/1.1\r\nHo");
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                match self.streams[place].read(&mut [0; 1_024]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => {
                        self.ended += 1;
                        self.streams[place] = self.another(place);
                    }
                }
            }
        }
    }
}

fn newcomers_are_in_while_besieged(begin_heads: bool) {
    all_descriptors();
    let server = Running::start(echo);
    let mut besiegers = Besiegers::new(server.addr(), 300, begin_heads);
    let start = Instant::now();
    while start.elapsed() < millis(300) {
        besiegers.go_on(millis(10));
    }
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let began = Instant::now();
        let mut newcomer = begin(3, server.addr());
        let request = upgrade_request("/", "");
        let (mut asked, mut answer) = (false, [0; 1_024]);
        loop {
            besiegers.go_on(millis(5));
            asked |= !asked && newcomer.write(request.as_bytes()).is_ok();
            match newcomer.read(&mut answer) {
                Ok(n) => break assert!(answer[..n].starts_with(b"HTTP/1.1 101 "), "turned away"),
                Err(_) => assert!(began.elapsed() < PATIENCE, "locked out"),
            }
        }
        longest = longest.max(began.elapsed());
    }
    assert!(longest < millis(2_000 * emulator::SLOWER), "in after {longest:?}");
    assert!(besiegers.ended > 100, "their time is over, one after the other");
}

#[test]
fn a_newcomer_is_in_within_two_seconds_beside_300_silent_connections_of_another() {
    measured(|| newcomers_are_in_while_besieged(false));
}

#[test]
fn a_newcomer_is_in_within_two_seconds_beside_300_that_begin_a_head() {
    measured(|| newcomers_are_in_while_besieged(true));
}

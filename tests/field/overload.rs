//! Too many at once, and a system that refuses.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};
use wirewheel::{Application, Call, Server, WebSockets, on_message};

use crate::held_input::wait_until;
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

/// A program that serves twice, then cleans up until its standard input ends or its own handler was
/// called.
#[test]
#[ignore = "the process that the test below starts"]
#[allow(clippy::print_stdout, reason = "its lines are what the test below reads")]
fn serves_and_cleans_up() {
    let Some(handler) = std::env::var_os("OWN_HANDLER") else { return };
    let (own, has_own) = (Arc::new(AtomicBool::new(false)), handler == "yes");
    if has_own {
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&own)).unwrap();
    }
    for _ in 0..2 {
        let server = Server::bind("127.0.0.1:0", |_: &mut Application| {}).unwrap();
        server.handle().defer(|_| println!("\nserving")).unwrap();
        server.run().unwrap();
        let handled = own.swap(false, Ordering::Relaxed);
        println!("\nover, handled {handled}");
        // The answer to what comes now is a line, or the end.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let asked = Instant::now();
        while has_own && !own.load(Ordering::Relaxed) && asked.elapsed() < PATIENCE {
            std::thread::yield_now(); // another thread of this process has the signal
        }
        let handled = own.swap(false, Ordering::Relaxed);
        println!("\ncleaned up, handled {handled}");
    }
}

/// How it takes a signal, before and after the servers.
struct CleaningUp {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl CleaningUp {
    fn start(trap: &str, own_handler: bool) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{trap} exec \"$0\" \"$@\"")]);
        shell.args(emulator::words(std::env::current_exe().unwrap()));
        shell.args(["--exact", "overload::serves_and_cleans_up", "--ignored", "--nocapture"]);
        shell.env("OWN_HANDLER", if own_handler { "yes" } else { "no" });
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn expect(&mut self, text: &str) {
        let found = self.lines.any(|line| line.is_ok_and(|line| line == text));
        assert!(found, "it ended before {text:?}");
    }

    fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// It waits for a line meanwhile: `wait` alone would tell it that none comes, and it may act on that
    /// before a signal does.
    fn end_with_input_open(&mut self) -> ExitStatus {
        let _input = self.child.stdin.take();
        let mut status = None;
        wait_until("the end of who was signalled", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for CleaningUp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn after_the_server_signals_do_what_they_did_before() {
    // At their default action.
    let mut program = CleaningUp::start("", false);
    program.expect("serving");
    program.signal();
    program.expect("over, handled false");
    program.signal();
    let status = program.end_with_input_open();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
    // The second server of the process takes them again.
    let mut program = CleaningUp::start("", false);
    program.expect("serving");
    program.signal();
    program.expect("over, handled false");
    program.go_on();
    program.expect("serving");
    program.signal();
    program.expect("over, handled false");
    program.signal();
    let status = program.end_with_input_open();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
    // Ignored, or handled by the application, they are so again, and end nothing.
    for (trap, own_handler) in [("trap '' TERM;", false), ("", true)] {
        let mut program = CleaningUp::start(trap, own_handler);
        for _ in 0..2 {
            program.expect("serving");
            program.signal();
            program.expect(&format!("over, handled {own_handler}"));
            program.signal();
            program.go_on();
            program.expect(&format!("cleaned up, handled {own_handler}"));
        }
        assert!(program.child.wait().unwrap().success());
    }
}

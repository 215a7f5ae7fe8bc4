//! The server in somebody else's loop: the tests of other files under poll(2) and under a second mio, what
//! wakes such a loop and what does not, and connections that somebody else has accepted. `tests/glib/` runs
//! all of it in GLib's main loop.

#![allow(clippy::duplicate_mod, reason = "the tests of other files, as they are")]

#[path = "acceptance.rs"]
mod acceptance;
#[path = "drain.rs"]
mod drain;
#[path = "handle.rs"]
mod handle;
#[path = "sessions.rs"]
mod sessions;
mod support;
#[path = "watch.rs"]
mod watch;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::process::{Signal, getpid, kill_process};
use support::loops::{Loop, start_in};
use support::*;
use wirewheel::embedding::ServerDriver;
use wirewheel::error::{AdoptError, HandleError};
use wirewheel::{
    Application, Call, CloseCode, Drained, Limits, Listen, Server, WebSockets, on_message,
};

fn echo(app: &mut Application) {
    limited(app, Limits::new());
}

fn limited(app: &mut Application, limits: Limits) {
    app.install(WebSockets::new().ping_period(None).limits(limits));
    app.routing(|route| {
        route.get("/name", |_call| "wirewheel");
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

fn driver(module: impl FnOnce(&mut Application)) -> ServerDriver {
    Server::bind("127.0.0.1:0", module).unwrap().into_driver().unwrap()
}

/// Runs some of these tests in a process of their own.
fn run_again(arguments: &[&str], in_loop: &str) {
    let mut program = emulator::command(std::env::current_exe().unwrap());
    let output = program.args(arguments).env("WIREWHEEL_TEST_LOOP", in_loop).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains(" 0 passed"), "{said}");
}

/// Those that need no more than a server are in this file as they are, under poll(2).
#[test]
fn the_tests_of_other_files_pass_under_another_mio() {
    run_again(&["acceptance::", "drain::", "handle::", "sessions::", "watch::"], "mio");
}

/// Turns it until it would wait.
fn settle(server: &mut ServerDriver) {
    while server.turn().unwrap().is_continue() && is_due(server) {}
}

#[allow(clippy::disallowed_methods, reason = "a loop reads the clock")]
fn is_due(server: &mut ServerDriver) -> bool {
    server.next_deadline().is_some_and(|at| at <= std::time::Instant::now())
}

/// Whether the descriptor becomes readable within the time.
fn wakes(server: &ServerDriver, time: Duration) -> bool {
    let time = Timespec::try_from(time).unwrap();
    poll(&mut [PollFd::new(server, PollFlags::IN)], Some(&time)).unwrap() > 0
}

#[test]
fn whatever_concerns_the_server_wakes_the_loop_and_nothing_else_does() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        echo(app);
        app.watch(ours, wirewheel::watch::Ready::READABLE, |_, port, _| {
            let _ = std::io::Read::read(port, &mut [0; 64]);
            wirewheel::watch::Watch::For(wirewheel::watch::Ready::READABLE)
        });
    });
    let server = server.unwrap();
    let (handle, address) = (server.handle(), server.local_addr());
    let mut server = server.into_driver().unwrap();
    let quiet = |server: &mut ServerDriver| {
        settle(server);
        assert_eq!(server.next_deadline(), None);
        assert!(!wakes(server, Duration::ZERO));
    };
    quiet(&mut server);
    theirs.write_all(b"x").unwrap();
    assert!(wakes(&server, PATIENCE), "a descriptor that is watched");
    quiet(&mut server);
    handle.defer(|_| ()).unwrap();
    assert!(wakes(&server, PATIENCE), "another thread");
    quiet(&mut server);
    let mut client = Client::connect(address);
    assert!(wakes(&server, PATIENCE), "a connection");
    settle(&mut server);
    assert!(server.next_deadline().is_some(), "its request has to come in time");
    client.write(upgrade_request("/", ""));
    assert!(wakes(&server, PATIENCE), "a request");
    quiet(&mut server);
    client.answer(false);
    client.text("hello");
    assert!(wakes(&server, PATIENCE), "a message");
    quiet(&mut server);
    client.expect_text("hello");
    handle.shutdown(Duration::ZERO);
    assert!(wakes(&server, PATIENCE), "a stop");
    while server.turn().unwrap().is_continue() {}
    assert_eq!(server.next_deadline(), None);
}

/// What is done with the server between turns is in order for the next one, which is due at once.
#[test]
fn code_between_turns_is_followed_by_a_turn() {
    let mut server = driver(echo);
    settle(&mut server);
    assert_eq!(server.with_server(|server| server.session_count()), Some(0));
    assert!(is_due(&mut server));
    settle(&mut server);
    assert_eq!(server.with_server(|_| panic!("on purpose")), None::<()>);
    server.with_server(|server| server.shutdown(Duration::ZERO));
    assert!(is_due(&mut server));
    assert!(server.turn().unwrap().is_break());
}

/// More than a turn takes, at once: a loop that waits by edge is not told of the rest.
#[test]
fn a_crowd_that_speaks_at_once_is_served_by_edge_and_by_level() {
    for foreign in [Loop::Mio, Loop::of_this_run()] {
        let server = Server::bind("127.0.0.1:0", echo).unwrap();
        let server = Running(start_in(foreign, server, || ()).unwrap());
        let mut clients: Vec<_> = (0..600).map(|_| server.upgrade("/")).collect();
        let (begun, begins) = channel();
        let (release, released) = channel::<()>();
        let hold = move |_: &mut wirewheel::ServerRef<'_>| {
            begun.send(()).unwrap();
            let _ = released.recv();
        };
        server.0.defer(hold).unwrap();
        begins.recv_timeout(PATIENCE).unwrap();
        clients.iter_mut().for_each(|client| client.text("now"));
        drop(release);
        clients.iter_mut().for_each(|client| client.expect_text("now"));
    }
}

/// As a child process, since a signal is for all of one.
#[test]
fn signals_stop_it_where_that_is_wanted() {
    run_again(&["--ignored", "signalled"], "poll");
}

/// A stop at once would be the end without a Close.
#[test]
fn signals_that_come_before_it_looks_are_one_stop() {
    run_again(&["--ignored", "several_signals"], "poll");
}

#[test]
#[ignore = "in a process of its own"]
fn several_signals() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let server = Server::bind("127.0.0.1:0", echo).unwrap();
        let address = server.local_addr();
        let mut server = server.into_driver().unwrap();
        server.stop_at_signals().unwrap();
        let mut client = Client::connect(address);
        assert!(wakes(&server, PATIENCE));
        settle(&mut server);
        client.write(upgrade_request("/", ""));
        assert!(wakes(&server, PATIENCE));
        settle(&mut server);
        client.answer(false);
        // On this thread, so that each has come when this returns.
        for signal in signals {
            signal_hook::low_level::raise(signal.as_raw()).unwrap();
        }
        assert!(wakes(&server, PATIENCE));
        settle(&mut server);
        client.expect_close(1001);
        assert!(server.turn().unwrap().is_continue(), "it waits for the Close of the client");
        client.send(CLOSE, &close_payload(1001, ""));
        drop(client);
        while server.turn().unwrap().is_continue() {
            assert!(wakes(&server, PATIENCE));
        }
    }
}

#[test]
#[ignore = "in a process of its own"]
fn signalled() {
    let mut server = driver(echo);
    server.stop_at_signals().unwrap();
    settle(&mut server);
    kill_process(getpid(), Signal::TERM).unwrap();
    assert!(wakes(&server, PATIENCE));
    while server.turn().unwrap().is_continue() {}
    assert!(server.turn().unwrap().is_break());
}

/// As after `Server::run`: the next one ends the process.
#[test]
fn signals_are_given_back_once_it_is_over() {
    let mut program = emulator::command(std::env::current_exe().unwrap());
    let output = program.args(["--ignored", "over_and_raised"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(Signal::TERM.as_raw()), "{said}");
}

#[test]
#[ignore = "in a process of its own, which it ends"]
fn over_and_raised() {
    let mut server = driver(echo);
    server.stop_at_signals().unwrap();
    signal_hook::low_level::raise(Signal::TERM.as_raw()).unwrap();
    while server.turn().unwrap().is_continue() {}
    server.stop_at_signals().unwrap(); // too late
    signal_hook::low_level::raise(Signal::TERM.as_raw()).unwrap();
    panic!("it was swallowed");
}

#[test]
#[ignore = "it takes a minute"]
fn idle_for_a_minute_it_wakes_not_once() {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let server = Server::bind("127.0.0.1:0", echo).unwrap();
    let woke = move || _ = count.fetch_add(1, Ordering::Relaxed);
    let server = Running(start_in(Loop::of_this_run(), server, woke).unwrap());
    let mut client = server.upgrade("/"); // a session that nobody pings
    client.text("hello");
    client.expect_text("hello");
    client.stream.set_read_timeout(Some(millis(200))).unwrap();
    assert!(std::io::Read::read(&mut client.stream, &mut [0]).is_err());
    let before = woken.load(Ordering::Relaxed);
    client.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(std::io::Read::read(&mut client.stream, &mut [0]).is_err(), "a minute");
    assert_eq!(woken.load(Ordering::Relaxed), before);
}

/// Whoever has its end keeps it for a while: nobody who asks it then may wait for an answer.
#[test]
fn a_server_that_is_over_takes_nothing_more_although_nobody_has_dropped_it() {
    let path = socket_folder().join(format!("wirewheel-over-{}.sock", std::process::id()));
    let (waits, waiting) = channel();
    let module = move |app: &mut Application| {
        echo(app);
        let handle = app.handle();
        // After the orders of the last turn.
        app.on_shutdown(move |_| waits.send(handle.stats().unwrap()).unwrap());
    };
    let server = Server::bind("127.0.0.1:0", module).unwrap();
    let server = server.listen(Listen::Unix(path.clone())).unwrap();
    let (handle, address) = (server.handle(), server.local_addr());
    let mut server = server.into_driver().unwrap();
    let mut silent = Client::connect(address);
    assert!(wakes(&server, PATIENCE));
    settle(&mut server);
    let session = server.with_server(|server| server.sessions().next());
    assert_eq!(session, Some(None));
    server.with_server(|server| server.shutdown(Duration::ZERO));
    while server.turn().unwrap().is_continue() {}
    let unanswered = waiting.recv().unwrap().recv_timeout(PATIENCE);
    assert_eq!(unanswered.unwrap_err(), RecvTimeoutError::Disconnected);
    silent.expect_eof();
    assert_eq!(handle.defer(|_| ()), Err(HandleError::Stopped));
    assert_eq!(handle.stats().unwrap_err(), HandleError::Stopped);
    for from_a_thread in [false, true] {
        let (stream, mut client, peer) = accepted();
        if from_a_thread {
            assert_eq!(handle.adopt(stream, Vec::new(), peer), Err(HandleError::Stopped));
        } else {
            assert_eq!(server.adopt(stream, Vec::new(), peer), Err(AdoptError::Stopped));
        }
        client.expect_eof();
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(!path.exists());
    // What is left is quiet, and can be asked.
    handle.shutdown(Duration::ZERO);
    assert!(server.turn().unwrap().is_break());
    assert!(!wakes(&server, Duration::ZERO));
    assert_eq!(server.with_server(|server| server.session_count()), Some(0));
    assert_eq!(server.next_deadline(), None);
}

/// A connection that somebody else has accepted, and its client.
fn accepted() -> (TcpStream, Client, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap());
    let (stream, peer) = listener.accept().unwrap();
    (stream, client, peer)
}

/// The client asks, and is answered by whoever has the connection by then.
fn ask(client: &mut Client) {
    client.write("GET /name HTTP/1.1\r\nHost: x\r\n\r\n");
}

#[test]
fn an_adopted_connection_is_served_from_its_first_byte() {
    let request = upgrade_request("/", "");
    let both = [request.as_bytes(), &masked(TEXT, b"first")].concat();
    for already_read in [0, 1, 10, request.len(), request.len() + 3, both.len()] {
        let mut server = driver(echo);
        let (stream, mut client, peer) = accepted();
        let (read, rest) = both.split_at(already_read);
        server.adopt(stream, read.to_vec(), peer).unwrap();
        settle(&mut server);
        client.write(rest);
        while server.with_server(|server| server.stats().messages_in) != Some(1) {
            settle(&mut server);
        }
        settle(&mut server);
        assert_eq!(client.answer(false).status, 101, "{already_read}");
        client.expect_text("first");
        let stats = server.with_server(|server| server.stats()).unwrap();
        assert_eq!((stats.connections_total, stats.sessions_open), (1, 1));
        assert_eq!(stats.bytes_in, both.len() as u64);
    }
}

#[test]
fn connections_are_adopted_from_threads_and_hooks_too() {
    let server = Running::start(echo);
    let (stream, mut client, peer) = accepted();
    ask(&mut client);
    server.0.adopt(stream, Vec::new(), peer).unwrap();
    assert_eq!(client.answer(false).body, "wirewheel");
    let (stream, mut client, peer) = accepted();
    ask(&mut client);
    server.0.defer(move |server| server.adopt(stream, Vec::new(), peer).unwrap()).unwrap();
    assert_eq!(client.answer(false).body, "wirewheel");
    // A stream socket of another family does as well.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"GET /name HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    server.0.adopt(ours, Vec::new(), peer).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut theirs, &mut answer).unwrap();
    assert!(answer.ends_with("wirewheel"), "{answer}");
}

/// The same limits as for those that the server accepts itself, and one account of both.
#[test]
fn adopted_connections_count_as_accepted_ones_do() {
    // Who was refused stays until its client hangs up, and takes a place.
    let limits = Limits::new().per_address(2).max_connections(4).linger_timeout(PATIENCE);
    let server = Running::start(move |app| limited(app, limits));
    let elsewhere = |n: u8| SocketAddr::from(([192, 0, 2, n], 1));
    let adopt = |peer: SocketAddr| {
        let (stream, mut client, _) = accepted();
        server.0.adopt(stream, Vec::new(), peer).unwrap();
        ask(&mut client);
        let status = client.answer(false).status;
        (client, status)
    };
    let one = adopt(elsewhere(1));
    let two = adopt(elsewhere(1));
    let three = adopt(elsewhere(1));
    assert_eq!((one.1, two.1, three.1), (200, 200, 429));
    let own = server.upgrade("/");
    let full = adopt(elsewhere(2));
    assert_eq!(full.1, 503);
    let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    assert_eq!((stats.refused_address, stats.refused_full), (1, 1));
    drop(own);
}

#[test]
fn what_cannot_be_adopted_is_an_error_or_hung_up_on() {
    let limits = Limits::new().read_buffer_bytes(1024);
    let mut server = driver(move |app| limited(app, limits));
    let (stream, mut client, peer) = accepted();
    let too_much = server.adopt(stream, vec![0; 1025], peer);
    assert_eq!(too_much, Err(AdoptError::TooMuchRead { bytes: 1025, limit: 1024 }));
    assert!(too_much.unwrap_err().to_string().contains("read_buffer_bytes of Limits"));
    client.expect_eof();
    server.adopt(std::fs::File::open("/dev/null").unwrap(), Vec::new(), peer).unwrap();
    settle(&mut server);
    assert_eq!(server.with_server(|server| server.stats().connections_total), Some(0));
}

/// Whatever it is: it takes no place until some time is over, and it is closed.
#[test]
fn descriptors_that_are_no_connections_are_closed_at_once() {
    let mut server = driver(echo);
    let peer = SocketAddr::from(([192, 0, 2, 1], 1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let behind = listener.local_addr().unwrap();
    let (pipe, mut pipe_end) = std::io::pipe().unwrap();
    let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let (datagrams, _other) = UnixDatagram::pair().unwrap();
    let descriptors: [OwnedFd; 6] = [
        listener.into(),
        pipe.into(),
        unconnected.unwrap().into(),
        datagrams.into(),
        epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        std::fs::File::open("/").unwrap().into(),
    ];
    for (number, descriptor) in descriptors.into_iter().enumerate() {
        let bytes = b"GET /name HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        server.adopt(descriptor, if number % 2 == 0 { Vec::new() } else { bytes }, peer).unwrap();
        settle(&mut server);
        settle(&mut server); // that it hangs up is news to the next turn
        assert_eq!(server.next_deadline(), None, "descriptor {number}");
        let open = server.with_server(|server| server.stats().connections_open);
        assert_eq!(open, Some(0), "descriptor {number}");
    }
    assert!(TcpStream::connect(behind).is_err(), "nobody listens any more");
    assert!(pipe_end.write_all(b"x").is_err(), "nobody reads any more");
}

/// The limits of a head and of a turn hold for it as for what the server reads itself.
#[test]
fn what_was_read_of_an_adopted_connection_may_be_many_requests_and_no_endless_head() {
    let limits = Limits::new().max_head_bytes(300).read_budget_bytes(4_096);
    let mut server = driver(move |app| limited(app, limits));
    let (stream, mut client, peer) = accepted();
    let requests = b"GET /name HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    server.adopt(stream, requests, peer).unwrap();
    for _ in 0..1_000 {
        settle(&mut server);
        assert_eq!(client.answer(false).body, "wirewheel");
    }
    let (stream, mut client, peer) = accepted();
    server
        .adopt(stream, [b"GET /name HTTP/1.1\r\nX: ", [b'x'; 400].as_slice()].concat(), peer)
        .unwrap();
    settle(&mut server);
    assert_eq!(client.answer(false).status, 431);
}

#[test]
fn those_who_wait_to_be_adopted_when_the_server_ends_are_hung_up_on() {
    let mut server = driver(echo);
    server.with_server(|server| server.shutdown(Duration::ZERO));
    let handle = server.with_server(|server| server.handle()).unwrap();
    let (stream, mut client, peer) = accepted();
    while server.turn().unwrap().is_continue() {}
    assert_eq!(handle.adopt(stream, Vec::new(), peer), Err(HandleError::Stopped));
    client.expect_eof();
}

/// A stop says how all have ended, as `Handle::join` does.
#[test]
fn the_end_says_how_sessions_have_ended() {
    let server = Server::bind("127.0.0.1:0", echo).unwrap();
    let served = start_in(Loop::Mio, server, || ()).unwrap();
    let mut client = Client::connect(served.local_addr()).upgraded("/");
    served.shutdown(PATIENCE);
    client.expect_close(CloseCode::GOING_AWAY.into());
    client.send(CLOSE, &close_payload(1001, ""));
    client.expect_eof();
    drop(client);
    let drained = served.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (1, 0));
    assert_ne!(drained, Drained::default());
}

//! The hub under a service manager, which this harness plays.

mod support;

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;
use support::client::{CLOSE, Client, PATIENCE, close_payload, millis, upgrade_request};
use support::{Folder, Hub, Manager, activated, command, listening};

#[test]
fn sockets_that_were_handed_over_are_served_and_readiness_is_told() {
    let folder = Folder::new("activation");
    let manager = Manager::new(&folder);
    let (socket, addr) = listening();
    let path = folder.path("socket");
    let unix = UnixListener::bind(&path).unwrap();
    // Who connects before the service has started waits for it.
    let early = Client::connect(addr);
    let mut command = activated(vec![socket, OwnedFd::from(unix)], &["--echo"], "$$");
    let hub = Hub::of({
        command.env("NOTIFY_SOCKET", &manager.path);
        command
    });
    assert_eq!(manager.next(), "READY=1");
    let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(&path).unwrap()));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let over_unix = Client { stream, inbox: Vec::new() };
    for client in [early, over_unix] {
        let mut client = client.upgraded("/echo");
        client.text("hello");
        client.expect_text("hello");
    }
    hub.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1");
    hub.expect_clean_exit();
    assert!(path.exists(), "the socket file is the manager's");
}

fn expect_echo(mut client: Client) {
    client.text("hello");
    client.expect_text("hello");
}

#[test]
fn a_socket_is_named_by_its_number_and_those_that_are_not_named_are_the_rest() {
    let [(first, of_first), (second, of_second)] = [listening(), listening()];
    let both = ["--echo", "--listen", "fd:4", "--listen", "fd:3"];
    let hub = Hub::of(activated(vec![first, second], &both, "$$"));
    assert_eq!(hub.addr, of_second);
    for addr in [of_first, of_second] {
        expect_echo(Client::connect(addr).upgraded("/echo"));
    }
    let [(first, of_first), (second, of_second)] = [listening(), listening()];
    let arguments = ["--echo", "--listen", "fd:", "--listen", "fd:4"];
    let hub = Hub::of(activated(vec![first, second], &arguments, "$$"));
    assert_eq!(hub.addr, of_second, "what is named comes first");
    for addr in [of_first, of_second] {
        expect_echo(Client::connect(addr).upgraded("/echo"));
    }
}

#[test]
fn a_socket_as_standard_input_is_served() {
    let (socket, addr) = listening();
    let mut command = command();
    command.args(["--echo", "--listen", "fd:0"]).stdin(socket);
    let hub = Hub::of(command);
    assert_eq!(hub.addr, addr);
    let mut session = hub.upgrade("/echo");
    hub.signal(Signal::TERM);
    session.expect_close(1012); // whoever handed it over starts the service again
    session.send(CLOSE, &close_payload(1012, ""));
    session.expect_eof();
    hub.expect_clean_exit();
}

#[test]
fn a_socket_that_would_be_served_by_nobody_is_refused() {
    // The manager keeps it: whoever connects to it would wait for ever.
    for arguments in [&["--echo", "--listen", "fd:4"][..], &["--echo", "--listen", "127.0.0.1:0"]] {
        let sockets = vec![listening().0, listening().0];
        let output = activated(sockets, arguments, "$$").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("would be served by nobody: give --listen fd: for all"), "{text}");
    }
    let sockets = vec![listening().0, listening().0];
    let arguments = ["--echo", "--listen", "127.0.0.1:0", "--listen", "fd:"];
    expect_echo(Hub::of(activated(sockets, &arguments, "$$")).upgrade("/echo"));
}

#[test]
fn a_notify_socket_that_does_not_work_is_said_once() {
    let folder = Folder::new("deaf");
    let mut command = command();
    command.args(["--echo", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", folder.path("nobody")).env("WATCHDOG_USEC", "20000");
    let mut hub = Hub::of(command);
    let mut client = hub.upgrade("/echo");
    // Some fifty periods pass while its Close is not answered.
    client.text("hello");
    client.expect_text("hello");
    hub.signal(Signal::TERM);
    client.expect_close(1001);
    client.stream.set_read_timeout(Some(millis(1000))).unwrap();
    let _ = std::io::Read::read(&mut client.stream, &mut [0]);
    drop(client);
    let log = hub.rest_of_log();
    let said = log.iter().filter(|line| line.contains("telling the service manager")).count();
    // That of READY=1 may have been before the line that the hub is bound.
    assert!(said <= 1, "{log:#?}");
}

#[test]
fn a_number_that_is_no_socket_says_so() {
    let complaint = |mut command: std::process::Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    for wrong in ["fd:5", "fd:3"] {
        let arguments = ["--echo", "--listen", "fd:3", "--listen", wrong];
        let text = complaint(activated(vec![listening().0], &arguments, "$$"));
        let expected = format!("--listen {wrong}: no such socket was handed over (LISTEN_FDS), or");
        assert!(text.contains(&expected), "{text}");
    }
    let mut of_a_file = command();
    of_a_file.args(["--echo", "--listen", "fd:0"]).stdin(std::process::Stdio::null());
    let text = complaint(of_a_file);
    assert!(text.contains("cannot listen on") && text.contains("socket"), "{text}");
}

/// A number is believed only if it is one: a large one took a gibibyte, and the others were not noticed.
#[test]
fn a_number_of_sockets_that_is_none_is_refused() {
    for wrong in ["99999999", "-1", "abc", "1025", "4294967296", "1 "] {
        let mut command = activated(vec![listening().0], &["--echo"], "$$");
        let output = command.env("LISTEN_FDS", wrong).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{wrong}: {text}");
        let expected = format!("LISTEN_FDS: {wrong:?} is no number of sockets");
        assert!(text.contains(&expected), "{text}");
    }
    // They are for another process.
    let mut command = activated(vec![listening().0], &["--echo", "--listen", "127.0.0.1:0"], "1");
    let hub = Hub::of({
        command.env("LISTEN_FDS", "99999999");
        command
    });
    hub.connect();
}

#[test]
fn over_a_restart_sessions_get_1012_and_who_connects_meanwhile_waits() {
    let (socket, addr) = listening();
    let again = socket.try_clone().unwrap(); // the manager keeps it
    let old = Hub::of(activated(vec![socket], &["--echo"], "$$"));
    let mut session = old.upgrade("/echo");
    old.signal(Signal::TERM);
    session.expect_close(1012);
    // The old process still waits for this session's answer; a newcomer is not told 503 by it.
    let mut early = Client::connect(addr);
    early.write(upgrade_request("/echo", ""));
    session.send(CLOSE, &close_payload(1012, ""));
    session.expect_eof();
    drop(session);
    old.expect_clean_exit();
    let new = Hub::of(activated(vec![again], &["--echo"], "$$"));
    assert_eq!(early.answer(false).status, 101);
    early.text("hello");
    early.expect_text("hello");
    assert_eq!(new.addr, addr);
}

#[test]
fn the_watchdog_hears_from_the_loop_and_only_while_it_goes_round() {
    let folder = Folder::new("watchdog");
    let manager = Manager::new(&folder);
    let mut command = command();
    command.args(["--echo", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000");
    let hub = Hub::of(command);
    assert_eq!(manager.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    // A process that is stopped cannot tell; one that merely serves would look the same outside.
    hub.signal(Signal::STOP);
    while manager.within(millis(400)).is_some() {} // what was on its way
    assert_eq!(manager.within(millis(600)), None);
    hub.signal(Signal::CONT);
    assert_eq!(manager.next(), "WATCHDOG=1");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let folder = Folder::new("other-watchdog");
    let manager = Manager::new(&folder);
    let mut command = command();
    command.args(["--echo", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    command.env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1");
    let _hub = Hub::of(command);
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(manager.within(millis(400)), None);
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (socket, _) = listening();
    let mut command = activated(vec![socket], &["--echo", "--listen", "fd:"], "1");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no socket was handed over"), "{text}");
}

#[test]
fn timestamps_are_left_to_the_journal() {
    let line = |stream: fn(String) -> String| {
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        let stat = rustix::fs::fstat(&theirs).unwrap();
        let mut command = command();
        command.args(["--echo", "--listen", "127.0.0.1:0"]).env("INVOCATION_ID", "1");
        command.env("JOURNAL_STREAM", stream(format!("{}:{}", stat.st_dev, stat.st_ino)));
        let mut child = command.stderr(theirs).spawn().unwrap();
        let (mut line, mut log) = (String::new(), std::io::BufReader::new(File::from(ours)));
        std::io::BufRead::read_line(&mut log, &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        line
    };
    assert!(line(|journal| journal).starts_with("[INFO "));
    // Where the log goes to a file, the variable is there all the same.
    for elsewhere in [line(|journal| format!("9{journal}")), line(|_| String::new())] {
        assert!(elsewhere.starts_with("[2") && elsewhere.contains("Z INFO "), "{elsewhere}");
    }
}

#[test]
fn an_abstract_notify_socket_is_told_too() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("wirewheel-hub-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command();
    command.args(["--echo", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", format!("@{name}"));
    let hub = Hub::of(command);
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
    assert_ne!(hub.addr, SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut client = hub.upgrade("/echo");
    hub.signal(Signal::TERM);
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
    hub.expect_clean_exit();
}

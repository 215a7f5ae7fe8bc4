//! The hub under a service manager, which this harness plays.

mod support;

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
    let line = |variable: Option<&str>| {
        let mut command = command();
        command.args(["--echo", "--listen", "127.0.0.1:0"]);
        if let Some(variable) = variable {
            command.env(variable, "9:1");
        }
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut log, &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        line
    };
    assert!(line(Some("JOURNAL_STREAM")).starts_with("[INFO "));
    let plain = line(None);
    assert!(plain.starts_with("[2") && plain.contains("Z INFO "), "{plain}");
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

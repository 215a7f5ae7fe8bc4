//! Settings that mean what they say: what `--check` sees, what is refused at the start, signals, pages
//! that are always there.

mod support;

use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::client::{CLOSE, Client, PATIENCE, close_payload, upgrade_request};
use support::{Folder, Hub, command, run, show};

/// How `--check` ends where something that the options name is not there: it may come later.
const NOT_THERE: i32 = 75;

/// What it says about a mistake.
#[track_caller]
fn complaint(command: Command) -> String {
    complaint_with(command, 1)
}

#[track_caller]
fn complaint_with(mut command: Command, status: i32) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

#[track_caller]
fn expect_complaint(arguments: &[&str], expected: &str) {
    let mut command = command();
    command.args(arguments);
    let text = complaint(command);
    assert!(text.contains(expected), "{arguments:?}: {text}");
}

#[test]
fn a_check_looks_whether_the_program_is_there_and_can_be_started() {
    let folder = Folder::new("check-program");
    let text = folder.write("text", "no program\n");
    let script = folder.write("script", "#!/nonexistent/interpreter -u\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let dangling = folder.path("dangling");
    symlink("/nonexistent", &dangling).unwrap();
    let home = folder.path("");
    for (check, status) in [(&["--check"][..], NOT_THERE), (&[], 1)] {
        let check = |program: &str, expected: &str| {
            let mut command = command();
            command.args(check).args(["--exec", program]);
            let text = complaint_with(command, status);
            assert!(text.contains(expected), "{program}: {text}");
        };
        check("/nonexistent/program", "--exec /nonexistent/program: there is no such program");
        check("no-such-program-anywhere", "there is no such program in PATH");
        check(&text, "it is not executable (chmod +x)");
        check(&show(&home), "it is no file");
        check(&show(&dangling), "there is no such program");
        check(&script, "its interpreter /nonexistent/interpreter cannot be started");
    }
    assert!(run(&["--check", "--exec", "cat"]).status.success());
    assert!(run(&["--check", "--exec", "/bin/sh"]).status.success());
}

#[test]
fn a_check_looks_at_every_place_and_at_clashes() {
    let folder = Folder::new("check-places");
    let file = folder.write("file", "");
    let check = |listen: &[&str], expected: &str| {
        let mut arguments = vec!["--check", "--echo"];
        arguments.extend(listen.iter().flat_map(|place| ["--listen", place]));
        expect_complaint(&arguments, expected);
    };
    check(&["127.0.0.1:8080", "127.0.0.1:8080"], "--listen 127.0.0.1:8080 is given twice");
    check(&["fd:", "unix:/tmp/x", "unix:/tmp/x"], "--listen unix:/tmp/x is given twice");
    check(&["fd:3", "fd:", "fd:3"], "--listen fd:3 is given twice");
    // The same place in other words.
    let clash = "--listen 127.0.0.1:8080 is taken by --listen ";
    check(&["localhost:8080", "127.0.0.1:8080"], clash);
    check(&["[::1]:8080", "0.0.0.0:8080", "127.0.0.1:8080"], clash);
    check(&[":8080", "127.0.0.1:8080"], clash);
    check(&["unix:/tmp/x", "unix:/tmp/../tmp/./x"], "is taken by --listen unix:/tmp/x");
    for places in [["127.0.0.1:8080", "[::1]:8080"], ["127.0.0.1:8080", "127.0.0.2:8080"]] {
        let mut arguments = vec!["--check", "--echo"];
        arguments.extend(places.iter().flat_map(|place| ["--listen", place]));
        assert!(run(&arguments).status.success(), "{places:?}");
    }
    check(&[&format!("unix:{file}")], "taken by something that is no socket");
    check(&[&format!("unix:{file}/x")], "unix:");
    check(&[&format!("unix:/tmp/{}", "x".repeat(110))], "longer than a Unix socket's can be");
    check(&["127.0.0.1:99999"], "--listen 127.0.0.1:99999");
    for (metrics, expected) in
        [("/m?x=1", "give a path from /"), ("/healthz", "alive"), ("/echo", "--echo")]
    {
        expect_complaint(&["--check", "--echo", "--metrics", metrics], expected);
        expect_complaint(&["--echo", "--metrics", metrics], expected);
    }
    let twice = ["--check", "--echo", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    assert!(run(&twice).status.success(), "each is a port of its own");
}

/// No waiting mends them, whatever else is not there yet.
#[test]
fn a_check_knows_mistakes_in_the_options_of_topics_from_what_may_come_later() {
    for (options, expected) in [
        (&["--overflow", "latest", "--replay", "3"][..], "give no --replay"),
        (&["--replay", "2000000"], "--replay 2000000: "),
    ] {
        for missing in [&[][..], &["--token-file", "/nonexistent/tokens"]] {
            expect_complaint(&[&["--topics", "--check"], options, missing].concat(), expected);
            expect_complaint(&[&["--topics"], options].concat(), expected);
        }
    }
}

#[test]
fn a_check_starts_nothing() {
    let folder = Folder::new("check-starts");
    let marker = folder.path("marker");
    let program = folder.write("program", &format!("#!/bin/sh\ntouch {}\n", marker.display()));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path("socket");
    let place = format!("unix:{}", show(&socket));
    assert!(run(&["--check", "--exec", &program, "--listen", &place]).status.success());
    assert!(!marker.exists() && !socket.exists());
}

#[test]
fn a_standard_output_that_takes_nothing_is_no_reason_to_panic() {
    for arguments in [["--help"], ["--version"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command().args(arguments).stdout(full).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("wirewheel-hub: standard output: No space left"), "{text}");
        // Nor is one that has had enough, nor is a mistake that nobody can be told.
        let (reading, writing) = UnixStream::pair().unwrap();
        drop(reading);
        let output = command().args(arguments).stdout(OwnedFd::from(writing)).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = command().args(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn the_metrics_ask_for_the_token_unless_they_are_to_be_open() {
    let folder = Folder::new("metrics");
    let tokens = folder.write("tokens", "swordfish\n");
    let arguments = ["--echo", "--metrics", "/metrics", "--token-file", &tokens];
    let hub = Hub::start(&arguments);
    let status = |hub: &Hub, path: &str, header: &str| {
        hub.connect().request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{header}\r\n")).status
    };
    for path in ["/metrics", "//metrics", "/%6detrics", "/metrics/", "/metrics?x"] {
        assert!(matches!(status(&hub, path, ""), 401 | 404), "{path}");
    }
    assert_eq!(status(&hub, "/metrics", ""), 401);
    assert_eq!(status(&hub, "/metrics?token=swordfis", ""), 401);
    assert_eq!(status(&hub, "/metrics?token=swordfish", ""), 200);
    assert_eq!(status(&hub, "/metrics", "Authorization: Bearer swordfish\r\n"), 200);
    assert_eq!(status(&hub, "/healthz", ""), 200);
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0"]).args(arguments).arg("--metrics-open");
    let open = Hub::of(command);
    assert_eq!(status(&open, "/metrics", ""), 200);
    assert_eq!(open.connect().request("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").body, "ok\n");
}

fn leave(client: &mut Client, code: u16) {
    client.expect_close(code);
    client.send(CLOSE, &close_payload(code, ""));
    client.expect_eof();
}

#[test]
fn sighup_reads_the_tokens_again_and_a_bad_file_changes_nothing() {
    let folder = Folder::new("reload");
    let tokens = folder.write("tokens", "swordfish\n");
    let mut hub = Hub::start(&["--echo", "--token-file", &tokens]);
    let status = |hub: &Hub, token: &str| {
        hub.connect().request(&upgrade_request(&format!("/echo?token={token}"), "")).status
    };
    let mut session = hub.upgrade("/echo?token=swordfish");
    folder.write("tokens", "other-token\n");
    assert_eq!((status(&hub, "swordfish"), status(&hub, "other-token")), (101, 401));
    hub.signal(Signal::HUP);
    hub.log_until("1 tokens are read again");
    assert_eq!((status(&hub, "swordfish"), status(&hub, "other-token")), (401, 101));
    folder.write("tokens", "short\n");
    hub.signal(Signal::HUP);
    hub.log_until("the tokens stay as they were");
    assert_eq!(status(&hub, "other-token"), 101);
    session.text("still here");
    session.expect_text("still here");
}

#[test]
fn sighup_ends_a_hub_without_tokens_as_sigterm_does_unless_it_is_ignored() {
    let hub = Hub::start(&["--echo"]);
    let mut session = hub.upgrade("/echo");
    hub.signal(Signal::HUP);
    leave(&mut session, 1001);
    hub.expect_clean_exit();
    // As nohup(1) has it.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    shell.args(support::client::emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub")));
    shell.args(["--echo", "--listen", "127.0.0.1:0"]);
    let hub = Hub::of(shell);
    hub.signal(Signal::HUP);
    let mut session = hub.upgrade("/echo");
    session.text("hello");
    session.expect_text("hello");
    hub.signal(Signal::TERM);
    leave(&mut session, 1001);
    hub.expect_clean_exit();
}

#[test]
fn that_it_stops_is_told_first() {
    let folder = Folder::new("stopping");
    let manager = support::Manager::new(&folder);
    let mut command = command();
    command.args(["--echo", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &manager.path);
    let hub = Hub::of(command);
    assert_eq!(manager.next(), "READY=1");
    let mut session = hub.upgrade("/echo");
    hub.signal(Signal::TERM);
    // The session has not answered yet.
    assert_eq!(manager.next(), "STOPPING=1");
    leave(&mut session, 1001);
    hub.expect_clean_exit();
    assert_eq!(manager.within(support::client::millis(50)), None, "once");
}

#[test]
fn the_mode_of_a_socket_is_what_was_asked_for() {
    let folder = Folder::new("mode");
    for mode in [0o600, 0o666] {
        let path = folder.path("socket");
        let hub = Hub::of({
            let mut command = command();
            command.args(["--echo", "--socket-mode", &format!("{mode:o}")]);
            command.args(["--listen", &format!("unix:{}", show(&path))]);
            command
        });
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        // It serves: a signal before that would end it as any program.
        let stream = UnixStream::connect(&path).unwrap();
        let stream = TcpStream::from(OwnedFd::from(stream));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Client { stream, inbox: Vec::new() }.upgraded("/echo");
        session.text("hello");
        session.expect_text("hello");
        drop(session);
        hub.signal(Signal::TERM);
        hub.expect_clean_exit();
    }
}

#[test]
fn a_stop_takes_as_long_as_the_grace_at_most() {
    let mut hub = Hub::start(&["--echo", "--grace", "700ms"]);
    let mut silent = hub.upgrade("/echo");
    hub.signal(Signal::TERM);
    silent.expect_close(1001);
    // It never answers; the default would wait for 5 s.
    let end = hub.log_until("stopped");
    assert!(end.contains("1 were cut"), "{end}");
    hub.expect_clean_exit();
}

/// A line of the log that nobody reads holds nobody: a pipe, a socket and a pipe that is not ours.
#[test]
fn a_log_that_nobody_reads_holds_nobody_and_says_what_it_lost() {
    let mut child = command()
        .args(["--echo", "--listen", "127.0.0.1:0", "--exec", "true", "--max-children", "64"])
        .env("RUST_LOG", "debug")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let addr = loop {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut log, &mut line).unwrap();
        if let Some((_, addr)) = line.trim().rsplit_once("bound to ") {
            break addr.parse().unwrap();
        }
    };
    // Far more than a pipe holds, each with some lines.
    for _ in 0..1500 {
        let mut client = Client::connect(addr).upgraded("/echo");
        client.text("hello");
        client.expect_text("hello");
    }
    let mut last = Client::connect(addr).upgraded("/echo");
    let pid = rustix::process::Pid::from_child(&child);
    // What is in the pipe makes room for the word about what is not.
    let mut first = vec![0; 16 << 10];
    std::io::Read::read_exact(&mut log, &mut first).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    leave(&mut last, 1001);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut log, &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.contains("lines of the log are lost: nobody read it"), "{text}");
    assert!(text.contains("stopped"), "{text}");
}

#[test]
fn a_log_over_a_socket_that_nobody_reads_holds_nobody_either() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let listener = support::listening();
    let mut child = command()
        .args(["--echo", "--listen", "fd:0"])
        .stdin(listener.0)
        .env("RUST_LOG", "debug")
        .stderr(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    for _ in 0..3000 {
        let mut client = Client::connect(listener.1).upgraded("/echo");
        client.text("hello");
        client.expect_text("hello");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    drop(ours);
}

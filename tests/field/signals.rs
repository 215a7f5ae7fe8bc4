//! SIGTERM, as a program has it.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use wirewheel::{Application, Call, Limits, Server, WebSockets, on_message};

use crate::support::*;

/// Set for a test that is a program: whose handlers it has.
const HANDLER: &str = "WIREWHEEL_TEST_HANDLER";

/// A program that serves twice, then cleans up until its standard input ends or its own handler was
/// called.
#[test]
#[ignore = "the process that the test below starts"]
#[allow(clippy::print_stdout, reason = "its lines are what the test below reads")]
fn serves_and_cleans_up() {
    let Some(handler) = std::env::var_os(HANDLER) else { return };
    let (own, has_own) = (Arc::new(AtomicBool::new(false)), handler == "own");
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
            thread::yield_now(); // another thread of this process has the signal
        }
        let handled = own.swap(false, Ordering::Relaxed);
        println!("\ncleaned up, handled {handled}");
    }
}

/// One of them.
struct TestProgram {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl TestProgram {
    fn start(test: &str, trap: &str, handler: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{trap} exec \"$0\" \"$@\"")]);
        shell.args(emulator::words(std::env::current_exe().unwrap()));
        shell.args(["--exact", &format!("signals::{test}"), "--ignored", "--nocapture"]);
        shell.env(HANDLER, handler);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn cleaning_up(trap: &str, handler: &str) -> Self {
        Self::start("serves_and_cleans_up", trap, handler)
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

    /// A server of it stops at a signal.
    fn serve_until_signalled(&mut self, own_handler: bool) {
        self.expect("serving");
        self.signal();
        self.expect(&format!("over, handled {own_handler}"));
    }

    /// The next signal does what it does by default.
    fn end_by_the_next_signal(mut self) {
        self.signal();
        let status = self.end_with_input_open();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for TestProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn after_the_server_signals_do_what_they_did_before() {
    // At their default action.
    let mut program = TestProgram::cleaning_up("", "none");
    program.serve_until_signalled(false);
    program.end_by_the_next_signal();
    // The second server of the process takes them again.
    let mut program = TestProgram::cleaning_up("", "none");
    program.serve_until_signalled(false);
    program.go_on();
    program.serve_until_signalled(false);
    program.end_by_the_next_signal();
    // Ignored, or handled by the application, they are so again, and end nothing.
    for (trap, handler) in [("trap '' TERM;", "none"), ("", "own")] {
        let mut program = TestProgram::cleaning_up(trap, handler);
        let own_handler = handler == "own";
        for _ in 0..2 {
            program.serve_until_signalled(own_handler);
            program.signal();
            program.go_on();
            program.expect(&format!("cleaned up, handled {own_handler}"));
        }
        assert!(program.child.wait().unwrap().success());
    }
}

/// A program with two loops.
#[test]
#[ignore = "the process that the test below starts"]
#[allow(clippy::print_stdout, reason = "its lines are what the test below reads")]
fn serves_with_two_loops() {
    if std::env::var_os(HANDLER).is_none() {
        return;
    }
    let module = |app: &mut Application| {
        let limits = Limits::new().close_timeout(10 * PATIENCE).stop_grace(10 * PATIENCE);
        app.install(WebSockets::new().ping_period(None).limits(limits));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|_, _| Ok(())));
        });
    };
    let server = Server::bind("127.0.0.1:0", module).unwrap().loops(2);
    println!("\n{}", server.local_addr());
    server.run().unwrap();
    println!("\nstopped");
}

/// Whichever loop is over first.
#[test]
fn a_second_signal_stops_the_loops_that_are_left() {
    let mut program = TestProgram::start("serves_with_two_loops", "", "none");
    let address = program.lines.find_map(|line| line.unwrap().parse::<SocketAddr>().ok()).unwrap();
    let [mut on_first, mut on_second] = [(); 2].map(|()| Client::connect(address).upgraded("/"));
    program.signal();
    on_first.expect_close(1001);
    on_second.expect_close(1001);
    on_first.send(CLOSE, &close_payload(1001, ""));
    on_first.expect_eof(); // and has nobody left
    program.signal();
    on_second.expect_eof();
    program.expect("stopped");
    assert!(program.child.wait().unwrap().success());
}

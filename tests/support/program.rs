//! An example that runs as a program.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, cargo, emulator};

/// An example that runs; killed if the test fails before it is stopped.
pub struct Program {
    pub child: Child,
    output: BufReader<ChildStdout>,
    pub addr: SocketAddr,
}

impl Program {
    pub fn start(name: &str) -> Self {
        Self::with_arguments(name, &["127.0.0.1:0"])
    }

    /// Started with arguments, the first of which is the address to listen at.
    pub fn with_arguments(name: &str, arguments: &[&str]) -> Self {
        let mut command = emulator::command(Self::path(name));
        command.args(arguments);
        Self::run(name, command)
    }

    /// Started with a limit on its descriptors.
    pub fn limited(name: &str, descriptors: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""));
        shell.args(emulator::words(Self::path(name))).arg("127.0.0.1:0");
        Self::run(name, shell)
    }

    /// Where an example lies, built first: `cargo test --test NAME` alone builds none.
    pub fn path(name: &str) -> PathBuf {
        static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if !built.contains(name) {
            if let Some(mut build) = cargo::command("build", "") {
                assert!(build.args(["--example", name]).status().unwrap().success(), "{name}");
            }
            built.insert(name.to_owned());
        }
        cargo::profile_folder().join("examples").join(name)
    }

    fn run(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("example {name}: {error}"));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let line = next_line(&mut output);
        let addr = line.strip_prefix("listening on http://").expect("the promised line");
        Self { addr: addr.parse().unwrap(), child, output }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        next_line(&mut self.output)
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub fn expect_failure(mut self) {
        assert_eq!(self.child.wait().unwrap().code(), Some(1));
    }

    pub fn expect_clean_exit(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

//! What the tests of the program share: starting it, and playing its service manager.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "shared by several test crates")]

#[path = "../../../tests/support/mod.rs"]
pub mod client;
#[cfg(feature = "tls")]
#[path = "../../../tests/support/tls.rs"]
pub mod tls;

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(feature = "tls")]
#[allow(unused_imports, reason = "for the client over TLS, in tests that have one")]
pub(crate) use client::{Frame, masked, upgrade_request};

use client::{Client, PATIENCE, emulator};
use rustix::process::{Pid, Signal, kill_process};

/// The program, running; killed if the test ends before it does.
pub struct Hub {
    pub child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub addr: SocketAddr,
}

/// The program with nothing of this process's environment that it would read.
pub fn command() -> Command {
    let mut command = emulator::command(env!("CARGO_BIN_EXE_wirewheel-hub"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

impl Hub {
    /// Starts it on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::of(command)
    }

    /// Starts it and waits until it says where it is bound.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut hub = Self { child, log, addr };
        let bound = hub.log_until("bound to ");
        let place = bound.rsplit(' ').next().unwrap();
        hub.addr = place.parse().unwrap_or(addr);
        hub
    }

    /// The next line of its log that contains a text.
    #[track_caller]
    pub fn log_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        for line in &mut self.log {
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("it ended without saying {text:?}: {seen:#?}");
    }

    /// The rest of its log, to its end.
    pub fn rest_of_log(&mut self) -> Vec<String> {
        (&mut self.log).map(Result::unwrap).collect()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    pub fn upgrade(&self, path: &str) -> Client {
        self.connect().upgraded(path)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub fn expect_clean_exit(mut self) {
        let status: ExitStatus = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {:#?}", self.rest_of_log());
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program as systemd starts it: it inherits `sockets` as descriptors from 3 on. `pid` is for whom
/// they are, `$$` for itself.
pub fn activated(sockets: Vec<OwnedFd>, arguments: &[&str], pid: &str) -> Command {
    let count = sockets.len();
    // Only standard descriptors can be given to a child without unsafe code, so a shell moves them.
    let script = format!(
        "exec 3<&0 4>&1 0</dev/null 1>/dev/null; export LISTEN_PID={pid}; exec \"$0\" \"$@\""
    );
    let mut shell = Command::new("sh");
    shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    shell.args(["-c", &script]).args(emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub")));
    shell.args(arguments);
    shell.env("LISTEN_FDS", count.to_string());
    let mut sockets = sockets.into_iter();
    shell.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
    shell.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
    shell
}

/// The service manager's end of `NOTIFY_SOCKET`.
pub struct Manager {
    socket: UnixDatagram,
    pub path: PathBuf,
}

impl Manager {
    pub fn new(folder: &Folder) -> Self {
        let path = folder.path("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    #[track_caller]
    pub fn next(&self) -> String {
        self.within(PATIENCE).expect("the service tells something")
    }

    /// What the service tells next, if it does in that time.
    pub fn within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 1000];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }
}

/// A TCP socket that listens on a free port.
pub fn listening() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener.into(), addr)
}

/// A folder of a test, gone with it.
pub struct Folder(PathBuf);

static FOLDERS: AtomicU32 = AtomicU32::new(0);

impl Folder {
    pub fn new(name: &str) -> Self {
        // Sockets lie in it, whose paths hold 107 bytes: a long TMPDIR alone may take them.
        let folder = std::env::temp_dir();
        let folder = if folder.as_os_str().len() <= 50 { folder } else { "/tmp".into() };
        // Two tests of a file may have the same name for theirs.
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("wirewheel-hub-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        show(&path)
    }
}

pub fn show(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! A mosquitto of the test's own: on loopback, ended by its id.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "shared by several test crates")]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

/// More than anything takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Mosquitto {
    child: Option<Child>,
    folder: PathBuf,
    /// What runs it: by itself, or in a network of its own.
    command: Box<dyn Fn(&Path) -> Command>,
    host: String,
    pub port: u16,
}

/// Starts one with these lines of configuration, in which `FOLDER` is its own folder; `None` if none is
/// installed.
pub fn start(name: &str, lines: &str) -> Option<Mosquitto> {
    let mut broker = prepare(name, lines)?;
    broker.start();
    Some(broker)
}

/// The same without starting it.
pub fn prepare(name: &str, lines: &str) -> Option<Mosquitto> {
    prepare_at(name, lines, "127.0.0.1", |program| Command::new(program))
}

/// The same at that address, by that command.
#[allow(clippy::print_stdout, reason = "who runs the test is told")]
pub fn prepare_at(
    name: &str,
    lines: &str,
    host: &str,
    command: impl Fn(&Path) -> Command + 'static,
) -> Option<Mosquitto> {
    let Some(_) = installed("mosquitto") else {
        assert!(std::env::var_os("WIREWHEEL_BROKERS").is_none(), "mosquitto is not installed");
        println!("mosquitto is not installed: nothing is tested");
        return None;
    };
    let folder = std::env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let port = free_port();
    let lines = lines.replace("FOLDER", folder.to_str().unwrap());
    let mut file = fs::File::create(folder.join("mosquitto.conf")).unwrap();
    // As root it would become another user, who cannot read what is here.
    writeln!(file, "user root\nmax_queued_messages 100000\nlistener {port} {host}").unwrap();
    writeln!(file, "{}", if lines.is_empty() { "allow_anonymous true" } else { &lines }).unwrap();
    let (command, host) = (Box::new(command), host.to_owned());
    Some(Mosquitto { child: None, folder, command, host, port })
}

pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.is_file())
}

/// A port below those that the system gives to who asks for any: nobody is given it before the broker
/// listens, nor while it is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    let mut ports = (0..10_000).map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}

impl Mosquitto {
    /// Starts it, again if it was killed, and waits until it listens.
    pub fn start(&mut self) {
        let mut command = (self.command)(&installed("mosquitto").unwrap());
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(child.spawn().unwrap());
        while TcpStream::connect((self.host.as_str(), self.port)).is_err() {
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().unwrap().is_some() {
                panic!("mosquitto has ended: {:?}", fs::read_to_string(self.folder.join("log")));
            }
            thread::yield_now();
        }
    }

    /// As with SIGKILL: nothing is said, and nothing is saved.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}:{}", self.host, self.port)
    }

    /// One of its clients' programs, told where it is.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(installed(name).expect("with the broker come its clients"));
        command.args(["-V", "5", "-h", &self.host, "-p", &self.port.to_string()]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Publishes as any client does.
    pub fn publish(&self, arguments: &[&str]) {
        assert!(self.program("mosquitto_pub").args(arguments).status().unwrap().success());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

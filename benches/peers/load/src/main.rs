//! The load generator: one thread, one epoll loop, every byte that comes back is compared with what
//! must come. Prints one line of JSON.
//!
//! ```text
//! bench-load echo      --port P --connections C --depth D --size BYTES [--text] [--idle N] [--burst] RUN
//! bench-load broadcast --port P --connections C --depth WINDOW --size BYTES [--deflate] [--events] RUN
//! bench-load get       --port P --connections C --size BYTES RUN
//! bench-load handshake --port P --connections CONCURRENT RUN
//! bench-load post      --port P --connections C --size BYTES RUN
//! bench-load pings     --port P --connections C --total PINGS_EACH
//! bench-load serve     --port P --connections C --depth D --size BYTES [--text] [--burst] RUN
//! bench-load hold      --port P      then on stdin: open N, send BYTES, close, quit
//!
//! `echo --burst` has all connections send at once, and again when all echoes are there: the server then
//! finds as much to do each time it wakes, however fast it is.
//!
//! `serve` waits for a client that dials, whose process id it reads from stdin.
//!
//! `broadcast --events` has all but the first, which publishes, read event streams.
//!
//! `--tls FILE` has all of them speak TLS 1.3, and trust the authority in that PEM file for `localhost`, or
//! for the `--name` that is given; with `--resume` they resume by tickets.
//!
//! RUN is --seconds S [--warm S] [--pid SERVER], or --total MESSAGES to send exactly so many.
//! ```

mod broadcast;
mod echo;
mod handshake;
mod hold;
mod measure;
mod requests;
mod secured;
mod serve;
mod swarm;
mod traffic;

use std::error::Error;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The command line.
pub(crate) struct Plan {
    port: u16,
    connections: usize,
    depth: usize,
    size: usize,
    text: bool,
    burst: bool,
    deflate: bool,
    events: bool,
    idle: usize,
    seconds: Duration,
    warm: Duration,
    total: Option<u64>,
    pid: Option<u32>,
    /// The authority that is trusted; none speaks no TLS.
    tls: Option<String>,
    /// Whose certificate is wanted.
    name: String,
    resume: bool,
}

fn main() -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let plan = Plan::read(words)?;
    match mode.as_str() {
        "echo" => echo::run(&plan),
        "broadcast" => broadcast::run(&plan),
        "get" => requests::get(&plan),
        "handshake" => handshake::run(&plan),
        "post" => requests::post(&plan),
        "pings" => hold::answer_pings(&plan),
        "hold" => hold::run(&plan),
        "serve" => serve::run(&plan),
        _ => {
            Err("usage: bench-load echo|broadcast|get|handshake|post|pings|serve|hold --port P ..."
                .into())
        }
    }
}

impl Plan {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut plan = Self {
            port: 0,
            connections: 1,
            depth: 1,
            size: 20,
            text: false,
            burst: false,
            deflate: false,
            events: false,
            idle: 0,
            seconds: Duration::from_secs(1),
            warm: Duration::from_millis(200),
            total: None,
            pid: None,
            tls: None,
            name: "localhost".into(),
            resume: false,
        };
        while let Some(name) = words.next() {
            match name.as_str() {
                "--text" => plan.text = true,
                "--burst" => plan.burst = true,
                "--deflate" => plan.deflate = true,
                "--resume" => plan.resume = true,
                "--events" => plan.events = true,
                _ => {
                    let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
                    plan.set(&name, &value).map_err(|error| format!("{name} {value}: {error}"))?;
                }
            }
        }
        Ok(plan)
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome {
        match name {
            "--port" => self.port = value.parse()?,
            "--connections" => self.connections = value.parse()?,
            "--depth" => self.depth = value.parse()?,
            "--size" => self.size = value.parse()?,
            "--idle" => self.idle = value.parse()?,
            "--seconds" => self.seconds = Duration::try_from_secs_f64(value.parse()?)?,
            "--warm" => self.warm = Duration::try_from_secs_f64(value.parse()?)?,
            "--total" => self.total = Some(value.parse()?),
            "--tls" => self.tls = Some(value.to_owned()),
            "--name" => value.clone_into(&mut self.name),
            "--pid" => self.pid = Some(value.parse()?),
            _ => return Err("no such option".into()),
        }
        Ok(())
    }
}

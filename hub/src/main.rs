//! wirewheel-hub: WebSockets for a box that has nothing but this one program.
//!
//! ```text
//!   config    what it is to do; options and values: how that is said
//!   check     what is seen to be wrong before anything is started
//!   hub       the routes, and running
//!   topics    what one client sends, all others receive
//!   loops     whether all of several loops are there, and turn
//!   links     the same across hubs (unlinked: without them)
//!   upstream  the hub that is dialled; upstream_place: how that is said
//!   broker    the same across boxes over MQTT (unbrokered: without it); broker_place: how that is said
//!   exec      a program for each session
//!   serve     files beneath a folder
//!   tokens    who may connect
//!   tls       certificates and keys
//!   service   what systemd and others want to hear
//!   signals   signals as descriptors, and children that have ended
//!   stamp     the time of a line of the log
//!   stderr    the log, which never waits for its reader; sparing: lines that strangers cause
//! ```

#[cfg(feature = "broker")]
mod broker;
#[cfg(not(feature = "broker"))]
#[path = "unbrokered.rs"]
mod broker;
mod broker_place;
mod check;
mod config;
mod exec;
mod hub;
#[cfg(feature = "upstream")]
mod links;
#[cfg(not(feature = "upstream"))]
#[path = "unlinked.rs"]
mod links;
mod loops;
mod options;
mod service;
mod signals;
mod sparing;
mod stamp;
mod stderr;
mod tls;
mod tokens;
mod topics;
#[cfg(feature = "upstream")]
mod upstream;
mod upstream_place;
mod values;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use check::Finding;
use config::{HELP, Request};

/// How `--check` ends where the options are right and something that they name is not there: it may come
/// later (EX_TEMPFAIL of sysexits.h).
const NOT_THERE: u8 = 75;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let result = match Request::read(arguments, std::env::vars_os()) {
        Ok(Request::Help) => return print(HELP),
        Ok(Request::Version) => {
            return print(concat!("wirewheel-hub ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Ok(Request::Check(config)) => {
            return match hub::check(&config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(Finding::Mistake(mistake)) => complain(&mistake),
                Err(Finding::Missing(missing)) => {
                    complain(&missing);
                    ExitCode::from(NOT_THERE)
                }
            };
        }
        Ok(Request::Run(config)) => {
            start_logging();
            hub::run(&config)
        }
        Err(mistake) => Err(mistake),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(mistake) => complain(&mistake),
    }
}

/// Lines on stderr; with the time, unless who reads them notes it anyway.
fn start_logging() {
    let mut logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    let noted_anyway = service::log_has_timestamps();
    logger.format(move |line, record| {
        write!(line, "[")?;
        if !noted_anyway {
            write!(line, "{} ", stamp::now())?;
        }
        writeln!(line, "{:<5} {}] {}", record.level(), record.target(), record.args())
    });
    logger.target(env_logger::Target::Pipe(Box::new(stderr::Log::new())));
    logger.init();
}

/// Prints what was asked for. Who reads a part of it only has had enough.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Before there is a log, and for whoever called it by hand; who cannot be told is not told.
fn complain(mistake: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "wirewheel-hub: {mistake}");
    ExitCode::FAILURE
}

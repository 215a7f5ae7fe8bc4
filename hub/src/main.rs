//! wirewheel-hub: WebSockets for a box that has nothing but this one program.
//!
//! ```text
//!   config    options and environment
//!   hub       the routes, and running
//!   topics    what one client sends, all others receive
//!   exec      a process for each session
//!   serve     files beneath a folder
//!   tokens    who may connect
//!   service   what systemd and others want to hear
//! ```

mod config;
mod exec;
mod hub;
mod serve;
mod service;
mod tokens;
mod topics;

use std::process::ExitCode;

use config::{HELP, Request};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let result = match Request::read(arguments, std::env::vars_os()) {
        Ok(Request::Help) => return print(HELP),
        Ok(Request::Version) => {
            return print(concat!("wirewheel-hub ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Ok(Request::Check(config)) => hub::check(&config),
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
    if service::log_has_timestamps() {
        logger.format_timestamp(None);
    }
    logger.init();
}

#[allow(clippy::print_stdout, reason = "it was asked for")]
fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "before there is a log, and for whoever called it by hand")]
fn complain(mistake: &str) -> ExitCode {
    eprintln!("wirewheel-hub: {mistake}");
    ExitCode::FAILURE
}

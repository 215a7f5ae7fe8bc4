//! Prints what a session that is dialled costs its program in user-space memory while it is idle, and a
//! dialer while it waits for its next attempt.
//!
//! Run it with `cargo bench --bench dial_memory --features client [-- DIALERS]` (default 10,000), over TLS
//! with `--features client,tls -- DIALERS tls`. The server is a process of its own; the figures are growth
//! of anonymous resident memory divided by the dialers, which have equal options and one URL.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "a program, not a library")]

mod echo_server;

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use echo_server::serve_echo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wirewheel::client::{ConnectOptions, Dialer, DialerState};
use wirewheel::{Application, Call, Limits, Listen, Server, WebSockets, on_message};

/// How many connect at once: fewer than the server's backlog takes.
const WAVE: usize = 16;

type Anything = Result<(), Box<dyn std::error::Error>>;

fn main() -> Anything {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    match words.first().map(String::as_str) {
        Some("serve") => serve(words.get(1).is_some_and(|word| word == "tls")),
        Some("open") => tell(&words, DialerState::Open),
        Some("waiting") => tell(&words, DialerState::Waiting),
        count => {
            let mode = words.get(1).map_or("plain", String::as_str);
            measure(count.unwrap_or("10000").parse()?, mode)
        }
    }
}

fn serve(is_secure: bool) -> Anything {
    let limits = Limits::new().max_connections(65_536);
    let place = Listen::from("127.0.0.1:0");
    #[cfg(feature = "tls")]
    let place = if is_secure { secured::listen(place) } else { place };
    if is_secure && !cfg!(feature = "tls") {
        return Err("tls wants --features client,tls".into());
    }
    serve_echo(place, WebSockets::new().limits(limits))
}

fn measure(dialers: usize, mode: &str) -> Anything {
    let program = std::env::current_exe()?;
    let mut server = Command::new(&program).args(["serve", mode]).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    let scheme = if mode == "tls" { "wss" } else { "ws" };
    let url = format!("{scheme}://{}/", address.trim());
    let count = dialers.to_string();
    // A process each: what the first has given back would be there for the second.
    let open = Command::new(&program).args(["open", &url, &count]).status()?;
    server.kill()?;
    server.wait()?;
    let waiting = Command::new(&program).args(["waiting", &url, &count]).status()?;
    if open.success() && waiting.success() { Ok(()) } else { Err("it was not measured".into()) }
}

/// Measures in this process.
fn tell(words: &[String], state: DialerState) -> Anything {
    let (url, dialers) = (words.get(1).ok_or("no URL")?, words.get(2).ok_or("no number")?.parse()?);
    let what = if state == DialerState::Open {
        "a dialer with an idle session"
    } else {
        "a dialer that waits"
    };
    println!("{what}: {} bytes", cost(dialers, url, state)?);
    Ok(())
}

/// What each of so many dialers costs once all are in this state.
fn cost(
    dialers: usize,
    url: &str,
    state: DialerState,
) -> Result<usize, Box<dyn std::error::Error>> {
    let figures: Rc<RefCell<Option<(usize, usize)>>> = Rc::default();
    let (outcome, url) = (Rc::clone(&figures), url.to_owned());
    Server::without_listener(move |app: &mut Application| {
        let hour = Duration::from_secs(3600);
        let options = ConnectOptions::new();
        #[cfg(feature = "tls")]
        let options = options.roots(secured::roots());
        let options = options
            .ping_period(None)
            .backoff(hour, hour)
            .connect_timeout(Duration::from_secs(60))
            .on_failure(move |_, _| wirewheel::client::Reconnect::After(hour));
        let mut made: Vec<Dialer> = Vec::with_capacity(dialers + WAVE);
        let mut before = 0;
        app.every(Duration::from_millis(1), move |server| {
            if made.iter().rev().take(WAVE).any(|dialer| dialer.state() != state) {
                return; // the last ones are still under way
            }
            if made.len() == WAVE {
                before = resident(); // what the first ones bring is there for all
            }
            if made.len() >= dialers + WAVE {
                // The first time: while the loop stops, each session holds what its Close needs.
                outcome.borrow_mut().get_or_insert((before, resident()));
                return server.shutdown(Duration::ZERO);
            }
            for _ in 0..WAVE {
                let factory = |_: &Call| on_message(|session, message| session.send(message));
                let dialer = server.connect(&url, options.clone(), factory);
                made.extend(dialer.ok());
            }
        });
    })
    .run()?;
    let (before, after) = figures.borrow().ok_or("it was stopped")?;
    Ok(after.saturating_sub(before) / dialers)
}

#[cfg(feature = "tls")]
mod secured {
    use std::path::PathBuf;

    use wirewheel::Listen;
    use wirewheel::tls::{Roots, TlsOptions};

    fn file(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "../tests/certificates", name].iter().collect()
    }

    pub(super) fn listen(place: Listen) -> Listen {
        Listen::tls(place, TlsOptions::new(file("box.pem"), file("box.key")))
    }

    pub(super) fn roots() -> Roots {
        Roots::pem(file("authority.pem"))
    }
}

/// Anonymous resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}

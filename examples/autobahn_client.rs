//! The client that Autobahn|Testsuite's fuzzing server tests: runs all its cases, one after the other, and
//! has the report written.
//!
//! ```sh
//! wstest -m fuzzingserver
//! cargo run --release --example autobahn_client --all-features -- ws://127.0.0.1:9001
//! ```
//!
//! With `--ca FILE` it trusts the certificates in a PEM file, and dials `wss://`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::client::{ConnectOptions, Reconnect};
use wirewheel::extension::Deflate;
use wirewheel::{
    Application, Call, CloseInfo, Handler, HandlerResult, Limits, Message, Server, ServerRef,
};
use wirewheel::{Session, WebSockets};

/// The agent's name in the report.
const AGENT: &str = "wirewheel-client";

/// What is left to do.
struct Run {
    url: String,
    /// The file of certificates that are trusted.
    ca: Option<String>,
    cases: Cell<u32>,
    next: Cell<u32>,
    failed: Cell<bool>,
}

/// What a session is there for.
#[derive(Clone, Copy)]
enum Purpose {
    CountCases,
    RunCase,
    WriteReports,
}

struct Step {
    run: Rc<Run>,
    purpose: Purpose,
}

impl Handler for Step {
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        match self.purpose {
            Purpose::RunCase => session.send(message),
            Purpose::CountCases => {
                let count = message.text().and_then(|text| text.trim().parse().ok());
                self.run.cases.set(count.unwrap_or(0));
                Ok(())
            }
            Purpose::WriteReports => Ok(()),
        }
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        let (run, mut server) = (Rc::clone(&self.run), session.server());
        let next = run.next.get() + 1;
        match self.purpose {
            Purpose::WriteReports => server.shutdown(Duration::from_secs(1)),
            Purpose::CountCases | Purpose::RunCase if next > run.cases.get() => {
                println!("{} cases", run.cases.get());
                dial(
                    &mut server,
                    &run,
                    &format!("/updateReports?agent={AGENT}"),
                    Purpose::WriteReports,
                );
            }
            Purpose::CountCases | Purpose::RunCase => {
                run.next.set(next);
                let path = format!("/runCase?case={next}&agent={AGENT}");
                dial(&mut server, &run, &path, Purpose::RunCase);
            }
        }
    }
}

/// One session, which is not dialled again.
fn options(run: &Rc<Run>) -> ConnectOptions {
    let run = Rc::clone(run);
    trust(&run)
        .ping_period(None) // the suite counts what it gets
        .max_frame_size(32 << 20)
        .max_message_size(32 << 20)
        .max_fragments(1 << 20)
        .outbox_bytes(64 << 20)
        .extension(
            Deflate::new()
                .server_context_takeover(true)
                .client_context_takeover(true)
                .compress_if_bigger_than(0),
        )
        .on_lost(|_close, _next| Reconnect::Stop)
        .on_failure(move |error, _next| {
            eprintln!("{error}");
            run.failed.set(true);
            Reconnect::Stop
        })
}

#[cfg(feature = "tls")]
fn trust(run: &Run) -> ConnectOptions {
    match &run.ca {
        Some(file) => ConnectOptions::new().roots(wirewheel::tls::Roots::pem(file.as_str())),
        None => ConnectOptions::new(),
    }
}

#[cfg(not(feature = "tls"))]
fn trust(run: &Run) -> ConnectOptions {
    assert!(run.ca.is_none(), "it was refused");
    ConnectOptions::new()
}

fn dial(server: &mut ServerRef<'_>, run: &Rc<Run>, path: &str, purpose: Purpose) {
    let of_step = Rc::clone(run);
    let step = move |_call: &Call| Step { run: Rc::clone(&of_step), purpose };
    if let Err(mistake) = server.connect(&format!("{}{path}", run.url), options(run), step) {
        eprintln!("{mistake}");
        run.failed.set(true);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let (mut url, mut ca) = ("ws://127.0.0.1:9001".to_owned(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--ca" if cfg!(feature = "tls") => ca = Some(words.next().ok_or("--ca FILE")?),
            "--ca" => return Err("--ca needs the feature tls".into()),
            _ => url = word,
        }
    }
    let run = Rc::new(Run {
        url: url.trim_end_matches('/').to_owned(),
        ca,
        cases: Cell::new(0),
        next: Cell::new(0),
        failed: Cell::new(false),
    });
    let of_module = Rc::clone(&run);
    Server::without_listener(move |app: &mut Application| {
        let limits = Limits::new().process_bytes(1 << 30);
        app.install(WebSockets::new().limits(limits));
        let (run, of_count) = (Rc::clone(&of_module), Rc::clone(&of_module));
        let count =
            move |_call: &Call| Step { run: Rc::clone(&of_count), purpose: Purpose::CountCases };
        app.connect(&format!("{}/getCaseCount", run.url), options(&run), count);
        app.every(Duration::from_millis(200), move |server| {
            if run.failed.get() {
                server.shutdown(Duration::ZERO);
            }
        });
    })
    .run()?;
    if run.failed.get() || run.cases.get() == 0 {
        return Err("the suite was not run to its end".into());
    }
    Ok(())
}

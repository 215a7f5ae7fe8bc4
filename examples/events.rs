//! A page that only listens: readings of this machine as an event stream, which browsers read by
//! `EventSource` without a line of code for coming back.
//!
//! Run it with `cargo run --release --example events` and open <http://127.0.0.1:8080/>, or read along with
//! `curl -N http://127.0.0.1:8080/events`. Stop the server and start it again: the page goes on by itself.
//! A browser that was away gets what it missed, as far as the flow's replay has it; where that does not
//! reach, as after a restart, an event named `missed` says so.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::fs::read_to_string;
use std::io::{self, Write};
use std::time::Duration;

use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::{Application, Call, Response, Server, on_connect};

/// As many readings are kept for those who come back: two minutes of them.
const REPLAY: usize = 120;

/// The load average of the last minute, as JSON.
fn reading(number: u64) -> io::Result<String> {
    let text = read_to_string("/proc/loadavg")?;
    let load: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
    let process = std::process::id();
    Ok(format!(r#"{{"process":{process},"number":{number},"load":{load}}}"#))
}

fn module(app: &mut Application) {
    let options = FlowOptions::new().replay(REPLAY).on_buffer_overflow(BufferOverflow::DropOldest);
    let readings: SharedFlow = app.flow(options);
    let published = readings.clone();
    let mut number = 0;
    app.every(Duration::from_secs(1), move |_server| {
        number += 1;
        match reading(number) {
            Ok(reading) => drop(published.emit(&reading)), // the oldest gives way
            Err(error) => println!("reading /proc: {error}"),
        }
    });
    app.routing(|route| {
        route.get("/", |_call| Response::html(include_str!("events.html")));
        route
            .event_stream("/events", move |_call: &Call| {
                let readings = readings.clone();
                on_connect(move |session, _call| session.collect(&readings))
            })
            .retry(Duration::from_secs(1));
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind(address.as_str(), module)?;
    println!("listening on http://{}", server.local_addr());
    let _ = io::stdout().flush();
    server.run()
}

//! The newest value is enough: the load and the network counters of this machine, every second, in
//! a flow that keeps of each key only the latest value.
//!
//! Run it with `cargo run --release --example telemetry` and open <http://127.0.0.1:8080/>, which
//! draws them. Whoever connects to `/values` gets the newest value of every key at once; a reader
//! that is slow skips to the newest. Counters are therefore sent as they stand, with the time they
//! were read at: rates that are reckoned from them stay true when values in between are missing.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::fs::read_to_string;
use std::io::{self, Write};
use std::time::Duration;

use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::{Application, Call, Response, Server, WebSockets, on_connect};

/// The most values that are kept: the load, and so many network interfaces.
const MAX_KEYS: usize = 64;

/// One value: its key, and the JSON that is sent.
type Reading = (String, String);

/// Reads `/proc/loadavg`: the averages of one, five and fifteen minutes.
fn load(at: &str) -> io::Result<Option<Reading>> {
    let text = read_to_string("/proc/loadavg")?;
    let mut averages = text.split(' ').map_while(|word| word.parse::<f64>().ok());
    let (Some(one), Some(five), Some(fifteen)) =
        (averages.next(), averages.next(), averages.next())
    else {
        return Ok(None);
    };
    let json =
        format!(r#"{{"key":"load","at":{at},"one":{one},"five":{five},"fifteen":{fifteen}}}"#);
    Ok(Some(("load".into(), json)))
}

/// Reads `/proc/net/dev`: two lines of headings, then `name: received-bytes .. sent-bytes ..`.
fn network(at: &str) -> io::Result<Vec<Reading>> {
    let text = read_to_string("/proc/net/dev")?;
    Ok(text.lines().skip(2).filter_map(|line| interface(line, at)).collect())
}

fn interface(line: &str, at: &str) -> Option<Reading> {
    let (name, counters) = line.trim_start().split_once(": ")?;
    // Linux allows any letters in a name; what JSON would have to escape is left out.
    if name.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return None;
    }
    let mut counters = counters.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok());
    let (received, sent) = (counters.next()?, counters.nth(7)?);
    let json = format!(
        r#"{{"key":"net","at":{at},"interface":"{name}","received":{received},"sent":{sent}}}"#
    );
    Some((format!("net {name}"), json))
}

/// Seconds since this machine was started.
fn uptime() -> io::Result<String> {
    let text = read_to_string("/proc/uptime")?;
    Ok(text.split(' ').next().unwrap_or("0").to_owned())
}

fn publish(values: &SharedFlow) -> io::Result<()> {
    let at = uptime()?;
    for (key, json) in load(&at)?.into_iter().chain(network(&at)?) {
        let _ = values.emit_latest(&key, &json); // no room: the next second's will do
    }
    Ok(())
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    let options = FlowOptions::new().replay(MAX_KEYS).on_buffer_overflow(BufferOverflow::Latest);
    let values: SharedFlow = app.flow(options);
    let readings = values.clone();
    app.every(Duration::from_secs(1), move |_server| {
        if let Err(error) = publish(&readings) {
            println!("reading /proc: {error}");
        }
    });
    app.routing(|route| {
        route.get("/", |_call| Response::html(include_str!("telemetry.html")));
        route.web_socket("/values", move |_call: &Call| {
            let values = values.clone();
            on_connect(move |session, _call| session.collect(&values))
        });
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

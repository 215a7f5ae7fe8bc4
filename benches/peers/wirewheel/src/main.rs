//! wirewheel as a benchmark server: `bench-wirewheel PORT [MODE]`; with the feature `client` as a client too.
//!
//! Everything is at its default but what the benchmark cannot do without: room for its connections, room for
//! its largest messages in `large`, a short ping period in `ping`, a folder with a file of 1 KiB in `file`,
//! two loops in `loops` (which wants that feature), a certificate in `tls` and `tls-rsa` (which want the
//! feature `tls`), and more patience with slow turns, since under valgrind every turn is slow and would have
//! the events timed one by one.

#[cfg(feature = "client")]
mod dialled;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use wirewheel::extension::Deflate;
use wirewheel::flow::{FlowOptions, SharedFlow};
use wirewheel::{
    Application, Call, Handler, HandlerResult, Limits, Listen, Message, Server, Session, WebSockets,
};

const CONNECTIONS: usize = 30_000;
const SLOW: Duration = Duration::from_secs(60);
const LARGE_BYTES: usize = 16 << 20;
const FILE_BYTES: usize = 1 << 10;
#[cfg(feature = "loops")]
const LOOPS: usize = 2;

/// Messages that a flow keeps for those who have not taken them yet.
const FLOW_MESSAGES: usize = 64;

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        session.send(message)
    }
}

/// Sends what arrives to all, itself included.
struct Member(SharedFlow);

impl Handler for Member {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.collect(&self.0)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        session.emit(&self.0, message.text().unwrap_or_default())
    }
}

fn listen(port: u16, mode: &str) -> Result<Listen, String> {
    let place = Listen::from(format!("127.0.0.1:{port}"));
    match mode {
        #[cfg(feature = "tls")]
        "tls" | "tls-rsa" => {
            let name = if mode == "tls" { "box" } else { "rsa" };
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/certificates");
            let file = |end| format!("{folder}/{name}.{end}");
            Ok(Listen::tls(place, wirewheel::tls::TlsOptions::new(file("pem"), file("key"))))
        }
        #[cfg(not(feature = "tls"))]
        "tls" | "tls-rsa" => Err("tls: build it with that feature".into()),
        _ => Ok(place),
    }
}

/// A folder of this process, with one file.
fn folder(port: u16) -> std::io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("bench-wirewheel-{port}"));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("file.html"), [b'x'; FILE_BYTES])?;
    Ok(folder)
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init(); // as every program has: without a logger the compiler leaves all logging out
    let mut words = std::env::args().skip(1);
    let port: u16 = words.next().ok_or("usage: bench-wirewheel PORT [MODE]")?.parse()?;
    let mode = words.next().unwrap_or_else(|| "echo".into());
    #[cfg(feature = "client")]
    if mode == "dial" {
        return dialled::dial(port, words.next().ok_or("PORT dial CONNECTIONS")?.parse()?);
    }
    let broadcasts = mode.starts_with("broadcast");
    let folder = if mode == "file" { Some(folder(port)?) } else { None };
    let events = mode == "broadcast-events";
    #[cfg(feature = "loops")]
    let loops = if mode == "loops" { LOOPS } else { 1 };
    let server = Server::bind(listen(port, &mode)?, move |app: &mut Application| {
        app.install(options(&mode));
        app.routing(|route| {
            if let Some(folder) = folder {
                route.folder("/", folder);
            }
            if mode == "post" {
                route.post("/post", |_, body| body.bytes().len().to_string());
            }
            if broadcasts {
                let buffer = FlowOptions::new().extra_buffer(FLOW_MESSAGES);
                let flow = SharedFlow::with(buffer).unwrap_or_default();
                if events {
                    let flow = flow.clone();
                    route.event_stream("/", move |_: &Call| Member(flow.clone()));
                }
                route.web_socket("/", move |_: &Call| Member(flow.clone()));
            } else {
                route.web_socket("/", |_: &Call| Echo);
            }
        });
    })?;
    #[cfg(feature = "loops")]
    let server = server.loops(loops);
    server.run()?;
    Ok(())
}

fn options(mode: &str) -> WebSockets {
    let limits = Limits::new().max_connections(CONNECTIONS).slow_callback(SLOW);
    let options = WebSockets::new().limits(limits.clone());
    match mode {
        "large" => {
            options.max_frame_size(LARGE_BYTES).limits(limits.process_bytes(8 * LARGE_BYTES))
        }
        "broadcast-deflate" => options.extension(Deflate::new()),
        "ping" => options.ping_period(Duration::from_secs(1)),
        _ => options,
    }
}

//! An extension of one's own, the frame logger of Ktor's page on extensions: it prints what passes in
//! either direction and changes nothing.
//!
//! Run it with `cargo run --release --example extension` and connect a client that offers it, for
//! example with the header line `Sec-WebSocket-Extensions: frame-logger; level=info` (without that,
//! nothing is agreed on and nothing is printed).
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;

use wirewheel::extension::{
    Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionMessage, ExtensionOffer,
};
use wirewheel::{Application, Call, Server, WebSockets, on_message};

/// What is installed.
struct FrameLogger;

/// What each session has of it: made when it is agreed on, dropped with the session.
struct Log {
    level: String,
    sent: u64,
    received: u64,
}

impl ExtensionFactory for FrameLogger {
    fn name(&self) -> &str {
        "frame-logger"
    }

    fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement> {
        let level = match offer.parameter("level") {
            Some(Some(level @ ("info" | "debug"))) => level.to_owned(),
            None => "debug".to_owned(),
            Some(_) => return None, // declined; the client's next offer is tried
        };
        let log = Log { level: level.clone(), sent: 0, received: 0 };
        Some(Agreement::new(log).parameter("level", level))
    }
}

impl Extension for Log {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        self.sent += 1;
        println!("{}: outgoing {}: {}", self.level, self.sent, describe(message));
        Ok(())
    }

    fn decode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        self.received += 1;
        println!("{}: incoming {}: {}", self.level, self.received, describe(message));
        Ok(())
    }
}

fn describe(message: &ExtensionMessage<'_>) -> String {
    let kind = if message.is_text() { "text" } else { "binary" };
    format!("{kind}, {} bytes", message.payload().len())
}

fn module(app: &mut Application) {
    app.install(WebSockets::new().extension(FrameLogger));
    app.routing(|route| {
        route.web_socket("/", |_call: &Call| on_message(|session, message| session.send(message)));
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind(address.as_str(), module)?;
    println!("listening on http://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}

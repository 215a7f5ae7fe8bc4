//! Heartbeats: the server pings every second and tells each client its round-trip time.
//!
//! Run it with `cargo run --release --example heartbeat` and connect any WebSocket client to
//! `ws://127.0.0.1:8080/`. A client that stops answering is closed after three seconds.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;
use std::time::Duration;

use wirewheel::{Application, Call, Server, WebSockets, on_connect};

fn module(app: &mut Application) {
    app.install(
        WebSockets::new().ping_period(Duration::from_secs(1)).timeout(Duration::from_secs(3)),
    );
    app.routing(|route| {
        route.web_socket("/", |_call: &Call| {
            on_connect(|session, _call| session.send("a ping every second"))
                .on_pong(|session, rtt| {
                    println!("{} {}: {rtt:?}", session.id(), session.remote_addr());
                    session.send(format!("round trip: {rtt:?}"))
                })
                .on_error(|session, error| println!("{}: {error}", session.id()))
        });
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

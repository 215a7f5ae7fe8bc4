//! Routes: parameters, nesting, subprotocols, and a hook that asks for a token.
//!
//! Run it with `cargo run --release --example routes` and try
//! - `curl http://127.0.0.1:8080/healthz`
//! - a WebSocket client at `/rooms/kitchen?as=anna`
//! - one at `/chat` that offers the subprotocol `chat.v2` or `chat.v1`
//! - one at `/admin/log` with and without the header `Authorization: Bearer secret`
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;

use wirewheel::{
    Accept, Application, Call, Handler, Response, Server, WebSockets, on_connect, on_message,
};

/// A handler that greets with what the request said and then echoes.
fn room(call: &Call) -> impl Handler + use<> {
    let room = call.parameter("room").unwrap_or_default().into_owned();
    let name = call.query_parameter("as").unwrap_or_else(|| "somebody".into()).into_owned();
    on_connect(move |session, _call| session.send(format!("{name} entered {room}")))
        .on_message(|session, message| session.send(message))
}

fn tell_protocol(_call: &Call) -> impl Handler + use<> {
    on_connect(|session, call| session.send(call.protocol().unwrap_or("no subprotocol")))
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/healthz", |_call| Response::json("{\"ok\":true}"));
        route.route("/rooms", |route| {
            route.get("/", |_call| "connect to /rooms/NAME");
            route.web_socket("/{room}", room);
        });
        // The first registered subprotocol that the client offers; without one, the last.
        route.web_socket("/chat", tell_protocol).protocol("chat.v2");
        route.web_socket("/chat", tell_protocol).protocol("chat.v1");
        route.web_socket("/chat", tell_protocol);
        route.web_socket("/newest", tell_protocol).select_protocol(|_call, offered| {
            offered.iter().max().map(|&newest| newest.to_owned())
        });
        route.route("/admin", |route| {
            route.on_upgrade(|call| match call.header("authorization") {
                Some("Bearer secret") => Ok(Accept::new()),
                _ => Err(Response::text("a token, please\n")
                    .status(401)
                    .header("WWW-Authenticate", "Bearer")),
            });
            route.web_socket("/{file...}", |_call: &Call| {
                on_message(|session, message| session.send(message))
            });
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

//! The first thing to try: a greeting, an answer to every name, and a clean end at "bye".
//!
//! Run it with `cargo run --release --example echo`, then open <http://127.0.0.1:8080/>: the page
//! talks to `/echo` and shows each of connect, message, close and error. Another address goes
//! behind `--`, as in `cargo run --release --example echo -- 0.0.0.0:9000`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;

use wirewheel::error::SessionError;
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message,
    Response, Server, Session, WebSockets,
};

struct Greeter;

impl Handler for Greeter {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.send("Please enter your name")
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        match message.text() {
            None => Ok(()), // binary: not ours
            Some(text) if text.eq_ignore_ascii_case("bye") => {
                session.close(CloseReason::new(CloseCode::NORMAL, "Client said BYE")?)
            }
            Some(name) => session.send(format!("Hi, {name}!")),
        }
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        println!("{}: {error}", session.id());
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        println!("{}: closed by {:?}, {}", session.id(), close.closed_by(), close.code());
    }
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |_call| Response::html(include_str!("echo.html")));
        route.web_socket("/echo", |_call: &Call| Greeter);
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

//! A reverse proxy: each session that comes gets a session to another server, and backpressure goes
//! through both. Whoever is slow, at either end, slows the other down, and nothing piles up in between.
//!
//! ```sh
//! cargo run --release --example proxy --features client -- 127.0.0.1:8080 ws://127.0.0.1:9000
//! ```
//!
//! What comes to port 8080, at any path, goes to the server at port 9000, and back; a close code is
//! carried over, behind what came before it. Compression and subprotocols are agreed on with neither side.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use wirewheel::client::{ConnectOptions, Dialer, Reconnect};
use wirewheel::flow::SharedFlow;
use wirewheel::message::MessageBuf;
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Server,
    Session, SessionId, WebSockets,
};

const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// What a client says of itself that the other server may want to know.
const PASSED_ON: [&str; 4] = ["authorization", "cookie", "origin", "user-agent"];

/// Messages on their way. A flow without a buffer suspends who publishes in it, until its one subscriber
/// has taken everything: that is all there is to backpressure.
type Pipe = SharedFlow<MessageBuf>;

fn pass_on(session: &mut Session<'_>, pipe: &Pipe, message: Message<'_>) -> HandlerResult {
    session.emit(pipe, &MessageBuf::from(message))
}

/// How the other session is to end. What is told and never sent, such as 1006, becomes `lost`.
fn carried_over(close: &CloseInfo, lost: CloseCode) -> CloseReason {
    let code = match close.code() {
        CloseCode::NO_STATUS => CloseCode::NORMAL,
        code if code.may_be_sent() => code,
        _ => lost,
    };
    CloseReason::truncated(code, close.text()).expect("a code that may be sent")
}

/// A session that has come.
struct Client {
    upstream: String,
    up: Pipe,
    down: Pipe,
    dialer: Option<Dialer>,
}

/// The session to the other server, for the one that has come.
struct Upstream {
    client: SessionId,
    up: Pipe,
    down: Pipe,
}

impl Client {
    fn new(upstream: &str) -> Self {
        let (up, down) = (Pipe::new(), Pipe::new());
        Self { upstream: upstream.to_owned(), up, down, dialer: None }
    }

    fn options(client: SessionId, call: &Call) -> ConnectOptions {
        let options = ConnectOptions::new()
            .header("X-Forwarded-For", call.client_addr().ip().to_string())
            .max_frame_size(MAX_MESSAGE_BYTES)
            .on_lost(|_close, _next| Reconnect::Stop)
            .on_failure(|_error, _next| Reconnect::Stop)
            .after_failure(move |server, error| {
                let reason = CloseReason::truncated(CloseCode::BAD_GATEWAY, &error.to_string());
                let _ = server.close(client, reason.expect("1014 may be sent")); // it may be gone
            });
        let known = PASSED_ON.iter().filter_map(|name| Some((*name, call.header(name)?)));
        known.fold(options, |options, (name, value)| options.header(name, value))
    }
}

impl Handler for Client {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        session.collect(&self.down)?;
        session.pause(); // until the other server is there
        let (client, up, down) = (session.id(), self.up.clone(), self.down.clone());
        let url = format!("{}{}", self.upstream, call.uri());
        let dialled =
            session.server().connect(&url, Self::options(client, call), move |_: &Call| Upstream {
                client,
                up: up.clone(),
                down: down.clone(),
            });
        match dialled {
            Ok(dialer) => self.dialer = Some(dialer),
            Err(mistake) => {
                let text = mistake.to_string();
                return session.close(CloseReason::truncated(CloseCode::BAD_GATEWAY, &text)?);
            }
        }
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        pass_on(session, &self.up, message)
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let Some(dialer) = self.dialer.take() else { return };
        match dialer.session() {
            Some(upstream) => {
                let reason = carried_over(close, CloseCode::GOING_AWAY);
                let _ = session.server().close(upstream, reason); // it may be closing already
            }
            None => dialer.stop(),
        }
    }
}

impl Handler for Upstream {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.collect(&self.up)?;
        Ok(session.server().resume(self.client)?)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        pass_on(session, &self.down, message)
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let reason = carried_over(close, CloseCode::BAD_GATEWAY);
        let _ = session.server().close(self.client, reason); // it may be closing already
    }
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let upstream = words.next().unwrap_or_else(|| "ws://127.0.0.1:9000".into());
    let upstream = upstream.trim_end_matches('/').to_owned();
    let server = Server::bind(address.as_str(), move |app: &mut Application| {
        app.install(WebSockets::new().max_frame_size(MAX_MESSAGE_BYTES));
        app.routing(|route| {
            route.web_socket("/{path...}", move |_call: &Call| Client::new(&upstream));
        });
    })?;
    println!("listening on http://{}", server.local_addr());
    server.run()
}

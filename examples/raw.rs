//! A raw session (Ktor's `webSocketRaw`): prints every frame as it comes and mirrors it, and answers
//! pings and the Close itself, as nobody else does it here.
//!
//! Run it with `cargo run --release --example raw` and connect any WebSocket client to
//! `ws://127.0.0.1:8080/`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;

use wirewheel::raw::{Frame, OpCode, RawHandler};
use wirewheel::{Application, CloseInfo, HandlerResult, Server, Session, WebSockets};

struct Mirror {
    frames: u64,
}

impl RawHandler for Mirror {
    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        self.frames += 1;
        let Frame { fin, rsv: _, opcode, payload } = frame;
        println!("{}: {opcode:?}, fin {fin}, {} bytes", session.id(), payload.len());
        match opcode {
            OpCode::Ping => session.send_frame(Frame { opcode: OpCode::Pong, ..frame }),
            OpCode::Pong => Ok(()),
            // Data goes back as it came, fragment by fragment; a Close is answered with itself.
            _ => session.send_frame(frame),
        }
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        println!("{}: closed with {} after {} frames", session.id(), close.code(), self.frames);
    }
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.web_socket_raw("/", |_call| Mirror { frames: 0 });
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

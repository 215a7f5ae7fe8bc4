//! Compressed messages (RFC 7692; Ktor's `WebSocketDeflateExtension`): an echo that agrees on
//! permessage-deflate with every client that offers it, as browsers do.
//!
//! Run it with `cargo run --release --example deflate [ADDRESS [MAX_MESSAGE_BYTES]]`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;

use wirewheel::extension::Deflate;
use wirewheel::{Application, Call, Message, Server, WebSockets, on_connect};

fn module(app: &mut Application, max_message_bytes: usize) {
    app.install(
        WebSockets::new().max_frame_size(max_message_bytes).extension(
            Deflate::new()
                .compression_level(6)
                .compress_if_bigger_than(64) // bytes; less is hardly ever worth it
                // Pictures and the like are compressed already.
                .compress_if(|message: &Message<'_>| message.is_text()),
        ),
    );
    app.routing(|route| {
        route.web_socket("/", |_call: &Call| {
            on_connect(|session, _call| {
                let agreed = session.extensions().collect::<Vec<_>>().join(", ");
                println!("{}: extensions: [{agreed}]", session.id());
                Ok(())
            })
            .on_message(|session, message| session.send(message))
            .on_error(|session, error| println!("{}: {error}", session.id()))
        });
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let max_message_bytes = words.next().and_then(|word| word.parse().ok()).unwrap_or(64 << 10);
    let server = Server::bind(address.as_str(), move |app: &mut Application| {
        module(app, max_message_bytes)
    })?;
    println!("listening on http://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}

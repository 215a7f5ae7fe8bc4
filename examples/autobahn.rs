//! The conformance and load-test server: a plain echo on every path, with limits out of the way; `/pieces`
//! takes and sends messages in pieces.
//!
//! Run it with `cargo run --release --example autobahn -- 127.0.0.1:9002`, and for TLS with
//! `--features tls` and `-- 127.0.0.1:9002 --tls CERTIFICATE KEY`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::io::Write;

#[cfg(feature = "deflate")]
use wirewheel::extension::Deflate;
use wirewheel::pieces::on_piece;
use wirewheel::{Application, Call, Limits, Server, WebSockets, on_message};

fn module(app: &mut Application) {
    let process_bytes = if cfg!(target_pointer_width = "64") { 4 << 30 } else { 1 << 30 };
    #[allow(unused_mut, reason = "without the feature nothing is added")]
    let mut web_sockets = WebSockets::new()
        .ping_period(None)
        .idle_timeout(None)
        .max_frame_size(32 << 20)
        .max_message_size(32 << 20)
        .max_fragments(1 << 20)
        .outbox_bytes(64 << 20)
        .limits(Limits::new().max_connections(20_000).process_bytes(process_bytes));
    // Both contexts are kept, unless a client wants it otherwise: the harder way.
    #[cfg(feature = "deflate")]
    {
        let deflate = Deflate::new().server_context_takeover(true).client_context_takeover(true);
        web_sockets = web_sockets.extension(deflate);
    }
    app.install(web_sockets);
    app.routing(|route| {
        let echo = |_call: &Call| on_message(|session, message| session.send(message));
        route.web_socket("/", echo);
        route.web_socket_pieces("/pieces", |_call: &Call| {
            on_piece(|session, piece| session.send_piece(piece, piece.is_last()))
        });
        route.web_socket("/{...}", echo);
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (server, scheme) = match *words.as_slice() {
        #[cfg(feature = "tls")]
        [address, "--tls", certificate, key] => {
            let options = wirewheel::tls::TlsOptions::new(certificate, key);
            (Server::bind(wirewheel::Listen::tls(address, options), module)?, "https")
        }
        [] => (Server::bind("127.0.0.1:8080", module)?, "http"),
        [address] => (Server::bind(address, module)?, "http"),
        _ => {
            eprintln!(
                "usage: autobahn [ADDRESS [--tls CERTIFICATE KEY]], the latter with --features tls"
            );
            std::process::exit(2);
        }
    };
    println!("listening on {scheme}://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}

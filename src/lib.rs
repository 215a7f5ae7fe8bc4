//! A WebSocket server for small Linux boxes: one thread, one event loop, callbacks, bounded memory.
//!
//! ```no_run
//! use wirewheel::{Application, Call, Server, WebSockets, on_connect};
//!
//! fn main() -> wirewheel::Result<()> {
//!     Server::bind("127.0.0.1:8080", |app: &mut Application| {
//!         app.install(WebSockets::new());
//!         app.routing(|route| {
//!             route.web_socket("/echo", |_call: &Call| {
//!                 on_connect(|session, _call| session.send("Please enter your name"))
//!                     .on_message(|session, message| session.send(message))
//!             });
//!         });
//!     })?
//!     .run()
//! }
//! ```
//!
//! A module (here a closure) sets the application up: options ([`WebSockets`]), then routes
//! ([`Routing`]). Each session of a route has a handler of its own, a [`Handler`] or closures, whose hooks
//! get the [`Session`] and act on it at once. Everything runs on one thread: hooks must not block, and
//! nothing has to be `Send` but the module itself, where [`Server::spawn`](server::Server::spawn) takes it to
//! a thread: make flows and `Rc`s inside it. Other threads use a [`Handle`].
//!
//! The root of the crate has what a first program needs. The rest is in modules:
//!
//! | module | subject |
//! |---|---|
#![cfg_attr(feature = "client", doc = "| [`client`] | sessions that dial out |")]
//! | [`auth`] | Basic and Bearer authentication |
//! | [`body`] | request bodies |
//! | [`compat`] | parity with Ktor where RFC 6455 says otherwise |
//! | [`mod@defer`] | answers that come later |
//! | [`embedding`] | the server inside somebody else's loop |
//! | [`error`] | everything that can go wrong |
//! | [`events`] | event streams, for pages that only listen |
//! | [`extension`] | permessage-deflate, and extensions of your own |
//! | [`flow`] | one message for many sessions |
//! | [`hooks`] | the types of handlers made of closures |
#![cfg_attr(feature = "json", doc = "| [`json`] | values as messages |")]
//! | [`message`] | what a message carries, and what becomes one |
//! | [`metrics`] | figures of your own beside the server's |
//! | [`options`] | the values that options take |
//! | [`pages`] | folders of files, and whose pages may read answers |
//! | [`pieces`] | messages that are not held whole |
//! | [`raw`] | sessions that get frames |
#![cfg_attr(
    feature = "testing",
    doc = "| [`testing`] | applications in memory, under virtual time |"
)]
#![cfg_attr(feature = "tls", doc = "| [`tls`] | `wss://` without a proxy in front |")]
//! | [`watch`] | other descriptors on the same loop |
//!
//! The [`guide`] has a page for each subject: the life of a session, backpressure, broadcast, timers,
//! limits and memory, errors, threads, testing, deploying, security; and tables for those who come from
//! Ktor, ws-rs or tokio-tungstenite.
//!
//! # Features
//!
//! * `deflate` (default): permessage-deflate, RFC 7692.
//! * `client`: sessions that dial out, and dial again.
//! * `json`: values as messages, with serde.
//! * `tungstenite`: messages and Close frames from and to the types of that crate, options from them.
//! * `tls`: TLS in the process, with rustls. The only feature that needs a C compiler.
//! * `tls-client-auth`: certificates of clients.
//! * `testing`: the module of that name, for the tests of your own application.
//!
//! # Logging
//!
//! The crate logs through `log` and installs no logger: call `env_logger::init()` first in `main`, and
//! set `RUST_LOG=info`. The guide's page [`deploying`](guide::deploying) has the targets.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!(
    "wirewheel is for Linux alone: build for a Linux target, such as in a container or in WSL"
);

mod api;
mod app;
mod context;
mod core;
pub mod flow;
#[cfg(all(repository, any(test, fuzzing)))]
pub mod fuzzing;
#[cfg(any(all(doc, not(doctest)), all(doctest, feature = "testing")))]
pub mod guide;
mod handle;
mod protocol;
mod server;
mod session;
mod shell;
mod structures;
#[cfg(any(test, fuzzing, feature = "testing"))]
pub mod testing;
mod transport;
#[cfg(feature = "tungstenite")]
mod tungstenite;
mod words;

#[cfg(feature = "client")]
pub use api::client;
#[cfg(feature = "json")]
pub use api::json;
#[cfg(feature = "tls")]
pub use api::tls;
pub use api::{
    auth, body, compat, defer, detach, embedding, error, events, extension, hooks, message,
    metrics, options, pages, pieces, raw, watch,
};

pub use app::application::{Application, WebSockets};
pub use app::call::Call;
pub use app::handler::{Handler, on_connect, on_message};
pub use app::response::{Accept, Response};
pub use app::routing::Routing;
pub use app::web_socket_route::WebSocketRoute;
pub use context::commands::Drained;
pub use context::loop_state::ServerRef;
pub use context::stats::Stats;
pub use handle::Handle;
pub use server::Server;
pub use session::Session;
pub use structures::ids::{SessionId, TimerId};
pub use words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
pub use words::error::{HandlerResult, Result};
pub use words::limits::Limits;
pub use words::listen::Listen;
pub use words::message::Message;

/// The README's snippets, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

//! A WebSocket server for small Linux boxes: one thread, one event loop, callbacks, bounded memory.
//!
//! The [`guide`] goes through it a subject a page: the life of a session, backpressure, broadcast,
//! timers, memory, errors, threads, testing, deploying, security; and each thing on Ktor's pages with
//! the line that does it here.
//!
// Its snippets are tests where the features that they use are on, as they are in the repository.
#![cfg_attr(any(not(doctest), feature = "testing"), doc = include_str!("../README.md"))]
//!
//! ## The source
//!
//! It lies in rooms, and imports point downward only (`ARCHITECTURE.md` has the pictures):
//!
//! ```text
//!   facade      lib, api, server, handle; testing beside the shell
//!   shell       sockets, mio, signals, the clock
//!   core        every decision, without a socket or a clock
//!   app         applications, routes, handlers, requests and responses
//!   session     one session: its state, and how its bytes leave
//!   context     what a callback reaches: the loop's state, timers, statistics
//!   flow        one message for many sessions
//!   protocol    request head, handshake, frames, extensions
//!   structures  timer wheel, slab, outbox
//!   words       options, limits, errors, messages, close codes
//! ```

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
#[cfg(any(all(doc, not(doctest)), all(doctest, feature = "testing", feature = "json")))]
pub mod guide;
mod handle;
mod protocol;
mod server;
mod session;
mod shell;
mod structures;
#[cfg(any(test, fuzzing, feature = "testing"))]
pub mod testing;
mod words;

#[cfg(feature = "json")]
pub use api::json;
pub use api::{compat, error, extension, hooks, message, options, raw, watch};

pub use app::application::{Application, WebSockets};
pub use app::call::Call;
pub use app::handler::{Handler, on_connect, on_message};
pub use app::response::{Accept, Response};
pub use app::routing::{Routing, WebSocketRoute};
pub use context::commands::Drained;
pub use context::server_ref::ServerRef;
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

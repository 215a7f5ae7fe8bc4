//! A WebSocket server for small Linux boxes: one thread, one event loop, callbacks, bounded memory.
//!
//! The [`guide`] goes through it a subject a page: the life of a session, backpressure, broadcast,
//! timers, memory, errors, threads, testing, deploying, security; and each thing on Ktor's pages with
//! the line that does it here.
//!
// Its snippets are tests where the features that they use are on, as they are in the repository.
#![cfg_attr(any(not(doctest), feature = "testing"), doc = include_str!("../README.md"))]
//!
//! ## Layers
//!
//! The source is in layers; imports point downward only:
//!
//! ```text
//!   facade      lib, server, handle
//!   shell       sockets, mio, signals, the clock
//!   core        every decision, without a socket or a clock
//!   domain      Application, Routing, Call, Handler, Session
//!   protocol    request head, handshake, frames, messages
//!   structures  timer wheel, slab, outbox
//!   words       options, limits, errors, messages, close codes
//! ```

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!(
    "wirewheel is for Linux alone: build for a Linux target, such as in a container or in WSL"
);

mod app;
#[cfg(feature = "client")]
pub mod client;
mod context;
mod core;
mod flow;
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
pub use erased_serde;

pub use app::application::{Application, WebSockets};
pub use app::call::Call;
pub use app::handler::{Handler, Hooks, Idle, on_connect, on_message};
pub use app::raw_handler::{OnFrame, RawHandler, on_frame};
pub use app::response::{Accept, Response};
pub use app::routing::{Routing, WebSocketRoute};
#[cfg(feature = "json")]
pub use app::typed_handler::{Typed, TypedHandler, on_value};
pub use context::commands::Drained;
pub use context::server_ref::ServerRef;
pub use context::stats::Stats;
pub use context::watch::{Ready, Watch};
pub use flow::key::FlowKey;
pub use flow::options::{BufferOverflow, FlowOptions};
pub use flow::shared_flow::SharedFlow;
pub use handle::Handle;
#[cfg(feature = "json")]
pub use protocol::content::{Content, ContentConverter, JsonConverter, ReadValue};
#[cfg(feature = "deflate")]
pub use protocol::extension::deflate::Deflate;
pub use protocol::extension::header::ExtensionOffer;
pub use protocol::extension::{
    Agreement, Extension, ExtensionFactory, ExtensionMessage, MessagePiece,
};
pub use server::Server;
pub use session::Session;
pub use structures::ids::SessionId;
pub use structures::ids::TimerId;
pub use words::close::{CloseCode, CloseInfo, CloseReason, CloseReasonError, ClosedBy};
pub use words::convert::ConvertError;
pub use words::error::{
    ConfigError, HandleError, HandlerError, HandlerResult, ProtocolError, Result, SendError,
    ServerError, SessionError,
};
pub use words::extension::ExtensionError;
pub use words::frame::{Frame, OpCode};
pub use words::limits::Limits;
pub use words::listen::{Listen, ListenOptions};
pub use words::message::{Message, Payload, Rsv, ToMessage};
pub use words::options::OutboxOverflow;
pub use words::proxy::ProxyHeader;
pub use words::rate::Rate;

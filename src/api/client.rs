//! Sessions that dial out: the client role on the same loop (feature `client`).
//!
//! A box that talks to its cloud, or a hub to its parent, dials: [`Application::connect`] or
//! [`ServerRef::connect`]. The session has the same [`Handler`] and the same [`Session`] as one of a server;
//! whenever it ends, and whenever an attempt fails, the next attempt follows after a delay that
//! [`ConnectOptions`] bound, until [`Dialer::stop`].
//!
//! [`Application::connect`]: crate::Application::connect
//! [`ServerRef::connect`]: crate::ServerRef::connect
//! [`Handler`]: crate::Handler
//! [`Session`]: crate::Session

pub use crate::app::byte_handler::ByteHandler;
pub use crate::app::connect_options::ConnectOptions;
pub use crate::context::dialers::{Dialer, DialerKey};
pub use crate::protocol::connect_error::ConnectError;
pub use crate::protocol::response_head::ResponseHead;
pub use crate::protocol::tls_fault::TlsFault;
pub use crate::words::connect::{ConnectStep, DialerState, Reconnect};

//! Everything that can go wrong, by whose fault it is.
//!
//! | error | where it appears |
//! |---|---|
//! | [`ServerError`] | `Server::bind`, `run`, `spawn`, `join`: the set-up is wrong, or the system refuses |
//! | [`ConfigError`] | inside `ServerError`, and from setters that check at once: an absurd option |
//! | [`SessionError`] | [`Handler::on_error`](crate::Handler::on_error): why a session fails |
//! | [`ProtocolError`] | inside `SessionError`: the peer broke RFC 6455 |
//! | [`HandlerError`] | what a hook returns: a fault of the application |
//! | [`SendError`] | inside `HandlerError`: the session is closing, or has no room |
//! | [`HandleError`] | each method of [`Handle`](crate::Handle): the server is over, or has no room |
//! | [`AdoptError`] | [`ServerRef::adopt`](crate::ServerRef::adopt): a connection cannot be served |
//! | [`ConvertError`] | inside `HandlerError`, feature `json`: the message is not that value |
//!
//! [`SessionError::close_code`] says with which code a session ends for each of them. What is no
//! fault is no error: a clean close, or a connection that ended.
//!
//! ```
//! use wirewheel::error::{HandlerError, SendError};
//! use wirewheel::{HandlerResult, Session};
//!
//! fn offer(session: &mut Session<'_>, text: &str) -> HandlerResult {
//!     match session.send(text) {
//!         Err(HandlerError::Send(SendError::Full { .. })) => Ok(()), // drop it, and stay
//!         other => other,
//!     }
//! }
//! ```

pub use crate::words::adopt::AdoptError;
pub use crate::words::close::CloseReasonError;
pub use crate::words::convert::ConvertError;
pub use crate::words::error::{
    AskError, ConfigError, HandleError, HandlerError, NameError, ProtocolError, SendError,
    ServerError, SessionError,
};

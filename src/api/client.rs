//! Sessions that dial out: the client role on the same loop (feature `client`).

pub use crate::protocol::connect_error::ConnectError;
pub use crate::protocol::response_head::ResponseHead;
pub use crate::words::connect::{ConnectStep, DialerState, Reconnect};

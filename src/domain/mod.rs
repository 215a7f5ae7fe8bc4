//! Layer 3, domain: what an application writes down and what a handler is handed.

pub(crate) mod application;
pub(crate) mod call;
mod collect;
pub(crate) mod collected;
#[cfg(feature = "json")]
pub(crate) mod converter;
mod encoded;
pub(crate) mod endpoint;
pub(crate) mod file_body;
pub(crate) mod flow;
pub(crate) mod flow_cell;
pub(crate) mod flow_key;
mod foreign_route;
pub(crate) mod handler;
pub(crate) mod hold;
pub(crate) mod origins;
mod pacing;
pub(crate) mod pattern;
pub(crate) mod pipeline;
pub(crate) mod raw;
pub(crate) mod response;
pub(crate) mod route_table;
pub(crate) mod routing;
pub(crate) mod server_ref;
pub(crate) mod session;
pub(crate) mod session_state;
pub(crate) mod sessions;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod timers;
mod transmit;
pub(crate) mod warnings;
pub(crate) mod watch;

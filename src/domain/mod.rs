//! Layer 3, domain: what an application writes down and what a handler is handed.

pub(crate) mod application;
pub(crate) mod call;
mod encoded;
pub(crate) mod endpoint;
pub(crate) mod file_body;
pub(crate) mod handler;
mod pattern;
pub(crate) mod pipeline;
pub(crate) mod raw;
pub(crate) mod response;
pub(crate) mod route_table;
pub(crate) mod routing;
pub(crate) mod session;
pub(crate) mod session_state;
pub(crate) mod shared;
pub(crate) mod stats;
mod transmit;
mod warnings;

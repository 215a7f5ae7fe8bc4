//! The room `context`: what a callback can reach beyond its own session.

pub(crate) mod adoptions;
pub(crate) mod bridges;
pub(crate) mod clients;
pub(crate) mod commands;
pub(crate) mod date_line;
pub(crate) mod deferrals;
pub(crate) mod detached;
#[cfg(feature = "client")]
pub(crate) mod dialers;
pub(crate) mod loop_state;
pub(crate) mod loops;
pub(crate) mod mailbox;
pub(crate) mod mask_source;
pub(crate) mod names;
pub(crate) mod open_sessions;
pub(crate) mod parcels;
pub(crate) mod questions;
pub(crate) mod readers;
pub(crate) mod server_ref;
pub(crate) mod shared_flows;
pub(crate) mod stats;
pub(crate) mod timers;
pub(crate) mod warnings;
pub(crate) mod watch;
pub(crate) mod watched_fd;
pub(crate) mod work;

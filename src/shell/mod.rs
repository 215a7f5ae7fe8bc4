//! The room `shell`: sockets, mio, signals and the clock, and nothing else.

#[cfg(feature = "tls")]
mod certificates;
pub(crate) mod listen;
mod listener;
pub(crate) mod mailbox;
pub(crate) mod poll_loop;
mod signals;
mod slow;
mod socket;
mod sockets;
mod unix_path;
mod watches;

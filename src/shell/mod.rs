//! The room `shell`: sockets, mio, signals and the clock, and nothing else.

#[cfg(feature = "tls")]
mod certificate_watch;
#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "client")]
mod dialling;
pub(crate) mod listen;
mod listener;
pub(crate) mod loop_thread;
pub(crate) mod poll_loop;
#[cfg(feature = "client")]
mod resolver;
pub(crate) mod server_driver;
mod signals;
mod slow;
mod socket;
pub(crate) mod sockets;
mod unix_path;
mod watches;

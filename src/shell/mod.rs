//! Layer 5, shell: sockets, mio, signals and the clock, and nothing else.

pub(crate) mod listen;
mod listener;
pub(crate) mod mailbox;
pub(crate) mod poll_loop;
mod slow;
mod socket;
mod sockets;
mod watches;

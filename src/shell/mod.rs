//! Layer 5, shell: sockets, mio, signals and the clock, and nothing else.

mod listener;
pub(crate) mod poll_loop;
mod socket;

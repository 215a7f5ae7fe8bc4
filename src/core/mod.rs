//! Layer 4, core: every decision of the whole server, without a socket, a clock or a thread.
//!
//! It is called by the [`driver`] alone, whose head says in which order, and what follows. `handle_*`
//! say what happened and when, and lend a [`Wire`] to write through; `poll_*` say what is to be done.
//!
//! ```text
//!   socket bytes --> handle_input --> Turn: head | frames --> hooks --> Wire, Outbox
//!   poll_timeout <-- wheel <-- settle <-- (deadlines moved?)
//! ```
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod admission;
mod arrivals;
#[cfg(all(repository, any(test, fuzzing)))]
pub(crate) mod audit;
mod connection;
mod connections;
mod deadlines;
mod dispatch;
pub(crate) mod driver;
mod ending;
mod events;
mod flush;
mod frame_input;
mod http_stage;
mod http_turn;
mod losses;
mod memory_budget;
pub(crate) mod panics;
mod pause;
mod pending;
mod pings;
mod progress;
mod request_admission;
mod request_log;
mod requests;
mod responder;
mod rounds;
mod session_input;
mod session_output;
mod session_timeouts;
pub(crate) mod sockets;
mod streamed_body;
#[cfg(all(repository, test))]
mod tests;
mod turn;
mod turns;

pub(crate) use connection::Disposal;
pub(crate) use turns::Core;

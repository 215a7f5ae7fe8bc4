//! The room `core`: every decision of the whole server, without a socket, a clock or a thread.
//!
//! It is called by the [`driver`] alone, whose head says in which order, and what follows. `handle_*`
//! say what happened and when, and lend a [`Wire`](crate::structures::wire::Wire) to write through;
//! `poll_*` say what is to be done.
//!
//! ```text
//!   bytes --> Core::handle_input --> Turn ("dispatch", by stage)
//!                                     |
//!               HttpTurn: heads  <----+---->  SessionTurn: messages, frames
//!                 |  RequestAdmission           |  fast path, else frame_input, pause
//!                 |  BodyTurn: bodies           |  hooks --> Session --> tx
//!                 |  Responder --> tx           |
//!                 +----- an upgrade ----------->+
//!
//!   tx --> Turn::flush --> Wire; what the socket does not take --> Outbox --> Turn::writable
//!   flows, commands --> Core::begin_flush, rounds --> SessionOutput --> Wire
//!   deadlines moved --> Connections::settle --> wheel --> Core::poll_due --> Turn::timeout
//!                                            HttpTurn::timeout | SessionTimeouts, Pings
//! ```
//!
//! [`Core`] is the table of connections ([`connections`]), the loop's state and the routes. For each event
//! it lends one connection and all that it needs to a [`Turn`](turn::Turn), in which a panic of the
//! application is caught; the other types here are views of a turn, each with one subject.
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
mod answer_terms;
mod arrivals;
#[cfg(all(repository, any(test, fuzzing)))]
pub(crate) mod audit;
mod connection;
mod connections;
mod deadlines;
mod deferred_answer;
mod deferred_outcome;
mod deferred_turn;
pub(crate) mod deferring;
#[cfg(feature = "client")]
mod dial_ends;
#[cfg(feature = "client")]
mod dial_handshake;
#[cfg(feature = "client")]
pub(crate) mod dial_orders;
#[cfg(feature = "client")]
mod dial_step;
#[cfg(feature = "client")]
mod dial_table;
#[cfg(all(feature = "client", feature = "tls"))]
mod dial_tls;
#[cfg(feature = "client")]
mod dialling;
#[cfg(feature = "client")]
mod dials;
mod dispatch;
pub(crate) mod driver;
mod ending;
mod event_streams;
mod events;
mod flush;
mod frame_input;
mod handover;
mod http_stage;
mod http_turn;
mod losses;
mod memory_budget;
mod new_connections;
pub(crate) mod panics;
mod pause;
mod pending;
mod pings;
mod progress;
mod receiving;
mod refusals;
mod request_admission;
mod request_body;
mod request_log;
mod requests;
mod responder;
mod rounds;
mod session_input;
mod session_output;
mod session_timeouts;
mod shared_flows;
mod shares;
pub(crate) mod sockets;
mod streamed_body;
#[cfg(all(repository, test))]
mod tests;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "tls")]
mod tls_driver;
mod turn;
mod turns;

pub(crate) use connection::Disposal;
pub(crate) use turns::Core;

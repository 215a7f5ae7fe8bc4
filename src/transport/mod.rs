//! The room `transport`, between sockets and the core: bytes as they are, or TLS records.
//!
//! ```text
//!   socket bytes --> Channel --> plain bytes --> core
//!   socket bytes <-- Channel <-- plain bytes <-- core
//! ```
//!
//! Whoever owns sockets puts each into a [`channel::Channel`]. The system's sockets and those in memory
//! use the same, so that tests speak TLS by the code that runs in production.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub(crate) mod channel;
#[cfg(feature = "tls")]
pub(crate) mod secured;
pub(crate) mod stream;
#[cfg(feature = "tls")]
pub(crate) mod tls;

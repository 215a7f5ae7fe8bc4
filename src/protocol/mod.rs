//! The room `protocol`: bytes to meaning and back. HTTP request heads, the upgrade, frames, messages.
//!
//! Everything here handles what a peer sent: what could panic or wrap is denied, and each exception
//! says why it cannot.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub(crate) mod body;
pub(crate) mod byte_range;
#[cfg(feature = "client")]
pub(crate) mod client_handshake;
#[cfg(feature = "client")]
pub(crate) mod client_url;
pub(crate) mod close;
pub(crate) mod conditions;
#[cfg(feature = "client")]
pub(crate) mod connect_error;
#[cfg(feature = "json")]
pub(crate) mod content;
pub(crate) mod content_coding;
pub(crate) mod date;
pub(crate) mod extension;
pub(crate) mod foreign;
pub(crate) mod forwarded;
pub(crate) mod frame;
pub(crate) mod frame_reader;
pub(crate) mod framing;
pub(crate) mod handshake;
pub(crate) mod head;
pub(crate) mod head_error;
pub(crate) mod header_lines;
#[cfg(feature = "client")]
pub(crate) mod http_proxy;
pub(crate) mod message_reader;
pub(crate) mod multipart;
#[cfg(all(repository, any(test, fuzzing)))]
pub(crate) mod oracle;
pub(crate) mod origin;
pub(crate) mod piece_reader;
pub(crate) mod proxy_protocol;
#[cfg(feature = "client")]
pub(crate) mod response_head;
pub(crate) mod server_sent_events;
pub(crate) mod target;
pub(crate) mod text;
#[cfg(any(feature = "client", feature = "tls"))]
pub(crate) mod tls_fault;
pub(crate) mod token;

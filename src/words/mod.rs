//! The room `words`: the vocabulary every other room shares. Standard library only.

pub(crate) mod address;
pub(crate) mod adopt;
pub(crate) mod bounds;
pub(crate) mod close;
pub(crate) mod compat;
#[cfg(feature = "client")]
pub(crate) mod connect;
pub(crate) mod convert;
pub(crate) mod error;
pub(crate) mod extension;
pub(crate) mod frame;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod message;
pub(crate) mod message_buf;
pub(crate) mod mix;
pub(crate) mod network;
pub(crate) mod options;
pub(crate) mod piece;
pub(crate) mod proxy;
pub(crate) mod quoted;
pub(crate) mod rate;
pub(crate) mod time;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(all(feature = "client", feature = "tls"))]
pub(crate) mod tls_client;

//! Layer 2, protocol: bytes to meaning and back. HTTP request heads, the upgrade, frames, messages.

pub(crate) mod close;
pub(crate) mod extension;
pub(crate) mod forwarded;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod head;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
pub(crate) mod pieces;
pub(crate) mod proxy_protocol;
pub(crate) mod reader;
mod text;

//! All that is known of rustls: how a connection's records are opened and sealed, and what listeners and
//! dialers need for that. Nothing outside of this folder names rustls.

pub(crate) mod acceptor;
pub(crate) mod certificate;
#[cfg(feature = "tls-client-auth")]
mod client_auth;
mod config;
#[cfg(feature = "client")]
pub(crate) mod connector;
pub(crate) mod engine;
mod pem_files;
mod role;
#[cfg(feature = "client")]
mod roots;
#[cfg(feature = "client")]
mod server_verifier;
pub(crate) mod shared;
#[cfg(feature = "client")]
mod tickets;

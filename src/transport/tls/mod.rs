//! All that is known of rustls: how a connection's records are opened and sealed, and what a listener
//! needs for that. Nothing outside of this folder names rustls.

pub(crate) mod acceptor;
pub(crate) mod certificate;
#[cfg(feature = "tls-client-auth")]
mod client_auth;
mod config;
pub(crate) mod engine;
mod pem_files;

//! The public modules: what a first program does not need, by subject.

pub mod auth;
pub mod body;
#[cfg(feature = "client")]
pub mod client;
pub mod compat;
pub mod defer;
pub mod detach;
pub mod embedding;
pub mod error;
pub mod events;
pub mod extension;
pub mod hooks;
#[cfg(feature = "json")]
pub mod json;
pub mod message;
pub mod metrics;
pub mod options;
pub mod pages;
pub mod pieces;
pub mod raw;
#[cfg(feature = "tls")]
pub mod tls;
pub mod watch;

//! Situations from public bug reports and an attacker's, over real sockets: a test for each kind of
//! fault, named for what must hold. What only time decides is tested in `src/core/tests`.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "deflate")]
mod compressed;
mod delivery;
mod flows;
mod held_input;
mod http;
mod origin;
mod overload;
mod programs;
mod rfc9112;
mod rfc9112_bodies;
mod signals;

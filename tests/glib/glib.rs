//! The server under GLib's main loop: all tests of `tests/embedding.rs`, and with them those of other files, as they are.

#[path = "../embedding.rs"]
mod embedding;

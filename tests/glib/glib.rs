//! The server under GLib's main loop: all tests of `tests/embedding.rs`, and with them those of other files.

#[path = "../embedding.rs"]
mod embedding;

//! A WebSocket server for small Linux boxes.
mod words;
mod structures;
mod protocol;
mod domain;

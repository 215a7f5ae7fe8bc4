//! What the transport needs of a socket.

use std::io::ErrorKind;

use crate::structures::wire::Wire;

/// A socket as its owner has it: it gives and takes bytes as they are, without waiting.
pub(crate) trait Stream: Wire {
    /// Reads what is there, at most a buffer full. Less than that means that nothing more is there, but
    /// perhaps the end.
    #[cfg_attr(
        not(feature = "tls"),
        allow(dead_code, reason = "without TLS the socket itself is read")
    )]
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome;

    /// Has the socket written to at the next event.
    #[cfg(feature = "tls")]
    fn note_blocked(&mut self);
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Bytes(usize),
    Drained,
    Eof,
    Failed(ErrorKind),
}

//! Why a connection that somebody else has accepted is not served.

use std::error::Error;
use std::fmt;

/// Why [`ServerDriver::adopt`](crate::embedding::ServerDriver::adopt) or
/// [`ServerRef::adopt`](crate::ServerRef::adopt) did not take a connection, which is closed by then.
///
/// ```
/// use std::net::{SocketAddr, TcpStream};
/// use wirewheel::ServerRef;
/// use wirewheel::error::AdoptError;
/// /// A connection that began with `GET `.
/// fn hand_on(server: &ServerRef<'_>, stream: TcpStream, read: Vec<u8>, peer: SocketAddr) {
///     match server.adopt(stream, read, peer) {
///         Ok(()) => {}
///         Err(AdoptError::Full) => eprintln!("{peer}: too many are waiting"),
///         Err(error) => eprintln!("{peer}: {error}"),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptError {
    /// 1,024 connections, or 4 MiB that were read from them, wait to be adopted.
    Full,
    /// The server is over.
    Stopped,
    /// More was read from it than the server would read at once: `read_buffer_bytes` of
    /// [`Limits`](crate::Limits).
    TooMuchRead {
        /// How much was read, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("too many connections wait to be adopted: try again later"),
            Self::Stopped => f.write_str("the server has stopped"),
            Self::TooMuchRead { bytes, limit } => write!(
                f,
                "{bytes} bytes were read from the connection, over read_buffer_bytes of Limits, {limit}: \
                 read less before it is handed over"
            ),
        }
    }
}

impl Error for AdoptError {}

//! Why an attempt to connect has failed, and what can be done about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::response_head::ResponseHead;
use crate::protocol::tls_fault::TlsFault;
use crate::words::connect::ConnectStep;
use crate::words::quoted::on_one_line;

/// Why an attempt to connect has failed.
///
/// ```
/// use wirewheel::client::{ConnectError, ConnectOptions, Reconnect};
/// let options = ConnectOptions::new().on_failure(|error: &ConnectError, _next| match error.status() {
///     Some(410) => Reconnect::Stop, // this device is not wanted any more
///     _ => Reconnect::Retry,
/// });
/// # let _ = options;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of the server, or of the proxy, could not be resolved.
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No thread could be made that asks the resolver.
    LookupThread(io::Error),
    /// None of the addresses could be connected to.
    Connect {
        /// The last one that was tried; `None` for a Unix socket.
        address: Option<SocketAddr>,
        /// What the system said of it.
        source: io::Error,
    },
    /// There was no session within `connect_timeout`.
    Timeout(ConnectStep),
    /// The connection ended or failed under way.
    Ended {
        /// How far the attempt had come.
        step: ConnectStep,
        /// How it failed; `None` if the other side has ended it in order, or nothing says how.
        kind: Option<io::ErrorKind>,
    },
    /// The proxy did not connect to the server.
    Proxy {
        /// What it answered.
        head: Box<ResponseHead>,
        /// The beginning of the body, at most 4 KiB.
        body: Vec<u8>,
    },
    /// The server answered the handshake with another status than 101.
    Refused {
        /// What it answered.
        head: Box<ResponseHead>,
        /// The beginning of the body, at most 4 KiB.
        body: Vec<u8>,
    },
    /// What came is no answer to a handshake (RFC 6455 section 4.1); the text says what is wrong with it.
    BadAnswer(String),
    /// A redirect could not be followed; the text says why.
    Redirect(String),
    /// A header or an extension of the application cannot be sent; the text names it.
    Request(String),
    /// TLS could not be agreed on with the server, or its certificate is none to trust.
    Tls(TlsFault),
    /// The application's code that makes headers or the handler panicked, with this message.
    Panic(String),
    /// There is no room for one more connection.
    Full,
}

impl ConnectError {
    /// The status of an answer that refuses the handshake; `None` where none came, or the proxy's did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { head, .. } => Some(head.status()),
            _ => None,
        }
    }

    /// Whether a next attempt will hardly do better: what is wrong is on this side.
    pub(crate) fn is_ours(&self) -> bool {
        let answered = match self {
            Self::Refused { head, .. } | Self::Proxy { head, .. } => Some(head.status()),
            _ => None,
        };
        matches!(answered, Some(401 | 403 | 404 | 407 | 410))
            || matches!(self, Self::Request(_) | Self::Panic(_))
            || matches!(self, Self::Tls(fault) if fault.is_lasting())
    }

    /// How long the server asks to be left alone.
    pub(crate) fn retry_after(&self, since_1970: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Refused { head, .. } | Self::Proxy { head, .. } => head.retry_after(since_1970),
            _ => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup { host, source } => write!(
                f,
                "{host} was not found: {source}; is the name right, and is there a name server?"
            ),
            Self::LookupThread(source) => write!(
                f,
                "no thread could be made for the name server: {source}; a URL with an address needs none"
            ),
            Self::Connect { address: Some(address), source } => write!(f, "{address}: {source}"),
            Self::Connect { address: None, source } => write!(f, "the Unix socket: {source}"),
            Self::Timeout(step) => write!(f, "connect_timeout was over {step}"),
            Self::Ended { step, kind: None } => write!(f, "the other side hung up {step}"),
            Self::Ended { step, kind: Some(kind) } => write!(f, "{kind} {step}"),
            Self::Proxy { head, .. } => {
                write!(f, "the proxy answered {}: {}", head.status(), advice(head.status(), true))
            }
            Self::Refused { head, .. } => {
                write!(f, "the server answered {}: {}", head.status(), advice(head.status(), false))
            }
            Self::BadAnswer(text) => write!(f, "the answer cannot be taken: {}", on_one_line(text)),
            Self::Redirect(text) => {
                write!(f, "the redirect is not followed: {}", on_one_line(text))
            }
            Self::Request(text) => f.write_str(&on_one_line(text)),
            Self::Tls(fault) => write!(f, "TLS: {fault}"),
            Self::Panic(text) => write!(f, "the application panicked: {}", on_one_line(text)),
            Self::Full => f.write_str("there is no room for one more connection"),
        }
    }
}

/// What a status means for whoever set the client up.
fn advice(status: u16, of_proxy: bool) -> &'static str {
    match status {
        407 if of_proxy => "it wants other credentials: write http://user:password@proxy:3128",
        _ if of_proxy => "it does not connect to this server",
        401 | 403 => "it wants other credentials (header_with, or user information in the URL)",
        404 | 410 => "there is nothing at this path",
        426 => "it wants another version of the protocol, or none on this path",
        300..=399 => "it redirects (see redirects)",
        429 | 503 => "it is busy",
        500..=599 => "it has a fault",
        _ => "it does not switch to WebSocket here",
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Lookup { source, .. }
            | Self::LookupThread(source)
            | Self::Connect { source, .. } => Some(source),
            _ => None,
        }
    }
}

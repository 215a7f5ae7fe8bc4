//! What becomes of an attempt to connect: where it stands, and what follows when it fails.

use std::fmt;
use std::time::Duration;

/// How far an attempt to connect has come.
///
/// ```
/// use wirewheel::client::{ConnectError, ConnectStep};
/// fn is_slow_server(error: &ConnectError) -> bool {
///     matches!(error, ConnectError::Timeout(ConnectStep::Handshake))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectStep {
    /// The name of the server, or of the proxy, is being resolved.
    Lookup,
    /// Its addresses are being tried.
    Connect,
    /// The proxy is asked to connect to the server.
    Tunnel,
    /// TLS is agreed on with the server.
    Tls,
    /// The answer to the opening handshake is awaited.
    Handshake,
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "while its name was looked up",
            Self::Connect => "while it was connected to",
            Self::Tunnel => "while the proxy connected to it",
            Self::Tls => "before TLS was agreed on",
            Self::Handshake => "before it had answered the handshake",
        })
    }
}

/// What follows a failed attempt, or a session that has ended; see
/// [`ConnectOptions::on_failure`](crate::client::ConnectOptions::on_failure).
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::{ConnectOptions, Reconnect};
/// let hourly = ConnectOptions::new()
///     .on_failure(|_error, _next| Reconnect::After(Duration::from_secs(3600)));
/// # let _ = hourly;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// The next attempt, after the delay that was going to be.
    Retry,
    /// The next attempt after this delay, from now on.
    After(Duration),
    /// None any more, unless [`reconnect_now`](crate::client::Dialer::reconnect_now) asks for it.
    Stop,
}

/// Where a dialer stands.
///
/// ```
/// use wirewheel::client::{Dialer, DialerState};
/// fn lamp(cloud: &Dialer) -> &'static str {
///     match cloud.state() {
///         DialerState::Open => "green",
///         DialerState::Stopped => "off",
///         _ => "blinking",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialerState {
    /// An attempt is under way.
    Connecting(ConnectStep),
    /// There is a session.
    Open,
    /// The next attempt is made after a delay.
    Waiting,
    /// No further attempt is made.
    Stopped,
}

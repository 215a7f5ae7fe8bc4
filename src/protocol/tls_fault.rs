//! Why a TLS handshake has come to nothing, and what can be done about it.

use std::fmt;
use std::time::Duration;

use crate::protocol::date::shown_date;
use crate::words::quoted::on_one_line;

/// Why TLS with a server could not be agreed on.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::{ConnectError, ConnectOptions, Reconnect, TlsFault};
/// let options = ConnectOptions::new().on_failure(|error: &ConnectError, _next| match error {
///     // The clock is set soon, and then its certificate is valid.
///     ConnectError::Tls(TlsFault::NotYetValid { .. }) => Reconnect::After(Duration::from_secs(5)),
///     _ => Reconnect::Retry,
/// });
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "client", feature = "tls")),
    allow(dead_code, unreachable_pub, reason = "a listener has one word for all of them")
)]
#[non_exhaustive]
pub enum TlsFault {
    /// None of the authorities that are trusted has signed the server's certificate.
    UnknownIssuer,
    /// The certificate is one for others than the host of the URL.
    WrongName {
        /// For whom, as far as it says so; at most eight of them.
        names: Vec<String>,
    },
    /// The certificate is valid no longer.
    Expired {
        /// When it ended, since 1970 began.
        ended: Duration,
        /// What the clock of this machine says, since 1970 began.
        clock: Duration,
    },
    /// The certificate is not valid yet. Where a machine has no battery, its clock is what is wrong.
    NotYetValid {
        /// When it begins, since 1970 began.
        begins: Duration,
        /// What the clock of this machine says, since 1970 began.
        clock: Duration,
    },
    /// The certificate is none of those that are pinned.
    NotPinned {
        /// The SHA-256 of the public key that the server has shown, in hexadecimal digits.
        public_key: String,
    },
    /// The server has refused, with this alert (RFC 8446 section 6.2).
    Alert(String),
    /// What the server sends is no TLS.
    NotTls,
    /// Anything else, in words.
    Other(String),
}

/// Before this year clocks were not set: it is over.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_577_836_800); // 2020-01-01

impl TlsFault {
    /// Whether a next attempt will hardly do better.
    #[cfg(feature = "client")]
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::UnknownIssuer
            | Self::WrongName { .. }
            | Self::Expired { .. }
            | Self::NotPinned { .. } => true,
            Self::NotYetValid { .. } | Self::Alert(_) | Self::NotTls | Self::Other(_) => false,
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str(
                "no authority that is trusted has signed the server's certificate: name its own \
                 (ConnectOptions::roots) or pin the certificate",
            ),
            Self::WrongName { names } if names.is_empty() => f.write_str(
                "the server's certificate names no host (subjectAltName), so that it fits none",
            ),
            Self::WrongName { names } => write!(
                f,
                "the server's certificate is for others than this host: {}",
                on_one_line(&names.join(", "))
            ),
            Self::Expired { ended, clock } => write!(
                f,
                "the server's certificate ended on {}, and the clock here reads {}",
                shown_date(*ended),
                shown_date(*clock)
            ),
            Self::NotYetValid { clock, .. } if *clock < CLOCK_IS_SET => write!(
                f,
                "the clock reads {}, when no certificate was valid yet: set it, for instance by NTP",
                shown_date(*clock)
            ),
            Self::NotYetValid { begins, clock } => write!(
                f,
                "the server's certificate begins on {}, and the clock here reads {}",
                shown_date(*begins),
                shown_date(*clock)
            ),
            Self::NotPinned { public_key } => write!(
                f,
                "the server's certificate is none that is pinned: the SHA-256 of its public key is \
                 {public_key}"
            ),
            Self::Alert(alert) => write!(f, "the server refuses with {alert}{}", advice(alert)),
            Self::NotTls => f.write_str("the server does not speak TLS here: is ws:// meant?"),
            Self::Other(text) => f.write_str(&on_one_line(text)),
        }
    }
}

/// What an alert means for whoever set the client up.
fn advice(alert: &str) -> &'static str {
    match alert {
        "CertificateRequired" | "NoCertificate" => {
            ": it wants a certificate of this client (ConnectOptions::client_certificate)"
        }
        "BadCertificate"
        | "UnsupportedCertificate"
        | "CertificateRevoked"
        | "CertificateExpired"
        | "CertificateUnknown"
        | "UnknownCA"
        | "AccessDenied" => ": it does not take the certificate of this client, or wants one",
        "ProtocolVersion" | "HandshakeFailure" | "InsufficientSecurity" => {
            ": it speaks no TLS 1.2 or 1.3 with a cipher suite that is good enough"
        }
        "UnrecognisedName" => ": it has no certificate for this host",
        "NoApplicationProtocol" => ": it does not speak HTTP/1.1 here",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_says_what_to_do() {
        let day = |days: u64| Duration::from_secs(days * 86_400);
        for (fault, said) in [
            (TlsFault::UnknownIssuer, "ConnectOptions::roots"),
            (TlsFault::WrongName { names: Vec::new() }, "subjectAltName"),
            (TlsFault::WrongName { names: vec!["a\nb".into(), "c".into()] }, "host: a\\nb, c"),
            (
                TlsFault::Expired { ended: day(11_688), clock: day(20_000) },
                "ended on Tue, 01 Jan 2002 00:00:00 GMT, and the clock here reads Fri, 04 Oct 2024",
            ),
            (
                TlsFault::NotYetValid { begins: day(20_000), clock: day(0) },
                "the clock reads Thu, 01 Jan 1970 00:00:00 GMT, when",
            ),
            (
                TlsFault::NotYetValid { begins: day(20_001), clock: day(20_000) },
                "begins on Sat, 05 Oct 2024",
            ),
            (TlsFault::NotPinned { public_key: "ab".into() }, "is ab"),
            (TlsFault::Alert("CertificateRequired".into()), "client_certificate"),
            (TlsFault::Alert("UnknownCA".into()), "does not take"),
            (TlsFault::Alert("InternalError".into()), "with InternalError"),
            (TlsFault::NotTls, "ws:// meant"),
            (TlsFault::Other("a\nb".into()), "a\\nb"),
        ] {
            let text = fault.to_string();
            assert!(text.contains(said) && !text.contains('\n'), "{text}");
        }
    }
}

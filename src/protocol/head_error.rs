//! Why a request head is refused.

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Not HTTP, or a smuggler's ambiguity.
    Malformed,
    /// Over a limit.
    TooLarge,
    /// A body in a transfer coding that is not known here.
    UnknownCoding,
    /// Not HTTP/1.x.
    UnsupportedVersion,
}

impl HeadError {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 431,
            Self::UnknownCoding => 501,
            Self::UnsupportedVersion => 505,
        }
    }
}

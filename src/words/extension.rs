//! The ways in which an extension fails.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use crate::words::close::CloseCode;

/// Why an extension could not encode or decode a message; the session ends with its close code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The message is, or would be, over the limit that the extension was handed: 1009.
    TooBig,
    /// Anything else.
    Failed {
        /// The close code. One that may not be sent stands for 1011.
        code: CloseCode,
        /// What the peer is told; cut at 123 bytes.
        text: Cow<'static, str>,
    },
}

impl ExtensionError {
    /// A failure with a close code and a text for the peer.
    ///
    /// ```
    /// use wirewheel::extension::ExtensionError;
    /// use wirewheel::CloseCode;
    /// let error = ExtensionError::failed(CloseCode::NOT_CONSISTENT, "checksum does not fit");
    /// assert_eq!(error.close_code(), CloseCode::NOT_CONSISTENT);
    /// ```
    pub fn failed(code: CloseCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed { code, text: text.into() }
    }

    /// The close code that ends the session.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::TooBig => CloseCode::TOO_BIG,
            Self::Failed { code, .. } if code.may_be_sent() => *code,
            Self::Failed { .. } => CloseCode::INTERNAL_ERROR,
        }
    }
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig => f.write_str("message over the limit"),
            Self::Failed { text, .. } => f.write_str(text),
        }
    }
}

impl Error for ExtensionError {}

//! The reasons why a message could not be turned into a value, or a value into a message.

use std::error::Error;
use std::fmt;

use crate::words::close::CloseCode;

/// Why a value and a message could not be turned into each other (Ktor's
/// `WebsocketConverterNotFoundException` and `WebsocketDeserializeException`).
///
/// A hook that returns one ends its session with [`close_code`](Self::close_code); one that wants to
/// go on after bad data answers it instead.
///
/// ```
/// use wirewheel::error::ConvertError;
/// use wirewheel::{CloseCode, HandlerResult, Message};
/// fn celsius(message: Message<'_>) -> HandlerResult<f64> {
///     let text = message.text().ok_or(ConvertError::wrong_kind(&message))?; // 1003
///     Ok(text.parse().map_err(|error| ConvertError::bad_data(&message, &error))?) // 1007
/// }
/// assert_eq!(ConvertError::NoConverter.close_code(), CloseCode::INTERNAL_ERROR);
/// # assert!(celsius(Message::from("20.5")).is_ok() && celsius(Message::from("warm")).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConvertError {
    /// No converter is installed: 1011.
    NoConverter,
    /// The converter does not take messages of this kind, such as binary ones for JSON: 1003.
    WrongKind {
        /// Whether the message was text.
        text: bool,
        /// Its size.
        bytes: usize,
    },
    /// The message does not hold what was asked for: 1007.
    BadData {
        /// Whether the message was text.
        text: bool,
        /// Its size.
        bytes: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The value has no form in the converter's format: 1011.
    BadValue {
        /// Why not.
        reason: String,
    },
}

impl ConvertError {
    /// Of a message whose kind is not taken.
    pub fn wrong_kind(message: &crate::words::message::Message<'_>) -> Self {
        Self::WrongKind { text: message.is_text(), bytes: message.bytes().len() }
    }

    /// Of a message that does not hold what was asked for.
    pub fn bad_data(
        message: &crate::words::message::Message<'_>,
        reason: &dyn fmt::Display,
    ) -> Self {
        let (text, bytes) = (message.is_text(), message.bytes().len());
        Self::BadData { text, bytes, reason: reason.to_string() }
    }

    /// The close code of a session that ends because of it.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::WrongKind { .. } => CloseCode::CANNOT_ACCEPT,
            Self::BadData { .. } => CloseCode::NOT_CONSISTENT,
            Self::NoConverter | Self::BadValue { .. } => CloseCode::INTERNAL_ERROR,
        }
    }

    /// Whether the peer sent what cannot be converted.
    pub(crate) fn is_the_peers(&self) -> bool {
        matches!(self, Self::WrongKind { .. } | Self::BadData { .. })
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |text: bool| if text { "text" } else { "binary" };
        match self {
            Self::NoConverter => {
                f.write_str("no converter: call WebSockets::content_converter, or the route's")
            }
            Self::WrongKind { text, bytes } => {
                write!(f, "the converter takes no {} messages ({bytes} bytes)", kind(*text))
            }
            Self::BadData { text, bytes, reason } => {
                write!(f, "a {} message of {bytes} bytes: {reason}", kind(*text))
            }
            Self::BadValue { reason } => write!(f, "the value has no such form: {reason}"),
        }
    }
}

impl Error for ConvertError {}

//! The extension (RFC 6455 section 9): how it is offered, agreed on and applied to
//! messages.

#[cfg(feature = "deflate")]
pub(crate) mod deflate;
pub(crate) mod header;
pub(crate) mod in_pieces;

use std::borrow::Cow;

use crate::words::error::{ProtocolError, SessionError};
use crate::words::extension::ExtensionError;
use crate::words::message::{Message, Rsv};

use super::text::growth;
use header::{ExtensionOffer, Parameters};
pub use in_pieces::MessagePiece;
use in_pieces::PieceExtension;

/// An extension that is installed: its name, the bits it owns, and what it makes of an offer (Ktor's
/// `WebSocketExtensionFactory`).
///
/// It is installed with [`WebSockets::extension`](crate::WebSockets::extension). A client's offers are
/// tried in its order; of several offers of one extension the first that is accepted counts.
///
/// ```
/// use wirewheel::extension::{
///     Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionMessage, ExtensionOffer,
/// };
/// use wirewheel::raw::Rsv;
/// use wirewheel::{Application, WebSockets};
///
/// /// Turns every byte of the payload by a number that the client chose.
/// struct Rotate(u8);
///
/// impl Extension for Rotate {
///     fn encode(&mut self, m: &mut ExtensionMessage<'_>, _: usize) -> Result<(), ExtensionError> {
///         let turned: Vec<u8> = m.payload().iter().map(|b| b.wrapping_add(self.0)).collect();
///         m.replace(turned);
///         m.set_rsv(m.rsv().with(Rsv::RSV3));
///         Ok(())
///     }
///     fn decode(&mut self, m: &mut ExtensionMessage<'_>, _: usize) -> Result<(), ExtensionError> {
///         if m.rsv().rsv3() {
///             let turned: Vec<u8> = m.payload().iter().map(|b| b.wrapping_sub(self.0)).collect();
///             m.replace(turned);
///             m.set_rsv(m.rsv().without(Rsv::RSV3));
///         }
///         Ok(())
///     }
/// }
///
/// struct Rotation;
///
/// impl ExtensionFactory for Rotation {
///     fn name(&self) -> &str {
///         "x-rotate"
///     }
///     fn rsv(&self) -> Rsv {
///         Rsv::RSV3
///     }
///     fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement> {
///         let by: u8 = offer.parameter("by")??.parse().ok()?; // else this offer is declined
///         Some(Agreement::new(Rotate(by)).parameter("by", by.to_string()))
///     }
///     fn check(&self) -> Result<(), String> {
///         Ok(()) // there are no settings that could be wrong
///     }
///     fn takes_pieces(&self) -> bool {
///         false // it would need to go on where a piece ends
///     }
/// }
///
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new().extension(Rotation));
/// }
/// ```
pub trait ExtensionFactory {
    /// The name in `Sec-WebSocket-Extensions`, a token. Two of one name are refused at start-up.
    fn name(&self) -> &str;

    /// The reserved bits that the extension owns: they may stand on the first frame of a message.
    /// Two extensions with one bit are refused at start-up.
    fn rsv(&self) -> Rsv {
        Rsv::NONE
    }

    /// Whether the states that it makes take messages in pieces ([`Extension::in_pieces`]). Where it does
    /// not, which is the default, sessions whose handlers take [`pieces`](crate::pieces) do not agree on it.
    fn takes_pieces(&self) -> bool {
        false
    }

    /// Accepts an offer of that name, with the answer's parameters and the state of the new session,
    /// or declines it. Called once the request is otherwise accepted.
    fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement>;

    /// What a client offers of it; `None`, which is the default, for an extension that only servers have.
    #[cfg(feature = "client")]
    fn offer(&self) -> Option<ExtensionOffer> {
        None
    }

    /// Takes a server's answer to the offer, with the state of the new session; the parameters of the
    /// agreement mean nothing here.
    ///
    /// ```
    /// use wirewheel::extension::{Agreement, Extension, ExtensionFactory, ExtensionOffer};
    /// struct Seal;
    /// impl Extension for Seal {}
    /// struct Seals;
    /// impl ExtensionFactory for Seals {
    ///     fn name(&self) -> &str {
    ///         "x-seal"
    ///     }
    ///     fn negotiate(&self, _offer: &ExtensionOffer) -> Option<Agreement> {
    ///         Some(Agreement::new(Seal))
    ///     }
    ///     fn offer(&self) -> Option<ExtensionOffer> {
    ///         Some(ExtensionOffer::new("x-seal").with("key", "7"))
    ///     }
    ///     fn accept(&self, answer: &ExtensionOffer) -> Result<Agreement, String> {
    ///         match answer.parameter("key") {
    ///             Some(Some("7")) => Ok(Agreement::new(Seal)),
    ///             _ => Err("it is another key".into()),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// What is wrong with the answer: the connection is not made.
    #[cfg(feature = "client")]
    fn accept(&self, answer: &ExtensionOffer) -> Result<Agreement, String> {
        self.negotiate(answer).ok_or_else(|| "its parameters are not understood".into())
    }

    /// Refuses wrong settings at start-up; the text is what [`Server::run`](crate::Server::run)
    /// returns.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What a server agrees on: the parameters of its answer, and the extension's state for the session.
///
/// ```
/// use wirewheel::extension::{Agreement, Extension, ExtensionOffer};
/// struct Seal;
/// impl Extension for Seal {}
/// fn negotiate(offer: &ExtensionOffer) -> Option<Agreement> {
///     let key = offer.parameter("key")??;
///     Some(Agreement::new(Seal).parameter("key", key).flag("strict")) // x-seal; key=..; strict
/// }
/// ```
pub struct Agreement {
    parameters: Parameters,
    extension: Box<dyn Extension>,
}

impl std::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agreement").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

impl Agreement {
    /// An agreement without parameters.
    pub fn new(extension: impl Extension + 'static) -> Self {
        Self { parameters: Vec::new(), extension: Box::new(extension) }
    }

    /// Adds a parameter with a value. Both must be tokens; else the extension is not agreed on.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a parameter without a value.
    #[must_use]
    pub fn flag(mut self, name: impl Into<String>) -> Self {
        self.parameters.push((name.into(), None));
        self
    }

    pub(crate) fn into_parts(self) -> (Parameters, Box<dyn Extension>) {
        (self.parameters, self.extension)
    }
}

/// The state of an extension in one session (Ktor's `WebSocketExtension`). It is made when the
/// extension is agreed on and dropped with the session.
///
/// Messages that are sent pass the agreed extensions in the order of the answer, messages that
/// arrive in the reverse order (RFC 6455 section 9.1). Only whole text and binary messages pass
/// them, no control frames. An extension may change a message, replace it or drop it; the reserved
/// bits that it does not own stay as they are whatever it does.
///
/// ```
/// use wirewheel::extension::{
///     Extension, ExtensionError, ExtensionMessage, MessagePiece, PieceExtension,
/// };
///
/// /// Binary messages as hexadecimal digits.
/// #[derive(Default)]
/// struct Hexadecimal { seen: usize }
///
/// impl Extension for Hexadecimal {
///     fn encode(&mut self, message: &mut ExtensionMessage<'_>, limit: usize) -> Result<(), ExtensionError> {
///         if message.is_text() {
///             return Ok(());
///         }
///         if message.payload().len() > limit / 2 {
///             return Err(ExtensionError::TooBig);
///         }
///         let digits: String = message.payload().iter().map(|byte| format!("{byte:02x}")).collect();
///         message.replace(digits);
///         Ok(())
///     }
///     fn decode(&mut self, message: &mut ExtensionMessage<'_>, _: usize) -> Result<(), ExtensionError> {
///         if message.payload().is_empty() {
///             message.discard(); // nobody is told of it
///         }
///         Ok(())
///     }
///     fn decode_piece(
///         &mut self, piece: &MessagePiece<'_>, body: &mut Vec<u8>, limit: usize,
///     ) -> Result<(), ExtensionError> {
///         self.seen += piece.bytes.len();
///         body.extend_from_slice(piece.bytes);
///         if body.len() > limit { Err(ExtensionError::TooBig) } else { Ok(()) }
///     }
///     fn in_pieces(&mut self) -> Option<&mut dyn PieceExtension> {
///         None // messages are sent and handed over whole
///     }
///     fn share_key(&self) -> Option<u64> {
///         Some(16) // every session encodes alike
///     }
///     fn memory(&self) -> usize {
///         0 // nothing beyond the struct
///     }
/// }
/// ```
pub trait Extension {
    /// Changes a message on its way out. `max_message_size` bounds the result; it is the session's
    /// `max_outgoing_message_size`.
    ///
    /// # Errors
    /// [`ExtensionError::TooBig`], with the extension as it was before, refuses this message alone: whoever
    /// sends it gets [`SendError::TooBig`](crate::error::SendError::TooBig). After any other the
    /// session ends with the error's close code.
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        let _ = (message, max_message_size);
        Ok(())
    }

    /// Changes a message that has arrived whole. `max_message_size` bounds the result.
    ///
    /// # Errors
    /// The session ends with the error's close code.
    fn decode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        let _ = (message, max_message_size);
        Ok(())
    }

    /// Takes a piece of a message that arrives in several, and adds to `body` what it stands for.
    /// Only the last extension of the answer is asked, which sees the message as it is on the wire;
    /// [`decode`](Self::decode) follows with the whole body. As it is, the piece is kept unchanged:
    /// to be overridden where a message grows, so that only what it grows to is held.
    ///
    /// # Errors
    /// The session ends with the error's close code.
    fn decode_piece(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
        max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        keep_piece(piece.bytes, body, max_message_size)
    }

    /// The same extension for messages that are sent, or handed over, in pieces; `None`, which is the
    /// default, where it needs messages whole. It then has no part in
    /// [`decode_piece`](Self::decode_piece), which puts messages together.
    fn in_pieces(&mut self) -> Option<&mut dyn PieceExtension> {
        None
    }

    /// A key such that two sessions with the same key encode the same message to the same bytes, so
    /// that a broadcast encodes it once for both. `None`, which is the default, if the encoding
    /// depends on the session.
    fn share_key(&self) -> Option<u64> {
        None
    }

    /// The bytes that the extension holds beyond itself: they count for `process_bytes`.
    fn memory(&self) -> usize {
        0
    }
}

/// Adds a piece as it is, growing as bytes arrive.
fn keep_piece(piece: &[u8], body: &mut Vec<u8>, limit: usize) -> Result<(), ExtensionError> {
    if body.len().saturating_add(piece.len()) > limit {
        return Err(ExtensionError::TooBig);
    }
    body.reserve_exact(growth(body.len(), body.capacity(), piece.len(), limit));
    body.extend_from_slice(piece);
    Ok(())
}

/// A whole message on its way through the extensions.
///
/// ```
/// use wirewheel::extension::ExtensionMessage;
/// use wirewheel::raw::Rsv;
/// let mut message = ExtensionMessage::new(true, Rsv::NONE, b"hello".as_slice());
/// message.replace("HELLO");
/// message.set_rsv(message.rsv().with(Rsv::RSV1));
/// assert!(message.is_text() && !message.is_dropped());
/// assert_eq!(message.into_payload(), b"HELLO".as_slice());
/// let mut other = ExtensionMessage::new(false, Rsv::NONE, b"".as_slice());
/// other.discard();
/// assert!(other.is_dropped() && other.payload().is_empty());
/// ```
///
/// What an extension that compresses asks first:
///
/// ```
/// use wirewheel::extension::ExtensionMessage;
/// fn is_worth_it(message: &ExtensionMessage<'_>) -> bool {
///     message.may_compress() && message.payload().len() > 100
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionMessage<'a> {
    text: bool,
    rsv: Rsv,
    payload: Cow<'a, [u8]>,
    dropped: bool,
    may_compress: bool,
}

impl<'a> ExtensionMessage<'a> {
    /// A message for an extension that a raw handler applies itself: whether it is text, the bits of
    /// its first frame (none before it is encoded), and its payload.
    ///
    /// ```
    /// use wirewheel::extension::ExtensionMessage;
    /// use wirewheel::raw::{Frame, OpCode, RawHandler};
    /// use wirewheel::{HandlerResult, Session};
    /// /// On a route with `negotiate_extensions(true)`; fragments are left out here.
    /// struct Reader;
    /// impl RawHandler for Reader {
    ///     fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
    ///         let text = frame.opcode == OpCode::Text;
    ///         let mut message = ExtensionMessage::new(text, frame.rsv, frame.payload);
    ///         if let Some(deflate) = session.extension("permessage-deflate") {
    ///             deflate.decode(&mut message, 64 << 10)?;
    ///         }
    ///         println!("{} bytes", message.payload().len());
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn new(text: bool, rsv: Rsv, payload: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { text, rsv, payload: payload.into(), dropped: false, may_compress: true }
    }

    /// The same of a message that is sent, as whoever sends it wants it.
    pub(crate) fn of(message: &Message<'a>) -> Self {
        let (text, payload) = (message.is_text(), message.bytes());
        Self { may_compress: message.may_compress(), ..Self::new(text, Rsv::NONE, payload) }
    }

    /// Whether it may be compressed: true, unless whoever sends it said that it may not
    /// ([`Message::compressed`](crate::Message::compressed)). For extensions that compress.
    pub fn may_compress(&self) -> bool {
        self.may_compress
    }

    /// Whether it is a text message. Its payload need not be UTF-8 while it is encoded.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Puts another payload in place of it.
    pub fn replace(&mut self, payload: impl Into<Vec<u8>>) {
        self.payload = Cow::Owned(payload.into());
    }

    /// The reserved bits of its first frame.
    pub fn rsv(&self) -> Rsv {
        self.rsv
    }

    /// Sets the reserved bits; those that the extension does not own stay as they are.
    pub fn set_rsv(&mut self, rsv: Rsv) {
        self.rsv = rsv;
    }

    /// Drops the message: it is neither sent nor delivered, and the extensions behind this one do
    /// not see it.
    pub fn discard(&mut self) {
        self.dropped = true;
    }

    /// Whether an extension has dropped it.
    pub fn is_dropped(&self) -> bool {
        self.dropped
    }

    /// The payload, given away.
    pub fn into_payload(self) -> Cow<'a, [u8]> {
        self.payload
    }
}

/// What may be on the wire for a message of the limit: an encoding that saves nothing adds a little
/// (deflate five bytes for each 16 KiB and for each flush).
pub(crate) fn wire_limit(limit: usize) -> usize {
    limit.saturating_add(limit / 8).saturating_add(1024)
}

pub(crate) fn too_big(limit: usize) -> SessionError {
    SessionError::Protocol(ProtocolError::MessageTooBig { limit: limit as u64 })
}

pub(crate) fn fault(error: ExtensionError, limit: usize) -> SessionError {
    match error {
        ExtensionError::TooBig => too_big(limit),
        error @ ExtensionError::Failed { .. } => SessionError::Extension(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_kept_up_to_the_limit_and_not_beyond() {
        let mut body = Vec::new();
        for piece in [b"abc".as_slice(), b"de"] {
            assert!(keep_piece(piece, &mut body, 5).is_ok());
        }
        assert!(matches!(keep_piece(b"f", &mut body, 5), Err(ExtensionError::TooBig)));
        assert_eq!((body.as_slice(), body.capacity()), (b"abcde".as_slice(), 5));
    }

    #[test]
    fn a_message_says_what_it_is() {
        for text in [true, false] {
            assert_eq!(ExtensionMessage::new(text, Rsv::NONE, "x".as_bytes()).is_text(), text);
        }
    }
}

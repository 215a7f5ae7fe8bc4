//! The pieces of messages, and the extension as it takes messages in pieces.

use crate::words::extension::ExtensionError;
use crate::words::message::Rsv;

/// A part of a message that arrives in several.
///
/// ```
/// use wirewheel::extension::MessagePiece;
/// fn describe(piece: &MessagePiece<'_>) -> String {
///     let kind = if piece.text { "text" } else { "binary" };
///     format!("{} bytes of {kind}, last: {}, RSV1: {}", piece.bytes.len(), piece.last, piece.rsv.rsv1())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MessagePiece<'a> {
    /// Whether the message is text.
    pub text: bool,
    /// The reserved bits of its first frame; none before it is encoded.
    pub rsv: Rsv,
    /// The bytes of this piece.
    pub bytes: &'a [u8],
    /// Whether they are the message's first.
    pub first: bool,
    /// Whether they are the message's last.
    pub last: bool,
    /// Whether the message may be compressed; see [`Message::compressed`](crate::Message::compressed).
    pub may_compress: bool,
}

impl<'a> MessagePiece<'a> {
    pub(crate) const fn new(
        text: bool,
        rsv: Rsv,
        bytes: &'a [u8],
        (first, last): (bool, bool),
    ) -> Self {
        Self { text, rsv, bytes, first, last, may_compress: true }
    }
}

/// What an [`Extension`](crate::extension::Extension) does with messages of which nothing is kept: those that
/// a handler takes in [`pieces`](crate::pieces), and those that are sent so. It stands alone: a session in
/// which several extensions were agreed on sends no message in pieces.
///
/// ```
/// use wirewheel::extension::{
///     Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionOffer, MessagePiece, PieceExtension,
/// };
/// use wirewheel::raw::Rsv;
///
/// /// Turns the bits of every byte.
/// struct Turned;
///
/// impl PieceExtension for Turned {
///     fn decode_some(
///         &mut self, piece: &MessagePiece<'_>, body: &mut Vec<u8>, room: usize,
///     ) -> Result<usize, ExtensionError> {
///         let taken = piece.bytes.len().min(room - body.len()); // the rest comes again
///         body.extend(piece.bytes[..taken].iter().map(|byte| !byte));
///         Ok(taken)
///     }
///     fn encode_some(
///         &mut self, piece: &MessagePiece<'_>, body: &mut Vec<u8>,
///     ) -> Result<Rsv, ExtensionError> {
///         body.extend(piece.bytes.iter().map(|byte| !byte));
///         Ok(Rsv::NONE)
///     }
/// }
///
/// impl Extension for Turned { // and encode and decode, for whole messages
///     fn in_pieces(&mut self) -> Option<&mut dyn PieceExtension> {
///         Some(self)
///     }
/// }
///
/// struct Turning;
///
/// impl ExtensionFactory for Turning {
///     fn name(&self) -> &str {
///         "x-turned"
///     }
///     fn takes_pieces(&self) -> bool {
///         true
///     }
///     fn negotiate(&self, _offer: &ExtensionOffer) -> Option<Agreement> {
///         Some(Agreement::new(Turned))
///     }
/// }
/// ```
pub trait PieceExtension {
    /// Takes bytes of a message that arrives, from the start of the piece, and adds to `body` what they
    /// stand for: all of them, unless `body` has `room` bytes before. It has fewer when this is called. How
    /// many it took; the rest comes again with the next piece. Of a message without any of the reserved
    /// bits that the extension owns nothing is asked, if it owns any.
    ///
    /// # Errors
    /// The session ends with the error's close code.
    fn decode_some(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
        room: usize,
    ) -> Result<usize, ExtensionError>;

    /// Adds to `body` what goes on the wire for a piece of a message that is sent, and says the reserved bits
    /// of the message, which count with its first piece.
    ///
    /// # Errors
    /// The session ends with the error's close code.
    fn encode_some(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
    ) -> Result<Rsv, ExtensionError>;
}

//! The extension as it takes messages in pieces.

use crate::words::extension::ExtensionError;
use crate::words::message::Rsv;

use super::MessagePiece;

/// What an [`Extension`](super::Extension) does with messages of which nothing is kept: those that a handler
/// takes in [`pieces`](crate::pieces), and those that are sent so. It stands alone: a session in which
/// several extensions were agreed on sends no message in pieces.
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

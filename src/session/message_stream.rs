//! The message that is made while it is sent.

use std::fmt;
use std::io;

use crate::protocol::text::CutChar;
use crate::structures::produced::{BodyPiece, ProducedBody};
use crate::words::error::{HandlerError, SendError, SessionError};
use crate::words::message::Message;

/// A message that is made while it is sent: whatever its length, one piece of it is held at a time. See
/// [`Session::send_stream`](crate::Session::send_stream).
///
/// `produce` is called for each piece, when the peer has taken the one before, and writes some bytes: 32 KiB
/// are a good size. The message ends with the call that writes nothing. It runs on the loop and must not
/// block.
///
/// ```
/// use std::fs::File;
/// use std::io::{self, Read, Write};
/// use wirewheel::pieces::MessageStream;
/// fn picture(file: File) -> MessageStream {
///     let pieces = MessageStream::binary(move |piece| {
///         io::copy(&mut (&file).take(32 << 10), piece).map(drop)
///     });
///     pieces.compressed(false) // a JPEG is that already
/// }
/// fn numbers() -> MessageStream {
///     let mut next = 0..1_000_000;
///     MessageStream::text(move |piece| {
///         next.by_ref().take(5_000).try_for_each(|number| writeln!(piece, "{number}"))
///     })
/// }
/// ```
#[must_use = "hand it to Session::send_stream"]
pub struct MessageStream {
    text: bool,
    may_compress: bool,
    content: ProducedBody,
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("text", &self.text).finish_non_exhaustive()
    }
}

impl MessageStream {
    /// A text message. What is written has to be UTF-8; pieces may be cut within a character.
    pub fn text(produce: impl FnMut(&mut BodyPiece<'_>) -> io::Result<()> + 'static) -> Self {
        Self::new(true, ProducedBody::new(None, produce))
    }

    /// A binary message.
    pub fn binary(produce: impl FnMut(&mut BodyPiece<'_>) -> io::Result<()> + 'static) -> Self {
        Self::new(false, ProducedBody::new(None, produce))
    }

    fn new(text: bool, content: ProducedBody) -> Self {
        Self { text, may_compress: true, content }
    }

    /// Whether it may be compressed; see [`Message::compressed`](crate::Message::compressed). Default true.
    pub fn compressed(self, on: bool) -> Self {
        Self { may_compress: on, ..self }
    }
}

/// What a stream is to the queue in which it waits: a program that sends none has no code for what makes it.
pub(crate) trait OutgoingStream: fmt::Debug {
    /// The next piece, of at most so many bytes.
    fn next_piece(&mut self, limit: usize) -> Result<StreamPiece, SessionError>;

    /// Whether it was asked for a piece.
    fn has_begun(&self) -> bool;
}

/// A piece of a stream.
#[derive(Debug)]
pub(crate) struct StreamPiece {
    bytes: Vec<u8>,
    text: bool,
    may_compress: bool,
    first: bool,
}

/// A part of a message that is sent. Text may be cut within a character.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutgoingPiece<'a> {
    pub(crate) text: bool,
    pub(crate) bytes: &'a [u8],
    pub(crate) may_compress: bool,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

impl<'a> OutgoingPiece<'a> {
    pub(crate) fn new(message: &Message<'a>, (first, last): (bool, bool)) -> Self {
        let (text, may_compress) = (message.is_text(), message.may_compress());
        Self { text, bytes: message.bytes(), may_compress, first, last }
    }
}

impl StreamPiece {
    pub(crate) fn as_outgoing(&self) -> OutgoingPiece<'_> {
        let Self { bytes, text, may_compress, first } = self;
        // That it was the last shows only in the call that writes nothing.
        let last = bytes.is_empty();
        OutgoingPiece { text: *text, bytes, may_compress: *may_compress, first: *first, last }
    }
}

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct StreamedMessage {
    stream: MessageStream,
    begun: bool,
    cut: CutChar,
}

impl StreamedMessage {
    pub(crate) fn new(stream: MessageStream) -> Self {
        Self { stream, begun: false, cut: CutChar::default() }
    }

    /// What is not UTF-8 the peer would have to refuse (RFC 6455 section 8.1): it does not get it.
    fn check(&mut self, bytes: &[u8]) -> Result<(), HandlerError> {
        let ends_within = bytes.is_empty() && !self.cut.is_empty();
        if self.stream.text && (ends_within || self.cut.check(bytes).is_err()) {
            return Err("a MessageStream of text wrote what is no UTF-8".into());
        }
        Ok(())
    }

    fn read_piece(&mut self, limit: usize) -> Result<Vec<u8>, HandlerError> {
        let mut bytes = Vec::new();
        self.stream.content.read_piece(&mut bytes)?;
        self.check(&bytes)?;
        if bytes.len() > limit {
            return Err(SendError::TooBig { bytes: bytes.len(), limit }.into());
        }
        Ok(bytes)
    }
}

impl OutgoingStream for StreamedMessage {
    fn next_piece(&mut self, limit: usize) -> Result<StreamPiece, SessionError> {
        // Before the application is asked, which may panic: it is not asked again.
        let first = !std::mem::replace(&mut self.begun, true);
        let bytes = self.read_piece(limit).map_err(SessionError::Handler)?;
        let MessageStream { text, may_compress, .. } = self.stream;
        Ok(StreamPiece { bytes, text, may_compress, first })
    }

    fn has_begun(&self) -> bool {
        self.begun
    }
}

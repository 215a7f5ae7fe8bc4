//! Owns how a session with extensions sends: a message is encoded whole, then cut into frames.

use std::borrow::Cow;

use crate::protocol::extension::Extension;
use crate::protocol::frame::{OpCode, write_frame_with};
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::message::{Message, Rsv};

use crate::session::Session;
use crate::session::extensions::{NotEncoded, Pipeline};
use crate::session::send::Admission;
use crate::session::subscriptions::Direct;

/// A message as it goes on the wire, but for the cutting into frames.
struct Encoded<'m> {
    text: bool,
    rsv: Rsv,
    payload: Cow<'m, [u8]>,
}

/// The agreed extensions of a session.
impl Session<'_> {
    /// The names of the extensions that were agreed on, in the order of the answer (Ktor's
    /// `extensions`).
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.state.pipeline.as_deref().into_iter().flat_map(|pipeline| pipeline.names())
    }

    /// The state of an agreed extension (Ktor's `extensionOrNull`). In a raw session with
    /// [`negotiate_extensions`](crate::WebSocketRoute::negotiate_extensions) the handler may call its
    /// `encode` and `decode`; elsewhere the session does, and a call of the handler's own would part
    /// the two ends of an extension that keeps a context.
    pub fn extension(&mut self, name: &str) -> Option<&mut dyn Extension> {
        self.state.pipeline.as_deref_mut()?.extension(name)
    }

    /// Whether what is sent has to pass extensions.
    #[inline]
    pub(crate) fn has_extensions(&self) -> bool {
        self.state.pipeline.as_deref().is_some_and(|pipeline| pipeline.applies())
    }

    #[cold]
    pub(crate) fn send_through_extensions(&mut self, message: Message<'_>) -> HandlerResult {
        if self.admit(message.bytes().len())? == Admission::Send {
            self.encode_and_send(message)?;
        }
        Ok(())
    }

    fn encode_and_send(&mut self, message: Message<'_>) -> Result<(), SendError> {
        if self.state.collected.is_some() && self.waits_for_flows(OpCode::Binary) {
            self.push_behind_flows(Direct::Message(message.into()));
            return Ok(());
        }
        if self.state.waiting().is_some() {
            let mut frames = Vec::new();
            self.encode_message(message, &mut frames)?;
            self.state.extra().outbox.push_frames(frames);
            return Ok(());
        }
        self.encode_to_tx(message)?;
        self.write_now(|_| ());
        Ok(())
    }

    /// Encodes one message to the end of the turn's buffer.
    pub(crate) fn encode_to_tx(&mut self, message: Message<'_>) -> Result<(), SendError> {
        if let Some(encoded) = self.encoded(message)? {
            // No code of the application runs while the buffer is elsewhere: a panic would lose it.
            let mut tx = std::mem::take(&mut self.shared.tx);
            self.write_frames(&mut tx, &encoded);
            self.shared.tx = tx;
        }
        Ok(())
    }

    /// Bytes of a message in fragments that are kept: they count when its end is admitted.
    pub(crate) fn kept_fragments(&self) -> usize {
        self.state.pipeline.as_deref().map_or(0, Pipeline::kept_fragments)
    }

    /// A fragment is kept until its message is whole: only then it can be encoded. An error leaves what
    /// was kept before.
    #[cold]
    pub(crate) fn keep_fragment(&mut self, piece: Message<'_>, fin: bool) -> HandlerResult {
        let limit = self.state.options(self.route).outgoing_limit();
        let kept = self.kept_fragments();
        let Some(pipeline) = self.state.pipeline.as_deref_mut() else { return Ok(()) };
        let bytes = kept.saturating_add(piece.bytes().len());
        if bytes > limit {
            return Err(SendError::TooBig { bytes, limit }.into());
        }
        pipeline.keep_fragment(piece.bytes());
        if !fin {
            return Ok(());
        }
        let whole = pipeline.take_fragments();
        let message = if piece.is_text() {
            // Every piece was text, so that this never fails.
            Message::from(std::str::from_utf8(&whole)?)
        } else {
            Message::from(&whole)
        };
        let sent = self.encode_and_send(message);
        if let (Err(_), Some(pipeline)) = (&sent, self.state.pipeline.as_deref_mut()) {
            pipeline.keep_fragment(whole.get(..kept).unwrap_or_default());
        }
        Ok(sent?)
    }

    /// Encodes one message as this session would send it, as frames at the end of `out`. Sessions of
    /// one [`share_key`](crate::session::state::SessionState::share_key) get the same bytes.
    ///
    /// An error leaves `out` as it was; [`SendError::Extension`] also ends the session.
    pub(crate) fn encode_message(
        &mut self,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if let Some(encoded) = self.encoded(message)? {
            self.write_frames(out, &encoded);
        }
        Ok(())
    }

    /// What the extensions make of a message; `None` if one of them dropped it.
    fn encoded<'m>(&mut self, message: Message<'m>) -> Result<Option<Encoded<'m>>, SendError> {
        let limit = self.state.options(self.route).outgoing_limit();
        let (text, bytes) = (message.is_text(), message.bytes().len());
        let applied = self.state.pipeline.as_deref_mut().filter(|pipeline| pipeline.applies());
        let Some(encoded) = applied.map(|pipeline| pipeline.encode(message, limit)) else {
            let payload = Cow::Borrowed(message.bytes());
            return Ok(Some(Encoded { text, rsv: Rsv::NONE, payload }));
        };
        self.shared.spend(message.bytes().len());
        match encoded {
            Ok(encoded) => Ok(encoded.map(|encoded| {
                let rsv = encoded.rsv();
                Encoded { text, rsv, payload: encoded.into_payload() }
            })),
            Err(NotEncoded::TooBig { in_step }) => {
                let error = SendError::TooBig { bytes, limit };
                if !in_step {
                    self.state.note_fault(SessionError::Handler(error.into()));
                }
                Err(error)
            }
            Err(NotEncoded::Failed(error)) => {
                self.state.note_fault(SessionError::Extension(error));
                Err(SendError::Extension)
            }
        }
    }

    fn write_frames(&mut self, out: &mut Vec<u8>, encoded: &Encoded<'_>) {
        let options = self.state.options(self.route);
        let (max, masking) = (options.max_frame_size, options.masking);
        let mut opcode = if encoded.text { OpCode::Text } else { OpCode::Binary };
        let (mut rsv, mut rest) = (encoded.rsv, &encoded.payload[..]);
        loop {
            let (piece, later) = rest.split_at(rest.len().min(max));
            let mask = masking.then(|| self.shared.masks.next_mask());
            write_frame_with(out, later.is_empty(), rsv, opcode, piece, mask);
            if later.is_empty() {
                return;
            }
            // RFC 7692 section 6.1: the bit is on the first fragment alone.
            (opcode, rsv, rest) = (OpCode::Continuation, Rsv::NONE, later);
        }
    }
}

//! The way out of what is less than a message: fragments, the frames of a raw session as they are, and those
//! whose payload is not copied.

use std::io::IoSlice;

use crate::protocol::close::read_close;
use crate::protocol::frame::{CONTROL_PAYLOAD_MAX, OpCode, write_header_with};
use crate::protocol::text::checked_text;
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::frame::Frame;
use crate::words::message::{Message, Rsv};

use crate::session::extensions::Pipeline;
use crate::session::outbox_admission::Admission;
use crate::session::send::Outgoing;
use crate::session::send_event::EventOutput;

/// Fragments.
impl Outgoing<'_> {
    pub(crate) fn send_fragment(&mut self, piece: Message<'_>, fin: bool) -> HandlerResult {
        if self.state.pipeline.as_deref().is_some_and(|pipeline| pipeline.sends_pieces) {
            return Err(SendError::Fragments.into()); // `send_piece` has begun it
        }
        // Fragments that extensions keep go out with the last one, and have to find room with it.
        let kept = if fin { self.kept_fragments() } else { 0 };
        let bytes = piece.bytes().len().saturating_add(kept);
        let (opcode, admission) = self.admit_fragment(&piece, bytes)?;
        self.send_admitted(admission, |out| {
            if out.state.has_encoder() {
                return out.keep_fragment(piece, fin);
            }
            out.send_plain(opcode, piece.bytes(), fin);
            Ok(())
        })?;
        self.note_fragment_sent(&piece, fin);
        Ok(())
    }

    /// Whether a fragment may be sent now with which `bytes` go out, and its opcode.
    pub(crate) fn admit_fragment(
        &mut self,
        piece: &Message<'_>,
        bytes: usize,
    ) -> Result<(OpCode, Admission), SendError> {
        self.check_open()?;
        let opcode = match self.state.fragments_text {
            // RFC 6455 section 5.4: the fragments of one message are of the first one's type.
            Some(text) if text != piece.is_text() => return Err(SendError::Fragments),
            Some(_) => OpCode::Continuation,
            None if piece.is_text() => OpCode::Text,
            None => OpCode::Binary,
        };
        Ok((opcode, self.admit_part(bytes)?))
    }

    pub(crate) fn note_fragment_sent(&mut self, piece: &Message<'_>, fin: bool) {
        self.state.fragments_text = if fin { None } else { Some(piece.is_text()) };
        if fin && self.state.collected.is_some() {
            self.state.list_for_flush(self.shared); // flow messages may have waited for the end
        }
    }

    /// Bytes of a message in fragments that are kept: they count when its end is admitted.
    fn kept_fragments(&self) -> usize {
        self.state.pipeline.as_deref().map_or(0, Pipeline::kept_fragments)
    }

    /// A fragment is kept until its message is whole: only then it can be encoded. An error leaves what
    /// was kept before.
    #[cold]
    fn keep_fragment(&mut self, piece: Message<'_>, fin: bool) -> Result<(), SendError> {
        let limit = self.state.options(self.route).outgoing_limit();
        let kept = self.kept_fragments();
        let Some(pipeline) = self.state.pipeline.as_deref_mut() else { return Ok(()) };
        let bytes = kept.saturating_add(piece.bytes().len());
        if bytes > limit {
            return Err(SendError::TooBig { bytes, limit });
        }
        pipeline.keep_fragment(piece.bytes());
        if !fin {
            return Ok(());
        }
        let whole = pipeline.take_fragments();
        // Every piece was text, so that the whole is.
        let text = if piece.is_text() { checked_text(&whole).ok() } else { None };
        let message = text.map_or_else(|| Message::from(&whole), Message::from);
        let sent = if self.state.is_event_stream() {
            EventOutput { out: self }.send_whole(message)
        } else {
            self.send_extended(message)
        };
        if let (Err(_), Some(pipeline)) = (&sent, self.state.pipeline.as_deref_mut()) {
            pipeline.keep_fragment(whole.get(..kept).unwrap_or_default());
        }
        sent
    }

    /// The bytes that wait because the peer does not read, in the outbox and of this turn.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.state.queued().0 + self.shared.tx.len()
    }
}

/// Raw frames.
impl Outgoing<'_> {
    pub(crate) fn send_frame(&mut self, frame: Frame<'_>) -> HandlerResult {
        if !self.state.is_raw() {
            return Err(SendError::NotRaw.into());
        }
        let admission = self.check_frame(&frame)?;
        if frame.opcode == OpCode::Close {
            return self.send_raw_close(&frame);
        }
        let mut has_room = true;
        self.send_admitted(admission, |out| {
            has_room = out.send_raw(&frame);
            Ok(())
        })?;
        if !has_room {
            let buffered = self.buffered_bytes();
            // The handler counts on each of its pings and pongs: none is dropped behind its back.
            self.state.note_fault(SessionError::Overloaded);
            return Err(SendError::Full { buffered }.into());
        }
        Ok(())
    }

    /// Keeps flow messages out of a message in fragments, and lets them go on behind its end.
    pub(crate) fn note_fragment(&mut self, frame: &Frame<'_>) {
        let open = &mut self.state.fragments_text;
        match frame.opcode {
            OpCode::Ping | OpCode::Pong | OpCode::Close => return,
            OpCode::Text | OpCode::Binary if !frame.fin => {
                *open = Some(frame.opcode == OpCode::Text);
            }
            OpCode::Continuation if !frame.fin => {}
            OpCode::Text | OpCode::Binary | OpCode::Continuation => *open = None,
        }
        if frame.fin && self.state.collected.is_some() {
            self.state.list_for_flush(self.shared);
        }
    }

    fn check_frame(&mut self, frame: &Frame<'_>) -> Result<Admission, SendError> {
        self.check_open()?;
        let bytes = frame.payload.len();
        if !frame.opcode.is_control() {
            // A frame that a raw session may be handed it may send too.
            let rules = self.state.rules(self.route);
            let is_continuation = frame.opcode == OpCode::Continuation;
            let limit = rules.limit_of(frame.rsv.bits(), is_continuation);
            // The handler has encoded it in the context of others: what follows builds on it.
            let is_context = frame.rsv != Rsv::NONE && self.state.encodes_in_context();
            let is_whole = frame.fin && !is_continuation && !is_context;
            return self.admit_within(bytes, limit, is_whole);
        }
        // RFC 6455 section 5.5: at most 125 bytes, and never in fragments.
        if bytes > CONTROL_PAYLOAD_MAX {
            return Err(SendError::TooBig { bytes, limit: CONTROL_PAYLOAD_MAX });
        }
        if !frame.fin {
            return Err(SendError::BadFrame);
        }
        Ok(Admission::Send)
    }

    fn send_raw_close(&mut self, frame: &Frame<'_>) -> HandlerResult {
        let close = read_close(frame.payload).map_err(|_| SendError::BadFrame)?;
        let (code, text) = close.unwrap_or((CloseCode::NO_STATUS, ""));
        let masking = self.state.options(self.route).masking;
        self.queue_close_frame(false, |encoder| encoder.raw(masking, frame));
        self.begin_closing(CloseInfo::new(code, text, ClosedBy::Local, false));
        Ok(())
    }
}

/// Frames straight from the caller's payload.
impl Outgoing<'_> {
    /// Writes one frame behind what the turn has gathered, which are frames too.
    pub(crate) fn write_past_buffer(&mut self, kind: (OpCode, Rsv), payload: &[u8], fin: bool) {
        // The buffer is taken out for the time of the write, and given back: it keeps its capacity.
        let mut tx = std::mem::take(&mut self.shared.tx);
        let header_at = tx.len();
        write_header_with(&mut tx, fin, kind.1, kind.0, payload.len(), None);
        let total = tx.len() + payload.len();
        let written = self.write_uncopied(&[IoSlice::new(&tx), IoSlice::new(payload)]);
        self.shared.spend(total);
        match written {
            None => self.note_lost(total),
            Some(written) if written < total => {
                let (before, header) = tx.split_at(header_at);
                self.keep_rest(before, written.min(header_at));
                self.keep_frame((header, payload), written.saturating_sub(header_at));
            }
            Some(_) => {}
        }
        tx.clear();
        self.shared.tx = tx;
    }

    /// What is left of a frame, of which `written` bytes went out, waits in the outbox.
    #[cold]
    fn keep_frame(&mut self, (header, payload): (&[u8], &[u8]), written: usize) {
        let outbox = &mut self.state.extra().outbox;
        if written == 0 {
            return outbox.push_frames(self.shared.copied(header, payload));
        }
        let payload = payload.get(written.saturating_sub(header.len())..).unwrap_or_default();
        let header = header.get(written..).unwrap_or_default();
        // An echo, say: the message stays where it was put together.
        match self.shared.spare.lent_message(payload).filter(|_| header.is_empty()) {
            Some((message, part)) => outbox.push_received(message, part),
            // Nothing comes between the parts of a frame that has begun.
            None => outbox.push_opaque(self.shared.copied(header, payload)),
        }
    }
}

//! The way out of messages of which nothing is kept: each piece is encoded by itself, and is a fragment.

use crate::protocol::extension::MessagePiece;
use crate::protocol::frame::OpCode;
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::message::{Message, Rsv};

use crate::session::encode::Framing;
use crate::session::message_stream::OutgoingPiece;
use crate::session::send::{Outgoing, UNCOPIED_BYTES, Way};
use crate::session::subscriptions::Direct;

/// What leaves a session in pieces.
pub(crate) struct PieceOutput<'o, 'a> {
    pub(crate) out: &'o mut Outgoing<'a>,
}

impl PieceOutput<'_, '_> {
    pub(crate) fn send(&mut self, message: Message<'_>, last: bool) -> HandlerResult {
        if !self.out.state.has_encoder() {
            return self.out.send_fragment(message, last); // which keeps nothing either
        }
        self.check()?;
        let first = self.out.state.fragments_text.is_none();
        if !first && !self.has_begun() {
            return Err(SendError::Fragments.into()); // `send_fragment` has begun it, and keeps it
        }
        let (opcode, admission) = self.out.admit_fragment(&message, message.bytes().len())?;
        let send = |out: &mut Outgoing<'_>| {
            PieceOutput { out }.send_admitted(opcode, message, (first, last))
        };
        self.out.send_admitted(admission, send)?;
        self.out.note_fragment_sent(&message, last);
        Ok(())
    }

    fn send_admitted(
        &mut self,
        opcode: OpCode,
        message: Message<'_>,
        (first, last): (bool, bool),
    ) -> Result<(), SendError> {
        // Only now: what is refused changes nothing.
        if let Some(pipeline) = self.out.state.pipeline.as_deref_mut() {
            pipeline.sends_pieces = !last;
        }
        let way = self.out.way(opcode);
        if way == Way::Flows {
            // An extension may build on what it encoded before: it encodes in the order of the wire.
            self.out.push_behind_flows(Direct::Piece { message: message.into(), first, last });
        } else {
            self.dispatch(way, &OutgoingPiece::new(&message, (first, last)))?;
            self.out.flush_if_full();
        }
        Ok(())
    }

    /// Whether a message can be sent here of which nothing is kept.
    pub(crate) fn check(&mut self) -> Result<(), SendError> {
        let is_event_stream = self.out.state.is_event_stream();
        let pipeline = self.out.state.pipeline.as_deref_mut().filter(|pipeline| pipeline.applies());
        let Some(pipeline) = pipeline else { return Ok(()) };
        let can = !is_event_stream && pipeline.piece_encoder().is_some();
        if can { Ok(()) } else { Err(SendError::WholeOnly) }
    }

    fn has_begun(&self) -> bool {
        self.out.state.pipeline.as_deref().is_some_and(|pipeline| pipeline.sends_pieces)
    }

    /// Goes that way with a piece, through the extension if there is one. An error also ends the session.
    pub(crate) fn dispatch(
        &mut self,
        way: Way,
        piece: &OutgoingPiece<'_>,
    ) -> Result<(), SendError> {
        self.out.shared.stats.messages_out += u64::from(piece.last);
        let opcode = match (piece.first, piece.text) {
            (false, _) => OpCode::Continuation,
            (true, true) => OpCode::Text,
            (true, false) => OpCode::Binary,
        };
        self.out.check_encoder()?; // the message cannot go on behind what is missing
        let pipeline = self.out.state.pipeline.as_deref_mut().filter(|pipeline| pipeline.applies());
        let Some(extension) = pipeline.and_then(|pipeline| pipeline.piece_encoder()) else {
            self.dispatch_bytes(way, (opcode, Rsv::NONE), piece.bytes, piece.last);
            return Ok(());
        };
        let mut body = Vec::new();
        let mut part =
            MessagePiece::new(piece.text, Rsv::NONE, piece.bytes, (piece.first, piece.last));
        part.may_compress = piece.may_compress;
        let encoded = extension.encode_some(&part, &mut body);
        self.out.shared.spend(piece.bytes.len());
        match encoded {
            // Nothing is to be said with a fragment that is neither the first nor the last.
            Ok(_) if body.is_empty() && !piece.first && !piece.last => {}
            Ok(rsv) => {
                // RFC 7692 section 6.1: the bit is on the first fragment alone.
                let rsv = if piece.first { rsv } else { Rsv::NONE };
                self.dispatch_bytes(way, (opcode, rsv), &body, piece.last);
            }
            Err(error) => {
                self.out.note_encoder_fault(SessionError::Extension(error));
                return Err(SendError::Extension);
            }
        }
        Ok(())
    }

    /// Goes that way with a fragment as it is.
    fn dispatch_bytes(&mut self, way: Way, kind: (OpCode, Rsv), bytes: &[u8], fin: bool) {
        let framing = Framing::of(self.out.state.options(self.out.route));
        let fits = (UNCOPIED_BYTES..=framing.max_frame_size).contains(&bytes.len());
        if way == Way::Now && fits && !framing.masking && self.out.shared.opaque_prefix == 0 {
            self.out.write_past_buffer(kind, bytes, fin);
        } else {
            self.out.dispatch(way, kind.0, |encoder| encoder.fragment(framing, kind, bytes, fin));
        }
    }
}

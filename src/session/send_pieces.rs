//! The way out of messages of which nothing is kept: each piece is encoded by itself, and is a fragment.

use crate::protocol::extension::MessagePiece;
use crate::protocol::frame::OpCode;
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::message::{Message, Rsv};

use crate::session::encode::Framing;
use crate::session::send::{Outgoing, UNCOPIED_BYTES, Way};
use crate::session::subscriptions::Direct;

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

    fn opcode(&self) -> OpCode {
        match (self.first, self.text) {
            (false, _) => OpCode::Continuation,
            (true, true) => OpCode::Text,
            (true, false) => OpCode::Binary,
        }
    }
}

impl Outgoing<'_> {
    pub(crate) fn send_piece(&mut self, message: Message<'_>, last: bool) -> HandlerResult {
        if !self.state.has_encoder() {
            return self.send_fragment(message, last); // which keeps nothing either
        }
        self.check_pieces()?;
        let first = self.state.fragments_text.is_none();
        if !first && !self.sends_pieces() {
            return Err(SendError::Fragments.into()); // `send_fragment` has begun it, and keeps it
        }
        let opcode = self.admit_fragment(&message, message.bytes().len())?;
        if let Some(pipeline) = self.state.pipeline.as_deref_mut() {
            pipeline.sends_pieces = !last;
        }
        let way = self.way(opcode);
        if way == Way::Flows {
            // An extension may build on what it encoded before: it encodes in the order of the wire.
            self.push_behind_flows(Direct::Piece { message: message.into(), first, last });
        } else {
            self.dispatch_piece(way, &OutgoingPiece::new(&message, (first, last)))?;
            self.flush_if_full();
        }
        self.note_fragment_sent(&message, last);
        Ok(())
    }

    /// Whether a message can be sent here of which nothing is kept.
    pub(crate) fn check_pieces(&mut self) -> Result<(), SendError> {
        let is_event_stream = self.state.is_event_stream();
        let pipeline = self.state.pipeline.as_deref_mut().filter(|pipeline| pipeline.applies());
        let Some(pipeline) = pipeline else { return Ok(()) };
        let can = !is_event_stream && pipeline.piece_encoder().is_some();
        if can { Ok(()) } else { Err(SendError::WholeOnly) }
    }

    fn sends_pieces(&self) -> bool {
        self.state.pipeline.as_deref().is_some_and(|pipeline| pipeline.sends_pieces)
    }

    /// Goes that way with a piece, through the extension if there is one. An error also ends the session.
    pub(crate) fn dispatch_piece(
        &mut self,
        way: Way,
        piece: &OutgoingPiece<'_>,
    ) -> Result<(), SendError> {
        self.shared.stats.messages_out += u64::from(piece.last);
        let opcode = piece.opcode();
        let pipeline = self.state.pipeline.as_deref_mut().filter(|pipeline| pipeline.applies());
        let Some(extension) = pipeline.and_then(|pipeline| pipeline.piece_encoder()) else {
            self.dispatch_bytes(way, (opcode, Rsv::NONE), piece.bytes, piece.last);
            return Ok(());
        };
        if self.state.extra.as_deref().is_some_and(|extra| extra.fault.is_some()) {
            return Err(SendError::Extension); // the message cannot go on behind what is missing
        }
        let mut body = Vec::new();
        let mut part =
            MessagePiece::new(piece.text, Rsv::NONE, piece.bytes, (piece.first, piece.last));
        part.may_compress = piece.may_compress;
        let encoded = extension.encode_some(&part, &mut body);
        self.shared.spend(piece.bytes.len());
        match encoded {
            // Nothing is to be said with a fragment that is neither the first nor the last.
            Ok(_) if body.is_empty() && !piece.first && !piece.last => {}
            Ok(rsv) => {
                // RFC 7692 section 6.1: the bit is on the first fragment alone.
                let rsv = if piece.first { rsv } else { Rsv::NONE };
                self.dispatch_bytes(way, (opcode, rsv), &body, piece.last);
            }
            Err(error) => {
                self.state.note_fault(SessionError::Extension(error));
                return Err(SendError::Extension);
            }
        }
        Ok(())
    }

    /// Goes that way with a fragment as it is.
    fn dispatch_bytes(&mut self, way: Way, kind: (OpCode, Rsv), bytes: &[u8], fin: bool) {
        let framing = Framing::of(self.state.options(self.route));
        let fits = (UNCOPIED_BYTES..=framing.max_frame_size).contains(&bytes.len());
        if way == Way::Now && fits && !framing.masking && self.shared.opaque_prefix == 0 {
            self.write_past_buffer(kind, bytes, fin);
        } else {
            self.dispatch(way, kind.0, |encoder| encoder.fragment(framing, kind, bytes, fin));
        }
    }
}

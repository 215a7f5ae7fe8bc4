//! One turn of a session where frames matter: raw sessions, those with extensions, and those whose handlers
//! take messages in pieces.

use std::borrow::Cow;

use log::trace;

use crate::protocol::close::read_close;
use crate::protocol::extension::ExtensionMessage;
use crate::protocol::frame::{FrameHeader, FrameRules, OpCode};
use crate::protocol::frame_reader::{Assembly, Step, next_step};
use crate::protocol::piece_reader::PieceStep;
use crate::protocol::text::checked_text;
use crate::session::state::Phase;
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::{ProtocolError, SessionError};
use crate::words::frame::Frame;
use crate::words::message::{Message, Payload, Rsv};
use crate::words::piece::Piece;

use crate::core::connection::Stage;
use crate::core::session_input::SessionTurn;

impl SessionTurn<'_, '_> {
    /// Bytes of a session that looks below messages.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "used is at most what was left of the read buffer"
    )]
    pub(super) fn frame_input(&mut self, rx: &mut [u8]) -> usize {
        // RFC 9112 section 9.6: a server that says "close" "MUST NOT process any further requests", and what
        // else comes behind the request of an event stream is no message.
        if self.turn.connection.state.is_event_stream() {
            return self.bytes_input(rx);
        }
        let mut taken = 0;
        while let Stage::Session(_) = self.turn.connection.stage {
            let rest = rx.get_mut(taken..).unwrap_or_default();
            match self.framed_step(rest) {
                Ok(None) => break,
                Ok(Some(used)) => taken += used,
                Err(error) => {
                    self.turn.fail(error);
                    break;
                }
            }
            // A hook may have paused, or asked for something that comes first.
            if self.must_wait() {
                break;
            }
        }
        self.turn.flush();
        self.note_unfinished();
        self.turn.connection.state.release_idle();
        taken
    }

    /// Bytes of a stream of events, which are nothing, or of a byte stream.
    fn bytes_input(&mut self, rx: &[u8]) -> usize {
        // Handed over as it came: only the handler knows where anything in it ends.
        if self.turn.connection.state.is_byte_stream() {
            self.deliver(Message::new(Payload::Binary(rx), Rsv::NONE));
            self.turn.flush();
            self.turn.connection.state.release_idle();
        }
        rx.len()
    }

    /// One frame, or a part of one: how many bytes were taken; `None` where there is nothing to do.
    fn framed_step(&mut self, rx: &mut [u8]) -> Result<Option<usize>, SessionError> {
        let mut rules = self.turn.connection.state.rules(self.turn.options());
        let is_open = self.turn.connection.state.phase == Phase::Open;
        let Some(pipeline) = self.turn.connection.state.pipeline.as_deref_mut() else {
            return Ok(None);
        };
        if pipeline.is_in_pieces() && is_open {
            return self.piece_step(rx, &rules);
        }
        // An extension that decodes piece by piece gets each as it comes; others a whole message.
        let assembly = pipeline.assembly();
        if pipeline.is_raw() {
            rules.max_fragments = u32::MAX; // nothing of a message is kept, so that it may go on
        }
        let (step, used) = next_step(&mut pipeline.partial, rx, &rules, assembly)
            .map_err(SessionError::Protocol)?;
        match step {
            Step::Nothing => {}
            Step::Piece { header, payload, starts, ends } => {
                self.data(&header, Cow::Borrowed(payload), (starts, ends), &rules)?;
            }
            Step::Frame(header, payload) if assembly == Assembly::EveryFrame => {
                self.raw_frame(&header, &payload).map_err(SessionError::Protocol)?;
            }
            Step::Frame(header, payload) if header.opcode.is_control() => {
                self.control(header.opcode, &payload);
            }
            Step::Frame(header, payload) => self.data(&header, payload, (true, true), &rules)?,
        }
        Ok((used > 0).then_some(used))
    }

    /// A control frame, or a piece of a message whose handler takes it in pieces.
    fn piece_step(
        &mut self,
        rx: &mut [u8],
        rules: &FrameRules,
    ) -> Result<Option<usize>, SessionError> {
        let pipeline = self.turn.connection.state.pipeline.as_deref_mut();
        let (Stage::Session(handler), Some(pipeline)) = (&mut self.turn.connection.stage, pipeline)
        else {
            return Ok(None);
        };
        let (step, used) = handler.next_piece(pipeline, rx, rules)?;
        match step {
            PieceStep::Nothing if used == 0 => return Ok(None),
            PieceStep::Nothing => {}
            PieceStep::Control(opcode, payload) => self.control(opcode, &payload),
            // An extension may make several pieces of the same bytes, and take them with the last.
            PieceStep::Piece(piece) => self.deliver_piece(&piece.as_piece()),
        }
        Ok(Some(used))
    }

    /// Hands a piece to the hook. A message counts, and takes its token, with the first of its pieces.
    fn deliver_piece(&mut self, piece: &Piece<'_>) {
        let (id, length) = (self.turn.connection.state.id, piece.bytes().len());
        trace!(target: "wirewheel::frame", "{id} in: a piece of {length} bytes");
        if piece.is_first() {
            if let Some(rate) = self.turn.options().message_rate {
                if !self.spend_token(rate) {
                    return;
                }
            }
            self.turn.shared.stats.messages_in += 1;
        }
        // A few bytes may have become many: that counts, not what was read.
        self.turn.shared.spend(length);
        self.turn.call_and_act(|handler, session| handler.on_piece(session, *piece));
    }

    /// A data frame, or a piece of one, on its way through the extensions.
    fn data(
        &mut self,
        header: &FrameHeader,
        payload: Cow<'_, [u8]>,
        edges: (bool, bool),
        rules: &FrameRules,
    ) -> Result<(), SessionError> {
        let state = &mut self.turn.connection.state;
        if state.phase != Phase::Open {
            return Ok(()); // after our Close nothing is delivered, so nothing is decoded
        }
        let Some(pipeline) = state.pipeline.as_deref_mut() else { return Ok(()) };
        let taken = self
            .turn
            .shared
            .with_spare(|spare| pipeline.take_data(header, payload, edges, rules, spare));
        let Some(message) = taken? else { return Ok(()) };
        // A few bytes may have become a megabyte: that counts, not what was read.
        self.turn.shared.spend(message.payload().len());
        self.deliver_decoded(&message)?;
        if let Cow::Owned(buffer) = message.into_payload() {
            self.turn.shared.keep_buffer(buffer);
        }
        Ok(())
    }

    fn deliver_decoded(&mut self, message: &ExtensionMessage<'_>) -> Result<(), SessionError> {
        let rsv = message.rsv();
        if !message.is_text() {
            self.deliver(Message::new(Payload::Binary(message.payload()), rsv));
            return Ok(());
        }
        // RFC 6455 section 8.1, for what the extensions made of it.
        let text = checked_text(message.payload()).map_err(SessionError::Protocol)?;
        self.deliver(Message::new(Payload::Text(text), rsv));
        Ok(())
    }

    fn raw_frame(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ProtocolError> {
        let opcode = header.opcode;
        trace!(target: "wirewheel::frame", "{} in: {opcode:?}, {} bytes", self.turn.connection.state.id,
            payload.len());
        if self.turn.session().owes_close() {
            return Ok(()); // RFC 6455 section 5.5.1: nothing counts behind the peer's Close
        }
        let ours_is_out = self.turn.connection.state.phase == Phase::Closing;
        if !opcode.is_control() && !ours_is_out {
            if let Some(rate) = self.turn.options().message_rate {
                if !self.spend_token(rate) {
                    return Ok(());
                }
            }
        }
        // Noted before the hook, which may answer it there.
        let answer = if opcode == OpCode::Close { self.note_peer_close(payload)? } else { None };
        let frame = Frame { fin: header.fin, rsv: Rsv::from_bits(header.rsv), opcode, payload };
        self.turn.call_and_act(|handler, session| handler.on_frame(session, frame));
        if let (true, Some((code, text))) = (ours_is_out, answer) {
            self.turn.answered(code, text);
        }
        Ok(())
    }

    /// The peer's Close came first or answers ours; a first one is to be answered in time.
    fn note_peer_close<'p>(
        &mut self,
        payload: &'p [u8],
    ) -> Result<Option<(CloseCode, &'p str)>, ProtocolError> {
        let (code, text) = read_close(payload)?.unwrap_or((CloseCode::NO_STATUS, ""));
        if self.turn.connection.state.phase == Phase::Open {
            let deadline = self.turn.shared.now.after(self.turn.shared.limits.close_timeout);
            let extra = self.turn.connection.state.extra();
            extra.close = Some(CloseInfo::new(code, text, ClosedBy::Remote, false));
            // RFC 6455 section 5.5.1 has it answered "as soon as practical"; a handler may forget.
            extra.deadline = Some(deadline);
            self.turn.connection.state.timing_changed = true;
        }
        Ok(Some((code, text)))
    }
}

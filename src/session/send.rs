//! The one way out of a session. Whatever is sent, [`Outgoing::way`] alone decides where it goes: to the
//! turn's buffer, behind what the peer has not taken, or behind flow messages. The encoders make the bytes.

use std::io::{self, IoSlice};

use crate::protocol::frame::{OpCode, write_frame};
use crate::structures::progress::Window;
use crate::structures::wire::Wire;
use crate::words::close::{CloseInfo, CloseReason};
use crate::words::error::{SendError, SessionError};
use crate::words::frame::Frame;
use crate::words::message::{Message, Rsv};
use crate::words::options::SessionOptions;

use crate::context::loop_state::LoopState;
use crate::session::encode::{Encoded, Encoder, Framing};
use crate::session::extensions::NotEncoded;
use crate::session::outbox_admission::{Admission, OutboxAdmission};
use crate::session::state::{Extra, Phase, SessionState};
use crate::session::subscriptions::Direct;

/// A payload of this size is not copied where nothing waits. At 16 KiB one piece that is copied costs less
/// than two that are gathered, by a tenth; at 30,000 bytes it is the other way round.
pub(crate) const UNCOPIED_BYTES: usize = 20 << 10;

/// A session's way out while it runs.
pub(crate) struct Outgoing<'a> {
    pub(crate) state: &'a mut SessionState,
    pub(crate) shared: &'a mut LoopState,
    pub(crate) route: &'a SessionOptions,
    pub(crate) wire: &'a mut dyn Wire,
}

/// Where what is sent goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the turn's buffer, which is written as soon as it is full or the turn ends.
    Now,
    /// To the outbox, behind what the peer has not taken. Pings and pongs overtake it there.
    Outbox,
    /// Behind flow messages that were published before it.
    Flows,
}

/// The decision.
impl Outgoing<'_> {
    /// Where a frame of this opcode, or what begins with one, goes at this moment. Flow messages that can
    /// go before it are written first.
    pub(crate) fn way(&mut self, opcode: OpCode) -> Way {
        // RFC 6455 section 5.4: control frames may come between the fragments of a message. So they wait
        // for no flow; a Close does, since nothing is sent behind it (section 5.5.1).
        let overtakes = matches!(opcode, OpCode::Ping | OpCode::Pong);
        if self.state.collected.is_some() && !overtakes && self.waits_for_flows(opcode) {
            Way::Flows
        } else if self.state.extra.is_some() && self.state.waiting().is_some() {
            Way::Outbox
        } else {
            Way::Now
        }
    }

    /// Goes that way with what `encode` writes. False if it was a control frame for which there is no room.
    #[inline]
    pub(crate) fn dispatch(
        &mut self,
        way: Way,
        opcode: OpCode,
        encode: impl FnOnce(&mut Encoder<'_>),
    ) -> bool {
        let start = self.shared.tx.len();
        // No code of the application runs in here: a panic would leave half a frame in the buffer.
        encode(&mut Encoder { out: &mut self.shared.tx, masks: &mut self.shared.masks });
        way == Way::Now || self.set_aside(way, opcode, start)
    }

    /// What was written to the turn's buffer behind `start` waits elsewhere.
    #[cold]
    fn set_aside(&mut self, way: Way, opcode: OpCode, start: usize) -> bool {
        let bytes = self.shared.take_sent(start);
        let is_event = self.state.is_event_stream();
        match (way, opcode) {
            // Of the end of an event stream there are no bytes.
            (Way::Flows, OpCode::Close) if is_event => self.push_behind_flows(Direct::End),
            (Way::Flows, _) if is_event => self.push_behind_flows(Direct::Event(bytes)),
            (Way::Flows, _) => self.push_behind_flows(Direct::Frames(bytes)),
            _ if is_event => self.state.extra().outbox.push_event(bytes),
            (_, OpCode::Ping | OpCode::Pong) => {
                return self.state.extra().outbox.push_control(&bytes);
            }
            _ => self.state.extra().outbox.push_frames(bytes),
        }
        true
    }
}

/// Who may send.
impl Outgoing<'_> {
    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), SendError> {
        let failed = |extra: &Extra| extra.fault.is_some() || extra.aborted;
        if self.state.phase != Phase::Open || self.state.extra.as_deref().is_some_and(failed) {
            return Err(SendError::Closing);
        }
        Ok(())
    }

    /// Whether a message of `bytes` may be sent now, and is to be.
    #[inline]
    pub(crate) fn admit(&mut self, bytes: usize) -> Result<Admission, SendError> {
        self.check_open()?;
        let limit = self.state.options(self.route).outgoing_limit();
        self.admit_within(bytes, limit, true)
    }

    /// The same for a part of a message, which no policy drops: half a message cannot be taken back, nor
    /// can its end be left out.
    pub(crate) fn admit_part(&mut self, bytes: usize) -> Result<Admission, SendError> {
        self.check_open()?;
        let limit = self.state.options(self.route).outgoing_limit();
        self.admit_within(bytes, limit, false)
    }

    /// The same for what has a limit of its own.
    #[inline]
    pub(crate) fn admit_within(
        &mut self,
        bytes: usize,
        limit: usize,
        is_whole: bool,
    ) -> Result<Admission, SendError> {
        if bytes > limit {
            return Err(SendError::TooBig { bytes, limit });
        }
        if (self.state.extra.is_some() || self.state.collected.is_some()) && self.state.is_waiting()
        {
            return self.outbox_admission().admit(bytes, is_whole);
        }
        Ok(Admission::Send)
    }

    /// Sends what was admitted, and only then drops what goes for it: what is refused after all, or needs no
    /// room in the end, costs no other message.
    pub(crate) fn send_admitted(
        &mut self,
        admission: Admission,
        send: impl FnOnce(&mut Self) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let Admission::InPlaceOf(oldest) = admission else {
            return if admission == Admission::Send { send(self) } else { Ok(()) };
        };
        let (_, before) = self.state.queued();
        send(self)?;
        if self.state.queued().1 > before {
            self.outbox_admission().drop_oldest(oldest);
        }
        Ok(())
    }

    fn outbox_admission(&mut self) -> OutboxAdmission<'_> {
        OutboxAdmission { state: self.state, shared: self.shared, route: self.route }
    }
}

/// Messages.
impl Outgoing<'_> {
    /// Whether nothing but copying is to be done to send a message of `bytes`: it is one frame, nothing
    /// waits, and nothing is special.
    #[inline]
    pub(crate) fn takes_fast(&self, bytes: usize) -> bool {
        self.state.can_send_fast()
            && bytes < UNCOPIED_BYTES
            && bytes <= self.route.short_outgoing_limit()
    }

    /// Sends a message that [`takes_fast`](Self::takes_fast) its size.
    #[inline]
    pub(crate) fn send_fast(&mut self, message: &Message<'_>) {
        self.shared.stats.messages_out += 1;
        let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
        if self.route.masking {
            self.write_masked(opcode, message.bytes());
        } else {
            write_frame(&mut self.shared.tx, true, opcode, message.bytes(), None);
        }
        self.flush_if_full();
    }

    /// A whole message where frames have masks: apart, so that nobody else pays for it.
    #[inline(never)]
    fn write_masked(&mut self, opcode: OpCode, payload: &[u8]) {
        let mask = self.shared.masks.next_mask();
        write_frame(&mut self.shared.tx, true, opcode, payload, Some(mask));
    }

    /// Sends a message or fragment that was admitted and that no extension encodes.
    pub(crate) fn send_plain(&mut self, opcode: OpCode, payload: &[u8], fin: bool) {
        self.shared.stats.messages_out += u64::from(fin);
        let framing = Framing::of(self.state.options(self.route));
        let way = self.way(opcode);
        if way == Way::Now && payload.len() >= UNCOPIED_BYTES && !framing.masking {
            return self.send_uncopied(framing, opcode, payload, fin);
        }
        self.shared.make_room_to_send(framing.bytes_at_most(payload.len()));
        self.dispatch(way, opcode, |encoder| encoder.plain(framing, opcode, payload, fin));
        self.flush_if_full();
    }

    /// Sends frames straight from the caller's payload, behind what the turn has gathered.
    #[cold]
    fn send_uncopied(&mut self, framing: Framing, opcode: OpCode, payload: &[u8], fin: bool) {
        let mut way = Way::Now;
        if self.shared.opaque_prefix > 0 {
            self.flush(); // the upgrade answer is no frame: it goes first and alone
            way = self.way(OpCode::Continuation);
        }
        let mut opcode = opcode;
        let mut pieces = payload.chunks(framing.max_frame_size).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            let fin = fin && is_last;
            if way == Way::Now && piece.len() >= UNCOPIED_BYTES {
                self.write_past_buffer((opcode, Rsv::NONE), piece, fin);
            } else {
                self.shared.make_room_to_send(framing.bytes_at_most(piece.len()));
                self.dispatch(way, opcode, |encoder| encoder.plain(framing, opcode, piece, fin));
            }
            if is_last {
                return;
            }
            // The message was admitted as a whole: once the wire takes no more, the rest of it waits.
            way = self.way(OpCode::Continuation);
            opcode = OpCode::Continuation;
        }
    }

    /// Sends a message that was admitted through the extensions of the session.
    #[cold]
    pub(crate) fn send_extended(&mut self, message: Message<'_>) -> Result<(), SendError> {
        let way = self.way(OpCode::Binary);
        if way == Way::Flows {
            // An extension may build on what it encoded before: it encodes in the order of the wire.
            self.push_behind_flows(Direct::Message(message.into()));
            return Ok(());
        }
        self.dispatch_extended(way, message)?;
        self.flush_if_full();
        Ok(())
    }

    /// Goes that way with a message that passes the extensions first. An error leaves nothing of it.
    pub(crate) fn dispatch_extended(
        &mut self,
        way: Way,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        let framing = Framing::of(self.state.options(self.route));
        if let Some(encoded) = self.encode(message)? {
            let opcode = OpCode::Binary;
            self.shared.make_room_to_send(framing.bytes_at_most(encoded.payload().len()));
            self.dispatch(way, opcode, |encoder| encoder.extended(framing, &encoded));
            self.shared.stats.messages_out += 1;
        }
        Ok(())
    }

    /// What the extensions make of a message; `None` if one of them dropped it. Sessions of one
    /// [`share_key`](SessionState::share_key) get the same bytes. [`SendError::Extension`] also ends the
    /// session.
    pub(crate) fn encode<'m>(
        &mut self,
        message: Message<'m>,
    ) -> Result<Option<Encoded<'m>>, SendError> {
        let limit = self.state.options(self.route).outgoing_limit();
        let bytes = message.bytes().len();
        if self.state.has_encoder() {
            self.shared.spend(bytes);
        }
        self.check_encoder()?;
        Encoded::new(self.state.pipeline.as_deref_mut(), message, limit).map_err(
            |error| match error {
                NotEncoded::TooBig { in_step } => {
                    let error = SendError::TooBig { bytes, limit };
                    if !in_step {
                        // What follows may build on what the peer never gets.
                        self.note_encoder_fault(SessionError::Handler(error.into()));
                    }
                    error
                }
                NotEncoded::Failed(error) => {
                    self.note_encoder_fault(SessionError::Extension(error));
                    SendError::Extension
                }
            },
        )
    }

    /// Whether the extensions may go on: once one has failed, the peer could not read what follows.
    pub(crate) fn check_encoder(&self) -> Result<(), SendError> {
        let has_failed = self.state.pipeline.as_deref().is_some_and(|it| it.has_failed);
        if has_failed { Err(SendError::Extension) } else { Ok(()) }
    }

    /// Ends the session, and encodes nothing any more, not even what waits.
    pub(crate) fn note_encoder_fault(&mut self, fault: SessionError) {
        if let Some(pipeline) = self.state.pipeline.as_deref_mut() {
            pipeline.has_failed = true;
        }
        self.state.note_fault(fault);
    }
}

/// Single frames.
impl Outgoing<'_> {
    /// Sends a frame of a raw session as it is. False if it is a control frame for which there is no room.
    pub(crate) fn send_raw(&mut self, frame: &Frame<'_>) -> bool {
        let masking = self.state.options(self.route).masking;
        let way = self.way(frame.opcode);
        self.note_fragment(frame);
        let taken = self.dispatch(way, frame.opcode, |encoder| encoder.raw(masking, frame));
        self.flush_if_full();
        taken
    }

    /// Sends a ping or pong; it overtakes what waits, at the next frame boundary. False if there was no
    /// room for it.
    pub(crate) fn send_control(&mut self, opcode: OpCode, payload: &[u8]) -> bool {
        let masking = self.state.options(self.route).masking;
        let way = self.way(opcode);
        // Without room it is dropped: RFC 6455 section 5.5.3 lets an endpoint answer only the most
        // recent ping, and a peer that does not read gets no answers anyway.
        let taken = self.dispatch(way, opcode, |encoder| encoder.control(masking, opcode, payload));
        self.shared.stats.dropped_control += u64::from(!taken);
        taken
    }

    /// Queues a Close: behind all that was sent before, or (`now`) in place of what has not begun.
    /// No flow message follows it.
    pub(crate) fn queue_close(&mut self, reason: Option<&CloseReason>, now: bool) {
        let (masking, is_frame) =
            (self.state.options(self.route).masking, !self.state.is_event_stream());
        self.queue_close_frame(now, |encoder| {
            if is_frame {
                encoder.close(masking, reason);
            }
        });
    }

    /// The same for a Close that `encode` writes.
    pub(crate) fn queue_close_frame(&mut self, now: bool, encode: impl FnOnce(&mut Encoder<'_>)) {
        if now {
            self.drop_collected(); // so that it waits for no flow
        }
        let way = self.way(OpCode::Close);
        if way != Way::Flows {
            self.leave_flows();
        }
        if now && way == Way::Outbox {
            self.state.extra().outbox.drop_what_has_not_begun();
        }
        self.dispatch(way, OpCode::Close, encode);
    }

    /// Our Close is queued: from here the peer's is awaited. One that came before stays the truth.
    pub(crate) fn begin_closing(&mut self, info: CloseInfo) {
        let (now, patience) = (self.shared.now, self.shared.limits.close_timeout);
        let extra = self.state.extra();
        match &mut extra.close {
            Some(first) => first.note_second(info.code(), info.text()),
            None => extra.close = Some(info),
        }
        extra.await_peer(now, patience);
        self.state.phase = Phase::Closing;
        self.state.timing_changed = true;
        self.state.lift_pause(self.shared);
    }
}

/// To the wire.
impl Outgoing<'_> {
    #[inline]
    pub(crate) fn flush_if_full(&mut self) {
        if self.shared.tx.len() >= self.shared.tx_flush_bytes {
            self.flush();
        }
    }

    /// Writes what the turn has gathered; what the socket does not take waits in the outbox.
    #[inline]
    pub(crate) fn flush(&mut self) {
        self.shared.spend(self.shared.tx.len());
        if let Some(outcome) = self.shared.write_out(self.wire) {
            self.written_in_part(outcome);
        }
    }

    /// Writes several pieces past the turn's buffer: how many bytes the wire took, `None` if it is broken.
    /// One of the three places that write to a wire, beside `loop_state::write_counted` and
    /// `Outbox::write_to`.
    pub(crate) fn write_uncopied(&mut self, slices: &[IoSlice<'_>]) -> Option<usize> {
        let written = self.wire.write_vectored(slices);
        self.shared.stats.bytes_out += *written.as_ref().unwrap_or(&0) as u64;
        self.written(written)
    }

    /// How much was written; a wire that is broken ends the session.
    pub(crate) fn written(&mut self, outcome: io::Result<usize>) -> Option<usize> {
        outcome.map_err(|error| self.state.note_fault(SessionError::Network(error.kind()))).ok()
    }

    /// What the socket did not take waits in the outbox.
    #[cold]
    pub(crate) fn written_in_part(&mut self, outcome: io::Result<usize>) {
        match outcome {
            Ok(written) => {
                let tx = std::mem::take(&mut self.shared.tx);
                self.keep_rest(&tx, written);
                self.shared.tx = tx;
            }
            Err(error) => {
                self.note_lost(self.shared.tx.len());
                self.state.note_fault(SessionError::Network(error.kind()));
            }
        }
        self.shared.clear_out();
    }

    /// So many bytes that were to be sent met a wire that is broken.
    pub(crate) fn note_lost(&mut self, bytes: usize) {
        self.shared.stats.lost_gone += bytes as u64;
    }

    /// Moves the turn's buffer, of which `written` bytes went out, into the outbox.
    #[cold]
    pub(super) fn keep_rest(&mut self, tx: &[u8], written: usize) {
        self.note_blocked();
        let prefix = self.shared.opaque_prefix;
        let (opaque, frames) = tx.split_at(prefix.min(tx.len()));
        let (is_event_stream, is_byte_stream) =
            (self.state.is_event_stream(), self.state.is_byte_stream());
        let outbox = &mut self.state.extra().outbox;
        if let Some(rest) = opaque.get(written..).filter(|rest| !rest.is_empty()) {
            outbox.push_opaque(self.shared.copied(rest, &[]));
        }
        let written = written.saturating_sub(prefix);
        if is_byte_stream {
            // Where its messages end is not seen in them: none of them is to be dropped in part.
            let rest = frames.get(written..).unwrap_or_default();
            outbox.push_opaque(self.shared.copied(rest, &[]));
        } else if is_event_stream {
            outbox.push_rest_of_events(frames, written);
        } else {
            self.shared.with_spare(|spare| outbox.push_rest(frames, written, spare));
        }
    }

    /// The wire took less than it was offered: the rest waits, and its time begins.
    #[cold]
    pub(crate) fn note_blocked(&mut self) {
        let now = self.shared.now;
        let has_socket = self.wire.has_socket();
        if !has_socket {
            self.state.list_for_flush(self.shared);
        }
        let extra = self.state.extra();
        // Only a socket that took less has told that its peer does not read.
        extra.blocked = has_socket;
        extra.slow |= has_socket;
        if extra.outbox.is_empty() {
            extra.window = Some(match has_socket {
                // Asked once for all the time in which something waits, so that none of it goes by unseen.
                true => Window::begin_at(now, self.wire.taken().0, u32::MAX),
                // Where the peer stands only its socket knows, which is asked at the first look.
                false => Window::begin(now),
            });
        }
        self.state.timing_changed = true; // the write timeout
    }
}

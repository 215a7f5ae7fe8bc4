//! Owns a session's way out: the turn's buffer, the wire, the outbox.

use std::io::{self, IoSlice};

use crate::protocol::close::write_close;
use crate::protocol::frame::{OpCode, write_frame, write_header};
use crate::structures::progress::Window;
use crate::words::close::CloseReason;
use crate::words::error::{SendError, SessionError};
use crate::words::message::Message;
use crate::words::options::OutboxOverflow;

use crate::context::loop_state::LoopState;
use crate::session::Session;
use crate::session::state::{Extra, Phase};
use crate::session::subscriptions::Direct;

/// A payload of this size goes out at once, uncopied.
const DIRECT_BYTES: usize = 16 << 10;

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Send,
    /// The outbox has no room for it and its policy drops.
    Drop,
}

impl Session<'_> {
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
        self.admit_within(bytes, limit)
    }

    /// The same for what has a limit of its own.
    #[inline]
    pub(crate) fn admit_within(
        &mut self,
        bytes: usize,
        limit: usize,
    ) -> Result<Admission, SendError> {
        if bytes > limit {
            return Err(SendError::TooBig { bytes, limit });
        }
        if (self.state.extra.is_some() || self.state.collected.is_some()) && self.state.is_waiting()
        {
            return self.admit_behind_queue(bytes);
        }
        Ok(Admission::Send)
    }

    /// Holds a message to the limits of the outbox.
    #[cold]
    fn admit_behind_queue(&mut self, bytes: usize) -> Result<Admission, SendError> {
        let options = self.state.options(self.route);
        let (limit, messages) = (options.outbox_bytes, options.outbox_messages);
        let policy = match options.on_outbox_full {
            // What waits is encoded, and what follows builds on it: it cannot be taken back.
            OutboxOverflow::DropOldest if self.state.encodes_in_context() => {
                OutboxOverflow::DropNewest
            }
            policy => policy,
        };
        let (buffered, waiting) = self.state.queued();
        let fits = |buffered: usize, waiting: usize| {
            buffered == 0 || (buffered.saturating_add(bytes) <= limit && waiting < messages)
        };
        // What waits only for the end of the turn was not refused by the peer.
        let refused = self.state.extra.as_deref().is_some_and(|extra| extra.blocked);
        if !refused || fits(buffered, waiting) {
            return Ok(Admission::Send);
        }
        match policy {
            OutboxOverflow::Close => {
                self.state.note_fault(SessionError::Overloaded);
                Err(SendError::Full { buffered })
            }
            OutboxOverflow::Block => Err(SendError::Full { buffered }),
            OutboxOverflow::DropNewest => {
                self.shared.stats.dropped_newest += 1;
                self.state.extra().dropped += 1;
                Ok(Admission::Drop)
            }
            OutboxOverflow::DropOldest => loop {
                self.shared.stats.dropped_oldest += 1;
                self.state.extra().dropped += 1;
                if self.state.extra().outbox.drop_oldest().is_none() {
                    return Ok(Admission::Drop); // nothing else can go: the newest does
                }
                let (buffered, waiting) = self.state.queued();
                if fits(buffered, waiting) {
                    return Ok(Admission::Send);
                }
            },
        }
    }

    /// Sends a message or fragment, behind the flow messages that were published before it.
    #[inline]
    pub(crate) fn transmit(&mut self, opcode: OpCode, payload: &[u8], fin: bool) {
        if self.state.collected.is_some() && self.waits_for_flows(opcode) {
            let options = self.state.options(self.route);
            let (max, masking) = (options.max_frame_size, options.masking);
            let start = self.shared.tx.len();
            encode(self.shared, opcode, payload, fin, max, masking);
            let frames = self.shared.tx.split_off(start);
            self.push_behind_flows(Direct::Frames(frames));
            self.shared.stats.messages_out += u64::from(fin);
        } else {
            self.transmit_now(opcode, payload, fin);
        }
    }

    /// Whether nothing but copying is to be done to send a message of `bytes`: the session is open,
    /// nothing waits, nothing is special, and it is one frame.
    #[inline]
    pub(crate) fn is_plain_for(&self, bytes: usize) -> bool {
        self.state.is_ready()
            && bytes < DIRECT_BYTES
            && bytes <= self.route.short_outgoing_limit()
            && !self.route.masking
    }

    /// Sends a message that [`is_plain_for`](Self::is_plain_for) its size.
    #[inline]
    pub(crate) fn transmit_plain(&mut self, message: &Message<'_>) {
        let shared = &mut *self.shared;
        shared.stats.messages_out += 1;
        let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
        write_frame(&mut shared.tx, true, opcode, message.bytes(), None);
        if shared.tx.len() >= shared.tx_flush_bytes {
            self.flush();
        }
    }

    /// Cuts the payload into frames of at most `max_frame_size` and sends them.
    #[inline]
    pub(crate) fn transmit_now(&mut self, opcode: OpCode, payload: &[u8], fin: bool) {
        self.shared.stats.messages_out += u64::from(fin);
        let options = self.state.options(self.route);
        let (max, masking) = (options.max_frame_size, options.masking);
        if self.state.extra.is_some() && self.state.waiting().is_some() {
            self.enqueue(opcode, payload, fin, max, masking);
        } else if payload.len() >= DIRECT_BYTES && !masking {
            self.send_direct(opcode, payload, fin, max);
        } else {
            let shared = &mut *self.shared;
            if payload.len() <= max && !masking {
                write_frame(&mut shared.tx, fin, opcode, payload, None);
            } else {
                encode(shared, opcode, payload, fin, max, masking);
            }
            if self.shared.tx.len() >= self.shared.tx_flush_bytes {
                self.flush();
            }
        }
    }

    /// Adds a message to what waits already.
    #[cold]
    fn enqueue(&mut self, opcode: OpCode, payload: &[u8], fin: bool, max: usize, masking: bool) {
        let start = self.shared.tx.len();
        encode(self.shared, opcode, payload, fin, max, masking);
        let frames = self.shared.tx.split_off(start);
        self.state.extra().outbox.push_frames(frames);
    }

    /// Writes frames straight from the caller's payload, behind what the turn has gathered.
    #[cold]
    fn send_direct(&mut self, opcode: OpCode, payload: &[u8], fin: bool, max: usize) {
        let mut opcode = opcode;
        let mut pieces = payload.chunks(max).peekable();
        while let Some(piece) = pieces.next() {
            let fin = fin && pieces.peek().is_none();
            if self.state.waiting().is_some() || piece.len() < DIRECT_BYTES {
                let mut frame = Vec::with_capacity(piece.len() + 10);
                write_frame(&mut frame, fin, opcode, piece, None);
                match self.state.waiting() {
                    // Of one message that was admitted as a whole.
                    Some(outbox) => outbox.push_frames(frame),
                    None => self.shared.tx.extend_from_slice(&frame),
                }
            } else {
                self.write_through(opcode, piece, fin);
            }
            opcode = OpCode::Continuation;
        }
    }

    fn write_through(&mut self, opcode: OpCode, piece: &[u8], fin: bool) {
        if self.shared.opaque_prefix > 0 {
            self.flush(); // the upgrade answer is no frame: it goes first and alone
            if self.state.waiting().is_some() {
                let mut frame = Vec::with_capacity(piece.len() + 10);
                write_frame(&mut frame, fin, opcode, piece, None);
                self.state.extra().outbox.push_frames(frame);
                return;
            }
        }
        let header_at = self.shared.tx.len();
        write_header(&mut self.shared.tx, fin, opcode, piece.len(), None);
        let total = self.shared.tx.len() + piece.len();
        let written =
            self.wire.write_vectored(&[IoSlice::new(&self.shared.tx), IoSlice::new(piece)]);
        self.shared.stats.bytes_out += *written.as_ref().unwrap_or(&0) as u64;
        self.shared.spend(total);
        match written {
            Ok(written) if written >= total => {}
            Ok(written) => {
                let mut frame = self.shared.tx.split_off(header_at);
                frame.extend_from_slice(piece);
                self.keep_rest(written.min(header_at));
                self.note_blocked();
                let outbox = &mut self.state.extra().outbox;
                outbox.push_rest(&frame, written.saturating_sub(header_at));
            }
            Err(error) => self.state.note_fault(SessionError::Network(error.kind())),
        }
        self.shared.tx.clear();
    }

    /// Writes what the turn has gathered; what the socket does not take waits in the outbox.
    #[inline]
    pub(crate) fn flush(&mut self) {
        self.shared.spend(self.shared.tx.len());
        if let Some(outcome) = self.shared.write_out(self.wire) {
            self.written_in_part(outcome);
        }
    }

    /// What the socket did not take waits in the outbox.
    #[cold]
    pub(crate) fn written_in_part(&mut self, outcome: io::Result<usize>) {
        match outcome {
            Ok(written) => {
                self.shared.stats.bytes_out += written as u64;
                self.keep_rest(written);
            }
            Err(error) => self.state.note_fault(SessionError::Network(error.kind())),
        }
        self.shared.clear_out();
    }

    /// Moves the turn's buffer, of which `written` bytes went out, into the outbox.
    #[cold]
    fn keep_rest(&mut self, written: usize) {
        self.note_blocked();
        let prefix = self.shared.opaque_prefix;
        let (opaque, frames) = self.shared.tx.split_at(prefix.min(self.shared.tx.len()));
        let outbox = &mut self.state.extra().outbox;
        if let Some(rest) = opaque.get(written..).filter(|rest| !rest.is_empty()) {
            outbox.push_opaque(rest.to_vec());
        }
        outbox.push_rest(frames, written.saturating_sub(prefix));
    }

    /// The wire took less than it was offered: the rest waits, and its time begins.
    #[cold]
    pub(crate) fn note_blocked(&mut self) {
        let now = self.shared.now;
        let at_hand = self.wire.has_socket();
        if !at_hand {
            self.state.list_for_flush(self.shared);
        }
        let extra = self.state.extra();
        extra.blocked = at_hand;
        extra.slow |= at_hand;
        if extra.outbox.is_empty() {
            extra.window = Some(Window::begin(now));
        }
        self.state.timing_changed = true; // the write timeout
    }

    /// Sends a control frame; it overtakes what waits, at the next frame boundary. False if there was no
    /// room for it.
    pub(crate) fn send_control(&mut self, opcode: OpCode, payload: &[u8]) -> bool {
        let mask = self.mask();
        if self.state.waiting().is_none() {
            write_frame(&mut self.shared.tx, true, opcode, payload, mask);
            return true;
        }
        let mut frame = Vec::with_capacity(payload.len() + 6);
        write_frame(&mut frame, true, opcode, payload, mask);
        // Without room it is dropped: RFC 6455 section 5.5.3 lets an endpoint answer only the most
        // recent ping, and a peer that does not read gets no answers anyway.
        let taken = self.state.extra().outbox.push_control(&frame);
        self.shared.stats.dropped_control += u64::from(!taken);
        taken
    }

    /// Queues a Close: behind all that was sent before, or (`now`) in place of what has not begun.
    /// No flow message follows it.
    pub(crate) fn queue_close(&mut self, reason: Option<&CloseReason>, now: bool) {
        let mask = self.mask();
        let mut frame = Vec::new();
        write_close(&mut frame, reason, mask);
        self.queue_close_frame(frame, now);
    }

    /// The same for a Close as it goes out.
    pub(crate) fn queue_close_frame(&mut self, frame: Vec<u8>, now: bool) {
        if !now && self.state.collected.is_some() && self.waits_for_flows(OpCode::Close) {
            self.push_behind_flows(Direct::Frames(frame));
            return;
        }
        if now {
            self.drop_collected();
        } else {
            self.leave_flows();
        }
        if self.state.waiting().is_none() {
            self.shared.tx.extend_from_slice(&frame);
        } else if now {
            self.state.extra().outbox.push_close_now(&frame);
        } else {
            self.state.extra().outbox.push_close(&frame);
        }
    }

    /// Adds encoded frames to what the turn has gathered, while nothing waits.
    pub(crate) fn write_now(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.shared.tx);
        if self.shared.tx.len() >= self.shared.tx_flush_bytes {
            self.flush();
        }
    }

    pub(crate) fn mask(&mut self) -> Option<[u8; 4]> {
        self.state.options(self.route).masking.then(|| self.shared.masks.next_mask())
    }
}

/// Encodes a payload as frames of at most `max` bytes to the end of the turn's buffer.
fn encode(
    shared: &mut LoopState,
    opcode: OpCode,
    payload: &[u8],
    fin: bool,
    max: usize,
    masking: bool,
) {
    let mut opcode = opcode;
    let mut rest = payload;
    loop {
        let (piece, later) = rest.split_at(rest.len().min(max));
        let mask = masking.then(|| shared.masks.next_mask());
        write_frame(&mut shared.tx, fin && later.is_empty(), opcode, piece, mask);
        if later.is_empty() {
            return;
        }
        opcode = OpCode::Continuation;
        rest = later;
    }
}

//! The frames that a raw session sends as they are.

use crate::protocol::close::read_close;
use crate::protocol::frame::{CONTROL_PAYLOAD_MAX, OpCode, write_frame_with};
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::frame::Frame;

use crate::session::Session;
use crate::session::send::Admission;
use crate::session::state::Phase;
use crate::session::subscriptions::Direct;

/// What a raw session does with frames.
impl Session<'_> {
    /// Sends a frame of a raw session as it is: not cut, not encoded, masked only if `masking` is
    /// on. The order of fragments and the reserved bits are the caller's business; messages of flows
    /// that it collects never come between them. A Close begins or completes the closing handshake;
    /// it goes behind all that was sent and published before it, and nothing can be sent behind it.
    /// A fragment is never dropped: where the outbox's policy would, it is refused.
    ///
    /// # Errors
    /// [`SendError::NotRaw`] in a session that is handed messages, which sends with
    /// [`send`](Self::send) and [`send_fragment`](Self::send_fragment). [`SendError::BadFrame`] for a
    /// control frame that is a fragment, and a Close whose payload is not legal;
    /// [`SendError::TooBig`] for one over 125 bytes, and for data over `max_frame_size`; a frame of a
    /// message that a negotiated extension encodes may have a little more, as it may when it comes.
    /// [`SendError::Closing`] and [`SendError::Full`] as with `send`.
    ///
    /// ```
    /// use wirewheel::raw::{Frame, OpCode};
    /// use wirewheel::{HandlerResult, Session};
    /// fn nudge(session: &mut Session<'_>) -> HandlerResult {
    ///     session.send_frame(Frame::new(OpCode::Ping, b"still there?"))
    /// }
    /// ```
    pub fn send_frame(&mut self, frame: Frame<'_>) -> HandlerResult {
        if !self.state.is_raw() {
            return Err(SendError::NotRaw.into());
        }
        let is_part = !frame.fin || frame.opcode == OpCode::Continuation;
        match self.check_frame(&frame)? {
            Admission::Drop if is_part => {
                return Err(SendError::Full { buffered: self.buffered_bytes() }.into());
            }
            Admission::Drop => return Ok(()),
            Admission::Send => {}
        }
        if frame.opcode == OpCode::Close {
            return self.send_raw_close(frame);
        }
        let mask = self.mask();
        let behind = !frame.opcode.is_control()
            && self.state.collected.is_some()
            && self.waits_for_flows(frame.opcode);
        self.note_fragment(&frame);
        if !behind && self.state.waiting().is_none() {
            self.write_now(|out| write_raw(out, frame, mask));
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(frame.payload.len() + 14);
        write_raw(&mut bytes, frame, mask);
        if behind {
            self.push_behind_flows(Direct::Frames(bytes));
        } else if !frame.opcode.is_control() {
            self.state.extra().outbox.push_frames(bytes);
        } else if !self.state.extra().outbox.push_control(&bytes) {
            let buffered = self.buffered_bytes();
            self.state.note_fault(SessionError::Overloaded);
            return Err(SendError::Full { buffered }.into());
        }
        Ok(())
    }

    /// Keeps flow messages out of a message in fragments, and lets them go on behind its end.
    fn note_fragment(&mut self, frame: &Frame<'_>) {
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
            return self.admit_within(bytes, rules.limit_of(frame.rsv.bits(), is_continuation));
        }
        if bytes > CONTROL_PAYLOAD_MAX {
            return Err(SendError::TooBig { bytes, limit: CONTROL_PAYLOAD_MAX });
        }
        if !frame.fin {
            return Err(SendError::BadFrame);
        }
        Ok(Admission::Send)
    }

    fn send_raw_close(&mut self, frame: Frame<'_>) -> HandlerResult {
        let close = read_close(frame.payload).map_err(|_| SendError::BadFrame)?;
        let (code, text) = close.unwrap_or((CloseCode::NO_STATUS, ""));
        let mask = self.mask();
        let mut bytes = Vec::with_capacity(frame.payload.len() + 6);
        write_raw(&mut bytes, frame, mask);
        self.queue_close_frame(bytes, false);
        self.begin_closing(CloseInfo::new(code, text, ClosedBy::Local, false));
        Ok(())
    }

    /// Whether the peer's Close was handed to a raw handler that has not answered it.
    pub(crate) fn owes_close(&self) -> bool {
        self.state.is_raw() && self.state.phase == Phase::Open && self.close_info().is_some()
    }
}

fn write_raw(out: &mut Vec<u8>, frame: Frame<'_>, mask: Option<[u8; 4]>) {
    write_frame_with(out, frame.fin, frame.rsv, frame.opcode, frame.payload, mask);
}

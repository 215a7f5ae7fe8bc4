//! The way out of whole messages, in any state of the session, and of those that were prepared for many.

use std::rc::Rc;

use crate::context::loop_state::write_counted;
use crate::flow::emission::Emission;
use crate::flow::prepared::PreparedMessage;
use crate::protocol::frame::OpCode;
use crate::words::error::{HandlerResult, SendError};
use crate::words::message::Message;

use crate::session::send::{Outgoing, UNCOPIED_BYTES, Way};
use crate::session::send_event::EventOutput;
use crate::session::subscriptions::Direct;

/// What leaves a session as a whole message.
pub(crate) struct MessageOutput<'o, 'a> {
    pub(crate) out: &'o mut Outgoing<'a>,
}

/// How a message goes out that others get too.
pub(crate) enum Form {
    /// In these frames.
    Made(Rc<[u8]>),
    /// In frames that all sessions of this key get, and that nobody has made.
    ToMake(u64),
    /// In frames of the session's own.
    Own,
}

impl MessageOutput<'_, '_> {
    /// Sends any message.
    pub(crate) fn send(&mut self, message: Message<'_>) -> HandlerResult {
        if self.out.state.fragments_text.is_some() {
            // RFC 6455 section 5.4: the fragments of one message have no other between them.
            return Err(SendError::Fragments.into());
        }
        if self.out.state.is_event_stream() {
            return Ok(EventOutput { out: self.out }.send("", message)?);
        }
        let admission = self.out.admit(message.bytes().len())?;
        Ok(self.out.send_admitted(admission, |out| MessageOutput { out }.send_own(message))?)
    }

    /// Sends a message that was admitted in frames of the session's own.
    fn send_own(&mut self, message: Message<'_>) -> Result<(), SendError> {
        if self.out.state.has_encoder() {
            // The extensions encode it when it goes on the wire, which may be later.
            return self.out.send_extended(message);
        }
        let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
        self.out.send_plain(opcode, message.bytes(), true);
        Ok(())
    }

    pub(crate) fn send_prepared(&mut self, prepared: &PreparedMessage) -> HandlerResult {
        if self.out.state.fragments_text.is_some() {
            return Err(SendError::Fragments.into());
        }
        // Out of its cell, since an extension that encodes it may be the application's, and have it too.
        let emission = prepared.emission();
        if self.out.state.is_event_stream() {
            // An event has its place in the stream, and is short.
            return Ok(EventOutput { out: self.out }.send("", emission.message())?);
        }
        let admission = self.out.admit(prepared.bytes())?;
        let send = |out: &mut Outgoing<'_>| MessageOutput { out }.send_shared(prepared, &emission);
        Ok(self.out.send_admitted(admission, send)?)
    }

    /// Sends a prepared message that was admitted.
    fn send_shared(
        &mut self,
        prepared: &PreparedMessage,
        emission: &Emission,
    ) -> Result<(), SendError> {
        let frames = match self.out.form_of(emission) {
            Form::Made(frames) => frames,
            Form::ToMake(key) => {
                let frames: Rc<[u8]> = self.out.extended_frames_of(emission)?.into();
                prepared.keep_encoding(key, &frames);
                frames
            }
            Form::Own => return self.send_own(emission.message()),
        };
        // That no bytes go out means that an extension drops this message for every session of the key.
        if !frames.is_empty() {
            self.out.shared.stats.messages_out += 1;
            let way = self.out.way(OpCode::Binary);
            self.dispatch_shared(way, frames);
        }
        Ok(())
    }

    /// Goes that way with whole messages that others get too.
    pub(crate) fn dispatch_shared(&mut self, way: Way, frames: Rc<[u8]>) {
        if way == Way::Flows {
            return self.out.push_behind_flows(Direct::Shared(frames));
        }
        // Short ones share a write with what else this turn sends, which is worth more than a copy.
        let is_now = way == Way::Now && self.out.wire.has_socket();
        if is_now && frames.len() < UNCOPIED_BYTES {
            self.out.dispatch(way, OpCode::Binary, |encoder| encoder.encoded(&frames));
            return self.out.flush_if_full();
        }
        self.out.flush(); // what was sent before it
        if is_now && self.out.state.waiting().is_none() {
            let written = write_counted(&mut self.out.shared.stats, self.out.wire, &frames);
            let Some(written) = self.out.written(written) else {
                return self.out.note_lost(frames.len());
            };
            if written < frames.len() {
                self.out.keep_shared(frames, written);
            }
            return;
        }
        if self.out.state.waiting().is_none() {
            self.out.note_blocked(); // by nothing but the end of the turn
        }
        self.out.state.extra().outbox.push_shared_unoffered(frames);
    }
}

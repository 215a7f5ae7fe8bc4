//! The way out of an event stream: events that are sent to it directly, heartbeats, and where flows begin.

use std::rc::Rc;

use crate::flow::inner::FlowInner;
use crate::protocol::frame::OpCode;
use crate::protocol::server_sent_events::{Event, is_event_name};
use crate::words::error::SendError;
use crate::words::message::Message;

use crate::session::send::{Outgoing, Way};

/// What an event of the limit may have beside it, however many lines it has.
const EVENT_BYTES_MORE: usize = 1 << 10;

/// What leaves an event stream.
pub(crate) struct EventOutput<'o, 'a> {
    pub(crate) out: &'o mut Outgoing<'a>,
}

impl EventOutput<'_, '_> {
    /// Sends an event that has a name.
    pub(crate) fn send_named(&mut self, name: &str, message: Message<'_>) -> Result<(), SendError> {
        if !self.out.state.is_event_stream() || self.out.state.is_byte_stream() {
            return Err(SendError::NotEventStream);
        }
        if !is_event_name(name) {
            return Err(SendError::BadEventName);
        }
        self.send(name, message)
    }

    /// Sends a message as an event, unless there is none to make of it.
    pub(crate) fn send(&mut self, name: &str, message: Message<'_>) -> Result<(), SendError> {
        self.out.check_open()?;
        let Some(bytes) = self.event_len(&message) else { return Ok(()) }; // no room is asked for
        let admission = self.out.admit(message.bytes().len())?;
        let send = |out: &mut Outgoing<'_>| EventOutput { out }.send_admitted(name, message, bytes);
        self.out.send_admitted(admission, send)
    }

    /// Sends a message that was admitted in fragments.
    pub(crate) fn send_whole(&mut self, message: Message<'_>) -> Result<(), SendError> {
        let Some(bytes) = self.event_len(&message) else { return Ok(()) };
        self.send_admitted("", message, bytes)
    }

    /// How long a message is as an event. One of which none can be made is skipped, which is no error: one
    /// handler may serve both kinds of route.
    fn event_len(&mut self, message: &Message<'_>) -> Option<usize> {
        let bytes = self.out.state.event_encoder()?.data_len(message);
        if bytes.is_none() {
            self.note_binary();
            self.out.state.note_dropped();
        }
        bytes
    }

    /// Sends a message that was admitted, and is so long as an event.
    fn send_admitted(
        &mut self,
        name: &str,
        message: Message<'_>,
        bytes: usize,
    ) -> Result<(), SendError> {
        let Some(events) = self.out.state.event_encoder() else { return Ok(()) };
        // A page of line breaks, each of which begins a field, would come to seven times its length.
        let limit = longest_event(self.out.state.options(self.out.route).outgoing_limit());
        if bytes > limit {
            return Err(SendError::TooBig { bytes, limit });
        }
        self.out.shared.stats.messages_out += 1;
        let way = self.out.way(OpCode::Text);
        let event = Event { id: None, name, message };
        // Encoded now, wherever it waits: no event builds on another.
        self.out.dispatch(way, OpCode::Text, |encoder| encoder.event(&*events, &event));
        self.out.flush_if_full();
        Ok(())
    }

    /// Sends a comment, unless something waits, which shows as well whether the peer is there: false then.
    pub(crate) fn heartbeat(&mut self) -> bool {
        if self.out.state.waiting().is_some() {
            return false;
        }
        let Some(events) = self.out.state.event_encoder() else { return false };
        self.out.dispatch(Way::Now, OpCode::Ping, |encoder| encoder.encoded(events.heartbeat()))
    }

    /// Where this session begins in a flow, if that is not for the flow alone to say: an event stream
    /// is told.
    pub(crate) fn begin_flow(&mut self, flow: &Rc<FlowInner>) -> Option<u64> {
        let events = self.out.state.event_encoder()?;
        let own = self.out.state.id;
        let shared = &mut *self.out.shared;
        let last = shared.last_event.filter(|(id, _)| *id == own).map(|(_, event)| event);
        // Not before: a server without event streams asks the system for nothing.
        flow.begin_epoch(|| shared.masks.next_number());
        // It waits for no other flow: it has to come before the replay, which is older than all. And no
        // policy is to drop it: it is sent as the head of the answer is, behind nothing else of the turn.
        if shared.opaque_prefix < shared.tx.len() {
            self.out.flush();
        }
        let start = self.out.shared.tx.len();
        let cursor = events.begin_flow(&mut self.out.shared.tx, flow, last);
        if self.out.state.waiting().is_some() {
            let bytes = self.out.shared.take_sent(start);
            self.out.state.extra().outbox.push_opaque(bytes);
        } else {
            self.out.shared.opaque_prefix = self.out.shared.tx.len();
        }
        Some(cursor)
    }

    /// A message was skipped, as there is no event to make of it.
    pub(crate) fn note_binary(&mut self) {
        self.out.shared.stats.binary_skipped += 1;
        // Whoever forgot `base64` finds it in the log, and no more than a line a second.
        self.out.shared.warnings.note("binary event", self.out.shared.now, || {
            let id = self.out.state.id;
            format!("{id}: a binary message was skipped: an event stream carries text; see base64")
        });
    }
}

/// The most bytes of an event in a session with that limit: line breaks and base64 make it longer than its
/// message.
pub(crate) fn longest_event(limit: usize) -> usize {
    limit.saturating_mul(2).saturating_add(EVENT_BYTES_MORE)
}

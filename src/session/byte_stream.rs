//! What makes a byte stream of a session: what is sent goes out as it is, without frames.

use std::time::Duration;

use crate::flow::emission::Emission;
use crate::flow::inner::FlowInner;
use crate::protocol::server_sent_events::{Event, EventId};
use crate::session::event_stream::EventEncoder;
use crate::words::message::Message;

/// The encoder of byte streams, which encodes nothing.
pub(crate) struct PlainBytes;

impl EventEncoder for PlainBytes {
    fn is_byte_stream(&self) -> bool {
        true
    }

    fn share_key(&self) -> u8 {
        0
    }

    fn heartbeat(&self) -> &'static [u8] {
        b"" // only the protocol that is spoken knows one
    }

    fn write_head(&self, _out: &mut Vec<u8>, _headers: &[(String, String)], _date: &[u8]) {}

    fn write_retry(&self, _out: &mut Vec<u8>, _least: Duration, _random: u32) {}

    fn data_len(&self, message: &Message<'_>) -> Option<usize> {
        Some(message.bytes().len())
    }

    fn write(&self, out: &mut Vec<u8>, event: &Event<'_>) {
        out.extend_from_slice(event.message.bytes());
    }

    fn write_emission(&self, out: &mut Vec<u8>, _: &FlowInner, _: u64, emission: &Emission) {
        out.extend_from_slice(emission.payload());
    }

    fn begin_flow(&self, _out: &mut Vec<u8>, flow: &FlowInner, last: Option<EventId>) -> u64 {
        flow.resume(last).cursor
    }

    fn last_event(&self, _header: Option<&str>) -> Option<EventId> {
        None
    }
}

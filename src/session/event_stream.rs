//! What makes an event stream of a session: the encoder of its messages, and where it begins in a flow.

use std::time::Duration;

use crate::flow::emission::Emission;
use crate::flow::inner::FlowInner;
use crate::protocol::server_sent_events::{
    Event, EventId, HEARTBEAT, data_len, write_event, write_head, write_missed, write_retry,
};
use crate::words::message::Message;

/// The encoder of event streams, and of byte streams. Behind a trait, so that a program without a route for
/// them does not have it linked.
pub(crate) trait EventEncoder {
    /// Whether it is for a session that is no event stream but a byte stream, of which all is read.
    fn is_byte_stream(&self) -> bool {
        false
    }

    /// What is sent where nothing else is, to see whether the peer is there.
    fn heartbeat(&self) -> &'static [u8] {
        HEARTBEAT
    }

    /// Two streams whose encoders have the same get the same bytes of a message.
    fn share_key(&self) -> u8;

    /// The head of the answer.
    fn write_head(&self, out: &mut Vec<u8>, headers: &[(String, String)], date: &[u8]);

    /// What the client waits before it connects again, and that is `least` at least. `random` is drawn
    /// anew for each.
    fn write_retry(&self, out: &mut Vec<u8>, least: Duration, random: u32);

    /// How many bytes the data of a message is as an event, about and at most; `None` if it cannot be one.
    fn data_len(&self, message: &Message<'_>) -> Option<usize>;

    fn write(&self, out: &mut Vec<u8>, event: &Event<'_>);

    /// Writes the message of that number in a flow.
    fn write_emission(&self, out: &mut Vec<u8>, flow: &FlowInner, number: u64, emission: &Emission);

    /// Where a client begins in a flow; tells it so, and whether it has missed anything.
    fn begin_flow(&self, out: &mut Vec<u8>, flow: &FlowInner, last: Option<EventId>) -> u64;

    /// What a client says that it has.
    fn last_event(&self, header: Option<&str>) -> Option<EventId>;
}

/// Server-sent events as a route wants them.
#[derive(Debug)]
pub(crate) struct ServerSentEvents {
    /// Binary messages go out in base64; else they are skipped.
    pub(crate) base64: bool,
    pub(crate) retry: Duration,
}

impl EventEncoder for ServerSentEvents {
    fn share_key(&self) -> u8 {
        if self.base64 { 2 } else { 1 }
    }

    fn write_head(&self, out: &mut Vec<u8>, headers: &[(String, String)], date: &[u8]) {
        write_head(out, headers, date);
    }

    fn write_retry(&self, out: &mut Vec<u8>, least: Duration, random: u32) {
        write_retry(out, spread(self.retry.max(least), random));
    }

    fn data_len(&self, message: &Message<'_>) -> Option<usize> {
        (message.is_text() || self.base64).then(|| data_len(message))
    }

    fn write(&self, out: &mut Vec<u8>, event: &Event<'_>) {
        write_event(out, event);
    }

    fn write_emission(
        &self,
        out: &mut Vec<u8>,
        flow: &FlowInner,
        number: u64,
        emission: &Emission,
    ) {
        // The number of what follows, where whoever names this one goes on.
        let id = EventId { epoch: flow.epoch(), number: number.saturating_add(1) };
        let name = flow.options().event_name;
        write_event(out, &Event { id: Some(id), name, message: emission.message() });
    }

    fn begin_flow(&self, out: &mut Vec<u8>, flow: &FlowInner, last: Option<EventId>) -> u64 {
        let start = flow.resume(last);
        let at = EventId { epoch: flow.epoch(), number: start.cursor };
        match start.missed {
            Some(missed) => write_missed(out, at, missed),
            None => {
                // Before the first event, so that who loses the connection until then misses none.
                at.write(out);
                out.push(b'\n');
            }
        }
        start.cursor
    }

    fn last_event(&self, header: Option<&str>) -> Option<EventId> {
        EventId::of_header(header)
    }
}

/// That time, and up to half of it more: all who lost their streams at one moment do not come back at one.
fn spread(time: Duration, random: u32) -> Duration {
    let half = u64::try_from(time.as_millis() / 2).unwrap_or(u64::MAX);
    let more = u128::from(half).saturating_mul(u128::from(random)) >> 32;
    time.saturating_add(Duration::from_millis(u64::try_from(more).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_does_so_within_half_the_time_again() {
        let secs = Duration::from_secs;
        assert_eq!(spread(secs(2), 0), secs(2));
        assert!((2_999..3_000).contains(&spread(secs(2), u32::MAX).as_millis()));
        assert!(spread(Duration::MAX, u32::MAX) == Duration::MAX);
    }
}

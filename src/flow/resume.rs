//! Where a client of an event stream goes on in a flow: behind what it has, or with the replay.

use crate::flow::inner::FlowInner;
use crate::protocol::server_sent_events::EventId;

/// Where a client begins that was here before, or was not.
pub(crate) struct Start {
    pub(crate) cursor: u64,
    /// It has missed messages, and so many if that is known.
    pub(crate) missed: Option<Option<u64>>,
}

/// What concerns event streams alone.
impl FlowInner {
    /// What the ids of its events begin with, so that those of another process are not taken for its own.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    /// Draws the epoch, if that was not done.
    pub(crate) fn begin_epoch(&self, draw: impl FnOnce() -> u32) {
        if self.epoch.get() == 0 {
            self.epoch.set(draw().max(1));
        }
    }

    /// Where a client begins: behind what it has, or with the replay and having missed messages (how many,
    /// if that is known).
    pub(crate) fn resume(&self, last: Option<EventId>) -> Start {
        let log = &self.state.borrow().log;
        let replay = log.replay_start();
        // What it names may be anything: a number that was never given is no better than a foreign one.
        match last {
            None => Start { cursor: replay, missed: None },
            Some(id) if id.epoch != self.epoch() || id.number > log.next_number() => {
                Start { cursor: replay, missed: Some(None) }
            }
            Some(id) if log.goes_on_from(id.number) => Start { cursor: id.number, missed: None },
            Some(id) => Start { cursor: replay, missed: Some(log.missed_from(id.number)) },
        }
    }
}

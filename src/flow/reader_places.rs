//! The readers of a flow as the flow knows them: what they were not told of, what never came, and what is
//! different where loops bridge the flow by readers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use crate::flow::emission::{Emission, Origin};
use crate::flow::inner::FlowInner;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::structures::ids::ReaderId;
use crate::words::message::Message;

/// More than can be counted before the end of time; sums of a few of these do not overflow.
const SKIPPED_MAX: u64 = u64::MAX >> 8;

/// What concerns readers alone.
impl FlowInner {
    /// So many messages have never come: all who collect have missed them, but for the reader that says so.
    pub(crate) fn skip(&self, count: u64, origin: Origin) {
        let mut state = self.state.borrow_mut();
        // A count that comes from the network must not overflow what is added up elsewhere.
        let count = count.min(SKIPPED_MAX.saturating_sub(state.skipped));
        state.skipped += count;
        if let Some(own) = state.readers.iter_mut().find(|it| origin == Origin::Reader(it.id)) {
            // Taken off when it next counts what it has missed, so that no reader need be found here.
            own.own_skipped += count;
        }
    }

    /// Takes how many of the messages that never came that reader has announced itself.
    pub(crate) fn take_own_skipped(&self, id: ReaderId) -> u64 {
        let mut state = self.state.borrow_mut();
        let own = state.readers.iter_mut().find(|reader| reader.id == id);
        own.map_or(0, |reader| std::mem::take(&mut reader.own_skipped))
    }

    /// How many messages that reader has published itself that went before it had gone past them.
    pub(crate) fn own_dropped(&self, id: ReaderId) -> u64 {
        let state = self.state.borrow();
        state.readers.iter().find(|reader| reader.id == id).map_or(0, |reader| reader.own_dropped)
    }

    /// A reader has gone past what is before `passed`, and has counted so many of those.
    pub(crate) fn note_passed(&self, id: ReaderId, passed: u64, own_dropped: u64) {
        let mut state = self.state.borrow_mut();
        if let Some(reader) = state.readers.iter_mut().find(|reader| reader.id == id) {
            reader.passed = passed;
            reader.own_dropped -= own_dropped;
        }
    }

    /// A key that was removed and that reader was not told of.
    pub(crate) fn take_removed(&self, id: ReaderId) -> Option<Rc<str>> {
        self.change(|state| state.take_removed(id))
    }

    pub(crate) fn has_removed(&self, id: ReaderId) -> bool {
        let state = self.state.borrow();
        state.readers.iter().any(|reader| reader.id == id && !reader.removed.is_empty())
    }

    /// What it was not told of counts no more.
    pub(crate) fn forget_removed(&self, id: ReaderId) {
        while self.take_removed(id).is_some() {}
    }

    /// A reader reads no more; its subscription leaves by itself.
    pub(crate) fn forget_reader(&self, id: ReaderId) {
        self.forget_removed(id);
        self.state.borrow_mut().readers.retain(|reader| reader.id != id);
    }

    /// The number that the next message gets.
    pub(crate) fn end(&self) -> u64 {
        self.state.borrow().log.next_number()
    }

    /// Calls `each` with every reader: whether there are any.
    #[inline]
    pub(crate) fn for_each_reader(&self, each: impl FnMut(ReaderId)) -> bool {
        let state = self.state.borrow();
        state.readers.iter().map(|reader| reader.id).for_each(each);
        !state.readers.is_empty()
    }
}

/// Where all loops of a server have the flow.
impl FlowInner {
    /// All loops of a server have this flow, which nobody collects yet; the first who will is the reader that
    /// bridges it, and counts for nobody.
    pub(crate) fn count_everywhere(&self, count: Arc<AtomicIsize>, loops: usize) {
        count.fetch_sub(1, Ordering::Relaxed);
        // Never twice: a loop makes the flow, and bridges it at once.
        let _ = self.everywhere.set((count, loops));
    }

    /// That is the reader that tells the other loops.
    pub(crate) fn bridge_by(&self, reader: ReaderId) {
        self.bridge.set(Some(reader));
    }

    /// The reader that bridges it is about to leave.
    pub(crate) fn count_no_bridge(&self) {
        if let Some((count, _)) = self.everywhere.get() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether somebody has not taken all that there is, besides a reader that stands at `cursor`.
    pub(crate) fn is_awaited_besides(&self, cursor: u64) -> bool {
        self.state.borrow().log.pending_besides(cursor) > 0
    }

    /// Publishes, whatever the limits say, what another loop has accepted and nobody may lose.
    pub(crate) fn emit_beyond_limits(self: &Rc<Self>, message: Message<'_>, origin: Origin) {
        let emission = Emission::new(message, None, origin);
        let bytes = emission.bytes().saturating_add(self.entry_bytes());
        self.change(|state| state.push_beyond_limits(emission, bytes));
        self.list();
        self.touch();
    }

    /// What it holds of what was published so.
    pub(crate) fn beyond_limits(&self) -> usize {
        self.state.borrow().beyond_limits()
    }

    /// Whether what other loops have accepted waits for room, as which nothing new is accepted here.
    pub(crate) fn let_others_wait(&self, wait: bool) {
        self.state.borrow_mut().others_wait = wait;
    }

    /// Whether a publisher would have to wait where a reader that stands at `cursor` is no reason to.
    pub(crate) fn would_suspend_besides(&self, cursor: u64) -> bool {
        self.options.on_buffer_overflow == BufferOverflow::Suspend
            && self.state.borrow().log.pending_besides(cursor) > self.options.capacity()
    }

    /// What other loops have sent must have a place beside what waits here to be sent to them: else both
    /// might wait for each other. And where publishers wait, those of this loop must have one beside what
    /// others have sent.
    #[inline]
    pub(super) fn with_room_for_others(&self, emission: &Emission) -> Option<FlowOptions> {
        let (_, loops) = self.everywhere.get()?;
        let is_brought = matches!(emission.origin, Origin::Reader(_));
        let suspends = self.options.on_buffer_overflow == BufferOverflow::Suspend;
        // Each of the others has as much on its way at most as its own log may have.
        let logs = match (is_brought, suspends) {
            (true, true) => loops.saturating_mul(2).saturating_sub(1),
            (true, false) | (false, true) => *loops,
            (false, false) => return None,
        };
        let max_bytes = self.options.max_bytes.saturating_mul(logs);
        Some(FlowOptions { max_bytes, ..self.options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::inner::{Flows, Member};
    use crate::structures::slab::Key;
    use crate::words::error::SendError;

    #[test]
    fn what_others_have_accepted_goes_beyond_the_limits_and_before_what_is_new() {
        let pool = Rc::new(Flows::new(2_000));
        let flow = Rc::new(FlowInner::new(FlowOptions::new().max_bytes(2_000)));
        let slow = flow.join(&pool, Member::Session(0), None);
        let text = "x".repeat(100);
        let emit = || flow.emit(text.as_str(), None, Origin::Application);
        let own = (0..).take_while(|_| emit().is_ok()).count() as u64;
        let (full, bridge) = (pool.bytes(), ReaderId(Key { index: 0, generation: 0 }));
        for _ in 0..2 {
            flow.emit_beyond_limits(text.as_str().into(), Origin::Reader(bridge));
        }
        let beyond = pool.bytes() - full;
        assert!(beyond > 200 && flow.beyond_limits() == beyond, "{beyond}");
        // It is none of it any more only once the last has gone.
        flow.advance(slow.cursor, own + 1);
        assert_eq!(flow.beyond_limits(), beyond / 2, "no more than there is");
        flow.advance(own + 1, own + 2);
        assert_eq!((flow.beyond_limits(), pool.bytes()), (0, 0));
        flow.let_others_wait(true);
        assert!(matches!(emit(), Err(SendError::Full { .. })));
        flow.let_others_wait(false);
        assert!(emit().is_ok() && flow.beyond_limits() == 0);
    }
}

//! The progress of one peer: what it takes of what was written, and what it sends of what it began.
//!
//! "Given to the system" is not "delivered": what the peer took is what was written less what its system
//! has not acknowledged. Asking for that is a system call, so it is asked only when a deadline looks.

use crate::session::state::{PingBehind, SessionState};
use crate::session::subscriptions::Collected;
use crate::structures::progress::{Least, Window};
use crate::structures::wire::Wire;
use crate::words::time::Time;

/// One connection's bytes in both directions, looked at under what its options and the limits ask of a peer.
pub(super) struct PeerProgress<'t> {
    pub(super) state: &'t mut SessionState,
    pub(super) wire: &'t dyn Wire,
    pub(super) now: Time,
    /// How much has to move in which time.
    pub(super) least: Least,
}

/// What became of the bytes that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// The peer's system has them all.
    Empty,
    /// They wait, and the peer takes them fast enough.
    Moving,
    /// They wait, and it does not.
    Stuck,
}

/// What the peer takes.
impl PeerProgress<'_> {
    /// Bytes that wait in the outbox.
    pub(super) fn outbox_bytes(&self) -> u32 {
        let outbox = self.state.extra.as_deref().map(|extra| &extra.outbox);
        let bytes = outbox.map_or(0, |it| it.buffered_bytes().saturating_add(it.control_bytes()));
        // A stream, or a Close behind a flow, is not out when the outbox is empty: more follows.
        let collected = self.state.collected.as_deref();
        let holds_direct = collected.is_some_and(Collected::holds_direct);
        saturated(bytes.saturating_add(usize::from(holds_direct)))
    }

    /// Looks how what was written gets on.
    pub(super) fn look_at_queue(&mut self) -> Queue {
        let (least, now) = (self.least, self.now);
        let (taken, unsent) = self.wire.taken();
        let waiting = unsent.saturating_add(self.outbox_bytes());
        self.state.timing_changed = true;
        let extra = self.state.extra();
        // Acknowledged by the peer's system; whether its program reads, only a pong can tell.
        if waiting == 0 {
            extra.window = None;
            return Queue::Empty;
        }
        let window = extra.window.get_or_insert_with(|| Window::begin(now));
        if window.look(now, taken, waiting, least) { Queue::Moving } else { Queue::Stuck }
    }

    /// Whether a look is due at what waits in the outbox, and the peer does not take it.
    pub(super) fn is_stuck(&mut self) -> bool {
        let look = write_look(self.state, self.least);
        look.is_some_and(|at| at <= self.now) && self.look_at_queue() == Queue::Stuck
    }

    /// An answer was so long that it may be on its way for a while.
    pub(super) fn watch_answer(&mut self) {
        let now = self.now;
        self.state.timing_changed = true;
        self.state.extra().window.get_or_insert_with(|| Window::begin(now));
    }

    /// Notes where the ping ends in what is written, so that it can be told when the peer's system has it.
    pub(super) fn watch_ping(&mut self) {
        let (taken, unsent) = self.wire.taken();
        let waiting = unsent.saturating_add(self.outbox_bytes());
        let (now, written) = (self.now, self.wire.written());
        self.state.timing_changed = true;
        let extra = self.state.extra();
        let before_end = saturated(extra.outbox.bytes_to_control_end());
        extra.ping = Some(Box::new(PingBehind {
            end: written.wrapping_add(before_end),
            window: Window::begin_at(now, taken, waiting),
            full: false,
        }));
    }
}

/// What the peer sends.
impl PeerProgress<'_> {
    /// False if it is out of time.
    pub(super) fn look_at_unfinished(&mut self) -> bool {
        let (least, now) = (self.least, self.now);
        let state = &mut self.state;
        let Some((window, came, rest)) = state.unfinished() else { return true };
        match window {
            Some(window) => window.look(now, came, rest, least),
            None => {
                *window = Some(Window::begin_at(now, came, rest));
                state.timing_changed = true;
                true
            }
        }
    }
}

/// When it has to be looked at whether the peer takes what waits in the outbox.
pub(super) fn write_look(state: &SessionState, least: Least) -> Option<Time> {
    let extra = state.extra.as_deref().filter(|extra| !extra.outbox.is_empty())?;
    Some(extra.window?.next_look(least))
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

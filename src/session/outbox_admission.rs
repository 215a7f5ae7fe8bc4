//! The admission of messages to the outbox: whether there is room for one, and what goes for it.

use crate::words::error::{SendError, SessionError};
use crate::words::options::{OutboxOverflow, SessionOptions};

use crate::context::loop_state::LoopState;
use crate::session::state::SessionState;
use crate::session::subscriptions::Collected;
use crate::structures::outbox::Outbox;

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Send,
    /// It is sent, and so many of the oldest that wait are dropped for it.
    InPlaceOf(usize),
    /// The outbox has no room for it and its policy drops.
    Drop,
}

/// The outbox of a session in which something waits.
pub(crate) struct OutboxAdmission<'s> {
    pub(crate) state: &'s mut SessionState,
    pub(crate) shared: &'s mut LoopState,
    pub(crate) route: &'s SessionOptions,
}

impl OutboxAdmission<'_> {
    /// Holds a message to the limits of the outbox.
    #[cold]
    pub(crate) fn admit(&mut self, bytes: usize, is_whole: bool) -> Result<Admission, SendError> {
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
        // A message that finds nothing buffered is taken whatever its size: else one over the limit of
        // the outbox could never be sent.
        let fits = |buffered: usize, waiting: usize| {
            buffered == 0 || (buffered.saturating_add(bytes) <= limit && waiting < messages)
        };
        // What waits only for the end of the turn was not refused by the peer; behind a stream it waits for
        // as long as that takes.
        let refused = self.state.extra.as_deref().is_some_and(|extra| extra.blocked)
            || self.state.holds_stream();
        if !refused || fits(buffered, waiting) {
            return Ok(Admission::Send);
        }
        if let Some(collected) = self.state.collected.as_deref_mut() {
            collected.has_refused |= collected.streams > 0;
        }
        let dropped = match policy {
            OutboxOverflow::Close => {
                self.state.note_fault(SessionError::Overloaded);
                return Err(SendError::Full { buffered });
            }
            OutboxOverflow::Block => return Err(SendError::Full { buffered }),
            OutboxOverflow::DropNewest => &mut self.shared.stats.dropped_newest,
            OutboxOverflow::DropOldest => {
                let (mut buffered, mut waiting) = (buffered, waiting);
                let is_enough = |(_, bytes): (usize, usize)| {
                    buffered = buffered.saturating_sub(bytes);
                    waiting = waiting.saturating_sub(1);
                    fits(buffered, waiting)
                };
                if let Some(last) = self.droppable().position(is_enough) {
                    return Ok(Admission::InPlaceOf(last.saturating_add(1)));
                }
                &mut self.shared.stats.dropped_oldest // nothing else helps: the newest goes
            }
        };
        if !is_whole {
            return Err(SendError::Full { buffered });
        }
        *dropped += 1;
        self.state.note_dropped();
        Ok(Admission::Drop)
    }

    /// Drops the oldest messages that wait, so many, for one that was sent.
    #[cold]
    pub(crate) fn drop_oldest(&mut self, messages: usize) {
        for _ in 0..messages {
            if self.drop_first() {
                self.shared.stats.dropped_oldest += 1;
                self.state.note_dropped();
            }
        }
    }

    /// The messages that wait, are whole and have not begun, from the oldest: where they stand, and their
    /// lengths.
    fn droppable(&self) -> impl Iterator<Item = (usize, usize)> {
        let outbox = self.state.extra.as_deref().map(|extra| extra.outbox.droppable());
        let collected = self.state.collected.as_deref().map(Collected::droppable);
        outbox.into_iter().flatten().chain(collected.into_iter().flatten())
    }

    /// Drops the first of those; false if there is none.
    fn drop_first(&mut self) -> bool {
        let outbox = self.state.extra.as_deref_mut().map(|extra| &mut extra.outbox);
        let of_outbox = outbox.and_then(Outbox::drop_oldest).is_some();
        of_outbox || self.state.collected.as_deref_mut().is_some_and(Collected::drop_oldest)
    }
}

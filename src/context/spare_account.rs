//! The use of the loop's spare, its account and its timer. What it holds counts for the loop: a buffer that
//! is taken is charged to its connection from there.

use std::rc::{Rc, Weak};

use crate::structures::assembled::Assembled;
use crate::structures::spare_buffers::SpareBuffers;

use crate::context::loop_state::{LoopState, ServerRef, TimerAction};

/// Taking and giving back.
impl LoopState {
    /// Has `act` take buffers and give them back.
    pub(crate) fn with_spare<R>(&mut self, act: impl FnOnce(&mut SpareBuffers) -> R) -> R {
        self.spare.buffers.now = self.now;
        let before = self.spare.bytes();
        let result = act(&mut self.spare.buffers);
        if self.spare.bytes() != before {
            self.spare_changed();
        }
        result
    }

    #[cold]
    fn spare_changed(&mut self) {
        self.spare.leaves = self.limits.process_bytes.saturating_sub(self.spare.bytes());
        let Some(until) = self.spare.buffers.next_free().filter(|_| !self.spare.timed) else {
            return;
        };
        // A buffer that is used a thousand times a second does not move the timer, which looks again.
        let look =
            TimerAction::Once(Box::new(|server: &mut ServerRef<'_>| server.shared.free_unused()));
        self.timers.add(until.since(self.now), look, self.now);
        self.spare.timed = true;
        self.has_deferred_work = true; // it is not on the wheel yet
    }

    /// What the timer does.
    fn free_unused(&mut self) {
        self.spare.timed = false;
        self.spare.buffers.now = self.now;
        self.spare.buffers.free_unused();
        self.spare_changed();
    }

    /// A buffer that nobody needs any more.
    pub(crate) fn keep_buffer(&mut self, buffer: Vec<u8>) {
        if self.spare.keeps(buffer.capacity()) {
            self.with_spare(|spare| spare.put(buffer));
        }
    }

    /// These bytes, the one behind the other, in a buffer of their own.
    pub(crate) fn copied(&mut self, first: &[u8], second: &[u8]) -> Vec<u8> {
        let bytes = first.len().saturating_add(second.len());
        let mut copy = self.with_spare(|spare| spare.buffer(bytes));
        copy.extend_from_slice(first);
        copy.extend_from_slice(second);
        copy
    }

    /// Has room for so many bytes more in the turn's buffer; where that becomes large, in a kept one.
    pub(crate) fn make_room_to_send(&mut self, bytes: usize) {
        let needed = self.tx.len().saturating_add(bytes);
        if needed <= self.tx.capacity() || !self.spare.keeps(needed) {
            return;
        }
        let there = self.tx.len();
        if let Some(mut kept) = self.with_spare(|spare| spare.take(there, bytes, needed)) {
            kept.extend_from_slice(&self.tx);
            self.tx = kept;
        }
    }

    /// Takes what the turn's buffer has behind `start`: a large one as it is.
    pub(crate) fn take_sent(&mut self, start: usize) -> Vec<u8> {
        if start == 0 && self.spare.keeps(self.tx.len()) {
            return std::mem::take(&mut self.tx);
        }
        self.tx.split_off(start)
    }

    /// Gives up as much as is held over `process_bytes`.
    #[cold]
    pub(crate) fn give_up_spare(&mut self) {
        let over = self.memory().saturating_sub(self.spare.leaves);
        self.with_spare(|spare| spare.free_bytes(over));
    }
}

/// Lending.
impl LoopState {
    /// Lends a message to a hook; [`take_back`](Self::take_back) follows.
    pub(crate) fn lend(&mut self, message: Assembled) -> Rc<Assembled> {
        let message = Rc::new(message);
        self.spare.lent = Rc::downgrade(&message);
        message
    }

    /// The hook is over: the message's buffer is kept, unless a part of it waits for the peer.
    pub(crate) fn take_back(&mut self, message: Rc<Assembled>) {
        self.spare.lent = Weak::new();
        if let Some(message) = Rc::into_inner(message) {
            self.keep_buffer(message.into_buffer());
        }
    }
}

/// For tests.
#[cfg(all(repository, any(test, fuzzing)))]
impl LoopState {
    /// Keeps smaller buffers too.
    pub(crate) fn keep_buffers_from(&mut self, bytes: usize) {
        self.spare.buffers.keep_from(bytes);
    }

    /// The first entry of the spare's account that does not agree.
    pub(crate) fn check_spare(&self) -> Result<(), String> {
        let (bytes, limit) = (self.spare.bytes(), self.limits.process_bytes);
        self.spare.buffers.check()?;
        if bytes > limit / crate::context::spare::SHARE {
            return Err(format!("{bytes} bytes are spare"));
        }
        if self.spare.leaves != limit.saturating_sub(bytes) {
            return Err(format!("{bytes} bytes are spare, {} allowed beside", self.spare.leaves));
        }
        if bytes > 0 && self.memory() > self.spare.leaves {
            return Err(format!("{bytes} spare bytes were not given up"));
        }
        Ok(())
    }

    /// The same of the times at which its buffers go.
    pub(crate) fn check_spare_times(&self) -> Result<(), String> {
        match self.spare.buffers.next_free() {
            Some(_) if !self.spare.timed => Err("nothing will free the spare buffers".into()),
            // The wheel's ticks are 8.2 ms.
            Some(until) if until.after_millis(9) < self.now => {
                Err(format!("a buffer was to be freed at {until:?}"))
            }
            _ => Ok(()),
        }
    }
}

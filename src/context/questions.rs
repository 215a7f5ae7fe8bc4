//! Questions to sessions whose answers are awaited. `T` is what the application does with an answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::structures::footprint::footprint;
use crate::structures::ids::TimerId;
use crate::structures::slab::Key;
use crate::words::error::AskError;
use crate::words::message_buf::MessageBuf;

/// The longest correlation, in bytes.
pub(crate) const CORRELATION_MAX_BYTES: usize = 256;

/// The questions that are open, and those of which the application is to learn how they ended.
pub(crate) struct Questions<T> {
    /// By session and correlation.
    open: BTreeMap<(u32, u32, Box<str>), Question<T>>,
    settled: VecDeque<Settled<T>>,
    /// What the open ones take.
    bytes: usize,
}

pub(crate) struct Question<T> {
    /// Fires when there was no answer in time.
    pub(crate) timer: TimerId,
    pub(crate) then: T,
    /// What `then` takes on the heap.
    pub(crate) bytes: usize,
}

impl<T> Question<T> {
    /// What it takes: a place in a tree that may be half full, and the correlation, which its timer has too.
    fn memory(&self, correlation: &str) -> usize {
        let place = 2 * size_of::<((u32, u32, Box<str>), Self)>();
        let kept =
            footprint(correlation.len()).saturating_mul(2).saturating_add(footprint(self.bytes));
        place.saturating_add(kept)
    }
}

/// A question that is over.
pub(crate) struct Settled<T> {
    pub(crate) then: T,
    pub(crate) result: Result<MessageBuf, AskError>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), settled: VecDeque::new(), bytes: 0 }
    }
}

impl<T> fmt::Debug for Questions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

fn place(session: Key, correlation: &str) -> (u32, u32, Box<str>) {
    (session.index, session.generation, correlation.into())
}

impl<T> Questions<T> {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Bytes of memory that the open ones take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_open(&self, session: Key, correlation: &str) -> bool {
        // A peer may send whatever it likes as one: what nobody can have asked is not looked for.
        let may_be = !self.open.is_empty() && correlation.len() <= CORRELATION_MAX_BYTES;
        may_be && self.open.contains_key(&place(session, correlation))
    }

    pub(crate) fn add(&mut self, session: Key, correlation: &str, question: Question<T>) {
        self.bytes = self.bytes.saturating_add(question.memory(correlation));
        self.open.insert(place(session, correlation), question);
    }

    /// The question is over: its timer, which is needed no longer; `None` if it is not open.
    pub(crate) fn settle(
        &mut self,
        session: Key,
        correlation: &str,
        result: Result<MessageBuf, AskError>,
    ) -> Option<TimerId> {
        let question = self.open.remove(&place(session, correlation))?;
        self.bytes = self.bytes.saturating_sub(question.memory(correlation));
        self.settled.push_back(Settled { then: question.then, result });
        Some(question.timer)
    }

    /// One question of a session that is over is settled: its timer; `None` once it has none.
    pub(crate) fn settle_ended(&mut self, session: Key) -> Option<TimerId> {
        let first = self.open.range(place(session, "")..).next().map(|(place, _)| place.clone())?;
        let is_of_session = (first.0, first.1) == (session.index, session.generation);
        is_of_session.then(|| self.settle(session, &first.2, Err(AskError::Ended))).flatten()
    }

    pub(crate) fn pop_settled(&mut self) -> Option<Settled<T>> {
        self.settled.pop_front()
    }
}

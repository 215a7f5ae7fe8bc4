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
    /// `None` until the first is asked. Behind a trait, so that a program that asks none has no code for it.
    open: Option<Box<dyn Open<T>>>,
    settled: VecDeque<Settled<T>>,
    /// What the open ones take.
    bytes: usize,
    /// How many were asked.
    asked: u64,
}

/// Who has asked a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The loop, by number.
    pub(crate) number: usize,
    /// Which of all that this loop has asked it is: a correlation may be used again.
    pub(crate) question: u64,
}

/// Those that are open.
trait Open<T> {
    fn len(&self) -> usize;
    fn get(&self, session: Key, correlation: &str) -> Option<&Question<T>>;
    fn add(&mut self, session: Key, correlation: &str, question: Question<T>);
    fn remove(&mut self, session: Key, correlation: &str) -> Option<Question<T>>;
    /// Takes any of a session.
    fn remove_any(&mut self, session: Key) -> Option<Question<T>>;
    /// Takes any.
    fn remove_first(&mut self) -> Option<Question<T>>;
}

/// By session and correlation.
struct Table<T>(BTreeMap<(u32, u32, Box<str>), Question<T>>);

pub(crate) struct Question<T> {
    pub(crate) asker: Asker,
    /// Fires when there was no answer in time.
    pub(crate) timer: TimerId,
    pub(crate) then: T,
    /// What it takes beside its place among the open ones, in bytes.
    pub(crate) bytes: usize,
}

/// What a place takes: in a tree that may be half full, with the correlation, which a timer has too.
const fn place_bytes<T>(correlation: &str) -> usize {
    let place = 2 * size_of::<((u32, u32, Box<str>), Question<T>)>();
    place.saturating_add(footprint(correlation.len()).saturating_mul(2))
}

/// A question that is over.
pub(crate) struct Settled<T> {
    pub(crate) then: T,
    pub(crate) result: Result<MessageBuf, AskError>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self { open: None, settled: VecDeque::new(), bytes: 0, asked: 0 }
    }
}

impl<T> fmt::Debug for Questions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("open", &self.len()).finish_non_exhaustive()
    }
}

impl<T> Questions<T> {
    pub(crate) fn len(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.len())
    }

    /// Bytes of memory that the open ones take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_open(&self, session: Key, correlation: &str) -> bool {
        // A peer may send whatever it likes as one: what nobody can have asked is not looked for.
        let open = self.open.as_ref().filter(|_| correlation.len() <= CORRELATION_MAX_BYTES);
        open.is_some_and(|open| open.get(session, correlation).is_some())
    }

    /// The number of the next one.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// Who has asked the one that is open.
    pub(crate) fn asker(&self, session: Key, correlation: &str) -> Option<Asker> {
        let open = self.open.as_ref()?;
        open.get(session, correlation).map(|question| question.asker)
    }

    pub(crate) fn add(&mut self, session: Key, correlation: &str, mut question: Question<T>)
    where
        T: 'static,
    {
        question.bytes = question.bytes.saturating_add(place_bytes::<T>(correlation));
        self.bytes = self.bytes.saturating_add(question.bytes);
        let open = self.open.get_or_insert_with(|| Box::new(Table(BTreeMap::new())));
        open.add(session, correlation, question);
    }

    /// The question is over: its timer, which is needed no longer; `None` if it is not open.
    pub(crate) fn settle(
        &mut self,
        session: Key,
        correlation: &str,
        result: Result<MessageBuf, AskError>,
    ) -> Option<TimerId> {
        let question = self.open.as_mut()?.remove(session, correlation)?;
        Some(self.note_settled(question, result))
    }

    /// One question of a session that is over is settled: its timer; `None` once it has none.
    pub(crate) fn settle_ended(&mut self, session: Key) -> Option<TimerId> {
        let question = self.open.as_mut()?.remove_any(session)?;
        Some(self.note_settled(question, Err(AskError::Ended)))
    }

    /// One question is settled as that of a session that is over, whatever became of it: its timer; `None`
    /// once there is none.
    pub(crate) fn settle_first(&mut self) -> Option<TimerId> {
        let question = self.open.as_mut()?.remove_first()?;
        Some(self.note_settled(question, Err(AskError::Ended)))
    }

    fn note_settled(
        &mut self,
        question: Question<T>,
        result: Result<MessageBuf, AskError>,
    ) -> TimerId {
        self.bytes = self.bytes.saturating_sub(question.bytes);
        self.settled.push_back(Settled { then: question.then, result });
        question.timer
    }

    pub(crate) fn pop_settled(&mut self) -> Option<Settled<T>> {
        self.settled.pop_front()
    }
}

fn place(session: Key, correlation: &str) -> (u32, u32, Box<str>) {
    (session.index, session.generation, correlation.into())
}

impl<T> Open<T> for Table<T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, session: Key, correlation: &str) -> Option<&Question<T>> {
        self.0.get(&place(session, correlation))
    }

    fn add(&mut self, session: Key, correlation: &str, question: Question<T>) {
        self.0.insert(place(session, correlation), question);
    }

    fn remove(&mut self, session: Key, correlation: &str) -> Option<Question<T>> {
        self.0.remove(&place(session, correlation))
    }

    fn remove_any(&mut self, session: Key) -> Option<Question<T>> {
        let first = self.0.range(place(session, "")..).next().map(|(place, _)| place.clone())?;
        let is_of_session = (first.0, first.1) == (session.index, session.generation);
        is_of_session.then(|| self.0.remove(&first)).flatten()
    }

    fn remove_first(&mut self) -> Option<Question<T>> {
        self.0.pop_first().map(|(_, question)| question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_question_counts_for_no_less_than_it_takes() {
        let least = size_of::<Question<[u64; 100]>>() + 2 * "correlation".len();
        assert!(place_bytes::<[u64; 100]>("correlation") >= 2 * least);
    }
}

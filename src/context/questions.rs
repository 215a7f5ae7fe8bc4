//! Questions to sessions whose answers are awaited. `T` is what the application does with an answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

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
}

/// Those that are open.
trait Open<T> {
    fn len(&self) -> usize;
    fn get(&self, session: Key, correlation: &str) -> Option<&Question<T>>;
    fn add(&mut self, session: Key, correlation: &str, question: Question<T>);
    fn remove(&mut self, session: Key, correlation: &str) -> Option<Question<T>>;
    /// Takes any of a session.
    fn remove_any(&mut self, session: Key) -> Option<Question<T>>;
}

/// By session and correlation.
struct Table<T>(BTreeMap<(u32, u32, Box<str>), Question<T>>);

pub(crate) struct Question<T> {
    /// Fires when there was no answer in time.
    pub(crate) timer: TimerId,
    pub(crate) then: T,
}

/// A question that is over.
pub(crate) struct Settled<T> {
    pub(crate) then: T,
    pub(crate) result: Result<MessageBuf, AskError>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self { open: None, settled: VecDeque::new() }
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

    pub(crate) fn is_open(&self, session: Key, correlation: &str) -> bool {
        self.open.as_ref().is_some_and(|open| open.get(session, correlation).is_some())
    }

    pub(crate) fn add(&mut self, session: Key, correlation: &str, question: Question<T>)
    where
        T: 'static,
    {
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

    fn note_settled(
        &mut self,
        question: Question<T>,
        result: Result<MessageBuf, AskError>,
    ) -> TimerId {
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
}

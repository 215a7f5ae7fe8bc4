//! A request whose answer the application has deferred.

use std::any::Any;
use std::fmt;

use crate::app::call::Call;
use crate::app::deferral::Waiting;
use crate::context::commands::Settlement;
use crate::words::limits::Limits;
use crate::words::time::Time;

use crate::core::answer_terms::AnswerTerms;
use crate::core::panics::drop_caught;

/// The request, until its answer comes. Further ones wait behind it.
pub(crate) struct DeferredAnswer {
    pub(super) call: Call,
    pub(super) terms: AnswerTerms,
    pub(super) kind: RequestKind,
    waiting: Box<Waiting>,
    since: Time,
    /// When the client was seen to have ended its side.
    peer_ended: Option<Time>,
    outcome: Option<Outcome>,
    /// Bytes of memory that the answer takes while the peer takes what was answered before.
    bytes: usize,
}

/// What a request is for, which decides what its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Page,
    Body,
    /// What a guard refuses, and why.
    Refusal(&'static str),
    /// A session of that route.
    Upgrade(u16),
    /// An event stream of that route.
    Stream(u16),
}

/// What a deferred answer came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The application has said how the request is answered.
    Decided(Box<dyn Any>),
    Dropped,
    Late,
}

impl fmt::Debug for DeferredAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredAnswer").field("call", &self.call).finish_non_exhaustive()
    }
}

impl DeferredAnswer {
    pub(super) fn new(
        call: Call,
        terms: AnswerTerms,
        kind: RequestKind,
        mut waiting: Box<Waiting>,
        since: Time,
    ) -> Self {
        let early = waiting.early.take();
        let bytes = early.as_ref().map_or(0, |early| early.bytes);
        let outcome = early.map(Outcome::of);
        Self { call, terms, kind, waiting, since, peer_ended: None, outcome, bytes }
    }

    /// Whether it is the one of that number, and nothing was said about it.
    pub(super) fn awaits(&self, number: u64) -> bool {
        self.outcome.is_none() && self.waiting.ticket.number == number
    }

    /// Its answer is known; it goes out when it is the connection's turn.
    pub(super) fn settle(&mut self, settlement: Settlement) {
        self.bytes = settlement.bytes;
        self.outcome = Some(Outcome::of(settlement));
    }

    /// None came in time.
    pub(super) fn give_up(&mut self) {
        self.outcome = Some(Outcome::Late);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.outcome.is_some()
    }

    /// What it came to. From here on nobody waits behind its ticket.
    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcome.take()?;
        // It counts as what it is answered with, and no longer as cancelled.
        self.waiting.ticket.settle();
        self.waiting.ticket.cancel();
        Some(outcome)
    }

    /// The headers that the upgrade hooks so far have accepted with, and how many they are.
    pub(super) fn take_hooks(&mut self) -> (Vec<(String, String)>, usize) {
        (std::mem::take(&mut self.waiting.accepted), self.waiting.hooks_done)
    }

    /// The client has ended its side. Most have left by that; one that still reads gets its answer.
    pub(super) fn note_peer_end(&mut self, now: Time) {
        self.peer_ended.get_or_insert(now);
        self.waiting.ticket.cancel();
    }

    /// When something has to be done although no answer comes.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Time> {
        if self.is_settled() {
            return None; // what holds it up is the peer, which has a time of its own
        }
        // Who has left is not waited for longer than who stays.
        let late = self.since.after(limits.defer_timeout);
        Some(self.peer_ended.map_or(late, |ended| ended.after(limits.close_timeout).min(late)))
    }

    /// Whether a client that is late is told so: one that has ended its side has left.
    pub(super) fn is_left(&self) -> bool {
        self.peer_ended.is_some()
    }

    /// Bytes of memory that it takes.
    #[allow(clippy::arithmetic_side_effects, reason = "what lies in memory fits the address space")]
    pub(super) fn memory(&self) -> usize {
        let headers = self.waiting.accepted.iter();
        let headers = headers.map(|(name, value)| name.capacity() + value.capacity());
        self.call.memory() + size_of::<Waiting>() + headers.sum::<usize>() + self.bytes
    }
}

impl Drop for DeferredAnswer {
    fn drop(&mut self) {
        if let Some(Outcome::Decided(answer)) = self.outcome.take() {
            drop_caught("a deferred answer", answer);
        }
    }
}

impl Outcome {
    pub(super) fn of(settlement: Settlement) -> Self {
        settlement.answer.map_or(Self::Dropped, Self::Decided)
    }
}

//! One turn of a request whose answer was deferred: waited for, and given when it has come.

use crate::app::response::Response;
use crate::context::commands::Settlement;

use crate::core::answer_terms::AnswerTerms;
use crate::core::connection::{Disposal, Stage};
use crate::core::deferred_answer::{DeferredAnswer, Outcome};
use crate::core::losses::Loss;
use crate::core::panics::drop_caught;
use crate::core::request_log::reason;
use crate::core::responder::{AfterRequest, Responder};
use crate::core::turn::Turn;

/// What the application has said, from where it is said. Behind a pointer, so that a program that defers
/// nothing is linked without what is done with it.
pub(super) trait Decided {
    /// Goes on with the request.
    fn go_on(self: Box<Self>, turn: &mut Turn<'_>, deferred: DeferredAnswer) -> AfterRequest;
}

/// A connection's turn while an answer is awaited.
pub(super) struct DeferredTurn<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

impl DeferredTurn<'_, '_> {
    /// Gives the answer if it has come; `None` if it has not, or has to wait for the peer to take what was
    /// answered before.
    pub(super) fn go_on(&mut self) -> Option<AfterRequest> {
        let is_blocked = self.turn.connection.state.waiting().is_some();
        let http = self.turn.connection.http()?;
        // Answers keep their order, and none goes out before its predecessor.
        if is_blocked || !http.deferred()?.is_settled() {
            return None;
        }
        let mut deferred = http.take_deferred()?;
        let outcome = deferred.take_outcome()?;
        // The time for the next head begins, or that of a session.
        http.since = self.turn.shared.now;
        self.turn.connection.state.timing_changed = true;
        let stats = &mut self.turn.shared.stats;
        Some(match outcome {
            Outcome::Decided(answer) => {
                stats.deferred_answered += 1;
                match answer.downcast::<Box<dyn Decided>>() {
                    Ok(decided) => decided.go_on(self.turn, deferred),
                    Err(_) => AfterRequest::Over, // it is made in one place, of this type
                }
            }
            Outcome::Dropped => {
                stats.deferred_dropped += 1;
                self.refuse(&deferred, deferred.terms, reason::DROPPED)
            }
            Outcome::Late => {
                stats.deferred_late += 1;
                self.refuse(&deferred, deferred.terms, reason::LATE)
            }
        })
    }

    /// Its memory is wanted: it is refused, and its connection ends.
    pub(super) fn evict(&mut self) {
        let http = self.turn.connection.http();
        let Some(deferred) = http.and_then(|http| http.take_deferred()) else { return };
        self.refuse(&deferred, deferred.terms.last(), reason::NO_MEMORY);
        drop_caught("a deferred answer", deferred);
    }

    fn refuse(
        &mut self,
        deferred: &DeferredAnswer,
        terms: AnswerTerms,
        why: &'static str,
    ) -> AfterRequest {
        let mut responder = Responder { turn: self.turn };
        let refusal = Response::refusal(503).header("Retry-After", "1");
        let refusal = responder.temporary_refusal(deferred.call.head(), refusal);
        let refusal = responder.filtered(&deferred.call, refusal);
        responder.refuse_request(terms, deferred.call.head(), refusal, why)
    }

    /// The answer of that number has come. Given back if nobody waits for it.
    pub(super) fn settle(&mut self, number: u64, settlement: Settlement) -> Option<Settlement> {
        let Stage::Http(http) = &mut self.turn.connection.stage else { return Some(settlement) };
        if let Some(receiving) = &http.receiving {
            // The hook that has deferred it still takes a body.
            return receiving.call.deferral().settle_early(number, settlement);
        }
        let Some(deferred) = http.deferred_mut().filter(|it| it.awaits(number)) else {
            return Some(settlement);
        };
        deferred.settle(settlement);
        self.turn.connection.state.timing_changed = true;
        self.turn.shared.to_resume.push(self.turn.connection.state.id.0.index);
        None
    }

    /// The answer may be out of time.
    pub(super) fn timeout(&mut self) {
        let now = self.turn.shared.now;
        let index = self.turn.connection.state.id.0.index;
        let Stage::Http(http) = &mut self.turn.connection.stage else { return };
        let Some(deferred) = http.deferred_mut() else { return };
        if deferred.deadline(&self.turn.shared.limits).is_none_or(|at| at > now) {
            return;
        }
        // Nobody is there to be told.
        if deferred.is_left() {
            self.turn.lose(Loss::Gone);
            return self.turn.drop_socket(Disposal::Close);
        }
        deferred.give_up();
        // By the list, since whoever resumes a connection has its socket read on.
        self.turn.shared.to_resume.push(index);
        self.turn.connection.state.timing_changed = true;
    }
}

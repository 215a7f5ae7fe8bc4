//! What is done with the answer that a request was given later.

use std::any::Any;

use crate::app::call::Call;
use crate::app::response::{Accept, Response};
use crate::app::route_config::HooksDone;
use crate::context::loop_state::ServerRef;
use crate::protocol::handshake::AcceptKey;
use crate::words::quoted::Quoted;

use crate::core::deferred_answer::{DeferredAnswer, RequestKind};
use crate::core::deferred_turn::Decided;
use crate::core::event_streams::StreamRequest;
use crate::core::http_turn::HttpTurn;
use crate::core::panics::{Panicked, caught};
use crate::core::request_log::reason;
use crate::core::responder::AfterRequest;
use crate::core::turn::Turn;

/// How the application answers.
pub(crate) enum Decision {
    Answer(Response),
    Accept(Accept),
}

/// What decides, on the loop.
struct Deciding<F>(F);

/// An answer as the core takes it.
pub(crate) fn decided(
    decide: impl FnOnce(&Call, &mut ServerRef<'_>) -> Decision + 'static,
) -> Box<dyn Any> {
    let decided: Box<dyn Decided> = Box::new(Deciding(decide));
    Box::new(decided)
}

impl<F: FnOnce(&Call, &mut ServerRef<'_>) -> Decision> Decided for Deciding<F> {
    fn go_on(self: Box<Self>, turn: &mut Turn<'_>, deferred: DeferredAnswer) -> AfterRequest {
        // It may defer once more, and so may the upgrade hooks that follow.
        deferred.call.deferral().open(turn.connection.state.id.0, &turn.shared.deferrals);
        let decision = caught(|| (self.0)(&deferred.call, &mut ServerRef { shared: turn.shared }));
        // What it asked of sessions is done before their next messages.
        turn.shared.has_deferred_work = true;
        ResumedRequest { http: HttpTurn { turn } }.follow(deferred, decision)
    }
}

/// A connection's turn in which a request has got its answer at last.
struct ResumedRequest<'t, 'a> {
    http: HttpTurn<'t, 'a>,
}

impl ResumedRequest<'_, '_> {
    fn follow(
        &mut self,
        deferred: DeferredAnswer,
        decision: Result<Decision, Panicked>,
    ) -> AfterRequest {
        let (terms, kind) = (deferred.terms, deferred.kind);
        let response = match decision {
            Ok(Decision::Accept(accept)) => return self.accept(deferred, accept),
            Ok(Decision::Answer(response)) => response,
            Err(panic) => {
                let path = Quoted(deferred.call.path()).to_string();
                self.http.responder().internal_error(&path, panic)
            }
        };
        let call = &deferred.call;
        let response = match kind {
            RequestKind::Page => self.http.finish_page(call, response, false),
            RequestKind::Body => self.http.finish_body(call, response),
            RequestKind::Refusal(_) | RequestKind::Upgrade(_) | RequestKind::Stream(_) => response,
        };
        self.http.responder().answer(terms, call, response, kind)
    }

    fn accept(&mut self, mut deferred: DeferredAnswer, accept: Accept) -> AfterRequest {
        let (headers, count) = deferred.take_hooks();
        let (terms, call) = (deferred.terms, deferred.call.clone());
        // Headers stand in the order of the hooks; the one that has deferred is the last of these.
        let mut hooks = HooksDone { accepted: Accept::with_headers(headers), count };
        if let Err(refusal) = hooks.accepted.extend(accept) {
            return self.http.responder().answer(terms, &call, refusal, deferred.kind);
        }
        // A session would be told to end as soon as it has begun.
        if self.http.turn.shared.draining {
            self.http.turn.shared.stats.refused_stopping += 1;
            let refusal = Response::refusal(503);
            let refusal = self.http.responder().temporary_refusal(call.head(), refusal);
            let refusal = self.http.responder().filtered(&call, refusal);
            return self.http.responder().refuse_request(
                terms,
                call.head(),
                refusal,
                reason::STOPPING,
            );
        }
        match deferred.kind {
            RequestKind::Upgrade(route) => {
                let key = call.head().first("sec-websocket-key").unwrap_or_default();
                let accept_key = AcceptKey::of(key); // it was looked at before
                self.http.admit_upgrade(terms, &accept_key, route, call, hooks)
            }
            RequestKind::Stream(route) => {
                let http = HttpTurn { turn: self.http.turn };
                StreamRequest { http }.admit(terms, route, &call, hooks)
            }
            kind => {
                let mistake =
                    "Pending::accept is for upgrades: a page is answered by Pending::answer";
                self.http.responder().answer(terms, &call, Response::faulty(mistake), kind)
            }
        }
    }
}

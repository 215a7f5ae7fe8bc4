//! One turn of a request whose body is on its way: let in by its head, taken as it comes, answered.

use std::rc::Rc;

use crate::app::body_intake::{BodyEndpoint, IntakeNext};
use crate::app::call::Call;
use crate::app::response::Response;
use crate::context::loop_state::LoopState;
use crate::protocol::body::BodyFault;
use crate::protocol::framing::BodyFraming;
use crate::structures::ids::BodyId;
use crate::structures::progress::Window;
use crate::words::quoted::Quoted;
use crate::words::time::Time;

use crate::core::answer_terms::AnswerTerms;
use crate::core::connection::Disposal;
use crate::core::deferred_answer::RequestKind;
use crate::core::losses::Loss;
use crate::core::panics::{Panicked, caught, drop_caught};
use crate::core::receiving::Receiving;
use crate::core::request_admission::RequestAdmission;
use crate::core::request_log::reason;
use crate::core::responder::{AfterRequest, Responder};
use crate::core::turn::Turn;

/// What a call of the application's code for a body led to.
type Outcome<T> = Result<Result<T, BodyFault>, Panicked>;

/// A connection's turn while the body of a request is on its way.
pub(super) struct BodyTurn<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

impl<'a> BodyTurn<'_, 'a> {
    /// Lets a request in whose body is on its way, or refuses it by its head.
    pub(super) fn begin(
        &mut self,
        terms: AnswerTerms,
        endpoint: &Rc<dyn BodyEndpoint>,
        call: Call,
    ) -> AfterRequest {
        let foreign =
            endpoint.origins().and_then(|rules| self.admission().foreign_to_cors(rules, &call));
        if let Some(refusal) = foreign {
            return self.responder().respond(terms, refusal);
        }
        // A trailer is a head's line that comes late: the same limit holds for it.
        let max_overhead = self.turn.shared.limits.max_head_bytes;
        let intake = match caught(|| endpoint.begin(&call, max_overhead)) {
            Ok(Ok(intake)) => intake,
            Ok(Err((response, why))) => {
                let kind = RequestKind::Refusal(why);
                return self.responder().answer(terms, &call, response, kind);
            }
            Err(panic) => return self.answer_panic(terms, &call, panic),
        };
        let id = BodyId {
            key: self.turn.connection.state.id.0,
            request: self.turn.shared.stats.requests_total.get(),
        };
        // The factory of a handler has run: from here on the request has to be brought to an end.
        let mut receiving = Receiving {
            owes_continue: terms.expects_continue() && intake.rest() != BodyFraming::None,
            intake,
            call,
            terms,
            id,
            window: Window::begin_at(self.turn.shared.now, 0, 0),
            paused_since: None,
            resumed: false,
            peer_ended: None,
        };
        receiving.begin_window(self.turn.shared.now);
        if receiving.intake.rest() != BodyFraming::None {
            self.put_back(Box::new(receiving));
            return AfterRequest::Http;
        }
        let outcome = receiving.take(&mut [], self.turn.shared);
        let outcome = outcome.map(|taken| taken.map(|(_, next)| next));
        self.follow(Box::new(receiving), outcome)
    }

    /// Takes the body's part of some bytes: how many they are, and what became of the request.
    pub(super) fn bytes(&mut self, input: &mut [u8]) -> (usize, AfterRequest) {
        let Some(mut receiving) = self.take() else { return (0, AfterRequest::Http) };
        if input.is_empty() {
            if std::mem::take(&mut receiving.owes_continue) {
                self.responder().write_continue();
            }
            self.put_back(receiving);
            return (0, AfterRequest::Http);
        }
        // RFC 9110 section 10.1.1: a server "MAY omit sending a 100 (Continue) response if it has already
        // received some or all of the content".
        receiving.owes_continue = false;
        match receiving.take(input, self.turn.shared) {
            Ok(Ok((bytes, next))) => (bytes, self.follow(receiving, Ok(Ok(next)))),
            failed => (0, self.follow(receiving, failed.map(|fault| fault.map(|(_, next)| next)))),
        }
    }

    /// Goes on with a body that was paused.
    pub(super) fn resume(&mut self) -> AfterRequest {
        let Some(mut receiving) = self.take() else { return AfterRequest::Http };
        receiving.resumed = false;
        let paused_since = receiving.paused_since.take();
        // What a sender left behind that is gone is being taken: it is waited for from here.
        receiving.peer_ended = receiving.peer_ended.map(|_| self.turn.shared.now);
        // What it sent in the meantime was not read: it has so much more time. Anew it would begin with each
        // piece, however small.
        if let Some(since) = paused_since {
            let since = since.max(receiving.window.since());
            receiving.window.delay(self.turn.shared.now.since(since));
        }
        let outcome = receiving.resume(self.turn.shared).map(Ok);
        self.follow(receiving, outcome)
    }

    /// Does what follows some bytes of a body.
    fn follow(
        &mut self,
        mut receiving: Box<Receiving>,
        outcome: Outcome<IntakeNext>,
    ) -> AfterRequest {
        match outcome {
            Ok(Ok(IntakeNext::More)) => {
                self.put_back(receiving);
                AfterRequest::Http
            }
            Ok(Ok(IntakeNext::Paused)) => {
                // From now on the socket is not read, so that its sender is slowed down.
                receiving.paused_since = Some(self.turn.shared.now);
                self.put_back(receiving);
                AfterRequest::Http
            }
            Ok(Ok(IntakeNext::Answer(response))) => {
                let response = self.responder().made(&receiving.call, response);
                self.turn.log().page(&receiving.call, &response);
                let (call, terms) = (receiving.call.clone(), receiving.terms_now());
                self.let_go(receiving);
                self.responder().answer(terms, &call, response, RequestKind::Body)
            }
            // Where the next request begins is not known any more.
            Ok(Err(fault)) => {
                self.refuse(receiving, Response::refusal(fault.status()), reason::BODY_FAULT)
            }
            Err(panic) => {
                // How much of the input was the body's went with the panic: nothing behind it is read.
                let (call, terms) = (receiving.call.clone(), receiving.terms_now().last());
                self.let_go(receiving);
                self.answer_panic(terms, &call, panic)
            }
        }
    }

    fn answer_panic(&mut self, terms: AnswerTerms, call: &Call, panic: Panicked) -> AfterRequest {
        call.deferral().close();
        let fault = self.responder().internal_error(&Quoted(call.path()).to_string(), panic);
        let response = self.responder().filtered(call, fault);
        self.responder().respond(terms, response)
    }

    /// Refuses a request whose body has not come whole, and with which its connection ends.
    fn refuse(
        &mut self,
        receiving: Box<Receiving>,
        refusal: Response,
        why: &'static str,
    ) -> AfterRequest {
        let call = receiving.call.clone();
        self.let_go(receiving);
        let response = self.responder().filtered(&call, refusal);
        let terms = AnswerTerms::of(call.head()).last();
        self.responder().refuse_request(terms, call.head(), response, why)
    }

    fn responder(&mut self) -> Responder<'_, 'a> {
        Responder { turn: self.turn }
    }

    fn admission(&mut self) -> RequestAdmission<'_, 'a> {
        RequestAdmission { turn: self.turn }
    }

    fn take(&mut self) -> Option<Box<Receiving>> {
        self.turn.connection.http().and_then(|http| http.receiving.take())
    }

    fn put_back(&mut self, receiving: Box<Receiving>) {
        let Some(http) = self.turn.connection.http() else { return self.let_go(receiving) };
        http.receiving = Some(receiving);
        self.turn.connection.state.timing_changed = true;
    }

    /// The handler is the application's, and so is its drop.
    fn let_go(&mut self, receiving: Box<Receiving>) {
        drop_caught("the handler of a body", receiving);
        self.turn.connection.state.timing_changed = true;
    }

    /// The bytes of a body, or who takes them, may be out of time.
    pub(super) fn timeout(&mut self) {
        let (now, least) = (self.turn.shared.now, self.turn.least());
        let times = self.turn.connection.pause_times(&self.turn.shared.limits, self.turn.options());
        let Some(http) = self.turn.connection.http() else { return };
        let Some(receiving) = http.receiving.as_deref_mut() else { return };
        if receiving.deadline(least, times).is_none_or(|at| at > now) {
            return;
        }
        // Nobody is there to be told.
        if receiving.peer_ended.is_some() && receiving.paused_since.is_some() {
            self.turn.lose(Loss::Gone);
            return self.turn.drop_socket(Disposal::Close);
        }
        let (came, rest) = receiving.position();
        if receiving.paused_since.is_none() && receiving.window.look(now, came, rest, least) {
            self.turn.connection.state.timing_changed = true;
            return;
        }
        let (status, why) = match receiving.paused_since {
            Some(_) => (503, reason::PAUSED),
            None => (408, reason::SLOW_BODY),
        };
        self.turn.shared.stats.timeouts_message += 1;
        let Some(receiving) = self.take() else { return };
        if receiving.paused_since.is_some() {
            // What comes now is read and dropped, and the end of the connection is seen.
            self.turn.shared.to_resume.push(receiving.id.key.index);
        }
        self.refuse(receiving, Response::refusal(status), why);
    }

    /// Its memory is wanted.
    pub(super) fn evict(&mut self) {
        let Some(receiving) = self.take() else { return };
        let refusal = Response::refusal(503).header("Retry-After", "1");
        self.refuse(receiving, refusal, reason::NO_MEMORY);
    }
}

/// What the application does with it.
impl Receiving {
    fn take(&mut self, input: &mut [u8], shared: &mut LoopState) -> Outcome<(usize, IntakeNext)> {
        let Self { intake, call, id, .. } = self;
        caught(|| intake.take(call, input, shared, *id))
    }

    fn resume(&mut self, shared: &mut LoopState) -> Result<IntakeNext, Panicked> {
        let Self { intake, id, .. } = self;
        caught(|| intake.resume(shared, *id))
    }

    /// Its bytes have to move from now on.
    pub(super) fn begin_window(&mut self, now: Time) {
        let (came, rest) = self.position();
        self.window = Window::begin_at(now, came, rest);
    }

    /// What decides how it is answered, now that some of its body has come.
    fn terms_now(&self) -> AnswerTerms {
        self.terms.with_rest(self.intake.rest(), self.owes_continue)
    }
}

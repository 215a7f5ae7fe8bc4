//! The one place that answers a request: whether the connection goes on behind it, and what becomes of
//! the request's body (RFC 9110 section 10.1.1, RFC 9112 section 9.3).

use std::io;
use std::time::Duration;

use log::Level;

use crate::app::call::Call;
use crate::app::deferral::{Begun, Waiting};
use crate::app::response::{Owed, Persistence, Response};
use crate::app::response_on_loop::Making;
use crate::context::detached::Detached;
use crate::context::loop_state::ServerRef;
use crate::context::work::PAGE_WORK;
use crate::protocol::framing::{BodyFraming, Expectation};
use crate::protocol::head::RequestHead;
use crate::protocol::server_sent_events::{CONTENT_TYPE, HEADERS};
use crate::words::quoted::Quoted;

use crate::core::answer_terms::AnswerTerms;
use crate::core::connection::{Disposal, Stage};
use crate::core::deferred_answer::{DeferredAnswer, RequestKind};
use crate::core::http_stage::Answering;
use crate::core::losses::Loss;
use crate::core::panics::{Panicked, caught, drop_caught};
use crate::core::request_log::reason;
use crate::core::streamed_body::StreamedAnswer;
use crate::core::turn::{Reading, Turn};

/// An answer of so many bytes may be on its way for longer than the next request is waited for.
const LONG_ANSWER_BYTES: usize = 64 << 10;

/// What of a request's body is read, once it has its final answer, so that the connection can go on.
const PASSED_OVER_MAX: u64 = 64 << 10;

/// What the log says of an answer that nobody will give.
const NOT_DEFERRED: &str =
    "Response::deferred was returned where Call::defer was not called, or by a status page";

/// What a request made of its connection.
pub(super) enum AfterRequest {
    /// It awaits the next request.
    Http,
    /// The rest of the answer is on its way out; further requests wait.
    Streaming(Reading),
    /// It is a session now.
    Session,
    /// It leaves the loop.
    Detached(Box<dyn FnOnce(Detached)>),
    /// It ends.
    Over,
}

/// A connection's turn while a request of it is answered.
pub(super) struct Responder<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

impl Responder<'_, '_> {
    /// Writes an answer, and arranges for the request's body to be passed over.
    pub(super) fn respond(&mut self, terms: AnswerTerms, response: Response) -> AfterRequest {
        // Before the answer is written, which says whether the connection goes on.
        let (terms, skip) = Self::behind_body(terms);
        let response = self.affordable(response);
        let is_long = response.is_long(self.turn.shared.tx_flush_bytes);
        // RFC 9112 section 6.3: without a length and without chunks, the end of the connection is that of the
        // body.
        let ends_it = is_long && !terms.chunked && response.is_endless();
        let persistence = match self.turn.shared.draining || ends_it {
            true => Persistence::Close,
            false => terms.persistence,
        };
        let goes_on = persistence != Persistence::Close;
        let head_only = terms.head_only || is_long;
        self.write_response(&response, persistence, terms.chunked, head_only);
        // RFC 9110 section 9.3.2: an answer to HEAD has the length and no body.
        let body = match is_long {
            true if terms.head_only => {
                drop_caught("an answer", response); // what would have made it is the application's
                None
            }
            true => response.into_long_body(),
            false => None,
        };
        let Stage::Http(http) = &mut self.turn.connection.stage else { return AfterRequest::Over };
        // A body that is streamed ends the connection behind its last piece.
        if !goes_on && body.is_none() {
            self.turn.finish();
            return AfterRequest::Over;
        }
        http.skip = skip;
        http.has_answered = true;
        // What is left of the body, and the wait for the next head, have their own time, however long this
        // request took to come.
        http.since = self.turn.shared.now;
        let Some(body) = body else {
            // Else the next deadline is later than what the wheel is armed for.
            let limits = &self.turn.shared.limits;
            self.turn.connection.state.timing_changed |=
                skip > 0 || limits.keep_alive_timeout < limits.handshake_timeout;
            return AfterRequest::Http;
        };
        let answer = StreamedAnswer::new(body, terms.chunked, !goes_on);
        http.answering = Some(Box::new(Answering::Streamed(answer)));
        self.turn.shared.work.add(PAGE_WORK);
        let reading = self.send_body();
        match &self.turn.connection.stage {
            Stage::Http(http) if http.answering.is_some() => AfterRequest::Streaming(reading),
            Stage::Http(_) => AfterRequest::Http,
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => AfterRequest::Over,
        }
    }

    /// What a body behind the head makes of the connection, and how many bytes of it are to be passed over.
    fn behind_body(terms: AnswerTerms) -> (AnswerTerms, u64) {
        match terms.body {
            BodyFraming::None => (terms, 0),
            // RFC 9110 section 10.1.1: a client that gets its final answer may leave its body out, or
            // may be sending it already. Which, only the end of the connection makes clear.
            _ if terms.expectation != Expectation::None => (terms.last(), 0),
            BodyFraming::Length(length) if length <= PASSED_OVER_MAX => (terms, length),
            BodyFraming::Length(_) | BodyFraming::Chunked => (terms.last(), 0),
        }
    }

    /// The answer itself, or one that says that there is no memory for it. Better at once than in the
    /// middle, where only a reset is left.
    fn affordable(&self, response: Response) -> Response {
        let (bytes, most) = (response.bytes_held(), self.turn.shared.limits.process_bytes);
        if bytes <= self.turn.shared.tx_flush_bytes
            || bytes <= most.saturating_sub(self.turn.shared.memory())
        {
            return response;
        }
        if bytes > most {
            self.turn.log().error(("answer over process_bytes", 500), || {
                format!(
                    "an answer of {bytes} bytes gets 500: process_bytes is {most}. Response::file has \
                     no such limit"
                )
            });
            return Response::refusal(500);
        }
        self.turn.shared.warnings.note("answer over budget", self.turn.shared.now, || {
            format!("an answer of {bytes} bytes gets 503: of process_bytes so much is not left")
        });
        Response::refusal(503).header("Retry-After", "1")
    }

    /// Sends the file that is on its way, if there is one: until it is out, the socket takes no
    /// more, or this connection has had its share of the turn. At most one piece waits in the
    /// outbox, whatever the size of the file.
    pub(super) fn send_body(&mut self) -> Reading {
        loop {
            self.turn.flush();
            let blocked = self.turn.connection.state.waiting().is_some();
            let Stage::Http(http) = &mut self.turn.connection.stage else {
                return Reading::Continue;
            };
            let Some(answer) = http.streamed() else { return Reading::Continue };
            if answer.is_over() {
                let is_last = answer.is_last;
                // What has made it is the application's.
                drop_caught("an answer", http.answering.take());
                if is_last {
                    self.turn.finish();
                } else {
                    self.turn.progress().watch_answer();
                }
                return Reading::Continue;
            }
            if blocked {
                return Reading::Paused;
            }
            // A fast reader of a large file has its share, like everybody.
            if self.turn.shared.work.is_spent() {
                self.turn.watch_backlog();
                return Reading::Again;
            }
            let out = &mut self.turn.shared.tx;
            let put = caught(|| answer.put_piece(out));
            let put = put.unwrap_or_else(|Panicked(text)| {
                self.turn.shared.warnings.last_panic = Some(text.clone());
                Err(io::Error::other(format!("it panicked: {text}")))
            });
            match put {
                Ok(bytes) => {
                    self.turn.shared.work.add(bytes);
                    self.turn.shared.opaque_prefix = self.turn.shared.tx.len();
                }
                Err(error) => {
                    self.give_up_body(&error);
                    return Reading::Continue;
                }
            }
        }
    }

    /// The rest of an answer cannot be had. What was sent of it looks like an answer in any framing: only a
    /// broken connection says that this is not all.
    #[cold]
    fn give_up_body(&mut self, error: &io::Error) {
        let Stage::Http(http) = &mut self.turn.connection.stage else { return };
        let sent = http.streamed().map_or_else(String::new, |answer| answer.progress());
        self.turn
            .shared
            .warnings
            .note("answer", self.turn.shared.now, || format!("an answer ended at {sent}: {error}"));
        self.turn.lose(Loss::Aborted);
        self.turn.drop_socket(Disposal::Reset);
    }
}

/// What the application makes of its answers.
impl Responder<'_, '_> {
    /// Answers a request as the application wants it: at once, or later.
    pub(super) fn answer(
        &mut self,
        terms: AnswerTerms,
        call: &Call,
        response: Response,
        kind: RequestKind,
    ) -> AfterRequest {
        let response = self.made(call, response);
        if response.is_deferred() {
            return self.defer(terms, call, kind);
        }
        call.deferral().close();
        let response = self.filtered(call, response);
        match kind {
            RequestKind::Page | RequestKind::Body => self.respond(terms, response),
            RequestKind::Refusal(why) => self.refuse_request(terms, call.head(), response, why),
            RequestKind::Upgrade(_) | RequestKind::Stream(_) => {
                self.refuse_request(terms, call.head(), response, reason::HOOK)
            }
        }
    }

    /// An answer as it is, or as it is made with the server.
    pub(super) fn made(&mut self, call: &Call, response: Response) -> Response {
        let (rest, make) = match response.making() {
            Making::Made(response) => return response,
            Making::ToMake(rest, make) => (rest, make),
        };
        // What it asks of sessions is done before their next messages.
        self.turn.shared.has_deferred_work = true;
        match caught(|| make(call, &mut ServerRef { shared: self.turn.shared })) {
            Ok(response) => self.made(call, response).completed_by(rest),
            Err(panic) => self.internal_error(&Quoted(call.path()).to_string(), panic),
        }
    }

    /// Lets the request wait for its answer, which comes later.
    #[cold]
    fn defer(&mut self, terms: AnswerTerms, call: &Call, kind: RequestKind) -> AfterRequest {
        let (refusal, why) = match call.deferral().take() {
            Begun::Waiting(waiting) => return self.await_answer(terms, call, kind, waiting),
            Begun::TooMany => {
                self.turn.shared.stats.deferred_refused += 1;
                let refusal = Response::refusal(503).header("Retry-After", "1");
                (self.temporary_refusal(call.head(), refusal), reason::TOO_MANY_DEFERRED)
            }
            Begun::Nothing => (Response::faulty(NOT_DEFERRED), reason::HOOK),
        };
        let refusal = self.filtered(call, refusal);
        self.refuse_request(terms, call.head(), refusal, why)
    }

    fn await_answer(
        &mut self,
        terms: AnswerTerms,
        call: &Call,
        kind: RequestKind,
        waiting: Box<Waiting>,
    ) -> AfterRequest {
        let now = self.turn.shared.now;
        let Stage::Http(http) = &mut self.turn.connection.stage else { return AfterRequest::Over };
        let deferred = DeferredAnswer::new(call.clone(), terms, kind, waiting, now);
        // It came while the hook still ran: no command will bring it.
        if deferred.is_settled() {
            self.turn.shared.to_resume.push(self.turn.connection.state.id.0.index);
        }
        http.answering = Some(Box::new(Answering::Deferred(deferred)));
        self.turn.connection.state.timing_changed = true;
        AfterRequest::Streaming(Reading::Paused)
    }
}

/// What every answer goes through.
impl Responder<'_, '_> {
    fn write_response(
        &mut self,
        response: &Response,
        persistence: Persistence,
        chunked: bool,
        head_only: bool,
    ) {
        let shared = &mut *self.turn.shared;
        shared.stats.count_answer(response.status_code());
        let date = shared.date.at(shared.now, self.turn.wire);
        response.encode(&mut shared.tx, &Owed { persistence, head_only, chunked, date });
        shared.work.add(shared.tx.len().saturating_sub(shared.opaque_prefix));
        // No frames: where they wait, nothing may be put between these bytes.
        shared.opaque_prefix = shared.tx.len();
        if shared.tx.len() >= LONG_ANSWER_BYTES {
            self.turn.progress().watch_answer();
        }
    }

    /// Asks for a request's body (RFC 9110 section 15.2.1).
    pub(super) fn write_continue(&mut self) {
        let shared = &mut *self.turn.shared;
        shared.tx.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        shared.opaque_prefix = shared.tx.len();
    }

    /// Answers with a status alone and hangs up.
    pub(super) fn refuse(&mut self, status: u16) -> AfterRequest {
        self.refuse_with(&Response::refusal(status))
    }

    /// The same with an answer that says more.
    pub(super) fn refuse_with(&mut self, response: &Response) -> AfterRequest {
        self.write_response(response, Persistence::Close, false, false);
        self.turn.finish();
        AfterRequest::Over
    }

    /// The answer in place of one whose making panicked.
    #[cold]
    pub(super) fn internal_error(&mut self, route: &str, Panicked(text): Panicked) -> Response {
        self.turn
            .log()
            .error(("handler panicked", 500), || format!("{route}: handler panicked: {text}"));
        self.turn.shared.warnings.last_panic = Some(text);
        Response::refusal(500)
    }

    /// An answer as the filters of its path change it. A page for a status is the application's code.
    pub(super) fn filtered(&mut self, call: &Call, response: Response) -> Response {
        let Some(filters) = &self.turn.routes.filters else { return response };
        match caught(|| filters.change(call, response)) {
            Ok(response) => match self.made(call, response) {
                deferred if deferred.is_deferred() => Response::faulty(NOT_DEFERRED),
                response => response,
            },
            Err(panic) => self.internal_error(&Quoted(call.path()).to_string(), panic),
        }
    }

    /// What a request gets that is refused for now: an `EventSource` comes back after an answer of 200
    /// alone, so that one for an event stream gets that, and is told when.
    pub(super) fn temporary_refusal(&mut self, head: &RequestHead, refusal: Response) -> Response {
        let Some(events) = self.turn.routes.events_at(head) else { return refusal };
        let wait = Duration::from_secs(refusal.retry_after().unwrap_or(0));
        let random = self.turn.shared.masks.next_number();
        let mut body = Vec::new();
        events.write_retry(&mut body, wait, random);
        let answer = Response::new(200).header("Content-Type", CONTENT_TYPE).body(body);
        HEADERS.into_iter().fold(answer, |answer, (name, value)| answer.header(name, value))
    }

    /// Answers a request that cannot be served, and says so.
    pub(super) fn refuse_request(
        &mut self,
        terms: AnswerTerms,
        head: &RequestHead,
        response: Response,
        reason: &'static str,
    ) -> AfterRequest {
        let status = response.status_code();
        match response.fault() {
            Some(fault) => {
                self.turn.log().refused_because(Level::Error, status, Some(head), "fault", fault)
            }
            None => self.turn.log().refused(status, Some(head), reason),
        }
        self.respond(terms, response)
    }
}

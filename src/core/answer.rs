//! The one place that answers a request: whether the connection goes on behind it, and what becomes of
//! the request's body (RFC 9110 section 10.1.1, RFC 9112 section 9.3).

use crate::app::response::{Owed, Persistence, Response};
use crate::context::work::PAGE_WORK;
use crate::protocol::framing::{BodyFraming, Expectation};
use crate::protocol::head::RequestHead;

use crate::core::connection::Stage;
use crate::core::http::Next;
use crate::core::progress::LONG_ANSWER_BYTES;
use crate::core::streamed_body::FileAnswer;
use crate::core::turn::Turn;

/// What of a request decides how it is answered; the head itself may be the application's by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    persistence: Persistence,
    head_only: bool,
    body: BodyFraming,
    expectation: Expectation,
}

impl Asked {
    pub(super) fn of(head: &RequestHead) -> Self {
        let framing = &head.framing;
        let persistence = match head.minor_version {
            // What a client sends behind CONNECT may be for whom it wanted to be connected to.
            _ if framing.wants_close() || head.method() == "CONNECT" => Persistence::Close,
            0 if framing.wants_keep_alive() => Persistence::Announced,
            0 => Persistence::Close,
            _ => Persistence::Implied,
        };
        Self {
            persistence,
            head_only: head.method() == "HEAD",
            body: framing.body(),
            // RFC 9110 section 10.1.1: of a request in HTTP/1.0 "MUST ignore that expectation".
            expectation: match head.minor_version {
                0 => Expectation::None,
                _ => framing.expectation(),
            },
        }
    }

    /// The connection is to end whatever the client wants.
    pub(super) fn last(self) -> Self {
        Self { persistence: Persistence::Close, ..self }
    }

    /// Whether it wants what cannot be met: 417.
    pub(super) fn is_unmet(&self) -> bool {
        self.expectation == Expectation::Unknown
    }

    /// Whether a body is on its way that is not worth reading to keep the connection, since no route
    /// takes one: 413.
    pub(super) fn has_long_body(&self, limit: usize) -> bool {
        match self.body {
            _ if self.expectation != Expectation::None => false,
            BodyFraming::None => false,
            BodyFraming::Length(length) => length > limit as u64,
            BodyFraming::Chunked => true,
        }
    }
}

impl Turn<'_> {
    /// Writes an answer, and arranges for the request's body to be passed over.
    pub(super) fn respond(&mut self, asked: Asked, response: Response) -> Next {
        let (asked, skip) = self.behind_body(asked);
        let response = self.affordable(response);
        let is_long = response.is_long(self.shared.tx_flush_bytes);
        let persistence = if self.shared.draining { Persistence::Close } else { asked.persistence };
        let goes_on = persistence != Persistence::Close;
        self.write_response(&response, persistence, asked.head_only || is_long);
        let body = if is_long && !asked.head_only { response.into_long_body() } else { None };
        let Stage::Http(http) = &mut self.connection.stage else { return Next::Over };
        if !goes_on && body.is_none() {
            self.finish();
            return Next::Over;
        }
        http.skip = skip;
        http.has_answered = true;
        http.body = body.map(|body| Box::new(FileAnswer::new(body, !goes_on)));
        if http.body.is_some() {
            self.shared.work.add(PAGE_WORK);
        }
        if http.body.is_none() {
            // Else the next deadline is later than what the wheel is armed for.
            let limits = &self.shared.limits;
            self.connection.state.timing_changed |=
                limits.keep_alive_timeout < limits.handshake_timeout;
            return Next::Http;
        }
        let reading = self.send_file();
        match &self.connection.stage {
            Stage::Http(http) if http.body.is_some() => Next::File(reading),
            Stage::Http(_) => Next::Http,
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => Next::Over,
        }
    }

    /// What a body behind the head makes of the connection, and how many bytes of it are to be passed over.
    fn behind_body(&self, asked: Asked) -> (Asked, u64) {
        let limit = self.shared.limits.max_head_bytes as u64;
        match asked.body {
            BodyFraming::None => (asked, 0),
            // RFC 9110 section 10.1.1: a client that gets its final answer may leave its body out, or
            // may be sending it already. Which, only the end of the connection makes clear.
            _ if asked.expectation != Expectation::None => (asked.last(), 0),
            BodyFraming::Length(length) if length <= limit => (asked, length),
            BodyFraming::Length(_) | BodyFraming::Chunked => (asked.last(), 0),
        }
    }

    /// The answer itself, or one that says that there is no memory for it. Better at once than in the
    /// middle, where only a reset is left.
    fn affordable(&self, response: Response) -> Response {
        let (bytes, most) = (response.bytes_held(), self.shared.limits.process_bytes);
        if bytes <= self.shared.tx_flush_bytes || bytes <= most.saturating_sub(self.shared.memory())
        {
            return response;
        }
        if bytes > most {
            self.note_error(("answer over process_bytes", 500), || {
                format!(
                    "an answer of {bytes} bytes gets 500: process_bytes is {most}. Response::file has \
                     no such limit"
                )
            });
            return Response::refusal(500);
        }
        self.shared.warnings.note("answer over budget", self.shared.now, || {
            format!("an answer of {bytes} bytes gets 503: of process_bytes so much is not left")
        });
        Response::refusal(503).header("Retry-After", "1")
    }

    pub(super) fn write_response(
        &mut self,
        response: &Response,
        persistence: Persistence,
        head_only: bool,
    ) {
        let shared = &mut *self.shared;
        shared.stats.count_answer(response.status_code());
        let date = shared.date.at(shared.now, self.wire);
        response.encode(&mut shared.tx, &Owed { persistence, head_only, date });
        shared.work.add(shared.tx.len().saturating_sub(shared.opaque_prefix));
        shared.opaque_prefix = shared.tx.len();
        if shared.tx.len() >= LONG_ANSWER_BYTES {
            self.watch_answer();
        }
    }

    /// Answers with a status alone and hangs up.
    pub(super) fn refuse(&mut self, status: u16) -> Next {
        self.refuse_with(&Response::refusal(status))
    }

    /// The same with an answer that says more.
    pub(super) fn refuse_with(&mut self, response: &Response) -> Next {
        self.write_response(response, Persistence::Close, false);
        self.finish();
        Next::Over
    }
}

//! A request for an event stream, from its head to the session that it becomes.

use std::borrow::Cow;
use std::time::Duration;

use crate::app::call::Call;
use crate::app::response::Response;
use crate::app::route_config::HooksDone;
use crate::context::work::UPGRADE_WORK;
use crate::protocol::server_sent_events::HEADERS;
use crate::session::event_stream::EventEncoder;
use crate::session::extensions::Pipeline;

use crate::core::answer_terms::AnswerTerms;
use crate::core::deferred_answer::RequestKind;
use crate::core::http_turn::HttpTurn;
use crate::core::responder::AfterRequest;

/// A connection's turn while an event stream is asked for.
pub(super) struct StreamRequest<'t, 'a> {
    pub(super) http: HttpTurn<'t, 'a>,
}

impl StreamRequest<'_, '_> {
    /// Begins an event stream, unless a hook or the Origin forbids it.
    pub(super) fn begin(&mut self, terms: AnswerTerms, route: u16, call: &Call) -> AfterRequest {
        let Some(config) = self.http.turn.routes.route(route) else {
            return self.http.responder().refuse(404); // it resolved, so it is there
        };
        if let Some(refusal) = self.http.admission().foreign_to_cors(&config.origins, call) {
            return self.http.responder().respond(terms, refusal);
        }
        self.admit(terms, route, call, HooksDone::default())
    }

    /// Asks the hooks that are left, and begins the stream.
    pub(super) fn admit(
        &mut self,
        terms: AnswerTerms,
        route: u16,
        call: &Call,
        hooks: HooksDone,
    ) -> AfterRequest {
        let Some(config) = self.http.turn.routes.route(route) else {
            return self.http.responder().refuse(404);
        };
        let Some(events) = config.events.clone() else { return self.http.responder().refuse(404) };
        let (is_head, kind) = (terms.is_head(), RequestKind::Stream(route));
        let admitted = self.http.admit(terms, kind, config, call, || {
            let accepted = config.admit(call, hooks)?;
            // Nobody connects to a session of which only the head was wanted.
            Ok((accepted, if is_head { None } else { config.handler(call) }))
        });
        let (accepted, handler) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        call.deferral().close();
        let headers = self.filtered(call, accepted.headers());
        self.write_head(&*events, &headers, is_head);
        let Some(handler) = handler else {
            self.http.turn.finish();
            return AfterRequest::Over;
        };
        let last = events.last_event(call.header("last-event-id"));
        self.http.turn.shared.last_event =
            last.map(|last| (self.http.turn.connection.state.id, last));
        self.http.turn.connection.state.pipeline = Some(Pipeline::for_events(events));
        self.http.open_session(route, &config.pattern, handler);
        self.http.turn.shared.stats.event_streams_open += 1;
        self.http.turn.shared.stats.event_streams_total += 1;
        self.http.turn.call_and_act(|handler, session| handler.on_connect(session, call));
        self.http.turn.shared.last_event = None;
        AfterRequest::Session
    }

    /// The lines of the head as the filters of the path change them.
    fn filtered<'h>(
        &mut self,
        call: &Call,
        headers: &'h [(String, String)],
    ) -> Cow<'h, [(String, String)]> {
        if self.http.turn.routes.filters.is_none() {
            return Cow::Borrowed(headers);
        }
        // A default header is none for what an event stream has already.
        let answer = HEADERS
            .into_iter()
            .fold(Response::new(200), |it, (name, value)| it.header(name, value));
        let answer = headers.iter().fold(answer, |it, (name, value)| it.header(name, value));
        Cow::Owned(self.http.responder().filtered(call, answer).into_headers())
    }

    /// The head of the answer, and what belongs to no event behind it.
    fn write_head(
        &mut self,
        events: &dyn EventEncoder,
        headers: &[(String, String)],
        is_head: bool,
    ) {
        let shared = &mut *self.http.turn.shared;
        let date = shared.date.at(shared.now, self.http.turn.wire);
        events.write_head(&mut shared.tx, headers, date);
        if !is_head {
            let random = shared.masks.next_number();
            events.write_retry(&mut shared.tx, Duration::ZERO, random);
        }
        shared.opaque_prefix = shared.tx.len();
        shared.work.add(UPGRADE_WORK);
    }
}

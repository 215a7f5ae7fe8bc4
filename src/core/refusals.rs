//! How requests are refused, and how the filters of their path change that.

use crate::app::call::Call;
use crate::app::response::Response;
use crate::app::route_table::Resolution;
use crate::protocol::head::RequestHead;

use crate::core::answer_terms::AnswerTerms;
use crate::core::http_turn::HttpTurn;
use crate::core::request_log::reason;
use crate::core::responder::AfterRequest;

/// A connection's turn in which a request is refused.
pub(super) struct Refusing<'h, 't, 'a> {
    pub(super) http: &'h mut HttpTurn<'t, 'a>,
}

impl Refusing<'_, '_, '_> {
    /// Refuses what is refused whatever the route.
    pub(super) fn refuse_at_once(
        &mut self,
        terms: AnswerTerms,
        head: &RequestHead,
    ) -> Option<AfterRequest> {
        let (status, reason) = if terms.is_unmet() {
            (417, reason::EXPECTATION) // RFC 9110 section 15.5.18
        } else if terms.has_long_body(self.http.turn.shared.limits.max_head_bytes)
            && is_for_no_body(head)
        {
            (413, reason::BODY)
        } else {
            return None;
        };
        Some(self.http.responder().refuse_request(terms, head, Response::refusal(status), reason))
    }

    /// Refuses a request that is not let in at present.
    #[cold]
    pub(super) fn refuse_for_now(
        &mut self,
        terms: AnswerTerms,
        head: RequestHead,
        refusal: Response,
    ) -> AfterRequest {
        // A proxy's connection may carry the requests of others, who are not to suffer.
        let proxied =
            self.http.http().is_some_and(|http| http.proxied && http.over_limit.is_none());
        let terms = if proxied { terms } else { terms.last() };
        let mut refusal = self.http.responder().temporary_refusal(&head, refusal);
        // That of an event stream is for its page to read: without the leave of CORS a browser would take it
        // for the end, and never come back.
        if refusal.status_code() < 400 && self.http.turn.routes.filters.is_some() {
            let call = self.http.call_for(head, Vec::new(), None);
            refusal = self.http.responder().filtered(&call, refusal);
        }
        self.http.responder().respond(terms, refusal)
    }

    /// Answers without a route, as the filters of the path want it.
    pub(super) fn answer_filtered(
        &mut self,
        terms: AnswerTerms,
        head: RequestHead,
        response: Response,
        why: &'static str,
    ) -> AfterRequest {
        // A preflight is answered by a filter: without any this is a refusal, and needs no call.
        if self.http.turn.routes.filters.is_none() {
            return self.http.responder().refuse_request(terms, &head, response, why);
        }
        let call = self.http.call_for(head, Vec::new(), None);
        self.refuse_call(terms, &call, response, why)
    }

    /// The same for a request whose call is made.
    pub(super) fn refuse_call(
        &mut self,
        terms: AnswerTerms,
        call: &Call,
        response: Response,
        why: &'static str,
    ) -> AfterRequest {
        let response = self.http.responder().filtered(call, response);
        if response.status_code() < 400 {
            return self.http.responder().respond(terms, response);
        }
        self.http.responder().refuse_request(terms, call.head(), response, why)
    }

    /// What a request gets for which there is no route, and why.
    pub(super) fn refusal(
        &self,
        head: &RequestHead,
        resolution: Resolution,
    ) -> (Response, &'static str) {
        match resolution {
            Resolution::UnknownMethod => (Response::refusal(501), reason::UNKNOWN_METHOD),
            Resolution::NotFound => (Response::refusal(404), reason::NO_PATH),
            Resolution::MethodNotAllowed => {
                let allowed = self.http.turn.routes.allowed_methods(head.target());
                (Response::refusal(405).header("Allow", allowed), reason::METHOD)
            }
            Resolution::UpgradeRequired => (Response::refusal(426), reason::NOT_AN_UPGRADE),
            Resolution::ProtocolRequired => {
                let why = "no subprotocol on offer is spoken here";
                (Response::refusal_because(400, &why), reason::NO_SUBPROTOCOL)
            }
            _ => (Response::refusal(400), reason::BAD_PATH),
        }
    }

    /// A route wants the socket itself, and there is none that anybody else could use.
    pub(super) fn refuse_to_detach(&mut self, terms: AnswerTerms, call: &Call) -> AfterRequest {
        let why = "only a socket without TLS can be detached";
        let response = Response::refusal_because(501, &why);
        self.refuse_call(terms, call, response, reason::NOT_DETACHABLE)
    }
}

/// Whether a request's body means nothing (RFC 9110 sections 9.3.1 and 9.3.2), and is none of an upgrade,
/// which says so itself.
fn is_for_no_body(head: &RequestHead) -> bool {
    matches!(head.method(), "GET" | "HEAD") && !head.framing.wants_websocket()
}

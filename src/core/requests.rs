//! One request from its head to its answer or its session (RFC 9112; RFC 6455 section 4.2).

use std::net::SocketAddr;
use std::rc::Rc;

use log::debug;

use crate::app::call::{Between, Call};
use crate::app::endpoint::Endpoint;
use crate::app::response::Response;
use crate::app::route_config::{HooksDone, Purpose, RouteConfig};
use crate::app::route_table::{PlainAnswer, Resolution, StatsGuard};
use crate::context::work::{PAGE_WORK, UPGRADE_WORK};
use crate::protocol::extension::header::{ExtensionOffer, offered_extensions};
use crate::protocol::forwarded::Forwarded;
use crate::protocol::framing::BodyFraming;
use crate::protocol::handshake::{self, AcceptKey, Refusal, Upgrade, UpgradeRequest};
use crate::protocol::head::RequestHead;
use crate::session::extensions::Pipeline;
use crate::session::state::Phase;
use crate::words::network::canonical;
use crate::words::quoted::Quoted;

use crate::core::answer_terms::AnswerTerms;
use crate::core::connection::Stage;
use crate::core::deferred_answer::RequestKind;
use crate::core::event_streams::StreamRequest;
use crate::core::http_turn::HttpTurn;
use crate::core::panics::{Panicked, caught};
use crate::core::refusals::Refusing;
use crate::core::request_log::reason;
use crate::core::responder::AfterRequest;

impl<'t, 'a> HttpTurn<'t, 'a> {
    /// Decides one request (RFC 9112; RFC 6455 section 4.2).
    pub(super) fn request(&mut self, head: RequestHead) -> AfterRequest {
        self.turn.shared.stats.requests_total += 1;
        // Now, since the head is moved into the call.
        let terms = AnswerTerms::of(&head);
        if let Some(refusal) = self.admission().refusal(&head) {
            return self.refusing().refuse_for_now(terms, head, refusal);
        }
        if let Some(refused) = self.refusing().refuse_at_once(terms, &head) {
            return refused;
        }
        match handshake::examine(&head) {
            Upgrade::WebSocket(UpgradeRequest { accept_key, protocols }) => {
                match self.turn.routes.resolve(&head, true, &protocols) {
                    Resolution::WebSocket { route, parameters, protocol } => {
                        let call = self.call_for(head, parameters, protocol);
                        self.upgrade(terms, &accept_key, route, call)
                    }
                    resolution => self.answer(terms, head, resolution),
                }
            }
            Upgrade::None => {
                let resolution = self.turn.routes.resolve(&head, false, &[]);
                self.answer(terms, head, resolution)
            }
            // What follows such a head is a body to one reader and frames to another.
            Upgrade::Refused(_) if head.framing.body() != BodyFraming::None => {
                let (terms, response) = (terms.last(), Response::refusal(400));
                self.responder().refuse_request(terms, &head, response, reason::BODY_OF_UPGRADE)
            }
            // RFC 9110 section 7.8: a server may ignore what the request could be upgraded to.
            Upgrade::Refused(Refusal::Method) => {
                let resolution = self.turn.routes.resolve(&head, false, &[]);
                self.answer(terms, head, resolution)
            }
            Upgrade::Refused(refusal) => {
                // A path or method that does not exist says so before the fault of the upgrade.
                match self.turn.routes.resolve(&head, true, &[]) {
                    resolution @ (Resolution::NotFound
                    | Resolution::BadPath
                    | Resolution::MethodNotAllowed
                    | Resolution::UnknownMethod) => self.answer(terms, head, resolution),
                    _ => {
                        let response = Response::refusal(refusal.status());
                        self.refusing().answer_filtered(terms, head, response, reason::HANDSHAKE)
                    }
                }
            }
        }
    }

    /// Answers a request that does not upgrade.
    fn answer(
        &mut self,
        terms: AnswerTerms,
        head: RequestHead,
        resolution: Resolution,
    ) -> AfterRequest {
        if let Some(response) = self.preflight(&head) {
            return self.refusing().answer_filtered(terms, head, response, reason::CORS);
        }
        let (response, why) = match resolution {
            Resolution::Get { handler, parameters } => {
                let call = self.call_for(head, parameters, None);
                let page = self.page(handler, &call);
                return self.responder().answer(terms, &call, page, RequestKind::Page);
            }
            Resolution::Body { route, parameters } => {
                let Some(endpoint) = self.turn.routes.body_endpoint(route) else {
                    return self.responder().refuse(404); // a route that resolved is in the table
                };
                let call = self.call_for(head, parameters, None);
                return self.body().begin(terms, endpoint, call);
            }
            Resolution::EventStream { route, parameters } => {
                let call = self.call_for(head, parameters, None);
                let http = HttpTurn { turn: self.turn };
                return StreamRequest { http }.begin(terms, route, &call);
            }
            Resolution::ServerOptions => {
                let allowed = self.turn.routes.allowed_methods("*");
                let response = Response::new(204).header("Allow", allowed);
                return self.responder().respond(terms, response);
            }
            refused => self.refusing().refusal(&head, refused),
        };
        self.refusing().answer_filtered(terms, head, response, why)
    }

    /// Whether a page of another origin may send what it is about to (the Fetch standard, "CORS-preflight
    /// request"): before the route, which need not take OPTIONS.
    fn preflight(&self, head: &RequestHead) -> Option<Response> {
        let filters = self.turn.routes.filters.as_ref()?;
        if head.method() == "OPTIONS" { filters.preflight(head) } else { None }
    }

    /// What a page answers.
    fn page(&mut self, handler: u16, call: &Call) -> Response {
        let mut looks_for_files = false;
        let answer = match self.turn.routes.plain_answer(handler) {
            Some(PlainAnswer::Handler(answer)) => caught(|| answer(call)),
            Some(PlainAnswer::Folder(answer)) => {
                looks_for_files = true;
                caught(|| answer(call))
            }
            Some(PlainAnswer::Stats(guard)) => self.statistics(guard.as_ref(), call),
            None => Ok(Response::refusal(404)),
        };
        match answer {
            Ok(response) => self.finish_page(call, response, looks_for_files),
            Err(panic) => self.responder().internal_error(&Quoted(call.path()).to_string(), panic),
        }
    }

    /// What is sent of what a page answers.
    pub(super) fn finish_page(
        &mut self,
        call: &Call,
        response: Response,
        mut looks_for_files: bool,
    ) -> Response {
        let response = self.responder().made(call, response);
        looks_for_files |= response.is_file();
        let response = response.for_request(call, || self.turn.wire.since_1970());
        // Of a file that is sent in pieces it is counted where it begins.
        if looks_for_files && !response.is_file() {
            self.turn.shared.work.add(PAGE_WORK);
        }
        self.turn.log().page(call, &response);
        response
    }

    /// What is sent of what a route for bodies answers.
    pub(super) fn finish_body(&mut self, call: &Call, response: Response) -> Response {
        let response = self.responder().made(call, response);
        self.turn.log().page(call, &response);
        response
    }

    /// The server's statistics, if the guard lets the client see them.
    fn statistics(
        &mut self,
        guard: Option<&StatsGuard>,
        call: &Call,
    ) -> Result<Response, Panicked> {
        // It is made anew each time, and costs far more than the request that asks for it.
        self.turn.shared.work.add(PAGE_WORK);
        let pass = guard.map_or(Ok(Ok(())), |guard| caught(|| guard(call)))?;
        let statistics = |()| {
            let mut text = self.turn.shared.snapshot().prometheus();
            if let Some(own) = &self.turn.routes.own_metrics {
                own.write_to(&mut text);
            }
            Response::prometheus(text)
        };
        Ok(pass.map_or_else(|refusal| refusal, statistics))
    }

    pub(super) fn call_for(
        &mut self,
        head: RequestHead,
        parameters: Vec<(String, String)>,
        protocol: Option<String>,
    ) -> Call {
        let between = self.between(&head);
        let call = Call::new(head, parameters, between, protocol);
        call.deferral().open(self.turn.connection.state.id.0, &self.turn.shared.deferrals);
        call
    }

    fn refusing(&mut self) -> Refusing<'_, 't, 'a> {
        Refusing { http: self }
    }

    /// Between whom a request goes.
    fn between(&mut self, head: &RequestHead) -> Between {
        let proxied = self.http().is_some_and(|http| http.proxied);
        let forwarded =
            if proxied { self.turn.admission.forwarded_info(head) } else { Forwarded::default() };
        #[cfg(feature = "tls")]
        let tls = self.turn.wire.tls_peer();
        #[cfg(feature = "tls")]
        let secured = tls.is_some();
        #[cfg(not(feature = "tls"))]
        let secured = false;
        Between {
            remote: self.turn.connection.state.remote_addr(),
            client: self.turn.connection.state.client_addr(),
            local: self.local_addr(),
            at: self.turn.shared.now,
            secure: forwarded.secure.unwrap_or(secured),
            #[cfg(feature = "tls")]
            tls,
            host: forwarded.host.map(Into::into),
        }
    }

    fn local_addr(&mut self) -> SocketAddr {
        // Bound to one address the listener knows it; a system call is needed only behind a wildcard.
        let known = self.http().and_then(|http| http.local_addr);
        canonical(known.unwrap_or_else(|| self.turn.wire.local_addr()))
    }
}

/// Upgrades.
impl HttpTurn<'_, '_> {
    /// Accepts an upgrade, unless a hook or the Origin forbids it, and starts the session.
    fn upgrade(
        &mut self,
        terms: AnswerTerms,
        accept_key: &AcceptKey,
        route: u16,
        call: Call,
    ) -> AfterRequest {
        // A route that resolved is in the table.
        let Some(config) = self.turn.routes.route(route) else {
            return self.responder().refuse(404);
        };
        if let Some(refusal) = self.admission().foreign_origin(&config.origins, &call) {
            return self.responder().respond(terms, refusal);
        }
        if matches!(config.purpose, Purpose::Detached(_)) && !self.turn.wire.can_be_detached() {
            return self.refusing().refuse_to_detach(terms, &call);
        }
        self.admit_upgrade(terms, accept_key, route, call, HooksDone::default())
    }

    /// Asks the hooks that are left, and starts the session.
    pub(super) fn admit_upgrade(
        &mut self,
        terms: AnswerTerms,
        accept_key: &AcceptKey,
        route: u16,
        call: Call,
        hooks: HooksDone,
    ) -> AfterRequest {
        let Some(config) = self.turn.routes.route(route) else {
            return self.responder().refuse(404);
        };
        // RFC 6455 section 9.1: what is malformed fails the handshake.
        let Some(offers) = offers_of(&call, config.extensions.is_empty()) else {
            return self.refusing().refuse_call(
                terms,
                &call,
                Response::refusal(400),
                reason::HANDSHAKE,
            );
        };
        // The factory has its turn before a byte of the answer is written: if it panics, 500.
        let kind = RequestKind::Upgrade(route);
        let admitted = self.admit(terms, kind, config, &call, || {
            let accepted = config.admit(&call, hooks)?;
            Ok((accepted, config.agree(&offers), config.handler(&call)))
        });
        let (accepted, agreed, handler) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        call.deferral().close();
        // A fault of an extension loses the extension, not the session.
        if let Some(fault) = &agreed.fault {
            self.turn.log().error(("extension", 0), || fault.clone());
        }
        self.write_upgrade(accept_key, call.protocol(), &agreed.header, accepted.headers());
        let Some(handler) = handler else { return leaving(config, call) };
        // RFC 6455 section 9.1: in force from the first frame behind the answer.
        self.turn.connection.state.pipeline = Pipeline::for_session(config.delivery, agreed);
        self.open_session(route, &config.pattern, handler);
        self.turn.call_and_act(|handler, session| handler.on_connect(session, &call));
        AfterRequest::Session
    }

    /// What the application makes of a request for a session; the refusal if that is what it wants, or
    /// if it panicked.
    pub(super) fn admit<R>(
        &mut self,
        terms: AnswerTerms,
        kind: RequestKind,
        config: &RouteConfig,
        call: &Call,
        act: impl FnOnce() -> Result<R, Response>,
    ) -> Result<R, AfterRequest> {
        match caught(act) {
            Ok(Ok(admitted)) => Ok(admitted),
            Ok(Err(response)) => Err(self.responder().answer(terms, call, response, kind)),
            Err(panic) => {
                call.deferral().close();
                let response = self.responder().internal_error(&config.pattern, panic);
                let response = self.responder().filtered(call, response);
                Err(self.responder().respond(terms, response))
            }
        }
    }

    /// Gathers the answer that the handshake ends with (RFC 6455 section 4.2.2).
    fn write_upgrade(
        &mut self,
        accept_key: &AcceptKey,
        protocol: Option<&str>,
        extensions: &str,
        headers: &[(String, String)],
    ) {
        let shared = &mut *self.turn.shared;
        let date = shared.date.at(shared.now, self.turn.wire);
        let tx = &mut shared.tx;
        handshake::write_switching_protocols(tx, accept_key, protocol, extensions, headers, date);
        // Where the rest has to wait, it is kept apart from the frames behind it.
        shared.opaque_prefix = shared.tx.len();
        shared.work.add(UPGRADE_WORK);
    }

    /// The connection is a session from here: what follows the request's head are frames.
    pub(super) fn open_session(&mut self, route: u16, pattern: &str, handler: Box<dyn Endpoint>) {
        let shared = &mut *self.turn.shared;
        let state = &mut self.turn.connection.state;
        state.route = route;
        state.phase = Phase::Open;
        // That of an answer before; but of a dialled session the request may be on its way.
        if let Some(extra) = state.extra.as_deref_mut().filter(|extra| extra.outbox.is_empty()) {
            extra.window = None;
        }
        // The first ping period begins with the session, whatever HTTP came before.
        state.ping_base = shared.now;
        state.last_activity = shared.now;
        // The wheel is armed for the request's head: a session's first deadline may be earlier.
        state.timing_changed = true;
        shared.sessions.insert(state.id.0);
        shared.stats.sessions_total += 1;
        shared.stats.sessions_open += 1;
        debug!(target: "wirewheel::session", "{} opened: {} from {}", state.id, pattern,
            state.remote_addr());
        // The stage of HTTP is kept for the next connection, not given to the allocator.
        let session = Stage::Session(handler);
        if let Stage::Http(http) = std::mem::replace(&mut self.turn.connection.stage, session) {
            self.turn.spare_stages.recycle(http);
        }
    }
}

/// The connection of an accepted upgrade leaves the loop, for its route's hook.
fn leaving(config: &RouteConfig, call: Call) -> AfterRequest {
    match &config.purpose {
        Purpose::Detached(hook) => {
            let hook = Rc::clone(hook);
            AfterRequest::Detached(Box::new(move |connection| hook(&call, connection)))
        }
        Purpose::Session(_) => AfterRequest::Over,
    }
}

/// The extensions on offer; `None` if the offer is malformed.
fn offers_of(call: &Call, none_is_installed: bool) -> Option<Vec<ExtensionOffer>> {
    if none_is_installed {
        return Some(Vec::new()); // what a client offers means nothing, well formed or not
    }
    offered_extensions(call.head())
}

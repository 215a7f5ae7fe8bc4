//! Owns one connection's turn: the HTTP half. Request heads in, answers or the upgrade out.

use std::net::SocketAddr;

use log::debug;

use crate::app::call::{Between, Call};
use crate::app::response::Response;
use crate::app::route_table::{PlainAnswer, Resolution, StatsGuard};
use crate::context::work::{HEAD_BYTE_WORK, PAGE_WORK, REQUEST_WORK, UPGRADE_WORK};
use crate::protocol::extension::header::offered_extensions;
use crate::protocol::forwarded::Forwarded;
use crate::protocol::handshake::{self, Upgrade, UpgradeRequest};
use crate::protocol::head::{HeadLimits, HeadStatus, RequestHead, parse_head};
use crate::session::extensions::Pipeline;
use crate::session::state::Phase;
use crate::words::network::canonical;
use crate::words::quoted::Quoted;

use crate::core::admission::ProxyBytes;
use crate::core::answer::Asked;
use crate::core::connection::{Disposal, HttpStage, Stage};
use crate::core::ending::Loss;
use crate::core::panics::{Panicked, caught};
use crate::core::refusals::reason;
use crate::core::turn::{Reading, Turn};

/// What a request made of its connection.
pub(super) enum Next {
    /// It awaits the next request.
    Http,
    /// A file is on its way out; further requests wait.
    File(Reading),
    /// It is a session now.
    Session,
    /// It ends.
    Over,
}

impl Turn<'_> {
    /// Bytes of a connection that is not upgraded.
    pub(crate) fn http_input(&mut self, rx: &mut [u8]) -> Reading {
        let Some(http) = self.http() else { return Reading::Continue };
        http.yielded = false;
        let mut joined = std::mem::take(&mut http.held);
        let begins = joined.is_empty();
        let input = if begins {
            rx
        } else {
            joined.extend_from_slice(rx);
            joined.as_mut_slice()
        };
        let (reading, left) = self.http_bytes(input);
        if left > 0 {
            // What is held already stays where it is: a head that dribbles in is not copied each time.
            let rest = if begins { rest_of(input, left).to_vec() } else { shortened(joined, left) };
            self.hold_requests(rest, begins);
        }
        self.flush();
        reading
    }

    /// The PROXY header, if one is awaited, and requests: how many bytes at the end are to be held.
    fn http_bytes(&mut self, input: &mut [u8]) -> (Reading, usize) {
        match self.http() {
            Some(http) if http.awaits_proxy_header => match self.proxy_header(input) {
                ProxyBytes::Taken(length) => {
                    self.requests(input.get_mut(length..).unwrap_or_default())
                }
                ProxyBytes::Partial => (Reading::Continue, input.len()),
                ProxyBytes::Refused => (Reading::Continue, 0),
            },
            Some(_) => self.requests(input),
            None => (Reading::Continue, 0),
        }
    }

    /// Keeps what cannot be dealt with yet.
    fn hold_requests(&mut self, rest: Vec<u8>, begins: bool) {
        let now = self.shared.now;
        let Some(http) = self.http() else { return };
        http.held = rest;
        // The first bytes of a head behind an answer: from now on it has its own time.
        if begins && http.has_answered && http.body.is_none() {
            http.since = now;
            self.connection.state.timing_changed = true;
        }
    }

    /// Deals with requests, up to where the rest has to wait: how many bytes that is.
    fn requests(&mut self, mut input: &mut [u8]) -> (Reading, usize) {
        loop {
            let blocked = self.connection.state.waiting().is_some();
            let is_spent = self.shared.work.is_spent();
            let now = self.shared.now;
            let limits = HeadLimits {
                max_bytes: self.shared.limits.max_head_bytes,
                max_lines: self.shared.limits.max_head_lines,
            };
            let Some(http) = self.http() else { return (Reading::Continue, 0) };
            let skipped = http.pass_over(input.len());
            input = input.get_mut(skipped..).unwrap_or_default();
            if input.is_empty() {
                return (Reading::Continue, 0);
            }
            if blocked {
                // The peer does not read its answers: its further requests wait.
                return (Reading::Paused, input.len());
            }
            if is_spent {
                http.yielded = true;
                return (Reading::Again, input.len());
            }
            let (head, length) = match parse_head(input, &limits, &mut http.scanned) {
                Ok(HeadStatus::Complete { head, length }) => (head, length),
                Ok(HeadStatus::Partial) => return (Reading::Continue, input.len()),
                Err(error) => {
                    self.refuse_head(error, input);
                    return (Reading::Continue, 0);
                }
            };
            http.scanned = 0;
            http.since = now;
            let head_work = length.saturating_mul(HEAD_BYTE_WORK);
            self.shared.work.add(REQUEST_WORK.saturating_add(head_work));
            input = input.get_mut(length..).unwrap_or_default();
            match self.request(head) {
                Next::Http => self.flush_large(),
                Next::File(reading) => return (reading, input.len()),
                Next::Session => return (self.session_input(input), 0),
                Next::Over => return (Reading::Continue, 0),
            }
        }
    }

    /// The socket has taken what waited: the file goes on, then the requests that wait behind.
    pub(super) fn http_drained(&mut self) -> Reading {
        let reading = self.send_file();
        let now = self.shared.now;
        match self.http() {
            Some(http) if http.body.is_none() => {
                http.since = now; // the time for the next head begins
                self.connection.state.timing_changed = true;
                self.connection.state.release_idle();
                self.http_input(&mut [])
            }
            _ => reading,
        }
    }

    fn local_addr(&mut self) -> SocketAddr {
        let known = self.http().and_then(|http| http.local_addr);
        canonical(known.unwrap_or_else(|| self.wire.local_addr()))
    }

    /// Between whom a request goes.
    fn between(&mut self, head: &RequestHead) -> Between {
        let proxied = self.http().is_some_and(|http| http.proxied);
        let told = if proxied { self.admission.told(head) } else { Forwarded::default() };
        Between {
            remote: self.connection.state.remote_addr(),
            client: self.connection.state.client_addr(),
            local: self.local_addr(),
            secure: told.secure.unwrap_or(false),
            host: told.host.map(Into::into),
        }
    }

    fn http(&mut self) -> Option<&mut HttpStage> {
        match &mut self.connection.stage {
            Stage::Http(http) => Some(http),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => None,
        }
    }

    /// Keeps pipelined answers from piling up unseen.
    fn flush_large(&mut self) {
        if self.shared.tx.len() >= self.shared.tx_flush_bytes {
            self.flush();
        }
    }

    /// Decides one request (RFC 9112; RFC 6455 section 4.2).
    fn request(&mut self, head: RequestHead) -> Next {
        self.shared.stats.requests_total += 1;
        let asked = Asked::of(&head);
        if let Some(refusal) = self.refusal(&head) {
            // A proxy's connection may carry the requests of others, who are not to suffer.
            let proxied = self.http().is_some_and(|http| http.proxied && http.surplus.is_none());
            return self.respond(if proxied { asked } else { asked.last() }, refusal);
        }
        if asked.is_unmet() {
            return self.refuse_request(asked, &head, Response::refusal(417), reason::EXPECTATION);
        }
        if asked.has_long_body(self.shared.limits.max_head_bytes) {
            return self.refuse_request(asked, &head, Response::refusal(413), reason::BODY);
        }
        match handshake::examine(&head) {
            Upgrade::WebSocket(UpgradeRequest { accept_key, protocols }) => {
                match self.routes.resolve(&head, true, &protocols) {
                    Resolution::WebSocket { route, parameters, protocol } => {
                        let call = self.call_for(head, parameters, protocol);
                        self.upgrade(asked, &accept_key, route, call)
                    }
                    resolution => self.answer(asked, head, resolution),
                }
            }
            Upgrade::None => {
                let resolution = self.routes.resolve(&head, false, &[]);
                self.answer(asked, head, resolution)
            }
            Upgrade::Refused(refusal) => {
                // A path or method that does not exist says so before the fault of the upgrade.
                match self.routes.resolve(&head, true, &[]) {
                    resolution @ (Resolution::NotFound
                    | Resolution::BadPath
                    | Resolution::MethodNotAllowed) => self.answer(asked, head, resolution),
                    _ => {
                        let response = Response::refusal(refusal.status());
                        self.refuse_request(asked, &head, response, reason::HANDSHAKE)
                    }
                }
            }
        }
    }

    fn call_for(
        &mut self,
        head: RequestHead,
        parameters: Vec<(String, String)>,
        protocol: Option<String>,
    ) -> Call {
        let between = self.between(&head);
        Call::new(head, parameters, between, protocol)
    }

    /// Answers a request that does not upgrade.
    fn answer(&mut self, asked: Asked, head: RequestHead, resolution: Resolution) -> Next {
        let (response, why) = match resolution {
            Resolution::Get { handler, parameters } => {
                let call = self.call_for(head, parameters, None);
                let response = self.page(handler, &call);
                return self.respond(asked, response);
            }
            Resolution::ServerOptions => {
                let response = Response::new(204).header("Allow", "GET, HEAD, OPTIONS");
                return self.respond(asked, response);
            }
            Resolution::NotFound => (Response::refusal(404), reason::NO_PATH),
            Resolution::MethodNotAllowed => (Response::refusal(405), reason::METHOD),
            Resolution::UpgradeRequired => (Response::refusal(426), reason::NOT_AN_UPGRADE),
            Resolution::ProtocolRequired => {
                let text = "400 Bad Request: no subprotocol on offer is spoken here\n";
                (Response::refusal(400).body(text), reason::NO_SUBPROTOCOL)
            }
            Resolution::BadPath | Resolution::WebSocket { .. } => {
                (Response::refusal(400), reason::BAD_PATH)
            }
        };
        self.refuse_request(asked, &head, response, why)
    }

    /// What a page answers.
    fn page(&mut self, handler: u16, call: &Call) -> Response {
        let said = match self.routes.plain_answer(handler) {
            Some(PlainAnswer::Handler(answer)) => caught(|| answer(call)),
            Some(PlainAnswer::Stats(guard)) => self.figures(guard.as_ref(), call),
            None => Ok(Response::refusal(404)),
        };
        match said {
            Ok(response) => {
                self.note_page(call, &response);
                response
            }
            Err(panic) => self.internal_error(&Quoted(call.path()).to_string(), panic),
        }
    }

    /// The server's figures, if the guard lets the client see them.
    fn figures(&mut self, guard: Option<&StatsGuard>, call: &Call) -> Result<Response, Panicked> {
        self.shared.work.add(PAGE_WORK);
        let pass = guard.map_or(Ok(Ok(())), |guard| caught(|| guard(call)))?;
        let figures = |()| Response::prometheus(self.shared.snapshot().prometheus());
        Ok(pass.map_or_else(|refusal| refusal, figures))
    }

    /// Accepts an upgrade, unless a hook or the Origin forbids it, and starts the session.
    fn upgrade(&mut self, asked: Asked, accept_key: &str, route: u16, call: Call) -> Next {
        let Some(config) = self.routes.route(route) else { return self.refuse(404) };
        if let Some(refusal) = self.foreign_origin(&config.origins, &call) {
            return self.respond(asked, refusal);
        }
        // Where none is installed, what a client offers means nothing, well formed or not.
        let offers = match &config.extensions {
            installed if installed.is_empty() => Some(Vec::new()),
            _ => offered_extensions(call.head()),
        };
        // RFC 6455 section 9.1: what is malformed fails the handshake.
        let Some(offers) = offers else {
            let response = Response::refusal(400);
            return self.refuse_request(asked, call.head(), response, reason::HANDSHAKE);
        };
        // The factory has its turn before a byte of the answer is written: if it panics, 500.
        let admitted = caught(|| {
            let accepted = config.admit(&call)?;
            Ok((accepted, config.agree(&offers), (config.factory)(&call)))
        });
        let (accepted, agreed, handler) = match admitted {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(response)) => {
                return self.refuse_request(asked, call.head(), response, reason::HOOK);
            }
            Err(panic) => {
                let response = self.internal_error(&config.pattern, panic);
                return self.respond(asked, response);
            }
        };
        if let Some(fault) = &agreed.fault {
            self.note_error(("extension", 0), || fault.clone());
        }
        let shared = &mut *self.shared;
        handshake::write_switching_protocols(
            &mut shared.tx,
            accept_key,
            call.protocol(),
            &agreed.header,
            accepted.headers(),
            shared.date.at(shared.now, self.wire),
        );
        self.shared.opaque_prefix = self.shared.tx.len();
        self.shared.work.add(UPGRADE_WORK);
        let state = &mut self.connection.state;
        state.pipeline = Pipeline::for_session(config.raw, agreed);
        state.route = route;
        state.phase = Phase::Open;
        if let Some(extra) = state.extra.as_deref_mut() {
            extra.window = None; // of an answer before
        }
        state.ping_base = self.shared.now;
        state.last_activity = self.shared.now;
        state.timing_changed = true;
        self.shared.sessions.insert(state.id.0);
        self.shared.stats.sessions_total += 1;
        self.shared.stats.sessions_open += 1;
        debug!(target: "wirewheel::session", "{} opened: {} from {}", state.id, config.pattern,
            state.remote_addr());
        let session = Stage::Session(handler);
        if let Stage::Http(http) = std::mem::replace(&mut self.connection.stage, session) {
            self.spare_stages.keep(http);
        }
        self.call_and_act(|handler, session| handler.on_connect(session, &call));
        Next::Session
    }

    /// The time for a request head is over.
    pub(crate) fn http_timeout(&mut self) {
        let now = self.shared.now;
        if self.connection.state.waiting().is_some() {
            // RFC 9112 section 9.5: a peer that does not read its answer may be hung up on.
            if self.is_stuck() {
                self.shared.stats.timeouts_write += 1;
                self.lose(Loss::Stalled);
                self.drop_socket(Disposal::Reset);
            }
            return;
        }
        let Stage::Http(http) = &self.connection.stage else { return };
        if http.body.is_some() {
            return;
        }
        let is_between_requests = http.has_answered && http.held.is_empty();
        if is_between_requests && self.answer_is_on_its_way() {
            return; // silence begins when the peer has it
        }
        let Stage::Http(http) = &self.connection.stage else { return };
        if http.deadline(&self.shared.limits) > now {
            return;
        }
        if !http.has_answered {
            self.shared.stats.timeouts_handshake += u64::from(!http.expired);
        }
        if http.held.is_empty() {
            // Between two requests silence is no fault, and browsers connect in advance: an answer to
            // a request that was not sent would be taken for that of the next one.
            self.finish();
        } else {
            let refusal = match http.surplus {
                Some(surplus) => self.surplus_refusal(surplus, None),
                None => {
                    self.note_refusal(408, None, reason::TOO_SLOW);
                    Response::refusal(408)
                }
            };
            self.refuse_with(&refusal);
        }
    }
}

fn rest_of(bytes: &[u8], left: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(left)..).unwrap_or_default()
}

/// The last `left` bytes, in no more room than is due to them.
fn shortened(mut bytes: Vec<u8>, left: usize) -> Vec<u8> {
    if bytes.capacity() / 4 > left {
        return rest_of(&bytes, left).to_vec();
    }
    bytes.drain(..bytes.len().saturating_sub(left));
    bytes
}

impl HttpStage {
    /// How many of `available` bytes belong to the last request's body.
    #[allow(clippy::arithmetic_side_effects, reason = "passed is at most skip")]
    fn pass_over(&mut self, available: usize) -> usize {
        let passed = self.skip.min(available as u64);
        self.skip -= passed;
        usize::try_from(passed).unwrap_or(available)
    }
}

//! Owns one connection's turn: the HTTP half. Request heads in, answers or the upgrade out.

use std::net::SocketAddr;

use log::debug;

use crate::domain::call::{Between, Call};
use crate::domain::pipeline::Pipeline;
use crate::domain::response::Response;
use crate::domain::route_table::{PlainAnswer, Resolution, RouteTable};
use crate::domain::session_state::Phase;
use crate::protocol::forwarded::Told;
use crate::protocol::handshake::{self, BodyFraming, Upgrade, UpgradeRequest};
use crate::protocol::head::{HeadLimits, HeadStatus, RequestHead, parse_head};
use crate::words::network::canonical;

use super::connection::{Disposal, HttpStage, Stage};
use super::file_answer::FileAnswer;
use super::panics::caught;
use super::refusals::reason;
use super::turn::{Reading, Turn};

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
        let mut joined = std::mem::take(&mut http.held);
        let input = if joined.is_empty() {
            rx
        } else {
            joined.extend_from_slice(rx);
            joined.as_mut_slice()
        };
        let Some(http) = self.http() else { return Reading::Continue };
        let input = if http.awaits_proxy_header {
            let Some(length) = self.proxy_header(input) else {
                self.flush();
                return Reading::Continue;
            };
            input.get_mut(length..).unwrap_or_default()
        } else {
            input
        };
        let reading = self.requests(input);
        self.flush();
        reading
    }

    fn requests(&mut self, mut input: &mut [u8]) -> Reading {
        loop {
            let blocked = self.connection.state.waiting().is_some();
            let now = self.shared.now;
            let limits = HeadLimits {
                max_bytes: self.shared.limits.max_head_bytes,
                max_lines: self.shared.limits.max_head_lines,
            };
            let Some(http) = self.http() else { return Reading::Continue };
            let skipped = http.pass_over(input.len());
            input = input.get_mut(skipped..).unwrap_or_default();
            if input.is_empty() {
                return Reading::Continue;
            }
            if blocked {
                // The peer does not read its answers: its further requests wait.
                http.held = input.to_vec();
                return Reading::Paused;
            }
            let (head, length) = match parse_head(input, &limits, &mut http.scanned) {
                Ok(HeadStatus::Complete { head, length }) => (head, length),
                Ok(HeadStatus::Partial) => {
                    http.held = input.to_vec();
                    return Reading::Continue;
                }
                Err(error) => {
                    self.note_bad_head(error);
                    self.refuse(error.status());
                    return Reading::Continue;
                }
            };
            http.scanned = 0;
            http.since = now;
            input = input.get_mut(length..).unwrap_or_default();
            match self.request(head) {
                Next::Http => self.flush_large(),
                Next::File(reading) => {
                    if let Some(http) = self.http() {
                        http.held = input.to_vec();
                    }
                    return reading;
                }
                Next::Session => return self.session_input(input),
                Next::Over => return Reading::Continue,
            }
        }
    }

    /// The socket has taken what waited: the file goes on, then the requests that wait behind.
    pub(super) fn http_drained(&mut self) -> Reading {
        let reading = self.send_file();
        let now = self.shared.now;
        match self.http() {
            Some(http) if http.file.is_none() => {
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
        let told = if proxied { self.admission.told(head) } else { Told::default() };
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
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "counters of 64 bits, which do not come round in a lifetime"
    )]
    fn request(&mut self, head: RequestHead) -> Next {
        self.shared.stats.requests_total += 1;
        let keep_alive = handshake::keep_alive(&head);
        if let Some(refusal) = self.refusal(&head) {
            // A proxy's connection may carry the requests of others, who are not to suffer.
            let proxied = self.http().is_some_and(|http| http.proxied && http.surplus.is_none());
            return self.respond(&head, &refusal, keep_alive && proxied && !self.shared.draining);
        }
        match handshake::examine(&head) {
            Upgrade::WebSocket(upgrade) => {
                let offered: Vec<&str> = upgrade.protocols.iter().map(String::as_str).collect();
                let routes = self.routes;
                match routes.resolve(&head, true, &offered) {
                    Resolution::WebSocket { route, parameters, protocol } => {
                        let between = self.between(&head);
                        let call = Call::new(head, parameters, between, protocol);
                        self.upgrade(&upgrade, route, call)
                    }
                    resolution => self.answer(routes, head, resolution, keep_alive),
                }
            }
            Upgrade::None => {
                let routes = self.routes;
                let resolution = routes.resolve(&head, false, &[]);
                self.answer(routes, head, resolution, keep_alive)
            }
            Upgrade::Refused(refusal) => {
                // A path or method that does not exist says so before the fault of the upgrade.
                let routes = self.routes;
                match routes.resolve(&head, true, &[]) {
                    resolution @ (Resolution::NotFound
                    | Resolution::BadPath
                    | Resolution::MethodNotAllowed) => {
                        self.answer(routes, head, resolution, keep_alive)
                    }
                    _ => {
                        let response = Response::refusal(refusal.status());
                        self.refuse_request(&head, &response, keep_alive, reason::HANDSHAKE)
                    }
                }
            }
        }
    }

    /// Answers a request that does not upgrade.
    fn answer(
        &mut self,
        routes: &RouteTable,
        head: RequestHead,
        resolution: Resolution,
        keep_alive: bool,
    ) -> Next {
        let (status, why) = match resolution {
            Resolution::Get { handler, parameters } => {
                let between = self.between(&head);
                let call = Call::new(head, parameters, between, None);
                let response = match routes.plain_answer(handler) {
                    Some(PlainAnswer::Handler(answer)) => {
                        let answer = caught(|| answer(&call));
                        answer.unwrap_or_else(|panic| self.internal_error(call.path(), panic))
                    }
                    Some(PlainAnswer::Stats) => {
                        Response::prometheus(self.shared.snapshot().prometheus())
                    }
                    None => return self.refuse(404),
                };
                self.note_page(&call, &response);
                return self.respond(call.head(), &response, keep_alive);
            }
            Resolution::NotFound => (404, reason::NO_PATH),
            Resolution::MethodNotAllowed => (405, reason::METHOD),
            Resolution::UpgradeRequired => (426, reason::NOT_AN_UPGRADE),
            Resolution::ProtocolRequired => {
                let refusal = Response::refusal(400)
                    .body("400 Bad Request: no subprotocol on offer is spoken here\n");
                return self.refuse_request(&head, &refusal, keep_alive, reason::NO_SUBPROTOCOL);
            }
            Resolution::BadPath | Resolution::WebSocket { .. } => (400, reason::BAD_PATH),
        };
        self.refuse_request(&head, &Response::refusal(status), keep_alive, why)
    }

    /// Writes an answer, and arranges for the request's body to be passed over.
    pub(super) fn respond(
        &mut self,
        head: &RequestHead,
        response: &Response,
        keep_alive: bool,
    ) -> Next {
        let limit = self.shared.limits.max_head_bytes as u64;
        let (response, keep_alive, skip) = match handshake::body_framing(head) {
            BodyFraming::None => (response, keep_alive, 0),
            BodyFraming::Length(length) if length <= limit => (response, keep_alive, length),
            // No route takes a body: a long one is not worth reading to keep the connection.
            BodyFraming::Length(_) | BodyFraming::Chunked => {
                self.note_refusal(413, Some(head), reason::BODY);
                (&Response::refusal(413), false, 0)
            }
        };
        let head_only = head.method() == "HEAD";
        self.write_response(response, keep_alive, head_only);
        let file = response.file_body().filter(|_| !head_only && response.has_body());
        if let Some(http) = self.http().filter(|_| keep_alive || file.is_some()) {
            http.skip = skip;
            http.answered = http.answered.saturating_add(1);
            http.file = file.map(|body| FileAnswer::new(body.clone(), !keep_alive));
        } else {
            self.finish(self.options().write_timeout);
            return Next::Over;
        }
        if file.is_none() {
            return Next::Http;
        }
        let reading = self.send_file();
        match self.http() {
            Some(http) if http.file.is_some() => Next::File(reading),
            Some(_) => Next::Http,
            None => Next::Over,
        }
    }

    fn write_response(&mut self, response: &Response, keep_alive: bool, head_only: bool) {
        self.shared.stats.count_answer(response.status_code());
        response.encode(&mut self.shared.tx, keep_alive, head_only);
        self.shared.opaque_prefix = self.shared.tx.len();
    }

    /// Answers with a status alone and hangs up.
    pub(super) fn refuse(&mut self, status: u16) -> Next {
        self.write_response(&Response::refusal(status), false, false);
        self.finish(self.shared.limits.close_timeout);
        Next::Over
    }

    /// Accepts an upgrade, unless a hook or the Origin forbids it, and starts the session.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "counters of 64 bits, which do not come round in a lifetime"
    )]
    fn upgrade(&mut self, upgrade: &UpgradeRequest, route: u16, call: Call) -> Next {
        let Some(config) = self.routes.route(route) else { return self.refuse(404) };
        if let Some(refusal) = self.foreign_origin(&config.origins, &call) {
            return self.respond(call.head(), &refusal, true);
        }
        let offered: Vec<&str> = upgrade.protocols.iter().map(String::as_str).collect();
        // The factory has its turn before a byte of the answer is written: if it panics, 500.
        let admitted = caught(|| {
            let accepted = config.admit(&call, &offered)?;
            let agreed = config.agree(&upgrade.extensions);
            Ok((accepted, agreed, (config.factory)(&call)))
        });
        let (accepted, agreed, handler) = match admitted {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(response)) => {
                return self.refuse_request(call.head(), &response, true, reason::HOOK);
            }
            Err(panic) => {
                let response = self.internal_error(&config.pattern, panic);
                return self.respond(call.head(), &response, true);
            }
        };
        if let Some(fault) = &agreed.fault {
            self.note_error(("extension", 0), || fault.clone());
        }
        handshake::write_switching_protocols(
            &mut self.shared.tx,
            &upgrade.accept_key,
            call.protocol(),
            &agreed.header,
            accepted.headers(),
        );
        self.shared.opaque_prefix = self.shared.tx.len();
        let state = &mut self.connection.state;
        state.pipeline = Pipeline::for_session(config.raw, agreed);
        state.route = route;
        state.phase = Phase::Open;
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
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "counters of 64 bits, which do not come round in a lifetime"
    )]
    pub(crate) fn http_timeout(&mut self) {
        let now = self.shared.now;
        let options = self.connection.state.options(self.options());
        let write_timeout = options.write_timeout;
        let extra = self.connection.state.extra.as_deref();
        if let Some(extra) = extra.filter(|extra| !extra.outbox.is_empty()) {
            // RFC 9112 section 9.5: a peer that does not read its answer may be hung up on.
            if extra.progress.after(write_timeout) <= now {
                self.shared.stats.timeouts_write += 1;
                self.drop_socket(Disposal::Reset);
            }
            return;
        }
        let Stage::Http(http) = &self.connection.stage else { return };
        if http.file.is_some() || http.deadline(&self.shared.limits) > now {
            return;
        }
        if http.answered > 0 && http.held.is_empty() {
            // Between two requests silence is no fault: just hang up.
            self.finish(self.shared.limits.linger_timeout);
        } else {
            self.shared.stats.timeouts_handshake += u64::from(!http.expired);
            self.note_refusal(408, None, reason::TOO_SLOW);
            self.refuse(408);
        }
    }
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

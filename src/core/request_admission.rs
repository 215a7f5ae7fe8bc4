//! The admission of requests: whom each is from, and what it is refused for before its route is looked at.

use std::net::SocketAddr;

use log::Level;

use crate::app::call::Call;
use crate::app::origins::{Judgement, OriginRules};
use crate::app::response::Response;
use crate::protocol::forwarded::{self, Client};
use crate::protocol::head::RequestHead;
use crate::protocol::proxy_protocol::{ProxyStart, parse_proxy_header};
use crate::words::quoted::Quoted;

use crate::core::admission::{OverLimit, Verdict, note_dropped};
use crate::core::connection::{Disposal, Stage};
use crate::core::request_log::reason;
use crate::core::responder::Responder;
use crate::core::turn::Turn;

/// A connection's turn while a request of it is let in or not.
pub(super) struct RequestAdmission<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

/// What became of the bytes in which a PROXY header is awaited.
pub(super) enum ProxyBytes {
    /// It is complete, and took so many of them.
    Taken(usize),
    /// More is to come.
    Partial,
    /// They were none: 400.
    Refused,
}

impl RequestAdmission<'_, '_> {
    /// The answer to a request that is not let in; `None` for one that is.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "64-bit counters, and seconds of a time in microseconds"
    )]
    pub(super) fn refusal(&mut self, head: &RequestHead) -> Option<Response> {
        // Before any limit: nobody is counted for a request that goes elsewhere.
        if self.turn.shared.draining {
            self.turn.shared.stats.refused_stopping += 1;
            self.turn.log().refused(503, Some(head), reason::STOPPING);
            return Some(Response::refusal(503));
        }
        let Stage::Http(http) = &self.turn.connection.stage else { return None };
        match http.over_limit {
            // It was let in for this answer alone, so its request is not looked at.
            Some(over_limit) => return Some(self.over_limit_refusal(over_limit, Some(head))),
            None if http.proxied => {
                if self.learn_client(head) != Verdict::Admitted {
                    return Some(self.over_limit_refusal(OverLimit::Client, Some(head)));
                }
            }
            None => self.warn_of_unlisted_proxy(head),
        }
        let now = self.turn.shared.now;
        let client = || self.turn.connection.state.client_key();
        let Err(next) = self.turn.admission.request(now, client) else { return None };
        self.turn.shared.stats.refused_rate += 1;
        self.note_limit(429, Some(head), reason::RATE);
        // Rounded up: at the second that is named there is a token.
        let wait = next.since(now).as_secs() + 1;
        Some(Response::refusal(429).header("Retry-After", wait.to_string()))
    }

    /// The client of this request, as the trusted proxies before it tell.
    fn learn_client(&mut self, head: &RequestHead) -> Verdict {
        // A proxy's connection stands for one client after another, and counts for the present one.
        self.turn.connection.uncount(self.turn.admission);
        let client = self.turn.admission.forwarded_info(head).client;
        if client == Client::Proxy && forwarded::names_client(head) {
            self.warn_of_other_header();
        }
        self.turn.connection.state.set_client(client);
        if self.turn.admission.is_of_proxy(client) {
            return Verdict::Admitted; // it speaks for itself, as for a health check
        }
        let verdict = self.turn.admission.enter(|| self.turn.connection.state.client_key());
        self.turn.connection.counted = verdict != Verdict::Dropped;
        if verdict == Verdict::Refused {
            // The proxy's connection goes on with requests of others.
            self.turn.connection.uncount(self.turn.admission);
        }
        verdict
    }

    /// What a connection is told that was let in only for that.
    pub(super) fn over_limit_refusal(
        &mut self,
        over_limit: OverLimit,
        head: Option<&RequestHead>,
    ) -> Response {
        let stats = &mut self.turn.shared.stats;
        let reason = match over_limit {
            OverLimit::Server => {
                stats.refused_full += 1;
                reason::NO_PLACE
            }
            OverLimit::Client => {
                stats.refused_address += 1;
                reason::CLIENT
            }
        };
        let response = over_limit.refusal();
        self.note_limit(response.status_code(), head, reason);
        response
    }

    fn note_limit(&self, status: u16, head: Option<&RequestHead>, reason: &'static str) {
        self.turn.log().refused_because(Level::Warn, status, head, reason, reason);
    }

    fn warn_of_other_header(&self) {
        let header = self.turn.admission.proxy_header();
        self.turn.shared.warnings.note("other proxy header", self.turn.shared.now, || {
            let peer = self.turn.connection.state.remote_addr();
            format!(
                "{peer} is trusted and sends a forwarding header, but not the one that counts: \
                 proxy_header is {header:?}"
            )
        });
    }

    fn warn_of_unlisted_proxy(&self, head: &RequestHead) {
        let peer = self.turn.connection.state.remote_addr();
        let is_unlisted = peer.ip().is_loopback() && !self.turn.admission.is_proxy(peer.ip());
        if is_unlisted && self.turn.admission.counts_clients() && forwarded::names_client(head) {
            self.turn.shared.warnings.note("unlisted proxy", self.turn.shared.now, || {
                format!(
                    "{peer} forwards for others, but is not in trusted_proxies: they all count as \
                     one client"
                )
            });
        }
    }
}

/// Pages of others.
impl RequestAdmission<'_, '_> {
    /// The refusal of a request that somebody else's page made, if it is one (RFC 6455 section 10.2). To
    /// be asked before whatever such a page must not do: an upgrade, a stream of events, a method that
    /// changes something. Plain GET, HEAD and OPTIONS pass without being asked about.
    pub(super) fn foreign_origin(&mut self, rules: &OriginRules, call: &Call) -> Option<Response> {
        call.head().first("origin")?; // most have none, and are asked nothing further
        let loopback = call.local_addr().ip().to_canonical().is_loopback();
        match rules.judge(call.head(), call.host(), loopback) {
            Judgement::Pass => None,
            Judgement::PassUnnamed => {
                self.turn.shared.warnings.once("unnamed host", self.turn.shared.now, || {
                    format!(
                        "a page of Host {} may connect since nobody named this server's hosts: name them in \
                         hosts(..), so that a foreign name that is made to point here may not",
                        Quoted(call.host())
                    )
                });
                None
            }
            Judgement::Refuse(reason) => {
                self.turn.log().refused_because(
                    Level::Info,
                    403,
                    Some(call.head()),
                    reason::ORIGIN,
                    &reason,
                );
                let response = Response::refusal_because(403, &reason);
                Some(Responder { turn: self.turn }.filtered(call, response))
            }
        }
    }
}

/// CORS.
impl RequestAdmission<'_, '_> {
    /// The same where CORS may have a list of its own for the path: of what a page may read or send, not of
    /// who opens a WebSocket.
    pub(super) fn foreign_to_cors(&mut self, rules: &OriginRules, call: &Call) -> Option<Response> {
        let filters = self.turn.routes.filters.as_ref();
        match filters.and_then(|filters| filters.allows(call.head())) {
            Some(true) => None,
            Some(false) | None => self.foreign_origin(rules, call),
        }
    }
}

/// The PROXY protocol.
impl RequestAdmission<'_, '_> {
    /// Reads the PROXY header at the start of `input`.
    pub(super) fn proxy_header(&mut self, input: &[u8]) -> ProxyBytes {
        let max_bytes = self.turn.shared.limits.max_head_bytes;
        match parse_proxy_header(input, max_bytes) {
            Ok(ProxyStart::Partial) => ProxyBytes::Partial,
            Ok(ProxyStart::Complete { client, length }) => {
                self.enter_client(client);
                ProxyBytes::Taken(length)
            }
            Err(_) => {
                self.turn.log().refused(400, None, reason::PROXY);
                ProxyBytes::Refused
            }
        }
    }

    fn enter_client(&mut self, client: Option<SocketAddr>) {
        let client = Client::of(client);
        self.turn.connection.state.set_client(client);
        let mut over_limit = None;
        if !self.turn.admission.is_of_proxy(client) {
            let verdict = self.turn.admission.enter(|| self.turn.connection.state.client_key());
            if verdict == Verdict::Dropped {
                let peer = self.turn.connection.state.client_addr();
                note_dropped(self.turn.shared, self.turn.shared.now, peer);
                return self.turn.drop_socket(Disposal::Close);
            }
            self.turn.connection.counted = true;
            if verdict == Verdict::Refused {
                over_limit = Some(OverLimit::Client);
                // Who is only told so has less time to ask.
                self.turn.connection.state.timing_changed = true;
            }
        }
        if let Stage::Http(http) = &mut self.turn.connection.stage {
            http.awaits_proxy_header = false;
            // Over `max_connections` stays what it is, whoever the client turns out to be.
            http.over_limit = http.over_limit.or(over_limit);
        }
    }
}

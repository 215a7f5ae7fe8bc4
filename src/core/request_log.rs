//! The log of requests that are refused: one line a second for each reason and status, however many come.

use std::fmt::{self, Display};

use log::Level;

use crate::app::call::Call;
use crate::app::response::Response;
use crate::context::warnings::{Kind, Target, Warnings};
use crate::protocol::head::RequestHead;
use crate::session::state::SessionState;
use crate::words::quoted::Quoted;
use crate::words::time::Time;

/// What is logged of one connection's requests.
pub(super) struct RequestLog<'t> {
    pub(super) warnings: &'t Warnings,
    pub(super) state: &'t SessionState,
    pub(super) now: Time,
}

/// What a request is refused for, in words for the log. Each is a kind of line of its own.
pub(super) mod reason {
    pub(crate) const NO_PATH: &str = "nothing is registered at this path";
    pub(crate) const BAD_PATH: &str = "the path's encoding is broken";
    pub(crate) const METHOD: &str = "this path does not take this method";
    pub(crate) const UNKNOWN_METHOD: &str = "nothing here knows this method";
    pub(crate) const BODY_FAULT: &str = "its body is malformed, or longer than the route takes";
    pub(crate) const SLOW_BODY: &str = "its body came slower than min_rate";
    pub(crate) const PAUSED: &str = "its body was paused for pause_timeout";
    pub(crate) const BODY_OF_UPGRADE: &str = "an upgrade has no body";
    pub(crate) const NO_MEMORY: &str = "process_bytes is reached";
    pub(crate) const NOT_AN_UPGRADE: &str = "only WebSocket sessions are here, and this request asks for \
        none: a proxy in front has to pass Upgrade and Connection on";
    pub(crate) const NO_SUBPROTOCOL: &str = "no subprotocol on offer is spoken here";
    pub(crate) const HANDSHAKE: &str = "the WebSocket handshake cannot be accepted";
    pub(crate) const ORIGIN: &str = "origin";
    pub(crate) const CORS: &str = "pages of its origin may not: see cors";
    pub(crate) const HOOK: &str = "an upgrade hook refused it";
    pub(crate) const TOO_MANY_DEFERRED: &str = "max_deferred is reached";
    pub(crate) const DROPPED: &str = "the application dropped its deferred answer";
    pub(crate) const LATE: &str = "its deferred answer took longer than defer_timeout";
    pub(crate) const NOT_DETACHABLE: &str = "its connection cannot be detached";
    pub(crate) const BODY: &str = "no route takes a body of this size";
    pub(crate) const EXPECTATION: &str = "it expects what cannot be met";
    pub(crate) const TOO_SLOW: &str = "no complete request head came in time";
    pub(crate) const STOPPING: &str = "the server stops";
    pub(crate) const NO_PLACE: &str = "max_connections is reached";
    pub(crate) const CLIENT: &str = "per_address is reached";
    pub(crate) const RATE: &str = "handshake_rate is reached";
    pub(crate) const PROXY: &str =
        "a trusted proxy has to begin with a PROXY header, and this is none";
}

impl RequestLog<'_> {
    /// Tells the log of a request that is refused, one line a second for each reason and status.
    pub(super) fn refused(&self, status: u16, head: Option<&RequestHead>, reason: &'static str) {
        self.refused_because(Level::Info, status, head, reason, reason);
    }

    /// The same where the reason has more to say than what kind it is.
    pub(super) fn refused_because(
        &self,
        level: Level,
        status: u16,
        head: Option<&RequestHead>,
        kind: &'static str,
        reason: impl Display,
    ) {
        self.warnings.line(level, Target::Server, (kind, status), self.now, || {
            let who = self.who();
            let Some(head) = head else { return format!("{status} to {who}: {reason}") };
            // The query is left out: tokens are often there.
            let path = head.target().split(['?', '#']).next().unwrap_or_default();
            format!("{status} to {who} for {} {}: {reason}", Shown(head.method()), Quoted(path))
        });
    }

    /// Tells the log of a page that the application answers with an error. That may be its everyday
    /// business, so it is for those who look.
    pub(super) fn page(&self, call: &Call, response: &Response) {
        let (status, head) = (response.status_code(), Some(call.head()));
        match response.fault() {
            Some(fault) => self.refused_because(Level::Error, status, head, "fault", fault),
            None if status >= 400 => {
                self.refused_because(Level::Debug, status, head, "page", "the page's own answer");
            }
            None => {}
        }
    }

    /// The client, and through whom it came.
    pub(super) fn who(&self) -> String {
        let state = self.state;
        let (peer, client) = (state.remote_addr(), state.client_addr());
        match (client.ip().is_unspecified(), client == peer) {
            (true, true) => "a peer without an address".to_owned(),
            (true, false) => format!("a client without an address, through {peer}"),
            (false, true) => peer.to_string(),
            (false, false) if peer.ip().is_unspecified() => client.to_string(),
            (false, false) => format!("{client} through {peer}"),
        }
    }

    /// Tells the log of a mistake of the application, or of ours, that a stranger may repeat at will.
    pub(super) fn error(&self, kind: Kind, text: impl FnOnce() -> String) {
        self.warnings.line(Level::Error, Target::Server, kind, self.now, text);
    }
}

/// A method, or what stands in its place.
struct Shown<'a>(&'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token has no character that would have to be escaped, but it may be long.
        f.write_str(self.0.get(..self.0.len().min(16)).unwrap_or_default())
    }
}

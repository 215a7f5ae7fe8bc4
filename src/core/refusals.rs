//! Requests that are refused: what the answer says, and the line in the log that says why.

use std::fmt::{self, Display};

use log::Level;

use crate::app::call::Call;
use crate::app::origins::{Judgement, OriginRules};
use crate::app::response::Response;
use crate::context::warnings::{Kind, Target};
use crate::protocol::foreign;
use crate::protocol::head::RequestHead;
use crate::protocol::head_error::HeadError;
use crate::words::quoted::Quoted;

use crate::core::answer::Asked;
use crate::core::http::Next;
use crate::core::turn::Turn;

/// What a request is refused for, in words for the log. Each is a kind of line of its own.
pub(super) mod reason {
    pub(crate) const NO_PATH: &str = "nothing is registered at this path";
    pub(crate) const BAD_PATH: &str = "the path's encoding is broken";
    pub(crate) const METHOD: &str = "this path takes GET and HEAD alone";
    pub(crate) const NOT_AN_UPGRADE: &str = "only WebSocket sessions are here, and this request asks for \
        none: a proxy in front has to pass Upgrade and Connection on";
    pub(crate) const NO_SUBPROTOCOL: &str = "no subprotocol on offer is spoken here";
    pub(crate) const HANDSHAKE: &str = "the WebSocket handshake cannot be accepted";
    pub(crate) const ORIGIN: &str = "origin";
    pub(crate) const HOOK: &str = "an upgrade hook refused it";
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

impl Turn<'_> {
    /// Tells the log of a request that is refused, one line a second for each reason and status.
    pub(super) fn note_refusal(
        &self,
        status: u16,
        head: Option<&RequestHead>,
        reason: &'static str,
    ) {
        self.note_refusal_because(Level::Info, status, head, reason, reason);
    }

    /// The same where the reason has more to say than what kind it is.
    pub(super) fn note_refusal_because(
        &self,
        level: Level,
        status: u16,
        head: Option<&RequestHead>,
        kind: &'static str,
        reason: impl Display,
    ) {
        self.shared.warnings.line(level, Target::Server, (kind, status), self.shared.now, || {
            let who = self.who();
            let Some(head) = head else { return format!("{status} to {who}: {reason}") };
            // The query is left out: tokens are often there.
            let path = head.target().split(['?', '#']).next().unwrap_or_default();
            format!("{status} to {who} for {} {}: {reason}", Shown(head.method()), Quoted(path))
        });
    }

    /// Tells the log of a page that the application answers with an error. That may be its everyday
    /// business, so it is for those who look.
    pub(super) fn note_page(&self, call: &Call, response: &Response) {
        let (status, head) = (response.status_code(), Some(call.head()));
        match response.fault() {
            Some(fault) => self.note_refusal_because(Level::Error, status, head, "fault", fault),
            None if status >= 400 => {
                self.note_refusal_because(
                    Level::Debug,
                    status,
                    head,
                    "page",
                    "the page's own answer",
                );
            }
            None => {}
        }
    }

    /// The client, and through whom it came.
    pub(super) fn who(&self) -> String {
        let state = &self.connection.state;
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
    pub(super) fn note_error(&self, kind: Kind, text: impl FnOnce() -> String) {
        self.shared.warnings.line(Level::Error, Target::Server, kind, self.shared.now, text);
    }

    /// Answers a request that cannot be served, and says so.
    pub(super) fn refuse_request(
        &mut self,
        asked: Asked,
        head: &RequestHead,
        response: Response,
        reason: &'static str,
    ) -> Next {
        let status = response.status_code();
        match response.fault() {
            Some(fault) => {
                self.note_refusal_because(Level::Error, status, Some(head), "fault", fault)
            }
            None => self.note_refusal(status, Some(head), reason),
        }
        self.respond(asked, response)
    }

    /// The refusal of a request that somebody else's page made, if it is one (RFC 6455 section 10.2). To
    /// be asked before whatever such a page must not do: an upgrade, a stream of events, a method that
    /// changes something. Plain GET, HEAD and OPTIONS pass without being asked about.
    pub(super) fn foreign_origin(&self, rules: &OriginRules, call: &Call) -> Option<Response> {
        call.head().first("origin")?; // most have none, and are asked nothing further
        let loopback = call.local_addr().ip().to_canonical().is_loopback();
        match rules.judge(call.head(), call.host(), loopback) {
            Judgement::Pass => None,
            Judgement::PassUnnamed => {
                self.shared.warnings.once("unnamed host", self.shared.now, || {
                    format!(
                        "a page of Host {} may connect since nobody named this server's hosts: name them in \
                         hosts(..), so that a foreign name that is made to point here may not",
                        Quoted(call.host())
                    )
                });
                None
            }
            Judgement::Refuse(reason) => {
                self.note_refusal_because(
                    Level::Info,
                    403,
                    Some(call.head()),
                    reason::ORIGIN,
                    &reason,
                );
                Some(Response::refusal(403).body(format!("403 Forbidden: {reason}\n")))
            }
        }
    }

    /// Answers what is no head, and says what it is where that can be told.
    pub(super) fn refuse_head(&mut self, error: HeadError, input: &[u8]) -> Next {
        let foreign = if error == HeadError::TooLarge { None } else { foreign::protocol_of(input) };
        let Some(protocol) = foreign else {
            self.note_refusal(error.status(), None, head_reason(error));
            return self.refuse(error.status());
        };
        let why = format_args!("it begins with {protocol}, where plain HTTP/1 is spoken");
        self.note_refusal_because(Level::Warn, 400, None, protocol, why);
        self.refuse(400)
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

fn head_reason(error: HeadError) -> &'static str {
    match error {
        HeadError::Malformed => "this is no HTTP request, or an ambiguous one",
        HeadError::TooLarge => "the head is over max_head_bytes or max_head_lines",
        HeadError::UnsupportedVersion => "this is not HTTP/1.1 or HTTP/1.0",
        HeadError::UnknownCoding => "a transfer coding other than chunked",
    }
}

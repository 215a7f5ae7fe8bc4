//! What of a request decides how it is answered, beside the answer itself (RFC 9110 section 10.1.1, RFC 9112
//! section 9.3).

use crate::app::response::Persistence;
use crate::protocol::framing::{BodyFraming, Expectation};
use crate::protocol::head::RequestHead;

/// What of a request decides how it is answered; the head itself may be the application's by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerTerms {
    pub(super) persistence: Persistence,
    pub(super) head_only: bool,
    /// The client knows chunks (RFC 9112 section 7.1): it speaks HTTP/1.1.
    pub(super) chunked: bool,
    pub(super) body: BodyFraming,
    pub(super) expectation: Expectation,
}

impl AnswerTerms {
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
            chunked: head.minor_version > 0,
            body: framing.body(),
            // RFC 9110 section 10.1.1: of a request in HTTP/1.0 "MUST ignore that expectation".
            expectation: match head.minor_version {
                0 => Expectation::None,
                _ => framing.expectation(),
            },
        }
    }

    /// Whether no more than the head is wanted.
    pub(super) fn is_head(&self) -> bool {
        self.head_only
    }

    /// The connection is to end whatever the client wants.
    pub(super) fn last(self) -> Self {
        Self { persistence: Persistence::Close, ..self }
    }

    /// What is left of its body now. Who was asked for it, or has begun to send it, sends it all.
    pub(super) fn with_rest(self, rest: BodyFraming, owes_continue: bool) -> Self {
        // Only who waits may leave its body out after a final answer.
        let expectation = if owes_continue { self.expectation } else { Expectation::None };
        Self { body: rest, expectation, ..self }
    }

    /// Whether the client waits with its body until it is asked for it.
    pub(super) fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
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

//! A connection that a dialer has made, until it is a session: what its answers amount to.

use crate::protocol::client_handshake::{Asked, read_body};
use crate::protocol::connect_error::ConnectError;
use crate::protocol::head::HeadLimits;
use crate::protocol::response_head::{ResponseFault, ResponseHead, ResponseStatus, parse_response};

/// What is known of it beside the bytes that arrived.
#[derive(Debug, Default)]
pub(crate) struct Dialling {
    /// What the request to the server asked for, and the request; `None` while a proxy is asked.
    pub(super) asked: Option<(Asked, Box<[u8]>)>,
    /// The head of an answer that refuses; its body is awaited.
    refusal: Option<ResponseHead>,
    /// Interim answers so far.
    interim: u8,
    /// TLS is there since this was asked last.
    #[cfg(feature = "tls")]
    pub(super) is_secured: bool,
    /// Bytes have come that were not looked at.
    pub(super) has_input: bool,
}

/// Interim answers (RFC 9110 section 15.2) are passed over, but not for ever.
const INTERIM_MAX: u8 = 16;
/// What may arrive of a refusal before its body is as long as it gets.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// What an answer made of the connection.
pub(super) enum Answered {
    /// More is to come.
    Partial,
    /// The tunnel through the proxy is there.
    Tunnel,
    /// It becomes a session.
    Switched(ResponseHead),
    Redirect(ResponseHead),
    Failed(ConnectError),
}

impl Dialling {
    /// Reads what has arrived of an answer; `scanned` says how far the search for the end of its head has
    /// come.
    pub(super) fn read_answer(
        &mut self,
        unread: &mut Vec<u8>,
        scanned: &mut usize,
        limits: &HeadLimits,
        may_redirect: bool,
    ) -> Answered {
        loop {
            if self.refusal.is_some() {
                return self.read_refusal(unread);
            }
            let (head, length) = match parse_response(unread, limits, scanned) {
                Ok(ResponseStatus::Complete(head, length)) => (head, length),
                Ok(ResponseStatus::Partial) => return Answered::Partial,
                Err(fault) => return Answered::Failed(ConnectError::BadAnswer(words_of(fault))),
            };
            // What follows is the next answer, the body, or frames.
            unread.drain(..length.min(unread.len()));
            *scanned = 0;
            match (head.status(), &self.asked) {
                // RFC 9110 section 9.3.6: "Any 2xx (Successful) response" to CONNECT means a tunnel.
                (200..=299, None) => return Answered::Tunnel,
                (101, Some(_)) => return Answered::Switched(head),
                // RFC 9110 section 15.2: a client "MUST be able to parse one or more 1xx responses".
                (100..=199, _) if self.interim < INTERIM_MAX => {
                    self.interim = self.interim.saturating_add(1);
                }
                (301 | 302 | 303 | 307 | 308, Some(_)) if may_redirect => {
                    return Answered::Redirect(head);
                }
                _ => self.refusal = Some(head),
            }
        }
    }

    /// The refusal whose body is not complete, as far as it has come.
    pub(super) fn take_refusal(&mut self, bytes: &[u8]) -> Option<ConnectError> {
        let head = self.refusal.take()?;
        Some(self.refused(head, bytes))
    }

    /// The refusal, once its body is complete or as long as it gets.
    fn read_refusal(&mut self, bytes: &[u8]) -> Answered {
        let Some(head) = self.refusal.take() else { return Answered::Partial };
        let body = read_body(&head, bytes);
        // Behind chunks of a byte each, what arrives may be much more than what is kept of it.
        if body.is_whole || bytes.len() >= REFUSAL_BYTES_MAX {
            return Answered::Failed(self.refused(head, bytes));
        }
        self.refusal = Some(head);
        Answered::Partial
    }

    fn refused(&self, head: ResponseHead, bytes: &[u8]) -> ConnectError {
        let body = read_body(&head, bytes).bytes;
        let head = Box::new(head);
        match &self.asked {
            None => ConnectError::Proxy { head, body },
            Some(_) => ConnectError::Refused { head, body },
        }
    }
}

fn words_of(fault: ResponseFault) -> String {
    match fault {
        ResponseFault::Malformed => "it is no HTTP/1.1: is this the port of another protocol?",
        ResponseFault::TooLarge => "its head is over max_head_bytes or max_head_lines",
    }
    .into()
}

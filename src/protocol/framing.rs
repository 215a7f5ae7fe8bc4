//! What the lines of a head say about its connection and its body, gathered in one pass over them
//! (RFC 9110 sections 7.6.1, 7.8 and 10.1.1; RFC 9112 sections 3.2, 6 and 9.3; RFC 6455 section 4.2.1).

use crate::protocol::head_error::HeadError;
use crate::protocol::target::is_authority;

/// What follows a head (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
}

/// What `Expect` asks for (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Expectation {
    #[default]
    None,
    /// The client waits with its body until it is asked to send it.
    Continue,
    /// Something that is not known here.
    Unknown,
}

/// What is known of a head's framing; its lines are noted in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each says whether something stood in a line")]
pub(crate) struct Framing {
    hosts: u32,
    lengths: u32,
    length: u64,
    expectation: Expectation,
    /// Two readers could understand it in two ways.
    faulty: bool,
    has_codings: bool,
    /// The last coding so far is chunked.
    chunked: bool,
    other_codings: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    websocket: bool,
    pub(super) websocket_version: Single,
    pub(super) websocket_key: Single,
}

/// Where a line stands that may stand once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Single {
    #[default]
    Nowhere,
    At(u32),
    Several,
}

impl Single {
    fn note(&mut self, number: u32) {
        *self = if *self == Self::Nowhere { Self::At(number) } else { Self::Several };
    }
}

impl Framing {
    /// Takes in the line of that number. The length, which is known, rules out nearly every name.
    #[inline]
    pub(super) fn note(&mut self, number: u32, name: &str, value: &[u8]) {
        let name = name.as_bytes();
        match name.len() {
            4 if is(name, "Host") => {
                self.hosts = self.hosts.saturating_add(1);
                self.faulty |= !is_authority(value);
            }
            6 if is(name, "Expect") => self.note_expect(value),
            7 if is(name, "Upgrade") => {
                // As a rule it is the one token.
                self.websocket |=
                    is(value, "websocket") || tokens(value).any(|token| is(token, "websocket"));
            }
            10 if is(name, "Connection") && is(value, "Upgrade") => self.upgrade = true,
            10 if is(name, "Connection") => self.note_connection(value),
            14 if is(name, "Content-Length") => self.note_length(value),
            17 if is(name, "Sec-WebSocket-Key") => self.websocket_key.note(number),
            17 if is(name, "Transfer-Encoding") => self.note_codings(value),
            21 if is(name, "Sec-WebSocket-Version") => self.websocket_version.note(number),
            _ => {}
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            match token.len() {
                5 => self.close |= is(token, "close"),
                7 => self.upgrade |= is(token, "upgrade"),
                10 => self.keep_alive |= is(token, "keep-alive"),
                _ => {}
            }
        }
    }

    fn note_expect(&mut self, value: &[u8]) {
        for token in tokens(value) {
            let known = is(token, "100-continue") && self.expectation != Expectation::Unknown;
            self.expectation = if known { Expectation::Continue } else { Expectation::Unknown };
        }
    }

    /// Digits alone: a sign, a list, or nothing at all is read in more than one way.
    fn note_length(&mut self, value: &[u8]) {
        self.lengths = self.lengths.saturating_add(1);
        let digits = value.iter().all(u8::is_ascii_digit).then_some(value);
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default();
        self.faulty |= text.is_empty();
        self.length = text.parse().unwrap_or(u64::MAX);
    }

    /// RFC 9112 section 6.1: chunked once, and last. On one line, and without empty members: others read
    /// only the last line, or none that is no list of theirs.
    fn note_codings(&mut self, value: &[u8]) {
        self.faulty |= self.has_codings;
        self.has_codings = true;
        for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            self.faulty |= self.chunked || coding.is_empty();
            self.chunked = is(coding, "chunked");
            self.other_codings |= !self.chunked;
        }
    }

    /// All lines are there: refuses what two readers could understand in two ways.
    pub(super) fn check(&self, minor_version: u8) -> Result<(), HeadError> {
        // RFC 9112 section 3.2: exactly one Host, which only HTTP/1.0 may leave out.
        let hosts = if minor_version == 0 { 0..=1 } else { 1..=1 };
        if self.faulty || !hosts.contains(&self.hosts) || self.lengths > 1 {
            return Err(HeadError::Malformed);
        }
        if self.has_codings {
            // Sections 6.1 and 6.3: HTTP/1.0 has none, a length beside it is a smuggler's, and where
            // chunked is not the last the end is not known.
            if minor_version == 0 || self.lengths > 0 || !self.chunked {
                return Err(HeadError::Malformed);
            }
            if self.other_codings {
                return Err(HeadError::UnknownCoding);
            }
        }
        Ok(())
    }

    /// Whether a line said what host the request is for.
    pub(super) fn has_host(&self) -> bool {
        self.hosts > 0
    }

    /// Whether a line said how long the body is.
    pub(crate) fn has_length(&self) -> bool {
        self.lengths > 0
    }

    pub(crate) fn body(&self) -> BodyFraming {
        match self.length {
            _ if self.has_codings => BodyFraming::Chunked,
            0 => BodyFraming::None,
            length => BodyFraming::Length(length),
        }
    }

    pub(crate) fn expectation(&self) -> Expectation {
        self.expectation
    }

    /// `Connection: close`.
    pub(crate) fn wants_close(&self) -> bool {
        self.close
    }

    /// `Connection: keep-alive`.
    pub(crate) fn wants_keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether WebSocket is what the connection is to be upgraded to.
    #[inline]
    pub(crate) fn wants_websocket(&self) -> bool {
        self.upgrade && self.websocket
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a token is this one, in any case of letters; soonest said where it is written so.
#[inline]
fn is(token: &[u8], name: &str) -> bool {
    token == name.as_bytes() || token.eq_ignore_ascii_case(name.as_bytes())
}

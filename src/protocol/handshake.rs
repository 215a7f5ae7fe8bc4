//! The server's side of the opening handshake (RFC 6455 section 4.2).

use std::collections::HashSet;

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use crate::protocol::framing::BodyFraming;
use crate::protocol::head::RequestHead;
use crate::protocol::token::{ByteSet, is_token};

/// What a request wants, as far as its head alone can tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade<'a> {
    /// Plain HTTP.
    None,
    /// A well-formed opening handshake.
    WebSocket(UpgradeRequest<'a>),
    /// An opening handshake that cannot be accepted.
    Refused(Refusal),
}

/// What the answer to a well-formed handshake needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UpgradeRequest<'a> {
    pub(crate) accept_key: AcceptKey,
    /// The subprotocols on offer, in the client's order.
    pub(crate) protocols: Vec<&'a str>,
}

/// Why a handshake cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// RFC 6455 section 4.4: any version but 13, or none.
    Version,
    /// Section 4.2.1 item 5: not exactly one key of 16 bytes in base64.
    Key,
    /// Section 4.2.1 item 1: "an HTTP/1.1 or higher GET request".
    Method,
    /// A body, subprotocols that are no tokens or stand twice, malformed extensions.
    BadRequest,
}

impl Refusal {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            Self::Key | Self::BadRequest => 400,
            Self::Method => 405,
        }
    }
}

/// The value of `Sec-WebSocket-Accept`: twenty bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptKey([u8; 28]);

impl AcceptKey {
    /// That which answers a key (RFC 6455 section 4.2.2 item 5.4).
    pub(crate) fn of(key: &str) -> Self {
        let hash =
            Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let mut text = [0; 28];
        BASE64.encode_mut(&hash.finalize(), &mut text);
        Self(text)
    }

    #[cfg(any(feature = "client", test))]
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // letters of base64
    }
}

/// Decides what a request wants.
pub(crate) fn examine(head: &RequestHead) -> Upgrade<'_> {
    // RFC 9110 section 7.8: "A server MUST ignore an Upgrade header field that is received in an
    // HTTP/1.0 request". HEAD asks what GET would get if nothing were switched.
    if !head.framing.wants_websocket() || head.minor_version == 0 || head.method() == "HEAD" {
        return Upgrade::None;
    }
    if head.method() != "GET" {
        return Upgrade::Refused(Refusal::Method);
    }
    if head.framing.body() != BodyFraming::None {
        return Upgrade::Refused(Refusal::BadRequest);
    }
    if head.websocket_version() != Some("13") {
        return Upgrade::Refused(Refusal::Version);
    }
    let Some(key) = head.websocket_key().filter(|key| is_key(key)) else {
        return Upgrade::Refused(Refusal::Key);
    };
    let Some(protocols) = offered_protocols(head) else {
        return Upgrade::Refused(Refusal::BadRequest);
    };
    Upgrade::WebSocket(UpgradeRequest { accept_key: AcceptKey::of(key), protocols })
}

/// The letters of base64 (RFC 4648 section 4).
static BASE64_LETTERS: ByteSet = ByteSet::alphanumeric_and(b"+/");

/// 16 bytes in base64: 22 letters, of which the last has only two bits to say, and two `=`.
fn is_key(key: &str) -> bool {
    let Some(letters) = key.strip_suffix("==").filter(|letters| letters.len() == 22) else {
        return false;
    };
    letters.bytes().all(|byte| BASE64_LETTERS.has(byte)) && letters.ends_with(['A', 'Q', 'g', 'w'])
}

/// So many subprotocols are compared one with the other; of more, a table is made.
const COMPARED_MAX: usize = 8;

/// The subprotocols on offer. RFC 6455 section 4.1 item 10: they are tokens and "MUST all be unique
/// strings"; `None` if they are not.
pub(crate) fn offered_protocols(head: &RequestHead) -> Option<Vec<&str>> {
    let mut offered: Vec<&str> = Vec::new();
    let name = "sec-websocket-protocol";
    if head.first(name).is_none() {
        return Some(offered); // as most have it, without a table that costs a seed
    }
    let mut known = HashSet::new();
    for protocol in head.tokens(name) {
        let is_new = if offered.len() < COMPARED_MAX {
            !offered.contains(&protocol)
        } else {
            if known.is_empty() {
                known.extend(offered.iter().copied());
            }
            known.insert(protocol)
        };
        if !is_new || !is_token(protocol) {
            return None;
        }
        offered.push(protocol);
    }
    Some(offered)
}

/// Writes the answer that switches to WebSocket (RFC 6455 section 4.2.2; the order is Ktor's).
///
/// The caller has made sure that none of the texts can end a line.
pub(crate) fn write_switching_protocols(
    out: &mut Vec<u8>,
    accept_key: &AcceptKey,
    protocol: Option<&str>,
    extensions: &str,
    headers: &[(String, String)],
    date: &[u8],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key.0);
    out.extend_from_slice(b"\r\n");
    let mut line = |name: &str, value: &str| {
        for piece in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    };
    if let Some(protocol) = protocol {
        line("Sec-WebSocket-Protocol", protocol);
    }
    if !extensions.is_empty() {
        line("Sec-WebSocket-Extensions", extensions);
    }
    for (name, value) in headers {
        line(name, value);
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        out.extend_from_slice(date);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    /// The handshake of RFC 6455 section 1.3, with one thing changed.
    fn changed(from: &str, to: &str) -> Result<(String, Vec<String>), Option<u16>> {
        let request = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert!(request.contains(from), "{from:?} is not in the request");
        match examine(&head(&request.replacen(from, to, 1))) {
            Upgrade::WebSocket(UpgradeRequest { accept_key, protocols }) => Ok((
                accept_key.as_str().to_owned(),
                protocols.into_iter().map(str::to_owned).collect(),
            )),
            Upgrade::None => Err(None),
            Upgrade::Refused(refusal) => Err(Some(refusal.status())),
        }
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        let protocols = vec!["chat".to_owned(), "superchat".to_owned()];
        assert_eq!(changed("", ""), Ok(("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(), protocols)));
    }

    #[test]
    fn what_is_accepted() {
        for (from, to) in [
            ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
            ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
            ("Upgrade: websocket", "Upgrade: WebSocket"),
            ("Upgrade: websocket", "Upgrade: h2c, websocket"),
            ("Host", "Content-Type: application/json\r\nHost"),
            ("Host", "Content-Length: 0\r\nHost"),
            ("chat, superchat", "chat\r\nSec-WebSocket-Protocol: superchat"),
            ("Sec-WebSocket-Protocol: chat, superchat\r\n", ""),
            ("Sec-WebSocket-Key: ", "Sec-WebSocket-Key:   "),
            ("dGhlIHNhbXBsZSBub25jZQ==", "0123456789abYZ+/++//+w=="),
        ] {
            assert!(changed(from, to).is_ok(), "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn what_is_no_upgrade() {
        for (from, to) in [
            ("Connection: Upgrade", "Connection: keep-alive"),
            ("Upgrade: websocket", "Upgrade: websocket/13"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Upgrade: websocket\r\n", ""),
            ("HTTP/1.1", "HTTP/1.0"), // RFC 9110 section 7.8: MUST be ignored
            ("GET", "HEAD"),
            ("Connection: Upgrade\r\n", ""),
        ] {
            assert_eq!(changed(from, to), Err(None), "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (from, to, status) in [
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12", 426),
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8, 13", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZS4u", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub2 jZQ==", 400),
            ("Host", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost", 400),
            ("GET", "POST", 405),
            ("GET", "get", 405),
            ("Host", "Content-Length: 5\r\nHost", 400),
            ("Host", "Transfer-Encoding: chunked\r\nHost", 400),
            ("chat, superchat", "chat, chat", 400),
            ("chat, superchat", "chat room", 400),
        ] {
            assert_eq!(changed(from, to), Err(Some(status)), "{from:?} -> {to:?}");
        }
    }

    /// As few as are compared one by one, and as many as go into a table.
    #[test]
    fn a_subprotocol_that_stands_twice_is_found_wherever_it_stands() {
        for count in [2, 7, 8, 9, 10, 300] {
            let mut names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
            let offered = |names: &[String]| {
                let list = names.join(", ");
                changed("chat, superchat", &list).map(|(_, protocols)| protocols.len())
            };
            assert_eq!(offered(&names), Ok(count));
            for (one, other) in [(0, count - 1), (count - 2, count - 1), (0, 1)] {
                let kept = names[other].clone();
                names[other] = names[one].clone();
                assert_eq!(offered(&names), Err(Some(400)), "{one} and {other} of {count}");
                names[other] = kept;
            }
        }
    }

    #[test]
    fn the_answer_has_its_lines_in_order() {
        let mut out = Vec::new();
        let headers = [("Set-Cookie".to_owned(), "a=b".to_owned())];
        write_switching_protocols(
            &mut out,
            &AcceptKey(*b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            Some("chat"),
            "a; b=1",
            &headers,
            b"Date: now\r\n",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: a; b=1\r\nSet-Cookie: a=b\r\nDate: now\r\n\r\n"
        );
    }
}

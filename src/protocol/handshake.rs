//! Owns the server's side of the opening handshake (RFC 6455 section 4.2) and what else a head says
//! about its connection.

use tungstenite::handshake::derive_accept_key;

use super::extension::header::{ExtensionOffer, offered_extensions};
use super::head::RequestHead;

/// What a request wants, as far as its head alone can tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Plain HTTP.
    None,
    /// A well-formed opening handshake.
    WebSocket(UpgradeRequest),
    /// An opening handshake that cannot be accepted.
    Refused(Refusal),
}

/// What the answer to a well-formed handshake needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UpgradeRequest {
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) accept_key: String,
    /// The subprotocols on offer, in the client's order.
    pub(crate) protocols: Vec<String>,
    /// The extensions on offer, in the client's order.
    pub(crate) extensions: Vec<ExtensionOffer>,
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
    /// HTTP/1.0, a body, subprotocols that are no tokens or stand twice, malformed extensions.
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

/// Decides what a request wants.
pub(crate) fn examine(head: &RequestHead) -> Upgrade {
    if !head.has_token("connection", "upgrade") || !head.has_token("upgrade", "websocket") {
        return Upgrade::None;
    }
    let body = !matches!(body_framing(head), BodyFraming::None);
    if head.method() != "GET" {
        return Upgrade::Refused(Refusal::Method);
    }
    if head.minor_version == 0 || body {
        return Upgrade::Refused(Refusal::BadRequest);
    }
    let mut versions = head.all("sec-websocket-version");
    if versions.next() != Some("13") || versions.next().is_some() {
        return Upgrade::Refused(Refusal::Version);
    }
    let mut keys = head.all("sec-websocket-key");
    let (Some(key), None) = (keys.next().filter(|key| is_key(key)), keys.next()) else {
        return Upgrade::Refused(Refusal::Key);
    };
    let (Some(protocols), Some(extensions)) = (offered_protocols(head), offered_extensions(head))
    else {
        return Upgrade::Refused(Refusal::BadRequest);
    };
    let accept_key = derive_accept_key(key.as_bytes());
    Upgrade::WebSocket(UpgradeRequest { accept_key, protocols, extensions })
}

/// 16 bytes in base64: 22 letters, of which the last has only two bits to say, and two `=`.
fn is_key(key: &str) -> bool {
    let Some(letters) = key.strip_suffix("==").filter(|letters| letters.len() == 22) else {
        return false;
    };
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    letters.bytes().all(alphabet) && letters.ends_with(['A', 'Q', 'g', 'w'])
}

/// RFC 6455 section 4.1 item 10: the elements are tokens and "MUST all be unique strings".
fn offered_protocols(head: &RequestHead) -> Option<Vec<String>> {
    let mut offered: Vec<String> = Vec::new();
    for protocol in head.tokens("sec-websocket-protocol") {
        if !is_token(protocol) || offered.iter().any(|known| known == protocol) {
            return None;
        }
        offered.push(protocol.to_owned());
    }
    Some(offered)
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether the connection may go on after the answer (RFC 9112 section 9.3).
pub(crate) fn keep_alive(head: &RequestHead) -> bool {
    let close = head.has_token("connection", "close");
    !close && (head.minor_version >= 1 || head.has_token("connection", "keep-alive"))
}

/// What follows a head (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
}

pub(crate) fn body_framing(head: &RequestHead) -> BodyFraming {
    if head.first("transfer-encoding").is_some() {
        return BodyFraming::Chunked;
    }
    match head.first("content-length").map(|length| length.parse().unwrap_or(u64::MAX)) {
        None | Some(0) => BodyFraming::None,
        Some(length) => BodyFraming::Length(length),
    }
}

/// Writes the answer that switches to WebSocket (RFC 6455 section 4.2.2; the order is Ktor's).
///
/// The caller has made sure that none of the texts can end a line.
pub(crate) fn write_switching_protocols(
    out: &mut Vec<u8>,
    accept_key: &str,
    protocol: Option<&str>,
    extensions: &str,
    headers: &[(String, String)],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    let mut line = |name: &str, value: &str| {
        for piece in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    };
    line("Sec-WebSocket-Accept", accept_key);
    if let Some(protocol) = protocol {
        line("Sec-WebSocket-Protocol", protocol);
    }
    if !extensions.is_empty() {
        line("Sec-WebSocket-Extensions", extensions);
    }
    for (name, value) in headers {
        line(name, value);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::head;
    use super::*;

    /// The handshake of RFC 6455 section 1.3, with one thing changed.
    fn changed(from: &str, to: &str) -> Upgrade {
        let request = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert!(request.contains(from), "{from:?} is not in the request");
        examine(&head(&request.replacen(from, to, 1)))
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(
            changed("", ""),
            Upgrade::WebSocket(UpgradeRequest {
                accept_key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
                protocols: vec!["chat".into(), "superchat".into()],
                extensions: Vec::new(),
            })
        );
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
            assert!(matches!(changed(from, to), Upgrade::WebSocket(_)), "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn what_is_no_upgrade() {
        for (from, to) in [
            ("Connection: Upgrade", "Connection: keep-alive"),
            ("Upgrade: websocket", "Upgrade: websocket/13"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Upgrade: websocket\r\n", ""),
            ("Connection: Upgrade\r\n", ""),
        ] {
            assert_eq!(changed(from, to), Upgrade::None, "{from:?} -> {to:?}");
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
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Host", "Content-Length: 5\r\nHost", 400),
            ("Host", "Transfer-Encoding: chunked\r\nHost", 400),
            ("chat, superchat", "chat, chat", 400),
            ("chat, superchat", "chat room", 400),
            ("Host", "Sec-WebSocket-Extensions: permessage-deflate;\r\nHost", 400),
        ] {
            let Upgrade::Refused(refusal) = changed(from, to) else {
                panic!("{from:?} -> {to:?} is not refused")
            };
            assert_eq!(refusal.status(), status, "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn how_a_connection_goes_on() {
        for (version, connection, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let head = head(&format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"));
            assert_eq!(keep_alive(&head), expected, "{version} {connection:?}");
        }
    }

    #[test]
    fn the_answer_has_its_lines_in_order() {
        let mut out = Vec::new();
        let headers = [("Set-Cookie".to_owned(), "a=b".to_owned())];
        write_switching_protocols(&mut out, "key=", Some("chat"), "a; b=1", &headers);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: key=\r\nSec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: a; b=1\r\nSet-Cookie: a=b\r\n\r\n"
        );
    }
}

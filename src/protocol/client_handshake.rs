//! The client's side of the opening handshake (RFC 6455 section 4.1).

use tungstenite::handshake::client::generate_key;

use crate::protocol::client_url::ClientUrl;
use crate::protocol::extension::header::{ExtensionOffer, offered_extensions as read_extensions};
use crate::protocol::handshake::AcceptKey;
use crate::protocol::response_head::ResponseHead;
use crate::protocol::token::{is_header_value, is_token};
use crate::words::quoted::Quoted;

/// What a request asked for: what its answer is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The value that `Sec-WebSocket-Accept` has to have.
    accept_key: AcceptKey,
    pub(crate) protocols: Vec<String>,
    /// What was offered, as in `Sec-WebSocket-Extensions`.
    pub(crate) extensions: String,
}

impl Asked {
    /// Writes a request (RFC 6455 section 4.1) to the end of `out`.
    ///
    /// The caller has made sure that none of the texts can end a line. It is written here and not by
    /// tungstenite, whose request goes into its log with all credentials; key and accept value are
    /// tungstenite's.
    pub(crate) fn write(
        out: &mut Vec<u8>,
        url: &ClientUrl,
        protocols: &[String],
        extensions: &str,
        headers: &[(String, String)],
    ) -> Self {
        let key = generate_key();
        let accept_key = AcceptKey::of(&key);
        let protocol_list = protocols.join(", ");
        let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let optional = |name, value: &str| (!value.is_empty()).then(|| (name, value.to_owned()));
        let host = (!has("host")).then(|| ("Host", url.host_header.to_string()));
        let authorization = url.authorization.as_ref().filter(|_| !has("authorization"));
        let own = [
            host,
            Some(("Connection", "Upgrade".into())),
            Some(("Upgrade", "websocket".into())),
            Some(("Sec-WebSocket-Version", "13".into())),
            Some(("Sec-WebSocket-Key", key)),
            optional("Sec-WebSocket-Protocol", &protocol_list),
            optional("Sec-WebSocket-Extensions", extensions),
            authorization.map(|value| ("Authorization", value.to_string())),
        ];
        let mut put = |pieces: &[&str]| {
            pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        };
        put(&["GET ", &url.target, " HTTP/1.1\r\n"]);
        own.iter().flatten().for_each(|(name, value)| put(&[name, ": ", value, "\r\n"]));
        headers.iter().for_each(|(name, value)| put(&[name, ": ", value, "\r\n"]));
        put(&["\r\n"]);
        let (protocols, extensions) = (protocols.to_vec(), extensions.to_owned());
        Self { accept_key, protocols, extensions }
    }

    /// Checks an answer of 101 (RFC 6455 section 4.1, "client requirements"): the subprotocol and the
    /// extensions that it chose. The error says what is wrong with it.
    pub(crate) fn check(&self, head: &ResponseHead) -> Result<Chosen, String> {
        if head.minor_version() == 0 {
            return Err("it is HTTP/1.0, which cannot switch protocols".into());
        }
        let is = |name, value: &str| {
            let mut all = head.lines().all(name);
            all.next().is_some_and(|found| found.eq_ignore_ascii_case(value))
                && all.next().is_none()
        };
        if !is("upgrade", "websocket") {
            return Err("its Upgrade is not websocket".into());
        }
        if !head.has_token("connection", "upgrade") {
            return Err("its Connection does not say Upgrade".into());
        }
        // Letters of base64 mean something in one case only.
        let mut accepts = head.lines().all("sec-websocket-accept");
        if accepts.next() != Some(self.accept_key.as_str()) || accepts.next().is_some() {
            return Err(
                "its Sec-WebSocket-Accept does not belong to this request: something answers \
                        that does not speak WebSocket, such as a cache"
                    .into(),
            );
        }
        Ok(Chosen {
            protocol: self.chosen_protocol(head)?,
            extensions: self.chosen_extensions(head)?,
        })
    }

    fn chosen_protocol(&self, head: &ResponseHead) -> Result<Option<String>, String> {
        let mut all = head.lines().all("sec-websocket-protocol");
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(one), None) if self.protocols.iter().any(|offered| offered == one) => {
                Ok(Some(one.to_owned()))
            }
            (Some(one), None) => {
                Err(format!("it chose subprotocol {}, which was not offered", Quoted(one)))
            }
            (Some(_), Some(_)) => Err("it chose more than one subprotocol".into()),
        }
    }

    fn chosen_extensions(&self, head: &ResponseHead) -> Result<Vec<ExtensionOffer>, String> {
        read_extensions(head.lines())
            .ok_or_else(|| "its Sec-WebSocket-Extensions is malformed".into())
    }
}

/// What the answer chose of what was offered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) protocol: Option<String>,
    /// Not yet checked against what was offered.
    pub(crate) extensions: Vec<ExtensionOffer>,
}

/// Headers that the request has of its own.
const OWN_HEADERS: [&str; 5] =
    ["connection", "upgrade", "content-length", "transfer-encoding", "expect"];

/// Refuses a header that cannot be sent.
pub(crate) fn check_request_header(name: &str, value: &str) -> Result<(), String> {
    let is_own = OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name))
        || name.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("sec-websocket-"));
    if is_token(name) && !is_own && is_header_value(value) {
        return Ok(());
    }
    Err(format!(
        "header {} may not be set: it is no token, its value holds control characters, or the handshake \
         writes it itself",
        Quoted(name)
    ))
}

/// Headers that are meant for one server, and for no other that it redirects to.
pub(crate) fn is_credential(name: &str) -> bool {
    ["authorization", "cookie", "proxy-authorization", "host"]
        .iter()
        .any(|secret| secret.eq_ignore_ascii_case(name))
}

/// The part of a body that has arrived, and whether it is all of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BodySoFar {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_whole: bool,
}

/// The most bytes of a body that are kept.
pub(crate) const BODY_MAX: usize = 4 << 10;

/// What the bytes behind the head of a refusal make of its body (RFC 9112 section 6.3), at most
/// [`BODY_MAX`] of it.
pub(crate) fn read_body(head: &ResponseHead, bytes: &[u8]) -> BodySoFar {
    if matches!(head.status(), 100..=199 | 204 | 304) {
        return BodySoFar { bytes: Vec::new(), is_whole: true };
    }
    if head.has_token("transfer-encoding", "chunked") {
        return read_chunks(bytes);
    }
    let length = head.header("content-length").and_then(|text| text.parse().ok());
    let most = length.unwrap_or(usize::MAX).min(BODY_MAX);
    let body = bytes.get(..most).unwrap_or(bytes).to_vec();
    BodySoFar { is_whole: body.len() >= most, bytes: body }
}

fn read_chunks(mut bytes: &[u8]) -> BodySoFar {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let (line, rest) = bytes.split_at_checked(end).unwrap_or_default();
        let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        // A chunk that is none ends what can be read of it, not one that is longer than there is memory.
        let length = u64::from_str_radix(digits, 16).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 || body.len() >= BODY_MAX {
            return BodySoFar { bytes: body, is_whole: true };
        }
        let rest = rest.get(2..).unwrap_or_default();
        let room = BODY_MAX.saturating_sub(body.len());
        let piece = rest.get(..length).unwrap_or(rest);
        body.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let Some(next) = length.checked_add(2).and_then(|behind| rest.get(behind..)) else { break };
        bytes = next;
    }
    let is_whole = body.len() >= BODY_MAX;
    BodySoFar { bytes: body, is_whole }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::handshake::{Upgrade, examine};
    use crate::protocol::head::tests::head;
    use crate::protocol::response_head::tests::answer;

    fn asked(url: &str, protocols: &[&str], headers: &[(&str, &str)]) -> (String, Asked) {
        let owned = |text: &&str| text.to_string();
        let protocols: Vec<String> = protocols.iter().map(owned).collect();
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let mut out = Vec::new();
        let url = ClientUrl::parse(url).unwrap();
        let asked = Asked::write(&mut out, &url, &protocols, "x-a; b=1", &headers);
        (String::from_utf8(out).unwrap(), asked)
    }

    #[test]
    fn a_request_is_one_that_our_own_server_accepts() {
        let (request, asked) = asked(
            "ws://me:pw@h:81/p?q",
            &["a.v2", "a.v1"],
            &[("X-Y", "z"), ("Origin", "http://h")],
        );
        let head = head(&request);
        assert_eq!((head.method(), head.target(), head.host()), ("GET", "/p?q", "h:81"));
        assert_eq!(head.first("authorization"), Some("Basic bWU6cHc="));
        assert_eq!(head.first("x-y"), Some("z"));
        assert_eq!(head.first("sec-websocket-extensions"), Some("x-a; b=1"));
        let Upgrade::WebSocket(upgrade) = examine(&head) else { panic!("refused: {request}") };
        assert_eq!(upgrade.accept_key, asked.accept_key);
        assert_eq!(upgrade.protocols, ["a.v2", "a.v1"]);
    }

    #[test]
    fn a_key_is_new_for_each_request_and_own_lines_come_first() {
        let key = || asked("ws://h/", &[], &[]).1.accept_key.as_str().to_owned();
        let keys: Vec<_> = (0..100).map(|_| key()).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), keys.len());
        let own = [("Host", "virtual"), ("authorization", "Bearer x")];
        let (request, _) = asked("ws://me:pw@h/", &[], &own);
        let head = head(&request);
        assert_eq!((head.host(), head.all("authorization").count()), ("virtual", 1));
        assert!(!request.contains("Sec-WebSocket-Protocol"));
    }

    fn checked(asked: &Asked, change: (&str, &str)) -> Result<Chosen, String> {
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: a\r\n\r\n",
            asked.accept_key.as_str()
        );
        assert!(text.contains(change.0), "{change:?}");
        asked.check(&answer(&text.replacen(change.0, change.1, 1)))
    }

    #[test]
    fn only_an_answer_by_the_book_is_taken() {
        let (_, asked) = asked("ws://h/", &["a", "b"], &[]);
        for (change, protocol) in [
            (("", ""), Some("a")),
            (("websocket", "WebSocket"), Some("a")),
            (("Connection: Upgrade", "Connection: keep-alive, upgrade"), Some("a")),
            (("Protocol: a", "Protocol: b"), Some("b")),
            (("Sec-WebSocket-Protocol: a\r\n", ""), None),
        ] {
            let chosen = checked(&asked, change).unwrap();
            assert_eq!(chosen.protocol.as_deref(), protocol, "{change:?}");
        }
        let key = asked.accept_key.as_str();
        let accept = format!("Sec-WebSocket-Accept: {key}\r\n");
        for change in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("Upgrade: websocket\r\n", ""),
            ("Upgrade: websocket", "Upgrade: websocket, h2c"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Connection: Upgrade", "Connection: close"),
            ("Connection: Upgrade\r\n", ""),
            (accept.as_str(), ""),
            (key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            (key, "x"),
            (accept.as_str(), &format!("{accept}{accept}")),
            ("Protocol: a", "Protocol: c"),
            ("Protocol: a", "Protocol: A"),
            ("Protocol: a", "Protocol: a, b"),
            ("Protocol: a", "Protocol: a\r\nSec-WebSocket-Protocol: b"),
            ("Protocol: a", "Protocol: a\r\nSec-WebSocket-Extensions: x;;"),
        ] {
            assert!(checked(&asked, change).is_err(), "{change:?}");
        }
        assert!(checked(&asked, (key, &key.to_lowercase())).is_err());
    }

    #[test]
    fn headers_that_could_break_the_request_are_refused() {
        for (name, value) in [("Authorization", "Bearer x"), ("X-Y", "caf\u{e9}\tz"), ("Host", "h")]
        {
            assert_eq!(check_request_header(name, value), Ok(()));
        }
        for (name, value) in [
            ("X Y", "z"),
            ("", "z"),
            ("X", "a\r\nB: c"),
            ("X", "a\0"),
            ("Connection", "close"),
            ("upgrade", "h2c"),
            ("Sec-WebSocket-Key", "x"),
            ("Content-Length", "5"),
        ] {
            assert!(check_request_header(name, value).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn a_body_is_read_to_its_end_and_no_further() {
        let body = |lines: &str, bytes: &str| {
            let so_far =
                read_body(&answer(&format!("HTTP/1.1 401 x\r\n{lines}\r\n")), bytes.as_bytes());
            (String::from_utf8(so_far.bytes).unwrap(), so_far.is_whole)
        };
        let said = |text: &str, whole| (text.to_owned(), whole);
        assert_eq!(body("Content-Length: 5\r\n", "hel"), said("hel", false));
        assert_eq!(body("Content-Length: 5\r\n", "hello, you"), said("hello", true));
        assert_eq!(body("Content-Length: 0\r\n", ""), said("", true));
        assert_eq!(body("", "until the end"), said("until the end", false));
        let chunked = "Transfer-Encoding: chunked\r\n";
        for (bytes, text, whole) in [
            ("", "", false),
            ("3\r\nab", "ab", false),
            ("3;x=y\r\nabc\r\n2\r\nde\r\n", "abcde", false),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", true),
            ("zzz\r\nabc", "", true),
            ("ffffffffffffffff\r\nabc", "abc", false),
        ] {
            assert_eq!(body(chunked, bytes), said(text, whole), "{bytes:?}");
        }
        let long = "x".repeat(10_000);
        for (lines, bytes) in [
            ("", long.clone()),
            ("Content-Length: 10000\r\n", long.clone()),
            (chunked, format!("2710\r\n{long}\r\n0\r\n\r\n")),
        ] {
            let (text, whole) = body(lines, &bytes);
            assert_eq!((text.len(), whole), (BODY_MAX, true), "{lines:?}");
        }
        let none = read_body(&answer("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n"), b"");
        assert!(none.is_whole);
    }
}

//! The forms of a request target, and the grammar of an authority (RFC 9112 section 3.2, RFC 3986).

use std::net::Ipv6Addr;

use crate::protocol::token::ByteSet;

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Path and query as they were sent, `*`, or the authority of CONNECT.
    pub(crate) rest: &'a str,
    /// The absolute form named no path: `/` stands for it.
    pub(crate) lacks_slash: bool,
    /// Host and port of the absolute form.
    pub(crate) authority: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads the target of a request with this method; `None` for one in no form that the method may
    /// have.
    pub(crate) fn parse(method: &str, target: &'a str) -> Option<Self> {
        // A fragment is no part of a target; whoever sends one means what stands before it.
        let sent = before(target, b'#');
        let as_sent = Self { rest: sent, lacks_slash: false, authority: None };
        if method == "CONNECT" {
            return is_host_and_port(sent).then_some(as_sent); // section 3.2.3: only this form
        }
        if sent.starts_with('/') {
            return Some(as_sent);
        }
        if sent == "*" {
            return (method == "OPTIONS").then_some(as_sent); // section 3.2.4
        }
        Self::absolute(method, sent)
    }

    /// Section 3.2.2: "a server MUST accept the absolute-form in requests". Of any scheme: clients of
    /// WebSocket send `ws` and `wss`, and what stands before the server is not known to it.
    fn absolute(method: &str, target: &'a str) -> Option<Self> {
        let (scheme, rest) = target.split_once("://")?;
        let tail_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(tail_at)?;
        // RFC 9110 sections 4.2.1 and 4.2.4: without a host, and with a user, it is an error.
        if !is_scheme(scheme) || authority.is_empty() || !is_authority(authority.as_bytes()) {
            return None;
        }
        if authority.starts_with(':') {
            return None;
        }
        let authority = Some(authority);
        if tail.is_empty() && method == "OPTIONS" {
            // Section 3.2.4: what a proxy was to turn into the asterisk form.
            return Some(Self { rest: "*", lacks_slash: false, authority });
        }
        Some(Self { rest: tail, lacks_slash: !tail.starts_with('/'), authority })
    }
}

/// What stands before the first of these bytes, which is ASCII: all if there is none. Targets are short.
#[inline]
pub(crate) fn before(text: &str, byte: u8) -> &str {
    let end = text.bytes().position(|known| known == byte);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// RFC 3986 section 3.1.
pub(crate) fn is_scheme(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(sound)
}

fn is_host_and_port(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && !port.ends_with(']'))
        && is_authority(text.as_bytes())
}

/// `uri-host [ ":" port ]`: what `Host` may say (RFC 9110 section 7.2), the empty value included.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let name_len = text.iter().position(|byte| !PLAIN.has(*byte)).unwrap_or(text.len());
    match text.get(name_len..) {
        None | Some([]) => true,
        Some([b':', port @ ..]) => is_port(port),
        // Few have an escape or brackets.
        Some(_) => is_literal_or_escaped(text),
    }
}

fn is_literal_or_escaped(text: &[u8]) -> bool {
    let port = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let (literal, port) = rest.split_at_checked(end).unwrap_or_default();
            let port = port.get(1..).unwrap_or_default();
            let address = std::str::from_utf8(literal).ok().and_then(parse_ip_literal);
            if address.is_none() || !(port.is_empty() || port.starts_with(b":")) {
                return false;
            }
            port.get(1..).unwrap_or_default()
        }
        None => {
            let mut parts = text.splitn(2, |&byte| byte == b':');
            if !parts.next().is_some_and(is_reg_name) {
                return false;
            }
            parts.next().unwrap_or_default()
        }
    };
    is_port(port)
}

/// Digits, or none: "h:" is the default port. No port is over 65,535.
fn is_port(text: &[u8]) -> bool {
    let mut port = 0_u32;
    text.iter().all(|&byte| {
        port = port.saturating_mul(10).saturating_add(u32::from(byte.wrapping_sub(b'0')));
        byte.is_ascii_digit() && port <= 65_535
    })
}

/// What may stand in brackets: RFC 3986 section 3.2.2, with the zone that some clients leave in
/// (`[fe80::1%eth0]`). The zone is the client's own name for one of its interfaces, and left out.
pub(super) fn parse_ip_literal(text: &str) -> Option<Ipv6Addr> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone.as_bytes())),
        None => (text, None),
    };
    let zone_is_sound = |zone: &[u8]| !zone.is_empty() && is_reg_name(zone);
    address.parse().ok().filter(|_| zone.is_none_or(zone_is_sound))
}

/// What a name has as it is: `unreserved / sub-delims` (RFC 3986 section 2).
static PLAIN: ByteSet = ByteSet::alphanumeric_and(b"-._~!$&'()*+,;=");

/// `*( unreserved / pct-encoded / sub-delims )`, IPv4 addresses among them.
pub(super) fn is_reg_name(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((&byte, later)) = rest.split_first() {
        rest = match byte {
            _ if PLAIN.has(byte) => later,
            b'%' => match later.split_at_checked(2) {
                Some((hex, later)) if hex.iter().all(u8::is_ascii_hexdigit) => later,
                _ => return false,
            },
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_host_may_say() {
        for good in [
            "",
            "h",
            "h:",
            "h:80",
            "a.b-c_d~e:65535",
            "192.0.2.1:8080",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::7]:",
            "[fe80::1%eth0]:80",
            "a%20b",
            "a,b",
            "xn--bcher-kva.example",
            "00.example:0080",
        ] {
            assert!(is_authority(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a b",
            "user@h",
            "user:pw@h",
            "h/path",
            "h?x",
            "h#x",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]80",
            "[]",
            "[1.2.3.4]",
            "[fe80::1%]",
            "h:x",
            "h:80:80",
            "h:-1",
            "h:65536",
            "h:99999999999999999999",
            "a%2",
            "a%zz",
            "a\\b",
            "a\"b",
            "<h>",
            "h\u{e9}",
            "http://h",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
    }

    fn parsed(method: &str, target: &str) -> Option<(String, Option<String>)> {
        let target = Target::parse(method, target)?;
        let slash = if target.lacks_slash { "/" } else { "" };
        Some((format!("{slash}{}", target.rest), target.authority.map(str::to_owned)))
    }

    #[test]
    fn the_forms_of_a_target() {
        for (method, target, rest, authority) in [
            ("GET", "/a?b=c", "/a?b=c", None),
            ("GET", "//a", "//a", None),
            ("GET", "/a#b?c", "/a", None),
            ("GET", "/http://h/x", "/http://h/x", None),
            ("GET", "http://h/a?b", "/a?b", Some("h")),
            ("GET", "HTTP://h", "/", Some("h")),
            ("GET", "http://h?a=/x", "/?a=/x", Some("h")),
            ("GET", "http://h#/admin", "/", Some("h")),
            ("GET", "http://h?a#b", "/?a", Some("h")),
            ("GET", "wss://h:8443/echo", "/echo", Some("h:8443")),
            ("GET", "coap+ws://[::1]:80/x", "/x", Some("[::1]:80")),
            ("OPTIONS", "*", "*", None),
            ("OPTIONS", "http://h", "*", Some("h")),
            ("OPTIONS", "http://h/", "/", Some("h")),
            ("CONNECT", "h:443", "h:443", None),
            ("CONNECT", "[::1]:443", "[::1]:443", None),
        ] {
            let expected = Some((rest.to_owned(), authority.map(str::to_owned)));
            assert_eq!(parsed(method, target), expected, "{method} {target}");
        }
        for (method, target) in [
            ("GET", "*"),
            ("HEAD", "*"),
            ("GET", "h:80"),
            ("GET", "a/b"),
            ("GET", "?a"),
            ("GET", "#"),
            ("GET", "http:/h/x"),
            ("GET", "http:///x"),
            ("GET", "http://?x"),
            ("GET", "http://:80/x"),
            ("GET", "http://user@h/x"),
            ("GET", "http://h:x/"),
            ("GET", "http://[::1/x"),
            ("GET", "://h/x"),
            ("GET", "1http://h/x"),
            ("GET", "mailto:a@b"),
            ("CONNECT", "/x"),
            ("CONNECT", "h"),
            ("CONNECT", "h:"),
            ("CONNECT", ":80"),
            ("CONNECT", "[::1]"),
            ("CONNECT", "http://h:80"),
            ("CONNECT", "*"),
        ] {
            assert_eq!(parsed(method, target), None, "{method} {target}");
        }
    }
}

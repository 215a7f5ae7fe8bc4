//! The host and port that a request's `Host` and `Origin` name, taken apart so that they are compared by
//! what they mean and not by their letters.

use std::net::{IpAddr, Ipv4Addr};

use crate::protocol::target::{is_reg_name, is_scheme, parse_ip_literal};

/// A host, perhaps with a port (RFC 3986 section 3.2, without userinfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
}

/// A host of an [`Authority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    Ip(IpAddr),
    /// In the letters that were sent, without the dot that may end a name.
    Name(&'a str),
}

/// What a request's `Origin` says (RFC 6454 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// `null`: a page that has no origin, or does not tell it.
    Null,
    /// A scheme without a host, such as `file://`.
    Hostless { scheme: &'a str },
    /// `https://box.example:8443`
    Of { scheme: &'a str, authority: Authority<'a> },
}

impl<'a> Authority<'a> {
    /// `None` for what no client may send as `Host` (RFC 9110 section 7.2).
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        // The colons of an IPv6 address stand in brackets.
        if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        {
            let address = parse_ip_literal(address)?;
            let host = Host::Ip(IpAddr::V6(address).to_canonical());
            return Some(Self { host, port: parse_port(port)? });
        }
        let end = text.find(':').unwrap_or(text.len());
        let (name, port) = text.split_at_checked(end)?;
        Some(Self { host: Host::parse_name(name)?, port: parse_port(port)? })
    }
}

/// A port behind its colon; RFC 3986 section 3.2.3 lets both the digits and the colon be missing.
#[allow(clippy::option_option, reason = "no port is not the same as a bad one")]
fn parse_port(text: &str) -> Option<Option<u16>> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Some(None),
        Some("") => Some(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().map(Some)
        }
        _ => None,
    }
}

impl<'a> Host<'a> {
    fn parse_name(text: &'a str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::Ip(IpAddr::V4(address)));
        }
        (!name.is_empty() && is_reg_name(name.as_bytes())).then_some(Self::Name(name))
    }

    pub(crate) fn is_same(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Self::Ip(ours), Host::Ip(theirs)) => ours == theirs,
            (Self::Name(ours), Host::Name(theirs)) => ours.eq_ignore_ascii_case(theirs),
            _ => false,
        }
    }

    /// Whether nobody else can make this host stand for another machine: an address does not come from
    /// DNS, and names of `localhost` are not looked up there (RFC 6761 section 6.3).
    pub(crate) fn is_beyond_dns(&self) -> bool {
        match self {
            Self::Ip(_) => true,
            Self::Name(name) => {
                let last = name.rsplit('.').next().unwrap_or_default();
                last.eq_ignore_ascii_case("localhost")
            }
        }
    }
}

/// The port that a scheme stands for.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    let is = |known: &[&str]| known.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if is(&["https", "wss"]) {
        Some(443)
    } else if is(&["http", "ws"]) {
        Some(80)
    } else {
        None
    }
}

impl<'a> Origin<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))?;
        // Browsers never send a path; some programs end the origin with a slash.
        match rest.strip_suffix('/').unwrap_or(rest) {
            "" => Some(Self::Hostless { scheme }),
            authority => Some(Self::Of { scheme, authority: Authority::parse(authority)? }),
        }
    }

    /// Whether it is a page of the server whose `Host` this is: host and port agree. The scheme may
    /// differ, as a proxy in front may end TLS.
    pub(crate) fn is_of(&self, server: &Authority<'_>) -> bool {
        let Self::Of { scheme, authority } = self else { return false };
        // Other schemes are those of programs, whose pages have nothing to do with this server.
        let Some(default) = default_port(scheme) else { return false };
        authority.host.is_same(&server.host)
            && authority.port.unwrap_or(default) == server.port.unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_taken_apart() {
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        for (text, host, port) in [
            ("box.example", Host::Name("box.example"), None),
            ("box.example.:80", Host::Name("box.example"), Some(80)),
            ("box.example:", Host::Name("box.example"), None),
            ("192.0.2.1:8080", ip("192.0.2.1"), Some(8080)),
            ("192.0.2.1.", ip("192.0.2.1"), None),
            ("[::1]:80", ip("::1"), Some(80)),
            ("[0:0:0:0:0:0:0:1]", ip("::1"), None),
            ("[::ffff:192.0.2.1]", ip("192.0.2.1"), None),
            ("[fe80::1%eth0]:80", ip("fe80::1"), Some(80)),
            ("[fe80::1%25br-lan]", ip("fe80::1"), None),
            ("127.1", Host::Name("127.1"), None),
        ] {
            assert_eq!(Authority::parse(text), Some(Authority { host, port }), "{text}");
        }
        for text in [
            "",
            ".",
            ":80",
            "a b",
            "a@b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a:b",
            "a:80:80",
            "a:+80",
            "a:65536",
            "::1",
            "[::1",
            "[::1%]",
            "[::1%a]b]",
            "[::1%a/b]",
            "[box%eth0]",
            "[::1]x",
            "[::1]:x",
            "[box]",
            "x[::1]",
            "caf\u{e9}",
            "a\u{0}",
        ] {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
    }

    fn is_own(origin: &str, host: &str) -> bool {
        let host = Authority::parse(host).unwrap();
        Origin::parse(origin).is_some_and(|origin| origin.is_of(&host))
    }

    #[test]
    fn a_page_of_the_server_itself_is_known_in_any_spelling() {
        for (origin, host) in [
            ("http://box.example", "box.example"),
            ("http://box.example", "box.example:80"),
            ("https://box.example", "box.example"),
            ("https://box.example", "box.example:443"),
            ("https://box.example:443", "box.example"),
            ("HTTPS://Box.Example.", "bOX.eXAMPLE"),
            ("http://box.example", "box.example.:80"),
            ("http://box.example:8080", "box.example:8080"),
            ("https://box.example:8080", "box.example:8080"),
            ("ws://box.example:8080", "box.example:8080"),
            ("http://[::1]:8080", "[0:0::1]:8080"),
            // As programs send them that connect to an address with its interface.
            ("http://[fe80::1%eth0]:8080", "[fe80::1%eth0]:8080"),
            ("http://[fe80::1%25eth0]", "[FE80::1%25eth0]:80"),
            ("http://localhost:8080/", "localhost:8080"),
        ] {
            assert!(is_own(origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("http://box.example", "box.example:8080"),
            ("http://box.example", "box.example:443"),
            ("https://box.example:8443", "box.example"),
            ("http://box.example.evil.example", "box.example"),
            ("http://evil-box.example", "box.example"),
            ("http://box.example@evil.example", "box.example"),
            ("http://box.example:80:80", "box.example"),
            ("http://box.example/page", "box.example"),
            ("http://box.example http://box.example", "box.example"),
            ("capacitor://localhost", "localhost"),
            ("file://", "localhost"),
            ("null", "null"),
            ("box.example", "box.example"),
            ("://box.example", "box.example"),
            ("", "box.example"),
        ] {
            assert!(!is_own(origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn what_dns_cannot_give_to_somebody_else() {
        let beyond = |text| Authority::parse(text).unwrap().host.is_beyond_dns();
        for text in
            ["127.0.0.1", "[::1]:80", "192.168.1.9", "localhost", "LocalHost.", "a.b.localhost:9"]
        {
            assert!(beyond(text), "{text}");
        }
        for text in [
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example",
            "notlocalhost",
            "127.1",
            "0x7f000001",
            "box",
        ] {
            assert!(!beyond(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,40}", host in "[a-z.:\\[\\]0-9%/@]{0,20}") {
            let origin = Origin::parse(&text);
            let own = Authority::parse(&host);
            if let (Some(origin), Some(own)) = (origin, own) {
                let _ = origin.is_of(&own);
            }
            let _ = Origin::parse(&format!("http://{host}"));
        }
    }
}

//! The URL of a server to connect to (RFC 6455 section 3), taken apart.

use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;

use crate::protocol::target::{is_reg_name, parse_ip_literal};
use crate::words::address::Address;

/// Where a session is dialled to. Its [`Display`](fmt::Display) is fit for logs: user information and
/// query are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientUrl {
    pub(crate) secure: bool,
    /// No WebSocket is spoken there.
    pub(crate) is_bytes: bool,
    pub(crate) place: Place,
    /// What `Host` says: the port is left out where it is the scheme's own.
    pub(crate) host_header: Box<str>,
    /// Path and query, as they are sent.
    pub(crate) target: Box<str>,
    /// The value of `Authorization` that user information becomes.
    pub(crate) authorization: Option<Box<str>>,
}

/// Who is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Over TCP: the host as a name or an address, without brackets.
    Tcp { host: Box<str>, port: u16 },
    /// A Unix socket: a path, or `@` and a name in Linux's abstract namespace.
    Unix(Box<str>),
}

impl Place {
    /// The address that there is to resolve; `None` for a Unix socket.
    pub(crate) fn address(&self) -> Option<Result<Address, String>> {
        let Self::Tcp { host, port } = self else { return None };
        Some(match host.parse::<IpAddr>() {
            Ok(ip) => Ok(Address::Ip((ip, *port).into())),
            Err(_) if host.contains(':') => Address::parse(&format!("[{host}]:{port}")),
            Err(_) => Address::parse(&format!("{host}:{port}")),
        })
    }
}

impl ClientUrl {
    /// Takes a URL apart, or says what to write instead.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            "ws+unix" => return Self::parse_unix(rest),
            "http" | "https" => {
                return Err(format!(
                    "the scheme is {scheme}: sessions are dialled with ws:// or wss://"
                ));
            }
            _ => {
                return Err("there is no scheme: write ws://host/path, wss://host/path or \
                            ws+unix:/run/x.sock:/path"
                    .into());
            }
        };
        Self::parse_tcp(secure, rest)
    }

    /// The same for where another protocol is spoken: the port has to be named.
    pub(crate) fn parse_bytes(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.trim().split_once(':').unwrap_or_default();
        let parsed = match scheme.to_ascii_lowercase().as_str() {
            "tcp" => Self::parse_tcp(false, rest)?,
            "tls" => Self::parse_tcp(true, rest)?,
            "unix" if !rest.contains(':') => Self::parse_unix(rest)?,
            _ => return Err("write tcp://host:port, tls://host:port or unix:/run/x.sock".into()),
        };
        let has_port = match &parsed.place {
            Place::Tcp { .. } => parsed.host_header.rsplit(']').next().unwrap_or("").contains(':'),
            Place::Unix(_) => true,
        };
        if !has_port && !names_port(rest) {
            return Err(
                "there is no port, and no protocol that has one: write tcp://host:port".into()
            );
        }
        if *parsed.target != *"/" || parsed.authorization.is_some() {
            return Err("behind host and port comes nothing, and nothing before them".into());
        }
        Ok(Self { is_bytes: true, ..parsed })
    }

    fn parse_tcp(secure: bool, rest: &str) -> Result<Self, String> {
        let Some(rest) = rest.strip_prefix("//") else {
            return Err("behind the scheme comes //: write ws://host/path".into());
        };
        let tail_at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(tail_at).unwrap_or((rest, ""));
        let (user, host_and_port) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (host, port) = split_host(host_and_port)?;
        let host = &*host.to_ascii_lowercase(); // RFC 3986 section 6.2.2.1: it is the same server
        let default = if secure { 443 } else { 80 };
        let port = port.unwrap_or(default);
        let shown = shown_host(host);
        let host_header = if port == default { shown } else { format!("{shown}:{port}") };
        Ok(Self {
            secure,
            is_bytes: false,
            place: Place::Tcp { host: host.into(), port },
            host_header: host_header.into(),
            target: target_of(tail)?.into(),
            authorization: user.map(authorization_of),
        })
    }

    /// The form that clients of other languages have too: `ws+unix:`, a path, and behind a colon the
    /// request's target.
    fn parse_unix(rest: &str) -> Result<Self, String> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, tail) = rest.split_once(':').unwrap_or((rest, ""));
        if !(path.starts_with('/') || path.starts_with('@')) || path.len() < 2 {
            return Err(
                "a Unix socket is written ws+unix:/run/x.sock:/path, with an absolute path, or \
                        ws+unix:@name:/path"
                    .into(),
            );
        }
        Ok(Self {
            secure: false,
            is_bytes: false,
            place: Place::Unix(path.into()),
            host_header: "localhost".into(),
            target: target_of(tail)?.into(),
            authorization: None,
        })
    }

    /// What a redirect's `Location` leads to from here.
    pub(crate) fn follow(&self, location: &str) -> Result<Self, String> {
        // A fragment is for a page.
        let location = location.split('#').next().unwrap_or_default();
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(Self { target: target_of(location)?.into(), ..self.clone() });
        }
        let absolute = match location.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("ws://{rest}"),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => format!("wss://{rest}"),
            Some(_) => location.to_owned(),
            None if location.starts_with("//") => {
                format!("{}:{location}", if self.secure { "wss" } else { "ws" })
            }
            None => return Err("it is neither a URL nor an absolute path".into()),
        };
        let mut target = Self::parse(&absolute)?;
        if matches!(target.place, Place::Unix(_)) {
            return Err("it leads to a Unix socket".into());
        }
        if self.secure && !target.secure {
            return Err("it leads from wss to ws, where everybody on the way can read along".into());
        }
        if self.is_same_server(&target) {
            target.authorization = target.authorization.or_else(|| self.authorization.clone());
        }
        Ok(target)
    }

    /// Whether what is meant for one server may be told the other.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        self.secure == other.secure && self.place == other.place
    }
}

impl fmt::Display for ClientUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        match &self.place {
            Place::Tcp { host, port } if self.is_bytes => {
                write!(f, "{}://{host}:{port}", if self.secure { "tls" } else { "tcp" })
            }
            Place::Unix(socket) if self.is_bytes => write!(f, "unix:{socket}"),
            Place::Tcp { .. } => {
                write!(f, "{}://{}{path}", if self.secure { "wss" } else { "ws" }, self.host_header)
            }
            Place::Unix(socket) => write!(f, "ws+unix:{socket}:{path}"),
        }
    }
}

/// Whether a port is written, which `Host` leaves out where it is the scheme's own.
fn names_port(rest: &str) -> bool {
    rest.ends_with(":80") || rest.ends_with(":443")
}

/// Host and port, where there is one. An address of IPv6 comes back without its brackets.
pub(super) fn split_host(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((literal, port)) = rest.split_once(']') else {
                return Err(format!("{text:?} has no closing bracket: write [::1]:8080"));
            };
            if parse_ip_literal(literal).is_none() {
                return Err(format!(
                    "{literal:?} is no IPv6 address, which is what brackets are for"
                ));
            }
            (literal, port)
        }
        None => {
            let host = text.split(':').next().unwrap_or_default();
            check_name(host, text)?;
            (host, text.get(host.len()..).unwrap_or_default())
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None, // RFC 3986 section 3.2.3: the same as none
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|&port: &u16| port > 0).ok_or_else(|| {
                format!("its port is {digits}: a port is a number from 1 to 65535")
            })?)
        }
        _ => {
            return Err(format!(
                "{text:?} is no host:port; an IPv6 address is written in brackets"
            ));
        }
    };
    Ok((host, port))
}

fn check_name(host: &str, whole: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("there is no host: write ws://host/path".into());
    }
    if !host.is_ascii() {
        // What letters look like others is for who registers names; resolvers know ASCII.
        return Err(format!(
            "the host {host:?} is not ASCII: write it as the name server knows it, xn--..."
        ));
    }
    if host.contains('%') || !is_reg_name(host.as_bytes()) {
        return Err(format!("{whole:?} names no host"));
    }
    Ok(())
}

/// A host as `Host` has it. The zone of an address is this machine's own business (RFC 6874 section 4).
fn shown_host(host: &str) -> String {
    if host.contains(':') {
        return format!("[{}]", host.split('%').next().unwrap_or_default());
    }
    host.to_owned()
}

fn target_of(tail: &str) -> Result<String, String> {
    if tail.contains('#') {
        // RFC 6455 section 3: "Fragment identifiers are meaningless [..] and MUST NOT be used".
        return Err("a URL of WebSocket has no fragment: write %23 for a # that is meant".into());
    }
    if tail.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("path and query are ASCII: write every other byte as %XX".into());
    }
    Ok(if tail.starts_with('/') { tail.to_owned() } else { format!("/{tail}") })
}

/// What user information becomes.
pub(super) fn authorization_of(user: &str) -> Box<str> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let [name, password] =
        [name, password].map(|text| percent_decode_str(text).collect::<Vec<u8>>());
    format!("Basic {}", BASE64.encode(&[name, b":".to_vec(), password].concat())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp { host: host.into(), port }
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, secure, place, host, target) in [
            ("ws://h", false, tcp("h", 80), "h", "/"),
            ("WS://h:80/", false, tcp("h", 80), "h", "/"),
            ("ws://h:8080?a=b", false, tcp("h", 8080), "h:8080", "/?a=b"),
            ("wss://h.example/p/q?r=/s", true, tcp("h.example", 443), "h.example", "/p/q?r=/s"),
            ("wss://h:80/", true, tcp("h", 80), "h:80", "/"),
            ("ws://127.0.0.1:9001/", false, tcp("127.0.0.1", 9001), "127.0.0.1:9001", "/"),
            ("ws://[::1]:9001/x", false, tcp("::1", 9001), "[::1]:9001", "/x"),
            ("ws://[fe80::1%lo]/", false, tcp("fe80::1%lo", 80), "[fe80::1]", "/"),
            ("ws+unix:/run/x.sock", false, Place::Unix("/run/x.sock".into()), "localhost", "/"),
            (
                "ws+unix:///run/x.sock:/a?b",
                false,
                Place::Unix("/run/x.sock".into()),
                "localhost",
                "/a?b",
            ),
            ("ws+unix:@hub:/a", false, Place::Unix("@hub".into()), "localhost", "/a"),
        ] {
            let parsed = ClientUrl::parse(url).unwrap();
            assert_eq!((parsed.secure, parsed.place), (secure, place), "{url}");
            assert_eq!((&*parsed.host_header, &*parsed.target), (host, target), "{url}");
            assert_eq!(parsed.authorization, None);
        }
    }

    #[test]
    fn what_is_no_url_is_told_the_right_form() {
        for (url, form) in [
            ("h:80/x", "write ws://host/path"),
            ("http://h/", "with ws:// or wss://"),
            ("ws:h", "comes //"),
            ("ws://", "no host"),
            ("ws:///x", "no host"),
            ("ws://:80/", "no host"),
            ("ws://h:0/", "from 1 to 65535"),
            ("ws://h:65536/", "from 1 to 65535"),
            ("ws://h:x/", "no host:port"),
            ("ws://::1/", "no host"),
            ("ws://[::1/", "closing bracket"),
            ("ws://[h]/", "no IPv6 address"),
            ("ws://b\u{fc}cher.example/", "xn--"),
            ("ws://a b/", "names no host"),
            ("ws://h/x#y", "no fragment"),
            ("ws://h/caf\u{e9}", "%XX"),
            ("ws://h/a b", "%XX"),
            ("ws+unix:run/x.sock", "an absolute path"),
            ("ws+unix:@", "ws+unix:@name"),
        ] {
            let told = ClientUrl::parse(url).unwrap_err();
            assert!(told.contains(form), "{url}: {told}");
        }
    }

    #[test]
    fn what_is_secret_becomes_a_header_and_is_not_shown() {
        let url = ClientUrl::parse("wss://Aladdin:open%20sesame@h:1/p?token=secret").unwrap();
        assert_eq!(url.authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!((&*url.host_header, &*url.target), ("h:1", "/p?token=secret"));
        assert_eq!(url.to_string(), "wss://h:1/p");
        let socket = ClientUrl::parse("ws+unix:/run/x:/p?token=secret").unwrap();
        assert_eq!(socket.to_string(), "ws+unix:/run/x:/p");
    }

    #[test]
    fn redirects_lead_on_and_never_into_the_open() {
        let from = ClientUrl::parse("wss://me:pw@h/a?b").unwrap();
        for (location, shown, keeps_user) in [
            ("/c?d", "wss://h/c", true),
            ("https://h/c", "wss://h/c", true),
            ("wss://h/c#top", "wss://h/c", true),
            ("/c?d#top", "wss://h/c", true),
            ("//other/c", "wss://other/c", false),
            ("wss://h:444/c", "wss://h:444/c", false),
        ] {
            let to = from.follow(location).unwrap();
            assert_eq!((to.to_string().as_str(), to.authorization.is_some()), (shown, keeps_user));
        }
        for location in ["ws://h/a", "http://h/a", "c", "ws+unix:/x:/y", "ftp://h/", ""] {
            assert!(from.follow(location).is_err(), "{location:?}");
        }
        let open = ClientUrl::parse("ws://me:pw@h/a").unwrap();
        assert_eq!(open.follow("https://h/a").unwrap().authorization, None);
    }

    #[test]
    fn only_names_are_left_to_a_resolver() {
        for (url, address) in [
            ("ws://127.0.0.1:1/", Address::Ip("127.0.0.1:1".parse().unwrap())),
            ("ws://[::1]:1/", Address::Ip("[::1]:1".parse().unwrap())),
            ("ws://localhost:1/", Address::Loopback(1)),
            ("ws://h:1/", Address::Name("h".into(), 1)),
            ("ws://[fe80::1%lo]:1/", Address::Name("fe80::1%lo".into(), 1)),
        ] {
            let place = ClientUrl::parse(url).unwrap().place;
            assert_eq!(place.address(), Some(Ok(address)), "{url}");
        }
        assert_eq!(Place::Unix("/x".into()).address(), None);
    }
}

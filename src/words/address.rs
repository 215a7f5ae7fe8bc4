//! Addresses of TCP as people and other programs write them, and what to write instead of those that are
//! none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// What an address text stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `:80` and `*:80`: every address of this machine, of either family.
    Any(u16),
    /// `localhost:80`: the loopback addresses of both families.
    Loopback(u16),
    /// One address.
    Ip(SocketAddr),
    /// A name for the resolver, or an IPv6 address with the name of an interface.
    Name(String, u16),
}

/// The addresses for those that stand for both families.
const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// What an address of IPv6 without brackets is told: where its port begins is a guess.
const BRACKETS: &str = "an IPv6 address is written in brackets, with the port behind: [::1]:8080";

impl Address {
    /// Understands an address, or says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(scheme) = text.find("://") {
            let rest = text.get(scheme..).unwrap_or_default().trim_start_matches("://");
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(format!("it is a URL: write the address alone, {}", complete(authority)));
        }
        if text.starts_with('@') {
            return Err(format!("an abstract Unix socket is written unix:{text}"));
        }
        if text.contains('/') {
            return Err(format!("it is no host:port; a Unix socket's path is written unix:{text}"));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(BRACKETS.into());
        }
        let Some((host, port)) = split(text) else {
            return Err(format!("there is no port: write {}", complete(text)));
        };
        let Ok(port) = port.parse() else {
            return Err(format!("its port is {port:?}: a port is a number from 0 to 65535"));
        };
        Self::of_host(host, port)
    }

    /// What there is to listen on; only a name asks the resolver.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let at = |port: u16| move |address| SocketAddr::new(address, port);
        Ok(match self {
            Self::Any(port) => ANY.map(at(*port)).to_vec(),
            Self::Loopback(port) => LOOPBACK.map(at(*port)).to_vec(),
            Self::Ip(address) => vec![*address],
            Self::Name(host, port) => (host.as_str(), *port).to_socket_addrs()?.collect(),
        })
    }

    /// Whether all of its addresses are meant, and not the first that works.
    pub(crate) fn means_all(&self) -> bool {
        matches!(self, Self::Any(_) | Self::Loopback(_))
    }

    fn of_host(host: &str, port: u16) -> Result<Self, String> {
        if host.is_empty() || host == "*" {
            return Ok(Self::Any(port));
        }
        if is_localhost(host) {
            return Ok(Self::Loopback(port));
        }
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = inner.unwrap_or(host);
        let (address, zone) = bare.split_once('%').map_or((bare, None), |(a, z)| (a, Some(z)));
        match (address.parse::<Ipv6Addr>(), zone) {
            (Ok(address), None) => Ok(Self::Ip(SocketAddr::from((address, port)))),
            (Ok(_), Some(zone)) if !zone.is_empty() => Ok(Self::Name(bare.to_owned(), port)),
            _ if inner.is_some() || zone.is_some() => {
                Err(format!("{bare:?} is no IPv6 address, which is what brackets and % are for"))
            }
            _ if host.contains([':', '[', ']']) => Err(BRACKETS.into()),
            _ if host.contains(|letter: char| letter.is_whitespace() || letter.is_control()) => {
                Err(format!("{host:?} is neither an address nor a name"))
            }
            _ => Ok(Self::Name(host.to_owned(), port)),
        }
    }
}

/// Host and port, where there are both.
fn split(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let in_brackets = host.starts_with('[') && !host.ends_with(']');
    if in_brackets { None } else { Some((host, port)) }
}

/// RFC 6761 section 6.3: these names are loopback, and no resolver is to be asked.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// What was meant, with the port that was left out.
fn complete(text: &str) -> String {
    if text.is_empty() {
        return "127.0.0.1:8080".into();
    }
    if text.parse::<u16>().is_ok() {
        return format!("127.0.0.1:{text}, or :{text} for every address");
    }
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host); // user information
    if text.parse::<Ipv6Addr>().is_ok() {
        return format!("[{text}]:8080");
    }
    match split(text) {
        Some(_) => text.to_owned(),
        None => format!("{text}:8080"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    #[test]
    fn the_forms_of_the_field_are_understood() {
        for (text, address) in [
            ("127.0.0.1:80", ip("127.0.0.1:80")),
            (" 127.0.0.1:80\n", ip("127.0.0.1:80")),
            ("[::1]:80", ip("[::1]:80")),
            (":::80", ip("[::]:80")),
            ("[fe80::1%3]:80", ip("[fe80::1%3]:80")),
            ("[fe80::1%lo]:80", Address::Name("fe80::1%lo".into(), 80)),
            ("[fe80::1%br-lan.5]:80", Address::Name("fe80::1%br-lan.5".into(), 80)),
            (":80", Address::Any(80)),
            ("*:0", Address::Any(0)),
            ("localhost:80", Address::Loopback(80)),
            ("LocalHost.:80", Address::Loopback(80)),
            ("api.localhost:80", Address::Loopback(80)),
            ("localhost.example:80", Address::Name("localhost.example".into(), 80)),
            ("box:8080", Address::Name("box".into(), 8080)),
        ] {
            assert_eq!(Address::parse(text), Ok(address), "{text:?}");
        }
    }

    #[test]
    fn what_is_none_is_told_the_right_form() {
        for (text, form) in [
            ("http://127.0.0.1:8080", "write the address alone, 127.0.0.1:8080"),
            ("http://127.0.0.1:8080/path?x#y", "alone, 127.0.0.1:8080"),
            ("wss://box/", "alone, box:8080"),
            ("ws://", "alone, 127.0.0.1:8080"),
            ("tcp://[::1]:80", "alone, [::1]:80"),
            ("http://[::1]", "alone, [::1]:8080"),
            ("http://me:secret@box:80", "alone, box:80"),
            ("8080", ":8080 for every address"),
            ("127.0.0.1", "write 127.0.0.1:8080"),
            ("localhost", "write localhost:8080"),
            ("[::1]", "write [::1]:8080"),
            ("::1", "in brackets"),
            ("::1:8080", "in brackets"),
            ("*", "write *:8080"),
            ("", "write 127.0.0.1:8080"),
            ("/run/x.sock", "written unix:/run/x.sock"),
            ("./x.sock", "written unix:./x.sock"),
            ("@name", "written unix:@name"),
            ("box:", "its port is \"\""),
            ("box:http", "a number from 0 to 65535"),
            ("box:65536", "a number from 0 to 65535"),
            ("box:-1", "a number from 0 to 65535"),
            ("[fe80::1%]:80", "no IPv6 address"),
            ("[box]:80", "no IPv6 address"),
            ("127.0.0.1%lo:80", "no IPv6 address"),
            ("a:b:80", "in brackets"),
            ("a box:80", "neither an address nor a name"),
        ] {
            let told = Address::parse(text).unwrap_err();
            assert!(told.contains(form), "{text:?}: {told}");
        }
    }
}

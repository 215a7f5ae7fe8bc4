//! What trusted proxies say of a request in `Forwarded` (RFC 7239), or in `X-Forwarded-For` and those
//! beside it: its client, the scheme and the host that were asked for.

use std::net::{IpAddr, SocketAddr};

use crate::protocol::head::RequestHead;
use crate::protocol::origin::Authority;
use crate::protocol::target::parse_ip_literal;

/// What they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarded<'a> {
    pub(crate) client: Client,
    /// Whether the client spoke TLS; `None` if that is not said.
    pub(crate) secure: Option<bool>,
    pub(crate) host: Option<&'a str>,
}

/// Whom a proxy speaks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Client {
    /// For itself: the header is not there.
    #[default]
    Proxy,
    /// For somebody who has no address, or whose address it hides. Nobody can write an address that is
    /// taken for the lack of one, or the other way round.
    Unknown,
    Known(SocketAddr),
}

impl Client {
    /// `0.0.0.0` and `::` are no addresses of anybody.
    pub(crate) fn of(address: Option<SocketAddr>) -> Self {
        match address {
            Some(address) if !address.ip().to_canonical().is_unspecified() => {
                Self::Known(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            _ => Self::Unknown,
        }
    }
}

/// Reads `Forwarded`, and it alone.
pub(crate) fn read_forwarded(
    head: &RequestHead,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Forwarded<'_> {
    let elements = head.all("forwarded").flat_map(|line| split_outside_quotes(line, b','));
    // RFC 9110 section 5.6.1.2: empty elements of a list are ignored.
    let elements = elements.filter(|element| !element.trim().is_empty());
    // What is no element says nothing. Above all one whose quotes are open: a client left them so, and
    // what a proxy added to the line stands within them.
    let elements: Vec<&str> =
        elements.map(|element| if is_element(element) { element } else { "" }).collect();
    let nodes = elements.iter().map(|element| parameter(element, "for").and_then(parse_node));
    let is_there = head.first("forwarded").is_some();
    let (client, from_the_right) = rightmost_untrusted(is_there, nodes, is_trusted);
    // Who named the client says in the same element what that client asked for.
    let element = elements.iter().rev().nth(from_the_right).copied().unwrap_or_default();
    Forwarded {
        client,
        secure: parameter(element, "proto").and_then(is_secure),
        host: parameter(element, "host").filter(|host| Authority::parse(host).is_some()),
    }
}

/// Reads `X-Forwarded-For`, `-Proto` and `-Host`, and them alone.
pub(crate) fn read_x_forwarded(
    head: &RequestHead,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Forwarded<'_> {
    let nodes: Vec<_> = head.tokens("x-forwarded-for").map(parse_node).collect();
    let is_there = head.first("x-forwarded-for").is_some();
    let (client, from_the_right) = rightmost_untrusted(is_there, nodes.into_iter(), is_trusted);
    if !is_there {
        // The proxy did not speak of a client: what stands beside came through it, from anybody.
        return Forwarded::default();
    }
    // Proxies that add to the list for the client add to these too; others write one value.
    let beside = |name| {
        let all: Vec<&str> = head.tokens(name).collect();
        let place = from_the_right.min(all.len().saturating_sub(1));
        all.iter().rev().nth(place).copied()
    };
    Forwarded {
        client,
        secure: beside("x-forwarded-proto").and_then(is_secure),
        host: beside("x-forwarded-host").filter(|host| Authority::parse(host).is_some()),
    }
}

/// Whether a request names a client at all.
pub(crate) fn names_client(head: &RequestHead) -> bool {
    head.first("forwarded").is_some() || head.first("x-forwarded-for").is_some()
}

/// The client as trusted proxies name it, and how many further to the right stand: from the right, which
/// is the end that the nearest proxy wrote, the first node that is no trusted proxy itself. Everything left
/// of it came from there and may be made up.
fn rightmost_untrusted(
    is_there: bool,
    nodes: impl DoubleEndedIterator<Item = Option<SocketAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> (Client, usize) {
    let mut nearest = (if is_there { Client::Unknown } else { Client::Proxy }, 0);
    for (place, node) in nodes.rev().enumerate() {
        let client = Client::of(node);
        nearest = (client, place);
        match client {
            // It is a proxy of ours: who is left of it, it says itself.
            Client::Known(address) if is_trusted(address.ip()) => {}
            // Hidden ("unknown", "_token") or garbage: what is left of it cannot be told apart from a
            // lie, and who hides is not who wrote that it hides.
            Client::Known(_) | Client::Unknown | Client::Proxy => break,
        }
    }
    nearest
}

/// Whether this is `[ pair ] *( ";" [ pair ] )` (RFC 7239 section 4), as far as its quotes go: a value has
/// them around it, or none.
fn is_element(text: &str) -> bool {
    split_outside_quotes(text, b';').all(|pair| match pair.split_once('=') {
        None => pair.trim().is_empty(),
        Some((name, value)) => !name.contains('"') && is_value(value.trim()),
    })
}

fn is_value(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('"') else { return !text.contains('"') };
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.is_some_and(|end| inside.get(end..) == Some("\""))
}

/// The value of one parameter of an element of `Forwarded` (RFC 7239 section 4): none where it stands
/// twice, which "MUST NOT occur", and of which one may be a client's.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let pairs = split_outside_quotes(element, b';').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(known, _)| known.trim().eq_ignore_ascii_case(name));
    let (Some((_, value)), None) = (named.next(), named.next()) else { return None };
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value))
}

fn is_secure(scheme: &str) -> Option<bool> {
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    if is("https") || is("wss") {
        return Some(true);
    }
    (is("http") || is("ws")).then_some(false)
}

/// Splits at a separator, except within quoted strings (RFC 9110 section 5.6.4).
#[allow(clippy::arithmetic_side_effects, reason = "end lies inside the piece")]
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let piece = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = piece.bytes().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if byte == separator && !quoted => return true,
                _ => {}
            }
            false
        });
        // The separator is ASCII: it is no part of a longer character.
        let (piece, later) = match end {
            Some(end) => (piece.get(..end)?, piece.get(end + 1..)),
            None => (piece, None),
        };
        rest = later;
        Some(piece)
    })
}

/// An address with or without a port, IPv6 with or without brackets; port 0 where none is given.
fn parse_node(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 0));
    }
    if let Some(ip) = parse_ip_literal(text) {
        return Some(SocketAddr::new(IpAddr::V6(ip), 0)); // with a zone
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, port) = rest.split_once(']')?;
            (IpAddr::V6(parse_ip_literal(inside)?), port)
        }
        None => {
            let (address, port) = text.split_at_checked(text.find(':')?)?;
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    Some(SocketAddr::new(address, parse_node_port(port)?))
}

/// RFC 7239 section 6: digits, or a name in the port's place.
fn parse_node_port(text: &str) -> Option<u16> {
    match text.strip_prefix(':') {
        None => text.is_empty().then_some(0),
        Some(hidden) if hidden.starts_with('_') => Some(0),
        Some(port) => port.parse().ok().filter(|_| !port.starts_with('+')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    fn is_trusted(ip: IpAddr) -> bool {
        ip.to_string().starts_with("10.")
    }

    /// What headers say, in words: client, scheme, host.
    fn parsed(headers: &str) -> (String, Option<bool>, Option<String>) {
        let head = head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
        let parsed = if headers.to_ascii_lowercase().contains("x-forwarded") {
            read_x_forwarded(&head, is_trusted)
        } else {
            read_forwarded(&head, is_trusted)
        };
        let client = match parsed.client {
            Client::Known(address) => address.to_string(),
            other => format!("{other:?}"),
        };
        (client, parsed.secure, parsed.host.map(str::to_owned))
    }

    #[track_caller]
    fn expect(headers: &str, client: &str) {
        assert_eq!(parsed(headers).0, client, "{headers:?}");
    }

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy() {
        expect("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.1,10.0.0.2\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.7:555\r\n", "192.0.2.7:555");
        expect("X-Forwarded-For: 2001:db8::1\r\n", "[2001:db8::1]:0");
        expect("X-Forwarded-For: ::ffff:192.0.2.7\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: [::ffff:192.0.2.7]:9\r\n", "192.0.2.7:9");
        // Proxies in Go leave the zone in.
        expect("X-Forwarded-For: 1.1.1.1, fe80::1%eth0\r\n", "[fe80::1]:0");
        expect("X-Forwarded-For: [fe80::1%25br-lan]:80\r\n", "[fe80::1]:80");
        expect("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3:0");
        expect("X-Forwarded-For: 1.1.1.1, 192.0.2.7,, \r\n", "192.0.2.7:0");
    }

    #[test]
    fn forwarded_with_its_quotes_and_parameters() {
        expect("Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43\r\n", "192.0.2.60:0");
        expect("Forwarded: for=1.1.1.1, For=\"[2001:db8::17]:4711\"\r\n", "[2001:db8::17]:4711");
        expect("Forwarded: proto=https;host=\"a,b;for=9.9.9.9\";for=192.0.2.1\r\n", "192.0.2.1:0");
        expect("Forwarded: host=\"a\\\",for=9.9.9.9;b\";for=192.0.2.1\r\n", "192.0.2.1:0");
        expect("Forwarded: for=192.0.2.1, for=\"10.0.0.1:80\"\r\n", "192.0.2.1:0");
        // RFC 7239 section 6.3: the port alone may be hidden.
        expect("Forwarded: for=\"192.0.2.1:_p\"\r\n", "192.0.2.1:0");
        expect("Forwarded: for=\"[2001:db8::1]:_p\"\r\n", "[2001:db8::1]:0");
    }

    /// Who hides, or has no address, is not the proxy that says so: its rights are not theirs.
    #[test]
    fn a_header_that_names_no_client_speaks_for_somebody_unknown() {
        for headers in [
            "X-Forwarded-For: 1.1.1.1, nonsense, 10.0.0.1\r\n",
            "Forwarded: for=1.1.1.1, for=_hidden, for=10.0.0.1\r\n",
            "Forwarded: for=1.1.1.1, proto=http, for=10.0.0.1\r\n",
            "X-Forwarded-For:\r\n",
            "X-Forwarded-For: ,, ,\r\n",
            "X-Forwarded-For: unknown\r\n",
            "X-Forwarded-For: unix:\r\n",
            "X-Forwarded-For: 1.1.1.1, 0.0.0.0\r\n",
            "X-Forwarded-For: 0.0.0.0:80\r\n",
            "X-Forwarded-For: ::\r\n",
            "X-Forwarded-For: [::]:80\r\n",
            "X-Forwarded-For: ::ffff:0.0.0.0\r\n",
            "X-Forwarded-For: 192.0.2.1, 300.1.1.1\r\n",
            "X-Forwarded-For: 192.0.2.1:+80\r\n",
            "X-Forwarded-For: 192.0.2.1:\r\n",
            "X-Forwarded-For: 192.0.2.1:70000\r\n",
            "X-Forwarded-For: [192.0.2.1]:80\r\n",
            "X-Forwarded-For: fe80::1%\r\n",
            "X-Forwarded-For: 192.0.2.1%eth0\r\n",
            "Forwarded: for=unknown\r\n",
            "Forwarded: for=\"192.0.2.1\r\n",
            "Forwarded: for=\"0.0.0.0\"\r\n",
            "Forwarded: ;;;,,\"\\\r\n",
            "Forwarded:\r\n",
            "Forwarded: proto=https\r\n",
        ] {
            expect(headers, "Unknown");
        }
        expect("", "Proxy");
    }

    /// What a client leaves open swallows what its proxy adds to the same line: who it is then, is not known.
    #[test]
    fn an_element_that_is_no_element_names_nobody() {
        for client in [
            "for=6.6.6.6;x=\"",
            "for=6.6.6.6;proto=https;host=evil;x=\"\\",
            "for=6.6.6.6;x=a\"b",
            "for=6.6.6.6;\"",
        ] {
            for proxy in [
                "for=192.0.2.7",
                "for=\"[2001:db8::1]:4711\"",
                "for=\"192.0.2.7\";by=\"_box\";proto=http",
            ] {
                let parsed = parsed(&format!("Forwarded: {client}, {proxy}\r\n"));
                assert_eq!(parsed, ("Unknown".into(), None, None), "{client}, {proxy}");
                expect(
                    &format!("Forwarded: {client}\r\nForwarded: for=192.0.2.7\r\n"),
                    "192.0.2.7:0",
                );
            }
        }
        // RFC 7239 section 4: no parameter stands twice in an element.
        expect("Forwarded: for=6.6.6.6;for=192.0.2.7\r\n", "Unknown");
        let host_twice = parsed("Forwarded: for=192.0.2.7;host=evil;host=box\r\n");
        assert_eq!(host_twice, ("192.0.2.7:0".into(), None, None));
    }

    #[test]
    fn the_other_header_is_not_looked_at() {
        let both = "Forwarded: for=9.9.9.9;proto=https;host=evil\r\nX-Forwarded-For: 192.0.2.7\r\n";
        expect(both, "192.0.2.7:0");
        assert_eq!(parsed(both).1, None);
        let head = head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{both}\r\n"));
        let other = read_forwarded(&head, is_trusted);
        assert_eq!((other.secure, other.host), (Some(true), Some("evil")));
    }

    #[test]
    fn scheme_and_host_are_those_of_who_named_the_client() {
        for (headers, secure, host) in [
            ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n", None, None),
            (
                "Forwarded: for=192.0.2.1;proto=https;host=box.example:8443\r\n",
                Some(true),
                Some("box.example:8443"),
            ),
            (
                "Forwarded: for=192.0.2.1;PROTO=HTTP;Host=\"[::1]:80\"\r\n",
                Some(false),
                Some("[::1]:80"),
            ),
            (
                "Forwarded: for=6.6.6.6;proto=http;host=evil, for=192.0.2.1;proto=https;host=a,\
                 for=10.0.0.1;host=b\r\n",
                Some(true),
                Some("a"),
            ),
            ("Forwarded: for=192.0.2.1;proto=gopher;host=\"a b\"\r\n", None, None),
            (
                "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: wss\r\nX-Forwarded-Host: a\r\n",
                Some(true),
                Some("a"),
            ),
            (
                "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: http, https\r\n",
                Some(true),
                None,
            ),
            (
                "X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\nX-Forwarded-Proto: https, http\r\n\
                 X-Forwarded-Host: a\r\n",
                Some(true),
                Some("a"),
            ),
            (
                "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: a/b\r\nX-Forwarded-Proto: \r\n",
                None,
                None,
            ),
        ] {
            let (_, parsed_secure, parsed_host) = parsed(headers);
            assert_eq!((parsed_secure, parsed_host.as_deref()), (secure, host), "{headers:?}");
        }
    }
}

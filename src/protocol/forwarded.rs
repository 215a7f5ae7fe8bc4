//! Owns the way from `Forwarded` and `X-Forwarded-For` to the client's address.

use std::net::{IpAddr, SocketAddr};

use super::head::RequestHead;

/// The client's address as trusted proxies tell it: from the right, which is the end that the
/// nearest proxy wrote, the first address that is no trusted proxy itself. Everything left of it
/// came from there and may be made up.
///
/// `None` if the request tells none. Where both headers tell one, they must name the same address:
/// a proxy that writes one of them passes the other through, from whoever sent it.
pub(crate) fn client_addr(
    head: &RequestHead,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let forwarded = rightmost_untrusted(forwarded_for(head).map(parse_node), &is_trusted);
    let x_forwarded = head.tokens("x-forwarded-for").map(parse_node).collect::<Vec<_>>();
    let x_forwarded = rightmost_untrusted(x_forwarded.into_iter(), &is_trusted);
    if head.first("forwarded").is_some() && head.first("x-forwarded-for").is_some() {
        let agreed = forwarded.zip(x_forwarded).filter(|(one, other)| one.ip() == other.ip());
        return agreed.map(|(one, _)| one);
    }
    forwarded.or(x_forwarded)
}

/// Whether a request names an address at all.
pub(crate) fn is_told(head: &RequestHead) -> bool {
    head.first("forwarded").is_some() || head.first("x-forwarded-for").is_some()
}

fn rightmost_untrusted(
    nodes: impl Iterator<Item = Option<SocketAddr>>,
    is_trusted: &impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let nodes: Vec<Option<SocketAddr>> = nodes.collect();
    let mut nearest = None;
    for node in nodes.into_iter().rev() {
        // Hidden ("unknown", "_token") or garbage: what is left of it cannot be told apart from a
        // lie. The proxy that wrote it is the last that is known.
        let Some(address) = node else { break };
        nearest = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    nearest
}

/// The values of `for`, one for each element of the list (RFC 7239 section 4); an element without
/// one is a hop that hides its client.
fn forwarded_for(head: &RequestHead) -> impl Iterator<Item = &str> {
    head.all("forwarded").flat_map(|line| split_outside_quotes(line, b',')).map(|element| {
        let pairs = split_outside_quotes(element, b';').filter_map(|pair| pair.split_once('='));
        let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
        let value = named.next().map_or("", |(_, value)| value.trim());
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        unquoted.unwrap_or(value)
    })
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

/// An address with or without a port, IPv6 with or without brackets; port 0 where none is told.
fn parse_node(text: &str) -> Option<SocketAddr> {
    let whole = |ip: IpAddr| SocketAddr::new(ip.to_canonical(), 0);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(whole(ip));
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inside.parse().ok().map(IpAddr::V6).map(whole);
    }
    let address: SocketAddr = text.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    fn client(headers: &str) -> Option<String> {
        let head = head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
        client_addr(&head, trusted).map(|address| address.to_string())
    }

    #[track_caller]
    fn expect(headers: &str, address: &str) {
        assert_eq!(client(headers).as_deref(), Some(address), "{headers:?}");
    }

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy() {
        expect("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.1,10.0.0.2\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.7:555\r\n", "192.0.2.7:555");
        expect("X-Forwarded-For: 2001:db8::1\r\n", "[2001:db8::1]:0");
        expect("X-Forwarded-For: ::ffff:192.0.2.7\r\n", "192.0.2.7:0");
        expect("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3:0");
    }

    #[test]
    fn forwarded_with_its_quotes_and_parameters() {
        expect("Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43\r\n", "192.0.2.60:0");
        expect("Forwarded: for=1.1.1.1, For=\"[2001:db8::17]:4711\"\r\n", "[2001:db8::17]:4711");
        expect("Forwarded: proto=https;host=\"a,b;for=9.9.9.9\";for=192.0.2.1\r\n", "192.0.2.1:0");
        expect("Forwarded: for=192.0.2.1, for=\"10.0.0.1:80\"\r\n", "192.0.2.1:0");
    }

    #[test]
    fn what_is_hidden_or_garbage_ends_the_search() {
        expect("X-Forwarded-For: 1.1.1.1, nonsense, 10.0.0.1\r\n", "10.0.0.1:0");
        expect("Forwarded: for=1.1.1.1, for=_hidden, for=10.0.0.1\r\n", "10.0.0.1:0");
        expect("Forwarded: for=1.1.1.1, proto=http, for=10.0.0.1\r\n", "10.0.0.1:0");
        for told_nothing in [
            "",
            "X-Forwarded-For:\r\n",
            "X-Forwarded-For: unknown\r\n",
            "Forwarded: for=unknown\r\n",
            "Forwarded: for=\"192.0.2.1\r\n",
            "Forwarded: ;;;,,\"\\\r\n",
            "X-Forwarded-For: 192.0.2.1, 300.1.1.1\r\n",
        ] {
            assert_eq!(client(told_nothing), None, "{told_nothing:?}");
        }
    }

    #[test]
    fn two_headers_must_agree() {
        expect("X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n", "192.0.2.7:0");
        // The proxy writes one, the client sent the other.
        assert_eq!(client("X-Forwarded-For: 192.0.2.7\r\nForwarded: for=9.9.9.9\r\n"), None);
        assert_eq!(client("X-Forwarded-For: 9.9.9.9\r\nForwarded: for=unknown\r\n"), None);
    }
}

//! The header of the PROXY protocol, versions 1 and 2, which a proxy puts before everything
//! else to say whom it speaks for (HAProxy, "The PROXY protocol", versions 1 and 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a connection from a trusted proxy begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyStart {
    /// It is not complete.
    Partial,
    /// It is complete.
    Complete {
        /// The client; `None` if it has no address, or the proxy does not say it.
        client: Option<SocketAddr>,
        /// The bytes of the header.
        length: usize,
    },
}

/// What is no such header, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadProxyHeader;

/// Section 2.2: the signature of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Section 2.1: "a 108-byte buffer is always enough to store all the line and a trailing zero".
const V1_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
/// Signature, command, family, length.
const V2_HEADER_BYTES: usize = 16;

/// Reads the header at the start of `bytes`, which may be incomplete; `max_bytes` bounds version 2.
pub(crate) fn parse_proxy_header(
    bytes: &[u8],
    max_bytes: usize,
) -> Result<ProxyStart, BadProxyHeader> {
    if agrees(bytes, &SIGNATURE) {
        return if bytes.len() < V2_HEADER_BYTES {
            Ok(ProxyStart::Partial)
        } else {
            parse_v2(bytes, max_bytes)
        };
    }
    if agrees(bytes, V1_START) { parse_v1(bytes) } else { Err(BadProxyHeader) }
}

/// Whether what is there of `bytes` is how `start` begins.
fn agrees(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

/// A line such as `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443` (section 2.1).
#[allow(clippy::arithmetic_side_effects, reason = "end lies inside a window of 107 bytes")]
fn parse_v1(bytes: &[u8]) -> Result<ProxyStart, BadProxyHeader> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < V1_BYTES_MAX {
            Ok(ProxyStart::Partial)
        } else {
            Err(BadProxyHeader)
        };
    };
    let line = window.get(V1_START.len()..end).ok_or(BadProxyHeader)?;
    let complete = |client| Ok(ProxyStart::Complete { client, length: end + 2 });
    // "the receiver must ignore anything presented before the CRLF", bytes of any kind included
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return complete(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| BadProxyHeader)?;
    let mut words = line.split(' ');
    let family = words.next();
    let (Some(source), Some(destination), Some(port), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadProxyHeader);
    };
    let source: IpAddr = source.parse().map_err(|_| BadProxyHeader)?;
    let destination: IpAddr = destination.parse().map_err(|_| BadProxyHeader)?;
    let fits = match family {
        Some("TCP4") => source.is_ipv4() && destination.is_ipv4(),
        Some("TCP6") => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    let (Some(port), Some(_)) = (parse_port(port), parse_port(to)) else {
        return Err(BadProxyHeader);
    };
    if !fits {
        return Err(BadProxyHeader);
    }
    complete(Some(SocketAddr::new(source.to_canonical(), port)))
}

/// Section 2.1: "a decimal integer in the range [0..65535] inclusive. Heading zeroes are not permitted".
fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

/// The binary form (section 2.2). What stands behind the addresses (TLVs) is passed over.
fn parse_v2(bytes: &[u8], max_bytes: usize) -> Result<ProxyStart, BadProxyHeader> {
    let Some(&[command, family, high, low, ref payload @ ..]) = bytes.get(SIGNATURE.len()..) else {
        return Err(BadProxyHeader);
    };
    let size = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_HEADER_BYTES + size;
    if length > max_bytes {
        return Err(BadProxyHeader);
    }
    let Some(payload) = payload.get(..size) else { return Ok(ProxyStart::Partial) };
    let client = match (command, family) {
        // LOCAL, whatever it carries: a health check of the proxy, or, from HAProxy, a client whose address
        // it does not know. Nobody is named.
        (0x20, _) => None,
        (0x21, 0x11) => Some(addresses_v4(payload)?),
        (0x21, 0x21) => Some(addresses_v6(payload)?),
        // UNSPEC, datagrams, Unix sockets: "the receiver should ignore address information".
        (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Err(BadProxyHeader),
    };
    Ok(ProxyStart::Complete { client, length })
}

fn addresses_v4(payload: &[u8]) -> Result<SocketAddr, BadProxyHeader> {
    let &[a, b, c, d, _, _, _, _, high, low, _, _, ..] = payload else {
        return Err(BadProxyHeader);
    };
    let port = u16::from_be_bytes([high, low]);
    Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port))
}

fn addresses_v6(payload: &[u8]) -> Result<SocketAddr, BadProxyHeader> {
    let (Some((source, _)), Some(&[high, low, _, _])) =
        (payload.split_first_chunk::<16>(), payload.get(32..36))
    else {
        return Err(BadProxyHeader);
    };
    let address = IpAddr::V6(Ipv6Addr::from(*source)).to_canonical();
    Ok(SocketAddr::new(address, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 8192;

    /// A header of version 2.
    pub(crate) fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[track_caller]
    fn expect(bytes: &[u8], client: Option<&str>) {
        let expected = client.map(|text| text.parse().unwrap());
        let whole = ProxyStart::Complete { client: expected, length: bytes.len() };
        let mut followed = bytes.to_vec();
        followed.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(parse_proxy_header(&followed, MAX), Ok(whole));
        for end in 0..bytes.len() {
            let part = parse_proxy_header(&bytes[..end], MAX);
            assert_eq!(part, Ok(ProxyStart::Partial), "cut at {end}");
        }
    }

    #[test]
    fn version_1() {
        expect(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Some("192.0.2.1:56324"));
        expect(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some("[2001:db8::1]:1"));
        expect(b"PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", Some("192.0.2.1:0"));
        expect(b"PROXY UNKNOWN\r\n", None);
        expect(b"PROXY UNKNOWN ffff::1 whatever it says\r\n", None);
        expect(b"PROXY UNKNOWN \xff\xfe \0\r\n", None);
    }

    #[test]
    fn version_2() {
        let mut v4 = vec![192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0, 80];
        expect(&v2(0x21, 0x11, &v4), Some("192.0.2.1:4660"));
        v4.extend(b"\x04\x00\x05noop!"); // a TLV
        expect(&v2(0x21, 0x11, &v4), Some("192.0.2.1:4660"));
        let mut v6 = Ipv6Addr::LOCALHOST.octets().to_vec();
        v6.extend([0; 16]);
        v6.extend([0, 7, 0, 8]);
        expect(&v2(0x21, 0x21, &v6), Some("[::1]:7"));
        expect(&v2(0x20, 0x00, b""), None); // LOCAL
        expect(&v2(0x20, 0x11, &v4), None); // LOCAL, whatever it carries
        expect(&v2(0x21, 0x00, b"tlv only"), None); // UNSPEC
        expect(&v2(0x21, 0x31, &[0; 216]), None); // Unix
    }

    #[test]
    fn garbage_is_refused_as_soon_as_it_is_seen() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"P ",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 5\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
            b"PROXY TCP4 ::1 192.0.2.1 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
            b"PROXY TCP6 ::1 192.0.2.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +56324 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 +443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 00\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2  443\r\n",
            b"PROXY TCP4 192.0.2.01 192.0.2.2 56324 443\r\n",
            b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY \xff\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"\r\n\r\nGET",
        ] {
            assert_eq!(parse_proxy_header(bytes, MAX), Err(BadProxyHeader), "{bytes:?}");
        }
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        assert_eq!(parse_proxy_header(&endless[..106], MAX), Ok(ProxyStart::Partial));
        assert_eq!(parse_proxy_header(&endless[..107], MAX), Err(BadProxyHeader));
        for (command, family, size) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x41, 12),
        ] {
            let bytes = v2(command, family, &vec![0; size]);
            assert_eq!(
                parse_proxy_header(&bytes, MAX),
                Err(BadProxyHeader),
                "{command:x} {family:x}"
            );
        }
        // Refused by its length, before the rest arrives.
        let long = v2(0x21, 0x11, &[0; 1000]);
        assert_eq!(parse_proxy_header(&long[..16], 1015), Err(BadProxyHeader));
        assert_eq!(parse_proxy_header(&long[..16], 1016), Ok(ProxyStart::Partial));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_proxy_header(&bytes, MAX);
            let _ = parse_proxy_header(&[&SIGNATURE[..], &bytes].concat(), MAX);
            let _ = parse_proxy_header(&[V1_START, &bytes].concat(), MAX);
        }
    }
}

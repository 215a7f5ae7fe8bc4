//! Networks: which addresses a prefix names, and which addresses count as one client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The addresses that share a prefix, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// IPv4 as IPv4-mapped IPv6, so that there is one kind of comparison.
    bits: u128,
    mask: u128,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl Network {
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.bits
    }
}

impl FromStr for Network {
    type Err = String;

    /// An address, an address with a prefix length, or `unix` for peers that have no address.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} is no network: write 10.0.0.0/8, 192.0.2.1, 2001:db8::/32 or unix")
        };
        if text == "unix" {
            // Only a Unix socket's peer is shown so: what headers say is no address then.
            return Ok(Self { bits: bits(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), mask: u128::MAX });
        }
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = prefix.map_or(Ok(width), str::parse).map_err(|_| bad())?;
        if prefix > width {
            return Err(bad());
        }
        let host_bits = width - prefix;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        if bits(address) & !mask != 0 {
            return Err(format!("{text:?} has bits beyond its prefix"));
        }
        Ok(Self { bits: bits(address), mask })
    }
}

/// An IPv4 address as one, also where a socket that takes both kinds shows it as IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) if address.is_ipv6() => SocketAddr::new(IpAddr::V4(v4), address.port()),
        _ => address,
    }
}

/// Who counts as one client: an address, or of global IPv6 addresses the /64, since that is what one
/// subscriber is given. On a network of one's own many devices share a /64, and behind a translator many
/// subscribers do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientKey {
    /// IPv4 as IPv4-mapped IPv6.
    high: u64,
    low: u64,
}

impl ClientKey {
    /// All clients of trusted proxies who have no address, or whose address is not told.
    pub(crate) const UNKNOWN: Self = Self { high: 0, low: 0 };

    /// `None` for a peer without an address, such as a Unix socket's.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_unspecified() {
            return None;
        }
        let bits = bits(address).to_be_bytes();
        let [a, b, c, d, e, f, g, h, low @ ..] = bits;
        let low = if shares_its_64(address) { u64::from_be_bytes(low) } else { 0 };
        Some(Self { high: u64::from_be_bytes([a, b, c, d, e, f, g, h]), low })
    }
}

/// Whether there may be others in its /64, so that it counts by itself.
fn shares_its_64(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return true };
    let [first, second, ..] = v6.segments();
    let is_private = first & 0xfe00 == 0xfc00 // RFC 4193
        || first & 0xffc0 == 0xfe80 // link-local
        || first & 0xffc0 == 0xfec0; // site-local, which is no longer given out
    let is_translated = first == 0x64 && second == 0xff9b; // RFC 6052 and 8215: an IPv4 address is inside
    is_private || is_translated || v6.is_loopback()
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = Ipv6Addr::from(u128::from(self.high) << 64 | u128::from(self.low));
        write!(f, "{whole}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.0/31", "::ffff:192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "::5", "::5"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(ip(inside)), "{network}");
            assert!(inside == outside || !parsed.contains(ip(outside)), "{network}");
        }
        assert!(Network::from_str("unix").unwrap().contains(ip("0.0.0.0")));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/-1", "host", "10.0.0.0/"]
        {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_client_is_an_address_or_a_global_64() {
        let of = |text| ClientKey::of(ip(text)).unwrap();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        for (one, other) in [
            ("192.0.2.1", "192.0.2.2"),
            ("fd00::1", "fd00::2"),
            ("fc12:3456::1", "fc12:3456::2"),
            ("fe80::1", "fe80::2"),
            ("fec0::1", "fec0::2"),
            ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"),
            ("64:ff9b:1::192.0.2.1", "64:ff9b:1::192.0.2.2"),
            ("::1", "2001:db8::1"),
        ] {
            assert_ne!(of(one), of(other), "{one} and {other}");
        }
        for (one, other) in [("fe00::1", "fe00::2"), ("fbff::1", "fbff::2"), ("2a00::1", "2a00::2")]
        {
            assert_eq!(of(one), of(other), "{one} and {other}");
        }
        for nobody in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(ClientKey::of(ip(nobody)).is_none(), "{nobody}");
        }
        assert_ne!(of("::1"), ClientKey::UNKNOWN);
    }

    #[test]
    fn an_address_has_one_form() {
        let canonical = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        assert_eq!(canonical("[::1]:80"), "[::1]:80");
        assert_eq!(canonical("[fe80::1%3]:80"), "[fe80::1%3]:80");
    }
}

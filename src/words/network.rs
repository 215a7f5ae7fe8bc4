//! Owns networks: which addresses a prefix names, and which addresses count as one client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// Who counts as one client: an IPv4 address, or the /64 of an IPv6 address, since that is what one
/// subscriber is given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientKey(u64);

impl ClientKey {
    /// `None` for a peer without an address, such as a Unix socket's.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(v4) if v4.is_unspecified() => None,
            // A prefix that no IPv6 address has: 0:ffff::/32 is not given out.
            IpAddr::V4(v4) => Some(Self(0x0000_ffff_0000_0000 | u64::from(u32::from(v4)))),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                let high =
                    [a, b, c, d].into_iter().fold(0, |high, part| high << 16 | u64::from(part));
                Some(Self(high))
            }
        }
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Ipv6Addr::from(u128::from(self.0) << 64);
        write!(f, "{prefix}/64")
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
    fn a_client_is_an_ipv4_address_or_a_64() {
        let of = |text| ClientKey::of(ip(text)).unwrap();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert!(ClientKey::of(ip("0.0.0.0")).is_none());
    }
}

//! The addresses of a session's peer, and of the client for whom it speaks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::protocol::forwarded::Client;
use crate::words::network::ClientKey;

/// The address of a peer that has none, such as a Unix socket's.
pub(crate) const NO_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The peer's address in 16 bytes: all but IPv4 is boxed, so that the many IPv4 sessions do not pay
/// for it.
#[derive(Debug)]
pub(crate) enum Peer {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Proxy(Box<Proxied>),
}

/// A peer that speaks for another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxied {
    remote: SocketAddr,
    /// Whom it speaks for at present; `None` if that is not told.
    client: Option<SocketAddr>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(v4),
            // Else each of the many IPv4 sessions would pay for the 28 bytes of the longer address.
            SocketAddr::V6(v6) => Self::V6(Box::new(v6)),
        }
    }

    pub(crate) fn remote_addr(&self) -> SocketAddr {
        match self {
            Self::V4(v4) => SocketAddr::V4(*v4),
            Self::V6(v6) => SocketAddr::V6(**v6),
            Self::Proxy(proxied) => proxied.remote,
        }
    }

    /// The client: the peer, or whom it speaks for.
    pub(crate) fn client_addr(&self) -> SocketAddr {
        match self {
            Self::Proxy(proxied) => proxied.client.unwrap_or(NO_ADDR),
            Self::V4(_) | Self::V6(_) => self.remote_addr(),
        }
    }

    /// Who the client is for limits; `None` for a Unix socket's peer.
    pub(crate) fn client_key(&self) -> Option<ClientKey> {
        match self {
            Self::Proxy(proxied) if proxied.client.is_none() => Some(ClientKey::UNKNOWN),
            _ => ClientKey::of(self.client_addr().ip()),
        }
    }

    /// A trusted proxy says whom its connection, or its present request, is for.
    pub(crate) fn set_client(&mut self, client: Client) {
        let remote = self.remote_addr();
        let client = match client {
            Client::Proxy => Some(remote),
            Client::Unknown => None,
            Client::Known(address) => Some(address),
        };
        let present = match self {
            Self::Proxy(proxied) => proxied.client,
            Self::V4(_) | Self::V6(_) => Some(remote),
        };
        if client != present {
            *self = Self::Proxy(Box::new(Proxied { remote, client }));
        }
    }
}

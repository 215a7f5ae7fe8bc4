//! The servers that a network in memory has for what an application dials: names, addresses, and what
//! happens to who connects there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use crate::core::dial_orders::{Attempt, DialOrder, Dialled, Remote};
use crate::session::state::NO_ADDR;

use super::link::LinkId;
#[cfg(feature = "tls")]
use super::tls_peer::FarTls;

/// What a name or an address does when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FarName {
    Addresses(Vec<SocketAddr>),
    Unknown,
    /// The name server is away.
    Silent,
}

/// What an address does to who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FarPort {
    Accepts,
    Refuses,
    /// Nothing comes back, as from a machine that is off.
    Silent,
}

/// All of them.
#[derive(Default)]
pub(crate) struct FarServers {
    pub(crate) names: BTreeMap<String, FarName>,
    /// Addresses that do something else than to refuse.
    pub(crate) ports: BTreeMap<SocketAddr, FarPort>,
    /// Addresses that speak TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: BTreeMap<SocketAddr, FarTls>,
    /// So many bytes of what these send arrive, and then the connection breaks.
    pub(crate) breaks_after: BTreeMap<SocketAddr, usize>,
    /// Unix sockets that accept.
    pub(crate) sockets: Vec<String>,
    /// Names that were asked for, in order.
    pub(crate) asked: Vec<String>,
    /// Addresses that were connected to, in order.
    pub(crate) tried: Vec<SocketAddr>,
    ended: VecDeque<Dialled<LinkId>>,
    /// Attempts that wait for what never comes.
    pub(crate) pending: Vec<Attempt>,
    /// Connections that were made and nobody has looked at.
    pub(crate) arrived: VecDeque<LinkId>,
    /// Where other applications are.
    pub(super) neighbours: BTreeSet<IpAddr>,
    /// Attempts to connect to them that nobody has looked at, and those that were given up.
    pub(super) outgoing: Vec<(Attempt, SocketAddr)>,
    pub(super) abandoned: Vec<Attempt>,
    /// The time, for those to whom nobody says it.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) clock: std::rc::Rc<std::cell::Cell<crate::words::time::Time>>,
    /// Hears of everything that is ordered for an attempt.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) on_order: Option<Box<dyn Fn(Attempt)>>,
}

impl FarServers {
    /// Does what was ordered; `connect` makes a link.
    pub(super) fn order(&mut self, order: DialOrder, connect: impl FnOnce(SocketAddr) -> LinkId) {
        #[cfg(all(repository, any(test, fuzzing)))]
        if let (
            Some(hear),
            DialOrder::LookUp { attempt, .. } | DialOrder::Connect { attempt, .. },
        ) = (&self.on_order, &order)
        {
            hear(*attempt);
        }
        match order {
            DialOrder::LookUp { attempt, host, port } => self.look_up(attempt, &host, port),
            DialOrder::Connect { attempt, remote: Remote::Tcp(address) } => {
                self.tried.push(address);
                if self.neighbours.contains(&address.ip()) {
                    return self.outgoing.push((attempt, address));
                }
                match self.ports.get(&address).copied().unwrap_or(FarPort::Refuses) {
                    FarPort::Accepts => self.made(attempt, address, connect),
                    FarPort::Refuses => self.refuse(attempt, address),
                    FarPort::Silent => self.pending.push(attempt),
                }
            }
            DialOrder::Connect { attempt, remote: Remote::Unix(path) } => {
                if self.sockets.iter().any(|known| **known == *path) {
                    return self.made(attempt, NO_ADDR, connect);
                }
                let gone = ErrorKind::NotFound.into();
                self.ended.push_back(Dialled::NotConnected(attempt, NO_ADDR, gone));
            }
            DialOrder::Abandon(attempt) => {
                self.pending.retain(|known| *known != attempt);
                if !self.neighbours.is_empty() {
                    self.abandoned.push(attempt);
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, attempt: Attempt, address: SocketAddr) {
        let refused = ErrorKind::ConnectionRefused.into();
        self.ended.push_back(Dialled::NotConnected(attempt, address, refused));
    }

    pub(super) fn connected(&mut self, attempt: Attempt, address: SocketAddr, link: LinkId) {
        self.ended.push_back(Dialled::Connected(attempt, address, link));
    }

    /// Whether something has ended of which nobody was told.
    pub(super) fn has_news(&self) -> bool {
        !self.ended.is_empty()
    }

    fn made(
        &mut self,
        attempt: Attempt,
        address: SocketAddr,
        connect: impl FnOnce(SocketAddr) -> LinkId,
    ) {
        let link = connect(address);
        self.arrived.push_back(link);
        self.connected(attempt, address, link);
    }

    fn look_up(&mut self, attempt: Attempt, host: &str, port: u16) {
        self.asked.push(host.to_owned());
        let answer = match self.names.get(host) {
            Some(FarName::Silent) => return self.pending.push(attempt),
            Some(FarName::Addresses(addresses)) => {
                Ok(addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect())
            }
            Some(FarName::Unknown) | None => {
                Err(io::Error::new(ErrorKind::NotFound, "no such name"))
            }
        };
        self.ended.push_back(Dialled::Resolved(attempt, answer));
    }

    pub(super) fn next(&mut self) -> Option<Dialled<LinkId>> {
        self.ended.pop_front()
    }
}

//! The connections between applications in memory: what one side's socket has sent arrives at the other's.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::dial_orders::Attempt;
use crate::words::time::Time;

use super::link::{HostId, LinkId, PeerEnd};
use super::transit::Pace;
use super::{Link, Network};

/// What an application's system keeps of a connection for it to read.
const RECEIVE_BUFFER: usize = 64 << 10;

/// All of them, and those that are being made.
#[derive(Default)]
pub(crate) struct Pipes {
    open: Vec<Pipe>,
    connecting: Vec<Connecting>,
    /// What lies between two hosts, the lower id first; nothing is said of most.
    paths: BTreeMap<(HostId, HostId), Path>,
    /// By host.
    addresses: Vec<IpAddr>,
}

/// What lies between two hosts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path {
    /// How long each byte is under way.
    pub(crate) delay: Duration,
    /// Nothing passes.
    pub(crate) cut: bool,
}

/// A connection that is being made.
struct Connecting {
    from: HostId,
    attempt: Attempt,
    address: SocketAddr,
    /// When the answer is there.
    at: Time,
}

/// A connection.
struct Pipe {
    /// Who has dialled, and who has accepted.
    ends: [PipeEnd; 2],
}

/// One end of it.
struct PipeEnd {
    host: HostId,
    link: LinkId,
    /// What it has sent and is under way, with the time of its arrival.
    sent: VecDeque<(Time, Cargo)>,
    /// It sends nothing more.
    is_over: bool,
}

/// What a system sends.
enum Cargo {
    Bytes(Vec<u8>),
    End(PeerEnd),
}

/// Who is where, and what lies between.
impl Pipes {
    /// A host has this address from now on.
    pub(super) fn enter(&mut self, host: HostId, address: IpAddr) {
        assert_eq!(self.addresses.len(), host, "hosts are numbered in order");
        self.addresses.push(address);
    }

    /// Who has an address: the one that came last.
    pub(super) fn host_at(&self, address: IpAddr) -> Option<HostId> {
        self.addresses.iter().rposition(|known| *known == address)
    }

    /// What lies between two hosts. It is a matter of their addresses: who comes after one has its paths.
    pub(crate) fn path(&mut self, one: HostId, other: HostId) -> &mut Path {
        self.paths.entry(self.key(one, other)).or_default()
    }

    fn key(&self, one: HostId, other: HostId) -> (HostId, HostId) {
        let first = |host: HostId| {
            let address = self.addresses.get(host);
            self.addresses.iter().position(|known| Some(known) == address).unwrap_or(host)
        };
        let (one, other) = (first(one), first(other));
        (one.min(other), one.max(other))
    }

    fn key_of(&self, pipe: &Pipe) -> (HostId, HostId) {
        let [dialled, accepted] = &pipe.ends;
        self.key(dialled.host, accepted.host)
    }

    fn path_between(&self, one: HostId, other: HostId) -> Path {
        self.paths.get(&self.key(one, other)).copied().unwrap_or_default()
    }

    /// Whether anything passes between two hosts.
    pub(crate) fn set_cut(
        &mut self,
        networks: &mut [Network],
        one: HostId,
        other: HostId,
        cut: bool,
    ) {
        self.path(one, other).cut = cut;
        let key = self.key(one, other);
        let pace = if cut { Pace::Vanished } else { Pace::All };
        for pipe in &self.open {
            if self.key_of(pipe) == key {
                pipe.ends.iter().for_each(|end| end.link(networks).set_pace(pace));
            }
        }
    }

    /// Resets all connections between two hosts.
    pub(crate) fn reset(&mut self, networks: &mut [Network], one: HostId, other: HostId) {
        let key = self.key(one, other);
        for pipe in std::mem::take(&mut self.open) {
            if self.key_of(&pipe) != key {
                self.open.push(pipe);
                continue;
            }
            pipe.ends.iter().for_each(|end| end.link(networks).end(PeerEnd::Reset));
        }
    }

    /// The two links of each connection: who has dialled, and who has accepted.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn links(&self) -> impl Iterator<Item = [(HostId, LinkId); 2]> + '_ {
        self.open.iter().map(|pipe| {
            let [dialled, accepted] = &pipe.ends;
            [(dialled.host, dialled.link), (accepted.host, accepted.link)]
        })
    }
}

/// What happens.
impl Pipes {
    /// Moves what can be moved at this moment; false if that is nothing.
    pub(super) fn exchange(&mut self, now: Time, networks: &mut [Network]) -> bool {
        self.take_orders(now, networks);
        let mut moved = self.connect(now, networks);
        let mut open = std::mem::take(&mut self.open);
        for pipe in &mut open {
            let path = self.path_between(pipe.ends[0].host, pipe.ends[1].host);
            moved |= !path.cut && pipe.exchange(now, networks, path.delay);
        }
        open.retain(|pipe| !pipe.is_over());
        self.open = open;
        moved
    }

    /// When something arrives next.
    pub(super) fn next_move(&self) -> Option<Time> {
        let arrivals = self.open.iter().filter_map(|pipe| {
            let path = self.path_between(pipe.ends[0].host, pipe.ends[1].host);
            let next = pipe.ends.iter().filter_map(|end| Some(end.sent.front()?.0)).min();
            next.filter(|_| !path.cut)
        });
        let made = self.connecting.iter().filter_map(|connecting| {
            let to = self.host_at(connecting.address.ip())?;
            (!self.path_between(connecting.from, to).cut).then_some(connecting.at)
        });
        arrivals.chain(made).min()
    }

    fn take_orders(&mut self, now: Time, networks: &mut [Network]) {
        for (from, network) in networks.iter_mut().enumerate() {
            let far = &mut network.sockets.far;
            for (attempt, address) in std::mem::take(&mut far.outgoing) {
                let to = self.host_at(address.ip()).unwrap_or(from);
                let delay = self.path_between(from, to).delay;
                let at = now.after(delay).after(delay);
                self.connecting.push(Connecting { from, attempt, address, at });
            }
            for attempt in std::mem::take(&mut far.abandoned) {
                self.connecting.retain(|known| known.from != from || known.attempt != attempt);
            }
        }
    }

    /// Makes the connections whose time has come.
    fn connect(&mut self, now: Time, networks: &mut [Network]) -> bool {
        let mut moved = false;
        for connecting in std::mem::take(&mut self.connecting) {
            let Connecting { from, attempt, address, at } = connecting;
            let to = self.host_at(address.ip()).unwrap_or(from);
            if at > now || self.path_between(from, to).cut {
                self.connecting.push(connecting);
                continue;
            }
            moved = true;
            if networks[to].stopped {
                networks[from].sockets.far.refuse(attempt, address);
                continue;
            }
            let port = 40_000 + u16::try_from(networks[to].link_count() % 20_000).unwrap_or(0);
            let client = SocketAddr::new(self.addresses[from], port);
            let dialled = networks[from].sockets.add_dialled(address);
            let accepted = networks[to].sockets.add_accepted(client);
            networks[from].sockets.far.connected(attempt, address, dialled);
            self.open
                .push(Pipe { ends: [PipeEnd::new(from, dialled), PipeEnd::new(to, accepted)] });
        }
        moved
    }
}

impl Pipe {
    /// Whether nothing more can pass.
    fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.is_over && end.sent.is_empty())
    }

    fn exchange(&mut self, now: Time, networks: &mut [Network], delay: Duration) -> bool {
        let [dialled, accepted] = &mut self.ends;
        let there = dialled.send(now, networks, delay) | dialled.arrive(now, networks, accepted);
        let back = accepted.send(now, networks, delay) | accepted.arrive(now, networks, dialled);
        there | back
    }
}

impl PipeEnd {
    fn new(host: HostId, link: LinkId) -> Self {
        Self { host, link, sent: VecDeque::new(), is_over: false }
    }

    fn link<'n>(&self, networks: &'n mut [Network]) -> &'n mut Link {
        networks[self.host].link(self.link)
    }

    /// Takes what its system has sent.
    fn send(&mut self, now: Time, networks: &mut [Network], delay: Duration) -> bool {
        if self.is_over {
            return false;
        }
        let at = now.after(delay);
        let link = self.link(networks);
        let bytes = std::mem::take(&mut link.socket.got);
        let (has_sent, end) = (!bytes.is_empty(), link.sent_end());
        if has_sent {
            self.sent.push_back((at, Cargo::Bytes(bytes)));
        }
        if let Some(end) = end {
            self.sent.push_back((at, Cargo::End(end)));
            self.is_over = true;
        }
        has_sent || end.is_some()
    }

    /// What has been under way for long enough arrives at the other end, whose room says how much more may
    /// be sent.
    fn arrive(&mut self, now: Time, networks: &mut [Network], to: &mut Self) -> bool {
        let mut moved = false;
        while self.sent.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, cargo)) = self.sent.pop_front() else { break };
            moved = true;
            let link = to.link(networks);
            match cargo {
                // RFC 9293 section 3.10.7.1: whatever comes for a socket that is gone is answered by a reset.
                Cargo::Bytes(_) if link.socket.gone.is_some() => {
                    to.sent.push_back((now, Cargo::End(PeerEnd::Reset)));
                    to.is_over = true;
                }
                Cargo::Bytes(bytes) => link.send_raw(&bytes),
                Cargo::End(end) => {
                    link.end(end);
                    to.is_over |= end == PeerEnd::Reset;
                }
            }
        }
        let receiver = to.link(networks);
        let is_gone = receiver.socket.gone.is_some();
        let waiting: usize = self.sent.iter().map(|(_, cargo)| cargo.len()).sum();
        let room = RECEIVE_BUFFER.saturating_sub(waiting + receiver.unread());
        moved | self.link(networks).set_room(if is_gone { usize::MAX } else { room })
    }
}

impl Cargo {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::End(_) => 0,
        }
    }
}

//! All links of a network, as the driver uses them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
#[cfg(all(repository, test))]
use std::os::fd::OwnedFd;
#[cfg(feature = "client")]
use std::time::Duration;

use log::warn;

use crate::context::loop_state::NewWatch;
use crate::context::watch_orders::WatchOrder;
use crate::core::Disposal;
#[cfg(feature = "client")]
use crate::core::dial_orders::{DialOrder, Dialled};
use crate::core::sockets::{Accept, Readiness, Sockets};
use crate::transport::channel::Channel;
#[cfg(feature = "tls")]
use crate::transport::secured::buffer_bytes;
#[cfg(all(feature = "client", feature = "tls"))]
use crate::transport::tls::connector::TlsStart;
use crate::words::time::Time;

#[cfg(feature = "client")]
use super::far_servers::FarServers;
use super::link::{Link, LinkId};
#[cfg(all(repository, test))]
use super::several::Passage;
#[cfg(feature = "tls")]
use super::tls_peer::BothEnds;

/// Links, by id and by slot.
#[derive(Default)]
pub(crate) struct Links {
    pub(super) all: Vec<Link>,
    /// Who has a slot in the core.
    pub(super) slots: BTreeMap<u32, LinkId>,
    /// Connected and not accepted yet.
    backlog: VecDeque<LinkId>,
    /// Closed by the server, while their systems still deliver.
    orphans: Vec<LinkId>,
    /// What the application dials.
    #[cfg(feature = "client")]
    pub(crate) far: FarServers,
    pub(super) has_more_events: bool,
    /// Descriptors of the application, which stay open.
    watched: Vec<NewWatch>,
    /// Those that the driver has used since their peers have looked.
    touched: Vec<LinkId>,
    /// What the wall clock shows to whoever connects from now on.
    #[cfg(feature = "client")]
    pub(crate) since_1970: Option<Duration>,
    /// What those who come from now on speak.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<BothEnds>,
    /// The way to other loops, where there are several.
    #[cfg(all(repository, test))]
    pub(super) passage: Option<Passage>,
}

impl Links {
    pub(super) fn connect(&mut self, address: SocketAddr) -> LinkId {
        #[cfg(feature = "tls")]
        let link = match &self.tls {
            Some(ends) => Link::over_tls(address, ends),
            None => Link::new(address),
        };
        #[cfg(not(feature = "tls"))]
        let link = Link::new(address);
        let id = self.all.len();
        self.all.push(link);
        #[cfg(feature = "client")]
        self.show_wall_clock(id);
        self.backlog.push_back(id);
        id
    }

    #[cfg(feature = "client")]
    fn show_wall_clock(&mut self, id: LinkId) {
        let clock = &mut self.all[id].socket.since_1970;
        *clock = self.since_1970.unwrap_or(*clock);
    }

    /// One end of a connection to another application: the one that has dialled.
    #[cfg(feature = "client")]
    pub(super) fn add_dialled(&mut self, address: SocketAddr) -> LinkId {
        self.all.push(Link::between(
            address,
            #[cfg(feature = "tls")]
            None,
        ));
        self.show_wall_clock(self.all.len() - 1);
        self.all.len() - 1
    }

    /// The same for the one that is to accept it.
    #[cfg(feature = "client")]
    pub(super) fn add_accepted(&mut self, address: SocketAddr) -> LinkId {
        let link = Link::between(
            address,
            #[cfg(feature = "tls")]
            self.tls.as_ref(),
        );
        self.all.push(link);
        let id = self.all.len() - 1;
        self.backlog.push_back(id);
        self.show_wall_clock(id);
        id
    }

    /// The process is gone: its system ends all connections.
    #[cfg(feature = "client")]
    pub(super) fn halt(&mut self) {
        let slots = std::mem::take(&mut self.slots).into_values();
        for id in slots.chain(std::mem::take(&mut self.backlog)) {
            self.all[id].dispose(Disposal::Close);
            self.orphans.push(id);
        }
    }

    /// What the system tells at this moment: as a wait for events returns it.
    pub(super) fn take_events(&mut self, now: Time) -> Vec<(u32, Readiness)> {
        let mut events = Vec::new();
        for (&slot, &id) in &self.slots {
            events.extend(self.all[id].take_event(now).map(|ready| (slot, ready)));
        }
        let all = &mut self.all;
        self.orphans.retain(|&id| all[id].linger(now));
        events
    }

    /// Lets the peers see what the driver did.
    pub(super) fn react(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let link = &mut self.all[id];
            link.touched = false;
            link.react();
            if let Some(violation) = link.violation() {
                panic!("link {id}: {violation}");
            }
        }
    }

    /// When something moves by itself next: somebody reads, or takes something again.
    pub(super) fn next_move(&self) -> Option<Time> {
        let orphans = self.orphans.iter().map(|&id| &self.all[id]);
        let known = self.slots.values().map(|&id| &self.all[id]).chain(orphans);
        known.filter_map(Link::next_move).min()
    }

    fn touch(&mut self, id: LinkId) {
        if !std::mem::replace(&mut self.all[id].touched, true) {
            self.touched.push(id);
        }
    }
}

impl Sockets for Links {
    type Socket = Link;
    type Accepted = LinkId;

    fn socket(&mut self, slot: u32) -> Option<&mut Link> {
        let id = *self.slots.get(&slot)?;
        self.touch(id);
        self.all.get_mut(id)
    }

    fn plain(&mut self, slot: u32) -> Option<&mut Link> {
        self.socket(slot).filter(|link| matches!(link.socket, Channel::Plain(_)))
    }

    fn has_more_events(&self) -> bool {
        self.has_more_events
    }

    fn accept(&mut self, _now: Time) -> Accept<LinkId> {
        match self.backlog.pop_front() {
            Some(id) => Accept::Connection(id, self.all[id].address, None),
            None => Accept::Drained,
        }
    }

    fn next_accept(&self) -> Option<Time> {
        (!self.backlog.is_empty()).then_some(Time::ZERO)
    }

    fn adopt(&mut self, slot: u32, id: LinkId, proxy_header: bool) -> io::Result<()> {
        assert!(self.slots.insert(slot, id).is_none(), "slot {slot} is given twice");
        self.all[id].adopt(slot, proxy_header)
    }

    #[cfg(all(repository, test))]
    fn take_over(&mut self, fd: OwnedFd, _listener: Option<usize>) -> io::Result<LinkId> {
        let passage = self.passage.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        passage.take_over(&fd, &mut self.all)
    }

    #[cfg(all(repository, test))]
    fn give_up(&mut self, id: LinkId) -> io::Result<(OwnedFd, Option<usize>)> {
        let passage = self.passage.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        passage.give_up(&mut self.all, id)
    }

    fn refuse(&mut self, id: LinkId) {
        self.all[id].dispose(Disposal::Close);
        self.orphans.push(id);
    }

    fn dispose(&mut self, slot: u32, disposal: Disposal) {
        let Some(id) = self.slots.remove(&slot) else { panic!("nobody had slot {slot}") };
        self.touch(id);
        self.all[id].dispose(disposal);
        self.orphans.push(id);
    }

    /// In virtual time no descriptor is ever ready.
    fn watch(&mut self, order: WatchOrder<NewWatch>) {
        if let WatchOrder::Begin(_, watch) = order {
            warn!(target: "wirewheel::testing", "a descriptor is not watched here: it is never ready");
            self.watched.push(watch);
        }
    }

    #[cfg(feature = "tls")]
    fn tls_buffer_bytes(&self, read_bytes: usize) -> usize {
        buffer_bytes(read_bytes)
    }

    #[cfg(feature = "client")]
    fn dial(&mut self, order: DialOrder) {
        let all = &mut self.all;
        let made = all.len();
        self.far.order(order, |address| {
            all.push(Link::new(address));
            all.len() - 1
        });
        if made == self.all.len() {
            return;
        }
        self.show_wall_clock(made);
        let link = &mut self.all[made];
        link.breaks_after_in = self.far.breaks_after.get(&link.address).copied();
        #[cfg(feature = "tls")]
        if let Some(tls) = self.far.tls.get(&link.address) {
            link.speak_tls(tls);
        }
    }

    #[cfg(all(feature = "client", feature = "tls"))]
    fn secure(&mut self, slot: u32, start: &TlsStart) -> io::Result<()> {
        match self.slots.get(&slot) {
            Some(&id) => self.all[id].secure(start),
            None => Ok(()),
        }
    }

    #[cfg(feature = "client")]
    fn next_dialled(&mut self) -> Option<Dialled<LinkId>> {
        self.far.next()
    }

    fn release_listeners(&mut self) {}
}

//! A network as one of several loops of a server: it is turned only when its loop would wake, and links go
//! from one to another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::core::Disposal;
use crate::words::time::Time;

use super::{Network, ServerRef};

use super::link::{Link, LinkId, PeerEnd};

/// All links of a server with several loops, by the ports of their clients.
#[derive(Default)]
pub(crate) struct Passages {
    places: BTreeMap<u16, Place>,
    /// Those that one loop has given up and no other has taken, by the descriptor that stands for each.
    on_the_way: BTreeMap<RawFd, Link>,
    lost: Vec<Link>,
}

/// Where a link is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    On { number: usize, id: LinkId },
    Between(RawFd),
    Lost(usize),
}

/// The way of links from and to one loop.
pub(crate) struct Passage {
    number: usize,
    all: Rc<RefCell<Passages>>,
}

impl Passages {
    pub(crate) fn place(&self, port: u16) -> Option<Place> {
        self.places.get(&port).copied()
    }

    /// How many no loop has.
    pub(crate) fn between(&self) -> usize {
        self.on_the_way.len()
    }

    /// One that no loop has.
    pub(crate) fn link(&mut self, place: Place) -> Option<&mut Link> {
        match place {
            Place::On { .. } => None,
            Place::Between(fd) => self.on_the_way.get_mut(&fd),
            Place::Lost(at) => self.lost.get_mut(at),
        }
    }

    fn put(&mut self, port: u16, place: Place) {
        self.places.insert(port, place);
    }

    fn depart(&mut self, fd: RawFd, link: Link) {
        self.put(link.address.port(), Place::Between(fd));
        // Its descriptor was closed if another has its number.
        if let Some(closed) = self.on_the_way.insert(fd, link) {
            self.lose(closed);
        }
    }

    /// The mailboxes of all loops are gone, and with them the descriptors in them.
    pub(crate) fn lose_all(&mut self) {
        for link in std::mem::take(&mut self.on_the_way).into_values() {
            self.lose(link);
        }
    }

    fn lose(&mut self, mut link: Link) {
        link.dispose(Disposal::Close);
        self.put(link.address.port(), Place::Lost(self.lost.len()));
        self.lost.push(link);
    }
}

impl Passage {
    /// This loop's end of a link goes on its way; what is left in its place is over.
    pub(super) fn give_up(
        &self,
        all: &mut [Link],
        id: LinkId,
    ) -> io::Result<(OwnedFd, Option<usize>)> {
        // Nothing is read from it: it is a number that nothing else has.
        let fd = OwnedFd::from(File::open("/dev/null")?);
        let link = all.get_mut(id).ok_or(ErrorKind::NotFound)?;
        let address = link.address;
        let link = std::mem::replace(link, Link::new(address));
        self.all.borrow_mut().depart(fd.as_raw_fd(), link);
        Ok((fd, Some(0)))
    }

    /// A link that another loop has given up is one of this loop.
    pub(super) fn take_over(&self, fd: &OwnedFd, all: &mut Vec<Link>) -> io::Result<LinkId> {
        let mut passages = self.all.borrow_mut();
        let link = passages.on_the_way.remove(&fd.as_raw_fd()).ok_or(ErrorKind::NotFound)?;
        let id = all.len();
        passages.put(link.address.port(), Place::On { number: self.number, id });
        all.push(link);
        Ok(id)
    }
}

impl Network {
    /// It is the loop of that number.
    pub(crate) fn be_loop(&mut self, number: usize, all: &Rc<RefCell<Passages>>) {
        self.driver.sockets.passage = Some(Passage { number, all: Rc::clone(all) });
    }

    /// A peer connects to the first loop, which is not turned yet.
    pub(crate) fn knock(&mut self, address: SocketAddr) {
        let id = self.driver.sockets.connect(address);
        if let Some(passage) = &mut self.driver.sockets.passage {
            passage.all.borrow_mut().put(address.port(), Place::On { number: 0, id });
        }
    }

    /// One turn, if something has happened, it was woken, or `is_due`: whether it was turned.
    pub(crate) fn turn_if_woken(&mut self, is_due: bool) -> bool {
        let events = self.driver.sockets.take_events(self.now);
        let is_woken = self.inbox.as_ref().is_some_and(|inbox| inbox.has_orders());
        let turns = !self.stopped && (is_due || is_woken || !events.is_empty());
        if turns {
            self.turn(events);
            self.driver.core.publish_stats();
        }
        turns
    }

    /// Until when it sleeps if nothing happens: what the loop asks once, before it waits.
    pub(crate) fn sleeps_until(&mut self) -> Option<Time> {
        self.driver.next_turn().filter(|_| !self.stopped)
    }

    /// When a peer does something of its own.
    pub(crate) fn next_move(&self) -> Option<Time> {
        self.driver.sockets.next_move()
    }

    /// The clock is that of all loops.
    pub(crate) fn be_at(&mut self, now: Time) {
        self.set_now(now);
    }

    /// The loop is over: nothing can be sent to it any more.
    pub(crate) fn close_mailbox(&mut self) {
        self.inbox = None;
    }

    /// Code of the application runs on the loop, which is not turned yet.
    pub(crate) fn run_between(&mut self, action: impl FnOnce(&mut ServerRef<'_>)) {
        self.driver.run(self.now, "action", action);
    }
}

impl Link {
    /// The peer ends its side; whoever has the link hears of it in its next turn.
    pub(crate) fn end_by_peer(&mut self, end: PeerEnd) {
        self.end(end);
    }

    /// Lets a peer that acts of its own see what has arrived.
    pub(crate) fn look(&mut self) {
        self.react();
    }
}

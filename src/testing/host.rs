//! An application as a test holds it: one of several under one clock, or one alone.

use std::cell::{Ref, RefCell, RefMut};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use super::network::{HostId, Hosts, Network};

/// One application of several.
#[derive(Clone)]
pub(super) struct Host {
    hosts: Rc<RefCell<Hosts>>,
    id: HostId,
}

impl Host {
    pub(super) fn new(hosts: Rc<RefCell<Hosts>>, id: HostId) -> Self {
        Self { hosts, id }
    }

    pub(super) fn alone(network: Network) -> Self {
        Self::new(Rc::new(RefCell::new(Hosts::alone(network))), 0)
    }

    pub(super) fn borrow(&self) -> Ref<'_, Network> {
        Ref::map(self.hosts.borrow(), |hosts| &hosts.networks[self.id])
    }

    pub(super) fn borrow_mut(&self) -> Access<'_> {
        Access { hosts: self.hosts.borrow_mut(), id: self.id }
    }

    /// `None` inside of a hook: the application is busy with it.
    pub(super) fn try_borrow_mut(&self) -> Option<Access<'_>> {
        Some(Access { hosts: self.hosts.try_borrow_mut().ok()?, id: self.id })
    }
}

/// Access to an application. When it ends, everything happens in the others that follows from it.
pub(super) struct Access<'h> {
    hosts: RefMut<'h, Hosts>,
    id: HostId,
}

/// The clock is that of all.
impl Access<'_> {
    pub(super) fn until_fired(&self, time: Duration) -> Duration {
        self.hosts.until_fired(time)
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.hosts.advance(by);
    }

    pub(super) fn jump(&mut self, by: Duration) {
        self.hosts.jump(by);
    }
}

impl Deref for Access<'_> {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.hosts.networks[self.id]
    }
}

impl DerefMut for Access<'_> {
    fn deref_mut(&mut self) -> &mut Network {
        &mut self.hosts.networks[self.id]
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        // A test that fails has its own message.
        if !std::thread::panicking() {
            self.hosts.settle_joined();
        }
    }
}

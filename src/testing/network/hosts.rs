//! Several applications in memory under one clock.

#[cfg(feature = "client")]
use std::collections::BTreeMap;
#[cfg(feature = "client")]
use std::net::IpAddr;
use std::time::Duration;

use crate::structures::wheel::until_fired;
use crate::words::time::Time;

use super::Network;
#[cfg(feature = "client")]
use super::far_servers::FarName;
#[cfg(feature = "client")]
use super::link::HostId;
#[cfg(feature = "client")]
use super::pipes::Pipes;

/// So often may what one application sends make another send something at the same moment.
const ROUNDS_MAX: usize = 10_000;

/// Applications, each with a network of its own, and what lies between them. One alone has nobody to dial.
#[derive(Default)]
pub(crate) struct Hosts {
    pub(crate) networks: Vec<Network>,
    now: Time,
    /// The connections between them.
    #[cfg(feature = "client")]
    pub(crate) pipes: Pipes,
    #[cfg(feature = "client")]
    names: BTreeMap<String, IpAddr>,
}

impl Hosts {
    /// One application without a name.
    pub(crate) fn alone(network: Network) -> Self {
        Self { networks: vec![network], ..Self::default() }
    }

    /// How long all of it runs.
    #[cfg(feature = "client")]
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Whether they can reach each other.
    pub(crate) fn are_joined(&self) -> bool {
        #[cfg(feature = "client")]
        return !self.names.is_empty();
        #[cfg(not(feature = "client"))]
        false
    }

    /// Lets everything happen that can happen at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.networks.iter_mut().for_each(Network::pump);
            if !self.exchange() {
                return;
            }
        }
        panic!("two applications answer each other without end: TestNetwork::delay lets time pass");
    }

    /// The same where there is more than one; one alone has settled by itself.
    pub(crate) fn settle_joined(&mut self) {
        if self.are_joined() {
            self.settle();
        }
    }

    /// What was sent arrives; false if nothing has.
    #[cfg(feature = "client")]
    fn exchange(&mut self) -> bool {
        self.pipes.exchange(self.now, &mut self.networks)
    }

    /// Without dialers nothing is sent from one to another.
    #[cfg(not(feature = "client"))]
    fn exchange(&self) -> bool {
        false
    }

    /// How far to move the clock, by that time at least, so that whatever is due then has fired.
    pub(crate) fn until_fired(&self, time: Duration) -> Duration {
        // The ticks of each begin with it.
        let each = self.networks.iter().map(|network| until_fired(network.now, time));
        each.max().unwrap_or(time)
    }

    /// The clock moves, from deadline to deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        loop {
            self.settle();
            let next = self.next_event().filter(|&next| next <= end);
            let Some(next) = next else { break };
            self.move_clocks(self.now.max(next));
        }
        self.move_clocks(end);
    }

    /// The clock jumps without stopping at what becomes due on the way.
    pub(crate) fn jump(&mut self, by: Duration) {
        self.move_clocks(self.now.after(by));
        self.settle();
    }

    /// When something happens next of its own.
    pub(crate) fn next_event(&mut self) -> Option<Time> {
        let events = self.networks.iter_mut().filter_map(|network| {
            let began = network.began;
            network.next_event().map(|at| began.after(at.since(Time::ZERO)))
        });
        let next = events.min();
        #[cfg(feature = "client")]
        let next = Time::earlier(next, self.pipes.next_move());
        next
    }

    /// Each application's own clock begins with it.
    fn move_clocks(&mut self, now: Time) {
        self.now = now;
        for network in &mut self.networks {
            network.set_now(Time::ZERO.after(now.since(network.began)));
        }
    }
}

/// Names.
#[cfg(feature = "client")]
impl Hosts {
    /// Begins an application under a name, in place of the one that has it.
    pub(crate) fn start(&mut self, name: &str, mut network: Network) -> HostId {
        self.kill(name);
        let id = self.networks.len();
        let last = u8::try_from(self.names.len() + 1).ok().filter(|last| *last <= 250);
        let Some(last) = last else { panic!("more than 250 hosts") };
        let fresh = IpAddr::from([203, 0, 113, last]); // for documentation (RFC 5737)
        let address = *self.names.entry(name.to_owned()).or_insert(fresh);
        network.began = self.now;
        self.pipes.enter(id, address);
        self.networks.push(network);
        for network in &mut self.networks {
            let far = &mut network.sockets.far;
            for (name, address) in &self.names {
                far.neighbours.insert(*address);
                let addresses = FarName::Addresses(vec![(*address, 0).into()]);
                far.names.insert(name.clone(), addresses);
            }
        }
        id
    }

    /// Ends the application of that name as its system does when a process is killed.
    pub(crate) fn kill(&mut self, name: &str) {
        if let Some(id) = self.host(name) {
            self.networks[id].halt();
        }
    }

    /// Who has that name at present.
    pub(crate) fn host(&self, name: &str) -> Option<HostId> {
        self.names.get(name).and_then(|address| self.pipes.host_at(*address))
    }
}

//! The loops of one server in memory: which is turned when, and what reaches which of them when, is said
//! from outside.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::context::bridges::BridgeEnd;
use crate::context::commands::StopRequest;
use crate::context::loop_state::{LoopPlace, ServerRef};
use crate::context::loops::Place;
use crate::context::parcels::Load;
use crate::core::audit::Audit;
use crate::flow::inner::FlowInner;
use crate::flow::shared_flow::SharedFlow;
use crate::testing::network::several::{self, Passages};
use crate::testing::network::{Link, Network};
use crate::testing::simulation::choices::Choices;
use crate::words::time::Time;

use super::ledger::{Ledger, Port};
use super::member::ROOMS;
use super::post::Post;
use super::setup::{Setup, flow_name};

/// More turns at one moment are turns without end.
const TURNS_MAX: usize = 100_000;

/// Messages of a flow that may be on their way to one loop, beside what counts and is not held up.
const ON_THE_WAY_MAX: usize = 256 + 32;

/// The loops of one server.
pub(super) struct Group {
    networks: Vec<Network>,
    pub(super) places: Vec<LoopPlace>,
    /// The flows of each loop.
    pub(super) flows: Vec<Rc<[SharedFlow]>>,
    posts: Vec<Post>,
    passages: Rc<RefCell<Passages>>,
    pub(super) now: Time,
    /// Until when each sleeps if nothing happens.
    sleeps_until: Vec<Option<Time>>,
    /// Somebody has connected, and the first loop has not looked.
    has_knocked: bool,
    pub(super) turns: usize,
}

impl Group {
    pub(super) fn new(setup: &Setup, ledger: &Rc<RefCell<Ledger>>) -> Self {
        let posts: Vec<Post> = (0..setup.loops).map(|_| Post::new()).collect();
        let places = Place::all(posts.iter().map(|post| post.mailbox().clone()).collect());
        let passages = Rc::default();
        let mut flows = Vec::new();
        let networks = places.iter().zip(&posts).map(|(place, post)| {
            let (built, own) = setup.build(place, post.mailbox(), ledger);
            flows.push(own);
            let mut network = Network::new(built);
            network.accept_orders(post.inbox());
            network.be_loop(place.number(), &passages);
            network.core.repeat_chance(1 + place.number() as u64); // one thread runs many seeds
            network
        });
        Self {
            networks: networks.collect(),
            sleeps_until: vec![Some(Time::ZERO); places.len()],
            places,
            flows,
            posts,
            passages,
            now: Time::ZERO,
            has_knocked: false,
            turns: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.networks.len()
    }

    /// A client connects.
    pub(super) fn knock(&mut self, address: SocketAddr) {
        self.networks[0].knock(address);
        self.has_knocked = true;
    }

    /// The connection of a client, whichever loop has it.
    pub(super) fn link<R>(&mut self, port: Port, act: impl FnOnce(&mut Link) -> R) -> Option<R> {
        let place = self.passages.borrow().place(port)?;
        match place {
            several::Place::On { number, id } => Some(act(self.networks[number].link(id))),
            elsewhere => self.passages.borrow_mut().link(elsewhere).map(act),
        }
    }

    /// Whether the loop of that number has that client's connection.
    pub(super) fn has(&self, number: usize, port: Port) -> bool {
        let place = self.passages.borrow().place(port);
        matches!(place, Some(several::Place::On { number: found, .. }) if found == number)
    }

    /// A turn of one loop, if it would wake by itself: whether it has.
    pub(super) fn turn(&mut self, number: usize) -> bool {
        let knocked = number == 0 && std::mem::take(&mut self.has_knocked);
        let is_due = knocked || self.sleeps_until[number].is_some_and(|at| at <= self.now);
        self.turn_if(number, is_due)
    }

    /// A turn of one loop that nothing calls for.
    pub(super) fn turn_for_nothing(&mut self, number: usize) {
        self.turn_if(number, true);
    }

    fn turn_if(&mut self, number: usize, is_due: bool) -> bool {
        let network = &mut self.networks[number];
        if !network.turn_if_woken(is_due) {
            return false;
        }
        self.turns += 1;
        self.sleeps_until[number] = network.sleeps_until();
        if network.stopped {
            network.close_mailbox();
            self.posts[number].close();
        }
        self.posts.iter_mut().for_each(Post::sort);
        true
    }

    /// A part of what others have sent reaches a loop.
    pub(super) fn deliver(&mut self, number: usize, choices: &mut Choices) {
        if self.posts[number].has_mail() {
            self.posts[number].deliver_some(choices);
        }
    }

    /// Lets everything happen that can happen at this moment.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let most = self.turns + TURNS_MAX;
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for number in 0..self.count() {
                if self.posts[number].has_mail() {
                    self.posts[number].deliver_all();
                }
                moved |= self.turn(number);
            }
            if self.turns > most {
                return Err("the loops go on without end".into());
            }
        }
        Ok(())
    }

    /// The clock moves, from deadline to deadline.
    pub(super) fn advance(&mut self, by: Duration) -> Result<(), String> {
        let end = self.now.after(by);
        loop {
            self.settle()?;
            let Some(next) = self.next_event().filter(|next| *next <= end) else { break };
            if next <= self.now {
                return Err(format!("something is due at {next:?}, and nobody acts on it"));
            }
            self.move_clocks(next);
        }
        self.move_clocks(end);
        Ok(())
    }

    /// The clock moves, and nothing else does.
    pub(super) fn pass(&mut self, time: Duration) {
        self.move_clocks(self.now.after(time));
    }

    fn next_event(&self) -> Option<Time> {
        let moves = self.networks.iter().filter_map(Network::next_move);
        self.sleeps_until.iter().copied().flatten().chain(moves).min()
    }

    fn move_clocks(&mut self, now: Time) {
        self.now = now;
        self.networks.iter_mut().for_each(|network| network.be_at(now));
    }

    /// Code of the application runs on a loop.
    pub(super) fn run(&mut self, number: usize, act: impl FnOnce(&mut ServerRef<'_>)) {
        if self.networks[number].stopped {
            return; // its thread has ended
        }
        self.networks[number].run_between(act);
        self.sleeps_until[number] = Some(self.now); // whoever does that turns the loop afterwards
    }

    /// A stop is asked for by a handle, which knows the first loop.
    pub(super) fn stop(&self, request: StopRequest) {
        self.posts[0].mailbox().stop(request);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.networks.iter().all(|network| network.stopped)
    }

    /// The server is over: nothing is left of it.
    pub(super) fn end(&mut self) {
        self.passages.borrow_mut().lose_all();
        self.networks.iter_mut().for_each(Network::cut_all);
    }
}

/// What must hold.
impl Group {
    /// After every step.
    pub(super) fn check(&self) -> Result<usize, String> {
        for (number, network) in self.networks.iter().enumerate() {
            network.audit().map_err(|what| format!("loop {number}: {what}"))?;
        }
        let on_loops: usize = self.networks.iter().map(Network::live).sum();
        let counted = self.places[0].connections();
        let there = on_loops + self.passages.borrow().between();
        if counted != there && !self.is_ending() {
            return Err(format!("{there} connections are there, {counted} are counted"));
        }
        let mut most = 0;
        for which in 0..self.flows[0].len() {
            most = most.max(self.check_ways(&flow_name(which))?);
        }
        Ok(most)
    }

    fn is_ending(&self) -> bool {
        self.networks.iter().any(|network| network.stopped)
    }

    /// What is on its way of one flow, between any two loops: at most how many messages that are.
    fn check_ways(&self, flow: &str) -> Result<usize, String> {
        let mut most = 0;
        for from in 0..self.count() {
            for to in (0..self.count()).filter(|to| *to != from) {
                // Of a loop that is over nobody hears what has become of what it was sent.
                if self.networks[from].stopped || self.networks[to].stopped {
                    continue;
                }
                let known = self.bridge(from, flow)?.1.on_the_way()[to];
                let mut found = self.posts[to].published_by(from, flow);
                found.add(self.bridge(to, flow)?.1.unanswered_of(from));
                found.add(self.posts[from].done_by(to, flow));
                if known != found || known.messages > ON_THE_WAY_MAX {
                    return Err(format!("{flow} from {from} to {to}: {known:?}, and {found:?}"));
                }
                most = most.max(known.messages);
            }
        }
        Ok(most)
    }

    fn bridge(
        &self,
        number: usize,
        flow: &str,
    ) -> Result<(Rc<FlowInner>, Rc<dyn BridgeEnd>), String> {
        let bridge = Audit(&self.networks[number].core).bridge(flow);
        bridge.ok_or_else(|| format!("loop {number} has no {flow}"))
    }

    /// Once all is quiet: nothing is on its way, and rooms are on all loops or on none.
    pub(super) fn check_quiet(&self) -> Result<(), String> {
        for which in 0..self.flows[0].len() {
            self.check_arrived(&flow_name(which))?;
        }
        for room in ROOMS {
            let is_held = self.places[0].held(room).is_some();
            for number in 0..self.count() {
                if self.bridge(number, room).is_ok() != is_held {
                    return Err(format!("{room} on loop {number}, held by some loop: {is_held}"));
                }
            }
            if is_held {
                self.check_arrived(room)?;
            }
        }
        Ok(())
    }

    fn check_arrived(&self, flow: &str) -> Result<(), String> {
        for (from, to) in self.pairs() {
            let (here, bridge) = self.bridge(from, flow)?;
            let left = bridge.on_the_way()[to];
            let (there, _) = self.bridge(to, flow)?;
            if left != Load::default() {
                return Err(format!("{flow} from {from} to {to}: {left:?} is left"));
            }
            if here.subscription_count() != there.subscription_count() {
                return Err(format!("{flow}: {from} and {to} count other subscriptions"));
            }
        }
        Ok(())
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.count();
        (0..count * count).map(move |both| (both / count, both % count))
    }

    /// How many connections each loop has.
    pub(super) fn connections(&self) -> Vec<usize> {
        self.networks.iter().map(Network::live).collect()
    }

    /// What the loop of that number says of all.
    pub(super) fn sessions_open(&self, number: usize) -> u64 {
        self.networks[number].core.stats().sessions_open
    }

    /// How many answers are deferred.
    pub(super) fn answers_open(&self) -> u64 {
        self.networks.iter().map(|network| network.core.stats().deferred_open).sum()
    }

    /// How the sessions of all have ended.
    pub(super) fn drained(&self) -> usize {
        let drained = self.networks.iter().map(|network| network.core.drained());
        drained.map(|drained| drained.clean + drained.cut).sum()
    }
}

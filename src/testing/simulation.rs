//! The simulation: a server's whole life with many clients, faults and a clock that jumps, all
//! from one seed, and what must hold after every step.

mod actors;
#[cfg(feature = "client")]
mod between;
mod bodies;
mod books;
pub(crate) mod choices;
pub(crate) mod codec;
pub(crate) mod content;
mod deferrals;
mod deferring;
#[cfg(feature = "client")]
mod dial_steps;
mod endings;
#[cfg(feature = "client")]
mod healing;
#[cfg(test)]
mod loops;
mod losses;
mod order;
mod pages;
mod pieces;
mod player;
mod reader;
mod sequence;
mod setup;
#[cfg(test)]
mod tests;
#[cfg(feature = "client")]
mod uplinks;
#[cfg(feature = "client")]
mod upstream;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::core::audit::Audit;
use crate::core::panics::caught;
use crate::words::close::CloseCode;
use crate::words::time::Time;

use self::choices::Choices;
use self::endings::check_over;
use self::order::Told;
use self::player::{Play, Player, draw_reader};
use self::setup::{Setup, begin};
#[cfg(feature = "client")]
use self::upstream::Upstream;
use self::world::{Mood, Tally, World};
use super::network::{Hosts, LinkId, Network};

/// A run, and how far it has come.
pub(crate) struct Simulation {
    /// The first of them is the server under test.
    hosts: Hosts,
    /// Its dialers, and whom they dial.
    #[cfg(feature = "client")]
    upstream: Option<Upstream>,
    /// The length of the run.
    steps: usize,
    world: Rc<RefCell<World>>,
    players: BTreeMap<LinkId, Player>,
    /// What was done, for whoever has to understand a failure.
    trail: Vec<String>,
    /// More are not connected at once: with few of them each does more.
    clients_max: usize,
    /// So much may be in a frame.
    usual_bytes: usize,
    /// More than a connection may ever hold.
    bytes_each: usize,
    process_bytes: usize,
    /// How many were ended for that, when everything was checked last.
    over_budget: u64,
}

/// One life of so many is long.
const LONG_LIVES: u64 = 30;
/// And in one of so many clients are slow.
const SLOW_LIVES: u64 = 22;

/// A run that went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) what: String,
    /// The last steps.
    pub(crate) trail: Vec<String>,
}

/// Runs a whole life: `Ok` says what it had.
pub(crate) fn run(choices: Choices) -> Result<Tally, Failure> {
    let mut simulation = Simulation::new(choices);
    let steps = simulation.steps;
    let mut step = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() && step < steps && !simulation.is_over() {
        step += 1;
        outcome = simulation.guarded(|simulation| {
            simulation.step();
            simulation.check()
        });
    }
    outcome = outcome.and_then(|()| simulation.guarded(Simulation::end));
    let Simulation { mut trail, world, .. } = simulation;
    // The set-up, and the last steps.
    trail.drain(1..trail.len().saturating_sub(40).max(1));
    let tally = Tally { steps: step, ..world.borrow().tally };
    outcome.map(|()| tally).map_err(|what| Failure { step, what, trail })
}

impl Simulation {
    fn new(mut choices: Choices) -> Self {
        let over_tls = cfg!(feature = "tls") && choices.is_one_in(3);
        let events_per_turn = if choices.is_one_in(4) { 1 } else { usize::MAX };
        let dials = cfg!(feature = "client") && choices.is_one_in(5);
        let mut mood = Mood::draw(&mut choices);
        let mut clients_max = choices.pick(&[1, 3, 12]);
        let mut steps = 40 + choices.size_below(160);
        if choices.one_in(LONG_LIVES) {
            (mood, clients_max, steps) = (mood.calmed(), clients_max.min(3), 6 * steps);
        } else if choices.is_one_in(SLOW_LIVES) && !dials {
            (mood, clients_max, steps) = (mood.slowed(), 3, 2 * steps);
        }
        let setup = Setup::draw(&mut choices, mood);
        #[cfg(feature = "client")]
        let setup = setup.with_dialers(dials);
        let (options, extension_bytes) = setup.draw_options(&mut choices, mood);
        let (usual_bytes, process_bytes) = (setup.max_frame_size, setup.limits.process_bytes);
        let (bytes_each, trail) = (setup.bytes_each(extension_bytes), format!("{mood:?} {setup}"));
        #[cfg(feature = "client")]
        let kept = setup.clone();
        let world = Rc::new(RefCell::new(setup.into_world(choices, mood)));
        #[cfg(feature = "client")]
        let mut upstream = dials.then(|| Upstream::draw(kept, &world));
        let mut network = begin(options, &world, over_tls, |_application| {
            #[cfg(feature = "client")]
            upstream.iter_mut().for_each(|upstream| upstream.set_up(_application));
        });
        network.events_per_turn = events_per_turn;
        #[cfg(feature = "client")]
        let hosts = match &mut upstream {
            Some(upstream) => upstream.join(network),
            None => Hosts::alone(network),
        };
        #[cfg(not(feature = "client"))]
        let hosts = Hosts::alone(network);
        Self {
            hosts,
            #[cfg(feature = "client")]
            upstream,
            steps,
            world,
            players: BTreeMap::new(),
            clients_max,
            usual_bytes,
            trail: vec![trail],
            bytes_each,
            process_bytes,
            over_budget: 0,
        }
    }

    /// The network of the server under test.
    fn network(&mut self) -> &mut Network {
        &mut self.hosts.networks[0]
    }

    fn choose<R>(&self, act: impl FnOnce(&mut Choices) -> R) -> R {
        act(&mut self.world.borrow_mut().choices)
    }

    /// A panic outside of the core is a failure like any other.
    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        caught(|| act(self)).unwrap_or_else(|panic| Err(panic.0))
    }

    fn is_over(&self) -> bool {
        self.hosts.networks[0].stopped || self.world.borrow().choices.is_over()
    }

    fn step(&mut self) {
        let mood = self.world.borrow().mood;
        #[cfg(feature = "client")]
        if self.upstream.is_some() && self.choose(|choices| choices.one_in(3)) {
            return self.dial_step(mood);
        }
        match self.choose(|choices| choices.below(48)) {
            0 if self.choose(|choices| choices.one_in(4)) => {
                // All at once, and more than the server takes.
                (self.players.len()..self.clients_max).for_each(|_| self.connect());
            }
            0..=4 if self.players.len() < self.clients_max => self.connect(),
            5..=8 => self.advance_to_next_event(),
            9 | 10 => {
                let most = if mood.hurries { 40_000 } else { 4_000 };
                let time = self.choose(|choices| choices.below(most));
                self.note(format!("advance {time} ms"));
                self.hosts.advance(Duration::from_millis(time));
            }
            11 | 46 | 47 if mood.jumps => {
                let most = self.choose(|choices| choices.pick(&[3_000, 30_000, 100_000]));
                let time = self.choose(|choices| choices.below(most));
                self.note(format!("jump {time} ms"));
                let time = Duration::from_millis(time);
                self.send_meanwhile(mood, time);
                self.hosts.jump(time);
            }
            12 if !mood.is_long && self.choose(|choices| choices.one_in(8)) => self.shut_down(),
            13..=17 if !self.world.borrow().deferrals.is_empty() => self.settle_deferral(mood),
            _ => self.play(),
        }
    }

    fn note(&mut self, what: String) {
        self.trail.push(format!("{:?} {what}", self.hosts.networks[0].now));
    }

    fn connect(&mut self) {
        let n = self.choose(|choices| choices.below(4));
        let address = SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap_or(0)], 5000));
        let id = self.network().connect(address);
        let limit = self.usual_bytes;
        let mood = self.world.borrow().mood;
        let player = self.choose(|choices| Player::new(id, limit, choices, mood));
        if mood.buffers {
            self.put_buffers_before(id, mood);
        }
        self.note(format!("connect {id}"));
        self.players.insert(id, player);
    }

    /// What is sent to it goes through buffers, and its program reads at a pace.
    fn put_buffers_before(&mut self, id: LinkId, mood: Mood) {
        let (buffers, pace) = self.choose(|choices| draw_reader(choices, mood));
        let link = self.network().link(id);
        link.set_buffers(buffers);
        link.set_pace(pace);
        // As of long lives, where the count of bytes is anywhere, or wraps.
        let position = u32::try_from(id % 4).unwrap_or(0) << 30;
        link.socket.begin_at(position.wrapping_sub(5_000));
    }

    fn advance_to_next_event(&mut self) {
        if let Some(next) = self.hosts.next_event() {
            self.note(format!("to {next:?}"));
            let now = self.network().now;
            self.hosts.advance(next.since(now));
        }
    }

    /// While the server's machine is suspended for so long, many say something, which waits for it there.
    fn send_meanwhile(&mut self, mood: Mood, time: Duration) {
        for player in self.players.values_mut() {
            let world = &mut *self.world.borrow_mut();
            if world.choices.one_in(3) {
                continue;
            }
            if let Some(bytes) = player.draw_message(&mut world.choices, mood) {
                let network = &mut self.hosts.networks[0];
                self.trail.push(format!("  meanwhile client {} sends {}", player.id, bytes.len()));
                let is_said = network.link(player.id).arrives_whole();
                note_play(player, is_said.then_some(network.now.after(time)), world);
                network.link(player.id).send(&bytes);
            }
        }
    }

    fn play(&mut self) {
        let count = self.players.len();
        let which = self.choose(|choices| choices.size_below(count));
        if let Some(player) = self.players.values_mut().nth(which) {
            let mood = self.world.borrow().mood;
            // Drawn first: the hooks draw too, while the network runs.
            let play = player.draw(&mut self.world.borrow_mut().choices, mood);
            let network = &mut self.hosts.networks[0];
            self.trail.push(format!("{:?} client {} {play:?}", network.now, player.id));
            let is_said = matches!(play, Play::Send(_)) && network.link(player.id).arrives_whole();
            note_play(player, is_said.then_some(network.now), &mut self.world.borrow_mut());
            player.perform(play, network);
            self.hosts.settle_joined();
        }
    }

    /// The application comes to one of the answers that it has deferred.
    fn settle_deferral(&mut self, mood: Mood) {
        let (deferral, fate) = {
            let World { choices, deferrals, .. } = &mut *self.world.borrow_mut();
            deferrals.draw(choices, mood.panics)
        };
        self.note(format!("the answer to client {} is {fate:?}", deferral.link));
        deferring::settle(deferral, fate, &self.world, &mut self.hosts.networks[0]);
        self.hosts.settle();
    }

    fn shut_down(&mut self) {
        let grace = self.choose(|choices| choices.below(20_000));
        self.stop(Duration::from_millis(grace));
    }

    fn stop(&mut self, grace: Duration) {
        self.note(format!("shut down within {grace:?}"));
        let ends = self.network().now.after(grace);
        self.world.borrow_mut().note_stop(ends);
        self.network().shut_down(CloseCode::GOING_AWAY, grace);
        self.hosts.settle_joined();
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        #[cfg(feature = "client")]
        self.meet_dialled();
        // A client's reaction can cause further events: until nothing moves.
        loop {
            let mut moved = false;
            for player in self.players.values_mut() {
                let World { sessions, drops, tally, publishers, .. } =
                    &mut *self.world.borrow_mut();
                let log = sessions.get(&player.session);
                let told = Told { log, drops: *drops, publishers, tally };
                moved |= player.look(&mut self.hosts.networks[0], told)?;
            }
            if !moved {
                break;
            }
            self.hosts.settle();
        }
        if let Some(violation) = self.world.borrow().violations.first() {
            return Err(violation.clone());
        }
        let network = &mut self.hosts.networks[0];
        network.audit()?;
        network.check_rest()?;
        self.world.borrow().deferrals.check(network)?;
        let (held, live) = (Audit(&network.core).bytes_held(), network.live());
        let most = (self.process_bytes + self.bytes_each).min(live * self.bytes_each);
        if held > most {
            return Err(format!("{held} bytes are held by {live} connections, at most {most}"));
        }
        self.settle_players()?;
        #[cfg(feature = "client")]
        self.check_dialers()?;
        Ok(())
    }

    /// The books of connections that are over.
    fn settle_players(&mut self) -> Result<(), String> {
        let network = &mut self.hosts.networks[0];
        // Even of one that the core leaves unread: the system tells of a failure all the same.
        for &id in self.players.keys() {
            let link = network.link(id);
            if link.socket.is_broken() && link.is_open() {
                return Err(format!("link {id} is broken, and the server keeps it"));
            }
        }
        let world = &mut *self.world.borrow_mut();
        let before = std::mem::replace(&mut self.over_budget, network.core.stats().over_budget);
        let over_budget = self.over_budget > before;
        let mut over = Ok(());
        self.players.retain(|&id, player| {
            if !network.link(id).is_settled() {
                return true;
            }
            if over.is_ok() {
                over = check_over(player, network, world, over_budget);
            }
            false
        });
        over
    }

    /// All goes silent, then the server stops: everything is given back, in bounded time.
    fn end(&mut self) -> Result<(), String> {
        self.note("the end".into());
        #[cfg(feature = "client")]
        if self.choose(|choices| choices.one_in(2)) {
            self.heal()?;
        }
        if self.choose(|choices| choices.one_in(2)) {
            let network = &mut self.hosts.networks[0];
            self.players.values_mut().for_each(|player| player.fall_silent(network));
            self.hosts.advance(Duration::from_secs(300));
            self.check()?;
        }
        let grace = Duration::from_millis(self.choose(|choices| choices.below(9_000)));
        self.stop(grace);
        self.check()?;
        self.hosts.advance(grace + Duration::from_millis(20));
        self.check()?;
        if !self.network().stopped {
            return Err("the grace is over and the server has not stopped".into());
        }
        let open = self.network().core.stats().sessions_open;
        if open > 0 {
            return Err(format!("the server has stopped, and {open} sessions are open"));
        }
        // Those that came late are only dropped with the process.
        self.network().cut_all();
        Audit(&self.network().core).check_empty()?;
        let stats = self.network().core.stats();
        self.world.borrow_mut().tally.note_deferred(&stats);
        self.world.borrow().deferrals.check_end()?;
        #[cfg(feature = "client")]
        self.end_far()?;
        // Their systems deliver what they have.
        self.hosts.advance(Duration::from_secs(100_000));
        self.check()?;
        let network = &mut self.hosts.networks[0];
        // Who was never accepted goes with the listener.
        if let Some(id) = self.players.keys().find(|&&id| !network.link(id).is_waiting()) {
            return Err(format!("link {id} is not over after a day"));
        }
        let world = self.world.borrow();
        if world.flow.subscription_count() > world.readers {
            return Err("a session that is over still collects".into());
        }
        match world.sessions.iter().find(|(_, log)| log.connected != log.end.is_some()) {
            Some((link, _)) => Err(format!("the session of link {link} had no on_close")),
            None => Ok(()),
        }
    }
}

/// A client is about to do something, which may end its session: at that time it says something.
fn note_play(player: &mut Player, says_at: Option<Time>, world: &mut World) {
    if player.is_spoiled {
        world.spoiled.insert(player.session);
    }
    if let Some(at) = says_at.filter(|_| !world.has_failed(player.session)) {
        player.note_sent(at);
    }
}

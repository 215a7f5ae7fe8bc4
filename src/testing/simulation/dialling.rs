//! The part of a simulation that is dialled: servers that are played, and a second server of this code. What
//! becomes of them, of the ways to them, and of the dialers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::Application;
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::testing::network::far_servers::{FarName, FarPort};
use crate::testing::network::{HostId, Hosts, LinkId, Network, Pace};
use crate::words::close::CloseCode;
use crate::words::connect::Reconnect;

use super::Simulation;
use super::actors::{Actor, PLANNED};
use super::content::{self, FROM_NEWS, FROM_OTHER, NEWS_KEYS};
use super::player::{Player, draw_buffers};
use super::setup::{Setup, build, draw_flow, millis};
use super::uplinks::{Terms, Uplink};
use super::world::{Mood, World};

/// The names of the two servers of this code.
pub(super) const OWN: &str = "box";
pub(super) const CORE: &str = "core.example";

/// Sessions that are dialled have names from here on; those of clients are named after their links.
pub(super) const FIRST_DIALLED: usize = 1 << 20;

/// More dialers than these are not made.
const DIALERS_MAX: usize = 6;

const URLS: &[&str] = &[
    "ws://core.example/s",
    "ws://core.example/s",
    "ws://core.example/s",
    "ws://played.example/s",
    "ws://played.example/s",
    "ws://raced.example/s",
    "ws://198.51.100.1/s",
    "ws+unix:/run/x.sock:/s",
];

/// The names that are played, and their addresses.
const NAMES: &[(&str, &[&str])] = &[
    ("played.example", &["198.51.100.1:80"]),
    (
        "raced.example",
        &["[2001:db8::1]:80", "198.51.100.2:80", "[2001:db8::2]:80", "198.51.100.1:80"],
    ),
    ("proxy.example", &["198.51.100.3:3128"]),
];
const SOCKET: &str = "/run/x.sock";

/// Who dials, and who is dialled.
pub(super) struct Dialling {
    pub(super) uplinks: Rc<RefCell<Vec<Uplink>>>,
    world: Rc<RefCell<World>>,
    pub(super) far_world: Rc<RefCell<World>>,
    far: HostId,
    setup: Setup,
    far_setup: Setup,
    /// What all dialled sessions collect, and how much of it there is.
    pub(super) news: SharedFlow,
    published: usize,
    newest: [usize; NEWS_KEYS],
    next_name: Rc<Cell<usize>>,
    /// Sessions between both servers whose books are closed.
    pub(super) settled: BTreeSet<usize>,
}

impl Dialling {
    pub(super) fn draw(setup: Setup, world: &Rc<RefCell<World>>) -> Self {
        let (mut choices, mood) = {
            let world = &mut *world.borrow_mut();
            (world.choices.split(), world.mood)
        };
        let far_setup = setup.draw_far(&mut choices, mood);
        let far_world = Rc::new(RefCell::new(far_setup.clone().into_world(choices, mood)));
        far_world.borrow_mut().peer = Some(Rc::downgrade(world));
        world.borrow_mut().peer = Some(Rc::downgrade(&far_world));
        let options = FlowOptions::new()
            .extra_buffer(2 * NEWS_KEYS)
            .on_buffer_overflow(BufferOverflow::Latest)
            .max_bytes(100_000);
        let news = match SharedFlow::with(options) {
            Ok(news) => news,
            Err(mistake) => panic!("the simulation's news: {mistake}"),
        };
        Self {
            uplinks: Rc::default(),
            world: Rc::clone(world),
            far_world,
            far: 0,
            setup,
            far_setup,
            news,
            published: 0,
            newest: [0; NEWS_KEYS],
            next_name: Rc::new(Cell::new(FIRST_DIALLED)),
            settled: BTreeSet::new(),
        }
    }

    /// Some are dialled from the start.
    pub(super) fn set_up(&mut self, application: &mut Application) {
        let count = 1 + self.world.borrow_mut().choices.size_below(3);
        for _ in 0..count {
            let (url, options, uplink) = self.draw_dialer();
            let factory = self.factory(&uplink);
            uplink.set_dialer(application.connect(url, options, factory));
            self.uplinks.borrow_mut().push(uplink);
        }
    }

    /// Both servers come under one clock.
    pub(super) fn join(&mut self, mut network: Network) -> Hosts {
        let chance = self.world.borrow_mut().choices.below(u64::MAX);
        network.core.repeat_chance(chance);
        let far = &mut network.sockets.far;
        far.clock = Rc::clone(&self.world.borrow().clock);
        let uplinks = Rc::clone(&self.uplinks);
        far.on_order = Some(Box::new(move |attempt| {
            uplinks.borrow().iter().for_each(|uplink| uplink.note_order(attempt));
        }));
        let mut hosts = Hosts::default();
        hosts.start(OWN, network);
        self.far = hosts.start(CORE, self.build_far());
        restore(&mut hosts.networks[0]);
        hosts
    }

    fn build_far(&self) -> Network {
        let (mut choices, mood) = {
            let world = &mut *self.far_world.borrow_mut();
            (world.choices.split(), world.mood)
        };
        let (options, _) = self.far_setup.draw_options(&mut choices, mood);
        let mut network = Network::new(build(options, &self.far_world, |_| {}));
        network.tolerates = |panic| panic.contains(PLANNED);
        network
    }

    /// The second server is killed, if it still runs.
    fn note_restart(&mut self) {
        self.disturb_all();
        let far_world = &mut *self.far_world.borrow_mut();
        far_world.sessions.values_mut().for_each(|log| log.killed |= log.end.is_none());
        far_world.stops_at = None;
        // Those that were killed collect no more.
        far_world.flow = draw_flow(&mut far_world.choices);
    }

    /// Something happens to all connections between both.
    pub(super) fn disturb_all(&self) {
        for world in [&self.world, &self.far_world] {
            let sessions = &mut world.borrow_mut().sessions;
            sessions.range_mut(FIRST_DIALLED..).for_each(|(_, log)| log.disturbed = true);
        }
    }

    fn draw_dialer(&self) -> (&'static str, ConnectOptions, Uplink) {
        let world = &mut *self.world.borrow_mut();
        let (choices, mood) = (&mut world.choices, world.mood);
        let url = choices.pick(URLS);
        let timeout = millis(choices, mood, &[1, 900, 10_000]);
        let first = millis(choices, mood, &[1, 100, 1_000]);
        let largest = first.max(millis(choices, mood, &[1, 2_000, 60_000]));
        let options = self.setup.draw_connect_options(choices, mood);
        let mut options = options
            .connect_timeout(timeout)
            .backoff(first, largest)
            .redirects(choices.pick(&[0, 1, 3]));
        if choices.one_in(6) && url.starts_with("ws://") {
            options = options.proxy("http://proxy.example:3128");
        }
        let uplink = Uplink::new(&world.clock, Terms { timeout, first, largest }, &self.news);
        (url, self.with_hooks(options, &uplink), uplink)
    }

    fn with_hooks(&self, options: ConnectOptions, uplink: &Uplink) -> ConnectOptions {
        let (of_failures, of_losses) = (uplink.clone(), uplink.clone());
        let (failing, losing) = (Rc::clone(&self.world), Rc::clone(&self.world));
        let (naming, next_name) = (Rc::clone(&self.world), Rc::clone(&self.next_name));
        options
            .header_with("X-Link", move || {
                let name = next_name.replace(next_name.get() + 1);
                assert!(!panics(&naming), "{PLANNED}");
                name.to_string()
            })
            .on_failure(move |error, next| {
                let decided = decide(&failing);
                of_failures.note_failure(error, next, decided);
                panic_for(&failing, decided)
            })
            .on_lost(move |close, next| {
                let decided = decide(&losing);
                of_losses.note_loss(close, next, decided);
                panic_for(&losing, decided)
            })
    }

    fn factory(&self, uplink: &Uplink) -> impl Fn(&Call) -> Actor + use<> {
        let (world, uplink) = (Rc::clone(&self.world), uplink.clone());
        move |call| {
            let mut actor = Actor::join(&world, call);
            uplink.note_open(actor.link);
            actor.uplink = Some(uplink.clone());
            actor
        }
    }

    /// Publishes something of a key, which is what is newest of it from now on.
    pub(super) fn publish(&mut self, key: usize) {
        self.published += NEWS_KEYS;
        let number = self.published + key;
        let text = content::message(FROM_NEWS, number, 20);
        if self.news.emit_latest(&key.to_string(), &text).is_ok() {
            self.newest[key] = number + 1;
        }
    }

    /// By key, the newest of the news; one more than its number.
    pub(super) fn newest(&self) -> [usize; NEWS_KEYS] {
        self.newest
    }
}

fn panics(world: &Rc<RefCell<World>>) -> bool {
    let world = &mut *world.borrow_mut();
    world.mood.panics && world.choices.one_in(30)
}

/// What a hook of a dialer decides.
fn decide(world: &Rc<RefCell<World>>) -> Reconnect {
    let choices = &mut world.borrow_mut().choices;
    match choices.below(16) {
        0 => Reconnect::After(Duration::from_millis(choices.below(100_000))),
        1 if choices.one_in(6) => Reconnect::Stop,
        _ => Reconnect::Retry,
    }
}

/// A hook that panics has decided nothing.
fn panic_for(world: &Rc<RefCell<World>>, decided: Reconnect) -> Reconnect {
    assert!(decided != Reconnect::Retry || !panics(world), "{PLANNED}");
    decided
}

/// All names are known, and all addresses take connections but those that never did.
pub(super) fn restore(network: &mut Network) {
    let far = &mut network.sockets.far;
    for (name, addresses) in NAMES {
        let addresses = addresses.iter().filter_map(|address| address.parse().ok());
        let addresses: Vec<SocketAddr> = addresses.collect();
        for address in &addresses {
            let port = if address.is_ipv6() { FarPort::Silent } else { FarPort::Accepts };
            far.ports.insert(*address, port);
        }
        far.names.insert((*name).to_owned(), FarName::Addresses(addresses));
    }
    far.sockets = vec![SOCKET.to_owned()];
}

/// What happens.
impl Simulation {
    /// One more thing that concerns dialers.
    pub(super) fn dial_step(&mut self, mood: Mood) {
        match self.choose(|choices| choices.below(18)) {
            0..=2 => self.publish_news(),
            3 | 4 => self.command_uplink(),
            5 if mood.faults => self.change_path(),
            6 => {
                let delay = self.choose(|choices| choices.pick(&[0, 0, 1, 50, 3_000]));
                self.note(format!("bytes are {delay} ms under way"));
                self.set_delay(Duration::from_millis(delay));
            }
            7 if self.choose(|choices| choices.one_in(3)) => self.end_or_start_far(mood),
            8 | 9 if mood.faults => self.change_far_server(),
            10..=12 if mood.faults || mood.buffers => self.change_pipe(mood),
            13..=15 => self.prompt(),
            16 if self.choose(|choices| choices.one_in(4)) => self.dial_one_more(),
            _ => self.advance_to_next_event(),
        }
        self.hosts.settle();
    }

    fn publish_news(&mut self) {
        let count = self.choose(|choices| choices.pick(&[1, 1, 2, 5, 30]));
        for _ in 0..count {
            let key = self.choose(|choices| choices.size_below(NEWS_KEYS));
            self.dialling.iter_mut().for_each(|dialling| dialling.publish(key));
        }
        self.note(format!("{count} news"));
        self.network().run(|_| ()); // the loop hears of what was published outside of it
    }

    /// A session between both servers gets something to act on, from this side or the other.
    fn prompt(&mut self) {
        let far = self.hosts.host(CORE).filter(|_| self.choose(|choices| choices.one_in(2)));
        let (which, n) = self.choose(|choices| (choices.size_below(12), choices.size_below(12)));
        let network = &mut self.hosts.networks[far.unwrap_or(0)];
        if network.stopped {
            return;
        }
        network.run(|server| {
            let all: Vec<_> = server.sessions().collect();
            if let Some(to) = all.get(which % all.len().max(1)) {
                let _ = server.send_to(*to, &content::message(FROM_OTHER, n, 10 * n));
            }
        });
        self.note(format!("session {which} of server {far:?} gets a message"));
    }

    fn command_uplink(&mut self) {
        let Some(dialling) = &self.dialling else { return };
        let uplinks = dialling.uplinks.borrow().clone();
        let which = self.choose(|choices| choices.size_below(uplinks.len()));
        let what = self.choose(|choices| choices.below(8));
        let Some(uplink) = uplinks.get(which) else { return };
        match what {
            0 => uplink.stop(),
            1 => {
                // Whatever was wanted before it, the last wish counts.
                uplink.stop();
                self.hosts.settle();
                uplink.reconnect_now();
                self.hosts.settle();
                uplink.stop();
            }
            2 => {
                uplink.stop();
                self.hosts.settle();
                uplink.reconnect_now();
            }
            _ => uplink.reconnect_now(),
        }
        self.note(format!("dialer {which}: command {what}"));
    }

    pub(super) fn set_delay(&mut self, delay: Duration) {
        if let (Some(one), Some(other)) = (self.hosts.host(OWN), self.hosts.host(CORE)) {
            self.hosts.pipes.path(one, other).delay = delay;
        }
    }

    pub(super) fn set_cut(&mut self, cut: bool) {
        if let (Some(one), Some(other)) = (self.hosts.host(OWN), self.hosts.host(CORE)) {
            let Hosts { pipes, networks, .. } = &mut self.hosts;
            pipes.set_cut(networks, one, other, cut);
        }
    }

    pub(super) fn reset_path(&mut self) {
        self.dialling.iter().for_each(Dialling::disturb_all);
        if let (Some(one), Some(other)) = (self.hosts.host(OWN), self.hosts.host(CORE)) {
            let Hosts { pipes, networks, .. } = &mut self.hosts;
            pipes.reset(networks, one, other);
        }
    }

    fn change_path(&mut self) {
        let what = self.choose(|choices| choices.below(6));
        self.note(format!("path: {what}"));
        match what {
            0 | 1 => {
                self.dialling.iter().for_each(Dialling::disturb_all);
                self.set_cut(true);
            }
            2 => self.reset_path(),
            _ => self.set_cut(false),
        }
    }

    /// The second server ends, in one way or the other, or is started again.
    fn end_or_start_far(&mut self, mood: Mood) {
        let Some(id) = self.hosts.host(CORE) else { return };
        let is_stopped = self.hosts.networks[id].stopped;
        let kills = mood.faults && self.choose(|choices| choices.one_in(3));
        if is_stopped || kills {
            return self.start_far();
        }
        if mood.is_long {
            return;
        }
        let grace = Duration::from_millis(self.choose(|choices| choices.below(20_000)));
        self.note(format!("the server that is dialled shuts down within {grace:?}"));
        self.stop_far(grace);
    }

    pub(super) fn start_far(&mut self) {
        self.note("the server that is dialled is started anew".into());
        let Some(dialling) = &mut self.dialling else { return };
        dialling.note_restart();
        let network = dialling.build_far();
        dialling.far = self.hosts.start(CORE, network);
    }

    pub(super) fn stop_far(&mut self, grace: Duration) {
        let (Some(id), Some(dialling)) = (self.hosts.host(CORE), &self.dialling) else { return };
        let network = &mut self.hosts.networks[id];
        dialling.far_world.borrow_mut().note_stop(network.now.after(grace));
        network.shut_down(CloseCode::GOING_AWAY, grace);
        self.hosts.settle();
    }

    /// A name or an address of a server that is played does something else from now on.
    fn change_far_server(&mut self) {
        let (name, addresses) = self.choose(|choices| choices.pick(NAMES));
        let address = self.choose(|choices| choices.pick(addresses));
        let what = self.choose(|choices| choices.below(8));
        self.note(format!("{name}, {address}: {what}"));
        let Ok(address) = address.parse() else { return };
        let far = &mut self.network().sockets.far;
        match what {
            0 => drop(far.ports.insert(address, FarPort::Refuses)),
            1 => drop(far.ports.insert(address, FarPort::Silent)),
            2 => drop(far.names.insert(name.to_owned(), FarName::Unknown)),
            3 => drop(far.names.insert(name.to_owned(), FarName::Silent)),
            4 => far.sockets.clear(),
            _ => restore(self.network()),
        }
    }

    /// One end of a connection between both servers is slow from now on, or breaks.
    fn change_pipe(&mut self, mood: Mood) {
        let ends: Vec<_> = self.hosts.pipes.links().flatten().collect();
        let which = self.choose(|choices| choices.size_below(ends.len()));
        let Some(&(host, id)) = ends.get(which) else { return };
        let what = self.choose(|choices| choices.below(if mood.faults { 10 } else { 6 }));
        let bytes = self.choose(|choices| choices.size_below(300));
        self.note(format!("end {which} of the connections: {what}, {bytes}"));
        if what >= 7 {
            self.disturb(host, id);
        }
        let pieces = [1, 2, 50, usize::MAX];
        let link = self.hosts.networks[host].link(id);
        match what {
            0 => link.set_pace(Pace::All),
            1..=3 => link.set_pace(Pace::Steadily {
                bytes: 100 * (1 + bytes),
                every: Duration::from_millis([50, 500, 1_000][bytes % 3]),
            }),
            4 => link.read_piece = pieces[bytes % 4],
            5 => link.socket.write_piece = pieces[bytes % 4],
            6 => link.receive_buffer = 1_000 + bytes,
            7 => link.set_pace(Pace::Nothing),
            8 => link.breaks_after_in = Some(bytes),
            _ => link.socket.breaks_after_out = Some(bytes),
        }
    }

    /// Something happens to one connection.
    fn disturb(&mut self, host: HostId, id: LinkId) {
        let Some(dialling) = &self.dialling else { return };
        let Some(slot) = self.hosts.networks[host].slot_of(id) else { return };
        let world = if host == 0 { &dialling.world } else { &dialling.far_world };
        for (_, log) in world.borrow_mut().sessions.range_mut(FIRST_DIALLED..) {
            log.disturbed |= log.end.is_none() && log.slot == slot;
        }
    }

    fn dial_one_more(&mut self) {
        let Some(dialling) = &self.dialling else { return };
        if dialling.uplinks.borrow().len() >= DIALERS_MAX || self.network().stopped {
            return;
        }
        let Some(dialling) = &self.dialling else { return };
        let (url, options, uplink) = dialling.draw_dialer();
        let factory = dialling.factory(&uplink);
        // Before it is begun: its orders are noted from the first.
        dialling.uplinks.borrow_mut().push(uplink.clone());
        let note = |server: &mut crate::context::loop_state::ServerRef<'_>| {
            if let Ok(dialer) = server.connect(url, options, factory) {
                uplink.set_dialer(dialer);
            }
        };
        self.hosts.networks[0].run(note);
        self.note(format!("dials {url}"));
    }

    /// Those who were connected to and are played.
    pub(super) fn meet_dialled(&mut self) {
        if self.dialling.is_none() {
            return;
        }
        let (limit, mood) = (self.usual_bytes, self.world.borrow().mood);
        while let Some(id) = self.network().sockets.far.arrived.pop_front() {
            let player = self.choose(|choices| Player::server(id, limit, choices, mood));
            let is_gone = self.network().link(id).socket.gone.is_some();
            if mood.buffers && !is_gone {
                let buffers = self.choose(draw_buffers);
                self.network().link(id).set_buffers(buffers);
            }
            self.note(format!("was connected to: {id}"));
            self.players.insert(id, player);
        }
    }

    /// What must hold of dialers, and of whom they dial, after every step.
    pub(super) fn check_dialling(&mut self) -> Result<(), String> {
        let Some(dialling) = &mut self.dialling else { return Ok(()) };
        let drains = self.world.borrow().stops_at.is_some();
        for uplink in dialling.uplinks.borrow().iter() {
            uplink.check(drains)?;
        }
        let far = &self.hosts.networks[dialling.far];
        if !far.is_halted() {
            far.audit().map_err(|what| format!("the server that is dialled: {what}"))?;
        }
        if let Some(violation) = dialling.far_world.borrow().violations.first() {
            return Err(format!("the server that is dialled: {violation}"));
        }
        let over_budget = [0, dialling.far]
            .iter()
            .any(|id| self.hosts.networks[*id].core.stats().over_budget > 0);
        dialling.settle_between(&self.world, over_budget)
    }

    /// The second server stops too: everything is given back there, and all books are closed.
    pub(super) fn end_far(&mut self) -> Result<(), String> {
        let Some(id) = self.hosts.host(CORE).filter(|_| self.dialling.is_some()) else {
            return Ok(());
        };
        self.set_cut(false);
        if !self.hosts.networks[id].stopped {
            self.stop_far(Duration::ZERO);
        }
        self.hosts.advance(Duration::from_secs(30));
        self.check()?;
        let far = &mut self.hosts.networks[id];
        if !far.is_halted() {
            far.cut_all();
            crate::core::audit::Audit(&far.core).check_empty()?;
        }
        let Some(dialling) = &self.dialling else { return Ok(()) };
        for uplink in dialling.uplinks.borrow().iter() {
            let (opened, failed) = uplink.counts();
            let tally = &mut self.world.borrow_mut().tally;
            (tally.dialled, tally.failed) = (tally.dialled + opened, tally.failed + failed);
        }
        if dialling.news.subscription_count() > 0 {
            return Err("a session that is over still collects the news".into());
        }
        let far_world = dialling.far_world.borrow();
        let open = far_world
            .sessions
            .iter()
            .find(|(_, log)| !log.killed && log.connected != log.end.is_some());
        match open {
            Some((name, _)) => Err(format!("session {name} of the server had no on_close")),
            None => Ok(()),
        }
    }
}

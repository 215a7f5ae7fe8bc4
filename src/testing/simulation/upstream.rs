//! Whom a simulation's server dials: servers that are played, and a second server of this code; with which
//! options, and what its hooks decide.

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
use crate::testing::network::{HostId, Hosts, Network};
use crate::words::connect::Reconnect;

use super::actors::{Actor, PLANNED};
use super::content::{self, FROM_NEWS, NEWS_KEYS};
use super::setup::{Setup, begin, draw_flow, millis};
use super::uplinks::{Terms, Uplink};
use super::world::World;

/// The names of the two servers of this code.
pub(super) const OWN: &str = "box";
pub(super) const CORE: &str = "core.example";

/// Sessions that are dialled have names from here on; those of clients are named after their links.
pub(super) const FIRST_DIALLED: usize = 1 << 20;

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
pub(super) const NAMES: &[(&str, &[&str])] = &[
    ("played.example", &["198.51.100.1:80"]),
    (
        "raced.example",
        &["[2001:db8::1]:80", "198.51.100.2:80", "[2001:db8::2]:80", "198.51.100.1:80"],
    ),
    ("proxy.example", &["198.51.100.3:3128"]),
];
const SOCKET: &str = "/run/x.sock";

/// Who dials, and who is dialled.
pub(super) struct Upstream {
    pub(super) uplinks: Rc<RefCell<Vec<Uplink>>>,
    pub(super) world: Rc<RefCell<World>>,
    pub(super) far_world: Rc<RefCell<World>>,
    pub(super) far: HostId,
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

impl Upstream {
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
    pub(super) fn set_up(&self, application: &mut Application) {
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

    pub(super) fn build_far(&self) -> Network {
        let (mut choices, mood) = {
            let world = &mut *self.far_world.borrow_mut();
            (world.choices.split(), world.mood)
        };
        let (options, _) = self.far_setup.draw_options(&mut choices, mood);
        begin(options, &self.far_world, false, |_| {})
    }

    /// The second server is killed, if it still runs.
    pub(super) fn note_restart(&self) {
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

    pub(super) fn draw_dialer(&self) -> (&'static str, ConnectOptions, Uplink) {
        let world = &mut *self.world.borrow_mut();
        let (choices, mood) = (&mut world.choices, world.mood);
        let url = choices.pick(URLS);
        let mut timeout = millis(choices, mood, &[1, 900, 10_000]);
        if url.contains("raced") {
            timeout = timeout.max(Duration::from_millis(900)); // the address that answers has its turn late
        }
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
        let (of_failures, of_losses, acting) = (uplink.clone(), uplink.clone(), uplink.clone());
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
            .after_failure(move |_server, _error| acting.act_on_failure())
            .on_lost(move |close, next| {
                let decided = decide(&losing);
                of_losses.note_loss(close, next, decided);
                panic_for(&losing, decided)
            })
    }

    pub(super) fn factory(&self, uplink: &Uplink) -> impl Fn(&Call) -> Actor + use<> {
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

//! Owns the simulation: a server's whole life with many clients, faults and a clock that jumps, all
//! from one seed, and what must hold after every step.

mod actors;
mod books;
pub(crate) mod choices;
pub(crate) mod codec;
pub(crate) mod content;
mod player;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::core::panics::caught;
use crate::domain::application::{Application, Built, WebSockets};
use crate::domain::call::Call;
use crate::domain::flow::{BufferOverflow, FlowOptions, SharedFlow};
use crate::domain::raw::on_frame;
use crate::words::close::CloseCode;
use crate::words::options::{Limits, OutboxOverflow};

use self::actors::{Actor, Log, Mood, PLANNED, Tally, World};
use self::books::Account;
use self::choices::Choices;
use self::player::{Player, Told, draw_buffers};
use super::network::{Link, LinkId, Network};

/// A run, and how far it has come.
pub(crate) struct Simulation {
    network: Network,
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
}

/// One life of so many is long.
const LONG_LIVES: u64 = 30;

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

/// One of these, or the longest.
fn millis(choices: &mut Choices, mood: Mood, from: &[u64; 3]) -> Duration {
    let [.., longest] = *from;
    Duration::from_millis(if mood.hurries { choices.pick(from) } else { longest })
}

fn draw_flow(choices: &mut Choices) -> SharedFlow {
    let overflow = choices.pick(&[
        BufferOverflow::Suspend,
        BufferOverflow::DropOldest,
        BufferOverflow::DropLatest,
        BufferOverflow::Latest,
    ]);
    let options = FlowOptions::new()
        .replay(choices.size_below(3))
        .extra_buffer(1 + choices.size_below(8))
        .on_buffer_overflow(overflow)
        .max_bytes(choices.pick(&[1_000, 100_000]));
    match SharedFlow::with(options) {
        Ok(flow) => flow,
        Err(mistake) => panic!("the simulation's flow: {mistake}"),
    }
}

fn draw_limits(mood: Mood, choices: &mut Choices) -> Limits {
    let mut process_bytes = choices.pick(&[3_000, 30_000, 1 << 20]);
    if mood.is_long || (mood.deflate && !choices.one_in(4)) {
        process_bytes = 4 << 20; // else those with contexts rarely live to say much
    }
    Limits::new()
        .max_connections(choices.pick(&[1, 4, 20]))
        .max_pending_handshakes(choices.pick(&[1, 3, 20]))
        .handshake_timeout(millis(choices, mood, &[1, 900, 10_000]))
        .close_timeout(millis(choices, mood, &[1, 500, 5_000]))
        .linger_timeout(millis(choices, mood, &[1, 500, 2_000]))
        .max_head_bytes(1_000)
        .process_bytes(process_bytes)
        .read_buffer_bytes(choices.pick(&[1_024, 5_000]))
}

/// Compression with any of its options, and what it may hold in a session.
#[cfg(feature = "deflate")]
fn draw_deflate(options: WebSockets, choices: &mut Choices) -> (WebSockets, usize) {
    const ONE_INFLATER: usize = 50 << 10;
    const BOTH_CONTEXTS: usize = 400 << 10;
    let (client_keeps, server_keeps) = (choices.one_in(2), choices.one_in(2));
    let mut deflate = crate::Deflate::new()
        .compression_level(choices.pick(&[1, 6, 9]))
        .client_context_takeover(client_keeps)
        .server_context_takeover(server_keeps)
        .client_max_window_bits(choices.pick(&[9, 12, 15]))
        .server_max_window_bits(choices.pick(&[9, 12, 15]));
    if choices.one_in(2) {
        deflate = deflate.compress_if_bigger_than(choices.pick(&[0, 20, 1_000]));
    }
    if choices.one_in(4) {
        deflate = deflate.compress_if(|message| message.is_text());
    }
    let bytes = if client_keeps || server_keeps { BOTH_CONTEXTS } else { ONE_INFLATER };
    (options.extension(deflate), bytes)
}

/// Without the feature clients ask in vain.
#[cfg(not(feature = "deflate"))]
fn draw_deflate(options: WebSockets, _choices: &mut Choices) -> (WebSockets, usize) {
    (options, 0)
}

/// The application: `/s` is played by actors, `/raw` mirrors, `/page` has any length.
fn build(options: WebSockets, world: &Rc<RefCell<World>>) -> Built {
    let raw_negotiates = world.borrow_mut().choices.one_in(2);
    let mut application = Application::new();
    application.install(options);
    let (members, pages) = (Rc::clone(world), Rc::clone(world));
    application.routing(|route| {
        route.web_socket("/s", move |call: &Call| Actor::join(&members, call));
        route
            .web_socket_raw("/raw", |_: &Call| on_frame(|session, frame| session.send_frame(frame)))
            .negotiate_extensions(raw_negotiates);
        route.get("/page", move |call| {
            let world = &mut *pages.borrow_mut();
            let link = call.header("x-link").and_then(|link| link.parse().ok());
            if let Some(link) = link {
                *world.pages.entry(link).or_default() += 1;
            }
            "x".repeat(world.choices.size_below(500))
        });
    });
    match application.build() {
        Ok(built) => built,
        Err(mistake) => panic!("the simulation's application: {mistake}"),
    }
}

fn draw_policy(choices: &mut Choices) -> OutboxOverflow {
    choices.pick(&[
        OutboxOverflow::Close,
        OutboxOverflow::Block,
        OutboxOverflow::DropNewest,
        OutboxOverflow::DropOldest,
    ])
}

/// How long peers may be silent.
fn draw_silences(mut options: WebSockets, mood: Mood, choices: &mut Choices) -> WebSockets {
    options = if choices.one_in(3) {
        options.ping_period(None)
    } else {
        options.ping_period(millis(choices, mood, &[1, 700, 15_000]))
    };
    if choices.one_in(2) {
        options = options.idle_timeout(millis(choices, mood, &[3, 3_000, 60_000]));
    }
    options
}

impl Simulation {
    fn new(mut choices: Choices) -> Self {
        let mut mood = Mood::draw(&mut choices);
        let mut clients_max = choices.pick(&[1, 3, 12]);
        let mut steps = 40 + choices.size_below(160);
        if choices.one_in(LONG_LIVES) {
            (mood, clients_max, steps) = (mood.calmed(), clients_max.min(3), 6 * steps);
        }
        let max_frame_size = choices.pick(&[125, 1_000, 64 << 10]);
        let max_message_size = max_frame_size.max(choices.pick(&[125, 2_000, 64 << 10]));
        let outbox_bytes = choices.pick(&[1, 1_000, 64 << 10]);
        let limits = draw_limits(mood, &mut choices);
        let policy = draw_policy(&mut choices);
        let flow = draw_flow(&mut choices);
        let timeout = millis(&mut choices, mood, &[1, 900, 15_000]);
        let write_timeout = millis(&mut choices, mood, &[1, 2_000, 30_000]);
        let mut options = WebSockets::new()
            .on_outbox_full(policy)
            .timeout(timeout)
            .write_timeout(write_timeout)
            .max_frame_size(max_frame_size)
            .max_message_size(max_message_size)
            .max_outgoing_message_size(max_message_size)
            .outbox_bytes(outbox_bytes)
            .masking(choices.one_in(8))
            .limits(limits.clone());
        options = draw_silences(options, mood, &mut choices);
        let mut extension_bytes = 0;
        if mood.deflate {
            (options, extension_bytes) = draw_deflate(options, &mut choices);
        }
        let world = Rc::new(RefCell::new(World {
            choices,
            mood,
            sessions: BTreeMap::new(),
            tally: Tally::default(),
            max_message_size,
            flow,
            published: 0,
            drops: policy != OutboxOverflow::Close && policy != OutboxOverflow::Block,
            closes_when_full: policy == OutboxOverflow::Close,
            write_timeout,
            timeout,
            stops_at: None,
            pages: BTreeMap::new(),
            publishers: Vec::new(),
            spoiled: BTreeSet::new(),
            violations: Vec::new(),
        }));
        let built = build(options, &world);
        let mut network = Network::new(built);
        network.tolerates = |panic| panic.contains(PLANNED);
        Self {
            network,
            steps,
            world,
            players: BTreeMap::new(),
            clients_max,
            usual_bytes: max_frame_size,
            trail: vec![format!(
                "{mood:?} {policy:?} {max_frame_size} {max_message_size} {outbox_bytes}"
            )],
            bytes_each: extension_bytes
                + 4 * (outbox_bytes
                    + 2 * max_message_size
                    + limits.max_head_bytes
                    + limits.read_buffer_bytes
                    + (20 << 10)),
            process_bytes: limits.process_bytes,
        }
    }

    fn choose<R>(&self, act: impl FnOnce(&mut Choices) -> R) -> R {
        act(&mut self.world.borrow_mut().choices)
    }

    /// A panic outside of the core is a failure like any other.
    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        caught(|| act(self)).unwrap_or_else(|panic| Err(panic.0))
    }

    fn is_over(&self) -> bool {
        self.network.stopped || self.world.borrow().choices.is_over()
    }

    fn step(&mut self) {
        let mood = self.world.borrow().mood;
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
                self.network.advance(Duration::from_millis(time));
            }
            11 if mood.jumps => {
                let time = self.choose(|choices| choices.below(100_000));
                self.note(format!("jump {time} ms"));
                self.network.jump(Duration::from_millis(time));
            }
            12 if !mood.is_long && self.choose(|choices| choices.one_in(8)) => self.shut_down(),
            _ => self.play(),
        }
    }

    fn note(&mut self, what: String) {
        self.trail.push(format!("{:?} {what}", self.network.now));
    }

    fn connect(&mut self) {
        let n = self.choose(|choices| choices.below(4));
        let address = SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap_or(0)], 5000));
        let id = self.network.connect(address);
        let limit = self.usual_bytes;
        let mood = self.world.borrow().mood;
        let player = self.choose(|choices| Player::new(id, limit, choices, mood));
        if mood.buffers {
            let buffers = self.choose(draw_buffers);
            self.network.link(id).set_buffers(buffers);
        }
        self.note(format!("connect {id}"));
        self.players.insert(id, player);
    }

    fn advance_to_next_event(&mut self) {
        if let Some(next) = self.network.next_event() {
            self.note(format!("to {next:?}"));
            self.network.advance(next.since(self.network.now));
        }
    }

    fn play(&mut self) {
        let count = self.players.len();
        let which = self.choose(|choices| choices.size_below(count));
        if let Some(player) = self.players.values_mut().nth(which) {
            let mood = self.world.borrow().mood;
            // Drawn first: the hooks draw too, while the network runs.
            let play = player.draw(&mut self.world.borrow_mut().choices, mood);
            self.trail.push(format!("{:?} client {} {play:?}", self.network.now, player.id));
            if player.is_spoiled {
                self.world.borrow_mut().spoiled.insert(player.id);
            }
            player.perform(play, &mut self.network);
        }
    }

    fn shut_down(&mut self) {
        let grace = self.choose(|choices| choices.below(20_000));
        self.stop(Duration::from_millis(grace));
    }

    fn stop(&mut self, grace: Duration) {
        self.note(format!("shut down within {grace:?}"));
        self.world.borrow_mut().note_stop(self.network.now.after(grace));
        self.network.shut_down(CloseCode::GOING_AWAY, grace);
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        // A client's reaction can cause further events: until nothing moves.
        loop {
            let mut moved = false;
            for player in self.players.values_mut() {
                let World { sessions, drops, tally, publishers, .. } =
                    &mut *self.world.borrow_mut();
                let log = sessions.get(&player.id);
                let told = Told { log, drops: *drops, publishers, tally };
                moved |= player.look(&mut self.network, told)?;
            }
            if !moved {
                break;
            }
            self.network.pump();
        }
        if let Some(violation) = self.world.borrow().violations.first() {
            return Err(violation.clone());
        }
        self.network.audit()?;
        let (held, live) = (self.network.core.bytes_held(), self.network.live());
        let most = (self.process_bytes + self.bytes_each).min(live * self.bytes_each);
        if held > most {
            return Err(format!("{held} bytes are held by {live} connections, at most {most}"));
        }
        // Even of one that the core leaves unread: the system tells of a failure all the same.
        for &id in self.players.keys() {
            let link = self.network.link(id);
            if link.socket.is_broken() && link.is_open() {
                return Err(format!("link {id} is broken, and the server keeps it"));
            }
        }
        let network = &mut self.network;
        let world = &mut *self.world.borrow_mut();
        let mut over = Ok(());
        self.players.retain(|&id, player| {
            if !network.link(id).is_settled() {
                return true;
            }
            if over.is_ok() {
                over = check_over(player, network, world);
            }
            false
        });
        over
    }

    /// All goes silent, then the server stops: everything is given back, in bounded time.
    fn end(&mut self) -> Result<(), String> {
        self.note("the end".into());
        if self.choose(|choices| choices.one_in(2)) {
            self.players.values_mut().for_each(|player| player.fall_silent(&mut self.network));
            self.network.advance(Duration::from_secs(300));
            self.check()?;
        }
        let grace = Duration::from_millis(self.choose(|choices| choices.below(9_000)));
        self.stop(grace);
        self.check()?;
        self.network.advance(grace + Duration::from_millis(20));
        self.check()?;
        if !self.network.stopped {
            return Err("the grace is over and the server has not stopped".into());
        }
        let open = self.network.core.stats().sessions_open;
        if open > 0 {
            return Err(format!("the server has stopped, and {open} sessions are open"));
        }
        // Those that came late are only dropped with the process.
        self.network.cut_all();
        self.network.core.audit_empty()?;
        // Their systems deliver what they have.
        self.network.advance(Duration::from_secs(100_000));
        self.check()?;
        let network = &mut self.network;
        // Who was never accepted goes with the listener.
        if let Some(id) = self.players.keys().find(|&&id| !network.link(id).is_waiting()) {
            return Err(format!("link {id} is not over after a day"));
        }
        let world = self.world.borrow();
        if world.flow.subscription_count() > 0 {
            return Err("a session that is over still collects".into());
        }
        match world.sessions.iter().find(|(_, log)| log.connected != log.end.is_some()) {
            Some((link, _)) => Err(format!("the session of link {link} had no on_close")),
            None => Ok(()),
        }
    }
}

/// What must hold of a connection that is over.
fn check_over(player: &Player, network: &mut Network, world: &mut World) -> Result<(), String> {
    let id = player.id;
    let log = world.sessions.get(&id);
    if log.is_some_and(|log| log.connected && log.end.is_none()) {
        return Err(format!("link {id} is over and its session had no on_close"));
    }
    let (now, over_budget) = (network.now, network.core.stats().over_budget);
    let link = network.link(id);
    let loss = Account { player, link, log, world, over_budget, now }.settle()?;
    check_end(player, link, log, world)?;
    if let Some(loss) = loss {
        world.tally.losses.count(loss);
    }
    Ok(())
}

/// What arrived of a connection whose side was shut in order is whole, and ends with a Close.
fn check_end(player: &Player, link: &Link, log: Option<&Log>, world: &World) -> Result<(), String> {
    let (id, socket) = (player.id, &link.socket);
    if !socket.shut || socket.is_broken() || !socket.is_end_seen() {
        return Ok(());
    }
    // Our side was shut in order: what went out is whole.
    if !socket.got.is_empty() {
        return Err(format!("link {id} ended inside a frame: {:?}", socket.got));
    }
    let Some((log, end)) = log.and_then(|log| log.end.as_ref().map(|end| (log, end))) else {
        return Ok(());
    };
    // A peer that ended its side without a Close gets none either, but what was sent before.
    if player.got_close.is_none() && end.code() != CloseCode::ABNORMAL {
        return Err(format!("link {id} ended in order without a Close: {end:?}"));
    }
    if end.is_clean() && !world.drops && player.received != log.sent.len() {
        let (received, sent) = (player.received, log.sent.len());
        return Err(format!("link {id} ended cleanly; {received} of {sent} messages arrived"));
    }
    Ok(())
}

//! What is drawn of a simulation before it begins: its limits, its options, its flow, and the
//! application with them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::{Application, Built, WebSockets};
use crate::app::call::Call;
#[cfg(feature = "client")]
use crate::app::connect_options::ConnectOptions;
use crate::app::raw_handler::on_frame;
use crate::context::loop_state::Order;
use crate::context::mailbox::Mailbox;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::testing::network::Network;
use crate::words::compat::Compat;
use crate::words::limits::Limits;
use crate::words::options::OutboxOverflow;
use crate::words::time::Time;

use super::actors::{Actor, PLANNED};
use super::bodies;
use super::choices::Choices;
use super::deferrals::Deferrals;
use super::deferring;
use super::pages;
use super::reader::add_reader;
use super::world::{Mood, Tally, World};

/// What a run's server is like.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) max_frame_size: usize,
    max_message_size: usize,
    outbox_bytes: usize,
    pub(super) limits: Limits,
    policy: OutboxOverflow,
    flow: SharedFlow,
    timeout: Duration,
    write_timeout: Duration,
    pause_timeout: Option<Duration>,
    /// Whether it dials: then the options of what it dials are others.
    #[cfg(feature = "client")]
    dials: bool,
}

/// For the trail of a failure.
impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, max_frame_size, max_message_size, outbox_bytes, .. } = self;
        write!(f, "{policy:?} {max_frame_size} {max_message_size} {outbox_bytes}")
    }
}

impl Setup {
    pub(super) fn draw(choices: &mut Choices, mood: Mood) -> Self {
        let max_frame_size = choices.pick(&[125, 1_000, 64 << 10]);
        Self {
            max_frame_size,
            max_message_size: max_frame_size.max(choices.pick(&[125, 2_000, 64 << 10])),
            outbox_bytes: choices.pick(&[1, 1_000, 64 << 10]),
            limits: draw_limits(mood, choices),
            policy: choices.pick(&[
                OutboxOverflow::Close,
                OutboxOverflow::Block,
                OutboxOverflow::DropNewest,
                OutboxOverflow::DropOldest,
            ]),
            flow: draw_flow(choices),
            timeout: millis(choices, mood, &[1, 900, 15_000]),
            write_timeout: match mood.is_slow {
                true => Duration::from_secs(2),
                false => millis(choices, mood, &[1, 2_000, 30_000]),
            },
            pause_timeout: choices.one_in(4).then(|| millis(choices, mood, &[3, 900, 9_000])),
            #[cfg(feature = "client")]
            dials: false,
        }
    }

    /// The options, and what an extension may hold in a session.
    pub(super) fn draw_options(&self, choices: &mut Choices, mood: Mood) -> (WebSockets, usize) {
        let mut options = WebSockets::new()
            .on_outbox_full(self.policy)
            .timeout(self.timeout)
            .write_timeout(self.write_timeout)
            .pause_timeout(self.pause_timeout)
            .max_frame_size(self.max_frame_size)
            .max_message_size(self.max_message_size)
            .max_outgoing_message_size(self.max_message_size)
            .max_piecewise_message_size(self.max_message_size as u64)
            .outbox_bytes(self.outbox_bytes)
            .compat(Compat::new().masking(choices.one_in(8)))
            .limits(self.limits.clone());
        if choices.one_in(3) {
            options = options.ping_period(None);
        } else {
            options = options.ping_period(millis(choices, mood, &[1, 700, 15_000]));
        }
        if choices.one_in(2) {
            options = options.idle_timeout(millis(choices, mood, &[3, 3_000, 60_000]));
        }
        #[cfg(feature = "deflate")]
        if mood.deflate {
            let (deflate, bytes) = draw_deflate(choices);
            return (options.extension(deflate), bytes);
        }
        (options, 0) // clients ask in vain
    }

    /// The same for what is dialled: times are such that a session has some, and its own.
    #[cfg(feature = "client")]
    pub(super) fn draw_connect_options(&self, choices: &mut Choices, mood: Mood) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .on_outbox_full(self.policy)
            .timeout(self.timeout)
            .write_timeout(self.write_timeout)
            .max_frame_size(self.max_frame_size)
            .max_message_size(self.max_message_size)
            .max_outgoing_message_size(self.max_message_size)
            .outbox_bytes(self.outbox_bytes)
            .ping_period(millis(choices, mood, &[700, 5_000, 20_000]));
        if choices.one_in(4) {
            options = options.ping_period(None);
        }
        #[cfg(feature = "deflate")]
        if mood.deflate && choices.one_in(2) {
            options = options.extension(draw_deflate(choices).0);
        }
        options
    }

    /// The server that is dialled: it takes what the other one sends, and all who come.
    #[cfg(feature = "client")]
    pub(super) fn draw_far(&self, choices: &mut Choices, mood: Mood) -> Self {
        let mut setup = Self::draw(choices, mood);
        setup.max_frame_size = self.max_frame_size;
        setup.max_message_size = self.max_message_size;
        setup.limits = setup.limits.max_connections(30).max_pending_handshakes(30);
        setup
    }

    #[cfg(feature = "client")]
    pub(super) fn with_dialers(self, dials: bool) -> Self {
        Self { dials, ..self }
    }

    /// More than a connection may ever hold.
    pub(super) fn bytes_each(&self, extension_bytes: usize) -> usize {
        let Limits { max_head_bytes, read_buffer_bytes, .. } = self.limits;
        #[cfg(feature = "client")]
        let extension_bytes = if self.dials { BOTH_CONTEXTS } else { extension_bytes };
        let buffers = self.outbox_bytes + 2 * self.max_message_size;
        extension_bytes + 4 * (buffers + max_head_bytes + read_buffer_bytes + (20 << 10))
    }

    pub(super) fn into_world(self, choices: Choices, mood: Mood) -> World {
        World {
            choices,
            mood,
            sessions: BTreeMap::new(),
            tally: Tally::default(),
            max_message_size: self.max_message_size,
            flow: self.flow,
            readers: 0,
            published: 0,
            prompted: false,
            drops: !matches!(self.policy, OutboxOverflow::Close | OutboxOverflow::Block),
            closes_when_full: self.policy == OutboxOverflow::Close,
            write_timeout: self.write_timeout,
            linger_timeout: self.limits.linger_timeout,
            patience: self.limits.close_timeout.min(self.pause_timeout.unwrap_or(Duration::MAX)),
            timeout: self.timeout,
            stops_at: None,
            pages: BTreeMap::new(),
            publishers: Vec::new(),
            given_up: BTreeMap::new(),
            deferrals: Deferrals::default(),
            spoiled: BTreeSet::new(),
            violations: Vec::new(),
            clock: Rc::new(Cell::new(Time::ZERO)),
            peer: None,
        }
    }
}

/// One of these, or the longest.
pub(super) fn millis(choices: &mut Choices, mood: Mood, from: &[u64; 3]) -> Duration {
    let [.., longest] = *from;
    Duration::from_millis(if mood.hurries { choices.pick(from) } else { longest })
}

pub(super) fn draw_flow(choices: &mut Choices) -> SharedFlow {
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
    // So little that an answer, or a few requests, may be more than the share of a turn.
    let read_budget_bytes = if choices.is_one_in(7) { SMALL_SHARE } else { USUAL_SHARE };
    Limits::new()
        .read_budget_bytes(read_budget_bytes)
        .max_connections(choices.pick(&[1, 4, 20]))
        .max_pending_handshakes(choices.pick(&[1, 3, 20]))
        .handshake_timeout(millis(choices, mood, &[1, 900, 10_000]))
        .max_deferred(choices.pick(&[1, 3, 20]))
        .defer_timeout(millis(choices, mood, &[1, 900, 20_000]))
        .close_timeout(millis(choices, mood, &[1, 500, 5_000]))
        .linger_timeout(millis(choices, mood, &[1, 500, 2_000]))
        .max_head_bytes(1_000)
        .process_bytes(process_bytes)
        .read_buffer_bytes(choices.pick(&[1_024, 5_000]))
}

/// What a connection may read and cause at a time.
const USUAL_SHARE: usize = 256 << 10;
const SMALL_SHARE: usize = 4 << 10;

/// What compression may hold in a session.
const BOTH_CONTEXTS: usize = 400 << 10;

/// Compression with any of its options, and what it may hold in a session.
#[cfg(feature = "deflate")]
fn draw_deflate(choices: &mut Choices) -> (crate::extension::Deflate, usize) {
    const ONE_INFLATER: usize = 50 << 10;
    let (client_keeps, server_keeps) = (choices.one_in(2), choices.one_in(2));
    let mut deflate = crate::extension::Deflate::new()
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
    (deflate, bytes)
}

/// A network with that application, whose planned panics are no failures.
#[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "there is none"))]
pub(super) fn begin(
    options: WebSockets,
    world: &Rc<RefCell<World>>,
    over_tls: bool,
    more: impl FnOnce(&mut Application),
) -> Network {
    let mailbox = Mailbox::default();
    let mut network = Network::new(build(options, world, mailbox.clone(), more));
    network.accept_orders(mailbox.inbox());
    #[cfg(feature = "client")]
    {
        network.sockets.far.clock = Rc::clone(&world.borrow().clock);
    }
    #[cfg(feature = "tls")]
    if over_tls {
        network.use_tls();
    }
    network.tolerates = |panic| panic.contains(PLANNED);
    network.core.repeat_chance(1); // one thread runs many seeds
    network.core.keep_buffers_from(64); // which messages are large is all one
    network
}

/// The application: `/s` is played by actors, and `/p` by those who take pieces; `/raw` mirrors, `/page`
/// has any length.
fn build(
    options: WebSockets,
    world: &Rc<RefCell<World>>,
    mailbox: Mailbox<Order>,
    more: impl FnOnce(&mut Application),
) -> Built {
    let raw_negotiates = world.borrow_mut().choices.one_in(2);
    let mut application = Application::new().reached_by(mailbox, Vec::new());
    application.install(options);
    let (members, listeners, pages) = (Rc::clone(world), Rc::clone(world), Rc::clone(world));
    let takers = Rc::clone(world);
    let deferring = Rc::clone(world);
    application.routing(|route| {
        route.on_upgrade(move |call| deferring::admit(&deferring, call));
        route.web_socket("/s", move |call: &Call| Actor::join(&members, call));
        route.web_socket_pieces("/p", move |call: &Call| Actor::join_in_pieces(&takers, call));
        route.event_stream("/e", move |call: &Call| Actor::join(&listeners, call)).base64();
        route
            .web_socket_raw("/raw", |_: &Call| on_frame(|session, frame| session.send_frame(frame)))
            .negotiate_extensions(raw_negotiates);
        bodies::add_routes(route, world);
        route.get("/page", move |call| {
            if let Some(response) = deferring::begin(&pages, call, false) {
                return response;
            }
            let link = call.header("x-link").and_then(|link| link.parse().ok());
            if let Some(link) = link {
                *pages.borrow_mut().pages.entry(link).or_default() += 1;
            }
            pages::draw(&pages)
        });
    });
    add_reader(&mut application, world);
    more(&mut application);
    match application.build() {
        Ok(built) => built,
        Err(mistake) => panic!("the simulation's application: {mistake}"),
    }
}

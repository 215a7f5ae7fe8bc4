//! Topics: what one client sends to a topic, all others on it receive.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::message::MessageBuf;
use wirewheel::{
    Accept, Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message,
    Response, Routing, ServerRef, Session,
};

use crate::broker::{Broker, OverBroker};
use crate::config::{Config, Overflow};
use crate::links::{Links, TopicLinks};

pub(crate) const PATH: &str = "/topic/{name}";
/// The most topics at once. Of those that nobody is on, only the replay is left; they make room.
const TOPICS_MAX: usize = 1024;
/// The longest name, in bytes.
const NAME_MAX: usize = 128;
/// How far a client may be behind before `--overflow` applies.
const BEHIND_MAX: usize = 64;
/// Beyond what is replayed, if the messages are the largest.
const LARGEST_BEHIND: usize = 4;
/// What a flow counts beside a message, at most.
const BESIDE_BYTES: usize = 256;
/// How far before it holds the senders up, if that is what is to happen.
const BEHIND_HELD: usize = 2;

/// The topics by their names.
#[derive(Debug)]
pub(crate) struct Topics {
    settings: Rc<Settings>,
    broker: RefCell<Rc<Broker>>,
    topics: RefCell<HashMap<String, Rc<Topic>>>,
}

/// What all topics have in common.
#[derive(Debug)]
struct Settings {
    options: FlowOptions,
    overflow: Overflow,
    links: Links,
    /// There are several loops, which have their topics together.
    is_shared: bool,
    /// Other hubs may dial: what comes from other loops or a broker does not reach links.
    serves_links: bool,
    /// Names of topics that are gone on this loop, and that others are to be told of.
    gone: RefCell<Vec<String>>,
}

/// A topic, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Topic {
    settings: Rc<Settings>,
    name: String,
    /// From when the first client is on it.
    flow: OnceCell<SharedFlow<MessageBuf>>,
    linked: TopicLinks,
    broker: Rc<Broker>,
    over_broker: OverBroker,
}

impl Topics {
    /// Topics as the configuration wants them.
    pub(crate) fn of(config: &Config) -> Result<Self, String> {
        let settings = Settings {
            options: flow_options(config)?,
            overflow: config.overflow,
            links: Links::of(config),
            is_shared: config.loops > 1,
            serves_links: config.loops == 1 && config.broker.is_none(),
            gone: RefCell::default(),
        };
        let broker = RefCell::new(Rc::new(Broker::of(config)?));
        Ok(Self { settings: Rc::new(settings), broker, topics: RefCell::default() })
    }

    /// Adds what clients connect to, and other hubs.
    pub(crate) fn serve(self: &Rc<Self>, route: &mut Routing<'_>) {
        let (joining, admitting) = (Rc::clone(self), Rc::clone(self));
        route
            .web_socket(PATH, move |call: &Call| Member(joining.topic(call)))
            .on_upgrade(move |call| admitting.admit(call));
        // Another hub would hear nothing else than what clients of one loop say.
        if self.settings.serves_links {
            self.settings.links.serve(route, self);
        }
    }

    /// Starts the link to the broker.
    pub(crate) fn start(&self, app: &mut Application, config: &Config) -> Result<(), String> {
        let started = Broker::of(config)?.start(app)?;
        *self.broker.borrow_mut() = Rc::new(started);
        Ok(())
    }

    /// Has mistakes told that would be seen only when a topic is joined to one of another hub.
    pub(crate) fn check(&self, app: &mut Application) {
        self.settings.links.check(app);
    }

    /// Whether a client may join, and if not, why.
    pub(crate) fn admit(&self, call: &Call) -> Result<Accept, Response> {
        let name = call.parameter("name").unwrap_or_default();
        if name.is_empty() || name.len() > NAME_MAX {
            let text = format!("a topic has a name of at most {NAME_MAX} bytes\n");
            return Err(Response::text(text).status(400));
        }
        if let Some(fault) = self.broker.borrow().fault_of(&name) {
            return Err(Response::text(fault).status(400));
        }
        let mut topics = self.topics.borrow_mut();
        if !topics.contains_key(&*name) && topics.len() >= TOPICS_MAX {
            topics.retain(|_, topic| {
                let stays = topic.is_joined() || topic.linked.leave_upstream();
                if !stays {
                    topic.broker.leave(topic);
                    topic.leave_loops();
                }
                stays
            });
            if topics.len() >= TOPICS_MAX {
                return Err(Response::text("too many topics\n").status(503));
            }
        }
        Ok(Accept::new())
    }

    /// The topic that a client asked for.
    pub(crate) fn topic(&self, call: &Call) -> Rc<Topic> {
        let name = call.parameter("name").unwrap_or_default();
        let mut topics = self.topics.borrow_mut();
        if let Some(topic) = topics.get(&*name) {
            return Rc::clone(topic);
        }
        let topic = Rc::new(Topic {
            settings: Rc::clone(&self.settings),
            name: name.clone().into_owned(),
            flow: OnceCell::new(),
            linked: TopicLinks::default(),
            broker: Rc::clone(&self.broker.borrow()),
            over_broker: OverBroker::default(),
        });
        topics.insert(name.into_owned(), Rc::clone(&topic));
        topic
    }
}

/// What the flows of topics are like; an error if they cannot be as the options say.
pub(crate) fn flow_options(config: &Config) -> Result<FlowOptions, String> {
    let overflow = match config.overflow {
        Overflow::Suspend => BufferOverflow::Suspend,
        // Who is to be ended for having missed something misses it first.
        Overflow::DropOldest | Overflow::Close => BufferOverflow::DropOldest,
        Overflow::DropLatest => BufferOverflow::DropLatest,
        Overflow::Latest if config.replay > 0 => {
            let text = "--overflow latest gives whoever joins the newest message: give no --replay";
            return Err(text.into());
        }
        Overflow::Latest => BufferOverflow::Latest,
    };
    // A sender that is to be held up has to be before the log is full: then it would be ended. The
    // room is for those who say one message each before they are held up.
    let (behind, room) = match config.overflow {
        Overflow::Suspend => (BEHIND_HELD, config.replay.saturating_add(BEHIND_MAX)),
        _ => (BEHIND_MAX, config.replay.saturating_add(LARGEST_BEHIND)),
    };
    let message = config.max_message.saturating_add(BESIDE_BYTES);
    let options = FlowOptions::new()
        .replay(config.replay)
        .extra_buffer(behind)
        .on_buffer_overflow(overflow)
        .max_bytes(message.saturating_mul(room).clamp(256 << 10, 1 << 30));
    let checked = SharedFlow::<MessageBuf>::with(options);
    checked.map_err(|error| format!("--replay {}: {error}", config.replay))?;
    Ok(options)
}

impl Settings {
    fn new_flow(&self) -> SharedFlow<MessageBuf> {
        SharedFlow::with(self.options).unwrap_or_default() // the options were checked in `flow_options`
    }
}

impl Topic {
    /// Whether a client is on it, or a hub that has dialled.
    fn is_joined(&self) -> bool {
        let members = self.flow.get().map_or(0, SharedFlow::subscription_count);
        members > self.over_broker.readers() || self.linked.have_members()
    }

    /// The flow is that of all loops, where there are several.
    fn join_loops(&self, server: &mut ServerRef<'_>) {
        if !self.settings.is_shared || self.flow.get().is_some() {
            return;
        }
        // No server is at hand where a topic makes room for another.
        for name in self.settings.gone.take() {
            server.forget_shared_flow(&name);
        }
        if let Ok(flow) = server.shared_flow_of(&self.name, self.settings.options) {
            let _ = self.flow.set(flow); // the options were checked in `flow_options`
        }
    }

    /// The topic is gone on this loop.
    fn leave_loops(&self) {
        if self.settings.is_shared {
            self.settings.gone.borrow_mut().push(self.name.clone());
        }
    }

    /// What clients of this hub are sent.
    pub(crate) fn flow(&self) -> &SharedFlow<MessageBuf> {
        self.flow.get_or_init(|| self.settings.new_flow())
    }

    /// Publishes what a session said, in one of the topic's flows.
    pub(crate) fn emit_in(
        &self,
        session: &mut Session<'_>,
        flow: &SharedFlow<MessageBuf>,
        message: &MessageBuf,
    ) -> HandlerResult {
        // One key, so that there is one newest message under `--overflow latest`; else it means nothing.
        session.emit_latest(flow, "", message)
    }
}

/// What links do with a topic.
#[cfg_attr(
    not(all(feature = "upstream", feature = "broker")),
    allow(dead_code, reason = "there are no links")
)]
impl Topic {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A further flow with the options of topics.
    pub(crate) fn new_flow(&self) -> SharedFlow<MessageBuf> {
        self.settings.new_flow()
    }

    pub(crate) fn keeps_newest(&self) -> bool {
        self.settings.overflow == Overflow::Latest
    }

    pub(crate) fn links(&self) -> &Links {
        &self.settings.links
    }

    pub(crate) fn over_broker(&self) -> &OverBroker {
        &self.over_broker
    }

    pub(crate) fn linked(&self) -> &TopicLinks {
        &self.linked
    }

    /// Joins it to those of its name elsewhere.
    fn join_others(self: &Rc<Self>, server: &mut ServerRef<'_>) {
        self.broker.join(server, self);
        self.linked.join_upstream(server, self);
    }

    /// What a client said here goes to other hubs.
    fn pass_on(&self, session: &mut Session<'_>, message: &MessageBuf) -> HandlerResult {
        self.linked.pass_on(session, self, message)
    }
}

/// A client on a topic.
#[derive(Debug)]
pub(crate) struct Member(Rc<Topic>);

impl Member {
    /// Under `--overflow close`: ends a session that missed something. No hook runs at the moment at
    /// which it does, as it takes nothing then; the next that runs is early enough. Who never takes
    /// anything again is ended by the server, with the same code.
    fn end_if_behind(&self, session: &mut Session<'_>) -> HandlerResult {
        if self.0.settings.overflow != Overflow::Close || session.missed() == 0 {
            return Ok(());
        }
        session.close(CloseReason::new(CloseCode::TRY_AGAIN_LATER, "messages missed")?)
    }
}

impl Handler for Member {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        self.0.join_loops(&mut session.server());
        self.0.join_others(&mut session.server());
        session.collect_others(self.0.flow())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let message = MessageBuf::from(message);
        self.0.emit_in(session, self.0.flow(), &message)?;
        self.0.pass_on(session, &message)?;
        self.end_if_behind(session)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.end_if_behind(session)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, _rtt: Duration) -> HandlerResult {
        self.end_if_behind(session)
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        if session.missed() > 0 {
            log::debug!("{} missed {} messages", session.id(), session.missed());
        }
    }
}

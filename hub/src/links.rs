//! Links: how topics of two hubs are one, both ways. A hub that was told of an upstream dials it, once for
//! each topic, and offers a subprotocol by which the other knows it for a hub.
//!
//! Each message on a link begins with its version: 16 hexadecimal digits of a number that only grows, and
//! 16 of the hub where it was said. A hub passes a version on once, whichever way it came and however often,
//! so that hubs may be linked in a circle, and a link that is made anew repeats nothing. Of two messages that
//! were said apart the later one is newer, as far as the clocks are right.

mod clock;
mod heard;

use std::cell::RefCell;
use std::rc::Rc;

use log::Level;
use wirewheel::client::Dialer;
use wirewheel::flow::SharedFlow;
use wirewheel::message::MessageBuf;
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Routing,
    ServerRef, Session,
};

use crate::config::Config;
pub(crate) use crate::links::clock::VERSION_BYTES;
use crate::links::clock::{Clock, Version, believes};
use crate::links::heard::Heard;
use crate::sparing::Sparing;
use crate::stamp;
use crate::topics::{PATH, Topic, Topics};
use crate::upstream::Upstream;

/// The subprotocol of a link.
pub(crate) const PROTOCOL: &str = "link.wirewheel-hub.1";

/// What all topics need for their links.
#[derive(Debug)]
pub(crate) struct Links {
    clock: Clock,
    upstream: Option<Upstream>,
    max_message: usize,
    mistakes: Sparing,
}

/// What one topic has of links.
#[derive(Debug, Default)]
pub(crate) struct TopicLinks {
    /// What is said on the topic, with versions: from when there is a link, or is to be one.
    flow: RefCell<Option<SharedFlow<MessageBuf>>>,
    heard: RefCell<Heard>,
    upstream: RefCell<Option<Dialer>>,
}

impl Links {
    pub(crate) fn of(config: &Config) -> Self {
        let (upstream, max_message) = (Upstream::of(config), config.max_message);
        Self { clock: Clock::new(), upstream, max_message, mistakes: Sparing::new(1) }
    }

    /// Has a mistake in what is to be dialled told when the hub starts.
    pub(crate) fn check(&self, app: &mut Application) {
        self.upstream.iter().for_each(|upstream| upstream.check(app));
    }

    /// Adds what other hubs connect to.
    pub(crate) fn serve(&self, route: &mut Routing<'_>, topics: &Rc<Topics>) {
        let (linking, admitting) = (Rc::clone(topics), Rc::clone(topics));
        route
            .web_socket(PATH, move |call: &Call| Link(linking.topic(call)))
            .protocol(PROTOCOL)
            .max_frame_size(self.max_message.saturating_add(VERSION_BYTES))
            .on_upgrade(move |call| admitting.admit(call));
    }
}

impl TopicLinks {
    /// The flow that links collect. What was said before there was one was said by clients of this hub.
    fn flow(&self, topic: &Topic) -> SharedFlow<MessageBuf> {
        let mut flow = self.flow.borrow_mut();
        let flow = flow.get_or_insert_with(|| {
            let (flow, said) = (topic.new_flow(), topic.flow().replay_cache());
            let (newest, now) = (self.heard.borrow().newest(), stamp::micros());
            let newest = if believes(newest, now) { newest } else { self.own_version(topic, now) };
            for (age, message) in (0..said.len() as u64).rev().zip(&said) {
                let version = Version { number: newest.number.saturating_sub(age), ..newest };
                let versioned = version.before(message.as_message());
                let _ = flow.emit_latest("", &versioned); // without room for it, it is not repeated
            }
            flow
        });
        flow.clone()
    }

    /// Whoever comes now would refuse what this hub said while its clock was wrong: that is said anew. What
    /// others said of such a time nobody takes any more.
    fn renew_flow(&self, topic: &Topic, now: u64) {
        let mut flow = self.flow.borrow_mut();
        // Another link that collects it must not be left with one that nobody writes to.
        let Some(old) = flow.as_ref().filter(|flow| flow.subscription_count() == 0) else { return };
        let said = old.replay_cache();
        let versions = || said.iter().filter_map(|it| Version::split(it.as_message()));
        if versions().all(|(version, _)| believes(version, now)) {
            return;
        }
        let (clock, renewed) = (&topic.links().clock, topic.new_flow());
        for (mut version, message) in versions() {
            if !believes(version, now) {
                if !clock.is_own(version) {
                    continue;
                }
                version = self.own_version(topic, now);
            }
            let _ = renewed.emit_latest("", &version.before(message.as_message())); // as in `flow`
        }
        *flow = Some(renewed);
    }

    /// The version of a message that is said here.
    fn own_version(&self, topic: &Topic, now: u64) -> Version {
        let version = topic.links().clock.next(now);
        self.heard.borrow_mut().note_own(version);
        version
    }

    /// Whether hubs have dialled this topic.
    pub(crate) fn have_members(&self) -> bool {
        let links = self.flow.borrow().as_ref().map_or(0, SharedFlow::subscription_count);
        let upstream = self.upstream.borrow().as_ref().and_then(Dialer::session);
        links > usize::from(upstream.is_some())
    }

    pub(crate) fn join_upstream(&self, server: &mut ServerRef<'_>, topic: &Rc<Topic>) {
        let Some(upstream) = &topic.links().upstream else { return };
        let mut dialer = self.upstream.borrow_mut();
        if dialer.is_none() {
            self.flow(topic); // what is said while it is dialled counts too
            *dialer = upstream.join(server, topic);
        }
    }

    /// The topic is given up; false, as it is not to be kept.
    pub(crate) fn leave_upstream(&self) -> bool {
        self.upstream.take().inspect(Dialer::stop);
        false
    }

    /// A client has said something here.
    pub(crate) fn pass_on(
        &self,
        session: &mut Session<'_>,
        topic: &Topic,
        message: &MessageBuf,
    ) -> HandlerResult {
        let version = self.own_version(topic, stamp::micros());
        let flow = self.flow.borrow().clone();
        match flow {
            Some(flow) => topic.emit_in(session, &flow, &version.before(message.as_message())),
            None => Ok(()),
        }
    }
}

/// A session between two hubs, whichever of them has dialled.
#[derive(Debug)]
pub(crate) struct Link(pub(crate) Rc<Topic>);

impl Link {
    /// Ends a link with something that is no hub, or none that can be linked with.
    fn refuse(&self, session: &mut Session<'_>, reason: &str) -> HandlerResult {
        let line = format!("a link to {}: {reason}", session.remote_addr());
        self.0.links().mistakes.say(Level::Warn, &line);
        session.close(CloseReason::new(CloseCode::VIOLATED_POLICY, reason)?)
    }
}

impl Handler for Link {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        if call.protocol() != Some(PROTOCOL) {
            return self.refuse(session, "this is no hub, or one without links");
        }
        self.0.linked().join_upstream(&mut session.server(), &self.0);
        self.0.linked().renew_flow(&self.0, stamp::micros());
        session.collect_others(&self.0.linked().flow(&self.0))
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let topic = &self.0;
        let Some((version, said)) = Version::split(message) else {
            return self.refuse(session, "a message without a version");
        };
        let now = stamp::micros();
        if !believes(version, now) {
            return self.refuse(session, "a message of the future: are both clocks right?");
        }
        // Whatever becomes of it: somebody else may have made it up in this hub's name.
        let (clock, linked) = (&topic.links().clock, topic.linked());
        clock.follow(version, now);
        let keeps_newest = topic.keeps_newest();
        if clock.is_own(version) || !linked.heard.borrow().is_new(version, keeps_newest, now) {
            return Ok(()); // it has come round, or was here
        }
        // Where there is no room, the link ends, and the message comes once more. Hubs that have it know its
        // version; clients do not, so they are last.
        topic.emit_in(session, &linked.flow(topic), &MessageBuf::from(message))?;
        topic.emit_in(session, topic.flow(), &said)?;
        linked.heard.borrow_mut().note(version, keeps_newest, now);
        Ok(())
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        if session.missed() > 0 {
            log::debug!("the link {} missed {} messages", session.id(), session.missed());
        }
    }
}

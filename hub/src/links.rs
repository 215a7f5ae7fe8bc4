//! Links: how topics of two hubs are one, both ways. A hub that was told of an upstream dials it, once for
//! each topic, and offers a subprotocol by which the other knows it for a hub.
//!
//! Each message on a link begins with its version: 16 hexadecimal digits of a number that only grows, and
//! 16 of the hub where it was said. A hub passes a version on once, whichever way it came and however often,
//! so that hubs may be linked in a circle, and a link that is made anew repeats nothing. Numbers are those of
//! a hybrid logical clock (Kulkarni and others, 2014): of two messages that were said apart the later one is
//! newer, as far as the clocks are right.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use log::Level;
use wirewheel::client::Dialer;
use wirewheel::flow::SharedFlow;
use wirewheel::message::{MessageBuf, Payload};
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Routing,
    ServerRef, Session,
};

use crate::config::Config;
use crate::sparing::Sparing;
use crate::stamp;
use crate::topics::{PATH, Topic, Topics};
use crate::upstream::Upstream;

/// The subprotocol of a link.
pub(crate) const PROTOCOL: &str = "link.wirewheel-hub.1";
/// What a version takes at the beginning of a message.
pub(crate) const VERSION_BYTES: usize = 32;
/// How far other clocks may be ahead, in microseconds. What is said to come from later could outdo all
/// that is said until then.
const AHEAD_MAX: u64 = 3_600_000_000;
/// A clock before this (2020) was never set, and cannot tell who is ahead of it.
const SET: u64 = 1_577_836_800_000_000;
/// What such a clock believes (2100).
const UNSET_MAX: u64 = 4_102_444_800_000_000;
/// The most hubs whose newest version is remembered for a topic.
const HUBS_MAX: usize = 64;

/// When a message was said, in microseconds since 1970 or more, and where: a greater one is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    number: u64,
    hub: u64,
}

/// The clock of a hub.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Another one whenever the hub is started: it remembers no version then.
    hub: u64,
    last: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { hub: RandomState::new().build_hasher().finish(), last: Cell::new(0) }
    }

    /// The version of a message that is said here now.
    pub(crate) fn next(&self) -> Version {
        // A clock that goes back, or that begins in 1970, counts on from what was heard.
        let number = stamp::micros().max(self.last.get().saturating_add(1));
        self.last.set(number);
        Version { number, hub: self.hub }
    }

    /// Whether a version may have been made by now, at a time by the clock of this box.
    fn believes(version: Version, now: u64) -> bool {
        version.number <= if now < SET { UNSET_MAX } else { now.saturating_add(AHEAD_MAX) }
    }

    /// Goes on behind a version that was heard.
    fn follow(&self, version: Version) {
        self.last.set(self.last.get().max(version.number));
    }
}

impl Version {
    /// A message with its version in front.
    fn before(self, message: Message<'_>) -> MessageBuf {
        let version = format!("{:016x}{:016x}", self.number, self.hub);
        match message.payload() {
            Payload::Text(text) => (version + text).into(),
            Payload::Binary(bytes) => [version.as_bytes(), bytes].concat().into(),
        }
    }

    /// The version of a message on a link, and the message.
    fn split(message: Message<'_>) -> Option<(Self, MessageBuf)> {
        let (version, _) = message.bytes().split_at_checked(VERSION_BYTES)?;
        let version = std::str::from_utf8(version).ok()?;
        let is_hexadecimal = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if !version.bytes().all(is_hexadecimal) {
            return None; // a sign, which parsing would take
        }
        let (number, hub) = version.split_at_checked(VERSION_BYTES / 2)?;
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        let version = Self { number: half(number)?, hub: half(hub)? };
        let rest = match message.payload() {
            Payload::Text(text) => text.get(VERSION_BYTES..)?.into(),
            Payload::Binary(bytes) => bytes.get(VERSION_BYTES..)?.into(),
        };
        Some((version, rest))
    }
}

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
    /// The newest version of all.
    newest: Cell<Version>,
    /// The newest version of each hub.
    heard: RefCell<Vec<Version>>,
    /// The newest of those that had to be forgotten: whatever is not newer may have been here.
    forgotten: Cell<Version>,
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
            let newest = self.newest.get();
            for (age, message) in (0..said.len() as u64).rev().zip(&said) {
                let version = Version { number: newest.number.saturating_sub(age), ..newest };
                let versioned = version.before(message.as_message());
                let _ = flow.emit_latest("", &versioned); // without room for it, it is not repeated
            }
            flow
        });
        flow.clone()
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
        let version = topic.links().clock.next();
        self.newest.set(version);
        let flow = self.flow.borrow().clone();
        match flow {
            Some(flow) => topic.emit_in(session, &flow, &version.before(message.as_message())),
            None => Ok(()),
        }
    }

    /// Whether a version, which is believed at that time, was not here before.
    fn is_new(&self, version: Version, topic: &Topic, now: u64) -> bool {
        let (own, newest) = (topic.links().clock.hub, self.newest.get());
        self.newest.set(newest.max(version));
        match version.hub == own {
            true => false, // it has come round
            false if topic.keeps_newest() => version > newest,
            false => self.is_new_of_its_hub(version, now),
        }
    }

    fn is_new_of_its_hub(&self, version: Version, now: u64) -> bool {
        let mut heard = self.heard.borrow_mut();
        if let Some(known) = heard.iter_mut().find(|known| known.hub == version.hub) {
            let is_new = version > *known;
            *known = version.max(*known);
            return is_new;
        }
        // Any number of hubs may be made up, and what they are said to have said goes round for ever where a
        // hub that was forgotten counts as one that was never heard. Who is honest goes by what it hears
        // (`Clock::follow`), so that what it says next is newer than all of that.
        if !Clock::believes(self.forgotten.get(), now) {
            // Of a time before the clock was set: nobody could say anything newer.
            self.forgotten.take();
        }
        if version <= self.forgotten.get() {
            return false;
        }
        if heard.len() >= HUBS_MAX {
            // What is believed no longer is refused in any case.
            heard.retain(|known| Clock::believes(*known, now));
        }
        if let Some(oldest) = heard.iter().copied().min().filter(|_| heard.len() >= HUBS_MAX) {
            // Started anew since, or silent for longest.
            heard.retain(|known| *known != oldest);
            self.forgotten.set(oldest.max(self.forgotten.get()));
        }
        heard.push(version);
        true
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
        session.collect_others(&self.0.linked().flow(&self.0))
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let topic = &self.0;
        let Some((version, said)) = Version::split(message) else {
            return self.refuse(session, "a message without a version");
        };
        let now = stamp::micros();
        if !Clock::believes(version, now) {
            return self.refuse(session, "a message of the future: are both clocks right?");
        }
        // Whatever becomes of it: somebody else may have made it up in this hub's name.
        topic.links().clock.follow(version);
        if !topic.linked().is_new(version, topic, now) {
            return Ok(());
        }
        topic.emit_in(session, topic.flow(), &said)?;
        topic.emit_in(session, &topic.linked().flow(topic), &MessageBuf::from(message))
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        if session.missed() > 0 {
            log::debug!("the link {} missed {} messages", session.id(), session.missed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_was_written_and_nothing_else_is_one() {
        let version = Version { number: 0x1234, hub: u64::MAX };
        for message in [MessageBuf::from("h\u{e9}llo"), MessageBuf::from(""), vec![0, 255].into()] {
            let stamped = version.before(message.as_message());
            assert_eq!(Version::split(stamped.as_message()), Some((version, message)));
        }
        let zeros = "0".repeat(31);
        for wrong in [
            "",
            "hello",
            &zeros,
            &format!("+{zeros}"),
            &format!("{zeros}F"),
            &format!("{zeros}\u{e9}"),
        ] {
            assert_eq!(Version::split(wrong.into()), None, "{wrong:?}");
        }
        let largest = "f".repeat(32);
        let version = Version { number: u64::MAX, hub: u64::MAX };
        assert_eq!(Version::split(largest.as_str().into()), Some((version, "".into())));
    }

    /// Whether versions are new, one after the other.
    fn news(links: &TopicLinks, now: u64, versions: &[(u64, u64)]) -> Vec<bool> {
        let is_new =
            |&(number, hub)| links.is_new_of_its_hub(Version { number: SET + number, hub }, now);
        versions.iter().map(is_new).collect()
    }

    #[test]
    fn what_was_said_by_a_hub_that_had_to_be_forgotten_is_not_new_again() {
        let (links, now) = (TopicLinks::default(), SET + 1_000);
        let many: Vec<(u64, u64)> = (1..=200).map(|number| (number, number)).collect();
        assert_eq!(news(&links, now, &many), [true; 200]);
        assert_eq!(news(&links, now, &many), [false; 200]);
        assert_eq!(links.heard.borrow().len(), HUBS_MAX);
        // Of a hub that is known it counts what it said itself; of one that is not, all that was forgotten.
        assert_eq!(
            news(&links, now, &[(136, 136), (136, 7), (137, 0), (137, 900)]),
            [false, false, true, true]
        );
        assert_eq!(
            news(&links, now, &[(200, 137), (200, 7), (199, 7), (201, 7)]),
            [true, true, false, true]
        );
    }

    /// A box without a clock believes what nobody can outdo once it has one.
    #[test]
    fn what_was_believed_before_the_clock_was_set_locks_nobody_out() {
        let links = TopicLinks::default();
        let many: Vec<(u64, u64)> = (1..=200).map(|hub| (2 * AHEAD_MAX + hub, hub)).collect();
        assert_eq!(news(&links, 0, &many), [true; 200]);
        assert_eq!(news(&links, 0, &[(5, 900)]), [false]);
        assert_eq!(news(&links, SET, &[(5, 900), (5, 900), (6, 901)]), [true, false, true]);
        let many: Vec<(u64, u64)> = (1..=200).map(|number| (number, 1_000 + number)).collect();
        news(&links, SET, &many);
        assert_eq!(news(&links, SET, &many), [false; 200], "nor is anything repeated");
    }

    #[test]
    fn the_future_is_believed_for_an_hour_and_by_a_clock_that_was_never_set() {
        let at = |number| Version { number, hub: 7 };
        for now in [SET, 2 * SET] {
            assert!(Clock::believes(at(now + AHEAD_MAX), now) && Clock::believes(at(0), now));
            assert!(!Clock::believes(at(now + AHEAD_MAX + 1), now));
        }
        assert!(Clock::believes(at(SET), 0) && Clock::believes(at(UNSET_MAX), 0));
        assert!(!Clock::believes(at(u64::MAX), 0) && Clock::believes(at(u64::MAX), u64::MAX));
    }

    #[test]
    fn a_clock_counts_on_from_what_it_heard_and_never_back() {
        let clock = Clock::new();
        let first = clock.next();
        let ahead = Version { number: first.number + 1_000_000_000_000, hub: 7 };
        clock.follow(ahead);
        let next = clock.next();
        assert_eq!(next.number, ahead.number + 1);
        clock.follow(first);
        assert!(clock.next() > next);
        assert_ne!(Clock::new().hub, Clock::new().hub);
    }
}

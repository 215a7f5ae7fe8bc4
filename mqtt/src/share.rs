//! A flow that is shared, whatever its values are, and what is known of its messages elsewhere.

use std::borrow::Cow;
use std::rc::Rc;

use wirewheel::error::SendError;
use wirewheel::flow::{Batch, ReaderId, SharedFlow, Taken};
use wirewheel::message::MessageBuf;
use wirewheel::{Application, Message, ServerRef};

use crate::again::Again;
use crate::numbers::{OtherNumbers, OwnNumbers};

/// What a link does with a flow.
pub(crate) trait Shared {
    fn read_from_start(&self, app: &mut Application, read: Box<Read>) -> ReaderId;
    fn read(&self, server: &mut ServerRef<'_>, read: Box<Read>) -> ReaderId;
    fn bring(
        &self,
        from: ReaderId,
        key: Option<&str>,
        message: Message<'_>,
    ) -> Result<(), SendError>;
    fn remove(&self, from: ReaderId, key: &str);
    /// The same if the value is one that came from there.
    fn take_back(&self, from: ReaderId, key: &str) -> bool;
    /// Whether nobody here has said anything newer of a key.
    fn is_from(&self, from: ReaderId, key: &str) -> bool;
    fn skip(&self, from: ReaderId, count: u64);
    /// The newest value of a key.
    fn newest_of(&self, key: &str) -> Option<MessageBuf>;
    /// Calls `each` with every key that has a value.
    fn for_each_key(&self, each: &mut dyn FnMut(Rc<str>));
}

pub(crate) type Read = dyn FnMut(&mut ServerRef<'_>, &mut Batch<'_>) -> Taken;

impl<T: ?Sized> Shared for SharedFlow<T> {
    fn read_from_start(&self, app: &mut Application, read: Box<Read>) -> ReaderId {
        app.read_flow(self, read)
    }

    fn read(&self, server: &mut ServerRef<'_>, read: Box<Read>) -> ReaderId {
        server.read_flow(self, read)
    }

    fn bring(
        &self,
        from: ReaderId,
        key: Option<&str>,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        match key {
            Some(key) => self.emit_latest_as(from, key, message),
            None => self.emit_as(from, message),
        }
    }

    fn remove(&self, from: ReaderId, key: &str) {
        self.remove_as(from, key);
    }

    fn take_back(&self, from: ReaderId, key: &str) -> bool {
        Self::take_back(self, from, key)
    }

    fn is_from(&self, from: ReaderId, key: &str) -> bool {
        Self::is_from(self, from, key)
    }

    fn skip(&self, from: ReaderId, count: u64) {
        self.skip_as(from, count);
    }

    fn newest_of(&self, key: &str) -> Option<MessageBuf> {
        self.get(key)
    }

    fn for_each_key(&self, each: &mut dyn FnMut(Rc<str>)) {
        self.newest().for_each(|(key, _)| each(key));
    }
}

/// A flow that is to be shared.
pub(crate) struct Wanted {
    pub(crate) flow: Rc<dyn Shared>,
    pub(crate) topic: String,
    pub(crate) is_latest: bool,
}

/// What has become of the subscription to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// The broker was not there yet.
    None,
    Asked(Asked),
    Granted,
    Refused,
}

/// The SUBSCRIBE that names it, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: u16,
    pub(crate) place: usize,
    /// How many filters that has.
    pub(crate) of: usize,
    /// It is one with which a connection begins.
    pub(crate) is_first: bool,
}

/// A flow that is shared.
pub(crate) struct Share {
    pub(crate) flow: Rc<dyn Shared>,
    /// With the prefix.
    pub(crate) topic: String,
    pub(crate) is_latest: bool,
    /// Before the link was started.
    pub(crate) is_from_start: bool,
    pub(crate) subscription: Subscription,
    /// Which takes what is published here.
    pub(crate) reader: Option<ReaderId>,
    pub(crate) own: OwnNumbers,
    pub(crate) others: OtherNumbers,
    pub(crate) again: Again,
}

impl Share {
    pub(crate) fn new(wanted: &Wanted, topic: String) -> Self {
        Self {
            flow: Rc::clone(&wanted.flow),
            topic,
            is_latest: wanted.is_latest,
            is_from_start: false,
            subscription: Subscription::None,
            reader: None,
            own: OwnNumbers::new(),
            others: OtherNumbers::default(),
            again: Again::default(),
        }
    }

    /// What it keeps, about.
    pub(crate) fn bytes(&self) -> usize {
        self.others.bytes() + self.again.bytes()
    }

    /// Where the value of a key is: below the flow's topic, and of the empty key in that.
    pub(crate) fn topic_of(&self, key: &str) -> Cow<'_, str> {
        match key {
            "" => Cow::from(&self.topic),
            key => Cow::from(format!("{}/{key}", self.topic)),
        }
    }

    /// The key whose value is in the flow's own topic.
    pub(crate) fn empty_key(&self) -> Option<&'static str> {
        self.is_latest.then_some("")
    }

    /// The broker refuses its subscription, or could not be asked for it.
    pub(crate) fn refused(&mut self) {
        self.subscription = Subscription::Refused;
        let topic = &self.topic;
        log::warn!(target: "wirewheel_mqtt", "the subscription to {topic:?} is refused");
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.subscription == Subscription::Refused
    }

    /// What is subscribed to. Below a topic means the topic too (MQTT 5 section 4.7.1.2).
    pub(crate) fn filter(&self) -> String {
        if self.is_latest { format!("{}/#", self.topic) } else { self.topic.clone() }
    }
}

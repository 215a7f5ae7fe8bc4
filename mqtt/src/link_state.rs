//! What a link keeps while it runs, and how messages of flows become packets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use wirewheel::flow::{Batch, Taken};
use wirewheel::message::Payload;
use wirewheel::{Message, SessionId};

use crate::flowsdk_codec::FlowSdk;
use crate::packet::{Codec, Outgoing, Publish};
use crate::running_link::Counts;
use crate::share::Share;
use crate::topic;
use crate::window::Window;

/// What changes. Invariant: no code of the application runs while it is borrowed.
pub(crate) struct State {
    pub(crate) shares: Vec<Share>,
    pub(crate) by_topic: BTreeMap<String, usize>,
    pub(crate) session: Option<SessionId>,
    pub(crate) is_up: bool,
    /// Since then what it had kept is awaited, or some of it has come since it was last asked.
    pub(crate) is_joining: bool,
    pub(crate) has_kept: bool,
    /// How many kept values it has brought on this connection.
    pub(crate) kept_values: usize,
    pub(crate) window: Window,
    pub(crate) at_least_once: bool,
    /// What is not acknowledged, with QoS 1, and as how many messages it counts: a removal is none.
    pub(crate) awaited: BTreeMap<u16, u64>,
    pub(crate) awaited_max: usize,
    next_id: u16,
    pub(crate) max_packet: usize,
    /// What is kept of publishers on other boxes, and of what is to be sent again, in all shares.
    pub(crate) share_bytes: usize,
    pub(crate) counts: Counts,
}

/// Packets that are to be sent, and what they are.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) out: Vec<u8>,
    /// How many of them are messages.
    pub(crate) messages: u64,
    /// What their acknowledgements are awaited by.
    pub(crate) ids: Vec<u16>,
    /// The keys of those that are newest values, by the names by which they are known.
    pub(crate) keys: Vec<u64>,
    /// There is no more for now.
    pub(crate) is_all: bool,
}

/// The most acknowledgements that are awaited at a time.
pub(crate) const AWAITED_MAX: u16 = 1024;
/// What is gathered before it is sent.
const PIECE_BYTES: usize = 32 << 10;
/// What a packet has beside topic and payload, at most.
const PACKET_OVERHEAD: usize = 128;

impl State {
    pub(crate) fn new(max_waiting: usize, at_least_once: bool) -> Self {
        Self {
            shares: Vec::new(),
            by_topic: BTreeMap::new(),
            session: None,
            is_up: false,
            is_joining: false,
            has_kept: false,
            kept_values: 0,
            window: Window::new(max_waiting),
            at_least_once,
            awaited: BTreeMap::new(),
            awaited_max: usize::from(AWAITED_MAX),
            next_id: 0,
            max_packet: usize::MAX,
            share_bytes: 0,
            counts: Counts::default(),
        }
    }

    /// The share of newest values below whose topic this one is, and the key.
    pub(crate) fn of_key<'t>(&self, topic: &'t str) -> Option<(usize, &'t str)> {
        // From the longest: of two that lie below each other the nearer one is meant.
        topic.rmatch_indices('/').find_map(|(slash, _)| {
            let place = *self.by_topic.get(topic.get(..slash)?)?;
            let key = topic.get(slash + 1..)?;
            self.shares.get(place).filter(|share| share.is_latest).map(|_| (place, key))
        })
    }
}

/// From a flow to packets.
impl State {
    /// While the broker is away: messages pass, and whoever gets the next one counts them; of newest values
    /// the newest wait.
    pub(crate) fn drop_all(&mut self, place: usize, batch: &mut Batch<'_>) -> Taken {
        let Some(share) = self.shares.get_mut(place).filter(|share| !share.is_latest) else {
            return Taken::Later;
        };
        for offered in batch {
            let count = offered.missed().saturating_add(1);
            share.own.pass(count);
            self.counts.dropped = self.counts.dropped.saturating_add(count);
        }
        Taken::Yes
    }

    /// Packets of messages, as many as make a piece and have room.
    pub(crate) fn gather(&mut self, place: usize, batch: &mut Batch<'_>) -> Gathered {
        let before = self.bytes_of(place);
        let mut gathered = Gathered::default();
        while gathered.out.len() < PIECE_BYTES {
            gathered.is_all = !self.has_room(&gathered);
            if gathered.is_all {
                break;
            }
            if let Some(key) = batch.next_removed() {
                self.remove(place, key, &mut gathered);
            } else if let Some(offered) = batch.next() {
                let (missed, message) = (offered.missed(), offered.message());
                self.add(place, offered.key(), missed, message, &mut gathered);
            } else {
                gathered.is_all = true;
                break;
            }
        }
        self.account(place, before);
        gathered
    }

    /// Whether the broker may be sent more.
    fn has_room(&self, gathered: &Gathered) -> bool {
        self.window.has_room(gathered.out.len())
            && !(self.at_least_once && self.awaited.len() >= self.awaited_max)
    }

    /// Whether that is to be sent as it is.
    pub(crate) fn is_full(&self, gathered: &Gathered) -> bool {
        gathered.out.len() >= PIECE_BYTES || !self.has_room(gathered)
    }

    /// The broker is to keep nothing of a key any longer. That goes as values do, which it must not overtake.
    pub(crate) fn remove(&mut self, place: usize, key: Rc<str>, gathered: &mut Gathered) {
        let id = self.at_least_once.then(|| self.new_id());
        let Some(share) = self.shares.get_mut(place) else { return };
        let topic = share.topic_of(&key).into_owned();
        share.others.disown(&key);
        share.again.cancel(&key);
        if topic::topic_fault(&topic).is_some() || topic.len() + PACKET_OVERHEAD > self.max_packet {
            return; // it was never shared
        }
        let own = share.own.take();
        let number = own.to_string();
        let (retain, is_text, number) = (true, false, Some(number.as_str()));
        let message = Publish { topic: &topic, id, retain, is_text, number, payload: &[] };
        let before = gathered.out.len();
        if !encode(&Outgoing::Publish(message), &mut gathered.out) {
            return gathered.out.truncate(before);
        }
        let end = self.window.sent() + gathered.out.len() as u64;
        share.others.note_sent(&key, own, self.counts.connections);
        share.again.note_removal(end, key);
        self.awaited.extend(id.map(|id| (id, 0)));
        gathered.ids.extend(id);
    }

    /// Adds the packet of a message before which so many were missed, unless it cannot be sent.
    pub(crate) fn add(
        &mut self,
        place: usize,
        key: Option<&str>,
        missed: u64,
        message: Message<'_>,
        gathered: &mut Gathered,
    ) {
        let id = self.at_least_once.then(|| self.new_id());
        let Some(share) = self.shares.get_mut(place) else { return };
        share.own.pass(missed);
        self.counts.dropped = self.counts.dropped.saturating_add(missed);
        let own = share.own.take();
        let number = own.to_string();
        let key = key.filter(|_| share.is_latest);
        let topic = &key.map_or_else(|| Cow::from(&share.topic), |key| share.topic_of(key));
        let (is_text, payload) = match message.payload() {
            Payload::Text(text) => (true, text.as_bytes()),
            Payload::Binary(bytes) => (false, bytes),
        };
        // An empty value would be taken for a removal.
        let is_empty_value = key.is_some() && payload.is_empty();
        let bytes = topic.len().saturating_add(payload.len()).saturating_add(PACKET_OVERHEAD);
        let out = &mut gathered.out;
        let before = out.len();
        let is_fit =
            topic::topic_fault(topic).is_none() && !is_empty_value && bytes <= self.max_packet;
        let retain = key.is_some();
        let message = Publish { topic, id, retain, is_text, number: Some(&number), payload };
        let is_added = is_fit && encode(&Outgoing::Publish(message), out);
        if let Some(key) = key {
            share.again.cancel(key);
            if is_added {
                gathered.keys.push(share.others.note_sent(key, own, self.counts.connections));
            } else {
                share.others.disown(key); // it would not be sent the next time either
            }
        }
        if !is_added {
            out.truncate(before);
            self.counts.dropped = self.counts.dropped.saturating_add(1);
            return;
        }
        self.awaited.extend(id.map(|id| (id, 1)));
        gathered.ids.extend(id);
        gathered.messages += 1;
        self.counts.sent += 1;
    }

    /// So many messages that were handed to the broker were not sent, or not taken. They have their numbers:
    /// whoever gets the next one counts them.
    pub(crate) fn count_dropped(&mut self, messages: u64) {
        self.counts.sent = self.counts.sent.saturating_sub(messages);
        self.counts.dropped = self.counts.dropped.saturating_add(messages);
    }

    pub(crate) fn new_id(&mut self) -> u16 {
        // MQTT 5 section 2.2.1: not 0, and none that is in use. There are fewer of those than numbers.
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.awaited.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    /// Changes a share, and counts what that made of what it keeps.
    pub(crate) fn change<R>(
        &mut self,
        place: usize,
        change: impl FnOnce(&mut Share) -> R,
    ) -> Option<R> {
        let before = self.bytes_of(place);
        let changed = self.shares.get_mut(place).map(change);
        self.account(place, before);
        changed
    }

    pub(crate) fn bytes_of(&self, place: usize) -> usize {
        self.shares.get(place).map_or(0, Share::bytes)
    }

    /// Counts what a share keeps, which kept so much before.
    pub(crate) fn account(&mut self, place: usize, before: usize) {
        self.share_bytes = self.share_bytes + self.bytes_of(place) - before;
    }

    pub(crate) fn share_of(&mut self, topic: &str) -> Option<&mut Share> {
        let place = *self.by_topic.get(topic)?;
        self.shares.get_mut(place)
    }
}

/// Adds a packet; false, and a line in the log, if it cannot be made.
pub(crate) fn encode(packet: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
    let encoded = FlowSdk.encode(packet, out);
    if let Err(fault) = &encoded {
        log::warn!(target: "wirewheel_mqtt", "a packet is not sent: {fault}");
    }
    encoded.is_ok()
}

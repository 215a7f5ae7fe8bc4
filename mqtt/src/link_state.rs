//! What a link keeps while it runs, and how messages of flows become packets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use wirewheel::SessionId;
use wirewheel::flow::{Batch, Offered, Taken};
use wirewheel::message::Payload;

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
    pub(crate) window: Window,
    /// What is not acknowledged, with QoS 1.
    pub(crate) awaited: BTreeSet<u16>,
    pub(crate) awaited_max: usize,
    next_id: u16,
    pub(crate) max_packet: usize,
    /// What is kept of publishers on other boxes, in all shares.
    pub(crate) publisher_bytes: usize,
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
    pub(crate) fn new(max_waiting: usize) -> Self {
        Self {
            shares: Vec::new(),
            by_topic: BTreeMap::new(),
            session: None,
            is_up: false,
            window: Window::new(max_waiting),
            awaited: BTreeSet::new(),
            awaited_max: usize::from(AWAITED_MAX),
            next_id: 0,
            max_packet: usize::MAX,
            publisher_bytes: 0,
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
    pub(crate) fn gather(
        &mut self,
        place: usize,
        batch: &mut Batch<'_>,
        at_least_once: bool,
    ) -> Gathered {
        let mut gathered = Gathered::default();
        while gathered.out.len() < PIECE_BYTES {
            gathered.is_all = !self.window.has_room(gathered.out.len())
                || (at_least_once && self.awaited.len() >= self.awaited_max);
            if gathered.is_all {
                break;
            }
            if let Some(key) = batch.next_removed() {
                self.remove(place, &key, &mut gathered.out);
            } else if let Some(offered) = batch.next() {
                self.add(place, &offered, at_least_once, &mut gathered);
            } else {
                gathered.is_all = true;
                break;
            }
        }
        gathered
    }

    /// They could not be sent after all. They have their numbers: whoever gets the next one counts them.
    pub(crate) fn drop_gathered(&mut self, messages: u64, ids: &[u16]) {
        self.counts.sent = self.counts.sent.saturating_sub(messages);
        self.counts.dropped = self.counts.dropped.saturating_add(messages);
        for id in ids {
            self.awaited.remove(id); // nobody would ever acknowledge them
        }
    }

    /// The broker is to keep nothing of a key any longer.
    fn remove(&mut self, place: usize, key: &str, out: &mut Vec<u8>) {
        let Some(share) = self.shares.get_mut(place) else { return };
        let topic = share.topic_of(key).into_owned();
        if topic::topic_fault(&topic).is_some() || topic.len() + PACKET_OVERHEAD > self.max_packet {
            return; // it was never shared
        }
        let number = share.own.take().to_string();
        let message = Publish {
            topic: &topic,
            id: None,
            retain: true,
            is_text: false,
            number: Some(&number),
            payload: &[],
        };
        encode(&Outgoing::Publish(message), out);
    }

    /// Adds the packet of a message, unless it cannot be sent.
    fn add(
        &mut self,
        place: usize,
        offered: &Offered,
        at_least_once: bool,
        gathered: &mut Gathered,
    ) {
        let id = at_least_once.then(|| self.new_id());
        let Some(share) = self.shares.get_mut(place) else { return };
        share.own.pass(offered.missed());
        self.counts.dropped = self.counts.dropped.saturating_add(offered.missed());
        let number = share.own.take().to_string();
        let key = offered.key().filter(|_| share.is_latest);
        let topic = &key.map_or_else(|| Cow::from(&share.topic), |key| share.topic_of(key));
        let (is_text, payload) = match offered.message().payload() {
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
        if !is_fit || !encode(&Outgoing::Publish(message), out) {
            out.truncate(before);
            self.counts.dropped = self.counts.dropped.saturating_add(1);
            return;
        }
        self.awaited.extend(id);
        gathered.ids.extend(id);
        gathered.messages += 1;
        self.counts.sent += 1;
    }

    pub(crate) fn new_id(&mut self) -> u16 {
        // MQTT 5 section 2.2.1: not 0, and none that is in use. There are fewer of those than numbers.
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.awaited.contains(&self.next_id) {
                return self.next_id;
            }
        }
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

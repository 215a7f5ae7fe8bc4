//! What is subscribed to, and what the broker says to that.

use crate::link_state::{State, encode};
use crate::packet::{Filter, Outgoing};
use crate::share::{Asked, Share, Subscription};
use crate::topic::LONGEST;

/// Many brokers take no more filters in a SUBSCRIBE.
const FILTERS_MAX: usize = 8;
/// What a SUBSCRIBE or UNSUBSCRIBE has at most beside its filters (MQTT 5 section 3.8): its first byte, its
/// length, its id and the length of no properties.
const OVERHEAD: usize = 1 + 4 + 2 + 1;
/// What a filter has beside its text: its length, and its options.
const FILTER_OVERHEAD: usize = 2 + 1;

impl State {
    /// Adds SUBSCRIBEs of the shares from that place on. Whether messages may go to and fro waits for their
    /// answers if they are the connection's first.
    pub(crate) fn subscribe(&mut self, mut from: usize, is_first: bool, out: &mut Vec<u8>) {
        while from < self.shares.len() {
            let (mut filters, mut bytes) = (Vec::<Filter>::new(), OVERHEAD);
            while let Some(share) = self.shares.get(from + filters.len()) {
                let filter = self.filter_of(share);
                bytes += filter.topic.len() + FILTER_OVERHEAD;
                let is_fit = bytes <= self.max_packet && filter.topic.len() <= LONGEST;
                if filters.len() == FILTERS_MAX || !is_fit {
                    break;
                }
                filters.push(filter);
            }
            let (id, of, before) = (self.new_id(), filters.len(), out.len());
            let is_sent = of > 0 && encode(&Outgoing::Subscribe { id, filters: &filters }, out);
            if !is_sent {
                out.truncate(before);
            }
            // One that has no room by itself is passed over.
            let behind = from + of.max(1);
            for (place, share) in self.shares.iter_mut().take(behind).skip(from).enumerate() {
                match is_sent {
                    true => {
                        let asked = Asked { id, place, of, is_first };
                        share.subscription = Subscription::Asked(asked);
                    }
                    false => share.refused(),
                }
            }
            from = behind;
        }
    }

    pub(crate) fn shares_latest(&self) -> bool {
        self.shares.iter().any(|share| share.is_latest)
    }

    fn filter_of(&self, share: &Share) -> Filter {
        Filter {
            topic: share.filter(),
            at_least_once: self.at_least_once,
            retained: share.is_latest,
        }
    }

    /// Adds an UNSUBSCRIBE of what was subscribed to.
    pub(crate) fn unsubscribe(&mut self, filter: &str, out: &mut Vec<u8>) {
        if filter.len() + FILTER_OVERHEAD + OVERHEAD <= self.max_packet {
            let id = self.new_id();
            encode(&Outgoing::Unsubscribe { id, filter }, out);
        }
    }

    /// The broker has answered a SUBSCRIBE. What it refuses is told of: the others go on without it.
    pub(crate) fn subscribed(&mut self, id: u16, granted: &[bool]) -> Result<(), String> {
        for share in &mut self.shares {
            // Others are not shared any more.
            let Subscription::Asked(asked) = share.subscription else { continue };
            if asked.id != id {
                continue;
            }
            match granted.get(asked.place).filter(|_| granted.len() == asked.of) {
                Some(true) => share.subscription = Subscription::Granted,
                Some(false) => share.refused(),
                // MQTT 5 section 3.9.3
                None => return Err("it answers to more or fewer filters than it was asked".into()),
            }
        }
        Ok(())
    }

    /// Whether the connection's first SUBSCRIBEs are answered; an error if the broker refuses all that the
    /// link was made for. What was shared later may be a peer's idea, which is not to cut the others off.
    pub(crate) fn is_subscribed(&self) -> Result<bool, String> {
        let mut is_refused = false;
        for share in &self.shares {
            match share.subscription {
                Subscription::Asked(asked) if asked.is_first => return Ok(false),
                Subscription::Refused => is_refused |= share.is_from_start,
                _ => {}
            }
        }
        let is_taken = |share: &Share| share.is_from_start && !share.is_refused();
        if is_refused && !self.shares.iter().any(is_taken) {
            return Err("it refuses every subscription: look at its access list".into());
        }
        Ok(true)
    }
}

//! The flows that several loops share: one log on each, and a bridge between them. `A` is what is run on a
//! loop.
//!
//! What is published on a loop is taken from its log by a reader and sent to the other loops, which publish
//! it as that reader's counterpart, so that it is not sent on. A loop has so much on its way to another and
//! no more: the rest waits in the log, where the flow's policy is for it as for any slow subscriber.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::flow::emission::Origin;
use crate::flow::inner::FlowInner;
use crate::flow::reader::{Batch, Taken};
use crate::structures::ids::ReaderId;
use crate::words::error::SendError;

use crate::context::loops::Place;
use crate::context::parcels::{Bridged, Content, Load};

/// Messages of a flow that may be on their way from one loop to another.
const MESSAGES_MAX: usize = 256;

/// The bridges of one loop.
#[derive(Default)]
pub(crate) struct Bridges {
    by_name: HashMap<Arc<str>, Rc<dyn BridgeEnd>>,
    /// Those of all flows that are shared, also where there is nobody to share them with.
    names: HashSet<Box<str>>,
    /// Some wait for a flow that has no room.
    pub(crate) some_wait: bool,
}

/// What the loop asks of a bridge. Behind a trait, so that a program whose loops share no flow has no code
/// for it.
pub(crate) trait BridgeEnd {
    /// Another loop has sent this.
    fn receive(&self, from: usize, published: Arc<[Bridged]>);

    /// Publishes what waits and has room, and tells those who sent it: whether something is left to be
    /// done once the flow has moved. Its own reader stands at `cursor`.
    fn publish(&self, cursor: u64) -> bool;

    /// Another loop has published so much: how many bytes are not on their way any more.
    fn done(&self, from: usize, load: Load) -> usize;

    /// Who reads the flow for the other loops.
    fn reader(&self) -> Option<ReaderId>;
}

/// One loop's end of a flow that all loops have.
pub(crate) struct Bridge<A> {
    name: Arc<str>,
    flow: Rc<FlowInner>,
    place: Place<A>,
    reader: Cell<Option<ReaderId>>,
    state: RefCell<BridgeState>,
}

#[derive(Default)]
struct BridgeState {
    /// What each other loop has not said that it has published, by its number.
    on_the_way: Vec<Load>,
    /// What others have sent and has no place here yet: from whom, and which is next.
    waiting: VecDeque<(usize, Arc<[Bridged]>, usize)>,
    /// What was published here and whose senders are not told yet, by their numbers.
    unanswered: Vec<Load>,
}

impl fmt::Debug for Bridges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bridges", self.by_name.len())
    }
}

impl Bridges {
    /// Takes a name for a flow; false if it is taken.
    pub(crate) fn claim(&mut self, name: &str) -> bool {
        self.names.insert(name.into())
    }

    /// Adds the bridge of a flow whose name is claimed.
    pub(crate) fn add<A: 'static>(
        &mut self,
        name: &str,
        flow: &Rc<FlowInner>,
        place: &Place<A>,
    ) -> Rc<Bridge<A>> {
        let name: Arc<str> = name.into();
        flow.count_everywhere(place.subscriptions_of(&name), place.count());
        let loads = vec![Load::default(); place.count()];
        let state =
            BridgeState { on_the_way: loads.clone(), unanswered: loads, ..Default::default() };
        let bridge = Rc::new(Bridge {
            name: Arc::clone(&name),
            flow: Rc::clone(flow),
            place: place.clone(),
            reader: Cell::new(None),
            state: RefCell::new(state),
        });
        self.by_name.insert(name, Rc::<Bridge<A>>::clone(&bridge));
        bridge
    }

    pub(crate) fn get(&self, name: &str) -> Option<Rc<dyn BridgeEnd>> {
        self.by_name.get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Rc<dyn BridgeEnd>> {
        self.by_name.values().cloned().collect()
    }
}

/// Sending.
impl<A> Bridge<A> {
    pub(crate) fn read_by(&self, reader: ReaderId) {
        self.reader.set(Some(reader));
    }

    fn origin(&self) -> Origin {
        self.reader.get().map_or(Origin::Application, Origin::Reader)
    }

    /// Takes what the other loops have room for: how much that is, for the account of this one.
    pub(crate) fn read(&self, batch: &mut Batch<'_>) -> (Taken, usize) {
        let mut sent = Vec::new();
        let mut room = self.room();
        // They count, but are not held up: a key that is removed and set again must come in this order.
        while let Some(key) = batch.next_removed() {
            sent.push(Bridged::Removed((*key).into()));
        }
        let mut taken = Taken::Yes;
        for offered in batch.by_ref() {
            let bytes = offered.message().bytes().len();
            if !room.take(bytes) {
                taken = Taken::Later;
                break;
            }
            sent.push(Bridged::Message {
                message: offered.message().into(),
                key: offered.key().map(Into::into),
                missed: offered.missed(),
            });
        }
        if taken == Taken::Yes {
            let missed = batch.take_missed();
            sent.extend((missed > 0).then_some(Bridged::Missed(missed)));
        }
        (taken, self.send(sent))
    }

    /// The room of the loop that has least.
    fn room(&self) -> Room {
        let state = self.state.borrow();
        let others = self.place.other_numbers().filter(|number| self.place.is_there(*number));
        let on_the_way = others.filter_map(|number| state.on_the_way.get(number));
        let messages = on_the_way.clone().map(|load| load.messages).max().unwrap_or(0);
        let bytes = on_the_way.map(|load| load.bytes).max().unwrap_or(0);
        Room {
            messages: MESSAGES_MAX.saturating_sub(messages),
            bytes: self.flow.options().max_bytes.saturating_sub(bytes),
            is_empty: messages == 0,
        }
    }

    fn send(&self, sent: Vec<Bridged>) -> usize {
        if sent.is_empty() {
            return 0;
        }
        let mut load = Load::default();
        sent.iter().for_each(|bridged| load.add(bridged.load()));
        let published: Arc<[Bridged]> = sent.into();
        let mut bytes = 0_usize;
        for number in self.place.other_numbers() {
            let content = Content::Published(Arc::clone(&published));
            // One that is over publishes nothing any more.
            if self.place.send(number, &self.name, content) {
                if let Some(way) = self.state.borrow_mut().on_the_way.get_mut(number) {
                    way.add(load);
                }
                bytes = bytes.saturating_add(load.bytes);
            }
        }
        bytes
    }
}

/// What may be sent.
struct Room {
    messages: usize,
    bytes: usize,
    /// Nothing is on its way: one message may be as large as it likes.
    is_empty: bool,
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.messages > 0 && (bytes <= self.bytes || self.is_empty);
        if fits {
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_empty = false;
        }
        fits
    }
}

impl<A> BridgeEnd for Bridge<A> {
    fn receive(&self, from: usize, published: Arc<[Bridged]>) {
        self.state.borrow_mut().waiting.push_back((from, published, 0));
    }

    fn publish(&self, cursor: u64) -> bool {
        while self.publish_one() {}
        // The publishers of other loops wait with those of this one; but not for what waits here for their
        // loop, or two loops might wait for each other.
        if !self.flow.would_suspend_besides(cursor) {
            self.answer();
        }
        let state = self.state.borrow();
        !state.waiting.is_empty() || state.unanswered.iter().any(|load| !load.is_empty())
    }

    fn done(&self, from: usize, load: Load) -> usize {
        if let Some(way) = self.state.borrow_mut().on_the_way.get_mut(from) {
            way.take_off(load);
        }
        load.bytes
    }

    fn reader(&self) -> Option<ReaderId> {
        self.reader.get()
    }
}

/// Receiving.
impl<A> Bridge<A> {
    /// False if there is nothing, or no room.
    fn publish_one(&self) -> bool {
        let Some((from, published, at)) = self.state.borrow().waiting.front().cloned() else {
            return false;
        };
        // No borrow is held while the flow is called.
        let Some(bridged) = published.get(at) else {
            self.state.borrow_mut().waiting.pop_front();
            return true;
        };
        if !self.apply(bridged) {
            return false;
        }
        let mut state = self.state.borrow_mut();
        if let Some((.., next)) = state.waiting.front_mut() {
            *next = next.saturating_add(1);
        }
        if let Some(unanswered) = state.unanswered.get_mut(from) {
            unanswered.add(bridged.load());
        }
        true
    }

    fn apply(&self, bridged: &Bridged) -> bool {
        match bridged {
            Bridged::Message { message, key, missed } => {
                let emitted = self.flow.emit(&message.as_message(), key.as_deref(), self.origin());
                let lost = match emitted {
                    Err(SendError::Full { .. }) if self.flow.is_awaited() => return false,
                    Err(_) => 1,
                    Ok(_) => 0,
                };
                let missing = missed.saturating_add(lost);
                if missing > 0 {
                    self.flow.skip(missing, self.origin());
                }
            }
            Bridged::Missed(missed) => self.flow.skip(*missed, self.origin()),
            Bridged::Removed(key) => _ = self.flow.remove(key, self.origin()),
        }
        true
    }

    fn answer(&self) {
        for number in self.place.other_numbers() {
            let mut state = self.state.borrow_mut();
            let Some(unanswered) = state.unanswered.get_mut(number) else { continue };
            let done = std::mem::take(unanswered);
            drop(state);
            if !done.is_empty() {
                self.place.send(number, &self.name, Content::Done(done));
            }
        }
    }
}

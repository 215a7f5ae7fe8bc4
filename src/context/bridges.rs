//! The flows that several loops share: one log on each, and a bridge between them. `A` is what is run on a
//! loop.
//!
//! What is published on a loop is taken from its log by a reader and sent to the other loops, which publish
//! it as that reader's counterpart, so that it is not sent on. A loop has so much on its way to another and
//! no more: the rest waits in the log, where the flow's policy is for it as for any slow subscriber.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::flow::emission::Origin;
use crate::flow::inner::FlowInner;
use crate::flow::options::BufferOverflow;
use crate::flow::reader::{Batch, Taken};
use crate::structures::ids::ReaderId;
use crate::words::error::SendError;

use crate::context::loops::Place;
use crate::context::parcels::{Bridged, Content, Load};

/// Messages of a flow that may be on their way from one loop to another.
const MESSAGES_MAX: usize = 256;

/// The flows of one loop that all loops have.
#[derive(Default)]
pub(crate) struct Bridges {
    /// In order, so that what a loop sends of several flows is the same each time a test runs.
    by_name: BTreeMap<Arc<str>, Entry>,
    /// How many bridges there were.
    count: u64,
    /// Of those that wait for a flow that has no room.
    waiting: Vec<Arc<str>>,
}

struct Entry {
    flow: Rc<FlowInner>,
    /// `None` where there is but one loop.
    bridge: Option<Rc<dyn BridgeEnd>>,
    /// The application of this loop has asked for it.
    is_held: bool,
    /// Which one of its name it is; 0 where there is but one loop.
    number: u64,
    /// It is listed as one that waits.
    waits: bool,
}

/// What the loop asks of a bridge. Behind a trait, so that a program whose loops share no flow has no code
/// for it.
pub(crate) trait BridgeEnd {
    /// Another loop's bridge of that number has sent this.
    fn receive(&self, from: usize, bridge: u64, published: Arc<[Bridged]>);

    /// Publishes what waits and has room, and tells those who sent it: whether something is left to be
    /// done once the flow has moved. Its own reader stands at `cursor`.
    fn publish(&self, cursor: u64) -> bool;

    /// Another loop has published so much of what the bridge of that number has sent: how many bytes are not
    /// on their way any more.
    fn done(&self, from: usize, number: u64, load: Load) -> usize;

    /// Who reads the flow for the other loops.
    fn reader(&self) -> Option<ReaderId>;

    /// Tells all who have sent something that it is done: how many bytes are on their way no more, as far
    /// as this loop counts them.
    fn close(&self) -> usize;

    /// What is on its way to each other loop, by number.
    #[cfg(all(repository, any(test, fuzzing)))]
    fn on_the_way(&self) -> Vec<Load>;

    /// What another loop has sent and was not told of: waiting, or published here.
    #[cfg(all(repository, test))]
    fn unanswered_of(&self, number: usize) -> Load;
}

/// One loop's end of a flow that all loops have.
pub(crate) struct Bridge<A> {
    name: Arc<str>,
    /// Tells it from others of its name that this loop had before.
    number: u64,
    flow: Rc<FlowInner>,
    place: Place<A>,
    reader: Cell<Option<ReaderId>>,
    state: RefCell<BridgeState>,
}

struct BridgeState {
    /// What each other loop has not said that it has published, by its number.
    on_the_way: Vec<Load>,
    /// What others have sent and has no place here yet.
    waiting: VecDeque<Waiting>,
    /// What was published here and whose senders are not told yet, by their numbers, and by those of their
    /// bridges.
    unanswered: Vec<(u64, Load)>,
}

/// Something that another loop has sent.
#[derive(Clone)]
struct Waiting {
    from: usize,
    bridge: u64,
    published: Arc<[Bridged]>,
    /// Which of it is next.
    next: usize,
}

impl fmt::Debug for Bridges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bridges", self.by_name.len())
    }
}

impl Bridges {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a flow whose name is not taken: its bridge, where there are other loops.
    pub(crate) fn add<A: 'static>(
        &mut self,
        name: &Arc<str>,
        number: u64,
        flow: &Rc<FlowInner>,
        place: Option<&Place<A>>,
    ) -> Option<Rc<Bridge<A>>> {
        self.count = self.count.wrapping_add(1);
        let bridge = place.map(|place| Rc::new(Bridge::new(name, self.count, flow, place)));
        let end = bridge.clone().map(|bridge| -> Rc<dyn BridgeEnd> { bridge });
        let (flow, is_held, waits) = (Rc::clone(flow), false, false);
        let entry = Entry { flow, bridge: end, is_held, number, waits };
        self.by_name.insert(Arc::clone(name), entry);
        bridge
    }

    /// The flow of that name.
    pub(crate) fn flow(&self, name: &str) -> Option<Rc<FlowInner>> {
        self.by_name.get(name).map(|entry| Rc::clone(&entry.flow))
    }

    /// The same, if the application has it.
    pub(crate) fn held(&self, name: &str) -> Option<Rc<FlowInner>> {
        let entry = self.by_name.get(name).filter(|entry| entry.is_held)?;
        Some(Rc::clone(&entry.flow))
    }

    /// The application has that flow from now on, if it is there.
    pub(crate) fn hold(&mut self, name: &str) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.is_held = true;
        }
    }

    /// The application needs it no more: whether it had it.
    pub(crate) fn let_go(&mut self, name: &str) -> bool {
        let entry = self.by_name.get_mut(name);
        entry.is_some_and(|entry| std::mem::take(&mut entry.is_held))
    }

    /// Drops a flow up to that number, unless the application has it: its bridge.
    pub(crate) fn forget(&mut self, name: &str, up_to: u64) -> Option<Rc<dyn BridgeEnd>> {
        let entry = self.by_name.get(name)?;
        if entry.is_held || entry.number > up_to {
            return None;
        }
        self.by_name.remove(name)?.bridge
    }

    pub(crate) fn get(&self, name: &str) -> Option<Rc<dyn BridgeEnd>> {
        self.by_name.get(name)?.bridge.clone()
    }

    /// That one waits for its flow to move.
    pub(crate) fn list_waiting(&mut self, name: &Arc<str>) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        if !std::mem::replace(&mut entry.waits, true) {
            self.waiting.push(Arc::clone(name));
        }
    }

    pub(crate) fn some_wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those that wait, which are listed no more.
    pub(crate) fn take_waiting(&mut self) -> Vec<Arc<str>> {
        let waiting = std::mem::take(&mut self.waiting);
        for name in &waiting {
            if let Some(entry) = self.by_name.get_mut(name) {
                entry.waits = false;
            }
        }
        waiting
    }

    /// What their flows hold of what other loops have accepted, and there was no room for.
    pub(crate) fn beyond_limits(&self) -> usize {
        self.by_name.values().map(|entry| entry.flow.beyond_limits()).sum()
    }
}

/// The beginning.
impl<A> Bridge<A> {
    fn new(name: &Arc<str>, number: u64, flow: &Rc<FlowInner>, place: &Place<A>) -> Self {
        flow.count_everywhere(place.subscriptions_of(name), place.count());
        let state = BridgeState {
            on_the_way: vec![Load::default(); place.count()],
            unanswered: vec![(0, Load::default()); place.count()],
            waiting: VecDeque::new(),
        };
        Self {
            name: Arc::clone(name),
            number,
            flow: Rc::clone(flow),
            place: place.clone(),
            reader: Cell::new(None),
            state: RefCell::new(state),
        }
    }
}

/// Sending.
impl<A> Bridge<A> {
    pub(crate) fn read_by(&self, reader: ReaderId) {
        self.flow.bridge_by(reader);
        self.reader.set(Some(reader));
    }

    fn origin(&self) -> Origin {
        self.reader.get().map_or(Origin::Application, Origin::Reader)
    }

    /// Takes what the other loops have room for, and this one memory: how much that is, for its account.
    pub(crate) fn read(&self, batch: &mut Batch<'_>, memory: usize) -> (Taken, usize) {
        let mut sent = Vec::new();
        let mut room = self.room();
        // It is kept for each of them until it is published there.
        let others = self.place.count().saturating_sub(1);
        room.bytes = room.bytes.min(memory.checked_div(others).unwrap_or(0));
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
            let content = Content::Published(self.number, Arc::clone(&published));
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
    fn receive(&self, from: usize, bridge: u64, published: Arc<[Bridged]>) {
        self.state.borrow_mut().waiting.push_back(Waiting { from, bridge, published, next: 0 });
    }

    fn publish(&self, cursor: u64) -> bool {
        self.flow.let_others_wait(false);
        while self.publish_one(cursor) {}
        // Else what is new would take the room of what was accepted elsewhere long ago, again and again.
        self.flow.let_others_wait(self.suspends() && !self.state.borrow().waiting.is_empty());
        // The publishers of other loops wait with those of this one; but not for what waits here for their
        // loop, or two loops might wait for each other.
        if !self.flow.would_suspend_besides(cursor) {
            self.answer();
        }
        let state = self.state.borrow();
        !state.waiting.is_empty() || state.unanswered.iter().any(|(_, load)| !load.is_empty())
    }

    fn done(&self, from: usize, number: u64, load: Load) -> usize {
        if number != self.number {
            return 0; // of one that was closed, and its account with it
        }
        if let Some(way) = self.state.borrow_mut().on_the_way.get_mut(from) {
            way.take_off(load);
        }
        load.bytes
    }

    fn reader(&self) -> Option<ReaderId> {
        self.reader.get()
    }

    fn close(&self) -> usize {
        self.flow.count_no_bridge();
        self.flow.let_others_wait(false);
        let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
        for Waiting { from, bridge, published, next } in waiting {
            let left = published.get(next..).unwrap_or_default();
            left.iter().for_each(|bridged| self.note_unanswered(from, bridge, bridged.load()));
        }
        self.answer();
        self.state.borrow().on_the_way.iter().map(|load| load.bytes).sum()
    }

    #[cfg(all(repository, any(test, fuzzing)))]
    fn on_the_way(&self) -> Vec<Load> {
        self.state.borrow().on_the_way.clone()
    }

    #[cfg(all(repository, test))]
    fn unanswered_of(&self, number: usize) -> Load {
        let state = self.state.borrow();
        let mut load = state.unanswered.get(number).map_or_else(Load::default, |(_, load)| *load);
        for Waiting { from, published, next, .. } in &state.waiting {
            let left = published.get(*next..).filter(|_| *from == number).unwrap_or_default();
            left.iter().for_each(|bridged| load.add(bridged.load()));
        }
        load
    }
}

/// Receiving.
impl<A> Bridge<A> {
    /// Whether nothing may be lost.
    fn suspends(&self) -> bool {
        self.flow.options().on_buffer_overflow == BufferOverflow::Suspend
    }

    /// False if there is nothing, or no room.
    fn publish_one(&self, cursor: u64) -> bool {
        let front = self.state.borrow().waiting.front().cloned();
        let Some(Waiting { from, bridge, published, next }) = front else { return false };
        // No borrow is held while the flow is called.
        let Some(bridged) = published.get(next) else {
            self.state.borrow_mut().waiting.pop_front();
            return true;
        };
        if !self.apply(bridged, cursor) {
            return false;
        }
        if let Some(waiting) = self.state.borrow_mut().waiting.front_mut() {
            waiting.next = next.saturating_add(1);
        }
        self.note_unanswered(from, bridge, bridged.load());
        true
    }

    fn note_unanswered(&self, from: usize, bridge: u64, load: Load) {
        let mut state = self.state.borrow_mut();
        let Some((known, unanswered)) = state.unanswered.get_mut(from) else { return };
        if *known != bridge {
            // What its loop had before was closed, and waits for no answer.
            (*known, *unanswered) = (bridge, Load::default());
        }
        unanswered.add(load);
    }

    fn apply(&self, bridged: &Bridged, cursor: u64) -> bool {
        match bridged {
            Bridged::Message { message, key, missed } => {
                let message = message.as_message();
                let emitted = self.flow.emit(&message, key.as_deref(), self.origin());
                let lost = match emitted {
                    Ok(_) => 0,
                    // It waits for those who collect, and not for what waits here for other loops, which may
                    // wait for this one in turn.
                    Err(SendError::Full { .. }) if self.flow.is_awaited_besides(cursor) => {
                        return false;
                    }
                    Err(SendError::Full { .. }) if self.suspends() => {
                        self.flow.emit_beyond_limits(message, self.origin());
                        0
                    }
                    Err(_) => 1,
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
            let Some((bridge, unanswered)) = state.unanswered.get_mut(number) else { continue };
            let done = Content::Done(*bridge, std::mem::take(unanswered));
            drop(state);
            if !matches!(done, Content::Done(_, load) if load.is_empty()) {
                self.place.send(number, &self.name, done);
            }
        }
    }
}

/// For tests that ask after every step.
#[cfg(all(repository, any(test, fuzzing)))]
impl Bridges {
    /// The memory that counts for what is on its way to other loops.
    pub(crate) fn bytes_on_the_way(&self) -> usize {
        let ends = self.by_name.values().filter_map(|entry| entry.bridge.as_ref());
        ends.flat_map(|bridge| bridge.on_the_way()).map(|load| load.bytes).sum()
    }

    /// A flow and its bridge.
    #[cfg(test)]
    pub(crate) fn find(&self, name: &str) -> Option<(Rc<FlowInner>, Rc<dyn BridgeEnd>)> {
        let entry = self.by_name.get(name)?;
        Some((Rc::clone(&entry.flow), entry.bridge.clone()?))
    }
}

#[cfg(all(repository, test))]
mod tests;

//! Owns a flow behind its handles: the log of encoded messages, who collects, who waits.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use crate::structures::flow_log::FlowLog;
use crate::structures::roster::Roster;
use crate::structures::slab::Key;
use crate::words::error::SendError;
use crate::words::message::{Message, ToMessage};

use super::emission::Emission;
use super::flow::{BufferOverflow, FlowOptions};
use super::flow_hub::{FlowHub, GaveWay, Rank};
use super::session::SessionId;

/// A table of keys that was this large gives its places back.
const SPARE_KEYS: usize = 64;

/// A flow. Invariant: no user code runs while `state` is borrowed.
#[derive(Debug)]
pub(crate) struct FlowCell {
    options: FlowOptions,
    state: RefCell<FlowState>,
    /// Where it stands in the hub's list of flows that hold something.
    rank: Cell<Option<Rank>>,
    /// The number by which other threads know it, if they do.
    pub(super) name: Cell<u32>,
}

#[derive(Debug)]
struct FlowState {
    log: FlowLog<Emission>,
    /// Where the newest message of each key stands.
    keys: HashMap<Rc<str>, u64>,
    /// Entries of which encodings are kept, in the order in which the first was made; also some that
    /// are gone.
    encoded: VecDeque<u64>,
    /// The sessions that collect.
    subscribers: Roster,
    /// Publishers that are not read until the slowest subscriber has caught up.
    suspended: Vec<Key>,
    /// The server whose sessions collect it; none until the first does, or publishes.
    hub: Option<Rc<FlowHub>>,
    /// When something was last published, in the order of the hub.
    used: u64,
    /// It stands in the hub's list of those that are to be looked at.
    listed: bool,
    /// What is new is being offered to the subscribers, which may take several turns.
    offering: bool,
    /// It was to be looked at meanwhile.
    touched: bool,
    dropped: u64,
}

/// A flow as a thread-safe key names it.
pub(crate) type WeakFlow = Weak<FlowCell>;

/// Where a session that begins to collect stands.
pub(super) struct Joined {
    pub(super) cursor: u64,
    pub(super) place: u32,
    /// If there are gaps in what is replayed: how many messages that is, and the number of the first
    /// one behind it.
    pub(super) gappy_replay: (u32, u64),
}

/// Publishing.
impl FlowCell {
    pub(crate) fn new(options: FlowOptions) -> Self {
        let log = match options.on_buffer_overflow {
            BufferOverflow::Latest => FlowLog::sparse(options.replayed()),
            _ => FlowLog::new(options.replayed()),
        };
        let state = FlowState {
            log,
            keys: HashMap::new(),
            encoded: VecDeque::new(),
            subscribers: Roster::default(),
            suspended: Vec::new(),
            hub: None,
            used: 0,
            listed: false,
            offering: false,
            touched: false,
            dropped: 0,
        };
        let (rank, name) = (Cell::default(), Cell::default());
        Self { options, state: RefCell::new(state), rank, name }
    }

    pub(super) fn options(&self) -> &FlowOptions {
        &self.options
    }

    /// Adds a message to the log; true if its publisher is to wait.
    pub(super) fn emit<T: ToMessage + ?Sized>(
        self: &Rc<Self>,
        value: &T,
        key: Option<&str>,
        publisher: Option<SessionId>,
    ) -> Result<bool, SendError> {
        let key = key.filter(|_| self.keeps_newest());
        let mut emission = None;
        value.to_message(&mut |message| {
            emission.get_or_insert_with(|| Emission::new(message, key, publisher));
        });
        match emission {
            Some(emission) => self.push(emission),
            None => Ok(false), // the value had nothing to say
        }
    }

    /// The same for a message that is there already, and whose publisher is not told what became of
    /// it: without room it counts as dropped.
    pub(crate) fn push_message(self: &Rc<Self>, message: Message<'_>) {
        if self.push(Emission::new(message, None, None)).is_err() {
            self.state.borrow_mut().dropped += 1;
        }
    }

    fn push(self: &Rc<Self>, emission: Emission) -> Result<bool, SendError> {
        let bytes = emission.bytes() + self.entry_bytes();
        if bytes > self.options.max_bytes {
            let payload = emission.payload().len();
            let limit = self.options.max_bytes.saturating_sub(bytes - payload);
            return Err(SendError::TooBig { bytes: payload, limit });
        }
        let overrun = self.change(|state| state.push(emission, bytes, &self.options))?;
        self.list();
        self.touch();
        Ok(overrun)
    }

    /// What a message takes beside what it refers to.
    fn entry_bytes(&self) -> usize {
        if self.keeps_newest() {
            FlowLog::<Emission>::SPARSE_ENTRY_BYTES
        } else {
            FlowLog::<Emission>::ROW_ENTRY_BYTES
        }
    }

    fn keeps_newest(&self) -> bool {
        self.options.on_buffer_overflow == BufferOverflow::Latest
    }

    /// Whether a publisher would have to wait before its next message.
    pub(super) fn would_suspend(&self) -> bool {
        self.options.on_buffer_overflow == BufferOverflow::Suspend
            && self.state.borrow().log.pending() > self.options.capacity()
    }

    /// Remembers a publisher that is not read from now on.
    pub(super) fn suspend(&self, publisher: Key) {
        self.state.borrow_mut().suspended.push(publisher);
    }

    /// Changes the state, and tells the hub what that made of the log's size.
    fn change<R>(&self, change: impl FnOnce(&mut FlowState) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let before = state.log.bytes();
        let result = change(&mut state);
        let after = state.log.bytes();
        if let Some(hub) = state.hub.as_deref() {
            hub.account(before, after);
        }
        result
    }

    /// Has the hub look at this flow after the turn, or once what is being offered has been.
    fn touch(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.offering {
            state.touched = true;
        } else if let Some(hub) = state.hub.clone().filter(|_| !state.listed) {
            state.listed = true;
            hub.touch(self);
        }
    }

    /// The hub's list was taken.
    pub(super) fn unlist(&self) {
        self.state.borrow_mut().listed = false;
    }

    /// A flow belongs to the server whose sessions collect it, or publish in it first; once none
    /// collects it, another's may.
    pub(super) fn belong_to(self: &Rc<Self>, hub: &Rc<FlowHub>) {
        let mut state = self.state.borrow_mut();
        match &state.hub {
            Some(known) if Rc::ptr_eq(known, hub) => return,
            Some(_) if state.log.subscribers() > 0 => return,
            _ => {}
        }
        let bytes = state.log.bytes();
        if let Some(known) = state.hub.replace(Rc::clone(hub)) {
            known.account(bytes, 0);
            self.rank.take().into_iter().for_each(|rank| known.unlist(rank));
        }
        hub.account(0, bytes);
        (state.listed, state.offering, state.used) = (false, false, 0);
        drop(state);
        self.list();
    }
}

impl FlowState {
    fn push(
        &mut self,
        mut emission: Emission,
        bytes: usize,
        options: &FlowOptions,
    ) -> Result<bool, SendError> {
        if self.is_full_for_latest(options) || !self.make_room(bytes, &emission, options)? {
            self.dropped += 1;
            return Ok(false);
        }
        emission.stamp = self.hub.as_ref().map_or(0, |hub| hub.next_stamp());
        self.used = emission.stamp;
        let key = emission.key.clone();
        let number = self.log.push(emission, bytes);
        if let Some(key) = key {
            self.keys.insert(key, number);
        }
        Ok(options.on_buffer_overflow == BufferOverflow::Suspend
            && self.log.pending() > options.capacity())
    }

    fn is_full_for_latest(&self, options: &FlowOptions) -> bool {
        options.on_buffer_overflow == BufferOverflow::DropLatest
            && self.log.lagging() >= options.capacity()
    }

    /// How many bytes the log may come to so that `bytes` can be added: what is left to it once all
    /// gave way that can.
    fn limit(&mut self, bytes: usize, options: &FlowOptions) -> usize {
        let Some(hub) = self.hub.clone() else { return options.max_bytes };
        let before = self.log.bytes();
        let wanted = |log: &FlowLog<Emission>| bytes.saturating_sub(before - log.bytes());
        while hub.room() < wanted(&self.log) && self.drop_encodings() {}
        hub.make_room(wanted(&self.log));
        before.saturating_add(hub.room()).min(options.max_bytes)
    }

    /// Holds the log and the logs of all flows to their limits; false if the newest message is the
    /// one that has to go. An error changes nothing.
    fn make_room(
        &mut self,
        bytes: usize,
        emission: &Emission,
        options: &FlowOptions,
    ) -> Result<bool, SendError> {
        let limit = self.limit(bytes, options);
        let newest_goes = options.on_buffer_overflow == BufferOverflow::DropLatest;
        if bytes > limit {
            return if newest_goes { Ok(false) } else { self.full() };
        }
        if let Some(older) = emission.key.as_ref().and_then(|key| self.keys.remove(key)) {
            self.dropped += u64::from(self.log.is_awaited(older));
            self.log.remove(older);
        }
        while self.log.bytes().saturating_add(bytes) > limit {
            if self.drop_encodings() {
                continue;
            }
            let lost = self.log.oldest_is_awaited();
            match options.on_buffer_overflow {
                BufferOverflow::Suspend if lost => return self.full(),
                BufferOverflow::DropLatest if lost => return Ok(false),
                _ => self.drop_oldest(),
            }
        }
        if options.on_buffer_overflow == BufferOverflow::Latest {
            while self.log.len() >= options.capacity() {
                self.drop_oldest();
            }
        }
        Ok(true)
    }

    /// The oldest message gives way; it counts if somebody awaited it.
    fn drop_oldest(&mut self) {
        self.dropped += u64::from(self.log.oldest_is_awaited());
        if let Some(key) = self.log.drop_oldest().and_then(|dropped| dropped.key) {
            self.keys.remove(&key);
            if self.keys.capacity() > SPARE_KEYS && self.keys.len() < self.keys.capacity() / 4 {
                self.keys.shrink_to(self.keys.len() * 2);
            }
        }
    }

    fn full<R>(&self) -> Result<R, SendError> {
        Err(SendError::Full { buffered: self.log.bytes() })
    }
}

/// Encodings. They are kept as long as nothing else needs the room, since they can be made again.
impl FlowCell {
    /// Keeps an encoding of the message of that number for others of the same share key.
    pub(super) fn keep_encoding(&self, number: u64, key: u64, frames: &Rc<[u8]>) {
        self.change(|state| {
            let bytes = Emission::encoding_bytes(frames);
            if !state.make_room_for_encoding(number, bytes, &self.options) {
                return;
            }
            let mut first = false;
            state.log.change(number, |emission, held| {
                first = emission.keep_encoding(key, frames);
                held + bytes
            });
            if first {
                state.note_encoded(number);
            }
        });
    }
}

impl FlowState {
    /// The newest message is taken by all at this moment, and the replay gives way to its encodings:
    /// each session would have to make one of its own.
    fn make_room_for_encoding(&mut self, number: u64, bytes: usize, options: &FlowOptions) -> bool {
        let Some((found, emission)) = self.log.at(number) else { return false };
        let is_newest = number + 1 == self.log.next_number();
        if found != number || emission.bytes().saturating_add(bytes) > options.max_bytes {
            return false;
        }
        let limit = self.limit(bytes, options);
        while self.log.bytes().saturating_add(bytes) > limit {
            let replay_goes = is_newest && !self.log.oldest_is_awaited() && self.log.len() > 1;
            if !self.drop_encodings() {
                if !replay_goes {
                    return false;
                }
                self.drop_oldest();
            }
        }
        true
    }

    fn note_encoded(&mut self, number: u64) {
        if self.encoded.len() > 2 * self.log.len() {
            let log = &self.log;
            self.encoded.retain(|&known| log.at(known).is_some_and(|(found, _)| found == known));
        }
        self.encoded.push_back(number);
    }

    /// Gives up the encodings of the message of which they were made first; false if there are none.
    fn drop_encodings(&mut self) -> bool {
        let Some(number) = self.encoded.pop_front() else { return false };
        self.log.change(number, |emission, held| held.saturating_sub(emission.drop_encodings()));
        true
    }
}

/// Giving way to others.
impl FlowCell {
    /// The hub lists it while it holds something.
    fn list(self: &Rc<Self>) {
        if self.rank.get().is_none() {
            let state = self.state.borrow();
            if let Some(hub) = state.hub.as_ref().filter(|_| state.log.len() > 0) {
                let rank = hub.list(Rc::downgrade(self), state.log.subscribers() > 0);
                self.rank.set(Some(rank));
            }
        }
    }

    /// The first subscriber came, or the last one left.
    fn list_anew(self: &Rc<Self>) {
        if let (Some(rank), Some(hub)) = (self.rank.take(), self.state.borrow().hub.as_ref()) {
            hub.unlist(rank);
        }
        self.list();
    }

    /// Gives up what nobody awaits, oldest first, as long as the hub is short of room. One in which
    /// something was published since it was listed moves to its place first.
    pub(super) fn give_way(
        &self,
        hub: &FlowHub,
        rank: Rank,
        is_short: impl Fn() -> bool,
    ) -> GaveWay {
        let mut gave = GaveWay { messages: 0, looked_at: true, rank: Some(rank) };
        match self.state.try_borrow_mut() {
            Ok(state) if state.used > rank.used => {
                (gave.looked_at, gave.rank) = (false, Some(Rank { used: state.used, ..rank }));
            }
            Ok(mut state) => {
                gave.messages = state.give_way(hub, is_short);
                let last = Rank { used: hub.next_stamp(), ..rank };
                gave.rank = (state.log.len() > 0).then_some(last);
            }
            // It is the one that needs the room: its own log gives way in its own order.
            Err(_) => gave.rank = Some(Rank { used: hub.next_stamp(), ..rank }),
        }
        self.rank.set(gave.rank);
        gave
    }
}

impl FlowState {
    fn give_way(&mut self, hub: &FlowHub, is_short: impl Fn() -> bool) -> u64 {
        let mut messages = 0;
        while is_short() {
            let before = self.log.bytes();
            if !self.drop_encodings() {
                if self.log.len() == 0 || self.log.oldest_is_awaited() {
                    break;
                }
                self.drop_oldest();
                messages += 1;
            }
            hub.account(before, self.log.bytes());
        }
        messages
    }
}

/// What it held is held no more.
impl Drop for FlowCell {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(hub) = &state.hub {
            hub.account(state.log.bytes(), 0);
            self.rank.take().into_iter().for_each(|rank| hub.unlist(rank));
        }
    }
}

/// Collecting.
impl FlowCell {
    /// A session begins to collect.
    pub(super) fn join(self: &Rc<Self>, hub: &Rc<FlowHub>, session: u32) -> Joined {
        self.belong_to(hub);
        let mut state = self.state.borrow_mut();
        let place = state.subscribers.insert(session);
        let cursor = state.log.join();
        let behind = state.log.next_number();
        let replayed = if self.keeps_newest() { state.log.len() as u64 } else { behind - cursor };
        let gappy_replay = match u32::try_from(replayed) {
            Ok(messages) if replayed < behind - cursor => (messages, behind),
            _ => (0, 0),
        };
        let is_first = state.log.subscribers() == 1;
        drop(state);
        if is_first {
            self.list_anew();
        }
        Joined { cursor, place, gappy_replay }
    }

    pub(super) fn leave(self: &Rc<Self>, cursor: u64, place: u32) {
        let (waited_for, is_last) = self.change(|state| {
            state.log.leave(cursor);
            state.subscribers.remove(place);
            (!state.suspended.is_empty(), state.log.subscribers() == 0)
        });
        if waited_for {
            self.touch();
        }
        if is_last {
            self.list_anew();
        }
    }

    /// What a cursor takes next, with its number.
    #[inline]
    pub(super) fn next(&self, cursor: u64) -> Option<(u64, Emission)> {
        let state = self.state.borrow();
        state.log.at(cursor).map(|(number, emission)| (number, emission.clone()))
    }

    /// What a cursor takes next, if nothing follows it: its number, the bytes for sessions of that
    /// share key (of none: as it is), and the length of its payload. `None` too if those bytes were
    /// not made yet.
    #[inline]
    pub(super) fn only_one(&self, cursor: u64, key: Option<u64>) -> Option<(u64, Rc<[u8]>, usize)> {
        let state = self.state.borrow();
        let (number, emission) = state.log.only_from(cursor)?;
        let frame = match key {
            None => Rc::clone(&emission.frame),
            Some(key) => emission.encoded_for(key)?,
        };
        Some((number, frame, emission.payload().len()))
    }

    /// The stamp of what a cursor takes next.
    #[inline]
    pub(super) fn next_stamp(&self, cursor: u64) -> Option<u64> {
        let state = self.state.borrow();
        if cursor >= state.log.next_number() {
            return None;
        }
        state.log.at(cursor).map(|(_, emission)| emission.stamp)
    }

    /// The number of what a cursor takes next; of what will be published next, if there is nothing.
    pub(super) fn next_number(&self, cursor: u64) -> u64 {
        let state = self.state.borrow();
        state.log.at(cursor).map_or_else(|| state.log.next_number(), |(number, _)| number)
    }

    /// A subscriber has taken what is before `to`, or goes past it.
    #[inline]
    pub(super) fn advance(self: &Rc<Self>, from: u64, to: u64) {
        let waited_for = self.change(|state| {
            state.log.advance(from, to);
            !state.suspended.is_empty()
        });
        if waited_for {
            self.touch();
        }
    }

    pub(super) fn subscription_count(&self) -> usize {
        self.state.borrow().log.subscribers() as usize
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state.borrow().dropped
    }
}

/// Offering what is new to all who collect.
impl FlowCell {
    /// What is there now is about to be offered to everybody, if any of it is new: whether it is. It
    /// ends with [`settle`](Self::settle), some turns later where there are many.
    pub(crate) fn begin_offering(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.offering = state.log.begin_offering();
        state.offering
    }

    /// The number up to which messages are being offered.
    pub(crate) fn offering(&self) -> u64 {
        self.state.borrow().log.offering()
    }

    /// Calls `each` with every session that collects.
    pub(crate) fn for_each_subscriber(&self, each: impl FnMut(u32)) {
        self.state.borrow().subscribers.iter().for_each(each);
    }

    /// After all who could take have taken: applies the overflow policy, and returns the publishers
    /// that may be read again.
    pub(crate) fn settle(self: &Rc<Self>) -> Vec<Key> {
        let (touched, going_on) = self.change(|state| {
            let capacity = self.options.capacity();
            if std::mem::take(&mut state.offering) {
                state.log.end_offering();
            }
            if self.options.on_buffer_overflow == BufferOverflow::DropOldest {
                while state.log.lagging() > capacity {
                    state.drop_oldest();
                }
            }
            let waits = !state.suspended.is_empty() && state.log.pending() > capacity;
            let going_on = if waits { Vec::new() } else { std::mem::take(&mut state.suspended) };
            (std::mem::take(&mut state.touched), going_on)
        });
        if touched {
            self.touch();
        }
        going_on
    }
}

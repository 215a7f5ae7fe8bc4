//! Owns a flow behind its handles: the log of encoded messages, who collects, who waits.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use crate::protocol::frame::{HEADER_BYTES_MAX, OpCode, write_header};
use crate::structures::flow_log::FlowLog;
use crate::structures::slab::Key;
use crate::words::error::SendError;
use crate::words::message::{Message, Payload, ToMessage};

use super::flow::{BufferOverflow, FlowOptions};
use super::session::SessionId;

/// A place in the list of subscribers that nobody has.
const NOBODY: u32 = u32::MAX;
/// What an entry of a log takes beside its frame.
const ENTRY_BYTES: usize = size_of::<Emission>() + 32;

/// A flow. Invariant: no user code runs while `state` is borrowed.
#[derive(Debug)]
pub(crate) struct FlowCell {
    options: FlowOptions,
    state: RefCell<FlowState>,
}

#[derive(Debug)]
struct FlowState {
    log: FlowLog<Emission>,
    /// The sessions that collect, by place; a place is theirs until they leave.
    subscribers: Vec<u32>,
    free_places: Vec<u32>,
    /// Publishers that are not read until the slowest subscriber has caught up.
    suspended: Vec<Key>,
    /// The server whose sessions collect it; none until the first does.
    hub: Option<Rc<FlowHub>>,
    /// It stands in the hub's list.
    listed: bool,
    dropped: u64,
}

/// One message of a log.
#[derive(Clone, Debug)]
pub(crate) struct Emission {
    /// Its place among all that this server sends.
    pub(crate) stamp: u64,
    pub(crate) publisher: Option<SessionId>,
    key: Option<Rc<str>>,
    text: bool,
    header_len: u8,
    /// The whole message as one unmasked frame.
    pub(crate) frame: Rc<[u8]>,
    /// The same in other encodings, each for the sessions of one share key. Made when first asked
    /// for.
    encodings: Option<Rc<Encodings>>,
}

type Encodings = RefCell<Vec<(u64, Rc<[u8]>)>>;

impl Emission {
    pub(crate) fn payload(&self) -> &[u8] {
        self.frame.get(usize::from(self.header_len)..).unwrap_or_default()
    }

    /// Its encoding for sessions of a share key, if one was made.
    pub(crate) fn encoded_for(&self, key: u64) -> Option<Rc<[u8]>> {
        let encodings = self.encodings.as_ref()?.borrow();
        encodings.iter().find(|(known, _)| *known == key).map(|(_, frames)| Rc::clone(frames))
    }

    /// The message again, for a filter to look at.
    pub(crate) fn message(&self) -> Message<'_> {
        match std::str::from_utf8(self.payload()) {
            Ok(text) if self.text => text.into(),
            _ => self.payload().into(),
        }
    }
}

/// What the flows of one server share.
#[derive(Debug, Default)]
pub(crate) struct FlowHub {
    /// Bytes of all logs together.
    bytes: Cell<usize>,
    /// What they may come to, together with what connections hold.
    limit: usize,
    held_by_connections: Cell<usize>,
    stamp: Cell<u64>,
    /// Flows with something new, or with publishers that may go on.
    touched: RefCell<Vec<Rc<FlowCell>>>,
}

impl FlowHub {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Notes what connections hold: so much less is there for logs.
    pub(crate) fn note_connections(&self, bytes: usize) {
        self.held_by_connections.set(bytes);
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes.get() + self.held_by_connections.get())
    }

    /// The next place in the one order of all that is sent.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamp.set(self.stamp.get() + 1);
        self.stamp.get()
    }

    /// Takes the list of flows that somebody has to look at.
    pub(crate) fn take_touched(&self) -> Vec<Rc<FlowCell>> {
        let touched = self.touched.take();
        for flow in &touched {
            flow.state.borrow_mut().listed = false;
        }
        touched
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.touched.borrow().is_empty()
    }
}

/// A flow as a thread-safe key names it.
pub(crate) type WeakFlow = Weak<FlowCell>;

/// Publishing.
impl FlowCell {
    pub(crate) fn new(options: FlowOptions) -> Self {
        let state = FlowState {
            log: FlowLog::new(options.replayed()),
            subscribers: Vec::new(),
            free_places: Vec::new(),
            suspended: Vec::new(),
            hub: None,
            listed: false,
            dropped: 0,
        };
        Self { options, state: RefCell::new(state) }
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

    fn push(self: &Rc<Self>, mut emission: Emission) -> Result<bool, SendError> {
        let bytes = emission.frame.len() + ENTRY_BYTES;
        if bytes > self.options.max_bytes {
            let limit = self.options.max_bytes.saturating_sub(ENTRY_BYTES);
            return Err(SendError::TooBig { bytes: emission.payload().len(), limit });
        }
        let overrun = self.change(|state| {
            if state.is_full_for_latest(&self.options) {
                state.dropped += 1;
                return Ok(false);
            }
            if let Some(key) = emission.key.as_deref().filter(|_| self.keeps_newest()) {
                state.drop_key(key);
            }
            if !state.make_room(bytes, &self.options)? {
                state.dropped += 1;
                return Ok(false);
            }
            emission.stamp = state.hub.as_ref().map_or(0, |hub| hub.next_stamp());
            state.log.push(emission, bytes);
            let overrun = state.log.pending() > self.options.capacity();
            Ok(overrun && self.options.on_buffer_overflow == BufferOverflow::Suspend)
        })?;
        self.touch();
        Ok(overrun)
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
            hub.bytes.set((hub.bytes.get() + after).saturating_sub(before));
        }
        result
    }

    /// Has the hub look at this flow after the turn.
    fn touch(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if let Some(hub) = state.hub.clone().filter(|_| !state.listed) {
            state.listed = true;
            hub.touched.borrow_mut().push(Rc::clone(self));
        }
    }
}

impl Emission {
    fn new(message: Message<'_>, key: Option<&str>, publisher: Option<SessionId>) -> Self {
        let text = matches!(message.payload(), Payload::Text(_));
        let opcode = if text { OpCode::Text } else { OpCode::Binary };
        let payload = message.bytes();
        let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
        write_header(&mut header, true, opcode, payload.len(), None);
        // One allocation of the right size, however many will share it.
        let frame: Rc<[u8]> = header.iter().chain(payload).copied().collect();
        let header_len = header.len().try_into().unwrap_or_default();
        Self {
            stamp: 0,
            publisher,
            key: key.map(Into::into),
            text,
            header_len,
            frame,
            encodings: None,
        }
    }
}

impl FlowState {
    fn is_full_for_latest(&self, options: &FlowOptions) -> bool {
        options.on_buffer_overflow == BufferOverflow::DropLatest
            && self.log.lagging() >= options.capacity()
    }

    fn drop_key(&mut self, key: &str) {
        let before = (self.log.len(), self.log.pending());
        self.log.drop_first(|older| older.key.as_deref() == Some(key));
        if self.log.len() < before.0 && self.log.pending() < before.1 {
            self.dropped += 1;
        }
    }

    /// Holds the log and the logs of all flows to their limits; false if the newest message is the
    /// one that has to go.
    fn make_room(&mut self, bytes: usize, options: &FlowOptions) -> Result<bool, SendError> {
        let room = self.hub.as_ref().map_or(usize::MAX, |hub| hub.room());
        let limit = self.log.bytes().saturating_add(room).min(options.max_bytes);
        while self.log.bytes() + bytes > limit {
            let lost = self.log.pending() == self.log.len();
            match options.on_buffer_overflow {
                BufferOverflow::Suspend if lost => return self.full(),
                BufferOverflow::DropLatest if lost => return Ok(false),
                _ if self.log.len() == 0 => return self.full(),
                _ => {}
            }
            self.log.drop_oldest();
            self.dropped += u64::from(lost);
        }
        if options.on_buffer_overflow == BufferOverflow::Latest {
            while self.log.len() >= options.capacity() {
                self.dropped += u64::from(self.log.pending() == self.log.len());
                self.log.drop_oldest();
            }
        }
        Ok(true)
    }

    fn full<R>(&self) -> Result<R, SendError> {
        Err(SendError::Full { buffered: self.log.bytes() })
    }
}

/// What it held is held no more.
impl Drop for FlowCell {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(hub) = &state.hub {
            hub.bytes.set(hub.bytes.get().saturating_sub(state.log.bytes()));
        }
    }
}

/// Collecting.
impl FlowCell {
    /// A session begins to collect: its cursor and its place.
    pub(super) fn join(self: &Rc<Self>, hub: &Rc<FlowHub>, session: u32) -> (u64, u32) {
        self.belong_to(hub);
        let mut state = self.state.borrow_mut();
        let place = match state.free_places.pop() {
            Some(place) => place,
            None => {
                state.subscribers.push(NOBODY);
                u32::try_from(state.subscribers.len() - 1).unwrap_or(NOBODY)
            }
        };
        if let Some(subscriber) = state.subscribers.get_mut(place as usize) {
            *subscriber = session;
        }
        (state.log.join(), place)
    }

    /// A flow belongs to the server whose sessions collect it; once none does, another's may.
    fn belong_to(&self, hub: &Rc<FlowHub>) {
        let mut state = self.state.borrow_mut();
        let other = state.hub.as_ref().is_some_and(|known| !Rc::ptr_eq(known, hub));
        if state.hub.is_some() && !(other && state.log.subscribers() == 0) {
            return;
        }
        let bytes = state.log.bytes();
        if let Some(known) = state.hub.replace(Rc::clone(hub)) {
            known.bytes.set(known.bytes.get() - bytes);
        }
        hub.bytes.set(hub.bytes.get() + bytes);
        state.listed = false;
    }

    pub(super) fn leave(self: &Rc<Self>, cursor: u64, place: u32) {
        let waited_for = self.change(|state| {
            state.log.leave(cursor);
            if let Some(subscriber) = state.subscribers.get_mut(place as usize) {
                *subscriber = NOBODY;
                state.free_places.push(place);
            }
            !state.suspended.is_empty()
        });
        if waited_for {
            self.touch();
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

    /// Keeps an encoding of the message of that number for others of the same share key.
    pub(super) fn keep_encoding(&self, number: u64, key: u64, frames: &Rc<[u8]>) {
        self.change(|state| {
            let Some(emission) = state.log.at_mut(number) else { return };
            let encodings = emission.encodings.get_or_insert_default();
            encodings.borrow_mut().push((key, Rc::clone(frames)));
            state.log.grow(number, frames.len());
        });
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

    /// How many messages from a cursor on were dropped or replaced before it came to them.
    pub(super) fn missed_at(&self, cursor: u64) -> u64 {
        let state = self.state.borrow();
        let next =
            state.log.at(cursor).map_or_else(|| state.log.next_number(), |(number, _)| number);
        next.saturating_sub(cursor)
    }

    /// A subscriber has taken the message of that number.
    #[inline]
    pub(super) fn take(self: &Rc<Self>, number: u64) {
        let waited_for = self.change(|state| {
            state.log.take(number);
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

    /// All that is there now is about to be offered; whether any of it is new.
    pub(crate) fn begin_offering(&self) -> bool {
        self.state.borrow_mut().log.begin_offering()
    }

    /// Calls `each` with every session that collects.
    pub(crate) fn for_each_subscriber(&self, mut each: impl FnMut(u32)) {
        let state = self.state.borrow();
        for &session in state.subscribers.iter().filter(|&&session| session != NOBODY) {
            each(session);
        }
    }

    /// After all who could take have taken: applies the overflow policy, and returns the publishers
    /// that may be read again.
    pub(crate) fn settle(&self) -> Vec<Key> {
        self.change(|state| {
            state.log.end_offering();
            let capacity = self.options.capacity();
            if self.options.on_buffer_overflow == BufferOverflow::DropOldest {
                while state.log.lagging() > capacity {
                    state.log.drop_oldest();
                    state.dropped += 1;
                }
            }
            if state.log.pending() > capacity {
                Vec::new()
            } else {
                std::mem::take(&mut state.suspended)
            }
        })
    }
}

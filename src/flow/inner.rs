//! The flow behind its handles: the log of encoded messages, who collects, who waits.

use std::cell::{Cell, OnceCell, RefCell};
use std::iter;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use crate::flow::log::FlowLog;
use crate::structures::ids::ReaderId;
use crate::structures::roster::Roster;
use crate::structures::slab::Key;
use crate::words::error::SendError;
use crate::words::message::{Message, ToMessage};
use crate::words::message_buf::MessageBuf;

use crate::flow::emission::{Emission, Origin};
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::pool::{FlowPool, Rank};
use crate::flow::state::{FlowReader, FlowState};

/// A flow. Invariant: no user code runs while `state` is borrowed.
#[derive(Debug)]
pub(crate) struct FlowInner {
    pub(super) options: FlowOptions,
    pub(super) state: RefCell<FlowState<Self>>,
    /// Where it stands in the pool's list of flows that hold something.
    pub(super) rank: Cell<Option<Rank>>,
    /// The number by which other threads know it, if they do.
    pub(crate) name: Cell<u32>,
    /// What the ids of its events begin with; 0 as long as no event stream has collected it.
    pub(super) epoch: Cell<u32>,
    /// Where all loops of a server have it: how many collect it on any, and how many loops there are.
    pub(super) everywhere: OnceCell<(Arc<AtomicIsize>, usize)>,
    /// The reader that tells the other loops.
    pub(super) bridge: Cell<Option<ReaderId>>,
}

/// The pool of one server's flows.
pub(crate) type Flows = FlowPool<FlowInner>;

/// A flow as a thread-safe key names it.
pub(crate) type WeakFlow = Weak<FlowInner>;

/// Who collects.
#[derive(Clone, Copy)]
pub(crate) enum Member {
    /// The session in that slot.
    Session(u32),
    Reader(ReaderId),
}

/// Where a subscriber that begins to collect stands.
pub(crate) struct Joined {
    pub(crate) cursor: u64,
    pub(crate) place: u32,
    /// How many messages the flow has skipped so far.
    pub(crate) skipped: u64,
    /// If there are gaps in what is replayed: how many messages that is, and the number of the first
    /// one behind it.
    pub(crate) gappy_replay: (u32, u64),
}

/// Publishing.
impl FlowInner {
    pub(crate) fn new(options: FlowOptions) -> Self {
        let state = FlowState::new(&options);
        let (rank, name, epoch) = (Cell::default(), Cell::default(), Cell::default());
        let (everywhere, bridge) = (OnceCell::new(), Cell::default());
        Self { options, state: RefCell::new(state), rank, name, epoch, everywhere, bridge }
    }

    pub(crate) fn options(&self) -> &FlowOptions {
        &self.options
    }

    /// Adds a message to the log; true if its publisher is to wait.
    pub(crate) fn emit<T: ToMessage + ?Sized>(
        self: &Rc<Self>,
        value: &T,
        key: Option<&str>,
        origin: Origin,
    ) -> Result<bool, SendError> {
        // In other flows a key would cost memory and change nothing.
        let key = key.filter(|_| self.keeps_newest());
        let mut emission = None;
        value.to_message(&mut |message| {
            // One value is one message, however often its converter calls back.
            emission.get_or_insert_with(|| Emission::new(message, key, origin));
        });
        match emission {
            Some(emission) => self.push(emission),
            None => Ok(false), // the value had nothing to say
        }
    }

    /// The same for a message that is there already, and whose publisher is not told what became of
    /// it: without room it counts as dropped.
    pub(crate) fn emit_unanswered(self: &Rc<Self>, message: Message<'_>, key: Option<&str>) {
        if self.emit(&message, key, Origin::Application).is_err() {
            self.state.borrow_mut().dropped += 1;
        }
    }

    /// Drops a key and its message: whether there was one.
    pub(crate) fn remove(self: &Rc<Self>, key: &str, origin: Origin) -> bool {
        let removed = self.change(|state| {
            let removed = state.remove(key);
            // Without a value it was never on its way to anybody, unless that gave way on this loop alone.
            let only = self.bridge.get().filter(|_| !removed && self.keeps_newest());
            if removed || only.is_some() {
                let limits = (self.options.capacity(), self.options.max_bytes);
                let is_told =
                    |id| id != origin && only.is_none_or(|only| id == Origin::Reader(only));
                state.tell_removed(key, is_told, self.bridge.get(), limits);
            }
            removed
        });
        // A publisher may have waited for who had not taken it.
        self.touch();
        self.list_anew();
        removed
    }

    /// Removes a key whose value that reader has brought, if nobody has published a newer one since.
    pub(crate) fn take_back(self: &Rc<Self>, key: &str, id: ReaderId) -> bool {
        self.is_from(key, id) && self.remove(key, Origin::Reader(id))
    }

    /// Whether what is known of a key is what that reader has brought or been told: nobody here has published
    /// or removed it since.
    pub(crate) fn is_from(&self, key: &str, id: ReaderId) -> bool {
        let state = self.state.borrow();
        match state.newest_of(key) {
            // What another loop has said is not this reader's either.
            Some(emission) => emission.origin == Origin::Reader(id),
            None => !state.is_to_be_told(id, key),
        }
    }

    /// The newest message of a key.
    pub(crate) fn newest_of(&self, key: &str) -> Option<MessageBuf> {
        let state = self.state.borrow();
        state.newest_of(key).map(|emission| emission.message().into())
    }

    /// The messages that have keys, from the oldest to the newest that is there now.
    pub(crate) fn newest(self: &Rc<Self>) -> impl Iterator<Item = (Rc<str>, MessageBuf)> + use<> {
        let (mut at, end) = (0, self.state.borrow().log.next_number());
        let inner = Rc::clone(self);
        // One by one, so that whoever looks at them may publish here.
        iter::from_fn(move || {
            // In flows that do not keep the newest nothing has a key.
            loop {
                let (number, emission) = inner.next(at).filter(|(number, _)| *number < end)?;
                at = number + 1;
                if let Some(key) = &emission.key {
                    return Some((Rc::clone(key), emission.message().into()));
                }
            }
        })
    }

    fn push(self: &Rc<Self>, emission: Emission) -> Result<bool, SendError> {
        let bytes = emission.bytes() + self.entry_bytes();
        let widened = self.with_room_for_others(&emission);
        let options = widened.as_ref().unwrap_or(&self.options);
        // Refused before anything gives way for it: it could not be kept in any case.
        if bytes > self.options.max_bytes {
            let payload = emission.payload().len();
            let limit = self.options.max_bytes.saturating_sub(bytes - payload);
            return Err(SendError::TooBig { bytes: payload, limit });
        }
        let overrun = self.change(|state| state.push(emission, bytes, options))?;
        self.list();
        self.touch();
        Ok(overrun)
    }

    /// What a message takes beside what it refers to.
    pub(super) fn entry_bytes(&self) -> usize {
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
    pub(crate) fn would_suspend(&self) -> bool {
        self.options.on_buffer_overflow == BufferOverflow::Suspend
            && self.state.borrow().log.pending() > self.options.capacity()
    }

    /// Remembers a publisher that is not read from now on.
    pub(crate) fn suspend(&self, publisher: Key) {
        self.state.borrow_mut().suspended.push(publisher);
    }

    /// Changes the state, and tells the pool what that made of the log's size.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut FlowState<Self>) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let before = state.bytes();
        let result = change(&mut state);
        let after = state.bytes();
        if let Some(pool) = state.pool.as_deref() {
            pool.account(before, after);
        }
        result
    }

    /// Has the pool look at this flow after the turn, or once what is being offered has been.
    pub(super) fn touch(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        // A round that has begun is for what was there then; the next one is for this.
        if state.offering {
            state.touched = true;
        } else if let Some(pool) = state.pool.clone().filter(|_| !state.listed) {
            state.listed = true;
            pool.touch(self);
        }
    }

    /// A flow belongs to the server whose sessions collect it, or publish in it first; once none
    /// collects it, another's may.
    pub(crate) fn belong_to(self: &Rc<Self>, pool: &Rc<Flows>) {
        let mut state = self.state.borrow_mut();
        match &state.pool {
            Some(known) if Rc::ptr_eq(known, pool) => return,
            // Cursors of sessions count in that pool: it cannot change while there are any.
            Some(_) if state.log.subscribers() > 0 => return,
            _ => {}
        }
        let bytes = state.bytes();
        if let Some(known) = state.pool.replace(Rc::clone(pool)) {
            known.account(bytes, 0);
            self.rank.take().into_iter().for_each(|rank| known.unlist(rank));
        }
        pool.account(0, bytes);
        // Stamps are a pool's own: the old ones mean nothing in the new one.
        (state.listed, state.offering, state.used) = (false, false, 0);
        drop(state);
        self.list();
    }
}

/// Encodings. They are kept as long as nothing else needs the room, since they can be made again.
impl FlowInner {
    /// Keeps an encoding of the message of that number for others of the same share key.
    pub(crate) fn keep_encoding(self: &Rc<Self>, number: u64, key: u64, frames: &Rc<[u8]>) {
        self.change(|state| {
            let bytes = Emission::encoding_bytes(frames);
            // The session that made it has it already: that it is not kept costs others time, and no message.
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
        self.list_anew();
    }
}

/// Giving way to others.
impl FlowInner {
    /// The pool lists it while it holds something.
    pub(super) fn list(self: &Rc<Self>) {
        if self.rank.get().is_none() {
            let state = self.state.borrow();
            if let Some(pool) = state.pool.as_ref().filter(|_| state.log.len() > 0) {
                self.rank.set(Some(pool.list(Rc::downgrade(self), state.gives())));
            }
        }
    }

    /// What it would give up is something else from now on.
    fn list_anew(self: &Rc<Self>) {
        let state = self.state.borrow();
        // Moved only when the kind changes: to keep it in the order of use would cost every message.
        let rank = self.rank.get().filter(|rank| rank.gives != state.gives());
        if let (Some(rank), Some(pool)) = (rank, &state.pool) {
            pool.unlist(rank);
            self.rank.set(None);
        }
        drop(state);
        self.list();
    }
}

/// What it held is held no more.
impl Drop for FlowInner {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(pool) = &state.pool {
            pool.account(state.bytes(), 0);
            self.rank.take().into_iter().for_each(|rank| pool.unlist(rank));
        }
    }
}

/// Collecting.
impl FlowInner {
    /// A subscriber begins to collect: with the replay, or behind what it has.
    pub(crate) fn join(
        self: &Rc<Self>,
        pool: &Rc<Flows>,
        member: Member,
        behind_own: Option<u64>,
    ) -> Joined {
        self.belong_to(pool);
        let mut state = self.state.borrow_mut();
        let place = match member {
            Member::Session(slot) => state.subscribers.insert(slot),
            Member::Reader(id) => {
                // Apart from sessions: a broadcast to thousands need not ask what each of them is.
                state.readers.push(FlowReader::new(id));
                Roster::NOBODY // it is found by its id
            }
        };
        let start = behind_own.unwrap_or_else(|| state.log.replay_start());
        let cursor = state.log.join(start);
        if let Some((count, _)) = self.everywhere.get() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let behind = state.log.next_number();
        // Of newest values there is one for each key, with gaps where older ones were replaced.
        let replayed = state.log.count_from(cursor) as u64;
        let gappy_replay = match u32::try_from(replayed) {
            Ok(messages) if replayed < behind - cursor => (messages, behind),
            _ => (0, 0),
        };
        let skipped = state.skipped;
        drop(state);
        self.list_anew();
        Joined { cursor, place, skipped, gappy_replay }
    }

    /// What a session that began to collect now would first get.
    pub(crate) fn replay(&self) -> Vec<MessageBuf> {
        let state = self.state.borrow();
        let mut cursor = state.log.replay_start();
        let replayed = iter::from_fn(|| {
            let (number, emission) = state.log.at(cursor)?;
            cursor = number.saturating_add(1);
            Some(MessageBuf::from(emission.message()))
        });
        replayed.collect()
    }

    pub(crate) fn leave(self: &Rc<Self>, cursor: u64, place: u32) {
        let waited_for = self.change(|state| {
            state.log.leave(cursor);
            if let Some((count, _)) = self.everywhere.get() {
                count.fetch_sub(1, Ordering::Relaxed);
            }
            state.subscribers.remove(place);
            !state.suspended.is_empty()
        });
        // It may have been the slowest, for which publishers wait.
        if waited_for {
            self.touch();
        }
        self.list_anew();
    }

    /// What a cursor takes next, with its number.
    #[inline]
    pub(crate) fn next(&self, cursor: u64) -> Option<(u64, Emission)> {
        let state = self.state.borrow();
        // Cloned, since encoding it runs code of the application, which may publish here.
        state.log.at(cursor).map(|(number, emission)| (number, emission.clone()))
    }

    /// Has a subscriber take what comes next at `cursor`, if nothing follows it: the bytes for sessions of
    /// that share key (of none: as it is). `None`, and nothing is taken, if those bytes were not made yet, or
    /// are none, or are of a payload that is longer than `limit`.
    #[inline]
    pub(crate) fn take_only_one(
        self: &Rc<Self>,
        cursor: u64,
        key: Option<u64>,
        limit: usize,
    ) -> Option<Rc<[u8]>> {
        let mut state = self.state.borrow_mut();
        let emission = state.log.only_from(cursor)?;
        let frame = match key {
            None => Rc::clone(&emission.frame),
            Some(key) => emission.encoded_for(key)?,
        };
        // No bytes mean that an extension drops this message for every session of the key.
        if frame.is_empty() || emission.payload().len() > limit {
            return None;
        }
        let may_release = state.log.advance(cursor, cursor + 1);
        if may_release || !state.suspended.is_empty() {
            drop(state);
            self.note_advance(may_release);
        }
        Some(frame)
    }

    /// The stamp of what a cursor takes next.
    #[inline]
    pub(crate) fn next_stamp(&self, cursor: u64) -> Option<u64> {
        let state = self.state.borrow();
        if cursor >= state.log.next_number() {
            return None;
        }
        state.log.at(cursor).map(|(_, emission)| emission.stamp)
    }

    /// The number of what a cursor takes next; of what will be published next, if there is nothing.
    pub(crate) fn next_number(&self, cursor: u64) -> u64 {
        let state = self.state.borrow();
        state.log.at(cursor).map_or_else(|| state.log.next_number(), |(number, _)| number)
    }

    /// A subscriber has taken what is before `to`, or goes past it.
    #[inline]
    pub(crate) fn advance(self: &Rc<Self>, from: u64, to: u64) {
        let (may_release, is_waited_for) = {
            let mut state = self.state.borrow_mut();
            (state.log.advance(from, to), !state.suspended.is_empty())
        };
        if may_release || is_waited_for {
            self.note_advance(may_release);
        }
    }

    /// A subscriber has gone on.
    #[cold]
    fn note_advance(self: &Rc<Self>, may_release: bool) {
        // Only then is there a size to be counted anew.
        if may_release {
            self.change(|state| state.log.release());
        }
        if !self.state.borrow().suspended.is_empty() {
            self.touch(); // who waits to publish may have waited for that
        }
    }

    /// Messages that have never come to the flow.
    #[inline]
    pub(crate) fn skipped(&self) -> u64 {
        self.state.borrow().skipped
    }

    pub(crate) fn subscription_count(&self) -> usize {
        match self.everywhere.get() {
            None => self.state.borrow().log.subscribers() as usize,
            // For a moment it is too low by a loop's bridge, which is no subscription of anybody's.
            Some((count, _)) => usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(0),
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.state.borrow().dropped
    }
}

/// Offering what is new to all who collect.
impl FlowInner {
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
            // Only now: while a turn runs nobody has been offered its messages, so nobody lags.
            if self.options.on_buffer_overflow == BufferOverflow::DropOldest {
                while state.log.lagging() > capacity {
                    state.drop_oldest();
                }
            }
            // All of them at once or none: they wait for the same subscriber.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::state::SPARE_KEYS;

    fn cell(overflow: BufferOverflow) -> Rc<FlowInner> {
        let options = FlowOptions::new().replay(2).on_buffer_overflow(overflow);
        Rc::new(FlowInner::new(options))
    }

    #[test]
    fn only_flows_that_keep_the_newest_of_each_key_keep_keys() {
        for overflow in
            [BufferOverflow::Suspend, BufferOverflow::DropOldest, BufferOverflow::Latest]
        {
            let cell = cell(overflow);
            cell.emit("value", Some("key"), Origin::Application).unwrap();
            let (_, emission) = cell.next(0).unwrap();
            let keeps = overflow == BufferOverflow::Latest;
            assert_eq!(
                (emission.key.is_some(), cell.state.borrow().keys.len() == 1),
                (keeps, keeps)
            );
        }
    }

    /// Two loops whose logs are full of what waits for the other must both have room for it; and whoever
    /// publishes here for what others have sent.
    #[test]
    fn what_another_loop_sends_has_room_beside_what_waits_for_it() {
        let reader = ReaderId(Key { index: 0, generation: 0 });
        let (here, elsewhere) = (Origin::Application, Origin::Reader(reader));
        let filled = |loops: usize, fills: &[(Origin, usize)]| {
            let pool = Rc::new(Flows::new(1 << 20));
            let flow = Rc::new(FlowInner::new(FlowOptions::new().max_bytes(2_000)));
            if loops > 1 {
                flow.count_everywhere(Arc::default(), loops);
            }
            flow.join(&pool, Member::Reader(reader), None); // it reads nothing, so that all is awaited
            let fill = |(origin, most): &(Origin, usize)| {
                let fits = |_: &usize| flow.emit("x".repeat(100).as_str(), None, *origin).is_ok();
                (0..*most).take_while(fits).count()
            };
            fills.iter().map(fill).collect::<Vec<_>>()
        };
        let log = filled(1, &[(here, 100)])[0];
        assert!(log > 5, "{log}");
        for loops in [2, 3] {
            let others = log * (loops - 1);
            for (first, second) in
                [((here, log), (elsewhere, others)), ((elsewhere, others), (here, log))]
            {
                assert_eq!(filled(loops, &[first, second]), [first.1, second.1]);
            }
        }
        assert!(filled(2, &[(here, 1_000)])[0] <= 2 * log + 1, "it is bounded all the same");
    }

    #[test]
    fn a_key_goes_with_its_message() {
        let cell = cell(BufferOverflow::Latest);
        for number in 0..1_000 {
            cell.emit("value", Some(&number.to_string()), Origin::Application).unwrap();
        }
        let state = cell.state.borrow();
        let mut kept: Vec<&str> = state.keys.keys().map(|key| &**key).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["998", "999"]);
        assert!(state.keys.capacity() <= SPARE_KEYS);
        let bytes = |key: &str| {
            let (_, emission) = cell.next(*state.keys.get(key).unwrap()).unwrap();
            emission.bytes() + cell.entry_bytes()
        };
        assert_eq!(state.log.bytes(), bytes("998") + bytes("999"));
    }
}

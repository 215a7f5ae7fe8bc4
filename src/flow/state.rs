//! The content of a flow: its log, the keys and encodings in it, and what gives way to what where bytes
//! are short.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::flow::log::FlowLog;
use crate::structures::footprint::footprint;
use crate::structures::ids::ReaderId;
use crate::structures::roster::Roster;
use crate::structures::slab::Key;
use crate::words::error::SendError;

use crate::flow::emission::{Emission, Origin};
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::pool::{FlowPool, Gives, GivesWay};

/// A table of keys that was this large gives its places back.
pub(crate) const SPARE_KEYS: usize = 64;

/// What lies behind a flow's handles.
#[derive(Debug)]
pub(crate) struct FlowState<F> {
    pub(crate) log: FlowLog<Emission>,
    /// Where the newest message of each key stands.
    pub(crate) keys: HashMap<Rc<str>, u64>,
    /// Entries of which encodings are kept, in the order in which the first was made; also some that
    /// are gone.
    pub(crate) encoded: VecDeque<u64>,
    /// The sessions that collect.
    pub(crate) subscribers: Roster,
    /// Who takes its messages and is no session.
    pub(crate) readers: Vec<FlowReader>,
    /// What the keys take that were removed and that readers were not told of.
    removed_bytes: usize,
    /// Messages that have never come to it.
    pub(crate) skipped: u64,
    /// Publishers that are not read until the slowest subscriber has caught up.
    pub(crate) suspended: Vec<Key>,
    /// The server whose sessions collect it; none until the first does, or publishes.
    pub(crate) pool: Option<Rc<FlowPool<F>>>,
    /// When something was last published, in the order of the pool.
    pub(crate) used: u64,
    /// It stands in the pool's list of those that are to be looked at.
    pub(crate) listed: bool,
    /// What is new is being offered to the subscribers, which may take several turns.
    pub(crate) offering: bool,
    /// It was to be looked at meanwhile.
    pub(crate) touched: bool,
    pub(crate) dropped: u64,
    /// What other loops have accepted waits for room, and comes before anything new.
    pub(crate) others_wait: bool,
    /// What entries take that were added beyond the limits, and the number of the last of them.
    beyond: (usize, u64),
}

/// A reader as the flow knows it.
#[derive(Debug)]
pub(crate) struct FlowReader {
    pub(crate) id: ReaderId,
    /// How many messages it has said itself that never came, and has not taken note of.
    pub(crate) own_skipped: u64,
    /// Messages before this one it has gone past.
    pub(crate) passed: u64,
    /// Messages that it has published itself and that were dropped or replaced before it had gone past them:
    /// it has not missed those.
    pub(crate) own_dropped: u64,
    /// Keys that were removed and of which it was not told, in their order.
    pub(crate) removed: VecDeque<Rc<str>>,
    removed_bytes: usize,
}

impl FlowReader {
    pub(crate) fn new(id: ReaderId) -> Self {
        let (own_skipped, passed, own_dropped) = (0, 0, 0);
        let (removed, removed_bytes) = (VecDeque::new(), 0);
        Self { id, own_skipped, passed, own_dropped, removed, removed_bytes }
    }
}

/// Where a key stands in a list of those that were removed, or is to stand.
fn place_of(removed: &VecDeque<Rc<str>>, key: &str) -> Result<usize, usize> {
    removed.binary_search_by(|known| (**known).cmp(key))
}

/// What a removed key takes beside its bytes: its counters, and its place in a list that is half full.
fn removed_bytes(key: &str) -> usize {
    footprint(key.len() + 2 * size_of::<usize>()) + 2 * size_of::<Rc<str>>()
}

impl<F: GivesWay> FlowState<F> {
    /// With an empty log.
    pub(crate) fn new(options: &FlowOptions) -> Self {
        let log = match options.on_buffer_overflow {
            BufferOverflow::Latest => FlowLog::sparse(options.replayed()),
            _ => FlowLog::new(options.replayed()),
        };
        Self {
            log,
            keys: HashMap::new(),
            encoded: VecDeque::new(),
            subscribers: Roster::default(),
            readers: Vec::new(),
            removed_bytes: 0,
            skipped: 0,
            suspended: Vec::new(),
            pool: None,
            used: 0,
            listed: false,
            offering: false,
            touched: false,
            dropped: 0,
            others_wait: false,
            beyond: (0, 0),
        }
    }

    /// Adds a message that takes `bytes`; true if its publisher is to wait.
    pub(crate) fn push(
        &mut self,
        mut emission: Emission,
        bytes: usize,
        options: &FlowOptions,
    ) -> Result<bool, SendError> {
        if self.others_wait {
            return self.full();
        }
        if self.drops_newest(options) || !self.make_room(bytes, &emission, options)? {
            self.dropped += 1;
            return Ok(false);
        }
        // Taken when it is published: the one order of all that is sent (see `Collected::next`).
        emission.stamp = self.pool.as_ref().map_or(0, |pool| pool.next_stamp());
        self.used = emission.stamp;
        let key = emission.key.clone();
        if let (Some(key), Origin::Reader(id)) = (&key, emission.origin) {
            self.forget_removed(id, key);
        }
        let number = self.log.push(emission, bytes);
        // `make_room` has taken out the older value of this key, and its entry.
        if let Some(key) = key {
            self.keys.insert(key, number);
        }
        Ok(options.on_buffer_overflow == BufferOverflow::Suspend
            && self.log.pending() > options.capacity())
    }

    /// Adds a message without a key that there is no room for.
    pub(crate) fn push_beyond_limits(&mut self, mut emission: Emission, bytes: usize) {
        emission.stamp = self.pool.as_ref().map_or(0, |pool| pool.next_stamp());
        self.used = emission.stamp;
        let before = self.beyond_limits();
        self.beyond = (before.saturating_add(bytes), self.log.push(emission, bytes));
    }

    /// What it holds of messages there was no room for.
    pub(crate) fn beyond_limits(&self) -> usize {
        let (bytes, last) = self.beyond;
        // All of them are gone once the last is.
        if self.log.first_number() <= last { bytes.min(self.log.bytes()) } else { 0 }
    }

    fn drops_newest(&self, options: &FlowOptions) -> bool {
        // A log has no place where a message is missing for one: it is dropped for all, as Kotlin's is.
        options.on_buffer_overflow == BufferOverflow::DropLatest
            && self.log.lagging() >= options.capacity()
    }

    /// How many bytes the log may come to so that `bytes` can be added: what is left to it once all
    /// gave way that can, as `make_room` has them do.
    fn limit(
        &mut self,
        bytes: usize,
        options: &FlowOptions,
        make_room: impl FnOnce(&FlowPool<F>, usize),
    ) -> usize {
        let Some(pool) = self.pool.clone() else { return options.max_bytes };
        let before = self.log.bytes();
        let wanted = |log: &FlowLog<Emission>| bytes.saturating_sub(before - log.bytes());
        // Its own encodings first: what can be made again goes before any message, also of others.
        while pool.room() < wanted(&self.log) && self.drop_encodings() {}
        make_room(&pool, wanted(&self.log));
        // What it holds already is not taken from the room.
        before.saturating_add(pool.room()).min(options.max_bytes)
    }

    /// Holds the log and the logs of all flows to their limits; false if the newest message is the
    /// one that has to go. An error changes nothing.
    fn make_room(
        &mut self,
        bytes: usize,
        emission: &Emission,
        options: &FlowOptions,
    ) -> Result<bool, SendError> {
        let limit = self.limit(bytes, options, FlowPool::make_room);
        let newest_goes = options.on_buffer_overflow == BufferOverflow::DropLatest;
        if bytes > limit {
            return if newest_goes { Ok(false) } else { self.full() };
        }
        // Only once it is certain that the newer value fits: an error changes nothing.
        if let Some(key) = &emission.key {
            self.take_out(key);
        }
        while self.log.bytes().saturating_add(bytes) > limit {
            if self.drop_encodings() {
                continue;
            }
            // What nobody awaits goes under every policy; the policy is for what somebody does.
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

    /// Takes out the message of a key, if there is one; it counts if somebody awaited it.
    fn take_out(&mut self, key: &str) -> Option<Emission> {
        let number = self.keys.remove(key)?;
        self.dropped += u64::from(self.log.is_awaited(number));
        let removed = self.log.remove(number);
        self.note_gone(number, removed.as_ref());
        removed
    }

    /// A message was dropped or replaced: the reader that has published it has not missed it.
    #[inline]
    fn note_gone(&mut self, number: u64, gone: Option<&Emission>) {
        if let Some(Origin::Reader(id)) = gone.map(|emission| emission.origin) {
            let own = self.readers.iter_mut().find(|reader| reader.id == id);
            // Most messages go once all have gone past them.
            if let Some(reader) = own.filter(|reader| reader.passed <= number) {
                reader.own_dropped += 1;
            }
        }
    }

    /// Drops a key and its message: whether there was one.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let removed = self.take_out(key).is_some();
        self.shrink_keys();
        removed
    }

    /// The newest message of a key.
    pub(crate) fn newest_of(&self, key: &str) -> Option<&Emission> {
        // The table has what the log has: an entry that gives way takes its key along.
        let number = *self.keys.get(key)?;
        self.log.at(number).map(|(_, emission)| emission)
    }

    /// The oldest message gives way; it counts if somebody awaited it.
    pub(crate) fn drop_oldest(&mut self) {
        self.dropped += u64::from(self.log.oldest_is_awaited());
        let number = self.log.first_number();
        let dropped = self.log.drop_oldest();
        self.note_gone(number, dropped.as_ref());
        if let Some(key) = dropped.and_then(|dropped| dropped.key) {
            self.keys.remove(&key);
            self.shrink_keys();
        }
    }

    /// Keys may come from the network: a table that 100,000 of them filled must not stay that large.
    fn shrink_keys(&mut self) {
        if self.keys.capacity() > SPARE_KEYS && self.keys.len() < self.keys.capacity() / 4 {
            self.keys.shrink_to(self.keys.len() * 2);
        }
    }

    fn full<R>(&self) -> Result<R, SendError> {
        Err(SendError::Full { buffered: self.log.bytes() })
    }
}

/// Keys that were removed.
impl<F: GivesWay> FlowState<F> {
    /// All that it holds: each kept byte counts, whomever it waits for.
    pub(crate) fn bytes(&self) -> usize {
        self.log.bytes() + self.removed_bytes
    }

    /// Readers are to be told that a key was removed. The bridge tells other loops, which are to forget it
    /// too: that is bounded by the bytes alone.
    pub(crate) fn tell_removed(
        &mut self,
        key: &str,
        is_told: impl Fn(Origin) -> bool,
        bridge: Option<ReaderId>,
        (most, bytes): (usize, usize),
    ) {
        let (shared, room) = (Rc::<str>::from(key), bytes.saturating_sub(removed_bytes(key)));
        for reader in self.readers.iter_mut().filter(|it| is_told(Origin::Reader(it.id))) {
            // One that takes nothing must not make this grow, nor take the room of others.
            let most = if bridge == Some(reader.id) { usize::MAX } else { most };
            let has_room = reader.removed.len() < most && reader.removed_bytes <= room;
            if let (true, Err(place)) = (has_room, place_of(&reader.removed, key)) {
                reader.removed.insert(place, Rc::clone(&shared));
                reader.removed_bytes += removed_bytes(key);
                self.removed_bytes += removed_bytes(key);
            }
        }
    }

    /// A reader has brought a newer value of a key: its other end is not to remove that.
    fn forget_removed(&mut self, id: ReaderId, key: &str) {
        self.take_removed_at(id, |keys| place_of(keys, key).ok());
    }

    /// Whether a reader is yet to be told that a key was removed.
    pub(super) fn is_to_be_told(&self, id: ReaderId, key: &str) -> bool {
        let reader = self.readers.iter().find(|reader| reader.id == id);
        reader.is_some_and(|reader| place_of(&reader.removed, key).is_ok())
    }

    /// Readers are not told of removed keys after all: whether there were any.
    pub(crate) fn forget_all_removed(&mut self) -> bool {
        self.readers.iter_mut().for_each(|reader| {
            (reader.removed, reader.removed_bytes) = (VecDeque::new(), 0);
        });
        std::mem::take(&mut self.removed_bytes) > 0
    }

    pub(crate) fn take_removed(&mut self, id: ReaderId) -> Option<Rc<str>> {
        // In any order: a reader that is told of all knows what is left.
        self.take_removed_at(id, |_| Some(0))
    }

    /// Takes one out of the keys that a reader is to be told of.
    fn take_removed_at(
        &mut self,
        id: ReaderId,
        place_in: impl FnOnce(&VecDeque<Rc<str>>) -> Option<usize>,
    ) -> Option<Rc<str>> {
        let reader = self.readers.iter_mut().find(|reader| reader.id == id)?;
        let key = reader.removed.remove(place_in(&reader.removed)?)?;
        if reader.removed.is_empty() {
            reader.removed = VecDeque::new(); // what it grew to is not counted any more
        }
        reader.removed_bytes -= removed_bytes(&key);
        self.removed_bytes -= removed_bytes(&key);
        Some(key)
    }
}

/// Encodings. They are kept as long as nothing else needs the room, since they can be made again.
impl<F: GivesWay> FlowState<F> {
    /// The newest message is taken by all at this moment, and the replay gives way to its encodings:
    /// each session would have to make one of its own.
    pub(crate) fn make_room_for_encoding(
        &mut self,
        number: u64,
        bytes: usize,
        options: &FlowOptions,
    ) -> bool {
        let Some((found, emission)) = self.log.at(number) else { return false };
        // All take the newest at this moment: without its encoding each of thousands would make one.
        let is_newest = number + 1 == self.log.next_number();
        if found != number || emission.bytes().saturating_add(bytes) > options.max_bytes {
            return false;
        }
        let limit = self.limit(bytes, options, FlowPool::make_room_for_encoding);
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

    /// The first encoding of that message is kept.
    pub(crate) fn note_encoded(&mut self, number: u64) {
        // Numbers of entries that are gone stay until there are as many again: constant cost on average.
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
impl<F: GivesWay> FlowState<F> {
    /// What it would give up.
    pub(crate) fn gives(&self) -> Gives {
        match (self.encoded.is_empty(), self.log.subscribers()) {
            (false, _) => Gives::Encodings,
            (true, 0) => Gives::All,
            (true, _) => Gives::Replay,
        }
    }

    /// How many messages were given up.
    pub(crate) fn give_way(
        &mut self,
        pool: &FlowPool<F>,
        gives: Gives,
        is_short: impl Fn() -> bool,
    ) -> u64 {
        let mut messages = 0;
        while is_short() {
            let before = self.log.bytes();
            if gives == Gives::Encodings {
                if !self.drop_encodings() {
                    break;
                }
            } else if self.log.len() > 0 && !self.log.oldest_is_awaited() {
                self.drop_oldest();
                messages += 1;
            } else {
                break;
            }
            // At each step, since `is_short` looks at the account.
            pool.account(before, self.log.bytes());
        }
        messages
    }
}

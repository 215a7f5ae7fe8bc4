//! What is sent again of flows of newest values: what a broker that is back may not have, what was on its way
//! when the last connection ended, and what there was no room for.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::ServerRef;

use crate::keys::place_of;
use crate::link::Inner;
use crate::link_state::{Gathered, State};
use crate::numbers::{Number, Verdict};
use crate::share::Share;

/// Where a broker has shown more kept values than these, some may have been dropped on the way: brokers queue
/// 1,000 for a client, unless they are told otherwise.
const SHOWN_MAX: usize = 500;

/// Keys of one flow of which something is to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// In their order.
    keys: Vec<(Rc<str>, What)>,
    /// Removals that the broker is not known to have read: up to what of all that was sent, and the key. The
    /// flow does not know these keys any more; the window bounds how many there are.
    removals: VecDeque<(u64, Rc<str>)>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Value,
    Removal,
}

/// A key with its place, and its counters where nobody else has it.
fn key_bytes(key: &str) -> usize {
    key.len() + 2 * size_of::<usize>() + 2 * size_of::<(Rc<str>, What)>()
}

impl Again {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, key: Rc<str>, what: What) {
        match place_of(&self.keys, &*key) {
            Ok(place) => self.keys[place].1 = what,
            Err(place) => {
                self.bytes += key_bytes(&key);
                self.keys.insert(place, (key, what));
            }
        }
    }

    /// Something newer was said of the key.
    pub(crate) fn cancel(&mut self, key: &str) {
        if let Ok(place) = place_of(&self.keys, key) {
            self.keys.remove(place);
            self.bytes -= key_bytes(key);
        }
    }

    fn pop(&mut self) -> Option<(Rc<str>, What)> {
        let (key, what) = self.keys.pop()?;
        self.bytes -= key_bytes(&key);
        Some((key, what))
    }

    /// A removal is on its way: the broker has read it with what ends there.
    pub(crate) fn note_removal(&mut self, end: u64, key: Rc<str>) {
        self.bytes += key_bytes(&key);
        self.removals.push_back((end, key));
    }

    /// The broker has read what ends there.
    fn confirm(&mut self, read: u64) {
        while self.removals.front().is_some_and(|(end, _)| *end <= read) {
            let read = self.removals.pop_front();
            self.bytes -= read.map_or(0, |(_, key)| key_bytes(&key));
        }
    }

    /// What ends behind that was lost on its way.
    fn lose_removals(&mut self, sent: u64) {
        while self.removals.back().is_some_and(|(end, _)| *end > sent) {
            let Some((_, key)) = self.removals.pop_back() else { return };
            self.bytes -= key_bytes(&key);
            self.insert(key, What::Removal);
        }
    }
}

impl Share {
    /// The broker brings what this link has said of a key itself, in the order that holds for all: whether it
    /// stands again where another's word came between. The last that was sent need not be sent again.
    pub(crate) fn hear_own(&mut self, key: &str, number: Number, connection: u64) -> Verdict {
        match self.others.hear_own(key, number, connection) {
            // What was said here since comes behind it.
            Ordering::Greater if self.reader.is_some_and(|it| self.flow.is_from(it, key)) => {
                return Verdict::Take { missed: 0 };
            }
            Ordering::Equal => self.again.cancel(key),
            _ => {}
        }
        Verdict::Drop
    }

    /// What others had said and the broker does not show any more was removed while this box was away.
    fn forget_unseen(&mut self, connection: u64) {
        let Self { flow, others, reader: Some(reader), is_latest: true, .. } = self else { return };
        flow.for_each_key(&mut |key| {
            if others.is_unseen(&key, connection) && flow.take_back(*reader, &key) {
                others.forget(&key); // so that it is taken if the broker shows it after all
            }
        });
    }

    /// Notes what the broker at the end of that connection may not have. What others have said is theirs to
    /// send again.
    fn note_unknown(&mut self, connection: u64) {
        let Self { flow, others, again, is_latest, .. } = self;
        if !*is_latest {
            return;
        }
        flow.for_each_key(&mut |key| {
            if others.is_unknown(&key, connection) {
                again.insert(key, What::Value);
            }
        });
    }
}

impl State {
    /// Packets of what is to be sent again, as many as make a piece and have room, and of which share.
    fn gather_again(&mut self) -> Option<(usize, Gathered)> {
        if !self.is_up || self.is_joining {
            return None;
        }
        let place = self.shares.iter().position(|share| !share.again.keys.is_empty())?;
        let before = self.bytes_of(place);
        let mut gathered = Gathered::default();
        while !self.is_full(&gathered) {
            let Some(share) = self.shares.get_mut(place) else { break };
            let Some((key, what)) = share.again.pop() else { break };
            match (what, share.flow.newest_of(&key)) {
                (What::Value, Some(value)) => {
                    self.add(place, Some(&key), 0, value.as_message(), &mut gathered);
                }
                (What::Removal, None) => self.remove(place, key, &mut gathered),
                // It has given way to newer ones of others, or was published anew.
                _ => {}
            }
        }
        self.account(place, before);
        Some((place, gathered))
    }

    /// What was gathered of a share could not be sent after all. What of it is the newest of its key is sent
    /// again once there is room.
    pub(crate) fn lose_gathered(&mut self, place: usize, gathered: &Gathered) {
        self.count_dropped(gathered.messages);
        for id in &gathered.ids {
            self.awaited.remove(id); // nobody would ever acknowledge them
        }
        let (sent, connection) = (self.window.sent(), self.counts.connections);
        self.change(place, |share| {
            share.again.lose_removals(sent);
            gathered.keys.iter().for_each(|name| share.others.note_lost(*name));
            share.note_unknown(connection);
        });
    }

    /// The connection is over: what it had on its way may be lost.
    pub(crate) fn lose_removals(&mut self) {
        for place in 0..self.shares.len() {
            self.change(place, |share| share.again.lose_removals(0));
        }
    }

    /// The broker has read what was sent before its last answer.
    fn confirm_removals(&mut self) {
        let read = self.window.read();
        for place in 0..self.shares.len() {
            self.change(place, |share| share.again.confirm(read));
        }
    }
}

/// A broker that is back brings what it has kept first: what another box has said meanwhile is newer than
/// what this one said before, and is not to be replaced by it. It answers a ping behind that; where more is
/// kept than it sends without being acknowledged, behind a part of it, so that it is asked until an answer
/// comes alone.
impl Inner {
    /// The broker has taken this box.
    pub(crate) fn begin_to_join(&self, server: &mut ServerRef<'_>) {
        {
            let state = &mut *self.state.borrow_mut();
            state.is_joining = state.shares_latest();
            if !state.is_joining || state.window.asked_at().is_some() {
                return;
            }
        }
        self.ask(server);
    }

    /// The broker has answered a ping: whether it is to be asked at once, and whether this was no more than a
    /// part of the beginning.
    pub(crate) fn answered(&self, now: Duration) -> (bool, bool) {
        let state = &mut *self.state.borrow_mut();
        let (was_asked, was_joining) = (state.window.answered(), state.is_joining);
        state.confirm_removals();
        let mut asks = state.window.is_to_ask();
        if was_asked && was_joining {
            state.is_joining = std::mem::take(&mut state.has_kept);
            asks |= state.is_joining;
            if !state.is_joining {
                let connection = state.counts.connections;
                let shows_all = state.kept_values <= SHOWN_MAX;
                for place in 0..state.shares.len() {
                    state.change(place, |share| {
                        if shows_all && !share.is_refused() {
                            share.forget_unseen(connection);
                        }
                        share.note_unknown(connection);
                    });
                }
            }
        }
        if asks {
            state.window.ask(now);
        }
        (asks, was_joining)
    }

    /// Sends again what there is room for.
    pub(crate) fn send_again(&self, server: &mut ServerRef<'_>) {
        loop {
            let gathered = self.state.borrow_mut().gather_again();
            let Some((place, gathered)) = gathered.filter(|(_, it)| !it.out.is_empty()) else {
                break;
            };
            if !self.send_gathered(server, place, gathered) {
                return; // the next answer of the broker has it tried again
            }
        }
        self.ask_if_due(server);
    }
}

//! The place of one subscriber in a flow: its cursor, and what it has missed.

use std::fmt;
use std::rc::Rc;

use crate::flow::emission::{Emission, Origin};
use crate::flow::inner::{FlowInner, Flows, Joined, Member};
use crate::flow::published::Published;
use crate::structures::ids::SessionId;

/// What a session wants of a flow.
pub(crate) enum Filter {
    All,
    /// What others than this session published.
    Others(SessionId),
    When(Box<Predicate>),
}

type Predicate = dyn Fn(&Published<'_>) -> bool;

/// A subscriber's place in one flow; dropping it leaves the flow.
pub(crate) struct Subscription {
    flow: Rc<FlowInner>,
    /// The number of the entry that it takes next.
    cursor: u64,
    /// How many the flow had skipped when it joined, or last counted those.
    skipped: u64,
    place: u32,
    /// Where the messages that were there when it joined have gaps between them, how many of them it
    /// has not come past.
    gappy_replay: u32,
    /// The number of the first message behind those.
    replay_end: u64,
    filter: Filter,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.flow.leave(self.cursor, self.place);
    }
}

impl Subscription {
    pub(crate) fn new(
        flow: &Rc<FlowInner>,
        filter: Filter,
        pool: &Rc<Flows>,
        member: Member,
        behind_own: Option<u64>,
    ) -> Self {
        let Joined { cursor, place, skipped, gappy_replay: (gappy_replay, replay_end) } =
            flow.join(pool, member, behind_own);
        Self { flow: Rc::clone(flow), cursor, skipped, place, gappy_replay, replay_end, filter }
    }

    pub(crate) fn is_of(&self, flow: &Rc<FlowInner>) -> bool {
        Rc::ptr_eq(&self.flow, flow)
    }

    pub(crate) fn flow(&self) -> &Rc<FlowInner> {
        &self.flow
    }

    /// What comes at or after `cursor`, with its number.
    #[inline]
    pub(crate) fn at(&self, cursor: u64) -> Option<(u64, Emission)> {
        self.flow.next(cursor)
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The stamp of what it takes next.
    pub(crate) fn next_stamp(&self) -> Option<u64> {
        self.flow.next_stamp(self.cursor)
    }

    /// How many messages were dropped or replaced since the last that was taken, and have never come to the
    /// flow; of a replay with gaps that is known behind its end.
    pub(crate) fn missed_since(&self) -> u64 {
        self.missed_before(self.flow.next_number(self.cursor)) + self.skipped()
    }

    /// How many messages have never come to the flow, since it last counted those.
    pub(crate) fn skipped(&self) -> u64 {
        // A difference of two counters, so that a delivery has nothing to do with it.
        self.flow.skipped() - self.skipped
    }

    /// So many of those that never came are counted, or are nothing that it has missed.
    pub(crate) fn count_skipped(&mut self, skipped: u64) {
        self.skipped += skipped;
    }

    pub(crate) fn missed_before(&self, number: u64) -> u64 {
        match self.gappy_replay {
            0 => number - self.cursor,
            _ if number < self.replay_end => 0, // what is missing may have been gone before it came
            lost => number - self.replay_end.max(self.cursor) + u64::from(lost),
        }
    }

    /// How many messages it will not get if it gets nothing more of what has a stamp below `before`.
    pub(crate) fn undelivered(&self, before: u64) -> u64 {
        // The cursor stays: nothing is taken, and what is there may still be counted in other ways.
        let mut cursor = self.cursor;
        let mut count = 0;
        while let Some((number, emission)) = self.flow.next(cursor) {
            if emission.stamp >= before {
                break;
            }
            // What its filter leaves out it does not miss.
            count += u64::from(self.wants(&emission));
            cursor = number + 1;
        }
        count
    }

    /// Whether there is something before `number` that it has not taken.
    pub(crate) fn is_before(&self, number: u64) -> bool {
        self.flow.next_number(self.cursor) < number
    }

    /// Takes what comes next, if nothing follows it and nobody has to be asked whether it is wanted. `None`,
    /// and nothing is taken, in all other cases; see [`FlowInner::take_only_one`].
    #[inline]
    pub(crate) fn take_only_one(&mut self, key: Option<u64>, limit: usize) -> Option<Rc<[u8]>> {
        // A replay with gaps is counted as it is passed.
        if !matches!(self.filter, Filter::All) || self.gappy_replay > 0 {
            return None;
        }
        let frame = self.flow.take_only_one(self.cursor, key, limit)?;
        self.cursor += 1;
        Some(frame)
    }

    /// Whether the session wants it. The flow is not borrowed: a filter may use it.
    #[inline]
    pub(crate) fn wants(&self, emission: &Emission) -> bool {
        match &self.filter {
            Filter::All => true,
            Filter::Others(own) => emission.origin != Origin::Session(*own),
            Filter::When(filter) => filter(&Published::new(emission)),
        }
    }

    /// Goes past the entry of that number; how many before it were lost.
    pub(crate) fn pass(&mut self, number: u64) -> u64 {
        let from = self.cursor;
        // Numbers without an entry were dropped or replaced: those it has missed.
        let mut missed = number - from;
        self.cursor = number + 1;
        if self.gappy_replay > 0 {
            missed = self.pass_replay(from, number);
        }
        // The log counts who stands where, and gives up what nobody awaits any more.
        self.flow.advance(from, self.cursor);
        missed
    }

    /// Goes past all that there was before `end`, none of which is left.
    pub(crate) fn pass_all(&mut self, end: u64) {
        let from = std::mem::replace(&mut self.cursor, end);
        // What is left of the replay is nothing that could be counted once more.
        self.gappy_replay = 0;
        self.flow.advance(from, end);
    }

    #[cold]
    fn pass_replay(&mut self, from: u64, number: u64) -> u64 {
        self.cursor = from;
        let missed = self.missed_before(number);
        self.cursor = number + 1;
        if number >= self.replay_end {
            self.gappy_replay = 0;
        } else {
            self.gappy_replay -= 1;
            if self.gappy_replay == 0 {
                self.cursor = self.cursor.max(self.replay_end); // the gaps are nothing that it missed
            }
        }
        missed
    }
}

//! What everybody in a simulation knows and notes: what may happen in the run, what each session was told,
//! and how often each thing was met.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::context::stats::Stats;
use crate::flow::shared_flow::SharedFlow;
use crate::structures::ids::TimerId;
use crate::words::close::CloseInfo;
use crate::words::time::Time;

use super::choices::Choices;
use super::deferrals::Deferrals;
#[cfg(test)]
use super::loops::LoopTally;
use super::losses::{Fault, GivenUp, LossCounts};
use super::sequence::Sequence;

/// What may happen in a run: a swarm of runs in which each thing is left out of half of them finds
/// more than runs that are all alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mood {
    pub(crate) faults: bool,
    pub(crate) malformed: bool,
    pub(crate) junk: bool,
    pub(crate) jumps: bool,
    /// Some clients read little for a while, then all, by turns.
    pub(crate) laggards: bool,
    pub(crate) big: bool,
    /// Times may be so short that little can happen before they are over.
    pub(crate) hurries: bool,
    pub(crate) closes: bool,
    pub(super) aborts: bool,
    pub(super) errors: bool,
    pub(super) panics: bool,
    pub(super) options: bool,
    pub(super) fragments: bool,
    pub(super) flows: bool,
    /// The server compresses, and clients ask for it.
    pub(crate) deflate: bool,
    /// Pauses, timers, commands to others, a stop out of a hook.
    pub(super) reaches: bool,
    /// Connections have buffers, and most clients read at a pace of their own.
    pub(crate) buffers: bool,
    /// A long life, in which clients are well-behaved.
    pub(crate) is_long: bool,
    /// Those clients read slowly, and never stop.
    pub(crate) is_slow: bool,
}

impl Mood {
    pub(crate) fn draw(choices: &mut Choices) -> Self {
        let scripted = matches!(choices, Choices::Script { .. });
        let mut heads = || choices.one_in(2);
        Self {
            faults: heads(),
            malformed: heads(),
            junk: heads(),
            jumps: heads(),
            laggards: heads(),
            big: heads(),
            hurries: heads(),
            closes: heads(),
            aborts: heads(),
            errors: heads(),
            // A fuzzer takes every panic for a finding, caught or not.
            panics: heads() && !scripted,
            options: heads(),
            fragments: heads(),
            flows: heads(),
            deflate: heads(),
            reaches: heads(),
            buffers: heads(),
            is_long: false,
            is_slow: false,
        }
    }
}

impl Mood {
    /// Whether `dropped()` may count more than whole messages of the session's own.
    pub(super) fn has_other_drops(self) -> bool {
        self.reaches
    }

    /// Whether sessions may be left unread.
    pub(super) fn has_pauses(self) -> bool {
        self.reaches || self.flows
    }

    /// Whether whoever receives may be slow to do so, or be kept from it by its application.
    #[cfg(feature = "client")]
    pub(super) fn may_be_slow(self) -> bool {
        self.reaches || self.buffers || self.flows || self.faults
    }

    /// For a long life: nothing in it ends a session before it has said much.
    pub(crate) fn calmed(self) -> Self {
        Self {
            faults: false,
            malformed: false,
            junk: false,
            jumps: false,
            hurries: false,
            closes: false,
            aborts: false,
            errors: false,
            panics: false,
            is_long: true,
            ..self
        }
    }

    /// The same where what is sent waits for clients that take it slowly.
    pub(super) fn slowed(self) -> Self {
        let calm = self.calmed();
        Self { is_slow: true, buffers: true, big: true, reaches: true, laggards: false, ..calm }
    }
}

/// What everybody in a run knows.
pub(crate) struct World {
    pub(crate) choices: Choices,
    pub(crate) mood: Mood,
    /// By link.
    pub(crate) sessions: BTreeMap<usize, Log>,
    pub(crate) tally: Tally,
    pub(crate) max_message_size: usize,
    pub(crate) flow: SharedFlow,
    /// Readers of the flow, which read to the end.
    pub(super) readers: usize,
    /// Messages that the flow took.
    pub(crate) published: usize,
    /// Sessions are sent messages that are not their own, and count those that they cannot take.
    #[cfg_attr(
        not(feature = "client"),
        allow(dead_code, reason = "only those between two servers are")
    )]
    pub(super) prompted: bool,
    /// Messages may be dropped on the way to a slow client.
    pub(crate) drops: bool,
    /// The outbox's policy is to close when it is full.
    pub(crate) closes_when_full: bool,
    pub(crate) write_timeout: Duration,
    pub(crate) linger_timeout: Duration,
    /// How long a pause may take where the peer has shut its side.
    pub(super) patience: Duration,
    pub(crate) timeout: Duration,
    /// When the grace of a stop is over.
    pub(crate) stops_at: Option<Time>,
    /// Pages that were answered, by link.
    pub(crate) pages: BTreeMap<usize, usize>,
    /// Who published each message of the flow, if a session did.
    pub(crate) publishers: Vec<Option<usize>>,
    /// By link, bodies that were paused and not taken to their end.
    pub(super) given_up: BTreeMap<usize, GivenUp>,
    /// Answers that come later.
    pub(super) deferrals: Deferrals,
    /// Links whose clients sent what may be anything.
    pub(crate) spoiled: BTreeSet<usize>,
    /// What a handler saw that must not be.
    pub(crate) violations: Vec<String>,
    /// The time, for those to whom nobody says it.
    #[cfg_attr(
        not(feature = "client"),
        allow(dead_code, reason = "for sessions that are dialled")
    )]
    pub(crate) clock: Rc<Cell<Time>>,
    /// Of a server that is dialled, and of whoever dials it: what the other one knows.
    pub(crate) peer: Option<Weak<RefCell<Self>>>,
}

impl World {
    /// Whether something has ended a session.
    pub(super) fn has_failed(&self, session: usize) -> bool {
        self.sessions.get(&session).is_some_and(|log| log.fault.is_some())
    }

    /// A stop was asked for: the shorter grace counts.
    pub(crate) fn note_stop(&mut self, ends: Time) {
        self.stops_at = Some(self.stops_at.map_or(ends, |earlier| earlier.min(ends)));
    }
}

/// How often something was met that a simulation must not pass by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) steps: usize,
    /// Compressed messages of clients that were delivered.
    pub(crate) packed_in: usize,
    /// Compressed messages of sessions that clients inflated.
    pub(crate) packed_out: usize,
    /// Messages of the flow that came compressed to one client and plain to another.
    pub(crate) packed_of_flow: usize,
    pub(crate) plain_of_flow: usize,
    /// Sessions with the extension that ended with what is too big, and with what is corrupt.
    pub(crate) too_big: usize,
    pub(crate) corrupt: usize,
    /// Frames that a raw session sent back.
    pub(crate) mirrored: usize,
    /// Messages that came in several pieces, and those that were taken as streams.
    pub(crate) in_pieces: usize,
    pub(crate) streamed: usize,
    /// Messages of sessions that arrived, and the most of one session.
    pub(crate) arrived: usize,
    pub(crate) longest: usize,
    /// Connections on which something was lost, by reason.
    pub(crate) losses: LossCounts,
    /// Deferred answers that were given, dropped, late, and for nobody.
    pub(crate) deferred: [u64; 4],
    /// Events that arrived.
    pub(crate) events: usize,
    /// Messages of the flow that came to sessions which collect only some.
    pub(crate) filtered: usize,
    /// Messages that readers of the flow took, and that they missed.
    pub(crate) read: usize,
    pub(crate) unread: usize,
    /// Sessions that were dialled, attempts that failed, and news that arrived.
    pub(crate) dialled: usize,
    pub(crate) failed: usize,
    pub(crate) news: usize,
    /// Sessions between two servers of this code, and those of them that have lost something, by reason.
    pub(crate) between: usize,
    pub(crate) between_losses: LossCounts,
    /// What servers with several loops have had.
    #[cfg(test)]
    pub(crate) loops: LoopTally,
}

impl Tally {
    pub(super) fn note_deferred(&mut self, stats: &Stats) {
        self.deferred = [
            stats.deferred_answered,
            stats.deferred_dropped,
            stats.deferred_late,
            stats.deferred_cancelled,
        ];
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.packed_in += other.packed_in;
        self.packed_out += other.packed_out;
        self.packed_of_flow += other.packed_of_flow;
        self.plain_of_flow += other.plain_of_flow;
        self.too_big += other.too_big;
        self.corrupt += other.corrupt;
        self.mirrored += other.mirrored;
        self.in_pieces += other.in_pieces;
        self.streamed += other.streamed;
        self.arrived += other.arrived;
        self.longest = self.longest.max(other.longest);
        self.losses += other.losses;
        self.deferred.iter_mut().zip(other.deferred).for_each(|(count, more)| *count += more);
        self.events += other.events;
        self.filtered += other.filtered;
        self.read += other.read;
        self.unread += other.unread;
        self.dialled += other.dialled;
        self.failed += other.failed;
        self.news += other.news;
        self.between += other.between;
        self.between_losses += other.between_losses;
        #[cfg(test)]
        {
            self.loops += other.loops;
        }
    }
}

/// What happened to one session, as its handler was told.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) connected: bool,
    pub(super) errors: u32,
    pub(crate) end: Option<CloseInfo>,
    /// Messages of the client that were delivered.
    pub(super) received: usize,
    /// The lengths of the messages that `send` took.
    pub(crate) sent: Vec<usize>,
    /// Some of them as streams.
    pub(crate) streams: bool,
    /// The length so far of a message that is sent in fragments.
    pub(super) open: Option<usize>,
    pub(super) known_end: Option<CloseInfo>,
    pub(super) timers: Vec<TimerId>,
    /// It left the flow, and may have come back.
    pub(crate) collects_anew: bool,
    /// What it collects of the flow.
    pub(crate) wants: Option<Wants>,
    pub(crate) aborted: bool,
    pub(crate) fault: Option<Fault>,
    /// Messages that `dropped()` says were dropped.
    pub(crate) dropped: usize,
    /// How long it waits for a pong at present.
    pub(crate) timeout: Duration,
    /// What has come from another server of this code.
    pub(crate) heard: Sequence,
    /// Its slot, while it is open.
    pub(crate) slot: u32,
    /// It was dialled, or accepted, and something happened to its connection.
    #[cfg_attr(
        not(feature = "client"),
        allow(dead_code, reason = "for sessions that are dialled")
    )]
    pub(crate) disturbed: bool,
    /// Its server was killed, so that it never had an end.
    #[cfg_attr(
        not(feature = "client"),
        allow(dead_code, reason = "for sessions that are dialled")
    )]
    pub(crate) killed: bool,
}

/// What a session collects of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    All,
    /// What others publish.
    Others,
    /// What has an even number.
    Even,
}

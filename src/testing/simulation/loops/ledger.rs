//! The books of a server with several loops: who has published what, who has got what of it, and what must
//! hold between the two.

use std::collections::BTreeMap;

use crate::core::deferring::Pending;
use crate::flow::options::BufferOverflow;
use crate::structures::ids::SessionId;

use crate::testing::simulation::choices::Choices;

/// Names a client, and its session: its port.
pub(super) type Port = u16;

/// Who publishes: a session, or the application on a loop.
pub(super) type Publisher = u16;

/// The application on the first loop, as a publisher; the others follow.
pub(super) const APPLICATION: Publisher = 60_000;

/// All that is known, on whichever loop it happens.
pub(super) struct Ledger {
    pub(super) choices: Choices,
    /// Memory is no reason for anything.
    pub(super) is_ample: bool,
    pub(super) flows: Vec<FlowBook>,
    pub(super) members: BTreeMap<Port, MemberBook>,
    /// Messages from one session to another: how many were taken, and how many have arrived.
    pub(super) directs: BTreeMap<(Port, Port), (u64, u64)>,
    /// Questions, by their numbers: how often each was settled.
    pub(super) questions: BTreeMap<u64, u32>,
    /// Answers that were deferred and are still to be given.
    pub(super) deferred: Vec<Pending>,
    /// Who has a name.
    pub(super) names: BTreeMap<&'static str, Port>,
    /// Sessions that others have paused.
    pub(super) paused: Vec<SessionId>,
    /// A stop was asked for.
    pub(super) stops: bool,
    pub(super) tally: LoopTally,
    pub(super) violations: Vec<String>,
}

/// What was published in one flow.
pub(super) struct FlowBook {
    pub(super) policy: BufferOverflow,
    /// Its keys all have room.
    pub(super) keeps_all_keys: bool,
    pub(super) published: BTreeMap<Publisher, u64>,
    pub(super) total: u64,
    /// Messages that a log has dropped the moment they were published, by loop: they never were.
    pub(super) dropped_at_once: Vec<u64>,
    /// What each key was set to last, and that it was removed.
    pub(super) newest: BTreeMap<String, Option<String>>,
}

/// One session.
pub(super) struct MemberBook {
    pub(super) id: SessionId,
    pub(super) number: usize,
    pub(super) is_over: bool,
    /// It has left a flow: what it gets is no matter of the books any more.
    pub(super) has_left: bool,
    pub(super) missed: Option<u64>,
    pub(super) collected: BTreeMap<usize, CollectedBook>,
}

/// What one session collects of one flow.
pub(super) struct CollectedBook {
    /// What each publisher had published when it began.
    before: BTreeMap<Publisher, u64>,
    total_before: u64,
    /// What of that it could still get.
    pub(super) owed_before: u64,
    /// What its loop had dropped for all of what others have published.
    pub(super) dropped_before: u64,
    /// The number after the last that has come from each publisher.
    next: BTreeMap<Publisher, u64>,
    pub(super) heard: u64,
}

/// How often something was met that the simulation must not pass by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoopTally {
    pub(crate) lives: usize,
    pub(crate) turns: usize,
    pub(crate) sessions: usize,
    /// Sessions that the first loop has handed to another.
    pub(crate) handed_over: usize,
    /// Messages of a flow that came from another loop's publisher.
    pub(crate) crossed: usize,
    pub(crate) missed: u64,
    /// Publishers that were not read because of a subscriber.
    pub(crate) suspended: usize,
    /// Messages to sessions of other loops, questions and their answers.
    pub(crate) directs: usize,
    pub(crate) answers: usize,
    pub(crate) unanswered: usize,
    /// Connections over a limit.
    pub(crate) refused: usize,
    /// Times that all was quiet, and every book was closed.
    pub(crate) audits: usize,
    /// The most messages of a flow that were on their way from one loop to another.
    pub(crate) most_on_the_way: usize,
}

impl std::ops::AddAssign for LoopTally {
    fn add_assign(&mut self, other: Self) {
        self.lives += other.lives;
        self.turns += other.turns;
        self.sessions += other.sessions;
        self.handed_over += other.handed_over;
        self.crossed += other.crossed;
        self.missed += other.missed;
        self.suspended += other.suspended;
        self.directs += other.directs;
        self.answers += other.answers;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.audits += other.audits;
        self.most_on_the_way = self.most_on_the_way.max(other.most_on_the_way);
    }
}

impl LoopTally {
    /// What never happened, of what always has to.
    pub(crate) fn passed_by(&self) -> Option<&'static str> {
        let met = [
            ("sessions were handed over", self.handed_over),
            ("messages crossed loops", self.crossed),
            ("messages were missed", usize::try_from(self.missed).unwrap_or(usize::MAX)),
            ("publishers were suspended", self.suspended),
            ("sessions were sent something", self.directs),
            ("questions were answered", self.answers),
            ("questions were not answered", self.unanswered),
            ("connections were refused", self.refused),
            ("the books were closed", self.audits),
            ("much was on its way at once", self.most_on_the_way / 32),
        ];
        met.into_iter().find(|(_, count)| *count == 0).map(|(what, _)| what)
    }
}

impl FlowBook {
    pub(super) fn new(policy: BufferOverflow, keeps_all_keys: bool, loops: usize) -> Self {
        Self {
            policy,
            keeps_all_keys,
            published: BTreeMap::new(),
            total: 0,
            dropped_at_once: vec![0; loops],
            newest: BTreeMap::new(),
        }
    }

    /// The number of a publisher's next message.
    pub(super) fn next_of(&self, publisher: Publisher) -> u64 {
        self.published.get(&publisher).copied().unwrap_or(0)
    }

    pub(super) fn note_published(&mut self, publisher: Publisher) {
        *self.published.entry(publisher).or_default() += 1;
        self.total += 1;
    }
}

impl CollectedBook {
    pub(super) fn new(flow: &FlowBook, owed_before: u64, dropped_before: u64) -> Self {
        Self {
            before: flow.published.clone(),
            total_before: flow.total,
            owed_before,
            dropped_before,
            next: BTreeMap::new(),
            heard: 0,
        }
    }

    /// How many messages it has to have got or missed by now.
    pub(super) fn owed(&self, flow: &FlowBook) -> u64 {
        self.owed_before + flow.total - self.total_before
    }

    fn take(&mut self, publisher: Publisher, number: u64, is_lossless: bool) -> Result<(), String> {
        let before = self.before.get(&publisher).copied().unwrap_or(0);
        let next = self.next.insert(publisher, number + 1);
        self.heard += 1;
        match next {
            Some(next) if number < next => Err(format!("{number} of {publisher} after {next}")),
            Some(next) if is_lossless && number > next => {
                Err(format!("{number} of {publisher}, not {next}"))
            }
            // What it is replayed may begin anywhere, but what was published since comes from the first on.
            None if is_lossless && number > before => {
                Err(format!("{number} of {publisher} is the first, {before} were before it"))
            }
            _ => Ok(()),
        }
    }
}

impl Ledger {
    pub(super) fn new(choices: Choices, is_ample: bool, flows: Vec<FlowBook>) -> Self {
        Self {
            choices,
            is_ample,
            flows,
            members: BTreeMap::new(),
            directs: BTreeMap::new(),
            questions: BTreeMap::new(),
            deferred: Vec::new(),
            names: BTreeMap::new(),
            paused: Vec::new(),
            stops: false,
            tally: LoopTally { lives: 1, ..LoopTally::default() },
            violations: Vec::new(),
        }
    }

    /// A session that is open, if there is one.
    pub(super) fn pick_member(&mut self) -> Option<(Port, SessionId)> {
        let open: Vec<_> = self.members.iter().filter(|(_, member)| !member.is_over).collect();
        let (port, member) = open.get(self.choices.size_below(open.len()))?;
        Some((**port, member.id))
    }

    /// A message has arrived at a client.
    pub(super) fn take(&mut self, port: Port, text: &str) -> Result<(), String> {
        let fault = |what: &str| format!("client {port}: {what} in {text:?}");
        if text == "room" {
            return Ok(()); // of one that comes and goes
        }
        let mut parts = text.get(1..).unwrap_or_default().splitn(4, ':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (first, second, third) = (number(), number(), number());
        match (text.as_bytes().first(), first, second, third) {
            (Some(b'f'), Some(flow), Some(publisher), Some(number)) => self
                .take_of_flow(port, flow, publisher, number)
                .map_err(|what| format!("client {port}: {what} of flow {flow}")),
            (Some(b'd'), Some(from), Some(number), None) => {
                let from = Port::try_from(from).map_err(|_| fault("no sender"))?;
                let (taken, arrived) = self.directs.entry((from, port)).or_default();
                if number < *arrived || number >= *taken {
                    return Err(fault("a number that is not the next"));
                }
                *arrived = number + 1;
                Ok(())
            }
            _ => Err(fault("nothing known")),
        }
    }

    fn take_of_flow(&mut self, port: Port, flow: u64, from: u64, n: u64) -> Result<(), String> {
        let (flow, publisher) = (usize::try_from(flow).ok(), Publisher::try_from(from).ok());
        let (Some(flow), Some(publisher)) = (flow, publisher) else { return Err("no flow".into()) };
        let policy = self.flows.get(flow).map(|book| book.policy);
        let from = match publisher.checked_sub(APPLICATION) {
            Some(number) => Some(usize::from(number)),
            None => self.members.get(&publisher).map(|member| member.number),
        };
        let Some(member) = self.members.get_mut(&port) else { return Err("no session".into()) };
        self.tally.crossed += usize::from(from != Some(member.number));
        let is_lossless = policy == Some(BufferOverflow::Suspend);
        if member.has_left {
            return Ok(()); // it may have come back, and begun again with the replay
        }
        match member.collected.get_mut(&flow) {
            Some(collected) => collected.take(publisher, n, is_lossless),
            None => Err("it does not collect that".into()),
        }
    }
}

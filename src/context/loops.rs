//! The loops of one server as they know each other: how each is reached, how much each has to do, and what is
//! one for all of them. `A` is what is run on a loop.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::structures::slab::{GenerationBits, Key};

use crate::context::adoptions::Adopted;
use crate::context::clients::Clients;
use crate::context::commands::Refused;
use crate::context::mailbox::Mailbox;
use crate::context::parcels::{Content, Parcel};
use crate::context::stats::Stats;

/// The most loops of a server.
pub(crate) const LOOPS_MAX: usize = 64;

/// Connections that may be on their way to a loop before accepting pauses, so that whoever comes waits in
/// the system's backlog as it does with one loop.
const ON_THEIR_WAY_MAX: usize = 64;

/// What all loops of a server share.
struct Loops<A> {
    mailboxes: Vec<Mailbox<A>>,
    /// Connections of each loop, those on their way to it included.
    loads: Vec<AtomicUsize>,
    /// The sum of the loads. Only the first loop adds to it, so that it is never over a limit.
    connections: AtomicUsize,
    /// What each had counted when its last turn was over.
    published: Vec<Mutex<Stats>>,
    clients: Arc<Mutex<Clients>>,
    /// The names of sessions.
    names: Mutex<HashMap<Arc<str>, Key>>,
    /// How many collect each flow that all of them have.
    subscriptions: Mutex<HashMap<Arc<str>, Arc<AtomicIsize>>>,
    holders: Mutex<Holders>,
}

/// Who has those flows that come and go.
#[derive(Default)]
struct Holders {
    /// On how many loops the application has each, and its number.
    by_name: HashMap<Arc<str>, (usize, u64)>,
    /// What was numbered last: once nobody has a flow, the next one of its name is another.
    last: u64,
}

/// One of several loops, and the way to the others.
pub(crate) struct Place<A> {
    loops: Arc<Loops<A>>,
    number: usize,
    own: Mailbox<A>,
}

impl<A> Clone for Place<A> {
    fn clone(&self) -> Self {
        Self { loops: Arc::clone(&self.loops), number: self.number, own: self.own.clone() }
    }
}

impl<A> fmt::Debug for Place<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loop {} of {}", self.number, self.count())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A> Place<A> {
    /// The places of a server whose loops are reached by these mailboxes, which are more than one.
    pub(crate) fn all(mailboxes: Vec<Mailbox<A>>) -> Vec<Self> {
        let count = mailboxes.len();
        let own = mailboxes.clone();
        let loops = Arc::new(Loops {
            loads: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            connections: AtomicUsize::new(0),
            published: (0..count).map(|_| Mutex::default()).collect(),
            clients: Arc::default(),
            names: Mutex::default(),
            subscriptions: Mutex::default(),
            holders: Mutex::default(),
            mailboxes,
        });
        let numbered = own.into_iter().enumerate();
        numbered.map(|(number, own)| Self { loops: Arc::clone(&loops), number, own }).collect()
    }

    /// Which loop this is, from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The loop that accepts.
    pub(crate) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// How many loops there are.
    pub(crate) fn count(&self) -> usize {
        self.loops.mailboxes.len()
    }

    /// The bits of generations that say whose a slot is.
    pub(crate) fn generation_bits(&self) -> GenerationBits {
        GenerationBits::of(self.number, self.count())
    }

    /// The mailbox of the loop that has a slot, if it is another.
    pub(crate) fn elsewhere(&self, key: Key) -> Option<&Mailbox<A>> {
        let number = self.generation_bits().owner(key.generation);
        self.loops.mailboxes.get(number).filter(|_| number != self.number)
    }

    /// The mailbox of the loop that has given a number: a generation, or the name of a flow.
    pub(crate) fn mailbox_of(&self, number: u32) -> Option<&Mailbox<A>> {
        self.loops.mailboxes.get(self.generation_bits().owner(number))
    }

    /// Tells the loops of one server from those of another.
    pub(crate) fn server(&self) -> usize {
        Arc::as_ptr(&self.loops).addr()
    }

    /// Its own mailbox.
    pub(crate) fn mailbox(&self) -> &Mailbox<A> {
        &self.own
    }

    /// All mailboxes, that of this loop too.
    pub(crate) fn mailboxes(&self) -> &[Mailbox<A>] {
        &self.loops.mailboxes
    }

    /// The mailbox of the loop that accepts.
    pub(crate) fn first(&self) -> Option<&Mailbox<A>> {
        self.loops.mailboxes.first()
    }

    /// The mailboxes of the other loops.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Mailbox<A>> {
        let all = self.loops.mailboxes.iter().enumerate();
        all.filter(|(number, _)| *number != self.number).map(|(_, mailbox)| mailbox)
    }

    /// The numbers of the other loops.
    pub(crate) fn other_numbers(&self) -> impl Iterator<Item = usize> + Clone + use<A> {
        let own = self.number;
        (0..self.count()).filter(move |number| *number != own)
    }

    /// Whether a loop is not over.
    pub(crate) fn is_there(&self, number: usize) -> bool {
        self.loops.mailboxes.get(number).is_some_and(|mailbox| !mailbox.is_closed())
    }

    /// Sends another loop a part of a flow; false if it is over.
    pub(crate) fn send(&self, number: usize, flow: &Arc<str>, content: Content<A>) -> bool {
        let parcel = Parcel { flow: Arc::clone(flow), from: self.number, content };
        self.loops.mailboxes.get(number).is_some_and(|mailbox| mailbox.send_parcel(parcel))
    }

    /// The count of those who collect a flow on any loop.
    pub(crate) fn subscriptions_of(&self, flow: &Arc<str>) -> Arc<AtomicIsize> {
        let mut all = locked(&self.loops.subscriptions);
        Arc::clone(all.entry(Arc::clone(flow)).or_default())
    }

    /// The application of this loop has the flow of that name from now on: its number.
    pub(crate) fn hold(&self, flow: &Arc<str>) -> u64 {
        let Holders { by_name, last } = &mut *locked(&self.loops.holders);
        let (count, number) = by_name.entry(Arc::clone(flow)).or_insert_with(|| {
            *last = last.saturating_add(1);
            (0, *last)
        });
        *count = count.saturating_add(1);
        *number
    }

    /// It needs it no more: its number, if no loop needs it any more. A flow of that name that comes later
    /// has a count of its own.
    pub(crate) fn let_go(&self, flow: &str) -> Option<u64> {
        let by_name = &mut locked(&self.loops.holders).by_name;
        let (count, number) = by_name.get_mut(flow)?;
        *count = count.saturating_sub(1);
        let ended = (*count == 0).then_some(*number);
        if ended.is_some() {
            by_name.remove(flow);
            locked(&self.loops.subscriptions).remove(flow);
        }
        ended
    }

    /// The number of that flow, if the application of some loop has it.
    pub(crate) fn held(&self, flow: &str) -> Option<u64> {
        locked(&self.loops.holders).by_name.get(flow).map(|(_, number)| *number)
    }

    /// Forgets the count of a flow that came to this loop behind its end.
    pub(crate) fn forget_count(&self, flow: &str) {
        let by_name = &locked(&self.loops.holders).by_name;
        if !by_name.contains_key(flow) {
            locked(&self.loops.subscriptions).remove(flow);
        }
    }

    pub(crate) fn clients(&self) -> Arc<Mutex<Clients>> {
        Arc::clone(&self.loops.clients)
    }
}

/// Connections, and which loop gets the next one.
impl<A> Place<A> {
    /// How many connections all loops have.
    pub(crate) fn connections(&self) -> usize {
        self.loops.connections.load(Ordering::Acquire)
    }

    /// The loop with the fewest connections, of those that can take one more; the first of several. Whether
    /// this one can take one, its caller says.
    pub(crate) fn least_loaded(&self, own_has_room: bool) -> Option<usize> {
        let has_room = |number: usize, mailbox: &Mailbox<A>| match number {
            _ if number == self.number => own_has_room,
            _ => mailbox.adoptions().len() < ON_THEIR_WAY_MAX,
        };
        let all = self.loops.mailboxes.iter().zip(&self.loops.loads).enumerate();
        let with_room = all.filter(|(number, (mailbox, _))| has_room(*number, mailbox));
        let least = with_room.min_by_key(|(_, (_, load))| load.load(Ordering::Relaxed));
        least.map(|(number, _)| number)
    }

    /// Counts a connection that a loop gets. Only the first loop does so.
    pub(crate) fn count_connection(&self, number: usize) {
        self.loops.connections.fetch_add(1, Ordering::AcqRel);
        if let Some(load) = self.loops.loads.get(number) {
            load.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands a connection to another loop.
    pub(crate) fn hand_over(&self, number: usize, adopted: Adopted) -> Result<(), Refused> {
        let mailbox = self.loops.mailboxes.get(number).ok_or(Refused::Stopped)?;
        mailbox.hand_over(adopted)
    }

    /// A connection of a loop is over. Whoever waits for room at the limit is woken.
    pub(crate) fn connection_ended(&self, number: usize, limit: usize) {
        if let Some(load) = self.loops.loads.get(number) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
        let before = self.loops.connections.fetch_sub(1, Ordering::AcqRel);
        if before >= limit {
            self.wake_first();
        }
    }

    /// This loop has taken a connection that was on its way, of so many.
    pub(crate) fn took_one_of(&self, waited: usize) {
        if waited >= ON_THEIR_WAY_MAX {
            self.wake_first();
        }
    }

    /// Has the loop that accepts look whether there is something to do.
    pub(crate) fn wake_first(&self) {
        if let Some(first) = self.first().filter(|_| !self.is_first()) {
            first.wake();
        }
    }
}

/// What is known of all loops together.
impl<A> Place<A> {
    /// Says what this loop has counted.
    pub(crate) fn publish(&self, stats: Stats) {
        if let Some(place) = self.loops.published.get(self.number) {
            *locked(place) = stats;
        }
    }

    /// What all loops have said.
    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.loops.published.iter().for_each(|published| sum.add(&locked(published)));
        sum
    }

    /// Adds what the other loops had counted when their last turns were over.
    pub(crate) fn add_others(&self, stats: &mut Stats) {
        let all = self.loops.published.iter().enumerate();
        let others = all.filter(|(number, _)| *number != self.number);
        others.for_each(|(_, published)| stats.add(&locked(published)));
    }

    /// The session of that name, on whichever loop.
    pub(crate) fn find_name(&self, name: &str) -> Option<Key> {
        locked(&self.loops.names).get(name).copied()
    }

    /// Gives a session a name: who had it.
    pub(crate) fn give_name(&self, name: &str, session: Key) -> Option<Key> {
        locked(&self.loops.names).insert(name.into(), session)
    }

    /// Gives a session a name that no other session has: whether it has it now.
    pub(crate) fn claim_name(&self, name: &str, session: Key) -> bool {
        *locked(&self.loops.names).entry(name.into()).or_insert(session) == session
    }

    /// The session has the name no more, if it had it still.
    pub(crate) fn drop_name(&self, name: &str, session: Key) {
        let mut names = locked(&self.loops.names);
        if names.get(name) == Some(&session) {
            names.remove(name);
        }
        // What many had once is not kept for ever.
        if names.is_empty() {
            *names = HashMap::new();
        }
    }
}

//! Connections whose first request head is awaited, and which of them goes when there are too many.
//!
//! Over the limit, the client that has most of them pays: its oldest connection goes, so that one
//! client with many silent connections cannot keep others out. Nobody is ended before a minimum age:
//! after a restart of the server everybody comes at once, and all of them are honest.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::structures::slab::{Key, Slab};
use crate::words::limits::OVER_LIMIT_MAX;
use crate::words::network::ClientKey;
use crate::words::time::Time;

use crate::core::connection::Connection;

/// Connections without a complete first head.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Oldest first; may name some that are past that.
    queue: VecDeque<Waiting>,
    /// How many connections are in fact without one.
    count: usize,
    limit: usize,
    /// Who has how many. Kept only from when the limit is reached until half of them have gone, so
    /// that it costs nothing while there is no need, and making it is paid for by those who came.
    crowd: Option<Crowd>,
}

/// One of them, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) key: Key,
    pub(crate) since: Time,
}

/// Who counts as one client here; `None` for peers without an address.
pub(crate) type ClientId = Option<ClientKey>;

/// Whose a connection is while its head is awaited.
pub(crate) fn client_of(connection: &Connection) -> ClientId {
    connection.state.client_key()
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self { queue: VecDeque::new(), count: 0, limit, crowd: None }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether one more is over the limit.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    /// Whether each has to be known by its client at present.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowd.is_some()
    }

    /// A connection begins to wait.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "connections are at most 2^30, limits too, and 2^31 + 16 fits 32 bits"
    )]
    pub(crate) fn enter(&mut self, connections: &Slab<Connection>, waiting: Waiting) {
        self.queue.push_back(waiting);
        self.count += 1;
        // Behind one slow peer the list could grow with every connection that came and went.
        if self.queue.len() > 2 * self.limit + OVER_LIMIT_MAX {
            // In amortised constant time: at least half of the list has gone.
            self.queue.retain(|it| client_waiting(connections, it.key).is_some());
        }
        if let Some(crowd) = &mut self.crowd {
            if let Some(client) = client_waiting(connections, waiting.key) {
                crowd.enter(client, waiting);
            }
        }
    }

    /// A connection of a client waits no longer.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "whoever leaves has entered, and was counted"
    )]
    pub(crate) fn leave(&mut self, connections: &Slab<Connection>, client: ClientId) {
        self.count -= 1;
        // Not at the limit itself, around which the table would be built anew for every connection.
        if self.count <= self.limit / 2 {
            self.crowd = None;
        } else if let Some(crowd) = &mut self.crowd {
            crowd.leave(connections, client);
        }
        // Those further behind stay until it is their turn: each is taken out once.
        while self.queue.front().is_some_and(|it| client_waiting(connections, it.key).is_none()) {
            self.queue.pop_front();
        }
    }

    /// A connection that waits turned out to be another client's.
    pub(crate) fn rename(
        &mut self,
        connections: &Slab<Connection>,
        before: ClientId,
        client: ClientId,
        waiting: Waiting,
    ) {
        if let Some(crowd) = &mut self.crowd {
            crowd.leave(connections, before);
            crowd.enter(client, waiting);
        }
    }

    /// Who is to go if somebody must: the oldest of the client that has most.
    pub(crate) fn first_to_go(&mut self, connections: &Slab<Connection>) -> Option<Waiting> {
        // Only now: while there is room for all, nobody has to know who has most.
        let crowd = self.crowd.get_or_insert_with(|| {
            let mut crowd = Crowd::default();
            for &waiting in &self.queue {
                if let Some(client) = client_waiting(connections, waiting.key) {
                    crowd.enter(client, waiting);
                }
            }
            crowd
        });
        crowd.first_to_go(connections)
    }

    #[cfg(all(repository, test))]
    pub(crate) fn listed(&self) -> usize {
        self.queue.len()
    }
}

/// The client of a connection that is still there and still waits.
fn client_waiting(connections: &Slab<Connection>, key: Key) -> Option<ClientId> {
    connections.get(key).filter(|found| found.is_pending()).map(client_of)
}

/// All who wait, by client.
#[derive(Debug, Default)]
struct Crowd {
    clients: HashMap<ClientId, Queue>,
    /// One for each client; the last is the one that has to give.
    ranks: BTreeSet<Rank>,
}

/// How much a client is in the way: by how many it has, and among equals by the age of its oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    count: usize,
    oldest: Reverse<Time>,
    client: ClientId,
}

/// Those of one client.
#[derive(Debug, Default)]
struct Queue {
    /// Oldest first; may name some that wait no longer, or for another client.
    waiting: VecDeque<Waiting>,
    /// Invariant: at most as many as `waiting` names, and never 0 in the table.
    count: usize,
}

impl Queue {
    fn rank(&self, client: ClientId) -> Rank {
        let oldest = self.waiting.front().map_or(Time::ZERO, |waiting| waiting.since);
        Rank { count: self.count, oldest: Reverse(oldest), client }
    }
}

/// Places that a client's queue may have beside twice those that wait.
const SLACK: usize = 8;

impl Crowd {
    #[allow(clippy::arithmetic_side_effects, reason = "connections are at most 2^30")]
    fn enter(&mut self, client: ClientId, waiting: Waiting) {
        let queue = self.clients.entry(client).or_default();
        self.ranks.remove(&queue.rank(client));
        queue.waiting.push_back(waiting);
        queue.count += 1;
        self.ranks.insert(queue.rank(client));
    }

    #[allow(clippy::arithmetic_side_effects, reason = "a queue in the table has one at least")]
    fn leave(&mut self, connections: &Slab<Connection>, client: ClientId) {
        let Some(queue) = self.clients.get_mut(&client) else { return };
        self.ranks.remove(&queue.rank(client));
        queue.count -= 1;
        if queue.count == 0 {
            self.clients.remove(&client);
            return;
        }
        if queue.waiting.len() > 2 * queue.count + SLACK {
            queue.waiting.retain(|it| client_waiting(connections, it.key) == Some(client));
        }
        self.ranks.insert(queue.rank(client));
    }

    fn first_to_go(&mut self, connections: &Slab<Connection>) -> Option<Waiting> {
        loop {
            let rank = *self.ranks.last()?;
            let queue = self.clients.get_mut(&rank.client)?;
            let first = *queue.waiting.front()?;
            if client_waiting(connections, first.key) == Some(rank.client) {
                return Some(first);
            }
            // It has gone, and the next one may be younger than another client's oldest.
            self.ranks.remove(&rank);
            queue.waiting.pop_front();
            self.ranks.insert(queue.rank(rank.client));
        }
    }
}

//! The clients of a server: how many connections each has, and when it may ask next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::structures::token_bucket::TokenBucket;
use crate::words::limits::CLIENTS_MAX;
use crate::words::network::ClientKey;
use crate::words::rate::Rate;
use crate::words::time::Time;

/// Who is here. Both tables stay empty while their limits are off.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// Connections of each client. Invariant: no entry of zero, so never more than connections.
    open: HashMap<ClientKey, u32>,
    buckets: Buckets,
}

/// The buckets of clients, in two generations: whoever asks moves to the young one, and when that is full
/// the old one is forgotten, which holds those who have been silent for longest. So a newcomer has a
/// place without anybody being looked for. Invariant: each holds at most half of [`CLIENTS_MAX`].
#[derive(Debug, Default)]
struct Buckets {
    young: HashMap<ClientKey, TokenBucket>,
    old: HashMap<ClientKey, TokenBucket>,
    /// When the young generation began.
    since: Time,
}

impl Buckets {
    /// Takes a token; if there is none, says when there will be.
    fn take(&mut self, now: Time, rate: Rate, client: ClientKey) -> Result<(), Time> {
        self.forget(now, rate);
        let known = self.young.get(&client).copied().or_else(|| self.old.remove(&client));
        let mut bucket = known.unwrap_or_default();
        let taken = bucket.take(now, rate);
        self.young.insert(client, bucket);
        if taken { Ok(()) } else { Err(bucket.next_token(rate)) }
    }

    fn forget(&mut self, now: Time, rate: Rate) {
        let age = now.since(self.since).as_micros();
        // In this time a bucket is full again, and a full one is the same as none.
        let filled = u128::from(rate.depth_micros());
        if age < filled && self.young.len() < CLIENTS_MAX / 2 {
            return;
        }
        self.old = mem::take(&mut self.young);
        // Twice as long, and the buckets that were young are full again too.
        if age >= filled.saturating_mul(2) {
            self.old = HashMap::new();
        }
        self.since = now;
    }
}

impl Clients {
    /// Counts a connection, unless its client has so many already: how many it had.
    pub(crate) fn enter(&mut self, client: ClientKey, most: u32) -> u32 {
        let count = self.open.get(&client).copied().unwrap_or(0);
        if count < most {
            self.open.insert(client, count.saturating_add(1));
        }
        count
    }

    /// A connection that was counted has gone.
    pub(crate) fn leave(&mut self, client: ClientKey) {
        if let Entry::Occupied(mut entry) = self.open.entry(client) {
            if *entry.get() > 1 {
                *entry.get_mut() = entry.get().saturating_sub(1);
            } else {
                entry.remove();
            }
        }
        if self.open.is_empty() {
            self.open = HashMap::new(); // what an attack made of it is given back
        }
    }

    /// Takes a token for a request; if there is none, says when there will be.
    pub(crate) fn request(&mut self, now: Time, rate: Rate, client: ClientKey) -> Result<(), Time> {
        self.buckets.take(now, rate, client)
    }

    #[cfg(all(repository, test))]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    #[cfg(all(repository, test))]
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.young.len() + self.buckets.old.len()
    }
}

/// The clients of one loop, or of all together.
pub(crate) enum ClientTable {
    Own(Box<Clients>),
    Shared(Arc<Mutex<Clients>>),
}

impl fmt::Debug for ClientTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTable").finish_non_exhaustive()
    }
}

impl ClientTable {
    pub(crate) fn with<R>(&mut self, act: impl FnOnce(&mut Clients) -> R) -> R {
        match self {
            Self::Own(clients) => act(clients),
            // A panic cannot come between: nothing of the application is called.
            Self::Shared(clients) => {
                act(&mut clients.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

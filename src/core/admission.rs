//! The admission of clients: which client a connection stands for, and how many connections and requests
//! one client may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::net::IpAddr;

use crate::app::application::Proxies;
use crate::app::response::Response;
use crate::protocol::forwarded::{self, Client, Forwarded};
use crate::protocol::head::RequestHead;
use crate::structures::token_bucket::TokenBucket;
use crate::words::limits::{CLIENTS_MAX, Limits};
use crate::words::network::ClientKey;
use crate::words::proxy::ProxyHeader;
use crate::words::rate::Rate;
use crate::words::time::Time;

/// Connections of one client over `per_address` that are accepted to get 429; further ones are
/// hung up on, so that one client cannot fill all slots by asking for refusals.
const REFUSED_PER_CLIENT_MAX: u32 = 4;

/// The `Retry-After` of a 503: slots become free at any time, but not for all who would come at once.
const RETRY_AFTER_SECONDS: &str = "5";

/// Why a connection is let in only to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverLimit {
    /// `max_connections` is reached: 503.
    Server,
    /// `per_address` is reached: 429.
    Client,
}

impl OverLimit {
    /// What it is told.
    pub(super) fn refusal(self) -> Response {
        match self {
            Self::Server => Response::refusal(503).header("Retry-After", RETRY_AFTER_SECONDS),
            Self::Client => Response::refusal(429),
        }
    }
}

/// What a new connection of a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admitted,
    /// To get 429.
    Refused,
    /// Not even that.
    Dropped,
}

/// Who is here. Both tables stay empty while their limits are off.
#[derive(Debug)]
pub(crate) struct Admission {
    proxies: Proxies,
    per_address: Option<u32>,
    rate: Option<Rate>,
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

impl Admission {
    pub(crate) fn new(limits: &Limits, proxies: Proxies) -> Self {
        let per_address = limits.per_address.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        Self {
            proxies,
            per_address,
            rate: limits.handshake_rate,
            open: HashMap::new(),
            buckets: Buckets::default(),
        }
    }

    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.networks.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from there begins with a PROXY header.
    pub(crate) fn awaits_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxies.header == ProxyHeader::ProxyProtocol && self.is_proxy(peer)
    }

    /// What a trusted proxy's request tells, in the one header that counts.
    pub(crate) fn forwarded_info<'h>(&self, head: &'h RequestHead) -> Forwarded<'h> {
        let is_trusted = |address| self.is_proxy(address);
        match self.proxies.header {
            ProxyHeader::XForwardedFor => forwarded::read_x_forwarded(head, is_trusted),
            ProxyHeader::Forwarded => forwarded::read_forwarded(head, is_trusted),
            ProxyHeader::ProxyProtocol => Forwarded::default(),
        }
    }

    /// The header that counts.
    pub(super) fn proxy_header(&self) -> ProxyHeader {
        self.proxies.header
    }

    /// Whether the client is a proxy itself, which speaks for nobody else.
    pub(super) fn is_of_proxy(&self, client: Client) -> bool {
        match client {
            Client::Proxy => true,
            Client::Unknown => false,
            Client::Known(address) => self.is_proxy(address.ip()),
        }
    }

    /// Counts a connection; unless it is unwelcome, [`leave`](Self::leave) is to follow.
    #[allow(clippy::arithmetic_side_effects, reason = "a client has at most max_connections")]
    pub(crate) fn enter(&mut self, client: impl FnOnce() -> Option<ClientKey>) -> Verdict {
        let Some(most) = self.per_address else { return Verdict::Admitted };
        let Some(key) = client() else { return Verdict::Admitted };
        let count = self.open.get(&key).copied().unwrap_or(0);
        // A few get an answer that names the limit; each takes a slot for it, so that more would be at the
        // expense of other clients.
        if count >= most.saturating_add(REFUSED_PER_CLIENT_MAX) {
            return Verdict::Dropped;
        }
        self.open.insert(key, count + 1);
        if count < most { Verdict::Admitted } else { Verdict::Refused }
    }

    /// A connection that was counted has gone.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "an entry of 1 is removed instead, and 0 is never kept"
    )]
    pub(crate) fn leave(&mut self, client: impl FnOnce() -> Option<ClientKey>) {
        if self.per_address.is_none() {
            return;
        }
        let Some(key) = client() else { return };
        if let Entry::Occupied(mut entry) = self.open.entry(key) {
            if *entry.get() > 1 {
                *entry.get_mut() -= 1;
            } else {
                entry.remove();
            }
        }
        if self.open.is_empty() {
            self.open = HashMap::new(); // what an attack made of it is given back
        }
    }

    /// Takes a token for a request; if there is none, says when there will be.
    pub(super) fn request(
        &mut self,
        now: Time,
        client: impl FnOnce() -> Option<ClientKey>,
    ) -> Result<(), Time> {
        let Some(rate) = self.rate else { return Ok(()) };
        client().map_or(Ok(()), |client| self.buckets.take(now, rate, client))
    }

    /// Whether any limit depends on who the client is.
    pub(super) fn counts_clients(&self) -> bool {
        self.per_address.is_some() || self.rate.is_some()
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

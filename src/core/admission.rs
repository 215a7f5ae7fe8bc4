//! Owns admission: which clients a connection stands for, and how many connections and requests one
//! client may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::net::{IpAddr, SocketAddr};

use log::Level;

use crate::app::application::Proxies;
use crate::app::response::Response;
use crate::protocol::forwarded::{self, Client, Forwarded};
use crate::protocol::head::RequestHead;
use crate::protocol::proxy_protocol::{ProxyStart, parse_proxy_header};
use crate::structures::token_bucket::TokenBucket;
use crate::words::limits::{CLIENTS_MAX, Limits};
use crate::words::network::ClientKey;
use crate::words::proxy::ProxyHeader;
use crate::words::rate::Rate;
use crate::words::time::Time;

use crate::core::connection::{Connection, Stage};
use crate::core::refusals::reason;
use crate::core::turn::Turn;

/// Connections of one client over `per_address` that are let in to be told 429; further ones are
/// hung up on, so that one client cannot fill the places of all by asking for refusals.
const TOLD_MAX: u32 = 4;

/// When somebody for whom there was no place may come again: places become free at any time, but not
/// for all who would come at once.
const RETRY_AFTER_SECONDS: &str = "5";

/// Why a connection is let in only to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// `max_connections` is reached: 503.
    Server,
    /// `per_address` is reached: 429.
    Client,
}

impl Surplus {
    /// What it is told.
    fn refusal(self) -> Response {
        match self {
            Self::Server => Response::refusal(503).header("Retry-After", RETRY_AFTER_SECONDS),
            Self::Client => Response::refusal(429),
        }
    }
}

/// What a new connection of a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    /// To be told 429.
    Surplus,
    /// Not even that.
    Unwelcome,
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
    pub(crate) fn told<'h>(&self, head: &'h RequestHead) -> Forwarded<'h> {
        let is_trusted = |address| self.is_proxy(address);
        match self.proxies.header {
            ProxyHeader::XForwardedFor => forwarded::read_x_forwarded(head, is_trusted),
            ProxyHeader::Forwarded => forwarded::read_forwarded(head, is_trusted),
            ProxyHeader::ProxyProtocol => Forwarded::default(),
        }
    }

    /// Counts a connection; unless it is unwelcome, [`leave`](Self::leave) is to follow.
    #[allow(clippy::arithmetic_side_effects, reason = "a client has at most max_connections")]
    pub(crate) fn enter(&mut self, client: impl FnOnce() -> Option<ClientKey>) -> Verdict {
        let Some(most) = self.per_address else { return Verdict::Welcome };
        let Some(key) = client() else { return Verdict::Welcome };
        let count = self.open.get(&key).copied().unwrap_or(0);
        if count >= most.saturating_add(TOLD_MAX) {
            return Verdict::Unwelcome;
        }
        self.open.insert(key, count + 1);
        if count < most { Verdict::Welcome } else { Verdict::Surplus }
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
    fn request(
        &mut self,
        now: Time,
        client: impl FnOnce() -> Option<ClientKey>,
    ) -> Result<(), Time> {
        let Some(rate) = self.rate else { return Ok(()) };
        client().map_or(Ok(()), |client| self.buckets.take(now, rate, client))
    }

    /// Whether any limit depends on who the client is.
    fn counts_clients(&self) -> bool {
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

impl Connection {
    /// Gives the place of a counted client back.
    pub(crate) fn uncount(&mut self, admission: &mut Admission) {
        if mem::take(&mut self.counted) {
            admission.leave(|| self.state.client_key());
        }
    }
}

/// What became of the bytes in which a PROXY header is awaited.
pub(crate) enum ProxyBytes {
    /// It is complete, and took so many of them.
    Taken(usize),
    /// More is to come.
    Partial,
    /// They were none, and that was said.
    Refused,
}

/// What a request is refused for, before its route is looked at.
impl Turn<'_> {
    /// The answer to a request that is not let in; `None` for one that is.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "64-bit counters, and seconds of a time in microseconds"
    )]
    pub(crate) fn refusal(&mut self, head: &RequestHead) -> Option<Response> {
        if self.shared.draining {
            self.shared.stats.refused_stopping += 1;
            self.note_refusal(503, Some(head), reason::STOPPING);
            return Some(Response::refusal(503));
        }
        let Stage::Http(http) = &self.connection.stage else { return None };
        match http.surplus {
            Some(surplus) => return Some(self.surplus_refusal(surplus, Some(head))),
            None if http.proxied => {
                if self.learn_client(head) != Verdict::Welcome {
                    return Some(self.surplus_refusal(Surplus::Client, Some(head)));
                }
            }
            None => self.warn_of_unlisted_proxy(head),
        }
        let now = self.shared.now;
        let client = || self.connection.state.client_key();
        let Err(next) = self.admission.request(now, client) else { return None };
        self.shared.stats.refused_rate += 1;
        self.note_limit(429, Some(head), reason::RATE);
        let wait = next.since(now).as_secs() + 1;
        Some(Response::refusal(429).header("Retry-After", wait.to_string()))
    }

    /// The client of this request, as the trusted proxies before it tell.
    fn learn_client(&mut self, head: &RequestHead) -> Verdict {
        self.connection.uncount(self.admission);
        let client = self.admission.told(head).client;
        if client == Client::Proxy && forwarded::names_client(head) {
            self.warn_of_other_header();
        }
        self.connection.state.set_client(client);
        if self.is_of_proxy(client) {
            return Verdict::Welcome; // it speaks for itself, as for a health check
        }
        let verdict = self.admission.enter(|| self.connection.state.client_key());
        self.connection.counted = verdict != Verdict::Unwelcome;
        if verdict == Verdict::Surplus {
            // The proxy's connection goes on with requests of others.
            self.connection.uncount(self.admission);
        }
        verdict
    }

    fn is_of_proxy(&self, client: Client) -> bool {
        match client {
            Client::Proxy => true,
            Client::Unknown => false,
            Client::Known(address) => self.admission.is_proxy(address.ip()),
        }
    }

    /// What a connection is told that was let in only for that.
    pub(super) fn surplus_refusal(
        &mut self,
        surplus: Surplus,
        head: Option<&RequestHead>,
    ) -> Response {
        let stats = &mut self.shared.stats;
        let reason = match surplus {
            Surplus::Server => {
                stats.refused_full += 1;
                reason::NO_PLACE
            }
            Surplus::Client => {
                stats.refused_address += 1;
                reason::CLIENT
            }
        };
        let response = surplus.refusal();
        self.note_limit(response.status_code(), head, reason);
        response
    }

    fn note_limit(&self, status: u16, head: Option<&RequestHead>, reason: &'static str) {
        self.note_refusal_because(Level::Warn, status, head, reason, reason);
    }

    fn warn_of_other_header(&self) {
        let header = self.admission.proxies.header;
        self.shared.warnings.note("other proxy header", self.shared.now, || {
            let peer = self.connection.state.remote_addr();
            format!(
                "{peer} is trusted and sends a forwarding header, but not the one that counts: \
                 proxy_header is {header:?}"
            )
        });
    }

    fn warn_of_unlisted_proxy(&self, head: &RequestHead) {
        let peer = self.connection.state.remote_addr();
        let is_unlisted = peer.ip().is_loopback() && !self.admission.is_proxy(peer.ip());
        if is_unlisted && self.admission.counts_clients() && forwarded::names_client(head) {
            self.shared.warnings.note("unlisted proxy", self.shared.now, || {
                format!(
                    "{peer} forwards for others, but is not in trusted_proxies: they all count as \
                     one client"
                )
            });
        }
    }

    /// Reads the PROXY header at the start of `input`.
    pub(crate) fn proxy_header(&mut self, input: &[u8]) -> ProxyBytes {
        let max_bytes = self.shared.limits.max_head_bytes;
        match parse_proxy_header(input, max_bytes) {
            Ok(ProxyStart::Partial) => ProxyBytes::Partial,
            Ok(ProxyStart::Complete { client, length }) => {
                self.enter_client(client);
                ProxyBytes::Taken(length)
            }
            Err(_) => {
                self.note_refusal(400, None, reason::PROXY);
                self.refuse(400);
                ProxyBytes::Refused
            }
        }
    }

    fn enter_client(&mut self, client: Option<SocketAddr>) {
        let client = Client::of(client);
        self.connection.state.set_client(client);
        let mut surplus = None;
        if !self.is_of_proxy(client) {
            let verdict = self.admission.enter(|| self.connection.state.client_key());
            self.connection.counted = verdict != Verdict::Unwelcome;
            if verdict != Verdict::Welcome {
                surplus = Some(Surplus::Client);
            }
        }
        if let Stage::Http(http) = &mut self.connection.stage {
            http.awaits_proxy_header = false;
            http.surplus = http.surplus.or(surplus);
        }
    }
}

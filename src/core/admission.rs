//! Owns admission: which clients a connection stands for, and how many connections and requests one
//! client may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use log::debug;

use crate::domain::application::Proxies;
use crate::domain::response::Response;
use crate::protocol::forwarded;
use crate::protocol::head::RequestHead;
use crate::protocol::proxy_protocol::{ProxyHeader, parse_proxy_header};
use crate::structures::token_bucket::TokenBucket;
use crate::words::network::ClientKey;
use crate::words::options::{CLIENTS_MAX, Limits};
use crate::words::rate::Rate;
use crate::words::time::Time;

use super::connection::{Connection, Stage};
use super::turn::Turn;

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
    pub(crate) fn refusal(self) -> Response {
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
    /// Buckets that are not full. Invariant: at most [`CLIENTS_MAX`].
    buckets: HashMap<ClientKey, TokenBucket>,
    /// When the full ones were last thrown out.
    swept: Time,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, proxies: Proxies) -> Self {
        let per_address = limits.per_address.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        Self {
            proxies,
            per_address,
            rate: limits.handshake_rate,
            open: HashMap::new(),
            buckets: HashMap::new(),
            swept: Time::ZERO,
        }
    }

    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.networks.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from there begins with a PROXY header.
    pub(crate) fn awaits_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxies.protocol && self.is_proxy(peer)
    }

    /// Counts a connection; unless it is unwelcome, [`leave`](Self::leave) is to follow.
    #[allow(clippy::arithmetic_side_effects, reason = "a client has at most max_connections")]
    pub(crate) fn enter(&mut self, client: IpAddr) -> Verdict {
        let (Some(most), Some(key)) = (self.per_address, ClientKey::of(client)) else {
            return Verdict::Welcome;
        };
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
    pub(crate) fn leave(&mut self, client: IpAddr) {
        if self.per_address.is_none() {
            return;
        }
        let Some(key) = ClientKey::of(client) else { return };
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
    fn request(&mut self, now: Time, client: IpAddr) -> Result<(), Time> {
        let (Some(rate), Some(key)) = (self.rate, ClientKey::of(client)) else { return Ok(()) };
        if self.buckets.len() >= CLIENTS_MAX && !self.buckets.contains_key(&key) {
            // At most once a second: the sweep looks at every bucket.
            if now.since(self.swept).as_secs() > 0 {
                self.swept = now;
                self.buckets.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.buckets.len() >= CLIENTS_MAX {
                // Whoever has that many addresses is not held by a rate for each; others, who come
                // now for the first time, are not made to pay for it.
                return Ok(());
            }
        }
        let bucket = self.buckets.entry(key).or_default();
        if bucket.take(now, rate) { Ok(()) } else { Err(bucket.next_token(rate)) }
    }

    /// Whether any limit depends on who the client is.
    fn counts_clients(&self) -> bool {
        self.per_address.is_some() || self.rate.is_some()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }
}

impl Connection {
    /// Gives the place of a counted client back.
    pub(crate) fn uncount(&mut self, admission: &mut Admission) {
        if std::mem::take(&mut self.counted) {
            admission.leave(self.state.client_addr().ip());
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
        let stats = &mut self.shared.stats;
        if self.shared.draining {
            stats.refused_stopping += 1;
            return Some(Response::refusal(503));
        }
        let Stage::Http(http) = &self.connection.stage else { return None };
        match http.surplus {
            Some(surplus) => {
                match surplus {
                    Surplus::Server => stats.refused_full += 1,
                    Surplus::Client => stats.refused_address += 1,
                }
                return Some(surplus.refusal());
            }
            None if http.proxied => {
                if self.learn_client(head) != Verdict::Welcome {
                    return Some(self.over_per_address());
                }
            }
            None => self.warn_of_unlisted_proxy(head),
        }
        let client = self.connection.state.client_addr();
        let now = self.shared.now;
        let Err(next) = self.admission.request(now, client.ip()) else { return None };
        self.shared.stats.refused_rate += 1;
        self.shared
            .warnings
            .note("handshake_rate", now, || format!("handshake_rate reached: {client} gets 429"));
        let wait = next.since(now).as_secs() + 1;
        Some(Response::refusal(429).header("Retry-After", wait.to_string()))
    }

    /// The client of this request, as the trusted proxies before it tell.
    fn learn_client(&mut self, head: &RequestHead) -> Verdict {
        self.connection.uncount(self.admission);
        let admission = &*self.admission;
        let told = forwarded::client_addr(head, |address| admission.is_proxy(address));
        let client = told.unwrap_or_else(|| self.connection.state.via_addr());
        self.connection.state.set_client(client);
        if self.admission.is_proxy(client.ip()) {
            return Verdict::Welcome; // it speaks for itself, as for a health check
        }
        let verdict = self.admission.enter(client.ip());
        self.connection.counted = verdict != Verdict::Unwelcome;
        if verdict == Verdict::Surplus {
            // The proxy's connection goes on with requests of others.
            self.connection.uncount(self.admission);
        }
        verdict
    }

    #[allow(
        clippy::arithmetic_side_effects,
        reason = "counters of 64 bits, which do not come round in a lifetime"
    )]
    fn over_per_address(&mut self) -> Response {
        let client = self.connection.state.client_addr();
        self.shared.stats.refused_address += 1;
        self.shared.warnings.note("per_address", self.shared.now, || {
            format!("per_address reached: {client} gets 429")
        });
        Response::refusal(429)
    }

    fn warn_of_unlisted_proxy(&self, head: &RequestHead) {
        let peer = self.connection.state.remote_addr();
        if self.admission.counts_clients() && peer.ip().is_loopback() && forwarded::is_told(head) {
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
            Ok(ProxyHeader::Partial) => ProxyBytes::Partial,
            Ok(ProxyHeader::Complete { client, length }) => {
                self.enter_client(client);
                ProxyBytes::Taken(length)
            }
            Err(_) => {
                let peer = self.connection.state.remote_addr();
                debug!(target: "wirewheel::server", "{peer}: bad PROXY header");
                self.refuse(400);
                ProxyBytes::Refused
            }
        }
    }

    fn enter_client(&mut self, client: Option<std::net::SocketAddr>) {
        let client = client.unwrap_or_else(|| self.connection.state.remote_addr());
        let proxied = self.admission.is_proxy(client.ip());
        self.connection.state.set_via(client);
        let mut surplus = None;
        if !proxied {
            let verdict = self.admission.enter(client.ip());
            self.connection.counted = verdict != Verdict::Unwelcome;
            if verdict != Verdict::Welcome {
                surplus = Some(Surplus::Client);
            }
        }
        if let Stage::Http(http) = &mut self.connection.stage {
            http.awaits_proxy_header = false;
            http.proxied = proxied;
            http.surplus = http.surplus.or(surplus);
        }
    }
}

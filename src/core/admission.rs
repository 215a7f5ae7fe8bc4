//! The admission of clients: which client a connection stands for, and how many connections and requests
//! one client may have.

use std::net::{IpAddr, SocketAddr};

use crate::app::application::Proxies;
use crate::app::response::Response;
use crate::context::clients::ClientTable;
use crate::context::loop_state::LoopState;
use crate::protocol::forwarded::{self, Client, Forwarded};
use crate::protocol::head::RequestHead;
use crate::words::limits::Limits;
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

/// Says of whom a connection was dropped.
#[cold]
#[allow(clippy::arithmetic_side_effects, reason = "64-bit counters")]
pub(super) fn note_dropped(shared: &mut LoopState, now: Time, client: SocketAddr) {
    let text = || format!("per_address reached: {client} is hung up on");
    shared.warnings.note("per_address", now, text);
    shared.stats.refused_address += 1;
}

/// Who may come in, and who is here.
#[derive(Debug)]
pub(crate) struct Admission {
    proxies: Proxies,
    per_address: Option<u32>,
    rate: Option<Rate>,
    clients: ClientTable,
}

impl Admission {
    /// All loops of a server have one table of clients.
    pub(crate) fn new(limits: &Limits, proxies: Proxies, clients: ClientTable) -> Self {
        let per_address = limits.per_address.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        Self { proxies, per_address, rate: limits.handshake_rate, clients }
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
    pub(crate) fn enter(&mut self, client: impl FnOnce() -> Option<ClientKey>) -> Verdict {
        let Some(most) = self.per_address else { return Verdict::Admitted };
        let Some(key) = client() else { return Verdict::Admitted };
        // A few get an answer that names the limit; each takes a slot for it, so that more would be at the
        // expense of other clients.
        let with_refused = most.saturating_add(REFUSED_PER_CLIENT_MAX);
        match self.clients.with(|clients| clients.enter(key, with_refused)) {
            count if count >= with_refused => Verdict::Dropped,
            count if count < most => Verdict::Admitted,
            _ => Verdict::Refused,
        }
    }

    /// A connection that was counted has gone.
    pub(crate) fn leave(&mut self, client: impl FnOnce() -> Option<ClientKey>) {
        if self.per_address.is_none() {
            return;
        }
        let Some(key) = client() else { return };
        self.clients.with(|clients| clients.leave(key));
    }

    /// Takes a token for a request; if there is none, says when there will be.
    pub(super) fn request(
        &mut self,
        now: Time,
        client: impl FnOnce() -> Option<ClientKey>,
    ) -> Result<(), Time> {
        let Some(rate) = self.rate else { return Ok(()) };
        let Some(client) = client() else { return Ok(()) };
        self.clients.with(|clients| clients.request(now, rate, client))
    }

    /// Whether any limit depends on who the client is.
    pub(super) fn counts_clients(&self) -> bool {
        self.per_address.is_some() || self.rate.is_some()
    }

    #[cfg(all(repository, test))]
    pub(crate) fn is_empty(&mut self) -> bool {
        self.clients.with(|clients| clients.is_empty())
    }

    #[cfg(all(repository, test))]
    pub(crate) fn buckets(&mut self) -> usize {
        self.clients.with(|clients| clients.buckets())
    }
}

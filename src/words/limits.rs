//! Every limit of the server as a whole: its name, unit, default, what values are refused, and the memory
//! that they add up to.

use std::time::Duration;

use crate::words::bounds::{LARGEST_SIZE, check_size, check_time};
use crate::words::options::SessionOptions;
use crate::words::rate::Rate;

/// What the server as a whole may take: the limits that no route or session can change.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::Limits;
/// let limits = Limits::new().max_connections(500).handshake_timeout(Duration::from_secs(5));
/// assert!(limits.memory_ceiling() < Limits::new().memory_ceiling());
/// ```
///
/// All of them:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::Limits;
/// let limits = Limits::new()
///     .handshake_timeout(Duration::from_secs(10))
///     .keep_alive_timeout(Duration::from_secs(75))
///     .close_timeout(Duration::from_secs(5))
///     .linger_timeout(Duration::from_secs(2))
///     .stop_grace(None) // 7 s: close_timeout and linger_timeout
///     .min_rate(256)
///     .max_head_bytes(8 << 10)
///     .max_head_lines(64)
///     .max_connections(4_096)
///     .max_pending_handshakes(256)
///     .max_questions(1_024)
///     .max_deferred(64)
///     .defer_timeout(Duration::from_secs(30))
///     .min_pending_age(Duration::from_millis(1_500))
///     .process_bytes(24 << 20)
///     .read_buffer_bytes(64 << 10)
///     .read_budget_bytes(256 << 10)
///     .accept_budget(64)
///     .slow_callback(Duration::from_millis(100))
///     .per_address(None) // or a number of connections
///     .handshake_rate(None); // or a Rate
/// assert_eq!(limits, Limits::new()); // these are the defaults
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) handshake_timeout: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) linger_timeout: Duration,
    pub(crate) stop_grace: Option<Duration>,
    pub(crate) min_rate: u32,
    pub(crate) max_head_bytes: usize,
    pub(crate) max_head_lines: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_pending_handshakes: usize,
    pub(crate) min_pending_age: Duration,
    pub(crate) process_bytes: usize,
    pub(crate) max_questions: usize,
    pub(crate) max_deferred: usize,
    pub(crate) defer_timeout: Duration,
    pub(crate) read_buffer_bytes: usize,
    pub(crate) read_budget_bytes: usize,
    pub(crate) accept_budget: usize,
    pub(crate) per_address: Option<usize>,
    pub(crate) handshake_rate: Option<Rate>,
    pub(crate) slow_callback: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            close_timeout: Duration::from_secs(5),
            linger_timeout: Duration::from_secs(2),
            stop_grace: None,
            min_rate: 256,
            max_head_bytes: 8 << 10,
            max_head_lines: 64,
            max_connections: 4_096,
            max_pending_handshakes: 256,
            min_pending_age: Duration::from_millis(1_500),
            process_bytes: 24 << 20,
            max_questions: 1_024,
            max_deferred: 64,
            defer_timeout: Duration::from_secs(30),
            read_buffer_bytes: 64 << 10,
            read_budget_bytes: 256 << 10,
            accept_budget: 64,
            per_address: None,
            handshake_rate: None,
            slow_callback: Some(Duration::from_millis(100)),
        }
    }
}

/// Clients whose requests are counted for `handshake_rate` at most.
pub(crate) const CLIENTS_MAX: usize = 4_096;
/// What a client costs in a hash table: an entry of 24 bytes and its control byte, at the least load
/// there is after growth, and the old table while it grows.
const CLIENT_BYTES: usize = 88;

/// What a connection without its request head costs beside its place: in the list of their ages, and in the
/// table of who has how many, which is there while there are too many.
const PENDING_BYTES: usize = 320;

/// Connections over `max_connections` that are let in only to be told 503; beyond them accepting
/// pauses.
pub(crate) const OVER_LIMIT_MAX: usize = 16;

/// What one connection costs beyond that while it speaks HTTP, waits for its peer or comes through a
/// proxy, without the bytes of messages. Asserted in `core`.
pub(crate) const BUSY_BYTES: usize = 544;

/// What one connection costs while idle: its slab entry, wheel entry, generation and socket.
/// Asserted against the real types in `core`.
pub(crate) const CONNECTION_BYTES: usize = 256;

/// What TLS costs each connection beside that, but for records that are not whole or wait to go out.
#[cfg(feature = "tls")]
pub(crate) const TLS_CONNECTION_BYTES: usize = 4 << 10;

/// What the loop has of buffers for TLS, beside the read buffer twice more.
#[cfg(feature = "tls")]
pub(crate) const TLS_BUFFER_BYTES: usize = 256 << 10;

macro_rules! limit_setters {
    ($($(#[$doc:meta])* $name:ident: $T:ty;)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $T) -> Self {
            self.$name = value;
            self
        }
    )+};
}

impl Limits {
    /// The defaults, fit for a box with 64 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// All limits from one number: the most user-space memory, in bytes, that connections may take.
    /// [`memory_ceiling`](Self::memory_ceiling) is at most that (512 KiB for less than that), and
    /// more memory never gives a lower limit. Half and more are for messages (`process_bytes`);
    /// there is a connection for every 4 KiB, up to 65,536.
    ///
    /// The program itself takes one or two MiB besides, and the kernel about as much again for the
    /// sockets: for a box or a container with 32 MiB, `for_memory(16 << 20)` is a good start.
    ///
    /// ```
    /// use wirewheel::Limits;
    /// let limits = Limits::for_memory(16 << 20);
    /// assert!(limits.memory_ceiling() <= 16 << 20);
    /// ```
    pub fn for_memory(bytes: usize) -> Self {
        let bytes = bytes.max(512 << 10);
        let read_buffer_bytes = (bytes / 256).clamp(2 << 10, 64 << 10);
        let max_head_bytes = (bytes / 512).clamp(2 << 10, 8 << 10);
        let without_messages = Self {
            max_head_bytes,
            max_connections: (bytes / (4 << 10)).min(65_536),
            max_pending_handshakes: (bytes / 16 / max_head_bytes).clamp(1, 1_024),
            process_bytes: 0,
            read_buffer_bytes,
            read_budget_bytes: 4 * read_buffer_bytes,
            ..Self::default()
        };
        let process_bytes = bytes.saturating_sub(without_messages.memory_ceiling()) / 3 * 2;
        Self { process_bytes: process_bytes.min(LARGEST_SIZE), ..without_messages }
    }

    limit_setters! {
        /// How long a connection may take for its request head; then 408, or an end without a word
        /// where nothing came at all. Default 10 s.
        handshake_timeout: Duration;
        /// How long a connection may stay silent between two requests before it is closed. A proxy
        /// in front keeps connections for its next requests, and a request that it sends in the moment
        /// of our close is lost: this is to be longer than the proxy's own time, which is 60 s for
        /// nginx (`keepalive_timeout` of an `upstream`) and most others. Default 75 s.
        keep_alive_timeout: Duration;
        /// How long to wait for the peer's Close once its system has ours, and all that was sent
        /// before. Default 5 s.
        close_timeout: Duration;
        /// How long to wait for the peer to hang up once its system has the last byte. Default 2 s.
        linger_timeout: Duration;
        /// The progress that counts as life, in bytes a second: in every `write_timeout` a peer has to
        /// take so much of what waits for it, and to send so much of a message that it began, or all
        /// there is where that is less. Default 256.
        min_rate: u32;
        /// The most bytes of a request head; more get 431. Default 8 KiB.
        max_head_bytes: usize;
        /// The most header lines of a request; more get 431. Default 64.
        max_head_lines: usize;
        /// The most connections at once; further ones get 503 with `Retry-After`, at most 16 at a
        /// time. Beyond that nobody is accepted, and whoever comes waits in the
        /// [`backlog`](crate::options::ListenOptions::backlog). Default 4,096.
        max_connections: usize;
        /// The most connections without a complete request head. For one more, the oldest of the
        /// client that has most of them gets 408, if it is as old as
        /// [`min_pending_age`](Self::min_pending_age); until then whoever comes waits in the
        /// [`backlog`](crate::options::ListenOptions::backlog). Default 256.
        max_pending_handshakes: usize;
        /// How long a connection has for its request head in any case, however many are waiting
        /// for theirs; those that are only to be told 503 or 429 have no more than this. Default
        /// 1.5 s.
        min_pending_age: Duration;
        /// The most bytes in partial messages, outboxes, flow logs and spare buffers together; these are at
        /// most a quarter of it. Default 24 MiB.
        process_bytes: usize;
        /// The most questions that are open at once in all sessions; see
        /// [`ServerRef::ask`](crate::ServerRef::ask). Several loops have their parts of it. Default 1,024.
        max_questions: usize;
        /// The most deferred answers that the application has at once, whether a client still waits for them
        /// or not; a request for one more gets 503. See [`Call::defer`](crate::Call::defer). Several
        /// [loops](crate::Server::loops) have their parts of it, rounded up, as of `process_bytes`: what
        /// waits takes memory on the loop of its connection. Default 64.
        max_deferred: usize;
        /// How long a deferred answer may take; then 503, and the application sees that nobody waits for it.
        /// Default 30 s.
        defer_timeout: Duration;
        /// The size of the loop's one read buffer. Default 64 KiB.
        read_buffer_bytes: usize;
        /// The most bytes read from one connection before the others have their turn, and the most work
        /// that it may cause in it: a request counts as 1 KiB and four times its head, messages count
        /// as what they are inflated to, compressed from or answered with. The rest waits for the next
        /// turn; a single message or answer is done whole. Default 256 KiB.
        read_budget_bytes: usize;
        /// The most connections accepted in one turn of the loop. Default 64.
        accept_budget: usize;
    }

    /// The most connections of one client at once, whether they are sessions or not: of an address,
    /// or of a /64 of global IPv6 addresses, which is what one subscriber is given. Four more are told
    /// 429, further ones are hung up on at once. The client is
    /// [`Call::client_addr`](crate::Call::client_addr); those of a trusted proxy whose addresses it does
    /// not tell are one client. Behind a proxy that is not in
    /// [`trusted_proxies`](crate::WebSockets::trusted_proxies) all are one client, and a warning
    /// says so where the proxy is local. Peers of a Unix socket are not counted. Default `None`: off.
    #[must_use]
    pub fn per_address(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.per_address = connections.into();
        self
    }

    /// How long a stop by a signal ([`Server::run`](crate::Server::run)) may take: until then whoever
    /// takes bytes gets all that was sent to it, afterwards the rest is cut. Default `None`:
    /// `close_timeout` and `linger_timeout` together, 7 s.
    #[must_use]
    pub fn stop_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.stop_grace = grace.into();
        self
    }

    /// How long a stop by a signal may take.
    pub(crate) fn grace(&self) -> Duration {
        self.stop_grace.unwrap_or_else(|| self.close_timeout.saturating_add(self.linger_timeout))
    }

    /// How long the hooks of one event may block the loop, on which everybody waits; longer is
    /// logged as a warning with the route. Turns of the loop are measured; after a slow one, its
    /// events one by one for ten seconds. `None`: off. Default 100 ms.
    #[must_use]
    pub fn slow_callback(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.slow_callback = time.into();
        self
    }

    /// The rate of requests, upgrades or not, of one client (as for
    /// [`per_address`](Self::per_address)); over it there is 429 with `Retry-After`. A client is
    /// remembered until its bucket is full again, at least the 2,048 that asked last: where more come
    /// in that time, those that have been silent for longest are forgotten. Default `None`: off.
    #[must_use]
    pub fn handshake_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.handshake_rate = rate.into();
        self
    }

    /// The most user-space memory, in bytes, that connections can make the server take: the sum of
    /// every limit, and half of `process_bytes` again for what the allocator cannot use. (Buffers
    /// grow by doubling; where small things lie between them, each leaves a hole of half its size.)
    /// The program itself, the application's handlers and what one hook sends at once come on
    /// top, and what the application dials itself: some 500 bytes for a dialer with its session.
    /// At the defaults under 40 MiB. With several [loops](crate::Server::loops), whose messages have
    /// `process_bytes` together, buffers and places for connections are there for each.
    pub fn memory_ceiling(&self) -> usize {
        let connections = self.max_connections.saturating_add(OVER_LIMIT_MAX);
        let per_connection = CONNECTION_BYTES + BUSY_BYTES;
        let clients = CLIENT_BYTES
            * (self.per_address.map_or(0, |_| self.max_connections)
                + self.handshake_rate.map_or(0, |_| CLIENTS_MAX));
        // Replies of one turn: it is given back only where it grew beyond this.
        let transmit_buffer = 4 * self.read_buffer_bytes;
        self.process_bytes // request heads, partial messages, outboxes, flow logs, spare buffers
            .saturating_add(self.process_bytes / 2) // see above
            .saturating_add(connections.saturating_mul(per_connection))
            .saturating_add(self.read_buffer_bytes)
            .saturating_add(transmit_buffer)
            .saturating_add(self.max_pending_handshakes.saturating_mul(PENDING_BYTES))
            .saturating_add(clients)
    }

    /// [`memory_ceiling`](Self::memory_ceiling) of a server that has a listener with TLS: its connections
    /// cost 4 KiB more each, and so do buffers of the loop. At the defaults under 56 MiB.
    #[cfg(feature = "tls")]
    pub fn memory_ceiling_with_tls(&self) -> usize {
        let connections = self.max_connections.saturating_add(OVER_LIMIT_MAX);
        // Records as they come, what is in them, and records on their way out.
        let buffers = self.read_buffer_bytes.saturating_mul(2).saturating_add(TLS_BUFFER_BYTES);
        self.memory_ceiling()
            .saturating_add(connections.saturating_mul(TLS_CONNECTION_BYTES))
            .saturating_add(buffers)
    }

    /// As [`for_memory`](Self::for_memory), of a server that has a listener with TLS: there is a
    /// connection for every 12 KiB.
    ///
    /// ```
    /// use wirewheel::Limits;
    /// let limits = Limits::for_memory_with_tls(16 << 20);
    /// assert!(limits.memory_ceiling_with_tls() <= 16 << 20);
    /// ```
    #[cfg(feature = "tls")]
    pub fn for_memory_with_tls(bytes: usize) -> Self {
        let bytes = bytes.max(1 << 20);
        let plain = Self::for_memory(bytes);
        let without_messages = Self {
            max_connections: (bytes / (12 << 10)).min(plain.max_connections),
            process_bytes: 0,
            ..plain
        };
        let left = bytes.saturating_sub(without_messages.memory_ceiling_with_tls());
        Self { process_bytes: (left / 3 * 2).min(LARGEST_SIZE), ..without_messages }
    }

    /// What one of several loops has: connections and clients are counted together, all else is divided.
    pub(crate) fn divided_by(self, loops: usize) -> Self {
        Self {
            process_bytes: self.process_bytes.div_ceil(loops),
            max_pending_handshakes: self.max_pending_handshakes.div_ceil(loops),
            max_questions: self.max_questions.div_ceil(loops),
            max_deferred: self.max_deferred.div_ceil(loops),
            ..self
        }
    }

    /// Refuses zero and absurd values by name.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_time("handshake_timeout", self.handshake_timeout)?;
        check_time("keep_alive_timeout", self.keep_alive_timeout)?;
        check_time("close_timeout", self.close_timeout)?;
        check_time("linger_timeout", self.linger_timeout)?;
        check_time("min_pending_age", self.min_pending_age)?;
        if let Some(grace) = self.stop_grace.filter(|grace| !grace.is_zero()) {
            check_time("stop_grace", grace)?;
        }
        check_size("min_rate", self.min_rate as usize)?;
        check_size("max_head_bytes", self.max_head_bytes)?;
        check_size("max_head_lines", self.max_head_lines)?;
        check_size("max_connections", self.max_connections)?;
        check_size("max_pending_handshakes", self.max_pending_handshakes)?;
        check_size("max_questions", self.max_questions)?;
        check_size("max_deferred", self.max_deferred)?;
        check_time("defer_timeout", self.defer_timeout)?;
        // In KiB: on a large machine the budget may be over the bound of a single buffer.
        check_size("process_bytes in KiB", self.process_bytes.div_ceil(1024))?;
        check_size("read_budget_bytes", self.read_budget_bytes)?;
        check_size("accept_budget", self.accept_budget)?;
        if let Some(most) = self.per_address {
            check_size("per_address", most)?;
        }
        if let Some(time) = self.slow_callback {
            check_time("slow_callback", time)?;
        }
        if let Some(rate) = self.handshake_rate {
            rate.check("handshake_rate")?;
        }
        if !(1024..=LARGEST_SIZE).contains(&self.read_buffer_bytes) {
            return Err(format!(
                "read_buffer_bytes is {}: it must be at least 1024 and at most {LARGEST_SIZE}",
                self.read_buffer_bytes
            ));
        }
        Ok(())
    }

    /// Refuses a message size that could never arrive. What comes in one read is not kept, and the
    /// default is let pass: the smallest budgets are below it.
    pub(crate) fn check_message(&self, options: &SessionOptions) -> Result<(), String> {
        let most = options.message_limit();
        let unset = SessionOptions::default().message_limit();
        if most > self.process_bytes.max(self.read_buffer_bytes).max(unset) {
            let name = if options.max_message_size.is_some() {
                "max_message_size"
            } else {
                "max_frame_size"
            };
            return Err(format!(
                "{name} is {most}: no such message could arrive, process_bytes of Limits is {}",
                self.process_bytes
            ));
        }
        match options.max_outgoing_message_size {
            Some(bytes) if bytes > self.process_bytes.max(options.message_limit()) => Err(format!(
                "max_outgoing_message_size is {bytes}: nobody could be kept waiting for such a message, \
                 process_bytes of Limits is {}",
                self.process_bytes
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_at_the_defaults_is_at_most_40_mib() {
        assert!(Limits::new().memory_ceiling() <= 40 << 20);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn with_tls_it_is_at_most_56_mib_and_4_kib_a_connection_more() {
        let limits = Limits::new();
        let more = limits.memory_ceiling_with_tls() - limits.memory_ceiling();
        assert!(more >= limits.max_connections * (4 << 10));
        assert!(limits.memory_ceiling_with_tls() <= 56 << 20);
    }

    #[test]
    fn limits_for_a_size_of_memory_keep_to_it_and_grow_with_it() {
        let sizes = (0..=40).flat_map(|power| [1_usize << power.min(30), 3 << power.min(28)]);
        let mut sizes: Vec<usize> = sizes.chain([1, 777_777, 33_333_333]).collect();
        sizes.sort_unstable();
        let mut before = Limits::for_memory(0);
        for bytes in sizes {
            let limits = Limits::for_memory(bytes);
            assert_eq!(limits.check(), Ok(()), "{bytes}");
            let ceiling = limits.memory_ceiling();
            assert!(ceiling <= bytes.max(512 << 10), "{bytes}: {ceiling}");
            assert!(limits.process_bytes >= bytes / 2, "{bytes}: {}", limits.process_bytes);
            let pairs = [
                (before.max_head_bytes, limits.max_head_bytes),
                (before.max_connections, limits.max_connections),
                (before.max_pending_handshakes, limits.max_pending_handshakes),
                (before.process_bytes, limits.process_bytes),
                (before.read_buffer_bytes, limits.read_buffer_bytes),
            ];
            assert!(pairs.iter().all(|(less, more)| less <= more), "{bytes}: {pairs:?}");
            before = limits;
        }
        assert_eq!(Limits::for_memory(16 << 20).max_connections, 4_096);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn limits_with_tls_keep_to_a_size_of_memory_too() {
        assert!(Limits::new().memory_ceiling_with_tls() <= 57 << 20);
        for bytes in [0, 1 << 20, 3 << 20, 16 << 20, 33_333_333, 64 << 20, 1 << 30] {
            let limits = Limits::for_memory_with_tls(bytes);
            assert_eq!(limits.check(), Ok(()), "{bytes}");
            let ceiling = limits.memory_ceiling_with_tls();
            assert!(ceiling <= bytes.max(1 << 20), "{bytes}: {ceiling}");
            assert!(limits.process_bytes >= bytes / 8, "{bytes}: {limits:?}");
        }
    }

    #[test]
    fn zero_and_absurd_values_are_refused_by_name() {
        let absurd = Limits::new().close_timeout(Duration::from_secs(u64::MAX));
        assert!(absurd.check().unwrap_err().starts_with("close_timeout"));
        assert!(Limits::new().max_connections(0).check().is_err());
        for rate in [0, u32::MAX] {
            assert!(Limits::new().min_rate(rate).check().unwrap_err().starts_with("min_rate is"));
        }
        assert!(
            Limits::new().stop_grace(Duration::MAX).check().unwrap_err().starts_with("stop_grace")
        );
        assert_eq!(Limits::new().check(), Ok(()));
    }
}

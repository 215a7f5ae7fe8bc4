//! A socket with TLS: records in, plain bytes out, and back.
//!
//! ```text
//!   socket --> held (a record that is not whole) --> Engine --> plain bytes
//!   socket <-- backlog (records it did not take)  <-- Engine <-- plain bytes
//! ```
//!
//! What was written is accepted for good: it goes out before anything behind it, and
//! [`Wire::backlog`](crate::structures::wire::Wire::backlog) says how much of it only this process has.

mod reading;
mod writing;

use std::io::ErrorKind;
use std::rc::Rc;

use crate::protocol::tls_fault::TlsFault;
use crate::transport::stream::Stream;
#[cfg(feature = "tls-client-auth")]
use crate::transport::tls::acceptor::Acceptor;
use crate::transport::tls::engine::{Ending, Engine, RECORD_MAX};
use crate::transport::tls::shared::Shared;

/// The most bytes held of a peer: a record, and a handshake message that is not whole before it.
pub(crate) const HELD_MAX: usize = 2 * RECORD_MAX;

/// So much of a peer's chain does not count: most are shorter, and to count costs more than they do.
const CHAIN_UNCOUNTED: usize = 1 << 10;

/// The size of the buffer to read into, where so much is read at once: half of it is for what is plain,
/// the other for what is held and for what is read behind it.
pub(crate) fn buffer_bytes(read_bytes: usize) -> usize {
    read_bytes.max(HELD_MAX.saturating_add(RECORD_MAX)).saturating_mul(2)
}

/// What a read of a socket with TLS gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SecuredRead {
    Input(Input),
    Drained,
    /// The peer has ended its side.
    Eof,
    /// The connection has ended behind no close_notify: more may have been meant to come (RFC 8446
    /// section 6.1).
    Truncated,
    /// What came first is no TLS; from here the connection is plain.
    NotTls,
    /// The peer broke TLS, or could not agree on anything. The alert is out, if there is one.
    TlsFailed(Box<TlsFault>),
    /// Nothing was read: a handshake would take more than is left of this turn.
    Later,
    Failed(ErrorKind),
}

/// Bytes for the core, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    /// How many lie at the start of the buffer.
    pub(crate) bytes: usize,
    /// How many were read for them, and the work that they made.
    pub(crate) work: usize,
    /// Whether there may be more now.
    pub(crate) more: bool,
}

/// What has changed below the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Bytes that are held for the connection.
    pub(crate) held: usize,
    /// A handshake is complete since this was asked last.
    pub(crate) handshake: Option<Handshake>,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// With certificate and signature.
    Full,
    /// By a ticket of an earlier one.
    Resumed,
}

/// A socket with TLS.
#[derive(Debug)]
pub(crate) struct Secured<S> {
    pub(super) stream: S,
    engine: Engine,
    shared: Rc<Shared>,
    /// `None` while nothing waits, as mostly.
    waiting: Option<Box<Waiting>>,
    /// The bytes held when the core was told last.
    told: u32,
    /// What the peer's chain takes beyond what each connection is allowed; it stays as long as the
    /// connection. It came in a message of [`HELD_MAX`] at most.
    chain: u16,
    stage: Stage,
    /// The name that the peer asked for.
    server_name: Option<Rc<Box<str>>>,
    /// The handshake that was completed, until that is told.
    handshake: Option<Handshake>,
    /// The peer's side has ended, by close_notify or by the socket, and that was told.
    peer_ended: bool,
    /// Our side is to end, and has once the backlog is out.
    shut: bool,
    /// The core had something to write that could not be sealed yet.
    wants_write: bool,
}

/// What waits at a connection with TLS, on its way in or out.
#[derive(Debug, Default)]
struct Waiting {
    /// What came and is not whole.
    held: Vec<u8>,
    /// How many bytes have to be held before there is anything to do.
    needed: u32,
    /// Bytes at the start of `backlog` that the socket has taken.
    sent: u32,
    /// Records that the socket has not taken.
    backlog: Vec<u8>,
    /// What the next read says instead of reading.
    ending: Option<Ending>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.backlog.is_empty() && self.ending.is_none()
    }

    fn memory(&self) -> usize {
        let buffers = self.held.capacity().saturating_add(self.backlog.capacity());
        buffers.saturating_add(size_of::<Self>())
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A PROXY header comes before everything else.
    ProxyHeader,
    /// Nothing came yet.
    Start,
    Handshake,
    Open,
    /// The peer does not speak TLS: bytes go through as they are.
    Plain,
    /// TLS is over: nothing can be sealed, and what comes is dropped.
    Over,
}

impl<S: Stream> Secured<S> {
    pub(super) fn new(stream: S, engine: Engine, shared: Rc<Shared>, proxy_header: bool) -> Self {
        Self {
            stream,
            engine,
            shared,
            waiting: None,
            told: 0,
            chain: 0,
            stage: if proxy_header { Stage::ProxyHeader } else { Stage::Start },
            server_name: None,
            handshake: None,
            peer_ended: false,
            shut: false,
            wants_write: false,
        }
    }

    /// Whether its listener would not let in the client now that has shown a certificate; `None` where it is
    /// of another listener, or has shown none.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn is_refused_by(&self, acceptor: &Rc<Acceptor>) -> Option<bool> {
        let is_its_own = Rc::ptr_eq(&self.shared, &acceptor.shared());
        is_its_own.then(|| self.shared.refuses(&self.engine)).flatten()
    }

    /// Whether its handshake is still to be made, or under way.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn is_shaking_hands(&self) -> bool {
        matches!(self.stage, Stage::ProxyHeader | Stage::Start | Stage::Handshake)
    }

    /// A client's: its ClientHello goes out. The connection fails where it cannot.
    #[cfg(feature = "client")]
    pub(super) fn of_client(
        stream: S,
        engine: Engine,
        shared: Rc<Shared>,
    ) -> (Self, std::io::Result<()>) {
        let mut secured = Self::new(stream, engine, shared, false);
        let mut scratch = secured.shared.scratch();
        secured.engine.open(&mut [], &mut [], &mut scratch);
        let sent = secured.send(&mut scratch);
        secured.shared.keep(scratch);
        (secured, sent.map(drop))
    }

    /// What has changed since this was asked last.
    #[inline]
    pub(crate) fn take_changes(&mut self) -> Option<Changes> {
        let waiting = self.waiting.as_deref().map_or(0, Waiting::memory);
        let held = waiting.saturating_add(self.chain.into());
        if held == self.told as usize && self.handshake.is_none() {
            return None;
        }
        self.told = u32::try_from(held).unwrap_or(u32::MAX);
        Some(Changes { held, handshake: self.handshake.take() })
    }

    fn waiting(&mut self) -> &mut Waiting {
        self.waiting.get_or_insert_default()
    }

    /// Gives back what is of no use while nothing waits.
    fn release_idle(&mut self) {
        if self.waiting.as_deref().is_some_and(Waiting::is_empty) {
            self.waiting = None;
        }
    }
}

/// What came and is not whole.
fn held(waiting: &mut Option<Box<Waiting>>) -> &mut [u8] {
    waiting.as_deref_mut().map_or(&mut [], |waiting| &mut waiting.held)
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

//! What connections with TLS share: those of one listener, or all that are dialled.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(feature = "tls-client-auth")]
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

#[cfg(feature = "tls-client-auth")]
use super::engine::Engine;
use super::engine::Scratch;

/// A buffer for one connection's turn, and what rustls is told and tells.
#[derive(Default)]
pub(crate) struct Shared {
    pub(super) time: Arc<ToldTime>,
    /// The name that was asked for last: most ask for the same.
    last_name: RefCell<Option<Rc<Box<str>>>>,
    scratch: Cell<Scratch>,
    /// The most bytes of a PROXY header.
    pub(crate) max_proxy_header: usize,
    /// What judges the certificates of clients, where they are asked for any.
    #[cfg(feature = "tls-client-auth")]
    judge: Option<Box<Judge>>,
}

/// Whether a chain would not be let in now; `None` where nobody judges it.
#[cfg(feature = "tls-client-auth")]
pub(super) type Judge = dyn Fn(&[CertificateDer<'static>]) -> Option<bool>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Shared {
    /// Of a listener: its buffer is there before its connections.
    pub(super) fn of_listener(time: Arc<ToldTime>, max_proxy_header: usize) -> Self {
        let scratch = Cell::new(Scratch::for_records());
        Self { time, scratch, max_proxy_header, ..Self::default() }
    }

    /// The same where certificates of clients are judged, if they are.
    #[cfg(feature = "tls-client-auth")]
    pub(super) fn judged_by(self, judge: Option<Box<Judge>>) -> Self {
        Self { judge, ..self }
    }

    /// Whether a client would not be let in now by the certificate that it has shown, in this handshake or in
    /// the one whose ticket it had; `None` if it has shown none, or nobody judges it.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn refuses(&self, engine: &Engine) -> Option<bool> {
        self.judge.as_ref()?(engine.peer_chain())
    }

    /// The buffer, which is to be given back.
    #[inline]
    pub(crate) fn scratch(&self) -> Scratch {
        self.scratch.take()
    }

    /// Gives the buffer back, empty.
    #[inline]
    pub(crate) fn keep(&self, mut scratch: Scratch) {
        scratch.clear();
        self.scratch.set(scratch);
    }

    /// The wall clock, where it is known.
    pub(crate) fn set_time(&self, since_1970: Option<Duration>) {
        if let Some(time) = since_1970 {
            self.time.0.store(u32::try_from(time.as_secs()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// The name that the handshake just now asked for.
    pub(crate) fn asked_name(&self) -> Option<Rc<Box<str>>> {
        let asked = AskedName::take()?;
        let mut last = self.last_name.try_borrow_mut().ok()?;
        if last.as_deref().is_none_or(|last| **last != *asked) {
            *last = Some(Rc::new(asked.into()));
        }
        last.clone()
    }
}

/// The time that rustls is told: what whoever owns sockets says that the wall clock shows.
#[derive(Debug, Default)]
pub(super) struct ToldTime(AtomicU32);

impl TimeProvider for ToldTime {
    fn current_time(&self) -> Option<UnixTime> {
        let secs = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(secs.into())))
    }
}

thread_local! {
    static ASKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// The name that the last ClientHello asked for. rustls tells it nowhere else than to the resolver of
/// certificates, which several threads may use; it is asked for on the thread that was told.
pub(super) struct AskedName;

impl AskedName {
    pub(super) fn note(name: Option<&str>) {
        ASKED.set(name.map(str::to_owned));
    }

    fn take() -> Option<String> {
        ASKED.take()
    }
}

//! What connections with TLS share: those of one listener, or all that are dialled.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::engine::Scratch;

/// A buffer for one connection's turn, and what rustls is told and tells.
#[derive(Default)]
pub(crate) struct Shared {
    pub(super) time: Arc<ToldTime>,
    pub(super) asked: Arc<AskedName>,
    /// The name that was asked for last: most ask for the same.
    last_name: RefCell<Option<Rc<Box<str>>>>,
    scratch: Cell<Scratch>,
    /// The most bytes of a PROXY header.
    pub(crate) max_proxy_header: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Shared {
    /// Of a listener: its buffer is there before its connections.
    pub(super) fn of_listener(
        time: Arc<ToldTime>,
        asked: Arc<AskedName>,
        max_proxy_header: usize,
    ) -> Self {
        let scratch = Cell::new(Scratch::for_records());
        Self { time, asked, last_name: RefCell::new(None), scratch, max_proxy_header }
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
        let asked = self.asked.take()?;
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

/// The name that the last ClientHello asked for. rustls tells it nowhere else, and its interface wants
/// what several threads could use: only one does.
#[derive(Debug, Default)]
pub(super) struct AskedName(Mutex<Option<String>>);

impl AskedName {
    pub(super) fn note(&self, name: Option<&str>) {
        if let Ok(mut asked) = self.0.lock() {
            *asked = name.map(str::to_owned);
        }
    }

    fn take(&self) -> Option<String> {
        self.0.lock().ok()?.take()
    }
}

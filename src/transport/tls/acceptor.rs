//! The TLS of one listener: its certificates as they are now, and what its connections share.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
#[cfg(feature = "tls-client-auth")]
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;
#[cfg(feature = "tls-client-auth")]
use rustls::time_provider::TimeProvider;

use crate::words::tls::{Loaded, TlsError, TlsOptions};

use super::certificate::{Fault, Validity};
use super::config::{Configured, Lasting, configure};
use super::engine::Engine;
#[cfg(feature = "tls-client-auth")]
use super::shared::Judge;
use super::shared::{Shared, ToldTime};

/// The certificates of one listener as they are now, for all loops that serve its connections.
pub(crate) struct Certificates {
    options: TlsOptions,
    /// The files to be watched as they were just before they were read.
    stamps: Vec<Stamp>,
    time: Arc<ToldTime>,
    lasting: Mutex<Lasting>,
    configured: Mutex<Configured>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A panic leaves what is there as it was: it is replaced in one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Certificates {
    /// Reads all that `options` name.
    pub(crate) fn load(options: TlsOptions) -> Loaded<Self> {
        let time = Arc::new(ToldTime::default());
        let lasting = Lasting {
            provider: Arc::new(default_provider()),
            time: Arc::<ToldTime>::clone(&time),
            ticketer: new_ticketer()?,
        };
        let stamps = stamps(&watched_files(&options));
        let configured = Mutex::new(configure(&options, &lasting)?);
        Ok(Self { options, stamps, time, lasting: Mutex::new(lasting), configured })
    }

    /// Reads everything again. Connections that are there go on as they are. What cannot be used changes
    /// nothing.
    ///
    /// Where other clients are let in than before, nobody resumes: a ticket stands for a certificate that
    /// was judged when it was given out.
    fn reload(&self) -> Loaded<()> {
        let mut lasting = locked(&self.lasting);
        let mut next = configure(&self.options, &lasting)?;
        // Files were read without it: the handshakes of other loops do not wait for the flash.
        let mut present = locked(&self.configured);
        if next.clients != present.clients {
            lasting.ticketer = new_ticketer()?;
            next.set_ticketer(&lasting.ticketer);
        }
        *present = next;
        Ok(())
    }
}

/// Certificates of clients.
#[cfg(feature = "tls-client-auth")]
impl Certificates {
    /// What judges them, where clients are asked for any.
    fn judge(self: &Arc<Self>) -> Option<Box<Judge>> {
        self.options.clients.as_ref()?;
        let judging = Arc::clone(self);
        Some(Box::new(move |chain| judging.refuses(chain)))
    }

    /// Whether a client would not be let in now by that chain; `None` if it is none.
    fn refuses(&self, chain: &[CertificateDer<'static>]) -> Option<bool> {
        let (own, others) = chain.split_first()?;
        let verifier = locked(&self.configured).verifier.clone()?;
        Some(verifier.verify_client_cert(own, others, self.time.current_time()?).is_err())
    }
}

fn watched_files(options: &TlsOptions) -> Vec<PathBuf> {
    if options.reloads_on_change { options.files() } else { Vec::new() }
}

/// Device, inode, size and last change of a file, which are others once it was written to or replaced.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let file = fs::metadata(file).ok()?;
        Some((file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
    };
    files.iter().map(stamp).collect()
}

fn new_ticketer() -> Loaded<Arc<dyn ProducesTickets>> {
    Ticketer::new().map_err(|error| TlsError(format!("no randomness for tickets: {error}")))
}

/// The TLS of one listener, on one loop.
pub(crate) struct Acceptor {
    certificates: Arc<Certificates>,
    shared: Rc<Shared>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn new(certificates: Arc<Certificates>, max_proxy_header: usize) -> Self {
        let time = Arc::clone(&certificates.time);
        let shared = Shared::of_listener(time, max_proxy_header);
        #[cfg(feature = "tls-client-auth")]
        let shared = shared.judged_by(certificates.judge());
        Self { certificates, shared: Rc::new(shared) }
    }

    /// What its connections share.
    pub(crate) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.shared)
    }

    /// A connection's TLS, with the certificates of now.
    pub(crate) fn engine(&self) -> Option<Engine> {
        let config = Arc::<ServerConfig>::clone(&self.configured().server);
        Engine::of_server(config)
    }

    fn configured(&self) -> MutexGuard<'_, Configured> {
        locked(&self.certificates.configured)
    }

    /// Reads everything again, for all loops.
    pub(crate) fn reload(&self) -> Loaded<()> {
        self.certificates.reload()
    }

    /// The files that are to be watched.
    pub(crate) fn watched_files(&self) -> Vec<PathBuf> {
        watched_files(&self.certificates.options)
    }

    /// Whether those have changed since the listener was made.
    pub(crate) fn is_outdated(&self) -> bool {
        stamps(&self.watched_files()) != self.certificates.stamps
    }

    /// Whether those who are refused now are to go.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn ends_refused(&self) -> bool {
        self.certificates.options.clients.as_ref().is_some_and(|clients| clients.ends_refused)
    }

    /// When its certificates are valid.
    pub(crate) fn validities(&self) -> Vec<Validity> {
        self.configured().validities.clone()
    }

    /// What is to be said of its certificates at that time.
    pub(crate) fn faults(&self, now: Duration) -> Vec<(String, Fault)> {
        let validities = self.validities();
        let certificates = &self.certificates.options.certificates;
        let files = certificates.iter().map(|files| format!("{:?}", files.chain));
        let faulty = files.zip(validities).filter_map(|(name, it)| Some((name, it.fault(now)?)));
        faulty.collect()
    }
}

//! The TLS of one listener: its certificates as they are now, and what its connections share.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::ProducesTickets;
#[cfg(feature = "tls-client-auth")]
use rustls::time_provider::TimeProvider;

use crate::words::tls::{Loaded, TlsError, TlsOptions};

use super::certificate::{Fault, Validity};
use super::config::{Configured, Lasting, configure};
use super::engine::Engine;
use super::shared::{Shared, ToldTime};

/// What a listener with TLS needs, before there is a loop.
pub(crate) struct Prepared {
    options: TlsOptions,
    lasting: Lasting,
    time: Arc<ToldTime>,
    configured: Configured,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Reads all that `options` name.
    pub(crate) fn load(options: TlsOptions) -> Loaded<Self> {
        let time = Arc::new(ToldTime::default());
        let lasting = Lasting {
            provider: Arc::new(default_provider()),
            time: Arc::<ToldTime>::clone(&time),
            ticketer: new_ticketer()?,
            asked: Arc::default(),
        };
        let configured = configure(&options, &lasting)?;
        Ok(Self { options, lasting, time, configured })
    }
}

fn new_ticketer() -> Loaded<Arc<dyn ProducesTickets>> {
    Ticketer::new().map_err(|error| TlsError(format!("no randomness for tickets: {error}")))
}

/// The TLS of one listener.
pub(crate) struct Acceptor {
    options: TlsOptions,
    shared: Rc<Shared>,
    lasting: RefCell<Lasting>,
    configured: RefCell<Configured>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn new(prepared: Prepared, max_proxy_header: usize) -> Self {
        let Prepared { options, lasting, time, configured } = prepared;
        let asked = Arc::clone(&lasting.asked);
        let shared = Rc::new(Shared::of_listener(time, asked, max_proxy_header));
        let (lasting, configured) = (RefCell::new(lasting), RefCell::new(configured));
        Self { options, shared, lasting, configured }
    }

    /// What its connections share.
    pub(crate) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.shared)
    }

    /// A connection's TLS, with the certificates of now.
    pub(crate) fn engine(&self) -> Option<Engine> {
        let config = self.configured.try_borrow().ok()?;
        Engine::of_server(Arc::<ServerConfig>::clone(&config.server))
    }

    /// Reads everything again. Connections that are there go on as they are. What cannot be used changes
    /// nothing.
    ///
    /// Where other clients are let in than before, nobody resumes: a ticket stands for a certificate that
    /// was judged when it was given out.
    pub(crate) fn reload(&self) -> Loaded<()> {
        let busy = |_| TlsError("it is in use".into());
        let mut lasting = self.lasting.try_borrow_mut().map_err(busy)?;
        let mut present =
            self.configured.try_borrow_mut().map_err(|_| TlsError("it is in use".into()))?;
        let mut next = configure(&self.options, &lasting)?;
        if next.clients != present.clients {
            lasting.ticketer = new_ticketer()?;
            next.set_ticketer(&lasting.ticketer);
        }
        *present = next;
        Ok(())
    }

    /// The files that are to be watched.
    pub(crate) fn watched_files(&self) -> Vec<PathBuf> {
        if self.options.reloads_on_change { self.options.files() } else { Vec::new() }
    }

    /// Whether those who are refused now are to go.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn ends_refused(&self) -> bool {
        self.options.clients.as_ref().is_some_and(|clients| clients.ends_refused)
    }

    /// Whether a client would not be let in now by the certificate that it has shown; `None` if it has shown
    /// none.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn refuses(&self, engine: &Engine) -> Option<bool> {
        let (own, others) = engine.peer_chain().split_first()?;
        let configured = self.configured.try_borrow().ok()?;
        let (verifier, now) = (configured.verifier.as_ref()?, self.shared.time.current_time()?);
        Some(verifier.verify_client_cert(own, others, now).is_err())
    }

    /// When its certificates are valid.
    pub(crate) fn validities(&self) -> Vec<Validity> {
        self.configured.try_borrow().map(|it| it.validities.clone()).unwrap_or_default()
    }

    /// What is to be said of its certificates at that time.
    pub(crate) fn faults(&self, now: Duration) -> Vec<(String, Fault)> {
        let validities = self.validities();
        let files = self.options.certificates.iter().map(|files| format!("{:?}", files.chain));
        let faulty = files.zip(validities).filter_map(|(name, it)| Some((name, it.fault(now)?)));
        faulty.collect()
    }
}

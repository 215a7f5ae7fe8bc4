//! The TLS of dialers: a configuration for those with equal options, and the beginning of a connection.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;

use crate::words::tls::{Loaded, TlsError};
use crate::words::tls_client::ClientTlsOptions;

use super::config::certified_key;
use super::engine::Engine;
use super::roots::read_roots;
use super::server_verifier::Verifier;
use super::shared::Shared;
use super::tickets::RecentTickets;

/// The TLS of those dialers whose options are equal.
pub(crate) struct TlsConnector {
    options: ClientTlsOptions,
    config: RefCell<Arc<ClientConfig>>,
    shared: Rc<Shared>,
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").field("options", &self.options).finish_non_exhaustive()
    }
}

/// All that the dialers of a loop have, while one of them uses it.
#[derive(Debug, Default)]
pub(crate) struct TlsConnectors {
    shared: Rc<Shared>,
    known: RefCell<Vec<Weak<TlsConnector>>>,
}

impl TlsConnectors {
    /// The one of these options; what they name is read where they are new.
    pub(crate) fn find(&self, options: &ClientTlsOptions) -> Loaded<Rc<TlsConnector>> {
        let mut known = self.known.borrow_mut();
        known.retain(|connector| connector.strong_count() > 0);
        let found = known.iter().filter_map(Weak::upgrade).find(|it| it.options == *options);
        if let Some(found) = found {
            return Ok(found);
        }
        let connector = Rc::new(TlsConnector {
            options: options.clone(),
            config: RefCell::new(Arc::new(configure(options, &self.shared)?)),
            shared: Rc::clone(&self.shared),
        });
        known.push(Rc::downgrade(&connector));
        Ok(connector)
    }

    /// Reads again what all of them name. What cannot be used changes nothing, and is an error.
    pub(crate) fn reload(&self) -> Vec<TlsError> {
        let known = self.known.borrow();
        let reload = |connector: Rc<TlsConnector>| {
            let config = configure(&connector.options, &self.shared)?;
            connector.config.replace(Arc::new(config));
            Ok(())
        };
        known.iter().filter_map(Weak::upgrade).filter_map(|it| reload(it).err()).collect()
    }
}

fn configure(options: &ClientTlsOptions, shared: &Shared) -> Loaded<ClientConfig> {
    let provider = Arc::new(default_provider());
    let roots = read_roots(options)?;
    let verifier = Verifier::new(roots, options.pins.clone(), Arc::clone(&provider))?;
    let builder =
        ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&shared.time) as _)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(error.to_string()))?
            .dangerous() // as rustls calls it: ours lets in less than its own, or what is pinned
            .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.certificate {
        Some(files) => {
            let key = certified_key(files, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::store(Arc::new(RecentTickets::default()));
    Ok(config)
}

/// What a connection needs to begin with TLS.
#[derive(Debug)]
pub(crate) struct TlsStart {
    connector: Rc<TlsConnector>,
    name: ServerName<'static>,
    /// What is spoken there; `None` for a protocol of the application's own.
    protocol: Option<&'static [u8]>,
}

/// RFC 6455 is spoken over HTTP/1.1: no server is to choose another.
const HTTP: &[u8] = b"http/1.1";

impl TlsStart {
    /// With the host of a URL; the error says why no certificate could be for it.
    pub(crate) fn new(connector: Rc<TlsConnector>, host: &str) -> Result<Self, String> {
        Ok(Self { connector, name: server_name(host)?, protocol: Some(HTTP) })
    }

    /// Nothing is said of what is spoken. RFC 7301 section 3.2: who is offered nothing that it speaks ends
    /// the handshake.
    pub(crate) fn of_bytes(self) -> Self {
        Self { protocol: None, ..self }
    }

    pub(crate) fn engine(&self, since_1970: Option<Duration>) -> Option<Engine> {
        // Now, since tickets have their time too.
        self.connector.shared.set_time(since_1970);
        let config = Arc::clone(&*self.connector.config.try_borrow().ok()?);
        // It looks at what an earlier server has given out: a panic over that is the end of one attempt.
        let protocols = self.protocol.iter().map(|name| name.to_vec()).collect();
        let name = self.name.clone();
        let begin = || UnbufferedClientConnection::new_with_alpn(config, name, protocols).ok();
        catch_unwind(AssertUnwindSafe(begin)).ok().flatten().map(Engine::of_client)
    }

    pub(crate) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.connector.shared)
    }
}

/// Whom a certificate has to be for. The zone of an address is this machine's own business.
fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let host = host.split('%').next().unwrap_or_default();
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| format!("no certificate can be for the host {host:?}: is it a name of DNS?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tls::Pem;
    use crate::words::tls_client::Roots;

    const AUTHORITY: &str = include_str!("../../testing/network/certificates/authority.pem");

    fn trusting(pem: &str) -> ClientTlsOptions {
        ClientTlsOptions { roots: Some(Roots::pem(Pem::bytes(pem))), ..Default::default() }
    }

    #[test]
    fn equal_options_share_what_is_made_of_them() {
        let connectors = TlsConnectors::default();
        let one = connectors.find(&trusting(AUTHORITY)).unwrap();
        let same = connectors.find(&trusting(AUTHORITY)).unwrap();
        assert!(Rc::ptr_eq(&one, &same));
        let other = connectors.find(&trusting(&format!("{AUTHORITY}\n"))).unwrap();
        assert!(!Rc::ptr_eq(&one, &other) && Rc::ptr_eq(&one.shared, &other.shared));
        drop((one, same, other));
        drop(connectors.find(&trusting(AUTHORITY)));
        assert_eq!(connectors.known.borrow().len(), 1, "what nobody has is forgotten");
    }

    #[test]
    fn a_reload_takes_what_can_be_used_and_leaves_the_rest_as_it_was() {
        let path = std::env::temp_dir().join(format!("wirewheel-reload-{}", std::process::id()));
        std::fs::write(&path, AUTHORITY).unwrap();
        let options =
            ClientTlsOptions { roots: Some(Roots::pem(path.clone())), ..Default::default() };
        let connectors = TlsConnectors::default();
        let connector = connectors.find(&options).unwrap();
        let config = || Arc::clone(&*connector.config.borrow());
        let first = config();
        assert_eq!(connectors.reload(), []);
        let second = config();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(&path, "half a file").unwrap();
        assert!(connectors.reload()[0].to_string().contains("BEGIN CERTIFICATE"));
        std::fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&second, &config()));
    }

    #[test]
    fn mistakes_are_named() {
        let connectors = TlsConnectors::default();
        for (options, said) in [
            (trusting("x"), "BEGIN CERTIFICATE"),
            (
                ClientTlsOptions {
                    roots: Some(Roots::pem("/nonexistent.pem")),
                    ..Default::default()
                },
                "/nonexistent.pem",
            ),
        ] {
            let mistake = connectors.find(&options).unwrap_err().to_string();
            assert!(mistake.contains(said), "{mistake}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in ["box.example", "127.0.0.1", "::1", "fe80::1%lo", "a_b", "h."] {
            assert!(server_name(host).is_ok(), "{host}");
        }
        for host in ["", "a!b", "-", "a..b"] {
            assert!(server_name(host).unwrap_err().contains("host"), "{host}");
        }
    }
}

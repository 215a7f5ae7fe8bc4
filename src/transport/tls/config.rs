//! What rustls is given: certificates and keys out of PEM, and what is wrong with them.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{Error, InconsistentKeys, ServerConfig};

use crate::words::tls::{CertificateFiles, Loaded, Pem, TlsError, TlsOptions};

use super::certificate::{Certificate, Validity};
#[cfg(feature = "tls-client-auth")]
use super::client_auth::Verifier;
use super::pem_files::{certificates, private_key};
use super::shared::AskedName;

/// What is loaded again and again for a listener, and lives longer than its certificates.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) time: Arc<dyn TimeProvider>,
    pub(super) ticketer: Arc<dyn ProducesTickets>,
}

/// The present configuration of a listener.
pub(super) struct Configured {
    pub(super) server: Arc<ServerConfig>,
    /// When each of its certificates is valid.
    pub(super) validities: Vec<Validity>,
    /// Which clients it lets in: another number stands for others.
    pub(super) clients: u64,
    /// Who judges them, if they are asked.
    #[cfg(feature = "tls-client-auth")]
    pub(super) verifier: Option<Verifier>,
}

impl Configured {
    /// From now on tickets are made with other keys.
    pub(super) fn set_ticketer(&mut self, ticketer: &Arc<dyn ProducesTickets>) {
        let mut config = ServerConfig::clone(&self.server);
        config.ticketer = Arc::clone(ticketer);
        self.server = Arc::new(config);
    }
}

/// Reads all that `options` name.
pub(super) fn configure(options: &TlsOptions, lasting: &Lasting) -> Loaded<Configured> {
    let keys = options.certificates.iter().map(|files| certified_key(files, &lasting.provider));
    let keys = keys.collect::<Loaded<Vec<_>>>()?;
    let own = keys.iter().filter_map(|key| key.cert.first());
    let validities = own.filter_map(|der| Some(Certificate::read(der)?.validity)).collect();
    let builder = ServerConfig::builder_with_details(
        Arc::clone(&lasting.provider),
        Arc::clone(&lasting.time),
    )
    .with_safe_default_protocol_versions()
    .map_err(|error| TlsError(error.to_string()))?;
    #[cfg(feature = "tls-client-auth")]
    let (builder, clients, verifier) = match &options.clients {
        Some(clients) => {
            let (verifier, number) = super::client_auth::verifier(clients, &lasting.provider)?;
            let builder = builder.with_client_cert_verifier(Arc::clone(&verifier));
            (builder, number, Some(verifier))
        }
        None => (builder.with_no_client_auth(), 0, None),
    };
    #[cfg(not(feature = "tls-client-auth"))]
    let (builder, clients) = (builder.with_no_client_auth(), 0);
    let mut config = builder.with_cert_resolver(Arc::new(ByName { keys }));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Arc::clone(&lasting.ticketer);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Configured {
        server: Arc::new(config),
        validities,
        clients,
        #[cfg(feature = "tls-client-auth")]
        verifier,
    })
}

/// The certificates of a listener.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        AskedName::note(hello.server_name());
        let named = match self.keys.as_slice() {
            [_] => None, // it is shown whatever is asked for
            _ => hello.server_name().and_then(|name| ServerName::try_from(name).ok()),
        };
        let fitting = named.and_then(|name| self.keys.iter().find(|key| is_valid_for(key, &name)));
        fitting.or_else(|| self.keys.first()).cloned()
    }
}

fn is_valid_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

/// A chain with its key, which has to fit.
pub(super) fn certified_key(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Loaded<Arc<CertifiedKey>> {
    let chain = certificates(&files.chain)?;
    check_order(&chain, &files.chain)?;
    let key = private_key(&files.key)?;
    let signing = provider.key_provider.load_private_key(key).map_err(|error| {
        TlsError(format!("{:?}: the key is of no kind that can be used: {error}", files.key))
    })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(_)) => Err(mismatch(files, &certified)),
        Err(error) => {
            Err(TlsError(format!("{:?}: the certificate cannot be used: {error}", files.chain)))
        }
    }
}

/// Says why a key does not fit: perhaps to another certificate of the chain.
fn mismatch(files: &CertificateFiles, certified: &CertifiedKey) -> TlsError {
    let later = certified.cert.iter().enumerate().skip(1).find(|(_, certificate)| {
        let alone = CertifiedKey::new(vec![(*certificate).clone()], Arc::clone(&certified.key));
        alone.keys_match().is_ok()
    });
    let (chain, key) = (&files.chain, &files.key);
    TlsError(match later {
        Some((place, _)) => format!(
            "{chain:?}: the key in {key:?} fits certificate {} of the chain: it has to come first",
            place.saturating_add(1)
        ),
        None => {
            format!("{chain:?}: the key in {key:?} does not fit: it belongs to another certificate")
        }
    })
}

/// RFC 8446 section 4.4.2: each certificate should have signed the one before it. rustls sends them as they
/// are, and clients may refuse what is out of order.
fn check_order(chain: &[CertificateDer<'_>], pem: &Pem) -> Loaded<()> {
    let read = |(place, der): (usize, &CertificateDer<'_>)| match Certificate::read(der) {
        Some(_) => Ok(()),
        None => Err(TlsError(format!(
            "{pem:?}: certificate {} of the chain is broken",
            place.saturating_add(1)
        ))),
    };
    chain.iter().enumerate().try_for_each(read)?;
    for (place, pair) in chain.windows(2).enumerate() {
        let [lower, upper] = pair else { continue };
        let signed = Certificate::read(lower).zip(Certificate::read(upper));
        if signed.is_some_and(|(lower, upper)| lower.issuer != upper.subject) {
            return Err(TlsError(format!(
                "{pem:?}: the chain is in the wrong order: certificate {} has not signed the one before \
                 it. The server's own comes first, then the one that signed it, and so on",
                place.saturating_add(2)
            )));
        }
    }
    Ok(())
}

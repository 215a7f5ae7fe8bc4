//! TLS of everybody in memory: of clients and the listener that they connect to, and of servers that are
//! dialled.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The versions of TLS that there are.
#[cfg(feature = "client")]
pub(crate) use rustls::ALL_VERSIONS as VERSIONS;
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Connection, RootCertStore};
#[cfg(feature = "client")]
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, pki_types::PrivateKeyDer};

use crate::transport::tls::acceptor::{Acceptor, Certificates};
use crate::words::tls::{Pem, TlsOptions};

/// The authority, in PEM, that has signed the certificate of servers in memory, which is for
/// `small.example`: what a client trusts that dials one.
///
/// ```
/// use wirewheel::tls::Pem;
/// assert!(wirewheel::testing::AUTHORITY.contains("BEGIN CERTIFICATE"));
/// let pem = Pem::from(wirewheel::testing::AUTHORITY);
/// # let _ = pem;
/// ```
pub const AUTHORITY: &str = include_str!("certificates/authority.pem");
/// Ed25519: its signatures, and so all records of a handshake, have the same length each time.
const CERTIFICATE: &str = include_str!("certificates/small.pem");
const KEY: &str = include_str!("certificates/small.key");
const NAME: &str = "small.example";

/// The TLS of both ends in memory: of the listener, and of those who connect.
#[derive(Clone)]
pub(crate) struct BothEnds {
    pub(crate) acceptor: Rc<Acceptor>,
    client: Arc<ClientConfig>,
}

impl BothEnds {
    pub(crate) fn new(max_proxy_header: usize) -> Self {
        Self { acceptor: acceptor(options(), max_proxy_header), client: client_config() }
    }
}

/// With the kit's certificate.
fn options() -> TlsOptions {
    TlsOptions::new(Pem::bytes(CERTIFICATE), Pem::bytes(KEY))
}

fn acceptor(options: TlsOptions, max_proxy_header: usize) -> Rc<Acceptor> {
    match Certificates::load(options) {
        Ok(certificates) => Rc::new(Acceptor::new(Arc::new(certificates), max_proxy_header)),
        Err(mistake) => panic!("the test kit's certificate: {mistake}"),
    }
}

/// Clients that show a certificate.
#[cfg(all(repository, test, feature = "client", feature = "tls-client-auth"))]
impl BothEnds {
    /// A listener that lets in whom `clients` says, and clients of that version that show a certificate, and
    /// resume.
    pub(crate) fn showing(
        clients: crate::words::tls::ClientCertificates,
        version: &'static SupportedProtocolVersion,
        (chain, key): (&str, &str),
    ) -> Self {
        let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let client =
            ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(SameTime))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots())
                .with_client_auth_cert(vec![chain], key)
                .unwrap();
        let acceptor = acceptor(options().client_certificates(clients), 8 << 10);
        Self { acceptor, client: Arc::new(client) }
    }
}

/// The wall clock of everybody in memory.
#[derive(Debug)]
struct SameTime;

impl TimeProvider for SameTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000)))
    }
}

/// Whom clients trust.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let added = CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).map(|root| roots.add(root));
    assert!(matches!(added, Ok(Ok(()))), "the test kit's authority: {added:?}");
    roots
}

fn client_config() -> Arc<ClientConfig> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(SameTime));
    match builder.with_safe_default_protocol_versions() {
        Ok(builder) => {
            let mut config = builder.with_root_certificates(roots()).with_no_client_auth();
            config.resumption = Resumption::disabled();
            Arc::new(config)
        }
        Err(error) => panic!("the test kit's versions of TLS: {error}"),
    }
}

/// The TLS of a server that is dialled.
#[cfg(feature = "client")]
#[derive(Clone)]
pub(crate) struct FarTls(Arc<ServerConfig>);

#[cfg(feature = "client")]
impl FarTls {
    /// With the kit's certificate.
    pub(crate) fn new() -> Self {
        Self::with(CERTIFICATE, KEY, VERSIONS)
    }

    pub(crate) fn with(
        chain: &str,
        key: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let (Ok(chain), Ok(key)) = (chain, key) else { panic!("no certificate and key in PEM") };
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_details(provider, Arc::new(SameTime))
            .with_protocol_versions(versions)
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        match config {
            Ok(config) => Self(Arc::new(config)),
            Err(error) => panic!("a certificate that cannot be shown: {error}"),
        }
    }
}

/// The far end's TLS.
pub(crate) struct TlsPeer {
    connection: Connection,
    /// The next record that goes out is broken.
    pub(crate) breaks_next: bool,
    /// Records that arrived and were not looked at.
    pub(crate) arrived: Vec<u8>,
    /// What is wrong with what arrived, or what the server's alert says.
    pub(crate) fault: Option<String>,
    /// The server's close_notify has come.
    pub(crate) closed: bool,
}

impl fmt::Debug for TlsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPeer").field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl TlsPeer {
    pub(crate) fn new(ends: &BothEnds) -> Self {
        let name = ServerName::try_from(NAME).ok();
        let connection = name.map(|name| ClientConnection::new(Arc::clone(&ends.client), name));
        let Some(Ok(mut connection)) = connection else { panic!("no connection to {NAME}") };
        connection.set_buffer_limit(None);
        Self::of(connection.into())
    }

    #[cfg(feature = "client")]
    pub(crate) fn server(tls: &FarTls) -> Self {
        match ServerConnection::new(Arc::clone(&tls.0)) {
            Ok(mut connection) => {
                connection.set_buffer_limit(None);
                Self::of(connection.into())
            }
            Err(error) => panic!("no connection from a client: {error}"),
        }
    }

    fn of(connection: Connection) -> Self {
        Self { connection, breaks_next: false, arrived: Vec::new(), fault: None, closed: false }
    }

    /// The records that carry these bytes, and those that wait: none before the handshake is made.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        let mut outcome = self.connection.writer().write_all(plain);
        while outcome.is_ok() && self.connection.wants_write() {
            outcome = self.connection.write_tls(&mut records).map(|_| ());
        }
        if let Err(error) = outcome {
            self.fault.get_or_insert_with(|| error.to_string());
        }
        let breaks = !plain.is_empty() && std::mem::take(&mut self.breaks_next);
        if let Some(last) = records.last_mut().filter(|_| breaks) {
            *last ^= 1;
        }
        records
    }

    /// A close_notify.
    pub(crate) fn seal_end(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.seal(b"")
    }

    /// Opens what arrived: plain bytes go behind `plain`. What it makes the client send comes back.
    pub(crate) fn open(&mut self, plain: &mut Vec<u8>) -> Vec<u8> {
        let arrived = std::mem::take(&mut self.arrived);
        let mut rest = arrived.as_slice();
        while !rest.is_empty() && self.fault.is_none() {
            let read = self.connection.read_tls(&mut rest);
            let opened = self.connection.process_new_packets().map_err(other);
            if let Err(error) = read.and_then(|_| opened.map(|_| 0)) {
                self.fault = Some(error.to_string());
            }
            self.read(plain);
        }
        self.seal(b"")
    }

    fn read(&mut self, plain: &mut Vec<u8>) {
        let mut buffer = [0; 4_096];
        loop {
            match self.connection.reader().read(&mut buffer) {
                Ok(0) => {
                    self.closed = true;
                    return;
                }
                Ok(n) => plain.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.fault.get_or_insert_with(|| error.to_string());
                    return;
                }
            }
        }
    }
}

fn other(error: rustls::Error) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, error)
}

//! The words for TLS: which certificates a listener shows, and what a peer shows.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

/// PEM, in a file or in memory.
///
/// ```
/// use wirewheel::tls::{Pem, TlsOptions};
/// fn options(chain: Vec<u8>, key: Vec<u8>) -> TlsOptions {
///     TlsOptions::new(Pem::bytes(chain), Pem::bytes(key)) // of a certificate in memory
///         .certificate(Pem::file("/etc/box/other.pem"), Pem::file("/etc/box/other.key"))
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(pub(crate) PemSource);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PemSource {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Pem {
    /// A file, which is read when the server starts and whenever certificates are reloaded. A relative path
    /// is made absolute at once: it does not matter where the program goes later.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self(PemSource::File(std::path::absolute(&path).unwrap_or(path)))
    }

    /// What such a file would hold.
    pub fn bytes(pem: impl Into<Vec<u8>>) -> Self {
        Self(PemSource::Bytes(pem.into()))
    }
}

/// Text that holds a PEM block is taken as it is, any other as the path of a file.
impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        if text.contains("-----BEGIN") { Self::bytes(text) } else { Self::file(text) }
    }
}

impl From<String> for Pem {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&std::path::Path> for Pem {
    fn from(path: &std::path::Path) -> Self {
        Self::file(path)
    }
}

/// Keys are not shown.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string())
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(bytes) => write!(f, "{} bytes of PEM", bytes.len()),
        }
    }
}

/// The TLS of a listener: its certificates, and whether clients have to show theirs.
///
/// TLS 1.3 and 1.2 are spoken, with cipher suites that have forward secrecy and authenticate what they
/// encrypt. Clients that come back resume by tickets, whose keys live in memory and are renewed every
/// six hours; data before the end of the handshake (0-RTT) is not taken.
///
/// ```no_run
/// use wirewheel::tls::TlsOptions;
/// use wirewheel::{Application, Listen, Server};
/// let tls = TlsOptions::new("/etc/box/fullchain.pem", "/etc/box/privkey.pem");
/// let server = Server::bind(Listen::tls("0.0.0.0:443", tls), |_app: &mut Application| {})?;
/// server.run()?;
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    pub(crate) certificates: Vec<CertificateFiles>,
    /// Files are read again when they change.
    pub(crate) reloads_on_change: bool,
    #[cfg(feature = "tls-client-auth")]
    pub(crate) clients: Option<ClientCertificates>,
}

/// A chain, and the key of its first certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) chain: Pem,
    pub(crate) key: Pem,
}

impl TlsOptions {
    /// A certificate with its key, both PEM. The chain begins with the server's own certificate; each
    /// that follows has signed the one before it, and the root may be left out. The key is PKCS #8,
    /// PKCS #1 or SEC 1, without a password; a chain's file may be that of its key too.
    pub fn new(chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        Self {
            certificates: vec![CertificateFiles { chain: chain.into(), key: key.into() }],
            reloads_on_change: false,
            #[cfg(feature = "tls-client-auth")]
            clients: None,
        }
    }

    /// A further certificate, for clients that ask for one of its names (SNI). Those who ask for a name
    /// that no certificate has, or for none, get the first.
    ///
    /// ```
    /// use wirewheel::tls::TlsOptions;
    /// let tls = TlsOptions::new("/etc/box/box.pem", "/etc/box/box.key")
    ///     .certificate("/etc/box/other.pem", "/etc/box/other.key");
    /// # let _ = tls;
    /// ```
    #[must_use]
    pub fn certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.certificates.push(CertificateFiles { chain: chain.into(), key: key.into() });
        self
    }

    /// Reads all files again as soon as one of them has changed: it was written to, another one was moved
    /// into its place, or a link on the way to it leads elsewhere. The folders are watched by inotify, so
    /// nothing wakes the loop meanwhile. What cannot be used changes nothing, is logged, and is tried again.
    /// Default: they are read when [`Handle::reload_certificates`](crate::Handle::reload_certificates) is
    /// called, or its like.
    ///
    /// ```
    /// use wirewheel::tls::TlsOptions;
    /// let live = "/etc/letsencrypt/live/box.example"; // of links, which a renewal changes
    /// let tls = TlsOptions::new(format!("{live}/fullchain.pem"), format!("{live}/privkey.pem"))
    ///     .reload_on_change(true);
    /// # let _ = tls;
    /// ```
    #[must_use]
    pub fn reload_on_change(mut self, wanted: bool) -> Self {
        self.reloads_on_change = wanted;
        self
    }

    /// The files that are named.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let own = self.certificates.iter().flat_map(|files| [&files.chain, &files.key]);
        #[cfg(feature = "tls-client-auth")]
        let clients = self.clients.iter();
        #[cfg(feature = "tls-client-auth")]
        let own = own.chain(clients.flat_map(|it| std::iter::once(&it.roots).chain(&it.crls)));
        let path = |pem: &Pem| match &pem.0 {
            PemSource::File(path) => Some(path.clone()),
            PemSource::Bytes(_) => None,
        };
        own.filter_map(path).collect()
    }

    /// Asks clients for a certificate. Default: they are not asked.
    ///
    /// ```
    /// use wirewheel::tls::{ClientCertificates, TlsOptions};
    /// let tls = TlsOptions::new("/etc/box/box.pem", "/etc/box/box.key")
    ///     .client_certificates(ClientCertificates::asked("/etc/box/clients-ca.pem"));
    /// # let _ = tls;
    /// ```
    #[cfg(feature = "tls-client-auth")]
    #[must_use]
    pub fn client_certificates(mut self, clients: impl Into<Option<ClientCertificates>>) -> Self {
        self.clients = clients.into();
        self
    }
}

/// Whose certificates clients have to show.
///
/// ```
/// use wirewheel::tls::{ClientCertificates, TlsOptions};
/// let clients = ClientCertificates::required("/etc/box/clients-ca.pem").crl("/etc/box/clients.crl");
/// let tls = TlsOptions::new("/etc/box/fullchain.pem", "/etc/box/privkey.pem")
///     .client_certificates(clients);
/// # let _ = tls;
/// ```
#[cfg(feature = "tls-client-auth")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    pub(crate) roots: Pem,
    pub(crate) crls: Vec<Pem>,
    pub(crate) required: bool,
    pub(crate) ends_refused: bool,
}

#[cfg(feature = "tls-client-auth")]
impl ClientCertificates {
    /// Nobody is let in without a certificate that these authorities, or those that they signed, have
    /// signed.
    pub fn required(roots: impl Into<Pem>) -> Self {
        Self { roots: roots.into(), crls: Vec::new(), required: true, ends_refused: false }
    }

    /// The same, but whoever has none is let in:
    /// [`Call::peer_certificate`](crate::Call::peer_certificate) says which it is. A certificate of
    /// somebody else is refused.
    ///
    /// ```
    /// use wirewheel::tls::ClientCertificates;
    /// let clients = ClientCertificates::asked("/etc/box/clients-ca.pem");
    /// # let _ = clients;
    /// ```
    pub fn asked(roots: impl Into<Pem>) -> Self {
        Self { required: false, ..Self::required(roots) }
    }

    /// Whether a reload ends those who would not be let in any more: sessions by a Close with
    /// [`CloseCode::VIOLATED_POLICY`](crate::CloseCode::VIOLATED_POLICY), after
    /// [`SessionError::CertificateRefused`](crate::error::SessionError::CertificateRefused). Off by default:
    /// whoever is in, stays, and cannot come back.
    ///
    /// ```
    /// use wirewheel::tls::ClientCertificates;
    /// let clients = ClientCertificates::required("/etc/box/clients-ca.pem")
    ///     .crl("/etc/box/clients.crl")
    ///     .end_refused(true);
    /// # let _ = clients;
    /// ```
    #[must_use]
    pub fn end_refused(mut self, wanted: bool) -> Self {
        self.ends_refused = wanted;
        self
    }

    /// A list of certificates that are revoked, PEM. Once there is one, it has to speak for the
    /// authority of each client: whose state is not known is refused.
    #[must_use]
    pub fn crl(mut self, crl: impl Into<Pem>) -> Self {
        self.crls.push(crl.into());
        self
    }
}

/// What a peer showed in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsPeer {
    /// The name that it asked for.
    pub(crate) server_name: Option<Rc<Box<str>>>,
    /// Its chain, its own certificate first, in DER.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// Why a certificate, a key or a list cannot be used.
///
/// ```
/// use wirewheel::error::ServerError;
/// use wirewheel::tls::TlsOptions;
/// use wirewheel::{Application, Listen, Server};
/// let tls = TlsOptions::new("/nonexistent.pem", "/nonexistent.key");
/// let server = Server::bind(Listen::tls("127.0.0.1:0", tls), |_app: &mut Application| {});
/// let mistake = server.and_then(|server| server.spawn()).unwrap_err();
/// assert!(mistake.to_string().contains("/nonexistent.pem")); // a TlsError, in words
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(pub(crate) String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What a reload is about, and what came of it.
pub(crate) type Loaded<T> = Result<T, TlsError>;

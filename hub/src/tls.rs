//! The TLS of the hub: the files that its options name, and how they become options of a listener.

use std::path::{Path, PathBuf};

#[cfg(feature = "tls")]
use wirewheel::tls::TlsOptions;

use crate::check;
use crate::config::Place;
use crate::options::Given;

/// The files that TLS needs. They are read when the hub starts, when they change, and at SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The authority of the clients that are let in.
    pub(crate) client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// What the options say; an error where they do not fit together.
    pub(crate) fn from_given(given: &Given, listen: &[Place]) -> Result<Option<Self>, String> {
        let file = |name| {
            // A working folder may be another one when they are read again.
            let path = given.one(name).map(PathBuf::from);
            path.map(|path| std::path::absolute(&path).unwrap_or(path))
        };
        let secured = listen.iter().find(|place| place.is_tls());
        let mut files = (file("tls-cert"), file("tls-key"), file("tls-client-ca"));
        let first = ["tls-cert", "tls-key", "tls-client-ca"].into_iter().find(|it| given.is_on(it));
        if let Some(wish) = missing_feature(first.is_some() || secured.is_some(), &files.2) {
            return Err(wish);
        }
        match (files.0.take(), files.1.take(), secured, first) {
            (None, None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(_), _) => {
                Ok(Some(Self { certificate, key, client_ca: files.2 }))
            }
            (Some(_), Some(_), None, _) | (.., None, Some(_)) => Err(format!(
                "--{} is given, and nothing listens with TLS: give --listen tls:HOST:PORT",
                first.unwrap_or("tls-cert")
            )),
            (certificate, _, place, _) => Err(format!(
                "--listen {} needs --{}: a PEM file with {}",
                place.map(ToString::to_string).unwrap_or_default(),
                if certificate.is_none() { "tls-cert" } else { "tls-key" },
                match certificate {
                    None => "the certificate and those that signed it",
                    Some(_) => "its key (the file of --tls-cert, if it is in there)",
                }
            )),
        }
    }

    /// Each option with its file.
    fn each(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let client_ca = self.client_ca.as_deref().map(|path| ("tls-client-ca", path));
        [("tls-cert", self.certificate.as_path()), ("tls-key", self.key.as_path())]
            .into_iter()
            .chain(client_ca)
    }

    /// Whether all are there for this process to read.
    pub(crate) fn readable(&self) -> Result<(), String> {
        self.each().try_for_each(|(name, path)| check::readable(name, path))
    }

    #[cfg(feature = "tls")]
    pub(crate) fn options(&self) -> TlsOptions {
        let options = TlsOptions::new(self.certificate.as_path(), self.key.as_path());
        let options = options.reload_on_change(true);
        #[cfg(feature = "tls-client-auth")]
        let options = {
            use wirewheel::tls::ClientCertificates;
            options.client_certificates(self.client_ca.as_deref().map(ClientCertificates::required))
        };
        options
    }
}

/// What this hub was built without, if that is wanted.
fn missing_feature(tls: bool, client_ca: &Option<PathBuf>) -> Option<String> {
    let (what, feature) = if tls && !cfg!(feature = "tls") {
        ("TLS", "tls")
    } else if client_ca.is_some() && !cfg!(feature = "tls-client-auth") {
        ("--tls-client-ca", "tls-client-auth")
    } else {
        return None;
    };
    Some(format!("this hub was built without {what}: build it with --features {feature}"))
}

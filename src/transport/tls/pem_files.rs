//! Certificates and keys as they lie in files, and what may be wrong with those.

use std::fs;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::words::tls::{Loaded, Pem, PemSource, TlsError};

/// The certificates in a file, of which there has to be one.
pub(super) fn certificates(pem: &Pem) -> Loaded<Vec<CertificateDer<'static>>> {
    let text = read(pem)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(TlsError(format!("{pem:?}: there is no certificate (BEGIN CERTIFICATE)")))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError(format!("{pem:?}: {}", broken(&error)))),
    }
}

pub(super) fn private_key(pem: &Pem) -> Loaded<PrivateKeyDer<'static>> {
    let text = read(pem)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        TlsError(match error {
            pem::Error::NoItemsFound if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") => {
                format!("{pem:?}: the key has a password; one without is needed")
            }
            pem::Error::NoItemsFound => {
                format!("{pem:?}: there is no private key (BEGIN PRIVATE KEY)")
            }
            error => format!("{pem:?}: {}", broken(&error)),
        })
    })
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|part| part == wanted)
}

/// A file that is being written may end anywhere.
pub(super) fn broken(error: &pem::Error) -> String {
    format!("the PEM is broken or not whole: {error}")
}

/// Files of more than this are none that certificates are in.
const FILE_MAX: u64 = 4 << 20;

pub(super) fn read(pem: &Pem) -> Loaded<Vec<u8>> {
    let path = match &pem.0 {
        PemSource::Bytes(bytes) => return Ok(bytes.clone()),
        PemSource::File(path) => path,
    };
    let unreadable = |error| TlsError(format!("{pem:?}: it cannot be read: {error}"));
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_MAX {
        return Err(TlsError(format!("{pem:?}: {length} bytes are no certificates or keys")));
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        let begins = |kind: &str| format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
        for (text, complaint) in [
            (begins("ENCRYPTED PRIVATE KEY"), "the key has a password"),
            (begins("CERTIFICATE"), "there is no private key"),
            (String::new(), "there is no private key"),
        ] {
            let error = private_key(&Pem::bytes(text.clone())).unwrap_err();
            assert!(error.to_string().contains(complaint), "{text}: {error}");
        }
    }
}

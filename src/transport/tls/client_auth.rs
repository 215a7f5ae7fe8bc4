//! Certificates of clients: who may have signed them, and which are revoked.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::words::tls::{ClientCertificates, Loaded, Pem, TlsError};

use super::pem_files::{broken, certificates, read};

pub(super) type Verifier = Arc<dyn ClientCertVerifier>;

/// Judges what clients show; and a number that is another one when it judges by other authorities or lists.
pub(super) fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Loaded<(Verifier, u64)> {
    let pem = &clients.roots;
    let mut number = DefaultHasher::new();
    let mut roots = RootCertStore::empty();
    for root in certificates(pem)? {
        root.hash(&mut number);
        roots
            .add(root)
            .map_err(|error| TlsError(format!("{pem:?}: this is no authority: {error}")))?;
    }
    let lists = clients.crls.iter().map(revoked).collect::<Loaded<Vec<_>>>()?.concat();
    lists.hash(&mut number);
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(lists)
            .enforce_revocation_expiration();
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build();
    let verifier = verifier.map_err(|error| TlsError(format!("client certificates: {error}")))?;
    Ok((verifier, number.finish()))
}

fn revoked(pem: &Pem) -> Loaded<Vec<CertificateRevocationListDer<'static>>> {
    let text = read(pem)?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError(format!(
            "{pem:?}: there is no list of revoked certificates (BEGIN X509 CRL)"
        ))),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError(format!("{pem:?}: {}", broken(&error)))),
    }
}

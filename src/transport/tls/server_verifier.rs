//! The judgement on a server's certificate: authorities, host, time, and pins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, InvalidMessage, OtherError, SignatureScheme,
};

use crate::protocol::tls_fault::TlsFault;
use crate::words::tls::{Loaded, TlsError};
use crate::words::tls_client::{Pin, Pinned, hexadecimal};

use super::certificate::{Certificate, sha256};
use super::roots::Trusted;

/// The longest chain that is looked at: it is kept as long as the connection.
const CHAIN_MAX: usize = 16 << 10;
/// So many names of a certificate are told, of this length.
const NAMES_MAX: usize = 8;
const NAME_MAX: usize = 255;

/// Judges by authorities, by pins or by both.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Authorities, and certificates that are taken as they are; `None` where what is pinned is all that
    /// counts.
    trusted: Option<(Arc<WebPkiServerVerifier>, BTreeSet<[u8; 32]>)>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

/// A certificate that is none of those that are pinned.
#[derive(Debug)]
struct NotPinned(String);

impl std::fmt::Display for NotPinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its public key is {}", self.0)
    }
}

impl std::error::Error for NotPinned {}

impl Verifier {
    pub(super) fn new(
        roots: Option<Trusted>,
        pins: Vec<Pin>,
        provider: Arc<CryptoProvider>,
    ) -> Loaded<Self> {
        let trusted = match roots {
            Some(Trusted { authorities, own }) => {
                let (roots, provider) = (Arc::new(authorities), Arc::clone(&provider));
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                Some((verifier.map_err(|error| TlsError(format!("roots: {error}")))?, own))
            }
            None => None,
        };
        Ok(Self { trusted, pins, provider })
    }

    fn check_pins(&self, der: &[u8]) -> Result<(), Error> {
        let public_key = Certificate::read(der)
            .map(|certificate| sha256(certificate.public_key))
            .ok_or(CertificateError::BadEncoding)?;
        let is_expected = |pin: &Pin| match (pin.of, &pin.sha256) {
            (Pinned::Certificate, Some(expected)) => *expected == sha256(der),
            (Pinned::PublicKey, Some(expected)) => *expected == public_key,
            (_, None) => false,
        };
        if self.pins.is_empty() || self.pins.iter().any(is_expected) {
            return Ok(());
        }
        let shown = NotPinned(hexadecimal(&public_key));
        Err(CertificateError::Other(OtherError(Arc::new(shown))).into())
    }
}

fn check_time(der: &[u8], now: UnixTime) -> Result<(), Error> {
    let validity = Certificate::read(der).ok_or(CertificateError::BadEncoding)?.validity;
    let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
    let (not_before, not_after) = (at(validity.not_before), at(validity.not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let lengths = intermediates.iter().map(|certificate| certificate.len());
        if lengths.fold(end_entity.len(), usize::saturating_add) > CHAIN_MAX {
            return Err(Error::General("the server's chain is longer than 16 KiB".into()));
        }
        self.check_pins(end_entity)?;
        match &self.trusted {
            // webpki takes no authority for a server, as one is that openssl has made without further words.
            Some((_, own)) if own.contains(&sha256(end_entity)) => {
                check_time(end_entity, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Some((authorities, _)) => authorities.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            // The key is the one that is expected, and the server has to prove that it has it.
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What an error of rustls is to whoever dials.
pub(super) fn fault_of(error: &Error) -> TlsFault {
    match error {
        Error::InvalidCertificate(error) => fault_of_certificate(error),
        Error::AlertReceived(alert) => TlsFault::Alert(format!("{alert:?}")),
        // Another protocol altogether; text was recognized before.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsFault::NotTls,
        _ => TlsFault::Other(error.to_string()),
    }
}

fn fault_of_certificate(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
        CertificateError::ExpiredContext { time, not_after } => {
            TlsFault::Expired { ended: since_1970(*not_after), clock: since_1970(*time) }
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            TlsFault::NotYetValid { begins: since_1970(*not_before), clock: since_1970(*time) }
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = presented.iter().take(NAMES_MAX).map(|name| plain_name(name));
            TlsFault::WrongName { names: names.collect() }
        }
        CertificateError::NotValidForName => TlsFault::WrongName { names: Vec::new() },
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<NotPinned>() {
            Some(NotPinned(public_key)) => TlsFault::NotPinned { public_key: public_key.clone() },
            // It has signed itself, and is none that is trusted.
            None if inner.to_string().contains("CaUsedAsEndEntity") => TlsFault::UnknownIssuer,
            None => TlsFault::Other(format!("the server's certificate: {inner}")),
        },
        error => TlsFault::Other(format!("the server's certificate: {error}")),
    }
}

fn since_1970(time: UnixTime) -> Duration {
    Duration::from_secs(time.as_secs())
}

/// rustls tells the names that a certificate has as `DnsName("box.example")`.
fn plain_name(shown: &str) -> String {
    let inner = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(shown).trim_matches('"').chars().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    const CERTIFICATE: &[u8] = include_bytes!("../../testing/network/certificates/small.pem");

    /// RFC 5280 section 4.1.2.5: the period is from the one time "through" the other, inclusive.
    #[test]
    fn a_certificate_is_valid_from_its_first_second_to_its_last() {
        let der = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let validity = Certificate::read(&der).unwrap().validity;
        for (secs, is_valid) in [
            (validity.not_before - 1, false),
            (validity.not_before, true),
            (validity.not_after, true),
            (validity.not_after + 1, false),
        ] {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(secs));
            assert_eq!(check_time(&der, now).is_ok(), is_valid, "{secs}");
        }
    }
}

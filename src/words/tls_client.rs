//! The words for TLS of sessions that are dialled: whom they trust, and what they show.

use std::fmt;

use crate::words::tls::{CertificateFiles, Pem};

/// The authorities that may have signed a server's certificate, directly or through others.
///
/// ```
/// use wirewheel::client::ConnectOptions;
/// use wirewheel::tls::Roots;
/// let own = ConnectOptions::new().roots(Roots::pem("/etc/box/authority.pem"));
/// let both = ConnectOptions::new().roots(Roots::system().and(Roots::pem("/etc/box/authority.pem")));
/// # let _ = (own, both);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots(pub(crate) Vec<RootSource>);

/// Where authorities come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootSource {
    System,
    #[cfg(feature = "bundled-roots")]
    Bundled,
    Pem(Pem),
}

impl Roots {
    /// Those that the system trusts: the file that `SSL_CERT_FILE` names or the folder that `SSL_CERT_DIR`
    /// does, else the bundle of the distribution. Where there is none, as on a bare OpenWrt, the application
    /// does not start, and the error names the package to install. They take about 90 KiB of memory.
    pub fn system() -> Self {
        Self(vec![RootSource::System])
    }

    /// Those of Mozilla's list as it was when this program was built; feature `bundled-roots`. The program
    /// grows by 67 KiB and needs 9 KiB of memory for them, and has to be built anew where one of them is
    /// trusted no longer.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::tls::Roots;
    /// let options = ConnectOptions::new().roots(Roots::bundled());
    /// # let _ = options;
    /// ```
    #[cfg(feature = "bundled-roots")]
    pub fn bundled() -> Self {
        Self(vec![RootSource::Bundled])
    }

    /// Those in a PEM file or in memory, one or several. A server's own certificate may be among them, as
    /// where it has signed itself: host and time are judged all the same.
    pub fn pem(roots: impl Into<Pem>) -> Self {
        Self(vec![RootSource::Pem(roots.into())])
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }
}

/// The TLS of sessions that are dialled. Equal options share what is made of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientTlsOptions {
    /// `None` for the system's, or for nobody where a certificate is pinned.
    pub(crate) roots: Option<Roots>,
    /// The server's certificate has to be one of these, if there are any.
    pub(crate) pins: Vec<Pin>,
    /// What is shown to a server that asks for a certificate.
    pub(crate) certificate: Option<CertificateFiles>,
}

impl ClientTlsOptions {
    /// Refuses what is no digest.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.pins.iter().find(|pin| pin.sha256.is_none()) {
            Some(pin) => Err(format!(
                "{:?} is no SHA-256 to pin: write its 64 hexadecimal digits, with colons or without",
                pin.text
            )),
            None => Ok(()),
        }
    }
}

/// A certificate that is expected.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) of: Pinned,
    /// `None` for a text that is none.
    pub(crate) sha256: Option<[u8; 32]>,
    text: String,
}

/// Of what a pin is the SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    Certificate,
    /// Its SubjectPublicKeyInfo, which stays when it is renewed with the same key.
    PublicKey,
}

impl Pin {
    pub(crate) fn new(of: Pinned, text: String) -> Self {
        Self { of, sha256: digest(&text), text }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.of, self.text)
    }
}

/// A digest as openssl and browsers write it.
fn digest(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let mut sha256 = [0; 32];
    let mut digits = text.chars().filter(|&letter| letter != ':');
    for byte in &mut sha256 {
        let two = [digits.next()?.to_digit(16)?, digits.next()?.to_digit(16)?];
        *byte = u8::try_from(two[0] << 4 | two[1]).ok()?;
    }
    digits.next().is_none().then_some(sha256)
}

/// A digest in the form that [`Pin`] takes.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_tools_write_them() {
        let plain = "00ff".repeat(16);
        let colons = ["00:FF"; 16].join(":");
        let expected: [u8; 32] = [0x00, 0xff].repeat(16).try_into().unwrap();
        for text in [&plain, &colons, &format!(" {colons}\n")] {
            let pin = Pin::new(Pinned::Certificate, text.clone());
            assert_eq!(pin.sha256, Some(expected), "{text}");
        }
        assert_eq!(hexadecimal(&expected), plain);
        for wrong in ["", "00", &plain[1..], &format!("{plain}0"), &plain.replace('f', "g")] {
            let pins = vec![Pin::new(Pinned::PublicKey, wrong.to_owned())];
            let mistake = ClientTlsOptions { pins, ..Default::default() }.check().unwrap_err();
            assert!(mistake.contains("64 hexadecimal digits"), "{mistake}");
        }
    }
}

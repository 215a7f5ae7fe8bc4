//! The authorities that dialers trust: where the system has them, and what they are made into.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::words::tls::{Loaded, Pem, TlsError};
use crate::words::tls_client::{ClientTlsOptions, RootSource, Roots};

use super::certificate::sha256;
use super::pem_files::certificates;

/// Where distributions have the authorities that they trust, in one file.
const BUNDLES: [&str; 5] = [
    "etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch, OpenWrt's ca-bundle
    "etc/pki/tls/certs/ca-bundle.crt",   // Fedora and its kin
    "etc/ssl/ca-bundle.pem",             // SUSE
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/cert.pem", // Alpine, BSD
];
/// And where in a file each: OpenWrt's ca-certificates.
const FOLDER: &str = "etc/ssl/certs";
/// More files than a folder of authorities has.
const FILES_MAX: usize = 2_000;

/// Authorities, and the digests of those that are certificates here: a server may show one as its own.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) authorities: RootCertStore,
    pub(super) own: BTreeSet<[u8; 32]>,
}

impl Trusted {
    fn note(&mut self, certificate: &[u8]) {
        self.own.insert(sha256(certificate));
    }
}

/// The authorities that these options name; `None` where what is pinned is all that counts.
pub(super) fn read_roots(options: &ClientTlsOptions) -> Loaded<Option<Trusted>> {
    let sources = match &options.roots {
        Some(Roots(sources)) => sources.as_slice(),
        None if options.pins.is_empty() => &[RootSource::System],
        None => return Ok(None),
    };
    let mut roots = Trusted { authorities: RootCertStore::empty(), own: BTreeSet::new() };
    for source in sources {
        match source {
            RootSource::System => add_system(&mut roots)?,
            #[cfg(feature = "bundled-roots")]
            RootSource::Bundled => {
                roots.authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            RootSource::Pem(pem) => add_pem(&mut roots, pem)?,
        }
    }
    Ok(Some(roots))
}

fn add_pem(roots: &mut Trusted, pem: &Pem) -> Loaded<()> {
    for root in certificates(pem)? {
        roots.note(&root);
        roots
            .authorities
            .add(root)
            .map_err(|error| TlsError(format!("{pem:?}: this is no authority: {error}")))?;
    }
    Ok(())
}

fn add_system(roots: &mut Trusted) -> Loaded<()> {
    let found = system_roots(Path::new("/"), |name| std::env::var_os(name))?;
    found.iter().for_each(|root| roots.note(root));
    // Some that a distribution lists are so old that nobody can read them: the others do.
    let (added, _) = roots.authorities.add_parsable_certificates(found);
    if added == 0 { Err(none_there()) } else { Ok(()) }
}

fn none_there() -> TlsError {
    TlsError(
        "this system has no authorities to trust: install ca-certificates (OpenWrt: ca-bundle), or name \
         them by ConnectOptions::roots"
            .into(),
    )
}

/// What the environment names, as other programs read it, else what the distribution has.
fn system_roots(
    root: &Path,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Loaded<Vec<CertificateDer<'static>>> {
    let set = |name: &str| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let (file, folder) = (set("SSL_CERT_FILE"), set("SSL_CERT_DIR"));
    if file.is_some() || folder.is_some() {
        let mut found =
            file.map_or_else(|| Ok(Vec::new()), |file| certificates(&Pem::file(file)))?;
        let folders = folder.iter().flat_map(std::env::split_paths);
        found.extend(folders.flat_map(|folder| in_folder(&folder)));
        return Ok(found);
    }
    for bundle in BUNDLES {
        let found = certificates(&Pem::file(root.join(bundle)));
        if let Ok(found) = found {
            return Ok(found);
        }
    }
    match in_folder(&root.join(FOLDER)) {
        found if found.is_empty() => Err(none_there()),
        found => Ok(found),
    }
}

/// Each once: most such folders name every file twice.
fn in_folder(folder: &Path) -> Vec<CertificateDer<'static>> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(FILES_MAX);
    let texts = entries.filter_map(|entry| fs::read(entry.ok()?.path()).ok());
    let found: BTreeSet<Vec<u8>> = texts
        .flat_map(|text| {
            let all: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
            all.into_iter().map(|der| der.to_vec())
        })
        .collect();
    found.into_iter().map(CertificateDer::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = include_str!("../../testing/network/certificates/authority.pem");

    /// A folder that stands for `/`, and is gone afterwards.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let root =
                std::env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join(FOLDER)).unwrap();
            Self(root)
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn found(&self) -> Loaded<usize> {
            system_roots(&self.0, |_| None).map(|found| found.len())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_systems_are_found_and_where_there_are_none_the_package_is_named() {
        let root = Root::new("roots");
        let mistake = root.found().unwrap_err().to_string();
        assert!(mistake.contains("ca-certificates") && mistake.contains("ca-bundle"), "{mistake}");
        root.write("etc/ssl/certs/one.crt", AUTHORITY);
        root.write("etc/ssl/certs/2c543cd1.0", AUTHORITY);
        root.write("etc/ssl/certs/README", "no certificate");
        assert_eq!(root.found(), Ok(1));
        root.write("etc/ssl/certs/ca-certificates.crt", &AUTHORITY.repeat(3));
        assert_eq!(root.found(), Ok(3));
    }

    #[test]
    fn the_environment_goes_before_and_a_file_that_is_not_there_is_named() {
        let root = Root::new("environment");
        let file = root.write("own.pem", AUTHORITY);
        let of = |set: &str, path: &Path| {
            let path = path.to_owned();
            system_roots(&root.0, |name| (name == set).then(|| path.clone().into_os_string()))
        };
        assert_eq!(of("SSL_CERT_FILE", &file).unwrap().len(), 1);
        assert_eq!(of("SSL_CERT_DIR", &root.0).unwrap().len(), 1);
        let folders = std::env::join_paths([Path::new("/nonexistent"), &root.0]).unwrap();
        assert_eq!(of("SSL_CERT_DIR", Path::new(&folders)).unwrap().len(), 1);
        let mistake = of("SSL_CERT_FILE", Path::new("/nonexistent.pem")).unwrap_err();
        assert!(mistake.to_string().contains("/nonexistent.pem"));
    }
}

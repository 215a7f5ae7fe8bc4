//! What the tests of certificates share: a folder of them, and the figures of the server that reads it.
#![allow(unreachable_pub, reason = "a part of a test crate")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::disallowed_methods, reason = "waiting for another thread has a bound")]

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use wirewheel::Stats;
use wirewheel::tls::TlsOptions;

use crate::secure_client::certificate;
use crate::support::{PATIENCE, Running};

/// A folder with a certificate that is replaced.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub fn put(&self, from: &str, to: &str) {
        fs::copy(certificate(from), self.path(to)).unwrap();
    }

    pub fn options(&self) -> TlsOptions {
        TlsOptions::new(self.path("chain.pem"), self.path("own.key"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The figures of a server, once `is_there` says that they are what is awaited.
pub fn figures(server: &Running, is_there: impl Fn(&Stats) -> bool) -> Stats {
    let began = Instant::now();
    loop {
        let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
        if is_there(&stats) || began.elapsed() > PATIENCE {
            return stats;
        }
    }
}

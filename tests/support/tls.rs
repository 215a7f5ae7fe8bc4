//! A client over TLS that speaks frames, and whose records a test may break.
#![allow(unreachable_pub, reason = "a part of a test crate")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::cast_possible_truncation, reason = "lengths that a test made up")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use wirewheel::tls::TlsOptions;

use crate::support::{Frame, PATIENCE, masked, upgrade_request};

/// A file of those that `tests/certificates/make` makes.
pub fn certificate(name: &str) -> PathBuf {
    // A member's tests are a folder below.
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut folders = folders.map(|folder| folder.join("tests/certificates"));
    folders.find(|folder| folder.is_dir()).unwrap().join(name)
}

pub fn options(name: &str) -> TlsOptions {
    TlsOptions::new(certificate(&format!("{name}.pem")), certificate(&format!("{name}.key")))
}

fn chain(name: &str) -> Vec<CertificateDer<'static>> {
    let file = certificate(&format!("{name}.pem"));
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

/// What a client trusts and shows.
pub struct Trust {
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// The certificate that it shows.
    pub shows: Option<&'static str>,
    pub protocols: &'static [&'static [u8]],
}

impl Default for Trust {
    fn default() -> Self {
        Self { versions: rustls::ALL_VERSIONS.to_vec(), shows: None, protocols: &[] }
    }
}

impl Trust {
    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(chain("authority").remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            Some(name) => {
                let key =
                    PrivateKeyDer::from_pem_file(certificate(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain(name), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

pub fn config() -> Arc<ClientConfig> {
    Trust::default().config()
}

pub struct TlsClient {
    pub tls: ClientConnection,
    pub socket: TcpStream,
    pub inbox: Vec<u8>,
    /// The server's close_notify has come.
    pub closed: bool,
}

impl TlsClient {
    pub fn start(addr: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self::over(socket, name, config)
    }

    pub fn over(socket: TcpStream, name: &str, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { tls, socket, inbox: Vec::new(), closed: false }
    }

    pub fn connect(addr: SocketAddr) -> Self {
        Self::start(addr, "localhost", &config()).shaken()
    }

    /// With the handshake made.
    #[track_caller]
    pub fn shaken(mut self) -> Self {
        self.handshake().unwrap();
        self
    }

    pub fn handshake(&mut self) -> std::io::Result<()> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket)?;
        }
        Ok(())
    }

    #[track_caller]
    pub fn upgraded(mut self, path: &str) -> Self {
        self.write(upgrade_request(path, "").as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        self
    }

    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The records that carry these bytes.
    pub fn records(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        self.tls.set_buffer_limit(None);
        self.tls.writer().write_all(plain).unwrap();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    pub fn write(&mut self, plain: &[u8]) {
        let records = self.records(plain);
        self.socket.write_all(&records).unwrap();
    }

    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&masked(first, payload));
    }

    /// Says that nothing more comes, and whether the socket does so too.
    pub fn close(&mut self, with_socket: bool) {
        self.tls.send_close_notify();
        let records = self.records(b"");
        self.socket.write_all(&records).unwrap();
        if with_socket {
            self.socket.shutdown(Shutdown::Write).unwrap();
        }
    }

    /// Reads more; false at the end, whether TLS said so or not.
    #[track_caller]
    pub fn fill(&mut self) -> bool {
        self.try_fill().unwrap_or_else(|error| panic!("reading: {error}"))
    }

    pub fn try_fill(&mut self) -> std::io::Result<bool> {
        loop {
            let mut buffer = [0; 65_536];
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => {
                    self.closed = true;
                    return Ok(false);
                }
                Ok(n) => {
                    self.inbox.extend_from_slice(&buffer[..n]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
            self.tls.read_tls(&mut self.socket)?;
            let processed = self.tls.process_new_packets();
            processed.map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.socket)?;
            }
        }
    }

    /// Everything up to the end.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.inbox)
    }

    #[track_caller]
    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.inbox.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.fill(), "the connection ended within a head");
        }
    }

    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        let (header, length) = loop {
            match *self.inbox.as_slice() {
                [_, n @ 0..=125, ..] => break (2, usize::from(n)),
                [_, 126, a, b, ..] => break (4, usize::from(u16::from_be_bytes([a, b]))),
                [_, 127, a, b, c, d, e, f, g, h, ..] => {
                    break (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize);
                }
                _ => assert!(self.fill(), "the connection ended within a frame"),
            }
        };
        while self.inbox.len() < header + length {
            assert!(self.fill(), "the connection ended within a frame");
        }
        let frame: Vec<u8> = self.inbox.drain(..header + length).collect();
        Frame { first: frame[0], payload: frame[header..].to_vec() }
    }
}

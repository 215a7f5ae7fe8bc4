//! TLS over a client's socket, with whole records in and out.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{RecvFlags, SendFlags};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::{Outcome, Plan};

/// What all clients share: how they speak TLS, and with whom.
pub(crate) struct Shared {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// What the plan says of TLS, if it says anything.
pub(crate) fn shared(plan: &Plan) -> Outcome<Option<Shared>> {
    let Some(authority) = &plan.tls else { return Ok(None) };
    let name = ServerName::try_from(plan.name.clone())?;
    Ok(Some(Shared { config: config(authority, plan.resume)?, name }))
}

fn config(authority: &str, resume: bool) -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// One client's TLS.
pub(crate) struct Secured(Box<ClientConnection>);

struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.0, buffer, RecvFlags::empty())?.0)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Secured {
    pub(crate) fn new(shared: &Shared) -> Outcome<Self> {
        let client = ClientConnection::new(Arc::clone(&shared.config), shared.name.clone())?;
        Ok(Self(Box::new(client)))
    }

    /// Takes bytes, and says how many; what is sealed may still wait for the socket.
    pub(crate) fn send(&mut self, fd: &OwnedFd, bytes: &[u8]) -> Outcome<usize> {
        if self.is_behind() && !self.0.is_handshaking() {
            self.flush(fd)?;
        }
        let waits = self.is_behind() && !self.0.is_handshaking();
        let taken = if waits { 0 } else { self.0.writer().write(bytes)? };
        self.flush(fd)?;
        Ok(taken)
    }

    /// Whether sealed bytes wait for the socket.
    pub(crate) fn is_behind(&self) -> bool {
        self.0.wants_write()
    }

    pub(crate) fn flush(&mut self, fd: &OwnedFd) -> Outcome {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket(fd)) {
                Ok(_) => {}
                Err(error) if is_blocked(&error) => break,
                Err(error) => return Err(format!("send: {error}").into()),
            }
        }
        Ok(())
    }

    /// Receives what is there, as far as the buffer holds it.
    pub(crate) fn receive(&mut self, fd: &OwnedFd, buffer: &mut [u8]) -> Outcome<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.reader().read(&mut buffer[filled..]) {
                Ok(0) => return Err("the server hung up".into()),
                Ok(n) => filled += n,
                Err(error) if is_blocked(&error) => match self.0.read_tls(&mut Socket(fd)) {
                    Ok(0) => return Err("the server hung up".into()),
                    Ok(_) => {
                        self.0.process_new_packets()?;
                        self.flush(fd)?;
                    }
                    Err(error) if is_blocked(&error) => break,
                    Err(error) => return Err(format!("recv: {error}").into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }
}

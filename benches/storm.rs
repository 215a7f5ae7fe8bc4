//! A storm of handshakes beside an honest client: the longest that its echo takes meanwhile.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use wirewheel::Listen;
use wirewheel::tls::TlsOptions;

use super::{Anything, Honest, PATIENCE, upgrade, verdict};

/// All at once, each with a signature by an RSA key of 2,048 bits.
const HANDSHAKES: usize = 200;
/// The longest that an honest client waits for an echo.
const WAIT_MAX: Duration = Duration::from_millis(50);

type Secured = StreamOwned<ClientConnection, TcpStream>;

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/certificates", name].iter().collect()
}

pub(super) fn listen() -> Listen {
    Listen::tls("127.0.0.1:0", TlsOptions::new(file("rsa.pem"), file("rsa.key")))
}

/// Nobody resumes.
fn config() -> Anything<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("authority.pem"))?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> Anything<Secured> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let client = ClientConnection::new(Arc::clone(config), ServerName::try_from("rsa.example")?)?;
    Ok(StreamOwned::new(client, socket))
}

pub(super) fn storm(addr: SocketAddr) -> Anything<bool> {
    let config = config()?;
    let mut honest = connect(addr, &config)?;
    upgrade(&mut honest, "")?;
    let mut honest = Honest(honest);
    honest.exchange()?;
    let mut clients =
        (0..HANDSHAKES).map(|_| connect(addr, &config)).collect::<Anything<Vec<_>>>()?;
    let over = AtomicBool::new(false);
    let longest = thread::scope(|scope| -> Anything<_> {
        let storm = scope.spawn(|| {
            let shaken = shake(&mut clients);
            over.store(true, Ordering::SeqCst);
            shaken
        });
        let mut longest = Duration::ZERO;
        while !over.load(Ordering::SeqCst) {
            longest = longest.max(honest.exchange()?);
        }
        storm.join().unwrap_or_else(|_| Err("the storm panicked".into()))?;
        Ok(longest)
    })?;
    let met = longest < WAIT_MAX;
    println!(
        "handshakes: {HANDSHAKES} at once, the longest echo took {} ms, limit {} ms: {}",
        longest.as_millis(),
        WAIT_MAX.as_millis(),
        verdict(met)
    );
    Ok(met)
}

/// All begin before the first goes on.
fn shake(clients: &mut [Secured]) -> Anything {
    for client in &mut *clients {
        client.conn.write_tls(&mut client.sock)?;
    }
    for client in clients {
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock)?;
        }
    }
    Ok(())
}

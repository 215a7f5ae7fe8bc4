//! One connection's TLS, without a socket: rustls by its unbuffered interface.
//!
//! That interface keeps places in the bytes that it was shown: it has to be shown them again, less those
//! that it said are done with, or it panics. Both callers do, and a panic ends one connection.

use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[cfg(feature = "client")]
use rustls::client::UnbufferedClientConnection;
#[cfg(feature = "tls-client-auth")]
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError};
use rustls::{CommonState, HandshakeKind, ServerConfig};

use crate::protocol::tls_fault::TlsFault;

use super::role::Role;

/// The header of a record.
pub(crate) const HEADER_BYTES: usize = 5;
/// The longest record that is taken: RFC 8446 section 5.2, and RFC 5246 section 6.2.3, which allows more.
pub(crate) const RECORD_MAX: usize = 16_384 + 2_048 + HEADER_BYTES;

/// The most that records are longer than what is in them, each.
const OVERHEAD_MAX: usize = 64;
const FRAGMENT_MAX: usize = 16_384;

/// Plain bytes sealed at once: what the socket does not take of them waits in the backlog.
pub(crate) const SEALED_AT_ONCE: usize = 32 << 10;

/// Most answers of a handshake fit: a certificate chain does.
const ANSWER_BYTES: usize = 4 << 10;

/// One connection's TLS.
pub(crate) struct Engine(Side);

/// The end of the connection that is here.
enum Side {
    Server(UnbufferedServerConnection),
    #[cfg(feature = "client")]
    Client(UnbufferedClientConnection),
}

// Servers pay nothing for the other role.
#[cfg(feature = "client")]
const _: () = assert!(size_of::<Side>() <= size_of::<UnbufferedServerConnection>() + 8);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// What came of opening records.
pub(crate) struct Opened {
    /// So many bytes at their start are done with.
    pub(crate) used: usize,
    /// So many plain bytes were in them.
    pub(crate) plain: usize,
    pub(crate) ending: Option<Ending>,
}

/// How the peer's side of a connection ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By a close_notify.
    PeerClosed,
    /// By an error; the alert that says so is among the records to be sent.
    Failed(Box<TlsFault>),
    /// The socket failed.
    Broken(ErrorKind),
}

/// Records on their way out: a buffer of the loop.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    filled: usize,
    /// Pieces that go into a record together.
    pub(crate) joined: Vec<u8>,
}

impl Scratch {
    /// One that need not grow for what is sealed at once. Made before there are connections: a buffer that
    /// came behind them in the heap would keep their memory from going back to the system.
    pub(crate) fn for_records() -> Self {
        let room = SEALED_AT_ONCE.saturating_add(ANSWER_BYTES);
        Self { bytes: vec![0; room], filled: 0, joined: Vec::with_capacity(SEALED_AT_ONCE) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Room for so many more bytes.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        let end = self.filled.saturating_add(wanted);
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    fn add(&mut self, written: usize) {
        self.filled = self.filled.saturating_add(written).min(self.bytes.len());
    }
}

impl Engine {
    pub(super) fn of_server(config: Arc<ServerConfig>) -> Option<Self> {
        UnbufferedServerConnection::new(config).ok().map(|it| Self(Side::Server(it)))
    }

    #[cfg(feature = "client")]
    pub(super) fn of_client(connection: UnbufferedClientConnection) -> Self {
        Self(Side::Client(connection))
    }

    fn common(&self) -> &CommonState {
        match &self.0 {
            Side::Server(server) => server,
            #[cfg(feature = "client")]
            Side::Client(client) => client,
        }
    }

    /// Whether the handshake is complete, and if so, whether it was by a ticket.
    pub(crate) fn handshake(&self) -> Option<bool> {
        let common = self.common();
        if common.is_handshaking() {
            return None;
        }
        Some(common.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// The chain that the peer has shown, in DER.
    pub(crate) fn peer_certificates(&self) -> Vec<Vec<u8>> {
        let chain = self.common().peer_certificates().unwrap_or_default();
        chain.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// The same as it was shown.
    #[cfg(feature = "tls-client-auth")]
    pub(super) fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }

    /// The bytes of that chain, which rustls keeps.
    pub(crate) fn chain_bytes(&self) -> usize {
        let chain = self.common().peer_certificates().unwrap_or_default();
        chain.iter().map(|certificate| certificate.len()).fold(0, usize::saturating_add)
    }

    /// Opens what is whole in `records`: plain bytes go to the start of `plain`, answers behind what is
    /// in `out`. A client's ClientHello is there before anything has come.
    pub(crate) fn open(
        &mut self,
        records: &mut [u8],
        plain: &mut [u8],
        out: &mut Scratch,
    ) -> Opened {
        let length = records.len();
        let opened = catch_unwind(AssertUnwindSafe(|| match &mut self.0 {
            Side::Server(server) => open_each(server, records, plain, out),
            #[cfg(feature = "client")]
            Side::Client(client) => open_each(client, records, plain, out),
        }));
        opened.unwrap_or_else(|_| Opened {
            used: length,
            plain: 0,
            ending: Some(failed("rustls panicked")),
        })
    }

    /// Seals `bytes` behind what is in `out`; `held` is what was shown to [`open`](Self::open) last and is
    /// not done with. False if nothing can be sealed.
    pub(crate) fn seal(
        &mut self,
        held: &mut [u8],
        bytes: &[u8],
        out: &mut Scratch,
    ) -> io::Result<bool> {
        self.sealed(held, bytes, false, out)
    }

    /// Seals a close_notify.
    pub(crate) fn seal_end(&mut self, held: &mut [u8], out: &mut Scratch) -> io::Result<bool> {
        self.sealed(held, &[], true, out)
    }

    fn sealed(
        &mut self,
        held: &mut [u8],
        bytes: &[u8],
        end: bool,
        out: &mut Scratch,
    ) -> io::Result<bool> {
        let sealed = catch_unwind(AssertUnwindSafe(|| match &mut self.0 {
            Side::Server(server) => seal_each(server, held, bytes, end, out),
            #[cfg(feature = "client")]
            Side::Client(client) => seal_each(client, held, bytes, end, out),
        }));
        sealed.unwrap_or_else(|_| Err(ErrorKind::ConnectionAborted.into()))
    }
}

/// An end that has no name of its own.
pub(crate) fn failed(text: &str) -> Ending {
    Ending::Failed(Box::new(TlsFault::Other(text.to_owned())))
}

fn open_each<R: Role>(
    role: &mut R,
    records: &mut [u8],
    plain: &mut [u8],
    out: &mut Scratch,
) -> Opened {
    let (mut used, mut filled) = (0_usize, 0_usize);
    let ending = loop {
        let status = role.process(records.get_mut(used..).unwrap_or_default());
        let mut discard = status.discard;
        let (mut is_done, mut gave_data) = (false, false);
        match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                gave_data = true;
                while let Some(Ok(record)) = traffic.next_record() {
                    discard = discard.saturating_add(record.discard);
                    filled = put(plain, filled, record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                is_done = true;
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                used = used.saturating_add(discard);
                break Some(Ending::PeerClosed);
            }
            Ok(_) => break Some(failed("early data")),
            Err(error) => {
                used = used.saturating_add(discard);
                let rest = records.get_mut(used..).unwrap_or_default();
                say_what_is_wrong(role, rest, out);
                break Some(Ending::Failed(Box::new(role.fault(&error))));
            }
        }
        used = used.saturating_add(discard);
        // Data is given before anything behind it is looked at: if all is used then, and there is nothing
        // to answer, rustls need not be asked to say so.
        if is_done || (gave_data && used == records.len() && !role.common().wants_write()) {
            break None;
        }
    };
    Opened { used, plain: filled, ending }
}

/// Fetches the alert that tells the peer of an error. Nothing more may be asked of rustls then: it
/// would look at what is wrong once more, and panic since an alert is out.
fn say_what_is_wrong<R: Role>(role: &mut R, rest: &mut [u8], out: &mut Scratch) {
    let mut used = 0_usize;
    while role.common().wants_write() {
        let status = role.process(rest.get_mut(used..).unwrap_or_default());
        used = used.saturating_add(status.discard);
        match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out),
            _ => return,
        }
    }
}

fn seal_each<R: Role>(
    role: &mut R,
    held: &mut [u8],
    bytes: &[u8],
    end: bool,
    out: &mut Scratch,
) -> io::Result<bool> {
    loop {
        let status = role.process(held);
        if status.discard > 0 {
            // What was whole was done with when it came.
            return Err(ErrorKind::ConnectionAborted.into());
        }
        match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let records = bytes.len().div_ceil(FRAGMENT_MAX).max(1);
                let overhead = records.saturating_mul(OVERHEAD_MAX);
                let room = out.room(bytes.len().saturating_add(overhead));
                let written = match end {
                    true => traffic.queue_close_notify(room),
                    false => traffic.encrypt(bytes, room),
                };
                out.add(written.map_err(aborted)?);
                return Ok(true);
            }
            Ok(_) => return Ok(false),
            Err(_) => return Err(ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// RFC 8446 section 5.5: a key seals only so many records. The peer sees a connection that breaks.
#[cold]
fn aborted(_: EncryptError) -> io::Error {
    ErrorKind::ConnectionAborted.into()
}

/// Puts bytes behind those that are in `plain`: how many are in it then. It has room for whatever was in
/// records of its length.
#[inline]
fn put(plain: &mut [u8], filled: usize, bytes: &[u8]) -> usize {
    let end = filled.saturating_add(bytes.len());
    match plain.get_mut(filled..end) {
        Some(place) => {
            place.copy_from_slice(bytes);
            end
        }
        None => filled,
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Scratch) {
    let mut wanted = ANSWER_BYTES;
    loop {
        match data.encode(out.room(wanted)) {
            Ok(written) => return out.add(written),
            Err(EncodeError::InsufficientSize(need)) if need.required_size > wanted => {
                wanted = need.required_size;
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;

    use super::*;

    /// Stands for a mistake in rustls.
    #[derive(Debug)]
    struct Panics;

    impl ResolvesServerCert for Panics {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            panic!("planned");
        }
    }

    fn engine() -> Engine {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Panics));
        Engine::of_server(Arc::new(config)).unwrap()
    }

    fn hello() -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from("h").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    fn failure(engine: &mut Engine, records: &mut [u8]) -> String {
        let mut plain = vec![0; records.len()];
        match engine.open(records, &mut plain, &mut Scratch::default()).ending {
            Some(Ending::Failed(reason)) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_panic_in_rustls_is_the_end_of_one_connection() {
        assert_eq!(failure(&mut engine(), &mut hello()), "rustls panicked");
    }

    /// Stands for another one, once it is told to.
    #[cfg(feature = "client")]
    #[derive(Debug, Default)]
    struct Clock(std::sync::atomic::AtomicBool);

    #[cfg(feature = "client")]
    impl rustls::time_provider::TimeProvider for Clock {
        fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
            assert!(!self.0.load(std::sync::atomic::Ordering::Relaxed), "planned");
            None
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_panic_in_rustls_is_the_end_of_one_connection_that_was_dialled_too() {
        use crate::testing::network::tls_peer::{FarTls, TlsPeer};
        let (clock, provider) =
            (Arc::new(Clock::default()), Arc::new(rustls::crypto::ring::default_provider()));
        let config = rustls::ClientConfig::builder_with_details(provider, Arc::clone(&clock) as _)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from("small.example").unwrap();
        let client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
        let (mut engine, mut hello) = (Engine::of_client(client), Scratch::default());
        engine.open(&mut [], &mut [], &mut hello);
        let mut server = TlsPeer::server(&FarTls::new());
        server.arrived.extend_from_slice(hello.as_slice());
        let mut answer = server.open(&mut Vec::new());
        clock.0.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(failure(&mut engine, &mut answer), "rustls panicked");
    }

    /// After an error rustls may be asked only for its alert.
    #[test]
    fn garbage_of_any_kind_is_an_error_and_no_panic() {
        for first in 0..=u8::MAX {
            for second in [0, 1, 3, 255] {
                let mut bytes = [first, second, 3, 0, 5, 1, 0, 0, 1, 0].repeat(3);
                let mut plain = vec![0; bytes.len()];
                let opened = engine().open(&mut bytes, &mut plain, &mut Scratch::default());
                if let Some(Ending::Failed(reason)) = opened.ending {
                    assert!(!reason.to_string().contains("panicked"), "{first} {second}");
                }
            }
        }
    }
}

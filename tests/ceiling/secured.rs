//! The same over TLS: records that are not whole, handshakes that stall, peers that read nothing.

#[path = "../support/tls.rs"]
mod secure_client;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use wirewheel::options::ListenOptions;
use wirewheel::{Application, Limits, Listen, Server};

use super::{SERVE, Victim, deaf, raise_descriptors, send};
use crate::support::*;
use secure_client::{TlsClient, config, options};

const TLS: &str = "tls";

/// In the server's process: a listener with TLS beside the plain one.
pub(super) fn listen_if_wanted<M: FnOnce(&mut Application)>(
    server: Server<M>,
    listen: &ListenOptions,
    addresses: &mut Vec<SocketAddr>,
) -> Server<M> {
    if std::env::var(SERVE).as_deref() != Ok(TLS) {
        return server;
    }
    let server = server.listen_with(Listen::tls("127.0.0.1:0", options("box")), listen).unwrap();
    addresses.extend(server.local_addrs().last());
    server
}

struct Secured {
    victim: Victim,
    addr: SocketAddr,
    /// Everybody resumes, which costs least.
    config: Arc<ClientConfig>,
}

impl Secured {
    fn start() -> Self {
        raise_descriptors();
        let victim = Victim::serving(TLS);
        let addr = victim.secured.unwrap();
        let mut secured = Self { victim, addr, config: config() };
        secured.expect_echo("hello");
        secured.victim.note_memory();
        secured
    }

    fn expect_echo(&self, text: &str) {
        let mut client = TlsClient::start(self.addr, "localhost", &self.config).shaken();
        client = client.upgraded("/");
        client.send(TEXT, text.as_bytes());
        assert_eq!(client.frame().payload, text.as_bytes());
    }

    /// Peers that take next to nothing, and are sessions.
    fn sessions(&self, count: usize) -> Vec<TlsClient> {
        let open = |_| {
            let socket = deaf(self.addr);
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            TlsClient::over(socket, "localhost", &self.config).shaken().upgraded("/")
        };
        (0..count).map(open).collect()
    }

    /// It is under its ceiling, and whoever is honest gets an answer.
    #[track_caller]
    fn expect_under_the_ceiling(&self, attack: &str) {
        let (growth, ceiling) = (self.victim.growth(), Limits::new().memory_ceiling_with_tls());
        let mut out = std::io::stdout();
        writeln!(out, "{attack}: grew by {} KiB of {} KiB", growth >> 10, ceiling >> 10).unwrap();
        assert!(growth <= ceiling, "{attack}: grew by {growth}, ceiling {ceiling}");
        self.expect_echo("still there");
    }
}

/// All but the last byte of a record from each of many, in pieces that leave holes behind.
#[test]
fn records_that_are_never_whole_stay_under_the_ceiling() {
    let server = Secured::start();
    let mut clients = server.sessions(800);
    let rows: Vec<Vec<u8>> =
        clients.iter_mut().map(|client| client.records(&masked(BINARY, &[7; 16_000]))).collect();
    for part in 0..4 {
        for (client, records) in clients.iter_mut().zip(&rows) {
            let piece = &records[part * 4_000..((part + 1) * 4_000).min(records.len() - 1)];
            send(std::slice::from_mut(&mut client.socket), piece);
        }
    }
    server.victim.expect_held(12 << 20);
    server.expect_under_the_ceiling("records that are never whole");
}

/// Messages over many records, of which each peer sends all but the end.
#[test]
fn messages_in_records_that_never_end_stay_under_the_ceiling() {
    let server = Secured::start();
    let mut clients = server.sessions(500);
    for client in &mut clients {
        let records = client.records(&masked(BINARY, &[7; 65_000]));
        send(std::slice::from_mut(&mut client.socket), &records[..64_000]);
    }
    server.victim.expect_held(20 << 20);
    server.expect_under_the_ceiling("messages in records that never end");
}

/// What is sealed for peers that read nothing waits in the server, before it is sealed and after.
#[test]
fn records_that_nobody_reads_stay_under_the_ceiling() {
    let server = Secured::start();
    let mut clients = server.sessions(350);
    for client in &mut clients {
        let records = client.records(&masked(TEXT, b"whole"));
        send(std::slice::from_mut(&mut client.socket), &records);
    }
    server.victim.expect_held(20 << 20);
    server.expect_under_the_ceiling("records that nobody reads");
}

/// Whether a peer that says nothing more was hung up on.
fn is_hung_up_on(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// Handshakes that stop: behind the ClientHello, within it, and within one that claims to go on for ever.
/// Each of them has ended when its time is up, and nothing is held.
#[test]
fn handshakes_that_stall_stay_under_the_ceiling_and_end() {
    let server = Secured::start();
    let mut hello = Vec::new();
    TlsClient::start(server.addr, "localhost", &config()).tls.write_tls(&mut hello).unwrap();
    // A message of 65 KB in records of 16 KiB, of which the last is not whole.
    let mut endless = b"\x16\x03\x01\x40\0\x01\0\xff\xf0\x03\x03".to_vec();
    endless.resize(5 + 0x4000, 0);
    endless.extend(b"\x16\x03\x01\x40\0");
    endless.resize(endless.len() + 0x3f00, 0);
    let mut stalled: Vec<TcpStream> = Vec::new();
    for bytes in [&hello[..], &hello[..hello.len() / 2], &endless] {
        for _ in 0..400 {
            let mut stream = [TcpStream::connect(server.addr).unwrap()];
            send(&mut stream, bytes);
            stalled.extend(stream);
        }
        // As many as may be pending at a time; the rest waits in the backlog of the listener.
        server.expect_under_the_ceiling("handshakes that stall");
    }
    let begun = Instant::now();
    while !stalled.iter_mut().all(is_hung_up_on) {
        assert!(begun.elapsed() < 6 * PATIENCE, "a handshake goes on for ever");
        server.expect_echo("in between");
    }
    while server.victim.figure("wirewheel_bytes_held") > 0 {
        assert!(begun.elapsed() < 6 * PATIENCE, "something is held for nobody");
    }
    server.expect_under_the_ceiling("handshakes that stalled");
}

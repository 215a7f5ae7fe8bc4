//! What the RFCs say of records that no honest client sends, or seldom: each gets its answer, and costs its
//! own connection at most.

#[path = "support/tls.rs"]
mod secure_client;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use secure_client::*;
use support::*;
use wirewheel::{Application, Limits, Listen, Server, WebSockets};

fn start(limits: Limits) -> (Running, Events) {
    let (factory, events) = recorder(true);
    let module = |app: &mut Application| {
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    };
    let server = Server::bind(Listen::tls("127.0.0.1:0", options("box")), module).unwrap();
    (Running::of(server), events)
}

/// A client that says what it likes once it is a session: records of any type, with the session's keys.
struct RecordClient {
    socket: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    written: u64,
    decrypter: Box<dyn MessageDecrypter>,
    read: u64,
}

impl RecordClient {
    fn upgraded(server: &Running, version: &'static SupportedProtocolVersion) -> Self {
        let config = Trust { versions: vec![version], ..Trust::default() }.config();
        let mut config = Arc::into_inner(config).unwrap();
        config.enable_secret_extraction = true;
        let client = TlsClient::start(server.addr(), "localhost", &Arc::new(config));
        let TlsClient { tls, socket, inbox, .. } = client.shaken().upgraded("/");
        assert_eq!(inbox, b"");
        let suite = tls.negotiated_cipher_suite().unwrap();
        let secrets = tls.dangerous_extract_secrets().unwrap();
        let ((written, tx), (read, rx)) = (secrets.tx, secrets.rx);
        let (encrypter, decrypter) = (encrypter(suite, tx), decrypter(suite, rx));
        Self { socket, encrypter, written, decrypter, read }
    }

    fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let record = self.seal(typ, payload);
        self.socket.write_all(&record).unwrap();
    }

    fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.written).unwrap().encode();
        self.written += 1;
        record
    }

    fn text(&mut self, text: &str) {
        self.send(ContentType::ApplicationData, &masked(TEXT, text.as_bytes()));
    }

    /// The next record; `None` at the end.
    fn receive(&mut self) -> Option<(ContentType, Vec<u8>)> {
        let mut header = [0; 5];
        match self.socket.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("reading: {error}"),
        }
        let mut body = vec![0; u16::from_be_bytes([header[3], header[4]]).into()];
        self.socket.read_exact(&mut body).unwrap();
        let typ = ContentType::from(header[0]);
        let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut body);
        let plain = self.decrypter.decrypt(message, self.read).unwrap();
        self.read += 1;
        Some((plain.typ, plain.payload.to_vec()))
    }

    #[track_caller]
    fn expect_text(&mut self, text: &str) {
        let payload = [&[TEXT, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        assert_eq!(self.receive(), Some((ContentType::ApplicationData, payload)));
    }

    #[track_caller]
    fn expect_alert(&mut self, level: u8, description: u8) {
        assert_eq!(self.receive(), Some((ContentType::Alert, vec![level, description])));
    }
}

/// A key, its nonce, and how much of that is fixed in TLS 1.2 (RFC 5288 section 3, RFC 7905 section 2).
fn key_and_iv(secrets: ConnectionTrafficSecrets) -> (AeadKey, Iv, usize) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv, 4),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, 12),
        _ => panic!("an unknown cipher"),
    }
}

fn encrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageEncrypter> {
    let (key, iv, fixed_len) = key_and_iv(secrets);
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(fixed_len);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    }
}

fn decrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageDecrypter> {
    let (key, iv, fixed_len) = key_and_iv(secrets);
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            suite.aead_alg.decrypter(key, &iv.as_ref()[..fixed_len])
        }
    }
}

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED_MESSAGE: u8 = 10;
const NO_RENEGOTIATION: u8 = 100;

/// A ClientHello that is as good as empty: what asks for a renegotiation is its kind.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![1, 0, 0, 43, 3, 3];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite, no compression
    hello.extend([0, 0]); // no extensions
    hello
}

/// RFC 5246 section 7.2.2: whoever does not want to says no, and goes on. Who asks again has had its answer.
#[test]
fn a_renegotiation_is_refused_and_the_session_goes_on() {
    let (server, events) = start(Limits::new());
    let mut client = RecordClient::upgraded(&server, &TLS12);
    events.expect("connect /");
    client.send(ContentType::Handshake, &client_hello());
    client.expect_alert(WARNING, NO_RENEGOTIATION);
    client.text("as if nothing had been");
    client.expect_text("as if nothing had been");
    events.expect("text as if nothing had been");
    client.send(ContentType::Handshake, &client_hello());
    assert!(events.next().starts_with("error "));
    events.expect("close 1006 \"\" by Transport unclean");
    assert_eq!(client.receive(), None);
}

/// TLS 1.3 knows no renegotiation (RFC 8446 section 4.1.2).
#[test]
fn a_second_hello_ends_a_session_of_tls_1_3() {
    let (server, events) = start(Limits::new());
    let mut client = RecordClient::upgraded(&server, &TLS13);
    events.expect("connect /");
    client.send(ContentType::Handshake, &client_hello());
    client.expect_alert(FATAL, UNEXPECTED_MESSAGE);
    assert!(events.next().starts_with("error "));
    events.expect("close 1006 \"\" by Transport unclean");
    assert_eq!(client.receive(), None);
}

/// RFC 8446 section 5.1 lets them be, and a peer that sends nothing else is nobody's friend.
#[test]
fn empty_records_are_nothing_and_too_many_are_the_end() {
    for version in [&TLS12, &TLS13] {
        let (server, events) = start(Limits::new());
        let mut client = RecordClient::upgraded(&server, version);
        events.expect("connect /");
        for round in 0..5 {
            for _ in 0..20 {
                client.send(ContentType::ApplicationData, b"");
            }
            client.text(&format!("round {round}"));
            client.expect_text(&format!("round {round}"));
            events.expect(&format!("text round {round}"));
        }
        // In one write: the server may hang up before it has read them all.
        let records: Vec<u8> =
            (0..100).flat_map(|_| client.seal(ContentType::ApplicationData, b"")).collect();
        client.socket.write_all(&records).unwrap();
        assert!(events.next().starts_with("error "), "{version:?}");
        events.expect("close 1006 \"\" by Transport unclean");
        assert_eq!(client.receive(), None);
    }
}

/// RFC 8446 section 6.1: what comes behind a close_notify is ignored.
#[test]
fn what_comes_behind_the_end_is_nothing() {
    for version in [&TLS12, &TLS13] {
        let (server, events) = start(Limits::new());
        let mut client = RecordClient::upgraded(&server, version);
        events.expect("connect /");
        client.text("last");
        // Together: what came later would find the connection closed, which is a reset.
        let end = client.seal(ContentType::Alert, &[WARNING, CLOSE_NOTIFY]);
        let behind = client.seal(ContentType::ApplicationData, &masked(TEXT, b"behind it"));
        client.socket.write_all(&[end, behind].concat()).unwrap();
        client.expect_text("last");
        client.expect_alert(WARNING, CLOSE_NOTIFY);
        events.expect("text last");
        events.expect("close 1006 \"\" by Transport unclean");
        assert_eq!(client.receive(), None);
        assert!(events.so_far().is_empty());
    }
}

/// Each asks for an answer, which costs the server keys and a record.
#[test]
fn keys_that_are_changed_without_end_are_the_end() {
    let (server, events) = start(Limits::new());
    let config = Trust { versions: vec![&TLS13], ..Trust::default() }.config();
    let client = TlsClient::start(server.addr(), "localhost", &config);
    let mut client = client.shaken().upgraded("/");
    events.expect("connect /");
    let mut records = Vec::new();
    for _ in 0..1_000 {
        client.tls.refresh_traffic_keys().unwrap();
        records.extend(client.records(b""));
    }
    // The server may have hung up before it has read all.
    let _ = client.socket.write_all(&records);
    assert!(events.next().starts_with("error "));
    events.expect("close 1006 \"\" by Transport unclean");
}

/// Whatever a peer has sent of a handshake, and however it goes on: its time is one.
#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let (server, _events) = start(Limits::new().handshake_timeout(millis(400)));
    let mut hello = Vec::new();
    TlsClient::start(server.addr(), "localhost", &config()).tls.write_tls(&mut hello).unwrap();
    let half = hello.len() / 2;
    for first in [&b""[..], &hello[..1], &hello[..half], &hello] {
        let mut socket = TcpStream::connect(server.addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(first).unwrap();
        let end = socket.read_to_end(&mut Vec::new()).map(drop);
        assert!(end.is_ok() || end.is_err_and(|it| it.kind() == ErrorKind::ConnectionReset));
    }
    // A byte now and then is no sign of life.
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    socket.set_read_timeout(Some(millis(50))).unwrap();
    let mut sent = hello[..hello.len() - 1].chunks(1);
    let mut buffer = [0; 64];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {} // the answer that says so
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let byte = sent.next().expect("its time is over before");
                let _ = socket.write_all(byte);
            }
            Err(_) => break,
        }
    }
    // Others are served; who takes longer than its time on a busy machine comes again.
    let comes = |_| TlsClient::start(server.addr(), "localhost", &config()).handshake().is_ok();
    assert!((0..100).any(comes));
}

//! TLS over real sockets: handshakes that succeed and that do not, and what becomes of connections whose
//! records are anything but in order.
#![allow(clippy::cast_possible_truncation, reason = "bytes of a pattern")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustls::version::{TLS12, TLS13};
use support::tls::*;
use support::*;
use wirewheel::tls::TlsOptions;
use wirewheel::{Application, Listen, Response, Server, WebSockets};

fn start(options: TlsOptions, module: impl FnOnce(&mut Application) + Send + 'static) -> Running {
    let server = Server::bind(Listen::tls("127.0.0.1:0", options), module).unwrap();
    Running(server.spawn().unwrap())
}

/// A server that echoes at `/`, with the certificate of `box`, and what its sessions report.
fn echo() -> (Running, Events) {
    let (factory, events) = recorder(true);
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
            route.get("/who", |call| {
                Response::text(format!(
                    "{} {} {:?}",
                    call.is_secure(),
                    call.scheme(),
                    call.server_name()
                ))
            });
        });
    };
    (start(options("box"), module), events)
}

#[test]
fn sessions_run_over_both_versions() {
    let (server, events) = echo();
    for version in [&TLS13, &TLS12] {
        let trust = Trust { versions: vec![version], ..Trust::default() };
        let mut client = TlsClient::start(server.addr(), "localhost", &trust.config()).shaken();
        assert_eq!(client.tls.protocol_version(), Some(version.version));
        client = client.upgraded("/");
        for length in [0, 1, 125, 126, 16_384, 16_385, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            client.send(BINARY, &payload);
            let echoed = client.frame();
            assert!(echoed == Frame { first: BINARY, payload }, "{length} bytes");
        }
        client.send(CLOSE, &close_payload(1000, "bye"));
        assert_eq!(client.frame().payload, close_payload(1000, "bye"));
        assert_eq!(client.rest(), b"");
        assert!(client.closed, "by close_notify");
        events.expect("connect /");
        let told: Vec<String> = (0..8).map(|_| events.next()).collect();
        assert_eq!(told[7], "binary 65536");
        events.expect("close 1000 \"bye\" by Remote clean");
    }
}

#[test]
fn a_call_knows_that_it_is_secure_and_for_whom() {
    let (server, _events) = echo();
    let who = |name| {
        let mut client = TlsClient::start(server.addr(), name, &config()).shaken();
        client.write(b"GET /who HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8(client.rest()).unwrap();
        assert!(client.closed);
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    };
    assert_eq!(who("localhost"), "true https Some(\"localhost\")");
    assert_eq!(who("box.example"), "true https Some(\"box.example\")");
    assert_eq!(who("127.0.0.1"), "true https None");
}

/// A record arrives in any pieces, and so do several.
#[test]
fn records_arrive_in_any_pieces() {
    let (server, _events) = echo();
    let mut client = TlsClient::connect(server.addr()).upgraded("/");
    let mut records = Vec::new();
    for number in 0..50_u8 {
        records.extend(client.records(&masked(BINARY, &[number; 30])));
    }
    let mut at = 0;
    for piece in [1, 2, 3, 4, 5, 6, 7, 60, 61, 62, 200, 1, 1, 1].iter().cycle() {
        let end = (at + piece).min(records.len());
        client.socket.write_all(&records[at..end]).unwrap();
        at = end;
        if at == records.len() {
            break;
        }
    }
    for number in 0..50_u8 {
        assert_eq!(client.frame().payload, [number; 30]);
    }
}

#[test]
fn a_close_notify_is_as_a_fin_and_is_answered() {
    let (server, events) = echo();
    for with_socket in [false, true] {
        let mut client = TlsClient::connect(server.addr()).upgraded("/");
        events.expect("connect /");
        client.send(TEXT, b"last");
        client.close(with_socket);
        events.expect("text last");
        events.expect("close 1006 \"\" by Transport unclean");
        assert_eq!(client.frame().payload, b"last");
        assert_eq!(client.rest(), b"");
        assert!(client.closed, "ours is said too");
    }
}

#[test]
fn an_end_without_close_notify_is_an_error_of_the_network() {
    let (server, events) = echo();
    let client = TlsClient::connect(server.addr()).upgraded("/");
    events.expect("connect /");
    client.socket.shutdown(Shutdown::Write).unwrap();
    let event = events.next();
    assert!(event.starts_with("error ") && event.contains("end of file"), "{event}");
    events.expect("close 1006 \"\" by Transport unclean");
}

/// After a clean goodbye many hang up without another word.
#[test]
fn an_end_behind_a_close_is_clean_however_it_comes() {
    let (server, events) = echo();
    let mut client = TlsClient::connect(server.addr()).upgraded("/");
    events.expect("connect /");
    client.send(CLOSE, &close_payload(1000, ""));
    client.socket.shutdown(Shutdown::Write).unwrap();
    events.expect("close 1000 \"\" by Remote clean");
    assert_eq!(client.frame().first, CLOSE);
    assert_eq!(client.rest(), b"");
}

/// What the server said to garbage, until it hung up.
fn answer_to(server: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) => panic!("{error} behind {answer:?}"),
    }
}

const ALERT: u8 = 21;

#[test]
fn what_is_no_tls_is_told_so() {
    let (server, _events) = echo();
    for text in [&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], b"POST / HTTP/1.1\r\n", b"hello\r\n"] {
        let answer = String::from_utf8(answer_to(&server, text)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("this port speaks TLS, use https:// or wss://\n"), "{answer}");
    }
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\xff\xff",             // longer than a record may be
        b"\x16\x03\x01\0\0",                 // empty
        b"\x16\x03\x01\0\x05\x01\0\0\x01\0", // a ClientHello of nothing
        b"\x17\x03\x03\0\x05hello",          // data before a handshake
        b"\x80\x2e\x01\x03\x01",             // SSL 2
        b"\x16\x03\x01\0\x04\x02\0\0\0",     // a ServerHello
    ];
    for bytes in garbage {
        let answer = answer_to(&server, bytes);
        assert_eq!(answer.first(), Some(&ALERT), "{bytes:?}: {answer:?}");
    }
    TlsClient::connect(server.addr()).upgraded("/");
}

/// Every garbled byte of a ClientHello, and every place to stop in one.
#[test]
fn no_hello_ends_more_than_its_connection() {
    let (server, _events) = echo();
    let mut hello = Vec::new();
    let mut client = TlsClient::start(server.addr(), "localhost", &config());
    client.tls.write_tls(&mut hello).unwrap();
    for place in 0..hello.len() {
        let mut garbled = hello.clone();
        garbled[place] ^= 0xff;
        let mut socket = TcpStream::connect(server.addr()).unwrap();
        socket.write_all(&garbled).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    }
    TlsClient::connect(server.addr()).upgraded("/");
}

#[test]
fn a_broken_record_ends_a_session_with_an_alert() {
    let (server, events) = echo();
    let mut client = TlsClient::connect(server.addr()).upgraded("/");
    events.expect("connect /");
    let mut records = client.records(&masked(TEXT, b"broken"));
    *records.last_mut().unwrap() ^= 1;
    client.socket.write_all(&records).unwrap();
    assert!(events.next().starts_with("error "));
    events.expect("close 1006 \"\" by Transport unclean");
    let error = client.try_fill().unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

#[test]
fn a_message_before_a_broken_record_is_delivered() {
    let (server, events) = echo();
    let mut client = TlsClient::connect(server.addr()).upgraded("/");
    events.expect("connect /");
    let mut records = client.records(&masked(TEXT, b"whole"));
    let mut broken = client.records(&masked(TEXT, b"broken"));
    broken[8] ^= 1;
    records.extend(broken);
    client.socket.write_all(&records).unwrap();
    events.expect("text whole");
    assert!(events.next().starts_with("error "));
}

#[test]
fn mistakes_in_certificates_are_named() {
    let bind = |options| {
        let server = Server::bind(Listen::tls("127.0.0.1:0", options), |_: &mut Application| {});
        server.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let files = |chain, key| TlsOptions::new(certificate(chain), certificate(key));
    for (options, complaint) in [
        (files("nowhere.pem", "box.key"), "nowhere.pem: it cannot be read"),
        (files("box.pem", "nowhere.key"), "nowhere.key: it cannot be read"),
        (files("box.key", "box.key"), "box.key: there is no certificate"),
        (files("box.pem", "box.pem"), "box.pem: there is no private key"),
        (files("box.pem", "other.key"), "does not fit: it belongs to another certificate"),
        (files("box.pem", "locked.key"), "locked.key: the key has a password"),
        (files("wrong-order.pem", "other.key"), "the chain is in the wrong order: certificate 2"),
        (files("gap.pem", "other.key"), "the chain is in the wrong order: certificate 2"),
        (TlsOptions::new("-----BEGIN CERTIFICATE-----\nMII", ""), "broken or not whole"),
    ] {
        let error = bind(options);
        assert!(error.contains(complaint), "{error}");
        assert!(!error.contains("host:port"), "{error}");
    }
    assert_eq!(bind(files("old.pem", "old.key")), "", "an old one is shown all the same");
}

#[test]
fn the_certificate_is_that_of_the_name_asked_for() {
    let (factory, _events) = recorder(true);
    let options = options("box")
        .certificate(certificate("rsa.pem"), certificate("rsa.key"))
        .certificate(certificate("other-chain.pem"), certificate("other.key"))
        .certificate(certificate("small.pem"), certificate("small.key"));
    let server = start(options, |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    for name in ["localhost", "127.0.0.1", "rsa.example", "a.other.example", "small.example"] {
        // It would not accept any other.
        TlsClient::start(server.addr(), name, &config()).shaken().upgraded("/");
    }
    let mut unknown = TlsClient::start(server.addr(), "unknown.example", &config());
    let error = unknown.handshake().unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}"); // the first one's names
}

#[test]
fn http_1_1_is_agreed_on_and_nothing_else() {
    let (server, _events) = echo();
    let connect = |protocols| {
        let trust = Trust { protocols, ..Trust::default() };
        let mut client = TlsClient::start(server.addr(), "localhost", &trust.config());
        client.handshake().map(|()| client.tls.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(connect(&[b"h2", b"http/1.1"]).unwrap().unwrap(), b"http/1.1");
    assert_eq!(connect(&[]).unwrap(), None);
    assert!(connect(&[b"h2"]).unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[test]
fn who_comes_back_resumes() {
    let (server, _events) = echo();
    for version in [&TLS13, &TLS12] {
        let config = Trust { versions: vec![version], ..Trust::default() }.config();
        for round in 0..3 {
            let client = TlsClient::start(server.addr(), "localhost", &config).shaken();
            assert_eq!(client.is_resumed(), round > 0, "{version:?}");
            client.upgraded("/").send(PING, b""); // the ticket has come with the answer
        }
    }
}

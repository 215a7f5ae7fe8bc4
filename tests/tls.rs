//! TLS over real sockets: handshakes that succeed and that do not, and what becomes of connections whose
//! records are anything but in order.
#![allow(clippy::cast_possible_truncation, reason = "bytes of a pattern")]
#![allow(clippy::disallowed_methods, reason = "waiting for another thread has a bound")]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls.rs"]
mod secure_client;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use certificates::*;
use rustls::version::{TLS12, TLS13};
use secure_client::*;
use support::*;
use wirewheel::options::ProxyHeader;
use wirewheel::tls::{ClientCertificates, TlsOptions};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Limits, Listen, Response, Server, WebSockets,
    on_message,
};

fn start(options: TlsOptions, module: impl FnOnce(&mut Application) + Send + 'static) -> Running {
    let server = Server::bind(Listen::tls("127.0.0.1:0", options), module).unwrap();
    Running::of(server)
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

/// What was accepted arrives, at a reader who is always behind, and then the end that TLS wants.
#[test]
fn everything_arrives_at_a_slow_reader() {
    const MESSAGES: usize = 300;
    const BYTES: usize = 20_000;
    let server = start(options("box"), |app: &mut Application| {
        app.install(WebSockets::new().outbox_bytes(MESSAGES * (BYTES + 10)));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, _| {
                    for number in 0..MESSAGES {
                        session.send(&[number as u8; BYTES][..])?;
                    }
                    session.close(CloseReason::new(CloseCode::NORMAL, "all").unwrap())
                })
            });
        });
    });
    let socket = small_buffers(server.addr());
    let mut client = TlsClient::over(socket, "localhost", &config()).shaken().upgraded("/");
    client.send(TEXT, b"go");
    for number in 0..MESSAGES {
        let frame = client.frame();
        assert!(frame.payload == [number as u8; BYTES], "message {number}");
    }
    assert_eq!(client.frame().payload, close_payload(1000, "all"));
    client.send(CLOSE, &close_payload(1000, "all"));
    assert_eq!(client.rest(), b"");
    assert!(client.closed);
}

/// A socket whose receive buffer is as small as the system lets it be.
fn small_buffers(addr: std::net::SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn who_has_said_all_gets_the_whole_answer_and_a_close_notify() {
    const BYTES: usize = 3_000_000;
    let server = start(options("box"), |app: &mut Application| {
        app.routing(|route| {
            route.get("/", |_| Response::text("x".repeat(BYTES)));
        });
    });
    for with_socket in [false, true] {
        let socket = small_buffers(server.addr());
        let mut client = TlsClient::over(socket, "localhost", &config()).shaken();
        client.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client.close(with_socket);
        client.head();
        let body = client.rest();
        assert!(client.closed && body.len() == BYTES, "{} bytes", body.len());
    }
}

/// The ClientHello in records of a few bytes each (RFC 8446 section 5.1 lets it be), which come together, or
/// one after the other has been read.
#[test]
fn a_handshake_message_in_many_records_is_understood() {
    let (server, _events) = echo();
    for (size, together) in [(1, true), (7, true), (100, true), (100, false), (30, false)] {
        let mut client = TlsClient::start(server.addr(), "localhost", &config());
        let mut hello = Vec::new();
        client.tls.write_tls(&mut hello).unwrap();
        let record = |fragment: &[u8]| {
            let length = (fragment.len() as u16).to_be_bytes();
            [&hello[..3], &length, fragment].concat()
        };
        let records: Vec<_> = hello[5..].chunks(size).map(record).collect();
        for records in if together { vec![records.concat()] } else { records } {
            client.socket.write_all(&records).unwrap();
            // Before the answer to the second question the loop has read what came before the first.
            for _ in 0..2 {
                figures(&server, |_| true);
            }
        }
        client.shaken().upgraded("/");
    }
}

/// It would take 16 MiB of anybody who let it (RFC 8446 section 4 has a length of 24 bits).
#[test]
fn a_handshake_message_without_end_is_refused() {
    let (server, _events) = echo();
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"\x16\x03\x01\0\x05\x01\0\xff\xf0\x03").unwrap();
    for _ in 0..50_000 {
        // It is read, and dropped, until the server hangs up.
        if socket.write_all(b"\x16\x03\x01\0\x04\x03\0\0\0").is_err() {
            break;
        }
    }
    let stats = figures(&server, |stats| stats.tls_handshakes_failed == 1 && stats.bytes_held == 0);
    assert_eq!((stats.tls_handshakes_failed, stats.bytes_held), (1, 0));
}

#[test]
fn keys_are_changed_on_the_way() {
    let (server, _events) = echo();
    let config = Trust { versions: vec![&TLS13], ..Trust::default() }.config();
    let mut client = TlsClient::start(server.addr(), "localhost", &config).shaken().upgraded("/");
    for round in 0..20_u8 {
        client.tls.refresh_traffic_keys().unwrap(); // the server has to change its own too
        client.send(BINARY, &[round; 1_000]);
        assert_eq!(client.frame().payload, [round; 1_000]);
    }
}

fn proxied(header: &[u8]) -> String {
    let server = start(options("box"), |app: &mut Application| {
        let proxies = WebSockets::new()
            .trusted_proxies(["127.0.0.1"])
            .proxy_header(ProxyHeader::ProxyProtocol);
        app.install(proxies);
        app.routing(|route| {
            route.get("/", |call| {
                Response::text(format!("{} {}", call.client_addr(), call.scheme()))
            });
        });
    });
    // In one segment with the ClientHello, then byte by byte.
    let mut answers = [true, false].map(|at_once| {
        let mut client = TlsClient::start(server.addr(), "localhost", &config());
        let mut first = header.to_vec();
        client.tls.write_tls(&mut first).unwrap();
        if at_once {
            client.socket.write_all(&first).unwrap();
        } else {
            first.iter().for_each(|byte| client.socket.write_all(&[*byte]).unwrap());
        }
        let mut client = client.shaken();
        client.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        client.head();
        String::from_utf8(client.rest()).unwrap()
    });
    assert_eq!(answers[0], answers[1]);
    std::mem::take(&mut answers[0])
}

#[test]
fn a_proxy_header_comes_before_the_hello() {
    let first = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n";
    assert_eq!(proxied(first), "192.0.2.7:5000 https");
    let second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x13\x88\x01\xbb";
    assert_eq!(proxied(second), "192.0.2.7:5000 https");
}

#[test]
fn who_sends_no_proxy_header_is_told_so_in_plain_words() {
    let server = start(options("box"), |app: &mut Application| {
        let proxies = WebSockets::new()
            .trusted_proxies(["127.0.0.1"])
            .proxy_header(ProxyHeader::ProxyProtocol);
        app.install(proxies);
    });
    let mut hello = Vec::new();
    TlsClient::start(server.addr(), "localhost", &config()).tls.write_tls(&mut hello).unwrap();
    assert!(answer_to(&server, &hello).starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn a_unix_socket_speaks_it_too() {
    let path = socket_folder().join(format!("wirewheel-tls-{}", std::process::id()));
    let (factory, _events) = recorder(true);
    let listen = Listen::tls(Listen::Unix(path.clone()), options("box"));
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    };
    let _server = Running::of(Server::bind(listen, module).unwrap());
    // The calls made on a stream are the same for both kinds.
    let socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let socket = TcpStream::from(std::os::fd::OwnedFd::from(socket));
    TlsClient::over(socket, "localhost", &config()).shaken().upgraded("/");
}

#[test]
fn a_record_that_is_not_whole_counts_as_far_as_it_came() {
    let (server, _events) = echo();
    let mut client = TlsClient::connect(server.addr()).upgraded("/");
    let quiet = figures(&server, |stats| stats.sessions_open == 1).bytes_held;
    let records = client.records(&masked(BINARY, &[7; 16_000]));
    client.socket.write_all(&records[..100]).unwrap();
    let little = figures(&server, |stats| stats.bytes_held > quiet).bytes_held - quiet;
    assert!((100..1_100).contains(&little), "{little} bytes for 100");
    client.socket.write_all(&records[100..15_000]).unwrap();
    let most = figures(&server, |stats| stats.bytes_held >= 15_000).bytes_held - quiet;
    assert!((15_000..18_000).contains(&most), "{most} bytes for 15,000");
    client.socket.write_all(&records[15_000..]).unwrap();
    assert_eq!(client.frame().payload, [7; 16_000]);
    assert_eq!(figures(&server, |stats| stats.bytes_held == quiet).bytes_held, quiet);
}

#[test]
fn handshakes_are_counted_by_how_they_went() {
    let (server, _events) = echo();
    let config = config();
    for _ in 0..2 {
        let client = TlsClient::start(server.addr(), "localhost", &config).shaken();
        client.upgraded("/").send(PING, b"");
    }
    answer_to(&server, b"GET / HTTP/1.1\r\n");
    answer_to(&server, b"\x16\x03\x01\0\0");
    let stats = figures(&server, |stats| stats.tls_handshakes_failed == 2);
    assert_eq!((stats.tls_handshakes_full, stats.tls_handshakes_resumed), (1, 1));
    assert_eq!(stats.tls_handshakes_failed, 2);
    assert_eq!(stats.tls_certificate_expiry, 253_402_300_799, "9999-12-31 23:59:59");
}

/// An echo that shows `box`, and the folder whose certificate it reads again.
fn reloading(name: &str) -> (Folder, Running) {
    let folder = Folder::new(name);
    folder.put("box.pem", "chain.pem");
    folder.put("box.key", "own.key");
    let (factory, _events) = recorder(true);
    let server = start(folder.options(), |app: &mut Application| {
        // Where everything is slow a ping would come between the answers.
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    (folder, server)
}

/// Whether a new client is shown a certificate of that name.
fn shows(server: &Running, name: &str) -> bool {
    TlsClient::start(server.addr(), name, &config()).handshake().is_ok()
}

#[test]
fn certificates_are_reloaded_and_no_session_ends() {
    let (folder, server) = reloading("reload");
    let mut old = TlsClient::connect(server.addr()).upgraded("/");
    // A half: the new certificate, and still the old key; then one that ends in the middle.
    folder.put("small.pem", "chain.pem");
    server.0.reload_certificates().unwrap();
    let stats = figures(&server, |stats| stats.tls_reloads_failed == 1);
    assert_eq!((stats.tls_reloads_failed, stats.tls_reloads_done), (1, 0));
    assert!(shows(&server, "localhost") && !shows(&server, "small.example"));
    folder.put("small.key", "own.key");
    let whole = std::fs::read(folder.path("chain.pem")).unwrap();
    std::fs::write(folder.path("chain.pem"), &whole[..whole.len() / 2]).unwrap();
    server.0.reload_certificates().unwrap();
    assert_eq!(figures(&server, |stats| stats.tls_reloads_failed == 2).tls_reloads_failed, 2);
    assert!(shows(&server, "localhost"));
    std::fs::write(folder.path("chain.pem"), &whole).unwrap();
    server.0.reload_certificates().unwrap();
    assert_eq!(figures(&server, |stats| stats.tls_reloads_done == 1).tls_reloads_done, 1);
    assert!(shows(&server, "small.example") && !shows(&server, "localhost"));
    old.send(TEXT, b"still there");
    assert_eq!(old.frame().payload, b"still there");
}

/// Whichever loop has a connection: one certificate, one key for tickets, one reload.
#[test]
fn several_loops_have_the_same_certificates_and_tickets() {
    let folder = Folder::new("loops");
    folder.put("box.pem", "chain.pem");
    folder.put("box.key", "own.key");
    let (factory, _events) = recorder(true);
    let module = move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    };
    let server = Server::bind(Listen::tls("127.0.0.1:0", folder.options()), module).unwrap();
    let server = Running(server.loops(3).spawn().unwrap().into());
    let config = config();
    let mut open = Vec::new();
    for round in 0..9 {
        let client = TlsClient::start(server.addr(), "localhost", &config).shaken();
        assert_eq!(client.is_resumed(), round > 0, "{round}");
        let mut client = client.upgraded("/");
        client.send(TEXT, b"here");
        assert_eq!(client.frame().payload, b"here");
        open.push(client); // so that the next one goes to another loop
    }
    folder.put("small.pem", "chain.pem");
    folder.put("small.key", "own.key");
    server.0.reload_certificates().unwrap();
    assert_eq!(figures(&server, |stats| stats.tls_reloads_done == 1).tls_reloads_done, 1);
    for _ in 0..3 {
        let small = self::config();
        open.push(TlsClient::start(server.addr(), "small.example", &small).shaken());
    }
    let stats = figures(&server, |stats| stats.tls_handshakes_full == 4);
    assert_eq!((stats.tls_handshakes_full, stats.tls_handshakes_resumed), (4, 8));
    assert!(stats.tls_certificate_expiry > 0);
}

/// Certificates that change all the time while clients come and go and talk.
#[test]
fn nobody_is_lost_while_certificates_are_reloaded() {
    let (_folder, server) = reloading("switch");
    let config = config();
    let mut talking = TlsClient::connect(server.addr()).upgraded("/");
    for round in 0..100_u32 {
        server.0.reload_certificates().unwrap();
        let client = TlsClient::start(server.addr(), "localhost", &config).shaken();
        assert_eq!(client.is_resumed(), round > 0, "tickets outlive certificates: {round}");
        let mut client = client.upgraded("/");
        for one in [&mut client, &mut talking] {
            one.send(TEXT, b"here");
            assert_eq!(one.frame().payload, b"here");
        }
    }
    assert_eq!(figures(&server, |stats| stats.tls_reloads_done == 100).tls_reloads_done, 100);
}

/// A server that wants certificates of `clients`, and says whom it sees.
fn guarded(clients: ClientCertificates) -> Running {
    start(options("box").client_certificates(clients), |app: &mut Application| {
        app.routing(|route| {
            route.get("/", |call| {
                Response::text(format!("{:?}", call.peer_certificate().map(<[u8]>::len)))
            });
        });
    })
}

/// What a client that shows a certificate gets: the answer, or the alert.
fn visit(
    server: &Running,
    config: &std::sync::Arc<rustls::ClientConfig>,
) -> Result<String, String> {
    let mut client = TlsClient::start(server.addr(), "localhost", config);
    client.handshake().map_err(|error| error.to_string())?;
    client.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    // In TLS 1.3 the server looks at the certificate when the client is done already.
    while client.try_fill().map_err(|error| error.to_string())? {}
    let answer = String::from_utf8(std::mem::take(&mut client.inbox)).unwrap();
    Ok(answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

fn showing(shows: Option<&'static str>) -> std::sync::Arc<rustls::ClientConfig> {
    Trust { shows, ..Trust::default() }.config()
}

#[test]
fn clients_are_let_in_by_their_certificates() {
    let roots = certificate("clients.pem");
    let required =
        guarded(ClientCertificates::required(roots.clone()).crl(certificate("clients.crl")));
    assert!(visit(&required, &showing(Some("client"))).unwrap().starts_with("Some("));
    for (shows, alert) in [
        (None, "CertificateRequired"),
        (Some("revoked"), "CertificateRevoked"),
        (Some("stranger"), "UnknownCA"),
        (Some("late"), "CertificateExpired"),
    ] {
        let error = visit(&required, &showing(shows)).unwrap_err();
        assert!(error.contains(alert), "{shows:?}: {error}");
    }
    let asked = guarded(ClientCertificates::asked(roots));
    assert_eq!(visit(&asked, &showing(None)).unwrap(), "None");
    assert!(visit(&asked, &showing(Some("client"))).unwrap().starts_with("Some("));
    assert!(visit(&asked, &showing(Some("stranger"))).unwrap_err().contains("UnknownCA"));
}

/// A ticket stands for a certificate that was judged before.
#[test]
fn who_is_revoked_does_not_resume() {
    let folder = Folder::new("revoke");
    folder.put("nobody.crl", "list.crl");
    let clients =
        ClientCertificates::required(certificate("clients.pem")).crl(folder.path("list.crl"));
    let server = guarded(clients);
    let config = showing(Some("revoked"));
    for _ in 0..2 {
        assert!(visit(&server, &config).unwrap().starts_with("Some("));
    }
    assert_eq!(figures(&server, |_| true).tls_handshakes_resumed, 1);
    folder.put("clients.crl", "list.crl");
    server.0.reload_certificates().unwrap();
    assert_eq!(figures(&server, |stats| stats.tls_reloads_done == 1).tls_reloads_done, 1);
    let error = visit(&server, &config).unwrap_err();
    assert!(error.contains("CertificateRevoked"), "{error}");
}

/// Handshakes take a share of each turn and no more: those who talk already wait for none of the rest.
#[test]
fn a_storm_of_handshakes_leaves_others_their_turn() {
    let (factory, _events) = recorder(true);
    let server = start(options("rsa"), |app: &mut Application| {
        // All of the storm stays until its turn, on a machine that stands still for a while too.
        let minute = 2 * PATIENCE;
        let limits = Limits::new().handshake_timeout(minute).min_pending_age(minute);
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    let config = config();
    let mut honest = TlsClient::start(server.addr(), "rsa.example", &config).shaken().upgraded("/");
    let full = figures(&server, |_| true).tls_handshakes_full;
    let mut storm: Vec<_> =
        (0..200).map(|_| TlsClient::start(server.addr(), "rsa.example", &showing(None))).collect();
    for client in &mut storm {
        client.tls.write_tls(&mut client.socket).unwrap();
    }
    honest.send(TEXT, b"and I?");
    assert_eq!(honest.frame().payload, b"and I?");
    for client in &mut storm {
        client.handshake().unwrap();
    }
    let stats = figures(&server, |stats| stats.tls_handshakes_full == full + 200);
    assert_eq!(stats.tls_handshakes_full, full + 200);
}

/// The last of the handshake, a request and the end of the client's side may be one segment.
#[test]
fn all_that_a_client_says_may_come_at_once() {
    let (server, _events) = echo();
    let mut client = TlsClient::start(server.addr(), "localhost", &config());
    client.tls.write_tls(&mut client.socket).unwrap();
    while client.tls.is_handshaking() {
        client.tls.read_tls(&mut client.socket).unwrap();
        client.tls.process_new_packets().unwrap();
    }
    let mut all = client.records(b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n"); // behind its Finished
    client.tls.send_close_notify();
    all.extend(client.records(b""));
    client.socket.write_all(&all).unwrap();
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.rest(), b"true https Some(\"localhost\")");
    assert!(client.closed);
}

/// Many records that are begun at the same time, each by a peer that stops in the middle: what is held for
/// them is what came, and it is given back.
#[test]
fn half_records_of_many_are_held_within_the_budget() {
    const BUDGET: usize = 300_000;
    let server = start(options("box"), |app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().process_bytes(BUDGET)));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    });
    let mut clients: Vec<_> =
        (0..40).map(|_| TlsClient::connect(server.addr()).upgraded("/")).collect();
    for client in &mut clients {
        let records = client.records(&masked(BINARY, &[7; 16_000]));
        client.socket.write_all(&records[..15_000]).unwrap();
    }
    // Twice the budget came: those that hold most are ended.
    let stats = figures(&server, |stats| stats.over_budget >= 15 && stats.bytes_in > 0);
    assert!(stats.over_budget >= 15, "{stats:?}");
    assert!(stats.bytes_held <= BUDGET as u64, "{stats:?}");
    drop(clients);
    assert_eq!(figures(&server, |stats| stats.connections_open == 0).bytes_held, 0);
}

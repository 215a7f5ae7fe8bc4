//! Sessions that dial out over TLS, over real sockets: against our own server, with certificates on both
//! sides.
#![allow(clippy::disallowed_methods, reason = "a loop reads the clock")]

#[path = "support/tls.rs"]
mod secure_client;
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use secure_client::{certificate, options};
use support::PATIENCE;
use wirewheel::client::{ByteHandler, ConnectError, ConnectOptions, Reconnect, TlsFault};
use wirewheel::tls::{ClientCertificates, Roots, TlsOptions};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Handle, HandlerResult, Listen, Server, ServerRef,
    Session, SessionId, WebSockets, on_connect, on_message,
};

/// A program that dials one URL. What its sessions get and why its attempts fail is told.
struct Client {
    handle: Handle,
    told: Receiver<String>,
}

impl Client {
    fn dial(url: &str, options: impl FnOnce() -> ConnectOptions + Send + 'static) -> Self {
        let (tell, told) = channel();
        let url = url.to_owned();
        let module = move |app: &mut Application| dial(app, &url, options(), tell);
        let handle = Server::without_listener(module).spawn().unwrap();
        Self { handle, told }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.told.recv_timeout(PATIENCE).expect("nothing came")
    }
}

fn dial(app: &mut Application, url: &str, options: ConnectOptions, tell: Sender<String>) {
    let of_failures = tell.clone();
    let options = options.backoff(Duration::from_millis(5), Duration::from_millis(40)).on_failure(
        move |error: &ConnectError, _| {
            let kind = match error {
                ConnectError::Tls(TlsFault::Alert(_)) => "alert: ",
                ConnectError::Tls(_) => "tls: ",
                _ => "",
            };
            let _ = of_failures.send(format!("{kind}{error}"));
            Reconnect::Retry
        },
    );
    app.connect(url, options, move |call: &Call| {
        let (tell, of_ends) = (tell.clone(), tell.clone());
        tell.send(format!("{} {}", call.scheme(), call.peer_certificate().is_some())).unwrap();
        on_connect(|session, _| {
            for size in [0, 125, 70_000, 300_000] {
                session.send(&vec![7; size][..])?;
            }
            Ok(())
        })
        .on_message(move |_, message| {
            tell.send(format!("{} bytes", message.bytes().len())).unwrap();
            Ok(())
        })
        .on_close(move |_, close| {
            let _ = of_ends.send(format!("closed {}", close.code()));
        })
    });
}

impl Drop for Client {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
    }
}

fn echo_server(listen: Listen) -> Handle {
    let module = |app: &mut Application| {
        app.install(WebSockets::new().max_frame_size(1 << 20).outbox_bytes(1 << 20));
        app.routing(|route| {
            route.web_socket("/", |call: &Call| {
                assert!(call.is_secure());
                on_message(|session, message| session.send(message))
            });
        });
    };
    Server::bind(listen, module).unwrap().spawn().unwrap()
}

/// Closes the one session that there is.
fn hang_up(server: &Handle) {
    let close = |server: &mut ServerRef<'_>| {
        let sessions: Vec<SessionId> = server.sessions().collect();
        for session in sessions {
            server.close(session, CloseReason::new(CloseCode::GOING_AWAY, "").unwrap()).unwrap();
        }
    };
    server.defer(close).unwrap();
}

/// Dials with a certificate that has signed itself, as openssl makes one without further words.
#[test]
fn a_certificate_that_has_signed_itself_is_trusted_where_it_is_named() {
    let (chain, key) = (certificate("self.pem"), certificate("self.key"));
    let server = echo_server(Listen::tls("127.0.0.1:0", TlsOptions::new(chain, key)));
    let port = server.local_addr().port();
    let named = || ConnectOptions::new().roots(Roots::pem(certificate("self.pem")));
    assert_eq!(Client::dial(&format!("wss://localhost:{port}/"), named).next(), "https true");
    let wrong = Client::dial(&format!("wss://127.0.0.1:{port}/"), named).next();
    assert!(wrong.contains("for others than this host: localhost"), "{wrong}");
    let other = Client::dial(&format!("wss://localhost:{port}/"), trusting).next();
    assert!(other.contains("no authority that is trusted"), "{other}");
    server.shutdown(Duration::ZERO);
}

fn trusting() -> ConnectOptions {
    ConnectOptions::new()
        .roots(Roots::pem(certificate("authority.pem")))
        .max_frame_size(1 << 20)
        .outbox_bytes(1 << 20)
}

#[test]
fn two_programs_of_this_library_speak_over_tls() {
    let server = echo_server(Listen::tls("127.0.0.1:0", options("box")));
    let port = server.local_addr().port();
    for host in ["127.0.0.1", "localhost"] {
        let client = Client::dial(&format!("wss://{host}:{port}/"), trusting);
        assert_eq!(client.next(), "https true");
        for size in [0, 125, 70_000, 300_000] {
            assert_eq!(client.next(), format!("{size} bytes"));
        }
    }
    server.shutdown(Duration::ZERO);
}

#[test]
fn a_session_that_is_lost_is_dialled_again_by_a_ticket() {
    let server = echo_server(Listen::tls("127.0.0.1:0", options("box")));
    let url = format!("wss://localhost:{}/", server.local_addr().port());
    let client = Client::dial(&url, trusting);
    for round in 0..4 {
        while client.next() != "300000 bytes" {}
        let stats = server.stats().unwrap().recv_timeout(PATIENCE).unwrap();
        assert_eq!((stats.tls_handshakes_full, stats.tls_handshakes_resumed), (1, round));
        hang_up(&server);
        assert_eq!(client.next(), "closed 1001");
    }
    server.shutdown(Duration::ZERO);
}

#[test]
fn servers_that_ask_for_a_certificate_get_one() {
    let clients = ClientCertificates::required(certificate("clients.pem"));
    let tls: TlsOptions = options("box").client_certificates(clients);
    let server = echo_server(Listen::tls("127.0.0.1:0", tls));
    let url = format!("wss://127.0.0.1:{}/", server.local_addr().port());
    let showing = |name: &'static str| {
        let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
        move || trusting().client_certificate(certificate(&chain), certificate(&key))
    };
    assert_eq!(Client::dial(&url, showing("client")).next(), "https true");
    let none = Client::dial(&url, trusting).next();
    assert!(none.starts_with("alert: ") && none.contains("client_certificate"), "{none}");
    let stranger = Client::dial(&url, showing("stranger")).next();
    assert!(stranger.starts_with("alert: ") && stranger.contains("UnknownCA"), "{stranger}");
    server.shutdown(Duration::ZERO);
}

#[test]
fn who_cannot_be_trusted_or_speaks_something_else_is_told_apart() {
    let server = echo_server(Listen::tls("127.0.0.1:0", options("box")));
    let port = server.local_addr().port();
    let strangers = || ConnectOptions::new().roots(Roots::pem(certificate("strangers.pem")));
    let unknown = Client::dial(&format!("wss://127.0.0.1:{port}/"), strangers).next();
    assert!(unknown.contains("no authority that is trusted"), "{unknown}");
    // Our own address, under which the certificate is not: all of 127/8 is this machine.
    let elsewhere = echo_server(Listen::tls("127.0.0.2:0", options("box")));
    let url = format!("wss://{}/", elsewhere.local_addr());
    let wrong = Client::dial(&url, trusting).next();
    assert!(wrong.contains("for others than this host: localhost, box.example"), "{wrong}");
    // By its fingerprint it is known.
    let pinned = || {
        let sha256 = "CFFA90853D70752E4FAE6307FC9CB35D45D86633352E5FCD095E982ACC989BC1";
        ConnectOptions::new().pinned_certificate(sha256)
    };
    assert_eq!(Client::dial(&url, pinned).next(), "https true");
    // In the clear to a port of TLS, and the other way round.
    let clear = Client::dial(&format!("ws://127.0.0.1:{port}/"), trusting).next();
    assert!(clear.starts_with("the server answered 400"), "{clear}");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}/", plain.local_addr().unwrap());
    let client = Client::dial(&url, trusting);
    let (mut stream, _) = plain.accept().unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    assert!(client.next().contains("is ws:// meant?"));
    server.shutdown(Duration::ZERO);
    elsewhere.shutdown(Duration::ZERO);
}

/// Has certificates read again as it begins.
struct Reloading(Sender<()>);

impl ByteHandler for Reloading {
    fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
        session.server().reload_certificates();
        Ok(self.0.send(())?)
    }

    fn on_bytes(&mut self, _session: &mut Session<'_>, _bytes: &[u8]) -> HandlerResult {
        Ok(())
    }
}

/// Its hook runs behind the care for certificates, and nothing else may happen for long.
#[test]
fn what_a_dialled_session_has_reloaded_as_it_begins_waits_for_nothing() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", peer.local_addr().unwrap());
    let (begun, begins) = channel();
    let listen = Listen::tls("127.0.0.1:0", options("box"));
    let server = Server::bind(listen, move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.connect_bytes(&url, ConnectOptions::new(), move || Reloading(begun.clone()));
    });
    let mut server = server.unwrap().into_driver().unwrap();
    while begins.try_recv().is_err() {
        let time = server.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let time = time.map(|time| Timespec::try_from(time).unwrap());
        poll(&mut [PollFd::new(&server, PollFlags::IN)], time.as_ref()).unwrap();
        assert!(server.turn().unwrap().is_continue());
    }
    while server.next_deadline().is_some_and(|at| at <= Instant::now()) {
        assert!(server.turn().unwrap().is_continue());
    }
    assert_eq!(server.with_server(|server| server.stats().tls_reloads_done), Some(1));
}

#[test]
fn mistakes_of_trust_are_told_at_the_start() {
    let roots = || ConnectOptions::new().roots(Roots::pem("/nonexistent.pem"));
    let pin = || ConnectOptions::new().pinned_public_key("abc");
    let key = || trusting().client_certificate(certificate("client.pem"), certificate("other.key"));
    type Make = fn() -> ConnectOptions;
    for (make, said) in
        [(roots as Make, "/nonexistent.pem"), (pin, "64 hexadecimal digits"), (key, "does not fit")]
    {
        let module = move |app: &mut Application| dial(app, "wss://h/", make(), channel().0);
        let mistake = Server::without_listener(module).run().unwrap_err().to_string();
        assert!(mistake.contains(said), "{mistake}");
    }
}

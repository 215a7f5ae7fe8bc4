//! Sessions that are dialled over TLS, under virtual time: whom they trust, and what is wrong with others.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::app::handler::on_connect;
use crate::context::dialers::Dialer;
use crate::testing::network::tls_peer::{FarTls, VERSIONS};
use crate::testing::{AUTHORITY, Ending, FarServer, TestApplication};
use crate::words::connect::{ConnectStep, DialerState, Reconnect};
use crate::words::limits::Limits;
use crate::words::tls::Pem;
use crate::words::tls_client::Roots;

const URL: &str = "wss://small.example/dev";
const CERTIFICATE: &str = include_str!("../../testing/network/certificates/small.pem");
const KEY: &str = include_str!("../../testing/network/certificates/small.key");

fn trusting() -> ConnectOptions {
    ConnectOptions::new().roots(Roots::pem(Pem::bytes(AUTHORITY)))
}

/// An application that dials one URL, and what was noted of it.
struct Dialling {
    app: TestApplication,
    dialer: Dialer,
    notes: Rc<RefCell<Vec<String>>>,
}

impl Dialling {
    fn new(url: &str, options: ConnectOptions) -> Self {
        let notes: Rc<RefCell<Vec<String>>> = Rc::default();
        let (of_failures, of_sessions) = (Rc::clone(&notes), Rc::clone(&notes));
        let options = options.on_failure(move |error, _| {
            of_failures.borrow_mut().push(error.to_string());
            Reconnect::Retry
        });
        let mut dialer = None;
        let app = TestApplication::new(|app: &mut Application| {
            dialer = Some(app.connect(url, options, move |call: &Call| {
                let notes = Rc::clone(&of_sessions);
                let hello = call.scheme().to_owned();
                on_connect(move |session, _| session.send(hello.as_str()))
                    .on_message(|session, message| session.send(message))
                    .on_close(move |_, close| {
                        notes.borrow_mut().push(format!("closed {}", close.code()));
                    })
            }));
        });
        Self { app: app.unwrap(), dialer: dialer.unwrap(), notes }
    }

    /// The server at the name of the kit's certificate.
    fn server(&self) -> FarServer {
        let server = self.app.far_server("small.example", 443);
        server.speak_tls();
        server
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.borrow_mut())
    }

    /// The one thing that was noted since this was asked last.
    #[track_caller]
    fn note(&self) -> String {
        let mut notes = self.notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        notes.remove(0)
    }
}

#[test]
fn a_session_is_dialled_over_tls_and_the_next_one_resumes() {
    for versions in [VERSIONS, &VERSIONS[..1], &VERSIONS[1..]] {
        let it = Dialling::new(URL, trusting());
        let server = it.server();
        let tls = FarTls::with(CERTIFICATE, KEY, versions);
        it.app.far(|far| far.tls.insert(server.address(), tls));
        for round in 0..5 {
            let request = server.expect_request_within(secs(61));
            assert!(request.head().starts_with("GET /dev HTTP/1.1\r\nHost: small.example\r\n"));
            assert_eq!(it.dialer.state(), DialerState::Connecting(ConnectStep::Handshake));
            let mut session = request.accept();
            session.expect_text("https");
            for text in ["a", &"b".repeat(200), &"c".repeat(60_000)] {
                session.send(text);
                session.expect_text(text);
            }
            let stats = it.app.stats();
            assert_eq!((stats.tls_handshakes_full, stats.tls_handshakes_resumed), (1, round));
            session.reset();
            assert_eq!(it.note(), "closed 1006");
        }
    }
}

#[test]
fn idle_it_holds_nothing_beyond_its_slot() {
    let it = Dialling::new(URL, trusting());
    let mut session = it.server().expect_request().accept();
    session.expect_text("https");
    session.send("x");
    session.expect_text("x");
    it.app.audit_bare();
}

fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/");
    std::fs::read_to_string(format!("{folder}{name}")).unwrap()
}

#[test]
fn a_certificate_that_is_none_to_trust_is_refused_and_the_fault_is_named() {
    let strangers = ConnectOptions::new().roots(Roots::pem(Pem::bytes(file("strangers.pem"))));
    for (url, options, said) in [
        (URL, strangers, "no authority that is trusted has signed"),
        ("wss://other.example/", trusting(), "is for others than this host: small.example"),
        ("wss://198.51.100.1/", trusting(), "is for others than this host: small.example"),
        (URL, ConnectOptions::new().pinned_public_key("00".repeat(32)), "none that is pinned"),
        (URL, trusting().pinned_certificate("00".repeat(32)), "none that is pinned"),
    ] {
        let it = Dialling::new(url, options);
        let host = url.trim_start_matches("wss://").split('/').next().unwrap();
        let server = it.app.far_server(host, 443);
        server.speak_tls();
        it.app.advance(Duration::ZERO);
        let note = it.note();
        assert!(note.starts_with("TLS: ") && note.contains(said), "{url}: {note}");
        assert!(server.next_request().is_none());
        assert_eq!(it.app.stats().tls_handshakes_failed, 1);
        // What is lasting is tried again as seldom as it gets.
        it.app.advance(secs(29));
        assert_eq!(it.notes(), Vec::<String>::new(), "{url}");
    }
}

#[test]
fn certificates_are_judged_by_the_wall_clock() {
    let it = Dialling::new("wss://box.example/", trusting());
    let server = it.app.far_server("box.example", 443);
    server.speak_tls_with(&file("old.pem"), &file("old.key"));
    it.app.advance(Duration::ZERO);
    let note = it.note();
    assert!(
        note.contains(
            "ended on Tue, 01 Jan 2002 00:00:00 GMT, and the clock here reads Tue, 14 Nov 2023"
        ),
        "{note}"
    );
    it.app.set_wall_clock(secs(1_000_000_000)); // September 2001
    server.expect_request_within(secs(61)).accept().expect_text("https");

    let it = Dialling::new(URL, trusting());
    it.app.set_wall_clock(secs(5));
    let server = it.server();
    it.app.advance(Duration::ZERO);
    assert!(it.note().contains("the clock reads Thu, 01 Jan 1970 00:00:05 GMT"));
    // It is set soon: that is no reason to wait for long.
    it.app.set_wall_clock(secs(1_700_000_000));
    server.expect_request_within(secs(3)).accept().expect_text("https");
}

/// Neither the name nor the time counts then, nor who has signed it.
#[test]
fn what_is_pinned_is_trusted_and_nothing_else() {
    let digests = [
        ("f1", ConnectOptions::new().pinned_public_key(PUBLIC_KEY)),
        ("f2", ConnectOptions::new().pinned_certificate(FINGERPRINT)),
        (
            "f3",
            ConnectOptions::new().pinned_public_key("00".repeat(32)).pinned_public_key(PUBLIC_KEY),
        ),
    ];
    for (host, options) in digests {
        let it = Dialling::new(&format!("wss://{host}/"), options);
        it.app.set_wall_clock(Duration::ZERO);
        let server = it.app.far_server(host, 443);
        server.speak_tls();
        server.expect_request().accept().expect_text("https");
    }
}

const PUBLIC_KEY: &str = "f3715a6cb08ddf5e33d13e59f4516e1da2e176cd48c0ffdd236afb6a01a99761";
const FINGERPRINT: &str = "E6DC1DCF246272456EF50D653385BA9C015C8DC3814BB44E3841AFFAB51512B5";

#[test]
fn what_is_no_tls_is_told_apart() {
    let it = Dialling::new(URL, trusting());
    let server = it.app.far_server("small.example", 443);
    let first = server.expect_connection_within(Duration::ZERO);
    first.answer("HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(it.note().contains("does not speak TLS here: is ws:// meant?"));
    let second = server.expect_connection_within(secs(4));
    second.answer("\u{7f}\0\0\0\0\0\0\0");
    assert!(it.note().contains("does not speak TLS here"));
    // An alert in the clear: handshake_failure.
    server.expect_connection_within(secs(10)).answer("\x15\x03\x03\0\x02\x02\x28");
    assert!(it.note().contains("refuses with HandshakeFailure: it speaks no TLS 1.2 or 1.3"));
}

#[test]
fn a_handshake_that_is_cut_or_never_ends_is_a_failure_like_others() {
    for bytes in (0..650).step_by(37) {
        let it = Dialling::new(URL, trusting());
        let server = it.server();
        it.app.far_server("other.example", 443).break_after(bytes + 1); // which is its own matter
        server.break_after(bytes);
        it.app.advance(Duration::ZERO);
        assert_eq!(it.note(), "connection reset before TLS was agreed on", "{bytes}");
        server.break_after(None);
        server.expect_request_within(secs(4)).accept().expect_text("https");
    }
    let it = Dialling::new(URL, trusting());
    let server = it.app.far_server("small.example", 443);
    let silent = server.expect_connection_within(Duration::ZERO);
    assert_eq!(it.dialer.state(), DialerState::Connecting(ConnectStep::Tls));
    it.app.advance(Duration::from_millis(9_980));
    assert_eq!(it.notes(), Vec::<String>::new());
    it.app.advance(Duration::from_millis(40));
    assert_eq!(it.note(), "connect_timeout was over before TLS was agreed on");
    assert_eq!(silent.into_client().ending(), Some(Ending::Closed));
    // One deadline for all: TLS has taken eight seconds, so that the answer has two.
    server.expect_connection_within(secs(4)).into_client().half_close();
    assert_eq!(it.note(), "the other side hung up before TLS was agreed on");
    let mut slow = server.expect_connection_within(secs(8));
    it.app.advance(secs(8));
    slow.speak_tls();
    let request = slow.next_request().unwrap();
    it.app.advance(Duration::from_millis(1_900));
    assert_eq!(it.notes(), Vec::<String>::new());
    it.app.advance(Duration::from_millis(200));
    assert_eq!(it.note(), "connect_timeout was over before it had answered the handshake");
    drop(request);
}

#[test]
fn a_proxy_connects_for_it_and_hears_nothing_of_the_session() {
    let it = Dialling::new(URL, trusting().proxy("http://me:pw@proxy.example:3128"));
    let proxy = it.app.far_server("proxy.example", 3128);
    let mut tunnel = proxy.expect_request();
    assert!(tunnel.head().starts_with("CONNECT small.example:443 HTTP/1.1\r\n"));
    tunnel.say("HTTP/1.1 200 Connection established\r\n\r\n");
    assert_eq!(it.dialer.state(), DialerState::Connecting(ConnectStep::Tls));
    tunnel.speak_tls();
    let request = tunnel.next_request().unwrap();
    assert!(request.head().starts_with("GET /dev HTTP/1.1\r\n"));
    assert_eq!(request.header("proxy-authorization"), None);
    let mut session = request.accept();
    session.expect_text("https");
    session.reset();
    assert_eq!(it.note(), "closed 1006");
    // What follows the proxy's answer in the clear is nobody's.
    let twice = "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    proxy.expect_request_within(secs(4)).answer(twice);
    assert!(it.note().contains("before TLS has begun"));
}

#[test]
fn redirects_lead_to_tls_and_never_away_from_it() {
    let to = |place: &str| format!("HTTP/1.1 307 x\r\nLocation: {place}\r\n\r\n");
    let it = Dialling::new("ws://open.example/", trusting().redirects(2));
    let server = it.server();
    it.app.far_server("open.example", 80).expect_request().answer(&to("https://small.example/in"));
    let request = server.expect_request();
    assert!(request.head().starts_with("GET /in HTTP/1.1\r\n"));
    request.answer(&to("ws://open.example/"));
    assert!(it.note().contains("from wss to ws"));
}

/// Who cannot be trusted without roots that are not there is told so, and nobody is dialled in the clear.
#[test]
fn roots_that_a_redirect_needs_and_nobody_has_are_an_error_of_the_attempt() {
    let options = ConnectOptions::new().roots(Roots::pem("/nonexistent.pem")).redirects(1);
    let it = Dialling::new("ws://open.example/", options);
    let location = "HTTP/1.1 301 x\r\nLocation: wss://small.example/\r\n\r\n";
    let server = it.server();
    it.app.far_server("open.example", 80).expect_request().answer(location);
    let note = it.note();
    assert!(note.contains("TLS: ") && note.contains("/nonexistent.pem"), "{note}");
    assert!(server.next_request().is_none());
}

#[test]
fn an_end_without_a_word_of_tls_is_a_loss_and_a_broken_record_too() {
    let it = Dialling::new(URL, trusting());
    let server = it.server();
    let mut session = server.expect_request().accept();
    session.expect_text("https");
    session.cut();
    assert_eq!(it.note(), "closed 1006");
    let mut session = server.expect_request_within(secs(61)).accept();
    session.break_next_record();
    session.send("x");
    assert_eq!(it.note(), "closed 1006");
    assert!(session.tls_fault().unwrap().contains("BadRecordMac"));
    // While the answer is awaited it is one of the attempt.
    let mut client = server.expect_request_within(secs(61)).answer("HTTP/1.1 101 x\r\nUpgr");
    client.cut();
    assert_eq!(it.note(), "the other side hung up before it had answered the handshake");
}

/// What is held of a record that is not whole counts, and a budget that is spent ends whoever holds most.
#[test]
fn what_tls_holds_for_a_dialled_session_counts_against_process_bytes() {
    let mut dialers = Vec::new();
    let app = TestApplication::new(|app: &mut Application| {
        let limits = Limits::new().process_bytes(40_000);
        app.install(WebSockets::new().limits(limits).max_frame_size(8_000));
        for _ in 0..4 {
            let options = trusting().max_frame_size(8_000);
            let factory = |_: &Call| on_connect(|session, _| session.send("hello"));
            dialers.push(app.connect(URL, options, factory));
        }
    })
    .unwrap();
    let server = app.far_server("small.example", 443);
    server.speak_tls();
    let mut sessions: Vec<_> = (0..4).map(|_| server.expect_request().accept()).collect();
    let mut held = Vec::new();
    for session in &mut sessions {
        session.expect_text("hello");
        session.send_part(&[0; 16_000], 12_000);
        held.push(app.stats().bytes_held);
    }
    assert!(
        held[0] >= 12_000 && held[2] >= 36_000 && held.iter().all(|it| *it <= 40_000),
        "{held:?}"
    );
    assert!(app.stats().over_budget > 0);
    assert_eq!(app.stats().sessions_open, 3, "one has gone");
}

/// What a server shows stays as long as the connection, and counts; too much of it is no certificate.
#[test]
fn a_long_chain_counts_and_a_longer_one_is_refused() {
    let held_for = |length: usize| {
        let it = Dialling::new(URL, trusting());
        let server = it.app.far_server("small.example", 443);
        server.speak_tls_with(&format!("{CERTIFICATE}{}", AUTHORITY.repeat(length)), KEY);
        it.app.advance(Duration::ZERO);
        let session = server.next_request().map(|request| request.accept());
        let (is_open, held) = (session.is_some(), it.app.stats().bytes_held);
        let note = it.notes().pop();
        drop(session);
        it.app.advance(Duration::ZERO);
        assert_eq!(it.app.stats().bytes_held, 0, "it is given back");
        (is_open, held, note)
    };
    assert_eq!(held_for(0), (true, 0, None));
    let (is_open, held, _) = held_for(20);
    assert!(is_open && (6_000..12_000).contains(&held), "{held}");
    let (is_open, held, note) = held_for(50);
    assert!(!is_open && held == 0 && note.unwrap().contains("longer than 16 KiB"));
}

/// Whatever a server sends before the request has gone out is no tunnel and no session.
#[test]
fn an_answer_before_the_request_is_none() {
    let it = Dialling::new(URL, trusting());
    let server = it.server();
    let mut client = server.expect_connection_within(Duration::ZERO).into_client();
    client.send_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(it.note().starts_with("the server answered 200"));
}

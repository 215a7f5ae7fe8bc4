//! TLS through the real binary: `--listen tls:`, its certificates, who is let in, and renewals.
#![cfg(feature = "tls")]

mod support;

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use support::client::{Client, TEXT};
use support::tls::{TlsClient, Trust, certificate, config};
use support::{Folder, Hub, command, run, show};

fn named(name: &str) -> [String; 4] {
    let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
    ["--tls-cert".into(), show(&certificate(&chain)), "--tls-key".into(), show(&certificate(&key))]
}

/// A hub that listens with TLS, and then at other places.
fn hub(arguments: &[String]) -> Hub {
    let mut command = command();
    command.args(["--echo", "--listen", "tls:127.0.0.1:0"]).args(arguments);
    Hub::of(command)
}

#[track_caller]
fn expect_echo(session: &mut TlsClient, text: &str) {
    session.send(TEXT, text.as_bytes());
    assert_eq!(session.frame().payload, text.as_bytes());
}

/// Whether a client that looks for this name in the certificate connects.
fn is_shown(hub: &Hub, name: &str) -> bool {
    TlsClient::start(hub.addr, name, &config()).handshake().is_ok()
}

#[test]
fn it_echoes_with_tls_and_without_at_different_places() {
    let mut hub = hub(&[&named("box")[..], &["--listen".into(), "127.0.0.1:0".into()]].concat());
    let mut session = TlsClient::connect(hub.addr).upgraded("/echo");
    expect_echo(&mut session, "over TLS");
    let plain = hub.log_until("bound to ").rsplit(' ').next().unwrap().parse().unwrap();
    let mut plain = Client::connect(plain).upgraded("/echo");
    plain.text("without");
    plain.expect_text("without");
    let answer = hub.connect().request("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answer.status, 400, "plain HTTP at the port with TLS");
}

#[test]
fn a_socket_that_was_handed_over_speaks_tls_if_that_is_wanted() {
    for place in ["tls:fd:", "tls:fd:3"] {
        let (socket, addr) = support::listening();
        let arguments = ["--echo".to_owned(), "--listen".into(), place.into()];
        let arguments = [&arguments[..], &named("box")].concat();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _hub = Hub::of(support::activated(vec![socket], &arguments, "$$"));
        let mut session = TlsClient::connect(addr).upgraded("/echo");
        expect_echo(&mut session, place);
    }
}

#[test]
fn an_expired_certificate_is_shown_and_warned_of() {
    let mut hub = hub(&named("old"));
    let warning = hub.log_until("is not valid any more");
    assert!(warning.contains("WARN") && warning.contains("old.pem"), "{warning}");
    let error = TlsClient::start(hub.addr, "box.example", &config()).handshake().unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_a_word_and_what_is_missing_may_come() {
    let folder = Folder::new("tls-mistakes");
    let (good, key) = (show(&certificate("box.pem")), show(&certificate("box.key")));
    let other = show(&certificate("other.key"));
    let nothing = show(&folder.path("nothing"));
    let half = fs::read_to_string(&good).unwrap();
    let half = folder.write("half.pem", &half[..half.len() / 2]);
    for (cert, key, status, complaint) in [
        (&good, &other, 1, "does not fit: it belongs to another certificate"),
        (&half, &key, 1, "half.pem: "),
        (&key, &key, 1, "there is no certificate"),
        (&nothing, &key, 75, "nothing: "),
        (&good, &nothing, 75, "nothing: "),
    ] {
        let arguments =
            ["--echo", "--listen", "tls:127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
        for (arguments, status) in
            [(&[&["--check"], &arguments[..]].concat()[..], status), (&arguments, 1)]
        {
            let output = run(arguments);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
            assert!(text.contains(complaint), "{arguments:?}: {text}");
        }
    }
    let fitting = ["--check", "--echo", "--listen", "tls:127.0.0.1:0", "--tls-cert", &good];
    assert!(run(&[&fitting[..], &["--tls-key", &key]].concat()).status.success());
}

/// A certificate and its key where they can be replaced by others.
struct Live {
    folder: Folder,
}

impl Live {
    fn new(name: &str) -> Self {
        let live = Self { folder: Folder::new(name) };
        live.put("box");
        live
    }

    fn path(&self, end: &str) -> PathBuf {
        self.folder.path(&format!("live.{end}"))
    }

    fn put(&self, name: &str) {
        for end in ["pem", "key"] {
            fs::copy(certificate(&format!("{name}.{end}")), self.path(end)).unwrap();
        }
    }

    fn arguments(&self) -> [String; 4] {
        let (chain, key) = (show(&self.path("pem")), show(&self.path("key")));
        ["--tls-cert".into(), chain, "--tls-key".into(), key]
    }
}

#[test]
fn sighup_shows_the_new_certificate_and_sessions_go_on() {
    let live = Live::new("tls-reload");
    let mut hub = hub(&live.arguments());
    let mut session = TlsClient::connect(hub.addr).upgraded("/echo");
    expect_echo(&mut session, "before");
    live.put("rsa");
    hub.signal(Signal::HUP);
    hub.log_until("certificates reloaded");
    assert!(is_shown(&hub, "rsa.example") && !is_shown(&hub, "localhost"));
    expect_echo(&mut session, "after");
    // Half of a pair: the old one stays.
    fs::copy(certificate("box.pem"), live.path("pem")).unwrap();
    hub.signal(Signal::HUP);
    let complaint = hub.log_until("the old ones stay");
    assert!(complaint.contains("does not fit"), "{complaint}");
    assert!(is_shown(&hub, "rsa.example"));
    expect_echo(&mut session, "still there");
    hub.signal(Signal::TERM);
    let goodbye = session.frame();
    assert_eq!(&goodbye.payload[..2], 1001_u16.to_be_bytes());
}

#[test]
fn a_pair_that_is_replaced_is_shown_without_a_word() {
    let live = Live::new("tls-renewed");
    let mut hub = hub(&live.arguments());
    let mut session = TlsClient::connect(hub.addr).upgraded("/echo");
    live.put("rsa");
    hub.log_until("certificates reloaded");
    assert!(is_shown(&hub, "rsa.example") && !is_shown(&hub, "localhost"));
    expect_echo(&mut session, "as if nothing had been");
}

#[test]
fn a_pair_that_is_replaced_is_shown_at_the_next_sighup_beside_new_tokens() {
    let live = Live::new("tls-tokens");
    let tokens = live.folder.write("tokens", "swordfish\n");
    let mut hub = hub(&[&live.arguments()[..], &["--token-file".into(), tokens]].concat());
    live.folder.write("tokens", "other-token\n");
    live.put("rsa");
    hub.signal(Signal::HUP);
    hub.log_until("1 tokens are read again");
    hub.log_until("certificates reloaded");
    let mut client = TlsClient::start(hub.addr, "rsa.example", &config()).shaken();
    client = client.upgraded("/echo?token=other-token");
    expect_echo(&mut client, "both");
}

#[cfg(feature = "tls-client-auth")]
#[test]
fn strangers_are_refused_and_clients_of_the_authority_are_not() {
    let clients = ["--tls-client-ca".to_owned(), show(&certificate("clients.pem"))];
    let hub = hub(&[&named("box")[..], &clients].concat());
    for (shows, alert) in [
        (None, "CertificateRequired"),
        (Some("stranger"), "UnknownCA"),
        (Some("late"), "CertificateExpired"),
    ] {
        let trust = Trust { shows, ..Trust::default() };
        let mut client = TlsClient::start(hub.addr, "localhost", &trust.config());
        // With TLS 1.3 the client is done before its certificate is looked at.
        let error = client.handshake().and_then(|()| client.try_fill().map(drop)).unwrap_err();
        assert!(error.to_string().contains(alert), "{shows:?}: {error}");
    }
    let trust = Trust { shows: Some("client"), ..Trust::default() };
    let mut session = TlsClient::start(hub.addr, "localhost", &trust.config()).shaken();
    session = session.upgraded("/echo");
    expect_echo(&mut session, "one of us");
    let missing = ["--check", "--echo", "--listen", "tls:127.0.0.1:0"].map(str::to_owned);
    let missing = [&missing[..], &named("box"), &["--tls-client-ca=/nonexistent".into()]].concat();
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    assert_eq!(run(&missing).status.code(), Some(75));
}

#[cfg(not(feature = "tls-client-auth"))]
#[test]
fn a_hub_that_cannot_check_clients_says_so() {
    let output = run(&["--echo", "--listen", "tls:127.0.0.1:0", "--tls-client-ca", "/x"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("built without --tls-client-ca"), "{text}");
}

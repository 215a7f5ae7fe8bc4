//! Certificates whose files are replaced while a server runs: each way of doing so is noticed, what cannot
//! be used changes nothing, and nobody is lost.
#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls.rs"]
mod secure_client;
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use certificates::*;
use secure_client::*;
use support::*;
use wirewheel::tls::{ClientCertificates, TlsOptions};
use wirewheel::{Application, Listen, Server, Stats, WebSockets};

fn start(options: TlsOptions) -> (Running, Events) {
    let (factory, events) = recorder(true);
    let server = Server::bind(Listen::tls("127.0.0.1:0", options), |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None)); // which would come between the echoes
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    (Running::of(server.unwrap()), events)
}

/// A server that reads `chain.pem` and `own.key` below `path` again when they change.
fn watching(path: &Path) -> Running {
    let options = TlsOptions::new(path.join("chain.pem"), path.join("own.key"));
    start(options.reload_on_change(true)).0
}

/// A folder with a pair of that name.
fn pair(folder: &Folder, sub: &str, name: &str) {
    fs::create_dir_all(folder.path(sub)).unwrap();
    for (from, to) in [("pem", "chain.pem"), ("key", "own.key")] {
        fs::copy(certificate(&format!("{name}.{from}")), folder.path(sub).join(to)).unwrap();
    }
}

/// Puts a link where another one is, as `ln -sfn` and renewals do.
fn relink(target: &str, link: &Path) {
    let fresh = link.with_file_name("fresh");
    symlink(target, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

fn shows(server: &Running, name: &str) -> bool {
    TlsClient::start(server.addr(), name, &config()).handshake().is_ok()
}

/// A new client is shown this certificate, soon; and no other one once that is so.
#[track_caller]
fn expect_shown(server: &Running, name: &str) {
    let begun = Instant::now();
    while !shows(server, name) {
        assert!(begun.elapsed() < PATIENCE, "{name} is not shown");
    }
    let other = if name == "localhost" { "small.example" } else { "localhost" };
    assert!(!shows(server, other));
}

#[test]
fn files_that_are_written_to_or_replaced_are_read_again() {
    let folder = Folder::new("replace");
    pair(&folder, "", "box");
    let server = watching(&folder.0);
    let mut session = TlsClient::connect(server.addr()).upgraded("/");
    for (name, shown) in [("small", "small.example"), ("box", "localhost")] {
        pair(&folder, "", name); // as an editor or `cp` does
        expect_shown(&server, shown);
    }
    pair(&folder, "new", "small");
    for file in ["chain.pem", "own.key"] {
        fs::rename(folder.path(&format!("new/{file}")), folder.path(file)).unwrap();
    }
    expect_shown(&server, "small.example");
    session.send(TEXT, b"still there");
    assert_eq!(session.frame().payload, b"still there");
}

/// Between the two, which may be far apart, nobody watches.
#[test]
fn files_that_are_replaced_before_the_server_runs_are_read_again() {
    for with_links in [false, true] {
        let folder = Folder::new(if with_links { "early-links" } else { "early" });
        pair(&folder, "now", "box");
        pair(&folder, "next", "small");
        symlink("now", folder.path("live")).unwrap();
        let path = folder.path(if with_links { "live" } else { "now" });
        let options = TlsOptions::new(path.join("chain.pem"), path.join("own.key"));
        let listen = Listen::tls("127.0.0.1:0", options.reload_on_change(true));
        let server = Server::bind(listen, |_: &mut Application| {}).unwrap();
        if with_links {
            relink("next", &folder.path("live"));
        } else {
            pair(&folder, "now", "small");
        }
        let server = Running::of(server);
        expect_shown(&server, "small.example");
        assert_eq!(figures(&server, |stats| stats.tls_reloads_done > 0).tls_reloads_done, 1);
    }
}

/// As certbot does (`live/` of links into `archive/`), as Kubernetes does (links to `..data`, itself a link
/// to a folder), and as whoever switches a whole folder.
#[test]
fn links_that_lead_elsewhere_are_followed() {
    let folder = Folder::new("links");
    pair(&folder, "archive/1", "box");
    pair(&folder, "archive/2", "small");
    for sub in ["live", "mounted"] {
        fs::create_dir(folder.path(sub)).unwrap();
    }
    for file in ["chain.pem", "own.key"] {
        symlink(format!("../archive/1/{file}"), folder.path(&format!("live/{file}"))).unwrap();
        symlink(format!("..data/{file}"), folder.path(&format!("mounted/{file}"))).unwrap();
    }
    symlink("../archive/1", folder.path("mounted/..data")).unwrap();
    symlink("archive/1", folder.path("now")).unwrap();
    let live = watching(&folder.path("live"));
    let mounted = watching(&folder.path("mounted"));
    let now = watching(&folder.path("now"));
    for (number, shown) in [(2, "small.example"), (1, "localhost"), (2, "small.example")] {
        for file in ["chain.pem", "own.key"] {
            let link = folder.path(&format!("live/{file}"));
            relink(&format!("../archive/{number}/{file}"), &link);
        }
        relink(&format!("../archive/{number}"), &folder.path("mounted/..data"));
        relink(&format!("archive/{number}"), &folder.path("now"));
        for server in [&live, &mounted, &now] {
            expect_shown(server, shown);
        }
    }
    // What is written to where the links lead now counts too.
    pair(&folder, "archive/2", "box");
    for server in [&live, &mounted, &now] {
        expect_shown(server, "localhost");
    }
}

#[test]
fn half_a_pair_changes_nothing_and_is_tried_again() {
    let folder = Folder::new("half");
    pair(&folder, "", "box");
    let server = watching(&folder.0);
    folder.put("small.pem", "chain.pem");
    let stats = figures(&server, |stats| stats.tls_reloads_failed > 0);
    assert_eq!(stats.tls_reloads_done, 0);
    assert!(shows(&server, "localhost"));
    folder.put("small.key", "own.key");
    expect_shown(&server, "small.example");
    // Whoever has the file still open is not done: nothing is read before.
    let text = fs::read(certificate("box.pem")).unwrap();
    let (first, rest) = text.split_at(text.len() / 2);
    fs::remove_file(folder.path("own.key")).unwrap();
    fs::write(folder.path("chain.pem"), first).unwrap();
    let failed = figures(&server, |stats| stats.tls_reloads_failed > 1).tls_reloads_failed;
    assert!(failed > 1);
    assert!(shows(&server, "small.example"));
    fs::write(folder.path("chain.pem"), [first, rest].concat()).unwrap();
    folder.put("box.key", "own.key");
    expect_shown(&server, "localhost");
}

/// A folder of which nothing is left, and that comes back.
#[test]
fn a_folder_that_goes_and_comes_back_is_found_again() {
    let folder = Folder::new("gone");
    pair(&folder, "certificates", "box");
    let server = watching(&folder.path("certificates"));
    for (name, shown) in [("small", "small.example"), ("box", "localhost")] {
        fs::rename(folder.path("certificates"), folder.path(&format!("old-{name}"))).unwrap();
        figures(&server, |stats| stats.tls_reloads_failed > 0);
        pair(&folder, "certificates", name);
        expect_shown(&server, shown);
    }
}

/// Who is revoked goes at the next reload, if that is wanted, and nobody else.
#[test]
fn who_is_refused_now_is_told_so_and_ended() {
    for ends in [true, false] {
        let folder = Folder::new(if ends { "ends" } else { "stays" });
        folder.put("nobody.crl", "list.crl");
        let roots = certificate("clients.pem");
        let clients =
            ClientCertificates::required(roots).crl(folder.path("list.crl")).end_refused(ends);
        let options = options("box").client_certificates(clients).reload_on_change(true);
        let (server, events) = start(options);
        let [mut revoked, mut good] = ["revoked", "client"].map(|shows| {
            let trust = Trust { shows: Some(shows), ..Trust::default() };
            let client = TlsClient::start(server.addr(), "localhost", &trust.config());
            let client = client.shaken().upgraded("/");
            events.expect("connect /");
            client
        });
        folder.put("clients.crl", "list.crl");
        figures(&server, |stats| stats.tls_reloads_done > 0);
        if ends {
            let expected = close_payload(1008, "Certificate refused");
            assert_eq!(revoked.frame(), Frame { first: CLOSE, payload: expected });
            events.expect(
                "error Certificate refused, close 1008 \"Certificate refused\" by Local unclean",
            );
            events.expect("close 1008 \"Certificate refused\" by Local unclean");
        } else {
            revoked.send(TEXT, b"still in");
            assert_eq!(revoked.frame().payload, b"still in");
            events.expect("text still in");
        }
        good.send(TEXT, b"and so am I");
        assert_eq!(good.frame().payload, b"and so am I");
    }
}

/// Who was let in by what held when it knocked is judged by what holds now, once it is in.
#[test]
fn a_handshake_that_was_under_way_is_no_way_around_a_reload() {
    let folder = Folder::new("under-way");
    folder.put("nobody.crl", "list.crl");
    let clients = ClientCertificates::required(certificate("clients.pem"));
    let clients = clients.crl(folder.path("list.crl")).end_refused(true);
    let (server, _events) = start(options("box").client_certificates(clients));
    let trust = Trust { shows: Some("revoked"), ..Trust::default() };
    let mut revoked = TlsClient::start(server.addr(), "localhost", &trust.config());
    while revoked.tls.wants_write() {
        revoked.tls.write_tls(&mut revoked.socket).unwrap();
    }
    while revoked.tls.is_handshaking() {
        revoked.tls.read_tls(&mut revoked.socket).unwrap();
        revoked.tls.process_new_packets().unwrap();
    }
    folder.put("clients.crl", "list.crl");
    server.0.reload_certificates().unwrap();
    assert_eq!(figures(&server, |stats| stats.tls_reloads_done > 0).tls_reloads_done, 1);
    // Its certificate is out only now.
    revoked.write(upgrade_request("/", "").as_bytes());
    let refused = close_payload(1008, "Certificate refused");
    while !revoked.inbox.windows(refused.len()).any(|part| part == refused) {
        match revoked.try_fill() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is still in");
                break;
            }
        }
    }
}

/// A certificate that is switched all the time, for `WIREWHEEL_SECONDS` or a few: who talks is not lost, nor
/// who comes, whichever of the two is shown.
#[test]
fn nobody_is_lost_while_certificates_are_switched() {
    let seconds = std::env::var("WIREWHEEL_SECONDS").map_or(4, |text| text.parse().unwrap());
    let folder = Folder::new("switched");
    pair(&folder, "1", "box");
    pair(&folder, "2", "small");
    symlink("1", folder.path("now")).unwrap();
    let server = watching(&folder.path("now"));
    let config = config();
    let mut sessions: Vec<TlsClient> =
        (0..4).map(|_| TlsClient::connect(server.addr()).upgraded("/")).collect();
    let (mut last, mut switched, mut visits) = (Instant::now(), 0, 0);
    while switched < seconds || visits <= switched {
        // A second behind the one before, and not sooner after a time in which the machine stood still: two
        // at once are one change.
        if last.elapsed() >= Duration::from_secs(1) {
            relink(if switched % 2 == 0 { "2" } else { "1" }, &folder.path("now"));
            (last, switched) = (Instant::now(), switched + 1);
        }
        // One of the names fits; the refusal of the other is the client's own.
        let visitors = ["localhost", "small.example"].map(|name| {
            let mut visitor = TlsClient::start(server.addr(), name, &config);
            let shaken = visitor.handshake();
            shaken.map(|()| visitor).map_err(|error| error.to_string())
        });
        for visitor in visitors {
            match visitor {
                Ok(visitor) => {
                    let mut visitor = visitor.upgraded("/");
                    visitor.send(TEXT, b"here");
                    assert_eq!(visitor.frame().payload, b"here");
                    visits += 1;
                }
                Err(error) => assert!(error.contains("not valid for name"), "{error}"),
            }
        }
        for session in &mut sessions {
            session.send(TEXT, b"here");
            assert_eq!(session.frame().payload, b"here");
        }
    }
    let is_done =
        |stats: &Stats| stats.sessions_open == 4 && stats.tls_reloads_done + 2 >= switched;
    let stats = figures(&server, is_done);
    assert!(stats.tls_reloads_done + 2 >= switched, "{} of {switched}", stats.tls_reloads_done);
    assert_eq!((stats.tls_reloads_failed, stats.sessions_open), (0, 4));
}

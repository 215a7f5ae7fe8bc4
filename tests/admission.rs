//! Limits for each client over real sockets: refusals, floods of handshakes, proxies in front.

mod support;

use std::io::Read;
use std::net::TcpStream;

use support::*;
use wirewheel::options::{ProxyHeader, Rate};
use wirewheel::{Application, Call, Limits, WebSockets, on_connect, on_message};

fn module(app: &mut Application, options: WebSockets) {
    app.install(options);
    app.routing(|route| {
        route.stats("/metrics");
        route.get("/who", |call| call.client_addr().to_string());
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        route.web_socket("/who", |_: &Call| {
            on_connect(|session, call| {
                assert_eq!(session.client_addr(), call.client_addr());
                session.send(format!("{} {}", call.client_addr(), call.remote_addr().ip()))
            })
        });
    });
}

const WHO: &str = "GET /who HTTP/1.1\r\nHost: h\r\n";

#[test]
fn too_many_connections_of_one_address_get_429() {
    let server = Running::start(|app| {
        module(app, WebSockets::new().limits(Limits::new().per_address(3)));
    });
    let mut sessions: Vec<Client> = (0..3).map(|_| server.upgrade("/")).collect();
    let answer = server.connect().request(&upgrade_request("/", ""));
    assert_eq!((answer.status, answer.body.as_str()), (429, "429 Too Many Requests\n"));
    sessions[2].send(CLOSE, &close_payload(1000, ""));
    sessions[2].expect_close(1000);
    sessions[2].expect_eof();
    drop(sessions.pop());
    // The server has seen the end by the time it accepts the next, or one later.
    let status = (0..100).map(|_| server.connect().request(&upgrade_request("/", "")).status);
    assert!(status.into_iter().any(|status| status == 101));
}

#[test]
fn a_flood_of_handshakes_from_one_address_is_bounded_and_others_are_served() {
    let server = Running::start(|app| {
        let limits = Limits::new().handshake_rate(Rate::per_minute(30)).per_address(20);
        module(app, WebSockets::new().limits(limits));
    });
    let mut witness = server.upgrade("/");
    let mut accepted = 0;
    let mut kept = Vec::new();
    for round in 0..1_000 {
        let mut client = server.connect();
        let answer = client.request(&upgrade_request("/", ""));
        match answer.status {
            101 => {
                accepted += 1;
                kept.push(client);
            }
            429 => client.expect_eof(),
            other => panic!("{other} in round {round}"),
        }
        if round % 100 == 0 {
            witness.text("still there?");
            witness.expect_text("still there?");
        }
    }
    assert!((1..=19).contains(&accepted), "{accepted} accepted");
}

#[test]
fn who_only_connects_is_hung_up_on_beyond_the_limit() {
    let server = Running::start(|app| {
        module(app, WebSockets::new().limits(Limits::new().per_address(2)));
    });
    let mut witness = server.upgrade("/");
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    let mut ended = 0;
    // One has a place, four wait for their 429; all others see the end at once.
    for mut stream in silent.iter().skip(5) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ended += usize::from(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    assert_eq!(ended, 195);
    witness.text("served");
    witness.expect_text("served");
}

#[test]
fn a_proxy_says_who_the_client_is() {
    let server = Running::start(|app| {
        module(app, WebSockets::new().trusted_proxies(["127.0.0.1"]));
    });
    let told = |headers: &str| server.connect().request(&format!("{WHO}{headers}\r\n")).body;
    assert_eq!(told("X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n"), "192.0.2.7:0");
    let by_the_standard = Running::start(|app| {
        let options = WebSockets::new().trusted_proxies(["127.0.0.1"]);
        module(app, options.proxy_header(ProxyHeader::Forwarded));
    });
    let forwarded = format!("{WHO}Forwarded: for=\"[2001:db8::7]:99\";proto=https\r\n\r\n");
    assert_eq!(by_the_standard.connect().request(&forwarded).body, "[2001:db8::7]:99");
    assert!(told("").starts_with("127.0.0.1:"));
    let mut client = server.connect();
    client.request(&upgrade_request("/who", "X-Forwarded-For: 192.0.2.7\r\n"));
    client.expect_text("192.0.2.7:0 127.0.0.1");
}

#[test]
fn nobody_else_is_believed() {
    let server = Running::start(|app| {
        module(app, WebSockets::new().trusted_proxies(["10.0.0.0/8"]));
    });
    let spoofed = format!("{WHO}X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n\r\n");
    assert!(server.connect().request(&spoofed).body.starts_with("127.0.0.1:"));
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let server = Running::start(|app| {
        let options = WebSockets::new().trusted_proxies(["127.0.0.1"]);
        module(app, options.proxy_header(ProxyHeader::ProxyProtocol));
    });
    let mut client = server.connect();
    client.write("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n");
    assert_eq!(client.request(&format!("{WHO}\r\n")).body, "192.0.2.7:4711");
    let mut client = server.connect();
    client.write(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\0\x02\x07\0\0\0\0\x12\x67\0\x50");
    assert_eq!(client.request(&format!("{WHO}\r\n")).body, "192.0.2.7:4711");
    assert_eq!(server.connect().request(&format!("{WHO}\r\n")).status, 400);
}

#[test]
fn mistakes_in_the_options_are_named() {
    for (options, mistake) in [
        (WebSockets::new().trusted_proxies(["10.0.0.0/99"]), "trusted_proxies: \"10.0.0.0/99\""),
        (WebSockets::new().proxy_header(ProxyHeader::Forwarded), "proxy_header is Forwarded"),
        (WebSockets::new().limits(Limits::new().per_address(0)), "Limits: per_address is 0"),
        (
            WebSockets::new().limits(Limits::new().handshake_rate(Rate::per_second(0))),
            "Limits: handshake_rate is",
        ),
    ] {
        let server = wirewheel::Server::bind("127.0.0.1:0", |app: &mut Application| {
            app.install(options);
        });
        let error = server.unwrap().run().unwrap_err().to_string();
        assert!(error.contains(mistake), "{error}");
    }
}

#[test]
fn accepting_goes_on_when_a_place_is_free() {
    let server = Running::start(|app| {
        module(app, WebSockets::new().limits(Limits::new().max_connections(1)));
    });
    let mut session = server.upgrade("/");
    // Sixteen more are let in to be told 503, and do not ask; the next stays outside.
    let silent: Vec<Client> = (0..16).map(|_| server.connect()).collect();
    let mut outside = server.connect();
    outside.write(upgrade_request("/", ""));
    outside.stream.set_read_timeout(Some(millis(200))).unwrap();
    session.text("served");
    session.expect_text("served");
    assert!(outside.stream.read(&mut [0; 1]).is_err(), "it was let in");
    outside.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    session.send(CLOSE, &close_payload(1000, ""));
    session.expect_close(1000);
    drop(session);
    assert_eq!(outside.answer(false).status, 503, "the sixteen are still there");
    drop((silent, outside));
    // They are gone, one by one: there is a place again.
    let mut answers =
        (0..1_000).map(|_| server.connect().request(&upgrade_request("/", "")).status);
    assert!(answers.any(|status| status == 101));
}

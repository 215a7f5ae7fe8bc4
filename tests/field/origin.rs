//! Who may connect, and who a client is behind a proxy.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::support::*;
use wirewheel::options::ProxyHeader;
use wirewheel::{Application, Call, Listen, Routing, Server, WebSockets, on_connect, on_message};

fn echo(route: &mut Routing<'_>, path: &str) {
    route.web_socket(path, |_: &Call| on_message(|session, message| session.send(message)));
}

fn module(app: &mut Application, options: WebSockets) {
    app.install(options);
    app.routing(|route| {
        echo(route, "/");
        route.get("/", |_| "page");
        route.get("/who", |call| {
            let (client, scheme, host) = (call.client_addr(), call.scheme(), call.host());
            format!("{client} {scheme} {host} {}", call.remote_addr().ip())
        });
        route
            .web_socket("/shell", |_: &Call| on_connect(|session, _| session.send("$")))
            .hosts(["shell.lan"]);
        route
            .web_socket("/public", |_: &Call| on_connect(|session, _| session.send("hello")))
            .allow_any_origin();
    });
}

/// An upgrade with these lines in place of `Host`.
fn upgrade(path: &str, lines: &str) -> String {
    upgrade_request(path, "").replacen("Host: h\r\n", lines, 1)
}

fn ask(server: &Running, path: &str, host: &str, origin: &str) -> Answer {
    let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
    server.connect().request(&upgrade(path, &lines))
}

#[test]
fn only_a_page_of_this_server_may_connect_and_a_device_always() {
    let server = Running::start(|app| module(app, WebSockets::new()));
    let port = server.addr().port();
    assert_eq!(server.connect().request(&upgrade("/", "Host: anything\r\n")).status, 101);
    for host in ["127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "[::1]", "192.168.1.9"] {
        let (host, origin) = (format!("{host}:{port}"), format!("http://{host}:{port}"));
        assert_eq!(ask(&server, "/", &host, &origin).status, 101, "{host}");
    }
    for origin in [
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://localhost",
        "null",
        "file://",
        "",
    ] {
        let host = format!("127.0.0.1:{port}");
        let answer = ask(&server, "/", &host, origin);
        assert_eq!(answer.status, 403, "{origin}");
        assert!(answer.body.contains(&format!("{origin:?}")), "{}", answer.body);
    }
    let answer = ask(&server, "/", "127.0.0.1", "https://evil.example");
    assert!(answer.body.contains("\"127.0.0.1\""), "both values: {}", answer.body);
    assert!(answer.body.contains("allowed_origins"), "and the remedy: {}", answer.body);
    let twice = "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nOrigin: http://127.0.0.1\r\n";
    assert_eq!(server.connect().request(&upgrade("/", twice)).status, 403);
    assert_eq!(ask(&server, "/public", "127.0.0.1", "https://evil.example").status, 101);
}

#[test]
fn a_foreign_name_that_points_at_this_machine_is_refused() {
    let server = Running::start(|app| module(app, WebSockets::new()));
    let port = server.addr().port();
    for name in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"]
    {
        let (host, origin) = (format!("{name}:{port}"), format!("http://{name}:{port}"));
        let answer = ask(&server, "/", &host, &origin);
        assert_eq!(answer.status, 403, "{name}");
        assert!(answer.body.contains("hosts"), "the remedy: {}", answer.body);
    }
    // A listener at every address is reached there too.
    let everywhere = Running::of(
        Server::bind("0.0.0.0:0", |app: &mut Application| module(app, WebSockets::new())).unwrap(),
    );
    let port = everywhere.addr().port();
    let request = upgrade(
        "/",
        &format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n"),
    );
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    assert_eq!(client.request(&request).status, 403);
}

#[test]
fn named_hosts_pass_and_no_others_and_a_route_may_be_stricter() {
    let server = Running::start(|app| {
        let options = WebSockets::new().hosts(["box.example", "*.lan"]);
        module(
            app,
            options.allowed_origins(["capacitor://localhost", "file://", "https://*.app.example"]),
        );
    });
    for (path, host, origin, status) in [
        ("/", "box.example", "https://box.example", 101),
        ("/", "BOX.example.:8443", "https://box.example:8443", 101),
        ("/", "printer.lan", "http://printer.lan", 101),
        ("/", "other.example", "http://other.example", 403),
        ("/", "box.example", "http://printer.lan", 403),
        ("/", "box.example", "capacitor://localhost", 101),
        ("/", "box.example", "file://", 101),
        ("/", "box.example", "https://a.app.example", 101),
        ("/", "box.example", "http://a.app.example", 403),
        ("/", "box.example", "ionic://localhost", 403),
        ("/shell", "box.example", "https://box.example", 403),
        ("/shell", "shell.lan", "https://shell.lan", 101),
        ("/shell", "127.0.0.1:8080", "http://127.0.0.1:8080", 101),
    ] {
        assert_eq!(ask(&server, path, host, origin).status, status, "{path} {host} {origin}");
    }
}

#[test]
fn plain_requests_are_never_refused_for_their_origin() {
    let server = Running::start(|app| module(app, WebSockets::new()));
    let mut client = server.connect();
    for (method, status) in [("GET", 200), ("HEAD", 200), ("OPTIONS", 405)] {
        let text =
            format!("{method} / HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.example\r\n\r\n");
        assert_eq!(client.request(&text).status, status, "{method}");
    }
}

/// No page reaches a Unix socket but through a proxy, which says in `Host` what it was asked for.
#[test]
fn a_unix_socket_is_no_loopback_address() {
    let path = std::env::temp_dir().join(format!("wirewheel-origin-{}", std::process::id()));
    let server = Server::bind(Listen::Unix(path.clone()), |app: &mut Application| {
        module(app, WebSockets::new());
    });
    let server = Running::of(server.unwrap());
    let connect = || {
        let stream = std::net::TcpStream::from(OwnedFd::from(UnixStream::connect(&path).unwrap()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, inbox: Vec::new() }
    };
    let ask = |host: &str, origin: &str| {
        connect().request(&upgrade("/", &format!("Host: {host}\r\nOrigin: {origin}\r\n"))).status
    };
    assert_eq!(ask("box.example", "https://box.example"), 101);
    assert_eq!(ask("box.example", "https://evil.example"), 403);
    drop(server);
}

fn who(server: &Running, lines: &str) -> String {
    server.connect().request(&format!("GET /who HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).body
}

fn behind(header: ProxyHeader) -> Running {
    Running::start(move |app| {
        module(app, WebSockets::new().trusted_proxies(["127.0.0.1"]).proxy_header(header));
    })
}

/// What a client writes beside what the proxy writes, with the proxy's line last, as proxies add it.
#[test]
fn one_header_counts_whatever_a_client_writes_into_the_others() {
    let others = "Forwarded: for=1.2.3.4;proto=https;host=evil\r\n";
    let x_others =
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n";
    let by_x = behind(ProxyHeader::XForwardedFor);
    let by_standard = behind(ProxyHeader::Forwarded);
    for lines in
        ["", others, "Forwarded:\r\n", "Forwarded: for=unknown\r\n", "Forwarded: for=127.0.0.1\r\n"]
    {
        let told = who(&by_x, &format!("{lines}X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n"));
        assert_eq!(told, "192.0.2.7:0 http h 127.0.0.1", "{lines}");
    }
    for lines in ["", x_others, "X-Forwarded-For:\r\n", "X-Forwarded-For: 127.0.0.1\r\n"] {
        let told = who(
            &by_standard,
            &format!("{lines}Forwarded: for=6.6.6.6, for=192.0.2.7;proto=https\r\n"),
        );
        assert_eq!(told, "192.0.2.7:0 https h 127.0.0.1", "{lines}");
    }
    let by_protocol = behind(ProxyHeader::ProxyProtocol);
    let mut client = by_protocol.connect();
    client.write("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n");
    let request = format!("GET /who HTTP/1.1\r\nHost: h\r\n{others}{x_others}\r\n");
    assert_eq!(client.request(&request).body, "192.0.2.7:4711 http h 127.0.0.1");
    let mut client = by_protocol.connect();
    client.write(b"PROXY UNKNOWN 1.2.3.4 \xff\xff\r\n");
    assert_eq!(
        client.request(&request).body,
        "0.0.0.0:0 http h 127.0.0.1",
        "nobody, and not the proxy"
    );
}

#[test]
fn scheme_and_host_are_known_with_a_proxy_and_without() {
    let lines = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: box.example:8443\r\n";
    let by_x = behind(ProxyHeader::XForwardedFor);
    assert_eq!(who(&by_x, lines), "192.0.2.7:0 https box.example:8443 127.0.0.1");
    let by_standard = behind(ProxyHeader::Forwarded);
    let forwarded = "Forwarded: for=192.0.2.7;proto=https;host=\"box.example:8443\"\r\n";
    assert_eq!(who(&by_standard, forwarded), "192.0.2.7:0 https box.example:8443 127.0.0.1");
    // Nobody else is believed.
    let alone = Running::start(|app| module(app, WebSockets::new()));
    let told = who(&alone, lines);
    assert!(told.ends_with(" http h 127.0.0.1") && told.starts_with("127.0.0.1:"), "{told}");
    let absolute = "GET http://box.example:81/who HTTP/1.1\r\nHost: other\r\n\r\n";
    let told = alone.connect().request(absolute).body;
    assert!(told.ends_with(" http box.example:81 127.0.0.1"), "{told}");
}

/// The page's Host is what the client asked the proxy for.
#[test]
fn a_page_behind_a_proxy_is_judged_by_the_host_that_the_proxy_tells() {
    let server = Running::start(|app| {
        module(app, WebSockets::new().trusted_proxies(["127.0.0.1"]).hosts(["box.example"]));
    });
    let forwarded = "Host: 127.0.0.1:8080\r\nX-Forwarded-For: 192.0.2.7\r\n\
        X-Forwarded-Host: box.example:8443\r\n";
    let with = |origin: &str| {
        let lines = format!("{forwarded}Origin: {origin}\r\n");
        server.connect().request(&upgrade("/", &lines)).status
    };
    assert_eq!(with("https://box.example:8443"), 101);
    assert_eq!(with("https://evil.example"), 403);
    assert_eq!(with("http://127.0.0.1:8080"), 403);
}

#[test]
fn an_ipv4_client_of_a_socket_for_both_has_one_form_of_address() {
    let options = wirewheel::options::ListenOptions::new().only_v6(false);
    let server = Server::bind_with("[::]:0", &options, |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/", |call| {
                format!(
                    "{} {} {}",
                    call.remote_addr().ip(),
                    call.client_addr().ip(),
                    call.local_addr().ip()
                )
            });
            route.web_socket("/", |_: &Call| {
                on_connect(|session, _| session.send(session.remote_addr().ip().to_string()))
            });
        });
    });
    let server = Running::of(server.unwrap());
    let mut client = Client::connect(([127, 0, 0, 1], server.addr().port()).into());
    let page = client.request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(page.body, "127.0.0.1 127.0.0.1 127.0.0.1");
    client.request(&upgrade_request("/", ""));
    client.expect_text("127.0.0.1");
}

fn start_error(path: &'static str) -> String {
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| route.route("/api", |route| echo(route, path)));
    });
    server.unwrap().spawn().unwrap_err().to_string()
}

#[test]
fn a_route_in_the_syntax_of_another_framework_does_not_start() {
    for (path, right) in [
        ("/devices/:id", "{id}"),
        ("/files/{*rest}", "{rest...}"),
        ("/devices/<int:id>", "{id}"),
        ("/files/*rest", "{rest...}"),
        ("/devices/{id:[0-9]+}", "{id}"),
        ("/devices/[id]", "{id}"),
        ("/devices/(\\d+)", "{name}"),
    ] {
        let error = start_error(path);
        let whole = format!("bad route path \"/api{}\"", path.escape_debug());
        assert!(error.starts_with(&whole) && error.contains(right), "{error}");
    }
}

#[test]
fn what_is_sent_has_a_limit_of_its_own_and_to_be_over_it_ends_nothing() {
    let limits = wirewheel::Limits::new().process_bytes(4 << 20);
    let server = Running::start(move |app| {
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            let sender = |_: &Call| {
                on_message(|session, message| {
                    let bytes: usize = message.text().unwrap_or_default().parse()?;
                    session.send(vec![7; bytes])
                })
            };
            route.web_socket("/", sender);
            route.web_socket("/small", sender).max_outgoing_message_size(10);
        });
    });
    let mut client = server.upgrade("/");
    for bytes in [65_536, 65_537, 1 << 20] {
        client.text(&bytes.to_string());
        let mut frames = vec![client.frame()];
        while frames.last().unwrap().first & 0x80 == 0 {
            frames.push(client.frame());
        }
        let sizes: Vec<usize> = frames.iter().map(|frame| frame.payload.len()).collect();
        assert!(sizes.iter().all(|size| *size <= 64 << 10), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), bytes);
        assert_eq!((frames[0].first & 0x7f, frames.len()), (2, bytes.div_ceil(64 << 10)));
    }
    // A quarter of process_bytes is the most. The hook's error is no end.
    client.text(&((1 << 20) + 1).to_string());
    client.text("3");
    assert_eq!(client.frame().payload, [7; 3]);
    let mut client = server.upgrade("/small");
    client.text("11");
    client.text("10");
    assert_eq!(client.frame().payload, [7; 10]);
    // Any other error of a hook is one.
    client.text("many");
    client.expect_close(1011);
}

/// A closure of each hook that is told of pings, pongs and the end.
fn told_all(session: std::sync::mpsc::Sender<String>) -> impl wirewheel::Handler {
    let [pinged, answered, closed] = [(); 3].map(|()| session.clone());
    on_message(|session, message| match message.text() {
        Some("ping") => session.ping(b"mine"),
        Some("pong") => session.pong(b"unasked"),
        Some("long") => session.pong(&[0; 126]),
        _ => session.close(wirewheel::CloseReason::new(wirewheel::CloseCode::new(4001), "go")?),
    })
    .on_ping(move |_, payload| Ok(pinged.send(format!("ping {}", payload.escape_ascii()))?))
    .on_own_pong(move |_, payload| Ok(answered.send(format!("pong {}", payload.escape_ascii()))?))
    .on_close(move |_, close| {
        let codes = (close.code(), close.local_code(), close.remote_code());
        let _ = closed.send(format!("{codes:?} {:?} {:?}", close.text(), close.remote_text()));
    })
}

#[test]
fn pings_of_the_peer_and_the_pong_of_an_own_ping_are_reported_and_so_is_its_code() {
    let (told, inbox) = std::sync::mpsc::channel();
    let events = Events::from_channel(inbox);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| told_all(told.clone()));
        });
    });
    let mut client = server.upgrade("/");
    client.send(PING, b"there?");
    assert_eq!(client.frame(), Frame { first: PONG, payload: b"there?".to_vec() });
    events.expect("ping there?");
    client.text("ping");
    assert_eq!(client.frame(), Frame { first: PING, payload: b"mine".to_vec() });
    client.send(PONG, b"mine");
    events.expect("pong mine");
    client.send(PONG, b"of its own");
    events.expect("pong of its own");
    client.text("pong");
    assert_eq!(client.frame(), Frame { first: PONG, payload: b"unasked".to_vec() });
    client.text("long"); // TooBig: nothing is sent, and nothing ends
    client.text("close");
    assert_eq!(client.expect_close(4001), "go");
    client.send(PING, b"too late");
    client.send(CLOSE, &close_payload(4999, "no"));
    let codes = |a: &str, b: &str, c: &str| format!("(CloseCode({a}), {b}, {c})");
    events.expect(&format!(
        "{} \"go\" \"no\"",
        codes("4001", "Some(CloseCode(4001))", "Some(CloseCode(4999))")
    ));
    // Who echoes, who goes first, who never answers.
    for (payload, expected) in [
        (
            Some(close_payload(4001, "go")),
            codes("4001", "Some(CloseCode(4001))", "Some(CloseCode(4001))"),
        ),
        (Some(Vec::new()), codes("4001", "Some(CloseCode(4001))", "Some(CloseCode(1005))")),
        (None, codes("4001", "Some(CloseCode(4001))", "None")),
    ] {
        let mut client = server.upgrade("/");
        client.text("close");
        client.expect_close(4001);
        match payload {
            Some(payload) => client.send(CLOSE, &payload),
            None => client.half_close(),
        }
        assert!(events.next().starts_with(&expected), "{expected}");
    }
    let mut client = server.upgrade("/");
    client.send(CLOSE, &close_payload(4999, "me"));
    let first = codes("4999", "Some(CloseCode(4999))", "Some(CloseCode(4999))");
    events.expect(&format!("{first} \"me\" \"me\""));
    let client = server.upgrade("/");
    drop(client);
    events.expect(&format!("{} \"\" \"\"", codes("1006", "None", "None")));
}

/// In a raw session both Closes are the handler's to send, and to see.
#[test]
fn a_raw_session_knows_both_codes_too() {
    use wirewheel::CloseInfo;
    use wirewheel::raw::{Frame as RawFrame, OpCode, on_frame};
    let (told, inbox) = std::sync::mpsc::channel();
    let events = Events::from_channel(inbox);
    let server =
        Running::start(move |app| {
            app.install(WebSockets::new());
            app.routing(move |route| {
                route.web_socket_raw("/", move |_: &Call| {
                    let told = told.clone();
                    on_frame(|session, frame| match frame.opcode {
                        OpCode::Close => session
                            .send_frame(RawFrame::new(OpCode::Close, &4000_u16.to_be_bytes())),
                        OpCode::Text => session
                            .send_frame(RawFrame::new(OpCode::Close, &4001_u16.to_be_bytes())),
                        _ => Ok(()),
                    })
                    .on_close(move |_, close: &CloseInfo| {
                        let codes = (close.code(), close.local_code(), close.remote_code());
                        let _ = told.send(format!("{codes:?}"));
                    })
                });
            });
        });
    let mut client = server.upgrade("/");
    client.send(CLOSE, &close_payload(4999, ""));
    client.expect_close(4000);
    events.expect("(CloseCode(4999), Some(CloseCode(4000)), Some(CloseCode(4999)))");
    let mut client = server.upgrade("/");
    client.text("close");
    client.expect_close(4001);
    client.send(CLOSE, &close_payload(4999, ""));
    events.expect("(CloseCode(4001), Some(CloseCode(4001)), Some(CloseCode(4999)))");
}

//! Connections that leave the loop, over real sockets: a blocking WebSocket of tungstenite's on a thread,
//! what counts for how long, and what is refused.
#![allow(clippy::disallowed_methods, reason = "threads that block are what this is about")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use support::{
    CLOSE, Client, PATIENCE, Running, TEXT, close_payload, masked, socket_folder, upgrade_request,
};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;
use wirewheel::detach::Detached;
use wirewheel::testing::TestApplication;
use wirewheel::{Accept, Application, Call, Limits, Response, Routing, Server, WebSockets};

/// Echoes until the peer has closed.
fn echo<S: Read + Write>(stream: S, received: Vec<u8>) {
    let mut socket = WebSocket::from_partially_read(stream, received, Role::Server, None);
    while let Ok(message) = socket.read() {
        if message.is_text() && socket.send(message).is_err() {
            return;
        }
    }
}

/// A route at `/blocking` whose connections are echoed on threads; each says when it counts no more.
fn echoing(route: &mut Routing<'_>, ended: Sender<()>) {
    route.detached("/blocking", move |_: &Call, connection: Detached| {
        let ended = ended.clone();
        thread::spawn(move || {
            let (fd, received, slot) = connection.into_parts().unwrap();
            echo(TcpStream::from(fd), received);
            drop(slot);
            let _ = ended.send(());
        });
    });
}

/// A server with that route, a page and its statistics.
fn server(limits: Limits) -> (Running, Receiver<()>) {
    let (ended, ends) = channel();
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            echoing(route, ended);
            route.get("/page", |_| "here");
            route.stats("/metrics");
        });
    });
    (server, ends)
}

/// The value of one of the server's statistics.
#[track_caller]
fn figure(server: &Running, name: &str) -> String {
    let page = server.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
}

#[track_caller]
fn ended(ends: &Receiver<()>) {
    ends.recv_timeout(PATIENCE).expect("a thread that ends");
}

#[test]
fn a_blocking_socket_echoes_and_what_came_with_the_request_is_not_lost() {
    let (server, ends) = server(Limits::new());
    let mut client = server.connect();
    let mut bytes = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
    bytes.extend(upgrade_request("/blocking", "").bytes());
    bytes.extend(masked(TEXT, b"at once"));
    client.write(bytes);
    assert_eq!(client.answer(false).body, "here", "what is owed goes out first");
    assert_eq!(client.answer(false).status, 101);
    client.expect_text("at once");
    client.text("later");
    client.expect_text("later");
    client.send(CLOSE, &close_payload(1000, "bye"));
    assert_eq!(client.expect_close(1000), "bye");
    ended(&ends);
}

#[test]
fn a_unix_socket_can_be_detached_too() {
    let path = socket_folder().join(format!("wirewheel-detached-{}.sock", std::process::id()));
    let address = format!("unix:{}", path.display());
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.detached("/", |_: &Call, connection| {
                thread::spawn(move || {
                    let (fd, received, _slot) = connection.into_parts().unwrap();
                    echo(UnixStream::from(fd), received);
                });
            });
        });
    };
    let server = Running::of(Server::bind(&address, module).unwrap());
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(upgrade_request("/", "").as_bytes()).unwrap();
    client.write_all(&masked(TEXT, b"hello")).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\x81\x05hello") {
        let mut piece = [0; 1024];
        let n = client.read(&mut piece).unwrap();
        assert_ne!(n, 0, "{}", String::from_utf8_lossy(&got));
        got.extend(&piece[..n]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "));
    drop(server);
}

#[test]
fn it_counts_until_its_slot_is_dropped() {
    let (server, ends) = server(Limits::new().max_connections(1));
    let client = server.upgrade("/blocking");
    let refused = server.connect().request("GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(refused.status, 503);
    drop(client);
    ended(&ends);
    let answer = server.connect().request("GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (200, "here"));
}

#[test]
fn it_counts_for_its_client_and_in_the_statistics() {
    let (server, ends) = server(Limits::new().per_address(2));
    let client = server.upgrade("/blocking");
    // The connection that asks is the second.
    assert_eq!(figure(&server, "wirewheel_connections_open"), "2");
    let idle = server.connect();
    let refused = server.connect().request("GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(refused.status, 429);
    drop(client);
    ended(&ends);
    assert_eq!(figure(&server, "wirewheel_sessions_open"), "0");
    drop(idle);
}

#[test]
fn a_stop_does_not_wait_for_it_and_leaves_it_alone() {
    let (server, ends) = server(Limits::new());
    let mut client = server.upgrade("/blocking");
    client.text("before");
    client.expect_text("before");
    server.0.shutdown(Duration::from_secs(3600));
    server.0.join().unwrap();
    client.text("behind");
    client.expect_text("behind");
    drop(client);
    ended(&ends);
}

#[test]
fn one_that_nobody_wants_is_closed_without_an_answer() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().max_connections(1)));
        app.routing(|route| {
            route.detached("/dropped", |_: &Call, connection| drop(connection));
            route.detached("/panics", |_: &Call, _| panic!("a hook of this test"));
            route.get("/page", |_| "here");
        });
    });
    for path in ["/dropped", "/panics"] {
        let mut client = server.connect();
        client.write(upgrade_request(path, ""));
        assert!(!client.fill(), "{path}: {:?}", String::from_utf8_lossy(&client.inbox));
        let answer =
            server.connect().request("GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(answer.status, 200, "it counts no more");
    }
}

#[test]
fn a_client_that_has_gone_is_an_error_or_an_end_and_no_signal() {
    let (results, outcome) = channel();
    let (gone, is_gone) = channel::<()>();
    let is_gone = std::sync::Mutex::new(Some(is_gone));
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.detached("/", move |_: &Call, connection| {
                let (results, is_gone) = (results.clone(), is_gone.lock().unwrap().take().unwrap());
                thread::spawn(move || {
                    let _ = is_gone.recv();
                    let ended = connection.into_parts().map(|(fd, received, _slot)| {
                        echo(TcpStream::from(fd), received);
                    });
                    let _ = results.send(ended.is_ok());
                });
            });
        });
    });
    let mut client = server.connect();
    client.write(upgrade_request("/", ""));
    client.stream.shutdown(Shutdown::Both).unwrap();
    drop(client);
    gone.send(()).unwrap();
    outcome.recv_timeout(PATIENCE).expect("the thread ends either way");
}

#[test]
fn what_guards_other_routes_guards_these() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.on_upgrade(|call| match call.header("authorization") {
                Some("Bearer secret") => Ok(Accept::new().header("X-Seen", "yes")),
                _ => Err(Response::text("who are you?").status(401)),
            });
            let hook = |_: &Call, connection: Detached| {
                thread::spawn(move || connection.into_parts().map(drop));
            };
            route.detached("/", hook).protocol("blocking.v1");
        });
    });
    let ask = |more: &str| server.connect().request(&upgrade_request("/", more));
    assert_eq!(ask("").status, 400, "no subprotocol");
    let protocol = "Sec-WebSocket-Protocol: blocking.v1\r\n";
    assert_eq!(ask(protocol).status, 401);
    assert_eq!(ask(&format!("{protocol}Origin: http://elsewhere\r\n")).status, 403);
    let offers = "Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer secret\r\n";
    let accepted = ask(&format!("{protocol}{offers}"));
    assert_eq!((accepted.status, accepted.header("x-seen")), (101, Some("yes")));
    assert_eq!(accepted.header("sec-websocket-protocol"), Some("blocking.v1"));
    assert_eq!(accepted.header("sec-websocket-extensions"), None);
}

#[test]
fn what_has_no_socket_cannot_be_detached() {
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.detached("/", |_: &Call, _| unreachable!("there is no socket"));
        });
    };
    let app = TestApplication::new(module).unwrap();
    let refused = app.upgrade("/").connect().unwrap_err();
    assert_eq!(refused.status, 501);
    assert!(refused.text().contains("without TLS"), "{}", refused.text());
}

#[test]
fn extensions_on_such_a_route_are_a_mistake() {
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.detached("/", |_: &Call, _| ()).negotiate_extensions(true);
        });
    };
    let mistake = Server::bind("127.0.0.1:0", module).unwrap().spawn().unwrap_err().to_string();
    assert!(mistake.contains("negotiate_extensions"), "{mistake}");
}

/// By the way on which handles send to the loop, though nobody has a handle.
#[test]
fn a_server_that_runs_here_takes_slots_back() {
    let (ended_sender, ends) = channel();
    let module = move |app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().max_connections(1)));
        app.routing(|route| {
            echoing(route, ended_sender);
            route.get("/page", |_| "here");
        });
    };
    let server = Server::bind("127.0.0.1:0", module).unwrap();
    let address = server.local_addr();
    let running = thread::spawn(move || server.run());
    let client = Client::connect(address).upgraded("/blocking");
    drop(client);
    ended(&ends);
    let page = "GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(Client::connect(address).request(page).status, 200);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
        .unwrap();
    running.join().unwrap().unwrap();
}

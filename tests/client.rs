//! Sessions that dial out, over real sockets: against our own server and against tungstenite's, over TCP and
//! Unix sockets, through restarts, and from other threads.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use support::{PATIENCE, socket_folder};
use tungstenite::{Message as Frame, WebSocket};
use wirewheel::client::{ConnectOptions, DialerKey, DialerState};
use wirewheel::message::Payload;
use wirewheel::options::ListenOptions;
use wirewheel::{
    Application, Call, CloseInfo, Handle, Handler, HandlerResult, Listen, Message, Server, Session,
    WebSockets, on_message,
};

/// Tells the test what happens, and says what it is told to say first.
struct Recorder {
    tell: Sender<String>,
}

impl Handler for Recorder {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let status = call.answer().map_or(0, |answer| answer.status());
        self.tell.send(format!("open {status} {:?} {}", call.protocol(), call.uri())).unwrap();
        session.send("hello")
    }

    fn on_message(&mut self, _: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let text = match message.payload() {
            Payload::Text(text) => format!("text {text}"),
            Payload::Binary(bytes) => format!("{} bytes", bytes.len()),
        };
        self.tell.send(text).unwrap();
        Ok(())
    }

    fn on_close(&mut self, _: &mut Session<'_>, close: &CloseInfo) {
        let _ = self.tell.send(format!("close {}", close.code()));
    }
}

/// A program that dials and listens nowhere.
struct Client {
    handle: Handle,
    told: Receiver<String>,
    key: DialerKey,
}

impl Client {
    fn dial(url: &str, options: impl FnOnce() -> ConnectOptions + Send + 'static) -> Self {
        let (tell, told) = channel();
        let (tell_key, key) = channel();
        let url = url.to_owned();
        let server = Server::without_listener(move |app: &mut Application| {
            let dialer =
                app.connect(&url, options(), move |_call: &Call| Recorder { tell: tell.clone() });
            tell_key.send(dialer.key()).unwrap();
        });
        let handle = server.spawn().unwrap();
        Self { handle, told, key: key.recv().unwrap() }
    }

    #[track_caller]
    fn expect(&self, expected: &str) {
        match self.told.recv_timeout(PATIENCE) {
            Ok(text) => assert_eq!(text, expected),
            Err(_) => panic!("expected {expected:?}, nothing came"),
        }
    }

    fn state(&self) -> DialerState {
        let (tell, told) = channel();
        let key = self.key;
        let asked = self.handle.defer(move |server| {
            let state =
                server.find_dialer(key).map_or(DialerState::Stopped, |dialer| dialer.state());
            tell.send(state).unwrap();
        });
        asked.unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    }

    fn send(&self, message: Vec<u8>) {
        let key = self.key;
        let asked = self.handle.defer(move |server| {
            let session = server.find_dialer(key).and_then(|dialer| dialer.session()).unwrap();
            server.send_to(session, &message).unwrap();
        });
        asked.unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
    }
}

fn quickly() -> ConnectOptions {
    ConnectOptions::new().backoff(Duration::from_millis(5), Duration::from_millis(40))
}

fn echo_module(app: &mut Application) {
    app.install(WebSockets::new().max_frame_size(1 << 20));
    app.routing(|route| {
        let echo = |_call: &Call| on_message(|session, message| session.send(message));
        route.web_socket("/echo", echo);
        route.web_socket("/chosen", echo).protocol("device.v1");
    });
}

fn echo_server(listen: impl Into<Listen>) -> Handle {
    Server::bind(listen, echo_module).unwrap().spawn().unwrap()
}

#[test]
fn two_programs_of_this_library_speak_with_each_other() {
    let server = echo_server("127.0.0.1:0");
    let url = format!("ws://{}/chosen?x=1", server.local_addr());
    let client = Client::dial(&url, || quickly().protocol("device.v2").protocol("device.v1"));
    client.expect("open 101 Some(\"device.v1\") /chosen?x=1");
    client.expect("text hello");
    for size in [0, 125, 126, 65_535, 65_536, 500_000] {
        client.send(vec![7; size]);
        if size <= 65_536 {
            client.expect(&format!("{size} bytes"));
        } else {
            client.expect("close 1009"); // more than this client takes: its own limit
        }
    }
    server.shutdown(Duration::ZERO);
}

#[test]
fn unix_sockets_by_path_and_by_name() {
    let name = format!("wirewheel-client-{}", std::process::id());
    let path = socket_folder().join(format!("{name}.sock"));
    let by_path = echo_server(Listen::Unix(path.clone()));
    let by_name = echo_server(Listen::Abstract(name.clone()));
    for url in [format!("ws+unix:{}:/echo", path.display()), format!("ws+unix:@{name}:/echo")] {
        let client = Client::dial(&url, quickly);
        client.expect("open 101 None /echo");
        client.expect("text hello");
    }
    by_path.shutdown(Duration::ZERO);
    by_name.shutdown(Duration::ZERO);
}

#[test]
fn a_server_that_restarts_is_found_again_each_time() {
    let options = || ListenOptions::new().reuse_port(true);
    let first = Server::bind_with("127.0.0.1:0", &options(), echo_module).unwrap().spawn().unwrap();
    let address = first.local_addr();
    // Has the port while no server does, and listens to nobody.
    let keeper = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    keeper.set_reuse_address(true).unwrap();
    keeper.set_reuse_port(true).unwrap();
    keeper.bind(&address.into()).unwrap();
    let client = Client::dial(&format!("ws://{address}/echo"), quickly);
    let mut server = first;
    for round in 0..10 {
        client.expect("open 101 None /echo");
        client.expect("text hello");
        if round % 2 == 0 {
            server.shutdown_for_restart(Duration::from_secs(1));
            client.expect("close 1012");
        } else {
            server.shutdown(Duration::ZERO);
            let ended = client.told.recv_timeout(PATIENCE).unwrap();
            assert!(ended == "close 1001" || ended == "close 1006", "{ended}");
        }
        server.join().unwrap();
        let next = Server::bind_with(address.to_string(), &options(), echo_module).unwrap();
        server = next.spawn().unwrap();
    }
    client.expect("open 101 None /echo");
    server.shutdown(Duration::ZERO);
}

/// tungstenite's server, for so many connections one after the other.
fn tungstenite_server(
    connections: usize,
    act: impl Fn(WebSocket<TcpStream>) + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            act(tungstenite::accept(stream).unwrap());
        }
    };
    (address, thread::Builder::new().spawn(serve).unwrap())
}

#[test]
fn tungstenites_server_takes_every_frame_of_it() {
    let (address, server) = tungstenite_server(1, |mut socket| {
        loop {
            match socket.read().unwrap() {
                Frame::Close(_) => break,
                frame @ (Frame::Text(_) | Frame::Binary(_)) => socket.send(frame).unwrap(),
                _ => {}
            }
        }
        while socket.read().is_ok() {}
    });
    let client = Client::dial(&format!("ws://{address}/x"), quickly);
    client.expect("open 101 None /x");
    client.expect("text hello");
    for size in [1, 200, 60_000] {
        client.send(vec![9; size]);
        client.expect(&format!("{size} bytes"));
    }
    let key = client.key;
    let stop = client.handle.defer(move |server| server.find_dialer(key).unwrap().stop());
    stop.unwrap();
    client.expect("close 1000");
    server.join().unwrap();
    assert_eq!(client.state(), DialerState::Stopped);
}

#[test]
fn whoever_hangs_up_or_refuses_is_dialled_again() {
    let (address, server) = tungstenite_server(3, |mut socket| {
        // What it has not read would become a reset, which overtakes the welcome.
        assert_eq!(socket.read().unwrap().to_text().unwrap(), "hello");
        socket.send(Frame::from("welcome")).unwrap();
        drop(socket); // without a Close
    });
    let client = Client::dial(&format!("ws://{address}/x"), quickly);
    for _ in 0..3 {
        client.expect("open 101 None /x");
        client.expect("text welcome");
        client.expect("close 1006");
    }
    server.join().unwrap();
    // Nobody listens there any more: it goes on trying, and its state says so.
    while !matches!(client.state(), DialerState::Waiting) {
        thread::yield_now();
    }
    let listener = TcpListener::bind(address).unwrap();
    let (_stream, _) = listener.accept().unwrap();
}

/// Held by who looks at threads for names, of which the process has one list.
static RESOLVES: Mutex<()> = Mutex::new(());

#[test]
fn localhost_needs_no_resolver_and_either_family_is_found() {
    let _alone = RESOLVES.lock().unwrap_or_else(PoisonError::into_inner);
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        if TcpListener::bind(listen).is_err() {
            continue; // a machine without IPv6
        }
        let server = echo_server(listen);
        let port = server.local_addr().port();
        let client = Client::dial(&format!("ws://localhost:{port}/echo"), quickly);
        client.expect("open 101 None /echo");
        client.expect("text hello");
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names =
            threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        assert!(!names.into_iter().any(|name| name.contains("wirewheel-dns")));
        server.shutdown(Duration::ZERO);
    }
}

/// A name of the machine itself, by the resolver: the thread that asks is gone afterwards.
#[test]
fn a_name_is_resolved_by_a_thread_that_goes() {
    let _alone = RESOLVES.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") else { return };
    let server = echo_server("0.0.0.0:0");
    let url = format!("ws://{}:{}/echo", host.trim(), server.local_addr().port());
    let client = Client::dial(&url, quickly);
    client.expect("open 101 None /echo");
    client.expect("text hello");
    let is_there = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        threads
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .any(|name| name.contains("wirewheel-dns"))
    };
    while is_there() {
        thread::yield_now();
    }
    server.shutdown(Duration::ZERO);
}

#[cfg(feature = "deflate")]
#[test]
fn both_sides_compress_with_and_without_contexts() {
    use wirewheel::extension::Deflate;
    let kept = |on: bool| Deflate::new().server_context_takeover(on).client_context_takeover(on);
    for (of_server, of_client) in [(true, true), (false, true), (true, false), (false, false)] {
        let module = move |app: &mut Application| {
            app.install(WebSockets::new().extension(kept(of_server)));
            app.routing(|route| {
                route.web_socket("/echo", |_call: &Call| {
                    on_message(|session, message| session.send(message))
                });
            });
        };
        let server = Server::bind("127.0.0.1:0", module).unwrap().spawn().unwrap();
        let url = format!("ws://{}/echo", server.local_addr());
        let client = Client::dial(&url, move || quickly().extension(kept(of_client)));
        client.expect("open 101 None /echo");
        client.expect("text hello");
        for size in [100, 10_000, 60_000, 100, 60_000] {
            client.send(vec![b'a'; size]);
            client.expect(&format!("{size} bytes"));
        }
        let stats = server.stats().unwrap().recv_timeout(PATIENCE).unwrap();
        assert!(stats.bytes_in < 10_000, "{} bytes for 130,300", stats.bytes_in);
        server.shutdown(Duration::ZERO);
    }
}

#[test]
fn a_mistake_is_told_at_the_start() {
    for (url, part) in [
        ("http://h/", "with ws:// or wss://"),
        ("ws://me:secret@b\u{fc}cher.example/?key=secret", "xn--"),
    ] {
        let module = move |app: &mut Application| {
            app.connect(url, ConnectOptions::new(), |_call: &Call| {
                on_message(|session, message| session.send(message))
            });
        };
        let mistake = Server::without_listener(module).run().unwrap_err().to_string();
        assert!(mistake.contains(part) && !mistake.contains("secret"), "{mistake}");
    }
}

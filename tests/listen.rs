//! Places to listen at, over real sockets: Unix, handed over, several at once; and sleep.

mod support;

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::channel;

use rustix::thread::gettid;
use support::*;
use wirewheel::error::ServerError;
use wirewheel::options::ListenOptions;
use wirewheel::{Application, Call, Listen, Response, Server, WebSockets, on_connect};

struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        Self(socket_folder().join(format!("wirewheel-{name}-{}.sock", std::process::id())))
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.0).unwrap();
        // A client reads and writes the same way over either kind.
        let stream = TcpStream::from(OwnedFd::from(stream));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, inbox: Vec::new() }
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Says who the peer and the server are, then echoes.
fn introducing(app: &mut Application) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |call| Response::text(format!("{}", call.remote_addr())));
        route.web_socket("/", |_: &Call| {
            on_connect(|session, call| {
                session.send(format!("{} {}", session.remote_addr(), call.local_addr()))
            })
            .on_message(|session, message| session.send(message))
        });
    });
}

#[test]
fn a_unix_socket_serves_like_any_other_and_its_file_goes_with_the_server() {
    let path = SocketPath::new("serves");
    let server = Server::bind(Listen::Unix(path.0.clone()), introducing).unwrap();
    let running = Running::of(server.listen("127.0.0.1:0").unwrap());
    assert_eq!(running.0.local_addrs()[0], SocketAddr::from(([0, 0, 0, 0], 0)));

    let mut local = path.connect().upgraded("/");
    local.expect_text("0.0.0.0:0 0.0.0.0:0");
    // Larger than the socket's buffer, so that it comes and goes in pieces.
    let big = vec![b'x'; 60_000];
    for _ in 0..20 {
        local.send(TEXT, &big);
        assert_eq!(local.frame().payload, big);
    }
    assert_eq!(path.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body, "0.0.0.0:0");

    let mut over_tcp = Client::connect(running.0.local_addrs()[1]).upgraded("/");
    over_tcp.frame();
    running.0.shutdown(millis(5000));
    local.expect_close(1001);
    over_tcp.expect_close(1001);
    local.send(CLOSE, &close_payload(1001, ""));
    over_tcp.send(CLOSE, &close_payload(1001, ""));
    local.expect_eof();
    drop((local, over_tcp));
    running.0.join().unwrap();
    assert!(!path.0.exists());
}

/// It answers nobody just now, and has room for nobody either: who looks whether it is there does not wait.
#[test]
fn a_path_whose_server_is_busy_is_taken() {
    let path = SocketPath::new("busy");
    let socket =
        || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let (address, busy) = (socket2::SockAddr::unix(&path.0).unwrap(), socket());
    busy.bind(&address).unwrap();
    busy.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        match client.connect(&address) {
            Ok(()) => waiting.push(client),
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let (tell, told) = channel();
    let listen = Listen::Unix(path.0.clone());
    let bind = move || tell.send(Server::bind(listen, introducing).map(drop)).unwrap();
    std::thread::Builder::new().spawn(bind).unwrap();
    match told.recv_timeout(PATIENCE).expect("it waits") {
        Err(ServerError::Bind { source, .. }) => assert_eq!(source.kind(), ErrorKind::AddrInUse),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_descriptor_that_listens_is_taken_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Who connects before the server runs waits, as with socket activation.
    let early = Client::connect(addr);
    let server = Server::bind(OwnedFd::from(listener), introducing).unwrap();
    assert_eq!(server.local_addr(), addr);
    let _running = Running::of(server);
    let mut early = early.upgraded("/");
    assert!(String::from_utf8(early.frame().payload).unwrap().ends_with(&addr.to_string()));
}

#[test]
fn what_cannot_be_listened_on_is_said() {
    let nothing = |_: &mut Application| {};
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Server::bind(addr, nothing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {addr}: ")), "{error}");
    let error = Server::bind("unix:/nonexistent/x.sock", nothing).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on unix:/nonexistent/x.sock: "), "{error}");
    let options = ListenOptions::new().backlog(0);
    let error = Server::bind_with("127.0.0.1:0", &options, nothing).unwrap_err();
    assert!(matches!(&error, ServerError::Config(text) if text.contains("backlog")), "{error}");
}

/// A field of a thread's status, such as `voluntary_ctxt_switches`, which counts every blocking call that had
/// to wait.
fn status(thread: i32, field: &str) -> String {
    let path = format!("/proc/self/task/{thread}/status");
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

#[test]
fn nothing_wakes_the_loop_while_nothing_is_due() {
    let (tell, told) = channel();
    let running = Running::start(move |app| {
        tell.send(gettid().as_raw_nonzero().get()).unwrap();
        app.install(WebSockets::new().ping_period(None));
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_connect(|session, _| session.send("hi")));
        });
    });
    let thread = told.recv().unwrap();
    let mut clients: Vec<Client> = (0..100).map(|_| running.upgrade("/")).collect();
    for client in &mut clients {
        client.expect_text("hi");
    }
    // Two seconds, 244 ticks of the wheel, in which nobody is sent anything. The first time may have the end
    // of the turn with the last answer in it.
    let quiet = &mut clients[0].stream;
    quiet.set_read_timeout(Some(millis(2000))).unwrap();
    let slept = (0..3).any(|_| {
        let before = status(thread, "voluntary_ctxt_switches");
        assert_eq!(quiet.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        status(thread, "voluntary_ctxt_switches") == before
    });
    assert!(slept, "woken within 2 s of idleness, each time");
}

//! Sessions that speak a protocol of their own: dialled over TCP and Unix sockets, as any other session is.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use support::{PATIENCE, socket_folder};
use wirewheel::client::{ByteHandler, ConnectOptions, Reconnect};
use wirewheel::flow::{BufferOverflow, FlowOptions};
use wirewheel::options::OutboxOverflow;
use wirewheel::{
    Application, CloseCode, CloseInfo, Handle, HandlerResult, Limits, Server, Session, TimerId,
    WebSockets,
};

/// Tells the test what it gets, and answers some of it.
struct Teller {
    tell: Sender<String>,
}

impl ByteHandler for Teller {
    fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.tell.send("open".into()).unwrap();
        session.send("hello ")?;
        session.send([0, 255])
    }

    fn on_bytes(&mut self, session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
        self.tell.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
        match bytes {
            b"close" => session.close(CloseCode::new(4000)),
            b"fail" => Err("as planned".into()),
            b"ping" => session.ping(b"is nothing here"),
            b"event" => session.send_event("name", "is refused"),
            b"timer" => session.set_timer(Duration::from_millis(10)).map(drop).map_err(Into::into),
            b"much" => session.send(vec![7; 1 << 20]),
            _ => session.send("ok"),
        }
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
        session.send("tick")
    }

    fn on_drain(&mut self, _session: &mut Session<'_>) -> HandlerResult {
        self.tell.send("drained".into())?;
        Ok(())
    }

    fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
        let _ = self.tell.send(format!("closed {}", close.code()));
    }
}

fn dial(url: String, options: fn() -> ConnectOptions) -> (Handle, Receiver<String>) {
    let (tell, told) = channel();
    let server = Server::without_listener(move |app: &mut Application| {
        app.connect_bytes(&url, options(), move || Teller { tell: tell.clone() });
    });
    (server.spawn().unwrap(), told)
}

fn options() -> ConnectOptions {
    let at_once = |_: &CloseInfo, _| Reconnect::After(Duration::from_millis(10));
    ConnectOptions::new().on_lost(at_once)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn expect(stream: &mut impl Read, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

#[track_caller]
fn told(from: &Receiver<String>, what: &str) {
    assert_eq!(from.recv_timeout(PATIENCE).as_deref(), Ok(what));
}

#[test]
fn bytes_go_out_and_come_in_as_they_are_and_the_end_brings_the_next_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, heard) = dial(format!("tcp://{}", listener.local_addr().unwrap()), options);
    let mut peer = accept(&listener);
    told(&heard, "open");
    expect(&mut peer, b"hello \x00\xff");
    for text in ["\x00\u{e9}", "GET / HTTP/1.1\r\n\r\n"] {
        peer.write_all(text.as_bytes()).unwrap();
        told(&heard, text);
        expect(&mut peer, b"ok");
    }
    peer.write_all(b"\x89\x00\x88\x00").unwrap(); // a ping and a Close, were it WebSocket
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap().len(), 8, "two bytes are no UTF-8");
    expect(&mut peer, b"ok");
    for (text, answer) in [("timer", "tick"), ("ping", "")] {
        peer.write_all(text.as_bytes()).unwrap();
        told(&heard, text);
        expect(&mut peer, answer.as_bytes());
    }
    drop(peer);
    told(&heard, "closed 1005");
    for (said, code) in [("close", "4000"), ("fail", "1011"), ("event", "1011")] {
        let mut peer = accept(&listener);
        told(&heard, "open");
        expect(&mut peer, b"hello \x00\xff");
        peer.write_all(said.as_bytes()).unwrap();
        told(&heard, said);
        told(&heard, &format!("closed {code}"));
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "no frame is sent, and the end comes");
    }
    let _again = accept(&listener);
    told(&heard, "open");
    assert_eq!(server.stats().unwrap().recv_timeout(PATIENCE).unwrap().event_streams_open, 0);
    server.shutdown(Duration::from_secs(1));
    server.join().unwrap();
}

/// Keeps all that comes.
struct Keeper {
    kept: Vec<u8>,
    tell: Sender<String>,
}

impl ByteHandler for Keeper {
    fn on_bytes(&mut self, _session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
        self.kept.extend_from_slice(bytes);
        if bytes.ends_with(b"drop") {
            self.kept = Vec::new();
        }
        self.tell.send(format!("{}", self.kept.len()))?;
        Ok(())
    }

    fn on_close(&mut self, _session: &mut Session<'_>, _close: &CloseInfo) {
        let _ = self.tell.send("closed".into());
    }

    fn bytes_held(&self) -> usize {
        self.kept.capacity()
    }
}

#[test]
fn what_a_handler_keeps_counts_as_held_and_who_keeps_too_much_is_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, (tell, heard)) = (format!("tcp://{}", listener.local_addr().unwrap()), channel());
    let server = Server::without_listener(move |app: &mut Application| {
        let limits = Limits::new().process_bytes(300_000);
        app.install(WebSockets::new().limits(limits));
        app.connect_bytes(&url, options(), move || Keeper { kept: Vec::new(), tell: tell.clone() });
    });
    let server = server.spawn().unwrap();
    let held = || server.stats().unwrap().recv_timeout(PATIENCE).unwrap().bytes_held;
    let mut peer = accept(&listener);
    let until = |said: &str| while heard.recv_timeout(PATIENCE).as_deref() != Ok(said) {};
    peer.write_all(b"drop").unwrap();
    until("0"); // it is there
    let before = held();
    peer.write_all(&[b'x'; 100_000]).unwrap();
    until("100000");
    assert!((100_000..=200_000).contains(&(held() - before)), "{}", held());
    peer.write_all(b"drop").unwrap();
    until("0");
    assert_eq!(held(), before);
    let _ = peer.write_all(&[b'x'; 400_000]); // the end may come before all of it
    until("closed");
    let _again = accept(&listener);
    assert!(held() <= before, "{}", held());
    server.shutdown(Duration::ZERO);
    server.join().unwrap();
}

#[test]
fn what_a_slow_peer_does_not_take_waits_and_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = || {
        options()
            .outbox_bytes(2 << 20)
            .max_outgoing_message_size(2 << 20)
            .on_outbox_full(OutboxOverflow::Block)
    };
    let (server, heard) = dial(format!("tcp://{}", listener.local_addr().unwrap()), options);
    let mut peer = accept(&listener);
    told(&heard, "open");
    for _ in 0..8 {
        peer.write_all(b"much").unwrap();
        if heard.recv_timeout(PATIENCE).unwrap() != "much" {
            break;
        }
    }
    expect(&mut peer, b"hello \x00\xff");
    let mut got = vec![0; 1 << 20];
    peer.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|&byte| byte == 7));
    drop(peer);
    server.shutdown(Duration::ZERO);
    server.join().unwrap();
}

#[test]
fn a_unix_socket_is_dialled_too() {
    let folder = socket_folder();
    let path = folder.join(format!("byte-streams-{}", std::process::id()));
    let _ = std::fs::remove_file(&path); // of a process that had the same number
    let listener = UnixListener::bind(&path).unwrap();
    let (server, heard) = dial(format!("unix:{}", path.display()), options);
    let (mut peer, _) = listener.accept().unwrap();
    told(&heard, "open");
    expect(&mut peer, b"hello \x00\xff");
    server.shutdown(Duration::ZERO);
    server.join().unwrap();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_flow_is_collected_as_bytes() {
    struct Collector(wirewheel::flow::SharedFlow);
    impl ByteHandler for Collector {
        fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
            session.collect(&self.0)
        }
        fn on_bytes(&mut self, session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
            session.emit(&self.0, std::str::from_utf8(bytes)?)
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let server = Server::without_listener(move |app: &mut Application| {
        let policy = BufferOverflow::DropOldest;
        let flow = app.flow(FlowOptions::new().replay(8).on_buffer_overflow(policy));
        for line in ["one\n", "two\n"] {
            flow.emit(line).unwrap();
        }
        app.connect_bytes(&url, options(), move || Collector(flow.clone()));
    });
    let server = server.spawn().unwrap();
    let mut peer = accept(&listener);
    expect(&mut peer, b"one\ntwo\n");
    peer.write_all(b"three\n").unwrap();
    expect(&mut peer, b"three\n");
    drop(peer);
    let mut again = accept(&listener);
    expect(&mut again, b"one\ntwo\nthree\n");
    server.shutdown(Duration::ZERO);
    server.join().unwrap();
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let refused = |url: &'static str, options: fn() -> ConnectOptions| {
        let (tell, _told) = channel();
        let server = Server::without_listener(move |app: &mut Application| {
            app.connect_bytes(url, options(), move || Teller { tell: tell.clone() });
        });
        server.spawn().unwrap_err().to_string()
    };
    for url in ["ws://a:1", "a:1", "", "unix:relative", "unix:/a:/b"] {
        assert!(refused(url, options).contains("unix:"), "{url:?}");
    }
    for (url, what) in [
        ("tcp://host", "no port"),
        ("tcp://host:1/path", "nothing"),
        ("tcp://user@host:1", "nothing"),
        ("tcp://host:0", "1 to 65535"),
    ] {
        let said = refused(url, options);
        assert!(said.contains(what), "{url:?}: {said}");
    }
    let with_header = || options().header("A", "b");
    assert!(refused("tcp://host:1", with_header).contains("header is for"));
    let with_protocol = || options().protocol("a");
    assert!(refused("tcp://host:1", with_protocol).contains("protocol is for"));
}

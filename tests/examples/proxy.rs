//! The example that pipes sessions to another server, between a client and a server of another make.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use tungstenite::Message as ToUpstream;
use tungstenite::protocol::CloseFrame;

use super::support::program::Program;
use super::support::*;

/// Messages of a flood, together far more than what sockets and limits hold.
const FLOOD: u32 = 500;

fn numbered(n: u32) -> Vec<u8> {
    let mut bytes = vec![b'.'; 50_000];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// A server of another make, one connection after the other; it tells what happens to it.
fn serve_upstream(listener: &TcpListener, told: &Sender<String>, go_on: &Receiver<()>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        // A write that makes no progress for so long has stalled.
        stream.set_write_timeout(Some(millis(300))).unwrap();
        let mut uri = String::new();
        #[allow(clippy::result_large_err, reason = "tungstenite's callback returns this")]
        let note = |request: &tungstenite::handshake::server::Request, answer| {
            uri = request.uri().to_string();
            Ok(answer)
        };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, note) else { continue };
        match uri.as_str() {
            "/flood" => {
                for n in 0..FLOOD {
                    let mut written = socket.send(ToUpstream::binary(numbered(n)));
                    while let Err(tungstenite::Error::Io(_)) = written {
                        told.send("stalled".into()).unwrap();
                        written = socket.flush();
                    }
                    written.unwrap();
                }
                let frame = CloseFrame { code: 4003.into(), reason: "all sent".into() };
                socket.close(Some(frame)).unwrap();
            }
            "/later" => {
                go_on.recv().unwrap();
                for n in 0..FLOOD {
                    assert_eq!(socket.read().unwrap().into_data(), numbered(n));
                }
                socket.send("all there".into()).unwrap();
            }
            _ => socket.send(uri.as_str().into()).unwrap(),
        }
        loop {
            match socket.read() {
                Ok(ToUpstream::Close(frame)) => told.send(format!("{frame:?}")).unwrap(),
                Ok(ToUpstream::Text(text)) if text == "bye" => {
                    let frame = CloseFrame { code: 4001.into(), reason: "so long".into() };
                    socket.close(Some(frame)).unwrap();
                }
                Ok(message) if message.is_text() || message.is_binary() => {
                    socket.send(message).unwrap();
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

#[test]
fn proxy_pipes_messages_and_closes_and_who_is_slow_slows_the_other_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("ws://{}", listener.local_addr().unwrap());
    let ((tell, told), (go, go_on)) = (channel(), channel());
    std::thread::Builder::new().spawn(move || serve_upstream(&listener, &tell, &go_on)).unwrap();
    let told = Events::from_channel(told);
    let proxy = Program::with_arguments("proxy", &["127.0.0.1:0", &upstream]);

    let mut client = proxy.connect();
    client
        .write([upgrade_request("/any/path?x=1", "").as_bytes(), &masked(TEXT, b"early")].concat());
    assert_eq!(client.answer(false).status, 101);
    client.expect_text("/any/path?x=1");
    client.expect_text("early"); // it came before the other server was there
    client.send(BINARY, &[0, 255]);
    assert_eq!(client.frame(), Frame { first: BINARY, payload: vec![0, 255] });
    client.text("bye");
    assert_eq!(client.expect_close(4001), "so long");
    client.send(CLOSE, &close_payload(4001, "so long"));
    client.expect_eof();
    let mut client = proxy.connect().upgraded("/");
    client.expect_text("/");
    client.send(CLOSE, &close_payload(4002, "mine"));
    client.expect_close(4002);
    assert!(told.next().contains("4001")); // the answer
    assert!(told.next().contains("mine"));

    // Downwards: the client reads nothing until the other server cannot write any more.
    let mut client = proxy.connect().upgraded("/flood");
    told.expect("stalled");
    for n in 0..FLOOD {
        assert!(client.frame().payload == numbered(n), "message {n}");
    }
    assert_eq!(client.expect_close(4003), "all sent"); // behind what came before
    client.send(CLOSE, &close_payload(4003, ""));
    client.expect_eof();
    while !told.next().contains("4003") {} // a stall may last

    // Upwards: the other server reads nothing until the client cannot write any more.
    let mut client = proxy.connect().upgraded("/later");
    client.stream.set_write_timeout(Some(millis(300))).unwrap();
    let all: Vec<u8> = (0..FLOOD).flat_map(|n| masked(BINARY, &numbered(n))).collect();
    let mut written = 0;
    while let Ok(n) = client.stream.write(&all[written..]) {
        written += n;
    }
    assert!(written < all.len() / 2, "{written} of {} bytes went somewhere", all.len());
    go.send(()).unwrap();
    client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    client.write(&all[written..]);
    client.expect_text("all there");
    let peak = std::fs::read_to_string(format!("/proc/{}/status", proxy.child.id())).unwrap();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kilobytes: u32 = peak.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 16 << 10, "{peak}, with {} bytes passed on", 2 * all.len());
}

#[test]
fn proxy_without_another_server_is_a_bad_gateway() {
    // A port that is taken, so that nobody else comes to listen there meanwhile.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let nobody = taken.local_addr().unwrap();
    let proxy = Program::with_arguments("proxy", &["127.0.0.1:0", &format!("ws://{nobody}")]);
    let reason = proxy.connect().upgraded("/").expect_close(1014);
    assert!(reason.contains("refused"), "{reason}");
    let nowhere = Program::with_arguments("proxy", &["127.0.0.1:0", "http://127.0.0.1:1"]);
    let reason = nowhere.connect().upgraded("/").expect_close(1014);
    assert!(reason.contains("ws://"), "{reason}");
}

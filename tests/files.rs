//! Files as answers, over real sockets.
#![allow(clippy::cast_possible_truncation, reason = "bytes that a test made up")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;

use support::*;
use wirewheel::{Application, Call, Response, WebSockets, on_message};

/// A folder that is gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file whose every byte follows from its place.
    fn file(&self, name: &str, size: usize) -> (PathBuf, Vec<u8>) {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        fs::write(self.0.join(name), &bytes).unwrap();
        (self.0.join(name), bytes)
    }

    /// Serves each file at its name, and echoes at `/ws`.
    fn serve(&self) -> Running {
        let folder = self.0.clone();
        Running::start(move |app: &mut Application| {
            app.install(WebSockets::new().ping_period(None)); // an emulator takes longer than pings wait
            app.routing(|route| {
                route.get("/{name}", move |call| {
                    Response::file(folder.join(&*call.parameter("name").unwrap()))
                });
                route.web_socket("/ws", |_: &Call| {
                    on_message(|session, message| session.send(message))
                });
            });
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn get(name: &str) -> String {
    format!("GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n")
}

impl Client {
    /// The head of an answer and its body, which need not be text.
    fn file(&mut self) -> (Answer, Vec<u8>) {
        let answer = self.answer(true);
        let length = answer.header("content-length").unwrap().parse().unwrap();
        let mut body = std::mem::take(&mut self.inbox);
        let later = body.split_off(body.len().min(length));
        let read = body.len();
        body.resize(length, 0);
        self.stream.read_exact(&mut body[read..]).unwrap();
        self.inbox = later;
        (answer, body)
    }
}

#[test]
fn files_arrive_whole_with_their_type_one_behind_the_other() {
    let folder = Folder::new("whole");
    let files: Vec<_> = [
        ("big.wasm", 10_000_000, "application/wasm"),
        ("empty.css", 0, "text/css; charset=utf-8"),
        ("exact.png", 32 << 10, "image/png"),
        ("A.HTML", 1, "text/html; charset=utf-8"),
        ("unknown", 100_000, "application/octet-stream"),
    ]
    .map(|(name, size, kind)| (name, folder.file(name, size).1, kind))
    .into();
    let running = folder.serve();
    let mut client = running.connect();
    // All requests at once: the answers come in their order.
    let requests: String = files.iter().map(|(name, ..)| get(name)).collect();
    client.write(requests);
    for (name, bytes, kind) in &files {
        let (answer, body) = client.file();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(*kind)), "{name}");
        assert!(body == *bytes, "{name} is not what it was");
    }
    let head = client.request("HEAD /big.wasm HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(head.header("content-length"), Some("10000000"));
    client.write("GET /exact.png HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(client.file().1 == files[2].1);
    client.expect_eof();
}

#[test]
fn what_is_no_file_is_404() {
    let folder = Folder::new("kinds");
    fs::create_dir(folder.0.join("folder")).unwrap();
    folder.file("plain", 1);
    // Opened for reading, a pipe without a writer would stop the loop.
    let made = Command::new("mkfifo").arg(folder.0.join("pipe")).status().unwrap();
    assert!(made.success());
    let running = folder.serve();
    let mut client = running.connect();
    for name in ["folder", "pipe", "missing", "plain%2Fbelow"] {
        assert_eq!(client.request(&get(name)).status, 404, "{name}");
    }
    assert_eq!(client.request(&get("plain")).status, 200);
}

/// A reader that has seen the head and nothing more: most of the file is not read yet.
fn begin(running: &Running, name: &str) -> Client {
    let mut client = running.connect();
    client.write(get(name));
    while client.inbox.len() < 1000 {
        assert!(client.fill());
    }
    client
}

#[test]
fn a_file_that_grows_is_sent_as_long_as_it_was() {
    let folder = Folder::new("grows");
    let (path, bytes) = folder.file("log.txt", 20_000_000);
    let running = folder.serve();
    let mut client = begin(&running, "log.txt");
    OpenOptions::new().append(true).open(path).unwrap().write_all(&[1; 100_000]).unwrap();
    assert!(client.file().1 == bytes);
    assert_eq!(client.request(&get("missing")).status, 404); // nothing came behind it
}

#[test]
fn a_file_that_shrinks_breaks_the_connection_instead_of_pretending() {
    let folder = Folder::new("shrinks");
    let (path, bytes) = folder.file("data", 20_000_000);
    let running = folder.serve();
    let mut client = begin(&running, "data");
    File::options().write(true).open(path).unwrap().set_len(1_000).unwrap();
    let mut received = client.inbox.len();
    let mut buffer = [0; 65_536];
    let end = loop {
        match client.stream.read(&mut buffer) {
            Ok(0) => break None,
            Ok(read) => received += read,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
    assert!(received < bytes.len());
}

#[test]
fn sessions_are_served_while_files_are_read_fast_and_not_at_all() {
    let folder = Folder::new("fair");
    let (path, _) = folder.file("large", 0);
    File::options().write(true).open(path).unwrap().set_len(2 << 30).unwrap();
    let running = folder.serve();
    let _unread = begin(&running, "large");
    let mut fast = running.connect();
    fast.write(get("large"));
    let mut session = running.upgrade("/ws");
    let (mut echoes, mut received) = (0, 0);
    let mut buffer = vec![0; 1 << 20];
    while received < 100 << 20 {
        received += fast.stream.read(&mut buffer).unwrap();
        session.text("still there?");
        session.expect_text("still there?");
        echoes += 1;
    }
    assert!(echoes >= 100, "{echoes}");
}

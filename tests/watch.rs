//! Descriptors of the application on the loop: pipes, UDP sockets, what cannot be watched.

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::pipe::{PipeFlags, pipe_with};
use support::*;
use wirewheel::flow::SharedFlow;
use wirewheel::watch::{Ready, Watch, WatchId};
use wirewheel::{Application, Call, ServerRef, WebSockets, on_connect};

/// A pipe whose ends do not wait.
fn pipe() -> (File, File) {
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// Tells when a callback is dropped.
struct Dropped(Sender<String>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send("dropped".into());
    }
}

/// Reports every byte that it reads, one a call; stops at `q` and at the end.
fn byte_by_byte(
    tell: Sender<String>,
) -> impl FnMut(&mut ServerRef<'_>, &mut File, Ready) -> Watch + Send {
    let dropped = Dropped(tell);
    move |_, pipe, ready| {
        assert!(ready.is_readable());
        let mut byte = [0];
        let said = match pipe.read(&mut byte) {
            Ok(0) => "end".into(),
            Ok(_) => char::from(byte[0]).to_string(),
            Err(error) => error.to_string(),
        };
        let stops = said == "q" || said == "end";
        dropped.0.send(said).unwrap();
        if stops { Watch::Stop } else { Watch::For(Ready::READABLE) }
    }
}

fn next(told: &Receiver<String>) -> String {
    told.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn who_reads_a_little_at_a_time_is_called_until_nothing_is_left() {
    let (reader, mut writer) = pipe();
    let (tell, told) = channel();
    let server = Running::start(move |app| {
        app.watch(reader, Ready::READABLE, byte_by_byte(tell));
    });
    writer.write_all(b"all in one write").unwrap();
    let text: String = (0..16).map(|_| next(&told)).collect();
    assert_eq!(text, "all in one write");
    let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    let turns = stats.loop_turns;
    writer.write_all(b"x").unwrap();
    assert_eq!(next(&told), "x");
    let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    assert!(stats.loop_turns - turns < 10, "in between it slept");
}

#[test]
fn stop_and_hang_up_end_a_watch_and_close_the_descriptor() {
    for (last, said) in [(Some(b"q"), "q"), (None, "end")] {
        let (reader, writer) = pipe();
        let (tell, told) = channel();
        let _server = Running::start(move |app| {
            app.watch(reader, Ready::READABLE, byte_by_byte(tell));
        });
        let mut kept = Some(writer);
        match last {
            Some(byte) => kept.as_mut().unwrap().write_all(byte).unwrap(),
            None => kept = None,
        }
        assert_eq!((next(&told), next(&told)), (said.into(), "dropped".into()));
        if let Some(mut writer) = kept {
            assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
}

#[test]
fn a_pipe_is_written_as_its_reader_takes_it() {
    const BYTES: usize = 1 << 20;
    let (mut reader, writer) = pipe();
    let (tell, told) = channel();
    let _server = Running::start(move |app| {
        let (mut left, dropped) = (vec![b'y'; BYTES], Dropped(tell));
        app.watch(writer, Ready::WRITABLE, move |_, pipe, ready| {
            assert!(ready.is_writable());
            let _ = &dropped;
            if let Ok(written) = pipe.write(&left) {
                left.truncate(left.len() - written);
            }
            if left.is_empty() { Watch::Stop } else { Watch::For(Ready::WRITABLE) }
        });
    });
    let mut got = 0;
    let mut buffer = [0; 1_000];
    while got < BYTES {
        match reader.read(&mut buffer) {
            Ok(0) => panic!("closed after {got} bytes"),
            Ok(n) => got += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(next(&told), "dropped");
    assert_eq!(reader.read(&mut buffer).unwrap(), 0);
}

/// One end of a pair of sockets that is watched for bytes, and what its callback is told it is ready for. It
/// takes a byte; `q` ends it, and `f` has it fill the socket and wait for room.
fn watched() -> (Running, WatchId, UnixStream, Receiver<Ready>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let ((tell, told), (tell_id, id)) = (channel(), channel());
    let server = Running::start(move |app| {
        let id = app.watch(ours, Ready::READABLE, move |_, socket, ready| {
            tell.send(ready).unwrap();
            let mut byte = [0];
            match (ready.is_readable().then(|| socket.read(&mut byte)), &byte) {
                (Some(Ok(1)), b"q") => return Watch::Stop,
                (Some(Ok(1)), b"f") => while socket.write(&[0; 4_096]).is_ok() {},
                _ => return Watch::For(Ready::READABLE),
            }
            Watch::For(Ready::WRITABLE)
        });
        tell_id.send(id).unwrap();
    });
    let id = id.recv_timeout(PATIENCE).unwrap();
    (server, id, theirs, told)
}

/// Some turns later.
fn turns(server: &Running) {
    for _ in 0..3 {
        server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn what_a_descriptor_is_watched_for_is_changed_from_outside() {
    let (server, id, mut peer, told) = watched();
    let next = || told.recv_timeout(PATIENCE).unwrap();
    let rewatch = |interest| {
        server.0.defer(move |server| server.rewatch(id, interest)).unwrap();
        turns(&server);
    };
    rewatch(Ready::WRITABLE);
    assert_eq!(next(), Ready::WRITABLE);
    peer.write_all(b"f").unwrap();
    assert_eq!(next(), Ready::READABLE, "its callback went on for bytes");
    peer.write_all(b"x").unwrap();
    turns(&server);
    assert!(told.try_recv().is_err(), "it waits for room alone, and there is none");
    rewatch(Ready::BOTH);
    assert_eq!(next(), Ready::READABLE, "what came meanwhile is told");
    peer.write_all(b"q").unwrap();
    assert_eq!(next(), Ready::READABLE);
    rewatch(Ready::BOTH);
    assert!(told.recv_timeout(PATIENCE).is_err(), "it is gone, with its callback");
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Packets of a sensor go to every browser; a packet `move` has the callback go on with another
/// socket in the place of its own, as a gateway does that reopens a port.
#[test]
fn packets_go_to_the_sessions_and_the_socket_may_be_replaced() {
    let (first, second, sensor) = (udp(), udp(), udp());
    let (at, later_at) = (first.local_addr().unwrap(), second.local_addr().unwrap());
    let server = Running::start(move |app: &mut Application| {
        let readings: SharedFlow<[u8]> = SharedFlow::new();
        let shown = readings.clone();
        let mut spare = Some(second);
        app.watch(first, Ready::READABLE, move |_, socket, _| {
            let mut packet = [0; 1_500];
            if let Ok(length) = socket.recv(&mut packet) {
                readings.emit(&packet[..length]).unwrap();
                if &packet[..length] == b"move" {
                    *socket = spare.take().unwrap();
                }
            }
            Watch::For(Ready::READABLE)
        });
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let shown = shown.clone();
                on_connect(move |session, _| {
                    session.collect(&shown)?;
                    session.send("ready")
                })
            });
        });
    });
    let mut clients = [server.upgrade("/"), server.upgrade("/")];
    clients.iter_mut().for_each(|client| client.expect_text("ready"));
    for (packet, to) in [("21.5", at), ("21.6", at), ("move", at), ("21.7", later_at)] {
        sensor.send_to(packet.as_bytes(), to).unwrap();
        for client in &mut clients {
            let frame = client.frame();
            assert_eq!((frame.first, frame.payload.as_slice()), (BINARY, packet.as_bytes()));
        }
    }
}

#[test]
fn a_callback_that_panics_is_dropped_and_nothing_else() {
    let (reader, mut writer) = pipe();
    let (tell, told) = channel();
    let server = Running::start(move |app| {
        let dropped = Dropped(tell);
        app.watch(reader, Ready::READABLE, move |_, _, _| {
            let _ = &dropped;
            panic!("on purpose")
        });
        app.routing(|route| route.get("/", |_| "served"));
    });
    writer.write_all(b"x").unwrap();
    assert_eq!(next(&told), "dropped");
    assert_eq!(server.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body, "served");
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {} {}", record.level(), record.target(), record.args());
        LINES.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

/// The system does not watch a regular file: that is said, from the module and at run time.
#[test]
fn a_regular_file_is_refused_and_that_is_logged() {
    log::set_logger(&Capture).unwrap();
    log::set_max_level(LevelFilter::Error);
    let (tell, told) = channel();
    let file = || File::open(std::env::current_exe().unwrap()).unwrap();
    let callback = move || {
        let dropped = Dropped(tell.clone());
        move |_: &mut ServerRef<'_>, _: &mut File, _: Ready| -> Watch {
            let _ = &dropped;
            unreachable!("it cannot be watched")
        }
    };
    let first = callback();
    let server = Running::start(move |app| {
        app.watch(file(), Ready::READABLE, first);
        app.routing(|route| route.get("/", |_| "served"));
    });
    assert_eq!(next(&told), "dropped");
    let second = callback();
    let begin = server.0.defer(move |server| {
        server.watch(file(), Ready::BOTH, second);
    });
    begin.unwrap();
    assert_eq!(next(&told), "dropped");
    assert_eq!(server.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body, "served");
    let lines = LINES.lock().unwrap();
    let wanted = "ERROR wirewheel::server a descriptor cannot be watched: ";
    assert_eq!(lines.iter().filter(|line| line.starts_with(wanted)).count(), 2, "{lines:?}");
}

/// A port that is reopened while a child process still has the old one: what comes there is not for the
/// new one's callback.
#[test]
fn a_descriptor_that_was_replaced_is_no_longer_heard_though_it_is_open_elsewhere() {
    let (old, mut old_writer) = pipe();
    let (new, mut new_writer) = pipe();
    let duplicate = old.try_clone().unwrap();
    let (tell, told) = channel();
    let server = Running::start(move |app| {
        let mut spare = Some(new);
        app.watch(old, Ready::READABLE, move |_, pipe, _| {
            let mut bytes = [0; 16];
            let said = match pipe.read(&mut bytes) {
                Ok(n) => String::from_utf8_lossy(&bytes[..n]).into_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            tell.send(said).unwrap();
            if let Some(new) = spare.take() {
                *pipe = new;
            }
            Watch::For(Ready::READABLE)
        });
    });
    old_writer.write_all(b"first").unwrap();
    assert_eq!(next(&told), "first");
    for round in ["one", "two"] {
        old_writer.write_all(b"for the other process").unwrap();
        // A turn of the loop later it would have been heard.
        server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
        server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
        new_writer.write_all(round.as_bytes()).unwrap();
        assert_eq!(next(&told), round);
    }
    drop((old_writer, duplicate));
    new_writer.write_all(b"three").unwrap();
    assert_eq!(next(&told), "three");
    assert!(told.try_recv().is_err());
}

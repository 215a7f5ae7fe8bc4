//! What was accepted arrives, and who takes bytes is alive.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use wirewheel::error::HandlerError;
use wirewheel::options::ListenOptions;
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Limits, Listen, Response, Server, TimerId,
    WebSockets, on_connect, on_message,
};

use crate::support::*;

const MIB: usize = 1 << 20;

/// What a message, page or file holds at a place, so that bytes that are missing show.
fn pattern(bytes: usize) -> Vec<u8> {
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    (0..bytes).map(|at| letters[(at / 7 + at / 1_000) % 26]).collect()
}

/// A file with that in it, gone with the test.
struct PatternFile(PathBuf);

impl PatternFile {
    fn new(name: &str, bytes: usize) -> Self {
        let path = std::env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
        std::fs::write(&path, pattern(bytes)).unwrap();
        Self(path)
    }
}

impl Drop for PatternFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Waits without anything that could come sooner: a reader that takes its time.
fn pause(time: Duration) {
    let (_keep, inbox) = channel::<()>();
    let _ = inbox.recv_timeout(time);
}

fn spawn<T: Send + 'static>(name: &str, act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.into()).spawn(act).unwrap()
}

/// A TCP client whose own buffer is small, so that what it does not read waits with the server's system.
fn small_client(addr: SocketAddr, segment: Option<u32>) -> Client {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    if let Some(segment) = segment {
        socket.set_tcp_mss(segment).unwrap();
    }
    socket.connect(&addr.into()).unwrap();
    client_of(socket.into())
}

fn client_of(stream: TcpStream) -> Client {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client { stream, inbox: Vec::new() }
}

fn unix_client(path: &PathBuf) -> Client {
    client_of(OwnedFd::from(UnixStream::connect(path).unwrap()).into())
}

/// Reads at a steady rate until so many bytes are there, or the end.
#[track_caller]
fn read_slowly(client: &mut Client, bytes: usize, rate: usize) {
    let (begun, mut came) = (Instant::now(), 0);
    let mut buffer = vec![0; (rate / 10).max(1)];
    while client.inbox.len() < bytes {
        let n = match client.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap_or_else(|error| panic!("after {}: {error}", client.inbox.len())),
        };
        if n == 0 {
            return;
        }
        client.inbox.extend_from_slice(&buffer[..n]);
        came += n;
        let due = Duration::from_secs_f64(came as f64 / rate as f64);
        pause(due.saturating_sub(begun.elapsed()));
    }
}

/// Reads frames at a steady rate, answering pings: the next message.
#[track_caller]
fn message_slowly(client: &mut Client, rate: usize) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        read_slowly(client, 2, rate);
        let header = match client.inbox.get(1).map(|second| second & 127) {
            Some(126) => 4,
            Some(127) => 10,
            _ => 2,
        };
        read_slowly(client, header, rate);
        let length = match header {
            2 => usize::from(client.inbox[1] & 127),
            _ => client.inbox[2..header].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        read_slowly(client, header + length, rate);
        let frame = client.frame();
        match frame.first {
            PING => client.send(PONG, &frame.payload),
            first if first & 0x0f < 3 => {
                message.extend(frame.payload);
                if first & 0x80 != 0 {
                    return message;
                }
            }
            _ => panic!("in place of a message: {frame:?}"),
        }
    }
}

/// "message" is answered with that many bytes in one message, "messages" with twenty of 60 KiB in one
/// hook; the same bytes are a page and a file.
fn sending(app: &mut Application, options: WebSockets, bytes: usize, file: PathBuf) {
    app.install(options.max_message_size(bytes.max(64 << 10)));
    app.routing(move |route| {
        route.get("/page", move |_| Response::text(String::from_utf8(pattern(bytes)).unwrap()));
        route.get("/file", move |_| Response::file(&file));
        route.web_socket("/", move |_: &Call| {
            on_message(move |session, message| match message.text() {
                Some("message") => session.send(pattern(bytes)),
                Some("messages") => (0..20).try_for_each(|_| session.send(pattern(60 << 10))),
                Some("close") => {
                    session.send(pattern(bytes))?;
                    session.close(CloseReason::new(CloseCode::NORMAL, "done")?)
                }
                Some("fail") => {
                    session.send(pattern(bytes))?;
                    Err(HandlerError::from("on purpose"))
                }
                _ => session.send(message),
            })
        });
    });
}

/// Asks a keep-alive connection for a page and reads it slowly, then for a short one.
fn page_slowly(mut client: Client, path: &str, bytes: usize, rate: usize) {
    client.write(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    read_slowly(&mut client, bytes, rate);
    let answer = client.answer(false);
    assert!(answer.body.as_bytes() == pattern(bytes), "{path}: {} bytes", answer.body.len());
    assert_eq!(client.request("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n").status, 404);
}

/// Steady readers get every byte of a message, a page and a file at the defaults; the slowest take 52 s.
#[test]
fn steady_readers_get_every_byte_at_the_defaults() {
    let file = PatternFile::new("steady", MIB);
    let path = file.0.clone();
    let unix = std::env::temp_dir().join(format!("wirewheel-steady-{}.sock", std::process::id()));
    let small = ListenOptions::new().send_buffer_bytes(32 << 10);
    let module = move |app: &mut Application| sending(app, WebSockets::new(), MIB, path);
    let server = Server::bind("127.0.0.1:0", module).unwrap();
    let server = server.listen("[::1]:0").unwrap().listen(Listen::Unix(unix.clone())).unwrap();
    let server = server.listen_with("127.0.0.1:0", &small).unwrap();
    let running = Running::of(server);
    let addrs = running.0.local_addrs();
    let (v4, v6, behind_small_buffer) = (addrs[0], addrs[1], addrs[3]);
    let message = |name: &str, mut client: Client, rate: usize| {
        spawn(name, move || {
            client.text("message");
            assert!(message_slowly(&mut client, rate) == pattern(MIB), "other bytes");
            client.text("still here");
            assert_eq!(message_slowly(&mut client, rate), b"still here");
        })
    };
    let readers = [
        message("at 20 kB/s", Client::connect(v4).upgraded("/"), 20_000),
        message("small segments", small_client(v4, Some(536)).upgraded("/"), 20_000),
        message("IPv6 at 40 kB/s", Client::connect(v6).upgraded("/"), 40_000),
        message("Unix", unix_client(&unix).upgraded("/"), 20_000),
        message("small buffer", Client::connect(behind_small_buffer).upgraded("/"), 20_000),
        message("small buffers", small_client(behind_small_buffer, None).upgraded("/"), 40_000),
        spawn("page", move || page_slowly(Client::connect(v4), "/page", MIB, 20_000)),
        spawn("file", move || page_slowly(Client::connect(v4), "/file", MIB, 40_000)),
        spawn("file behind a small buffer", move || {
            page_slowly(small_client(behind_small_buffer, None), "/file", MIB, 20_000);
        }),
        spawn("twenty messages", move || {
            let mut client = Client::connect(v4).upgraded("/");
            client.text("messages");
            for _ in 0..20 {
                assert!(message_slowly(&mut client, 40_000) == pattern(60 << 10), "other bytes");
            }
        }),
    ];
    let failed: Vec<String> = readers
        .into_iter()
        .filter_map(|reader| {
            let name = reader.thread().name().unwrap_or_default().to_owned();
            reader.join().is_err().then_some(name)
        })
        .collect();
    assert!(failed.is_empty(), "cut off: {failed:?}");
}

/// Waits are short, to see in seconds what takes minutes at the defaults.
fn hasty() -> Limits {
    Limits::new()
        .handshake_timeout(millis(600))
        .close_timeout(millis(500))
        .linger_timeout(millis(300))
}

fn hasty_server(name: &str, bytes: usize) -> (Running, PatternFile) {
    server_with(hasty(), name, bytes)
}

fn server_with(limits: Limits, name: &str, bytes: usize) -> (Running, PatternFile) {
    let file = PatternFile::new(name, bytes);
    let path = file.0.clone();
    let module =
        move |app: &mut Application| sending(app, WebSockets::new().limits(limits), bytes, path);
    (Running::start(module), file)
}

#[test]
fn a_page_waits_for_a_client_that_reads_later_and_has_no_keep_alive() {
    let (server, _file) = hasty_server("later", 300_000);
    for path in ["/page", "/file"] {
        for small in [false, true] {
            let mut client = server.while_held(|| {
                let mut client = match small {
                    true => small_client(server.addr(), None),
                    false => server.connect(),
                };
                client.write(format!("GET {path} HTTP/1.0\r\nHost: h\r\n\r\n"));
                client
            });
            pause(Duration::from_secs(1)); // three times as long as it is lingered for
            let answer = client.answer(false);
            assert!(answer.body.as_bytes() == pattern(300_000), "{path}: {answer:?}");
            client.expect_eof();
        }
    }
}

#[test]
fn the_wait_for_the_next_request_begins_when_the_answer_has_arrived() {
    measured(|| {
        let (server, _file) = hasty_server("keep-alive", MIB);
        for path in ["/page", "/file"] {
            page_slowly(small_client(server.addr(), None), path, MIB, 300_000);
        }
    });
}

/// The Close and all before it arrive, whoever ended the session, while the client goes on sending.
#[test]
fn the_end_of_a_session_takes_nothing_from_a_slow_reader_that_keeps_sending() {
    let (server, _file) = hasty_server("ends", MIB);
    for (said, code) in [("close", 1000), ("fail", 1011), ("bad frame", 1002)] {
        measured(|| the_end_takes_nothing(&server, said, code));
    }
}

fn the_end_takes_nothing(server: &Running, said: &str, code: u16) {
    let mut client = small_client(server.addr(), None).upgraded("/");
    match said {
        "bad frame" => {
            client.text("message");
            client.write([0xf1, 0x80, 0, 0, 0, 0]);
        }
        said => client.text(said),
    }
    let mut talks = client.stream.try_clone().unwrap();
    let talker = spawn("talker", move || {
        // Until the server is done with it.
        while talks.write_all(&masked(BINARY, &[7; 50])).is_ok() {
            pause(millis(20));
        }
    });
    assert!(message_slowly(&mut client, 300_000) == pattern(MIB), "{said}");
    client.expect_close(code);
    drop(client.stream.shutdown(Shutdown::Both));
    talker.join().unwrap();
}

#[test]
fn a_stop_lets_whoever_takes_bytes_have_them_until_its_deadline() {
    measured(whoever_takes_bytes_has_them);
}

fn whoever_takes_bytes_has_them() {
    // Shorter than what is left takes, and longer than a busy machine keeps a client from its answer.
    let limits = hasty().close_timeout(millis(2_000)).linger_timeout(millis(2_000));
    let (server, _file) = server_with(limits, "stop", MIB);
    let mut session = small_client(server.addr(), None).upgraded("/");
    session.text("message");
    let [mut page, mut file] = ["/page", "/file"].map(|path| {
        let mut client = small_client(server.addr(), None);
        client.write(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        client
    });
    for client in [&mut session, &mut page, &mut file] {
        read_slowly(client, 1_000, 300_000);
    }
    server.0.shutdown(Duration::from_secs(30));
    let readers = [page, file].map(|mut client| {
        spawn("download", move || {
            read_slowly(&mut client, MIB, 300_000);
            assert!(client.answer(false).body.as_bytes() == pattern(MIB));
            client.expect_eof();
        })
    });
    assert!(message_slowly(&mut session, 300_000) == pattern(MIB));
    session.expect_close(1001);
    session.send(CLOSE, &close_payload(1001, ""));
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let drained = server.0.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (1, 0));
}

#[test]
fn behind_the_deadline_of_a_stop_the_rest_is_cut_and_counted() {
    measured(the_rest_is_cut_and_counted);
}

fn the_rest_is_cut_and_counted() {
    let (server, _file) = hasty_server("cut", 8 * MIB);
    let mut reader = small_client(server.addr(), None).upgraded("/");
    reader.text("message");
    read_slowly(&mut reader, 50_000, 300_000);
    let begun = Instant::now();
    server.0.shutdown(millis(700));
    read_slowly(&mut reader, 250_000, 300_000);
    let drained = server.0.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (0, 1));
    let took = begun.elapsed();
    assert!(took >= millis(650) && took < PATIENCE, "{took:?}");
}

#[test]
fn a_peer_that_shut_its_side_gets_the_answers_to_what_it_sent() {
    measured(who_shut_its_side_gets_answers);
}

fn who_shut_its_side_gets_answers() {
    let (server, _file) = hasty_server("half-close", MIB);
    let mut session = small_client(server.addr(), None).upgraded("/");
    session.text("message");
    session.half_close();
    assert!(message_slowly(&mut session, 500_000) == pattern(MIB));
    session.expect_eof();
    let mut page = small_client(server.addr(), None);
    page.write("GET /page HTTP/1.1\r\nHost: h\r\n\r\nGET /file HTTP/1.1\r\nHost: h\r\n\r\n");
    page.half_close();
    for _ in 0..2 {
        read_slowly(&mut page, MIB, 500_000);
        assert!(page.answer(false).body.as_bytes() == pattern(MIB));
    }
    page.expect_eof();
}

const SHORT: Duration = Duration::from_millis(1_500 * emulator::SLOWER);

/// A server that sends eight megabytes on request and reports how sessions end.
fn impatient(ping: Option<Duration>) -> (Running, Events) {
    let (events, inbox) = channel();
    let server = Running::start(move |app: &mut Application| {
        let options = WebSockets::new().max_message_size(8 * MIB).write_timeout(SHORT);
        app.install(options.ping_period(ping).timeout(SHORT));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let events = events.clone();
                on_message(|session, message| match message.text() {
                    Some("flood") => session.send(pattern(8 * MIB)),
                    _ => session.send(message),
                })
                .on_close(move |_, close| {
                    let _ = events.send(format!("{} {}", close.code(), close.text()));
                })
            });
        });
    });
    (server, Events::from_channel(inbox))
}

/// How long it takes until its session is over, and how it ends.
#[track_caller]
fn ends(events: &Events, begun: Instant, how: &str, within: Duration) {
    events.expect(how);
    let took = begun.elapsed();
    assert!(took >= SHORT - millis(200) && took < within, "{how:?} after {took:?}");
}

#[test]
fn who_takes_nothing_or_next_to_nothing_is_ended_in_time() {
    measured(who_takes_nothing_is_ended);
}

fn who_takes_nothing_is_ended() {
    let (server, events) = impatient(None);
    let within = SHORT + Duration::from_secs(2 * emulator::SLOWER);
    let begun = Instant::now();
    let mut idle = server.upgrade("/");
    idle.text("flood");
    ends(&events, begun, "1013 Write timeout", within);
    let begun = Instant::now();
    let mut dribbling = server.upgrade("/");
    dribbling.text("flood");
    let reader = spawn("dribbling", move || {
        let mut byte = [0];
        while dribbling.stream.read(&mut byte).is_ok_and(|n| n > 0) && begun.elapsed() < 3 * SHORT {
            pause(millis(100));
        }
    });
    ends(&events, begun, "1013 Write timeout", within);
    // Who stops after a while is ended so long after that.
    let mut stops = server.upgrade("/");
    stops.text("flood");
    read_slowly(&mut stops, 600_000, 600_000);
    let begun = Instant::now();
    events.expect("1013 Write timeout");
    assert!(begun.elapsed() < within, "{:?}", begun.elapsed());
    reader.join().unwrap();
}

#[test]
fn a_message_that_does_not_come_on_is_ended_in_time() {
    measured(what_does_not_come_on_is_ended);
}

fn what_does_not_come_on_is_ended() {
    let (server, events) = impatient(None);
    let within = SHORT + Duration::from_secs(2 * emulator::SLOWER);
    let frame = masked(BINARY, &[7; 60_000]);
    let fragment = masked(0x01, b"the first of many");
    let one_more = masked(0x00, b"x");
    for (begins, dribbles) in [
        (&frame[..1], None),
        (&frame[..100], Some(vec![7])),
        (&fragment[..], None),
        (&fragment[..], Some(one_more)),
    ] {
        let begun = Instant::now();
        let mut client = server.upgrade("/");
        client.write(begins);
        let mut stream = client.stream.try_clone().unwrap();
        let writer = spawn("dribbling", move || {
            let Some(piece) = dribbles else { return };
            while begun.elapsed() < 3 * SHORT && stream.write_all(&piece).is_ok() {
                pause(millis(100));
            }
        });
        ends(&events, begun, "1008 Message timeout", within);
        client.stream.shutdown(Shutdown::Both).unwrap();
        writer.join().unwrap();
    }
}

/// No pong fits inside a frame.
#[test]
fn bytes_of_a_long_frame_show_that_the_peer_is_there() {
    measured(bytes_show_that_the_peer_is_there);
}

fn bytes_show_that_the_peer_is_there() {
    let (server, events) = impatient(Some(millis(500)));
    let mut client = server.upgrade("/");
    let frame = masked(BINARY, &[7; 60_000]);
    let begun = Instant::now();
    for piece in frame.chunks(1_200) {
        client.write(piece);
        pause(SHORT / 15);
    }
    assert!(begun.elapsed() > 3 * SHORT);
    assert_eq!(message_slowly(&mut client, MIB), vec![7; 60_000]);
    assert!(events.so_far().is_empty());
}

#[test]
fn a_ping_behind_queued_bytes_is_waited_for_as_long_as_those_are_taken() {
    measured(a_ping_behind_queued_bytes_is_waited_for);
}

fn a_ping_behind_queued_bytes_is_waited_for() {
    let file = PatternFile::new("ping-behind", 10);
    let path = file.0.clone();
    let server = Running::start(move |app| {
        sending(app, WebSockets::new().ping_period(millis(300)).timeout(SHORT), 2 * MIB, path);
    });
    let mut client = small_client(server.addr(), None).upgraded("/");
    client.text("message");
    assert!(message_slowly(&mut client, 300_000) == pattern(2 * MIB)); // takes seven seconds
    client.text("still here");
    assert_eq!(message_slowly(&mut client, 300_000), b"still here");
}

/// Its system acknowledges what comes, until its buffer is full.
#[test]
fn a_process_that_stopped_is_found_though_its_system_takes_a_trickle() {
    measured(a_process_that_stopped_is_found);
}

fn a_process_that_stopped_is_found() {
    let (events, inbox) = channel();
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(SHORT).timeout(SHORT));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let events = events.clone();
                on_connect(|session, _| {
                    session.set_timer(millis(100)).map(drop).map_err(Into::into)
                })
                .on_timer(|session, _: TimerId| {
                    session.set_timer(millis(100))?;
                    session.send("ten bytes.")
                })
                .on_close(move |_, close| {
                    let _ = events.send(format!("{} {}", close.code(), close.text()));
                })
            });
        });
    });
    let begun = Instant::now();
    let mut client = server.upgrade("/");
    let mut pongs = client.stream.try_clone().unwrap();
    let writer = spawn("pongs", move || {
        // Pongs that answer nothing are no sign of life.
        while begun.elapsed() < 4 * SHORT && pongs.write_all(&masked(PONG, b"mine")).is_ok() {
            pause(millis(300));
        }
    });
    let slack = millis(700 * emulator::SLOWER);
    ends(&Events::from_channel(inbox), begun, "1011 Ping timeout", 2 * SHORT + slack);
    client.stream.shutdown(Shutdown::Both).unwrap();
    writer.join().unwrap();
    client.inbox.clear();
}

/// What the test that cuts a link does within its namespaces.
const CUT: &str = "WIREWHEEL_CUT_LINK";

/// Keepalive does not probe while bytes are unacknowledged: a peer that is gone is found all the same. In
/// network namespaces of its own; skipped where making them is not permitted.
#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn keepalive_finds_a_link_that_was_cut_while_bytes_are_on_their_way() {
    if std::env::var_os(CUT).is_some() {
        return cut_link();
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]);
        command
    };
    let mut trial = unshare();
    trial.args(["sh", "-c", "ip link add v0 type veth peer name v1 && command -v nsenter"]);
    let permitted = trial.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !permitted.is_ok_and(|status| status.success()) {
        println!("skipped: no network namespaces with a veth pair here");
        return;
    }
    let name = "delivery::keepalive_finds_a_link_that_was_cut_while_bytes_are_on_their_way";
    let status = unshare()
        .args(emulator::words(std::env::current_exe().unwrap()))
        .args([name, "--exact", "--nocapture"])
        .env(CUT, "1")
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}

/// A process that ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cut_link() {
    // The client's side is a namespace of its own, which lives as long as this shell waits for input.
    let mut there = Command::new("unshare");
    there.args(["--net", "sh", "-c", "echo ready; read line"]);
    let mut there = Other(there.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = [0; 6];
    there.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = there.0.id();
    sh(&format!(
        "ip link set lo up && ip link add v0 type veth peer name v1 netns {pid} &&
         ip addr add 10.9.0.1/24 dev v0 && ip link set v0 up && nsenter -t {pid} -n sh -c \
         'ip addr add 10.9.0.2/24 dev v1 && ip link set v1 up'"
    ));
    let (events, inbox) = channel();
    let options = ListenOptions::new().keepalive(Duration::from_secs(1));
    let server = Server::bind_with("10.9.0.1:0", &options, move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (opened, closed) = (events.clone(), events.clone());
                on_connect(move |session, _| {
                    let _ = opened.send("open".to_owned());
                    Ok(session.set_timer(millis(50)).map(drop)?)
                })
                .on_timer(|session, _: TimerId| {
                    session.set_timer(millis(50))?;
                    session.send("every 50 ms")
                })
                .on_close(move |_, close| {
                    let _ = closed.send(format!("{}", close.code()));
                })
            });
        });
    });
    let server = Running::of(server.unwrap());
    let request = upgrade_request("/", "");
    let port = server.addr().port();
    let client = format!("exec 3<>/dev/tcp/10.9.0.1/{port}; cat >&3; exec cat <&3 >/dev/null");
    let mut client = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "bash", "-c", &client])
        .stdin(Stdio::piped())
        .spawn()
        .map(Other)
        .unwrap();
    client.0.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let events = Events::from_channel(inbox);
    events.expect("open");
    pause(millis(500));
    // Its address is gone: what comes is dropped without an answer.
    sh(&format!("nsenter -t {pid} -n ip addr flush dev v1"));
    events.expect("1006"); // by itself the system tries for a quarter of an hour
}

/// The slowest that the documentation speaks of, at the defaults: what the system's buffers do not take waits
/// in the server, and a window of 64 KiB opens every thirteen seconds.
#[test]
#[ignore = "takes twenty minutes: `.ci/full slow`"]
#[allow(clippy::print_stdout, reason = "who waits so long wants to know")]
fn readers_at_5_kb_a_second_get_megabytes() {
    const BYTES: usize = 6_000_000;
    let file = PatternFile::new("slowest", BYTES);
    let path = file.0.clone();
    let server = Running::start(move |app: &mut Application| {
        let limits = Limits::new().process_bytes(64 << 20);
        sending(app, WebSockets::new().limits(limits), BYTES, path);
        app.routing(|route| {
            route.web_socket("/4", |_: &Call| {
                on_message(|session, _| session.send(pattern(4 * MIB)))
            });
        });
    });
    let addr = server.addr();
    let message = |path: &'static str, bytes: usize| {
        spawn(path, move || {
            let mut client = Client::connect(addr).upgraded(path);
            client.text("message");
            assert!(message_slowly(&mut client, 5_000) == pattern(bytes), "other bytes");
            println!("{bytes} bytes in a message arrived");
        })
    };
    let page = |path: &'static str| {
        spawn(path, move || {
            page_slowly(Client::connect(addr), path, BYTES, 5_000);
            println!("{path} arrived");
        })
    };
    let readers = [message("/4", 4 * MIB), message("/", BYTES), page("/page"), page("/file")];
    let failed = readers.into_iter().filter_map(|reader| reader.join().err()).count();
    assert_eq!(failed, 0);
}

//! How to test an application: in memory under virtual time with `wirewheel::testing`, and as a real
//! server with `Server::spawn`. Both run the same module. This file is meant to be copied: it needs this
//! crate with the feature `testing` and no other; `.ci/package` copies it into a crate of its own, and runs
//! it there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use wirewheel::error::HandleError;
use wirewheel::testing::{Ending, Received, TestApplication};
use wirewheel::watch::Ready;
use wirewheel::{
    Accept, Application, Call, CloseCode, CloseReason, Handle, Handler, HandlerResult, Limits,
    Message, Response, Server, Session, WebSockets, on_message,
};

/// The application under test: a counter that says how often it was asked, and some doors.
fn module(app: &mut Application) {
    let limits = Limits::new().max_connections(20).linger_timeout(Duration::from_secs(1));
    let write_timeout = Duration::from_secs(10);
    app.install(WebSockets::new().max_frame_size(1000).write_timeout(write_timeout).limits(limits));
    app.routing(|route| {
        route.get("/healthz", |_| "ok");
        route.web_socket("/count", |_: &Call| Counter { asked: 0 });
        route
            .web_socket("/members", |_: &Call| Counter { asked: 0 })
            .protocol("count.v1")
            .on_upgrade(|call| match call.cookie("token") {
                Some("secret") => Ok(Accept::new()),
                _ => Err(Response::text("log in first").status(401)),
            });
    });
}

struct Counter {
    asked: u32,
}

impl Handler for Counter {
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        match message.text() {
            Some("bye") => session.close(CloseReason::new(CloseCode::NORMAL, "bye")?),
            Some("big") => session.send(vec![0; 1000]),
            Some(_) => {
                self.asked += 1;
                session.send(self.asked.to_string())
            }
            None => Err(std::fmt::Error.into()),
        }
    }
}

// In memory: nothing waits, so an hour takes a moment, and each run is the same.

#[test]
fn answers_and_sessions() {
    let app = TestApplication::new(module).unwrap();
    assert_eq!(app.get("/healthz").text(), "ok");
    assert_eq!(app.get("/nowhere").status, 404);
    let mut client = app.web_socket("/count");
    client.send("?");
    client.expect_text("1");
    client.send("bye");
    assert_eq!(client.expect_close(CloseCode::NORMAL), "bye");
    client.expect_end(Ending::Closed);
    assert_eq!(app.stats().sessions_open, 0);
}

#[test]
fn upgrades_with_headers_and_subprotocols() {
    let app = TestApplication::new(module).unwrap();
    let upgrade = app.upgrade("/members").protocol("count.v2").protocol("count.v1");
    let (mut client, answer) = upgrade.header("Cookie", "token=secret").connect().unwrap();
    assert_eq!(answer.header("sec-websocket-protocol"), Some("count.v1"));
    client.send("?");
    client.expect_text("1");
    let refusal = app.upgrade("/members").protocol("count.v1").connect().unwrap_err();
    assert_eq!((refusal.status, refusal.text()), (401, "log in first"));
    assert_eq!(app.upgrade("/members").connect().unwrap_err().status, 400);
}

#[test]
fn a_mistake_in_the_setup_is_an_error() {
    let mistake = TestApplication::new(|app| {
        app.routing(|route| {
            route.web_socket("/", |_: &Call| Counter { asked: 0 });
        });
    });
    assert!(mistake.unwrap_err().to_string().starts_with("WebSockets is not installed"));
}

#[test]
fn a_client_that_answers_pings_stays_for_a_day() {
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    app.advance(Duration::from_secs(86_400));
    client.expect_nothing();
    client.send("still there?");
    client.expect_text("1");
    assert!(app.stats().pings_out > 5_000);
}

#[test]
fn a_client_that_falls_silent_is_let_go() {
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    client.answer_pings(false);
    client.answer_close(false);
    app.advance(Duration::from_secs(16));
    assert!(matches!(client.receive(), Some(Received::Ping(_))));
    app.advance(Duration::from_secs(15));
    assert_eq!(client.expect_close(CloseCode::INTERNAL_ERROR), "Ping timeout");
    app.advance(Duration::from_secs(5)); // to take that Close, should it be there after all
    client.expect_end(Ending::Closed);
}

#[test]
fn dribbling_reads_and_short_writes_change_nothing() {
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    client.limit_reads(1);
    client.limit_writes(1);
    client.send_frame(0x01, "κό".as_bytes()); // a message in two frames, with a ping between them
    client.ping(b"now");
    client.send_frame(0x80, "σμε".as_bytes());
    assert_eq!(client.receive(), Some(Received::Pong(b"now".into())));
    client.expect_text("1");
}

#[test]
fn a_slow_reader_gets_everything_or_is_let_go() {
    let app = TestApplication::new(module).unwrap();
    let mut slow = app.web_socket("/count");
    slow.read_only(100);
    slow.send("big");
    assert_eq!(slow.receive(), None);
    assert!(app.stats().bytes_held > 900);
    app.advance(Duration::from_secs(9));
    slow.read_on();
    slow.expect_binary(&[0; 1000]);

    slow.block_writes_for(Duration::from_secs(5));
    slow.send("?");
    slow.expect_nothing();
    app.advance(Duration::from_secs(5));
    slow.expect_text("1");

    slow.read_only(0);
    slow.send("big");
    app.advance(Duration::from_secs(11));
    assert_eq!((app.stats().timeouts_write, app.stats().sessions_open), (1, 0));
}

#[test]
fn connections_that_break_end_their_sessions() {
    let app = TestApplication::new(module).unwrap();
    let mut inward = app.web_socket("/count");
    inward.break_after_sending(7);
    inward.send("?"); // seven bytes: the last that arrive
    inward.expect_text("1");
    inward.send("lost");
    let mut outward = app.web_socket("/count");
    outward.break_after_receiving(2);
    outward.send("?");
    assert_eq!(outward.receive_frame(), None);
    let mut reset = app.web_socket("/count");
    reset.reset();
    let mut shut = app.web_socket("/count");
    shut.half_close();
    drop(app.web_socket("/count"));
    assert_eq!((app.stats().sessions_open, app.stats().closed_abnormal), (0, 5));
}

#[test]
fn over_the_limit_connections_wait_until_there_is_room() {
    let app = TestApplication::new(module).unwrap();
    let sessions: Vec<_> = (0..20).map(|_| app.web_socket("/count")).collect();
    let surplus: Vec<_> = (0..16).map(|_| app.connect()).collect(); // let in to be told 503
    let mut waiting = app.connect();
    waiting.send_bytes(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(app.stats().connections_total, 36);
    drop(surplus);
    assert_eq!(waiting.expect_answer().status, 503);
    drop(sessions);
    assert_eq!(app.get("/healthz").status, 200);
}

#[test]
fn protocol_errors_get_their_codes() {
    let app = TestApplication::new(module).unwrap();
    for (first, payload, code) in [
        (0x83, &b""[..], CloseCode::PROTOCOL_ERROR),
        (0x81, b"\xff", CloseCode::NOT_CONSISTENT),
        (0x82, &[0; 1001], CloseCode::TOO_BIG),
        (0x82, b"no text", CloseCode::INTERNAL_ERROR),
    ] {
        let mut client = app.web_socket("/count");
        client.send_frame(first, payload);
        client.expect_close(code);
        client.expect_end(Ending::Closed);
    }
}

#[test]
fn a_stop_says_1001_and_waits_for_the_answers() {
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    client.answer_close(false);
    app.shutdown(Duration::from_secs(5));
    client.expect_close(CloseCode::GOING_AWAY);
    assert!(!app.is_stopped());
    client.close(CloseReason::new(CloseCode::GOING_AWAY, "").unwrap());
    client.half_close();
    assert!(app.is_stopped());
}

/// As one of a real server, whose thread would else go on for ever.
#[test]
fn a_handle_is_told_that_its_server_has_stopped() {
    let mut handle = None;
    let app = TestApplication::new(|app: &mut Application| {
        handle = Some(app.handle());
        module(app);
    })
    .unwrap();
    let handle = handle.unwrap();
    assert_eq!(handle.defer(|_| ()), Ok(()));
    app.shutdown(Duration::from_secs(1));
    assert_eq!(handle.defer(|_| panic!("it has stopped")), Err(HandleError::Stopped));
    app.advance(Duration::from_secs(10));
}

/// What watches a descriptor runs here too; that is never ready.
#[test]
fn descriptors_are_never_ready() {
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let app = TestApplication::new(|app: &mut Application| {
        app.watch(ours, Ready::READABLE, |_, _, _| panic!("it is ready"));
        module(app);
    })
    .unwrap();
    app.advance(Duration::from_secs(1));
    theirs.write_all(b"hello").unwrap(); // it is open
    app.advance(Duration::from_secs(1));
    assert_eq!(app.get("/healthz").text(), "ok");
}

#[test]
fn a_late_clock_is_no_catastrophe() {
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    app.jump(Duration::from_secs(3600)); // suspended for an hour: a ping is due, and one only
    client.expect_nothing();
    assert_eq!((app.stats().pings_out, app.stats().pongs_in), (1, 1));
    assert_eq!(app.elapsed(), Duration::from_secs(3600));
}

#[test]
fn what_a_handler_asserts_fails_the_test() {
    let asserting = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|_, message| {
                    assert_eq!(message.text(), Some("expected"));
                    Ok(())
                })
            });
        });
    };
    let failure = std::panic::catch_unwind(|| {
        let app = TestApplication::new(asserting).unwrap();
        app.web_socket("/").send("unexpected");
    });
    let message = *failure.unwrap_err().downcast::<String>().unwrap();
    assert!(message.starts_with("the application panicked: assertion"), "{message}");

    let app = TestApplication::new(asserting).unwrap();
    app.tolerate_panics();
    let mut client = app.web_socket("/");
    client.send("unexpected");
    client.expect_close(CloseCode::INTERNAL_ERROR);
}

// Over real sockets: the same module on a free port, stopped at the end. For what lies outside of
// the server's core: proxies, other people's clients, real time.

/// A WebSocket over a real socket. Any client's does; this one takes no other crate.
fn connect(server: &Handle) -> TcpStream {
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    stream
        .write_all(
            b"GET /count HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream
}

#[test]
fn the_same_over_real_sockets() {
    let server = Server::bind("127.0.0.1:0", module).unwrap().spawn().unwrap();
    let mut client = connect(&server);
    for answer in [b"\x81\x011", b"\x81\x012", b"\x81\x013"] {
        client.write_all(b"\x81\x81\0\0\0\0?").unwrap(); // text, masked with zeros
        let mut came = [0; 3];
        client.read_exact(&mut came).unwrap();
        assert_eq!(&came, answer);
    }
    server.shutdown(Duration::from_secs(5));
    let mut close = [0; 4];
    client.read_exact(&mut close).unwrap();
    assert_eq!((close[0], &close[2..]), (0x88, &1001_u16.to_be_bytes()[..]));
    client.write_all(b"\x88\x82\0\0\0\0\x03\xe9").unwrap();
    assert_eq!(server.join().unwrap().clean, 1);
}

/// The two agree, also where a client misbehaves.
#[test]
fn memory_and_sockets_agree() {
    let bytes: [&[u8]; 4] =
        [b"\x81\x81\0\0\0\0?", b"\x01\x80\0\0\0\0\x89\x80\0\0\0\0", b"\x80\x81\0\0\0\0?", b"\x83"];
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    let server = Server::bind("127.0.0.1:0", module).unwrap().spawn().unwrap();
    let mut real = connect(&server);
    for piece in bytes {
        client.send_bytes(piece);
        real.write_all(piece).unwrap();
    }
    let mut over_a_socket = Vec::new();
    real.read_to_end(&mut over_a_socket).unwrap();
    let mut in_memory = Vec::new();
    while let Some(frame) = client.receive_frame() {
        in_memory.extend([frame.first, u8::try_from(frame.payload.len()).unwrap()]);
        in_memory.extend(frame.payload);
    }
    assert_eq!(over_a_socket.escape_ascii().to_string(), in_memory.escape_ascii().to_string());
    server.shutdown(Duration::from_secs(1));
    server.join().unwrap();
    client.expect_end(Ending::Closed);
}

/// What a failed expectation says.
fn failure(of: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(of)).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// Half a frame is something, and so is a message that has only begun.
#[test]
fn half_of_a_message_is_not_nothing() {
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| {
                    session.send_fragment("begun", message.text() == Some("whole"))
                })
            });
        });
    })
    .unwrap();
    let mut cut = app.web_socket("/");
    cut.read_only(3);
    cut.send("whole");
    assert_eq!(cut.receive(), None);
    let said = failure(|| cut.expect_nothing());
    assert!(said.contains("an incomplete rest: b\"\\x81\\x05b\""), "{said}");
    app.advance(Duration::from_secs(60)); // it is cut off, as it reads nothing
    let ending = cut.ending().unwrap();
    let said = failure(|| cut.expect_end(ending));
    assert!(said.starts_with("expected nothing\n"), "{said}");

    let mut begun = app.web_socket("/");
    begun.send("a part");
    assert_eq!(begun.receive(), None);
    let said = failure(|| begun.expect_nothing());
    assert!(said.contains("its last fragment is missing"), "{said}");
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    let app = TestApplication::new(|app: &mut Application| {
        app.routing(|route| {
            route.get("/log", |_| {
                let mut lines = ["first\n", "second\n"].iter();
                Response::stream(move |piece| {
                    lines.next().map_or(Ok(()), |line| piece.write_all(line.as_bytes()))
                })
            });
        });
    })
    .unwrap();
    let mut client = app.connect();
    client.send_bytes(b"GET /log HTTP/1.0\r\n\r\n");
    let answer = client.expect_answer();
    assert_eq!((answer.header("content-length"), answer.text()), (None, "first\nsecond\n"));
}

/// A failure says what was expected, what came, and how the connection stands.
#[test]
fn failures_say_what_was_expected_what_came_and_how_the_connection_stands() {
    let app = TestApplication::new(module).unwrap();
    let mut client = app.web_socket("/count");
    app.advance(Duration::from_secs(2));
    assert_eq!(
        failure(|| client.expect_text("1")),
        "expected Text(\"1\"), received nothing\n\
         client 0 (127.0.0.1:10000), 2.00704s after the start: the connection is open"
    );
    client.send("?");
    client.send("?");
    let said = failure(|| drop(client.expect_close(CloseCode::NORMAL)));
    assert!(said.starts_with("expected a Close with 1000, received Text(\"1\")\n"), "{said}");
    let unread = "is open; not asked for yet: [RawFrame { first: 0x81, payload: \"2\" }]";
    assert!(said.ends_with(unread), "{said}");
    let said = failure(|| client.expect_end(Ending::Closed));
    assert!(said.starts_with("expected nothing\n") && said.ends_with(unread), "{said}");
    client.expect_text("2");
    client.read_only(1);
    client.block_writes_for(Duration::from_secs(3));
    client.send("?");
    let said = failure(|| client.expect_binary(&[7]));
    let reads =
        "is open; the client reads only 1 more bytes; the server's writes are blocked for 3s";
    assert!(said.starts_with("expected Binary([7]), received nothing") && said.ends_with(reads));
    client.reset();
    let said = failure(|| client.expect_end(Ending::Reset));
    assert!(said.starts_with("expected Reset\n"), "{said}");
    let answer = app.get("/nowhere");
    let shown = format!("{answer:?}");
    assert!(shown.starts_with("HTTP/1.1 404 Not Found\n"), "{shown}");
    assert!(shown.ends_with("\nbody: \"404 Not Found\\n\""), "{shown}");
    let said = failure(|| drop(app.web_socket("/members")));
    assert!(said.starts_with("the upgrade of /members was refused: HTTP/1.1 400 "), "{said}");
    let said = failure(|| drop(app.connect().expect_answer()));
    assert!(said.starts_with("expected an answer, received nothing\n"), "{said}");
    assert!(said.ends_with("is open; it was not upgraded"), "{said}");
}

//! How a server stops: with many clients, with silent ones, with queues, and what it says then.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::*;
use wirewheel::flow::SharedFlow;
use wirewheel::options::ListenOptions;
use wirewheel::testing::{Ending, Received, TestApplication};
use wirewheel::{
    Application, Call, CloseCode, Drained, Limits, Server, WebSockets, on_connect, on_message,
};

/// A time that nothing here waits out, whatever a busy machine takes for the rest.
const LONG: Duration = Duration::from_secs(120 * emulator::SLOWER);

/// Waits so long for who answers no Close, and for heads.
fn patient() -> WebSockets {
    WebSockets::new().limits(Limits::new().close_timeout(LONG).handshake_timeout(LONG))
}

fn answer_close(client: &mut Client) {
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
}

fn serve(options: fn() -> WebSockets) -> Running {
    let small = ListenOptions::new().send_buffer_bytes(16 << 10);
    let server = Server::bind_with("127.0.0.1:0", &small, move |app| {
        app.install(options());
        app.routing(|route| {
            // Sends as many KiB as it is told, in messages of 16.
            route.web_socket("/", |_: &Call| {
                on_message(|session, message| {
                    let kib: usize = message.text().unwrap_or_default().parse()?;
                    for number in 0..kib / 16 {
                        session.send(vec![u8::try_from(number % 251)?; 16 << 10])?;
                    }
                    session.send("all")
                })
            });
        });
    });
    Running::of(server.unwrap())
}

#[test]
fn join_says_how_the_sessions_ended() {
    let server = serve(patient);
    let mut clients: Vec<Client> = (0..5).map(|_| server.upgrade("/")).collect();
    server.0.shutdown(LONG);
    for client in &mut clients[..3] {
        answer_close(client);
        client.expect_eof();
    }
    for client in &mut clients[3..] {
        client.expect_close(1001);
    }
    clients.truncate(4); // the other one that is cut goes without an answer
    server.0.shutdown(millis(50)); // those who answer have done so
    let drained = server.0.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (3, 2));
    assert_eq!(server.0.join().unwrap(), Drained::default(), "it is said once");
}

#[test]
fn the_last_words_of_an_application_come_before_the_close() {
    let server = Server::bind("127.0.0.1:0", |app| {
        app.on_shutdown(|server| {
            let all: Vec<_> = server.sessions().collect();
            all.into_iter().for_each(|id| server.send_to(id, "server restarts").unwrap());
        });
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|_, _| Err("nobody talks here".into())));
        });
    });
    let server = Running::of(server.unwrap());
    let (mut first, mut second) = (server.upgrade("/"), server.upgrade("/"));
    first.text("hello");
    first.expect_close(1011); // a text is an error, and is not told to the peer
    server.0.shutdown_for_restart(PATIENCE);
    second.expect_text("server restarts");
    second.expect_close(1012);
}

#[test]
fn what_is_queued_for_a_slow_reader_arrives_before_the_end() {
    const KIB: usize = 1_024;
    let server = serve(|| patient().outbox_bytes(2 << 20));
    let mut client = server.upgrade("/");
    SockRef::from(&client.stream).set_recv_buffer_size(16 << 10).unwrap();
    client.text(&KIB.to_string());
    let queued = loop {
        let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
        if stats.messages_in == 1 {
            break stats.bytes_held;
        }
    };
    assert!(queued > 500 << 10, "{queued} bytes are queued");
    server.0.shutdown(LONG);
    // The stop has begun: a request is refused. Only then the client begins to read, a little at a time.
    let answer = server.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answer.status, 503);
    let mut got = Vec::new();
    let mut piece = [0; 1_000];
    while !got.ends_with(&[0x88, 2, 0x03, 0xe9]) {
        let n = client.stream.read(&mut piece).unwrap();
        assert!(n > 0, "it ended after {} bytes", got.len());
        got.extend_from_slice(&piece[..n]);
    }
    client.inbox = got;
    for number in 0..KIB / 16 {
        let frame = client.frame();
        assert_eq!(frame.payload, vec![u8::try_from(number % 251).unwrap(); 16 << 10]);
    }
    client.expect_text("all");
    answer_close(&mut client);
    client.expect_eof();
    drop(client);
    let drained = server.0.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (1, 0));
}

#[test]
fn the_shorter_grace_counts_whichever_comes_first() {
    for graces in [[LONG, millis(50)], [millis(50), LONG]] {
        let server = serve(patient);
        let mut silent = server.upgrade("/");
        let asked = Instant::now();
        graces.iter().for_each(|grace| server.0.shutdown(*grace));
        silent.expect_close(1001);
        let drained = server.0.join().unwrap();
        assert_eq!((drained.clean, drained.cut), (0, 1));
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    }
}

/// Browsers keep connections in store. They held a stop up until the end of its grace.
#[test]
fn who_never_sent_anything_is_not_waited_for_but_who_has_begun_is() {
    let server = serve(patient);
    let _silent = server.connect();
    let mut begun = server.connect();
    begun.write("GET / HTTP/1.1\r\n");
    while server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap().bytes_in == 0 {}
    let asked = Instant::now();
    server.0.shutdown(LONG);
    assert_eq!(begun.request("Host: h\r\n\r\n").status, 503);
    begun.expect_eof();
    drop(begun);
    server.0.join().unwrap();
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
}

/// Sessions at `/news` collect what is said at the end, those at `/` are sent it.
fn with_last_words(fails: bool) -> (TestApplication, Rc<RefCell<Vec<&'static str>>>) {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let (first, second) = (Rc::clone(&calls), Rc::clone(&calls));
    let app = TestApplication::new(move |app: &mut Application| {
        let news: SharedFlow = SharedFlow::new();
        let last = news.clone();
        app.on_shutdown(move |server| {
            first.borrow_mut().push("first");
            let all: Vec<_> = server.sessions().collect();
            for id in all {
                server.send_to(id, "to you").unwrap();
            }
            assert!(!fails, "it fails");
        });
        app.on_shutdown(move |server| {
            second.borrow_mut().push("second");
            last.emit("to all").unwrap();
            server.shutdown(millis(1_000)); // it stops already
        });
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/news", move |_: &Call| {
                let news = news.clone();
                on_connect(move |session, _| session.collect(&news))
            });
            route.web_socket("/", |_: &Call| {
                on_connect(|_, _| Ok(())).on_message(|session, _| {
                    session.server().shutdown(PATIENCE);
                    Ok(())
                })
            });
        });
    });
    (app.unwrap(), calls)
}

#[test]
fn what_an_application_says_at_the_end_comes_before_the_close() {
    let (app, calls) = with_last_words(false);
    let (mut plain, mut news, mut slow) =
        (app.web_socket("/"), app.web_socket("/news"), app.web_socket("/news"));
    slow.read_only(0);
    app.shutdown(PATIENCE);
    plain.expect_text("to you");
    plain.expect_close(CloseCode::GOING_AWAY);
    for client in [&mut news, &mut slow] {
        client.read_on();
        client.expect_text("to you");
        client.expect_text("to all");
        client.expect_close(CloseCode::GOING_AWAY);
        client.expect_end(Ending::Closed);
    }
    app.shutdown(PATIENCE);
    assert!(app.is_stopped());
    assert_eq!(calls.borrow().as_slice(), ["first", "second"], "once");
}

#[test]
fn the_application_is_asked_when_a_hook_stops_the_server_and_a_panic_in_it_stops_nothing_else() {
    let (app, calls) = with_last_words(true);
    app.tolerate_panics();
    let (mut stopping, mut news) = (app.web_socket("/"), app.web_socket("/news"));
    stopping.send("stop");
    assert_eq!(stopping.receive(), Some(Received::Text("to you".into())));
    stopping.expect_close(CloseCode::GOING_AWAY);
    news.expect_text("to you");
    news.expect_text("to all");
    news.expect_close(CloseCode::GOING_AWAY);
    assert!(app.is_stopped());
    assert_eq!(calls.borrow().as_slice(), ["first", "second"]);
}

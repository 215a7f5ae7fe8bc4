//! How a server stops: with many clients, with silent ones, with queues, and what it says then.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::io::Read;
use std::time::Instant;

use socket2::SockRef;
use support::*;
use wirewheel::{Call, Drained, ListenOptions, Server, WebSockets, on_message};

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
                        session.send(&vec![u8::try_from(number % 251)?; 16 << 10])?;
                    }
                    session.send("all")
                })
            });
        });
    });
    Running(server.unwrap().spawn().unwrap())
}

#[test]
fn join_says_how_the_sessions_ended() {
    let server = serve(WebSockets::new);
    let mut clients: Vec<Client> = (0..5).map(|_| server.upgrade("/")).collect();
    server.0.shutdown(millis(500));
    for client in &mut clients[..3] {
        answer_close(client);
        client.expect_eof();
    }
    for client in &mut clients[3..] {
        client.expect_close(1001);
    }
    clients.truncate(4); // the third that is cut goes without an answer
    let drained = server.0.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (3, 2));
    assert_eq!(server.0.join().unwrap(), Drained::default(), "it is said once");
}

#[test]
fn what_is_queued_for_a_slow_reader_arrives_before_the_end() {
    const KIB: usize = 1_024;
    let server = serve(|| WebSockets::new().outbox_bytes(2 << 20));
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
    server.0.shutdown(PATIENCE);
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
    for graces in [[PATIENCE, millis(50)], [millis(50), PATIENCE]] {
        let server = serve(WebSockets::new);
        let mut silent = server.upgrade("/");
        let asked = Instant::now();
        graces.iter().for_each(|grace| server.0.shutdown(*grace));
        silent.expect_close(1001);
        let drained = server.0.join().unwrap();
        assert_eq!((drained.clean, drained.cut), (0, 1));
        assert!(asked.elapsed() < PATIENCE / 4, "{:?}", asked.elapsed());
    }
}

/// Browsers keep connections in store. They held a stop up until the end of its grace.
#[test]
fn who_never_sent_anything_is_not_waited_for_but_who_has_begun_is() {
    let server = serve(WebSockets::new);
    let _silent = server.connect();
    let mut begun = server.connect();
    begun.write("GET / HTTP/1.1\r\n");
    while server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap().bytes_in == 0 {}
    let asked = Instant::now();
    server.0.shutdown(PATIENCE);
    assert_eq!(begun.request("Host: h\r\n\r\n").status, 503);
    begun.expect_eof();
    drop(begun);
    server.0.join().unwrap();
    assert!(asked.elapsed() < PATIENCE / 4, "{:?}", asked.elapsed());
}

//! tungstenite's own client in memory, over the stream of the test kit.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use tungstenite::protocol::frame::coding::CloseCode as ClientCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message as ClientMessage, WebSocket};
use wirewheel::testing::{Stream, TestApplication};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Limits, Response, WebSockets, on_connect, on_message,
};

type Client = WebSocket<Stream>;

fn application() -> TestApplication {
    TestApplication::new(|app: &mut Application| {
        let limits = Limits::new().linger_timeout(Duration::from_secs(1));
        app.install(WebSockets::new().max_frame_size(4 << 20).limits(limits));
        app.routing(|route| {
            route.get("/page", |_call| Response::text("x".repeat(1 << 20)));
            route.web_socket("/echo", |_call: &Call| on_message(|session, m| session.send(m)));
            route.web_socket("/paused", |_call: &Call| {
                on_connect(|session, _call| {
                    session.pause();
                    Ok(())
                })
            });
            route.web_socket("/bye", |_call: &Call| {
                on_message(|session, _| session.close(CloseReason::new(CloseCode::NORMAL, "done")?))
            });
        });
    })
    .unwrap()
}

fn client(app: &TestApplication, path: &str) -> Client {
    let url = format!("ws://test{path}");
    tungstenite::client(&url, app.connect().into_stream()).unwrap().0
}

/// Whether a call only wants to be made again.
fn would_block<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn messages_are_echoed_and_silence_would_block() {
    let app = application();
    let mut client = client(&app, "/echo");
    assert!(would_block(client.read()));
    client.send("hello".into()).unwrap();
    client.send(vec![1, 2, 3].into()).unwrap();
    assert_eq!(client.read().unwrap(), ClientMessage::text("hello"));
    assert_eq!(client.read().unwrap(), ClientMessage::binary(vec![1, 2, 3]));
    assert!(would_block(client.read()));
}

#[test]
fn a_refused_upgrade_is_the_clients_error() {
    let app = application();
    let refused = tungstenite::client("ws://test/nowhere", app.connect().into_stream());
    let error = refused.err().map(|error| error.to_string()).unwrap();
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_large_message_comes_back_whole() {
    let app = application();
    let stream = app.connect().into_stream();
    let config = WebSocketConfig::default().write_buffer_size(0);
    let (mut client, _) =
        tungstenite::client::client_with_config("ws://test/echo", stream, Some(config)).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    // More than the stream takes at once.
    let sent = client.send(large.clone().into());
    assert!(sent.is_ok() || would_block(sent));
    while would_block(client.flush()) {}
    assert_eq!(client.read().unwrap().into_data(), large);
}

#[test]
fn either_side_closes_and_both_know_how() {
    let app = application();
    let mut first = client(&app, "/echo");
    let frame = CloseFrame { code: ClientCode::Away, reason: "gone".into() };
    first.close(Some(frame.clone())).unwrap();
    assert_eq!(first.read().unwrap(), ClientMessage::Close(Some(frame)));
    assert!(matches!(first.read(), Err(Error::ConnectionClosed)));
    let mut second = client(&app, "/bye");
    second.send("?".into()).unwrap();
    let frame = CloseFrame { code: ClientCode::Normal, reason: "done".into() };
    assert_eq!(second.read().unwrap(), ClientMessage::Close(Some(frame)));
    assert!(matches!(second.read(), Err(Error::ConnectionClosed)));
    assert_eq!((app.stats().sessions_open, app.stats().closed_normal), (0, 1));
}

#[test]
fn pings_go_both_ways_and_an_hour_takes_no_time() {
    let app = application();
    let mut client = client(&app, "/echo");
    client.send(ClientMessage::Ping(b"there?".to_vec().into())).unwrap();
    assert_eq!(client.read().unwrap(), ClientMessage::Pong(b"there?".to_vec().into()));
    let mut pings = 0;
    for _ in 0..360 {
        app.advance(Duration::from_secs(10));
        // It answers before it finds nothing more.
        while !would_block(client.read().inspect(|message| pings += usize::from(message.is_ping())))
        {
        }
    }
    assert!(pings > 120, "{pings} in an hour");
    assert_eq!(app.stats().sessions_open, 1);
    // Who does not read does not answer.
    app.advance(Duration::from_secs(40));
    assert_eq!((app.stats().sessions_open, app.stats().closed_internal), (0, 1));
}

#[test]
fn a_server_that_does_not_read_holds_the_writer_up() {
    let app = application();
    let mut client = client(&app, "/paused");
    let stream = client.get_mut();
    let piece = [0; 64 << 10];
    let refused = (0..100).find_map(|_| stream.write(&piece).err());
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    assert_eq!(stream.write(&[]).unwrap(), 0);
}

#[test]
fn a_connection_that_is_over_says_so() {
    let app = application();
    let mut stream = app.connect().into_stream();
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = Vec::new();
    assert!(stream.read_to_end(&mut page).unwrap() > 1 << 20);
    app.advance(Duration::from_secs(2));
    assert_eq!(stream.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut client = app.connect();
    client.break_after_sending(10);
    let mut cut = client.into_stream();
    let _ = cut.write(b"GET / HTTP/1.1\r\n");
    assert_eq!(cut.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(cut.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
}

//! Event streams over real sockets: by a client of bytes, by curl, through nginx, over a restart.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use support::*;
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, SharedFlow};
use wirewheel::{Application, Call, WebSockets, on_connect};

/// A server with one flow, for `/events` and `/socket`, and the key of the flow.
fn server(replay: usize) -> (Running, FlowKey<str>) {
    let (keys, key) = channel();
    let server = Running::start(move |app: &mut Application| {
        let options =
            FlowOptions::new().replay(replay).on_buffer_overflow(BufferOverflow::DropOldest);
        let flow: SharedFlow = app.flow(options);
        keys.send(app.flow_key(&flow)).unwrap();
        // Clients answer no pings, however long a busy machine takes with them.
        let options =
            WebSockets::new().ping_period(Duration::from_millis(100)).timeout(4 * PATIENCE);
        app.install(options);
        app.routing(move |route| {
            let on_socket = flow.clone();
            route.web_socket("/socket", move |_: &Call| {
                let flow = on_socket.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
            route.event_stream("/events", move |_: &Call| {
                let flow = flow.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
        });
    });
    (server, key.recv_timeout(PATIENCE).unwrap())
}

fn listen(server: &Running, last: &str) -> Client {
    let mut client = server.connect();
    let last = if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
    client.write(format!("GET /events HTTP/1.1\r\nHost: h\r\n{last}\r\n"));
    let head = client.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), "{head}");
    client
}

/// What comes next behind pings.
fn next_message(socket: &mut Client) -> Vec<u8> {
    let frames = std::iter::repeat_with(|| socket.frame());
    frames.into_iter().find(|frame| frame.first != PING).unwrap().payload
}

/// The id of the last event of what came.
fn last_id(events: &str) -> &str {
    events.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().expect("an id")
}

#[test]
fn a_flow_serves_both_forms_and_goes_on_behind_the_last_event() {
    let (server, key) = server(10);
    let mut socket = server.upgrade("/socket");
    let mut client = listen(&server, "");
    server.0.emit(key, "first\nline").unwrap();
    assert_eq!(next_message(&mut socket), b"first\nline");
    let came = client.read_until("data: first\ndata: line\n\n");
    let id = last_id(&came).to_owned();
    drop(client);
    server.0.emit(key, "second").unwrap();
    server.0.emit(key, "third").unwrap();
    let mut client = listen(&server, &id);
    let came = client.read_until("data: third\n\n");
    assert!(came.contains("data: second\n\n") && !came.contains("first"), "{came}");
    client.read_until(":\n\n:\n\n"); // heartbeats
    server.0.shutdown(PATIENCE);
    while client.fill() {}
    assert_eq!(server.0.join().unwrap().clean, 1, "the stream; the WebSocket client says nothing");
}

/// The epoch of a flow is drawn anew with each process, so that numbers of an earlier one mean nothing.
#[test]
fn over_a_restart_the_replay_comes_without_a_gap() {
    let (first, key) = server(10);
    let mut client = listen(&first, "");
    (0..5).for_each(|number| first.0.emit(key, &number.to_string()).unwrap());
    let id = last_id(&client.read_until("data: 4\n\n")).to_owned();
    drop(first);
    let (second, key) = server(10);
    (0..7).for_each(|number| second.0.emit(key, &format!("new {number}")).unwrap());
    let mut client = listen(&second, &id);
    let came = client.read_until("data: new 6\n\n");
    let data: Vec<&str> = came.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let expected = ["null", "new 0", "new 1", "new 2", "new 3", "new 4", "new 5", "new 6"];
    assert_eq!(data, expected);
    assert!(came.contains("event: missed\ndata: null\n\n"), "{came}");
}

#[test]
fn hundreds_listen_beside_each_other() {
    let (server, key) = server(4);
    let mut clients: Vec<Client> = (0..300).map(|_| listen(&server, "")).collect();
    let mut sockets: Vec<Client> = (0..300).map(|_| server.upgrade("/socket")).collect();
    for number in 0..3 {
        server.0.emit(key, &format!("number {number}")).unwrap();
    }
    for client in &mut clients {
        let came = client.read_until("data: number 2\n\n");
        assert!(
            came.contains("data: number 0\n\n") && came.contains("data: number 1\n\n"),
            "{came}"
        );
    }
    for socket in &mut sockets {
        for number in 0..3 {
            assert_eq!(next_message(socket), format!("number {number}").as_bytes());
        }
    }
}

/// A program that runs until the test ends.
struct OtherProgram(Child);

impl Drop for OtherProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn curl_shows_events_as_they_come() {
    let Some(curl) = installed("curl") else { return };
    let (server, key) = server(10);
    for version in ["--http1.0", "--http1.1"] {
        let url = format!("http://{}/events", server.addr());
        let child = Command::new(&curl)
            .args(["-sSN", "--max-time", "60", version, &url])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = OtherProgram(child.unwrap());
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with("id: ")), "the stream has begun");
        for text in ["one", "two"] {
            server.0.emit(key, text).unwrap();
            assert!(lines.any(|line| line == format!("data: {text}")), "{text}");
        }
    }
}

/// With its defaults, but for where it passes requests on to: it neither keeps events nor ends the stream.
#[test]
fn nginx_passes_events_on_as_they_come() {
    let Some(nginx) = installed("nginx") else { return };
    let (server, key) = server(10);
    let port = free_port();
    let folder = std::env::temp_dir().join(format!("wirewheel-events-{port}"));
    std::fs::create_dir_all(&folder).unwrap();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths =
        paths.map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display())).concat();
    let configuration = format!(
        "daemon off; master_process off; pid {0}/pid; error_log stderr;\nevents {{}}\n\
         http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port};\n\
         location / {{ proxy_pass http://{1}; }} }} }}",
        folder.display(),
        server.addr()
    );
    std::fs::write(folder.join("conf"), configuration).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-p").arg(&folder).arg("-c").arg(folder.join("conf")).stderr(Stdio::null());
    let _proxy = OtherProgram(command.spawn().unwrap());
    let mut client = connect_when_it_listens(port);
    client.write("GET /events HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("text/event-stream") && head.contains("no-store"), "{head}");
    client.read_until("\n\n");
    for text in ["one", "two", "three"] {
        server.0.emit(key, text).unwrap();
        client.read_until(&format!("data: {text}\n\n"));
    }
    server.0.shutdown(PATIENCE);
    client.read_until("0\r\n\r\n"); // nginx says the end of what it passes on in chunks
    std::fs::remove_dir_all(folder).unwrap();
}

#[allow(clippy::disallowed_methods, reason = "another program needs its time to start")]
fn connect_when_it_listens(port: u16) -> Client {
    let begun = std::time::Instant::now();
    loop {
        match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return Client { stream, inbox: Vec::new() };
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "nginx does not listen: {error}"),
        }
        std::thread::yield_now();
    }
}

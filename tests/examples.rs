//! The examples as a newcomer meets them: started as programs, used, stopped by SIGTERM.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

#[path = "examples/lessons.rs"]
mod lessons;
#[cfg(feature = "client")]
#[path = "examples/proxy.rs"]
mod proxy;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use support::program::Program;
use support::*;

#[test]
fn echo_greets_answers_and_says_bye() {
    let program = Program::start("echo");
    let mut client = program.connect().upgraded("/echo");
    client.expect_text("Please enter your name");
    client.send(BINARY, b"ignored");
    client.text("JetBrains");
    client.expect_text("Hi, JetBrains!");
    client.text("ByE");
    assert_eq!(client.expect_close(1000), "Client said BYE");
    client.send(CLOSE, &close_payload(1000, "Client said BYE"));
    client.expect_eof();
    program.signal(Signal::TERM);
    program.expect_clean_exit();
}

#[test]
fn pages_stand_alone_and_suit_phones_dark_rooms_and_screen_readers() {
    let mut pages = vec![
        ("echo", "new WebSocket("),
        ("chat", "new WebSocket("),
        ("telemetry", "new WebSocket("),
        ("events", "new EventSource("),
    ];
    if cfg!(all(feature = "client", feature = "json")) {
        pages.push(("uplink", "new WebSocket("));
    }
    for (name, connects) in pages {
        let program = Program::start(name);
        let answer = program.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let page = answer.body;
        assert_eq!(answer.status, 200, "{name}");
        assert!(page.len() < 12 << 10, "{name}: {} bytes", page.len());
        for needed in [
            connects,
            "name=\"viewport\"",
            "prefers-color-scheme: dark",
            "role=\"status\"",
            "aria-label",
            "<html lang=\"en\">",
        ] {
            assert!(page.contains(needed), "{name} lacks {needed}");
        }
        for outside in ["://", "src=", "@import", "url(", "fetch(", "import "] {
            assert!(!page.contains(outside), "{name} asks elsewhere: {outside}");
        }
    }
}

/// What it shows is that a whole gateway needs little: no queue of its own, and no thread but the one that a
/// serial port needs.
#[test]
fn the_gateway_is_short_and_has_one_thread_for_its_serial_port() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let code = read("uplink.rs") + &read("uplink/gateway.rs");
    let lines = code.lines().count();
    assert!((200..=330).contains(&lines), "{lines} lines");
    for (word, times) in
        [("thread::Builder", 1), ("spawn(", 1), ("channel", 0), ("mpsc", 0), ("Mutex", 0)]
    {
        let line = |line: &&str| !line.trim_start().starts_with("//") && line.contains(word);
        assert_eq!(code.lines().filter(line).count(), times, "{word}");
    }
}

#[test]
fn a_site_has_its_pages_a_lamp_for_all_and_figures_for_others() {
    let program = Program::start("site");
    let get = |path: &str, lines: &str| {
        program.connect().request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
    };
    assert!(get("/", "").body.contains("src=\"app.js\""));
    let script = get("/app.js", "");
    assert!(script.body.contains("new WebSocket("));
    let known = format!("If-None-Match: {}\r\n", script.header("etag").unwrap());
    assert_eq!(get("/app.js", &known).status, 304);
    let missing = get("/missing", "");
    assert_eq!((missing.status, missing.body.contains("nothing here")), (404, true));
    assert!(missing.header("content-security-policy").is_some());
    let mut clients = [(); 2].map(|()| program.connect().upgraded("/ws"));
    for client in &mut clients {
        client.expect_text("off");
    }
    clients[0].text("switch");
    for client in &mut clients {
        client.expect_text("on");
    }
    let lamp = get("/api/lamp", "Origin: https://dashboard.example\r\n");
    assert_eq!(lamp.body, "{\"lamp\":\"on\"}");
    assert_eq!(lamp.header("access-control-allow-origin"), Some("https://dashboard.example"));
    let folder = std::env::temp_dir().join(format!("wirewheel-site-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("index.html"), "of a folder").unwrap();
    let other = Program::with_arguments("site", &["127.0.0.1:0", folder.to_str().unwrap()]);
    assert_eq!(other.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body, "of a folder");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn chat_tells_both_clients_both_messages_in_order() {
    let program = Program::start("chat");
    let mut clients = [(); 2].map(|()| program.connect().upgraded("/ws"));
    for client in &mut clients {
        client.expect_text("You are connected to WebSocket!");
    }
    clients[0].text("Hello!");
    clients[0].expect_text("Hello!"); // the sender too
    clients[1].text("How are you?");
    clients[1].expect_text("Hello!");
    for client in &mut clients {
        client.expect_text("How are you?");
    }
}

/// Far more than the system's buffers hold for the one that does not read.
#[test]
fn chat_goes_on_beside_a_member_that_does_not_read() {
    for path in ["/ws", "/rooms/cellar?name=anna"] {
        let program = Program::start("chat");
        let _stalled = program.connect().upgraded(path);
        let mut anna = program.connect().upgraded(path);
        let mut witness = program.connect().upgraded(path);
        let text = "x".repeat(4_000);
        let next = |client: &mut Client| loop {
            let frame = client.frame();
            if frame.payload.len() >= text.len() {
                return;
            }
            if frame.first == PING {
                client.send(PONG, &frame.payload); // on a slow machine this takes a while
            }
        };
        for _ in 0..4_000 {
            anna.text(&text);
            next(&mut anna);
            next(&mut witness);
        }
    }
}

#[test]
fn chat_rooms_are_apart_replay_what_was_said_and_are_dropped_when_empty() {
    let program = Program::start("chat");
    let enter = |path: &str| {
        let mut client = program.connect().upgraded(path);
        client.expect_text("You are connected to WebSocket!");
        client
    };
    let mut anna = enter("/rooms/k%C3%BCche?name=anna");
    anna.expect_text("* anna came, 1 here");
    let mut elsewhere = enter("/rooms/cellar?name=carl");
    elsewhere.expect_text("* carl came, 1 here");
    let mut ben = enter("/rooms/k%C3%BCche?name=ben");
    for client in [&mut anna, &mut ben] {
        client.expect_text("* ben came, 2 here");
    }
    for n in 1..=105 {
        anna.text(&n.to_string());
    }
    anna.text("  "); // nothing was said
    for client in [&mut anna, &mut ben] {
        for n in 1..=105 {
            client.expect_text(&format!("anna: {n}"));
        }
    }

    // The last 100 are replayed, notices are not; then the newcomer sees itself come.
    let mut late = enter("/rooms/k%C3%BCche");
    let guest = format!("guest {}", late.stream.local_addr().unwrap().port());
    for n in 6..=105 {
        late.expect_text(&format!("anna: {n}"));
    }
    late.expect_text(&format!("* {guest} came, 3 here"));
    late.text("good evening");
    late.expect_text(&format!("{guest}: good evening"));

    // Whoever leaves without a Close leaves too.
    drop(ben);
    late.expect_text("* ben left, 2 here");
    for mut client in [anna, late] {
        client.send(CLOSE, &close_payload(1000, ""));
        while client.frame().first != CLOSE {}
        client.expect_eof();
    }
    let mut first_again = enter("/rooms/k%C3%BCche?name=anna");
    first_again.expect_text("* anna came, 1 here"); // and nothing is replayed
    elsewhere.text("echo?");
    elsewhere.expect_text("carl: echo?");
}

#[test]
fn chat_limits_names_and_rooms() {
    let program = Program::start("chat");
    let longest = "n".repeat(32);
    let mut fits = program.connect().upgraded(&format!("/rooms/{longest}?name={longest}"));
    fits.expect_text("You are connected to WebSocket!");
    fits.expect_text(&format!("* {longest} came, 1 here"));
    for path in [
        format!("/rooms/{longest}n?name=anna"),
        format!("/rooms/lobby?name={longest}n"),
        "/rooms/lobby?name=*+anna".into(),
        "/rooms/lobby?name=ben%3A+I+am".into(),
        "/rooms/lobby?name=a%0Ab".into(),
    ] {
        let reason = program.connect().upgraded(&path).expect_close(1008);
        assert_eq!(reason, "names have 1 to 32 characters, no colon and no star", "{path}");
    }
    let mut others: Vec<Client> =
        (1..64).map(|n| program.connect().upgraded(&format!("/rooms/{n}"))).collect();
    for client in &mut others {
        client.expect_text("You are connected to WebSocket!");
    }
    assert_eq!(
        program.connect().upgraded("/rooms/64").expect_close(1013),
        "all 64 rooms are taken"
    );
    program.connect().upgraded("/rooms/1?name=anna").expect_text("You are connected to WebSocket!");
    fits.send(BINARY, &[0; 4097]);
    fits.expect_close(1009);
    fits.expect_eof();
    program.connect().upgraded("/rooms/64").expect_text("You are connected to WebSocket!");
}

#[test]
fn events_are_one_a_second_and_go_on_behind_the_last() {
    let program = Program::start("events");
    let ask = |last: &str| {
        let mut client = program.connect();
        client.write(format!("GET /events HTTP/1.1\r\nHost: h\r\n{last}\r\n").as_bytes());
        client
    };
    let mut client = ask("");
    let begin = client.read_until("\ndata: {\"process\":");
    assert!(begin.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), "{begin}");
    let third = client.read_until("\"number\":3,");
    let id = third.lines().rfind(|line| line.starts_with("id: ")).unwrap();
    let mut client = ask(&format!("Last-Event-ID: {}\r\n", &id[4..]));
    let rest = client.read_until("\"number\":5,");
    let numbers: Vec<&str> = rest.lines().filter(|line| line.starts_with("data: {")).collect();
    assert!(numbers.len() == 2 && numbers[0].contains("\"number\":4,"), "{rest}");
    program.signal(Signal::TERM);
    while client.fill() {}
    program.expect_clean_exit();
}

#[test]
fn telemetry_tells_the_newest_of_each_key_at_once_and_then_every_second() {
    /// Key and number of a field of the flat JSON that it sends.
    fn number(json: &str, field: &str) -> f64 {
        let (_, rest) = json.split_once(&format!("\"{field}\":")).expect(field);
        rest.split([',', '}']).next().unwrap().parse().unwrap()
    }
    let program = Program::start("telemetry");
    let next = |client: &mut Client, key: &str| loop {
        let text = String::from_utf8(client.frame().payload).unwrap();
        if text.starts_with(&format!("{{\"key\":\"{key}\"")) && text.ends_with('}') {
            return text;
        }
    };
    let mut client = program.connect().upgraded("/values");
    let first = next(&mut client, "load");
    let loopback = next(&mut client, "net");
    next(&mut client, "load");
    let last = next(&mut client, "load");
    let passed = number(&last, "at") - number(&first, "at");
    // Two seconds, of which the first may be late by one; many where the machine stands still.
    assert!(passed >= 0.9, "{first} {last}");
    assert!(number(&first, "fifteen") >= 0.0);
    assert!(loopback.contains("\"interface\":\"") && number(&loopback, "received") >= 0.0);

    // Whoever comes later need not wait for the next second.
    // That may be over just then, and not ten times.
    let is_there = |_| {
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let before: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let newest = next(&mut program.connect().upgraded("/values"), "load");
        assert!(number(&newest, "at") >= number(&last, "at"));
        number(&newest, "at") <= before
    };
    assert!((0..10).any(is_there));
}

#[test]
fn sigint_and_sigterm_stop_with_1001_and_exit_0() {
    for signal in [Signal::INT, Signal::TERM] {
        let program = Program::start("autobahn");
        let mut clients: Vec<Client> = (0..3).map(|_| program.connect().upgraded("/any")).collect();
        program.signal(signal);
        for client in &mut clients {
            client.expect_close(1001);
            client.send(CLOSE, &close_payload(1001, ""));
            client.expect_eof();
        }
        drop(clients);
        program.expect_clean_exit();
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let program = Program::start("autobahn");
    let mut silent = program.connect().upgraded("/");
    program.signal(Signal::TERM);
    silent.expect_close(1001);
    program.signal(Signal::TERM);
    silent.expect_eof(); // it never answered
    program.expect_clean_exit();
}

#[test]
fn routes_and_heartbeat_do_what_they_say() {
    let routes = Program::start("routes");
    let mut room = routes.connect().upgraded("/rooms/kitchen?as=anna");
    room.expect_text("anna entered kitchen");
    let refused = routes.connect().request(&upgrade_request("/admin/log", ""));
    assert_eq!(refused.status, 401);
    let token = upgrade_request("/admin/log/today", "Authorization: Bearer secret\r\n");
    assert_eq!(routes.connect().request(&token).status, 101);
    let mut chat = routes.connect();
    chat.request(&upgrade_request("/chat", "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n"));
    chat.expect_text("chat.v2");

    let heartbeat = Program::start("heartbeat");
    // Whoever answers no ping within three seconds is closed.
    measured(|| {
        let mut client = heartbeat.connect().upgraded("/");
        client.expect_text("a ping every second");
        let told = loop {
            let frame = client.frame();
            match frame.first {
                PING => client.send(PONG, &frame.payload),
                _ => break String::from_utf8(frame.payload).unwrap(),
            }
        };
        assert!(told.starts_with("round trip: "), "{told}");
    });
}

#[test]
fn upload_stores_a_file_shows_its_progress_and_takes_commands() {
    let folder = std::env::temp_dir().join(format!("wirewheel-upload-{}", std::process::id()));
    let program = Program::with_arguments("upload", &["127.0.0.1:0", folder.to_str().unwrap()]);
    let mut watcher = program.connect().upgraded("/progress");
    let mut client = program.connect();
    let page = client.request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(page.status == 200 && page.body.contains("enctype=\"multipart/form-data\""));
    let file = vec![b'f'; 5_000_000];
    let form = |name: &str| {
        let head = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
        );
        [head.as_bytes(), &file, b"\r\n--b--\r\n"].concat()
    };
    let post = |body: &[u8]| {
        let lines = "Host: h\r\nContent-Type: multipart/form-data; boundary=b\r\n";
        format!("POST /upload HTTP/1.1\r\n{lines}Content-Length: {}\r\n\r\n", body.len())
    };
    let whole = form("../../x y.bin");
    client.write(post(&whole));
    client.write(&whole);
    let answer = client.answer(false);
    assert_eq!((answer.status, &*answer.body), (201, "upload-xy.bin: 5000000 bytes\n"));
    assert!(fs::read(folder.join("upload-xy.bin")).unwrap() == file);
    let told = std::iter::from_fn(|| Some(String::from_utf8(watcher.frame().payload).unwrap()));
    let told: Vec<String> = told.take_while(|told| !told.starts_with("done")).collect();
    assert!(told.iter().all(|told| told.ends_with(" %")), "{told:?}");
    // One that is broken off leaves nothing behind.
    let broken = form("broken.bin");
    let mut other = program.connect();
    other.write(post(&broken));
    other.write(&broken[..1_000_000]);
    drop(other);
    while watcher.frame().payload != b"broken off" {}
    let names =
        fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["upload-xy.bin"]);
    client.write("GET /files.csv HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    while client.fill() {}
    assert!(String::from_utf8_lossy(&client.inbox).contains("upload-xy.bin,5000000\n"));
    let mut client = program.connect();
    for (times, status) in [("3", 204), ("11", 400), ("x", 400)] {
        let body = format!("times={times}");
        let lines = "Host: h\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let answer = client.request(&format!("POST /commands/blink HTTP/1.1\r\n{lines}{length}"));
        assert_eq!(answer.status, status, "{times}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn raw_mirrors_frames_and_answers_for_itself() {
    let raw = Program::start("raw");
    let mut client = raw.connect().upgraded("/");
    client.send(PING, b"p");
    assert_eq!(client.frame(), Frame { first: PONG, payload: b"p".to_vec() });
    client.send(0x01, b"half");
    assert_eq!(client.frame(), Frame { first: 0x01, payload: b"half".to_vec() });
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_close(1000);
    client.expect_eof();
}

#[test]
fn extension_is_agreed_on_and_changes_nothing() {
    let program = Program::start("extension");
    let offer = "Sec-WebSocket-Extensions: frame-logger; level=loud, frame-logger; level=info\r\n";
    let mut client = program.connect();
    let answer = client.request(&upgrade_request("/", offer));
    assert_eq!(answer.header("sec-websocket-extensions"), Some("frame-logger; level=info"));
    client.text("as it was");
    client.expect_text("as it was");
}

#[test]
#[cfg(feature = "deflate")]
fn deflate_compresses_for_who_offers_it() {
    let program = Program::start("deflate");
    let mut client = program.connect();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let answer = client.request(&upgrade_request("/", offer));
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(answer.header("sec-websocket-extensions"), Some(agreed));
    client.text(&"again and ".repeat(20));
    let frame = client.frame();
    assert_eq!(frame.first, 0xc1);
    assert!(frame.payload.len() < 30);
}

#[cfg(feature = "json")]
#[test]
fn json_sends_and_takes_customers() {
    let program = Program::start("json");
    let mut client = program.connect().upgraded("/customer/1");
    let jane = r#"{"id":1,"firstName":"Jane","lastName":"Smith"}"#;
    client.expect_text(jane);
    client.expect_close(1000);
    let mut client = program.connect().upgraded("/customer");
    client.text(jane);
    client.expect_text("1");
    client.text(r#"{"id":1}"#);
    client.expect_close(1007);
}

#[test]
fn descriptors_run_out_and_come_back() {
    // A limit of 24 leaves the server about a dozen connections.
    let program = Program::limited("autobahn", 24);
    let mut first = program.connect().upgraded("/");
    let crowd: Vec<Client> = (0..60).map(|_| program.connect()).collect();
    for round in 0..20 {
        first.text(&format!("round {round}"));
        first.expect_text(&format!("round {round}"));
    }
    // Some of the crowd wait, the others were hung up on; all of them leave. Until the server has seen
    // that, it has no descriptor for who comes later, and hangs up: each attempt is one of the crowd less.
    drop(crowd);
    let mut attempts = (0..200).map(|_| program.connect().upgraded_unless_hung_up_on("/"));
    let mut later = attempts.find_map(|served| served).expect("descriptors are free again");
    later.text("back again");
    later.expect_text("back again");
    program.signal(Signal::TERM);
    first.expect_close(1001);
}

/// The time that the only thread of a program has had a processor.
fn processor_time(program: &Program) -> Duration {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", program.child.id())).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// One of a crowd: connects, asks for a session, and comes back when it is hung up on or after a
/// second.
#[derive(Default)]
struct Reconnecting {
    stream: Option<TcpStream>,
    rounds: u32,
}

impl Reconnecting {
    /// One round; true if it was told 101.
    fn attend(&mut self, addr: SocketAddr) -> bool {
        let Some(stream) = &mut self.stream else {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_nonblocking(true).unwrap();
            let asked = stream.write(upgrade_request("/", "").as_bytes()).is_ok();
            *self = Self { stream: Some(stream).filter(|_| asked), rounds: 0 };
            return false;
        };
        self.rounds += 1;
        let mut answer = [0; 256];
        let read = stream.read(&mut answer);
        let waits = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
        let served = read.is_ok_and(|n| n > 0);
        if !(waits || served) || self.rounds > 100 {
            self.stream = None;
        }
        served
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the crowd's pace, and the length of the test")]
fn without_descriptors_a_crowd_that_reconnects_costs_little() {
    let program = Program::limited("autobahn", 64);
    let mut witness = program.connect().upgraded("/");
    let mut crowd: Vec<Reconnecting> = (0..200).map(|_| Reconnecting::default()).collect();
    let length: u64 = std::env::var("CROWD_SECONDS").map_or(3, |text| text.parse().unwrap());
    let (began, used) = (Instant::now(), processor_time(&program));
    let (mut served, mut slowest) = (0, Duration::ZERO);
    let enough = Duration::from_secs(length);
    while began.elapsed() < enough || (served <= 40 && began.elapsed() < enough + PATIENCE) {
        for client in &mut crowd {
            served += u32::from(client.attend(program.addr));
        }
        let asked = Instant::now();
        witness.text("still there?");
        witness.expect_text("still there?");
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(millis(10));
    }
    let share = (processor_time(&program) - used).as_secs_f64() / began.elapsed().as_secs_f64();
    drop(crowd);
    let mut recovery = recovery_of(&program);
    // It waits for a second at most. A machine that stands still for longer does so now and then.
    for _ in 0..4 {
        if recovery >= Duration::from_secs(2) {
            drop((0..200).map(|_| program.connect()).collect::<Vec<Client>>());
            recovery = recovery_of(&program);
        }
    }
    writeln!(
        std::io::stdout(),
        "200 clients at 64 descriptors: {:.1} % of a core, {served} served, the witness waited \
         {slowest:?} at most, recovery {recovery:?}",
        share * 100.0
    )
    .unwrap();
    assert!(share < 0.2, "{share} of a core");
    assert!(served > 40, "only {served} were served");
    assert!(recovery < Duration::from_secs(2), "{recovery:?}");
}

/// How long it takes until somebody is served by a program whose clients have left. Until it has seen that it
/// hangs up: each attempt is one of them less.
fn recovery_of(program: &Program) -> Duration {
    let left = Instant::now();
    let mut attempts = (0..200).map(|_| program.connect().upgraded_unless_hung_up_on("/"));
    let mut later = attempts.find_map(|served| served).expect("descriptors are free again");
    later.text("back again");
    later.expect_text("back again");
    left.elapsed()
}

/// As many descriptors as the system allows; programs that are started inherit them.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn sigterm_with_a_thousand_clients_ends_within_a_second_of_the_last_answer() {
    raise_descriptors();
    measured(stop_a_thousand);
}

fn stop_a_thousand() {
    let program = Program::start("autobahn");
    let mut clients: Vec<Client> = (0..1_000).map(|_| program.connect().upgraded("/any")).collect();
    program.signal(Signal::TERM);
    let (last, others) = clients.split_last_mut().unwrap();
    for client in others {
        client.expect_close(1001);
        client.send(CLOSE, &close_payload(1001, ""));
        client.expect_eof();
    }
    last.expect_close(1001);
    last.send(CLOSE, &close_payload(1001, ""));
    last.expect_eof();
    let answered = Instant::now();
    drop(clients);
    program.expect_clean_exit();
    assert!(answered.elapsed() < Duration::from_secs(1), "{:?}", answered.elapsed());
}

/// At the defaults: five seconds for the Close, two for the hang-up.
#[test]
fn sigterm_with_a_silent_client_ends_at_the_deadline() {
    let program = Program::start("autobahn");
    let (mut answers, mut silent) =
        (program.connect().upgraded("/any"), program.connect().upgraded("/any"));
    let asked = Instant::now();
    program.signal(Signal::TERM);
    answers.expect_close(1001);
    answers.send(CLOSE, &close_payload(1001, ""));
    silent.expect_close(1001);
    program.expect_clean_exit();
    let took = asked.elapsed();
    // Whatever a busy machine takes for it: otherwise it would never end.
    assert!((millis(4_900)..millis(7_500) + PATIENCE).contains(&took), "{took:?}");
}

//! Topics that span boxes over a real mosquitto: two hubs and plain MQTT clients. Where it is not installed
//! nothing is tested, but in the step of the gate that installs it.
#![cfg(feature = "broker")]

#[path = "../../mqtt/tests/support/mosquitto.rs"]
mod mosquitto;
mod support;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use mosquitto::{Mosquitto, prepare, start};
use support::client::{BINARY, Client, PATIENCE, millis, upgrade_request};
use support::{Folder, Hub, run};

/// A program that subscribes, and what it prints.
struct Subscriber {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Subscriber {
    /// `%t` is the topic, `%p` the payload, `%x` the same in hexadecimal digits, `%r` whether it was kept.
    fn new(broker: &Mosquitto, topic: &str, format: &str) -> Self {
        let mut command = broker.program("mosquitto_sub");
        command.args(["-t", topic, "-F", format]).stdout(Stdio::piped());
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        assert_eq!(self.lines.next().unwrap().unwrap(), line);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hub(url: &str, arguments: &[&str]) -> Hub {
    let given = ["--topics", "--prefix", "hall/", "--broker", url];
    let mut hub = Hub::start(&[&given, arguments].concat());
    hub.log_until("the broker is there");
    hub
}

/// Waits until what one says is heard by the other, both ways: both topics are subscribed to then.
fn await_each_other(one: &mut Client, other: &mut Client) {
    await_way(one, other);
    await_way(other, one);
}

fn await_way(from: &mut Client, to: &mut Client) {
    to.stream.set_read_timeout(Some(millis(50))).unwrap();
    while !to.stream.peek(&mut [0]).is_ok_and(|length| length > 0) {
        from.text("there?");
    }
    to.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    from.text("there!");
    while to.frame().payload != b"there!" {}
}

#[test]
fn two_hubs_and_plain_clients_hear_each_other_in_order_and_nobody_himself() {
    let Some(broker) = start("hubs", "") else { return };
    let hubs = [hub(&broker.url(), &[]), hub(&broker.url(), &[])];
    let [mut anna, mut ben] = [0, 1].map(|n: usize| hubs[n].upgrade("/topic/kitchen"));
    await_each_other(&mut anna, &mut ben);
    // What is kept of the second topic comes once both are subscribed to: what is sent then is not missed.
    broker.publish(&["-r", "-t", "ready", "-m", "ready"]);
    let mut sensor = broker.program("mosquitto_sub");
    sensor.args(["-t", "hall/kitchen", "-t", "ready", "-F", "%x"]).stdout(Stdio::piped());
    let mut sensor = Subscriber::of(sensor);
    sensor.expect("7265616479");
    for n in 0..500 {
        anna.text(&format!("{n}"));
    }
    for n in 0..500 {
        ben.expect_text(&format!("{n}"));
    }
    ben.send(BINARY, &[0, 255]);
    let frame = anna.frame();
    assert_eq!(
        (frame.payload, frame.first),
        (vec![0, 255], BINARY),
        "the first thing that she hears"
    );
    while sensor.lines.next().unwrap().unwrap() != "00ff" {}
    broker.publish(&["-t", "hall/kitchen", "-m", "21.5"]);
    anna.expect_text("21.5");
    ben.expect_text("21.5");
    sensor.expect("32312e35");
    // What a broker would take for a filter is no topic.
    for name in ["a%2b", "%23", "%24SYS%2Fx", "a%01"] {
        let request = upgrade_request(&format!("/topic/{name}"), "");
        let answer = hubs[0].connect().request(&request);
        assert_eq!(answer.status, 400, "{name}");
    }
}

#[test]
fn who_joins_gets_the_newest_over_boxes_and_sees_who_is_there() {
    let Some(broker) = start("newest", "") else { return };
    let newest = ["--overflow", "latest"];
    let one = hub(&broker.url(), &newest);
    let mut anna = one.upgrade("/topic/level");
    let mut kept = Subscriber::new(&broker, "hall/level", "%p");
    for level in ["1", "2", "3"] {
        anna.text(level);
        kept.expect(level);
    }
    let two = hub(&broker.url(), &newest);
    two.upgrade("/topic/level").expect_text("3");
    broker.publish(&["-t", "hall/level", "-m", "4", "-r"]);
    anna.expect_text("4");
    // It would be heard by all on `level`; and on `hubs` all that hubs say of themselves.
    for name in ["level%2Fbelow", "hubs"] {
        let request = upgrade_request(&format!("/topic/{name}"), "");
        assert_eq!(one.connect().request(&request).status, 400);
    }
    let mut hubs = Subscriber::new(&broker, "hall/hubs/+", "%p %t");
    let names: Vec<String> = (0..2).map(|_| hubs.lines.next().unwrap().unwrap()).collect();
    assert!(names.iter().all(|line| line.starts_with("up hall/hubs/wirewheel-hub-")), "{names:?}");
    let mut two = two;
    two.child.kill().unwrap();
    let gone = hubs.lines.next().unwrap().unwrap();
    assert!(gone.starts_with(" hall/hubs/wirewheel-hub-"), "a Will: {gone:?}");
}

#[test]
fn hubs_that_say_a_value_at_once_show_what_the_broker_keeps() {
    let Some(broker) = start("at-once", "") else { return };
    let hubs = [(); 2].map(|()| hub(&broker.url(), &["--overflow", "latest"]));
    let [mut anna, mut ben] = hubs.each_ref().map(|hub| hub.upgrade("/topic/level"));
    let [mut to, mut fro] =
        ["/topic/to", "/topic/fro"].map(|path| hubs.each_ref().map(|hub| hub.upgrade(path)));
    let mut there_and_back = || {
        let [[one, two], [back, begun]] = [&mut to, &mut fro];
        await_way(one, two);
        await_way(begun, back);
    };
    there_and_back();
    for round in 0..20 {
        for n in 0..10 {
            anna.text(&format!("anna {round} {n}"));
            ben.text(&format!("ben {round} {n}"));
        }
        // The second time behind all that was said before the first.
        there_and_back();
        there_and_back();
        let mut kept = Subscriber::new(&broker, "hall/level", "%p");
        let kept = kept.lines.next().unwrap().unwrap();
        for hub in &hubs {
            hub.upgrade("/topic/level").expect_text(&kept);
        }
    }
}

#[test]
fn who_takes_a_hubs_name_ends_its_link_for_a_while_and_the_hub_goes_on() {
    let Some(broker) = start("takeover", "") else { return };
    let mut one = hub(&broker.url(), &[]);
    let mut there = Subscriber::new(&broker, "hall/hubs/+", "%t");
    let topic = there.lines.next().unwrap().unwrap();
    let name = topic.strip_prefix("hall/hubs/").unwrap();
    let mut thief = broker.program("mosquitto_sub");
    thief.args(["-i", name, "-t", "x", "-F", "%p"]).stdout(Stdio::piped());
    let thief = Subscriber::of(thief);
    one.log_until("the broker is away: it has ended the connection");
    let [mut anna, mut ben] = [(), ()].map(|()| one.upgrade("/topic/kitchen"));
    anna.text("hello");
    ben.expect_text("hello");
    drop(thief);
    one.log_until("the broker is there");
}

#[cfg(feature = "tls")]
#[test]
fn over_tls_with_a_login_and_not_without() {
    use support::tls::certificate;
    let file = |name: &str| support::show(&certificate(name));
    let (chain, key) = (file("box.pem"), file("box.key"));
    let lines = format!(
        "certfile {chain}\nkeyfile {key}\nallow_anonymous false\npassword_file FOLDER/passwords"
    );
    let Some(mut broker) = prepare("secured", &lines) else { return };
    let folder = Folder::new("logins");
    let passwords = support::show(&broker.folder().join("passwords"));
    let program = mosquitto::installed("mosquitto_passwd").unwrap();
    let made = Command::new(program).args(["-b", "-c", &passwords, "box", "pw "]).status();
    assert!(made.unwrap().success());
    broker.start();
    let login = |name: &str, line: &str| {
        std::fs::write(folder.path(name), line).unwrap();
        support::show(&folder.path(name))
    };
    let (right, wrong) = (login("right", "box:pw \r\n"), login("wrong", "box:guess\n"));
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let arguments = |login: &str, ca: &str| {
        let ca = file(ca);
        ["--broker-login-file", login, "--broker-ca", &ca].map(str::to_owned)
    };
    let of = |arguments: &[String; 4]| {
        let given = ["--topics", "--prefix", "hall/", "--broker", &url];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Hub::start(&[&given[..], &arguments].concat())
    };
    let trusted = arguments(&right, "authority.pem");
    let (mut one, mut two) = (of(&trusted), of(&trusted));
    one.log_until("the broker is there");
    two.log_until("the broker is there");
    let (mut anna, mut ben) = (one.upgrade("/topic/a"), two.upgrade("/topic/a"));
    await_each_other(&mut anna, &mut ben);
    of(&arguments(&wrong, "authority.pem")).log_until("not authorized");
    of(&arguments(&right, "clients.pem")).log_until("certificate");
}

#[test]
fn mistakes_are_told_before_anything_starts() {
    for (code, arguments, said) in [
        (0, &["--broker", "mqtt://broker.example"][..], ""),
        (1, &["--broker", "http://broker"], "mqtt://"),
        (1, &["--broker", "mqtt://me:secret@broker"], "--broker-login-file"),
        (1, &["--prefix", "hall/"], "--prefix is for --broker"),
        (1, &["--broker", "mqtt://b", "--prefix", "a+"], "filters"),
        (1, &["--broker", "mqtt://b", "--overflow", "suspend"], "hold up everybody"),
        (1, &["--broker", "mqtt://b", "--upstream", "ws://h"], "one of them"),
        (1, &["--broker", "mqtt://b", "--broker-ca", "/x"], "mqtts://"),
        (
            75,
            &["--broker", "mqtt://b", "--broker-login-file", "/nonexistent/login"],
            "No such file",
        ),
        #[cfg(feature = "tls")]
        (
            75,
            &["--broker", "mqtts://b", "--broker-ca", "/nonexistent/ca"],
            "--broker-ca /nonexistent/ca",
        ),
        #[cfg(feature = "tls")]
        (1, &["--broker", "mqtts://b", "--broker-ca", "/dev/null"], "/dev/null"),
    ] {
        let output = run(&[&["--check", "--topics"], arguments].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said) && !text.contains("secret"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_login_is_the_first_line_as_it_is() {
    let folder = Folder::new("login");
    for (code, text) in [
        (0, "# of the box\n\n \nme:pw \nnone\n"),
        (0, "a:"),
        (1, "me\n"),
        (1, "# me:secret\n"),
        (1, ""),
    ] {
        let file = folder.write("login", text);
        let login = ["--topics", "--broker", "mqtt://127.0.0.1:1", "--broker-login-file", &file];
        let output = run(&[&["--check"], &login[..]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text:?}: {said}");
        assert!(!said.contains("token") && !said.contains("secret"), "{text:?}: {said}");
        assert_eq!(said.contains("is to be user:password"), code == 1, "{text:?}: {said}");
    }
}

/// What comes from the broker would not reach it, nor what it says the broker.
#[cfg(feature = "upstream")]
#[test]
fn a_hub_that_dials_one_with_a_broker_is_told_that_there_are_no_links() {
    let parent = Hub::start(&["--topics", "--broker", "mqtt://127.0.0.1:1"]);
    let url = format!("ws://{}", parent.addr);
    let mut child = Hub::start(&["--topics", "--upstream", &url]);
    let _anna = child.upgrade("/topic/kitchen");
    child.log_until("this is no hub, or one without links");
}

#[test]
fn a_check_dials_no_broker() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    for _ in 0..20 {
        assert!(run(&["--check", "--topics", "--broker", &url]).status.success());
        // Who dials has an end in the listener's queue as soon as it is connected.
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// The guide's block, between two hubs that know nothing of each other.
#[test]
fn nginx_sends_each_topic_to_one_hub() {
    let Some(nginx) = mosquitto::installed("nginx") else {
        assert!(std::env::var_os("WIREWHEEL_BROKERS").is_none(), "nginx is not installed");
        return;
    };
    let hubs = [(); 2].map(|()| Hub::start(&["--topics", "--metrics", "/metrics"]));
    let folder = Folder::new("sharding");
    let page = include_str!("../../src/guide/fleet.md");
    let block = page.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let block = [("127.0.0.1:8081", 0), ("127.0.0.1:8082", 1)]
        .iter()
        .fold(block.to_owned(), |block, (place, hub): &(&str, usize)| {
            block.replace(place, &hubs[*hub].addr.to_string())
        });
    let (port, path) = (mosquitto::free_port(), support::show(&folder.path("")));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
        .concat();
    let upgrade = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
                   proxy_set_header Connection upgrade;";
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://hubs; {upgrade} }} }}"
    );
    let configuration = format!(
        "daemon off; pid {path}/pid; error_log {path}/log;\nevents {{}}\n\
         http {{ access_log off;\n{temporary}\n{block}\n{server} }}"
    );
    std::fs::write(folder.path("nginx.conf"), configuration).unwrap();
    let mut command = Command::new(nginx);
    command.args(["-c", &support::show(&folder.path("nginx.conf"))]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let place = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    while std::net::TcpStream::connect(place).is_err() {
        std::thread::yield_now();
    }
    let mut clients = Vec::new();
    // So many that it would be odd if one hub had next to none.
    for topic in 0..40 {
        let path = format!("/topic/{topic}");
        let [mut anna, mut ben] = [(), ()].map(|()| Client::connect(place).upgraded(&path));
        anna.text("hello");
        ben.expect_text("hello");
        clients.push((anna, ben));
    }
    let sessions = hubs.each_ref().map(|hub| {
        let text = hub.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
        let name = "wirewheel_sessions_open ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse::<usize>().unwrap()
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
    assert_eq!(sessions[0] + sessions[1], 80);
    assert!(sessions.iter().all(|count| *count >= 4), "{sessions:?}");
}

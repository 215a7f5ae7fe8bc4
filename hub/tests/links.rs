//! Topics of several hubs that are one: both ways, through outages and restarts, in circles, with tokens.
#![cfg(feature = "upstream")]

mod support;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use support::client::{CLOSE, Client, TEXT, close_payload, masked, upgrade_request};
use support::{Folder, Hub, run};
use wirewheel::{Application, Call, Server, WebSockets, on_connect};

/// A hub at a port and at a Unix socket, by which others know where it will be.
fn hub(folder: &Folder, name: &str, arguments: &[&str]) -> Hub {
    let socket = format!("unix:{}", support::show(&folder.path(name)));
    let metrics = ["--topics", "--metrics", "/metrics", "--listen", &socket];
    Hub::start(&[&metrics, arguments].concat())
}

fn url(folder: &Folder, name: &str) -> String {
    format!("ws+unix:{}", support::show(&folder.path(name)))
}

/// What the metrics say of its dialers.
fn dialers(hub: &Hub, state: &str) -> usize {
    let text = hub.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    let name = format!("wirewheel_dialers{{state=\"{state}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

/// Waits until so many of its topics are joined to those of its upstream.
fn await_links(hub: &Hub, count: usize) {
    while dialers(hub, "open") != count {
        thread::yield_now();
    }
}

/// Waits until the hub has dealt with all that was sent to it.
fn settle(client: &mut Client) {
    client.send(support::client::PING, b"read?");
    assert_eq!(client.frame().payload, b"read?");
}

#[test]
fn what_is_said_at_one_hub_is_heard_at_both_and_by_nobody_twice() {
    let folder = Folder::new("links");
    let parent = hub(&folder, "parent", &[]);
    let child = hub(&folder, "child", &["--upstream", &url(&folder, "parent")]);
    let mut here = [(); 2].map(|()| child.upgrade("/topic/kitchen%2F1"));
    await_links(&child, 1);
    let mut there = [(); 2].map(|()| parent.upgrade("/topic/kitchen%2F1"));
    let mut elsewhere = parent.upgrade("/topic/cellar");
    for round in 0..3 {
        let text = format!("from here {round}");
        here[0].text(&text);
        here[1].expect_text(&text);
        there.iter_mut().for_each(|client| client.expect_text(&text));
        there[0].send(support::client::BINARY, &[0, 255, round]);
        for client in here.iter_mut().chain(&mut there[1..]) {
            let frame = client.frame();
            assert_eq!(
                (frame.first, frame.payload),
                (support::client::BINARY, vec![0, 255, round])
            );
        }
    }
    // The largest there may be, with what goes in front of it.
    let largest = "x".repeat(64 << 10);
    there[0].text(&largest);
    here[0].expect_text(&largest);
    settle(&mut elsewhere);
}

#[test]
fn hubs_in_a_circle_and_a_hub_above_itself_say_everything_once() {
    let folder = Folder::new("circle");
    let names = ["one", "two", "three"];
    for length in 1..=3 {
        let hubs: Vec<Hub> = (0..length)
            .map(|number| {
                let above = url(&folder, names[(number + 1) % length]);
                hub(&folder, names[number], &["--replay", "10", "--upstream", &above])
            })
            .collect();
        let mut clients: Vec<Client> = hubs.iter().map(|hub| hub.upgrade("/topic/ring")).collect();
        hubs.iter().for_each(|hub| await_links(hub, 1));
        for round in 0..20 {
            let text = format!("round {round}");
            let speaker = round % length;
            clients[speaker].text(&text);
            for (number, client) in clients.iter_mut().enumerate() {
                if number != speaker {
                    client.expect_text(&text);
                }
            }
        }
        // A newcomer gets each of them once, whichever way they came.
        for hub in &hubs {
            let mut late = hub.upgrade("/topic/ring");
            for round in 10..20 {
                late.expect_text(&format!("round {round}"));
            }
            settle(&mut late);
        }
        clients.iter_mut().for_each(settle);
    }
}

/// Topics with one newest message each stand for what a sensor says.
#[test]
fn after_a_restart_of_the_parent_the_newest_of_each_topic_is_there() {
    let folder = Folder::new("restart");
    let parent = hub(&folder, "parent", &["--overflow", "latest"]);
    let arguments = ["--overflow", "latest", "--upstream", &url(&folder, "parent")];
    let child = hub(&folder, "child", &arguments);
    let topics: Vec<String> = (0..20).map(|number| format!("/topic/sensor-{number}")).collect();
    let mut sensors: Vec<Client> = topics.iter().map(|topic| child.upgrade(topic)).collect();
    await_links(&child, topics.len());
    drop(parent);
    for value in 0..50 {
        for (number, sensor) in sensors.iter_mut().enumerate() {
            sensor.text(&format!("{number}: {value}"));
        }
    }
    sensors.iter_mut().for_each(settle);
    let parent = hub(&folder, "parent", &["--overflow", "latest"]);
    await_links(&child, topics.len());
    for (number, topic) in topics.iter().enumerate() {
        let newest = format!("{number}: 49");
        let mut reader = parent.upgrade(topic);
        while String::from_utf8(reader.frame().payload).unwrap() != newest {} // the link may be newer than it
        settle(&mut reader);
    }
}

/// A connection between hubs that a test can cut.
struct Cable {
    addr: SocketAddr,
    ends: Arc<Mutex<Ends>>,
}

#[derive(Default)]
struct Ends {
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Cable {
    fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let ends: Arc<Mutex<Ends>> = Arc::default();
        let known = Arc::clone(&ends);
        let serve = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut ends = known.lock().unwrap();
                if !ends.is_cut {
                    let other = TcpStream::connect(hub).unwrap();
                    ends.streams.extend([&stream, &other].map(|it| it.try_clone().unwrap()));
                    carry(&stream, &other);
                    carry(&other, &stream);
                }
            }
        };
        thread::Builder::new().spawn(serve).unwrap();
        Self { addr, ends }
    }

    fn cut(&self) {
        let mut ends = self.ends.lock().unwrap();
        ends.is_cut = true;
        for stream in ends.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.ends.lock().unwrap().is_cut = false;
    }
}

fn carry(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let carry = move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    };
    thread::Builder::new().spawn(carry).unwrap();
}

#[test]
fn after_an_outage_both_have_what_was_said_last_and_nothing_is_repeated() {
    let folder = Folder::new("outage");
    let parent = hub(&folder, "parent", &["--overflow", "latest"]);
    let cable = Cable::to(parent.addr);
    let above = format!("ws://{}", cable.addr);
    let child = hub(&folder, "child", &["--overflow", "latest", "--upstream", &above]);
    let (mut here, mut there) = (child.upgrade("/topic/a"), parent.upgrade("/topic/a"));
    await_links(&child, 1);
    here.text("before");
    there.expect_text("before");
    for round in 0..2 {
        cable.cut();
        await_links(&child, 0);
        // Who speaks last is believed, on whichever side.
        let (first, last) =
            if round == 0 { (&mut here, &mut there) } else { (&mut there, &mut here) };
        first.text("older");
        settle(first);
        last.text("newer");
        settle(last);
        cable.mend();
        await_links(&child, 1);
        first.expect_text("newer");
        for hub in [&parent, &child] {
            let mut late = hub.upgrade("/topic/a");
            late.expect_text("newer");
            settle(&mut late);
        }
        here.text("after");
        there.expect_text("after"); // and not "older"
        settle(&mut here);
    }
}

#[test]
fn a_replay_crosses_an_outage_in_both_directions_once() {
    let folder = Folder::new("replay");
    let parent = hub(&folder, "parent", &["--replay", "5"]);
    let cable = Cable::to(parent.addr);
    let above = format!("ws://{}", cable.addr);
    let mut there = parent.upgrade("/topic/a");
    for text in ["first", "second"] {
        there.text(text);
    }
    settle(&mut there);
    let child = hub(&folder, "child", &["--replay", "5", "--upstream", &above]);
    let mut here = child.upgrade("/topic/a");
    for text in ["first", "second"] {
        here.expect_text(text); // said before there was a link
    }
    await_links(&child, 1);
    cable.cut();
    await_links(&child, 0);
    here.text("third");
    there.text("fourth");
    settle(&mut here);
    settle(&mut there);
    cable.mend();
    here.expect_text("fourth");
    there.expect_text("third");
    settle(&mut here);
    settle(&mut there);
}

#[test]
fn an_upstream_that_is_away_holds_nobody_up() {
    let folder = Folder::new("away");
    let arguments =
        ["--overflow", "suspend", "--ping-period", "0", "--upstream", "ws://192.0.2.1:9"];
    let child = hub(&folder, "child", &arguments);
    let (mut one, mut other) = (child.upgrade("/topic/a"), child.upgrade("/topic/a"));
    let text = "x".repeat(10_000);
    for _ in 0..1_000 {
        one.text(&text);
        other.expect_text(&text);
    }
}

#[test]
fn topics_that_nobody_is_on_are_dialled_no_more() {
    let folder = Folder::new("many");
    let child = hub(&folder, "child", &["--upstream", "ws+unix:@nobody-listens-there"]);
    for number in 0..1_100 {
        let mut client = child.upgrade(&format!("/topic/{number}"));
        client.send(CLOSE, &close_payload(1000, ""));
        client.expect_close(1000);
    }
    let states = ["connecting", "open", "waiting"];
    let dialled: usize = states.iter().map(|state| dialers(&child, state)).sum();
    assert!((1..=1024).contains(&dialled), "{dialled}");
}

/// At the parent only another hub is on it, while as many topics come and go as there may be.
#[test]
fn a_topic_that_another_hub_has_joined_stays() {
    let folder = Folder::new("joined");
    let parent = hub(&folder, "parent", &[]);
    let child = hub(&folder, "child", &["--upstream", &url(&folder, "parent")]);
    let mut here = child.upgrade("/topic/kitchen");
    await_links(&child, 1);
    for number in 0..1_100 {
        let mut client = parent.upgrade(&format!("/topic/{number}"));
        client.send(CLOSE, &close_payload(1000, ""));
        client.expect_close(1000);
    }
    parent.upgrade("/topic/kitchen").text("still there?");
    here.expect_text("still there?");
}

#[test]
fn the_token_is_shown_and_a_wrong_one_is_refused_and_in_no_log() {
    let folder = Folder::new("tokens");
    let known = folder.write("known", "# of the hub above\ncorrect-horse\n");
    let wrong = folder.write("wrong", "swordfish-9\n");
    let parent = hub(&folder, "parent", &["--token-file", &known, "--metrics-open"]);
    let above = url(&folder, "parent");
    let link = |token: &str, name: &str| {
        hub(&folder, name, &["--upstream", &above, "--upstream-token-file", token])
    };
    let child = link(&known, "child");
    let mut here = child.upgrade("/topic/a");
    await_links(&child, 1);
    let mut there = parent.connect().upgraded("/topic/a?token=correct-horse");
    here.text("hello");
    there.expect_text("hello");
    let mut stranger = link(&wrong, "stranger");
    let _client = stranger.upgrade("/topic/a");
    let line = stranger.log_until("the server answered 401");
    assert!(!line.contains("swordfish"), "{line}");
    settle(&mut there);
}

/// The parent listens with TLS at its first place, so that its address is that.
#[cfg(feature = "tls")]
#[test]
fn hubs_are_joined_over_tls_if_the_certificate_is_signed_by_whom_it_has_to_be() {
    use support::tls::certificate;
    let file = |name: &str| support::show(&certificate(name));
    let mut parent = support::command();
    parent.args(["--topics", "--listen", "tls:127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    parent.args(["--tls-cert", &file("box.pem"), "--tls-key", &file("box.key")]);
    let mut parent = Hub::of(parent);
    let above = format!("wss://{}", parent.addr);
    let plain = parent.log_until("bound to ").rsplit(' ').next().unwrap().parse().unwrap();
    let folder = Folder::new("secured");
    let link = |name: &str, ca: &str| {
        hub(&folder, name, &["--upstream", &above, "--upstream-ca", &file(ca)])
    };
    let child = link("child", "authority.pem");
    let mut here = child.upgrade("/topic/a");
    await_links(&child, 1);
    let mut there = Client::connect(plain).upgraded("/topic/a");
    here.text("over TLS");
    there.expect_text("over TLS");
    let mut stranger = link("stranger", "clients.pem");
    let _client = stranger.upgrade("/topic/a");
    let line = stranger.log_until("certificate");
    assert!(line.contains("the next attempt"), "{line}");
    let missing = ["--upstream", "ws://h", "--upstream-ca", &file("authority.pem")];
    let output = run(&[&["--check", "--topics"], &missing[..]].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("wss://"));
}

#[test]
fn who_poses_as_a_hub_and_talks_nonsense_is_ended() {
    let folder = Folder::new("nonsense");
    let hub = hub(&folder, "hub", &[]);
    let mut member = hub.upgrade("/topic/a");
    let offer = "Sec-WebSocket-Protocol: link.wirewheel-hub.1\r\n";
    let pose = || {
        let mut client = hub.connect();
        let answer = client.request(&upgrade_request("/topic/a", offer));
        assert_eq!(answer.header("sec-websocket-protocol"), Some("link.wirewheel-hub.1"));
        client
    };
    let zeros = "0".repeat(31);
    for (text, reason) in [
        ("", "a message without a version"),
        ("hello", "a message without a version"),
        (&format!("{zeros}g hello"), "a message without a version"),
        (&format!("f{zeros} hello"), "a message of the future: are both clocks right?"),
    ] {
        let mut client = pose();
        client.send(TEXT, text.as_bytes());
        assert_eq!(client.expect_close(1008), reason, "{text:?}");
    }
    let mut client = pose();
    client.send(TEXT, "x".repeat((64 << 10) + 33).as_bytes());
    client.expect_close(1009);
    // Versions that are not new are dropped: those of one hub come in order.
    let mut client = pose();
    for (number, text) in [(5, "new"), (5, "again"), (4, "old"), (6, "newer")] {
        client.text(&format!("{number:016x}{:016x}{text}", 7));
    }
    member.expect_text("new");
    member.expect_text("newer");
    member.text("and ours");
    let frame = client.frame();
    let payload = String::from_utf8(frame.payload).unwrap();
    assert_eq!((payload.len(), payload.get(32..)), (40, Some("and ours")));
    assert_eq!(
        hub.connect()
            .request(&upgrade_request(&format!("/topic/{}", "x".repeat(129)), offer))
            .status,
        400
    );
}

/// Of the two it is then this one that ends the link, and it must not come back at once, for each topic.
#[test]
fn a_parent_whose_clock_is_ahead_is_dialled_seldom() {
    let parent = Server::bind("127.0.0.1:0", |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            let future = format!("f{}hello", "0".repeat(31));
            let says = move |_: &Call| {
                let future = future.clone();
                on_connect(move |session, _| session.send(future.as_str()))
            };
            route.web_socket("/topic/{name}", says).protocol("link.wirewheel-hub.1");
        });
    });
    let parent = parent.unwrap().spawn().unwrap();
    let mut child = support::command();
    child.env("RUST_LOG", "info,wirewheel::session=debug");
    let above = format!("ws://{}", parent.local_addr());
    child.args(["--topics", "--listen", "127.0.0.1:0", "--upstream", &above]);
    let mut child = Hub::of(child);
    let _here = child.upgrade("/topic/kitchen");
    let line = child.log_until("the session is lost (1008)");
    let delay = line.rsplit(' ').next().and_then(|it| it.strip_suffix('s')).unwrap();
    assert!((30.0..60.1).contains(&delay.parse().unwrap()), "{line}");
    parent.shutdown(std::time::Duration::ZERO);
}

/// More forged hubs than a hub remembers: what of theirs comes round is known all the same, and honest hubs
/// go on to be heard.
#[test]
fn who_poses_as_many_hubs_keeps_nothing_in_circulation_and_locks_nobody_out() {
    let folder = Folder::new("forged");
    let join = |name: &str, above: &str| {
        hub(&folder, name, &["--replay", "400", "--upstream", &url(&folder, above)])
    };
    let hubs = [join("one", "other"), join("other", "one")];
    let [mut here, mut there] = [0, 1].map(|hub: usize| hubs[hub].upgrade("/topic/a"));
    hubs.iter().for_each(|hub| await_links(hub, 1));
    let mut forger = hubs[0].connect();
    let offer = "Sec-WebSocket-Protocol: link.wirewheel-hub.1\r\n";
    assert_eq!(forger.request(&upgrade_request("/topic/a", offer)).status, 101);
    // Half an hour ahead: what honest hubs say then is older, unless they go by what they hear.
    here.text("now");
    there.expect_text("now");
    let now = String::from_utf8(forger.frame().payload).unwrap();
    let number = u64::from_str_radix(&now[..16], 16).unwrap() + 1_800_000_000;
    let forged: Vec<u8> = (0..200)
        .flat_map(|nth| {
            let text = format!("{:016x}{nth:016x}forged {nth}", number + nth);
            masked(TEXT, text.as_bytes())
        })
        .collect();
    for round in 0..3 {
        forger.write(&forged); // all of it again is no news
        here.text(&format!("round {round}"));
        let mut heard = Vec::new();
        while heard.last().is_none_or(|text: &String| !text.starts_with("round")) {
            heard.push(String::from_utf8(there.frame().payload).unwrap());
        }
        heard.retain(|text| text.starts_with("forged"));
        let expected = if round == 0 { 200 } else { 0 };
        assert_eq!(heard.len(), expected, "in round {round}");
    }
    there.text("honest");
    while here.frame().payload != b"honest" {}
    // One that comes now has heard of no version but those that are repeated to it.
    let late = join("late", "one");
    let mut newcomer = late.upgrade("/topic/a");
    await_links(&late, 1);
    while newcomer.frame().payload != b"honest" {}
    newcomer.text("late");
    here.expect_text("late");
    while there.frame().payload != b"late" {}
    [&mut here, &mut there, &mut newcomer].into_iter().for_each(settle);
}

#[test]
fn mistakes_are_told_before_anything_is_dialled() {
    let folder = Folder::new("mistakes");
    let short = folder.write("short", "abc\n");
    let missing = support::show(&folder.path("missing"));
    let check = |arguments: &[&str]| {
        let output = run(&[&["--check", "--topics"], arguments].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (code, arguments, part) in [
        (0, &["--upstream", "ws://parent.example:8080"][..], ""),
        (0, &["--upstream", "ws+unix:/run/parent.sock"], ""),
        (1, &["--upstream", "parent.example:8080"], "ws://"),
        (1, &["--upstream", "http://parent.example"], "ws://"),
        (1, &["--upstream", "ws://parent.example/?token=secret"], "--upstream-token-file"),
        (1, &["--upstream-token-file", &short], "--upstream, which is not given"),
        (1, &["--upstream-ca", &short], "--upstream, which is not given"),
        (1, &["--upstream", "ws://me:secret@h", "--upstream-token-file", &short], "not both"),
        (75, &["--upstream", "ws://h", "--upstream-token-file", &missing], "No such file"),
        (75, &["--upstream", "ws://h", "--upstream-token-file", &short], "less than 8"),
    ] {
        let (found, said) = check(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part) && !said.contains("secret"), "{arguments:?}: {said}");
    }
    let output = run(&["--check", "--echo", "--upstream", "ws://h"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("--topics"));
}

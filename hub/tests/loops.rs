//! The hub with one loop and with several: what it serves is the same.

mod support;

use rustix::process::Signal;
use support::client::{BINARY, CLOSE, Client, PING, close_payload, upgrade_request};
use support::{Folder, Hub, Manager, command, run};

const LOOPS: [&str; 2] = ["1", "2"];

/// Clients on a topic: of two that come one after the other each is on another loop.
fn members(hub: &Hub, path: &str, count: usize) -> Vec<Client> {
    (0..count).map(|_| hub.upgrade(path)).collect()
}

/// Sends, and waits until the hub has read it.
fn say(client: &mut Client, text: &str) {
    client.text(text);
    client.send(PING, b"read?");
    assert_eq!(client.frame().payload, b"read?");
}

#[test]
fn a_topic_is_one_over_all_loops_whatever_happens_to_the_slow() {
    for loops in LOOPS {
        for overflow in ["suspend", "drop-oldest", "drop-latest", "latest", "close"] {
            let hub = Hub::start(&["--topics", "--loops", loops, "--overflow", overflow]);
            let mut members = members(&hub, "/topic/kitchen", 4);
            let mut elsewhere = hub.upgrade("/topic/cellar");
            for said_by in 0..4 {
                let text = format!("{said_by} is hungry");
                members[said_by].text(&text);
                members[said_by].send(BINARY, &[1, 2, 3]);
                for (number, other) in members.iter_mut().enumerate() {
                    if number == said_by {
                        continue; // nothing of its own
                    }
                    // The newest alone may be all that whoever is behind by a moment gets.
                    let mut frame = other.frame();
                    if overflow != "latest" || frame.first != BINARY {
                        assert_eq!(frame.payload, text.as_bytes(), "{loops} {overflow}");
                        frame = other.frame();
                    }
                    assert_eq!((frame.first, frame.payload.as_slice()), (BINARY, &[1, 2, 3][..]));
                }
            }
            let mut second = hub.upgrade("/topic/cellar");
            second.text("dark");
            elsewhere.expect_text("dark");
        }
    }
}

#[test]
fn newcomers_get_the_last_messages_on_every_loop() {
    for loops in LOOPS {
        let hub = Hub::start(&["--topics", "--replay", "2", "--loops", loops]);
        let mut members = members(&hub, "/topic/log", 2);
        for number in 0..6 {
            say(&mut members[0], &format!("line {number}"));
            members[1].expect_text(&format!("line {number}"));
        }
        for _ in 0..2 {
            let mut late = hub.upgrade("/topic/log");
            late.expect_text("line 4");
            late.expect_text("line 5");
            members.push(late);
        }
    }
}

/// The 1,024 topics are those of each loop, and what is gone on all of them makes room.
#[test]
fn topics_that_nobody_is_on_make_room_on_every_loop() {
    let options = ["--topics", "--replay", "1", "--loops", "2", "--ping-period", "0"];
    let hub = Hub::start(&options);
    let mut kept = members(&hub, "/topic/kept", 2);
    for number in 0..1_100 {
        let mut client = hub.upgrade(&format!("/topic/{number}"));
        client.text("here I was");
        client.send(CLOSE, &close_payload(1000, ""));
        client.expect_close(1000);
    }
    kept[0].text("still here");
    kept[1].expect_text("still here");
}

#[test]
fn metrics_tokens_and_a_stop_are_those_of_all_loops() {
    for loops in LOOPS {
        let folder = Folder::new(&format!("loops-{loops}"));
        let tokens = folder.write("tokens", "swordfish\n");
        let mut hub = Hub::start(&[
            "--echo",
            "--loops",
            loops,
            "--token-file",
            &tokens,
            "--metrics",
            "/metrics",
            "--metrics-open",
        ]);
        let status = |hub: &Hub, token: &str| {
            let line = format!("Authorization: Bearer {token}\r\n");
            hub.connect().request(&upgrade_request("/echo", &line)).status
        };
        let mut clients = members(&hub, "/echo?token=swordfish", 4);
        for client in &mut clients {
            client.text("hello");
            client.expect_text("hello");
        }
        // Another loop's figures are those of its last turn.
        let page = || hub.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
        while !page().contains("\nwirewheel_sessions_open 4\n") {}
        folder.write("tokens", "trout-and-salmon\n");
        hub.signal(Signal::HUP);
        hub.log_until("1 tokens are read again");
        for _ in 0..2 {
            assert_eq!(status(&hub, "swordfish"), 401, "on each loop");
            assert_eq!(status(&hub, "trout-and-salmon"), 101);
        }
        hub.signal(Signal::TERM);
        for client in &mut clients {
            client.expect_close(1001);
            client.send(CLOSE, &close_payload(1001, ""));
            client.expect_eof();
        }
        hub.expect_clean_exit();
    }
}

#[test]
fn the_service_manager_hears_of_all_loops_at_once() {
    let folder = Folder::new("loops-notify");
    let manager = Manager::new(&folder);
    let mut command = command();
    command.args(["--echo", "--listen", "127.0.0.1:0", "--loops", "3"]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "60000");
    let hub = Hub::of(command);
    assert_eq!(manager.next(), "READY=1");
    (0..5).for_each(|_| assert_eq!(manager.next(), "WATCHDOG=1"));
    hub.signal(Signal::TERM);
    while manager.next() == "WATCHDOG=1" {}
    hub.expect_clean_exit();
}

#[test]
fn what_one_loop_does_is_refused_for_several() {
    for (arguments, complaint) in [
        (&["--exec", "cat"][..], "--exec: its programs are looked after by one loop"),
        #[cfg(feature = "upstream")]
        (
            &["--topics", "--upstream", "ws://127.0.0.1:1"],
            "--upstream: its topics are joined by one",
        ),
        #[cfg(feature = "broker")]
        (
            &["--topics", "--broker", "mqtt://127.0.0.1"],
            "--broker: its topics are joined by one loop",
        ),
        (&["--echo", "--memory", "1m", "--max-message", "900k"], "max_frame_size is"),
    ] {
        for checks in [true, false] {
            let check: &[&str] = if checks { &["--check"] } else { &[] };
            let output =
                run(&[arguments, check, &["--loops", "2", "--listen", "127.0.0.1:0"]].concat());
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
            assert!(text.contains(complaint), "{text}");
        }
    }
    assert!(run(&["--check", "--topics", "--loops", "4"]).status.success());
}

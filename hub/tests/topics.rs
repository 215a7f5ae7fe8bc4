//! Topics: what one client sends, all others on the topic receive.

mod support;

use std::io::{Read, Write};

use support::Hub;
use support::client::{
    BINARY, CLOSE, Client, TEXT, close_payload, masked, millis, upgrade_request,
};

/// Sends and waits until the server has read it: its Close comes back behind everything else.
fn say_and_leave(mut client: Client, texts: &[&str]) {
    for text in texts {
        client.text(text);
    }
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_close(1000);
}

#[test]
fn all_others_on_the_topic_receive_what_one_sends() {
    let hub = Hub::start(&["--topics"]);
    let mut members: Vec<Client> = (0..3).map(|_| hub.upgrade("/topic/kitchen")).collect();
    let mut elsewhere = hub.upgrade("/topic/cellar");
    members[0].text("tea?");
    members[0].send(BINARY, &[1, 2, 3]);
    for other in &mut members[1..] {
        other.expect_text("tea?");
        let frame = other.frame();
        assert_eq!((frame.first, frame.payload.as_slice()), (BINARY, &[1, 2, 3][..]));
    }
    members[1].text("yes");
    members[0].expect_text("yes"); // and nothing of its own before
    say_and_leave(hub.upgrade("/topic/cellar"), &["dark"]);
    elsewhere.expect_text("dark");
}

#[test]
fn a_newcomer_gets_the_last_messages() {
    let hub = Hub::start(&["--topics", "--replay", "2"]);
    say_and_leave(hub.upgrade("/topic/log"), &["one", "two", "three"]);
    let mut late = hub.upgrade("/topic/log");
    late.expect_text("two");
    late.expect_text("three");
}

#[test]
fn topics_are_named_within_reason() {
    let hub = Hub::start(&["--topics"]);
    let long = format!("/topic/{}", "x".repeat(129));
    let status = |path: &str| hub.connect().request(&upgrade_request(path, "")).status;
    assert_eq!(status(&long), 400);
    assert_eq!(status("/topic/"), 404);
    assert_eq!(status("/topic/a%2Fb"), 101);
}

#[test]
fn topics_that_nobody_is_on_make_room() {
    let hub = Hub::start(&["--topics"]);
    let kept = hub.upgrade("/topic/kept");
    for number in 0..1100 {
        say_and_leave(hub.upgrade(&format!("/topic/{number}")), &[]);
    }
    drop(kept);
}

/// Floods a topic of which one member does not read. Whether another one sees the end of the flood.
fn flood_ends(overflow: &str) -> bool {
    let hub = Hub::start(&["--topics", "--overflow", overflow]);
    let mut reader = hub.upgrade("/topic/flood");
    let idle = hub.upgrade("/topic/flood");
    let sender = hub.upgrade("/topic/flood");
    let mut writer = sender.stream.try_clone().unwrap();
    let sending = std::thread::Builder::new()
        .spawn(move || {
            // 36 MB are far more than the buffers of two connections hold. The write ends early
            // where the hub reads no more, when the test is over.
            let flood = masked(TEXT, &[b'x'; 60_000]);
            let sent = (0..600).all(|_| writer.write_all(&flood).is_ok());
            sent && writer.write_all(&masked(TEXT, b"end")).is_ok()
        })
        .unwrap();
    reader.stream.set_read_timeout(Some(millis(1500))).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut tail = Vec::new();
    let ended = loop {
        match reader.stream.read(&mut buffer) {
            Ok(0) | Err(_) => break false,
            Ok(length) => tail.extend_from_slice(&buffer[..length]),
        }
        if tail.ends_with(b"\x81\x03end") {
            break true;
        }
        tail.drain(..tail.len().saturating_sub(5));
    };
    drop((idle, reader, sender, hub));
    let _ = sending.join().unwrap();
    ended
}

#[test]
fn who_does_not_read_holds_nobody_up_unless_that_is_wanted() {
    assert!(flood_ends("drop-oldest"));
    assert!(!flood_ends("suspend"), "the sender was to be held back");
}

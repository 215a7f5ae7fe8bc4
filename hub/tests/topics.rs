//! Topics: what one client sends, all others on the topic receive.

mod support;

use std::io::Read;
use std::sync::mpsc::RecvTimeoutError;

use support::client::{
    BINARY, CLOSE, Client, Frame, PATIENCE, PING, TEXT, close_payload, millis, upgrade_request,
};
use support::{Hub, run};

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

/// However large they are, or small.
#[test]
fn a_newcomer_gets_as_many_as_are_replayed() {
    for (replay, length) in [("100", 10_000), ("5000", 10), ("8", 65_536)] {
        let hub = Hub::start(&["--topics", "--replay", replay]);
        let count = replay.parse().unwrap();
        let texts: Vec<_> =
            (0..=count).map(|number| format!("{number}{}", "x".repeat(length - 4))).collect();
        let said: Vec<&str> = texts.iter().map(String::as_str).collect();
        say_and_leave(hub.upgrade("/topic/log"), &said);
        let mut late = hub.upgrade("/topic/log");
        texts[1..].iter().for_each(|text| late.expect_text(text));
    }
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

/// How many messages of 60 kB are said to somebody who does not read: far more than buffers hold.
const SAID: usize = 200;

/// A hub and one on its topic who has read nothing while `SAID` numbered messages were said there,
/// and the one who said them.
struct Stopped {
    reader: Client,
    sender: Client,
    hub: Hub,
}

impl Stopped {
    fn under(overflow: &str) -> Self {
        let hub = Hub::start(&["--topics", "--ping-period", "0", "--overflow", overflow]);
        let reader = hub.upgrade("/topic/flood");
        let mut sender = hub.upgrade("/topic/flood");
        let filling = "x".repeat(60_000);
        for number in 0..SAID {
            sender.text(&format!("{number:03}{filling}"));
            sender.send(PING, b"read?"); // each is in the topic before the next is said
            assert_eq!(sender.frame().payload, b"read?");
        }
        Self { reader, sender, hub }
    }

    /// What the reader gets from now on, by number, until it gets what `is_last` accepts.
    fn read_until(&mut self, is_last: impl Fn(&Frame) -> bool) -> (Vec<usize>, Frame) {
        let mut numbers = Vec::new();
        loop {
            let frame = self.reader.frame();
            if is_last(&frame) {
                return (numbers, frame);
            }
            numbers.push(std::str::from_utf8(&frame.payload[..3]).unwrap().parse().unwrap());
        }
    }
}

/// How many come without a gap, from 0 on, and what comes behind the gap.
fn split_at_gap(numbers: &[usize]) -> (usize, &[usize]) {
    let whole = numbers.iter().enumerate().take_while(|(at, number)| at == *number).count();
    (whole, &numbers[whole..])
}

#[test]
fn if_that_is_wanted_who_does_not_read_holds_the_sender_up_and_nothing_is_lost() {
    let hub = Hub::start(&["--topics", "--ping-period", "0", "--overflow", "suspend"]);
    let mut reader = hub.upgrade("/topic/flood");
    let mut sender = hub.upgrade("/topic/flood");
    let message = vec![b'x'; 60_000];
    let mut pong = [0; 7];
    sender.stream.set_read_timeout(Some(millis(1500))).unwrap();
    // A sender that is held up is not read: its ping gets no answer.
    let said = (1..SAID).find(|_| {
        sender.send(TEXT, &message);
        sender.send(PING, b"read?");
        sender.stream.read_exact(&mut pong).is_err()
    });
    for _ in 0..said.expect("the sender was to be held up") {
        assert_eq!(reader.frame().payload.len(), message.len());
    }
    sender.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    sender.stream.read_exact(&mut pong).unwrap();
    sender.text("end");
    reader.expect_text("end");
}

#[test]
fn dropping_the_oldest_keeps_the_newest_few() {
    let mut stopped = Stopped::under("drop-oldest");
    let (numbers, _) = stopped.read_until(|frame| frame.payload.starts_with(b"199"));
    let (whole, newest) = split_at_gap(&numbers);
    assert!(whole > 0 && whole + newest.len() < SAID - 1, "{numbers:?}");
    let expected: Vec<usize> = (SAID - 1 - newest.len()..SAID - 1).collect();
    assert!(newest == expected && !newest.is_empty(), "{newest:?}");
}

#[test]
fn of_the_latest_only_one_waits_for_who_does_not_read_and_for_who_joins() {
    let mut stopped = Stopped::under("latest");
    let mut late = stopped.hub.upgrade("/topic/flood");
    assert!(late.frame().payload.starts_with(b"199"));
    let (numbers, _) = stopped.read_until(|frame| frame.payload.starts_with(b"199"));
    let (whole, rest) = split_at_gap(&numbers);
    assert!(whole > 0 && whole < SAID - 1 && rest.is_empty(), "{numbers:?}");
    stopped.sender.text("200");
    stopped.reader.expect_text("200");
    late.expect_text("200");
}

#[test]
fn who_missed_something_is_ended_if_that_is_wanted_and_others_are_not() {
    let mut stopped = Stopped::under("close");
    let mut late = stopped.hub.upgrade("/topic/flood");
    let (numbers, close) = stopped.read_until(|frame| frame.first == CLOSE);
    let (whole, _) = split_at_gap(&numbers);
    assert!(whole > 0 && whole < SAID, "{numbers:?}");
    assert_eq!(close.payload, close_payload(1013, "messages missed"));
    stopped.sender.text("200");
    late.expect_text("200");
}

#[test]
fn dropping_the_latest_keeps_what_was_there() {
    let mut stopped = Stopped::under("drop-latest");
    // Once the reader has room again, something that is said arrives.
    let mut sender = stopped.hub.upgrade("/topic/flood");
    let (stop, stopping) = std::sync::mpsc::channel::<()>();
    let saying = std::thread::Builder::new()
        .spawn(move || {
            while stopping.recv_timeout(millis(5)) == Err(RecvTimeoutError::Timeout) {
                sender.text("later");
            }
        })
        .unwrap();
    let (numbers, _) = stopped.read_until(|frame| frame.payload == b"later");
    drop(stop);
    saying.join().unwrap();
    let (whole, rest) = split_at_gap(&numbers);
    assert!(whole > 0 && whole < SAID && rest.is_empty(), "{numbers:?}");
}

#[test]
fn a_replay_beside_the_latest_is_refused() {
    let output = run(&["--topics", "--check", "--overflow", "latest", "--replay", "3"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("give no --replay"), "{text}");
}

#[test]
fn what_is_kept_for_nobody_makes_room_for_those_who_are_there() {
    let hub = Hub::start(&["--topics", "--replay", "20", "--memory", "4m", "--ping-period", "0"]);
    let text = "x".repeat(50_000);
    // Far more than fits, on topics that nobody is on afterwards.
    for number in 0..60 {
        say_and_leave(hub.upgrade(&format!("/topic/left-{number}")), &[text.as_str(); 5]);
    }
    let mut reader = hub.upgrade("/topic/new");
    let mut speaker = hub.upgrade("/topic/new");
    for number in 0..50 {
        let said = format!("{number} {text}");
        speaker.text(&said);
        reader.expect_text(&said);
    }
    // The newest of those that nobody is on is the last to go.
    say_and_leave(hub.upgrade("/topic/short"), &["kept"]);
    hub.upgrade("/topic/short").expect_text("kept");
}

//! Links over a broker in memory: what goes to and fro, what is counted, and brokers that misbehave. No test
//! waits.

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use support::{Broker, Site, plain, text_of};
use wirewheel::Application;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow, Taken};
use wirewheel::message::MessageBuf;
use wirewheel::testing::{Stream, TestApplication};
use wirewheel_mqtt::Link;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn two() -> (Broker, Site, Site) {
    let (mut broker, one, two) = (Broker::default(), Site::new(plain), Site::new(plain));
    broker.connect_all(&[&one, &two]);
    assert_eq!((one.changes(), two.changes()), (vec!["up".to_owned()], vec!["up".to_owned()]));
    (broker, one, two)
}

#[test]
fn messages_go_to_and_fro_raw_in_order_and_none_comes_back() {
    let (mut broker, one, two) = two();
    for n in 0..300 {
        one.say(format!("{n}").as_str());
    }
    one.say(&[0xff, 0][..]);
    one.say(&b"binary that is UTF-8"[..]);
    broker.settle(&[&one, &two]);
    let numbers: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let (heard, missed) = two.heard_and_missed();
    assert_eq!((&heard[..300], missed), (&numbers[..], 0));
    assert_eq!(heard[300..], ["[255, 0]", &format!("{:?}", b"binary that is UTF-8")]);
    assert_eq!(one.heard().len(), 302, "what it says itself it hears once");
    two.say("back");
    broker.settle(&[&one, &two]);
    assert_eq!((one.heard(), two.heard()), (vec!["back".to_owned()], vec!["back".to_owned()]));
    // Any sensor takes part, and has no numbers.
    broker.publish_as_foreigner("hall/room", "21.5 \u{b0}C".as_bytes(), false);
    broker.publish_as_foreigner("hall/room", &[0xfe], false);
    broker.publish_as_foreigner("other/room", b"of somebody else", false);
    broker.settle(&[&one, &two]);
    for site in [&one, &two] {
        assert_eq!(site.heard_and_missed(), (vec!["21.5 \u{b0}C".into(), "[254]".into()], 0));
    }
    let counts = one.link.counts();
    assert_eq!((counts.sent, counts.dropped, counts.received, counts.missed), (302, 0, 3, 0));
}

#[test]
fn who_joins_gets_the_newest_of_each_key_and_what_is_removed_is_removed_everywhere() {
    let (mut broker, one, two) = two();
    for (key, value) in [("attic", "31"), ("cellar", "11"), ("attic", "32")] {
        one.set(key, value);
    }
    broker.settle(&[&one, &two]);
    let late = Site::new(plain);
    broker.connect_all(&[&one, &two, &late]);
    for site in [&one, &two, &late] {
        assert_eq!(
            (site.value("attic"), site.value("cellar")),
            (Some("32".into()), Some("11".into()))
        );
    }
    late.app.with_server(|_| assert!(late.gauges.remove("attic")));
    broker.publish_as_foreigner("hall/gauges/yard/north", b"7", true);
    broker.publish_as_foreigner("hall/gauges/cellar", b"", true);
    broker.settle(&[&one, &two, &late]);
    for site in [&one, &two, &late] {
        let values = ["attic", "cellar", "yard/north"].map(|key| site.value(key));
        assert_eq!(values, [None, None, Some("7".into())]);
    }
    assert_eq!(broker.retained.keys().collect::<Vec<_>>(), ["hall/gauges/yard/north"]);
}

#[test]
fn names_that_a_broker_would_take_for_filters_are_not_shared() {
    let (mut broker, one, two) = two();
    for key in ["a+", "#", "a\0", "a\u{1}", "\u{9f}", "\u{ffff}", "fine"] {
        one.set(key, "1");
    }
    one.set("empty", "");
    broker.settle(&[&one, &two]);
    assert_eq!(two.gauges.newest().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["fine"]);
    assert_eq!(one.link.counts().dropped, 7);
    let app = TestApplication::new(|app: &mut Application| {
        let room: SharedFlow = app.flow(FlowOptions::new());
        for topic in ["", "$SYS/x", "a/#", "a+", "a\0"] {
            assert!(Link::to("mqtt://b").share(&room, topic).start(app).is_err(), "{topic:?}");
        }
        let twice = Link::to("mqtt://b").share(&room, "a").share(&room, "a").start(app);
        assert!(twice.unwrap_err().to_string().contains("already"));
        assert!(Link::to("mqtt://b").prefix("#").start(app).is_err());
        assert!(Link::to("mqtt://b").max_waiting(0).start(app).is_err());
        assert!(Link::to("mqtt://b").keep_alive(Duration::ZERO).start(app).is_err());
    });
    drop(app.unwrap());
}

#[test]
fn while_the_broker_is_away_each_box_goes_on_and_the_gap_is_exact() {
    let (mut broker, one, two) = two();
    one.set("level", "0");
    one.say("before");
    broker.settle(&[&one, &two]);
    for n in 0..5 {
        one.say(format!("on the wire {n}").as_str());
    }
    broker.kill();
    broker.advance(&[&one, &two], secs(1));
    for n in 0..2_000 {
        one.say(format!("away {n}").as_str());
    }
    one.set("level", "1");
    one.set("level", "2");
    broker.advance(&[&one, &two], secs(1));
    assert_eq!(one.heard().len(), 2_006, "local delivery");
    assert_eq!(one.changes(), ["it has ended the connection"]);
    broker.is_down = false;
    let begun = one.app.elapsed();
    broker.connect_all(&[&one, &two]);
    assert!(one.app.elapsed() - begun <= secs(3));
    one.say("after");
    broker.settle(&[&one, &two]);
    let (heard, missed) = two.heard_and_missed();
    assert_eq!((heard.as_slice(), missed), (&["before".to_owned(), "after".into()][..], 2_005));
    // Nothing is sent late but the newest of each key.
    assert_eq!(two.value("level"), Some("2".into()));
    let counts = (one.link.counts(), two.link.counts());
    assert_eq!(counts.1.missed, 2_005 + 1, "one value was replaced before it was sent");
    assert_eq!(counts.0.dropped, 2_000 + 1);
    // A link that starts anew is no gap.
    let fresh = Site::new(plain);
    broker.connect_all(&[&one, &two, &fresh]);
    fresh.say("hello");
    broker.settle(&[&one, &two, &fresh]);
    assert_eq!(two.heard_and_missed(), (vec!["hello".into()], 0));
}

#[test]
fn what_is_dropped_or_skipped_in_a_flow_is_missed_on_the_other_boxes() {
    let options = FlowOptions::new().extra_buffer(2).on_buffer_overflow(BufferOverflow::DropOldest);
    let few = |link: Link| link.max_waiting(1 << 10);
    let (mut broker, one, two) = (Broker::default(), Site::with(options, few), Site::new(plain));
    broker.connect_all(&[&one, &two]);
    one.say("first");
    broker.settle(&[&one, &two]);
    // The broker reads nothing: after some messages the window is full, and the flow drops for the link.
    broker.clients[0].is_stalled = true;
    for n in 0..200 {
        one.say(format!("message {n:03}").as_str());
    }
    assert_eq!(one.heard().len(), 201, "nobody here waits for the broker");
    assert!(one.room.dropped() > 100, "{}", one.room.dropped());
    broker.clients[0].is_stalled = false;
    broker.settle(&[&one, &two]);
    one.app.with_server(|_| one.room.skip(7));
    one.say("last");
    broker.settle(&[&one, &two]);
    let (heard, missed) = two.heard_and_missed();
    assert_eq!(heard.len() as u64 + missed, 1 + 200 + 7 + 1);
    assert_eq!(missed, one.room.dropped() + 7);
    let numbers = heard.iter().filter_map(|text| text.strip_prefix("message "));
    assert!(numbers.is_sorted());
    assert_eq!((heard.first(), heard.last()), (Some(&"first".into()), Some(&"last".into())));
}

#[test]
fn under_suspend_the_link_holds_publishers_up_and_nothing_is_lost() {
    let options = FlowOptions::new().extra_buffer(4);
    let few = |link: Link| link.max_waiting(1 << 10);
    let (mut broker, one, two) = (Broker::default(), Site::with(options, few), Site::new(plain));
    broker.connect_all(&[&one, &two]);
    broker.clients[0].is_stalled = true;
    let mut said = 0;
    while !one.room.would_suspend() {
        one.say(format!("{said}").as_str());
        said += 1;
    }
    broker.clients[0].is_stalled = false;
    broker.settle(&[&one, &two]);
    assert!(!one.room.would_suspend());
    assert_eq!(two.heard_and_missed(), ((0..said).map(|n| n.to_string()).collect(), 0));
}

#[test]
fn with_qos_1_at_most_as_many_are_unacknowledged_as_the_broker_wants_and_repeats_are_dropped() {
    let confirmed = |link: Link| link.at_least_once(true);
    let (one, two) = (Site::new(confirmed), Site::new(confirmed));
    let mut broker = Broker { receive_maximum: Some(3), repeats: true, ..Broker::default() };
    broker.connect_all(&[&one, &two]);
    for n in 0..50 {
        one.say(format!("{n}").as_str());
    }
    broker.settle(&[&one, &two]);
    assert_eq!(two.heard_and_missed(), ((0..50).map(|n| n.to_string()).collect(), 0));
    assert_eq!(two.link.counts().duplicates, 50);
    broker.clients[0].is_stalled = true;
    for n in 0..50 {
        one.say(format!("{n}").as_str());
    }
    assert_eq!(one.link.counts().sent, 53);
}

/// Its acknowledgement was waited for, and with all of them so awaited the link sent nothing any more.
#[test]
fn what_the_server_has_no_room_for_is_dropped_and_the_link_goes_on() {
    let mut broker = Broker { receive_maximum: Some(3), ..Broker::default() };
    let one = Site::new(|link: Link| link.at_least_once(true));
    broker.connect_all(&[&one]);
    let options = FlowOptions::new().max_bytes(64 << 20);
    let ballast: SharedFlow<MessageBuf> = SharedFlow::with(options).unwrap();
    let reader = one.app.with_server(|server| {
        for _ in 0..3 {
            one.room.emit(&MessageBuf::from("x".repeat(2_000))).unwrap();
        }
        let reader = server.read_flow(&ballast, |_, batch| {
            batch.next();
            Taken::Later
        });
        // All that the server may hold.
        let mut bytes = 1 << 20;
        while bytes > 64 {
            while ballast.emit(&MessageBuf::from(vec![7; bytes])).is_ok() {}
            bytes /= 2;
        }
        reader
    });
    assert_eq!((one.link.counts().sent, one.link.counts().dropped), (0, 3));
    one.app.with_server(|server| server.stop_reading(reader));
    one.say("there is room");
    broker.settle(&[&one]);
    assert_eq!((one.link.counts().sent, one.link.counts().dropped), (1, 3));
}

#[test]
fn flows_are_shared_and_unshared_while_it_runs() {
    let (mut broker, one, two) = two();
    let flows = [&one, &two].map(|site| {
        let policy = BufferOverflow::DropOldest;
        let options = FlowOptions::new().replay(4).on_buffer_overflow(policy);
        let flow: SharedFlow<MessageBuf> = SharedFlow::with(options).unwrap();
        site.app.with_server(|server| site.link.share(server, &flow, "more")).unwrap();
        let again = site.app.with_server(|server| site.link.share(server, &flow, "more"));
        assert!(again.is_err());
        flow
    });
    broker.settle(&[&one, &two]);
    one.app.with_server(|_| flows[0].emit(&"hello".into())).unwrap();
    broker.settle(&[&one, &two]);
    assert_eq!(flows[1].replay_cache().iter().map(text_of).collect::<Vec<_>>(), ["hello"]);
    assert!(two.app.with_server(|server| two.link.unshare(server, "more")));
    assert!(!two.app.with_server(|server| two.link.unshare(server, "more")));
    broker.settle(&[&one, &two]);
    one.app.with_server(|_| flows[0].emit(&"nobody".into())).unwrap();
    broker.settle(&[&one, &two]);
    assert_eq!((flows[1].replay_cache().len(), flows[1].subscription_count()), (1, 0));
    one.say("the others go on");
    broker.settle(&[&one, &two]);
    assert_eq!(two.heard(), ["the others go on"]);
}

/// A box with a broker that the test plays.
struct Bad {
    site: Site,
    stream: Stream,
}

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const SUBACK: &[u8] = &[0x90, 5, 0, 1, 0, 0, 0];

impl Bad {
    fn new(change: impl FnOnce(Link) -> Link) -> Self {
        let site = Site::new(change);
        let stream = Self::accept(&site);
        Self { site, stream }
    }

    fn accept(site: &Site) -> Stream {
        site.far.expect_connection_within(secs(70)).into_client().into_stream()
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// What the link has sent since this was last asked.
    fn heard(&mut self) -> Vec<u8> {
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = self.stream.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..length]);
        }
        heard
    }

    /// Whether the link has ended the connection.
    fn is_ended(&mut self) -> bool {
        self.site.app.advance(Duration::from_millis(10));
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

#[test]
fn bytes_that_are_no_mqtt_end_the_connection_and_another_attempt_follows() {
    let garbage: [&[u8]; 12] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0; 16],
        &[0xff; 16],
        &[0x20, 0xff, 0xff, 0xff, 0xff, 1], // a length without an end
        &[0x20, 0xff, 0xff, 0xff, 0x7f],    // 256 MiB
        &[0x30, 2, 0, 0],                   // a message before CONNACK
        &[0x20, 3, 0, 0x87, 0],             // not authorized
        &[0x20, 2, 0, 1],                   // MQTT 3.1.1
        &[0x20, 3, 0, 0, 5],                // properties that are not there
        &[0xd0, 0],                         // PINGRESP first
        &[0xe0, 0],                         // DISCONNECT
        &[0x10, 2, 0, 0],                   // CONNECT, of a client
    ];
    for bytes in garbage {
        let mut bad = Bad::new(plain);
        bad.say(bytes);
        assert!(bad.is_ended(), "{bytes:?}");
        assert!(!bad.site.link.is_up() && bad.site.changes().is_empty());
        bad.site.say("nobody here minds");
        assert_eq!(bad.site.heard(), ["nobody here minds"]);
        let _another = Bad::accept(&bad.site);
    }
    // And once it is up.
    let later: [&[u8]; 7] = [
        CONNACK,
        &[0x36, 2, 0, 0],                            // QoS 3
        &[0x34, 6, 0, 1, b'a', 0, 1, 0],             // QoS 2, which nobody asked for
        &[0x40, 2, 0, 9],                            // PUBACK of nothing
        &[0x30, 5, 0, 9, b'a', 0, 0],                // a topic longer than its packet
        &[0x30, 9, 0, 1, b'a', 5, 0x26, 0, 9, 0, 0], // a property longer than its packet
        &[0x30, 0xff, 0xff, 0xff, 0x7f],             // 256 MiB
    ];
    for bytes in later {
        let mut bad = Bad::new(plain);
        bad.say(CONNACK);
        bad.say(SUBACK);
        assert!(bad.site.link.is_up() && bad.site.changes() == ["up"], "{bytes:?}");
        bad.say(bytes);
        assert!(bad.is_ended(), "{bytes:?}");
        assert!(!bad.site.link.is_up() && bad.site.changes().len() == 1, "{bytes:?}");
        let _another = Bad::accept(&bad.site);
    }
}

#[test]
fn a_broker_that_is_silent_is_noticed_at_every_stage() {
    let quick = |link: Link| link.keep_alive(secs(5));
    for stage in 0..3 {
        let mut bad = Bad::new(quick);
        if stage > 0 {
            bad.say(CONNACK);
        }
        if stage > 1 {
            bad.say(SUBACK);
        }
        bad.site.app.advance(secs(4));
        assert!(!bad.is_ended(), "{stage}");
        bad.site.app.advance(secs(7));
        assert!(bad.is_ended(), "{stage}");
        let _another = Bad::accept(&bad.site);
    }
}

#[test]
fn a_broker_that_wants_to_hear_more_often_does() {
    let mut bad = Bad::new(plain);
    bad.say(&[0x20, 6, 0, 0, 3, 0x13, 0, 2]); // a keep-alive of 2 s
    bad.say(SUBACK);
    bad.say(&[0xd0, 0]); // nothing is kept
    bad.site.app.advance(Duration::from_millis(2_100));
    let mut heard = [0; 4096];
    let length = bad.stream.read(&mut heard).unwrap();
    assert!(heard[..length].ends_with(&[0xc0, 0]), "a ping");
    bad.say(&[0xd0, 0]);
    bad.site.app.advance(secs(3));
    assert!(bad.site.link.is_up());
    bad.site.app.advance(secs(3));
    assert!(!bad.site.link.is_up());
}

/// A broker may know no QoS but 0, and refuse a Will of another.
#[test]
fn a_will_asks_for_no_more_than_the_link_does() {
    for at_least_once in [false, true] {
        let mut bad = Bad::new(|link| link.presence("boxes").at_least_once(at_least_once));
        let connect = bad.heard();
        assert_eq!(connect[2..9], *b"\0\x04MQTT\x05", "{connect:?}");
        assert_eq!(connect[9] >> 2 & 7, 1 | u8::from(at_least_once) << 1, "a Will of that QoS");
    }
}

#[test]
fn a_broker_that_never_reads_holds_a_bounded_amount_and_nobody_else_up() {
    let few = |link: Link| link.max_waiting(16 << 10).keep_alive(secs(5));
    let mut bad = Bad::new(few);
    bad.say(CONNACK);
    bad.say(SUBACK);
    let long = "x".repeat(1_000);
    for _ in 0..5_000 {
        bad.site.say(long.as_str());
    }
    assert_eq!(bad.site.heard().len(), 5_000);
    let (held, sent) = (bad.site.app.stats().bytes_held, bad.site.link.counts().sent);
    assert!(held < 200 << 10 && sent < 40, "{held} bytes, {sent} sent");
    bad.site.app.advance(secs(11));
    assert!(bad.is_ended());
}

#[test]
fn a_flood_and_packets_in_single_bytes_are_taken_in_their_turn() {
    let mut bad = Bad::new(plain);
    for byte in CONNACK.iter().chain(SUBACK) {
        bad.say(&[*byte]);
    }
    assert!(bad.site.link.is_up());
    let message = [&[0x30, 14, 0, 9][..], b"hall/room", &[0], b"hi"].concat();
    for _ in 0..1_000 {
        bad.say(&message.repeat(100));
    }
    assert_eq!(bad.site.link.counts().received, 100_000);
    for byte in &message {
        bad.say(&[*byte]);
    }
    assert_eq!(bad.site.link.counts().received, 100_001);
}

#[test]
fn a_packet_that_has_come_in_part_counts_as_held_and_one_that_is_too_large_is_refused_at_its_header()
 {
    const MOST: usize = 4 << 10;
    let mut bad = Bad::new(|link| link.max_packet(MOST));
    bad.say(CONNACK);
    bad.say(SUBACK);
    let held = |bad: &Bad| bad.site.app.stats().bytes_held;
    let before = held(&bad);
    let payload = vec![b'x'; MOST - 15];
    let message = [&[0x30, 0xfd, 0x1f, 0, 9][..], b"hall/room", &[0], &payload].concat();
    assert_eq!(message.len(), MOST);
    for (at, byte) in message.iter().enumerate() {
        bad.say(&[*byte]);
        let kept = held(&bad) - before;
        let came = if at + 1 < MOST { at as u64 + 1 } else { 0 };
        assert!((came..=2 * came.max(4)).contains(&kept), "{kept} of {came}");
    }
    assert_eq!((bad.site.link.counts().received, held(&bad)), (1, before));
    // Three packets, of which the first two end in the second read.
    let small = [&[0x30, 14, 0, 9][..], b"hall/room", &[0], b"hi"].concat();
    let three = [small.as_slice(), &small, &message[..60]].concat();
    bad.say(&three[..7]);
    bad.say(&three[7..]);
    assert_eq!(bad.site.link.counts().received, 3);
    assert!((60..200).contains(&(held(&bad) - before)));
    bad.say(&message[60..]);
    assert_eq!((bad.site.link.counts().received, held(&bad)), (4, before));
    // A byte longer.
    bad.say(&[0x30, 0xfe]);
    assert!(!bad.is_ended());
    bad.say(&[0x1f]);
    assert!(bad.is_ended());
    assert!(held(&bad) < before, "no more than the room of its outbox, which it has had");
}

#[test]
fn publishers_that_are_remembered_count_as_held() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    let before = bad.site.app.stats().bytes_held;
    for epoch in 0..1_000 {
        let number = format!("{epoch:016x}-1");
        let property =
            [&[0x26, 0, 16][..], b"wirewheel-number", &[0, 18], number.as_bytes()].concat();
        let length = u8::try_from(property.len()).unwrap();
        let message = [&[0x30, 2 + 9 + 1 + length, 0, 9][..], b"hall/room", &[length], &property];
        bad.say(&message.concat());
    }
    assert_eq!(bad.site.link.counts().received, 1_000);
    let held = bad.site.app.stats().bytes_held - before;
    assert!((256 * 32..256 * 128).contains(&held), "{held}");
}

#[test]
fn a_broker_that_refuses_or_gives_the_name_to_another_is_asked_less_and_less_often() {
    let surely: fn(Link) -> Link = |link| link.at_least_once(true);
    for (link, answers) in [
        (plain as fn(Link) -> Link, &[&[0x20, 3, 0, 0x86, 0][..]][..]),
        (plain, &[CONNACK, SUBACK, &[0xe0, 2, 0x8e, 0]]),
        // What this box refuses: no QoS 1, and something that is no broker.
        (surely, &[&[0x20, 5, 0, 0, 2, 0x24, 0]]),
        (plain, &[b"SSH-2.0-dropbear\r\n"]),
    ] {
        let site = Site::new(link);
        let (mut attempts, begun) = (0, site.app.elapsed());
        while site.app.elapsed() - begun < secs(3_600) {
            let Some(connection) = site.far.next_connection() else {
                site.app.advance(secs(1));
                continue;
            };
            attempts += 1;
            let mut stream = connection.into_client().into_stream();
            for answer in answers {
                let _ = stream.write_all(answer);
            }
            site.app.advance(Duration::from_millis(20));
        }
        assert!((2..70).contains(&attempts), "{attempts} attempts in an hour");
    }
}

/// The SUBSCRIBE that is on its way does not name it.
#[test]
fn a_flow_that_is_shared_before_the_subscriptions_are_answered_is_subscribed_to() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    let late: SharedFlow<MessageBuf> = SharedFlow::with(FlowOptions::new()).unwrap();
    let site = &bad.site;
    site.app.with_server(|server| site.link.share(server, &late, "late")).unwrap();
    bad.say(SUBACK);
    assert!(bad.site.link.is_up());
    assert!(contains(&bad.heard(), b"hall/late"));
}

/// The broker refuses these places of the SUBSCRIBE of that id, which has so many.
fn suback(id: u8, of: u8, refused: &[u8]) -> Vec<u8> {
    let codes = (0..of).map(|place| if refused.contains(&place) { 0x87 } else { 0 });
    [0x90, 3 + of, 0, id, 0].into_iter().chain(codes).collect()
}

fn share_late(site: &Site, topics: &[&str]) {
    for topic in topics {
        let late: SharedFlow<MessageBuf> = SharedFlow::with(FlowOptions::new()).unwrap();
        site.app.with_server(|server| site.link.share(server, &late, topic)).unwrap();
    }
}

/// How many filters each SUBSCRIBE has that is there, and its id.
fn subscribes(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match *length {
            low @ 0..0x80 => (usize::from(low), rest),
            low => (usize::from(low & 0x7f) | usize::from(rest[0]) << 7, &rest[1..]),
        };
        let (body, behind) = rest.split_at(length);
        if *first == 0x82 {
            let (mut filters, mut count) = (&body[3..], 0);
            while let [0, length, rest @ ..] = filters {
                (filters, count) = (&rest[usize::from(*length) + 1..], count + 1);
            }
            found.push((body[1], count));
        }
        bytes = behind;
    }
    found
}

#[test]
fn a_topic_that_the_broker_refuses_does_not_cut_the_others_off() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    share_late(&bad.site, &["ops/x"]);
    bad.say(&suback(2, 1, &[0]));
    assert!(bad.site.link.is_up());
    for round in 0..5 {
        bad.say(&[0xe0, 0]);
        assert!(bad.is_ended());
        bad.site.app.advance(secs(3)); // without a longer pause
        bad.stream = bad.site.far.next_connection().expect("it dials").into_client().into_stream();
        bad.heard();
        bad.say(CONNACK);
        let [(id, 3)] = subscribes(&bad.heard())[..] else { panic!("one SUBSCRIBE") };
        // One that the link was made for may be refused too.
        bad.say(&suback(id, 3, &[2, round % 2]));
        assert!(bad.site.link.is_up(), "{round}");
        bad.say(&[0xd0, 0]);
        bad.say(&[0xd0, 0]);
    }
    bad.site.say("to all");
    assert!(contains(&bad.heard(), b"to all"));
}

#[test]
fn a_link_that_is_refused_all_that_it_was_made_for_is_not_up() {
    let mut bad = Bad::new(plain);
    share_late(&bad.site, &["late"]);
    bad.say(CONNACK);
    bad.say(&suback(1, 3, &[0, 1]));
    assert!(bad.is_ended() && bad.site.changes().is_empty());
    // With another number of answers than of questions too.
    for of in [2, 4] {
        bad.stream = Bad::accept(&bad.site);
        bad.heard();
        bad.say(CONNACK);
        let [(id, 3)] = subscribes(&bad.heard())[..] else { panic!("one SUBSCRIBE") };
        bad.say(&suback(id, of, &[]));
        assert!(bad.is_ended() && bad.site.changes().is_empty(), "{of}");
    }
}

#[test]
fn no_subscribe_has_more_filters_or_bytes_than_a_broker_takes_and_all_are_awaited() {
    let mut bad = Bad::new(plain);
    let names: Vec<String> = (0..18).map(|n| format!("late/{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    share_late(&bad.site, &names);
    bad.say(CONNACK);
    assert_eq!(subscribes(&bad.heard()), [(1, 8), (2, 8), (3, 4)]);
    for (id, of) in [(3, 4), (1, 8)] {
        bad.say(&suback(id, of, &[]));
        assert!(!bad.site.link.is_up());
    }
    bad.say(&suback(2, 8, &[]));
    assert!(bad.site.link.is_up());
    // Four topics of 12 bytes, each with three more, and eight beside them.
    let long = "l".repeat(64);
    share_late(&bad.site, &[&long]);
    bad.say(&[0xe0, 0]);
    assert!(bad.is_ended());
    bad.stream = Bad::accept(&bad.site);
    bad.heard();
    bad.say(&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 68]); // packets of 68 bytes
    let asked = subscribes(&bad.heard());
    assert_eq!(asked.iter().map(|(_, of)| of).sum::<usize>(), 20, "{asked:?}");
    assert!(asked.iter().all(|(_, of)| *of <= 4), "{asked:?}");
    for (id, of) in asked {
        assert!(!bad.site.link.is_up());
        bad.say(&suback(id, u8::try_from(of).unwrap(), &[]));
    }
    assert!(bad.site.link.is_up());
    // Nor is one asked for, or given up, that has no room by itself.
    bad.heard();
    share_late(&bad.site, &[&"m".repeat(64)]);
    let server = |server: &mut wirewheel::ServerRef<'_>| bad.site.link.unshare(server, &long);
    assert!(bad.site.app.with_server(server));
    assert!(!contains(&bad.heard(), b"mm") && bad.site.link.is_up());
}

/// Of a message over its `message_size_limit` mosquitto says 0x95, which MQTT 5 has not for a PUBACK.
#[test]
fn a_message_that_the_broker_does_not_take_is_dropped_whatever_the_reason() {
    for (reason, is_taken) in [
        (&[][..], true),
        (&[0], true),
        (&[0x10, 0], true),
        (&[0x80], false),
        (&[0x95], false),
        (&[0x95, 5, 0x1f, 0, 2, b'n', b'o'], false),
    ] {
        let mut bad = Bad::new(|link| link.at_least_once(true));
        bad.say(CONNACK);
        bad.say(SUBACK);
        bad.site.say("long");
        let length = u8::try_from(2 + reason.len()).unwrap();
        bad.say(&[&[0x40, length, 0, 2][..], reason].concat());
        let counts = bad.site.link.counts();
        assert!(bad.site.link.is_up() && !bad.is_ended(), "{reason:?}");
        assert_eq!((counts.sent, counts.dropped), (is_taken.into(), (!is_taken).into()));
    }
    let mut bad = Bad::new(|link| link.at_least_once(true));
    bad.say(CONNACK);
    bad.say(SUBACK);
    bad.say(&[0x40, 1, 0]);
    assert!(bad.is_ended());
}

#[test]
fn a_broker_writes_no_lines_of_its_own_into_the_log() {
    let words = "go\n[ERROR] away\r\u{1b}[31m\u{9b}2J \"caf\u{e9}\"";
    let length = u8::try_from(words.len()).unwrap();
    let property = [&[length + 3, 0x1f, 0, length][..], words.as_bytes()].concat();
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    bad.say(&[&[0xe0, length + 5, 0x8b][..], &property].concat());
    assert!(bad.is_ended());
    let [_, why] = &bad.site.changes()[..] else { panic!("up and down") };
    let escaped = "go\\n[ERROR] away\\r\\u{1b}[31m\\u{9b}2J \\\"caf\u{e9}\\\"";
    assert_eq!(*why, format!("it shuts down (reason 0x8b): \"{escaped}\""));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A message of a link, as a broker brings it.
fn numbered(topic: &str, number: &str, payload: &str, retained: bool) -> Vec<u8> {
    let short = |bytes: usize| u8::try_from(bytes).unwrap();
    let property = [&[0x26, 0, 16][..], b"wirewheel-number", &[0, short(number.len())]].concat();
    let property = [&property, number.as_bytes()].concat();
    let body = [&[0, short(topic.len())][..], topic.as_bytes(), &[short(property.len())]].concat();
    let body = [&body, property.as_slice(), payload.as_bytes()].concat();
    [&[0x30 | u8::from(retained), short(body.len())][..], &body].concat()
}

fn brought(bad: &mut Bad, count: u64, value: &str, retained: bool) {
    let number = format!("{:016x}-{count}", 7);
    bad.say(&numbered(&format!("hall/gauges/{value}"), &number, value, retained));
}

#[test]
fn kept_values_that_come_with_every_connection_are_taken_once_and_the_gap_stays_exact() {
    let mut bad = Bad::new(plain);
    for connection in 0..3 {
        bad.say(CONNACK);
        bad.say(SUBACK);
        brought(&mut bad, 5, "a", true);
        brought(&mut bad, 3, "b", true);
        let counts = bad.site.link.counts();
        assert_eq!((counts.received, counts.duplicates), (2, 2 * connection));
        bad.say(&[0xe0, 0]);
        assert!(bad.is_ended());
        bad.stream = Bad::accept(&bad.site);
    }
    bad.say(CONNACK);
    bad.say(SUBACK);
    brought(&mut bad, 6, "a", false);
    for _ in 0..2 {
        brought(&mut bad, 9, "a", true);
    }
    brought(&mut bad, 10, "a", false);
    assert_eq!(bad.site.link.counts().missed, 2, "7 and 8");
}

/// MQTT orders the messages of one topic alone.
#[test]
fn a_value_behind_a_later_number_of_another_key_is_taken_and_counted_once() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    let value = |bad: &mut Bad, count, key: &str, value: &str| {
        let number = format!("{:016x}-{count}", 7);
        bad.say(&numbered(&format!("hall/gauges/{key}"), &number, value, false));
    };
    value(&mut bad, 1, "a", "1");
    value(&mut bad, 6, "b", "6");
    assert_eq!(bad.site.link.counts().missed, 4);
    value(&mut bad, 4, "c", "4");
    value(&mut bad, 3, "a", "3");
    // Of one key what is older is old, and what comes twice too.
    value(&mut bad, 2, "a", "2");
    value(&mut bad, 4, "c", "4");
    let values = ["a", "b", "c"].map(|key| bad.site.value(key).unwrap());
    assert_eq!(values, ["3", "6", "4"]);
    let counts = bad.site.link.counts();
    assert_eq!((counts.received, counts.duplicates, counts.missed), (4, 2, 4));
    // 3 and 4 were counted as missed, and came: so 7 and 8, which do not, are not counted beside them.
    value(&mut bad, 9, "b", "9");
    assert_eq!(bad.site.link.counts().missed, 4, "2, 5, 7 and 8");
    value(&mut bad, 11, "b", "11");
    assert_eq!(bad.site.link.counts().missed, 5);
}

#[test]
fn kept_values_of_a_first_join_are_taken_also_behind_a_live_one() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    brought(&mut bad, 9, "a", false);
    for _ in 0..2 {
        brought(&mut bad, 5, "b", true);
        brought(&mut bad, 7, "c", true);
    }
    brought(&mut bad, 10, "a", false);
    let counts = bad.site.link.counts();
    assert_eq!((counts.received, counts.duplicates, counts.missed), (4, 2, 0));
}

/// Brokers need not know who published what they kept, and a bridge brings back what went over it.
#[test]
fn what_this_link_has_sent_itself_is_not_taken_when_it_comes_back() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    bad.site.set("level", "1");
    let number = number_of(&bad.heard());
    bad.site.set("level", "2");
    bad.say(&numbered("hall/gauges/level", &number, "1", true));
    assert_eq!(bad.site.value("level"), Some("2".into()));
    assert_eq!((bad.site.link.counts().received, bad.site.link.counts().duplicates), (0, 1));
}

/// The number of the last message among packets of a link.
fn number_of(sent: &[u8]) -> String {
    let at = sent.windows(16).rposition(|window| window == b"wirewheel-number").unwrap();
    let length = usize::from(sent[at + 17]);
    String::from_utf8(sent[at + 18..at + 18 + length].to_vec()).unwrap()
}

const OTHERS: &str = "0000000000000007-1";

/// Says something of `level` that the broker orders behind what another has said of it.
fn crossed(bad: &mut Bad, say: impl FnOnce(&Site)) -> String {
    say(&bad.site);
    let own = number_of(&bad.heard());
    bad.say(&numbered("hall/gauges/level", OTHERS, "other's", false));
    assert_eq!(bad.site.value("level"), Some("other's".into()));
    own
}

#[test]
fn of_two_boxes_that_say_a_value_the_broker_says_which_is_the_newest() {
    for retained in [false, true] {
        let mut bad = Bad::new(plain);
        bad.say(CONNACK);
        bad.say(SUBACK);
        let own = crossed(&mut bad, |site| site.set("level", "own"));
        let echo = numbered("hall/gauges/level", &own, "own", retained);
        bad.say(&echo);
        assert_eq!(bad.site.value("level"), Some("own".into()));
        let counts = bad.site.link.counts();
        assert_eq!((counts.received, counts.duplicates), (1 + u64::from(retained), 0));
        // It is this box's own again: the next broker is shown it where it has nothing.
        bad.say(&[0xd0, 0]);
        bad.say(&[0xe0, 0]);
        assert!(bad.is_ended());
        bad.stream = Bad::accept(&bad.site);
        bad.say(CONNACK);
        bad.say(&suback(2, 2, &[]));
        bad.heard();
        (0..3).for_each(|_| bad.say(&[0xd0, 0]));
        assert!(bad.site.link.is_up() && contains(&bad.heard(), b"own"), "{retained}");
    }
}

#[test]
fn a_removal_that_the_broker_orders_behind_anothers_value_removes_it_and_a_value_stays_behind_a_removal()
 {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    bad.site.set("level", "own");
    let own = crossed(&mut bad, |site| site.remove("level"));
    bad.say(&numbered("hall/gauges/level", &own, "", false));
    assert_eq!(bad.site.value("level"), None);
    bad.site.set("level", "anew");
    let own = number_of(&bad.heard());
    bad.say(&numbered("hall/gauges/level", "0000000000000007-2", "", false));
    assert_eq!(bad.site.value("level"), None, "so far");
    bad.say(&numbered("hall/gauges/level", &own, "anew", false));
    assert_eq!(bad.site.value("level"), Some("anew".into()));
    // What was said before the removal is not there for a moment.
    bad.site.remove("level");
    bad.say(&numbered("hall/gauges/level", &own, "anew", false));
    assert_eq!(bad.site.value("level"), None);
}

#[test]
fn what_is_said_here_and_not_sent_yet_is_not_undone_by_what_was_said_before() {
    for removes in [false, true] {
        let mut bad = Bad::new(|link: Link| link.max_waiting(1 << 10));
        bad.say(CONNACK);
        bad.say(SUBACK);
        bad.say(&[0xd0, 0]);
        let own = crossed(&mut bad, |site| site.set("level", "own"));
        let long = "x".repeat(500);
        (0..9).for_each(|_| bad.site.say(long.as_str())); // there is no room
        bad.heard();
        match removes {
            true => bad.site.remove("level"),
            false => bad.site.set("level", "newer"),
        }
        let value = bad.site.value("level");
        bad.say(&numbered("hall/gauges/level", &own, "own", false));
        assert_eq!(bad.site.value("level"), value, "{removes}");
        assert!(!contains(&bad.heard(), b"level"), "not yet");
        for _ in 0..9 {
            bad.say(&[0xd0, 0]);
        }
        assert!(contains(&bad.heard(), b"level"), "{removes}");
    }
}

#[test]
fn gaps_without_end_add_up_to_the_most_that_can_be_counted() {
    let mut bad = Bad::new(plain);
    bad.say(CONNACK);
    bad.say(SUBACK);
    for epoch in 0..3 {
        for count in [0, u64::MAX] {
            bad.say(&numbered("hall/room", &format!("{epoch:016x}-{count}"), "x", false));
        }
    }
    let counts = bad.site.link.counts();
    assert_eq!((counts.received, counts.missed), (6, u64::MAX));
    assert_eq!(bad.site.heard().len(), 6);
    bad.site.say("all is well");
    assert_eq!(bad.site.heard(), ["all is well"]);
}

#[test]
fn a_removal_that_is_larger_than_the_broker_takes_is_not_sent() {
    let mut bad = Bad::new(plain);
    bad.say(&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 1, 0]); // packets of 256 bytes
    bad.say(SUBACK);
    bad.heard();
    let key = "k".repeat(300);
    bad.site.set(&key, "1");
    assert_eq!(bad.site.link.counts().dropped, 1);
    bad.site.app.with_server(|_| assert!(bad.site.gauges.remove(&key)));
    assert!(!contains(&bad.heard(), b"kkkk"));
}

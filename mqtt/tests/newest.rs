//! Flows of newest values over a broker in memory: after every fault the newest of each key is everywhere. No
//! test waits.

mod support;

use std::time::Duration;

use support::{Broker, Site, plain};

use wirewheel::flow::{FlowOptions, ReaderId, SharedFlow, Taken};
use wirewheel::message::MessageBuf;
use wirewheel::{Limits, ServerRef};
use wirewheel_mqtt::Link;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn confirmed(link: Link) -> Link {
    link.at_least_once(true)
}

fn two(change: fn(Link) -> Link) -> (Broker, Site, Site) {
    let (mut broker, one, two) = (Broker::default(), Site::new(change), Site::new(change));
    broker.connect_all(&[&one, &two]);
    (broker, one, two)
}

/// The broker is there again, and who lost it is up.
fn bring_back(broker: &mut Broker, sites: &[&Site]) {
    broker.is_down = false;
    broker.connect_all(sites);
    broker.advance(sites, secs(1));
}

/// Fills all that a server may hold, until that reader is stopped and the flow dropped.
fn fill(server: &mut ServerRef<'_>) -> (ReaderId, SharedFlow<MessageBuf>) {
    let options = FlowOptions::new().max_bytes(64 << 20);
    let ballast: SharedFlow<MessageBuf> = SharedFlow::with(options).unwrap();
    let reader = server.read_flow(&ballast, |_, batch| {
        batch.next();
        Taken::Later
    });
    let mut bytes = 1 << 20;
    while bytes > 1 << 10 {
        while ballast.emit(&MessageBuf::from(vec![7; bytes])).is_ok() {}
        bytes /= 2;
    }
    // To a few bytes.
    let fits = |bytes: &usize| ballast.emit(&MessageBuf::from(vec![7; *bytes])).is_ok();
    (0..4 << 10).rev().find(fits);
    (reader, ballast)
}

#[test]
fn a_removal_does_not_overtake_the_values_before_it() {
    let (one, two) = (Site::new(confirmed), Site::new(confirmed));
    let mut broker = Broker { in_flight: Some(2), ..Broker::default() };
    broker.connect_all(&[&one, &two]);
    one.app.with_server(|_| {
        for key in 0..10 {
            one.gauges.emit_latest(&key.to_string(), &"1".into()).unwrap();
        }
    });
    one.remove("0");
    one.set("last", "1");
    broker.settle(&[&one, &two]);
    assert_eq!(two.value("0"), None);
    for key in 1..10 {
        assert_eq!(two.value(&key.to_string()), Some("1".into()), "{key}");
    }
    assert_eq!((one.link.counts().sent, two.link.counts().missed), (11, 0));
    assert_eq!(two.link.counts().duplicates, 0);
}

/// As many as the broker takes at a time, removals among them.
#[test]
fn removals_are_acknowledged_as_values_are() {
    let (one, two) = (Site::new(confirmed), Site::new(confirmed));
    let mut broker = Broker { receive_maximum: Some(3), repeats: true, ..Broker::default() };
    broker.connect_all(&[&one, &two]);
    for round in 0..20 {
        one.set("level", &round.to_string());
        one.remove("level");
        one.set("other", &round.to_string());
        broker.settle(&[&one, &two]);
    }
    assert_eq!((two.value("level"), two.value("other")), (None, Some("19".into())));
    assert_eq!((two.link.counts().received, two.link.counts().missed), (40, 0));
    assert!(one.link.is_up() && one.changes() == ["up"]);
}

#[test]
fn newest_values_that_a_dying_connection_had_are_sent_again() {
    for change in [plain, confirmed] {
        let (mut broker, one, two) = two(change);
        one.set("level", "0");
        one.set("other", "0");
        broker.settle(&[&one, &two]);
        one.set("level", "1");
        broker.kill();
        broker.advance(&[&one, &two], secs(1));
        bring_back(&mut broker, &[&one, &two]);
        assert_eq!(two.value("level"), Some("1".into()));
        assert_eq!(one.value("level"), Some("1".into()));
        // The lost one is counted, with the first that comes after it.
        assert_eq!(two.link.counts().missed, 1);
    }
}

#[test]
fn what_a_broker_has_forgotten_is_sent_again() {
    let (mut broker, one, two) = two(plain);
    one.set("attic", "31");
    two.set("cellar", "11");
    broker.settle(&[&one, &two]);
    broker.kill();
    broker.retained.clear();
    broker.advance(&[&one, &two], secs(1));
    bring_back(&mut broker, &[&one, &two]);
    let late = Site::new(plain);
    broker.connect_all(&[&one, &two, &late]);
    assert_eq!((late.value("attic"), late.value("cellar")), (Some("31".into()), Some("11".into())));
    // Each by the box whose it is, and by no other.
    assert_eq!((one.link.counts().sent, two.link.counts().sent), (2, 2));
}

#[test]
fn what_another_box_has_said_meanwhile_is_not_undone() {
    let (mut broker, one, two) = two(plain);
    for key in ["level", "other"] {
        one.set(key, "1");
    }
    broker.settle(&[&one, &two]);
    broker.clients[0].is_over = true;
    broker.settle(&[&one, &two]);
    assert!(!one.link.is_up());
    two.set("level", "2");
    broker.publish_as_foreigner("hall/gauges/other", b"3", true);
    bring_back(&mut broker, &[&one, &two]);
    for site in [&one, &two] {
        assert_eq!(
            (site.value("level"), site.value("other")),
            (Some("2".into()), Some("3".into()))
        );
    }
    assert_eq!(one.link.counts().sent, 2);
}

#[test]
fn a_key_that_is_removed_while_the_broker_dies_or_is_away_is_removed_there_too() {
    for change in [plain, confirmed] {
        let (mut broker, one, two) = two(change);
        for key in ["dying", "away", "anew", "kept"] {
            one.set(key, "1");
        }
        broker.settle(&[&one, &two]);
        one.remove("dying");
        one.remove("anew");
        broker.kill();
        broker.advance(&[&one, &two], secs(1));
        one.remove("away");
        one.set("anew", "2");
        bring_back(&mut broker, &[&one, &two]);
        let values = ["dying", "away", "anew", "kept"].map(|key| two.value(key));
        assert_eq!(values, [None, None, Some("2".into()), Some("1".into())]);
        let kept: Vec<_> = broker.retained.keys().collect();
        assert_eq!(kept, ["hall/gauges/anew", "hall/gauges/kept"]);
    }
}

#[test]
fn newest_values_that_the_server_had_no_room_for_are_sent_when_there_is_room() {
    for change in [plain, confirmed] {
        let (mut broker, one, two) = two(change);
        one.set("gone", "1");
        one.set("level", "0");
        broker.settle(&[&one, &two]);
        // Who has not taken the values keeps them from giving way to what is to be sent.
        one.app.with_server(|server| {
            server.read_flow(&one.gauges, |_, batch| {
                batch.next();
                Taken::Later
            })
        });
        let (reader, ballast) = one.app.with_server(|server| {
            one.gauges.emit_latest("level", &"1".repeat(2_000).as_str().into()).unwrap();
            one.gauges.remove("gone");
            fill(server)
        });
        assert_eq!((one.link.counts().sent, one.link.counts().dropped), (2, 1));
        one.app.with_server(|server| server.stop_reading(reader));
        drop(ballast);
        broker.advance(&[&one, &two], secs(25));
        assert_eq!(two.value("level"), Some("1".repeat(2_000)));
        assert_eq!(two.value("gone"), None);
        assert_eq!((one.changes().len(), one.link.counts().connections), (1, 1));
    }
}

/// Of what is left when a message has no room, in some of them the ping behind it has none either.
#[test]
fn a_broker_is_not_given_up_for_a_ping_that_was_never_sent() {
    for more in 0..16 {
        let limits = Limits::new().process_bytes((4 << 20) + more);
        let options = FlowOptions::new().extra_buffer(64);
        let one = Site::within(limits, options, |link: Link| link.max_waiting(1 << 10));
        let mut broker = Broker::default();
        broker.connect_all(&[&one]);
        let (reader, ballast) = one.app.with_server(|server| {
            one.room.emit(&MessageBuf::from("x".repeat(2_000))).unwrap();
            fill(server)
        });
        one.app.with_server(|server| server.stop_reading(reader));
        drop(ballast);
        broker.advance(&[&one], secs(21));
        let counts = one.link.counts();
        assert_eq!((one.changes().len(), counts.connections), (1, 1), "{more}");
        assert_eq!((counts.sent, counts.dropped), (0, 1));
        one.say("there is room");
        broker.settle(&[&one]);
        assert_eq!(one.link.counts().sent, 1);
    }
}

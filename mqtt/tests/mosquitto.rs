//! Links over a real mosquitto, on loopback: at a pace, through its death, and with a stranger that takes a
//! name. Where it is not installed nothing is tested, but in the step of the gate that installs it.

#[path = "support/mosquitto.rs"]
mod mosquitto;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mosquitto::{Mosquitto, PATIENCE, start};
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, Taken};
use wirewheel::{Application, Handle, Server};
use wirewheel_mqtt::{Change, Link};

/// What a box tells the test.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Up,
    Down,
    /// A message, and how many were missed before it.
    Heard(String, u64),
}

struct Box1 {
    server: Handle,
    told: Receiver<Told>,
    room: FlowKey<str>,
}

/// A box that shares `room`; it tells what it hears of it, and says `each` a thousand times a second.
fn a_box(broker: &Mosquitto, at_least_once: bool) -> Box1 {
    let (tell, told) = channel();
    let (tell_key, key) = channel();
    let url = broker.url();
    let server = Server::without_listener(move |app: &mut Application| {
        let policy = BufferOverflow::DropOldest;
        let options = FlowOptions::new().extra_buffer(64).on_buffer_overflow(policy);
        let room = app.flow(options);
        tell_key.send(app.flow_key(&room)).unwrap();
        let heard: Sender<Told> = tell.clone();
        app.read_flow(&room, move |_, batch| {
            for offered in batch {
                let text = offered.message().text().unwrap().to_owned();
                heard.send(Told::Heard(text, offered.missed())).unwrap();
            }
            Taken::Yes
        });
        let link = Link::to(url).at_least_once(at_least_once).share(&room, "room");
        let changed = move |change: &Change| match change {
            Change::Up => Told::Up,
            Change::Down(_) => Told::Down,
        };
        link.on_change(move |_, change| tell.send(changed(change)).unwrap()).start(app).unwrap();
    });
    let server = server.spawn().unwrap();
    let room = key.recv_timeout(PATIENCE).unwrap();
    Box1 { server, told, room }
}

impl Box1 {
    #[track_caller]
    fn expect(&self, what: &Told) {
        assert_eq!(self.told.recv_timeout(PATIENCE).as_ref(), Ok(what));
    }

    #[track_caller]
    fn await_change(&self, what: &Told) -> Vec<Told> {
        let mut before = Vec::new();
        loop {
            match self.told.recv_timeout(PATIENCE).expect("a change") {
                told if told == *what => return before,
                told => before.push(told),
            }
        }
    }

    /// The next so many that it tells.
    fn hear(&self, count: usize) -> Vec<Told> {
        (0..count).map(|_| self.told.recv_timeout(PATIENCE).expect("more")).collect()
    }

    /// Says a thousand numbers a second until it has said so many, and then the last word.
    fn say(&self, count: u64) {
        let room = self.room;
        let begin = self.server.defer(move |server| {
            let said = Rc::new(Cell::new(0));
            let tick = Duration::from_micros(8_192);
            let _ = server.every(tick, move |server| {
                let Some(room) = server.find_flow(room) else { return };
                for _ in 0..8 {
                    let n = said.get();
                    said.set(n + 1);
                    match n {
                        n if n < count => room.emit(&n.to_string()).unwrap(),
                        n if n == count => room.emit("last").unwrap(),
                        _ => {}
                    }
                }
            });
        });
        begin.unwrap();
    }

    /// What it hears up to the last word: how many, and how many it missed.
    fn count(&self) -> (u64, u64) {
        let (mut heard, mut missed, mut next) = (0, 0, 0);
        loop {
            match self.told.recv_timeout(PATIENCE).expect("more") {
                Told::Heard(text, lost) => {
                    missed += lost;
                    if text == "last" {
                        return (heard, missed);
                    }
                    let number: u64 = text.parse().unwrap();
                    assert!(number >= next, "{number} after {next}");
                    next = number + 1;
                    heard += 1;
                }
                Told::Up | Told::Down => {}
            }
        }
    }

    fn stop(self) {
        self.server.shutdown(Duration::from_secs(1));
        self.server.join().unwrap();
    }
}

#[test]
fn everything_arrives_in_order_and_nothing_comes_back() {
    let Some(broker) = start("order", "") else { return };
    for at_least_once in [false, true] {
        let (one, two) = (a_box(&broker, at_least_once), a_box(&broker, at_least_once));
        one.expect(&Told::Up);
        two.expect(&Told::Up);
        one.say(2_000);
        assert_eq!((two.count(), one.count()), ((2_000, 0), (2_000, 0)));
        one.stop();
        two.stop();
    }
}

#[test]
fn a_broker_that_is_killed_for_two_seconds_costs_what_is_counted_and_nobody_waits() {
    let Some(mut broker) = start("killed", "") else { return };
    let (one, two) = (a_box(&broker, false), a_box(&broker, false));
    one.expect(&Told::Up);
    two.expect(&Told::Up);
    const COUNT: u64 = 7_000;
    one.say(COUNT);
    // A thousand a second: what is heard here tells the time.
    let mut before_one = one.hear(1_000);
    broker.kill();
    before_one.extend(one.hear(2_000));
    broker.start();
    let since = one.await_change(&Told::Up);
    assert!(since.len() <= 3_000, "back after {} messages", since.len());
    before_one.extend(since);
    let mut before_two = two.await_change(&Told::Up);
    assert!(before_one.contains(&Told::Down) && before_two.contains(&Told::Down));
    let (more, lost) = count_of(&mut before_one);
    let (heard, missed) = one.count_from(more);
    assert_eq!((heard, missed + lost), (COUNT, 0), "local delivery");
    let (more, lost) = count_of(&mut before_two);
    let (heard, missed) = two.count_from(more);
    assert_eq!(heard + missed + lost, COUNT, "{heard} heard, {missed} missed");
    assert!((1_900..5_000).contains(&(missed + lost)), "{missed} missed");
    one.stop();
    two.stop();
}

/// How many of these are messages, and what was missed before them.
fn count_of(told: &mut Vec<Told>) -> (u64, u64) {
    told.drain(..).fold((0, 0), |(heard, missed), it| match it {
        Told::Heard(_, lost) => (heard + 1, missed + lost),
        Told::Up | Told::Down => (heard, missed),
    })
}

impl Box1 {
    fn count_from(&self, before: u64) -> (u64, u64) {
        let (heard, missed) = self.count();
        (heard + before, missed)
    }
}

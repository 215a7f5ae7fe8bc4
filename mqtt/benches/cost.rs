//! What a shared flow costs, through a mosquitto that this starts: CPU of the box that sends and of the one
//! that receives for each message of 64 bytes, above what the same costs on one box; how many go through in a
//! second; and the time from box to box. Beside each stands what a bare reader of the same socket costs, which
//! is the broker's part and the system's.
//!
//! Run it with `cargo bench -p wirewheel-mqtt --bench cost [-- NAME...]`: `paced`, `unpaced`, `rate`, `median`.
//! It fails where a limit is not met.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "bare/mod.rs"]
mod bare;
#[path = "figures/mod.rs"]
mod figures;
#[path = "../tests/support/mosquitto.rs"]
mod mosquitto;

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bare::{BareReader, Used, thread_cpu};
use figures::{median, verdict};
use mosquitto::{Mosquitto, PATIENCE};
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, Taken};
use wirewheel::{Application, Handle, Server};
use wirewheel_mqtt::Link;

const MESSAGE: [u8; 64] = [b'x'; 64];
/// Of CPU for each message, above what it costs on one box, in microseconds.
const SENDING_MAX: f64 = 4.0;
const RECEIVING_MAX: f64 = 2.0;
const RATE_MIN: f64 = 60_000.0;
const MEDIAN_MAX: Duration = Duration::from_micros(110);
/// Published together at each tick of 8,192 us: about 20,000 a second, and as many as go through.
const PACED: u64 = 160;
const UNPACED: u64 = 4_096;

/// What a box tells the test.
enum Told {
    /// It has heard so many in all.
    Count(u64),
    /// A message that says when it was published has taken so long.
    Took(Duration),
}

struct Site {
    server: Handle,
    room: FlowKey<[u8]>,
    told: Receiver<Told>,
}

impl Site {
    /// A box that counts what it hears, with a link if there is a broker.
    fn new(url: Option<String>, since: Instant) -> Self {
        let ((tell, told), (tell_key, key), (tell_up, up)) = (channel(), channel(), channel());
        let has_link = url.is_some();
        let server = Server::without_listener(move |app: &mut Application| {
            let options = FlowOptions::new().extra_buffer(8_192).max_bytes(16 << 20);
            // So that what is measured is what arrives.
            let room = app.flow_of::<[u8]>(options.on_buffer_overflow(BufferOverflow::Suspend));
            tell_key.send(app.flow_key(&room)).unwrap();
            let count = Cell::new(0_u64);
            app.read_flow(&room, move |_, batch| {
                for offered in batch {
                    tell_of(&tell, since, &count, offered.message().bytes(), offered.missed());
                }
                Taken::Yes
            });
            if let Some(url) = url {
                let link = Link::to(url).share(&room, "cost").max_waiting(1 << 20);
                let link = link.on_change(move |_, _| {
                    let _ = tell_up.send(());
                });
                link.start(app).unwrap();
            }
        });
        let server = server.spawn().unwrap();
        let room = key.recv_timeout(PATIENCE).unwrap();
        if has_link {
            up.recv_timeout(PATIENCE).expect("the broker is there");
        }
        Self { server, room, told }
    }

    /// What its loop has used.
    fn used(&self) -> Used {
        let (tell, told) = channel();
        let asked = self.server.defer(move |server| {
            let turns = server.stats().loop_turns;
            tell.send(Used { cpu: thread_cpu(), turns }).unwrap();
        });
        asked.unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    }

    /// Publishes so many, so many at each tick.
    fn say(&self, count: u64, each: u64) {
        let room = self.room;
        let begun = self.server.defer(move |server| {
            let left = Rc::new(Cell::new(count));
            let every = server.every(Duration::from_micros(8_192), move |server| {
                let Some(room) = server.find_flow(room) else { return };
                for _ in 0..each.min(left.get()) {
                    if room.would_suspend() {
                        break;
                    }
                    room.emit(&MESSAGE).unwrap();
                    left.set(left.get() - 1);
                }
            });
            every.unwrap();
        });
        begun.unwrap();
    }

    fn await_count(&self, count: u64) {
        loop {
            match self.told.recv_timeout(PATIENCE).expect("more") {
                Told::Count(heard) if heard >= count => return,
                Told::Count(_) | Told::Took(_) => {}
            }
        }
    }

    /// Publishes when that is.
    fn say_time(&self, since: Instant) {
        let room = self.room;
        let asked = self.server.defer(move |server| {
            let room = server.find_flow(room).expect("the room is there");
            let now = u64::try_from(since.elapsed().as_nanos()).expect("it is a short run");
            room.emit(&now.to_be_bytes()).unwrap();
        });
        asked.unwrap();
    }

    fn await_time(&self) -> Duration {
        loop {
            if let Told::Took(time) = self.told.recv_timeout(PATIENCE).expect("a time") {
                return time;
            }
        }
    }
}

fn tell_of(tell: &Sender<Told>, since: Instant, count: &Cell<u64>, message: &[u8], missed: u64) {
    if let Ok(said) = message.try_into().map(u64::from_be_bytes) {
        let took = since.elapsed().saturating_sub(Duration::from_nanos(said));
        let _ = tell.send(Told::Took(took)); // nobody listens any more at the end
        return;
    }
    assert_eq!(missed, 0, "the broker has dropped some");
    count.set(count.get() + 1);
    if count.get() % 100 == 0 {
        let _ = tell.send(Told::Count(count.get()));
    }
}

/// What so many messages have cost, for each of them.
struct Measured {
    sent: Used,
    received: Used,
    count: f64,
    seconds: f64,
}

impl Measured {
    fn micros(&self, used: Used) -> f64 {
        used.cpu.as_secs_f64() * 1e6 / self.count
    }

    fn wakeups(&self, used: Used) -> f64 {
        used.turns as f64 / self.count
    }

    fn rate(&self) -> f64 {
        self.count / self.seconds
    }
}

/// From one box to another, or within one.
fn between(broker: Option<&Mosquitto>, count: u64, each: u64) -> Measured {
    let url = || broker.map(Mosquitto::url);
    let site = |url| Site::new(url, Instant::now());
    let (one, two) = (site(url()), broker.map(|_| site(url())));
    let used = |site: &Option<Site>| site.as_ref().map_or_else(Used::default, Site::used);
    let (sent, received, begun) = (one.used(), used(&two), Instant::now());
    one.say(count, each);
    one.await_count(count);
    if let Some(two) = &two {
        two.await_count(count);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (sent, received) = (one.used() - sent, used(&two) - received);
    Measured { sent, received, count: count as f64, seconds }
}

/// The same to a bare reader, which does nothing with what comes.
fn to_bare(broker: &Mosquitto, count: u64, each: u64) -> Measured {
    let (one, begun) = (Site::new(Some(broker.url()), Instant::now()), Instant::now());
    let sent = one.used();
    let reader = BareReader::start(broker.port, "cost", count);
    one.say(count, each);
    let received = reader.join();
    let seconds = begun.elapsed().as_secs_f64();
    Measured { sent: one.used() - sent, received, count: count as f64, seconds }
}

/// CPU of both boxes at a pace; and how much of it a bare reader takes.
fn cost(broker: &Mosquitto, name: &str, (count, each): (u64, u64)) -> bool {
    let local = between(None, count, each);
    let measured = between(Some(broker), count, each);
    let bare = to_bare(broker, count, each);
    let own = local.micros(local.sent);
    let (sending, receiving) =
        (measured.micros(measured.sent) - own, measured.micros(measured.received) - own);
    let floor = bare.micros(bare.received);
    let is_sending = sending <= SENDING_MAX;
    let is_receiving = receiving <= RECEIVING_MAX;
    println!(
        "{name}, {:.0} messages/s, us of CPU for each above {own:.2} within a box:",
        measured.rate()
    );
    println!("  sending box {sending:.2}, limit {SENDING_MAX}: {}", verdict(is_sending));
    println!(
        "  receiving box {receiving:.2} with {:.2} turns, limit {RECEIVING_MAX}: {}",
        measured.wakeups(measured.received),
        verdict(is_receiving)
    );
    // A broker that writes each message by itself wakes its reader for each, which alone may take more.
    println!(
        "  a bare reader of the socket {floor:.2} with {:.2} wake-ups",
        bare.wakeups(bare.received)
    );
    is_sending && is_receiving
}

fn rate(broker: &Mosquitto) -> bool {
    let rate = between(Some(broker), 400_000, UNPACED).rate();
    println!(
        "through the broker {rate:.0} messages/s, limit {RATE_MIN:.0}: {}",
        verdict(rate >= RATE_MIN)
    );
    rate >= RATE_MIN
}

/// From what is published on one box to the reader on the other, one message at a time.
fn median_through(broker: &Mosquitto) -> Duration {
    let since = Instant::now();
    let [one, two] = [(); 2].map(|()| Site::new(Some(broker.url()), since));
    let times = (0..2_000).map(|_| {
        one.say_time(since);
        two.await_time()
    });
    median(times.collect())
}

fn round_trips(broker: &Mosquitto, as_packaged: &Mosquitto) -> bool {
    let (median, bare) = (median_through(broker), median(bare::times(broker.port, 2_000)));
    let is_met = median <= MEDIAN_MAX;
    println!("from box to box {median:?} median, limit {MEDIAN_MAX:?}: {}", verdict(is_met));
    println!("  from one bare client to another {bare:?}");
    println!("  from box to box without set_tcp_nodelay {:?}", median_through(as_packaged));
    is_met
}

fn main() -> ExitCode {
    let started = mosquitto::start("cost", "allow_anonymous true\nset_tcp_nodelay true");
    let (Some(broker), Some(as_packaged)) = (started, mosquitto::start("packaged", "")) else {
        return ExitCode::FAILURE;
    };
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut is_met = true;
    for (name, count, each) in [("paced", 100_000, PACED), ("unpaced", 400_000, UNPACED)] {
        is_met &= !wanted(name) || cost(&broker, name, (count, each));
    }
    is_met &= !wanted("rate") || rate(&broker);
    is_met &= !wanted("median") || round_trips(&broker, &as_packaged);
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! What a shared flow costs: CPU of the box that sends and of the one that receives for each message of 64
//! bytes, above what the same costs on one box; how many go through in a second; and the time from box to
//! box.
//!
//! ```text
//! mosquitto -p 1883 & cargo run --release -p wirewheel-mqtt --example cost -- mqtt://127.0.0.1:1883
//! ```
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, Taken};
use wirewheel::{Application, Handle, Server};
use wirewheel_mqtt::Link;

const PATIENCE: Duration = Duration::from_secs(60);
const MESSAGE: [u8; 64] = [b'x'; 64];

struct Site {
    server: Handle,
    room: FlowKey<[u8]>,
    /// A number for each hundred messages, and for each of one byte.
    heard: Receiver<u64>,
}

/// A box that counts what it hears, and that answers what is one byte long with two.
fn site(url: Option<String>) -> Site {
    let ((tell, heard), (tell_key, key), (tell_up, up)) = (channel(), channel(), channel());
    let has_link = url.is_some();
    let server = Server::without_listener(move |app: &mut Application| {
        let policy = BufferOverflow::DropOldest;
        let options = FlowOptions::new().extra_buffer(100_000).max_bytes(16 << 20);
        let room = app.flow_of::<[u8]>(options.on_buffer_overflow(policy));
        tell_key.send(app.flow_key(&room)).unwrap();
        let (count, answers) = (Cell::new(0_u64), room.clone());
        app.read_flow(&room, move |_, batch| {
            for offered in batch {
                match offered.message().bytes().len() {
                    1 => drop(answers.emit(b"yy")),
                    2 => drop(tell.send(0)), // nobody listens any more at the end
                    _ => {
                        count.set(count.get() + 1 + offered.missed());
                        if count.get() % 100 == 0 {
                            let _ = tell.send(count.get());
                        }
                    }
                }
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
    Site { server, room, heard }
}

impl Site {
    /// The CPU time that its loop has taken.
    fn cpu(&self) -> Duration {
        let (tell, told) = channel();
        let asked = self.server.defer(move |_| {
            let now = clock_gettime(ClockId::ThreadCPUTime);
            let time = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
            tell.send(time + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0)))
                .unwrap();
        });
        asked.unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    }

    /// Publishes so many, so many at each tick of 8 ms.
    fn say(&self, count: u64, each: u64) {
        let room = self.room;
        let begun = self.server.defer(move |server| {
            let left = Rc::new(Cell::new(count));
            let tick = Duration::from_micros(8_192);
            let every = server.every(tick, move |server| {
                let Some(room) = server.find_flow(room) else { return };
                for _ in 0..each.min(left.get()) {
                    room.emit(&MESSAGE).unwrap();
                    left.set(left.get() - 1);
                }
            });
            every.unwrap();
        });
        begun.unwrap();
    }

    fn await_count(&self, count: u64) {
        while self.heard.recv_timeout(PATIENCE).expect("more") < count {}
    }
}

/// CPU of the sender and of the receiver for each message, in microseconds, and the messages in a second.
fn measured(url: Option<&String>, count: u64, each: u64) -> (f64, f64, f64) {
    let one = site(url.cloned());
    let two = url.map(|url| site(Some(url.clone())));
    let (before, begun) = ((one.cpu(), two.as_ref().map(Site::cpu)), Instant::now());
    one.say(count, each);
    one.await_count(count);
    if let Some(two) = &two {
        two.await_count(count);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    let sent = micros(one.cpu() - before.0);
    let received = two.as_ref().map_or(0.0, |two| micros(two.cpu() - before.1.unwrap_or_default()));
    (sent, received, count as f64 / seconds)
}

fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://127.0.0.1:1883".into());
    let (local, _, _) = measured(None, 100_000, 160);
    let (sent, received, _) = measured(Some(&url), 100_000, 160);
    println!(
        "at 20,000 messages/s, CPU for each: sending box {sent:.2} us, {local:.2} us without a link; \
        receiving box {received:.2} us"
    );
    let (_, _, rate) = measured(Some(&url), 400_000, 1_000);
    println!("as fast as they go: {rate:.0} messages/s");
    let (one, two) = (site(Some(url.clone())), site(Some(url)));
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let begun = Instant::now();
        one.server.emit(one.room, &b"x"[..]).unwrap();
        // Its own reader answers too, at once: the second answer is the other box's.
        one.heard.recv_timeout(PATIENCE).unwrap();
        one.heard.recv_timeout(PATIENCE).unwrap();
        times.push(begun.elapsed() / 2);
        two.heard.try_iter().for_each(drop);
    }
    times.sort();
    println!("from box to box: {:?} median", times[times.len() / 2]);
}

//! What so many subscribers on so many boxes cost, computed from what was measured on one: memory, cores,
//! bytes, the broker's messages, and the moment at which a box is lost.
//!
//! ```text
//! cargo run -p wirewheel-mqtt --example fleet -- subscribers=1000000 boxes=10 room=10 messages=100000
//! ```
//!
//! `room` is how many are in one topic, `messages` how many are published a second in all topics together,
//! `bytes` how long one is, `ping` the seconds between pings. What follows was measured, and can be replaced by
//! figures of your own box: `delivery_us` and `handshake_us` with `benches/run` (from the fastest to the slowest
//! round in `benches/results.json`, and the median), `sending_us` and `receiving_us` of a link with
//! `cargo bench -p wirewheel-mqtt --bench cost`, `user_bytes` with `cargo bench --bench idle_memory`,
//! `kernel_bytes` as what `/proc/slabinfo` grew by for each end of 5,000 connections (3,700), with epoll's entry.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints figures")]

use std::process::ExitCode;

/// What is given, and what was measured (x86_64, Linux 6.18; see the guide's page `fleet`).
const NUMBERS: [(&str, f64); 13] = [
    ("subscribers", 1_000_000.0),
    ("boxes", 10.0),
    ("room", 1_000_000.0),
    ("messages", 1.0),
    ("bytes", 100.0),
    ("ping", 15.0),
    ("delivery_us", 4.2),
    ("delivery_us_max", 7.0),
    ("handshake_us", 31.0),
    ("sending_us", 1.5),
    ("receiving_us", 2.5),
    ("user_bytes", 176.0),
    ("kernel_bytes", 3_800.0),
];
/// Beside its payload a message has a frame's header, and those of TCP and IP with their options.
const WIRE_OVERHEAD: f64 = 70.0;
/// A ping and its pong, with their system calls.
const PING_US: f64 = 5.0;

fn main() -> ExitCode {
    let mut numbers = NUMBERS;
    for argument in std::env::args().skip(1) {
        let given = argument.split_once('=').and_then(|(name, value)| {
            let value: f64 = value.parse().ok().filter(|value| *value > 0.0)?;
            Some((numbers.iter_mut().find(|(known, _)| *known == name)?, value))
        });
        match given {
            Some((number, value)) => number.1 = value,
            None => {
                eprintln!("{argument:?}: give one of these: {NUMBERS:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    let of = |name: &str| numbers.iter().find(|(known, _)| *known == name).map_or(0.0, |it| it.1);
    for line in Fleet::of(of).lines() {
        println!("{line}");
    }
    ExitCode::SUCCESS
}

/// What was computed.
#[derive(Debug, PartialEq)]
struct Fleet {
    user_mb_per_box: f64,
    kernel_gb_per_box: f64,
    deliveries: f64,
    cores: (f64, f64),
    ping_cores: f64,
    wire_mb: f64,
    /// With clients on any box, and with each topic on one.
    broker_messages: (f64, f64),
    /// With clients on any box.
    link_cores: f64,
    longest_flush: f64,
    handshake_seconds: f64,
}

impl Fleet {
    fn of(of: impl Fn(&str) -> f64) -> Self {
        let (subscribers, boxes) = (of("subscribers"), of("boxes"));
        let (room, messages) = (of("room").min(subscribers), of("messages"));
        let per_box = subscribers / boxes;
        let deliveries = messages * room;
        // A box gets a topic's messages if one of its other members is there, wherever each of them is.
        let reached = (boxes - 1.0) * (1.0 - (1.0 - 1.0 / boxes).powf(room - 1.0));
        let broker_sends = |others: f64| messages * others;
        let others_left = (boxes - 1.0).max(1.0);
        Self {
            user_mb_per_box: per_box * of("user_bytes") / 1e6,
            kernel_gb_per_box: per_box * of("kernel_bytes") / 1e9,
            deliveries,
            cores: (deliveries * of("delivery_us") / 1e6, deliveries * of("delivery_us_max") / 1e6),
            ping_cores: subscribers / of("ping") * PING_US / 1e6,
            wire_mb: deliveries * (of("bytes") + WIRE_OVERHEAD) / 1e6,
            broker_messages: (broker_sends(reached), 0.0),
            link_cores: (messages * of("sending_us") + broker_sends(reached) * of("receiving_us"))
                / 1e6,
            longest_flush: room.min(per_box) * of("delivery_us_max") / 1e6,
            handshake_seconds: per_box / others_left * of("handshake_us") / 1e6,
        }
    }

    fn lines(&self) -> Vec<String> {
        let Self { user_mb_per_box: user, kernel_gb_per_box: kernel, deliveries, cores, .. } = self;
        let (spread, sharded) = self.broker_messages;
        vec![
            format!("memory of a box: {user:.1} MB of the process, {kernel:.2} GB of the kernel"),
            format!(
                "deliveries a second: {deliveries:.0}, on {:.1} to {:.1} cores in all",
                cores.0, cores.1
            ),
            format!("pings: {:.2} cores in all", self.ping_cores),
            format!("to the clients: {:.0} MB/s in all", self.wire_mb),
            format!(
                "the broker sends {spread:.0} messages a second, {sharded:.0} with each topic on one box"
            ),
            format!("links to it: {:.2} cores in all", self.link_cores),
            format!(
                "one message is on its way through a box for up to {:.2} s",
                self.longest_flush
            ),
            format!(
                "a box is lost: {:.2} s of handshakes on each other one",
                self.handshake_seconds
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: &[(&str, f64)]) -> Fleet {
        Fleet::of(|name| {
            let changed = changes.iter().find(|(known, _)| *known == name);
            changed.or_else(|| NUMBERS.iter().find(|(known, _)| *known == name)).unwrap().1
        })
    }

    #[test]
    fn the_figures_of_the_guide_are_these() {
        let one_topic = with(&[]);
        assert_eq!((one_topic.cores, one_topic.deliveries), ((4.2, 7.0), 1e6));
        assert_eq!((one_topic.wire_mb, one_topic.broker_messages.0.round()), (170.0, 9.0));
        assert!((0.33..0.34).contains(&one_topic.ping_cores));
        assert_eq!(format!("{:.1}", one_topic.user_mb_per_box), "17.6");
        assert_eq!(
            format!("{:.2} {:.2}", one_topic.kernel_gb_per_box, one_topic.longest_flush),
            "0.38 0.70"
        );
        assert_eq!(format!("{:.2}", one_topic.handshake_seconds), "0.34");
        let rooms = with(&[("room", 10.0), ("messages", 100_000.0)]);
        assert!((550_000.0..552_000.0).contains(&rooms.broker_messages.0), "{rooms:?}");
        assert_eq!(format!("{:.1}", rooms.link_cores), "1.5");
        assert_eq!(with(&[("boxes", 1.0)]).broker_messages.0, 0.0);
    }
}

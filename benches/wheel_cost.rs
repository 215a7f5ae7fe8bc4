//! Turns of the timer wheel in which nothing is due, to be counted by callgrind: the cost must not
//! depend on how many entries are armed.
//!
//! `.ci/wheel-cost` builds it, counts, and prints the ratio. By hand:
//! `cargo bench --bench wheel_cost -- ENTRIES TURNS`. The wheel is not public, so its source is
//! compiled into this program as it stands.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(dead_code, unused_imports, reason = "only a part of the wheel is used here")]
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

use std::hint::black_box;

#[path = "../src/words"]
mod words {
    pub(crate) mod time;
}
#[path = "../src/structures/wheel.rs"]
mod wheel;

use wheel::TimerWheel;
use words::time::Time;

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<u64>().ok());
    let entries = numbers.next().unwrap_or(100_000);
    let turns = numbers.next().unwrap_or(100_000);
    let mut wheel = TimerWheel::new();
    for token in 0..u32::try_from(entries).unwrap_or(u32::MAX) {
        // Spread like pings: all within 15 seconds, none before one second.
        let micros = 1_000_000 + u64::from(token).wrapping_mul(7_919) % 14_000_000;
        let _ = wheel.arm(token, Time::from_micros(micros));
    }
    let mut due = 0;
    for turn in 0..turns {
        // Turns are apart by less than a tick, as under load, and end before the first deadline.
        let now = Time::from_micros(turn * 900_000 / turns.max(1));
        due += u64::from(black_box(wheel.pop_due(black_box(now))).is_some());
        black_box(wheel.next_deadline());
    }
    println!("{entries} entries, {turns} turns, {due} due");
}

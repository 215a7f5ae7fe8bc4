//! The simulation as a test: some hundred seeds here, as many as there is time for by
//! `.ci/run simulate`, and one again with `WIREWHEEL_SEED`.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::actors::PLANNED;
use super::choices::Choices;
use super::world::Tally;
use super::{Failure, loops, run};

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 300;

/// One seed in so many has a server with several loops as well.
const LOOPS_IN: u64 = 6;

/// Keeps planned panics off the output.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
            if !text.is_some_and(|text| text.contains(PLANNED)) {
                usual(info);
            }
        }));
    });
}

/// Says which seed it was if the run itself panics.
struct Announce(u64);

impl Drop for Announce {
    #[allow(clippy::print_stderr, reason = "the one line that a failure must not lose")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", replay(self.0));
        }
    }
}

/// Has the other threads take no further seeds if the run itself panics.
struct EndsAll<'a>(&'a AtomicU64);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}

fn replay(seed: u64) -> String {
    format!("replay: WIREWHEEL_SEED={seed} cargo test --lib simulation_of_many_seeds")
}

fn run_one(seed: u64) -> Tally {
    let _announce = Announce(seed);
    let tally = of(seed, run(Choices::from_seed(seed)));
    // A life of its own, so that all others are what they are without it.
    if seed % LOOPS_IN != LOOPS_IN - 1 {
        return tally;
    }
    Tally { loops: of(seed, loops::run(Choices::from_seed(seed))), ..tally }
}

fn of<T>(seed: u64, outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|Failure { step, what, trail }| {
        panic!("seed={seed} step={step}: {what}\n{}", trail.join("\n"))
    })
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs so many seeds on all processors, as long as there is time: how many it were, and what they had.
#[allow(clippy::disallowed_methods, reason = "an hour is an hour")]
fn run_many(first: u64, step: u64, seeds: u64, time: Option<Duration>) -> (u64, Tally) {
    let (begun, next) = (std::time::Instant::now(), AtomicU64::new(0));
    let lives = || {
        let _ends_all = EndsAll(&next);
        let (mut count, mut tally) = (0, Tally::default());
        while time.is_none_or(|time| begun.elapsed() < time) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= seeds {
                break;
            }
            tally += run_one(first + at * step);
            count += 1;
        }
        (count, tally)
    };
    let (mut count, mut tally) = (0, Tally::default());
    std::thread::scope(|scope| {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, lives).unwrap();
        let threads: Vec<_> = (0..processors).map(spawn).collect();
        for thread in threads {
            let (some, of_them) = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            count += some;
            tally += of_them;
        }
    });
    (count, tally)
}

/// `WIREWHEEL_SEED` runs that one, `WIREWHEEL_SEEDS` so many, `WIREWHEEL_SECONDS` bounds the time. Of those
/// from `WIREWHEEL_FIRST` on, every `WIREWHEEL_STEP`th: with 4 and 5 only those whose server dials.
#[test]
#[allow(clippy::print_stdout, reason = "the figures that are asked for")]
fn simulation_of_many_seeds() {
    hush();
    if let Some(seed) = number_from("WIREWHEEL_SEED") {
        println!("seed {seed}: {:?}", run_one(seed));
        return;
    }
    let time = number_from("WIREWHEEL_SECONDS").map(Duration::from_secs);
    let first = number_from("WIREWHEEL_FIRST").unwrap_or(0);
    let seeds = number_from("WIREWHEEL_SEEDS");
    let seeds = seeds.unwrap_or_else(|| if time.is_some() { u64::MAX / 4 } else { SEEDS });
    let step = number_from("WIREWHEEL_STEP").unwrap_or(1);
    let (count, tally) = run_many(first, step, seeds, time);
    let steps = tally.steps;
    println!("simulated {count} seeds from {first}, {steps} steps, none failed\n{tally:?}");
    if count >= SEEDS {
        assert_exercised(&tally);
    }
}

/// None of these may rot away unseen. `SEEDS` seeds are enough for each.
fn assert_exercised(tally: &Tally) {
    assert!(tally.mirrored > 0, "raw frames came back: never; {tally:?}");
    assert!(tally.in_pieces > 0, "messages came in several pieces: never; {tally:?}");
    assert!(tally.streamed > 0, "streams were taken for sending: never; {tally:?}");
    assert!(tally.events > 0, "event streams had events: never; {tally:?}");
    assert!(tally.deferred.iter().all(|&count| count > 0), "a deferred answer: never; {tally:?}");
    assert!(tally.filtered > 0, "sessions collected only some of a flow: never; {tally:?}");
    assert!(tally.read > 0 && tally.unread > 0, "a reader took and missed: never; {tally:?}");
    assert!(tally.longest >= 60, "a session had a long life: never; {tally:?}");
    assert!(tally.losses.0.iter().all(|&count| count > 0), "a loss never happened; {tally:?}");
    let passed_by = tally.loops.passed_by().filter(|_| tally.loops.lives >= 50);
    assert!(passed_by.is_none(), "several loops: {passed_by:?}: never; {tally:?}");
    #[cfg(feature = "client")]
    for (what, count) in [
        ("sessions were dialled", tally.dialled),
        ("attempts failed", tally.failed),
        ("news arrived", tally.news),
        ("sessions between two servers were over", tally.between),
        ("something was lost between two servers", tally.between_losses.0.iter().sum()),
    ] {
        assert!(count > 0, "{what}: never; {tally:?}");
    }
    if !cfg!(feature = "deflate") {
        assert_eq!((tally.packed_in, tally.packed_out, tally.packed_of_flow), (0, 0, 0));
        return;
    }
    for (what, count) in [
        ("compressed messages reached a handler", tally.packed_in),
        ("compressed messages reached a client", tally.packed_out),
        ("messages of the flow came compressed", tally.packed_of_flow),
        ("messages of the flow came plain", tally.plain_of_flow),
        ("messages were too big once inflated", tally.too_big),
        ("compressed messages were corrupt", tally.corrupt),
    ] {
        assert!(count > 0, "{what}: never; {tally:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    hush();
    for seed in 0..20 {
        assert_eq!(run_one(seed), run_one(seed));
    }
}

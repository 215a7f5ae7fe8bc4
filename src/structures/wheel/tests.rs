//! What the wheel promises, one by one; `wheel_model.rs` has it all at once.

use std::collections::VecDeque;

use super::*;
use std::time::Duration;

const TICK: u64 = 1 << TICK_BITS;

fn at_tick(tick: u64) -> Time {
    Time::from_micros(tick * TICK)
}

#[test]
fn an_entry_is_24_bytes() {
    assert_eq!(size_of::<Entry>(), 24);
}

#[test]
fn never_early_and_at_most_one_tick_late() {
    let mut wheel = TimerWheel::new();
    wheel.arm(7, Time::from_micros(5 * TICK + 1));
    assert_eq!(wheel.pop_due(Time::from_micros(6 * TICK - 1)), None);
    assert_eq!(wheel.pop_due(at_tick(6)), Some(7));
    assert_eq!((wheel.pop_due(at_tick(6)), wheel.next_deadline()), (None, None));
}

#[test]
fn a_far_deadline_survives_the_turns_of_the_wheel() {
    let mut wheel = TimerWheel::new();
    let day = Time::ZERO.after(Duration::from_secs(86_400));
    wheel.arm(1, day);
    wheel.arm(2, at_tick(3));
    assert_eq!(wheel.pop_due(at_tick(3)), Some(2));
    let next = wheel.next_deadline().unwrap();
    assert!(next >= day && next.since(day) <= Duration::from_micros(TICK));
    assert_eq!(wheel.pop_due(Time::from_micros(day.as_micros() - TICK)), None);
    assert_eq!(wheel.pop_due(next), Some(1));
}

#[test]
fn arming_for_now_from_a_timer_waits_for_the_next_tick() {
    let mut wheel = TimerWheel::new();
    wheel.arm(1, at_tick(2));
    assert_eq!(wheel.pop_due(at_tick(2)), Some(1));
    wheel.arm(1, at_tick(0));
    assert_eq!(wheel.pop_due(at_tick(2)), None);
    assert_eq!(wheel.pop_due(at_tick(3)), Some(1));
}

#[test]
fn what_is_due_can_still_be_cancelled() {
    let mut wheel = TimerWheel::new();
    let keys = [wheel.arm(1, at_tick(1)), wheel.arm(2, at_tick(1))];
    let first = wheel.pop_due(at_tick(1)).unwrap();
    let [one, two] = keys;
    wheel.cancel(if first == 1 { two } else { one });
    assert_eq!((wheel.pop_due(at_tick(9)), wheel.len), (None, 0));
}

/// Connections keep some armed for ever; what a burst of timers took is given back all the same.
#[test]
fn a_burst_is_given_back_while_others_stay_armed() {
    let mut wheel = TimerWheel::new();
    let mut steady: Vec<_> = (0..50).map(|n| wheel.arm(n, at_tick(1_000_000))).collect();
    for round in 0..5 {
        let burst: Vec<_> = (0..50_000).map(|n| wheel.arm(n, at_tick(n.into()))).collect();
        steady.push(wheel.arm(round, at_tick(1_000_000))); // behind the burst
        burst.into_iter().for_each(|key| wheel.cancel(key));
        wheel.give_back();
        // As a connection's pings do.
        let rearm = |key| wheel.rearm(key, at_tick(1_000_001));
        steady = steady.into_iter().map(rearm).collect();
        assert!(wheel.entries.capacity() < 5_000, "{} entries", wheel.entries.capacity());
    }
    assert_eq!(wheel.len(), steady.len());
    assert_eq!(wheel.pop_due(at_tick(999_999)), None);
    let due = std::iter::from_fn(|| wheel.pop_due(at_tick(1_000_001))).count();
    assert_eq!(due, steady.len());
}

#[test]
fn an_empty_wheel_holds_no_entries() {
    let mut wheel = TimerWheel::new();
    let keys: Vec<_> = (0..1000).map(|n| wheel.arm(n, at_tick(u64::from(n)))).collect();
    keys.into_iter().for_each(|key| wheel.cancel(key));
    assert_eq!(wheel.entries.capacity(), 0);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn reserved_room_stays_where_it_is() {
    let mut wheel = TimerWheel::with_room(5000);
    let place = wheel.entries.as_ptr();
    let keys: Vec<_> = (0..5000).map(|n| wheel.arm(n, at_tick(u64::from(n)))).collect();
    keys.into_iter().for_each(|key| wheel.cancel(key));
    assert_eq!(wheel.entries.capacity(), 5000);
    assert_eq!(wheel.entries.as_ptr(), place);
}

/// They come back before what was left of them has been armed anew, and one behind them stays for hours.
#[test]
fn a_burst_that_comes_back_while_it_is_given_back_takes_no_more_room_than_before() {
    let mut wheel = TimerWheel::new();
    let mut burst: Vec<_> = (0..3_000).map(|n| wheel.arm(n, at_tick(1_000))).collect();
    let last = burst.pop().unwrap();
    burst.drain(100..).for_each(|key| wheel.cancel(key));
    wheel.give_back();
    let mut armed: VecDeque<_> = burst.into();
    for n in 0..100_000 {
        armed.push_back(wheel.arm(n, at_tick(u64::from(n) + 1_000_000)));
        if armed.len() > 2_900 {
            wheel.cancel(armed.pop_front().unwrap());
        }
        wheel.give_back();
        assert!(wheel.entries.len() <= 3_000, "{} entries", wheel.entries.len());
    }
    armed.into_iter().for_each(|key| wheel.cancel(key));
    wheel.give_back();
    let last = wheel.rearm(last, at_tick(1_000));
    wheel.give_back();
    assert!(wheel.entries.len() < 1_024, "{} entries", wheel.entries.len());
    wheel.cancel(last);
    assert_eq!(wheel.entries.capacity(), 0);
}

//! Windows of peers that move much, little, or nothing, and of loops that are late.

use super::*;

const LEAST: Least = Least { window: Duration::from_secs(30), min_rate: 256 };

/// Whether somebody who moves `bytes` every `seconds` of an endless queue is still there after an hour.
fn lives(bytes: u32, seconds: u64, first: u32) -> bool {
    let mut position = first;
    let mut window = Window::begin(Time::ZERO);
    let mut moves = Time::ZERO.after(Duration::from_secs(seconds));
    while window.looked() < Time::ZERO.after(Duration::from_secs(3_600)) {
        let now = window.next_look(LEAST);
        while moves <= now {
            position = position.wrapping_add(bytes);
            moves = moves.after(Duration::from_secs(seconds));
        }
        if !window.look(now, position, 1 << 20, LEAST) {
            return false;
        }
    }
    true
}

#[test]
fn who_moves_bytes_at_the_least_rate_lives_in_pieces_of_any_size() {
    for first in [0, u32::MAX - 5_000] {
        for (bytes, seconds) in [(5_000, 1), (300, 1), (65_536, 28), (8_000, 27)] {
            assert!(lives(bytes, seconds, first), "{bytes} bytes every {seconds} s");
        }
        for (bytes, seconds) in [(0, 1), (1, 1), (1, 29), (200, 1), (65_536, 40)] {
            assert!(!lives(bytes, seconds, first), "{bytes} bytes every {seconds} s");
        }
    }
}

#[test]
fn who_is_just_fast_enough_lives_wherever_the_first_look_falls() {
    let position = |now: Time| u32::try_from(now.as_micros() * 256 / 1_000_000).unwrap();
    for late in [0, 1, 900, 15_000, 29_999, 90_000] {
        let mut window = Window::begin(Time::ZERO);
        let mut now = window.next_look(LEAST).after(Duration::from_millis(late));
        while now < Time::ZERO.after(Duration::from_secs(600)) {
            assert!(window.look(now, position(now), 1 << 20, LEAST), "{late} ms late, {now:?}");
            now = window.next_look(LEAST);
        }
    }
}

#[test]
fn what_moved_before_the_first_look_is_not_held_against_the_peer() {
    let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
    let mut window = Window::begin(Time::ZERO);
    assert!(window.look(at(25), 8_000, 1 << 20, LEAST));
    assert!(window.look(at(30), 8_000, 1 << 20, LEAST), "it took enough in these 30 s");
    assert!(!window.look(at(55), 8_000, 1 << 20, LEAST), "and nothing in those");
}

#[test]
fn a_window_in_which_nobody_looked_is_not_held_against_the_peer() {
    let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
    for away in [31, 95, 1_000] {
        let mut window = Window::begin_at(Time::ZERO, 0, 1 << 20);
        assert!(window.look(at(1), 0, 1 << 20, LEAST));
        assert!(window.look(at(1 + away), 100, 1 << 20, LEAST), "away for {away} s");
        assert!(window.look(at(30 + away), 100, 1 << 20, LEAST), "away for {away} s");
        assert!(!window.look(at(31 + away), 100, 1 << 20, LEAST), "away for {away} s");
    }
}

/// As the wheel has it, whose ticks are longer than the looks of a short window.
#[test]
fn a_late_look_is_no_absence() {
    for window in [1, 10, 50, 100, 150, 1_500].map(Duration::from_millis) {
        let least = Least { window, min_rate: 256 };
        for late in [1, 8, 17, 49].map(Duration::from_millis) {
            let mut one = Window::begin_at(Time::ZERO, 0, 100);
            assert!(
                !one.look(Time::ZERO.after(window + late), 0, 100, least),
                "{window:?} {late:?}"
            );
        }
    }
}

#[test]
fn no_more_is_owed_than_waited() {
    let mut window = Window::begin_at(Time::ZERO, 0, 10);
    let end = Time::ZERO.after(LEAST.window);
    assert!(window.look(end, 10, 0, LEAST), "all that waited");
    assert!(window.look(end.after(LEAST.window), 10, 0, LEAST), "nothing waits");
}

#[test]
fn who_stops_is_found_within_a_window_and_a_look() {
    let mut window = Window::begin_at(Time::ZERO, 0, 1 << 20);
    let stops = Time::ZERO.after(Duration::from_secs(10));
    let now = loop {
        let now = window.next_look(LEAST);
        let position = u32::try_from(now.min(stops).as_micros() / 100).unwrap(); // 10 kB/s
        if !window.look(now, position, 1 << 20, LEAST) {
            break now;
        }
    };
    assert!(now.since(stops) <= LEAST.window + LEAST.between_looks());
    assert!(now.since(stops) >= LEAST.window - Duration::from_secs(1));
}

/// A queue that counts more than the bytes in it, as that of a Unix socket, may grow faster than
/// bytes are written.
#[test]
fn a_position_that_falls_back_is_no_progress() {
    let mut window = Window::begin_at(Time::ZERO, 100, 1 << 20);
    assert!(!window.look(Time::ZERO.after(LEAST.window), 50, 1 << 20, LEAST));
}

#[test]
fn a_short_window_wants_a_byte_at_least() {
    let least = Least { window: Duration::from_millis(1), min_rate: 256 };
    let mut window = Window::begin_at(Time::ZERO, 0, 100);
    assert!(!window.look(Time::ZERO.after(least.window), 0, 100, least));
}

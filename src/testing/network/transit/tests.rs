//! Bytes on their way: what each buffer takes, and when.

use super::*;

const BUFFERS: Buffers = Buffers { send: 3_000, receive: 1_000, segment: 400 };

const fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1_000)
}

fn transit(pace: Pace) -> (Transit, Vec<u8>) {
    let mut transit = Transit::new(BUFFERS);
    transit.set_pace(pace);
    (transit, Vec::new())
}

#[test]
fn what_is_written_is_held_until_the_peers_system_has_it() {
    let (mut transit, mut got) = transit(Pace::Nothing);
    assert_eq!(transit.write(&[1; 5_000]), 3_000);
    assert!(!transit.is_writable());
    transit.exchange(at(0), &mut got);
    assert_eq!((transit.unacknowledged(), got.len()), (2_000, 0));
    assert!(transit.is_writable(), "a third of it is free");
    assert_eq!(transit.write(&[2; 5_000]), 1_000);
    transit.exchange(at(1), &mut got);
    assert_eq!(transit.unacknowledged(), 3_000, "the window is closed");
    transit.set_pace(Pace::All);
    transit.exchange(at(9), &mut got);
    assert_eq!((transit.unacknowledged(), got.len()), (0, 4_000));
    assert_eq!(got.get(2_999..3_001), Some(&[1, 2][..]));
    let taken = |from, until| transit.taken_between(at(from), at(until));
    assert_eq!((taken(0, 8), taken(1, 9), taken(0, 9), taken(10, 99)), (1_000, 3_000, 4_000, 0));
}

/// So `SIOCOUTQ` stands still for a while although the program reads, with a large segment for long.
#[test]
fn the_window_opens_a_step_at_a_time() {
    let (mut transit, mut got) =
        transit(Pace::Steadily { bytes: 100, every: Duration::from_millis(10) });
    transit.write(&[0; 3_000]);
    let mut queue = Vec::new();
    for millis in [0, 10, 20, 30, 40, 50, 60, 70] {
        transit.exchange(at(millis), &mut got);
        queue.push(transit.unacknowledged());
    }
    assert_eq!(queue, [2_000, 2_000, 2_000, 1_600, 1_600, 1_600, 1_600, 1_200]);
    assert_eq!((got.len(), transit.next_move()), (800, Some(at(80))));
}

#[test]
fn the_end_arrives_behind_the_last_byte() {
    let (mut transit, mut got) = transit(Pace::Nothing);
    transit.write(&[0; 1_001]);
    transit.shut();
    transit.exchange(at(0), &mut got);
    assert_eq!(transit.unacknowledged(), 2, "the last byte and the end");
    transit.set_pace(Pace::All);
    transit.exchange(at(0), &mut got);
    assert_eq!((transit.unacknowledged(), got.len()), (0, 1_001));
    assert!(transit.is_ended());
    transit.reset();
    assert_eq!((transit.is_reset(), transit.lost()), (false, 0), "nothing was on its way");
}

#[test]
fn a_reset_throws_away_what_the_program_has_not_read() {
    let (mut transit, mut got) =
        transit(Pace::Steadily { bytes: 100, every: Duration::from_millis(10) });
    transit.write(&[0; 3_000]);
    transit.exchange(at(0), &mut got);
    transit.reset();
    transit.exchange(at(1_000), &mut got);
    assert_eq!((transit.lost(), got.len(), transit.next_move()), (2_900, 100, None));
    assert!(transit.is_reset() && !transit.is_ended() && transit.is_writable());
}

#[test]
fn a_peer_that_vanished_acknowledges_nothing() {
    let (mut transit, mut got) = transit(Pace::Vanished);
    transit.write(&[0; 10]);
    transit.shut();
    transit.exchange(at(0), &mut got);
    transit.exchange(at(5_000), &mut got);
    assert_eq!((transit.unacknowledged(), got.len()), (11, 0));
    assert_eq!(transit.taken_between(at(0), at(9_000)), 0);
    assert!(!transit.is_over());
}

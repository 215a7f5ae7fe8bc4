//! The log against a model of it, step by step.

use super::*;
use proptest::prelude::*;

fn take<E>(log: &mut FlowLog<E>, from: u64, to: u64) {
    if log.advance(from, to) {
        log.release();
    }
}

fn join<E>(log: &mut FlowLog<E>) -> u64 {
    log.join(log.replay_start())
}

#[test]
fn who_comes_back_goes_on_where_nothing_is_lost() {
    let mut row = FlowLog::new(2);
    let mut sparse = FlowLog::sparse(2);
    for n in 0..5 {
        row.push(n, 1);
        sparse.push(n, 1);
    }
    sparse.remove(3);
    let from = |log: &FlowLog<i32>| (0..8).filter(|n| log.goes_on_from(*n)).collect::<Vec<_>>();
    // Of both the first three were dropped: what is missing beside them was taken out.
    assert_eq!((from(&row), from(&sparse)), (vec![3, 4, 5], vec![3, 4, 5]));
    let slow = row.join(4);
    assert_eq!((row.pending(), row.at(slow), row.count_from(3)), (1, Some((4, &4)), 2));
}

#[test]
fn without_subscribers_only_the_replay_stays() {
    let mut log = FlowLog::new(2);
    for n in 0..5 {
        log.push(n, 10);
    }
    assert_eq!((log.len(), log.pending(), log.bytes()), (2, 0, 20));
    let cursor = join(&mut log);
    assert_eq!(log.at(cursor), Some((3, &3)));
    assert_eq!(log.pending(), 2);
}

#[test]
fn who_lags_is_counted_only_once_all_were_offered() {
    let mut log = FlowLog::new(0);
    let slow = join(&mut log);
    log.push('a', 1);
    assert_eq!((log.pending(), log.lagging()), (1, 0));
    assert!(log.begin_offering());
    log.push('b', 1);
    log.end_offering();
    assert_eq!((log.pending(), log.lagging()), (2, 1));
    assert!(log.begin_offering(), "what came meanwhile is new");
    log.end_offering();
    assert!(!log.begin_offering());
    log.leave(slow);
    assert_eq!((log.pending(), log.lagging(), log.len()), (0, 0, 0));
}

#[test]
fn who_joins_while_others_are_offered_something_does_not_lag_before_it_was_offered_it() {
    let mut log = FlowLog::new(3);
    let quick = join(&mut log);
    for n in 0..3 {
        log.push(n, 1);
    }
    assert!(log.begin_offering());
    let late = join(&mut log);
    take(&mut log, quick, 3);
    log.end_offering();
    assert_eq!((log.pending(), log.lagging()), (3, 0));
    assert!(!log.begin_offering(), "nothing is new: who joined is offered it alone");
    log.push(3, 1);
    assert!(log.begin_offering());
    log.end_offering();
    assert_eq!((late, log.lagging()), (0, 4), "now it was offered all of them");
}

#[test]
fn a_row_that_was_long_gives_its_places_back() {
    let mut log = FlowLog::new(0);
    let cursor = join(&mut log);
    for n in 0..10_000 {
        log.push(n, 1);
    }
    take(&mut log, cursor, 10_000);
    let Entries::Row(row) = &log.entries else { panic!("a row") };
    assert!(row.is_empty() && row.capacity() <= 8 * SPARE_PLACES, "{}", row.capacity());
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Join,
    Leave(usize),
    Take(usize),
    DropOldest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        2 => Just(Step::Join),
        1 => (0usize..8).prop_map(Step::Leave),
        6 => (0usize..8).prop_map(Step::Take),
        1 => Just(Step::DropOldest),
    ]
}

proptest! {
    /// A sparse log against a list of what is in it and of all cursors.
    #[test]
    fn any_entry_can_be_taken_out_of_a_sparse_log(
        steps in proptest::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..120),
    ) {
        let mut log = FlowLog::sparse(usize::MAX);
        let mut live: Vec<u64> = Vec::new();
        let mut cursors: Vec<u64> = Vec::new();
        for (step, choice) in steps {
            match step {
                0 => live.push(log.push((), 1)),
                1 => cursors.push(join(&mut log)),
                2 if !live.is_empty() => {
                    let number = live.remove(choice.index(live.len()));
                    prop_assert!(log.remove(number).is_some() && log.remove(number).is_none());
                }
                3 if !cursors.is_empty() => {
                    let one = choice.index(cursors.len());
                    let cursor = &mut cursors[one];
                    let next = live.iter().copied().find(|number| *number >= *cursor);
                    prop_assert_eq!(log.at(*cursor).map(|(number, ())| number), next);
                    if let Some(number) = next {
                        take(&mut log, *cursor, number + 1);
                        *cursor = number + 1;
                    }
                }
                4 if !cursors.is_empty() => {
                    log.leave(cursors.swap_remove(choice.index(cursors.len())));
                }
                _ => {}
            }
            let slowest = cursors.iter().copied().min().unwrap_or_else(|| log.next_number());
            let pending = live.iter().filter(|number| **number >= slowest).count();
            let counted = (log.pending(), log.len(), log.bytes());
            prop_assert_eq!(counted, (pending, live.len(), live.len()));
            let newest = live.last().filter(|number| **number + 1 == log.next_number());
            let only = log.only_from(log.next_number().wrapping_sub(1));
            prop_assert_eq!(only.is_some(), newest.is_some());
        }
    }

    /// Against a model in which every subscriber has a queue of its own.
    #[test]
    fn every_subscriber_gets_what_a_queue_of_its_own_would_give(
        replay in 0usize..4,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut log = FlowLog::new(replay);
        let mut recent: VecDeque<u64> = VecDeque::new();
        let mut queues: Vec<(u64, VecDeque<u64>)> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Push => {
                    log.push(next, 1);
                    queues.iter_mut().for_each(|(_, queue)| queue.push_back(next));
                    recent.push_back(next);
                    if recent.len() > replay {
                        recent.pop_front();
                    }
                    next += 1;
                }
                Step::Join => queues.push((join(&mut log), recent.clone())),
                Step::Leave(n) if n < queues.len() => log.leave(queues.remove(n).0),
                Step::Take(n) if n < queues.len() => {
                    let (cursor, queue) = &mut queues[n];
                    let expected = queue.pop_front();
                    let got = log.at(*cursor).map(|(number, value)| (number, *value));
                    prop_assert_eq!(got.map(|(_, value)| value), expected);
                    if let Some((number, _)) = got {
                        take(&mut log, *cursor, number + 1);
                        *cursor = number + 1;
                    }
                }
                Step::DropOldest => {
                    let oldest = log.at(0).map(|(_, value)| *value);
                    prop_assert_eq!(log.drop_oldest(), oldest);
                    recent.retain(|value| Some(*value) != oldest);
                    queues.iter_mut().for_each(|(_, q)| q.retain(|v| Some(*v) != oldest));
                }
                Step::Leave(_) | Step::Take(_) => {}
            }
            let slowest = queues.iter().map(|(_, queue)| queue.len()).max().unwrap_or(0);
            prop_assert_eq!(log.pending(), slowest);
            prop_assert_eq!(log.len(), slowest.max(recent.len()));
            prop_assert_eq!(log.bytes(), log.len());
            prop_assert_eq!(log.subscribers() as usize, queues.len());
        }
    }
}

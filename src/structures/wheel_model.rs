//! The model of the timer wheel: a sorted map that the wheel has to agree with, whatever is done.

use std::collections::BTreeMap;

use crate::words::time::Time;

use crate::structures::wheel::{TICK_BITS, TimerKey, TimerWheel};

/// Something that is done to the wheel; ticks are relative to now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Arm(u64),
    Cancel(usize),
    Rearm(usize, u64),
    Advance(u64),
    /// Many, of which the last stays.
    #[cfg(test)]
    Burst(u64),
    GiveBack,
}

fn at_tick(tick: u64) -> Time {
    Time::from_micros(tick << TICK_BITS)
}

/// More than the wheel keeps room for in any case.
#[cfg(test)]
const BURST: usize = 1_200;

/// Both, and what the model knows of the time.
struct Pair {
    wheel: TimerWheel,
    keys: BTreeMap<u32, (TimerKey, u64)>,
    now: u64,
    next_token: u32,
}

/// What fires, in which order of ticks, and what the loop waits for, is what the map says.
pub(crate) fn agrees_with_a_map(
    operations: impl IntoIterator<Item = Operation>,
) -> Result<(), String> {
    let mut pair = Pair { wheel: TimerWheel::new(), keys: BTreeMap::new(), now: 0, next_token: 0 };
    for operation in operations {
        pair.apply(operation).map_err(|what| format!("{operation:?}: {what}"))?;
        if pair.wheel.len() != pair.keys.len() {
            return Err(format!("{} entries, expected {}", pair.wheel.len(), pair.keys.len()));
        }
    }
    Ok(())
}

impl Pair {
    fn apply(&mut self, operation: Operation) -> Result<(), String> {
        match operation {
            Operation::Arm(delay) => {
                let token = self.next_token;
                self.next_token += 1;
                let tick = self.tick_after(delay);
                let key = self.wheel.arm(token, at_tick(self.now + delay));
                self.keys.insert(token, (key, tick));
            }
            Operation::Cancel(n) => {
                if let Some((key, _)) = self.pick(n).and_then(|token| self.keys.remove(&token)) {
                    self.wheel.cancel(key);
                }
            }
            Operation::Rearm(n, delay) => {
                let picked = self.pick(n);
                if let Some((token, (key, _))) =
                    picked.and_then(|token| Some((token, self.keys.remove(&token)?)))
                {
                    let tick = self.tick_after(delay);
                    let key = self.wheel.rearm(key, at_tick(self.now + delay));
                    self.keys.insert(token, (key, tick));
                }
            }
            Operation::Advance(ticks) => return self.advance(ticks),
            #[cfg(test)]
            Operation::Burst(delay) => {
                for n in 0..BURST {
                    self.apply(Operation::Arm(delay))?;
                    let others = self.next_token.saturating_sub(2);
                    if let Some((key, _)) = (n > 0).then(|| self.keys.remove(&others)).flatten() {
                        self.wheel.cancel(key);
                    }
                }
            }
            Operation::GiveBack => self.wheel.give_back(),
        }
        Ok(())
    }

    fn tick_after(&self, delay: u64) -> u64 {
        // A tick that was looked at is over, also where cancelling had emptied it.
        (self.now + delay).max(self.wheel.expired() + 1)
    }

    fn pick(&self, n: usize) -> Option<u32> {
        self.keys.keys().nth(n % self.keys.len().max(1)).copied()
    }

    fn advance(&mut self, ticks: u64) -> Result<(), String> {
        self.now += ticks;
        let mut last = 0;
        while let Some(token) = self.wheel.pop_due(at_tick(self.now)) {
            let Some((_, tick)) = self.keys.remove(&token) else {
                return Err(format!("token {token} fired and is not armed"));
            };
            if tick > self.now || tick < last {
                return Err(format!("tick {tick} fired at {} after {last}", self.now));
            }
            last = tick;
        }
        let earliest = self.keys.values().map(|(_, tick)| *tick).min();
        if earliest.is_some_and(|tick| tick <= self.now) {
            return Err(format!("tick {earliest:?} did not fire"));
        }
        match (self.wheel.next_deadline(), earliest.map(at_tick)) {
            (None, None) => Ok(()),
            (Some(next), Some(earliest)) if next <= earliest => Ok(()),
            (next, earliest) => Err(format!("next is {next:?}, the earliest {earliest:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn operation() -> impl Strategy<Value = Operation> {
        let delay = prop_oneof![0u64..40, 1000u64..3000, 0u64..100_000];
        let step = prop_oneof![0u64..3, 0u64..100, 0u64..5000];
        prop_oneof![
            4 => delay.clone().prop_map(Operation::Arm),
            1 => any::<usize>().prop_map(Operation::Cancel),
            2 => (any::<usize>(), delay).prop_map(|(n, delay)| Operation::Rearm(n, delay)),
            4 => step.prop_map(Operation::Advance),
            1 => (0u64..100_000).prop_map(Operation::Burst),
            2 => Just(Operation::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(
            operations in proptest::collection::vec(operation(), 1..200),
        ) {
            agrees_with_a_map(operations).map_err(TestCaseError::fail)?;
        }
    }
}

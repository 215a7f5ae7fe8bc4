//! The timers of the application: when each is to act, and how often. `A` is what it does then.

use std::time::Duration;

use crate::structures::ids::TimerId;
use crate::structures::slab::{GenerationBits, Slab};
use crate::structures::wheel::TimerKey;
use crate::words::time::Time;

/// The slot of timers that a session keeps itself.
const OF_A_SESSION: u32 = u32::MAX;

/// The timers of the application. Their deadlines are armed on the wheel by whoever owns that.
#[derive(Debug)]
pub(crate) struct Timers<A> {
    running: Slab<Running<A>>,
    /// Set since the wheel was last looked at.
    fresh: Vec<u32>,
    /// Entries of the wheel whose timers were taken back.
    stale: Vec<TimerKey>,
    bits: GenerationBits,
    serial: u32,
}

#[derive(Debug)]
struct Running<A> {
    id: TimerId,
    at: Time,
    delay: Duration,
    /// Its entry on the wheel; none before it is armed and while it acts.
    key: Option<TimerKey>,
    /// None while it acts.
    action: Option<A>,
}

/// The most timers of the application: their tokens on the wheel have this many bits.
const TIMERS_MAX: usize = 1 << 30;

impl<A> Default for Timers<A> {
    fn default() -> Self {
        Self::of_loop(GenerationBits::NONE)
    }
}

impl<A> Timers<A> {
    /// Those of a loop whose serials have these bits.
    pub(crate) fn of_loop(bits: GenerationBits) -> Self {
        let running = Slab::unreserved(TIMERS_MAX);
        Self { running, fresh: Vec::new(), stale: Vec::new(), bits, serial: bits.first() }
    }

    pub(crate) fn add(&mut self, delay: Duration, action: A, now: Time) -> TimerId {
        let mut id = TimerId { slot: OF_A_SESSION, serial: self.next_serial() };
        let at = now.after(delay);
        // There is memory for far fewer: it never fails.
        let added = self.running.insert(Running { id, at, delay, key: None, action: Some(action) });
        let Ok(key) = added else { return id };
        id.slot = key.index;
        if let Some(running) = self.running.get_mut(key) {
            running.id = id;
        }
        self.fresh.push(key.index);
        id
    }

    /// How many timers there is memory for.
    #[cfg(all(repository, test))]
    pub(crate) fn running_slots(&self) -> usize {
        self.running.slots()
    }

    /// How many have an entry on the wheel.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn armed(&self) -> usize {
        let armed = self.running.iter().filter(|(_, running)| running.key.is_some());
        armed.count().saturating_add(self.stale.len())
    }

    /// An id for a timer that a session keeps.
    pub(crate) fn id_for_session(&mut self) -> TimerId {
        TimerId { slot: OF_A_SESSION, serial: self.next_serial() }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.bits.after(self.serial);
        self.serial
    }

    pub(crate) fn cancel(&mut self, id: TimerId) {
        if self.running.at(id.slot).is_some_and(|running| running.id == id) {
            let running = self.running.remove(id.slot);
            self.stale.extend(running.and_then(|running| running.key));
        }
    }

    /// An entry of the wheel to be cancelled.
    pub(crate) fn pop_stale(&mut self) -> Option<TimerKey> {
        let key = self.stale.pop();
        if key.is_none() {
            self.stale = Vec::new();
        }
        key
    }

    /// Has `arm` put on the wheel what was set since, by slot.
    pub(crate) fn arm_fresh(&mut self, mut arm: impl FnMut(u32, Time) -> TimerKey) {
        for slot in std::mem::take(&mut self.fresh) {
            if let Some(running) = self.running.at_mut(slot) {
                if running.key.is_none() {
                    running.key = Some(arm(slot, running.at));
                }
            }
        }
    }

    /// The wheel's entry for a slot has fired and is gone: what the timer does now. [`acted`](Self::acted)
    /// follows.
    pub(crate) fn fire(&mut self, slot: u32) -> Option<(TimerId, A)> {
        let running = self.running.at_mut(slot)?;
        running.key = None;
        Some((running.id, running.action.take()?))
    }

    /// The action is done: the timer goes on, or is over.
    pub(crate) fn acted(&mut self, id: TimerId, again: Option<A>, now: Time) {
        let running = self.running.at_mut(id.slot).filter(|running| running.id == id);
        let Some(running) = running else { return };
        match again {
            Some(action) => {
                // On the beat; beats that were missed are left out.
                let next = running.at.after(running.delay);
                running.at = if next > now { next } else { now.after(running.delay) };
                running.action = Some(action);
                self.fresh.push(id.slot);
            }
            None => drop(self.running.remove(id.slot)),
        }
    }
}

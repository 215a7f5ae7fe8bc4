//! Owns the timers of the application: what is to run, when, and how often.

use std::fmt;
use std::time::Duration;

use crate::structures::ids::TimerId;
use crate::structures::slab::Slab;
use crate::structures::wheel::TimerKey;
use crate::words::time::Time;

use crate::context::server_ref::ServerRef;

/// The place of timers that a session keeps itself.
const OF_A_SESSION: u32 = u32::MAX;

/// A timer of the application, as it is set.
pub(crate) struct AppTimer {
    delay: Duration,
    action: Action,
}

enum Action {
    Once(Box<dyn FnOnce(&mut ServerRef<'_>)>),
    Every(Box<dyn FnMut(&mut ServerRef<'_>)>),
}

impl fmt::Debug for AppTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeats = matches!(self.action, Action::Every(_));
        f.debug_struct("AppTimer").field("delay", &self.delay).field("repeats", &repeats).finish()
    }
}

impl AppTimer {
    pub(crate) fn once(delay: Duration, action: impl FnOnce(&mut ServerRef<'_>) + 'static) -> Self {
        Self { delay, action: Action::Once(Box::new(action)) }
    }

    pub(crate) fn every(
        period: Duration,
        action: impl FnMut(&mut ServerRef<'_>) + 'static,
    ) -> Self {
        Self { delay: period, action: Action::Every(Box::new(action)) }
    }
}

/// The timers of the application. Their deadlines are armed on the wheel by whoever owns that.
#[derive(Debug)]
pub(crate) struct Timers {
    running: Slab<Running>,
    /// Set since the wheel was last looked at.
    fresh: Vec<u32>,
    /// Entries of the wheel whose timers were taken back.
    stale: Vec<TimerKey>,
    serial: u32,
}

#[derive(Debug)]
struct Running {
    id: TimerId,
    at: Time,
    /// Its entry on the wheel; none before it is armed and while it acts.
    key: Option<TimerKey>,
    /// None while it acts.
    timer: Option<AppTimer>,
}

/// The most timers of the application: their tokens on the wheel have this many bits.
const TIMERS_MAX: usize = 1 << 30;

impl Default for Timers {
    fn default() -> Self {
        let running = Slab::unreserved(TIMERS_MAX);
        Self { running, fresh: Vec::new(), stale: Vec::new(), serial: 0 }
    }
}

impl Timers {
    pub(crate) fn add(&mut self, timer: AppTimer, now: Time) -> TimerId {
        let mut id = TimerId { place: OF_A_SESSION, serial: self.next_serial() };
        let at = now.after(timer.delay);
        // There is memory for far fewer: it never fails.
        let added = self.running.insert(Running { id, at, key: None, timer: Some(timer) });
        let Ok(key) = added else { return id };
        id.place = key.index;
        if let Some(running) = self.running.get_mut(key) {
            running.id = id;
        }
        self.fresh.push(key.index);
        id
    }

    /// How many timers there is memory for.
    #[cfg(all(repository, test))]
    pub(crate) fn running_places(&self) -> usize {
        self.running.places()
    }

    /// An id for a timer that a session keeps.
    pub(crate) fn id_for_session(&mut self) -> TimerId {
        TimerId { place: OF_A_SESSION, serial: self.next_serial() }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    pub(crate) fn cancel(&mut self, id: TimerId) {
        if self.running.at(id.place).is_some_and(|running| running.id == id) {
            let running = self.running.remove(id.place);
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

    /// Has `arm` put on the wheel what was set since, by place.
    pub(crate) fn arm_fresh(&mut self, mut arm: impl FnMut(u32, Time) -> TimerKey) {
        for place in std::mem::take(&mut self.fresh) {
            if let Some(running) = self.running.at_mut(place) {
                if running.key.is_none() {
                    running.key = Some(arm(place, running.at));
                }
            }
        }
    }

    /// The wheel's entry for a place has fired and is gone: the timer, to be handed to [`act`].
    pub(crate) fn fire(&mut self, place: u32) -> Option<(TimerId, AppTimer)> {
        let running = self.running.at_mut(place)?;
        running.key = None;
        Some((running.id, running.timer.take()?))
    }

    /// The action is done: the timer goes on, or is over.
    fn acted(&mut self, id: TimerId, again: Option<AppTimer>, now: Time) {
        let running = self.running.at_mut(id.place).filter(|running| running.id == id);
        let Some(running) = running else { return };
        match again {
            Some(timer) => {
                // On the beat; beats that were missed are left out.
                let next = running.at.after(timer.delay);
                running.at = if next > now { next } else { now.after(timer.delay) };
                running.timer = Some(timer);
                self.fresh.push(id.place);
            }
            None => drop(self.running.remove(id.place)),
        }
    }
}

/// Runs a timer's action, and has it run again if it is to.
pub(crate) fn act(server: &mut ServerRef<'_>, id: TimerId, timer: AppTimer) {
    let AppTimer { delay, action } = timer;
    let again = match action {
        Action::Once(action) => {
            action(server);
            None
        }
        Action::Every(mut action) => {
            action(server);
            Some(AppTimer { delay, action: Action::Every(action) })
        }
    };
    let now = server.shared.now;
    server.shared.timers.acted(id, again, now);
}

//! The deadlines of a connection: when something has to be done although nothing happens.

use std::time::Duration;

use crate::session::read_pause::ReadPause;
use crate::session::state::Phase;
use crate::structures::progress::Least;
use crate::words::limits::Limits;
use crate::words::options::SessionOptions;
use crate::words::time::Time;

use crate::core::connection::{Connection, Stage};
use crate::core::progress::write_look;
use crate::core::receiving::PauseTimes;

/// A wait that begins with an empty queue looks for that in so many parts of its length.
const LOOKS_OF_WAIT: u32 = 8;

impl Connection {
    /// When something has to be done although nothing happens.
    pub(crate) fn deadline(&self, limits: &Limits, route: &SessionOptions) -> Option<Time> {
        // Most sessions have none, and this is asked at every settling.
        let Some(extra) = self.state.extra.as_deref() else {
            return self.plain_deadline(limits, route);
        };
        let options = self.state.options(route);
        let least = Least { window: options.write_timeout, min_rate: limits.min_rate };
        let write = write_look(&self.state, least);
        let own = match (&self.stage, self.state.phase) {
            // It is due whether the peer takes what was answered before or not.
            (Stage::Http(http), _) if http.deferred().is_some() => {
                http.deferred().and_then(|deferred| deferred.deadline(limits))
            }
            // An answer on its way has as long as the peer takes of it in time, also where no more of it
            // waits in the outbox, but records of TLS do.
            (Stage::Http(http), _) if http.answering.is_some() || write.is_some() => {
                extra.window.map(|window| window.next_look(least))
            }
            (Stage::Http(http), _) if http.receiving.is_some() => {
                self.body_deadline(limits, options, least)
            }
            // What is left of the last answer moves that deadline on.
            (Stage::Http(http), _) => {
                earliest([Some(http.deadline(limits)), self.answer_look(limits, least)])
            }
            (Stage::Session(_), Phase::Open) => earliest([
                self.ping_deadline(options, least),
                self.unfinished_deadline(options),
                self.idle_deadline(options),
                // A raw handler has its time to answer the peer's Close.
                extra.deadline,
                extra.timers.iter().map(|(_, at)| *at).min(),
                self.state.read_pause().and_then(ReadPause::until),
                self.pause_deadline(options),
                self.gone_deadline(limits),
            ]),
            (Stage::Session(_) | Stage::Finishing, _) => self.leave_look(limits, least),
            (Stage::Closed(_), _) => None,
        };
        earliest([own, write])
    }

    /// The same of one that has no `Extra`: all but these ask for something in it.
    #[inline]
    fn plain_deadline(&self, limits: &Limits, options: &SessionOptions) -> Option<Time> {
        match (&self.stage, self.state.phase) {
            (Stage::Session(_), Phase::Open) => {
                let ping = options.ping_period.map(|period| match self.state.awaiting_pong {
                    true => self.pong_wait_ends(options),
                    false => self.state.ping_base.after(period),
                });
                let idle = options.idle_timeout.map(|idle| self.state.last_activity.after(idle));
                earliest([ping, self.unfinished_deadline(options), idle])
            }
            (Stage::Http(http), _) if http.receiving.is_some() => {
                let least = Least { window: options.write_timeout, min_rate: limits.min_rate };
                self.body_deadline(limits, options, least)
            }
            (Stage::Http(http), _) => match http.deferred() {
                Some(deferred) => deferred.deadline(limits),
                None if http.answering.is_some() => None,
                None => Some(http.deadline(limits)),
            },
            (Stage::Session(_) | Stage::Finishing | Stage::Closed(_), _) => None,
        }
    }

    /// When a request's body, or who takes it, is out of time.
    #[cold]
    fn body_deadline(
        &self,
        limits: &Limits,
        options: &SessionOptions,
        least: Least,
    ) -> Option<Time> {
        let Stage::Http(http) = &self.stage else { return None };
        http.receiving.as_deref()?.deadline(least, self.pause_times(limits, options))
    }

    /// How long a body may be paused.
    pub(super) fn pause_times(&self, limits: &Limits, options: &SessionOptions) -> PauseTimes {
        let options = self.state.options(options);
        PauseTimes { pause: options.pause_timeout, gone: limits.close_timeout }
    }

    pub(crate) fn ping_deadline(&self, options: &SessionOptions, least: Least) -> Option<Time> {
        let period = options.ping_period?;
        Some(match self.state.awaiting_pong {
            true => self.pong_deadline(options, least),
            false => self.state.ping_base.after(period),
        })
    }

    /// When the application has not taken anything for too long.
    pub(crate) fn pause_deadline(&self, options: &SessionOptions) -> Option<Time> {
        let since =
            self.state.read_pause().filter(|pause| !pause.is_over()).and_then(ReadPause::since)?;
        options.pause_timeout.map(|pause| since.after(pause))
    }

    /// When the application has had its time to take what a peer left behind that is gone.
    pub(crate) fn gone_deadline(&self, limits: &Limits) -> Option<Time> {
        let pause = self.state.read_pause().filter(|pause| !pause.is_over());
        pause.and_then(ReadPause::peer_ended).map(|ended| ended.after(limits.close_timeout))
    }

    /// None while the peer is not read: what it sends is not seen.
    pub(crate) fn idle_deadline(&self, options: &SessionOptions) -> Option<Time> {
        let pause = self.state.read_pause();
        if pause.is_some_and(|pause| !pause.is_over() || pause.since().is_some()) {
            return None; // also as long as it is to go on
        }
        options.idle_timeout.map(|idle| self.state.last_activity.after(idle))
    }
}

/// Deadlines that depend on the peer's progress.
impl Connection {
    /// When it has to be looked at whether the peer has the last answer, with which the wait for the next
    /// request begins.
    pub(super) fn answer_look(&self, limits: &Limits, least: Least) -> Option<Time> {
        let window = self.state.extra.as_deref()?.window?;
        let part = part_of(limits.handshake_timeout);
        Some(window.looked().after(part).min(window.next_look(least)))
    }

    /// When the wait for the peer's Close or hang-up is over, or has to be looked at since it has not
    /// begun.
    pub(super) fn leave_look(&self, limits: &Limits, least: Least) -> Option<Time> {
        let extra = self.state.extra.as_deref()?;
        let deadline = extra.deadline?;
        match extra.window.filter(|_| extra.unacknowledged) {
            _ if !extra.unacknowledged => Some(deadline),
            _ if !extra.outbox.is_empty() => None, // `write_look` says when
            None => Some(deadline),
            Some(window) => {
                let part = part_of(self.wait(limits));
                Some(window.looked().after(part).min(window.next_look(least)))
            }
        }
    }

    /// How long the wait lasts.
    pub(super) fn wait(&self, limits: &Limits) -> Duration {
        match self.stage {
            Stage::Session(_) => limits.close_timeout,
            Stage::Http(_) | Stage::Finishing | Stage::Closed(_) => limits.linger_timeout,
        }
    }

    /// When the time for what the peer began is over; `None` while it is not read.
    pub(super) fn unfinished_deadline(&self, options: &SessionOptions) -> Option<Time> {
        if self.state.is_read_paused() {
            return None;
        }
        self.state.unfinished_since().map(|since| since.after(options.write_timeout))
    }

    /// When the wait for a pong is over, or has to be looked at since it has not begun.
    pub(super) fn pong_deadline(&self, options: &SessionOptions, least: Least) -> Time {
        let behind = self.state.extra.as_deref().and_then(|extra| extra.ping.as_deref());
        behind.map_or_else(
            || self.pong_wait_ends(options),
            |behind| {
                let least = Least { window: options.timeout, ..least };
                let (window, looked) = (behind.window, behind.window.looked());
                match looked < window.since().after(least.window) {
                    true => window.next_look(least),
                    false => looked.after(least.between_looks()), // it has a longer window
                }
            },
        )
    }

    pub(super) fn pong_wait_ends(&self, options: &SessionOptions) -> Time {
        let timeout = match options.ping_period {
            // No pong says earlier that the heartbeat has come, and the next one is not to wait for that.
            Some(period) if self.state.is_event_stream() => options.timeout.min(period),
            _ => options.timeout,
        };
        self.state.ping_base.after_millis(self.state.heard_millis).after(timeout)
    }
}

pub(super) fn part_of(wait: Duration) -> Duration {
    wait.checked_div(LOOKS_OF_WAIT).unwrap_or(wait)
}

fn earliest<const N: usize>(deadlines: [Option<Time>; N]) -> Option<Time> {
    // By reference: moved, so many would be copied first.
    deadlines.iter().copied().fold(None, Time::earlier)
}

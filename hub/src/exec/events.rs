//! What happens to programs, in one descriptor: their pipes, a clock, signals.
//!
//! The server's loop watches it as one; when that loop has ended, it is waited for by itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// The most that is dealt with before the server's other events have their turn.
const EVENTS_MAX: usize = 64;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A child has ended.
    Children,
    /// The server is told to end once more.
    Stop,
    /// The time has come for something.
    Alarm,
    /// A program, by its number, can take input.
    Input(u64),
    /// A program, by its number, has said something.
    Output(u64),
}

impl Source {
    const fn token(self) -> u64 {
        match self {
            Self::Children => 0,
            Self::Stop => 1,
            Self::Alarm => 2,
            Self::Input(number) => (number << 1) + 4,
            Self::Output(number) => (number << 1) + 5,
        }
    }

    fn of(token: u64) -> Self {
        match token {
            0 => Self::Children,
            1 => Self::Stop,
            2 | 3 => Self::Alarm,
            token if token & 1 == 0 => Self::Input((token - 4) >> 1),
            token => Self::Output((token - 5) >> 1),
        }
    }
}

/// The descriptors, and the alarm.
#[derive(Debug)]
pub(super) struct Events {
    epoll: OwnedFd,
    alarm: OwnedFd,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let events = Self { epoll, alarm };
        events.add(&events.alarm, Source::Alarm)?;
        Ok(events)
    }

    /// For the loop that watches.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Watches a descriptor, until it is removed or closed.
    pub(super) fn add(&self, descriptor: impl AsFd, source: Source) -> io::Result<()> {
        let flags = match source {
            Source::Input(_) => epoll::EventFlags::OUT,
            _ => epoll::EventFlags::IN,
        };
        let data = epoll::EventData::new_u64(source.token());
        Ok(epoll::add(&self.epoll, descriptor, data, flags)?)
    }

    pub(super) fn remove(&self, descriptor: impl AsFd) {
        // It is not there if it was removed before.
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// What has happened; waits for it, or not.
    pub(super) fn take(&self, waits: bool) -> Vec<Source> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if waits { None } else { Some(&at_once) };
        // A signal may come between; it has an event of its own.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout);
        events.iter().map(|event| Source::of({ event.data }.u64())).collect()
    }

    /// Has [`Source::Alarm`] happen at a time, or never.
    pub(super) fn set_alarm(&self, at: Option<Instant>, now: Instant) {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = at.map_or(never, |at| {
            // Zero would be never.
            let wait = at.saturating_duration_since(now).max(Duration::from_micros(1));
            Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(0),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        let alarm = Itimerspec { it_interval: never, it_value: value };
        // Fails for values alone that are none.
        let _ = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &alarm);
    }

    /// Has heard the alarm.
    pub(super) fn silence_alarm(&self) {
        let _ = read(&self.alarm, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_what_its_token_says() {
        for source in [Source::Children, Source::Stop, Source::Alarm] {
            assert_eq!(Source::of(source.token()), source);
        }
        for number in [0, 1, 7, 1 << 40] {
            for source in [Source::Input(number), Source::Output(number)] {
                assert_eq!(Source::of(source.token()), source);
            }
        }
    }
}

//! The event loop: the one place that takes what the system says. What follows from what happened, and in
//! which order, is the driver's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Token, Waker};

use crate::app::application::Built;
use crate::context::commands::{Drained, StopRequest};
use crate::context::loop_state::{Order, ServerRef};
use crate::context::mailbox::Inbox;
use crate::core::driver::Driver;
use crate::core::panics::drop_caught;
use crate::core::sockets::Readiness;
use crate::words::close::CloseCode;
use crate::words::time::Time;

use super::signals::StopSignals;
use super::sockets::{Beginnings, OWN_TOKENS, OpenSockets, SLOTS_END};

const WAKER: Token = OWN_TOKENS[0];
const SIGNALS: Token = OWN_TOKENS[1];

/// Events taken from the system at once.
const EVENTS_PER_TURN: usize = 512;

/// The loop, and all that it owns. It can wait, or be turned by somebody who waits for it.
pub(crate) struct PollLoop {
    events: Events,
    /// Something is left to be done that nobody else knows of.
    unfinished: bool,
    /// When the last turn was over.
    ended: Time,
    /// Set once a stop is complete.
    drained: Option<Drained>,
    dispatcher: Dispatcher,
}

/// Whom events concern.
struct Dispatcher {
    driver: Driver<OpenSockets>,
    /// How long a stop by signal waits for everybody.
    grace: Duration,
    /// `None` once it is over.
    inbox: Option<Inbox<Order>>,
    signals: Option<StopSignals>,
}

impl PollLoop {
    /// `inbox` has the orders of other threads.
    pub(crate) fn new(
        built: Built,
        beginnings: Beginnings,
        inbox: Inbox<Order>,
    ) -> io::Result<Self> {
        let returns = built.on_loop.mailbox.returns();
        let sockets = OpenSockets::new(&built.limits, beginnings, returns)?;
        let waker = Waker::new(sockets.poll.registry(), WAKER)?;
        // It fails only where the loop is gone, and with it the need.
        inbox.register(Box::new(move || drop(waker.wake())));
        Ok(Self {
            events: Events::with_capacity(EVENTS_PER_TURN),
            unfinished: false,
            ended: sockets.clock.now(),
            drained: None,
            dispatcher: Dispatcher {
                grace: built.limits.grace(),
                driver: Driver::new(built, sockets),
                inbox: Some(inbox),
                signals: None,
            },
        })
    }

    /// Stops cleanly at SIGINT and SIGTERM; a second one stops at once.
    pub(crate) fn accept_signals(&mut self) -> io::Result<()> {
        if self.drained.is_some() {
            return Ok(());
        }
        let registry = self.dispatcher.driver.sockets.poll.registry();
        self.dispatcher.signals = Some(StopSignals::new(registry, SIGNALS)?);
        Ok(())
    }

    /// How long a stop waits for everybody where nobody says.
    pub(super) fn grace(&self) -> Duration {
        self.dispatcher.grace
    }

    /// Runs until a stop is complete.
    pub(crate) fn run(&mut self) -> io::Result<Drained> {
        loop {
            // The hooks of the last turn took time; the wait is from now on.
            let timeout = self.next_turn().map(|next| next.since(self.ended));
            if let Some(drained) = self.turn(timeout)? {
                return Ok(drained);
            }
        }
    }

    /// Waits for as long at most, and does what is to be done: how sessions have ended, once a stop is
    /// complete.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> io::Result<Option<Drained>> {
        match self.dispatcher.driver.sockets.poll.poll(&mut self.events, timeout) {
            // A turn all the same: it knows how long the wait was. Else a loop that is interrupted again and
            // again waits as long each time, and what is due never comes.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        if self.drained.is_some() {
            return Ok(self.drained); // the poll has taken what made the descriptor readable
        }
        let now = self.dispatcher.driver.sockets.clock.now();
        let mut taken = 0;
        for event in &self.events {
            self.dispatcher.dispatch(now, event);
            taken += 1;
        }
        // The system may have more, and whoever waits for an edge of the descriptor is not told again.
        self.unfinished = taken == EVENTS_PER_TURN;
        let driver = &mut self.dispatcher.driver;
        driver.sockets.has_more_events = self.unfinished;
        driver.turn(now);
        driver.core.publish_stats();
        if driver.core.is_over() {
            self.drained = Some(driver.core.drained());
            return Ok(self.drained);
        }
        let Driver { core, sockets, .. } = driver;
        self.ended = sockets.clock.now();
        sockets.turn_ended(core, now, self.ended);
        Ok(None)
    }

    /// When the next turn has to be, whether anything happens or not.
    fn next_turn(&mut self) -> Option<Time> {
        if self.unfinished { Some(Time::ZERO) } else { self.dispatcher.driver.next_turn() }
    }
}

/// For loops of others.
impl PollLoop {
    /// A turn that does not wait. Once a stop is complete, whoever asks, comes or signals finds nobody, as if
    /// all of this were dropped.
    pub(super) fn turn_at_once(&mut self) -> io::Result<Option<Drained>> {
        let drained = self.turn(Some(Duration::ZERO))?;
        if drained.is_some() {
            let Dispatcher { driver, inbox, signals, .. } = &mut self.dispatcher;
            *signals = None;
            driver.sockets.close();
            drop_caught("an order", inbox.take());
        }
        Ok(drained)
    }

    /// When the next one has to be, as somebody else's clock says it; `None` also once a stop is complete.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let next = self.next_turn().filter(|_| self.drained.is_none())?;
        self.dispatcher.driver.sockets.clock.instant(next)
    }

    /// Runs code of the application now; `None` if it panicked.
    pub(super) fn with_server<R>(
        &mut self,
        act: impl FnOnce(&mut ServerRef<'_>) -> R,
    ) -> Option<R> {
        let now = self.dispatcher.driver.sockets.clock.now();
        self.unfinished = true; // whatever it asks of the loop is done in a turn
        self.dispatcher.driver.run(now, "action", act)
    }
}

/// Becomes readable as soon as there is something to do.
impl AsFd for PollLoop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dispatcher.driver.sockets.poll.registry().as_fd()
    }
}

impl Dispatcher {
    fn dispatch(&mut self, now: Time, event: &Event) {
        match event.token() {
            // First, since nearly every event is one of these.
            Token(token) if token < SLOTS_END => {
                let Ok(slot) = u32::try_from(token) else { return };
                let ended = event.is_read_closed() || event.is_error();
                let ready = Readiness {
                    writable: event.is_writable(),
                    readable: ended || event.is_readable(),
                    ended,
                };
                self.driver.event(now, slot, ready);
            }
            WAKER => {
                if let Some(inbox) = &self.inbox {
                    self.driver.take_orders(now, inbox);
                }
            }
            SIGNALS => self.take_signals(now),
            _ => {
                let Driver { core, sockets, .. } = &mut self.driver;
                sockets.other_event(core, now, event);
                self.driver.end_and_drop();
            }
        }
    }

    fn take_signals(&mut self, now: Time) {
        if !self.signals.as_mut().is_some_and(StopSignals::take) {
            return;
        }
        // Asked again after the stop has begun: now.
        let grace = if self.driver.core.is_draining() { Duration::ZERO } else { self.grace };
        // A socket that was handed over is there after this process: come back.
        let restarts = self.driver.sockets.has_handed_over();
        let code = if restarts { CloseCode::SERVICE_RESTART } else { CloseCode::GOING_AWAY };
        let request = StopRequest { code, grace };
        self.driver.core.tell_other_loops(&request);
        self.driver.stop(now, &request);
    }
}

//! The event loop: the one place that waits. What follows from what happened, and in which order, is
//! the driver's.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Token};

use crate::app::application::Built;
use crate::context::commands::{Drained, StopRequest};
use crate::core::driver::Driver;
use crate::core::sockets::Readiness;
use crate::words::close::CloseCode;
use crate::words::time::Time;

use super::listen::Opened;
use super::mailbox::Inbox;
use super::signals::StopSignals;
use super::sockets::{OWN_TOKENS, OpenSockets, SLOTS_END};

const WAKER: Token = OWN_TOKENS[0];
const SIGNALS: Token = OWN_TOKENS[1];

/// Events taken from the system at once.
const EVENTS_PER_TURN: usize = 512;

/// The loop, and all that it owns.
pub(crate) struct PollLoop {
    driver: Driver<OpenSockets>,
    /// How long a stop by signal waits for everybody.
    grace: Duration,
    inbox: Option<Inbox>,
    signals: Option<StopSignals>,
}

impl PollLoop {
    pub(crate) fn new(built: Built, listeners: Vec<Opened>) -> io::Result<Self> {
        let sockets = OpenSockets::new(&built.limits, listeners)?;
        Ok(Self {
            grace: built.limits.grace(),
            driver: Driver::new(built, sockets),
            inbox: None,
            signals: None,
        })
    }

    /// Whether the application takes connections off the loop.
    pub(crate) fn detaches(&self) -> bool {
        self.driver.core.detaches()
    }

    /// Lets other threads send orders.
    pub(crate) fn accept_orders(&mut self, inbox: Inbox) -> io::Result<()> {
        inbox.register(self.driver.sockets.poll.registry(), WAKER)?;
        self.driver.sockets.returns = Some(inbox.returns());
        self.inbox = Some(inbox);
        Ok(())
    }

    /// Stops cleanly at SIGINT and SIGTERM; a second one stops at once.
    pub(crate) fn accept_signals(&mut self) -> io::Result<()> {
        let registry = self.driver.sockets.poll.registry();
        self.signals = Some(StopSignals::new(registry, SIGNALS)?);
        Ok(())
    }

    /// Runs until a stop is complete.
    pub(crate) fn run(&mut self) -> io::Result<Drained> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut ended = self.driver.sockets.clock.now();
        loop {
            // The hooks of the last turn took time; the wait is from now on.
            let timeout = self.driver.next_turn().map(|next| next.since(ended));
            match self.driver.sockets.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = self.driver.sockets.clock.now();
            for event in &events {
                self.dispatch(now, event);
            }
            self.driver.turn(now);
            if self.driver.core.is_drained() {
                return Ok(self.driver.core.drained());
            }
            let Driver { core, sockets, .. } = &mut self.driver;
            ended = sockets.clock.now();
            sockets.turn_ended(core, now, ended);
        }
    }

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
            WAKER => self.take_orders(now),
            SIGNALS => self.take_signals(now),
            _ => {
                let Driver { core, sockets, .. } = &mut self.driver;
                sockets.other_event(core, now, event);
                self.driver.end_and_drop();
            }
        }
    }

    fn take_orders(&mut self, now: Time) {
        let Some(inbox) = &self.inbox else { return };
        let orders = inbox.turn();
        let stop = inbox.take_stop();
        for client in inbox.take_returned() {
            self.driver.core.release_detached(client);
        }
        for action in orders {
            self.driver.run(now, "order", action);
        }
        if let Some(request) = stop {
            self.driver.stop(now, &request);
        }
    }

    fn take_signals(&mut self, now: Time) {
        let Some(signals) = &mut self.signals else { return };
        for _ in 0..signals.take() {
            // Asked twice: now.
            let grace = if self.driver.core.is_draining() { Duration::ZERO } else { self.grace };
            // A socket that was handed over is there after this process: come back.
            let restarts = self.driver.sockets.has_handed_over();
            let code = if restarts { CloseCode::SERVICE_RESTART } else { CloseCode::GOING_AWAY };
            self.driver.stop(now, &StopRequest { code, grace });
        }
    }
}

//! The event loop: the one place that waits. What follows from what happened, and in which order, is
//! the driver's.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Token, Waker};

use crate::app::application::Built;
use crate::context::commands::{Drained, StopRequest};
use crate::context::loop_state::Order;
use crate::context::mailbox::Inbox;
use crate::core::driver::Driver;
use crate::core::sockets::Readiness;
use crate::words::close::CloseCode;
use crate::words::time::Time;

use super::listen::Opened;
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
    inbox: Inbox<Order>,
    signals: Option<StopSignals>,
}

impl PollLoop {
    /// `inbox` has the orders of other threads.
    pub(crate) fn new(
        built: Built,
        listeners: Vec<Opened>,
        inbox: Inbox<Order>,
    ) -> io::Result<Self> {
        let returns = built.on_loop.mailbox.returns();
        let sockets = OpenSockets::new(&built.limits, listeners, returns)?;
        let waker = Waker::new(sockets.poll.registry(), WAKER)?;
        // It fails only where the loop is gone, and with it the need.
        inbox.register(Box::new(move || drop(waker.wake())));
        Ok(Self {
            grace: built.limits.grace(),
            driver: Driver::new(built, sockets),
            inbox,
            signals: None,
        })
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
            WAKER => self.driver.take_orders(now, &self.inbox),
            SIGNALS => self.take_signals(now),
            _ => {
                let Driver { core, sockets, .. } = &mut self.driver;
                sockets.other_event(core, now, event);
                self.driver.end_and_drop();
            }
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

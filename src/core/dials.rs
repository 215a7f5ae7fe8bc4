//! The dialers of a loop: from a name over a connection to a session, and from its end to the next attempt.
//!
//! ```text
//!   Waiting --> Lookup --> Connect --> (Tunnel) --> Handshake --> session
//!      ^          |           |            |            |            |
//!      +----------+-----------+------------+------------+------------+
//!                 failed: a delay that is drawn anew            lost
//! ```
//!
//! Until there is a connection, everything here is decided on what the driver says of lookups and
//! connects. A connection has a slot from then on as every other has, and its answer is read in `dialling`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::app::connector::Connector;
use crate::context::dialers::NewDialer;
use crate::protocol::client_url::Place;
use crate::protocol::connect_error::ConnectError;
use crate::structures::backoff::Backoff;
use crate::structures::places::place_at;
use crate::words::address::Address;
use crate::words::connect::{ConnectStep, DialerState};
use crate::words::time::Time;

use crate::core::dial_orders::{Attempt, DialOrder, Remote};
use crate::core::dial_table::{Dial, Progress};
use crate::core::turns::{Core, DIAL_TIMER};

/// The core with what concerns its dialers.
pub(super) struct Dials<'c> {
    pub(super) core: &'c mut Core,
}

/// RFC 8305 section 5: "Connection Attempt Delay".
const RACE_DELAY: Duration = Duration::from_millis(250);
/// More addresses of one name than these are not tried.
const ADDRESSES_MAX: usize = 16;
/// What the driver asks and says.
impl Dials<'_> {
    /// What the owner of the sockets is to do for the dialers; `None` if nothing more.
    pub(super) fn poll(&mut self, now: Time) -> Option<DialOrder> {
        self.core.shared.now = now;
        self.fail_gone(now);
        while let Some(new) = self.core.shared.dialers.take_fresh() {
            self.begin(now, new);
        }
        while let Some(cell) = self.core.shared.dialers.take_touched() {
            let index = cell.key.index;
            self.look_at(now, &cell);
            drop(cell);
            self.forget(index);
        }
        self.core.after_turn(now);
        self.core.dial_table.orders.pop_front()
    }

    /// Acts on deadlines, behind all that has come by now: whether there were any.
    pub(super) fn act_on_due(&mut self, now: Time) -> bool {
        let mut is_some = false;
        while let Some(index) = self.core.dial_table.due.pop() {
            self.due(now, index);
            is_some = true;
        }
        is_some
    }

    /// A name was resolved, or not.
    pub(super) fn resolved(
        &mut self,
        now: Time,
        attempt: Attempt,
        result: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(progress) = self.core.dial_table.attempt(attempt) else { return };
        // The step is over if a redirect has led on.
        if progress.step != ConnectStep::Lookup {
            return;
        }
        match result {
            Ok(addresses) => self.connect_to(now, attempt.dial, interleaved(addresses)),
            Err(source) => {
                let host = self.core.dial_table.host_of(attempt.dial);
                self.fail(now, attempt.dial, ConnectError::Lookup { host, source }, None);
            }
        }
    }

    /// Nobody could be asked for a name.
    pub(super) fn no_lookup(&mut self, now: Time, attempt: Attempt, error: io::Error) {
        if self.core.dial_table.attempt(attempt).is_some() {
            self.fail(now, attempt.dial, ConnectError::LookupThread(error), None);
        }
    }

    /// A connection was not made: the next address has its turn.
    pub(super) fn not_connected(
        &mut self,
        now: Time,
        attempt: Attempt,
        address: SocketAddr,
        source: io::Error,
    ) {
        let Some(progress) = self.core.dial_table.attempt(attempt) else { return };
        if progress.step != ConnectStep::Connect {
            return;
        }
        progress.connecting = progress.connecting.saturating_sub(1);
        // RFC 8305 section 5: a failure starts the next attempt at once.
        if !progress.addresses.is_empty() {
            return self.connect_next(now, attempt.dial);
        }
        // While others are being tried, one that failed is no reason to give up.
        if progress.connecting == 0 {
            let address = (!address.ip().is_unspecified()).then_some(address);
            self.fail(now, attempt.dial, ConnectError::Connect { address, source }, None);
        }
    }

    /// A connection was made: the slot that it gets, unless it is wanted no longer.
    pub(super) fn connected(
        &mut self,
        now: Time,
        attempt: Attempt,
        peer: SocketAddr,
    ) -> Option<u32> {
        let progress = self.core.dial_table.attempt(attempt)?;
        if progress.step != ConnectStep::Connect {
            return None; // another address was faster
        }
        let Some(slot) = self.core.connections.adopt_dialled(now, peer, &mut self.core.shared)
        else {
            self.fail(now, attempt.dial, ConnectError::Full, None);
            return None;
        };
        self.core.dial_table.orders.push_back(DialOrder::Abandon(attempt)); // the slower ones
        self.core.dial_table.by_slot.insert(slot, attempt.dial);
        let progress = self.core.dial_table.attempt(attempt)?;
        progress.slot = Some(slot);
        progress.race_at = None;
        progress.addresses.clear();
        self.arm(attempt.dial);
        Some(slot)
    }
}

/// From the application to an attempt.
impl Dials<'_> {
    fn begin(&mut self, now: Time, new: NewDialer) {
        // A mistake in the set-up leaves one without: the application does not start.
        let Ok(connector) = new.connector.downcast::<Connector>() else { return };
        let mut connector = *connector;
        let index = new.cell.key.index;
        let bytes = self.core.shared.limits.process_bytes;
        let Some(route) = self.core.routes.dialled.enter(&mut connector, bytes) else {
            return new.cell.set_state(DialerState::Stopped);
        };
        #[cfg(feature = "json")]
        self.core.shared.converters.of_dialled.insert(route, connector.settings.converter.clone());
        if let Some(empty) = place_at(&mut self.core.dial_table.dials, index as usize) {
            *empty = Some(Dial {
                cell: new.cell,
                connector,
                route,
                round: 0,
                backoff: Backoff::default(),
                timer: None,
                since: now,
                failed: None,
                restarts: false,
                progress: None,
            });
        }
        // One that was stopped before it was begun is stopped in this turn.
        if !self.core.dial_table.is_to_stop(index) {
            self.start_attempt(now, index);
        }
    }

    pub(super) fn start_attempt(&mut self, now: Time, index: u32) {
        let is_draining = self.core.is_draining();
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        if is_draining {
            return self.stop(index);
        }
        // What is still said of the attempt before is for nobody.
        dial.round = dial.round.wrapping_add(1);
        dial.restarts = false;
        let settings = &dial.connector.settings;
        dial.progress = Some(Box::new(Progress {
            deadline: now.after(settings.connect_timeout),
            step: ConnectStep::Lookup,
            url: Rc::clone(&dial.connector.url),
            redirects_left: settings.redirects,
            is_elsewhere: false,
            addresses: VecDeque::new(),
            connecting: 0,
            race_at: None,
            slot: None,
        }));
        self.core.shared.stats.dials_total += 1;
        self.look_up(now, index);
    }

    /// The first step of an attempt, and of one that was redirected.
    pub(super) fn look_up(&mut self, now: Time, index: u32) {
        let Some(attempt) = self.core.dial_table.set_step(index, ConnectStep::Lookup) else {
            return;
        };
        self.arm(index);
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        let Some(progress) = dial.progress.as_deref() else { return };
        let place = dial.connector.proxy.as_ref().map_or(&progress.url.place, |proxy| &proxy.place);
        match (place, place.address()) {
            (Place::Unix(path), _) => {
                let remote = Remote::Unix(path.clone());
                self.core.dial_table.set_step(index, ConnectStep::Connect);
                self.core.dial_table.order_connect(index, attempt, remote);
            }
            // The system's resolver waits: it is asked on another thread.
            (Place::Tcp { host, port }, Some(Ok(Address::Name(..)))) => {
                let (host, port) = (host.clone(), *port);
                self.core.dial_table.orders.push_back(DialOrder::LookUp { attempt, host, port });
            }
            (Place::Tcp { .. }, Some(Ok(address))) => match address.resolve() {
                Ok(addresses) => self.connect_to(now, index, addresses.into()),
                Err(source) => {
                    let host = self.core.dial_table.host_of(index);
                    self.fail(now, index, ConnectError::Lookup { host, source }, None);
                }
            },
            (Place::Tcp { .. }, Some(Err(mistake))) => {
                self.fail(now, index, ConnectError::Redirect(mistake), None);
            }
            (Place::Tcp { .. }, None) => {}
        }
    }

    fn connect_to(&mut self, now: Time, index: u32, addresses: VecDeque<SocketAddr>) {
        self.core.dial_table.set_step(index, ConnectStep::Connect);
        let Some(progress) = self.core.dial_table.progress(index) else { return };
        progress.addresses = addresses;
        self.connect_next(now, index);
    }

    /// Tries the next address, and notes when the one after it has its turn.
    fn connect_next(&mut self, now: Time, index: u32) {
        let Some(attempt) = self.core.dial_table.attempt_of(index) else { return };
        let Some(progress) = self.core.dial_table.progress(index) else { return };
        let Some(address) = progress.addresses.pop_front() else { return };
        // Slower ones go on beside it: whichever is connected first has won.
        progress.race_at = (!progress.addresses.is_empty()).then(|| now.after(RACE_DELAY));
        self.core.dial_table.order_connect(index, attempt, Remote::Tcp(address));
        self.arm(index);
    }
}

/// RFC 8305 section 4: the families take turns, the first address's family first.
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first() else { return VecDeque::new() };
    let is_v6 = first.is_ipv6();
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_v6);
    let mut turns = VecDeque::new();
    while !one.is_empty() || !other.is_empty() {
        turns.extend(one.pop_front());
        turns.extend(other.pop_front());
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

/// Deadlines.
impl Dials<'_> {
    /// Arms the wheel for what is due next of an attempt.
    fn arm(&mut self, index: u32) {
        let Some(progress) = self.core.dial_table.progress(index) else { return };
        let at = progress.race_at.map_or(progress.deadline, |race| race.min(progress.deadline));
        self.arm_at(index, at);
    }

    pub(super) fn arm_at(&mut self, index: u32, at: Time) {
        let Core { dial_table, connections, .. } = &mut *self.core;
        let Some(Some(dial)) = dial_table.dials.get_mut(index as usize) else { return };
        dial.timer = Some(match dial.timer.take() {
            Some(timer) => connections.wheel.rearm(timer, at),
            None => connections.wheel.arm(index | DIAL_TIMER, at),
        });
    }

    pub(super) fn disarm(&mut self, index: u32) {
        if let Some(timer) = self.core.dial_table.dial(index).and_then(|dial| dial.timer.take()) {
            self.core.connections.wheel.cancel(timer);
        }
    }

    /// The wheel says that something of a dialer is due.
    pub(super) fn due(&mut self, now: Time, index: u32) {
        if self.core.dial_table.is_to_stop(index) {
            return; // it is stopped in this turn
        }
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        // Since it fired the attempt has failed in another way as well, and waits for the next.
        if dial.timer.is_some() {
            return;
        }
        let Some(progress) = dial.progress.as_deref() else {
            // It may have stopped since it fired.
            if dial.cell.state() == DialerState::Waiting {
                self.start_attempt(now, index);
            }
            return;
        };
        if progress.deadline > now {
            return match progress.race_at {
                Some(race) if race <= now => self.connect_next(now, index),
                _ => self.arm(index),
            };
        }
        let (step, slot) = (progress.step, progress.slot);
        // A server that refuses and lets its body come slowly has refused all the same.
        let refusal = slot.and_then(|slot| self.refusal_so_far(slot));
        let error = refusal.unwrap_or(ConnectError::Timeout(step));
        self.fail(now, index, error, None);
    }
}

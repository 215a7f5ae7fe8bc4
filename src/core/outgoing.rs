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

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use log::{Level, debug};

use crate::app::connector::Connector;
use crate::context::commands::Command;
use crate::context::dialers::{DialerCell, NewDialer, Wish};
use crate::context::warnings::Target;
use crate::protocol::client_url::{ClientUrl, Place};
use crate::protocol::connect_error::ConnectError;
use crate::structures::backoff::Backoff;
use crate::structures::wheel::TimerKey;
use crate::words::address::Address;
use crate::words::bounds::{LONGEST_TIMEOUT, SHORTEST_TIMEOUT};
use crate::words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
use crate::words::connect::{ConnectStep, DialerState, Reconnect};
use crate::words::time::Time;

use crate::core::panics::{Panicked, caught};
use crate::core::sockets::{Attempt, DialOrder, Remote};
use crate::core::turns::{Core, DIAL_TIMER};

/// All dialers.
#[derive(Default)]
pub(super) struct Outgoing {
    /// By the slot of their key.
    pub(super) dials: Vec<Option<Dial>>,
    /// What the owner of the sockets is to do.
    orders: VecDeque<DialOrder>,
    /// Whose connections these are, while they are no sessions yet: dialers by slot.
    pub(super) by_slot: BTreeMap<u32, u32>,
}

/// One dialer. Waiting, or while there is a session, this is all it costs here.
pub(super) struct Dial {
    pub(super) cell: Rc<DialerCell>,
    pub(super) connector: Connector,
    pub(super) route: u16,
    /// Counts the attempts: what is said of an earlier one is not looked at.
    round: u32,
    backoff: Backoff,
    timer: Option<TimerKey>,
    /// When the session began.
    pub(super) since: Time,
    /// An attempt is wanted as soon as the session, which is being closed, is over.
    restarts: bool,
    pub(super) progress: Option<Box<Progress>>,
}

/// How far an attempt has come.
pub(super) struct Progress {
    /// When it has to have become a session.
    pub(super) deadline: Time,
    pub(super) step: ConnectStep,
    /// Where to, which redirects change.
    pub(super) url: Rc<ClientUrl>,
    pub(super) redirects_left: u8,
    /// A redirect has led to another server, which is told no credentials.
    pub(super) is_elsewhere: bool,
    /// Addresses that were not tried yet.
    addresses: VecDeque<SocketAddr>,
    /// Connections that are being made.
    connecting: usize,
    /// When the next address is tried beside those.
    race_at: Option<Time>,
    /// The connection, once there is one.
    pub(super) slot: Option<u32>,
}

/// RFC 8305 section 5: "Connection Attempt Delay".
const RACE_DELAY: Duration = Duration::from_millis(250);
/// More addresses of one name than these are not tried.
const ADDRESSES_MAX: usize = 16;
/// The longest that a server may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Those who were told one time to come back come back spread over this.
const RETRY_SPREAD: Duration = Duration::from_secs(3);

/// What the driver asks and says.
impl Core {
    /// Whether dialers have something to do that no event and no deadline will announce.
    pub(crate) fn has_dial_work(&self) -> bool {
        !self.outgoing.orders.is_empty() || self.shared.dialers.has_work()
    }

    /// What the owner of the sockets is to do for the dialers; `None` if nothing more.
    pub(crate) fn poll_dial(&mut self, now: Time) -> Option<DialOrder> {
        self.shared.now = now;
        while let Some(new) = self.shared.dialers.take_fresh() {
            self.begin_dial(now, new);
        }
        while let Some(cell) = self.shared.dialers.take_touched() {
            let index = cell.key.index;
            self.look_at_dialer(now, &cell);
            drop(cell);
            self.forget_dial(index);
        }
        self.after_turn(now);
        self.outgoing.orders.pop_front()
    }

    /// A name was resolved, or not.
    pub(crate) fn handle_resolved(
        &mut self,
        now: Time,
        attempt: Attempt,
        result: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(progress) = self.attempt(attempt) else { return };
        if progress.step != ConnectStep::Lookup {
            return;
        }
        match result {
            Ok(addresses) => self.connect_to(now, attempt.dial, interleaved(addresses)),
            Err(source) => {
                let host = self.host_of(attempt.dial);
                self.fail_dial(now, attempt.dial, ConnectError::Lookup { host, source }, None);
            }
        }
    }

    /// Nobody could be asked for a name.
    pub(crate) fn handle_no_lookup(&mut self, now: Time, attempt: Attempt, error: io::Error) {
        if self.attempt(attempt).is_some() {
            self.fail_dial(now, attempt.dial, ConnectError::LookupThread(error), None);
        }
    }

    /// A connection was not made: the next address has its turn.
    pub(crate) fn handle_not_connected(
        &mut self,
        now: Time,
        attempt: Attempt,
        address: SocketAddr,
        source: io::Error,
    ) {
        let Some(progress) = self.attempt(attempt) else { return };
        if progress.step != ConnectStep::Connect {
            return;
        }
        progress.connecting = progress.connecting.saturating_sub(1);
        if !progress.addresses.is_empty() {
            return self.connect_next(now, attempt.dial);
        }
        if progress.connecting == 0 {
            let address = (!address.ip().is_unspecified()).then_some(address);
            self.fail_dial(now, attempt.dial, ConnectError::Connect { address, source }, None);
        }
    }

    /// A connection was made: the slot that it gets, unless it is wanted no longer.
    pub(crate) fn handle_connected(
        &mut self,
        now: Time,
        attempt: Attempt,
        peer: SocketAddr,
    ) -> Option<u32> {
        let progress = self.attempt(attempt)?;
        if progress.step != ConnectStep::Connect {
            return None; // another address was faster
        }
        let Some(slot) = self.connections.adopt_dialled(now, peer, &mut self.shared) else {
            self.fail_dial(now, attempt.dial, ConnectError::Full, None);
            return None;
        };
        self.outgoing.orders.push_back(DialOrder::Abandon(attempt)); // the slower ones
        self.outgoing.by_slot.insert(slot, attempt.dial);
        let progress = self.attempt(attempt)?;
        progress.slot = Some(slot);
        progress.race_at = None;
        progress.addresses.clear();
        self.arm_dial(attempt.dial);
        Some(slot)
    }

    /// The attempt that something is said of, if it is the present one.
    fn attempt(&mut self, attempt: Attempt) -> Option<&mut Progress> {
        let dial = self.dial(attempt.dial).filter(|dial| dial.round == attempt.round)?;
        dial.progress.as_deref_mut()
    }

    /// How many of them are on the wheel.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(super) fn dials_armed(&self) -> usize {
        self.outgoing.dials.iter().flatten().filter(|dial| dial.timer.is_some()).count()
    }

    pub(super) fn dial(&mut self, index: u32) -> Option<&mut Dial> {
        self.outgoing.dials.get_mut(index as usize)?.as_mut()
    }
}

/// From the application to an attempt.
impl Core {
    fn begin_dial(&mut self, now: Time, new: NewDialer) {
        let Ok(connector) = new.connector.downcast::<Connector>() else { return };
        let connector = *connector;
        let index = new.cell.key.index;
        let bytes = self.shared.limits.process_bytes;
        let Some(route) = self.routes.dialled.enter(&connector, bytes) else {
            return new.cell.state.set(DialerState::Stopped);
        };
        #[cfg(feature = "json")]
        self.shared.dialled_converters.insert(route, connector.settings.converter.clone());
        let place = index as usize;
        if place >= self.outgoing.dials.len() {
            self.outgoing.dials.resize_with(place.saturating_add(1), || None);
        }
        if let Some(empty) = self.outgoing.dials.get_mut(place) {
            *empty = Some(Dial {
                cell: new.cell,
                connector,
                route,
                round: 0,
                backoff: Backoff::default(),
                timer: None,
                since: now,
                restarts: false,
                progress: None,
            });
        }
        self.start_attempt(now, index);
    }

    fn start_attempt(&mut self, now: Time, index: u32) {
        let is_draining = self.is_draining();
        let Some(dial) = self.dial(index) else { return };
        if is_draining {
            return self.stop_dial(index);
        }
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
        self.shared.stats.dials_total += 1;
        self.look_up(now, index);
    }

    /// The first step of an attempt, and of one that was redirected.
    pub(super) fn look_up(&mut self, now: Time, index: u32) {
        let Some(attempt) = self.set_step(index, ConnectStep::Lookup) else { return };
        self.arm_dial(index);
        let Some(dial) = self.dial(index) else { return };
        let Some(progress) = dial.progress.as_deref() else { return };
        if progress.url.secure {
            let error = "wss:// needs the feature tls for sessions that are dialled, which this version \
                         does not have yet: dial ws:// through a TLS proxy on this machine";
            return self.fail_dial(now, index, ConnectError::Tls(error.into()), None);
        }
        let place = dial.connector.proxy.as_ref().map_or(&progress.url.place, |proxy| &proxy.place);
        match (place, place.address()) {
            (Place::Unix(path), _) => {
                let remote = Remote::Unix(path.clone());
                self.set_step(index, ConnectStep::Connect);
                self.order_connect(index, attempt, remote);
            }
            (Place::Tcp { host, port }, Some(Ok(Address::Name(..)))) => {
                let (host, port) = (host.clone(), *port);
                self.outgoing.orders.push_back(DialOrder::LookUp { attempt, host, port });
            }
            (Place::Tcp { .. }, Some(Ok(address))) => match address.resolve() {
                Ok(addresses) => self.connect_to(now, index, addresses.into()),
                Err(source) => {
                    let host = self.host_of(index);
                    self.fail_dial(now, index, ConnectError::Lookup { host, source }, None);
                }
            },
            (Place::Tcp { .. }, Some(Err(mistake))) => {
                self.fail_dial(now, index, ConnectError::Redirect(mistake), None);
            }
            (Place::Tcp { .. }, None) => {}
        }
    }

    fn connect_to(&mut self, now: Time, index: u32, addresses: VecDeque<SocketAddr>) {
        self.set_step(index, ConnectStep::Connect);
        let Some(progress) = self.progress(index) else { return };
        progress.addresses = addresses;
        self.connect_next(now, index);
    }

    /// Tries the next address, and notes when the one after it has its turn.
    fn connect_next(&mut self, now: Time, index: u32) {
        let Some(attempt) = self.attempt_of(index) else { return };
        let Some(progress) = self.progress(index) else { return };
        let Some(address) = progress.addresses.pop_front() else { return };
        progress.race_at = (!progress.addresses.is_empty()).then(|| now.after(RACE_DELAY));
        self.order_connect(index, attempt, Remote::Tcp(address));
        self.arm_dial(index);
    }

    fn order_connect(&mut self, index: u32, attempt: Attempt, remote: Remote) {
        let Some(progress) = self.progress(index) else { return };
        progress.connecting = progress.connecting.saturating_add(1);
        self.outgoing.orders.push_back(DialOrder::Connect { attempt, remote });
    }

    pub(super) fn progress(&mut self, index: u32) -> Option<&mut Progress> {
        self.dial(index)?.progress.as_deref_mut()
    }

    fn attempt_of(&mut self, index: u32) -> Option<Attempt> {
        self.dial(index).map(|dial| Attempt { dial: index, round: dial.round })
    }

    pub(super) fn set_step(&mut self, index: u32, step: ConnectStep) -> Option<Attempt> {
        let dial = self.dial(index)?;
        dial.progress.as_deref_mut()?.step = step;
        dial.cell.state.set(DialerState::Connecting(step));
        Some(Attempt { dial: index, round: dial.round })
    }

    /// The host whose name is resolved: the proxy's, where there is one.
    fn host_of(&mut self, index: u32) -> String {
        let Some(dial) = self.dial(index) else { return String::new() };
        let url = dial.progress.as_deref().map_or(&dial.connector.url, |progress| &progress.url);
        match dial.connector.proxy.as_ref().map_or(&url.place, |proxy| &proxy.place) {
            Place::Tcp { host, .. } => host.to_string(),
            Place::Unix(path) => path.to_string(),
        }
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
impl Core {
    /// Arms the wheel for what is due next of an attempt.
    fn arm_dial(&mut self, index: u32) {
        let Some(progress) = self.progress(index) else { return };
        let at = progress.race_at.map_or(progress.deadline, |race| race.min(progress.deadline));
        self.arm_dial_at(index, at);
    }

    fn arm_dial_at(&mut self, index: u32, at: Time) {
        let Self { outgoing, connections, .. } = self;
        let Some(Some(dial)) = outgoing.dials.get_mut(index as usize) else { return };
        dial.timer = Some(match dial.timer.take() {
            Some(timer) => connections.wheel.rearm(timer, at),
            None => connections.wheel.arm(index | DIAL_TIMER, at),
        });
    }

    pub(super) fn disarm_dial(&mut self, index: u32) {
        if let Some(timer) = self.dial(index).and_then(|dial| dial.timer.take()) {
            self.connections.wheel.cancel(timer);
        }
    }

    /// The wheel says that something of a dialer is due.
    pub(super) fn dial_due(&mut self, now: Time, index: u32) {
        let Some(dial) = self.dial(index) else { return };
        dial.timer = None; // it was popped
        let Some(progress) = dial.progress.as_deref() else {
            if dial.cell.state.get() == DialerState::Waiting {
                self.start_attempt(now, index);
            }
            return;
        };
        if progress.deadline > now {
            return match progress.race_at {
                Some(race) if race <= now => self.connect_next(now, index),
                _ => self.arm_dial(index),
            };
        }
        let (step, slot) = (progress.step, progress.slot);
        let refusal = slot.and_then(|slot| self.refusal_so_far(slot));
        let error = refusal.unwrap_or(ConnectError::Timeout(step));
        self.fail_dial(now, index, error, None);
    }
}

/// Ends, and what follows.
impl Core {
    /// An attempt has failed.
    pub(super) fn fail_dial(
        &mut self,
        now: Time,
        index: u32,
        error: ConnectError,
        since_1970: Option<Duration>,
    ) {
        self.end_attempt(now, index);
        self.shared.stats.dials_failed += 1;
        let random = self.shared.masks.next_number();
        let is_draining = self.is_draining();
        let Some(dial) = self.dial(index) else { return };
        let settings = Rc::clone(&dial.connector.settings);
        let mut delay = if error.is_ours() {
            dial.backoff.at_the_cap(&settings.backoff, random)
        } else {
            dial.backoff.next(&settings.backoff, random)
        };
        if let Some(asked) = error.retry_after(since_1970) {
            // Those who were told the same would all come at once.
            delay = delay.max(asked.min(RETRY_AFTER_MAX).saturating_add(delay.min(RETRY_SPREAD)));
        }
        let (route, url) = (dial.route, Rc::clone(&dial.connector.url));
        if is_draining {
            return self.stop_dial(index);
        }
        let decision = settings.on_failure.as_ref().map(|decide| caught(|| decide(&error, delay)));
        self.shared.warnings.line(Level::Warn, Target::Server, ("dial", route), now, || {
            format!("{url}: {error}; the next attempt is due in {delay:.1?}")
        });
        self.follow(now, index, decision, delay);
    }

    /// A session has ended.
    fn dial_lost(&mut self, now: Time, index: u32, close: &CloseInfo) {
        let random = self.shared.masks.next_number();
        let is_draining = self.is_draining();
        let Some(dial) = self.dial(index) else { return };
        dial.cell.session.set(None);
        let settings = Rc::clone(&dial.connector.settings);
        if dial.cell.heard.replace(false) || now.since(dial.since) >= settings.backoff.largest {
            dial.backoff.start_anew();
        }
        if std::mem::take(&mut dial.restarts) {
            return self.start_attempt(now, index);
        }
        let is_stopped = dial.cell.state.get() == DialerState::Stopped;
        // RFC 6455 section 7.4.1: "the purpose for which the connection was established has been
        // fulfilled".
        let is_fulfilled =
            close.closed_by() == ClosedBy::Local && close.code() == CloseCode::NORMAL;
        if is_stopped || is_fulfilled || is_draining {
            return self.stop_dial(index);
        }
        let refuses_us = matches!(u16::from(close.code()), 1008 | 4000..=4999)
            && close.closed_by() == ClosedBy::Remote;
        let delay = if refuses_us {
            dial.backoff.at_the_cap(&settings.backoff, random)
        } else {
            dial.backoff.next(&settings.backoff, random)
        };
        debug!(target: "wirewheel::session", "{}: the session is lost ({}), the next attempt is due in \
            {delay:.1?}", dial.connector.url, close.code());
        let decision = settings.on_lost.as_ref().map(|decide| caught(|| decide(close, delay)));
        self.follow(now, index, decision, delay);
    }

    /// Does what the application decided, or else waits for the next attempt.
    fn follow(
        &mut self,
        now: Time,
        index: u32,
        decision: Option<Result<Reconnect, Panicked>>,
        delay: Duration,
    ) {
        let delay = match decision {
            Some(Ok(Reconnect::Stop)) => return self.stop_dial(index),
            Some(Ok(Reconnect::After(after))) => after.clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT),
            Some(Err(Panicked(text))) => {
                let line = || format!("the hook of a dialer panicked: {text}");
                let kind = ("dialer hook panicked", 0);
                self.shared.warnings.line(Level::Error, Target::Server, kind, now, line);
                self.shared.last_panic = Some(text);
                delay
            }
            Some(Ok(Reconnect::Retry)) | None => delay,
        };
        if let Some(dial) = self.dial(index) {
            dial.cell.state.set(DialerState::Waiting);
            self.arm_dial_at(index, now.after(delay));
        }
    }

    /// Nothing of the present attempt is wanted any longer.
    fn end_attempt(&mut self, now: Time, index: u32) {
        let Some(attempt) = self.attempt_of(index) else { return };
        let Some(dial) = self.dial(index) else { return };
        dial.round = dial.round.wrapping_add(1);
        let Some(progress) = dial.progress.take() else { return };
        self.disarm_dial(index);
        match progress.slot {
            Some(slot) => self.drop_dialling(now, slot),
            None => self.outgoing.orders.push_back(DialOrder::Abandon(attempt)),
        }
    }

    /// No further attempt is made.
    fn stop_dial(&mut self, index: u32) {
        self.disarm_dial(index);
        let Some(dial) = self.dial(index) else { return };
        dial.cell.state.set(DialerState::Stopped);
        dial.cell.touch(); // it may be forgotten
    }

    /// Forgets a dialer that has stopped, if the application has forgotten it too.
    fn forget_dial(&mut self, index: u32) {
        let Some(dial) = self.dial(index) else { return };
        let is_over =
            dial.cell.state.get() == DialerState::Stopped && dial.cell.session.get().is_none();
        let route = dial.route;
        if is_over && self.shared.dialers.forget(index) {
            if let Some(entry) = self.outgoing.dials.get_mut(index as usize) {
                *entry = None;
            }
            self.routes.dialled.leave(route);
        }
    }

    /// Something is wanted of a dialer, or its session is over.
    fn look_at_dialer(&mut self, now: Time, cell: &Rc<DialerCell>) {
        let index = cell.key.index;
        let is_known = self.dial(index).is_some_and(|dial| Rc::ptr_eq(&dial.cell, cell));
        if !is_known {
            return;
        }
        if let Some(close) = cell.take_end() {
            self.dial_lost(now, index, &close);
        }
        match cell.take_wish() {
            Some(Wish::ReconnectNow) => self.reconnect_now(now, index),
            Some(Wish::Stop) => {
                self.end_attempt(now, index);
                self.close_dialled(cell);
                self.stop_dial(index);
            }
            None => {}
        }
    }

    fn reconnect_now(&mut self, now: Time, index: u32) {
        let Some(dial) = self.dial(index) else { return };
        match dial.cell.state.get() {
            DialerState::Stopped if dial.cell.session.get().is_some() => dial.restarts = true,
            DialerState::Stopped | DialerState::Waiting => {
                self.disarm_dial(index);
                self.start_attempt(now, index);
            }
            DialerState::Connecting(_) | DialerState::Open => {}
        }
    }

    fn close_dialled(&mut self, cell: &DialerCell) {
        let Some(session) = cell.session.get() else { return };
        let (to, stamp) = (session.0, self.shared.flows.next_stamp());
        let reason = CloseReason::own(CloseCode::NORMAL, "");
        // Beyond the limit on commands, which is for what an application asks again and again.
        self.shared.commands.push_back(Command::Close { to, stamp, reason });
        self.shared.has_deferred_work = true;
    }

    /// The server stops: nobody is dialled any more.
    pub(super) fn stop_dialling(&mut self, now: Time) {
        for index in 0..self.outgoing.dials.len() {
            let Ok(index) = u32::try_from(index) else { return };
            self.end_attempt(now, index);
            if self.dial(index).is_some_and(|dial| dial.cell.session.get().is_none()) {
                self.stop_dial(index);
            }
        }
    }

    /// The connection in a slot is gone: an attempt that had it has failed.
    pub(super) fn note_dialling_gone(&mut self, slot: u32) {
        let Some(index) = self.outgoing.by_slot.remove(&slot) else { return };
        let Some(progress) = self.progress(index) else { return };
        progress.slot = None;
        let error = ConnectError::Ended { step: progress.step, kind: None };
        self.fail_dial(self.shared.now, index, error, None);
    }
}

//! The ends of attempts and of dialled sessions, and what follows from them.

use std::rc::Rc;
use std::time::Duration;

use log::{Level, debug};

use crate::context::commands::Command;
use crate::context::dialers::{DialerCell, Wish};
use crate::context::loop_state::ServerRef;
use crate::context::warnings::Target;
use crate::protocol::connect_error::ConnectError;
use crate::words::bounds::{LONGEST_TIMEOUT, SHORTEST_TIMEOUT};
use crate::words::close::{CloseCode, CloseInfo, CloseReason, ClosedBy};
use crate::words::connect::{DialerState, Reconnect};
use crate::words::time::Time;

use crate::core::dial_orders::DialOrder;
use crate::core::dials::Dials;
use crate::core::panics::{Panicked, caught, drop_caught};

/// The longest that a server may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Those who were told one time to come back come back spread over this.
const RETRY_SPREAD: Duration = Duration::from_secs(3);

/// What the log says of the next attempt, which is due after that delay.
fn next_attempt(delay: Option<Duration>) -> String {
    delay.map_or_else(
        || "no further attempt is made".into(),
        |delay| format!("the next attempt is due in {delay:.1?}"),
    )
}

/// Ends, and what follows.
impl Dials<'_> {
    /// An attempt has failed.
    pub(super) fn fail(
        &mut self,
        now: Time,
        index: u32,
        error: ConnectError,
        since_1970: Option<Duration>,
    ) {
        // Before the application decides: it may look at the dialer's state, or stop it.
        self.end_attempt(now, index);
        if self.core.dial_table.is_to_stop(index) {
            return; // the stop, which came first, has ended it
        }
        self.core.shared.stats.dials_failed += 1;
        let random = self.core.shared.masks.next_number();
        let is_draining = self.core.is_draining();
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        dial.failed = Some(now);
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
            return self.stop(index);
        }
        // One line a second for each route: a herd of dialers that fail must not fill the disk.
        let decision = settings.on_failure.as_ref().map(|decide| caught(|| decide(&error, delay)));
        let delay = self.decided(now, decision, delay);
        self.core.shared.warnings.line(Level::Warn, Target::Server, ("dial", route), now, || {
            format!("{url}: {error}; {}", next_attempt(delay))
        });
        self.follow(now, index, delay);
        if let Some(action) = &settings.after_failure {
            let server = &mut ServerRef { shared: &mut self.core.shared };
            let outcome = caught(|| action(server, &error));
            self.core.shared.has_deferred_work = true;
            self.note_panic(now, outcome);
        }
    }

    /// A session has ended.
    fn lost(&mut self, now: Time, index: u32, close: &CloseInfo) {
        let random = self.core.shared.masks.next_number();
        let is_draining = self.core.is_draining();
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        dial.cell.session.set(None);
        let settings = Rc::clone(&dial.connector.settings);
        // A 101 alone proves little: a server that accepts and hangs up would be dialled at full pace.
        if dial.cell.heard.replace(false) || now.since(dial.since) >= settings.backoff.largest {
            dial.backoff.start_anew();
        }
        // One that was stopped in this turn has nothing decided, and no attempt begun.
        if dial.cell.is_to_stop() {
            return self.stop(index);
        }
        if std::mem::take(&mut dial.restarts) {
            return self.start_attempt(now, index);
        }
        // `stop` has closed it, and may have been asked while it was closing.
        let is_stopped = dial.cell.state() == DialerState::Stopped;
        // RFC 6455 section 7.4.1: "the purpose for which the connection was established has been
        // fulfilled".
        let is_fulfilled =
            close.closed_by() == ClosedBy::Local && close.code() == CloseCode::NORMAL;
        if is_stopped || is_fulfilled || is_draining {
            return self.stop(index);
        }
        let refuses_us = matches!(u16::from(close.code()), 1008 | 4000..=4999)
            && close.closed_by() == ClosedBy::Remote;
        let delay = if refuses_us {
            dial.backoff.at_the_cap(&settings.backoff, random)
        } else {
            dial.backoff.next(&settings.backoff, random)
        };
        let url = Rc::clone(&dial.connector.url);
        let decision = settings.on_lost.as_ref().map(|decide| caught(|| decide(close, delay)));
        let delay = self.decided(now, decision, delay);
        debug!(target: "wirewheel::session", "{url}: the session is lost ({}); {}", close.code(),
            next_attempt(delay));
        self.follow(now, index, delay);
    }

    /// How long it is until the next attempt, as the application has decided; `None` if there is none.
    fn decided(
        &mut self,
        now: Time,
        decision: Option<Result<Reconnect, Panicked>>,
        delay: Duration,
    ) -> Option<Duration> {
        let delay = match decision {
            Some(Ok(Reconnect::Stop)) => return None,
            Some(Ok(Reconnect::After(after))) => after.min(LONGEST_TIMEOUT),
            Some(Err(panicked)) => {
                self.note_panic(now, Err(panicked));
                delay
            }
            Some(Ok(Reconnect::Retry)) | None => delay,
        };
        // Zero would be a loop without a pause, on this side and on the server's.
        Some(delay.max(SHORTEST_TIMEOUT))
    }

    /// Waits for the next attempt, if there is one.
    fn follow(&mut self, now: Time, index: u32, delay: Option<Duration>) {
        let Some(delay) = delay else { return self.stop(index) };
        if let Some(dial) = self.core.dial_table.dial(index) {
            dial.cell.set_state(DialerState::Waiting);
            self.arm_at(index, now.after(delay));
        }
    }

    fn note_panic(&mut self, now: Time, outcome: Result<(), Panicked>) {
        let Err(Panicked(text)) = outcome else { return };
        let line = || format!("the hook of a dialer panicked: {text}");
        let kind = ("dialer hook panicked", 0);
        self.core.shared.warnings.line(Level::Error, Target::Server, kind, now, line);
        self.core.shared.warnings.last_panic = Some(text);
    }

    /// Nothing of the present attempt is wanted any longer.
    fn end_attempt(&mut self, now: Time, index: u32) {
        let Some(attempt) = self.core.dial_table.attempt_of(index) else { return };
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        dial.round = dial.round.wrapping_add(1);
        let Some(progress) = dial.progress.take() else { return };
        self.disarm(index);
        // Lookups and connects that are under way end by themselves some time; nobody waits for them.
        match progress.slot {
            Some(slot) => self.drop_connection(now, slot),
            None => self.core.dial_table.orders.push_back(DialOrder::Abandon(attempt)),
        }
    }

    /// No further attempt is made.
    pub(super) fn stop(&mut self, index: u32) {
        self.disarm(index);
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        dial.restarts = false; // whatever was wanted before
        dial.cell.set_state(DialerState::Stopped);
        dial.cell.touch(); // it may be forgotten
    }

    /// Forgets a dialer that has stopped, if the application has forgotten it too.
    pub(super) fn forget(&mut self, index: u32) {
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        let is_over =
            dial.cell.state() == DialerState::Stopped && dial.cell.session.get().is_none();
        let route = dial.route;
        if is_over && self.core.shared.dialers.forget(index) {
            let dials = &mut self.core.dial_table.dials;
            let gone = dials.get_mut(index as usize).and_then(Option::take);
            // What its closures hold is the application's. Those of its options may go with the route.
            drop_caught("what a dialer held", gone);
            drop_caught("what a dialer held", self.core.routes.dialled.leave(route));
        }
    }

    /// Something is wanted of a dialer, or its session is over.
    pub(super) fn look_at(&mut self, now: Time, cell: &Rc<DialerCell>) {
        let index = cell.key.index;
        let is_known =
            self.core.dial_table.dial(index).is_some_and(|dial| Rc::ptr_eq(&dial.cell, cell));
        if !is_known {
            return;
        }
        if let Some(close) = cell.take_end() {
            self.lost(now, index, &close);
        }
        match cell.take_wish() {
            Some(Wish::ReconnectNow) => self.reconnect_now(now, index),
            Some(Wish::Stop) => self.stop_now(now, cell),
            Some(Wish::StopAndReconnect) => {
                self.stop_now(now, cell);
                self.reconnect_now(now, index);
            }
            None => {}
        }
    }

    fn stop_now(&mut self, now: Time, cell: &DialerCell) {
        let index = cell.key.index;
        self.end_attempt(now, index);
        self.close_session(cell);
        self.stop(index);
    }

    fn reconnect_now(&mut self, now: Time, index: u32) {
        let is_draining = self.core.is_draining();
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        match dial.cell.state() {
            // Two sessions of one dialer at a time would be one too many for either side.
            DialerState::Stopped if dial.cell.session.get().is_some() => dial.restarts = true,
            DialerState::Stopped | DialerState::Waiting => {
                // A hook may ask for it at each failure, and a failure need not take any time.
                let soonest = dial.failed.map_or(now, |failed| failed.after(SHORTEST_TIMEOUT));
                if soonest > now && !is_draining {
                    dial.cell.set_state(DialerState::Waiting);
                    return self.arm_at(index, soonest);
                }
                self.disarm(index);
                self.start_attempt(now, index);
            }
            DialerState::Connecting(_) | DialerState::Open => {}
        }
    }

    fn close_session(&mut self, cell: &DialerCell) {
        let Some(session) = cell.session.get() else { return };
        let (to, stamp) = (session.0, self.core.shared.flows.next_stamp());
        let reason = CloseReason::own(CloseCode::NORMAL, "");
        // Beyond the limit on commands, which is for what an application asks again and again.
        self.core.shared.commands.push_back(Command::Close { to, stamp, reason });
        self.core.shared.has_deferred_work = true;
    }

    /// The server stops: nobody is dialled any more.
    pub(super) fn stop_all(&mut self, now: Time) {
        for index in 0..self.core.dial_table.dials.len() {
            let Ok(index) = u32::try_from(index) else { return };
            self.end_attempt(now, index);
            if self
                .core
                .dial_table
                .dial(index)
                .is_some_and(|dial| dial.cell.session.get().is_none())
            {
                self.stop(index);
            }
        }
    }

    /// The connections of attempts that are gone: those attempts have failed.
    pub(super) fn fail_gone(&mut self, now: Time) {
        while let Some(index) = self.core.dial_table.gone.pop() {
            let Some(progress) = self.core.dial_table.progress(index) else { continue };
            let error = ConnectError::Ended { step: progress.step, kind: None };
            self.fail(now, index, error, None);
        }
    }
}

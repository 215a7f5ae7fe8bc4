//! Owns how a session is slowed down and woken up: pausing its reading, and its timers.

use std::time::Duration;

use crate::words::bounds::check_time;
use crate::words::error::ConfigError;

use crate::session::Session;
use crate::session::state::Phase;
use crate::structures::ids::TimerId;

/// The most timers that a session may have at once.
const TIMERS_MAX: usize = 64;

/// How a session is slowed down and woken up.
impl Session<'_> {
    /// Stops reading from the peer: after this hook no message is delivered until
    /// [`resume`](Self::resume), and the peer is slowed down by its own connection. What had
    /// arrived already is kept, at most one read buffer; pings among it are answered.
    ///
    /// Sending goes on, and so do the server's own pings: while the peer is not read, it is enough that
    /// its system acknowledges them. The idle timeout pauses. A Close of the peer is seen in its turn,
    /// when the session is read again. A peer that hangs up behind what is kept leaves the application
    /// `close_timeout` to go on taking that, then the session ends with 1006; one whose connection
    /// fails, at once. [`pause_timeout`](crate::WebSockets::pause_timeout) bounds a pause; `close` and
    /// the end of the server end it.
    ///
    /// ```
    /// use wirewheel::{Handler, HandlerResult, Message, Session};
    /// struct Relay;
    /// impl Handler for Relay {
    ///     fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///         session.send(message)?;
    ///         if session.buffered_bytes() > 32 << 10 {
    ///             session.pause(); // it does not read what it asks for
    ///         }
    ///         Ok(())
    ///     }
    ///     fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
    ///         session.resume();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn pause(&mut self) {
        let now = self.shared.now;
        if self.state.phase == Phase::Open
            && self.state.extra().hold.get_or_insert_default().pause(now)
        {
            self.state.timing_changed = true;
        }
    }

    /// Ends a [`pause`](Self::pause): what was kept is delivered after this hook, then reading goes
    /// on. A flow that suspended this publisher still holds it.
    pub fn resume(&mut self) {
        let place = self.state.id.0.index;
        let hold = self.state.extra.as_deref_mut().and_then(|extra| extra.hold.as_deref_mut());
        if let Some(hold) = hold {
            hold.unpause();
            self.shared.to_resume.push(place);
        }
    }

    /// Whether reading is paused, by [`pause`](Self::pause), by a flow or by `message_rate`.
    pub fn is_paused(&self) -> bool {
        self.state.is_held()
    }

    /// A session that closes is read: messages are dropped, the peer's Close is awaited.
    pub(crate) fn lift_hold(&mut self) {
        let place = self.state.id.0.index;
        let hold = self.state.extra.as_deref_mut().and_then(|extra| extra.hold.as_deref_mut());
        if let Some(hold) = hold {
            hold.lift();
            self.shared.to_resume.push(place);
        }
    }

    /// Has [`on_timer`](crate::Handler::on_timer) called once, `delay` from now: never early, and at
    /// most two ticks of 8 ms late. Timers end with the session.
    ///
    /// # Errors
    /// A [`ConfigError`] for a delay that no option would take either, or if 64 timers of this
    /// session are set.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::{Call, Handler, HandlerResult, Session, TimerId};
    /// struct Clock;
    /// impl Handler for Clock {
    ///     fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
    ///         session.set_timer(Duration::from_secs(1))?;
    ///         Ok(())
    ///     }
    ///     fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
    ///         session.set_timer(Duration::from_secs(1))?;
    ///         session.send("tick")
    ///     }
    /// }
    /// ```
    pub fn set_timer(&mut self, delay: Duration) -> Result<TimerId, ConfigError> {
        check_time("delay", delay).map_err(ConfigError)?;
        let timer = self.shared.timers.id_for_session();
        let at = self.shared.now.after(delay);
        if self.state.phase == Phase::Ended {
            return Ok(timer); // a session that is over has no more hooks to call
        }
        let timers = &mut self.state.extra().timers;
        if timers.len() >= TIMERS_MAX {
            return Err(ConfigError(format!("{TIMERS_MAX} timers are set: cancel one first")));
        }
        timers.push((timer, at));
        self.state.timing_changed = true;
        Ok(timer)
    }

    /// Takes a timer back; one that is over or was taken back already is nothing.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        if let Some(extra) = &mut self.state.extra {
            extra.timers.retain(|(known, _)| *known != timer);
        }
    }
}

//! What a session knows and may change of itself: its addresses, times and options, the pause of its reading,
//! its timers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::extension::Extension;
use crate::structures::ids::{SessionId, TimerId};
use crate::words::bounds::check_time;
use crate::words::close::CloseInfo;
use crate::words::error::{ConfigError, NameError, SendError};
use crate::words::message_buf::MessageBuf;
use crate::words::options::{OutboxOverflow, SessionOptions};
use crate::words::time::Time;

use crate::context::loop_state::ServerRef;
use crate::session::Session;
use crate::session::state::{Phase, TIMERS_MAX};

/// What a session knows and may change of itself.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{HandlerResult, Session};
/// fn tune(session: &mut Session<'_>) -> HandlerResult {
///     session.set_ping_period(Duration::from_secs(5))?;
///     println!("{} from {}: rtt {:?}", session.id(), session.remote_addr(), session.rtt());
///     Ok(())
/// }
/// ```
impl Session<'_> {
    /// The id of this session.
    pub fn id(&self) -> SessionId {
        self.out.state.id
    }

    /// The peer's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.out.state.remote_addr()
    }

    /// The client's address; see [`Call::client_addr`](crate::Call::client_addr).
    pub fn client_addr(&self) -> SocketAddr {
        self.out.state.client_addr()
    }

    /// The time between the server's last answered ping and its pong.
    pub fn rtt(&self) -> Option<Duration> {
        let micros = self.out.state.rtt_micros;
        (micros != u32::MAX).then(|| Duration::from_micros(u64::from(micros)))
    }

    /// How long ago the last bytes arrived, pongs included; the time for which reading was paused since then
    /// does not count.
    pub fn last_activity(&self) -> Duration {
        self.out.shared.now.since(self.out.state.last_activity)
    }

    /// The bytes that wait because the peer does not read, in the outbox and of this turn.
    pub fn buffered_bytes(&self) -> usize {
        self.out.buffered_bytes()
    }

    /// Whether the peer has not taken all that was sent, so that [`on_drain`](crate::Handler::on_drain)
    /// will be called: when to stop sending, or reading what is sent on.
    /// ([`buffered_bytes`](Self::buffered_bytes) counts what this turn has gathered as well, which the peer
    /// may take at once: then nothing drains.)
    ///
    /// ```
    /// use wirewheel::{Handler, HandlerResult, Message, Session};
    /// struct Echo;
    /// impl Handler for Echo {
    ///     fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///         session.send(message)?;
    ///         if session.awaits_drain() {
    ///             session.pause();
    ///         }
    ///         Ok(())
    ///     }
    ///     fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
    ///         session.resume();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn awaits_drain(&self) -> bool {
        let extra = self.out.state.extra.as_deref();
        extra.is_some_and(|extra| extra.slow && !extra.outbox.is_empty())
    }

    /// Messages that were dropped because the peer did not read and the outbox's policy is to drop,
    /// and those that others sent here and that could not be taken: too big, within a message in
    /// fragments, behind its Close, refused by [`OutboxOverflow::Block`], or from another thread or loop
    /// when `process_bytes` was spent. (Flow messages that it did not get are [`missed`](Self::missed).)
    pub fn dropped(&self) -> u64 {
        self.out.state.extra.as_deref().map_or(0, |extra| extra.dropped)
    }

    /// The server it runs on: other sessions, timers, statistics, a stop.
    pub fn server(&mut self) -> ServerRef<'_> {
        ServerRef { shared: self.out.shared }
    }

    /// Sends a message to another session, or to this one in the order of commands; see
    /// [`ServerRef::send_to`]. It is here for `session.send_to(session.id(), ..)`, which
    /// [`server`](Self::server) cannot have: that borrows the session.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn echo_after_this_hook(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///     Ok(session.send_to(session.id(), message)?)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`ServerRef::send_to`].
    pub fn send_to(
        &mut self,
        id: SessionId,
        message: impl Into<MessageBuf>,
    ) -> Result<(), SendError> {
        self.server().send_to(id, message)
    }

    /// Gives this session a name by which others reach it; see [`ServerRef::name`].
    ///
    /// ```
    /// use wirewheel::{Call, HandlerResult, Session};
    /// fn on_connect(session: &mut Session<'_>, call: &Call) -> HandlerResult {
    ///     Ok(session.set_name(&call.parameter("device").unwrap_or_default())?)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`ServerRef::name`].
    pub fn set_name(&mut self, name: &str) -> Result<(), NameError> {
        let id = self.id(); // read before the session is lent to the server
        self.server().name(id, name)
    }

    /// Hands a message to whoever has put the question of that correlation to this session: false if there
    /// is none, or it is too late. See [`ServerRef::ask`]. The message is copied.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn on_message(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///     match message.text().and_then(|text| text.split_once(' ')) {
    ///         Some((correlation, said)) if session.answer(correlation, said) => Ok(()),
    ///         _ => session.send("nobody has asked that"),
    ///     }
    /// }
    /// ```
    pub fn answer(&mut self, correlation: &str, message: impl Into<MessageBuf>) -> bool {
        let id = self.id();
        // Before the message is copied: an answer that nobody awaits is not to cost that.
        self.out.shared.questions.is_open(id.0, correlation)
            && self.server().settle(id, correlation, Ok(message.into()))
    }

    /// The time since the server began, as the loop has it for this turn: a hook that takes long does not
    /// see it move. In the test kit it is virtual.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn on_message(session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
    ///     session.send(format!("{} s", session.now().as_secs()))
    /// }
    /// ```
    pub fn now(&self) -> Duration {
        // The clock is read once a turn, which costs nothing here, and has all hooks of a turn agree.
        self.out.shared.now.since(Time::ZERO)
    }

    /// How the session ends; `None` while it is open. The same in `on_error` and in `on_close`.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.out.state.extra.as_deref().and_then(|extra| extra.close.as_ref())
    }

    /// Changes the ping period of this session (Ktor's `pingInterval`); `None` switches pings off.
    /// The period starts anew.
    ///
    /// # Errors
    /// A [`ConfigError`] for zero or absurd values, as at start-up, and in sessions without pings: raw ones
    /// and byte streams.
    pub fn set_ping_period(
        &mut self,
        period: impl Into<Option<Duration>>,
    ) -> Result<(), ConfigError> {
        let period = period.into();
        if let Some(period) = period {
            check_time("ping_period", period).map_err(ConfigError)?;
            if self.out.state.is_raw() {
                // A pong that its handler did not ask for would be one frame too many for it.
                let mistake = "ping_period: a raw session sends its own pings, with send_frame";
                return Err(ConfigError(mistake.into()));
            }
            if self.out.state.is_byte_stream() {
                let mistake =
                    "ping_period: a byte stream has no pings; set_timer finds who is silent";
                return Err(ConfigError(mistake.into()));
            }
        }
        self.own_options().ping_period = period;
        self.restart_pings();
        Ok(())
    }

    /// Changes how long a pong may take (Ktor's `timeout`). The ping period starts anew.
    ///
    /// # Errors
    /// A [`ConfigError`] for zero or absurd values.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), ConfigError> {
        check_time("timeout", timeout).map_err(ConfigError)?;
        self.own_options().timeout = timeout;
        self.restart_pings();
        Ok(())
    }

    /// Changes the frame limit of this session, in bytes, for frames that have not begun (Ktor's
    /// `maxFrameSize`).
    ///
    /// # Errors
    /// A [`ConfigError`] for zero or absurd values.
    pub fn set_max_frame_size(&mut self, bytes: usize) -> Result<(), ConfigError> {
        let mut changed = self.own_options().clone();
        changed.max_frame_size = bytes;
        changed.check().map_err(ConfigError)?;
        // Limits that follow from this one are to follow it here too.
        changed.resolve(self.out.shared.limits.process_bytes);
        *self.own_options() = changed;
        Ok(())
    }

    /// Masks what this session sends from now on, or stops it (Ktor's `masking`). A session that was
    /// dialled always masks (RFC 6455 section 5.1).
    pub fn set_masking(&mut self, on: bool) {
        #[cfg(feature = "client")]
        let on = on || self.own_options().is_client;
        self.own_options().masking = on;
    }

    /// Changes what happens to a message that does not fit in this session's outbox.
    pub fn set_on_outbox_full(&mut self, policy: OutboxOverflow) {
        self.own_options().on_outbox_full = policy;
    }

    /// The names of the extensions that were agreed on, in the order of the answer (Ktor's
    /// `extensions`).
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.out.state.pipeline.as_deref().into_iter().flat_map(|pipeline| pipeline.names())
    }

    /// The state of an agreed extension (Ktor's `extensionOrNull`). In a raw session with
    /// [`negotiate_extensions`](crate::WebSocketRoute::negotiate_extensions) the handler may call its
    /// `encode` and `decode`; elsewhere the session does, and a call of the handler's own would part
    /// the two ends of an extension that keeps a context.
    pub fn extension(&mut self, name: &str) -> Option<&mut dyn Extension> {
        self.out.state.pipeline.as_deref_mut()?.extension(name)
    }

    fn own_options(&mut self) -> &mut SessionOptions {
        let route = self.out.route;
        self.out.state.extra().options.get_or_insert_with(|| Box::new(route.clone()))
    }

    fn restart_pings(&mut self) {
        // A pong of the old period that still comes answers nothing.
        self.out.state.ping_base = self.out.shared.now;
        self.out.state.awaiting_pong = false;
        self.out.state.timing_changed = true;
    }
}

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
    ///         if session.awaits_drain() {
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
        let now = self.out.shared.now;
        // Of an event stream nothing is delivered that could wait.
        if self.out.state.phase == Phase::Open && self.out.state.is_read() {
            self.out.state.pause(now);
        }
    }

    /// Ends a [`pause`](Self::pause): what was kept is delivered after this hook, then reading goes
    /// on. A flow that suspended this publisher still holds it.
    pub fn resume(&mut self) {
        self.out.state.unpause(self.out.shared);
    }

    /// Whether reading is paused, by [`pause`](Self::pause), by a flow or by `message_rate`.
    pub fn is_paused(&self) -> bool {
        self.out.state.is_read_paused()
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
        let timer = self.out.shared.timers.id_for_session();
        let at = self.out.shared.now.after(delay);
        if self.out.state.phase == Phase::Ended {
            return Ok(timer); // a session that is over has no more hooks to call
        }
        if !self.out.state.add_timer(timer, at) {
            return Err(ConfigError(format!("{TIMERS_MAX} timers are set: cancel one first")));
        }
        Ok(timer)
    }

    /// Takes a timer back; one that is over or was taken back already is nothing.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.out.state.cancel_timer(timer);
    }
}

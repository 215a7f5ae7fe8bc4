//! The methods of [`ServerRef`]: what a hook, a timer or a closure on the loop can do with the server it
//! runs on.

use std::fmt;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::context::commands::{Command, StopRequest};
use crate::structures::slab::Key;
use crate::words::bounds::check_time;
use crate::words::close::{CloseCode, CloseReason};
use crate::words::error::{ConfigError, SendError};
use crate::words::message::Message;
use crate::words::message_buf::MessageBuf;

use crate::context::loop_state::{NewWatch, ServerRef, TimerAction};
use crate::context::stats::Stats;
use crate::context::watch::{Ready, Watch};
use crate::flow::key::FlowKey;
use crate::flow::shared_flow::SharedFlow;
use crate::structures::ids::BodyId;
use crate::structures::ids::SessionId;
use crate::structures::ids::TimerId;

impl fmt::Debug for ServerRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRef").field("sessions", &self.shared.sessions.len()).finish()
    }
}

impl StopRequest {
    /// Asked again before the loop has looked: the shorter grace counts, as it does afterwards.
    pub(crate) fn after(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier {
            self.grace = self.grace.min(earlier.grace);
        }
        self
    }
}

impl ServerRef<'_> {
    /// Sends a message to a session.
    ///
    /// # Errors
    /// [`SendError::Gone`] if the session is over, [`SendError::Full`] if too much is queued for
    /// this turn already. What becomes of the message once it is its turn is between that session
    /// and its outbox; one that it cannot take counts in [`dropped`](crate::Session::dropped).
    /// Messages keep their place among those that are published in flows.
    pub fn send_to(
        &mut self,
        id: SessionId,
        message: impl Into<MessageBuf>,
    ) -> Result<(), SendError> {
        let message = message.into();
        let bytes = message.as_message().bytes().len();
        let wanted = self.shared.command_bytes.saturating_add(bytes);
        self.shared.flows.make_room(wanted);
        if wanted > self.shared.limits.process_bytes.saturating_sub(self.shared.memory()) {
            return Err(SendError::Full { buffered: self.shared.command_bytes });
        }
        let stamp = self.shared.flows.next_stamp();
        self.command(id, |to| Command::Send { to, stamp, message })?;
        self.shared.command_bytes += bytes;
        Ok(())
    }

    /// Starts the closing handshake of a session, as its own `close` would.
    ///
    /// # Errors
    /// [`SendError::Gone`] if the session is over, [`SendError::Full`] if too many commands are
    /// queued.
    pub fn close(&mut self, id: SessionId, reason: CloseReason) -> Result<(), SendError> {
        let stamp = self.shared.flows.next_stamp();
        self.command(id, |to| Command::Close { to, stamp, reason })
    }

    /// Stops reading from a session; see [`Session::pause`](crate::Session::pause).
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn pause(&mut self, id: SessionId) -> Result<(), SendError> {
        self.command(id, Command::Pause)
    }

    /// Reads from a session again; see [`Session::resume`](crate::Session::resume).
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn resume(&mut self, id: SessionId) -> Result<(), SendError> {
        self.command(id, Command::Resume)
    }

    /// Reads on in a request body that its [`BodyHandler`](crate::body::BodyHandler) has paused. One that is
    /// not paused, or over, is left alone.
    ///
    /// # Errors
    /// [`SendError::Full`] if too many commands are queued: then it stays paused.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::body::{BodyHandler, BodyNext, IncomingBody};
    /// use wirewheel::Response;
    /// /// Takes a piece ten times a second.
    /// struct Slowly;
    /// impl BodyHandler for Slowly {
    ///     fn on_piece(&mut self, body: &mut IncomingBody<'_>, _piece: &[u8]) -> BodyNext {
    ///         let id = body.id();
    ///         let next = body.server().after(Duration::from_millis(100), move |server| {
    ///             let _ = server.resume_body(id);
    ///         });
    ///         if next.is_ok() { BodyNext::Pause } else { BodyNext::Continue }
    ///     }
    ///     fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
    ///         Response::new(204)
    ///     }
    /// }
    /// ```
    pub fn resume_body(&mut self, id: BodyId) -> Result<(), SendError> {
        self.queue(Command::ResumeBody(id))
    }

    fn command(
        &mut self,
        id: SessionId,
        command: impl FnOnce(Key) -> Command,
    ) -> Result<(), SendError> {
        if !self.shared.sessions.contains(id.0) {
            return Err(SendError::Gone);
        }
        self.queue(command(id.0))
    }

    fn queue(&mut self, command: Command) -> Result<(), SendError> {
        if self.shared.commands.len() >= self.shared.commands_max() {
            return Err(SendError::Full { buffered: self.shared.command_bytes });
        }
        self.shared.commands.push_back(command);
        self.shared.has_deferred_work = true;
        Ok(())
    }

    /// The open sessions.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.shared.sessions.iter().map(SessionId)
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.shared.sessions.len()
    }

    /// Stops the server, as [`Handle::shutdown`](crate::Handle::shutdown) does: Close 1001 to all
    /// sessions behind what they were sent before, an end after `grace` at the latest. Asked again,
    /// the shorter grace counts.
    pub fn shutdown(&mut self, grace: Duration) {
        self.stop(StopRequest { code: CloseCode::GOING_AWAY, grace });
    }

    /// The same with 1012: the server will be there again, and clients should come back.
    pub fn shutdown_for_restart(&mut self, grace: Duration) {
        self.stop(StopRequest { code: CloseCode::SERVICE_RESTART, grace });
    }

    pub(crate) fn stop(&mut self, request: StopRequest) {
        self.shared.stop_request = Some(request.after(self.shared.stop_request.as_ref()));
    }

    /// Reads the certificates, keys and lists of all listeners with TLS again, at the end of this turn.
    /// Sessions that are open go on; whoever connects is shown the new ones.
    ///
    /// Where something cannot be used, such as a file that is not whole yet, its listener keeps what it
    /// has; that is logged and tried again: after 5 s, then ever less often, at last every ten minutes.
    /// [`Stats`] counts both. If other clients are let in than before, nobody resumes an earlier handshake.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     app.every(Duration::from_secs(24 * 3600), |server| server.reload_certificates());
    /// }
    /// ```
    #[cfg(feature = "tls")]
    pub fn reload_certificates(&mut self) {
        self.shared.reload_requested = true;
    }

    /// Runs `action` once, `delay` from now; never early, and at most two ticks of 8 ms late.
    ///
    /// # Errors
    /// A [`ConfigError`] for a delay that no option would take either.
    pub fn after(
        &mut self,
        delay: Duration,
        action: impl FnOnce(&mut ServerRef<'_>) + 'static,
    ) -> Result<TimerId, ConfigError> {
        check_time("delay", delay).map_err(ConfigError)?;
        Ok(self.add_timer(delay, TimerAction::Once(Box::new(action))))
    }

    /// Runs `action` every `period`, as [`Application::every`](crate::Application::every) does.
    ///
    /// # Errors
    /// A [`ConfigError`] for a period that no option would take either.
    pub fn every(
        &mut self,
        period: Duration,
        action: impl FnMut(&mut ServerRef<'_>) + 'static,
    ) -> Result<TimerId, ConfigError> {
        check_time("period", period).map_err(ConfigError)?;
        Ok(self.add_timer(period, TimerAction::Every(Box::new(action))))
    }

    fn add_timer(&mut self, delay: Duration, action: TimerAction) -> TimerId {
        self.shared.has_deferred_work = true; // it has to be put on the wheel
        self.shared.timers.add(delay, action, self.shared.now)
    }

    /// Runs the action of a timer that has fired, and has it run again if it is to.
    pub(crate) fn run_timer(&mut self, id: TimerId, action: TimerAction) {
        let again = match action {
            TimerAction::Once(action) => {
                action(self);
                None
            }
            TimerAction::Every(mut action) => {
                action(self);
                Some(TimerAction::Every(action))
            }
        };
        let now = self.shared.now;
        self.shared.timers.acted(id, again, now);
    }

    /// Takes a timer back; one that is over or was taken back already is nothing.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.shared.has_deferred_work = true;
        self.shared.timers.cancel(timer);
    }

    /// The statistics as of now.
    pub fn stats(&self) -> Stats {
        self.shared.snapshot()
    }

    /// Watches a descriptor; see [`Application::watch`](crate::Application::watch). Where the system
    /// cannot watch it (a regular file, for one), that is logged as an error and the callback is
    /// dropped.
    pub fn watch<D: AsFd + 'static>(
        &mut self,
        descriptor: D,
        interest: Ready,
        callback: impl FnMut(&mut ServerRef<'_>, &mut D, Ready) -> Watch + 'static,
    ) {
        self.shared.new_watches.push(NewWatch::new(descriptor, interest, callback));
    }

    /// Names a flow for other threads; see [`Handle::emit`](crate::Handle::emit).
    pub fn flow_key<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> FlowKey<T> {
        flow.inner.belong_to(&self.shared.flows);
        self.shared.flow_names.name(&flow.inner)
    }

    /// Publishes in the flow of that name, if somebody still has it and it has room.
    pub(crate) fn emit<T: ?Sized>(&self, key: FlowKey<T>, message: Message<'_>) {
        if let Some(flow) = self.find_flow(key) {
            flow.inner.belong_to(&self.shared.flows);
            flow.inner.push_message(message);
        }
    }

    /// The flow of that name, while somebody still has it.
    pub fn find_flow<T: ?Sized>(&self, key: FlowKey<T>) -> Option<SharedFlow<T>> {
        self.shared.flow_names.find(key).map(SharedFlow::from_inner)
    }
}

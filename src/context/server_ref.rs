//! Owns what a hook, a timer or a closure on the loop can do with the server it runs on.

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

use crate::context::loop_state::Shared;
use crate::context::stats::Stats;
use crate::context::timers::AppTimer;
use crate::context::watch::{NewWatch, Ready, Watch};
use crate::flow::key::FlowKey;
use crate::flow::shared_flow::SharedFlow;
use crate::structures::ids::SessionId;
use crate::structures::ids::TimerId;

/// The server, lent to code that runs on its loop: by [`Session::server`](crate::Session::server)
/// in a hook, as an argument to timers and to what [`Handle::defer`](crate::Handle::defer) sends.
///
/// What it asks of other sessions is queued and done after the present hook, in order and before
/// the next message is delivered; no hook runs inside another.
///
/// ```
/// use wirewheel::{HandlerResult, Message, Session};
/// fn whisper(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
///     let me = session.id();
///     let mut server = session.server();
///     let others: Vec<_> = server.sessions().filter(|id| *id != me).collect();
///     for id in others {
///         server.send_to(id, message)?;
///     }
///     Ok(())
/// }
/// ```
///
/// What it can do:
///
/// ```
/// use std::net::UdpSocket;
/// use std::time::Duration;
/// use wirewheel::error::ConfigError;
/// use wirewheel::flow::{FlowKey, SharedFlow};
/// use wirewheel::watch::{Ready, Watch};
/// use wirewheel::{CloseCode, CloseReason, ServerRef};
///
/// fn tend(server: &mut ServerRef<'_>, news: FlowKey<str>, socket: UdpSocket) -> Result<(), ConfigError> {
///     println!("{} sessions, {} bytes held", server.session_count(), server.stats().bytes_held);
///     let sessions: Vec<_> = server.sessions().collect();
///     for id in sessions {
///         let _ = server.pause(id); // not read from until
///         let _ = server.resume(id);
///     }
///     let reminder = server.after(Duration::from_secs(60), |server| {
///         let sessions: Vec<_> = server.sessions().collect();
///         for id in sessions {
///             let reason = CloseReason::truncated(CloseCode::GOING_AWAY, "come back later");
///             let _ = server.close(id, reason.expect("1001 may be sent"));
///         }
///         server.shutdown(Duration::from_secs(5)); // or shutdown_for_restart, with 1012
///     })?;
///     server.cancel_timer(reminder);
///     server.every(Duration::from_secs(1), move |server| {
///         if let Some(news) = server.find_flow(news) {
///             let _ = news.emit("still there");
///         }
///     })?;
///     let packets: SharedFlow<[u8]> = SharedFlow::new();
///     let name: FlowKey<[u8]> = server.flow_key(&packets); // for Handle::emit
///     server.watch(socket, Ready::READABLE, move |_server, socket, _ready| {
///         let mut packet = [0; 1500];
///         match socket.recv(&mut packet) {
///             Ok(length) => drop(packets.emit(&packet[..length])),
///             Err(_) => return Watch::Stop,
///         }
///         Watch::For(Ready::READABLE)
///     });
///     let _ = name;
///     Ok(())
/// }
/// ```
pub struct ServerRef<'a> {
    pub(crate) shared: &'a mut Shared,
}

impl fmt::Debug for ServerRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRef").field("sessions", &self.shared.sessions.len()).finish()
    }
}

/// What the application wants done before the sessions are told that the server stops.
#[derive(Default)]
pub(crate) struct StopHooks(pub(crate) Vec<Box<StopHook>>);

type StopHook = dyn FnOnce(&mut ServerRef<'_>);

impl fmt::Debug for StopHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks", self.0.len())
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

    fn command(
        &mut self,
        id: SessionId,
        command: impl FnOnce(Key) -> Command,
    ) -> Result<(), SendError> {
        if !self.shared.sessions.contains(id.0) {
            return Err(SendError::Gone);
        }
        if self.shared.commands.len() >= self.shared.commands_max() {
            return Err(SendError::Full { buffered: self.shared.command_bytes });
        }
        self.shared.commands.push_back(command(id.0));
        self.shared.asked = true;
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
        Ok(self.add_timer(AppTimer::once(delay, action)))
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
        Ok(self.add_timer(AppTimer::every(period, action)))
    }

    fn add_timer(&mut self, timer: AppTimer) -> TimerId {
        self.shared.asked = true;
        self.shared.timers.add(timer, self.shared.now)
    }

    /// Takes a timer back; one that is over or was taken back already is nothing.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.shared.asked = true;
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
        flow.cell.belong_to(&self.shared.flows);
        self.shared.flow_names.name(&flow.cell)
    }

    /// Publishes in the flow of that name, if somebody still has it and it has room.
    pub(crate) fn emit<T: ?Sized>(&self, key: FlowKey<T>, message: Message<'_>) {
        if let Some(flow) = self.find_flow(key) {
            flow.cell.belong_to(&self.shared.flows);
            flow.cell.push_message(message);
        }
    }

    /// The flow of that name, while somebody still has it.
    pub fn find_flow<T: ?Sized>(&self, key: FlowKey<T>) -> Option<SharedFlow<T>> {
        self.shared.flow_names.find(key).map(SharedFlow::from_cell)
    }
}

//! The methods of [`ServerRef`]: what a hook, a timer or a closure on the loop can do with the server it
//! runs on.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::context::commands::{Command, StopRequest};
use crate::structures::slab::Key;
use crate::words::bounds::check_time;
use crate::words::close::{CloseCode, CloseReason, CloseReasonError};
use crate::words::error::{AskError, ConfigError, NameError, SendError};
use crate::words::message::Message;
use crate::words::message_buf::MessageBuf;
use crate::words::time::Time;

use crate::context::loop_state::{NewWatch, Order, ServerRef, Then, TimerAction};
use crate::context::loops::Place;
use crate::context::mailbox::Mailbox;
use crate::context::names::Names;
use crate::context::orders::{Asking, ask, hand_on};
use crate::context::questions::{Asker, CORRELATION_MAX_BYTES, Question, Settled};
use crate::context::stats::Stats;
use crate::context::watch::{Ready, Watch};
use crate::flow::key::FlowKey;
use crate::flow::options::FlowOptions;
use crate::flow::prepared::PreparedMessage;
use crate::flow::reader::{Batch, Taken};
use crate::flow::shared_flow::SharedFlow;
use crate::structures::footprint::footprint;
use crate::structures::ids::{BodyId, ReaderId, SessionId, TimerId, WatchId};

impl ServerRef<'_> {
    /// The mailbox of the loop that has this connection, if it is another one.
    fn elsewhere(&self, key: Key) -> Option<&Mailbox<Order>> {
        self.shared.place.as_ref()?.elsewhere(key)
    }

    /// Sends a message to a session.
    ///
    /// # Errors
    /// [`SendError::Gone`] if the session is over, [`SendError::Full`] if too much is queued for
    /// this turn already. What becomes of the message once it is its turn is between that session
    /// and its outbox; one that it cannot take counts in [`dropped`](crate::Session::dropped).
    /// Messages keep their place among those that are published in flows. Where the session is one of
    /// another [loop](crate::Server::loops), it is that loop's mailbox that may be full, and `Ok` says no
    /// more than that the message is on its way there.
    pub fn send_to(
        &mut self,
        id: SessionId,
        message: impl Into<MessageBuf>,
    ) -> Result<(), SendError> {
        let message = message.into();
        let bytes = message.as_message().bytes().len();
        if let Some(mailbox) = self.elsewhere(id.0) {
            return hand_on(mailbox, bytes, move |server| server.send_ordered(id, message));
        }
        self.command_to_send(id, bytes, |to, stamp| Command::Send { to, stamp, message })
    }

    /// Sends a message to a session that was prepared for many; see [`PreparedMessage`].
    ///
    /// ```
    /// use wirewheel::ServerRef;
    /// use wirewheel::message::PreparedMessage;
    /// fn alarm(server: &mut ServerRef<'_>, text: &str) {
    ///     let prepared = PreparedMessage::new(text);
    ///     for id in server.sessions() {
    ///         let _ = server.send_prepared(id, &prepared); // it may have left meanwhile
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to). A session of another loop gets a copy, which is encoded there.
    pub fn send_prepared(
        &mut self,
        id: SessionId,
        message: &PreparedMessage,
    ) -> Result<(), SendError> {
        if self.elsewhere(id.0).is_some() {
            // What is prepared belongs to this thread: the other loop encodes a copy.
            return self.send_to(id, message.emission().message());
        }
        // However many get it, it is there once.
        let is_counted = matches!(self.shared.commands.back(),
            Some(Command::SendPrepared { message: last, .. }) if last.is(message));
        let counted = if is_counted { 0 } else { message.bytes() };
        let message = message.clone();
        self.command_to_send(id, counted, |to, stamp| Command::SendPrepared {
            to,
            stamp,
            message,
            counted,
        })
    }

    fn command_to_send(
        &mut self,
        id: SessionId,
        bytes: usize,
        command: impl FnOnce(Key, u64) -> Command,
    ) -> Result<(), SendError> {
        let wanted = self.shared.command_bytes.saturating_add(bytes);
        self.shared.flows.make_room(wanted);
        if wanted > self.shared.limits.process_bytes.saturating_sub(self.shared.memory()) {
            return Err(SendError::Full { buffered: self.shared.command_bytes });
        }
        let stamp = self.shared.flows.next_stamp();
        self.command(id, |to| command(to, stamp))?;
        self.shared.command_bytes += bytes;
        Ok(())
    }

    /// Sends a message to the session of that name; else as [`send_to`](Self::send_to).
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); [`SendError::Gone`] if no session has the name.
    pub fn send_to_name(
        &mut self,
        name: &str,
        message: impl Into<MessageBuf>,
    ) -> Result<(), SendError> {
        let id = self.find_session(name).ok_or(SendError::Gone)?;
        self.send_to(id, message)
    }

    /// Gives a session a name by which others reach it, in place of its own if it has one. The name ends
    /// with the session: in `on_close` it has none any more.
    ///
    /// ```
    /// use wirewheel::{Call, HandlerResult, ServerRef, Session};
    /// fn on_connect(session: &mut Session<'_>, call: &Call) -> HandlerResult {
    ///     let device = call.parameter("device").unwrap_or_default();
    ///     Ok(session.set_name(&device)?) // a device that is connected already ends this session
    /// }
    /// fn ring(server: &mut ServerRef<'_>) {
    ///     if server.send_to_name("door", "ring").is_err() {
    ///         println!("nobody is at {:?}", server.find_session("door"));
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`NameError::Taken`] if another session has it; see [`take_name`](Self::take_name).
    /// [`NameError::Gone`] if the session is over, [`NameError::Length`] unless it has 1 to 256 bytes.
    pub fn name(&mut self, id: SessionId, name: &str) -> Result<(), NameError> {
        self.check_name(id, name)?;
        if let Some(place) = &self.shared.place {
            if !place.claim_name(name, id.0) {
                return Err(NameError::Taken);
            }
        } else if self.shared.names.find(name).is_some_and(|other| other != id.0) {
            return Err(NameError::Taken);
        }
        self.note_name(id, name);
        Ok(())
    }

    /// The same where the name may be another session's, which loses it and is returned: to be closed, if
    /// the newer connection of a device is the one that counts.
    ///
    /// ```
    /// use wirewheel::error::NameError;
    /// use wirewheel::{CloseCode, ServerRef, SessionId};
    /// fn replace(server: &mut ServerRef<'_>, id: SessionId, device: &str) -> Result<(), NameError> {
    ///     if let Some(older) = server.take_name(id, device)? {
    ///         let _ = server.close(older, CloseCode::new(4000));
    ///     }
    ///     assert_eq!(server.name_of(id), Some(device));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`NameError::Gone`] and [`NameError::Length`], as [`name`](Self::name).
    pub fn take_name(&mut self, id: SessionId, name: &str) -> Result<Option<SessionId>, NameError> {
        self.check_name(id, name)?;
        let before = self.shared.place.as_ref().map(|place| place.give_name(name, id.0));
        let here = self.note_name(id, name);
        // A session of this loop may have lost it to one of another loop, of which this loop is not told.
        Ok(before.unwrap_or(here).map(SessionId).filter(|other| *other != id))
    }

    fn check_name(&self, id: SessionId, name: &str) -> Result<(), NameError> {
        if !self.shared.sessions.contains(id.0) {
            return Err(NameError::Gone);
        }
        if name.is_empty() || name.len() > Names::MAX_BYTES {
            return Err(NameError::Length);
        }
        Ok(())
    }

    /// Gives a session of this loop a name that is its own: who had it on this loop.
    fn note_name(&mut self, id: SessionId, name: &str) -> Option<Key> {
        let old = self.shared.with_names_and_questions(|names, _| names.remove(id.0));
        if let (Some(old), Some(place)) = (old.filter(|old| **old != *name), &self.shared.place) {
            place.drop_name(&old, id.0);
        }
        self.shared.with_names_and_questions(|names, _| names.give(id.0, name))
    }

    /// The session of that name.
    pub fn find_session(&self, name: &str) -> Option<SessionId> {
        let found = match &self.shared.place {
            None => self.shared.names.find(name),
            Some(place) => place.find_name(name),
        };
        found.map(SessionId)
    }

    /// The name of a session; where there are several loops, of one of this loop.
    pub fn name_of(&self, id: SessionId) -> Option<&str> {
        let name = self.shared.names.of(id.0)?;
        // A session of another loop may have taken it since.
        let place = self.shared.place.as_ref();
        place.is_none_or(|place| place.find_name(name) == Some(id.0)).then_some(name)
    }

    /// Sends a message to a session and waits for its answer: `then` is called once, with the answer or
    /// with why there is none, after the hook in which that becomes known.
    ///
    /// Which message is the answer only the application knows: its `on_message` reads the correlation, in
    /// whatever form its protocol has, and hands the message to [`Session::answer`](crate::Session::answer).
    /// Several questions to one session have different correlations.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::error::AskError;
    /// use wirewheel::{HandlerResult, Message, ServerRef, Session, SessionId};
    /// fn open(server: &mut ServerRef<'_>, valve: SessionId) -> Result<(), AskError> {
    ///     server.ask(valve, "17", "17 open", Duration::from_secs(5), |_server, answer| match answer {
    ///         Ok(message) => println!("it says {:?}", message.text()),
    ///         Err(error) => println!("not opened: {error}"),
    ///     })
    /// }
    /// fn on_message(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///     let (correlation, said) = message.text().unwrap_or("").split_once(' ').unwrap_or_default();
    ///     if !session.answer(correlation, said) {
    ///         println!("nobody asked: {said}"); // or too late
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Then `then` is not called. [`AskError::Send`] as [`send_to`](Self::send_to),
    /// [`AskError::Duplicate`], [`AskError::TooMany`], [`AskError::Invalid`].
    pub fn ask(
        &mut self,
        id: SessionId,
        correlation: &str,
        message: impl Into<MessageBuf>,
        timeout: Duration,
        then: impl FnOnce(&mut ServerRef<'_>, Result<Message<'_>, AskError>) + 'static,
    ) -> Result<(), AskError> {
        let number = self.shared.place.as_ref().map_or(0, Place::number);
        let asker = Asker { number, question: self.shared.questions.next_number() };
        self.ask_for(asker, id, correlation, message.into(), timeout, Box::new(then))
    }

    pub(super) fn ask_for(
        &mut self,
        asker: Asker,
        id: SessionId,
        correlation: &str,
        message: MessageBuf,
        timeout: Duration,
        then: Then,
    ) -> Result<(), AskError> {
        let questions = &self.shared.questions;
        if correlation.len() > CORRELATION_MAX_BYTES {
            return Err(AskError::Invalid);
        }
        if questions.is_open(id.0, correlation) {
            return Err(AskError::Duplicate);
        }
        if questions.len() >= self.shared.limits.max_questions {
            return Err(AskError::TooMany);
        }
        check_time("timeout", timeout).map_err(|_| AskError::Invalid)?;
        match self.elsewhere(id.0) {
            None => self.send_to(id, message)?,
            Some(mailbox) => {
                let back = self.shared.deferrals.mailbox.clone();
                let correlation = correlation.into();
                ask(mailbox, back, Asking { asker, id, correlation, message, timeout })?
            }
        }
        let late: Box<str> = correlation.into();
        let gives_up = move |server: &mut ServerRef<'_>| {
            server.settle(id, &late, Err(AskError::Timeout));
        };
        let timer = self.add_timer(timeout, TimerAction::Once(Box::new(gives_up)));
        let question = Question { asker, timer, bytes: footprint(size_of_val(&*then)), then };
        self.shared.with_names_and_questions(|_, questions| {
            questions.add(id.0, correlation, question);
        });
        Ok(())
    }

    /// Tells the application how its question ended.
    pub(crate) fn tell(&mut self, settled: Settled<Then>) {
        let result = settled.result.as_ref().map(MessageBuf::as_message).map_err(|error| *error);
        (settled.then)(self, result);
    }

    /// The answer of a session to the question of that correlation; see
    /// [`Session::answer`](crate::Session::answer).
    pub(crate) fn settle(
        &mut self,
        id: SessionId,
        correlation: &str,
        result: Result<MessageBuf, AskError>,
    ) -> bool {
        let timer = self
            .shared
            .with_names_and_questions(|_, questions| questions.settle(id.0, correlation, result));
        if let Some(timer) = timer {
            self.cancel_timer(timer); // nothing, if it is the one that fires now
        }
        timer.is_some()
    }

    /// Starts the closing handshake of a session, as its own [`close`](crate::Session::close) would.
    ///
    /// # Errors
    /// [`SendError::Gone`] if the session is over, [`SendError::Full`] if too many commands are
    /// queued, [`SendError::CloseReason`] for a code that may not be sent.
    pub fn close(
        &mut self,
        id: SessionId,
        reason: impl TryInto<CloseReason, Error: Into<CloseReasonError>>,
    ) -> Result<(), SendError> {
        let reason = CloseReason::checked(reason)?;
        if let Some(mailbox) = self.elsewhere(id.0) {
            return hand_on(mailbox, 0, move |server| server.close(id, reason));
        }
        let stamp = self.shared.flows.next_stamp();
        self.command(id, |to| Command::Close { to, stamp, reason })
    }

    /// Stops reading from a session; see [`Session::pause`](crate::Session::pause).
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn pause(&mut self, id: SessionId) -> Result<(), SendError> {
        if let Some(mailbox) = self.elsewhere(id.0) {
            return hand_on(mailbox, 0, move |server| server.pause(id));
        }
        self.command(id, Command::Pause)
    }

    /// Reads from a session again; see [`Session::resume`](crate::Session::resume).
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn resume(&mut self, id: SessionId) -> Result<(), SendError> {
        if let Some(mailbox) = self.elsewhere(id.0) {
            return hand_on(mailbox, 0, move |server| server.resume(id));
        }
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
        if let Some(mailbox) = self.elsewhere(id.key) {
            return hand_on(mailbox, 0, move |server| server.resume_body(id));
        }
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

    /// The sessions that are open now, in no order; those of this loop, where there are several. The ids are
    /// a copy: 8 bytes for each session, while the iterator is there.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + use<> {
        let open: Vec<_> = self.shared.sessions.iter().map(SessionId).collect();
        open.into_iter()
    }

    /// The time since the server began, as the loop has it for this turn; see
    /// [`Session::now`](crate::Session::now).
    ///
    /// ```
    /// use wirewheel::ServerRef;
    /// fn uptime(server: &ServerRef<'_>) -> String {
    ///     format!("{} s", server.now().as_secs())
    /// }
    /// ```
    pub fn now(&self) -> Duration {
        self.shared.now.since(Time::ZERO)
    }

    /// How many sessions are open; on this loop, where there are several.
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
        match self.shared.place.as_ref().filter(|place| !place.is_first()) {
            None => self.shared.reload_requested = true,
            Some(place) => place.first().into_iter().for_each(Mailbox::note_certificates),
        }
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

    /// Takes a timer back; one that is over, was taken back already or is another
    /// [loop](crate::Server::loops)'s is nothing.
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
    ) -> WatchId {
        self.shared.watches.begin(NewWatch::new(descriptor, interest, callback))
    }

    /// Watches a descriptor for something else from the end of this turn on, such as for room once there is
    /// something to write. What its own callback returns in this turn comes before. For one that is watched
    /// no more, or on another loop, this does nothing.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    /// use wirewheel::watch::{Ready, Watch};
    /// use wirewheel::{Application, Call, WebSockets, on_message};
    /// /// What browsers say goes to a device, as it has room.
    /// fn module(app: &mut Application, device: UnixStream) { // set_nonblocking(true)
    ///     let unsent = Rc::new(RefCell::new(Vec::<u8>::new()));
    ///     let rest = Rc::clone(&unsent);
    ///     let device = app.watch(device, Ready::READABLE, move |_server, device, ready| {
    ///         if ready.is_readable() && matches!(device.read(&mut [0; 64]), Ok(0)) {
    ///             return Watch::Stop;
    ///         }
    ///         let mut rest = rest.borrow_mut();
    ///         let written = device.write(&rest).unwrap_or(0);
    ///         rest.drain(..written);
    ///         Watch::For(if rest.is_empty() { Ready::READABLE } else { Ready::BOTH })
    ///     });
    ///     app.install(WebSockets::new());
    ///     app.routing(move |route| {
    ///         route.web_socket("/device", move |_: &Call| {
    ///             let unsent = Rc::clone(&unsent);
    ///             on_message(move |session, message| {
    ///                 if unsent.borrow().len() > 4_096 {
    ///                     return Err("the device takes nothing".into());
    ///                 }
    ///                 unsent.borrow_mut().extend_from_slice(message.bytes());
    ///                 session.server().rewatch(device, Ready::BOTH);
    ///                 Ok(())
    ///             })
    ///         });
    ///     });
    /// }
    /// ```
    pub fn rewatch(&mut self, watch: WatchId, interest: Ready) {
        self.shared.watches.change(watch, interest);
    }

    /// Names a flow for other threads; see [`Handle::emit`](crate::Handle::emit).
    pub fn flow_key<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> FlowKey<T> {
        flow.inner.belong_to(&self.shared.flows);
        self.shared.flow_names.name(&flow.inner)
    }

    /// Has `read` offered every message of a flow, its replay first, without a session: for a link to a
    /// broker, a serial port, another loop. It runs on the loop, after the turn in which something was
    /// published, and says what it has taken; see [`Batch`] and [`Taken`]. A panic in it ends the reader.
    ///
    /// What it brings from its other end it publishes with [`SharedFlow::emit_as`], so that it is not offered
    /// that again, and what never came it announces with [`SharedFlow::skip_as`].
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// use wirewheel::ServerRef;
    /// use wirewheel::flow::{ReaderId, SharedFlow, Taken};
    /// const ROOM: usize = 64;
    /// /// Gathers up to 64 messages; whoever takes them calls `server.read_on(reader)`.
    /// type Lines = Rc<RefCell<Vec<String>>>;
    /// fn gather(server: &mut ServerRef<'_>, room: &SharedFlow, into: Lines) -> ReaderId {
    ///     server.read_flow(room, move |_server, batch| {
    ///         let gathered = &mut *into.borrow_mut();
    ///         for offered in batch {
    ///             if gathered.len() == ROOM {
    ///                 return Taken::Later; // this one is offered again
    ///             }
    ///             if offered.missed() > 0 {
    ///                 gathered.push(format!("{} are missing here", offered.missed()));
    ///             }
    ///             gathered.push(offered.message().text().unwrap_or_default().to_owned());
    ///         }
    ///         Taken::Yes
    ///     })
    /// }
    /// ```
    pub fn read_flow<T: ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        read: impl FnMut(&mut ServerRef<'_>, &mut Batch<'_>) -> Taken + 'static,
    ) -> ReaderId {
        self.shared.readers.add(&flow.inner, Some(&self.shared.flows), Box::new(read))
    }

    /// Offers a reader that said [`Taken::Later`] what its flow has for it, in this turn or the next. One
    /// of another loop is nothing.
    pub fn read_on(&mut self, reader: ReaderId) {
        self.shared.readers.read_on(reader);
    }

    /// Ends a reader, and drops its callback; one that is over, or another loop's, is nothing.
    ///
    /// ```
    /// use wirewheel::ServerRef;
    /// use wirewheel::flow::{SharedFlow, Taken};
    /// fn once(server: &mut ServerRef<'_>, room: &SharedFlow) {
    ///     let reader = server.read_flow(room, |_server, _batch| Taken::Later);
    ///     server.stop_reading(reader);
    /// }
    /// ```
    pub fn stop_reading(&mut self, reader: ReaderId) {
        let reader = self.shared.readers.forget(reader);
        drop(reader); // the application's code, called by the application
    }

    /// The flow of that name that all [loops](crate::Server::loops) have; it is made if it is not there, with
    /// these options. For rooms that come and go; of those that are known at the start:
    /// [`Application::shared_flow`](crate::Application::shared_flow), which says what such a flow is.
    ///
    /// ```
    /// use wirewheel::flow::{FlowOptions, SharedFlow};
    /// use wirewheel::{Call, HandlerResult, Session};
    /// fn on_connect(session: &mut Session<'_>, call: &Call) -> HandlerResult {
    ///     let name = call.parameter("room").unwrap_or_default();
    ///     let room = session.server().shared_flow(&name, FlowOptions::new().replay(20))?;
    ///     session.collect(&room)?;
    ///     session.emit(&room, "somebody came in")
    /// }
    /// ```
    ///
    /// The other loops have it as soon as they hear of it, and keep it until
    /// [`forget_shared_flow`](Self::forget_shared_flow) is called wherever this was. Its options are those of
    /// whoever asks first.
    ///
    /// # Errors
    /// As [`SharedFlow::with`].
    pub fn shared_flow(
        &mut self,
        name: &str,
        options: FlowOptions,
    ) -> Result<SharedFlow, ConfigError> {
        self.shared_flow_of(name, options)
    }

    /// The same for values of another type than text.
    ///
    /// ```
    /// use wirewheel::ServerRef;
    /// use wirewheel::error::ConfigError;
    /// use wirewheel::flow::{FlowOptions, SharedFlow};
    /// fn packets(server: &mut ServerRef<'_>) -> Result<SharedFlow<[u8]>, ConfigError> {
    ///     server.shared_flow_of("packets", FlowOptions::new())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`SharedFlow::with`].
    pub fn shared_flow_of<T: ?Sized>(
        &mut self,
        name: &str,
        options: FlowOptions,
    ) -> Result<SharedFlow<T>, ConfigError> {
        options.check().map_err(ConfigError)?;
        Ok(SharedFlow::from_inner(self.shared.hold_shared_flow(name, options)))
    }

    /// This loop needs the flow of that name no more: once none does it is gone on all, with its replay.
    /// Sessions that collect it still do, and hear what is published on their loop.
    ///
    /// ```
    /// fn close(server: &mut wirewheel::ServerRef<'_>, room: &str) {
    ///     server.forget_shared_flow(room);
    /// }
    /// ```
    pub fn forget_shared_flow(&mut self, name: &str) {
        self.shared.let_shared_flow_go(name);
    }

    /// Publishes in the flow of that name, if somebody still has it and it has room.
    pub(crate) fn publish<T: ?Sized>(
        &self,
        flow: FlowKey<T>,
        key: Option<&str>,
        message: Message<'_>,
    ) {
        if let Some(flow) = self.find_flow(flow) {
            flow.inner.belong_to(&self.shared.flows);
            flow.inner.emit_unanswered(message, key);
        }
    }

    /// The flow of that name, while somebody still has it.
    pub fn find_flow<T: ?Sized>(&self, key: FlowKey<T>) -> Option<SharedFlow<T>> {
        self.shared.flow_names.find(key).map(SharedFlow::from_inner)
    }
}

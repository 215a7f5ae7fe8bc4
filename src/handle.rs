//! The handle of a running server, for other threads.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use crate::app::application::Application;
use crate::context::adoptions::Adopted;
use crate::context::commands::{Command, Drained, Refused, StopRequest};
use crate::context::loop_state::{LoopPlace, LoopState, OnLoop, Order, ServerRef};
use crate::context::loops::Place;
use crate::context::mailbox::Mailbox;
use crate::context::stats::Stats;
use crate::flow::key::FlowKey;
use crate::session::state::NO_ADDR;
use crate::structures::ids::SessionId;
#[cfg(any(test, fuzzing, feature = "testing"))]
use crate::testing::TestApplication;
use crate::words::adopt::AdoptError;
use crate::words::close::{CloseCode, CloseReason, CloseReasonError};
use crate::words::error::{AskError, HandleError, Result, SendError, ServerError};
use crate::words::message::{Message, ToMessage};
use crate::words::message_buf::MessageBuf;

/// A server, from another thread: by [`Server::spawn`](crate::Server::spawn), or by
/// [`Server::handle`](crate::Server::handle) for one that `run` will run. Clones name the same
/// server.
///
/// What it is asked is queued, at most 1,024 commands and 4 MiB of messages, and done in the server's
/// next turn. Nothing here waits but [`join`](Self::join).
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{Application, Server};
/// let server = Server::bind("127.0.0.1:0", |_app: &mut Application| {})?.spawn()?;
/// server.defer(|server| println!("{} sessions", server.session_count())).unwrap();
/// let stats = server.stats().unwrap().recv_timeout(Duration::from_secs(5)).unwrap();
/// assert_eq!(stats.sessions_open, 0);
/// server.shutdown(Duration::from_secs(1));
/// let drained = server.join()?;
/// assert_eq!((drained.clean, drained.cut), (0, 0));
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
///
/// With a session, and a restart:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::error::HandleError;
/// use wirewheel::{CloseCode, CloseReason, Handle, SessionId};
/// fn farewell(server: &Handle, id: SessionId) -> Result<(), HandleError> {
///     println!("{} and {:?}", server.local_addr(), server.local_addrs());
///     server.send_to(id, "until tomorrow")?;
///     let reason = CloseReason::truncated(CloseCode::GOING_AWAY, "closing time");
///     server.close(id, reason.expect("1001 may be sent"))?;
///     server.shutdown_for_restart(Duration::from_secs(5)); // or shutdown: 1001 instead of 1012
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    addresses: Vec<SocketAddr>,
    /// That of the loop on which it was made; else of the only or first one.
    mailbox: Mailbox<Order>,
    /// Where there are several loops, the way to all of them.
    place: Option<LoopPlace>,
    /// None where the server runs on a thread of the application's, or the handle was made on the loop.
    thread: Mutex<Option<JoinHandle<Result<Drained>>>>,
    /// The thread of the loop, if that is known.
    loop_thread: Option<ThreadId>,
}

/// A question for the statistics of all loops: answered once each has said what it has, or is over.
struct Question {
    place: LoopPlace,
    sender: Sender<Stats>,
}

impl Drop for Question {
    fn drop(&mut self) {
        let _ = self.sender.send(self.place.stats()); // who asked may have stopped waiting
    }
}

thread_local! {
    /// The server with several loops of which this thread runs one.
    static LOOP_OF: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A thread of the application's that runs a server, until that is over.
pub(crate) struct LentThread(Option<usize>);

impl LentThread {
    pub(crate) fn begin() -> Self {
        Self(LOOP_OF.get())
    }
}

impl Drop for LentThread {
    fn drop(&mut self) {
        LOOP_OF.set(self.0);
    }
}

/// This thread runs one of several loops from here on.
pub(crate) fn note_loop_thread(place: &LoopPlace) {
    LOOP_OF.set(Some(place.server()));
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("addresses", &self.inner.addresses).finish_non_exhaustive()
    }
}

impl Application {
    /// The handle of the server that this application is set up for, for other threads. What is asked before
    /// the server runs waits.
    ///
    /// ```
    /// use wirewheel::error::HandleError;
    /// use wirewheel::flow::{FlowOptions, SharedFlow};
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     let readings = app.flow(FlowOptions::new().replay(1));
    ///     let (handle, key) = (app.handle(), app.flow_key(&readings));
    ///     std::thread::spawn(move || {
    ///         for line in std::io::stdin().lines().map_while(Result::ok) {
    ///             if handle.emit(key, &line) == Err(HandleError::Stopped) {
    ///                 return;
    ///             } // if it is full, this line is left out
    ///         }
    ///     });
    ///     # let _: SharedFlow = readings;
    /// }
    /// ```
    pub fn handle(&self) -> Handle {
        let OnLoop { mailbox, addresses, place, .. } = self.on_loop();
        Handle::on_loop(addresses.clone(), mailbox.clone(), place.clone())
    }
}

impl ServerRef<'_> {
    /// A handle of this server, for other threads.
    ///
    /// ```
    /// use std::sync::mpsc::{SyncSender, sync_channel};
    /// use wirewheel::{ServerRef, SessionId};
    /// /// One thread that may take its time to answer. Hooks ask it by `try_send`; 16 questions may wait.
    /// fn begin(server: &ServerRef<'_>) -> std::io::Result<SyncSender<(SessionId, String)>> {
    ///     let (asker, questions) = sync_channel::<(SessionId, String)>(16);
    ///     let handle = server.handle();
    ///     std::thread::Builder::new().spawn(move || {
    ///         for (id, question) in questions {
    ///             let _ = handle.send_to(id, question.to_uppercase());
    ///         }
    ///     })?;
    ///     Ok(asker)
    /// }
    /// ```
    pub fn handle(&self) -> Handle {
        let LoopState { addresses, deferrals, place, .. } = &*self.shared;
        Handle::on_loop(addresses.clone(), deferrals.mailbox.clone(), place.clone())
    }

    /// The same as [`send_to`](Self::send_to) for a thread or another loop, which is told nothing of it: a
    /// message that there is no room for counts with the session.
    pub(crate) fn send_ordered(
        &mut self,
        id: SessionId,
        message: MessageBuf,
    ) -> std::result::Result<(), SendError> {
        let sent = self.send_to(id, message);
        if matches!(sent, Err(SendError::Full { .. })) {
            // Beside the limit of commands: there is one for each order at most.
            self.shared.commands.push_back(Command::NoteDropped(id.0));
            self.shared.has_deferred_work = true;
        }
        sent
    }

    /// Takes a stream connection that somebody else has accepted, such as a listener that several servers
    /// share, and serves it as if it had been accepted here: admission, limits, deadlines and statistics are
    /// the same. `already_read` is what was read from it, to find out whose it is; it comes first. Of `peer`
    /// it counts, where `per_address` is set, and [`Call::client_addr`](crate::Call::client_addr) tells it.
    ///
    /// It is looked at in this turn of the loop or the next, as soon as there is room; until then it waits
    /// as in the backlog of a listener. The socket's options stay as they are, but that it is made
    /// non-blocking; `set_nodelay(true)` is what accepted ones have. It speaks no TLS here.
    ///
    /// ```
    /// use std::net::{SocketAddr, TcpStream};
    /// use wirewheel::ServerRef;
    /// use wirewheel::error::AdoptError;
    /// /// What begins like HTTP is the server's. A thread has accepted and read: nothing here may block.
    /// fn sort(
    ///     server: &ServerRef<'_>,
    ///     stream: TcpStream,
    ///     read: Vec<u8>,
    ///     peer: SocketAddr,
    /// ) -> Result<(), AdoptError> {
    ///     if read.starts_with(b"GET ") {
    ///         server.adopt(stream, read, peer)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Then the connection is closed. [`AdoptError::Full`] if 1,024 connections or 4 MiB wait already,
    /// [`AdoptError::TooMuchRead`] for more than `read_buffer_bytes`. What the system refuses later, such as
    /// a descriptor that is no socket, is logged.
    pub fn adopt(
        &self,
        stream: impl Into<OwnedFd>,
        already_read: Vec<u8>,
        peer: SocketAddr,
    ) -> std::result::Result<(), AdoptError> {
        let (bytes, limit) = (already_read.len(), self.shared.limits.read_buffer_bytes);
        if bytes > limit {
            return Err(AdoptError::TooMuchRead { bytes, limit });
        }
        let adopted = Adopted { fd: stream.into(), received: already_read, peer, handed: None };
        // The loop that accepts keeps the account of all.
        let first = self.shared.place.as_ref().and_then(Place::first);
        first.unwrap_or(&self.shared.deferrals.mailbox).adopt(adopted).map_err(|refused| {
            match refused {
                Refused::Full => AdoptError::Full,
                Refused::Stopped => AdoptError::Stopped,
            }
        })
    }
}

#[cfg(any(test, fuzzing, feature = "testing"))]
impl TestApplication {
    /// The handle that other threads would have, and code of the application does
    /// ([`Application::handle`], [`ServerRef::handle`]). What it is asked is done the next time that this
    /// application does anything: when its clock moves, or a client acts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, WebSockets, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| { route.web_socket("/", |_: &Call| on_message(|s, m| s.send(m))); });
    /// })?;
    /// let mut client = app.web_socket("/");
    /// let handle = app.handle();
    /// let sender = std::thread::spawn(move || {
    ///     handle.defer(|server| {
    ///         for id in server.sessions() {
    ///             server.send_to(id, "from a thread").unwrap();
    ///         }
    ///     })
    /// });
    /// sender.join().unwrap().unwrap();
    /// app.advance(Duration::ZERO);
    /// client.expect_text("from a thread");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn handle(&self) -> Handle {
        Handle::on_loop(Vec::new(), self.mailbox.clone(), None)
    }
}

impl From<Refused> for HandleError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Full,
            Refused::Stopped => Self::Stopped,
        }
    }
}

impl Handle {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        mailbox: Mailbox<Order>,
        place: Option<LoopPlace>,
        thread: Option<JoinHandle<Result<Drained>>>,
    ) -> Self {
        let loop_thread = thread.as_ref().map(|thread| thread.thread().id());
        let thread = Mutex::new(thread);
        Self { inner: Arc::new(Inner { addresses, mailbox, place, thread, loop_thread }) }
    }

    /// One that code on the loop makes.
    fn on_loop(
        addresses: Vec<SocketAddr>,
        mailbox: Mailbox<Order>,
        place: Option<LoopPlace>,
    ) -> Self {
        let (thread, loop_thread) = (Mutex::new(None), Some(thread::current().id()));
        Self { inner: Arc::new(Inner { addresses, mailbox, place, thread, loop_thread }) }
    }

    fn order(
        &self,
        bytes: usize,
        action: impl FnOnce(&mut ServerRef<'_>) + Send + 'static,
    ) -> Result<(), HandleError> {
        Ok(self.inner.mailbox.send(bytes, Box::new(action))?)
    }

    /// The same on the loop that has given this number: a session's generation, a flow's name.
    fn order_to(
        &self,
        number: u32,
        bytes: usize,
        action: impl FnOnce(&mut ServerRef<'_>) + Send + 'static,
    ) -> Result<(), HandleError> {
        let place = self.inner.place.as_ref();
        let mailbox = place.and_then(|place| place.mailbox_of(number));
        Ok(mailbox.unwrap_or(&self.inner.mailbox).send(bytes, Box::new(action))?)
    }

    /// The address the server listens on, the first if there are several.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.addresses.first().copied().unwrap_or(NO_ADDR)
    }

    /// All addresses the server listens on.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.inner.addresses
    }

    /// Runs `action` on the server's loop in its next turn, where it can do all that a timer of the
    /// application can. Returns at once. With several [loops](crate::Server::loops) it is the one on which
    /// the handle was made, or the first.
    ///
    /// # Errors
    /// [`HandleError::Full`] if too much is queued, [`HandleError::Stopped`] if the server is over.
    pub fn defer(
        &self,
        action: impl FnOnce(&mut ServerRef<'_>) + Send + 'static,
    ) -> Result<(), HandleError> {
        self.order(0, action)
    }

    /// Sends a message to a session. One that is over by then gets nothing; use
    /// [`defer`](Self::defer) and [`ServerRef::send_to`] to know.
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn send_to(
        &self,
        id: SessionId,
        message: impl Into<MessageBuf>,
    ) -> Result<(), HandleError> {
        let message = message.into();
        let bytes = message.as_message().bytes().len();
        self.order_to(id.0.generation, bytes, move |server| {
            let _ = server.send_ordered(id, message);
        })
    }

    /// Sends a message to the session of that name; one that nobody has gets nothing. Else as
    /// [`send_to`](Self::send_to).
    ///
    /// ```
    /// use wirewheel::Handle;
    /// use wirewheel::error::HandleError;
    /// fn ring(server: &Handle) -> Result<(), HandleError> {
    ///     server.send_to_name("door", "ring")
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn send_to_name(
        &self,
        name: impl Into<String>,
        message: impl Into<MessageBuf>,
    ) -> Result<(), HandleError> {
        let (name, message) = (name.into(), message.into());
        // To its loop at once: that has no room for it is known here, and nowhere on the way.
        if let Some(key) = self.inner.place.as_ref().and_then(|place| place.find_name(&name)) {
            return self.send_to(SessionId(key), message);
        }
        let bytes = message.as_message().bytes().len().saturating_add(name.len());
        self.order(bytes, move |server| {
            let _ = server.find_session(&name).map(|id| server.send_ordered(id, message));
        })
    }

    /// Puts a question to a session; see [`ServerRef::ask`]. `then` is called on the loop, also with what
    /// [`ServerRef::ask`] would have returned.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use wirewheel::{Handle, SessionId};
    /// fn is_open(server: &Handle, valve: SessionId) -> bool {
    ///     let (sender, receiver) = channel();
    ///     let asked = server.ask(valve, "18", "18 state", Duration::from_secs(5), move |_, answer| {
    ///         let _ = sender.send(answer.is_ok_and(|message| message.text() == Some("open")));
    ///     });
    ///     asked.is_ok() && receiver.recv().unwrap_or(false)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn ask(
        &self,
        id: SessionId,
        correlation: impl Into<String>,
        message: impl Into<MessageBuf>,
        timeout: Duration,
        then: impl FnOnce(&mut ServerRef<'_>, Result<Message<'_>, AskError>) + Send + 'static,
    ) -> Result<(), HandleError> {
        let (correlation, message) = (correlation.into(), message.into());
        let bytes = message.as_message().bytes().len().saturating_add(correlation.len());
        let ask = move |server: &mut ServerRef<'_>| {
            // Shared, since it is called here only if the question could not be put.
            let then = Rc::new(Cell::new(Some(then)));
            let later = Rc::clone(&then);
            let asked = server.ask(id, &correlation, message, timeout, move |server, answer| {
                if let Some(then) = later.take() {
                    then(server, answer);
                }
            });
            let Err(error) = asked else { return };
            if let Some(then) = then.take() {
                then(server, Err(error));
            }
        };
        self.order_to(id.0.generation, bytes, ask)
    }

    /// Starts the closing handshake of a session.
    ///
    /// # Errors
    /// As [`defer`](Self::defer); [`HandleError::CloseReason`] for a code that may not be sent.
    pub fn close(
        &self,
        id: SessionId,
        reason: impl TryInto<CloseReason, Error: Into<CloseReasonError>>,
    ) -> Result<(), HandleError> {
        let reason = CloseReason::checked(reason)?;
        self.order_to(id.0.generation, 0, move |server| {
            let _ = server.close(id, reason);
        })
    }

    /// Has the server take a connection that this thread has accepted; see [`ServerRef::adopt`]. One of which
    /// more than `read_buffer_bytes` was read is hung up on, which is logged.
    ///
    /// ```no_run
    /// use std::net::TcpListener;
    /// use wirewheel::Handle;
    /// /// On a thread of its own.
    /// fn accept(server: &Handle, listener: &TcpListener) -> std::io::Result<()> {
    ///     loop {
    ///         let (stream, peer) = listener.accept()?;
    ///         stream.set_nodelay(true)?;
    ///         if let Err(error) = server.adopt(stream, Vec::new(), peer) {
    ///             eprintln!("{peer}: {error}"); // it was hung up on
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`defer`](Self::defer), with at most 1,024 connections and 4 MiB of their own; then the connection
    /// is closed.
    pub fn adopt(
        &self,
        stream: impl Into<OwnedFd>,
        already_read: Vec<u8>,
        peer: SocketAddr,
    ) -> Result<(), HandleError> {
        let adopted = Adopted { fd: stream.into(), received: already_read, peer, handed: None };
        let first = self.inner.place.as_ref().and_then(Place::first);
        Ok(first.unwrap_or(&self.inner.mailbox).adopt(adopted)?)
    }

    /// Reads the certificates of all listeners again; see [`ServerRef::reload_certificates`].
    ///
    /// ```
    /// use wirewheel::Handle;
    /// fn renewed(server: &Handle) {
    ///     if server.reload_certificates().is_err() {
    ///         eprintln!("the server has stopped");
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    #[cfg(feature = "tls")]
    pub fn reload_certificates(&self) -> Result<(), HandleError> {
        self.defer(|server| server.reload_certificates())
    }

    /// Publishes in a flow, named by [`Application::flow_key`](crate::Application::flow_key). One
    /// that nobody has any more, or that has no room, gets nothing.
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use wirewheel::flow::SharedFlow;
    /// use wirewheel::{Application, Server};
    /// let (sender, receiver) = channel();
    /// let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
    ///     let alarms: SharedFlow = SharedFlow::new();
    ///     sender.send(app.flow_key(&alarms)).unwrap();
    ///     // ... routes whose sessions collect `alarms`, which keeps it alive
    /// })?
    /// .spawn()?;
    /// let alarms = receiver.recv().unwrap();
    /// std::thread::spawn(move || {
    ///     server.emit(alarms, "door open").unwrap();
    ///     server.shutdown(Duration::from_secs(1));
    /// });
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn emit<T>(&self, flow: FlowKey<T>, value: &T) -> Result<(), HandleError>
    where
        T: ToMessage + ?Sized + 'static,
    {
        self.publish(flow, None, value)
    }

    /// Publishes under a key in a flow, as
    /// [`SharedFlow::emit_latest`](crate::flow::SharedFlow::emit_latest) does; else as
    /// [`emit`](Self::emit).
    ///
    /// ```
    /// use wirewheel::Handle;
    /// use wirewheel::error::HandleError;
    /// use wirewheel::flow::FlowKey;
    /// fn measured(server: &Handle, readings: FlowKey<str>, celsius: f32) -> Result<(), HandleError> {
    ///     server.emit_latest(readings, "greenhouse", &format!("{celsius:.1}"))
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn emit_latest<T>(&self, flow: FlowKey<T>, key: &str, value: &T) -> Result<(), HandleError>
    where
        T: ToMessage + ?Sized + 'static,
    {
        self.publish(flow, Some(key.into()), value)
    }

    fn publish<T>(
        &self,
        flow: FlowKey<T>,
        key: Option<Box<str>>,
        value: &T,
    ) -> Result<(), HandleError>
    where
        T: ToMessage + ?Sized + 'static,
    {
        let mut encoded = None;
        value.to_message(&mut |message| {
            encoded.get_or_insert_with(|| MessageBuf::from(message));
        });
        let Some(message) = encoded else { return Ok(()) };
        let key_bytes = key.as_deref().map_or(0, str::len);
        let bytes = message.as_message().bytes().len().saturating_add(key_bytes);
        let publish = move |server: &mut ServerRef<'_>| {
            server.publish(flow, key.as_deref(), message.as_message());
        };
        self.order_to(flow.number(), bytes, publish)
    }

    /// Asks for the statistics; they come as soon as the loop has its next turn. With several loops, those
    /// that are over count as they ended.
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn stats(&self) -> Result<Receiver<Stats>, HandleError> {
        let (sender, receiver) = channel();
        let Some(place) = &self.inner.place else {
            self.defer(move |server| {
                let _ = sender.send(server.stats()); // who asked may have stopped waiting
            })?;
            return Ok(receiver);
        };
        // Each loop says its own, and the last one answers: so they are of now, and all loops turn.
        let question = Arc::new(Question { place: place.clone(), sender });
        let mut is_asked = false;
        for mailbox in place.mailboxes() {
            let question = Arc::clone(&question);
            let publish = move |server: &mut ServerRef<'_>| {
                server.shared.publish_stats();
                drop(question);
            };
            match mailbox.send(0, Box::new(publish)) {
                Err(Refused::Stopped) => {} // what it had last is there
                sent => is_asked = sent.map(|()| true)?,
            }
        }
        if is_asked { Ok(receiver) } else { Err(HandleError::Stopped) }
    }

    /// Stops the server: requests get 503, sessions Close 1001; it ends when all have answered,
    /// after `grace` at the latest. Returns at once; [`join`](Self::join) waits for the end. Asked
    /// again, the shorter grace counts; zero is now.
    pub fn shutdown(&self, grace: Duration) {
        self.stop(StopRequest { code: CloseCode::GOING_AWAY, grace });
    }

    /// The same with 1012: the server will be there again, and clients should come back.
    pub fn shutdown_for_restart(&self, grace: Duration) {
        self.stop(StopRequest { code: CloseCode::SERVICE_RESTART, grace });
    }

    fn stop(&self, request: StopRequest) {
        if let Some(place) = &self.inner.place {
            place.mailboxes().iter().for_each(|mailbox| mailbox.stop(request.clone()));
        } else {
            self.inner.mailbox.stop(request);
        }
    }

    /// Waits until a server that [`spawn`](crate::Server::spawn) started has stopped, and says how
    /// its last sessions ended. Further calls, and calls for a server that `run` runs, return at
    /// once with zeros.
    ///
    /// # Errors
    /// What [`Server::run`](crate::Server::run) would have returned;
    /// [`ServerError::JoinOnLoop`] in a hook or a timer of this server.
    ///
    /// # Panics
    /// If the loop itself panicked: that panic goes on here. A panic in a hook ends its session
    /// alone ([`SessionError::Panic`](crate::error::SessionError::Panic)).
    pub fn join(&self) -> Result<Drained> {
        // It would wait for itself.
        let server = self.inner.place.as_ref().map(Place::server);
        let is_on_loop = self.inner.loop_thread == Some(thread::current().id());
        if is_on_loop || (server.is_some() && server == LOOP_OF.get()) {
            return Err(ServerError::JoinOnLoop);
        }
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            None => Ok(Drained::default()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

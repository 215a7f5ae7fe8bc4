//! The handle of a running server, for other threads.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::context::commands::{Drained, StopRequest};
use crate::context::loop_state::ServerRef;
use crate::context::stats::Stats;
use crate::flow::key::FlowKey;
use crate::session::state::NO_ADDR;
use crate::shell::mailbox::{Mailbox, Refused};
use crate::structures::ids::SessionId;
use crate::words::close::{CloseCode, CloseReason};
use crate::words::error::{HandleError, Result, ServerError};
use crate::words::message::ToMessage;
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
    mailbox: Mailbox,
    /// None where the server runs on a thread of the application's.
    thread: Mutex<Option<JoinHandle<Result<Drained>>>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("addresses", &self.inner.addresses).finish_non_exhaustive()
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
        mailbox: Mailbox,
        thread: Option<JoinHandle<Result<Drained>>>,
    ) -> Self {
        Self { inner: Arc::new(Inner { addresses, mailbox, thread: Mutex::new(thread) }) }
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
    /// application can. Returns at once.
    ///
    /// # Errors
    /// [`HandleError::Full`] if too much is queued, [`HandleError::Stopped`] if the server is over.
    pub fn defer(
        &self,
        action: impl FnOnce(&mut ServerRef<'_>) + Send + 'static,
    ) -> Result<(), HandleError> {
        Ok(self.inner.mailbox.send(0, action)?)
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
        Ok(self.inner.mailbox.send(bytes, move |server| {
            let _ = server.send_to(id, message);
        })?)
    }

    /// Starts the closing handshake of a session.
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn close(&self, id: SessionId, reason: CloseReason) -> Result<(), HandleError> {
        self.defer(move |server| {
            let _ = server.close(id, reason);
        })
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
        let mut encoded = None;
        value.to_message(&mut |message| {
            encoded.get_or_insert_with(|| MessageBuf::from(message));
        });
        let Some(message) = encoded else { return Ok(()) };
        let bytes = message.as_message().bytes().len();
        Ok(self.inner.mailbox.send(bytes, move |server| server.emit(flow, message.as_message()))?)
    }

    /// Asks for the statistics; they come as soon as the loop has its next turn.
    ///
    /// # Errors
    /// As [`defer`](Self::defer).
    pub fn stats(&self) -> Result<Receiver<Stats>, HandleError> {
        let (sender, receiver) = channel();
        self.defer(move |server| {
            let _ = sender.send(server.stats()); // who asked may have stopped waiting
        })?;
        Ok(receiver)
    }

    /// Stops the server: requests get 503, sessions Close 1001; it ends when all have answered,
    /// after `grace` at the latest. Returns at once; [`join`](Self::join) waits for the end. Asked
    /// again, the shorter grace counts; zero is now.
    pub fn shutdown(&self, grace: Duration) {
        self.inner.mailbox.stop(StopRequest { code: CloseCode::GOING_AWAY, grace });
    }

    /// The same with 1012: the server will be there again, and clients should come back.
    pub fn shutdown_for_restart(&self, grace: Duration) {
        self.inner.mailbox.stop(StopRequest { code: CloseCode::SERVICE_RESTART, grace });
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
        let thread = {
            let mut place = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner);
            let id = place.as_ref().map(|handle| handle.thread().id());
            if id == Some(thread::current().id()) {
                return Err(ServerError::JoinOnLoop);
            }
            place.take()
        };
        match thread.map(JoinHandle::join) {
            None => Ok(Drained::default()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

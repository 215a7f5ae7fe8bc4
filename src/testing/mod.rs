//! Applications in memory, under virtual time: the server's own core, without a socket, a thread or
//! a wait (feature `testing`; Ktor's `testApplication`).
//!
//! ```
//! use std::time::Duration;
//! use wirewheel::testing::{Ending, TestApplication};
//! use wirewheel::{Application, Call, CloseCode, WebSockets, on_message};
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new());
//!     app.routing(|route| {
//!         route.web_socket("/echo", |_call: &Call| {
//!             on_message(|session, message| session.send(message))
//!         });
//!     });
//! }
//!
//! let app = TestApplication::new(module)?;
//! let mut client = app.web_socket("/echo");
//! client.send("hello");
//! client.expect_text("hello");
//!
//! client.answer_pings(false); // a peer that fell silent
//! client.answer_close(false);
//! app.advance(Duration::from_secs(31)); // takes no time: 15 s to the ping, 15 s for the pong
//! client.receive(); // the ping
//! assert_eq!(client.expect_close(CloseCode::INTERNAL_ERROR), "Ping timeout");
//! app.advance(Duration::from_secs(5)); // in which it could have hung up
//! client.expect_end(Ending::Closed);
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```
//!
//! What a test cannot see here is what the core does not do: sockets, signals, real time.
//! [`Server::spawn`](crate::Server::spawn) on port 0 is the same application over real sockets.

mod answer;
mod client;
pub(crate) mod event_source;
mod failure;
#[cfg(all(repository, any(test, fuzzing), feature = "client"))]
pub(crate) mod far_answers;
pub(crate) mod far_end;
#[cfg(feature = "client")]
mod far_server;
#[allow(dead_code, reason = "a part is for the tests of this crate alone")]
pub(crate) mod frames;
mod host;
pub(crate) mod network;
#[cfg(all(repository, any(test, fuzzing)))]
pub(crate) mod simulation;
mod stream;
#[cfg(feature = "client")]
mod test_network;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::app::application::Application;
use crate::context::loop_state::{Order, ServerRef};
use crate::context::mailbox::Mailbox;
use crate::context::stats::Stats;
use crate::words::close::CloseCode;
use crate::words::error::{Result, ServerError};
use crate::words::time::Time;

pub use answer::Answer;
pub use client::{Ending, Received, TestClient, Upgrade};
pub use event_source::{Event, TestEventSource};
pub use far_end::RawFrame;
#[cfg(feature = "client")]
pub use far_server::{FarRequest, FarServer};
#[cfg(feature = "tls")]
pub use network::tls_peer::AUTHORITY;
pub use stream::Stream;
#[cfg(feature = "client")]
pub use test_network::TestNetwork;

use host::Host;
use network::Network;

/// An application that runs in memory. Its clients share it; all are of one thread.
///
/// A panic in the application's code fails the test, assertions in a handler included, unless
/// [`tolerate_panics`](Self::tolerate_panics) is called. Hooks must not use the clients of their
/// own application: it is busy with them.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::testing::TestApplication;
/// use wirewheel::{Application, Call, Handler, WebSockets, on_connect};
///
/// fn greeter(_call: &Call) -> impl Handler + use<> {
///     on_connect(|session, _call| session.send(&session.remote_addr().ip().to_string()))
///         .on_message(|_session, _message| panic!("it is not to be spoken to"))
/// }
///
/// let app = TestApplication::new(|app: &mut Application| {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.get("/healthz", |_call| "ok");
///         route.web_socket("/greet", greeter);
///     });
/// })?;
/// assert_eq!(app.get("/healthz").text(), "ok");
/// assert_eq!(app.connect().request("HEAD", "/healthz").status, 200);
/// let mut client = app.web_socket("/greet");
/// client.expect_text("127.0.0.1");
/// let elsewhere = app.connect_from(([192, 0, 2, 1], 4000).into());
/// let (mut other, answer) = app.upgrade("/greet").connect().unwrap();
/// assert_eq!(answer.status, 101);
///
/// app.advance(Duration::from_secs(60)); // with every deadline in between
/// app.jump(Duration::from_secs(1)); // as after a suspended machine
/// assert_eq!(app.elapsed().as_secs(), 61);
/// assert_eq!(app.stats().sessions_open, 2);
/// assert_eq!(app.with_server(|server| server.session_count()), 2);
///
/// app.tolerate_panics();
/// client.send("hello"); // ends this session alone
/// assert_eq!(app.stats().closed_internal, 1);
/// app.shutdown(Duration::from_secs(5));
/// other.expect_text("127.0.0.1");
/// other.expect_close(wirewheel::CloseCode::GOING_AWAY);
/// app.advance(Duration::from_secs(10));
/// assert!(app.is_stopped());
/// # drop(elsewhere);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct TestApplication {
    network: Host,
    pub(crate) mailbox: Mailbox<Order>,
}

impl fmt::Debug for TestApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestApplication").finish_non_exhaustive()
    }
}

impl TestApplication {
    /// Sets up the application, as [`Server::bind`](crate::Server::bind) and `run` would.
    ///
    /// # Errors
    /// [`ServerError::Config`] for a mistake in the set-up.
    pub fn new(module: impl FnOnce(&mut Application)) -> Result<Self> {
        let (network, mailbox) = Self::build(module)?;
        Ok(Self { network: Host::alone(network), mailbox })
    }

    fn build(module: impl FnOnce(&mut Application)) -> Result<(Network, Mailbox<Order>)> {
        let mailbox = Mailbox::default();
        let mut application = Application::new().reached_by(mailbox.clone(), Vec::new());
        module(&mut application);
        let built = application.build().map_err(ServerError::Config)?;
        let mut network = Network::new(built);
        network.accept_orders(mailbox.inbox());
        Ok((network, mailbox))
    }

    /// Has every client that connects from now on speak TLS: what their methods send and receive is in
    /// records, of the same code that a [`Listen::tls`](crate::Listen::tls) has. The clock of certificates
    /// stands still.
    ///
    /// ```
    /// use wirewheel::testing::{Ending, TestApplication};
    /// use wirewheel::{Application, Call, Response, WebSockets, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.get("/scheme", |call| Response::text(call.scheme()));
    ///         route.web_socket("/echo", |_call: &Call| on_message(|session, m| session.send(m)));
    ///     });
    /// })?
    /// .over_tls();
    /// assert_eq!(app.get("/scheme").text(), "https");
    /// let mut client = app.web_socket("/echo");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// client.break_next_record();
    /// client.send("never arrives");
    /// assert!(client.tls_fault().unwrap().contains("BadRecordMac")); // the server's alert
    /// app.web_socket("/echo").cut(); // an end of which TLS says nothing
    /// app.web_socket("/echo").half_close(); // and one of which it does
    /// assert_eq!(app.stats().closed_abnormal, 3);
    ///
    /// let mut silent = app.begin_handshake(100); // bytes of its ClientHello, and no more
    /// app.advance(std::time::Duration::from_secs(13));
    /// silent.expect_end(Ending::Closed);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn over_tls(self) -> Self {
        self.network.borrow_mut().use_tls();
        self
    }

    /// Connects a client over TLS of whose first message only so many bytes are sent.
    ///
    /// # Panics
    /// Without [`over_tls`](Self::over_tls).
    #[cfg(feature = "tls")]
    #[track_caller]
    pub fn begin_handshake(&self, bytes: usize) -> TestClient {
        let id = self.network.borrow_mut().connect_in_part(bytes);
        TestClient::new(self.network.clone(), id)
    }

    /// Connects a client from 127.0.0.1.
    pub fn connect(&self) -> TestClient {
        let port = 10_000 + u16::try_from(self.network.borrow().link_count() % 50_000).unwrap_or(0);
        self.connect_from(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Connects a client from an address.
    pub fn connect_from(&self, address: SocketAddr) -> TestClient {
        let id = self.network.borrow_mut().connect(address);
        TestClient::new(self.network.clone(), id)
    }

    /// Begins an upgrade, to which headers and subprotocols can be added.
    pub fn upgrade(&self, path: &str) -> Upgrade {
        Upgrade::new(self.connect(), path)
    }

    /// Opens a session.
    ///
    /// # Panics
    /// If the upgrade is refused.
    #[track_caller]
    pub fn web_socket(&self, path: &str) -> TestClient {
        match self.upgrade(path).connect() {
            Ok((client, _)) => client,
            Err(answer) => panic!("the upgrade of {path} was refused: {answer:?}"),
        }
    }

    /// Opens an event stream; see [`TestEventSource`].
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, on_connect};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.routing(|route| {
    ///         route.event_stream("/events", |_call: &Call| on_connect(|session, _| session.send("x")));
    ///     });
    /// })?;
    /// app.event_source("/events").expect_event("message", "x");
    /// let mut source = app.event_source_from("/events", "an id of nobody").unwrap();
    /// source.expect_event("message", "x");
    /// assert_eq!(app.event_source_from("/nowhere", "").unwrap_err().status, 404);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If the answer is none.
    #[track_caller]
    pub fn event_source(&self, path: &str) -> TestEventSource {
        match self.event_source_from(path, "") {
            Ok(source) => source,
            Err(answer) => panic!("{path} is no event stream: {answer:?}"),
        }
    }

    /// Opens an event stream, naming in `Last-Event-ID` what was had before; if that is empty, nothing is
    /// named.
    ///
    /// # Errors
    /// Any answer that an `EventSource` would not accept.
    pub fn event_source_from(
        &self,
        path: &str,
        last_event_id: &str,
    ) -> std::result::Result<TestEventSource, Answer> {
        TestEventSource::open(self.connect(), path, last_event_id)
    }

    /// Asks for a page on a connection of its own.
    ///
    /// # Panics
    /// If no answer comes.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.connect().request("GET", path)
    }

    /// Sends a body on a connection of its own, and takes the answer.
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// let app = TestApplication::new(|app: &mut wirewheel::Application| {
    ///     app.routing(|route| {
    ///         route.post("/name", |_call, body| body.text().map(|name| format!("hello {name}")));
    ///     });
    /// })?;
    /// assert_eq!(app.post("/name", "text/plain", "anna").text(), "hello anna");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If no answer comes.
    #[track_caller]
    pub fn post(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().send_body("POST", path, content_type, body)
    }

    /// Moves the clock, stopping at every deadline on the way, and then to the end of the tick: what is
    /// due at `time` has happened. It takes no time. A tick is 8.192 ms, as in a real server, whose timers
    /// are never early; [`elapsed`](Self::elapsed) says where the clock stands.
    pub fn advance(&self, time: Duration) {
        let mut network = self.network.borrow_mut();
        let until_fired = network.until_fired(time);
        network.advance(until_fired);
    }

    /// Moves the clock in one step: everything that became due in between is late, as after a
    /// machine was suspended.
    pub fn jump(&self, time: Duration) {
        self.network.borrow_mut().jump(time);
    }

    /// What the wall clock shows to connections that are dialled or come from now on, since 1970 began:
    /// certificates are judged by it. It stands still; at first it is November 2023.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::Application;
    /// use wirewheel::testing::TestApplication;
    /// let app = TestApplication::new(|_app: &mut Application| {})?;
    /// app.set_wall_clock(Duration::ZERO); // a box without a battery
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "client")]
    pub fn set_wall_clock(&self, since_1970: Duration) {
        self.network.borrow_mut().set_wall_clock(since_1970);
    }

    /// The virtual time since the application began.
    pub fn elapsed(&self) -> Duration {
        self.network.borrow().now.since(Time::ZERO)
    }

    /// What the server has counted.
    pub fn stats(&self) -> Stats {
        self.network.borrow().core.stats()
    }

    /// Runs `action` on the loop, as [`Handle::defer`](crate::Handle::defer) does: to emit in a flow, to
    /// send to a session.
    pub fn with_server<R>(&self, action: impl FnOnce(&mut ServerRef<'_>) -> R) -> R {
        let mut network = self.network.borrow_mut();
        match network.run(action) {
            Some(result) => result,
            None => panic!("the action panicked"),
        }
    }

    /// Begins to stop, as [`Handle::shutdown`](crate::Handle::shutdown) does.
    pub fn shutdown(&self, grace: Duration) {
        self.network.borrow_mut().shut_down(CloseCode::GOING_AWAY, grace);
    }

    /// Whether a stop is complete: every connection that was there has ended.
    pub fn is_stopped(&self) -> bool {
        self.network.borrow().stopped
    }

    /// Lets the application panic: the test is about that.
    pub fn tolerate_panics(&self) {
        self.network.borrow_mut().tolerates = |_| true;
    }
}

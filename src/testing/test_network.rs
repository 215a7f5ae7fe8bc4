//! Several applications of one test that dial each other.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::Application;
use crate::words::error::Result;
use crate::words::time::Time;

use super::TestApplication;
use super::host::Host;
use super::network::{HostId, Hosts};

/// Applications that reach each other by host name, under one virtual time: a gateway and its cloud in one
/// test, each with its own module.
///
/// Whatever one of them dials (`ws://cloud.example/..`, at any port, for any path) is accepted by the one
/// that was started under that name, as if it listened there, and sees 203.0.113.1, .2 and so on as
/// addresses. Names of which nobody was started are unknown, unless a
/// [`far_server`](TestApplication::far_server) plays them. What goes over these connections takes no time,
/// and 64 KiB of it wait in each direction for one that does not read, beside as much on its way;
/// [`delay`](Self::delay), [`cut`](Self::cut), [`reset`](Self::reset) and [`kill`](Self::kill) make that
/// worse. `wss://small.example/` reaches an application of that name which is
/// [`over_tls`](TestApplication::over_tls), for those who trust `AUTHORITY`, as those do who dial a
/// [`far_server`](TestApplication::far_server).
///
/// The clock is that of all: [`TestApplication::advance`] moves it as [`advance`](Self::advance) does. When
/// a method of any of them returns, everything has happened everywhere that can happen at this moment. An
/// application lives as long as the network or one of its handles does.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::{ConnectOptions, Dialer, DialerState};
/// use wirewheel::testing::TestNetwork;
/// use wirewheel::{Application, Call, WebSockets, on_connect, on_message};
///
/// fn cloud(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/devices", |_call: &Call| on_message(|session, m| session.send(m)));
///     });
/// }
///
/// fn gateway(app: &mut Application) -> Dialer {
///     app.connect("ws://cloud.example/devices", ConnectOptions::new(), |_call: &Call| {
///         on_connect(|session, _call| session.send("here I am"))
///     })
/// }
///
/// let network = TestNetwork::new();
/// let server = network.start("cloud.example", cloud)?;
/// let mut dialer = None;
/// let box_42 = network.start("box-42", |app: &mut Application| dialer = Some(gateway(app)))?;
/// let dialer = dialer.unwrap();
/// network.advance(Duration::ZERO);
/// assert_eq!(dialer.state(), DialerState::Open);
/// assert_eq!((server.stats().messages_in, box_42.stats().messages_in), (1, 1));
///
/// // The cable is pulled: both sides notice when a pong is missing, and the dialer is back in time.
/// network.cut("box-42", "cloud.example");
/// network.advance(Duration::from_secs(60));
/// assert_eq!((server.stats().sessions_open, box_42.stats().sessions_open), (0, 0));
/// network.mend("box-42", "cloud.example");
/// network.advance(Duration::from_secs(60));
/// assert_eq!(dialer.state(), DialerState::Open);
///
/// // A router on the way has forgotten the connection; then the server is killed, and started again.
/// network.reset("box-42", "cloud.example");
/// network.delay("box-42", "cloud.example", Duration::from_millis(300)); // there, and as much back
/// network.advance(Duration::from_secs(5));
/// assert_eq!(dialer.state(), DialerState::Open);
/// network.kill("cloud.example");
/// network.advance(Duration::from_secs(5));
/// assert_ne!(dialer.state(), DialerState::Open);
/// let server = network.start("cloud.example", cloud)?;
/// network.jump(Duration::from_secs(60)); // as after a suspended machine
/// network.advance(Duration::from_secs(5));
/// assert_eq!(server.stats().sessions_open, 1);
/// assert_eq!(network.elapsed().as_secs(), 195);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Default)]
pub struct TestNetwork {
    hosts: Rc<RefCell<Hosts>>,
}

impl fmt::Debug for TestNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestNetwork").finish_non_exhaustive()
    }
}

/// Applications.
impl TestNetwork {
    /// A network without anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts an application under a host name. The one that has the name is killed first, so that this is
    /// also a restart; its handle stays good for looking at what it counted. What the application dials at
    /// its start is dialled when something happens next, such as an [`advance`](Self::advance): start
    /// servers first.
    ///
    /// # Errors
    /// As [`TestApplication::new`].
    ///
    /// # Panics
    /// If there are more than 250 names.
    #[track_caller]
    pub fn start(
        &self,
        host: &str,
        module: impl FnOnce(&mut Application),
    ) -> Result<TestApplication> {
        let (network, mailbox) = TestApplication::build(module)?;
        let id = self.hosts.borrow_mut().start(host, network);
        Ok(TestApplication { network: Host::new(Rc::clone(&self.hosts), id), mailbox })
    }

    /// Kills an application without a word (`kill -9`): none of its hooks runs any more. As its system
    /// does, it ends its connections, and refuses new ones until something is started under this name.
    /// [`TestApplication::shutdown`] is the orderly way.
    ///
    /// # Panics
    /// If nothing was started under this name.
    #[track_caller]
    pub fn kill(&self, host: &str) {
        self.id(host);
        let mut hosts = self.hosts.borrow_mut();
        hosts.kill(host);
        hosts.settle();
    }
}

/// What lies between them.
impl TestNetwork {
    /// From now on nothing passes between two hosts, in neither direction. What is connected stays so until
    /// one side gives it up; what connects hears nothing.
    ///
    /// # Panics
    /// If nothing was started under one of the names.
    #[track_caller]
    pub fn cut(&self, one: &str, other: &str) {
        self.set_cut(one, other, true);
    }

    /// Undoes a [`cut`](Self::cut): what waited arrives.
    ///
    /// # Panics
    /// If nothing was started under one of the names.
    #[track_caller]
    pub fn mend(&self, one: &str, other: &str) {
        self.set_cut(one, other, false);
    }

    #[track_caller]
    fn set_cut(&self, one: &str, other: &str, cut: bool) {
        let (one, other) = (self.id(one), self.id(other));
        let hosts = &mut *self.hosts.borrow_mut();
        hosts.pipes.set_cut(&mut hosts.networks, one, other, cut);
        hosts.settle();
    }

    /// Resets all connections between two hosts, for both sides. What is on its way is lost.
    ///
    /// # Panics
    /// If nothing was started under one of the names.
    #[track_caller]
    pub fn reset(&self, one: &str, other: &str) {
        let (one, other) = (self.id(one), self.id(other));
        let hosts = &mut *self.hosts.borrow_mut();
        hosts.pipes.reset(&mut hosts.networks, one, other);
        hosts.settle();
    }

    /// What is sent from now on is under way for so long, in each direction; a connection is there after
    /// twice that. Default: no time at all.
    ///
    /// # Panics
    /// If nothing was started under one of the names.
    #[track_caller]
    pub fn delay(&self, one: &str, other: &str, time: Duration) {
        let (one, other) = (self.id(one), self.id(other));
        self.hosts.borrow_mut().pipes.path(one, other).delay = time;
    }

    #[track_caller]
    fn id(&self, host: &str) -> HostId {
        match self.hosts.borrow().host(host) {
            Some(id) => id,
            None => panic!("no application was started under the name {host}"),
        }
    }
}

/// The clock of all.
impl TestNetwork {
    /// Moves the clock; see [`TestApplication::advance`].
    pub fn advance(&self, time: Duration) {
        let mut hosts = self.hosts.borrow_mut();
        let until_fired = hosts.until_fired(time);
        hosts.advance(until_fired);
    }

    /// Moves the clock in one step; see [`TestApplication::jump`].
    pub fn jump(&self, time: Duration) {
        self.hosts.borrow_mut().jump(time);
    }

    /// The virtual time since the network was made. [`TestApplication::elapsed`] has an application's own.
    pub fn elapsed(&self) -> Duration {
        self.hosts.borrow().now().since(Time::ZERO)
    }
}

#[cfg(all(repository, test))]
mod tests;

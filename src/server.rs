//! The server as an application starts it: where it listens, and the two ways to run it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::thread;

use log::info;

use crate::app::application::Application;
use crate::context::loop_state::Order;
use crate::context::mailbox::{Inbox, Mailbox};
use crate::core::panics::drop_caught;
use crate::handle::Handle;
use crate::shell::listen::Opened;
use crate::shell::poll_loop::PollLoop;
use crate::shell::server_driver::ServerDriver;
use crate::words::error::{Result, ServerError};
use crate::words::listen::{Listen, ListenOptions};

/// A server that listens and does not serve yet (Ktor's `embeddedServer`).
///
/// `module` sets up the application; it is run once, on the thread of the loop, by
/// [`run`](Self::run) or [`spawn`](Self::spawn).
///
/// ```
/// use wirewheel::{Application, Call, Server, WebSockets, on_message};
///
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/echo", |_call: &Call| {
///             on_message(|session, message| session.send(message))
///         });
///     });
/// }
///
/// let server = Server::bind("127.0.0.1:0", module)?.spawn()?; // a program: .run()
/// println!("listening on http://{}", server.local_addr());
/// server.shutdown(std::time::Duration::from_secs(1));
/// server.join()?;
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct Server<M> {
    listeners: Vec<Opened>,
    addresses: Vec<SocketAddr>,
    /// Both sides of the way in for other threads.
    mailbox: Mailbox<Order>,
    inbox: Inbox<Order>,
    module: M,
}

impl<M> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl<M: FnOnce(&mut Application)> Server<M> {
    /// Listens at `listen`: an address (`"127.0.0.1:8080"`, a name, a `SocketAddr`), a Unix socket's
    /// path, a descriptor; see [`Listen`]. Port 0 takes a free one, which
    /// [`local_addr`](Self::local_addr) tells. Connections wait until the server runs.
    ///
    /// # Errors
    /// [`ServerError::Bind`] if none of what `listen` resolves to can be listened on.
    pub fn bind(listen: impl Into<Listen>, module: M) -> Result<Self> {
        Self::bind_with(listen, &ListenOptions::new(), module)
    }

    /// A program that listens nowhere, and only dials ([`Application::connect`]); feature `client`.
    /// [`listen`](Self::listen) adds a place all the same.
    ///
    /// ```no_run
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::{Application, Call, Server, on_message};
    /// fn module(app: &mut Application) {
    ///     app.connect("ws://cloud.example/", ConnectOptions::new(), |_call: &Call| {
    ///         on_message(|session, message| session.send(message))
    ///     });
    /// }
    /// Server::without_listener(module).run()?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "client")]
    pub fn without_listener(module: M) -> Self {
        Self::nowhere(module)
    }

    /// The same with options of the listening socket; see [`ListenOptions`].
    ///
    /// # Errors
    /// As [`bind`](Self::bind); [`ServerError::Config`] for an option with a zero or absurd value.
    ///
    /// ```
    /// use wirewheel::options::ListenOptions;
    /// use wirewheel::{Application, Server};
    /// let shared = ListenOptions::new().reuse_port(true).backlog(128);
    /// let server = Server::bind_with("127.0.0.1:0", &shared, |_app: &mut Application| {})?
    ///     .listen_with("127.0.0.1:0", &ListenOptions::new().nodelay(false))?;
    /// assert_eq!(server.local_addrs().len(), 2);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn bind_with(
        listen: impl Into<Listen>,
        options: &ListenOptions,
        module: M,
    ) -> Result<Self> {
        Self::nowhere(module).listen_with(listen, options)
    }

    /// Listens at one more place.
    ///
    /// ```
    /// use wirewheel::{Application, Server};
    /// let server = Server::bind("127.0.0.1:0", |_app: &mut Application| {})?.listen("127.0.0.1:0")?;
    /// assert_eq!(server.local_addrs().len(), 2);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn listen(self, listen: impl Into<Listen>) -> Result<Self> {
        self.listen_with(listen, &ListenOptions::new())
    }

    /// The same with options of the listening socket.
    ///
    /// # Errors
    /// As [`bind_with`](Self::bind_with).
    pub fn listen_with(
        mut self,
        listen: impl Into<Listen>,
        options: &ListenOptions,
    ) -> Result<Self> {
        options
            .check()
            .map_err(|mistake| ServerError::Config(format!("ListenOptions: {mistake}")))?;
        let listen = listen.into();
        let address = listen.to_string();
        let opened = Opened::open(listen, options)
            .map_err(|source| ServerError::Bind { address, source })?;
        self.addresses.extend(opened.iter().map(|opened| opened.address));
        self.listeners.extend(opened);
        Ok(self)
    }

    /// The address it listens on, the first if there are several.
    pub fn local_addr(&self) -> SocketAddr {
        // Invariant: bind has pushed one or failed.
        self.addresses.first().copied().unwrap_or(crate::session::state::NO_ADDR)
    }

    /// All addresses it listens on, in the order they were given; `0.0.0.0:0` for a Unix socket, and
    /// one for each family where `localhost` or no host was given.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn nowhere(module: M) -> Self {
        let mailbox = Mailbox::default();
        let inbox = mailbox.inbox();
        Self { listeners: Vec::new(), addresses: Vec::new(), mailbox, inbox, module }
    }

    /// Has the module set up the application, on this thread, and leaves the waiting to another loop, which
    /// is to run on this thread too; see [`ServerDriver`].
    ///
    /// ```
    /// use std::os::fd::AsRawFd;
    /// use wirewheel::{Application, Server};
    /// let server = Server::bind("127.0.0.1:0", |_app: &mut Application| {})?;
    /// let handle = server.handle(); // for other threads
    /// let mut driver = server.into_driver()?;
    /// println!("wait for {} or {:?}", driver.as_raw_fd(), driver.next_deadline());
    /// # drop(handle);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn into_driver(self) -> Result<ServerDriver> {
        let mut application = Application::new().reached_by(self.mailbox, self.addresses);
        (self.module)(&mut application);
        let built = application.build().map_err(ServerError::Config)?;
        let poll_loop = PollLoop::new(built, self.listeners, self.inbox);
        Ok(ServerDriver::new(poll_loop.map_err(ServerError::Loop)?))
    }

    /// A handle for other threads, of a server that [`run`](Self::run) will run. What is asked
    /// before that waits.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use wirewheel::{Application, Server};
    /// let mut server = Server::bind("127.0.0.1:8080", |_app: &mut Application| {})?;
    /// let handle = server.handle();
    /// std::thread::spawn(move || {
    ///     std::io::stdin().read_line(&mut String::new()).ok();
    ///     handle.shutdown(Duration::from_secs(1));
    /// });
    /// server.run()?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn handle(&self) -> Handle {
        Handle::new(self.addresses.clone(), self.mailbox.clone(), None)
    }

    /// Runs the server on this thread until SIGINT or SIGTERM stops it: 1001 to every session, then
    /// it returns. A second signal stops it at once.
    ///
    /// After it has returned, both signals do what they did before the first server of the process
    /// ran: they end the process, unless they were ignored, or call the application's own handler,
    /// which is called while a server runs too.
    ///
    /// # Errors
    /// [`ServerError::Config`] if the application's set-up is wrong, [`ServerError::Loop`] if the
    /// system fails the event loop.
    pub fn run(self) -> Result<()> {
        let mut driver = self.into_driver()?;
        driver.stop_at_signals()?;
        let drained = driver.run().map_err(ServerError::Loop)?;
        drop_caught("what the application held", driver);
        info!(target: "wirewheel::server", "stopped: {} sessions ended cleanly, {} were cut",
            drained.clean, drained.cut);
        Ok(())
    }

    /// Runs the server on a thread of its own, as an integration test wants it. Signals are left
    /// alone.
    ///
    /// # Errors
    /// As [`run`](Self::run): the set-up is done when this returns.
    pub fn spawn(self) -> Result<Handle>
    where
        M: Send + 'static,
    {
        let (addresses, mailbox) = (self.addresses.clone(), self.mailbox.clone());
        let (started, start) = sync_channel(1);
        let body = move || {
            // The other side waits in `spawn` until this is sent.
            match self.into_driver() {
                Ok(mut driver) => {
                    let _ = started.send(Ok(()));
                    let result = driver.run().map_err(ServerError::Loop);
                    drop_caught("what the application held", driver);
                    result
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    Ok(Default::default())
                }
            }
        };
        let thread = thread::Builder::new()
            .name("wirewheel".into())
            .spawn(body)
            .map_err(ServerError::Loop)?;
        start.recv().unwrap_or_else(|_| {
            Err(ServerError::Config("the module panicked; its message is on stderr".into()))
        })?;
        Ok(Handle::new(addresses, mailbox, Some(thread)))
    }
}

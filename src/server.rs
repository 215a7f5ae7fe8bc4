//! The server as an application starts it: where it listens, and the two ways to run it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use log::{error, info};

use crate::app::application::Application;
use crate::context::commands::{Drained, StopRequest};
use crate::context::loop_state::{LoopPlace, Order};
use crate::context::loops::{LOOPS_MAX, Place};
use crate::context::mailbox::{Inbox, Mailbox};
use crate::core::panics::{Panicked, caught, drop_caught};
use crate::handle::{Handle, LentThread, note_loop_thread};
use crate::shell::listen::Opened;
use crate::shell::loop_thread;
use crate::shell::poll_loop::PollLoop;
use crate::shell::server_driver::ServerDriver;
use crate::shell::sockets::Beginnings;
use crate::words::close::CloseCode;
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
    /// Which one of the process it is.
    number: u32,
    /// Further loops; `None` where one is all.
    further: Option<Box<dyn FurtherLoops<M>>>,
}

/// The loops beside the first. Behind a trait: that they can be started is known only where the module is
/// known to be one for several threads, and a program that has one loop has no code for more.
trait FurtherLoops<M>: Send + Sync {
    /// The place of the first loop.
    fn first(&self) -> Option<LoopPlace>;

    /// Takes for each what it is set up from. What comes of it starts them.
    fn prepare(self: Box<Self>, module: &M, start: &LoopStart) -> Result<StartLoops>;
}

/// Starts loops that are prepared.
type StartLoops = Box<dyn FnOnce() -> Result<Box<dyn RunningLoops>>>;

/// Loops beside the first that run. They end with the first one, however that ends.
trait RunningLoops {
    /// Runs the first one too, until a stop is complete on all.
    fn run(self: Box<Self>, first: ServerDriver) -> Result<Drained>;
}

/// The places of all loops, or of too few or too many.
struct Further(Vec<LoopPlace>);

/// Sets up one of the further loops, on its thread.
type SetUp = Box<dyn FnOnce() -> Result<ServerDriver> + Send>;

/// What a loop is set up from, beside the module.
struct LoopStart {
    server: u32,
    place: Option<LoopPlace>,
    addresses: Vec<SocketAddr>,
    mailbox: Mailbox<Order>,
    inbox: Inbox<Order>,
    beginnings: Beginnings,
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
        // Not from 0, where the ids of what is no server begin, such as the test kit's.
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (listeners, addresses) = (Vec::new(), Vec::new());
        Self { listeners, addresses, mailbox, inbox, module, number, further: None }
    }

    /// Serves with so many loops, each on a thread of its own, at most 64; with one, which is the default,
    /// nothing is different. The module sets up the application once for each loop, on its thread, so that
    /// everything inside may be `Rc`; what is to be there once goes into
    /// [`Application::once`](crate::Application::once).
    ///
    /// The first loop accepts for all, and each connection goes to the loop that has the fewest. Handles,
    /// ids, names, questions, statistics, certificates and stops are those of one server; a flow and
    /// [`ServerRef::sessions`](crate::ServerRef::sessions) are those of one loop. The guide's page
    /// `loops` has all of it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::{Application, Call, Server, WebSockets, on_message};
    /// fn module(app: &mut Application) {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.web_socket("/echo", |_: &Call| on_message(|session, message| session.send(message)));
    ///     });
    /// }
    /// let server = Server::bind("127.0.0.1:0", module)?.loops(2).spawn()?; // a program: .run()
    /// server.shutdown(Duration::from_secs(1));
    /// server.join()?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn loops(mut self, loops: usize) -> Self
    where
        M: Clone + Send + 'static,
    {
        // A number that is refused at the start needs no more than to be known then.
        let further = (1..loops.min(LOOPS_MAX + 1)).map(|_| Mailbox::default());
        let mailboxes: Vec<_> = std::iter::once(self.mailbox.clone()).chain(further).collect();
        let places = if loops == 0 { Vec::new() } else { Place::all(mailboxes) };
        self.further = if loops == 1 { None } else { Some(Box::new(Further(places))) };
        self
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
        if self.further.is_some() {
            return Err(ServerError::Config(
                "loops(..) needs threads of its own: use run or spawn, or one loop with into_driver"
                    .into(),
            ));
        }
        Ok(self.start()?.driver)
    }

    /// Sets up all loops. The first one runs where this is called, and the others already do.
    fn start(self) -> Result<Started> {
        let Self { listeners, addresses, mailbox, inbox, module, number: server, further } = self;
        let beginnings = Beginnings::of(listeners);
        let place = further.as_ref().and_then(|further| further.first());
        let first = LoopStart { server, place, addresses, mailbox, inbox, beginnings };
        let start_others = further.map(|further| further.prepare(&module, &first)).transpose()?;
        let driver = first.set_up(module)?;
        let others = start_others.map(|start| start()).transpose()?;
        Ok(Started { driver, others })
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
        Handle::new(self.addresses.clone(), self.mailbox.clone(), self.place(), None)
    }

    fn place(&self) -> Option<LoopPlace> {
        self.further.as_ref().and_then(|further| further.first())
    }

    /// Runs the server on this thread until SIGINT or SIGTERM stops it: 1001 to every session (1012
    /// where a socket was handed over to it, which another server may go on with), then it returns. A
    /// second signal stops it at once.
    ///
    /// After it has returned, both signals do what they did before the first server of the process
    /// ran: they end the process, unless they were ignored, or call the application's own handler,
    /// which is called while a server runs too.
    ///
    /// # Errors
    /// [`ServerError::Config`] if the application's set-up is wrong, [`ServerError::Loop`] if the
    /// system fails the event loop.
    pub fn run(self) -> Result<()> {
        let _thread = LentThread::begin();
        let mut started = self.start()?;
        started.driver.stop_at_signals()?;
        let drained = started.run()?;
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
        let (addresses, mailbox, place) =
            (self.addresses.clone(), self.mailbox.clone(), self.place());
        let set_up = Box::new(move || self.start());
        let thread = loop_thread::spawn("wirewheel".into(), set_up, Box::new(Started::run))?;
        Ok(Handle::new(addresses, mailbox, place, Some(thread)))
    }
}

impl LoopStart {
    /// Has the module set up the application, on the thread of the loop.
    fn set_up(self, module: impl FnOnce(&mut Application)) -> Result<ServerDriver> {
        let mut application = self.application();
        module(&mut application);
        self.driver_of(application)
    }

    fn application(&self) -> Application {
        let application =
            Application::new().reached_by(self.mailbox.clone(), self.addresses.clone());
        let Some(place) = &self.place else { return application.of_server(self.server) };
        note_loop_thread(place);
        application.at(place.clone()).of_server(self.server)
    }

    fn driver_of(self, application: Application) -> Result<ServerDriver> {
        let built = application.build().map_err(ServerError::Config)?;
        let poll_loop = PollLoop::new(built, self.beginnings, self.inbox);
        Ok(ServerDriver::new(poll_loop.map_err(ServerError::Loop)?))
    }
}

impl<M> FurtherLoops<M> for Further
where
    M: FnOnce(&mut Application) + Clone + Send + 'static,
{
    fn first(&self) -> Option<LoopPlace> {
        self.0.first().cloned()
    }

    fn prepare(self: Box<Self>, module: &M, of_first: &LoopStart) -> Result<StartLoops> {
        let [first, others @ ..] = self.0.as_slice() else {
            return Err(ServerError::Config("loops is 0: it must be at least 1".into()));
        };
        if others.len() >= LOOPS_MAX {
            let mistake = format!("loops is over {LOOPS_MAX}, which is the most");
            return Err(ServerError::Config(mistake));
        }
        let start = |place: &LoopPlace| {
            let start = LoopStart {
                server: of_first.server,
                place: Some(place.clone()),
                addresses: of_first.addresses.clone(),
                mailbox: place.mailbox().clone(),
                inbox: place.mailbox().inbox(),
                beginnings: of_first.beginnings.of_another(),
            };
            let module = module.clone();
            let set_up: SetUp = Box::new(move || start.set_up(module));
            (place.clone(), set_up)
        };
        let starts: Vec<_> = others.iter().map(start).collect();
        let mut running = OtherLoops { place: first.clone(), threads: Vec::new() };
        Ok(Box::new(move || {
            for (place, set_up) in starts {
                running.threads.push(start_loop(place, set_up)?);
            }
            Ok(Box::new(running))
        }))
    }
}

/// Starts one of the further loops.
fn start_loop(place: LoopPlace, set_up: SetUp) -> Result<JoinHandle<Result<Drained>>> {
    let name = format!("wirewheel-{}", place.number());
    let run = move |driver: ServerDriver| run_one_of(&place, driver);
    loop_thread::spawn(name, set_up, Box::new(run))
}

/// Runs a loop to its end. If that is no stop, whoever has its session on another loop is told good-bye.
fn run_one_of(place: &LoopPlace, mut driver: ServerDriver) -> Result<Drained> {
    let grace = driver.grace();
    let result = caught(|| driver.run());
    drop_caught("what the application held", driver);
    place.wake_first(); // which waits for all others
    let problem = match result {
        Ok(Ok(drained)) => return Ok(drained),
        Ok(Err(error)) => error,
        Err(Panicked(text)) => {
            io::Error::other(format!("loop {} panicked: {text}", place.number()))
        }
    };
    error!(target: "wirewheel::server", "the server stops: {problem}");
    stop_others(place, grace);
    Err(ServerError::Loop(problem))
}

fn stop_others(place: &LoopPlace, grace: Duration) {
    let request = StopRequest { code: CloseCode::GOING_AWAY, grace };
    place.others().for_each(|mailbox| mailbox.stop(request.clone()));
}

/// A server that is set up.
struct Started {
    driver: ServerDriver,
    others: Option<Box<dyn RunningLoops>>,
}

impl Started {
    /// Runs until a stop is complete, on all loops.
    fn run(mut self) -> Result<Drained> {
        if let Some(others) = self.others {
            return others.run(self.driver);
        }
        let result = self.driver.run().map_err(ServerError::Loop);
        drop_caught("what the application held", self.driver);
        result
    }
}

/// The threads of the further loops.
struct OtherLoops {
    /// Where the first one is.
    place: LoopPlace,
    threads: Vec<JoinHandle<Result<Drained>>>,
}

impl RunningLoops for OtherLoops {
    fn run(mut self: Box<Self>, first: ServerDriver) -> Result<Drained> {
        let result = run_one_of(&self.place, first);
        join(std::mem::take(&mut self.threads), result)
    }
}

/// Waits for the further loops, and adds how their sessions have ended to what became of the first one.
fn join(threads: Vec<JoinHandle<Result<Drained>>>, mut result: Result<Drained>) -> Result<Drained> {
    for thread in threads {
        match (thread.join(), &mut result) {
            (Ok(Ok(more)), Ok(drained)) => {
                drained.clean += more.clean;
                drained.cut += more.cut;
            }
            (Ok(Err(error)), Ok(_)) => result = Err(error),
            // What is wrong with a second one was logged.
            (Ok(_), Err(_)) => {}
            (Err(panic), _) => std::panic::resume_unwind(panic),
        }
    }
    result
}

impl Drop for OtherLoops {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        stop_others(&self.place, Duration::ZERO);
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join(); // what it has to say was logged
        }
    }
}

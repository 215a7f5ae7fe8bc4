//! Whose loop turns the servers of the tests: their own, or one of somebody else's around it. The same tests
//! run under each; `WIREWHEEL_TEST_LOOP` names it.

#[cfg(glib)]
#[path = "../glib/main_loop.rs"]
mod main_loop;

use std::io;
use std::ops::{ControlFlow, Deref};
use std::os::fd::AsRawFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use wirewheel::embedding::ServerDriver;
use wirewheel::{Application, Drained, Handle, Result, Server};

/// Which loop it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    Own,
    /// poll(2), which waits by level.
    Poll,
    /// Another mio, which waits by edge.
    Mio,
    /// That of GLib, in `tests/glib/`.
    #[cfg(glib)]
    Glib,
}

impl Loop {
    /// That of this run. The tests of `tests/embedding.rs` need none of their own.
    pub fn of_this_run() -> Self {
        let named = std::env::var("WIREWHEEL_TEST_LOOP").ok();
        match named.as_deref().unwrap_or(env!("CARGO_CRATE_NAME")) {
            "poll" | "embedding" => Self::Poll,
            "mio" => Self::Mio,
            #[cfg(glib)]
            "glib" => Self::Glib,
            _ => Self::Own,
        }
    }

    /// Waits until the server has to be turned, and turns it until it is over; `woke` is called each time.
    #[allow(clippy::disallowed_methods, reason = "a loop reads the clock")]
    pub fn run(
        self,
        mut server: ServerDriver,
        mut woke: impl FnMut() + 'static,
    ) -> Result<Drained> {
        let mut wait = match self {
            Self::Own => panic!("it is not somebody else's"),
            Self::Poll => by_poll(),
            Self::Mio => by_mio(&server),
            #[cfg(glib)]
            Self::Glib => return main_loop::run(server, woke),
        };
        loop {
            if let ControlFlow::Break(drained) = server.turn()? {
                assert_eq!(server.next_deadline(), None);
                assert_eq!(server.turn()?, ControlFlow::Break(drained), "it is said again");
                return Ok(drained);
            }
            let time = server.next_deadline();
            wait(&server, time.map(|at| at.saturating_duration_since(Instant::now()))).unwrap();
            woke();
        }
    }
}

type Wait = Box<dyn FnMut(&ServerDriver, Option<Duration>) -> io::Result<()>>;

fn by_poll() -> Wait {
    Box::new(|server, time| {
        let time = time.map(|time| Timespec::try_from(time).unwrap());
        rustix::event::poll(&mut [PollFd::new(server, PollFlags::IN)], time.as_ref())?;
        Ok(())
    })
}

fn by_mio(server: &ServerDriver) -> Wait {
    let mut poll = Poll::new().unwrap();
    let descriptor = server.as_raw_fd();
    poll.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(4);
    Box::new(move |_, time| poll.poll(&mut events, time))
}

/// A server that runs, whosever loop that is.
pub struct Served {
    handle: Handle,
    /// The thread of a foreign loop.
    thread: Arc<Mutex<Option<JoinHandle<Result<Drained>>>>>,
}

impl From<Handle> for Served {
    fn from(handle: Handle) -> Self {
        Self { handle, thread: Arc::default() }
    }
}

impl Deref for Served {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Served {
    /// As `Handle::join`.
    pub fn join(&self) -> Result<Drained> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            None => self.handle.join(),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

/// As `Server::spawn`, with the loop of this run.
pub fn start<M>(server: Server<M>) -> Result<Served>
where
    M: FnOnce(&mut Application) + Send + 'static,
{
    match Loop::of_this_run() {
        Loop::Own => server.spawn().map(Served::from),
        foreign => start_in(foreign, server, || ()),
    }
}

/// The same with that loop; `woke` is called each time that it has woken.
pub fn start_in<M>(
    foreign: Loop,
    server: Server<M>,
    woke: impl FnMut() + Send + 'static,
) -> Result<Served>
where
    M: FnOnce(&mut Application) + Send + 'static,
{
    let handle = server.handle();
    let (started, start) = sync_channel(1);
    let body = move || match server.into_driver() {
        Ok(driver) => {
            started.send(Ok(())).unwrap();
            foreign.run(driver, woke)
        }
        Err(error) => {
            started.send(Err(error)).unwrap();
            Ok(Drained::default())
        }
    };
    let thread = Builder::new().spawn(body).unwrap();
    start.recv().expect("the module does not panic")?;
    Ok(Served { handle, thread: Arc::new(Mutex::new(Some(thread))) })
}

//! The resolver of names: helper threads that ask the system, and an inbox that wakes the loop.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use mio::{Interest, Registry, Token};

use crate::core::dial_orders::Attempt;

/// The most threads at a time. The system's resolver waits, for ten seconds and more where a name server
/// is away, and nothing can end that: so a dead name keeps one of them, and the others go on.
const THREADS_MAX: usize = 4;

/// What the resolvers of glibc and musl need, and modules that glibc loads for it. It is memory only as
/// far as it is used.
const STACK_BYTES: usize = 256 << 10;

/// What the system is asked with. A name comes without its port.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Names that are being resolved. Its threads are made on demand, and end when there is nothing to ask;
/// nobody waits for them, at the end of a server neither.
pub(crate) struct Resolver {
    shared: Arc<Shared>,
    /// Who waits for which name. A name stays while a thread has it, whether anybody waits or not.
    waiting: HashMap<Arc<str>, Vec<(Attempt, u16)>>,
    /// The loop's end of what the threads wake it with, while that is registered.
    wakes: Option<mio::net::UnixStream>,
}

/// What the loop and the threads share.
struct Shared {
    ask: Box<Ask>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names that no thread has taken yet.
    queue: VecDeque<Arc<str>>,
    threads: usize,
    answers: Vec<(Arc<str>, io::Result<Vec<SocketAddr>>)>,
    /// The threads' end.
    waker: Option<UnixStream>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Resolver {
    /// The system's.
    pub(crate) fn new() -> Self {
        Self::asking(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    fn asking(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { ask: Box::new(ask), state: Mutex::default() });
        Self { shared, waiting: HashMap::new(), wakes: None }
    }

    /// Begins to resolve a name; a name that is being resolved already is not asked for once more.
    pub(crate) fn look_up(
        &mut self,
        registry: &Registry,
        token: Token,
        attempt: Attempt,
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        if let Some(waiting) = self.waiting.get_mut(host) {
            waiting.push((attempt, port));
            return Ok(());
        }
        if self.wakes.is_none() {
            let (ours, theirs) = mio::net::UnixStream::pair()?;
            let mut ours = ours;
            registry.register(&mut ours, token, Interest::READABLE)?;
            self.shared.state().waker = Some(theirs.into());
            self.wakes = Some(ours);
        }
        let host: Arc<str> = host.into();
        self.shared.state().queue.push_back(Arc::clone(&host));
        if let Err(error) = Shared::add_thread(&self.shared) {
            self.shared.state().queue.retain(|queued| *queued != host);
            return Err(error);
        }
        self.waiting.insert(host, vec![(attempt, port)]);
        Ok(())
    }

    /// An attempt waits no longer.
    pub(crate) fn abandon(&mut self, attempt: Attempt) {
        let shared = &self.shared;
        self.waiting.retain(|host, waiting| {
            let before = waiting.len();
            waiting.retain(|(known, _)| *known != attempt);
            if before == waiting.len() || !waiting.is_empty() {
                return true;
            }
            let mut state = shared.state();
            let queued = state.queue.len();
            state.queue.retain(|name| name != host);
            // What a thread has is answered some time, and until then not asked for again.
            state.queue.len() == queued
        });
    }

    /// The answers since this was asked last, for each attempt that still waits.
    pub(crate) fn take_answers(&mut self) -> Vec<(Attempt, io::Result<Vec<SocketAddr>>)> {
        if let Some(wakes) = &mut self.wakes {
            let mut bytes = [0; 64];
            while matches!(wakes.read(&mut bytes), Ok(1..)) {}
        }
        let answers = std::mem::take(&mut self.shared.state().answers);
        let mut taken = Vec::new();
        for (host, answer) in answers {
            for (attempt, port) in self.waiting.remove(&host).unwrap_or_default() {
                let copy = match &answer {
                    Ok(addresses) => Ok(at_port(addresses, port)),
                    // An `io::Error` has no copy; what it says and of which kind it is, has one.
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                taken.push((attempt, copy));
            }
        }
        taken
    }
}

fn at_port(addresses: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    addresses.iter_mut().for_each(|address| address.set_port(port));
    addresses
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a thread unless there are enough. Where there is one already, the name waits for it.
    fn add_thread(this: &Arc<Self>) -> io::Result<()> {
        let mut state = this.state();
        if state.threads >= THREADS_MAX {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(this);
        let made = thread::Builder::new()
            .name("wirewheel-dns".into())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.answer());
        let mut state = this.state();
        match made {
            Ok(_detached) => Ok(()),
            Err(error) => {
                state.threads -= 1;
                if state.threads > 0 { Ok(()) } else { Err(error) }
            }
        }
    }

    /// What a thread does.
    fn answer(&self) {
        loop {
            let mut state = self.state();
            let Some(host) = state.queue.pop_front() else {
                state.threads -= 1; // under the lock: whoever adds a name sees that there is none
                return;
            };
            drop(state);
            let answer = (self.ask)(&host);
            let answer = match answer {
                Ok(addresses) if addresses.is_empty() => {
                    Err(io::Error::new(ErrorKind::NotFound, "the name has no address"))
                }
                answer => answer,
            };
            let mut state = self.state();
            state.answers.push((host, answer));
            if let Some(waker) = &mut state.waker {
                let _ = waker.write(&[1]); // full: the loop is woken as it is
            }
        }
    }
}

#[cfg(all(repository, test))]
mod tests;

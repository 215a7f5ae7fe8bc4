//! The resolver of names: helper threads that ask the system, and an inbox that wakes the loop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// Who waits for which name, with a port.
    waiting: HashMap<Attempt, (Arc<str>, u16)>,
    /// A name stays while a thread has it, whether anybody waits or not.
    names: HashMap<Arc<str>, Name>,
    /// How many names were queued so far.
    queued: u64,
    /// The loop's end of what the threads wake it with, while that is registered.
    wakes: Option<mio::net::UnixStream>,
}

/// A name that is being resolved.
struct Name {
    /// Its place in the queue, as long as no thread has taken it.
    place: u64,
    attempts: BTreeSet<Attempt>,
}

/// What the loop and the threads share.
struct Shared {
    ask: Box<Ask>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names that no thread has taken yet, in the order in which they were asked for.
    queue: BTreeMap<u64, Arc<str>>,
    threads: usize,
    answers: Vec<(Arc<str>, io::Result<Vec<SocketAddr>>)>,
    /// The threads' end.
    waker: Option<UnixStream>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl Resolver {
    /// The system's.
    pub(crate) fn new() -> Self {
        Self::asking(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    fn asking(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { ask: Box::new(ask), state: Mutex::default() });
        let (waiting, names) = (HashMap::new(), HashMap::new());
        Self { shared, waiting, names, queued: 0, wakes: None }
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
        let known = self.names.get_key_value(host).map(|(host, _)| Arc::clone(host));
        let host = match known {
            Some(host) => host,
            None => self.ask(registry, token, host)?,
        };
        if let Some(name) = self.names.get_mut(&host) {
            name.attempts.insert(attempt);
        }
        self.waiting.insert(attempt, (host, port));
        Ok(())
    }

    /// Has a thread ask for a name.
    fn ask(&mut self, registry: &Registry, token: Token, host: &str) -> io::Result<Arc<str>> {
        if self.wakes.is_none() {
            let (mut ours, theirs) = mio::net::UnixStream::pair()?;
            registry.register(&mut ours, token, Interest::READABLE)?;
            self.shared.state().waker = Some(theirs.into());
            self.wakes = Some(ours);
        }
        let (host, place): (Arc<str>, u64) = (host.into(), self.queued);
        self.queued += 1;
        self.shared.state().queue.insert(place, Arc::clone(&host));
        if let Err(error) = Shared::add_thread(&self.shared) {
            self.shared.state().queue.remove(&place);
            return Err(error);
        }
        self.names.insert(Arc::clone(&host), Name { place, attempts: BTreeSet::new() });
        Ok(host)
    }

    /// An attempt waits no longer. Many give up at once when a network is away, so that this does not go
    /// through those that wait.
    pub(crate) fn abandon(&mut self, attempt: Attempt) {
        let Some((host, _)) = self.waiting.remove(&attempt) else { return };
        let Some(name) = self.names.get_mut(&host) else { return };
        name.attempts.remove(&attempt);
        // What a thread has is answered some time, and until then not asked for again.
        if name.attempts.is_empty() && self.shared.state().queue.remove(&name.place).is_some() {
            self.names.remove(&host);
        }
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
            let attempts = self.names.remove(&host).into_iter().flat_map(|name| name.attempts);
            for attempt in attempts {
                let Some((_, port)) = self.waiting.remove(&attempt) else { continue };
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
            let Some((_, host)) = state.queue.pop_first() else {
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

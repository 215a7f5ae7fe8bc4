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
use crate::structures::places::place_at;

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
    /// What each dialer waits for.
    by_dial: Vec<Option<Waiting>>,
    /// A name stays while a thread has it, whether anybody waits or not.
    names: HashMap<Arc<str>, Name>,
    /// The loop's end of what the threads wake it with, while that is registered.
    wakes: Option<mio::net::UnixStream>,
}

/// An attempt that waits for a name.
struct Waiting {
    round: u32,
    host: Arc<str>,
    port: u16,
}

/// A name that is being resolved.
struct Name {
    /// Its place in the queue, as long as no thread has taken it.
    place: u64,
    /// Who has asked for it, of whom some may have given up.
    asked: Vec<Attempt>,
    /// How many have not.
    waiting: usize,
}

/// What the loop and the threads share.
struct Shared {
    ask: Box<Ask>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names that no thread has taken yet, in the order in which they were asked for; `None` where all who
    /// wait have given up.
    queue: VecDeque<Option<Arc<str>>>,
    /// The place of its first.
    first: u64,
    threads: usize,
    answers: Vec<(Arc<str>, io::Result<Vec<SocketAddr>>)>,
    /// The threads' end.
    waker: Option<UnixStream>,
}

impl State {
    /// Adds a name: its place.
    fn push(&mut self, host: &Arc<str>) -> u64 {
        self.queue.push_back(Some(Arc::clone(host)));
        self.first + self.queue.len() as u64 - 1
    }

    /// Takes out the name at a place: whether it was there still.
    fn take_out(&mut self, place: u64) -> bool {
        let position = place.checked_sub(self.first).and_then(|it| usize::try_from(it).ok());
        let queued = position.and_then(|position| self.queue.get_mut(position));
        queued.is_some_and(|queued| queued.take().is_some())
    }

    /// The next name that somebody waits for.
    fn pop(&mut self) -> Option<Arc<str>> {
        loop {
            let queued = self.queue.pop_front()?;
            self.first += 1;
            if queued.is_some() {
                return queued;
            }
        }
    }
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
        Self { shared, by_dial: Vec::new(), names: HashMap::new(), wakes: None }
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
            name.asked.push(attempt);
            name.waiting += 1;
        }
        if let Some(place) = place_at(&mut self.by_dial, attempt.dial as usize) {
            *place = Some(Waiting { round: attempt.round, host, port });
        }
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
        let host: Arc<str> = host.into();
        let place = self.shared.state().push(&host);
        if let Err(error) = Shared::add_thread(&self.shared) {
            self.shared.state().take_out(place);
            return Err(error);
        }
        self.names.insert(Arc::clone(&host), Name { place, asked: Vec::new(), waiting: 0 });
        Ok(host)
    }

    /// What an attempt waits for, if it still does.
    fn take_waiting(&mut self, attempt: Attempt) -> Option<Waiting> {
        let place = self.by_dial.get_mut(attempt.dial as usize)?;
        place.take_if(|waiting| waiting.round == attempt.round)
    }

    /// An attempt waits no longer. Many give up at once when a network is away, so that this does not go
    /// through those that wait.
    pub(crate) fn abandon(&mut self, attempt: Attempt) {
        let Some(Waiting { host, .. }) = self.take_waiting(attempt) else { return };
        let Some(name) = self.names.get_mut(&host) else { return };
        name.waiting -= 1;
        if name.waiting > 0 {
            return;
        }
        name.asked.clear();
        // What a thread has is answered some time, and until then not asked for again.
        if self.shared.state().take_out(name.place) {
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
            let asked = self.names.remove(&host).map_or_else(Vec::new, |name| name.asked);
            for attempt in asked {
                let Some(Waiting { port, .. }) = self.take_waiting(attempt) else { continue };
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
            let Some(host) = state.pop() else {
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

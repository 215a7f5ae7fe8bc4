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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const TOKEN: Token = Token(7);

    fn attempt(dial: u32) -> Attempt {
        Attempt { dial, round: 1 }
    }

    /// A loop that waits for answers.
    struct Loop {
        poll: Poll,
        resolver: Resolver,
    }

    impl Loop {
        fn new(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
            Self { poll: Poll::new().unwrap(), resolver: Resolver::asking(ask) }
        }

        fn look_up(&mut self, dial: u32, host: &str) {
            let registry = self.poll.registry();
            self.resolver.look_up(registry, TOKEN, attempt(dial), host, 80).unwrap();
        }

        fn wait(&mut self, count: usize) -> Vec<(u32, Result<String, String>)> {
            let mut all = Vec::new();
            while all.len() < count {
                let mut events = Events::with_capacity(4);
                self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "nothing wakes the loop");
                for (attempt, answer) in self.resolver.take_answers() {
                    let first = answer.map(|addresses| addresses[0].to_string());
                    all.push((attempt.dial, first.map_err(|error| error.to_string())));
                }
            }
            all.sort();
            all
        }
    }

    /// What a test sees of the names that are asked for, and what lets the dead ones go.
    type Gate = (Receiver<String>, Sender<()>);

    /// A resolver whose dead names are answered when the test says so.
    fn gated() -> (Loop, Gate) {
        let (tell, asked) = channel();
        let (open, gate) = channel::<()>();
        let (tell, gate) = (Mutex::new(tell), Mutex::new(gate));
        let ask = move |host: &str| {
            tell.lock().unwrap().send(host.to_owned()).unwrap();
            if host.starts_with("dead") {
                // Until the test lets it go, as for a name server that is away.
                let _ = gate.lock().unwrap().recv();
            }
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        };
        (Loop::new(ask), (asked, open))
    }

    #[test]
    fn a_dead_name_beside_twenty_good_ones_delays_none() {
        let (mut it, (_asked, open)) = gated();
        it.look_up(100, "dead.example");
        (0..20).for_each(|dial| it.look_up(dial, &format!("good{dial}.example")));
        let answers = it.wait(20);
        assert!(answers.iter().all(|(_, answer)| answer.as_deref() == Ok("192.0.2.1:80")));
        drop(open);
        assert_eq!(it.wait(1)[0].0, 100);
    }

    #[test]
    fn equal_names_are_asked_once_also_when_who_asked_first_has_given_up() {
        let (mut it, (asked, open)) = gated();
        it.look_up(1, "dead.example");
        assert_eq!(asked.recv().unwrap(), "dead.example");
        it.resolver.abandon(attempt(1));
        (2..12).for_each(|dial| it.look_up(dial, "dead.example"));
        drop(open);
        let answers = it.wait(10);
        assert_eq!(
            answers.iter().map(|(dial, _)| *dial).collect::<Vec<_>>(),
            (2..12).collect::<Vec<_>>()
        );
        assert!(asked.try_recv().is_err(), "it was asked again");
    }

    #[test]
    fn there_are_never_more_than_four_threads_and_none_once_all_is_answered() {
        let (mut it, (asked, open)) = gated();
        (0..10).for_each(|dial| it.look_up(dial, &format!("dead{dial}.example")));
        let running: Vec<String> = (0..THREADS_MAX).map(|_| asked.recv().unwrap()).collect();
        assert_eq!(it.resolver.shared.state().threads, THREADS_MAX);
        assert_eq!(running.len() + it.resolver.shared.state().queue.len(), 10);
        // Who gives up before a thread has its name is forgotten.
        it.resolver.abandon(attempt(9));
        assert_eq!(it.resolver.waiting.len(), 9);
        drop(open);
        assert_eq!(it.wait(9).len(), 9);
        assert!(it.resolver.waiting.is_empty());
        while it.resolver.shared.state().threads > 0 {
            thread::yield_now();
        }
        it.look_up(20, "good.example");
        assert_eq!(it.wait(1)[0].0, 20);
    }

    #[test]
    fn a_name_that_is_none_is_an_error_for_each_who_waits() {
        let mut it = Loop::new(|host| match host {
            "empty.example" => Ok(Vec::new()),
            _ => Err(io::Error::new(ErrorKind::NotFound, "no such name")),
        });
        it.look_up(1, "none.example");
        it.look_up(2, "empty.example");
        let texts: Vec<String> =
            it.wait(2).into_iter().filter_map(|(_, answer)| answer.err()).collect();
        assert_eq!(texts, ["no such name", "the name has no address"]);
    }
}

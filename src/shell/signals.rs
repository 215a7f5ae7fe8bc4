//! SIGINT and SIGTERM: a stop while a server runs, and afterwards what they were before.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};

const STOPPING: [i32; 2] = [SIGINT, SIGTERM];

/// The signals that stop a server, for as long as it is there.
pub(crate) struct StopSignals {
    /// Readable where one may have come.
    wake: UnixStream,
    /// Set by those that came to this process. A child that it forked has the handlers and the socket too,
    /// until it executes something else, and may wake the loop, but not set this.
    came: Arc<AtomicBool>,
    handlers: Vec<SigId>,
    _running: Running,
}

impl StopSignals {
    /// Has a loop told of them, by events with `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let running = Running::begin()?;
        let (mut wake, waking) = UnixStream::pair()?;
        registry.register(&mut wake, token, Interest::READABLE)?;
        let waking = net::UnixStream::from(waking);
        let came = Arc::new(AtomicBool::new(false));
        let mut signals = Self { wake, came, handlers: Vec::new(), _running: running };
        for signal in STOPPING {
            // In this order: whoever is woken finds it set.
            signals.handlers.push(flag::register(signal, Arc::clone(&signals.came))?);
            signals.handlers.push(pipe::register(signal, waking.try_clone()?)?);
        }
        Ok(signals)
    }

    /// Whether one came since it was last asked. Several that nobody has asked for yet are one: timeout(1)
    /// signals its child and then the group of both, and a supervisor passes on what its children have too.
    pub(crate) fn take(&mut self) -> bool {
        let mut bytes = [0; 16];
        while let Ok(1..) = self.wake.read(&mut bytes) {}
        self.came.swap(false, Ordering::Relaxed)
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            unregister(handler);
        }
    }
}

/// Servers of this process that take signals. A handler once installed cannot be taken out again without
/// undoing what others have installed since, so it stays, and while there is no server it does what the
/// system would have done without it.
static SERVERS: Mutex<usize> = Mutex::new(0);
static IDLE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// One of them.
#[derive(Debug)]
struct Running;

impl Running {
    fn begin() -> io::Result<Self> {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = match IDLE.get() {
            Some(idle) => idle,
            None => {
                let idle = Arc::new(AtomicBool::new(false));
                for signal in STOPPING.into_iter().filter(|signal| has_default_action(*signal)) {
                    flag::register_conditional_default(signal, Arc::clone(&idle))?;
                }
                IDLE.get_or_init(|| idle)
            }
        };
        *servers += 1;
        idle.store(false, Ordering::Relaxed);
        Ok(Self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        *servers = servers.saturating_sub(1);
        if let Some(idle) = IDLE.get().filter(|_| *servers == 0) {
            idle.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether a signal is neither ignored, as whoever started the process may have wanted, nor handled by
/// the application, whose handler is called beside ours.
fn has_default_action(signal: i32) -> bool {
    // The library's only safe way to ask. Where there is no /proc, nobody has asked for anything else.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_in = |set: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        mask >> (signal - 1) & 1 == 1
    };
    !is_in("SigIgn") && !is_in("SigCgt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_taken_until_the_last_server_has_gone() {
        let (one, other) = (Running::begin().unwrap(), Running::begin().unwrap());
        drop(one);
        assert!(!IDLE.get().unwrap().load(Ordering::Relaxed), "one is there still");
        drop(other);
    }
}

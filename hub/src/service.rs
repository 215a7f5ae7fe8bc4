//! The part of a service manager's protocol that a service plays: sockets that are handed over,
//! telling how things stand, the watchdog (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)).

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::fs::fstat;

/// The number of the first descriptor that is handed over, unless `LISTEN_FDS_FIRST_FD` is another.
const FIRST: u32 = 3;

/// The most sockets that are taken over: more than any service has.
const HANDED_MAX: u32 = 1024;

/// How many sockets are handed over to this process: none if they are for another (`LISTEN_PID`), or a
/// mistake in words. Each number up to it is looked at, so that a large one must not be believed.
fn handed_over(count: Option<&str>, pid: Option<&str>) -> io::Result<u32> {
    let own = std::process::id().to_string();
    if pid.is_some_and(|pid| !pid.is_empty() && pid != own) {
        return Ok(0);
    }
    let Some(count) = count.filter(|count| !count.is_empty()) else { return Ok(0) };
    count.parse().ok().filter(|count| *count <= HANDED_MAX).ok_or_else(|| {
        let text = format!("{count:?} is no number of sockets, which is at most {HANDED_MAX}");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// The sockets that were handed over, by the numbers of their descriptors. Children do not inherit
/// them.
#[derive(Debug)]
pub(crate) struct Handed(Vec<(u32, OwnedFd)>);

impl Handed {
    pub(crate) fn from_environment() -> io::Result<Self> {
        let told = |name| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        let (count, pid) = (told("LISTEN_FDS"), told("LISTEN_PID"));
        if handed_over(count.as_deref(), pid.as_deref())? == 0 {
            return Ok(Self(Vec::new()));
        }
        let first = told("LISTEN_FDS_FIRST_FD").and_then(|text| text.parse().ok());
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for (number, place) in (first.unwrap_or(FIRST)..).zip(0..handed.len()) {
            let socket = match handed.take_tcp_listener(place) {
                Ok(socket) => socket.map(OwnedFd::from),
                Err(_) => handed.take_unix_listener(place)?.map(OwnedFd::from),
            };
            sockets.extend(socket.map(|socket| (number, socket)));
        }
        Ok(Self(sockets))
    }

    /// The socket of that number. Standard input needs no `LISTEN_FDS`: who starts services as inetd
    /// does with `wait` says nothing but gives the socket.
    pub(crate) fn take(&mut self, number: u32) -> io::Result<OwnedFd> {
        match self.0.iter().position(|(other, _)| *other == number) {
            Some(place) => Ok(self.0.remove(place).1),
            None if number == 0 => io::stdin().as_fd().try_clone_to_owned(),
            None => {
                let text = "no such socket was handed over (LISTEN_FDS), or it is given twice";
                Err(io::Error::new(io::ErrorKind::NotFound, text))
            }
        }
    }

    /// Those that nobody took.
    pub(crate) fn take_rest(&mut self) -> impl Iterator<Item = OwnedFd> {
        std::mem::take(&mut self.0).into_iter().map(|(_, socket)| socket)
    }
}

/// Whether somebody waits to be told, such as systemd with `Type=notify`.
#[derive(Debug)]
pub(crate) struct Notifier {
    place: Option<(UnixDatagram, SocketAddr)>,
    /// It was said that it does not work, and works not since.
    failing: Cell<bool>,
}

impl Notifier {
    pub(crate) fn from_environment() -> Self {
        let place = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let place = place.and_then(|name| {
            let place = Self::to(&name);
            place.inspect_err(|error| log::warn!("NOTIFY_SOCKET {name:?}: {error}")).ok()
        });
        Self { place, failing: Cell::new(false) }
    }

    fn to(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?; // telling must not stop the loop
        Ok((socket, address))
    }

    /// Tells, if somebody listens. What cannot be told is no reason to stop serving, and is said once
    /// until it works again: the watchdog is told for ever.
    pub(crate) fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.place else { return };
        let told = socket.send_to_addr(state.as_bytes(), address);
        if let (Err(error), false) = (&told, self.failing.get()) {
            log::warn!("telling the service manager {state:?}: {error}");
        }
        self.failing.set(told.is_err());
    }
}

/// How often the watchdog wants to hear from this process, if it does.
pub(crate) fn watchdog_period() -> Option<Duration> {
    let of_this_process = match env::var("WATCHDOG_PID") {
        Ok(pid) => pid == std::process::id().to_string(),
        Err(_) => true,
    };
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    // Half the time, as sd_watchdog_enabled(3) recommends.
    let period = Duration::from_micros(micros / 2);
    (of_this_process && period >= Duration::from_millis(1)).then_some(period)
}

/// Whether the log goes to a place that notes the time itself: to the journal, and not elsewhere meanwhile
/// (systemd.exec(5): the variable has device and inode of what the journal reads).
pub(crate) fn log_has_timestamps() -> bool {
    let Ok(stat) = fstat(io::stderr()) else { return false };
    env::var("JOURNAL_STREAM").is_ok_and(|it| it == format!("{}:{}", stat.st_dev, stat.st_ino))
}

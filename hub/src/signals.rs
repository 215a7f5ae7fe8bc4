//! Signals as descriptors, and the children that the system hands to this process.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, WaitOptions, wait};
use signal_hook::low_level::pipe;

/// A descriptor that is readable when one of some signals has come.
#[derive(Debug)]
pub(crate) struct Signals(UnixStream);

impl Signals {
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        let (reading, writing) = UnixStream::pair()?;
        reading.set_nonblocking(true)?;
        for signal in signals {
            pipe::register(signal.as_raw(), writing.try_clone()?)?;
        }
        Ok(Self(reading))
    }

    /// How many have come since it was asked last.
    pub(crate) fn take(&self) -> usize {
        let mut buffer = [0; 64];
        let mut count = 0;
        while let Ok(length @ 1..) = (&self.0).read(&mut buffer) {
            count += length;
        }
        count
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives away every child that has ended, this process's own and those that it inherited: as the
/// first process of a container it is everybody's heir, and nobody else takes them away.
pub(crate) fn reap(mut ended: impl FnMut(Pid, ExitStatus)) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        ended(pid, ExitStatus::from_raw(status.as_raw()));
    }
}

/// Whether whoever started this process has it ignore a signal, as `nohup` does with SIGHUP.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}

//! The size of a socket's send queue: the one call of `wirewheel` that no safe crate offers, and with it
//! the only unsafe code of the workspace.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How many written bytes wait until the peer's system acknowledges them (TCP), or until the peer reads
/// them, with the kernel's own bytes around them (Unix). The error is the system's.
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    ask(socket, libc::TIOCOUTQ) // on Linux the same number as SIOCOUTQ
}

/// How many of them did not even set out (TCP alone): the peer's window has no room for them.
pub fn not_sent(socket: &impl AsFd) -> io::Result<usize> {
    const SIOCOUTQNSD: u16 = 0x894b;
    ask(socket, SIOCOUTQNSD.into())
}

fn ask(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the borrowed descriptor is open; both requests only store one int behind the pointer.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut bytes) };
    if result == 0 {
        Ok(usize::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

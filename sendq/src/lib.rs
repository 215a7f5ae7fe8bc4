//! The size of a socket's send queue: the one call of `wirewheel` that no safe crate offers, and with it
//! the only unsafe code of the workspace.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How many bytes that were written to a stream socket wait in its send queue: with TCP until the peer's
/// system has acknowledged them; on a Unix socket until the peer has read them, with the kernel's own
/// bytes around them.
///
/// # Errors
/// Where the descriptor is no socket, or of a kind that has no send queue.
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, so it is open, and SIOCOUTQ (on Linux the same number as TIOCOUTQ)
    // does nothing but store one int behind the pointer, which points to one.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        Ok(usize::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

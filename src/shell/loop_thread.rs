//! A thread of its own for a loop, which says when it is set up.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};

use crate::context::commands::Drained;
use crate::words::error::{Result, ServerError};

/// A thread that sets something up and then runs it: the set-up is done when this returns. Both in boxes, so
/// that a program has this once, and not once for each module.
pub(crate) fn spawn<T: 'static>(
    name: String,
    set_up: Box<dyn FnOnce() -> Result<T> + Send>,
    run: Box<dyn FnOnce(T) -> Result<Drained> + Send>,
) -> Result<JoinHandle<Result<Drained>>> {
    // Not a channel, which would be 9 KiB of each program, for one word: that the set-up is done. Without it
    // the thread ends, and its result says why.
    let (mut start, mut started) = UnixStream::pair().map_err(ServerError::Loop)?;
    let body = move || {
        let it = set_up()?;
        started.write_all(&[1]).map_err(ServerError::Loop)?;
        drop(started);
        run(it)
    };
    let thread = Builder::new().name(name).spawn(body).map_err(ServerError::Loop)?;
    if start.read_exact(&mut [0]).is_ok() {
        return Ok(thread);
    }
    Err(match thread.join() {
        Ok(Err(error)) => error,
        _ => ServerError::Config("the module panicked; its message is on stderr".into()),
    })
}

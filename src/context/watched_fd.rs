//! The pair of a descriptor that the loop watches and its callback: a serial port, a pipe, a socket.

use std::os::fd::{AsFd, BorrowedFd};

use crate::context::loop_state::{NewWatch, ServerRef, Watched};
use crate::context::watch::{Ready, Watch};

impl NewWatch {
    pub(crate) fn new<D: AsFd + 'static>(
        descriptor: D,
        interest: Ready,
        callback: impl FnMut(&mut ServerRef<'_>, &mut D, Ready) -> Watch + 'static,
    ) -> Self {
        Self { watched: Box::new(WatchedFd { descriptor, callback }), interest }
    }
}

struct WatchedFd<D, F> {
    descriptor: D,
    callback: F,
}

impl<D: AsFd, F> Watched for WatchedFd<D, F>
where
    F: FnMut(&mut ServerRef<'_>, &mut D, Ready) -> Watch,
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn ready(&mut self, server: &mut ServerRef<'_>, ready: Ready) -> Watch {
        (self.callback)(server, &mut self.descriptor, ready)
    }
}

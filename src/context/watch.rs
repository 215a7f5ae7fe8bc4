//! Owns descriptors of the application that the loop watches: serial ports, pipes, sockets.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use crate::context::server_ref::ServerRef;

/// What a descriptor is watched for, and what it turned out to be ready for.
///
/// ```
/// use wirewheel::watch::Ready;
/// assert!(Ready::READABLE.is_readable() && !Ready::READABLE.is_writable());
/// assert!(Ready::BOTH.is_readable() && Ready::WRITABLE.is_writable());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    readable: bool,
    writable: bool,
}

impl Ready {
    /// Something can be read, or the other side has hung up.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// Something can be written.
    pub const WRITABLE: Self = Self { readable: false, writable: true };
    /// Either.
    pub const BOTH: Self = Self { readable: true, writable: true };

    pub(crate) fn of(readable: bool, writable: bool) -> Self {
        Self { readable, writable }
    }

    /// Whether reading is meant.
    pub fn is_readable(self) -> bool {
        self.readable
    }

    /// Whether writing is meant.
    pub fn is_writable(self) -> bool {
        self.writable
    }
}

/// What a callback wants of the descriptor it was called for.
///
/// ```
/// use std::io::Read;
/// use std::os::unix::net::UnixStream;
/// use wirewheel::watch::{Ready, Watch};
/// use wirewheel::Application;
/// fn module(app: &mut Application, device: UnixStream) {
///     app.watch(device, Ready::READABLE, |_server, device, _ready| match device.read(&mut [0; 64]) {
///         Ok(0) => Watch::Stop, // hung up
///         _ => Watch::For(Ready::READABLE),
///     });
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Call again as soon as it is ready for this.
    For(Ready),
    /// Watch it no more, and drop it together with the callback.
    Stop,
}

/// A descriptor and its callback, whatever their types.
pub(crate) trait Watched {
    fn fd(&self) -> BorrowedFd<'_>;
    fn ready(&mut self, server: &mut ServerRef<'_>, ready: Ready) -> Watch;
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

/// A descriptor that the loop is to watch.
pub(crate) struct NewWatch {
    pub(crate) watched: Box<dyn Watched>,
    pub(crate) interest: Ready,
}

impl fmt::Debug for NewWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWatch").field("interest", &self.interest).finish_non_exhaustive()
    }
}

impl NewWatch {
    pub(crate) fn new<D: AsFd + 'static>(
        descriptor: D,
        interest: Ready,
        callback: impl FnMut(&mut ServerRef<'_>, &mut D, Ready) -> Watch + 'static,
    ) -> Self {
        Self { watched: Box::new(WatchedFd { descriptor, callback }), interest }
    }
}

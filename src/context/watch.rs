//! The words for watching a descriptor of the application: what it is ready for, what its callback wants.

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

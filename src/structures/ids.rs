//! Names of sessions, timers, requests, readers and watches.

use std::fmt;

use crate::structures::slab::Key;

/// The route of a connection that is no session yet: there is none of that number.
pub(crate) const NO_ROUTE: u16 = u16::MAX;

/// Names a session for as long as the process lives: a place that is used again gets another
/// generation, so a stale id is never somebody else.
///
/// ```
/// use std::collections::HashMap;
/// use wirewheel::error::SendError;
/// use wirewheel::{ServerRef, SessionId};
/// fn tell(server: &mut ServerRef<'_>, names: &mut HashMap<String, SessionId>, name: &str) {
///     if let Some(&id) = names.get(name) {
///         if server.send_to(id, "there is mail") == Err(SendError::Gone) {
///             names.remove(name);
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub(crate) Key);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

/// Names a timer, of the application or of a session.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{HandlerResult, Session, TimerId};
/// struct Patience(Option<TimerId>);
/// fn renew(patience: &mut Patience, session: &mut Session<'_>) -> HandlerResult {
///     if let Some(timer) = patience.0.take() {
///         session.cancel_timer(timer);
///     }
///     patience.0 = Some(session.set_timer(Duration::from_secs(60))?);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// Names a request whose body comes in pieces, for as long as the process lives; by
/// [`IncomingBody::id`](crate::body::IncomingBody::id).
///
/// ```
/// use wirewheel::Handle;
/// use wirewheel::body::BodyId;
/// /// A thread has written a piece to the flash, and has room for more.
/// fn written(server: &Handle, id: BodyId) {
///     let _ = server.defer(move |server| {
///         let _ = server.resume_body(id);
///     });
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyId {
    /// Its connection.
    pub(crate) key: Key,
    /// Which request of the server's it is.
    pub(crate) request: u64,
}

/// Names a reader of a flow, by [`ServerRef::read_flow`](crate::ServerRef::read_flow) or
/// [`Application::read_flow`](crate::Application::read_flow).
///
/// ```
/// use wirewheel::ServerRef;
/// use wirewheel::flow::ReaderId;
/// fn device_is_ready(server: &mut ServerRef<'_>, reader: ReaderId) {
///     server.read_on(reader);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReaderId(pub(crate) Key);

/// Names a watched descriptor, by [`Application::watch`](crate::Application::watch) or
/// [`ServerRef::watch`](crate::ServerRef::watch).
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use wirewheel::ServerRef;
/// use wirewheel::watch::{Ready, WatchId};
/// /// Sends to a device whose callback writes what is there, and reads.
/// fn send(server: &mut ServerRef<'_>, device: WatchId, unsent: &Rc<RefCell<Vec<u8>>>, bytes: &[u8]) {
///     unsent.borrow_mut().extend_from_slice(bytes);
///     server.rewatch(device, Ready::BOTH);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(pub(crate) u64);

impl WatchId {
    /// Of what no application watches.
    pub(crate) const OF_THE_SERVER: Self = Self(0);
}

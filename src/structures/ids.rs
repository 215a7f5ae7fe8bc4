//! Names of sessions and timers.

use std::fmt;

use crate::structures::slab::Key;

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

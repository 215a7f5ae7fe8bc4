//! Orders of one loop for another.

use crate::context::commands::Refused;
use crate::context::loop_state::{Order, ServerRef};
use crate::context::mailbox::Mailbox;
use crate::words::error::SendError;

/// Has another loop do what was asked of one of its sessions.
pub(super) fn hand_on(
    mailbox: &Mailbox<Order>,
    bytes: usize,
    action: impl FnOnce(&mut ServerRef<'_>) -> Result<(), SendError> + Send + 'static,
) -> Result<(), SendError> {
    // What becomes of it there is as with an order of another thread: that session may be over.
    let order = Box::new(move |server: &mut ServerRef<'_>| _ = action(server));
    mailbox.send(bytes, order).map_err(|refused| match refused {
        Refused::Full => SendError::Full { buffered: bytes },
        Refused::Stopped => SendError::Gone,
    })
}

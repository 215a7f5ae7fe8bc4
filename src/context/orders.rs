//! Orders of one loop for another.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::context::commands::Refused;
use crate::context::loop_state::{Order, ServerRef, Then};
use crate::context::mailbox::Mailbox;
use crate::context::questions::Asker;
use crate::structures::ids::SessionId;
use crate::words::error::{AskError, SendError};
use crate::words::message_buf::MessageBuf;

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

/// A question to a session of another loop.
pub(super) struct Asking {
    pub(super) asker: Asker,
    pub(super) id: SessionId,
    pub(super) correlation: Box<str>,
    pub(super) message: MessageBuf,
    pub(super) timeout: Duration,
}

/// Has the loop of a session ask it; the answer comes `back` to the question that is open there.
pub(super) fn ask(
    mailbox: &Mailbox<Order>,
    back: Mailbox<Order>,
    asking: Asking,
) -> Result<(), SendError> {
    let Asking { asker, id, correlation, message, timeout } = asking;
    let bytes = message.as_message().bytes().len().saturating_add(correlation.len());
    hand_on(mailbox, bytes, move |server| {
        // That loop has given up one of this correlation which is still open here, or it would not ask again.
        let open = server.shared.questions.asker(id.0, &correlation);
        if open.is_some_and(|open| open.number == asker.number) {
            server.settle(id, &correlation, Err(AskError::Timeout));
        }
        let asked = correlation.clone();
        let tell = move |answer: Result<MessageBuf, AskError>| {
            let bytes = answer.as_ref().map_or(0, |message| message.as_message().bytes().len());
            let settle = move |server: &mut ServerRef<'_>| {
                // It may be too late for it, and the next one of this correlation be open.
                if server.shared.questions.asker(id.0, &asked) == Some(asker) {
                    server.settle(id, &asked, answer);
                }
            };
            // Where that loop has no room for it, its own time-out is the answer.
            let _ = back.send(bytes, Box::new(settle));
        };
        let tell = Rc::new(Cell::new(Some(tell)));
        let later = Rc::clone(&tell);
        let then: Then = Box::new(move |_, answer| {
            if let Some(tell) = later.take() {
                tell(answer.map(MessageBuf::from));
            }
        });
        let asked = server.ask_for(asker, id, &correlation, message, timeout, then);
        let Err(error) = asked else { return Ok(()) };
        if let Some(tell) = tell.take() {
            tell(Err(error));
        }
        Ok(())
    })
}

//! The message that is prepared for many sessions, which the application picks itself.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::flow::emission::{Emission, Origin};
use crate::words::message::AsMessage;

/// The most encodings that are kept: for each installation and window of a deflate, each `max_frame_size`.
const ENCODINGS_MAX: usize = 8;

/// A message that is encoded once, however many sessions it is sent to: framed, and compressed where the
/// extensions of sessions make the same of it (permessage-deflate without a context that the server keeps).
/// For a session that masks or keeps a context it is encoded as any other. Wherever it waits for a peer, it
/// is that one copy that waits, whose bytes count in full for each who does not read. Clones are the same
/// message.
///
/// For messages that everybody gets who asked for them, a [`SharedFlow`](crate::flow::SharedFlow) is the
/// better way: who does not read holds one of them. This is for sessions that the application picks.
///
/// ```
/// use wirewheel::error::SendError;
/// use wirewheel::message::PreparedMessage;
/// use wirewheel::{HandlerResult, Message, ServerRef, Session, SessionId};
/// fn tell(server: &mut ServerRef<'_>, members: &[SessionId], text: &str) -> Result<(), SendError> {
///     let prepared = PreparedMessage::new(text);
///     members.iter().try_for_each(|id| server.send_prepared(*id, &prepared))
/// }
/// fn greet(session: &mut Session<'_>, greeting: &PreparedMessage) -> HandlerResult {
///     session.send_prepared(greeting) // made once, when the server began
/// }
/// fn picture(jpeg: &[u8]) -> PreparedMessage {
///     PreparedMessage::new(Message::from(jpeg).compressed(false))
/// }
/// ```
#[derive(Clone)]
pub struct PreparedMessage(Rc<RefCell<Emission>>);

impl fmt::Debug for PreparedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedMessage").field(&self.emission().message()).finish()
    }
}

impl PreparedMessage {
    /// Prepares a message, of which it makes a copy.
    pub fn new(message: impl AsMessage) -> Self {
        Self(Rc::new(RefCell::new(Emission::new(message.as_message(), None, Origin::Application))))
    }

    /// The message with the encodings that were made of it.
    pub(crate) fn emission(&self) -> Emission {
        self.0.borrow().clone()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.borrow().payload().len()
    }

    /// Keeps an encoding for others of the same share key.
    pub(crate) fn keep_encoding(&self, key: u64, frames: &Rc<[u8]>) {
        let mut emission = self.0.borrow_mut();
        // Who sets limits for each session apart gets its own from here on.
        if emission.encodings() < ENCODINGS_MAX {
            emission.keep_encoding(key, frames);
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

//! The owned message: text or binary, checked once and cheap to clone.

use std::fmt;
use std::sync::Arc;

use crate::words::message::{AsMessage, Message, Payload};

/// A whole message that owns its bytes: to keep, to send later, or to send from another thread.
///
/// Text and bytes turn into one by themselves, copied once into an allocation of their exact size;
/// clones share it. Text stays text, and is never checked again. The reserved bits of a message that
/// arrived ([`Message::rsv`]) are not kept: what is sent has none.
///
/// ```
/// use wirewheel::error::HandleError;
/// use wirewheel::message::MessageBuf;
/// use wirewheel::{Handle, HandlerResult, Session, SessionId};
/// fn greet(session: &mut Session<'_>, greeting: &MessageBuf) -> HandlerResult {
///     session.send(greeting) // nothing is copied but into the socket
/// }
/// fn greet_from_afar(server: &Handle, ids: &[SessionId], text: String) -> Result<(), HandleError> {
///     let greeting = MessageBuf::from(text);
///     ids.iter().try_for_each(|id| server.send_to(*id, &greeting)) // one copy for all
/// }
/// let text = MessageBuf::from("hello");
/// assert_eq!(text.as_message().text(), Some("hello"));
/// assert_eq!(MessageBuf::from(text.as_message()), text.clone());
/// assert_ne!(MessageBuf::from(b"hello"), text);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MessageBuf {
    content: Shared,
    may_compress: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Shared {
    Text(Arc<str>),
    Binary(Arc<[u8]>),
}

impl From<Shared> for MessageBuf {
    fn from(content: Shared) -> Self {
        Self { content, may_compress: true }
    }
}

impl MessageBuf {
    /// The message, borrowed.
    ///
    /// ```
    /// use wirewheel::message::{MessageBuf, Payload};
    /// let message = MessageBuf::from(vec![1, 2]);
    /// assert_eq!(message.as_message().payload(), Payload::Binary(&[1, 2]));
    /// ```
    pub fn as_message(&self) -> Message<'_> {
        let message = match &self.content {
            Shared::Text(text) => Message::from(&**text),
            Shared::Binary(bytes) => Message::from(&**bytes),
        };
        message.compressed(self.may_compress)
    }

    /// The same, to be compressed when it is sent, or not; see [`Message::compressed`].
    ///
    /// ```
    /// use wirewheel::message::MessageBuf;
    /// use wirewheel::{Handle, SessionId};
    /// fn show(server: &Handle, id: SessionId, jpeg: Vec<u8>) {
    ///     let _ = server.send_to(id, MessageBuf::from(jpeg).compressed(false));
    /// }
    /// ```
    #[must_use]
    pub fn compressed(self, on: bool) -> Self {
        Self { may_compress: on, ..self }
    }
}

impl fmt::Debug for MessageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_message().fmt(f)
    }
}

impl AsMessage for MessageBuf {
    fn as_message(&self) -> Message<'_> {
        self.as_message()
    }
}

impl<'a> From<&'a MessageBuf> for Message<'a> {
    fn from(message: &'a MessageBuf) -> Self {
        message.as_message()
    }
}

impl From<Message<'_>> for MessageBuf {
    fn from(message: Message<'_>) -> Self {
        let may_compress = message.may_compress();
        let message: Self = match message.payload() {
            Payload::Text(text) => text.into(),
            Payload::Binary(bytes) => bytes.into(),
        };
        message.compressed(may_compress)
    }
}

impl From<&Self> for MessageBuf {
    fn from(message: &Self) -> Self {
        message.clone()
    }
}

impl From<&str> for MessageBuf {
    fn from(text: &str) -> Self {
        Shared::Text(text.into()).into()
    }
}

impl From<String> for MessageBuf {
    fn from(text: String) -> Self {
        Shared::Text(text.into()).into()
    }
}

impl From<&String> for MessageBuf {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&[u8]> for MessageBuf {
    fn from(bytes: &[u8]) -> Self {
        Shared::Binary(bytes.into()).into()
    }
}

impl From<Vec<u8>> for MessageBuf {
    fn from(bytes: Vec<u8>) -> Self {
        Shared::Binary(bytes.into()).into()
    }
}

impl From<&Vec<u8>> for MessageBuf {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl<const N: usize> From<&[u8; N]> for MessageBuf {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_stays_and_clones_share_the_bytes() {
        for (message, text) in [
            (MessageBuf::from("é"), Some("é")),
            (MessageBuf::from(String::from("é")), Some("é")),
            (MessageBuf::from(Message::from("é")), Some("é")),
            (MessageBuf::from("é".as_bytes()), None),
            (MessageBuf::from("é".as_bytes().to_vec()), None),
            (MessageBuf::from(&[0xc3, 0xa9]), None),
        ] {
            let clone = MessageBuf::from(&message);
            let (borrowed, again) = (message.as_message(), clone.as_message());
            assert_eq!((borrowed.text(), borrowed.bytes()), (text, "é".as_bytes()));
            assert_eq!((again, clone.clone()), (borrowed, message.clone()));
            assert!(std::ptr::eq(borrowed.bytes(), again.bytes()));
        }
    }

    #[test]
    fn it_goes_to_other_threads() {
        fn is_sent<T: Send + Sync + 'static>(_: &T) {}
        is_sent(&MessageBuf::from(""));
    }
}

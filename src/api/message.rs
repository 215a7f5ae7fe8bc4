//! What a [`Message`](crate::Message) carries, and what can be sent as one.
//!
//! ```
//! use wirewheel::Message;
//! use wirewheel::message::Payload;
//!
//! let message = Message::from("hello"); // `session.send` takes whatever becomes one
//! match message.payload() {
//!     Payload::Text(text) => assert_eq!(text, "hello"),
//!     Payload::Binary(bytes) => unreachable!("{bytes:?}"),
//! }
//! ```
//!
//! A [`Message`](crate::Message) is borrowed; [`MessageBuf`] is the one to keep, or to send from another
//! thread; [`PreparedMessage`] is for many sessions. [`ToMessage`] is for flows: what type their values have,
//! and how one becomes a message.

pub use crate::flow::prepared::PreparedMessage;
pub use crate::words::message::{AsMessage, Payload, ToMessage};
pub use crate::words::message_buf::MessageBuf;

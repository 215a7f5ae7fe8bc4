//! What loops send each other of the flows that they share.

use std::sync::Arc;

use crate::words::message_buf::MessageBuf;

/// A part of a flow on its way to another loop, or the answer to one.
pub(crate) struct Parcel<A> {
    /// The name of the flow.
    pub(crate) flow: Arc<str>,
    /// The loop that sends it, by number.
    pub(crate) from: usize,
    pub(crate) content: Content<A>,
}

/// `A` is what is run on a loop.
pub(crate) enum Content<A> {
    /// What is to be run in this place: it makes the flow, or forgets it.
    Run(A),
    /// What was published, in order, by the sender's bridge of that number.
    Published(u64, Arc<[Bridged]>),
    /// So much of what the receiver's bridge of that number has sent is published.
    Done(u64, Load),
}

/// One change of a flow.
#[derive(Debug)]
pub(crate) enum Bridged {
    Message {
        message: MessageBuf,
        key: Option<Box<str>>,
        /// How many messages were missed before it.
        missed: u64,
    },
    /// So many messages were missed, and none comes behind them.
    Missed(u64),
    /// A key is no more.
    Removed(Box<str>),
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Load {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(crate) fn take_off(&mut self, other: Self) {
        self.messages = self.messages.saturating_sub(other.messages);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What a message takes beside its bytes while it is on its way, about.
const BRIDGED_BYTES: usize = size_of::<Bridged>() + 32;

impl Bridged {
    pub(crate) fn load(&self) -> Load {
        let bytes = match self {
            Self::Message { message, key, .. } => {
                let key = key.as_deref().map_or(0, str::len);
                message.as_message().bytes().len().saturating_add(key)
            }
            Self::Missed(_) => 0,
            Self::Removed(key) => key.len(),
        };
        Load { messages: 1, bytes: bytes.saturating_add(BRIDGED_BYTES) }
    }
}

//! What code on the loop asks of sessions that are not its own, and of the server as a whole.

use std::any::Any;
use std::time::Duration;

use crate::flow::prepared::PreparedMessage;
use crate::structures::ids::BodyId;
use crate::structures::slab::Key;
use crate::words::close::{CloseCode, CloseReason};
use crate::words::message_buf::MessageBuf;

/// What one part of the loop asks of a session that is not its own.
#[derive(Debug)]
pub(crate) enum Command {
    /// `stamp` is its place among all that is sent and published.
    Send {
        to: Key,
        stamp: u64,
        message: MessageBuf,
    },
    /// `counted` are the bytes for which it stands in the account of commands.
    SendPrepared {
        to: Key,
        stamp: u64,
        message: PreparedMessage,
        counted: usize,
    },
    Close {
        to: Key,
        stamp: u64,
        reason: CloseReason,
    },
    /// A message for it was lost before it became a command.
    NoteDropped(Key),
    Pause(Key),
    Resume(Key),
    ResumeBody(BodyId),
    /// The deferred answer of that number.
    Answer {
        to: Key,
        number: u64,
        settlement: Settlement,
    },
}

/// What a deferred answer came to.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    /// `None` if the application dropped it.
    pub(crate) answer: Option<Box<dyn Any>>,
    /// Bytes of memory that it takes, as far as is known.
    pub(crate) bytes: usize,
}

/// How the sessions that were open when a stop began have ended.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::Handle;
/// fn stop(server: &Handle) -> wirewheel::Result<()> {
///     server.shutdown(Duration::from_secs(5));
///     let drained = server.join()?;
///     println!("{} said good-bye, {} did not", drained.clean, drained.cut);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Both sides sent their Close.
    pub clean: usize,
    /// The peer was silent or gone, or the grace was over.
    pub cut: usize,
}

/// What a stop was asked to be like.
#[derive(Clone, Debug)]
pub(crate) struct StopRequest {
    pub(crate) code: CloseCode,
    pub(crate) grace: Duration,
}

impl StopRequest {
    /// Asked again before the loop has looked: the shorter grace counts, as it does afterwards.
    pub(crate) fn after(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier {
            self.grace = self.grace.min(earlier.grace);
        }
        self
    }
}

/// Why the loop does not take what others send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Stopped,
}

//! The options of a flow.

use crate::protocol::server_sent_events::is_event_name;
use crate::words::bounds::LARGEST_SIZE;

/// What happens to a message when a subscriber has not taken those before it and the buffer
/// (`replay` and `extra_buffer` together) is full (Kotlin's `BufferOverflow`).
///
/// ```
/// use wirewheel::flow::{BufferOverflow, FlowOptions};
/// let chat = FlowOptions::new(); // BufferOverflow::Suspend
/// let news = FlowOptions::new().replay(20).on_buffer_overflow(BufferOverflow::DropOldest);
/// let votes = FlowOptions::new().extra_buffer(20).on_buffer_overflow(BufferOverflow::DropLatest);
/// let gauges = FlowOptions::new().extra_buffer(20).on_buffer_overflow(BufferOverflow::Latest);
/// # let _ = (chat, news, votes, gauges);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BufferOverflow {
    /// It is taken, and the session that published it is not read until the slowest subscriber has
    /// caught up: the publisher's own TCP connection slows it down.
    #[default]
    Suspend,
    /// The oldest message is dropped for those who have not taken it. Decided after the turn, when
    /// whoever can take has taken.
    DropOldest,
    /// It is dropped, for everybody.
    DropLatest,
    /// Of each key only the newest message is kept; see
    /// [`SharedFlow::emit_latest`](crate::flow::SharedFlow::emit_latest). A subscriber first gets the
    /// newest of every key. Over the buffer or over `max_bytes`, the key that was silent longest goes;
    /// and where the server is at `process_bytes`, keys whose messages all have taken.
    Latest,
}

/// The options of a [`SharedFlow`](crate::flow::SharedFlow).
///
/// ```
/// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
/// let options = FlowOptions::new().on_buffer_overflow(BufferOverflow::DropOldest);
/// let mistake = SharedFlow::<str>::with(options).unwrap_err().to_string();
/// assert!(mistake.contains("replay or extra_buffer"));
/// assert!(SharedFlow::<str>::with(options.extra_buffer(16)).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "hand it to SharedFlow::with"]
pub struct FlowOptions {
    pub(crate) replay: usize,
    pub(crate) extra_buffer: usize,
    pub(crate) on_buffer_overflow: BufferOverflow,
    pub(crate) max_bytes: usize,
    pub(crate) event_name: &'static str,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            replay: 0,
            extra_buffer: 0,
            on_buffer_overflow: BufferOverflow::Suspend,
            max_bytes: 1 << 20,
            event_name: "",
        }
    }
}

/// The most messages that a log may be told to keep.
const LARGEST_BUFFER: usize = 1 << 20;

impl FlowOptions {
    /// No replay, no buffer, [`BufferOverflow::Suspend`], at most 1 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages a new subscriber first gets, as far as `max_bytes` and the server's
    /// `process_bytes` have room for them. Default 0.
    pub fn replay(mut self, messages: usize) -> Self {
        self.replay = messages;
        self
    }

    /// How many messages beyond the replay a slow subscriber may be behind. Default 0.
    pub fn extra_buffer(mut self, messages: usize) -> Self {
        self.extra_buffer = messages;
        self
    }

    /// What happens when that buffer is full. Default [`BufferOverflow::Suspend`].
    pub fn on_buffer_overflow(mut self, policy: BufferOverflow) -> Self {
        self.on_buffer_overflow = policy;
        self
    }

    /// The most bytes of the log: of its messages, each with about 110 bytes beside its own, of their
    /// keys (with about 90 more for each), and of the encodings that sessions with extensions share.
    /// Over it encodings go first, which can be made again, then the replay shrinks; what lagging
    /// subscribers still need is dropped where the policy drops, else
    /// [`SendError::Full`](crate::error::SendError::Full). Default 1 MiB.
    ///
    /// The logs of all flows together count against
    /// [`process_bytes`](crate::Limits::process_bytes): a flow's from when it was made by
    /// [`Application::flow`](crate::Application::flow), or a session first collected it or published in
    /// it. Where that is spent, all flows give up what no session awaits, those first that nobody
    /// collects and of these those that were not used for longest; [`Stats`](crate::Stats) has how many
    /// messages (`given_up`).
    ///
    /// ```
    /// use wirewheel::flow::FlowOptions;
    /// let small = FlowOptions::new().replay(100).max_bytes(16 << 10);
    /// # let _ = small;
    /// ```
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What event streams call the messages of this flow, so that a page which collects several on one
    /// stream tells them apart (`source.addEventListener("alarm", ..)`). WebSocket sessions do not see it.
    /// Default: none, for `onmessage`.
    ///
    /// ```
    /// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
    /// let options = FlowOptions::new().replay(20).on_buffer_overflow(BufferOverflow::DropOldest);
    /// assert!(SharedFlow::<str>::with(options.event_name("alarm")).is_ok());
    /// assert!(SharedFlow::<str>::with(options.event_name("two\nlines")).is_err());
    /// ```
    pub fn event_name(mut self, name: &'static str) -> Self {
        self.event_name = name;
        self
    }

    pub(crate) fn capacity(&self) -> usize {
        self.replay.saturating_add(self.extra_buffer)
    }

    /// What stays for new subscribers: of a flow of newest values, all.
    pub(crate) fn replayed(&self) -> usize {
        match self.on_buffer_overflow {
            BufferOverflow::Latest => self.capacity(),
            _ => self.replay,
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.capacity() == 0 && self.on_buffer_overflow != BufferOverflow::Suspend {
            return Err(format!(
                "{:?} needs a buffer: set replay or extra_buffer",
                self.on_buffer_overflow
            ));
        }
        if self.capacity() > LARGEST_BUFFER {
            return Err(format!(
                "replay and extra_buffer are {} together: at most {LARGEST_BUFFER}",
                self.capacity()
            ));
        }
        if self.max_bytes == 0 || self.max_bytes > LARGEST_SIZE {
            return Err(format!("max_bytes is {}: it must be 1 to 1 GiB", self.max_bytes));
        }
        if !self.event_name.is_empty() && !is_event_name(self.event_name) {
            return Err(format!("event_name is {:?}: it must be one line", self.event_name));
        }
        Ok(())
    }
}

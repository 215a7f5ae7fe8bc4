//! Owns the flow as an application sees it: its options, emitting, counting subscribers.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::words::error::{ConfigError, SendError};
use crate::words::message::ToMessage;

use crate::flow::cell::FlowCell;

/// A stream of messages that any number of sessions collect (Kotlin's `MutableSharedFlow`).
///
/// A message is encoded once and kept in one log; a subscriber is a cursor into it. A clone names
/// the same flow. All who collect it are sessions of one server; they do with
/// [`Session::collect`](crate::Session::collect) and publish with
/// [`Session::emit`](crate::Session::emit), which knows whom to pause; a timer or another
/// session-less place publishes with [`emit`](Self::emit).
///
/// ```
/// use wirewheel::{Application, BufferOverflow, Call, FlowOptions, SharedFlow, WebSockets};
/// use wirewheel::on_connect;
/// fn module(app: &mut Application) {
///     let news: SharedFlow = app.flow(
///         FlowOptions::new().replay(100).on_buffer_overflow(BufferOverflow::DropOldest),
///     );
///     app.install(WebSockets::new());
///     app.routing(move |route| {
///         route.web_socket("/news", move |_call: &Call| {
///             let (joined, spoken) = (news.clone(), news.clone());
///             on_connect(move |session, _call| session.collect(&joined))
///                 .on_message(move |session, message| {
///                     session.emit(&spoken, message.text().unwrap_or_default())
///                 })
///         });
///     });
/// }
/// ```
pub struct SharedFlow<T: ?Sized = str> {
    pub(crate) cell: Rc<FlowCell>,
    kind: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Clone for SharedFlow<T> {
    fn clone(&self) -> Self {
        Self { cell: Rc::clone(&self.cell), kind: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for SharedFlow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFlow")
            .field("options", self.cell.options())
            .field("subscription_count", &self.subscription_count())
            .finish_non_exhaustive()
    }
}

impl<T: ?Sized> Default for SharedFlow<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized> SharedFlow<T> {
    /// A flow without replay and buffer: a publisher waits until every subscriber has taken its
    /// message (Kotlin's `MutableSharedFlow()`).
    pub fn new() -> Self {
        Self::from_cell(Rc::new(FlowCell::new(FlowOptions::new())))
    }

    /// A flow with options.
    ///
    /// # Errors
    /// A [`ConfigError`] for an overflow policy that needs a buffer and has none (as in Kotlin), or
    /// for absurd values.
    pub fn with(options: FlowOptions) -> Result<Self, ConfigError> {
        options.check().map_err(ConfigError)?;
        Ok(Self::from_cell(Rc::new(FlowCell::new(options))))
    }

    pub(crate) fn from_cell(cell: Rc<FlowCell>) -> Self {
        Self { cell, kind: PhantomData }
    }

    /// How many sessions collect it (Kotlin's `subscriptionCount`). In its `on_close` a session does no
    /// longer.
    pub fn subscription_count(&self) -> usize {
        self.cell.subscription_count()
    }

    /// Messages that were given up before somebody who collects had taken them: dropped by the
    /// overflow policy, or replaced by a newer one of their key.
    pub fn dropped(&self) -> u64 {
        self.cell.dropped()
    }
}

impl<T: ?Sized> SharedFlow<T> {
    /// Whether a subscriber lags so far behind that a publisher would have to wait:
    /// [`try_emit`](Self::try_emit) would refuse. After the present hook or timer those who can take
    /// have taken, or a few turns later where they are many.
    pub fn would_suspend(&self) -> bool {
        self.cell.would_suspend()
    }
}

impl<T: ToMessage + ?Sized> SharedFlow<T> {
    /// Publishes to all who collect. They are written to after the present hook or timer.
    ///
    /// There is no publisher that could be paused: under [`BufferOverflow::Suspend`] the message is
    /// taken as long as the log has room for it; [`try_emit`](Self::try_emit) refuses earlier.
    ///
    /// # Errors
    /// [`SendError::Full`] if the log is at its limit of bytes, or the server at `process_bytes`;
    /// [`SendError::TooBig`] if the message alone is over the log's limit.
    pub fn emit(&self, value: &T) -> Result<(), SendError> {
        self.cell.emit(value, None, None).map(drop)
    }

    /// Publishes unless a subscriber lags so far behind that a publisher would have to wait
    /// (Kotlin's `tryEmit`); false if so, or if there is no room.
    ///
    /// ```
    /// use wirewheel::SharedFlow;
    /// let ticks: SharedFlow = SharedFlow::new();
    /// assert!(!ticks.would_suspend() && ticks.try_emit("tick")); // nobody collects it
    /// assert_eq!((ticks.subscription_count(), ticks.dropped()), (0, 0));
    /// ```
    pub fn try_emit(&self, value: &T) -> bool {
        !self.cell.would_suspend() && self.emit(value).is_ok()
    }

    /// Publishes the newest value of `key`, in place of an older one that some have not taken yet.
    /// For flows with [`BufferOverflow::Latest`]; on others it is [`emit`](Self::emit). The key counts
    /// in [`max_bytes`](FlowOptions::max_bytes) as the message does.
    ///
    /// # Errors
    /// As [`emit`](Self::emit); [`SendError::TooBig`] if message and key together are over the limit.
    ///
    /// ```
    /// use wirewheel::{BufferOverflow, FlowOptions, SharedFlow};
    /// let options = FlowOptions::new().extra_buffer(100).on_buffer_overflow(BufferOverflow::Latest);
    /// let gauges: SharedFlow = SharedFlow::with(options.max_bytes(64 << 10)).unwrap();
    /// gauges.emit_latest("cellar", "11.5").unwrap();
    /// gauges.emit_latest("cellar", "11.6").unwrap(); // whoever comes now gets this one alone
    /// ```
    pub fn emit_latest(&self, key: &str, value: &T) -> Result<(), SendError> {
        self.cell.emit(value, Some(key), None).map(drop)
    }
}

/// What happens to a message when a subscriber has not taken those before it and the buffer
/// (`replay` and `extra_buffer` together) is full (Kotlin's `BufferOverflow`).
///
/// ```
/// use wirewheel::{BufferOverflow, FlowOptions};
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
    /// Of each key only the newest message is kept; see [`SharedFlow::emit_latest`]. A subscriber
    /// first gets the newest of every key. Over the buffer or over `max_bytes`, the key that was silent
    /// longest goes; and where the server is at `process_bytes`, keys whose messages all have taken.
    Latest,
}

/// The options of a [`SharedFlow`].
///
/// ```
/// use wirewheel::{BufferOverflow, FlowOptions, SharedFlow};
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
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            replay: 0,
            extra_buffer: 0,
            on_buffer_overflow: BufferOverflow::Suspend,
            max_bytes: 1 << 20,
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
    /// subscribers still need is dropped where the policy drops, else [`SendError::Full`]. Default
    /// 1 MiB.
    ///
    /// The logs of all flows together count against
    /// [`process_bytes`](crate::Limits::process_bytes): a flow's from when it was made by
    /// [`Application::flow`](crate::Application::flow), or a session first collected it or published in
    /// it. Where that is spent, all flows give up what no session awaits, those first that nobody
    /// collects and of these those that were not used for longest; [`Stats`](crate::Stats) has how many
    /// messages (`given_up`).
    ///
    /// ```
    /// use wirewheel::FlowOptions;
    /// let small = FlowOptions::new().replay(100).max_bytes(16 << 10);
    /// # let _ = small;
    /// ```
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
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

    fn check(&self) -> Result<(), String> {
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
        if self.max_bytes == 0 || self.max_bytes > crate::words::options::LARGEST_SIZE {
            return Err(format!("max_bytes is {}: it must be 1 to 1 GiB", self.max_bytes));
        }
        Ok(())
    }
}

//! The flow as an application sees it: its options, emitting, counting subscribers.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::flow::options::FlowOptions;
use crate::structures::ids::ReaderId;
use crate::words::error::{ConfigError, SendError};
use crate::words::message::{AsMessage, ToMessage};
use crate::words::message_buf::MessageBuf;

use crate::flow::emission::Origin;
use crate::flow::inner::FlowInner;

/// A stream of messages that any number of sessions collect (Kotlin's `MutableSharedFlow`).
///
/// A message is encoded once and kept in one log; a subscriber is a cursor into it. A clone names
/// the same flow. All who collect it are sessions of one server; they do with
/// [`Session::collect`](crate::Session::collect) and publish with
/// [`Session::emit`](crate::Session::emit), which knows whom to pause; a timer or another
/// session-less place publishes with [`emit`](Self::emit).
///
/// ```
/// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
/// use wirewheel::{Application, Call, WebSockets};
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
    pub(crate) inner: Rc<FlowInner>,
    kind: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Clone for SharedFlow<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner), kind: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for SharedFlow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFlow")
            .field("options", self.inner.options())
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
        Self::from_inner(Rc::new(FlowInner::new(FlowOptions::new())))
    }

    /// A flow with options.
    ///
    /// # Errors
    /// A [`ConfigError`] for an overflow policy that needs a buffer and has none (as in Kotlin), or
    /// for absurd values.
    pub fn with(options: FlowOptions) -> Result<Self, ConfigError> {
        options.check().map_err(ConfigError)?;
        Ok(Self::from_inner(Rc::new(FlowInner::new(options))))
    }

    pub(crate) fn from_inner(inner: Rc<FlowInner>) -> Self {
        Self { inner, kind: PhantomData }
    }

    /// How many sessions collect it (Kotlin's `subscriptionCount`), and how many readers there are. In its
    /// `on_close` a session does no longer.
    pub fn subscription_count(&self) -> usize {
        self.inner.subscription_count()
    }

    /// What a session that began to collect now would first get, copied (Kotlin's `replayCache`).
    ///
    /// ```
    /// use wirewheel::flow::{FlowOptions, SharedFlow};
    /// let news: SharedFlow = SharedFlow::with(FlowOptions::new().replay(2)).unwrap();
    /// for line in ["first", "second", "third"] {
    ///     news.emit(line).unwrap();
    /// }
    /// assert_eq!(news.replay_cache(), ["second".into(), "third".into()]);
    /// ```
    pub fn replay_cache(&self) -> Vec<MessageBuf> {
        self.inner.replay()
    }

    /// Messages that were given up before somebody who collects had taken them: dropped by the
    /// overflow policy, or replaced by a newer one of their key.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped()
    }
}

impl<T: ?Sized> SharedFlow<T> {
    /// Whether a subscriber lags so far behind that a publisher would have to wait:
    /// [`try_emit`](Self::try_emit) would refuse. After the present hook or timer those who can take
    /// have taken, or a few turns later where they are many.
    pub fn would_suspend(&self) -> bool {
        self.inner.would_suspend()
    }
}

/// A store of the newest value of each key: flows with
/// [`BufferOverflow::Latest`](crate::flow::BufferOverflow::Latest). In others nothing has a key.
///
/// ```
/// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
/// use wirewheel::message::MessageBuf;
/// let options = FlowOptions::new().extra_buffer(100).on_buffer_overflow(BufferOverflow::Latest);
/// let gauges: SharedFlow = SharedFlow::with(options).unwrap();
/// gauges.emit_latest("cellar", "11.5").unwrap();
/// gauges.emit_latest("attic", "31.0").unwrap();
/// gauges.emit_latest("cellar", "11.6").unwrap();
/// assert_eq!(gauges.get("cellar"), Some(MessageBuf::from("11.6")));
/// let keys: Vec<_> = gauges.newest().map(|(key, _)| key).collect();
/// assert_eq!(keys, ["attic".into(), "cellar".into()]); // in the order in which they were published
/// assert!(gauges.remove("cellar") && !gauges.remove("cellar"));
/// assert_eq!(gauges.get("cellar"), None);
/// ```
impl<T: ?Sized> SharedFlow<T> {
    /// The newest value of `key`, as it was encoded; `None` if it has none, or it has given way to newer
    /// ones of others. Copied.
    pub fn get(&self, key: &str) -> Option<MessageBuf> {
        self.inner.newest_of(key)
    }

    /// Drops `key` and its value: whether it had one. Sessions that have not taken it yet never get it,
    /// and count it as [`missed`](crate::Session::missed); those that have are not told, but readers are
    /// ([`Batch::next_removed`](crate::flow::Batch::next_removed)). It takes the same time however many keys
    /// there are.
    pub fn remove(&self, key: &str) -> bool {
        self.inner.remove(key, Origin::Application)
    }

    /// The same for a reader, which is not told of it.
    ///
    /// ```
    /// use wirewheel::flow::{ReaderId, SharedFlow};
    /// fn gone_elsewhere(gauges: &SharedFlow, link: ReaderId, key: &str) {
    ///     gauges.remove_as(link, key);
    /// }
    /// ```
    pub fn remove_as(&self, origin: ReaderId, key: &str) -> bool {
        self.inner.remove(key, Origin::Reader(origin))
    }

    /// Drops `key` if its value is one that this reader has brought, and is not told of it: whether it was.
    /// What somebody here has published since stays.
    ///
    /// ```
    /// use wirewheel::flow::{ReaderId, SharedFlow};
    /// fn not_there_any_more(gauges: &SharedFlow, link: ReaderId, key: &str) {
    ///     gauges.take_back(link, key);
    /// }
    /// ```
    pub fn take_back(&self, origin: ReaderId, key: &str) -> bool {
        self.inner.take_back(key, origin)
    }

    /// Whether `key` stands here as this reader has brought it or been told: false if somebody here has
    /// published its value, or has removed it and the reader has yet to be told.
    ///
    /// ```
    /// use wirewheel::flow::{ReaderId, SharedFlow};
    /// fn give_way(gauges: &SharedFlow, link: ReaderId, key: &str, older: &str) {
    ///     if gauges.is_from(link, key) {
    ///         let _ = gauges.emit_latest_as(link, key, older);
    ///     }
    /// }
    /// ```
    pub fn is_from(&self, origin: ReaderId, key: &str) -> bool {
        self.inner.is_from(key, origin)
    }

    /// The newest value of each key, the one first that was published first. What is published meanwhile
    /// is not among them. Copied one by one.
    pub fn newest(&self) -> impl Iterator<Item = (Rc<str>, MessageBuf)> + use<T> {
        self.inner.newest()
    }
}

impl<T: ToMessage + ?Sized> SharedFlow<T> {
    /// Publishes to all who collect. They are written to after the present hook or timer.
    ///
    /// There is no publisher that could be paused: under
    /// [`BufferOverflow::Suspend`](crate::flow::BufferOverflow::Suspend) the message is
    /// taken as long as the log has room for it; [`try_emit`](Self::try_emit) refuses earlier.
    ///
    /// # Errors
    /// [`SendError::Full`] if the log is at its limit of bytes, or the server at `process_bytes`;
    /// [`SendError::TooBig`] if the message alone is over the log's limit.
    pub fn emit(&self, value: &T) -> Result<(), SendError> {
        self.inner.emit(value, None, Origin::Application).map(drop)
    }

    /// Publishes unless a subscriber lags so far behind that a publisher would have to wait
    /// (Kotlin's `tryEmit`); false if so, or if there is no room.
    ///
    /// ```
    /// use wirewheel::flow::SharedFlow;
    /// let ticks: SharedFlow = SharedFlow::new();
    /// assert!(!ticks.would_suspend() && ticks.try_emit("tick")); // nobody collects it
    /// assert_eq!((ticks.subscription_count(), ticks.dropped()), (0, 0));
    /// ```
    pub fn try_emit(&self, value: &T) -> bool {
        !self.inner.would_suspend() && self.emit(value).is_ok()
    }

    /// Publishes the newest value of `key`, in place of an older one that some have not taken yet.
    /// For flows with [`BufferOverflow::Latest`](crate::flow::BufferOverflow::Latest); on others it is
    /// [`emit`](Self::emit). The key counts in [`max_bytes`](FlowOptions::max_bytes) as the message does.
    ///
    /// # Errors
    /// As [`emit`](Self::emit); [`SendError::TooBig`] if message and key together are over the limit.
    ///
    /// ```
    /// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
    /// let options = FlowOptions::new().extra_buffer(100).on_buffer_overflow(BufferOverflow::Latest);
    /// let gauges: SharedFlow = SharedFlow::with(options.max_bytes(64 << 10)).unwrap();
    /// gauges.emit_latest("cellar", "11.5").unwrap();
    /// gauges.emit_latest("cellar", "11.6").unwrap(); // whoever comes now gets this one alone
    /// ```
    pub fn emit_latest(&self, key: &str, value: &T) -> Result<(), SendError> {
        self.inner.emit(value, Some(key), Origin::Application).map(drop)
    }
}

/// What readers bring.
impl<T: ?Sized> SharedFlow<T> {
    /// Publishes what a reader of this flow has brought from elsewhere: all get it but that reader. It is a
    /// message already, text or binary, whatever the flow's own values are.
    ///
    /// ```
    /// use wirewheel::flow::{ReaderId, SharedFlow};
    /// /// A link's other end has sent a message, and says that it has lost some before it.
    /// fn bring(room: &SharedFlow, link: ReaderId, lost: u64, text: &str) {
    ///     room.skip_as(link, lost);
    ///     let _ = room.emit_as(link, text); // full: those who collect have missed it
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_as(&self, origin: ReaderId, message: impl AsMessage) -> Result<(), SendError> {
        let origin = Origin::Reader(origin);
        self.inner.emit(&message.as_message(), None, origin).map(drop)
    }

    /// The same for the newest value of `key`; see [`emit_latest`](Self::emit_latest).
    ///
    /// ```
    /// use wirewheel::flow::{ReaderId, SharedFlow};
    /// fn bring(gauges: &SharedFlow, link: ReaderId) {
    ///     let _ = gauges.emit_latest_as(link, "cellar", "11.5");
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`emit_latest`](Self::emit_latest).
    pub fn emit_latest_as(
        &self,
        origin: ReaderId,
        key: &str,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        let origin = Origin::Reader(origin);
        self.inner.emit(&message.as_message(), Some(key), origin).map(drop)
    }
}

/// Messages that never came.
impl<T: ?Sized> SharedFlow<T> {
    /// Says that so many messages were lost on their way to this flow: all who collect it now count them as
    /// [missed](crate::Session::missed), at once, and readers with what they are offered next.
    ///
    /// ```
    /// use wirewheel::flow::SharedFlow;
    /// let readings: SharedFlow = SharedFlow::new();
    /// let (expected, came) = (17, 20); // numbers of a sensor
    /// readings.skip(came - expected);
    /// ```
    pub fn skip(&self, count: u64) {
        self.inner.skip(count, Origin::Application);
    }

    /// The same for a reader of this flow, which has not missed them itself: its other end knows.
    ///
    /// ```
    /// use wirewheel::flow::{ReaderId, SharedFlow};
    /// fn lost_on_the_way(room: &SharedFlow, link: ReaderId, count: u64) {
    ///     room.skip_as(link, count);
    /// }
    /// ```
    pub fn skip_as(&self, origin: ReaderId, count: u64) {
        self.inner.skip(count, Origin::Reader(origin));
    }
}

//! The link that runs, as the application has it.

use std::rc::Rc;

use wirewheel::ServerRef;
use wirewheel::flow::SharedFlow;

use crate::link::Inner;
use crate::options::LinkError;
use crate::share::Wanted;

/// A link that runs. Clones are the same; dropping them changes nothing.
///
/// ```
/// use wirewheel::ServerRef;
/// use wirewheel::flow::SharedFlow;
/// use wirewheel_mqtt::{LinkError, RunningLink};
/// fn open_room(server: &mut ServerRef<'_>, link: &RunningLink, room: &SharedFlow) -> Result<(), LinkError> {
///     link.share(server, room, "rooms/new")?;
///     println!("shared at once: {}, so far {:?}", link.is_up(), link.counts());
///     link.unshare(server, "rooms/new");
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct RunningLink {
    inner: Rc<Inner>,
}

/// What a link has done since it was started.
///
/// ```
/// use wirewheel_mqtt::RunningLink;
/// fn is_lossless(link: &RunningLink) -> bool {
///     let counts = link.counts();
///     counts.dropped == 0 && counts.missed == 0
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that were handed to the broker; newest values each time that they were.
    pub sent: u64,
    /// Messages of this box that were not: the broker was away, or refused them, or they were missed in the
    /// flow.
    pub dropped: u64,
    /// Messages that came from the broker and were published here.
    pub received: u64,
    /// Messages that others have sent and that never came here, by their numbers; one that comes late is
    /// taken off what is counted next.
    pub missed: u64,
    /// Messages that came twice.
    pub duplicates: u64,
    /// Connections to a broker that took this box.
    pub connections: u64,
}

impl std::fmt::Debug for RunningLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningLink").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

impl RunningLink {
    pub(crate) fn new(inner: Rc<Inner>) -> Self {
        Self { inner }
    }

    /// Whether messages go to and fro.
    pub fn is_up(&self) -> bool {
        self.inner.is_up()
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.inner.counts()
    }

    /// Shares a flow from now on; see [`Link::share`](crate::Link::share). What it would replay goes out too,
    /// as said here: give a flow that was shared before a new one in its place, or others get again what
    /// they have said.
    ///
    /// # Errors
    /// For a topic that cannot be one, or is shared already.
    pub fn share<T: ?Sized + 'static>(
        &self,
        server: &mut ServerRef<'_>,
        flow: &SharedFlow<T>,
        topic: &str,
    ) -> Result<(), LinkError> {
        self.inner.share_now(server, &Wanted::new(flow, topic, false))
    }

    /// The same for a flow of newest values; see [`Link::share_latest`](crate::Link::share_latest).
    ///
    /// ```
    /// use wirewheel::ServerRef;
    /// use wirewheel::flow::SharedFlow;
    /// use wirewheel_mqtt::{LinkError, RunningLink};
    /// fn add(server: &mut ServerRef<'_>, link: &RunningLink, gauges: &SharedFlow) -> Result<(), LinkError> {
    ///     link.share_latest(server, gauges, "gauges/attic")
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`share`](Self::share).
    pub fn share_latest<T: ?Sized + 'static>(
        &self,
        server: &mut ServerRef<'_>,
        flow: &SharedFlow<T>,
        topic: &str,
    ) -> Result<(), LinkError> {
        self.inner.share_now(server, &Wanted::new(flow, topic, true))
    }

    /// Shares the flow of that topic no longer; whether it was shared.
    pub fn unshare(&self, server: &mut ServerRef<'_>, topic: &str) -> bool {
        self.inner.unshare(server, topic)
    }
}

//! A session's part in flows: collecting and publishing.

use std::rc::Rc;

use crate::words::error::HandlerResult;
use crate::words::message::ToMessage;

use crate::flow::emission::Origin;
use crate::flow::inner::{FlowInner, Member};
use crate::flow::published::Published;
use crate::flow::shared_flow::SharedFlow;
use crate::flow::subscription::{Filter, Subscription};
use crate::session::Session;
use crate::session::send_event::EventOutput;
use crate::session::state::Phase;
use crate::session::subscriptions::Collected;

/// What a session does with flows.
impl Session<'_> {
    /// Sends what is published in a flow to this session from now on, its replay first (Kotlin:
    /// `launch { flow.collect { send(it) } }`). A flow that is collected already stays as it is. An event
    /// stream that collects it in `on_connect` goes on behind the event that its client had last, as far
    /// as the flow has what followed.
    ///
    /// A message is taken from the flow when the socket has room for it, and all messages of a
    /// session keep the order in which they were published and sent. A peer that does not read
    /// holds one message at most; what happens to the others is the flow's
    /// [`BufferOverflow`](crate::flow::BufferOverflow). Of a message over this session's
    /// `max_frame_size` it gets frames, of one over its `max_outgoing_message_size`, as it is or as its
    /// extensions encode it, nothing, which counts as [`missed`](Self::missed).
    ///
    /// # Errors
    /// [`SendError::Closing`](crate::error::SendError::Closing) on a session that is closing.
    ///
    /// ```
    /// use wirewheel::flow::SharedFlow;
    /// use wirewheel::{HandlerResult, Session};
    /// fn join(session: &mut Session<'_>, room: &SharedFlow) -> HandlerResult {
    ///     session.collect(room)?;
    ///     session.emit(room, "somebody came in")
    /// }
    /// ```
    pub fn collect<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> HandlerResult {
        self.subscribe(&flow.inner, Filter::All)
    }

    /// As [`collect`](Self::collect), but for what this session publishes itself.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn collect_others<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> HandlerResult {
        let own = self.id();
        self.subscribe(&flow.inner, Filter::Others(own))
    }

    /// As [`collect`](Self::collect), but only what `filter` accepts; see [`Published`].
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn collect_if<T: ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        filter: impl Fn(&Published<'_>) -> bool + 'static,
    ) -> HandlerResult {
        self.subscribe(&flow.inner, Filter::When(Box::new(filter)))
    }

    fn subscribe(&mut self, flow: &Rc<FlowInner>, filter: Filter) -> HandlerResult {
        self.out.check_open()?;
        let slot = self.out.state.id.0.index;
        let known = self.out.state.cursor_in(flow);
        if known.is_none() {
            let behind_own = EventOutput { out: &mut self.out }.begin_flow(flow);
            let collected = self.out.state.collected.get_or_insert_default();
            let pool = &self.out.shared.flows;
            let member = Member::Session(slot);
            let joined = Subscription::new(flow, filter, pool, member, behind_own);
            if collected.subscriptions.is_empty() {
                // A vector grows to four places by itself, which counts for each of thousands of sessions.
                collected.subscriptions.reserve_exact(1); // few sessions collect a second
            }
            collected.subscriptions.push(joined);
            // The replay is written after the turn, like all that flows have for it.
            self.out.state.list_for_flush(self.out.shared);
        }
        Ok(())
    }

    /// Collects a flow no longer. What it published and this session has not taken is not sent.
    pub fn stop_collecting<T: ?Sized>(&mut self, flow: &SharedFlow<T>) {
        if let Some(collected) = &mut self.out.state.collected {
            let missed = &mut collected.missed;
            collected.subscriptions.retain(|known| {
                let stays = !known.is_of(&flow.inner);
                // The cursor goes with the subscription; what it has come past without taking stays known.
                *missed += if stays { 0 } else { known.missed_since() };
                stays
            });
            // Direct messages that waited behind the flow still have to go out, from the same place.
            if collected.subscriptions.is_empty() && !collected.holds_direct() {
                self.out.drop_collected();
            }
        }
    }

    /// Flow messages that this session did not get: they were dropped or replaced before it had taken
    /// them, were too big for it, or could not go out before its own Close, which came within a message
    /// in fragments. Known while it is behind, and in `on_close`; what a newcomer missed of the newest
    /// values that were there when it came (of [`Latest`](crate::flow::BufferOverflow::Latest)), once it has
    /// got the rest of them.
    pub fn missed(&self) -> u64 {
        let before = self.out.state.extra.as_deref().map_or(0, |extra| extra.missed);
        before + self.out.state.collected.as_deref().map_or(0, Collected::missed_in_all)
    }

    /// Publishes in a flow (Kotlin's `emit`). Where the flow suspends publishers, this session is
    /// not read from now on until the slowest subscriber has caught up: no message is lost, and the
    /// peer is slowed down by its own connection. (From an event stream nothing is read in any case.)
    ///
    /// # Errors
    /// [`SendError::Full`](crate::error::SendError::Full) if the flow's log is at its limit of bytes, or the
    /// server at `process_bytes`; [`SendError::TooBig`](crate::error::SendError::TooBig) if the message alone
    /// is over the log's limit. A hook that returns `Full` ends its session (1011); `TooBig` ends nothing.
    pub fn emit<T: ToMessage + ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        value: &T,
    ) -> HandlerResult {
        self.publish(flow, None, value)
    }

    /// Publishes the newest value of a key; see [`SharedFlow::emit_latest`].
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_latest<T: ToMessage + ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        key: &str,
        value: &T,
    ) -> HandlerResult {
        self.publish(flow, Some(key), value)
    }

    fn publish<T: ToMessage + ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        key: Option<&str>,
        value: &T,
    ) -> HandlerResult {
        flow.inner.belong_to(&self.out.shared.flows);
        let overrun = flow.inner.emit(value, key, Origin::Session(self.id()))?;
        // Its message is taken all the same: a publisher is slowed down by not being read, never by a loss.
        // Nothing that an event stream publishes comes from its peer, so that to slow that down is no help.
        let is_read = self.out.state.is_read();
        if overrun && is_read && self.out.state.phase == Phase::Open {
            self.out.state.suspend(self.out.shared.now);
            flow.inner.suspend(self.out.state.id.0);
        }
        Ok(())
    }
}

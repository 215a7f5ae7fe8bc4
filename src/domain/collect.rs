//! Owns a session's part in flows: collecting, publishing, and taking what is there in order.

use std::io::IoSlice;
use std::rc::Rc;

use crate::protocol::frame::OpCode;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::message::{Message, ToMessage};

use super::collected::{Collected, Direct, Filter, Next, Subscription};
use super::flow::SharedFlow;
use super::flow_cell::{Emission, FlowCell};
use super::session::{Session, SessionId};
use super::session_state::Phase;

/// Messages written at once.
const PULL_MESSAGES: usize = 16;
/// Bytes after which no further message joins those written at once.
const PULL_BYTES: usize = 64 << 10;

/// Messages to be written at once: their numbers in the flow and their frames.
type Run = [Option<(u64, Rc<[u8]>)>; PULL_MESSAGES];

/// What goes out for one message.
enum Frames {
    /// Bytes that others get too.
    Shared(Rc<[u8]>),
    /// It has to be encoded for this session alone.
    Own,
    /// Nothing: it is not wanted, or an extension dropped it.
    None,
}

/// What a session does with flows.
impl Session<'_> {
    /// Sends what is published in a flow to this session from now on, its replay first (Kotlin:
    /// `launch { flow.collect { send(it) } }`). A flow that is collected already stays as it is.
    ///
    /// A message is taken from the flow when the socket has room for it, and all messages of a
    /// session keep the order in which they were published and sent. A peer that does not read
    /// holds one message at most; what happens to the others is the flow's
    /// [`BufferOverflow`](crate::BufferOverflow). Of a message over this session's
    /// `max_frame_size` it gets frames, of one over its `max_outgoing_message_size` nothing, which counts as
    /// [`missed`](Self::missed).
    ///
    /// # Errors
    /// [`SendError::Closing`](crate::SendError::Closing) on a session that is closing.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Session, SharedFlow};
    /// fn join(session: &mut Session<'_>, room: &SharedFlow) -> HandlerResult {
    ///     session.collect(room)?;
    ///     session.emit(room, "somebody came in")
    /// }
    /// ```
    pub fn collect<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> HandlerResult {
        self.subscribe(&flow.cell, Filter::All)
    }

    /// As [`collect`](Self::collect), but for what this session publishes itself.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn collect_others<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> HandlerResult {
        let own = self.id();
        self.subscribe(&flow.cell, Filter::Others(own))
    }

    /// As [`collect`](Self::collect), but only what `filter` accepts; it is told the message and who
    /// published it, if a session did.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn collect_if<T: ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        filter: impl Fn(Message<'_>, Option<SessionId>) -> bool + 'static,
    ) -> HandlerResult {
        self.subscribe(&flow.cell, Filter::When(Box::new(filter)))
    }

    fn subscribe(&mut self, flow: &Rc<FlowCell>, filter: Filter) -> HandlerResult {
        self.check_open()?;
        let place = self.state.id.0.index;
        let collected = self.state.collected.get_or_insert_default();
        if !collected.subscriptions.iter().any(|known| known.is_of(flow)) {
            let joined = Subscription::new(flow, filter, &self.shared.flows, place);
            if collected.subscriptions.is_empty() {
                collected.subscriptions.reserve_exact(1); // few sessions collect a second
            }
            collected.subscriptions.push(joined);
            self.shared.list_for_flush(self.state);
        }
        Ok(())
    }

    /// Collects a flow no longer. What it published and this session has not taken is not sent.
    pub fn stop_collecting<T: ?Sized>(&mut self, flow: &SharedFlow<T>) {
        if let Some(collected) = &mut self.state.collected {
            let missed = &mut collected.missed;
            collected.subscriptions.retain(|known| {
                let stays = !known.is_of(&flow.cell);
                *missed += if stays { 0 } else { known.missed_since() };
                stays
            });
            if collected.subscriptions.is_empty() && !collected.holds_direct() {
                self.drop_collected();
            }
        }
    }

    /// Flow messages that this session did not get, because they were dropped or replaced before it
    /// had taken them; known while it is behind, and in `on_close`.
    pub fn missed(&self) -> u64 {
        let before = self.state.extra.as_deref().map_or(0, |extra| extra.missed);
        before + self.state.collected.as_deref().map_or(0, Collected::missed_in_all)
    }

    /// Publishes in a flow (Kotlin's `emit`). Where the flow suspends publishers, this session is
    /// not read from now on until the slowest subscriber has caught up: no message is lost, and the
    /// peer is slowed down by its own connection.
    ///
    /// # Errors
    /// [`SendError::Full`](crate::SendError::Full) if the flow's log is at its limit of bytes, or the
    /// server at `process_bytes`; [`SendError::TooBig`](crate::SendError::TooBig) if the message alone
    /// is over the log's limit.
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
        let overrun = flow.cell.emit(value, key, Some(self.id()))?;
        if overrun && self.state.phase == Phase::Open {
            self.state.suspend();
            flow.cell.suspend(self.state.id.0);
        }
        Ok(())
    }
}

/// Taking.
impl Session<'_> {
    /// Writes what the flows hold for this session and what waits behind it, in the order in which
    /// it was sent, as long as the socket takes it.
    pub(crate) fn pull(&mut self) {
        self.flush();
        if !self.pull_only_one() {
            self.pull_all();
        }
    }

    #[inline(never)]
    fn pull_all(&mut self) {
        while self.may_write() {
            let fragments_open = self.state.fragments_text.is_some();
            match self.state.collected.as_deref().and_then(|all| all.next(fragments_open)) {
                None => return,
                Some(Next::Direct) => self.write_direct(),
                Some(Next::Flow { subscription, before }) => self.write_run(subscription, before),
            }
        }
    }

    /// What is usual: one flow, one message in it, the same bytes for many, nothing else. True if that
    /// was so, and it is done; if there is no `Extra` then, the session holds what it held before.
    #[inline]
    pub(crate) fn pull_only_one(&mut self) -> bool {
        if self.state.extra.is_some() || self.state.fragments_text.is_some() || self.route.masking {
            return false;
        }
        let key = if self.has_extensions() {
            let Some(key) = self.state.share_key(self.route) else { return false };
            Some(key)
        } else {
            None
        };
        let limit = self.route.short_outgoing_limit();
        let only = self.state.collected.as_deref_mut().and_then(Collected::only_subscription);
        let Some(only) = only else { return false };
        let Some((number, frame, payload)) = only.only_one(key) else { return false };
        if payload > limit || frame.is_empty() {
            return false;
        }
        let written = match self.wire.write(&frame) {
            Ok(written) => written,
            Err(error) => {
                self.state.note_fault(SessionError::Network(error.kind()));
                return true;
            }
        };
        let missed = only.pass(number);
        if let Some(collected) = self.state.collected.as_deref_mut() {
            collected.missed += missed;
        }
        self.shared.stats.bytes_out += written as u64;
        self.shared.stats.messages_out += 1;
        if written < frame.len() {
            self.note_blocked();
            self.state.extra().outbox.push_shared(frame, written);
        }
        true
    }

    fn may_write(&mut self) -> bool {
        self.state.waiting().is_none()
            && self.state.extra.as_deref().is_none_or(|extra| extra.fault.is_none())
    }

    fn write_direct(&mut self) {
        let direct = self.state.collected.as_deref_mut().and_then(Collected::pop_direct);
        let Some(direct) = direct else { return };
        if direct.is_close() {
            self.drop_collected(); // nothing follows a Close
        }
        self.append_direct(direct);
        self.flush();
    }

    /// Adds a direct message to the turn's buffer.
    fn append_direct(&mut self, direct: Direct) {
        match direct {
            Direct::Frames(frames) => self.shared.tx.extend_from_slice(&frames),
            Direct::Message { text, payload } => {
                let message = match std::str::from_utf8(&payload) {
                    Ok(of_text) if text => of_text.into(),
                    _ => Message::from(&payload),
                };
                // What an extension made of it is noted as the session's fault.
                let _ = self.encode_to_tx(message);
            }
        }
    }

    /// Writes messages of one subscription, with one system call if they fit.
    fn write_run(&mut self, subscription: usize, before: u64) {
        let limit = self.state.options(self.route).outgoing_limit();
        let mut run: Run = [const { None }; PULL_MESSAGES];
        let mut total = 0;
        let mut cursor = None;
        for slot in &mut run {
            let Some(of) = self.subscription(subscription) else { return };
            let Some((number, emission)) = of.at(cursor.unwrap_or_else(|| of.cursor())) else {
                break;
            };
            if emission.stamp >= before || total >= PULL_BYTES {
                break;
            }
            let too_big = emission.payload().len() > limit;
            let frames = if of.wants(&emission) && !too_big {
                self.frames_of(subscription, number, &emission)
            } else {
                Frames::None
            };
            if let Frames::Shared(frames) = frames {
                total += frames.len();
                cursor = Some(number + 1);
                *slot = Some((number, frames));
            } else {
                // It goes its own way; what was gathered before it goes first.
                if cursor.is_none() {
                    self.pass(subscription, number, u64::from(too_big));
                    if let Frames::Own = frames {
                        let _ = self.encode_to_tx(emission.message());
                        self.shared.stats.messages_out += 1;
                        self.flush();
                    }
                    return;
                }
                break;
            }
        }
        self.write_gathered(subscription, &run, total);
    }

    /// What goes out for a message: bytes that others get too, or the session's own.
    fn frames_of(&mut self, subscription: usize, number: u64, emission: &Emission) -> Frames {
        let options = self.state.options(self.route);
        let plain = !options.masking && emission.payload().len() <= options.max_frame_size;
        if plain && !self.has_extensions() {
            return Frames::Shared(Rc::clone(&emission.frame));
        }
        let Some(key) = self.state.share_key(self.route) else { return Frames::Own };
        if let Some(known) = emission.encoded_for(key) {
            return if known.is_empty() { Frames::None } else { Frames::Shared(known) };
        }
        let mut encoded = Vec::new();
        if self.encode_message(emission.message(), &mut encoded).is_err() {
            return Frames::None;
        }
        let encoded: Rc<[u8]> = encoded.into();
        if let Some(of) = self.subscription(subscription) {
            of.flow().keep_encoding(number, key, &encoded);
        }
        if encoded.is_empty() { Frames::None } else { Frames::Shared(encoded) }
    }

    fn subscription(&self, number: usize) -> Option<&Subscription> {
        self.state.collected.as_deref().and_then(|all| all.subscriptions.get(number))
    }

    fn pass(&mut self, subscription: usize, number: u64, also_missed: u64) {
        if let Some(collected) = &mut self.state.collected {
            if let Some(of) = collected.subscriptions.get_mut(subscription) {
                collected.missed += of.pass(number) + also_missed;
            }
        }
    }

    fn write_gathered(&mut self, subscription: usize, run: &Run, total: usize) {
        let written = match run {
            [None, ..] => return,
            [Some((_, frame)), None, ..] => self.wire.write(frame),
            _ => {
                let mut slices = [IoSlice::new(&[]); PULL_MESSAGES];
                let mut count = 0;
                for (slice, (_, frame)) in slices.iter_mut().zip(run.iter().flatten()) {
                    *slice = IoSlice::new(frame);
                    count += 1;
                }
                self.wire.write_vectored(slices.get(..count).unwrap_or_default())
            }
        };
        let mut written = match written {
            Ok(written) => written.min(total),
            Err(error) => return self.state.note_fault(SessionError::Network(error.kind())),
        };
        self.shared.stats.bytes_out += written as u64;
        for (number, frame) in run.iter().flatten() {
            self.pass(subscription, *number, 0);
            self.shared.stats.messages_out += 1;
            if written < frame.len() {
                self.note_blocked();
                self.state.extra().outbox.push_shared(Rc::clone(frame), written);
                return;
            }
            written -= frame.len();
        }
    }

    /// Whether a direct frame has to wait for flow messages that were published before it; those
    /// that can be written are written first.
    #[cold]
    pub(super) fn waits_for_flows(&mut self, opcode: OpCode) -> bool {
        if opcode == OpCode::Continuation {
            // The rest of a message goes where its start went.
            return self.state.collected.as_deref().is_some_and(Collected::holds_direct);
        }
        if self.is_behind() && self.wire.is_at_hand() {
            self.pull();
        }
        self.is_behind()
    }

    /// Whether something has to go out before what is sent now, or was asked for by a command.
    fn is_behind(&self) -> bool {
        let stamp = self.shared.command_stamp.unwrap_or(u64::MAX);
        self.state.collected.as_deref().is_some_and(|collected| collected.is_behind(stamp))
    }

    /// Keeps a direct message until what was published before it is out.
    pub(super) fn push_behind_flows(&mut self, direct: Direct) {
        let Some(collected) = &mut self.state.collected else { return };
        // The fragments of a message share a stamp: nothing comes between them.
        let stamp = match collected.last_direct_stamp().filter(|_| direct.continues()) {
            Some(stamp) => stamp,
            None => {
                let asked = self.shared.command_stamp;
                asked.unwrap_or_else(|| self.shared.flows.next_stamp())
            }
        };
        collected.push_direct(stamp, direct);
        self.shared.list_for_flush(self.state);
    }

    /// Collects no longer; what was missed stays known.
    pub(super) fn drop_collected(&mut self) -> Option<Box<Collected>> {
        let collected = self.state.collected.take()?;
        let missed = collected.missed_in_all();
        if missed > 0 {
            self.state.extra().missed += missed;
        }
        Some(collected)
    }

    /// Leaves every flow; direct messages that waited behind flow messages wait alone.
    pub(crate) fn leave_flows(&mut self) {
        let Some(mut collected) = self.drop_collected() else { return };
        while let Some(direct) = collected.pop_direct() {
            let start = self.shared.tx.len();
            self.append_direct(direct);
            if self.state.waiting().is_some() {
                let frames = self.shared.tx.split_off(start);
                self.state.extra().outbox.push_frames(frames);
            }
        }
    }
}

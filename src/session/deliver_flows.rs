//! The delivery of flow messages to one session, in the one order of all that leaves it, and as far as its
//! socket has room.

use std::io::IoSlice;
use std::rc::Rc;

use crate::protocol::frame::OpCode;
use crate::words::error::{SendError, SessionError};

use crate::context::loop_state::write_counted;
use crate::flow::emission::Emission;
use crate::flow::subscription::Subscription;
use crate::session::encode::{Encoder, Framing};
use crate::session::event_stream::EventEncoder;
use crate::session::message_stream::{OutgoingPiece, OutgoingStream};
use crate::session::send::{Outgoing, Way};
use crate::session::send_event::{EventOutput, longest_event};
use crate::session::send_message::{Form, MessageOutput};
use crate::session::send_pieces::PieceOutput;
use crate::session::subscriptions::{Collected, Direct, Next};

/// Messages written at once.
const PULL_MESSAGES: usize = 16;
/// Bytes after which no further message joins those written at once.
const PULL_BYTES: usize = 64 << 10;

/// Work after which a session lets others go first: so many messages, or more of those that are
/// encoded for it.
const PULL_WORK: usize = 128;
/// Bytes whose encoding is as much work as handing on what is encoded.
const ENCODED_PER_WORK: usize = 512;
/// Flows of one session that are looked at with as much work.
const LOOKS_PER_WORK: usize = 16;

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
    /// Nothing, though it is wanted: it is too big for this session, or an extension failed.
    Lost,
}

/// Taking.
impl Outgoing<'_> {
    /// Writes what the flows hold for this session and what waits behind it, in the order in which
    /// it was sent, as long as the socket takes it, and as far as one may go at a time: true if there
    /// may be more.
    pub(crate) fn pull(&mut self) -> bool {
        self.flush();
        !self.deliver_fast() && self.pull_all()
    }

    #[inline(never)]
    fn pull_all(&mut self) -> bool {
        // Whatever it does not take is held for this session from here.
        if let Some(collected) =
            self.state.collected.as_deref_mut().filter(|_| self.wire.has_socket())
        {
            collected.note_offered();
        }
        // A session with many messages must not hold up the others: it comes again behind them.
        let enough = self.shared.pull_work.saturating_add(PULL_WORK);
        while self.may_write() {
            if self.shared.pull_work >= enough {
                return true;
            }
            let Some(collected) = self.state.collected.as_deref() else { return false };
            self.shared.pull_work += 1 + collected.subscriptions.len() / LOOKS_PER_WORK;
            match collected.next(self.state.fragments_text.is_some()) {
                None => return false,
                Some(Next::Direct) => self.write_direct(),
                Some(Next::Flow { subscription, before }) => self.write_run(subscription, before),
            }
        }
        false
    }

    /// The fast path of what is usual: one flow, one message in it, the same bytes for many, nothing else.
    /// True if that was so, and it is done; if there is no `Extra` then, the session holds what it held
    /// before. Without it a delivery takes three times the instructions.
    pub(crate) fn deliver_fast(&mut self) -> bool {
        let key = match self.state.pipeline.as_deref() {
            Some(pipeline) if pipeline.applies() => match self.state.share_key(self.route) {
                None => return false,
                key => key,
            },
            _ => None,
        };
        self.deliver_only_one(key)
    }

    /// The same where no extension has to be asked, so that no code of the application runs.
    #[inline]
    pub(crate) fn deliver_plain(&mut self) -> bool {
        self.plain_share_key().is_some_and(|key| self.deliver_only_one(key))
    }

    /// The share key of a session without extensions, which has one if it gets events. `None` with them.
    #[inline]
    fn plain_share_key(&self) -> Option<Option<u64>> {
        let Some(pipeline) = self.state.pipeline.as_deref() else { return Some(None) };
        match pipeline.event_share_key() {
            None => pipeline.share_key_without_extensions(),
            key => Some(key),
        }
    }

    /// Sessions of one key get the same bytes, so what was encoded for the first is written as it is.
    #[inline]
    fn deliver_only_one(&mut self, key: Option<u64>) -> bool {
        if self.state.extra.is_some() || self.state.fragments_text.is_some() || self.route.masking {
            return false;
        }
        let limit = self.route.short_outgoing_limit();
        let only = self.state.collected.as_deref_mut().and_then(Collected::only_subscription);
        // It is taken whatever the socket takes: what is left of it waits in this session's outbox.
        let Some(frame) = only.and_then(|only| only.take_only_one(key, limit)) else {
            return false;
        };
        let written = match write_counted(&mut self.shared.stats, self.wire, &frame) {
            Ok(written) => written,
            Err(error) => {
                self.state.note_fault(SessionError::Network(error.kind()));
                return true;
            }
        };
        // It counts as sent, and what the socket did not take waits in the outbox.
        self.shared.stats.messages_out += 1;
        if written < frame.len() {
            self.keep_emission(frame, written);
        }
        true
    }

    /// The socket took a part of a message of a flow, or nothing: the rest waits, and is no outbox's to drop.
    #[cold]
    fn keep_emission(&mut self, message: Rc<[u8]>, written: usize) {
        self.keep_shared(message, written);
        self.state.extra().outbox.note_flow_message();
    }

    /// The socket took a part of a shared message: the rest waits.
    #[cold]
    pub(crate) fn keep_shared(&mut self, message: Rc<[u8]>, written: usize) {
        self.note_blocked();
        let is_event_stream = self.state.is_event_stream();
        let outbox = &mut self.state.extra().outbox;
        if is_event_stream {
            outbox.push_shared_event(message, written);
        } else {
            outbox.push_shared(message, written);
        }
    }

    fn may_write(&mut self) -> bool {
        self.state.waiting().is_none()
            && self.state.extra.as_deref().is_none_or(|extra| extra.fault.is_none())
    }

    fn write_direct(&mut self) {
        let direct = self.state.collected.as_deref_mut().and_then(Collected::pop_direct);
        let Some((stamp, direct)) = direct else { return };
        if let Direct::Stream(stream) = direct {
            return self.write_stream(stamp, stream);
        }
        if direct.is_close() {
            // Nothing follows a Close; and what a message that never ends kept back did not go first.
            if let Some(collected) = self.state.collected.as_deref_mut() {
                collected.missed += collected.undelivered(stamp);
            }
            self.drop_collected();
        }
        self.dispatch_direct(Way::Now, direct);
        self.flush();
        self.drop_unused();
    }

    /// Writes the next piece of a message that is made while it is sent.
    fn write_stream(&mut self, stamp: u64, mut stream: Box<dyn OutgoingStream>) {
        if let Some(collected) = self.state.collected.as_deref_mut() {
            collected.is_within_stream = true; // and stays so, if it fails or panics
        }
        let limit = self.state.options(self.route).outgoing_limit();
        let piece = match stream.next_piece(limit) {
            Ok(piece) => piece,
            // Nothing but a Close may follow what has gone out of it.
            Err(fault) => return self.state.note_fault(fault),
        };
        let piece = piece.as_outgoing();
        // Making it is work, of which a turn does a part.
        self.shared.pull_work += piece.bytes.len() / ENCODED_PER_WORK;
        let sent = PieceOutput { out: self }.dispatch(Way::Now, &piece);
        self.flush();
        // An extension that failed is noted as the session's fault.
        let (Ok(()), Some(collected)) = (sent, self.state.collected.as_deref_mut()) else { return };
        collected.is_within_stream = !piece.last;
        if piece.last {
            if std::mem::take(&mut collected.has_refused) {
                self.state.extra().slow = true; // the peer may have kept up all the time
            }
            self.drop_unused();
        } else {
            collected.go_on_with(stamp, stream);
        }
    }

    /// Gives up what held direct messages for no flow.
    fn drop_unused(&mut self) {
        if self.state.collected.as_deref().is_some_and(Collected::is_unused) {
            self.drop_collected();
        }
    }

    /// Goes that way with a direct message that waited behind flow messages.
    pub(crate) fn dispatch_direct(&mut self, way: Way, direct: Direct) {
        match direct {
            Direct::Frames(bytes) | Direct::Event(bytes) => {
                self.dispatch(way, OpCode::Binary, |encoder| encoder.encoded(&bytes));
            }
            Direct::Shared(frames) => MessageOutput { out: self }.dispatch_shared(way, frames),
            Direct::End | Direct::Stream(_) => {}
            Direct::Piece { message, first, last } => {
                let piece = OutgoingPiece::new(&message.as_message(), (first, last));
                // An extension that failed is noted as the session's fault.
                let sent = PieceOutput { out: self }.dispatch(way, &piece);
                if sent.is_err() && last {
                    self.state.note_dropped();
                }
            }
            Direct::Message(message) => {
                if self.dispatch_extended(way, message.as_message()).is_err() {
                    self.state.note_dropped(); // who sent it is not there any more
                }
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
            // What comes next in the one order may be of another flow, or a direct message.
            if emission.stamp >= before || total >= PULL_BYTES {
                break;
            }
            // A filter may be asked twice about a message: what the socket did not take is looked at again.
            let frames = if !of.wants(&emission) {
                Frames::None
            } else if emission.payload().len() > limit {
                Frames::Lost
            } else {
                self.frames_of(subscription, number, &emission)
            };
            self.shared.pull_work += 1;
            if let Frames::Shared(frames) = frames {
                total += frames.len();
                cursor = Some(number + 1);
                *slot = Some((number, frames));
            } else {
                // It goes its own way; what was gathered before it goes first.
                if cursor.is_none() {
                    self.write_alone(subscription, number, &emission, &frames);
                    return;
                }
                break;
            }
        }
        self.write_gathered(subscription, &run, total);
    }

    /// Goes past a message of which nothing goes out that others get too.
    fn write_alone(&mut self, of: usize, number: u64, emission: &Emission, frames: &Frames) {
        let mut lost = matches!(frames, Frames::Lost);
        if let Frames::Own = frames {
            self.note_encoding(emission);
            lost = self.dispatch_extended(Way::Now, emission.message()).is_err();
        }
        if lost && self.is_skipped(emission) {
            EventOutput { out: self }.note_binary();
        }
        // A message that ends the session is not counted, as those behind it are not.
        let failed = self.state.extra.as_deref().is_some_and(|extra| extra.fault.is_some());
        self.pass(of, number, u64::from(lost && !failed));
        self.flush();
        // Nothing waited before it.
        if let Some(outbox) = self.state.waiting() {
            outbox.note_flow_message();
        }
    }

    /// Whether there is no event to make of it.
    fn is_skipped(&self, emission: &Emission) -> bool {
        let events = self.state.event_encoder();
        events.is_some_and(|events| events.data_len(&emission.message()).is_none())
    }

    /// Encoding is work, of which a turn does a part.
    fn note_encoding(&mut self, emission: &Emission) {
        self.shared.pull_work += emission.payload().len() / ENCODED_PER_WORK;
    }

    /// What goes out for a message: bytes that others get too, or the session's own.
    fn frames_of(&mut self, subscription: usize, number: u64, emission: &Emission) -> Frames {
        let key = match self.form_of(emission) {
            Form::Made(frames) => return self.shared_frames(frames),
            Form::ToMake(key) => key,
            Form::Own => return Frames::Own,
        };
        self.note_encoding(emission);
        let encoded = match self.state.event_encoder() {
            Some(events) => self.event_of(&*events, subscription, number, emission),
            None => self.extended_frames_of(emission).ok(),
        };
        let Some(encoded) = encoded else { return Frames::Lost };
        let encoded: Rc<[u8]> = encoded.into();
        if let Some(of) = self.subscription(subscription) {
            // The next session of the key finds it there, if there was room to keep it.
            of.flow().keep_encoding(number, key, &encoded);
        }
        self.shared_frames(encoded)
    }

    /// What is to be done to send a message that is one unmasked frame already.
    pub(crate) fn form_of(&self, emission: &Emission) -> Form {
        let options = self.state.options(self.route);
        // That frame serves whoever needs no other form.
        let plain = !options.masking && emission.payload().len() <= options.max_frame_size;
        if plain && !self.state.has_encoder() {
            return Form::Made(Rc::clone(&emission.frame));
        }
        let Some(key) = self.state.share_key(self.route) else { return Form::Own };
        emission.encoded_for(key).map_or(Form::ToMake(key), Form::Made)
    }

    /// That no bytes go out is known by none.
    fn shared_frames(&self, encoded: Rc<[u8]>) -> Frames {
        match encoded.is_empty() {
            false => Frames::Shared(encoded),
            true if self.state.is_event_stream() => Frames::Lost, // it is binary
            true => Frames::None,                                 // an extension dropped it
        }
    }

    /// The message in frames, as the extensions encode it. An extension that failed is noted as the
    /// session's fault.
    pub(crate) fn extended_frames_of(&mut self, emission: &Emission) -> Result<Vec<u8>, SendError> {
        let framing = Framing::of(self.state.options(self.route));
        let mut out = Vec::new();
        if let Some(encoded) = self.encode(emission.message())? {
            let mut encoder = Encoder { out: &mut out, masks: &mut self.shared.masks };
            encoder.extended(framing, &encoded);
        }
        Ok(out)
    }

    /// The message as an event, with its id in the flow; `None` if it is too long.
    fn event_of(
        &self,
        events: &dyn EventEncoder,
        subscription: usize,
        number: u64,
        emission: &Emission,
    ) -> Option<Vec<u8>> {
        // That it is binary is kept too, as no bytes; how long it may be is not the same for all.
        let limit = longest_event(self.state.options(self.route).outgoing_limit());
        let Some(bytes) = events.data_len(&emission.message()) else { return Some(Vec::new()) };
        let flow = self.subscription(subscription).map(Subscription::flow)?;
        (bytes <= limit).then(|| {
            let mut out = Vec::with_capacity(bytes);
            events.write_emission(&mut out, flow, number, emission);
            out
        })
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
            [Some((_, frame)), None, ..] => {
                let written = write_counted(&mut self.shared.stats, self.wire, frame);
                self.written(written)
            }
            _ => {
                let mut slices = [IoSlice::new(&[]); PULL_MESSAGES];
                let mut count = 0;
                for (slice, (_, frame)) in slices.iter_mut().zip(run.iter().flatten()) {
                    *slice = IoSlice::new(frame);
                    count += 1;
                }
                self.write_uncopied(slices.get(..count).unwrap_or_default())
            }
        };
        let Some(written) = written else { return };
        let mut written = written.min(total);
        for (number, frame) in run.iter().flatten() {
            self.pass(subscription, *number, 0);
            self.shared.stats.messages_out += 1;
            // A message that has begun has to end; those behind it stay in the flow, so that a peer that does
            // not read holds one message and no more.
            if written < frame.len() {
                self.keep_emission(Rc::clone(frame), written);
                return;
            }
            written -= frame.len();
        }
    }

    /// Whether a direct frame has to wait for flow messages that were published before it; those
    /// that can be written are written first.
    #[cold]
    pub(crate) fn waits_for_flows(&mut self, opcode: OpCode) -> bool {
        if opcode == OpCode::Continuation {
            // The rest of a message goes where its start went.
            return self.state.collected.as_deref().is_some_and(Collected::holds_direct);
        }
        // Without a socket nothing could be written, and pulling would only fill the outbox. A stream is
        // asked for more between hooks: whoever makes it may share something with the hook that sends this.
        if self.is_behind() && self.wire.has_socket() && !self.state.holds_stream() {
            self.pull();
        }
        self.is_behind()
    }

    /// Whether something has to go out before what is sent now, or was asked for by a command.
    fn is_behind(&self) -> bool {
        // A command was given at an earlier moment than it is done: what was published since comes behind it.
        let stamp = self.shared.command_stamp.unwrap_or(u64::MAX);
        self.state.collected.as_deref().is_some_and(|collected| collected.is_behind(stamp))
    }

    /// Puts a message in the queue that is made while it is sent.
    pub(crate) fn push_stream(&mut self, stream: Box<dyn OutgoingStream>) {
        self.state.collected.get_or_insert_default();
        self.push_behind_flows(Direct::Stream(stream));
    }

    /// Keeps a direct message until what was published before it is out.
    pub(crate) fn push_behind_flows(&mut self, direct: Direct) {
        let Some(collected) = &mut self.state.collected else { return };
        // The fragments of a message share a stamp: nothing comes between them.
        let stamp = match collected.last_direct_stamp().filter(|_| direct.continues()) {
            Some(stamp) => stamp,
            None => {
                let asked = self.shared.command_stamp;
                asked.unwrap_or_else(|| self.shared.flows.next_stamp())
            }
        };
        match direct {
            Direct::Shared(_) if !self.wire.has_socket() => collected.push_unoffered(stamp, direct),
            _ => collected.push_direct(stamp, direct),
        }
        // The flush writes the flow messages before it, and then this one.
        self.state.list_for_flush(self.shared);
    }

    /// Collects no longer; what was missed stays known.
    pub(crate) fn drop_collected(&mut self) -> Option<Box<Collected>> {
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
        let mut is_cut = collected.is_within_stream;
        while let Some((_, direct)) = collected.pop_direct() {
            // A stream goes out as the peer takes it, which is over. What comes behind a part of one would be
            // taken for more of it (RFC 6455 section 5.4), and behind one that is missing it would come too
            // early; but for a Close.
            is_cut |= matches!(direct, Direct::Stream(_));
            if is_cut && !direct.is_close() {
                if direct.ends_message() {
                    self.state.note_dropped();
                }
                continue;
            }
            let way = self.way(OpCode::Binary);
            self.dispatch_direct(way, direct);
        }
    }
}

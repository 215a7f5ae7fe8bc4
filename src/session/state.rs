//! The state of a session that outlives a hook.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::extension::wire_limit;
use crate::protocol::forwarded::Client;
use crate::protocol::frame::{FrameRules, Masking};
use crate::protocol::frame_reader::PartialFrame;
use crate::protocol::message_reader::PartialMessage;
use crate::structures::outbox::Outbox;
use crate::structures::progress::Window;
use crate::structures::slab::Key;
use crate::structures::spare_buffers::SpareBuffers;
use crate::structures::token_bucket::TokenBucket;
use crate::words::close::CloseInfo;
use crate::words::error::SessionError;
use crate::words::mix::mixed;
use crate::words::network::ClientKey;
use crate::words::options::SessionOptions;
use crate::words::time::Time;

use crate::context::loop_state::LoopState;
use crate::flow::inner::FlowInner;
use crate::session::event_stream::EventEncoder;
use crate::session::extensions::Pipeline;
pub(crate) use crate::session::peer::NO_ADDR;
use crate::session::peer::{Peer, Proxied};
use crate::session::read_pause::ReadPause;
use crate::session::subscriptions::Collected;
use crate::structures::ids::{NO_ROUTE, SessionId, TimerId};

/// The most timers that a session may have at once.
pub(crate) const TIMERS_MAX: usize = 64;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No upgrade yet; HTTP requests.
    Http,
    /// Messages flow.
    Open,
    /// Our Close is sent, the peer's is awaited.
    Closing,
    /// `on_close` has been called; what is queued still goes out.
    Ended,
}

/// The state of a connection while it is a session. Idle, it owns nothing but itself.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) id: SessionId,
    peer: Peer,
    /// When the last bytes came, or as much later as reading was paused since.
    pub(crate) last_activity: Time,
    /// While a pong is awaited, when the ping went out (and its payload); else when the present
    /// ping period began.
    pub(crate) ping_base: Time,
    /// While a pong is awaited, how long after the ping the wait for it began anew: the last byte came
    /// that was none of a Pong, or the ping was acknowledged; and the time of pauses. Milliseconds.
    pub(crate) heard_millis: u32,
    /// Microseconds; `u32::MAX` while none was measured.
    pub(crate) rtt_micros: u32,
    pub(crate) route: u16,
    pub(crate) phase: Phase,
    pub(crate) awaiting_pong: bool,
    /// A deadline may have moved earlier: the wheel has to be looked at after this turn.
    pub(crate) timing_changed: bool,
    /// It stands in the list of sessions that are to be flushed after the turn.
    pub(crate) listed: bool,
    /// The kind of the message that is being sent in fragments.
    pub(crate) fragments_text: Option<bool>,
    pub(crate) partial: Option<Box<PartialMessage>>,
    /// Only in sessions that look below messages.
    pub(crate) pipeline: Option<Box<Pipeline>>,
    pub(crate) extra: Option<Box<Extra>>,
    /// The flows it collects.
    pub(crate) collected: Option<Box<Collected>>,
}

/// What only some connections have at some times.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) outbox: Outbox,
    /// What the peer takes, while somebody waits for that.
    pub(crate) window: Option<Window>,
    /// The ping whose pong is awaited, if it went out behind other bytes.
    pub(crate) ping: Option<Box<PingBehind>>,
    /// The last write took less than it was offered: only a WRITABLE event can help.
    pub(crate) blocked: bool,
    /// That was so since the outbox was last empty: the peer did not read in time.
    pub(crate) slow: bool,
    /// Reading is paused.
    pub(crate) read_pause: Option<Box<ReadPause>>,
    /// Timers of the application for this session, in no order.
    pub(crate) timers: Vec<(TimerId, Time)>,
    /// The messages that may still come.
    pub(crate) tokens: TokenBucket,
    /// Messages that the outbox had no room for and its policy dropped.
    pub(crate) dropped: u64,
    /// Flow messages that were missed in flows that are collected no longer.
    pub(crate) missed: u64,
    /// Options that this session changed for itself.
    pub(crate) options: Option<Box<SessionOptions>>,
    /// How the session ends, as soon as that is known.
    pub(crate) close: Option<CloseInfo>,
    /// What went wrong inside a hook and is acted on after it.
    pub(crate) fault: Option<SessionError>,
    pub(crate) aborted: bool,
    /// When waiting for the peer's Close, for the queue to empty or for its hang-up ends.
    pub(crate) deadline: Option<Time>,
    /// That wait begins when the peer's system has taken all that was written, which was not seen yet:
    /// the deadline moves on until then.
    pub(crate) unacknowledged: bool,
    /// Nothing more will arrive: the peer has shut its side.
    pub(crate) peer_shut: bool,
    /// We have shut our side.
    pub(crate) shut: bool,
    /// No rule of WebSocket has the other side close first.
    pub(crate) shuts_first: bool,
    /// The connection has failed: nobody is there to be waited for.
    pub(crate) broken: bool,
    /// Bytes that the transport holds for the connection.
    pub(crate) transport_bytes: u32,
}

/// A ping that waits behind other bytes, in the outbox or in the system's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PingBehind {
    /// The position of its end among all that is written, modulo 2^32.
    pub(crate) end: u32,
    pub(crate) window: Window,
    /// The peer's buffer was full when it was last looked at, and had to be read empty up to the ping.
    pub(crate) full: bool,
}

/// What a session may have beside the ordinary, one bit for each. Without any it is open and takes the fast
/// paths.
struct Parts;

impl Parts {
    /// A message has arrived in part.
    const PARTIAL: u8 = 1;
    /// Extensions, a raw handler, or events.
    const PIPELINE: u8 = 2;
    /// Whatever is rare: bytes that wait, a pause, timers, options of its own, an end.
    const EXTRA: u8 = 4;
    /// It collects flows.
    const FLOWS: u8 = 8;
    /// A message is being sent in fragments.
    const FRAGMENTS: u8 = 16;
    /// It is no session yet, or closing, or over.
    const NOT_OPEN: u8 = 32;
}

/// Whether the peer masks its frames. RFC 6455 section 5.1: a server closes on an unmasked frame, unless it
/// is told otherwise, and a client on a masked one.
fn expected_masking(options: &SessionOptions) -> Masking {
    match options {
        #[cfg(feature = "client")]
        SessionOptions { is_client: true, .. } => Masking::Forbidden,
        SessionOptions { accept_unmasked_frames: true, .. } => Masking::Optional,
        SessionOptions { .. } => Masking::Required,
    }
}

impl SessionState {
    /// What it boxes at most, but for bytes of messages.
    pub(crate) const BOXED_BYTES: usize = size_of::<Extra>() + size_of::<Proxied>();

    pub(crate) fn new(key: Key, peer: SocketAddr, now: Time) -> Self {
        Self {
            id: SessionId(key),
            peer: Peer::new(peer),
            last_activity: now,
            ping_base: now,
            heard_millis: 0,
            rtt_micros: u32::MAX,
            route: NO_ROUTE,
            phase: Phase::Http,
            awaiting_pong: false,
            timing_changed: true,
            fragments_text: None,
            partial: None,
            pipeline: None,
            extra: None,
            listed: false,
            collected: None,
        }
    }

    pub(crate) fn remote_addr(&self) -> SocketAddr {
        self.peer.remote_addr()
    }

    pub(crate) fn client_addr(&self) -> SocketAddr {
        self.peer.client_addr()
    }

    pub(crate) fn client_key(&self) -> Option<ClientKey> {
        self.peer.client_key()
    }

    pub(crate) fn set_client(&mut self, client: Client) {
        self.peer.set_client(client);
    }

    /// Has this session flushed after the turn.
    pub(crate) fn list_for_flush(&mut self, shared: &mut LoopState) {
        shared.list_for_flush(self.id.0.index, &mut self.listed);
    }

    /// Whether its handler is handed frames.
    pub(crate) fn is_raw(&self) -> bool {
        self.pipeline.as_deref().is_some_and(Pipeline::is_raw)
    }

    /// Whether what is sent has to be encoded first: by extensions, or as events.
    #[inline]
    pub(crate) fn has_encoder(&self) -> bool {
        self.pipeline.as_deref().is_some_and(Pipeline::applies)
    }

    /// What makes events of its messages; `None` in a WebSocket session.
    #[inline]
    pub(crate) fn event_encoder(&self) -> Option<Rc<dyn EventEncoder>> {
        self.pipeline.as_deref().and_then(Pipeline::events).cloned()
    }

    /// Whether it is an event stream.
    #[inline]
    pub(crate) fn is_event_stream(&self) -> bool {
        self.pipeline.as_deref().is_some_and(|pipeline| pipeline.events().is_some())
    }

    /// Whether what is sent to it and comes from it are bytes without frames.
    pub(crate) fn is_byte_stream(&self) -> bool {
        let events = self.pipeline.as_deref().and_then(Pipeline::events);
        events.is_some_and(|events| events.is_byte_stream())
    }

    /// Whether anything is read of it: from an event stream nothing comes.
    pub(crate) fn is_read(&self) -> bool {
        !self.is_event_stream() || self.is_byte_stream()
    }

    /// Whether a message that is encoded may depend on those before it.
    pub(crate) fn encodes_in_context(&self) -> bool {
        self.pipeline.as_deref().is_some_and(|pipeline| pipeline.share_key().is_none())
    }

    /// A key that two sessions share if a message sent to both is the same bytes on the wire; `None`
    /// where each has to be encoded for itself.
    pub(crate) fn share_key(&self, route: &SessionOptions) -> Option<u64> {
        if let Some(key) = self.pipeline.as_deref().and_then(Pipeline::event_share_key) {
            return Some(key); // an event has neither masks nor a size that it is cut to
        }
        let options = self.options(route);
        if options.masking {
            // Bytes that nobody else can use are not worth keeping.
            return None; // every frame has a mask of its own
        }
        let extensions = match self.pipeline.as_deref() {
            Some(pipeline) if pipeline.applies() => pipeline.share_key()?,
            _ => 0,
        };
        // Where frames are cut and what is too big differs with these, and so do the bytes.
        let sizes = [options.max_frame_size as u64, options.outgoing_limit() as u64];
        Some(sizes.into_iter().fold(extensions, mixed))
    }

    /// Whether it is or was a session, and its route means something.
    pub(crate) fn was_session(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing)
            || self.extra.as_deref().is_some_and(|extra| extra.close.is_some())
    }

    /// Whether the peer was behind until now; asked once, when it has caught up.
    pub(crate) fn was_slow(&mut self) -> bool {
        self.extra.as_deref_mut().is_some_and(|extra| std::mem::take(&mut extra.slow))
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The outbox, if bytes wait in it.
    pub(crate) fn waiting(&mut self) -> Option<&mut Outbox> {
        self.extra.as_deref_mut().map(|extra| &mut extra.outbox).filter(|outbox| !outbox.is_empty())
    }

    /// Whether a message is on its way out, or waits, that is made while it is sent.
    pub(crate) fn holds_stream(&self) -> bool {
        self.collected.as_deref().is_some_and(|collected| collected.streams > 0)
    }

    /// Whether a direct message has to wait, for the outbox or for flow messages before it.
    pub(crate) fn is_waiting(&mut self) -> bool {
        self.waiting().is_some() || self.collected.as_deref().is_some_and(Collected::holds_direct)
    }

    /// Its place in the first flow that it collects.
    pub(crate) fn first_cursor(&self) -> Option<u64> {
        self.collected.as_deref().and_then(Collected::first_cursor)
    }

    /// Where it stands in a flow that it collects.
    pub(crate) fn cursor_in(&self, flow: &Rc<FlowInner>) -> Option<u64> {
        self.collected.as_deref().and_then(|collected| collected.cursor_in(flow))
    }

    /// Whether it collects the flow and has not taken all that is there before `number`.
    pub(crate) fn is_before(&self, flow: &Rc<FlowInner>, number: u64) -> bool {
        self.collected.as_deref().is_some_and(|collected| collected.is_before(flow, number))
    }

    /// The bytes and messages that wait for the peer to read.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let outbox = self.extra.as_deref().map(|extra| &extra.outbox);
        let collected = self.collected.as_deref();
        let bytes =
            outbox.map_or(0, Outbox::buffered_bytes) + collected.map_or(0, Collected::direct_bytes);
        let messages =
            outbox.map_or(0, Outbox::messages) + collected.map_or(0, Collected::direct_messages);
        (bytes, messages)
    }

    /// What this session may do: its own options if it changed them, else the route's.
    pub(crate) fn options<'a>(&'a self, route: &'a SessionOptions) -> &'a SessionOptions {
        self.extra.as_deref().and_then(|extra| extra.options.as_deref()).unwrap_or(route)
    }

    pub(crate) fn rules(&self, route: &SessionOptions) -> FrameRules {
        let options = self.options(route);
        let pipeline = self.pipeline.as_deref();
        let mut rules = FrameRules {
            max_frame_size: options.max_frame_size,
            max_coded_frame_size: options.max_frame_size,
            max_message_size: options.message_limit(),
            max_fragments: options.max_fragments,
            masking: expected_masking(options),
            allowed_rsv: if options.lenient_rsv { 7 } else { 0 },
            // RFC 6455 section 5.2: reserved bits are zero unless an agreed extension claims them.
            claimed_rsv: pipeline.map_or(0, |pipeline| pipeline.claimed_rsv().bits()),
        };
        let Some(pipeline) = pipeline else { return rules };
        if pipeline.is_in_pieces() {
            // Nothing of a message is kept, so that it is all one how it is cut into frames.
            rules.max_message_size = options.piecewise_limit();
            rules.max_frame_size = rules.max_message_size;
            rules.max_fragments = u32::MAX;
        }
        let limit = rules.max_frame_size;
        rules.max_coded_frame_size = if pipeline.decodes() { wire_limit(limit) } else { limit };
        rules
    }

    /// Whether the peer is not read at present.
    pub(crate) fn is_read_paused(&self) -> bool {
        self.read_pause().is_some_and(|pause| !pause.is_over())
    }

    pub(crate) fn read_pause(&self) -> Option<&ReadPause> {
        self.extra.as_deref().and_then(|extra| extra.read_pause.as_deref())
    }

    /// The application stops this session from being read.
    pub(crate) fn pause(&mut self, now: Time) {
        self.timing_changed |= self.extra().read_pause.get_or_insert_default().pause(now);
    }

    /// The application wants it read again. The input that was kept comes first, in a turn of its own.
    pub(crate) fn unpause(&mut self, shared: &mut LoopState) {
        if let Some(pause) = self.read_pause_mut() {
            pause.unpause();
            shared.to_resume.push(self.id.0.index);
        }
    }

    /// A session that closes is read: messages are dropped, the peer's Close is awaited.
    pub(crate) fn lift_pause(&mut self, shared: &mut LoopState) {
        if let Some(pause) = self.read_pause_mut() {
            pause.lift();
            shared.to_resume.push(self.id.0.index);
        }
    }

    pub(crate) fn read_pause_mut(&mut self) -> Option<&mut ReadPause> {
        self.extra.as_deref_mut().and_then(|extra| extra.read_pause.as_deref_mut())
    }

    /// False if it has as many as it may.
    pub(crate) fn add_timer(&mut self, timer: TimerId, at: Time) -> bool {
        let timers = &mut self.extra().timers;
        if timers.len() >= TIMERS_MAX {
            return false;
        }
        timers.push((timer, at));
        self.timing_changed = true;
        true
    }

    pub(crate) fn cancel_timer(&mut self, timer: TimerId) {
        if let Some(extra) = &mut self.extra {
            extra.timers.retain(|(known, _)| *known != timer);
        }
    }

    /// A flow stops this session from being read.
    pub(crate) fn suspend(&mut self, now: Time) {
        self.extra().read_pause.get_or_insert_default().suspend(now);
        self.timing_changed = true;
    }

    /// A message for this session was not sent.
    pub(crate) fn note_dropped(&mut self) {
        self.extra().dropped += 1;
    }

    /// Notes the first thing that went wrong; it is acted on after the hook.
    pub(crate) fn note_fault(&mut self, fault: SessionError) {
        // What follows a fault mostly follows from it: the first one is the reason.
        self.extra().fault.get_or_insert(fault);
    }

    /// Whether it has any of these parts.
    // A word that is put together and then masked would cost each message ten instructions more.
    #[inline(always)]
    fn has(&self, any_of: u8) -> bool {
        let asked = |bit: u8| any_of & bit != 0;
        (asked(Parts::NOT_OPEN) && self.phase != Phase::Open)
            || (asked(Parts::FRAGMENTS) && self.fragments_text.is_some())
            || (asked(Parts::PARTIAL) && self.partial.is_some())
            || (asked(Parts::PIPELINE) && self.pipeline.is_some())
            || (asked(Parts::EXTRA) && self.extra.is_some())
            || (asked(Parts::FLOWS) && self.collected.is_some())
    }

    /// Whether a message can be sent as one frame to the turn's buffer.
    #[inline]
    pub(crate) fn can_send_fast(&self) -> bool {
        !self.has(!Parts::PARTIAL)
    }

    /// Whether bytes that arrive begin a message, and nothing but that.
    #[inline]
    pub(crate) fn can_read_fast(&self) -> bool {
        !self.has(Parts::PARTIAL | Parts::PIPELINE | Parts::EXTRA)
    }

    /// Whether it holds memory of its own.
    #[inline]
    pub(crate) fn owns_memory(&self) -> bool {
        self.has(Parts::PARTIAL | Parts::PIPELINE | Parts::EXTRA | Parts::FLOWS)
    }

    /// Bytes held for this connection beyond its slot.
    pub(crate) fn memory(&self) -> usize {
        let extra = self.extra.as_deref().map_or(0, |extra| {
            extra.outbox.memory()
                + extra.read_pause.as_deref().map_or(0, ReadPause::memory)
                + extra.transport_bytes as usize
        });
        self.partial.as_deref().map_or(0, PartialMessage::memory)
            + self.pipeline.as_deref().map_or(0, Pipeline::memory)
            + extra
            + self.collected.as_deref().map_or(0, Collected::memory)
    }

    /// The frame that the peer has begun, or the message between two of its frames.
    pub(crate) fn partial_frame(&self) -> Option<&PartialFrame> {
        match self.pipeline.as_deref() {
            Some(pipeline) => pipeline.partial.as_deref(),
            None => self.partial.as_deref().map(|partial| &partial.frame),
        }
    }

    /// What of the peer's input is unfinished, and has to come on: the window for that, the bytes that
    /// came and those that are announced (of a message that goes on, any number is).
    pub(crate) fn unfinished(&mut self) -> Option<(&mut Option<Window>, u32, u32)> {
        match self.pipeline.as_deref_mut() {
            Some(pipeline) => {
                let raw = pipeline.is_raw();
                pipeline.partial.as_deref_mut()?.unfinished(raw)
            }
            None => self.partial.as_deref_mut()?.frame.unfinished(false),
        }
    }

    /// When its time is over.
    pub(crate) fn unfinished_since(&self) -> Option<Time> {
        self.partial_frame().and_then(|frame| frame.window).map(|window| window.since())
    }

    /// Gives large buffers up: the connection is over.
    pub(crate) fn give_back(&mut self, spare: &mut SpareBuffers) {
        let partial = self.partial.take().and_then(|partial| partial.into_buffer());
        partial.into_iter().for_each(|buffer| spare.put(buffer));
        if let Some(extra) = self.extra.as_deref_mut() {
            extra.outbox.give_back(spare);
        }
    }

    /// Gives `extra` back once it holds nothing that matters.
    pub(crate) fn release_idle(&mut self) {
        // Thousands of sessions had something rare once: without this each would keep its box for ever.
        if self.extra.as_deref().is_some_and(Extra::is_idle) {
            self.extra = None;
        }
    }
}

impl Extra {
    /// The wait for the peer begins, for its Close or its hang-up: as soon as it has all that was
    /// written.
    pub(crate) fn await_peer(&mut self, now: Time, lasts: Duration) {
        // It moves on while the peer's system has not acknowledged all: a slow reader is not cut off.
        self.deadline = Some(now.after(lasts));
        self.unacknowledged = true;
        self.window.get_or_insert_with(|| Window::begin(now));
    }

    fn is_idle(&self) -> bool {
        let Self {
            outbox,
            window,
            ping,
            blocked: _,
            slow: _,
            read_pause,
            timers,
            tokens,
            dropped,
            missed,
            options,
            close,
            fault,
            aborted,
            deadline,
            unacknowledged: _,
            peer_shut,
            shut,
            shuts_first,
            broken,
            transport_bytes,
        } = self;
        // A field that is added has to be named above, and decided on here.
        outbox.is_empty()
            && read_pause.is_none()
            && timers.is_empty()
            && *dropped == 0
            && *tokens == TokenBucket::default()
            && *missed == 0
            && options.is_none()
            && close.is_none()
            && fault.is_none()
            && deadline.is_none()
            && window.is_none()
            && ping.is_none()
            && !(*aborted || *peer_shut || *shut || *shuts_first || *broken)
            && *transport_bytes == 0
    }
}

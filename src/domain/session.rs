//! Owns a session as its handler sees it, and the state of it that outlives a hook.

use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use crate::protocol::close::write_close;
use crate::protocol::frame::{CONTROL_PAYLOAD_MAX, FrameRules, OpCode, write_frame, write_header};
use crate::protocol::reader::Partial;
use crate::structures::outbox::Outbox;
use crate::structures::slab::Key;
use crate::structures::wire::Wire;
use crate::words::close::{CloseInfo, CloseReason, ClosedBy};
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::message::Message;
use crate::words::options::{SessionOptions, check_time};
use crate::words::time::Time;

use super::shared::Shared;

/// Names a session for as long as the process lives: a place that is used again gets another
/// generation, so a stale id is never somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub(crate) Key);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

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
    pub(crate) last_activity: Time,
    /// While a pong is awaited, when the ping went out (and its payload); else when the present
    /// ping period began.
    pub(crate) ping_base: Time,
    /// Microseconds; `u32::MAX` while none was measured.
    pub(crate) rtt_micros: u32,
    pub(crate) route: u16,
    pub(crate) phase: Phase,
    pub(crate) awaiting_pong: bool,
    /// A deadline may have moved earlier: the wheel has to be looked at after this turn.
    pub(crate) timing_changed: bool,
    /// The kind of the message that is being sent in fragments.
    fragments_text: Option<bool>,
    pub(crate) partial: Option<Box<Partial>>,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What only some connections have at some times.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) outbox: Outbox,
    /// When the peer last took bytes of the outbox.
    pub(crate) progress: Time,
    /// Options that this session changed for itself.
    options: Option<Box<SessionOptions>>,
    /// How the session ends, as soon as that is known.
    pub(crate) close: Option<CloseInfo>,
    /// What went wrong inside a hook and is acted on after it.
    pub(crate) fault: Option<SessionError>,
    pub(crate) aborted: bool,
    /// When waiting for the peer's Close, for the queue to empty or for its hang-up ends.
    pub(crate) deadline: Option<Time>,
    /// Nothing more will arrive: the peer has shut its side.
    pub(crate) peer_shut: bool,
    /// We have shut our side.
    pub(crate) shut: bool,
}

/// The peer's address in 16 bytes: IPv6 is boxed, so that the many IPv4 sessions do not pay for it.
#[derive(Debug)]
enum Peer {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl SessionState {
    pub(crate) fn new(key: Key, peer: SocketAddr, now: Time) -> Self {
        let peer = match peer {
            SocketAddr::V4(v4) => Peer::V4(v4),
            SocketAddr::V6(v6) => Peer::V6(Box::new(v6)),
        };
        Self {
            id: SessionId(key),
            peer,
            last_activity: now,
            ping_base: now,
            rtt_micros: u32::MAX,
            route: 0,
            phase: Phase::Http,
            awaiting_pong: false,
            timing_changed: true,
            fragments_text: None,
            partial: None,
            extra: None,
        }
    }

    pub(crate) fn remote_addr(&self) -> SocketAddr {
        match &self.peer {
            Peer::V4(v4) => SocketAddr::V4(*v4),
            Peer::V6(v6) => SocketAddr::V6(**v6),
        }
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The outbox, if bytes wait in it.
    pub(crate) fn waiting(&mut self) -> Option<&mut Outbox> {
        self.extra.as_deref_mut().map(|extra| &mut extra.outbox).filter(|outbox| !outbox.is_empty())
    }

    /// What this session may do: its own options if it changed them, else the route's.
    pub(crate) fn options<'a>(&'a self, route: &'a SessionOptions) -> &'a SessionOptions {
        self.extra.as_deref().and_then(|extra| extra.options.as_deref()).unwrap_or(route)
    }

    pub(crate) fn rules(&self, route: &SessionOptions) -> FrameRules {
        let options = self.options(route);
        FrameRules {
            max_frame_size: options.max_frame_size,
            max_message_size: options.message_limit(),
            max_fragments: options.max_fragments,
            accept_unmasked: options.accept_unmasked_frames,
            allowed_rsv: if options.lenient_rsv { 7 } else { 0 },
        }
    }

    /// Notes the first thing that went wrong; it is acted on after the hook.
    pub(crate) fn note_fault(&mut self, fault: SessionError) {
        self.extra().fault.get_or_insert(fault);
    }

    /// Bytes held for this connection beyond its place in the slab.
    pub(crate) fn memory(&self) -> usize {
        self.partial.as_deref().map_or(0, Partial::memory)
            + self.extra.as_deref().map_or(0, |extra| extra.outbox.memory())
    }

    /// Gives `extra` back once it holds nothing that matters.
    pub(crate) fn release_idle(&mut self) {
        if self.extra.as_deref().is_some_and(Extra::is_idle) {
            self.extra = None;
        }
    }
}

impl Extra {
    fn is_idle(&self) -> bool {
        let Self { outbox, progress: _, options, close, fault, aborted, deadline, peer_shut, shut } =
            self;
        outbox.is_empty()
            && options.is_none()
            && close.is_none()
            && fault.is_none()
            && deadline.is_none()
            && !(*aborted || *peer_shut || *shut)
    }
}

/// A session, lent to its handler for the time of a hook.
///
/// What it does, it does at once on this session; nothing here blocks.
pub struct Session<'a> {
    pub(crate) state: &'a mut SessionState,
    pub(crate) shared: &'a mut Shared,
    pub(crate) route: &'a SessionOptions,
    pub(crate) wire: &'a mut dyn Wire,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}

/// A payload of this size goes out at once, uncopied.
const DIRECT_BYTES: usize = 16 << 10;

/// What a session does with messages.
impl Session<'_> {
    /// Sends a text or binary message (Ktor's `send`). It is written with the other replies of this
    /// turn; if the peer does not read, it waits in the outbox.
    ///
    /// # Errors
    /// Always a [`HandlerError::Send`](crate::HandlerError::Send): [`SendError::Closing`] on a
    /// session that is closing, [`SendError::TooBig`] over `max_message_size`, [`SendError::Full`]
    /// when the outbox has no room (the session then ends with 1013).
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Session};
    /// fn greet(session: &mut Session<'_>) -> HandlerResult {
    ///     session.send("text")?;
    ///     session.send(&[1, 2, 3])
    /// }
    /// ```
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> HandlerResult {
        let message = message.into();
        if self.state.fragments_text.is_some() {
            return Err(SendError::Fragments.into());
        }
        self.admit(message.bytes().len())?;
        let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
        self.transmit(opcode, message.bytes(), true)
    }

    /// Sends one fragment of a message (Ktor's `send(Frame.Text(fin = false, ..))`): the kind is
    /// the first one's, `fin` ends the message. Control frames may go out in between, other
    /// messages may not.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::Fragments`] if the kind changes within a message.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Session};
    /// fn report(session: &mut Session<'_>) -> HandlerResult {
    ///     session.send_fragment("first, ", false)?;
    ///     session.send_fragment("last", true)
    /// }
    /// ```
    pub fn send_fragment<'m>(&mut self, piece: impl Into<Message<'m>>, fin: bool) -> HandlerResult {
        let piece = piece.into();
        self.admit(piece.bytes().len())?;
        let opcode = match self.state.fragments_text {
            Some(text) if text != piece.is_text() => return Err(SendError::Fragments.into()),
            Some(_) => OpCode::Continuation,
            None if piece.is_text() => OpCode::Text,
            None => OpCode::Binary,
        };
        self.transmit(opcode, piece.bytes(), fin)?;
        self.state.fragments_text = if fin { None } else { Some(piece.is_text()) };
        Ok(())
    }

    /// Sends a ping of the application's own, at most 125 bytes. It overtakes queued messages; its
    /// pong is not reported (the server's own pings are, by [`on_pong`](crate::Handler::on_pong)).
    ///
    /// # Errors
    /// [`SendError::Closing`], or [`SendError::TooBig`] over 125 bytes.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Session};
    /// fn nudge(session: &mut Session<'_>) -> HandlerResult {
    ///     session.ping(b"still there?")
    /// }
    /// ```
    pub fn ping(&mut self, payload: &[u8]) -> HandlerResult {
        self.check_open()?;
        if payload.len() > CONTROL_PAYLOAD_MAX {
            let error = SendError::TooBig { bytes: payload.len(), limit: CONTROL_PAYLOAD_MAX };
            return Err(error.into());
        }
        self.send_control(OpCode::Ping, payload);
        Ok(())
    }

    /// Starts the closing handshake: what was sent before still goes out, no message is delivered
    /// any more, and `on_close` follows when the peer has answered or `close_timeout` is over. The
    /// first Close counts.
    ///
    /// # Errors
    /// [`SendError::Closing`] if the session is closing already.
    ///
    /// ```
    /// use wirewheel::{CloseCode, CloseReason, HandlerResult, Session};
    /// fn bye(session: &mut Session<'_>) -> HandlerResult {
    ///     session.close(CloseReason::new(CloseCode::NORMAL, "Client said BYE")?)
    /// }
    /// ```
    pub fn close(&mut self, reason: CloseReason) -> HandlerResult {
        self.check_open()?;
        self.queue_close(Some(&reason), false);
        // Behind a queue the Close is not out yet: the peer's time to answer begins when it is.
        let patience = match self.state.waiting() {
            Some(_) => self.state.options(self.route).write_timeout,
            None => self.shared.limits.close_timeout,
        };
        let deadline = self.shared.now.after(patience);
        let info = CloseInfo::new(reason.code(), reason.text(), ClosedBy::Server, false);
        let extra = self.state.extra();
        extra.close = Some(info);
        extra.deadline = Some(deadline);
        self.state.phase = Phase::Closing;
        self.state.timing_changed = true;
        Ok(())
    }

    /// Ends the connection at once, without a Close and without what is queued (Ktor's `cancel` on
    /// a raw session): the peer sees a reset. `on_close` says 1006.
    ///
    /// ```
    /// use wirewheel::Session;
    /// fn give_up(session: &mut Session<'_>) {
    ///     session.abort();
    /// }
    /// ```
    pub fn abort(&mut self) {
        self.state.extra().aborted = true;
    }
}

/// What a session knows and may change of itself.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{HandlerResult, Session};
/// fn tune(session: &mut Session<'_>) -> HandlerResult {
///     session.set_ping_period(Duration::from_secs(5))?;
///     println!("{} from {}: rtt {:?}", session.id(), session.remote_addr(), session.rtt());
///     Ok(())
/// }
/// ```
impl Session<'_> {
    /// The id of this session.
    pub fn id(&self) -> SessionId {
        self.state.id
    }

    /// The peer's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.state.remote_addr()
    }

    /// The time between the server's last answered ping and its pong.
    pub fn rtt(&self) -> Option<Duration> {
        let micros = self.state.rtt_micros;
        (micros != u32::MAX).then(|| Duration::from_micros(u64::from(micros)))
    }

    /// How long ago the last bytes arrived, pongs included.
    pub fn last_activity(&self) -> Duration {
        self.shared.now.since(self.state.last_activity)
    }

    /// The bytes that wait because the peer does not read, in the outbox and of this turn.
    pub fn buffered_bytes(&self) -> usize {
        let waiting = self.state.extra.as_deref().map_or(0, |extra| extra.outbox.buffered_bytes());
        waiting + self.shared.tx.len()
    }

    /// How the session ends; `None` while it is open. The same in `on_error` and in `on_close`.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.state.extra.as_deref().and_then(|extra| extra.close.as_ref())
    }

    /// Changes the ping period of this session (Ktor's `pingInterval`); `None` switches pings off.
    /// The period starts anew.
    ///
    /// # Errors
    /// A [`ConfigError`] for zero or absurd values, as at start-up.
    pub fn set_ping_period(
        &mut self,
        period: impl Into<Option<Duration>>,
    ) -> Result<(), ConfigError> {
        let period = period.into();
        if let Some(period) = period {
            check_time("ping_period", period).map_err(ConfigError)?;
        }
        self.own_options().ping_period = period;
        self.restart_pings();
        Ok(())
    }

    /// Changes how long a pong may take (Ktor's `timeout`). The ping period starts anew.
    ///
    /// # Errors
    /// A [`ConfigError`] for zero or absurd values.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), ConfigError> {
        check_time("timeout", timeout).map_err(ConfigError)?;
        self.own_options().timeout = timeout;
        self.restart_pings();
        Ok(())
    }

    /// Changes the frame limit of this session, in bytes, for frames that have not begun (Ktor's
    /// `maxFrameSize`).
    ///
    /// # Errors
    /// A [`ConfigError`] for zero or absurd values.
    pub fn set_max_frame_size(&mut self, bytes: usize) -> Result<(), ConfigError> {
        let changed = SessionOptions { max_frame_size: bytes, ..self.own_options().clone() };
        changed.check().map_err(ConfigError)?;
        *self.own_options() = changed;
        Ok(())
    }

    /// Masks what this session sends from now on, or stops it (Ktor's `masking`).
    pub fn set_masking(&mut self, on: bool) {
        self.own_options().masking = on;
    }

    fn own_options(&mut self) -> &mut SessionOptions {
        let route = self.route;
        self.state.extra().options.get_or_insert_with(|| Box::new(route.clone()))
    }

    fn restart_pings(&mut self) {
        self.state.ping_base = self.shared.now;
        self.state.awaiting_pong = false;
        self.state.timing_changed = true;
    }
}

/// A value that an option does not take; the text names the option and the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(crate) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The way out: the turn's buffer, the wire, the outbox.
impl Session<'_> {
    #[inline]
    fn check_open(&self) -> Result<(), SendError> {
        let failed = |extra: &Extra| extra.fault.is_some() || extra.aborted;
        if self.state.phase != Phase::Open || self.state.extra.as_deref().is_some_and(failed) {
            return Err(SendError::Closing);
        }
        Ok(())
    }

    /// Whether a message of `bytes` may be sent now.
    #[inline]
    fn admit(&mut self, bytes: usize) -> Result<(), SendError> {
        self.check_open()?;
        let options = self.state.options(self.route);
        let (limit, outbox_limit) = (options.message_limit(), options.outbox_bytes);
        if bytes > limit {
            return Err(SendError::TooBig { bytes, limit });
        }
        if let Some(outbox) = self.state.waiting() {
            let buffered = outbox.buffered_bytes();
            if buffered > 0 && buffered.saturating_add(bytes) > outbox_limit {
                self.state.note_fault(SessionError::Overloaded);
                return Err(SendError::Full { buffered });
            }
        }
        Ok(())
    }

    /// Cuts the payload into frames of at most `max_frame_size` and sends them.
    #[inline]
    fn transmit(&mut self, opcode: OpCode, payload: &[u8], fin: bool) -> HandlerResult {
        let options = self.state.options(self.route);
        let (max, masking) = (options.max_frame_size, options.masking);
        if self.state.extra.is_some() && self.state.waiting().is_some() {
            self.enqueue(opcode, payload, fin, max, masking);
        } else if payload.len() >= DIRECT_BYTES && !masking {
            self.send_direct(opcode, payload, fin, max);
        } else {
            let shared = &mut *self.shared;
            if payload.len() <= max && !masking {
                write_frame(&mut shared.tx, fin, opcode, payload, None);
            } else {
                encode(shared, opcode, payload, fin, max, masking);
            }
            if self.shared.tx.len() >= self.shared.tx_flush_bytes {
                self.flush();
            }
        }
        Ok(())
    }

    /// Adds a message to what waits already.
    #[cold]
    fn enqueue(&mut self, opcode: OpCode, payload: &[u8], fin: bool, max: usize, masking: bool) {
        let start = self.shared.tx.len();
        encode(self.shared, opcode, payload, fin, max, masking);
        let frames = self.shared.tx.split_off(start);
        self.state.extra().outbox.push_frames(frames);
    }

    /// Writes frames straight from the caller's payload, behind what the turn has gathered.
    #[cold]
    fn send_direct(&mut self, opcode: OpCode, payload: &[u8], fin: bool, max: usize) {
        let mut opcode = opcode;
        let mut pieces = payload.chunks(max).peekable();
        while let Some(piece) = pieces.next() {
            let fin = fin && pieces.peek().is_none();
            if self.state.waiting().is_some() || piece.len() < DIRECT_BYTES {
                let mut frame = Vec::with_capacity(piece.len() + 10);
                write_frame(&mut frame, fin, opcode, piece, None);
                match self.state.waiting() {
                    // Of one message that was admitted as a whole.
                    Some(outbox) => outbox.push_frames(frame),
                    None => self.shared.tx.extend_from_slice(&frame),
                }
            } else {
                self.write_through(opcode, piece, fin);
            }
            opcode = OpCode::Continuation;
        }
    }

    fn write_through(&mut self, opcode: OpCode, piece: &[u8], fin: bool) {
        if self.shared.opaque_prefix > 0 {
            self.flush(); // the upgrade answer is no frame: it goes first and alone
            if self.state.waiting().is_some() {
                let mut frame = Vec::with_capacity(piece.len() + 10);
                write_frame(&mut frame, fin, opcode, piece, None);
                self.state.extra().outbox.push_frames(frame);
                return;
            }
        }
        let header_at = self.shared.tx.len();
        write_header(&mut self.shared.tx, fin, opcode, piece.len(), None);
        let total = self.shared.tx.len() + piece.len();
        let written =
            self.wire.write_vectored(&[IoSlice::new(&self.shared.tx), IoSlice::new(piece)]);
        match written {
            Ok(written) if written >= total => {}
            Ok(written) => {
                let mut frame = self.shared.tx.split_off(header_at);
                frame.extend_from_slice(piece);
                self.keep_rest(written.min(header_at));
                let outbox = &mut self.state.extra().outbox;
                outbox.push_rest(&frame, written.saturating_sub(header_at));
            }
            Err(kind) => self.state.note_fault(SessionError::Network(kind)),
        }
        self.shared.tx.clear();
    }

    /// Writes what the turn has gathered; what the socket does not take waits in the outbox.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.shared.tx.is_empty() {
            return;
        }
        match self.wire.write(&self.shared.tx) {
            Ok(written) if written >= self.shared.tx.len() => {}
            Ok(written) => self.keep_rest(written),
            Err(kind) => self.state.note_fault(SessionError::Network(kind)),
        }
        self.shared.tx.clear();
        self.shared.opaque_prefix = 0;
    }

    /// Moves the turn's buffer, of which `written` bytes went out, into the outbox.
    #[cold]
    fn keep_rest(&mut self, written: usize) {
        let prefix = self.shared.opaque_prefix;
        let (opaque, frames) = self.shared.tx.split_at(prefix.min(self.shared.tx.len()));
        let now = self.shared.now;
        let patience = now.after(self.state.options(self.route).write_timeout);
        let closing = self.state.phase == Phase::Closing;
        let extra = self.state.extra();
        if extra.outbox.is_empty() {
            extra.progress = now;
        }
        if closing {
            // Our Close waits too, as in `close`.
            extra.deadline = Some(patience);
        }
        if let Some(rest) = opaque.get(written..).filter(|rest| !rest.is_empty()) {
            extra.outbox.push_opaque(rest.to_vec());
        }
        extra.outbox.push_rest(frames, written.saturating_sub(prefix));
        self.state.timing_changed = true; // the write timeout
    }

    /// Sends a control frame; it overtakes what waits, at the next frame boundary.
    pub(crate) fn send_control(&mut self, opcode: OpCode, payload: &[u8]) {
        let mask = self.mask();
        if self.state.waiting().is_none() {
            write_frame(&mut self.shared.tx, true, opcode, payload, mask);
            return;
        }
        let mut frame = Vec::with_capacity(payload.len() + 6);
        write_frame(&mut frame, true, opcode, payload, mask);
        // Without room it is dropped: RFC 6455 section 5.5.3 lets an endpoint answer only the most
        // recent ping, and a peer that does not read gets no answers anyway.
        let _ = self.state.extra().outbox.push_control(&frame);
    }

    /// Queues a Close: behind what waits, or (`now`) in place of what has not begun.
    pub(crate) fn queue_close(&mut self, reason: Option<&CloseReason>, now: bool) {
        let mask = self.mask();
        if self.state.waiting().is_none() {
            write_close(&mut self.shared.tx, reason, mask);
            return;
        }
        let mut frame = Vec::new();
        write_close(&mut frame, reason, mask);
        let outbox = &mut self.state.extra().outbox;
        if now {
            outbox.push_close_now(&frame);
        } else {
            outbox.push_close(&frame);
        }
    }

    fn mask(&mut self) -> Option<[u8; 4]> {
        self.state.options(self.route).masking.then(|| self.shared.masks.next_mask())
    }
}

/// Encodes a payload as frames of at most `max` bytes to the end of the turn's buffer.
fn encode(
    shared: &mut Shared,
    opcode: OpCode,
    payload: &[u8],
    fin: bool,
    max: usize,
    masking: bool,
) {
    let mut opcode = opcode;
    let mut rest = payload;
    loop {
        let (piece, later) = rest.split_at(rest.len().min(max));
        let mask = masking.then(|| shared.masks.next_mask());
        write_frame(&mut shared.tx, fin && later.is_empty(), opcode, piece, mask);
        if later.is_empty() {
            return;
        }
        opcode = OpCode::Continuation;
        rest = later;
    }
}

/// The address of a peer that has none, such as a Unix socket's.
pub(crate) const NO_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

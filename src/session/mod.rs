//! Layer 5, session: a session as its handler sees it, its state, and how its bytes leave.

pub(crate) mod collect;
pub(crate) mod deliver_flows;
pub(crate) mod encode;
pub(crate) mod extensions;
pub(crate) mod pause_and_timers;
pub(crate) mod send;
pub(crate) mod send_frame;
#[cfg(feature = "json")]
mod serialized;
pub(crate) mod state;
pub(crate) mod subscriptions;
pub(crate) mod unread_input;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::frame::{CONTROL_PAYLOAD_MAX, OpCode};
use crate::structures::ids::SessionId;
use crate::structures::wire::Wire;
use crate::words::bounds::check_time;
use crate::words::close::{CloseInfo, CloseReason, ClosedBy};
use crate::words::error::{ConfigError, HandlerResult, SendError};
use crate::words::message::Message;
use crate::words::options::{OutboxOverflow, SessionOptions};

use crate::context::loop_state::LoopState;
use crate::context::loop_state::ServerRef;
use crate::session::send::Admission;
use crate::session::state::{Phase, SessionState};

/// A session, lent to its handler for the time of a hook.
///
/// What it does, it does at once on this session; nothing here blocks.
///
/// What it knows and does, besides sending and closing:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{HandlerResult, OutboxOverflow, Session, SharedFlow};
///
/// fn look_around(session: &mut Session<'_>, news: &SharedFlow) -> HandlerResult {
///     println!("{} at {}, for {}", session.id(), session.remote_addr(), session.client_addr());
///     println!("rtt {:?}, silent for {:?}", session.rtt(), session.last_activity());
///     println!("{} bytes wait, {} messages dropped", session.buffered_bytes(), session.dropped());
///     println!("agreed: {:?}", session.extensions().collect::<Vec<_>>());
///     println!("deflate: {}", session.extension("permessage-deflate").is_some());
///     println!("paused: {}, ends: {:?}", session.is_paused(), session.close_info());
///     println!("{} sessions", session.server().session_count());
///
///     session.set_ping_period(Duration::from_secs(5))?;
///     session.set_timeout(Duration::from_secs(5))?;
///     session.set_max_frame_size(4 << 10)?;
///     session.set_masking(false);
///     session.set_on_outbox_full(OutboxOverflow::DropOldest);
///     let timer = session.set_timer(Duration::from_secs(1))?;
///     session.cancel_timer(timer);
///
///     let me = session.id();
///     session.collect_others(news)?; // or collect, or
///     session.collect_if(news, move |message, from| message.is_text() && from != Some(me))?;
///     session.emit(news, "here I am")?;
///     session.emit_latest(news, "last", "for flows that keep the newest of each key")?;
///     session.stop_collecting(news);
///     println!("{} of the flow's messages missed", session.missed());
///     Ok(())
/// }
/// ```
pub struct Session<'a> {
    pub(crate) state: &'a mut SessionState,
    pub(crate) shared: &'a mut LoopState,
    pub(crate) route: &'a SessionOptions,
    pub(crate) wire: &'a mut dyn Wire,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What a session does with messages.
impl Session<'_> {
    /// Sends a text or binary message (Ktor's `send`). It is written with the other replies of this
    /// turn; if the peer does not read, it waits in the outbox.
    ///
    /// # Errors
    /// Always a [`HandlerError::Send`](crate::HandlerError::Send): [`SendError::Closing`] on a
    /// session that is closing, [`SendError::TooBig`] over `max_outgoing_message_size` (neither ends
    /// anything where a hook returns it), [`SendError::Full`] when the outbox has no room and its policy
    /// does not drop (by default the session then ends with 1013).
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
        if self.is_plain_for(message.bytes().len()) {
            self.transmit_plain(&message);
            return Ok(());
        }
        self.send_with_care(message)
    }

    /// Any message in any state of the session.
    #[inline(never)]
    fn send_with_care(&mut self, message: Message<'_>) -> HandlerResult {
        if self.state.fragments_text.is_some() {
            return Err(SendError::Fragments.into());
        }
        if self.state.pipeline.is_some() && self.has_extensions() {
            return self.send_through_extensions(message);
        }
        if self.admit(message.bytes().len())? == Admission::Send {
            let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
            self.transmit(opcode, message.bytes(), true);
        }
        Ok(())
    }

    /// Sends one fragment of a message (Ktor's `send(Frame.Text(fin = false, ..))`): the kind is
    /// the first one's, `fin` ends the message. Control frames may go out in between, other
    /// messages may not. Where extensions were agreed on, the fragments are kept and go out as one
    /// message when it ends, at most `max_outgoing_message_size` in all: the last one has to find room for
    /// all. An outbox whose policy is to drop refuses a fragment instead. What was refused changes
    /// nothing: it can be sent again, shorter or when there is room.
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
        // Fragments that extensions keep go out with the last one, and have to find room with it.
        let kept = if fin { self.kept_fragments() } else { 0 };
        let admission = self.admit(piece.bytes().len().saturating_add(kept))?;
        let opcode = match self.state.fragments_text {
            Some(text) if text != piece.is_text() => return Err(SendError::Fragments.into()),
            Some(_) => OpCode::Continuation,
            None if piece.is_text() => OpCode::Text,
            None => OpCode::Binary,
        };
        if admission == Admission::Drop {
            return Err(SendError::Full { buffered: self.buffered_bytes() }.into());
        }
        if self.has_extensions() {
            self.keep_fragment(piece, fin)?;
        } else {
            self.transmit(opcode, piece.bytes(), fin);
        }
        self.state.fragments_text = if fin { None } else { Some(piece.is_text()) };
        if fin && self.state.collected.is_some() {
            self.state.list_for_flush(self.shared); // flow messages may have waited for the end
        }
        Ok(())
    }

    /// Sends a ping of the application's own, at most 125 bytes. It overtakes queued messages; its
    /// pong comes to [`on_own_pong`](crate::Handler::on_own_pong) with the same payload. Of several that
    /// wait a peer may answer the last alone. (The server's own pings come back to
    /// [`on_pong`](crate::Handler::on_pong).)
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
        self.send_checked_control(OpCode::Ping, payload)
    }

    /// Sends a pong that nobody asked for, at most 125 bytes: a sign of life that wants no answer
    /// (RFC 6455 section 5.5.3). Pings of the peer are answered without it. It overtakes queued
    /// messages.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Session};
    /// fn still_here(session: &mut Session<'_>) -> HandlerResult {
    ///     session.pong(b"")
    /// }
    /// ```
    pub fn pong(&mut self, payload: &[u8]) -> HandlerResult {
        self.send_checked_control(OpCode::Pong, payload)
    }

    fn send_checked_control(&mut self, opcode: OpCode, payload: &[u8]) -> HandlerResult {
        self.check_open()?;
        if payload.len() > CONTROL_PAYLOAD_MAX {
            let error = SendError::TooBig { bytes: payload.len(), limit: CONTROL_PAYLOAD_MAX };
            return Err(error.into());
        }
        self.send_control(opcode, payload);
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
        let (code, text) = (reason.code(), reason.text());
        self.begin_closing(CloseInfo::new(code, text, ClosedBy::Server, false));
        Ok(())
    }

    /// Our Close is queued: from here the peer's is awaited. One that came before stays the truth.
    pub(crate) fn begin_closing(&mut self, info: CloseInfo) {
        let (now, patience) = (self.shared.now, self.shared.limits.close_timeout);
        let extra = self.state.extra();
        match &mut extra.close {
            Some(first) => first.note_second(info.code(), info.text()),
            None => extra.close = Some(info),
        }
        extra.await_peer(now, patience);
        self.state.phase = Phase::Closing;
        self.state.timing_changed = true;
        self.lift_hold();
    }

    /// Ends the connection at once, without a Close and without what is queued (Ktor's `cancel` on
    /// a raw session): the peer sees a reset. `on_close` says 1006, or what was known before: an `abort`
    /// behind a [`close`](Self::close) does not change the end.
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

    /// The client's address; see [`Call::client_addr`](crate::Call::client_addr).
    pub fn client_addr(&self) -> SocketAddr {
        self.state.client_addr()
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
        self.state.queued().0 + self.shared.tx.len()
    }

    /// Messages that were dropped because the peer did not read and the outbox's policy is to drop,
    /// and those that others sent here and that could not be taken: too big, within a message in
    /// fragments, or refused by [`OutboxOverflow::Block`]. (Flow messages that it did not get are
    /// [`missed`](Self::missed).)
    pub fn dropped(&self) -> u64 {
        self.state.extra.as_deref().map_or(0, |extra| extra.dropped)
    }

    pub(crate) fn note_dropped(&mut self) {
        self.state.extra().dropped += 1;
    }

    /// The server it runs on: other sessions, timers, statistics, a stop.
    pub fn server(&mut self) -> ServerRef<'_> {
        ServerRef { shared: self.shared }
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
            if self.state.is_raw() {
                let mistake = "ping_period: a raw session sends its own pings, with send_frame";
                return Err(ConfigError(mistake.into()));
            }
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
        let mut changed = self.own_options().clone();
        changed.max_frame_size = bytes;
        changed.check().map_err(ConfigError)?;
        changed.resolve(self.shared.limits.process_bytes);
        *self.own_options() = changed;
        Ok(())
    }

    /// Masks what this session sends from now on, or stops it (Ktor's `masking`).
    pub fn set_masking(&mut self, on: bool) {
        self.own_options().masking = on;
    }

    /// Changes what happens to a message that does not fit in this session's outbox.
    pub fn set_on_outbox_full(&mut self, policy: OutboxOverflow) {
        self.own_options().on_outbox_full = policy;
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

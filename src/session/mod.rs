//! The room `session`: a session as its handler sees it, its state, and how its bytes leave.

pub(crate) mod agreement;
#[cfg(feature = "client")]
pub(crate) mod byte_stream;
pub(crate) mod collect;
pub(crate) mod deliver_flows;
pub(crate) mod encode;
pub(crate) mod event_stream;
pub(crate) mod extensions;
pub(crate) mod message_stream;
pub(crate) mod outbox_admission;
pub(crate) mod peer;
pub(crate) mod read_pause;
pub(crate) mod send;
pub(crate) mod send_event;
pub(crate) mod send_frame;
pub(crate) mod send_message;
pub(crate) mod send_pieces;
mod settings;
pub(crate) mod state;
pub(crate) mod subscriptions;

use std::fmt;
#[cfg(feature = "json")]
use std::rc::Rc;

#[cfg(feature = "json")]
use serde::{Deserialize, Serialize};

use crate::flow::prepared::PreparedMessage;
#[cfg(feature = "json")]
use crate::protocol::content::{ContentConverter, Converter};
use crate::protocol::frame::{CONTROL_PAYLOAD_MAX, OpCode};
use crate::words::close::{CloseInfo, CloseReason, CloseReasonError, ClosedBy};
#[cfg(feature = "json")]
use crate::words::convert::ConvertError;
use crate::words::error::{HandlerResult, SendError};
use crate::words::frame::Frame;
use crate::words::message::{AsMessage, Message};
#[cfg(feature = "json")]
use crate::words::message_buf::MessageBuf;

use crate::session::message_stream::{MessageStream, StreamedMessage};
use crate::session::send::Outgoing;
use crate::session::send_event::EventOutput;
use crate::session::send_message::MessageOutput;
use crate::session::send_pieces::PieceOutput;
use crate::session::state::Phase;

/// A session, lent to its handler for the time of a hook.
///
/// What it does, it does at once on this session; nothing here blocks.
///
/// What it knows and does, besides sending and closing:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::flow::SharedFlow;
/// use wirewheel::options::OutboxOverflow;
/// use wirewheel::{HandlerResult, Session};
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
///     session.collect_if(news, move |news| news.message().is_text() && news.publisher() != Some(me))?;
///     session.emit(news, "here I am")?;
///     session.emit_latest(news, "last", "for flows that keep the newest of each key")?;
///     session.stop_collecting(news);
///     println!("{} of the flow's messages missed", session.missed());
///     Ok(())
/// }
/// ```
pub struct Session<'a> {
    pub(crate) out: Outgoing<'a>,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.out.state).finish_non_exhaustive()
    }
}

/// What a session does with messages.
impl Session<'_> {
    /// Sends a text or binary message (Ktor's `send`). It is written with the other replies of this
    /// turn; if the peer does not read, it waits in the outbox.
    ///
    /// # Errors
    /// Always a [`HandlerError::Send`](crate::error::HandlerError::Send): [`SendError::Closing`] on a
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
    pub fn send(&mut self, message: impl AsMessage) -> HandlerResult {
        let message = message.as_message();
        if self.out.takes_fast(message.bytes().len()) {
            self.out.send_fast(&message);
            return Ok(());
        }
        self.send_slow(message)
    }

    /// Any message in any state of the session.
    #[inline(never)]
    fn send_slow(&mut self, message: Message<'_>) -> HandlerResult {
        MessageOutput { out: &mut self.out }.send(message)
    }

    /// Sends a message that was prepared for many sessions; see [`PreparedMessage`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// ```
    /// use wirewheel::message::PreparedMessage;
    /// use wirewheel::{Application, Call, WebSockets, on_connect};
    /// fn module(app: &mut Application) {
    ///     let welcome = PreparedMessage::new("a long text that everybody gets");
    ///     app.install(WebSockets::new());
    ///     app.routing(move |route| {
    ///         route.web_socket("/", move |_call: &Call| {
    ///             let welcome = welcome.clone();
    ///             on_connect(move |session, _call| session.send_prepared(&welcome))
    ///         });
    ///     });
    /// }
    /// ```
    pub fn send_prepared(&mut self, message: &PreparedMessage) -> HandlerResult {
        MessageOutput { out: &mut self.out }.send_prepared(message)
    }

    /// Sends a message to an event stream as an event with a name, for which a page listens by
    /// `addEventListener`. One that is sent by [`send`](Self::send) has none, for `onmessage`.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::NotEventStream`] in a WebSocket session,
    /// [`SendError::BadEventName`] for a name that is empty or has a line break.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Session};
    /// fn warn(session: &mut Session<'_>) -> HandlerResult {
    ///     session.send_event("alarm", "the door is open")
    /// }
    /// ```
    pub fn send_event(&mut self, name: &str, message: impl AsMessage) -> HandlerResult {
        Ok(EventOutput { out: &mut self.out }.send_named(name, message.as_message())?)
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
    pub fn send_fragment(&mut self, piece: impl AsMessage, fin: bool) -> HandlerResult {
        self.out.send_fragment(piece.as_message(), fin)
    }

    /// Sends a piece of a message of which nothing is kept: it goes out as a fragment, and where
    /// permessage-deflate was agreed on it is compressed by itself, which costs some of the gain of
    /// [`send_fragment`](Self::send_fragment) and no memory. `last` ends the message. Control frames may go
    /// out in between, other messages may not. The message may have any length, each piece
    /// `max_outgoing_message_size`. An outbox whose policy is to drop refuses a piece instead; what was
    /// refused changes nothing, and can be sent again when there is room.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::Fragments`] if the kind changes within a message, or
    /// `send_fragment` has begun it; [`SendError::WholeOnly`] on an event stream, and where an extension was
    /// agreed on that [needs messages whole](crate::extension::Extension::in_pieces).
    ///
    /// ```
    /// use wirewheel::pieces::Piece;
    /// use wirewheel::{HandlerResult, Session};
    /// fn echo(session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
    ///     session.send_piece(piece, piece.is_last())
    /// }
    /// ```
    pub fn send_piece(&mut self, piece: impl AsMessage, last: bool) -> HandlerResult {
        PieceOutput { out: &mut self.out }.send(piece.as_message(), last)
    }

    /// Sends a message that is made while it is sent; see [`MessageStream`]. Its pieces go out as fragments,
    /// from the end of this turn on, each when the peer has taken the one before, with control frames between
    /// them. Whatever else is sent to this session after it waits behind it, flow messages and a Close too,
    /// and is held to the limits of the outbox.
    ///
    /// Where `produce` fails, panics, or writes no UTF-8 in a text, the session ends with 1011. A Close of
    /// the peer ends the message as well, and what waits behind it counts as [`dropped`](Self::dropped).
    ///
    /// # Errors
    /// As [`send`](Self::send), but for `TooBig`: each piece may have `max_outgoing_message_size`, of which
    /// more ends the session with 1011. [`SendError::WholeOnly`] as with [`send_piece`](Self::send_piece).
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::{self, Read};
    /// use wirewheel::pieces::MessageStream;
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn on_message(session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
    ///     let mut log = File::open("/var/log/messages")?;
    ///     session.send_stream(MessageStream::binary(move |piece| {
    ///         io::copy(&mut log.by_ref().take(32 << 10), piece).map(drop)
    ///     }))
    /// }
    /// ```
    pub fn send_stream(&mut self, stream: MessageStream) -> HandlerResult {
        if self.out.state.fragments_text.is_some() {
            return Err(SendError::Fragments.into());
        }
        PieceOutput { out: &mut self.out }.check()?;
        let admission = self.out.admit(0)?;
        let send = |out: &mut Outgoing<'_>| {
            out.push_stream(Box::new(StreamedMessage::new(stream)));
            Ok(())
        };
        Ok(self.out.send_admitted(admission, send)?)
    }

    /// Sends a ping of the application's own, at most 125 bytes. It overtakes queued messages; its
    /// pong comes to [`on_own_pong`](crate::Handler::on_own_pong) with the same payload. Of several that
    /// wait a peer may answer the last alone. (The server's own pings come back to
    /// [`on_pong`](crate::Handler::on_pong).) On an event stream it is a heartbeat, which nobody answers.
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
        self.out.check_open()?;
        // RFC 6455 section 5.5: the length of a control frame fits seven bits below 126.
        if payload.len() > CONTROL_PAYLOAD_MAX {
            let error = SendError::TooBig { bytes: payload.len(), limit: CONTROL_PAYLOAD_MAX };
            return Err(error.into());
        }
        if self.out.state.is_event_stream() {
            EventOutput { out: &mut self.out }.heartbeat();
        } else {
            self.out.send_control(opcode, payload);
            self.out.flush_if_full();
        }
        Ok(())
    }

    /// Starts the closing handshake: what was sent before still goes out, no message is delivered
    /// any more, and `on_close` follows when the peer has answered or `close_timeout` is over. The
    /// first Close counts. `reason` is a [`CloseReason`], or a [`CloseCode`](crate::CloseCode) without a
    /// text. An event stream has no handshake: it ends behind what was sent before, its client is not told
    /// the reason, and connects again.
    ///
    /// # Errors
    /// [`SendError::Closing`] if the session is closing already, [`SendError::CloseReason`] for a code that
    /// may not be sent.
    ///
    /// ```
    /// use wirewheel::{CloseCode, CloseReason, HandlerResult, Session};
    /// fn bye(session: &mut Session<'_>, has_said_bye: bool) -> HandlerResult {
    ///     match has_said_bye {
    ///         true => session.close(CloseReason::new(CloseCode::NORMAL, "Client said BYE")?),
    ///         false => session.close(CloseCode::GOING_AWAY),
    ///     }
    /// }
    /// ```
    pub fn close(
        &mut self,
        reason: impl TryInto<CloseReason, Error: Into<CloseReasonError>>,
    ) -> HandlerResult {
        let reason = CloseReason::checked(reason).map_err(SendError::from)?;
        self.begin_close(&reason)
    }

    pub(crate) fn begin_close(&mut self, reason: &CloseReason) -> HandlerResult {
        self.out.check_open()?;
        // Behind all that was accepted before it: what was accepted arrives.
        self.out.queue_close(Some(reason), false);
        let (code, text) = (reason.code(), reason.text());
        self.out.begin_closing(CloseInfo::new(code, text, ClosedBy::Local, false));
        Ok(())
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
        // Acted on after the hook: the session is still lent to it.
        self.out.state.extra().aborted = true;
    }

    /// Whether the peer's Close was handed to a raw handler that has not answered it.
    pub(crate) fn owes_close(&self) -> bool {
        let state = &self.out.state;
        state.is_raw() && state.phase == Phase::Open && self.close_info().is_some()
    }
}

/// What a raw session does with frames.
impl Session<'_> {
    /// Sends a frame of a raw session as it is: not cut, not encoded, masked only if `masking` is
    /// on. The order of fragments and the reserved bits are the caller's business; messages of flows
    /// that it collects never come between them. A Close begins or completes the closing handshake;
    /// it goes behind all that was sent and published before it, and nothing can be sent behind it.
    /// A fragment is never dropped, nor is what an agreed extension encoded in the context of other messages
    /// (a frame with a reserved bit): where the outbox's policy would, it is refused.
    ///
    /// # Errors
    /// [`SendError::NotRaw`] in a session that is handed messages, which sends with
    /// [`send`](Self::send) and [`send_fragment`](Self::send_fragment). [`SendError::BadFrame`] for a
    /// control frame that is a fragment, and a Close whose payload is not legal;
    /// [`SendError::TooBig`] for one over 125 bytes, and for data over `max_frame_size`; a frame of a
    /// message that a negotiated extension encodes may have a little more, as it may when it comes.
    /// [`SendError::Closing`] and [`SendError::Full`] as with `send`.
    ///
    /// ```
    /// use wirewheel::raw::{Frame, OpCode};
    /// use wirewheel::{HandlerResult, Session};
    /// fn nudge(session: &mut Session<'_>) -> HandlerResult {
    ///     session.send_frame(Frame::new(OpCode::Ping, b"still there?"))
    /// }
    /// ```
    pub fn send_frame(&mut self, frame: Frame<'_>) -> HandlerResult {
        self.out.send_frame(frame)
    }
}

#[cfg(feature = "json")]
/// What a session does with values; feature `json`.
impl Session<'_> {
    /// Sends a value as the installed converter writes it (Ktor's `sendSerialized`).
    ///
    /// # Errors
    /// [`HandlerError::Convert`](crate::error::HandlerError::Convert) if there is no converter or the value
    /// has no form in its format; else as [`send`](Self::send).
    pub fn send_serialized<T: Serialize + ?Sized>(&mut self, value: &T) -> HandlerResult {
        let message = self.serialized(&value)?;
        self.send(&message)
    }

    /// Prepares a value for many sessions, as the installed converter writes it; see [`PreparedMessage`].
    ///
    /// # Errors
    /// [`HandlerError::Convert`](crate::error::HandlerError::Convert) if there is no converter or the value
    /// has no form in its format.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session, SessionId};
    /// fn relay(session: &mut Session<'_>, message: Message<'_>, to: &[SessionId]) -> HandlerResult {
    ///     let (x, y): (i32, i32) = session.deserialize(&message)?;
    ///     let prepared = session.prepare_serialized(&(-x, y))?;
    ///     let mut server = session.server();
    ///     Ok(to.iter().try_for_each(|id| server.send_prepared(*id, &prepared))?)
    /// }
    /// ```
    pub fn prepare_serialized<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> HandlerResult<PreparedMessage> {
        Ok(PreparedMessage::new(self.serialized(&value)?))
    }

    fn serialized<T: Serialize + ?Sized>(&self, value: &T) -> Result<MessageBuf, ConvertError> {
        let message = self.converter()?.serialize(&value);
        message.map_err(|error| ConvertError::BadValue { reason: error.to_string() })
    }

    /// Reads a value from a message as the installed converter understands it (Ktor's
    /// `receiveDeserialized`). What the value borrows, it borrows from the message.
    ///
    /// # Errors
    /// [`ConvertError::NoConverter`], [`ConvertError::WrongKind`] and [`ConvertError::BadData`]; from a
    /// hook they end the session with 1011, 1003 and 1007.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn on_message(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///     match session.deserialize::<(u32, &str)>(&message) {
    ///         Ok((number, name)) => session.send_serialized(&[number.to_string().as_str(), name]),
    ///         Err(error) => session.send(&format!("not understood: {error}")),
    ///     }
    /// }
    /// ```
    pub fn deserialize<'m, T: Deserialize<'m>>(
        &self,
        message: &Message<'m>,
    ) -> Result<T, ConvertError> {
        let converter = self.converter()?;
        if !converter.accepts(message.is_text()) {
            return Err(ConvertError::wrong_kind(message));
        }
        Converter::read_value(&*converter, message.bytes())
            .map_err(|error| ConvertError::bad_data(message, &error))
    }

    fn converter(&self) -> Result<Rc<dyn ContentConverter>, ConvertError> {
        let of_route = self.out.shared.converter_of(self.out.state.route);
        of_route.and_then(|converter| converter.0.clone()).ok_or(ConvertError::NoConverter)
    }
}

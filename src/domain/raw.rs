//! Owns the hooks of a raw session, the same from closures, and how such a session sends frames.

use crate::protocol::close::read_close;
use crate::protocol::frame::{CONTROL_PAYLOAD_MAX, OpCode, write_frame_with};
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::{HandlerResult, SendError, SessionError};
use crate::words::frame::Frame;

use super::call::Call;
use super::collected::Direct;
use super::handler::{Hooks, Idle, hook};
use super::session::Session;
use super::session_state::Phase;
use super::timers::TimerId;
use super::transmit::Admission;

/// What a raw session does (Ktor's `webSocketRaw` block): every frame is handed over as it comes,
/// control frames and fragments included, and nothing is answered by itself: no pong, no Close. The
/// server does not ping raw sessions either: set `idle_timeout`, or send pings, where peers may vanish.
///
/// What stays: masks, reserved bits, opcodes, lengths, the order of fragments, the payload of a Close
/// and `max_frame_size` are checked, and a peer that breaks them is failed as in any session.
/// `max_message_size` and `max_fragments` do not apply: nothing is put together. Text is not checked
/// to be UTF-8.
///
/// The session ends when a Close was both sent and received, or with the connection. Once one of
/// the two is done, `close_timeout` bounds the wait for the other. After the peer's Close no frame is
/// handed over any more, as it may send none (RFC 6455 section 5.5.1).
///
/// ```
/// use wirewheel::{Application, Frame, HandlerResult, OpCode, RawHandler, Session, WebSockets};
///
/// struct Mirror;
///
/// impl RawHandler for Mirror {
///     fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
///         match frame.opcode {
///             OpCode::Ping => session.send_frame(Frame { opcode: OpCode::Pong, ..frame }),
///             OpCode::Pong => Ok(()),
///             _ => session.send_frame(frame), // data as it is; a Close is answered with itself
///         }
///     }
/// }
///
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| { route.web_socket_raw("/raw", |_call| Mirror); });
/// }
/// ```
///
/// All hooks:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{
///     Call, CloseInfo, Frame, HandlerResult, OpCode, RawHandler, Session, SessionError, TimerId,
/// };
/// struct Pinger;
/// impl RawHandler for Pinger {
///     fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
///         session.set_timer(Duration::from_secs(10))?;
///         Ok(())
///     }
///     fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
///         session.set_timer(Duration::from_secs(10))?;
///         session.send_frame(Frame::new(OpCode::Ping, b"there?"))
///     }
///     fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
///         if frame.opcode == OpCode::Close { session.send_frame(frame) } else { Ok(()) }
///     }
///     fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
///         Ok(session.resume())
///     }
///     fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
///         eprintln!("{error}");
///     }
///     fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
///         println!("closed: {}", close.code());
///     }
/// }
/// ```
pub trait RawHandler {
    /// The upgrade is done; see [`Handler::on_connect`](crate::Handler::on_connect).
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let _ = (session, call);
        Ok(())
    }

    /// A frame arrived, whole and unmasked. One that came in one read is borrowed from the read
    /// buffer.
    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        let _ = (session, frame);
        Ok(())
    }

    /// What was waiting is written; see [`Handler::on_drain`](crate::Handler::on_drain).
    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let _ = session;
        Ok(())
    }

    /// A timer is over; see [`Handler::on_timer`](crate::Handler::on_timer).
    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        let _ = (session, timer);
        Ok(())
    }

    /// Something failed; see [`Handler::on_error`](crate::Handler::on_error).
    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        let _ = (session, error);
    }

    /// The session is over; see [`Handler::on_close`](crate::Handler::on_close).
    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let _ = (session, close);
    }
}

/// Begins a raw handler of closures; [`Hooks::on_connect`], [`Hooks::on_error`] and
/// [`Hooks::on_close`] add to it.
///
/// ```
/// use wirewheel::{Application, Call, WebSockets, on_frame};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket_raw("/raw", |_call: &Call| {
///             on_frame(|session, frame| session.send_frame(frame))
///         });
///     });
/// }
/// ```
pub fn on_frame<F>(hook: F) -> Hooks<Idle, OnFrame<F>>
where
    F: FnMut(&mut Session<'_>, Frame<'_>) -> HandlerResult,
{
    Hooks::receiving(OnFrame(hook))
}

/// The place of [`Hooks`] that makes it a raw handler.
///
/// ```
/// use wirewheel::{Call, RawHandler, on_frame};
/// fn mirror(_call: &Call) -> impl RawHandler + use<> {
///     on_frame(|session, frame| session.send_frame(frame))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OnFrame<F>(F);

impl<C, F, D, T, E, X> RawHandler for Hooks<C, OnFrame<F>, Idle, Idle, Idle, D, T, E, X>
where
    C: hook::Connect,
    F: FnMut(&mut Session<'_>, Frame<'_>) -> HandlerResult,
    D: hook::Drain,
    T: hook::Timer,
    E: hook::Fail,
    X: hook::Close,
{
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.connect.run(session, call)
    }

    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        (self.receive.0)(session, frame)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.drain.run(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.timer.run(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.fail.run(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.close.run(session, close);
    }
}

/// What a raw session does with frames.
impl Session<'_> {
    /// Sends a frame of a raw session as it is: not cut, not encoded, masked only if `masking` is
    /// on. The order of fragments and the reserved bits are the caller's business; messages of flows
    /// that it collects never come between them. A Close begins or completes the closing handshake;
    /// it goes behind all that was sent and published before it, and nothing can be sent behind it.
    /// A fragment is never dropped: where the outbox's policy would, it is refused.
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
    /// use wirewheel::{Frame, HandlerResult, OpCode, Session};
    /// fn nudge(session: &mut Session<'_>) -> HandlerResult {
    ///     session.send_frame(Frame::new(OpCode::Ping, b"still there?"))
    /// }
    /// ```
    pub fn send_frame(&mut self, frame: Frame<'_>) -> HandlerResult {
        if !self.state.is_raw() {
            return Err(SendError::NotRaw.into());
        }
        let is_part = !frame.fin || frame.opcode == OpCode::Continuation;
        match self.check_frame(&frame)? {
            Admission::Drop if is_part => {
                return Err(SendError::Full { buffered: self.buffered_bytes() }.into());
            }
            Admission::Drop => return Ok(()),
            Admission::Send => {}
        }
        if frame.opcode == OpCode::Close {
            return self.send_raw_close(frame);
        }
        let mask = self.mask();
        let behind = !frame.opcode.is_control()
            && self.state.collected.is_some()
            && self.waits_for_flows(frame.opcode);
        self.note_fragment(&frame);
        if !behind && self.state.waiting().is_none() {
            self.write_now(|out| write_raw(out, frame, mask));
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(frame.payload.len() + 14);
        write_raw(&mut bytes, frame, mask);
        if behind {
            self.push_behind_flows(Direct::Frames(bytes));
        } else if !frame.opcode.is_control() {
            self.state.extra().outbox.push_frames(bytes);
        } else if !self.state.extra().outbox.push_control(&bytes) {
            let buffered = self.buffered_bytes();
            self.state.note_fault(SessionError::Overloaded);
            return Err(SendError::Full { buffered }.into());
        }
        Ok(())
    }

    /// Keeps flow messages out of a message in fragments, and lets them go on behind its end.
    fn note_fragment(&mut self, frame: &Frame<'_>) {
        let open = &mut self.state.fragments_text;
        match frame.opcode {
            OpCode::Ping | OpCode::Pong | OpCode::Close => return,
            OpCode::Text | OpCode::Binary if !frame.fin => {
                *open = Some(frame.opcode == OpCode::Text);
            }
            OpCode::Continuation if !frame.fin => {}
            OpCode::Text | OpCode::Binary | OpCode::Continuation => *open = None,
        }
        if frame.fin && self.state.collected.is_some() {
            self.shared.list_for_flush(self.state);
        }
    }

    fn check_frame(&mut self, frame: &Frame<'_>) -> Result<Admission, SendError> {
        self.check_open()?;
        let bytes = frame.payload.len();
        if !frame.opcode.is_control() {
            // A frame that a raw session may be handed it may send too.
            let rules = self.state.rules(self.route);
            let is_continuation = frame.opcode == OpCode::Continuation;
            return self.admit_within(bytes, rules.limit_of(frame.rsv.bits(), is_continuation));
        }
        if bytes > CONTROL_PAYLOAD_MAX {
            return Err(SendError::TooBig { bytes, limit: CONTROL_PAYLOAD_MAX });
        }
        if !frame.fin {
            return Err(SendError::BadFrame);
        }
        Ok(Admission::Send)
    }

    fn send_raw_close(&mut self, frame: Frame<'_>) -> HandlerResult {
        let close = read_close(frame.payload).map_err(|_| SendError::BadFrame)?;
        let (code, text) = close.unwrap_or((CloseCode::NO_STATUS, ""));
        let mask = self.mask();
        let mut bytes = Vec::with_capacity(frame.payload.len() + 6);
        write_raw(&mut bytes, frame, mask);
        self.queue_close_frame(bytes, false);
        self.begin_closing(CloseInfo::new(code, text, ClosedBy::Server, false));
        Ok(())
    }

    /// Whether the peer's Close was handed to a raw handler that has not answered it.
    pub(crate) fn owes_close(&self) -> bool {
        self.state.is_raw() && self.state.phase == Phase::Open && self.close_info().is_some()
    }
}

fn write_raw(out: &mut Vec<u8>, frame: Frame<'_>, mask: Option<[u8; 4]>) {
    write_frame_with(out, frame.fin, frame.rsv, frame.opcode, frame.payload, mask);
}

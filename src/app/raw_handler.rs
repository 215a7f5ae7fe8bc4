//! The hooks of a raw session, as a trait and as closures.

use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::frame::Frame;

use crate::app::call::Call;
use crate::app::handler::{Hooks, Idle, hook};
use crate::session::Session;
use crate::structures::ids::TimerId;

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
/// use wirewheel::raw::{Frame, OpCode, RawHandler};
/// use wirewheel::{Application, HandlerResult, Session, WebSockets};
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
/// use wirewheel::error::SessionError;
/// use wirewheel::raw::{Frame, OpCode, RawHandler};
/// use wirewheel::{Call, CloseInfo, HandlerResult, Session, TimerId};
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

/// A route's factory may choose between kinds of handlers.
impl<H: RawHandler + ?Sized> RawHandler for Box<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        (**self).on_connect(session, call)
    }

    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        (**self).on_frame(session, frame)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        (**self).on_drain(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        (**self).on_timer(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        (**self).on_error(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        (**self).on_close(session, close);
    }
}

/// Begins a raw handler of closures; [`Hooks::on_connect`], [`Hooks::on_error`] and
/// [`Hooks::on_close`] add to it.
///
/// ```
/// use wirewheel::raw::on_frame;
/// use wirewheel::{Application, Call, WebSockets};
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
/// use wirewheel::raw::{RawHandler, on_frame};
/// use wirewheel::Call;
/// fn mirror(_call: &Call) -> impl RawHandler + use<> {
///     on_frame(|session, frame| session.send_frame(frame))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OnFrame<F>(F);

// The hooks that both kinds of handler have run as in `Handler`. The traits are two, since a raw session has
// no messages and no pings of its own, and a supertrait for the five methods that they share would have to be
// implemented separately by every handler.
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

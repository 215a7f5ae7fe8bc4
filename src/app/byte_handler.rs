//! The hooks of a session that speaks a protocol of its own, over a connection that was dialled.

use crate::app::call::Call;
use crate::app::endpoint::Endpoint;
use crate::session::Session;
use crate::structures::ids::TimerId;
use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::message::Message;

/// What a session does that was dialled by [`connect_bytes`](crate::Application::connect_bytes): bytes come
/// as the connection brings them, in any pieces, and each [`send`](Session::send) goes out as it is. All else
/// is as in any session: the outbox and its policy, where each `send` is a message; `write_timeout`,
/// `idle_timeout`, timers, `pause`, flows. There are no pings: a protocol has its own, on a timer.
///
/// `close` ends it behind what was sent before. The other side's end is `on_close` with 1005.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::{ByteHandler, ConnectOptions};
/// use wirewheel::error::SessionError;
/// use wirewheel::{Application, CloseInfo, HandlerResult, Session, TimerId};
/// /// Lines from a device, which is asked for one each second.
/// #[derive(Default)]
/// struct Meter {
///     line: Vec<u8>,
/// }
/// impl ByteHandler for Meter {
///     fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
///         session.set_timer(Duration::from_secs(1))?;
///         session.send("read\n")
///     }
///     fn on_bytes(&mut self, _session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
///         for &byte in bytes {
///             match byte {
///                 b'\n' => println!("{:?}", String::from_utf8_lossy(&std::mem::take(&mut self.line))),
///                 _ if self.line.len() == 1_000 => return Err("a line without an end".into()),
///                 _ => self.line.push(byte),
///             }
///         }
///         Ok(())
///     }
///     fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
///         session.set_timer(Duration::from_secs(1))?;
///         session.send("read\n")
///     }
///     fn on_drain(&mut self, _session: &mut Session<'_>) -> HandlerResult {
///         Ok(()) // there is room again
///     }
///     fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
///         eprintln!("{error}");
///     }
///     fn on_close(&mut self, _session: &mut Session<'_>, _close: &CloseInfo) {}
///     fn bytes_held(&self) -> usize {
///         self.line.capacity()
///     }
/// }
/// fn module(app: &mut Application) {
///     app.connect_bytes("tcp://meter.example:502", ConnectOptions::new(), Meter::default);
/// }
/// ```
pub trait ByteHandler {
    /// The connection is there, and TLS where it is asked for.
    fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let _ = session;
        Ok(())
    }

    /// Some bytes have come, borrowed from the read buffer: at most `read_buffer_bytes`, over TLS up to two
    /// records (32 KiB) more. What they begin and do not end is for the handler to keep, up to a limit of its
    /// own, and to name in [`bytes_held`](Self::bytes_held).
    fn on_bytes(&mut self, session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult;

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

    /// Bytes of memory that it holds beside its own size, to be counted in
    /// [`process_bytes`](crate::Limits::process_bytes); asked after every hook. Default 0.
    fn bytes_held(&self) -> usize {
        0
    }
}

/// A session that is handed bytes.
pub(crate) struct OfBytes<H>(pub(crate) H);

impl<H: ByteHandler> Endpoint for OfBytes<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        self.0.on_connect(session)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.0.on_bytes(session, message.bytes())
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.0.on_drain(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.0.on_timer(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.0.on_error(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.0.on_close(session, close);
    }

    fn bytes_held(&self) -> usize {
        self.0.bytes_held()
    }
}

//! The interface that core calls: the hooks of a session, whatever kind of handler is behind them.

use std::time::Duration;

use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::frame::Frame;
use crate::words::message::Message;

use crate::app::call::Call;
use crate::app::handler::Handler;
use crate::app::raw_handler::RawHandler;
use crate::session::Session;
use crate::structures::ids::TimerId;

/// The hooks of one session. Each kind of handler implements those that its kind of session has.
pub(crate) trait Endpoint {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult;
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult;
    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult;
    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult;
    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult;
    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult;
    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult;
    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult;
    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError);
    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo);
}

/// A session that is handed messages.
pub(crate) struct OfMessages<H>(pub(crate) H);

impl<H: Handler> Endpoint for OfMessages<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.0.on_connect(session, call)
    }

    #[inline]
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.0.on_message(session, message)
    }

    fn on_frame(&mut self, _session: &mut Session<'_>, _frame: Frame<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.0.on_ping(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.0.on_pong(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.0.on_own_pong(session, payload)
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
}

/// A session that is handed frames.
pub(crate) struct OfFrames<H>(pub(crate) H);

impl<H: RawHandler> Endpoint for OfFrames<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.0.on_connect(session, call)
    }

    fn on_message(&mut self, _session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        self.0.on_frame(session, frame)
    }

    // To a raw session pings and pongs are frames as any other.
    fn on_ping(&mut self, _session: &mut Session<'_>, _payload: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn on_pong(&mut self, _session: &mut Session<'_>, _rtt: Duration) -> HandlerResult {
        Ok(())
    }

    fn on_own_pong(&mut self, _session: &mut Session<'_>, _payload: &[u8]) -> HandlerResult {
        Ok(())
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
}

//! The interface that core calls: the hooks of a session, whatever kind of handler is behind them.

use std::marker::PhantomData;
use std::time::Duration;

use crate::protocol::frame::FrameRules;
use crate::protocol::piece_reader::PieceStep;
use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::frame::Frame;
use crate::words::message::Message;
use crate::words::piece::Piece;

use crate::app::call::Call;
use crate::app::handler::Handler;
use crate::app::piece_handler::PieceHandler;
use crate::app::raw_handler::RawHandler;
use crate::session::Session;
use crate::session::extensions::Pipeline;
use crate::structures::ids::TimerId;

/// The hooks of one session. Each kind of handler implements those that its kind of session has; the others
/// do nothing.
pub(crate) trait Endpoint {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult;
    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult;
    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult;
    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError);
    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo);

    fn on_message(&mut self, _session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_frame(&mut self, _session: &mut Session<'_>, _frame: Frame<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_ping(&mut self, _session: &mut Session<'_>, _payload: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn on_pong(&mut self, _session: &mut Session<'_>, _rtt: Duration) -> HandlerResult {
        Ok(())
    }

    fn on_own_pong(&mut self, _session: &mut Session<'_>, _payload: &[u8]) -> HandlerResult {
        Ok(())
    }

    /// Reads a message in pieces. It is asked of a kind of endpoint, so that a program without any that
    /// takes pieces has no code for that.
    fn next_piece<'a>(
        &self,
        _pipeline: &mut Pipeline,
        _rx: &'a mut [u8],
        _rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        Ok((PieceStep::Nothing, 0))
    }

    fn on_piece(&mut self, _session: &mut Session<'_>, _piece: Piece<'_>) -> HandlerResult {
        Ok(())
    }

    /// What the handler keeps of what came, where it is handed bytes.
    fn bytes_held(&self) -> usize {
        0
    }
}

/// A session that is handed messages: whole, or as `D` has them.
pub(crate) struct OfMessages<H, D = Whole> {
    handler: H,
    delivery: PhantomData<D>,
}

impl<H, D> OfMessages<H, D> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler, delivery: PhantomData }
    }
}

/// How a handler is handed messages.
pub(crate) trait Deliver<H> {
    fn next_piece<'a>(
        pipeline: &mut Pipeline,
        rx: &'a mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError>;

    fn on_piece(handler: &mut H, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult;
}

/// Whole messages alone.
pub(crate) struct Whole;

impl<H: Handler> Deliver<H> for Whole {
    fn next_piece<'a>(
        _pipeline: &mut Pipeline,
        _rx: &'a mut [u8],
        _rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        Ok((PieceStep::Nothing, 0))
    }

    fn on_piece(_handler: &mut H, _session: &mut Session<'_>, _piece: Piece<'_>) -> HandlerResult {
        Ok(())
    }
}

/// In pieces.
pub(crate) struct InPieces;

impl<H: PieceHandler> Deliver<H> for InPieces {
    fn next_piece<'a>(
        pipeline: &mut Pipeline,
        rx: &'a mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        pipeline.next_piece(rx, rules)
    }

    fn on_piece(handler: &mut H, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
        handler.on_piece(session, piece)
    }
}

impl<H: Handler, D: Deliver<H>> Endpoint for OfMessages<H, D> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.handler.on_connect(session, call)
    }

    #[inline]
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.handler.on_message(session, message)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.handler.on_ping(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.handler.on_pong(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.handler.on_own_pong(session, payload)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.handler.on_drain(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.handler.on_timer(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.handler.on_error(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.handler.on_close(session, close);
    }

    fn next_piece<'a>(
        &self,
        pipeline: &mut Pipeline,
        rx: &'a mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        D::next_piece(pipeline, rx, rules)
    }

    fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
        D::on_piece(&mut self.handler, session, piece)
    }
}

/// A session that is handed frames, to which pings and pongs are frames as any other.
pub(crate) struct OfFrames<H>(pub(crate) H);

impl<H: RawHandler> Endpoint for OfFrames<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.0.on_connect(session, call)
    }

    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        self.0.on_frame(session, frame)
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

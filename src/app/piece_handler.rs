//! The handler that takes messages in pieces, as a trait and as a closure.

use crate::words::error::HandlerResult;
use crate::words::message::Message;
use crate::words::piece::Piece;

use crate::app::handler::{Handler, Hooks, Idle, hook};
use crate::session::Session;

/// A [`Handler`] of sessions that are handed messages in pieces; see [`pieces`](crate::pieces). Its
/// [`on_message`](Handler::on_message) is never called.
///
/// ```
/// use std::fs::File;
/// use std::io::Write;
/// use wirewheel::pieces::{Piece, PieceHandler};
/// use wirewheel::{CloseInfo, Handler, HandlerResult, Session};
///
/// /// Writes each message to a file.
/// struct Upload { file: Option<File> }
///
/// impl Handler for Upload {
///     fn on_close(&mut self, _session: &mut Session<'_>, _close: &CloseInfo) {
///         if self.file.is_some() {
///             println!("the last one has not come whole");
///         }
///     }
/// }
///
/// impl PieceHandler for Upload {
///     fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
///         if piece.is_first() {
///             self.file = Some(File::create("/tmp/upload")?);
///         }
///         if let Some(file) = &mut self.file {
///             file.write_all(piece.bytes())?;
///         }
///         if piece.is_last() {
///             self.file = None;
///             session.send("stored")?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait PieceHandler: Handler {
    /// A part of a message arrived. The parts of one message come in their order, and only control frames
    /// come between them: pings are answered already, and have their hooks. Not called after `close`, nor
    /// while the session is [paused](Session::pause).
    ///
    /// A session may end before the last piece: then `on_close` says so, and no piece follows.
    fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult;
}

/// A route's factory may choose between kinds of handlers.
impl<H: PieceHandler + ?Sized> PieceHandler for Box<H> {
    fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
        (**self).on_piece(session, piece)
    }
}

/// Begins a handler of closures that takes pieces; the methods of [`Hooks`] add hooks.
///
/// ```
/// use wirewheel::pieces::on_piece;
/// use wirewheel::{Application, Call, WebSockets};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket_pieces("/count", |_call: &Call| {
///             on_piece(|session, piece| match piece.is_last() {
///                 true => session.send(format!("{} bytes", piece.offset() + piece.bytes().len() as u64)),
///                 false => Ok(()),
///             })
///             .on_close(|_session, close| println!("{}", close.code()))
///         });
///     });
/// }
/// ```
pub fn on_piece<F>(hook: F) -> Hooks<Idle, OnPiece<F>>
where
    F: FnMut(&mut Session<'_>, Piece<'_>) -> HandlerResult,
{
    Hooks::receiving(OnPiece(hook))
}

/// The place of [`Hooks`] that makes it a handler of pieces.
///
/// ```
/// use wirewheel::Call;
/// use wirewheel::pieces::{PieceHandler, on_piece};
/// fn sink(_call: &Call) -> impl PieceHandler + use<> {
///     on_piece(|_session, _piece| Ok(()))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OnPiece<F>(F);

impl<F> hook::Receive for OnPiece<F> {
    fn run(&mut self, _session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
        Ok(())
    }
}

impl<C, F, I, P, O, D, T, E, X> PieceHandler for Hooks<C, OnPiece<F>, I, P, O, D, T, E, X>
where
    Self: Handler,
    F: FnMut(&mut Session<'_>, Piece<'_>) -> HandlerResult,
{
    fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
        (self.receive.0)(session, piece)
    }
}

//! Messages in pieces: handed over as they arrive, and sent as the peer takes them, so that a message of a
//! gigabyte takes no more memory than a short one.
//!
//! ```
//! use wirewheel::pieces::on_piece;
//! use wirewheel::{Application, Call, WebSockets};
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new());
//!     app.routing(|route| {
//!         route.web_socket_pieces("/echo", |_call: &Call| {
//!             on_piece(|session, piece| {
//!                 session.send_piece(piece, piece.is_last())?;
//!                 if session.awaits_drain() {
//!                     session.pause(); // it does not read: no more pieces before it does
//!                 }
//!                 Ok(())
//!             })
//!             .on_drain(|session| Ok(session.resume()))
//!         });
//!     });
//! }
//! ```
//!
//! The guide's page [`pieces`](crate::guide::pieces) has the rest.

pub use crate::app::piece_handler::{OnPiece, PieceHandler, on_piece};
pub use crate::session::message_stream::MessageStream;
pub use crate::words::piece::Piece;

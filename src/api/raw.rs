//! Frames as they are: for routes that want to see control frames and fragments (Ktor's `webSocketRaw`).
//!
//! Nothing is answered for such a handler: pings and the peer's Close are its own business. The frame
//! layer is checked as always, so a broken frame ends the session before the handler sees it.
//!
//! ```
//! use wirewheel::raw::on_frame;
//! use wirewheel::{Application, Call, WebSockets};
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new());
//!     app.routing(|route| {
//!         route.web_socket_raw("/frames", |_call: &Call| {
//!             on_frame(|session, frame| session.send_frame(frame))
//!         });
//!     });
//! }
//! ```

pub use crate::app::raw_handler::{OnFrame, RawHandler, on_frame};
pub use crate::words::frame::{Frame, OpCode};
pub use crate::words::message::Rsv;

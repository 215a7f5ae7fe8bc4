//! Switches that exist only for parity with Ktor: each lets through, or sends, what RFC 6455 forbids.
//!
//! Leave them alone unless you replace a Ktor server whose clients rely on its leniency. Without
//! them a frame without a mask and a reserved bit that no extension owns end the session with 1002,
//! and no frame that is sent is masked.
//!
//! ```
//! use wirewheel::compat::Compat;
//! use wirewheel::{Application, Call, WebSockets, on_message};
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new());
//!     app.routing(|route| {
//!         route
//!             .web_socket("/old-clients", |_call: &Call| on_message(|session, m| session.send(m)))
//!             .compat(Compat::new().accept_unmasked_frames(true)); // this route alone
//!     });
//! }
//! ```
//!
//! Masking can also be switched for one session while it runs:
//! [`Session::set_masking`](crate::Session::set_masking). Reserved bits that were let through are
//! shown by [`Message::rsv`](crate::Message::rsv).

pub use crate::words::compat::Compat;

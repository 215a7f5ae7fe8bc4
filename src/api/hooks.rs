//! The types of handlers that are made of closures, for those who have to name them.
//!
//! [`on_connect`](crate::on_connect) and [`on_message`](crate::on_message) begin such a handler;
//! each method of [`Hooks`] adds a hook. A program mostly says `impl Handler` instead:
//!
//! ```
//! use wirewheel::{Call, Handler, on_connect};
//!
//! fn greeter(_call: &Call) -> impl Handler + use<> {
//!     on_connect(|session, _call| session.send("hello"))
//!         .on_message(|session, message| session.send(message))
//! }
//! ```

pub use crate::app::handler::{Hooks, Idle};

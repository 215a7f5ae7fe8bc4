//! Answers that come later: a login that has to be asked elsewhere, a report that takes its time.
//!
//! A hook must not wait, since everybody waits for it. It defers the answer instead, and a thread, a timer
//! or another session gives it; see [`Call::defer`](crate::Call::defer). The guide's page on it is
//! [`deferred_answers`](crate::guide::deferred_answers).
//!
//! ```
//! use std::thread;
//! use wirewheel::{Application, Response};
//!
//! fn module(app: &mut Application) {
//!     app.routing(|route| {
//!         route.get("/weather", |call| {
//!             let pending = call.defer();
//!             thread::spawn(move || pending.answer("it rains")); // once the thread knows
//!             Response::deferred()
//!         });
//!     });
//! }
//! # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```

pub use crate::core::deferring::Pending;

//! An application's own figures, on the page of [`Routing::stats`](crate::Routing::stats) beside the
//! server's: for Prometheus, and whatever reads its text.
//!
//! They are set up with the application ([`Application::metrics`](crate::Application::metrics)); what is then
//! kept in hooks are cheap handles.
//!
//! ```
//! use wirewheel::{Application, Call, WebSockets, on_message};
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new());
//!     let commands = app.metrics().counter("commands_total", "Commands of devices.");
//!     app.routing(|route| {
//!         route.stats("/metrics");
//!         route.web_socket("/device", move |_call: &Call| {
//!             let commands = commands.clone();
//!             on_message(move |session, message| {
//!                 commands.increment();
//!                 session.send(message)
//!             })
//!         });
//!     });
//! }
//! # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```
//!
//! They are of the loop's thread. Another thread counts by [`Handle::defer`](crate::Handle::defer).

pub use crate::app::metric_values::{Counter, Family, Gauge, Histogram};
pub use crate::app::metrics::Metrics;

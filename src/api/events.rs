//! Event streams: sessions of one direction, over plain HTTP, for pages that only listen
//! (`EventSource`; WHATWG HTML, server-sent events).
//!
//! A route of [`event_stream`](crate::Routing::event_stream) has handlers as a WebSocket route has, and its
//! sessions collect the same flows, each message encoded once for all streams. Messages of a flow have an
//! `id`, so that a client which comes back goes on where it was, as far as the flow's replay has what it
//! missed; where that does not reach, it first gets an event named `missed`. The guide's page
//! [`event_streams`](crate::guide::event_streams) says what follows from that for a page.
//!
//! ```
//! use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
//! use wirewheel::{Application, Call, WebSockets, on_connect};
//!
//! fn module(app: &mut Application) {
//!     let options = FlowOptions::new().replay(100).on_buffer_overflow(BufferOverflow::DropOldest);
//!     let news: SharedFlow = app.flow(options);
//!     let on_stream = news.clone();
//!     app.install(WebSockets::new());
//!     app.routing(move |route| {
//!         route.web_socket("/news", move |_call: &Call| {
//!             let news = news.clone();
//!             on_connect(move |session, _call| session.collect(&news))
//!         });
//!         route.event_stream("/news", move |_call: &Call| {
//!             let news = on_stream.clone();
//!             on_connect(move |session, _call| session.collect(&news))
//!         });
//!     });
//! }
//! ```

pub use crate::app::event_stream_route::EventStreamRoute;

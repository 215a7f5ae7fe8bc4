//! One message for many: [`SharedFlow`], its options, and what a full buffer does.
//!
//! A flow keeps what is emitted once, encoded once, and sends it to every session that collects it
//! (Ktor's `SharedFlow`). A slow session waits on its own; what its waiting costs the others is the
//! choice of [`BufferOverflow`].
//!
//! ```
//! use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
//! use wirewheel::{Application, Call, WebSockets, on_connect};
//!
//! fn module(app: &mut Application) {
//!     let options = FlowOptions::new().replay(20).on_buffer_overflow(BufferOverflow::DropOldest);
//!     let chat: SharedFlow = app.flow(options);
//!     app.install(WebSockets::new());
//!     app.routing(move |route| {
//!         route.web_socket("/chat", move |_call: &Call| {
//!             let (joined, said) = (chat.clone(), chat.clone());
//!             on_connect(move |session, _call| session.collect(&joined))
//!                 .on_message(move |session, message| {
//!                     session.emit(&said, message.text().unwrap_or_default())
//!                 })
//!         });
//!     });
//! }
//! ```

pub(crate) mod emission;
mod gives_way;
pub(crate) mod inner;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod pool;
pub(crate) mod prepared;
pub(crate) mod published;
pub(crate) mod reader;
mod reader_places;
mod resume;
pub(crate) mod shared_flow;
pub(crate) mod state;
pub(crate) mod subscription;

pub use key::FlowKey;
pub use options::{BufferOverflow, FlowOptions};
pub use published::Published;
pub use reader::{Batch, Offered, Taken};
pub use shared_flow::SharedFlow;

pub use crate::structures::ids::ReaderId;

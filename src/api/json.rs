//! Values as messages (feature `json`): JSON by default, and any other serde format.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use wirewheel::json::JsonConverter;
//! use wirewheel::{Application, Call, WebSockets, on_message};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Point { x: i32, y: i32 }
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new().content_converter(JsonConverter));
//!     app.routing(|route| {
//!         route.web_socket("/mirror", |_call: &Call| {
//!             on_message(|session, message| {
//!                 let point: Point = session.deserialize(&message)?;
//!                 session.send_serialized(&Point { x: -point.x, y: point.y })
//!             })
//!         });
//!     });
//! }
//! ```
//!
//! For another format implement [`ContentConverter`]; [`erased_serde`] is re-exported for that.

pub use crate::app::value_handler::on_value;
pub use crate::protocol::content::{ContentConverter, JsonConverter, ReadValue};
pub use erased_serde;

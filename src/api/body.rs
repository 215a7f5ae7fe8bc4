//! Request bodies: whole, in pieces, and the routes that take them.
//!
//! [`Routing::post`](crate::Routing::post), `put`, `patch`, `delete` and `options` hand a body over whole,
//! [`Routing::receive`](crate::Routing::receive) in pieces. The guide's page [`bodies`](crate::guide::bodies)
//! has the statuses and limits.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # {
//! use wirewheel::body::BodyError;
//! use wirewheel::testing::TestApplication;
//! use wirewheel::{Application, Response};
//!
//! let app = TestApplication::new(|app: &mut Application| {
//!     app.routing(|route| {
//!         route.post("/led", |_call, body| -> Result<Response, BodyError> {
//!             match body.text()? {
//!                 state @ ("on" | "off") => Ok(format!("it is {state}").into()),
//!                 _ => Ok(Response::text("on or off").status(400)),
//!             }
//!         });
//!     });
//! })?;
//! assert_eq!(app.post("/led", "text/plain", "on").text(), "it is on");
//! assert_eq!(app.post("/led", "text/plain", "blue").status, 400);
//! assert_eq!(app.get("/led").header("allow"), Some("POST"));
//! # }
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```

pub use crate::app::body::{Body, BodyError, Form};
pub use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
pub use crate::app::body_route::BodyRoute;
pub use crate::app::multipart::{Multipart, MultipartHandler, MultipartLimits, multipart};
pub use crate::protocol::multipart::Part;
pub use crate::structures::ids::BodyId;
pub use crate::structures::produced::BodyPiece;

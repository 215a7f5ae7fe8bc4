//! Pages: folders of files as answers, and whose pages may read them.
//!
//! The guide has a page on it: [`serving_pages`](crate::guide::serving_pages).
//!
//! ```
//! use wirewheel::pages::{Cors, Folder};
//! use wirewheel::{Application, Response};
//!
//! fn module(app: &mut Application) {
//!     app.routing(|route| {
//!         route.default_header("Content-Security-Policy", "default-src 'self'");
//!         route.status_page(404, |_call| Response::html("<h1>not here</h1>"));
//!         route.folder("/", Folder::new("/srv/www").single_page("index.html"));
//!         route.route("/api", |route| {
//!             route.cors(Cors::new().allowed_origins(["https://dashboard.example"]));
//!             route.get("/state", |_call| Response::json("{}"));
//!         });
//!     });
//! }
//! ```

pub use crate::app::cors::Cors;
pub use crate::app::folder::Folder;

//! WebSocket extensions (RFC 6455 section 9): permessage-deflate, and what an extension of your own needs.
//!
//! Use `Deflate` (feature `deflate`) to compress messages:
//!
//! ```
//! # #[cfg(feature = "deflate")]
//! use wirewheel::extension::Deflate;
//! use wirewheel::{Application, WebSockets};
//!
//! fn module(app: &mut Application) {
//!     # #[cfg(feature = "deflate")]
//!     app.install(WebSockets::new().extension(Deflate::new()));
//!     # #[cfg(not(feature = "deflate"))]
//!     # app.install(WebSockets::new());
//! }
//! ```
//!
//! An extension of your own is an [`ExtensionFactory`], which is asked about each offer of a client
//! and answers with an [`Agreement`], and an [`Extension`], which then encodes and decodes the
//! messages of one session. `examples/extension.rs` is a whole one.

#[cfg(feature = "deflate")]
pub use crate::protocol::extension::deflate::Deflate;
pub use crate::protocol::extension::header::ExtensionOffer;
pub use crate::protocol::extension::in_pieces::PieceExtension;
pub use crate::protocol::extension::{
    Agreement, Extension, ExtensionFactory, ExtensionMessage, MessagePiece,
};
pub use crate::words::extension::ExtensionError;

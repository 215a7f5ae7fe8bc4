//! The server inside somebody else's loop: of a desktop program, of another event library, of your own.
//!
//! [`Server::into_driver`](crate::Server::into_driver) sets the server up and leaves the waiting to others:
//! [`ServerDriver`] has a descriptor to wait for, a deadline, and a method that does what is to be done. The
//! guide's page `embedding` shows it beside the other ways to have a server inside
//! a program.
//!
//! ```
//! use std::time::Duration;
//! use wirewheel::embedding::ServerDriver;
//! use wirewheel::{Application, Server};
//!
//! let server = Server::bind("127.0.0.1:0", |_app: &mut Application| {})?;
//! let mut server: ServerDriver = server.into_driver()?;
//! assert!(server.turn()?.is_continue());
//! assert_eq!(server.next_deadline(), None); // nothing to do before the descriptor is readable
//! server.with_server(|server| server.shutdown(Duration::ZERO));
//! while server.turn()?.is_continue() {}
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```

pub use crate::shell::server_driver::ServerDriver;

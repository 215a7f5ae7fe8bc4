//! Connections that leave the loop after their upgrade, for threads that may block.
//!
//! A hook must not block, since everybody waits for it. What cannot be written without blocking has a
//! thread for each connection, with any WebSocket implementation over a blocking stream:
//!
//! ```
//! use std::net::TcpStream;
//! use std::thread;
//! use std::time::Duration;
//! use tungstenite::WebSocket;
//! use tungstenite::protocol::Role;
//! use wirewheel::detach::Detached;
//! use wirewheel::{Application, Call, WebSockets};
//!
//! fn echo(connection: Detached) -> Result<(), Box<dyn std::error::Error>> {
//!     let (fd, received, _slot) = connection.into_parts()?;
//!     let stream = TcpStream::from(fd);
//!     stream.set_read_timeout(Some(Duration::from_secs(60)))?; // else a dead peer keeps its thread
//!     let mut socket = WebSocket::from_partially_read(stream, received, Role::Server, None);
//!     loop {
//!         let message = socket.read()?; // blocks, on this thread alone
//!         if message.is_text() || message.is_binary() {
//!             socket.send(message)?;
//!         }
//!     }
//! }
//!
//! fn module(app: &mut Application) {
//!     app.install(WebSockets::new());
//!     app.routing(|route| {
//!         route.detached("/blocking", |_call: &Call, connection| {
//!             thread::spawn(|| echo(connection).ok());
//!         });
//!     });
//! }
//! # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```

pub use crate::context::detached::{Detached, DetachedSlot};

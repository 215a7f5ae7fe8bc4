//! Other descriptors on the same loop: serial ports, pipes, sockets of your own.
//!
//! A callback is called when its descriptor can be read or written, between sessions and on the loop's
//! thread, so it must not block. It says with [`Watch`] what it waits for next. `examples/serial.rs`
//! is built on it.
//!
//! ```
//! use std::os::unix::net::UnixDatagram;
//! use wirewheel::Application;
//! use wirewheel::watch::{Ready, Watch};
//!
//! fn module(app: &mut Application, input: UnixDatagram) { // set_nonblocking(true)
//!     app.watch(input, Ready::READABLE, |server, input, _ready| {
//!         let mut datagram = [0; 512];
//!         while let Ok(len) = input.recv(&mut datagram) {
//!             for id in server.sessions() {
//!                 let _ = server.send_to(id, &datagram[..len]); // it may have left meanwhile
//!             }
//!         }
//!         Watch::For(Ready::READABLE)
//!     });
//! }
//! ```

pub use crate::context::watch::{Ready, Watch};
pub use crate::structures::ids::WatchId;

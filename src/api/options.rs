//! The values that options take: rates, policies, and how a listener is set up.
//!
//! The options themselves are setters of [`WebSockets`](crate::WebSockets),
//! [`WebSocketRoute`](crate::WebSocketRoute), [`Limits`](crate::Limits) and [`Session`](crate::Session).
//!
//! ```
//! use wirewheel::options::{OutboxOverflow, ProxyHeader, Rate};
//! use wirewheel::WebSockets;
//!
//! let options = WebSockets::new()
//!     .message_rate(Rate::per_second(50).burst(100))
//!     .on_outbox_full(OutboxOverflow::DropOldest)
//!     .trusted_proxies(["127.0.0.1"])
//!     .proxy_header(ProxyHeader::Forwarded);
//! # drop(options);
//! ```

pub use crate::words::listen::ListenOptions;
pub use crate::words::options::OutboxOverflow;
pub use crate::words::proxy::ProxyHeader;
pub use crate::words::rate::Rate;

//! TLS in the process: `https://` and `wss://` without a proxy in front (feature `tls`).
//!
//! ```no_run
//! use wirewheel::tls::TlsOptions;
//! use wirewheel::{Application, Listen, Server};
//! let tls = TlsOptions::new("/etc/box/fullchain.pem", "/etc/box/privkey.pem")
//!     .certificate("/etc/box/other.pem", "/etc/box/other.key"); // for those who ask for its names
//! Server::bind(Listen::tls("0.0.0.0:443", tls), |_app: &mut Application| {})?
//!     .listen("127.0.0.1:8080")? // plain, beside it
//!     .run()?;
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```

#[cfg(feature = "tls-client-auth")]
pub use crate::words::tls::ClientCertificates;
pub use crate::words::tls::{Pem, TlsError, TlsOptions};
#[cfg(feature = "client")]
pub use crate::words::tls_client::Roots;

//! Who a request says it is from: Basic and Bearer authentication, for pages and upgrade hooks.
//!
//! [`Call::basic_credentials`](crate::Call::basic_credentials) and
//! [`Call::bearer_token`](crate::Call::bearer_token) read what a request shows; here is what is done with it.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # {
//! use wirewheel::auth::{bearer_challenge, is_same_secret};
//! use wirewheel::testing::TestApplication;
//! use wirewheel::{Accept, Application, Call, Response, WebSockets, on_message};
//!
//! fn check(call: &Call) -> Result<(), Response> {
//!     match call.bearer_token() {
//!         Some(token) if is_same_secret(token, "correct-horse") => Ok(()),
//!         _ => Err(bearer_challenge(call, "the box")),
//!     }
//! }
//!
//! let app = TestApplication::new(|app: &mut Application| {
//!     app.install(WebSockets::new());
//!     app.routing(|route| {
//!         route.stats_if("/metrics", check);
//!         route.on_upgrade(|call| check(call).map(|()| Accept::new()));
//!         route.web_socket("/", |_call: &Call| on_message(|session, m| session.send(m)));
//!     });
//! })?;
//! assert_eq!(app.get("/metrics").header("www-authenticate"), Some("Bearer realm=\"the box\""));
//! assert!(app.upgrade("/").header("Authorization", "Bearer correct-horse").connect().is_ok());
//! # }
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```

pub use crate::app::authorization::{
    BasicCredentials, basic_challenge, bearer_challenge, is_same_secret,
};

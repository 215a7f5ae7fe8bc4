//! Owns the set-up of an application: what is installed, which routes there are, what is wrong.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::words::options::{Limits, SessionOptions, session_option_setters};

use super::route_table::RouteTable;
use super::routing::{Routes, Routing};

/// The WebSocket options of a server (Ktor's `install(WebSockets) { ... }`). Each can be changed
/// for a route; the [`Limits`] are the server's alone.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{Application, Limits, WebSockets};
/// fn module(app: &mut Application) {
///     app.install(
///         WebSockets::new()
///             .ping_period(Duration::from_secs(15))
///             .timeout(Duration::from_secs(15))
///             .max_frame_size(64 << 10)
///             .limits(Limits::new().max_connections(500)),
///     );
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "hand it to Application::install"]
pub struct WebSockets {
    options: SessionOptions,
    limits: Limits,
    origins: Option<Rc<[String]>>,
}

impl WebSockets {
    /// The defaults: bounded, and fit for a box with 64 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    session_option_setters! { self: [mut self] -> Self }

    /// Sets the limits of the server as a whole.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The origins whose pages may connect, such as `https://example.com` (RFC 6455 section 10.2);
    /// others get 403, requests without an `Origin` pass. `"*"` allows all, which is the default.
    pub fn allowed_origins<S: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = S>,
    ) -> Self {
        self.origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    fn change(&mut self, change: impl FnOnce(&mut SessionOptions) + 'static) {
        change(&mut self.options);
    }
}

/// What a server serves (Ktor's `Application`): a module function is handed one and sets it up.
///
/// Mistakes do not panic: they are kept, and starting the server returns the first of them.
///
/// ```
/// use wirewheel::{Application, Call, Server, on_message};
/// let server = Server::bind("127.0.0.1:0", |app: &mut Application| {
///     app.routing(|route| {
///         route.web_socket("/echo", |_call: &Call| on_message(|s, message| s.send(message)));
///     });
/// })?;
/// let mistake = server.spawn().unwrap_err().to_string();
/// assert!(mistake.starts_with("WebSockets is not installed"));
/// # Ok::<(), wirewheel::ServerError>(())
/// ```
pub struct Application {
    installed: Option<WebSockets>,
    routes: Routes,
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application").field("installed", &self.installed).finish_non_exhaustive()
    }
}

/// A finished application.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) limits: Limits,
    pub(crate) routes: RouteTable,
}

impl Application {
    pub(crate) fn new() -> Self {
        Self { installed: None, routes: Routes::default() }
    }

    /// Installs the WebSocket options; once, before or after [`routing`](Self::routing).
    pub fn install(&mut self, web_sockets: WebSockets) {
        if self.installed.is_some() {
            self.routes.mistake("WebSockets is installed twice: call app.install once".into());
        }
        self.installed = Some(web_sockets);
    }

    /// Adds routes. Called several times, the routes add up.
    pub fn routing(&mut self, routes: impl FnOnce(&mut Routing<'_>)) {
        routes(&mut Routing::root(&mut self.routes));
    }

    /// Checks everything and finishes the routes; the error is the first mistake, in words.
    pub(crate) fn build(self) -> Result<Built, String> {
        if self.installed.is_none() && self.routes.has_web_sockets() {
            return Err("WebSockets is not installed: call app.install(WebSockets::new()) \
                        in the module"
                .into());
        }
        let WebSockets { options, limits, origins } = self.installed.unwrap_or_default();
        options.check().map_err(|mistake| format!("WebSockets: {mistake}"))?;
        limits.check().map_err(|mistake| format!("Limits: {mistake}"))?;
        let routes = self.routes.finish(&options, origins.as_ref())?;
        Ok(Built { limits, routes })
    }
}

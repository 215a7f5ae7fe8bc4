//! A WebSocket route and its options, and what is installed for all of them.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::token::is_token;
use crate::words::options::SessionOptions;

use crate::app::call::Call;
use crate::app::origins::OriginOptions;
use crate::app::pattern::Pattern;
use crate::app::response::{Accept, Response};
use crate::app::route_config::{ProtocolPicker, Purpose, RouteConfig, UpgradeHook};
use crate::app::setters::shared_setters;
#[cfg(feature = "json")]
use crate::protocol::content::Converter;
use crate::session::agreement::{Delivery, Factories};

/// What is installed for all routes.
#[derive(Clone, Default)]
pub(crate) struct Installed {
    pub(crate) options: SessionOptions,
    pub(crate) origins: OriginOptions,
    pub(crate) extensions: Rc<Factories>,
    #[cfg(feature = "json")]
    pub(crate) converter: Converter,
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.extensions.iter().map(|factory| factory.name()).collect();
        f.debug_struct("Installed")
            .field("options", &self.options)
            .field("origins", &self.origins)
            .field("extensions", &names)
            .finish()
    }
}

/// What a route's setter does to the installed options.
type OptionChange = Box<dyn FnOnce(&mut SessionOptions)>;

/// A WebSocket route; its setters override, for its sessions, what is installed.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{Accept, Application, Call, Response, WebSockets, on_message};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route
///             .web_socket("/upload", |_call: &Call| on_message(|session, _| session.send("ok")))
///             .protocol("upload.v1")
///             .max_frame_size(1 << 20)
///             .ping_period(Duration::from_secs(60))
///             .on_upgrade(|call: &Call| match call.cookie("token") {
///                 Some("secret") => Ok(Accept::new()),
///                 _ => Err(Response::text("log in first").status(401)),
///             });
///     });
/// }
/// ```
///
/// All options, and what only a route has:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::compat::Compat;
/// use wirewheel::options::{OutboxOverflow, Rate};
/// use wirewheel::{Application, Call, WebSockets, on_message};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/all", |_call: &Call| on_message(|session, m| session.send(m)))
///             .ping_period(Duration::from_secs(15)) // or None
///             .timeout(Duration::from_secs(15))
///             .idle_timeout(Duration::from_secs(300))
///             .write_timeout(Duration::from_secs(30))
///             .pause_timeout(None) // or a time
///             .max_frame_size(64 << 10)
///             .max_message_size(256 << 10)
///             .max_outgoing_message_size(1 << 20)
///             .max_fragments(1_000)
///             .max_piecewise_message_size(16 << 20)
///             .outbox_bytes(128 << 10)
///             .outbox_messages(1_000)
///             .on_outbox_full(OutboxOverflow::DropOldest)
///             .message_rate(Rate::per_second(50).burst(100))
///             .message_rate_closes(true)
///             .allowed_origins(["https://box.example"]) // or .allow_any_origin()
///             .hosts(["box.local"])
///             .compat(Compat::new())
///             .select_protocol(|_call, offered| offered.first().map(|first| first.to_string()))
///             .negotiate_extensions(false);
///     });
/// }
/// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(Duration::ZERO);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct WebSocketRoute {
    path: String,
    purpose: Purpose,
    delivery: Delivery,
    negotiates: bool,
    #[cfg(feature = "json")]
    converter: Converter,
    hooks: Vec<UpgradeHook>,
    changes: Vec<OptionChange>,
    protocol: Option<String>,
    pick_protocol: Option<ProtocolPicker>,
    origins: OriginOptions,
}

impl fmt::Debug for WebSocketRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketRoute").field("path", &self.path).finish_non_exhaustive()
    }
}

impl WebSocketRoute {
    pub(super) fn new(
        path: String,
        purpose: Purpose,
        hooks: Vec<UpgradeHook>,
        delivery: Delivery,
    ) -> Self {
        Self {
            path,
            purpose,
            delivery,
            negotiates: delivery != Delivery::Frames,
            #[cfg(feature = "json")]
            converter: Converter::default(),
            hooks,
            changes: Vec::new(),
            protocol: None,
            pick_protocol: None,
            origins: OriginOptions::default(),
        }
    }

    shared_setters! { self: [&mut self] -> &mut Self }

    /// Takes only clients that offer this subprotocol (Ktor's `protocol`), and agrees on it. Of
    /// several routes on one path the first registered whose subprotocol is on offer counts; one
    /// without is the fallback; without a fallback others get 400. Compared letter by letter. Two
    /// routes on one path with one subprotocol, or both without, are a mistake.
    pub fn protocol(&mut self, protocol: &str) -> &mut Self {
        self.protocol = Some(protocol.to_owned());
        self
    }

    /// Picks the subprotocol from the client's list, in its order. `None` agrees on none, which
    /// browsers that offered some take for a failure.
    pub fn select_protocol(
        &mut self,
        pick: impl Fn(&Call, &[&str]) -> Option<String> + 'static,
    ) -> &mut Self {
        self.pick_protocol = Some(Rc::new(pick));
        self
    }

    /// Whether the sessions agree on installed extensions that their clients offer (Ktor's
    /// `negotiateExtensions`). Default true; false for raw routes, whose handlers would have to apply
    /// them by [`Session::extension`](crate::Session::extension).
    pub fn negotiate_extensions(&mut self, on: bool) -> &mut Self {
        self.negotiates = on;
        self
    }

    /// Asks `hook` before an upgrade, after those of the scopes around; see
    /// [`Routing::on_upgrade`](crate::Routing::on_upgrade).
    pub fn on_upgrade(
        &mut self,
        hook: impl Fn(&Call) -> Result<Accept, Response> + 'static,
    ) -> &mut Self {
        self.hooks.push(Rc::new(hook));
        self
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut SessionOptions) + 'static) {
        self.changes.push(Box::new(change));
    }

    pub(super) fn origins_mut(&mut self) -> &mut OriginOptions {
        &mut self.origins
    }

    #[cfg(feature = "json")]
    pub(super) fn converter_mut(&mut self) -> &mut Converter {
        &mut self.converter
    }

    pub(super) fn finish(self, installed: &Installed) -> Result<(Pattern, RouteConfig), String> {
        let mut options = installed.options.clone();
        let is_raw = self.delivery == Delivery::Frames;
        if is_raw {
            // Nothing is answered or asked behind a raw handler's back.
            options.ping_period = None;
        }
        for change in self.changes {
            change(&mut options);
        }
        let at_route = |mistake| format!("route {:?}: {mistake}", self.path);
        options.check().map_err(at_route)?;
        if is_raw && options.ping_period.is_some() {
            return Err(at_route("ping_period: a raw session sends its own pings".into()));
        }
        if self.negotiates && matches!(self.purpose, Purpose::Detached(_)) {
            return Err(at_route("negotiate_extensions: a detached connection has none".into()));
        }
        if let Some(protocol) = self.protocol.as_deref().filter(|protocol| !is_token(protocol)) {
            return Err(at_route(format!("subprotocol {protocol:?} is no token (RFC 9110)")));
        }
        if self.protocol.is_some() && self.pick_protocol.is_some() {
            return Err(at_route("a route has either protocol or select_protocol".into()));
        }
        let origins = self.origins.or(&installed.origins).rules().map_err(at_route)?;
        let pattern = Pattern::parse(&self.path)?;
        let config = RouteConfig {
            #[cfg(feature = "json")]
            converter: self.converter.or(&installed.converter),
            pattern: self.path,
            options,
            purpose: self.purpose,
            delivery: self.delivery,
            extensions: if self.negotiates {
                Rc::clone(&installed.extensions)
            } else {
                Rc::default()
            },
            protocol: self.protocol,
            pick_protocol: self.pick_protocol,
            hooks: self.hooks,
            origins: Rc::new(origins),
            events: None,
        };
        Ok((pattern, config))
    }
}

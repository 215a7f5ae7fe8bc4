//! Owns the finished routes, and which of them a request gets.

use std::fmt;
use std::rc::Rc;

use crate::protocol::head::RequestHead;
use crate::words::options::SessionOptions;

use super::call::Call;
use super::handler::Handler;
use super::pattern::{Fit, Pattern, path_segments};
use super::response::{Accept, Response};

/// Makes the handler of one session.
pub(crate) type Factory = Rc<dyn Fn(&Call) -> Box<dyn Handler>>;
/// Answers a plain request.
pub(crate) type GetHandler = Rc<dyn Fn(&Call) -> Response>;
/// Accepts or rejects an upgrade.
pub(crate) type UpgradeHook = Rc<dyn Fn(&Call) -> Result<Accept, Response>>;
/// Picks a subprotocol from the client's list.
pub(crate) type ProtocolPicker = Rc<dyn Fn(&Call, &[&str]) -> Option<String>>;

/// A finished WebSocket route.
pub(crate) struct RouteConfig {
    /// The path as it was written, for logs.
    pub(crate) pattern: String,
    pub(crate) options: SessionOptions,
    pub(crate) factory: Factory,
    pub(crate) protocol: Option<String>,
    pub(crate) pick_protocol: Option<ProtocolPicker>,
    pub(crate) hooks: Vec<UpgradeHook>,
    /// `None`: any.
    pub(crate) origins: Option<Rc<[String]>>,
}

impl fmt::Debug for RouteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteConfig").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

impl RouteConfig {
    /// Asks the Origin, the protocol picker and the hooks, in this order (RFC 6455 section 4.2.2).
    pub(crate) fn admit(&self, call: &Call, offered: &[&str]) -> Result<Accept, Response> {
        if !self.allows_origin(call) {
            return Err(Response::refusal(403));
        }
        if let Some(pick) = &self.pick_protocol {
            match pick(call, offered) {
                // RFC 6455 section 4.2.2: the value chosen MUST be one the client offered.
                Some(protocol) if offered.contains(&protocol.as_str()) => {
                    call.agree_protocol(&protocol);
                }
                Some(_) => return Err(Response::refusal(500)),
                None => {}
            }
        }
        let mut accept = Accept::new();
        for hook in &self.hooks {
            accept.extend(hook(call)?)?;
        }
        Ok(accept)
    }

    fn allows_origin(&self, call: &Call) -> bool {
        let (Some(origins), Some(origin)) = (&self.origins, call.header("origin")) else {
            // Not a browser: RFC 6455 section 10.2 makes the check for browsers alone.
            return true;
        };
        origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

/// All that is registered on one pattern.
#[derive(Debug)]
struct Place {
    pattern: Pattern,
    get: Option<u16>,
    web_sockets: Vec<u16>,
}

/// The finished routes.
pub(crate) struct RouteTable {
    places: Vec<Place>,
    routes: Vec<RouteConfig>,
    gets: Vec<GetHandler>,
    defaults: SessionOptions,
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// A session.
    WebSocket { route: u16, parameters: Vec<(String, String)>, protocol: Option<String> },
    /// A plain answer.
    Get { handler: u16, parameters: Vec<(String, String)> },
    /// 404.
    NotFound,
    /// 400: the path's encoding is broken.
    BadPath,
    /// 405.
    MethodNotAllowed,
    /// 426: only sessions are here.
    UpgradeRequired,
    /// 400: every route here wants a subprotocol that is not on offer.
    ProtocolRequired,
}

/// Building.
impl RouteTable {
    pub(crate) fn new(defaults: SessionOptions) -> Self {
        Self { places: Vec::new(), routes: Vec::new(), gets: Vec::new(), defaults }
    }

    pub(crate) fn add_web_socket(&mut self, pattern: Pattern, config: RouteConfig) -> Result<(), String> {
        let number = number(self.routes.len())?;
        self.routes.push(config);
        self.place(pattern).web_sockets.push(number);
        Ok(())
    }

    /// The first registered answer of a pattern counts, as in Ktor.
    pub(crate) fn add_get(&mut self, pattern: Pattern, handler: GetHandler) -> Result<(), String> {
        let number = number(self.gets.len())?;
        self.gets.push(handler);
        self.place(pattern).get.get_or_insert(number);
        Ok(())
    }

    fn place(&mut self, pattern: Pattern) -> &mut Place {
        let found = self.places.iter().position(|place| place.pattern == pattern);
        let index = found.unwrap_or_else(|| {
            self.places.push(Place { pattern, get: None, web_sockets: Vec::new() });
            self.places.len() - 1
        });
        &mut self.places[index]
    }
}

fn number(count: usize) -> Result<u16, String> {
    u16::try_from(count).map_err(|_| "more than 65,536 routes".into())
}

/// Asking.
impl RouteTable {
    /// Which route a request gets: the best fit that can serve it (Ktor's routing priority).
    pub(crate) fn resolve(&self, head: &RequestHead, upgrade: bool, offered: &[&str]) -> Resolution {
        let path = head.target().split(['?', '#']).next().unwrap_or_default();
        let Some(segments) = path_segments(path) else { return Resolution::BadPath };
        let mut fits: Vec<(Fit, &Place)> = self
            .places
            .iter()
            .filter_map(|place| place.pattern.fit(&segments).map(|fit| (fit, place)))
            .collect();
        // Stable: of equal fits the first registered stays first.
        fits.sort_by(|(a, _), (b, _)| b.compare(a));
        if fits.is_empty() {
            return Resolution::NotFound;
        }
        if !matches!(head.method(), "GET" | "HEAD") {
            return Resolution::MethodNotAllowed;
        }
        let mut refusal = Resolution::NotFound;
        for (fit, place) in fits {
            match self.resolve_at(place, fit, upgrade, offered) {
                Ok(resolution) => return resolution,
                Err(why) if refusal == Resolution::NotFound => refusal = why,
                Err(_) => {}
            }
        }
        refusal
    }

    fn resolve_at(
        &self,
        place: &Place,
        fit: Fit,
        upgrade: bool,
        offered: &[&str],
    ) -> Result<Resolution, Resolution> {
        let parameters = fit.parameters;
        if upgrade {
            let wanted = |route: &&u16| {
                let protocol = self.route(**route).and_then(|config| config.protocol.as_deref());
                protocol.is_some_and(|protocol| offered.contains(&protocol))
            };
            let fallback = |route: &&u16| {
                self.route(**route).is_some_and(|config| config.protocol.is_none())
            };
            let routes = &place.web_sockets;
            if let Some(&route) = routes.iter().find(wanted).or_else(|| routes.iter().find(fallback)) {
                let protocol = self.route(route).and_then(|config| config.protocol.clone());
                return Ok(Resolution::WebSocket { route, parameters, protocol });
            }
        }
        match place.get {
            Some(handler) => Ok(Resolution::Get { handler, parameters }),
            None if upgrade => Err(Resolution::ProtocolRequired),
            None => Err(Resolution::UpgradeRequired),
        }
    }

    pub(crate) fn route(&self, route: u16) -> Option<&RouteConfig> {
        self.routes.get(usize::from(route))
    }

    pub(crate) fn get_handler(&self, handler: u16) -> Option<&GetHandler> {
        self.gets.get(usize::from(handler))
    }

    /// The options of a route's sessions; the installed ones before there is a session.
    #[inline]
    pub(crate) fn options(&self, route: u16) -> &SessionOptions {
        self.routes.get(usize::from(route)).map_or(&self.defaults, |config| &config.options)
    }
}

//! The finished routes, and which of them a request gets.

use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use crate::protocol::head::RequestHead;
use crate::protocol::target::before;
use crate::words::options::SessionOptions;

use crate::app::answer_filter::AnswerFilters;
use crate::app::body_intake::BodyEndpoint;
use crate::app::body_route::BodyRouteKey;
use crate::app::call::Call;
#[cfg(feature = "client")]
use crate::app::dialled_routes::DialledRoutes;
use crate::app::open_folders::OpenFolders;
use crate::app::own_metrics::OwnMetrics;
use crate::app::pattern::{Fit, Pattern, path_segments};
use crate::app::response::Response;
use crate::app::route_config::RouteConfig;
use crate::app::spelled_out::SpelledOut;
#[cfg(feature = "json")]
use crate::protocol::content::Converter;
use crate::session::event_stream::EventEncoder;
use crate::structures::ids::NO_ROUTE;

/// Answers a plain request.
pub(crate) enum PlainAnswer {
    /// The application does.
    Handler(Rc<dyn Fn(&Call) -> Response>),
    /// A folder does, in which files are looked for.
    Folder(Box<dyn Fn(&Call) -> Response>),
    /// The server's statistics do, to whom the guard lets pass.
    Stats(Option<StatsGuard>),
}
/// Lets a request for the statistics pass, or answers it.
pub(crate) type StatsGuard = Rc<dyn Fn(&Call) -> Result<(), Response>>;

impl PathEntry {
    fn answers_get(&self) -> bool {
        self.get.is_some() || self.event_stream.is_some()
    }
}

/// The methods of RFC 9110 section 9.3, and PATCH (RFC 5789).
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// All that is registered on one pattern.
#[derive(Debug)]
struct PathEntry {
    pattern: Pattern,
    get: Option<u16>,
    event_stream: Option<u16>,
    web_sockets: Vec<u16>,
    /// By their methods.
    bodies: Vec<(String, u16)>,
}

/// The finished routes.
pub(crate) struct RouteTable {
    entries: Vec<PathEntry>,
    /// Paths without parameters, and the entries that fit them best.
    spelled_out: SpelledOut,
    routes: Vec<RouteConfig>,
    gets: Vec<PlainAnswer>,
    /// What changes the answers of its scopes.
    pub(crate) filters: Option<Box<dyn AnswerFilters>>,
    bodies: Vec<Rc<dyn BodyEndpoint>>,
    defaults: SessionOptions,
    /// What its folders have opened.
    pub(crate) open_folders: Rc<OpenFolders>,
    /// What the application counts itself.
    pub(crate) own_metrics: Option<Rc<dyn OwnMetrics>>,
    /// What dialled sessions have in place of a route.
    #[cfg(feature = "client")]
    pub(crate) dialled: DialledRoutes,
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
    /// An event stream.
    EventStream { route: u16, parameters: Vec<(String, String)> },
    /// A plain answer.
    Get { handler: u16, parameters: Vec<(String, String)> },
    /// 404.
    NotFound,
    /// 400: the path's encoding is broken.
    BadPath,
    /// 204: what methods there are (`OPTIONS *`).
    ServerOptions,
    /// A plain answer to a request that may have a body.
    Body { route: u16, parameters: Vec<(String, String)> },
    /// 405.
    MethodNotAllowed,
    /// 501: nobody here knows the method.
    UnknownMethod,
    /// 426: only sessions are here.
    UpgradeRequired,
    /// 400: every route here wants a subprotocol that is not on offer.
    ProtocolRequired,
}

/// Building.
impl RouteTable {
    pub(crate) fn new(defaults: SessionOptions, open_folders: Rc<OpenFolders>) -> Self {
        Self {
            entries: Vec::new(),
            spelled_out: SpelledOut::default(),
            routes: Vec::new(),
            gets: Vec::new(),
            filters: None,
            bodies: Vec::new(),
            defaults,
            open_folders,
            own_metrics: None,
            #[cfg(feature = "client")]
            dialled: DialledRoutes::default(),
        }
    }

    pub(crate) fn add_web_socket(
        &mut self,
        pattern: Pattern,
        config: RouteConfig,
    ) -> Result<(), String> {
        let number = number(self.routes.len())?;
        let is_rival =
            |&route: &u16| self.route(route).is_some_and(|known| known.protocol == config.protocol);
        if self.entries_like(&pattern).flat_map(|entry| &entry.web_sockets).any(is_rival) {
            return Err(twice("WebSocket routes", &config.pattern, config.protocol.as_deref()));
        }
        self.routes.push(config);
        self.entry(pattern).web_sockets.push(number);
        Ok(())
    }

    pub(crate) fn add_event_stream(
        &mut self,
        pattern: Pattern,
        config: RouteConfig,
    ) -> Result<(), String> {
        let number = number(self.routes.len())?;
        if self.entries_like(&pattern).any(PathEntry::answers_get) {
            return Err(twice("event streams", &config.pattern, None));
        }
        self.routes.push(config);
        self.entry(pattern).event_stream = Some(number);
        Ok(())
    }

    pub(crate) fn add_get(&mut self, path: &str, answer: PlainAnswer) -> Result<(), String> {
        let pattern = Pattern::parse(path)?;
        let number = number(self.gets.len())?;
        if self.entries_like(&pattern).any(PathEntry::answers_get) {
            return Err(twice("plain answers, or event streams,", path, None));
        }
        self.gets.push(answer);
        self.entry(pattern).get = Some(number);
        Ok(())
    }

    pub(crate) fn add_body(
        &mut self,
        (endpoint, key): (Rc<dyn BodyEndpoint>, BodyRouteKey),
    ) -> Result<(), String> {
        let BodyRouteKey { method, path } = key;
        let pattern = Pattern::parse(&path)?;
        let number = number(self.bodies.len())?;
        let is_rival = |entry: &PathEntry| entry.bodies.iter().any(|(known, _)| *known == method);
        if self.entries_like(&pattern).any(is_rival) {
            return Err(twice(&format!("routes for {method}"), &path, None));
        }
        self.bodies.push(endpoint);
        self.entry(pattern).bodies.push((method, number));
        Ok(())
    }

    /// All is added: paths without parameters are found by their text from now on.
    pub(crate) fn finish(mut self) -> Self {
        let mut spelled_out = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let Some(path) = entry.pattern.as_path() else { continue };
            // Only if it is the first to be asked: a longer pattern fits better (Ktor's routing priority).
            let best = self.fits(&path).and_then(|fits| fits.into_iter().next());
            if best.is_some_and(|(_, best)| best.pattern == entry.pattern) {
                spelled_out.push((path.into(), number));
            }
        }
        self.spelled_out = SpelledOut::new(spelled_out);
        self
    }

    /// The entries that fit the same paths.
    fn entries_like<'t>(&'t self, pattern: &'t Pattern) -> impl Iterator<Item = &'t PathEntry> {
        self.entries.iter().filter(|entry| entry.pattern.is_same_as(pattern))
    }

    fn entry(&mut self, pattern: Pattern) -> &mut PathEntry {
        let found = self.entries.iter().position(|entry| entry.pattern == pattern);
        let index = found.unwrap_or_else(|| {
            let (get, event_stream) = (None, None);
            let (web_sockets, bodies) = (Vec::new(), Vec::new());
            self.entries.push(PathEntry { pattern, get, event_stream, web_sockets, bodies });
            self.entries.len() - 1
        });
        &mut self.entries[index]
    }
}

/// The mistake of a route that would never be asked (in Ktor it starts, and the first wins).
fn twice(what: &str, path: &str, protocol: Option<&str>) -> String {
    let same = protocol.map(|protocol| format!(" with subprotocol {protocol:?}"));
    format!(
        "there are two {what} at {path:?}{}: the second would never be asked; names of parameters make \
         no difference",
        same.unwrap_or_default()
    )
}

fn number(count: usize) -> Result<u16, String> {
    let number = u16::try_from(count).ok().filter(|number| *number != NO_ROUTE);
    number.ok_or_else(|| "more than 65,535 routes".into())
}

/// Asking.
impl RouteTable {
    /// Which route a request gets: the best fit that can serve it (Ktor's routing priority).
    pub(crate) fn resolve(
        &self,
        head: &RequestHead,
        upgrade: bool,
        offered: &[&str],
    ) -> Resolution {
        let path = before(head.target(), b'?');
        let is_read = matches!(head.method(), "GET" | "HEAD");
        let spelled_out = self.spelled_out.find(path).and_then(|entry| self.entries.get(entry));
        if let Some(entry) = spelled_out.filter(|_| is_read) {
            if let Ok(resolution) = self.resolve_at(entry, Vec::new(), upgrade, offered) {
                return resolution;
            }
        }
        match path {
            // RFC 9110 section 9.3.7: about the server, not a path.
            "*" => return Resolution::ServerOptions,
            // RFC 9112 section 3.2.3: what CONNECT names is no path.
            _ if !path.starts_with('/') => return Resolution::MethodNotAllowed,
            _ => {}
        }
        let Some(fits) = self.fits(path) else { return Resolution::BadPath };
        if fits.is_empty() {
            return Resolution::NotFound;
        }
        if !is_read {
            return self.resolve_method(head.method(), fits);
        }
        let mut refusal = Resolution::NotFound;
        for (fit, entry) in fits {
            match self.resolve_at(entry, fit.parameters, upgrade, offered) {
                Ok(resolution) => return resolution,
                Err(why) if refusal == Resolution::NotFound => refusal = why,
                Err(_) => {}
            }
        }
        refusal
    }

    /// The entries that fit a path, the best first; `None` if its encoding is broken.
    #[inline(always)] // its one caller on the way of every request was one with it
    fn fits(&self, path: &str) -> Option<Vec<(Fit, &PathEntry)>> {
        let segments = path_segments(path)?;
        let mut fits: Vec<(Fit, &PathEntry)> = self
            .entries
            .iter()
            .filter_map(|entry| entry.pattern.fit(&segments).map(|fit| (fit, entry)))
            .collect();
        // Stable: of equal fits the first registered stays first.
        fits.sort_by(|(a, _), (b, _)| b.compare(a));
        Some(fits)
    }

    #[inline(never)]
    fn resolve_method(&self, method: &str, fits: Vec<(Fit, &PathEntry)>) -> Resolution {
        for (fit, entry) in fits {
            if let Some(&(_, route)) = entry.bodies.iter().find(|(known, _)| known == method) {
                return Resolution::Body { route, parameters: fit.parameters };
            }
        }
        // RFC 9110 section 9.1: 501 for a method that is "unrecognized or not implemented", 405 for one that
        // is known and not allowed.
        let is_known = METHODS.contains(&method) || self.body_methods().any(|it| it == method);
        if is_known { Resolution::MethodNotAllowed } else { Resolution::UnknownMethod }
    }

    fn body_methods(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|entry| &entry.bodies).map(|(method, _)| method.as_str())
    }

    /// The methods that a path takes, as `Allow` lists them (RFC 9110 section 10.2.1). Of `*`, and of what is
    /// no path, those that the server knows.
    #[cold]
    pub(crate) fn allowed_methods(&self, target: &str) -> String {
        let path = target.split('?').next().unwrap_or_default();
        let fits = if path.starts_with('/') { self.fits(path) } else { None };
        let is_read = |entry: &PathEntry| entry.answers_get() || !entry.web_sockets.is_empty();
        let mut methods = Vec::new();
        if fits.as_ref().is_none_or(|fits| fits.iter().any(|(_, entry)| is_read(entry))) {
            methods.extend(["GET", "HEAD"]);
        }
        match &fits {
            Some(fits) => {
                let bodies = fits.iter().flat_map(|(_, entry)| &entry.bodies);
                methods.extend(bodies.map(|(method, _)| method.as_str()));
            }
            None => methods.extend(self.body_methods()),
        }
        if path == "*" {
            methods.push("OPTIONS");
        }
        let mut seen = HashSet::new();
        methods.retain(|method| seen.insert(*method));
        methods.join(", ")
    }

    fn resolve_at(
        &self,
        entry: &PathEntry,
        parameters: Vec<(String, String)>,
        upgrade: bool,
        offered: &[&str],
    ) -> Result<Resolution, Resolution> {
        if upgrade {
            let wanted = |route: &&u16| {
                let protocol = self.route(**route).and_then(|config| config.protocol.as_deref());
                protocol.is_some_and(|protocol| offered.contains(&protocol))
            };
            let fallback =
                |route: &&u16| self.route(**route).is_some_and(|config| config.protocol.is_none());
            let routes = &entry.web_sockets;
            if let Some(&route) =
                routes.iter().find(wanted).or_else(|| routes.iter().find(fallback))
            {
                let protocol = self.route(route).and_then(|config| config.protocol.clone());
                return Ok(Resolution::WebSocket { route, parameters, protocol });
            }
        }
        match (entry.get, entry.event_stream) {
            (Some(handler), _) => Ok(Resolution::Get { handler, parameters }),
            (None, Some(route)) => Ok(Resolution::EventStream { route, parameters }),
            (None, None) if entry.web_sockets.is_empty() => Err(Resolution::MethodNotAllowed),
            (None, None) if upgrade => Err(Resolution::ProtocolRequired),
            (None, None) => Err(Resolution::UpgradeRequired),
        }
    }

    /// The encoder of the event stream that a request is for, if it is for one.
    pub(crate) fn events_at(&self, head: &RequestHead) -> Option<&Rc<dyn EventEncoder>> {
        // Most servers have none, and look for none. A path may be for WebSocket sessions too.
        let has_streams = self.routes.iter().any(|config| config.events.is_some());
        if !has_streams || head.framing.wants_websocket() {
            return None;
        }
        match self.resolve(head, false, &[]) {
            Resolution::EventStream { route, .. } => self.route(route)?.events.as_ref(),
            _ => None,
        }
    }

    /// The converters of all routes, by their numbers.
    #[cfg(feature = "json")]
    pub(crate) fn converters(&self) -> Vec<Converter> {
        self.routes.iter().map(|route| route.converter.clone()).collect()
    }

    pub(crate) fn route(&self, route: u16) -> Option<&RouteConfig> {
        self.routes.get(usize::from(route))
    }

    pub(crate) fn plain_answer(&self, handler: u16) -> Option<&PlainAnswer> {
        self.gets.get(usize::from(handler))
    }

    pub(crate) fn body_endpoint(&self, route: u16) -> Option<&Rc<dyn BodyEndpoint>> {
        self.bodies.get(usize::from(route))
    }

    /// The options of a route's sessions; the installed ones before there is a session.
    #[inline]
    pub(crate) fn options(&self, route: u16) -> &SessionOptions {
        match self.routes.get(usize::from(route)) {
            Some(config) => &config.options,
            None => self.options_without_route(route),
        }
    }

    #[cold]
    fn options_without_route(&self, _route: u16) -> &SessionOptions {
        #[cfg(feature = "client")]
        if let Some(dialled) = self.dialled.get(_route) {
            return &dialled.options;
        }
        &self.defaults
    }

    /// What the log calls a route's sessions.
    pub(crate) fn name(&self, route: u16) -> &str {
        #[cfg(feature = "client")]
        if let Some(dialled) = self.dialled.get(route) {
            return &dialled.name;
        }
        self.route(route).map_or("", |config| &config.pattern)
    }
}

#[cfg(all(repository, test))]
mod tests;

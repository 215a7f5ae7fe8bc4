//! Routes as they are written down: nesting, WebSocket routes and their options, plain answers.

use std::fmt;
use std::mem;
use std::rc::Rc;

use crate::context::detached::Detached;
use crate::words::limits::Limits;

use crate::app::answer_filter::{
    AnswerFilter, AnswerFilters, DefaultHeader, ScopedFilters, StatusPage,
};
use crate::app::body_route::{BodyRoute, InstalledForBodies};
use crate::app::call::Call;
use crate::app::cors::Cors;
use crate::app::endpoint::{Endpoint, InPieces, OfFrames, OfMessages};
use crate::app::event_stream_route::EventStreamRoute;
use crate::app::folder::Folder;
use crate::app::handler::Handler;
use crate::app::open_folders::OpenFolders;
use crate::app::piece_handler::PieceHandler;
use crate::app::raw_handler::RawHandler;
use crate::app::response::{Accept, Response, check_header};
use crate::app::route_config::{Purpose, RouteConfig, UpgradeHook};
use crate::app::route_table::{PlainAnswer, RouteTable};
use crate::app::web_socket_route::{Installed, WebSocketRoute};
use crate::session::agreement::Delivery;

/// Where routes are added: the root, or what a nested [`route`](Self::route) stands for (Ktor's
/// `Route`).
///
/// A path consists of constant segments, `{name}`, `{name?}` (at the end: may be missing), `*` (any
/// one segment), `{name...}` or `{...}` (at the end: all the rest), and a segment may have text
/// around its parameter, as in `/{name}.json`. A slash at the end makes another path. Where several
/// fit, Ktor's priority holds, segment by segment from the left: constant, parameter with text
/// around it, parameter, `*`, missing optional, tail.
///
/// ```
/// use wirewheel::{Application, Call, Response, WebSockets, on_connect};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.get("/healthz", |_call| "ok");
///         route.route("/rooms", |route| {
///             route.web_socket("/{room}", |call: &Call| {
///                 let room = call.parameter("room").unwrap_or_default().into_owned();
///                 on_connect(move |session, _call| session.send(&room))
///             });
///         });
///     });
/// }
/// ```
///
/// Figures, a question at the door of the routes below it, and frames as they are:
///
/// ```
/// use wirewheel::raw::on_frame;
/// use wirewheel::{Accept, Application, Call, Response, WebSockets};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.stats("/metrics");
///         route.on_upgrade(|call| match call.header("authorization") {
///             Some("Bearer secret") => Ok(Accept::new()),
///             _ => Err(Response::text("who are you?").status(401)),
///         });
///         route.web_socket_raw("/raw", |_call: &Call| on_frame(|session, frame| session.send_frame(frame)));
///     });
/// }
/// ```
pub struct Routing<'a> {
    routes: &'a mut Routes,
    prefix: String,
    hooks: Vec<UpgradeHook>,
    /// The number of its first WebSocket route, should it get one.
    first_route: usize,
    /// The same of event streams.
    first_stream: usize,
}

impl fmt::Debug for Routing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routing").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Everything written down so far.
#[derive(Default)]
pub(crate) struct Routes {
    /// What guards the routes of the root, whichever call of `routing` they come in.
    root_hooks: Vec<UpgradeHook>,
    web_sockets: Vec<WebSocketRoute>,
    event_streams: Vec<EventStreamRoute>,
    gets: Vec<(String, PlainAnswer)>,
    filters: Vec<FilterMaker>,
    bodies: Vec<BodyRoute>,
    open_folders: Rc<OpenFolders>,
    mistakes: Vec<String>,
}

/// The sessions of a route whose handlers are handed whole messages.
fn of_messages<H: Handler + 'static>(factory: impl Fn(&Call) -> H + 'static) -> Purpose {
    Purpose::Session(Rc::new(move |call| {
        Box::new(OfMessages::<H>::new(factory(call))) as Box<dyn Endpoint>
    }))
}

/// Adds what changes the answers of a scope to the others, once it is known what is installed.
type FilterMaker = Box<dyn FnOnce(&Installed, FiltersSoFar) -> Result<FiltersSoFar, String>>;
type FiltersSoFar = Option<Box<dyn AnswerFilters>>;

impl<'a> Routing<'a> {
    /// Hands out the root, which is one scope however often it is opened (as in Ktor).
    pub(crate) fn open_root(routes: &'a mut Routes, add: impl FnOnce(&mut Routing<'_>)) {
        let hooks = mem::take(&mut routes.root_hooks);
        let (prefix, first_route, first_stream) = (String::new(), 0, 0);
        let mut root = Self { routes, prefix, hooks, first_route, first_stream };
        add(&mut root);
        root.routes.root_hooks = root.hooks;
    }

    /// Adds a WebSocket route (Ktor's `webSocket`). `factory` makes the handler of each session; it
    /// is called once the upgrade is accepted. The returned route takes options of its own.
    pub fn web_socket<F, H>(&mut self, path: &str, factory: F) -> &mut WebSocketRoute
    where
        F: Fn(&Call) -> H + 'static,
        H: Handler + 'static,
    {
        self.add(path, of_messages(factory), Delivery::Messages)
    }

    /// Adds a route whose sessions are handed messages in pieces, as they arrive; see
    /// [`pieces`](crate::pieces).
    ///
    /// ```
    /// use wirewheel::pieces::on_piece;
    /// use wirewheel::{Application, Call, WebSockets};
    /// fn module(app: &mut Application) {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         let echo = |_call: &Call| {
    ///             on_piece(|session, piece| session.send_piece(piece, piece.is_last()))
    ///         };
    ///         route.web_socket_pieces("/echo", echo).max_piecewise_message_size(100 << 20);
    ///     });
    /// }
    /// ```
    pub fn web_socket_pieces<F, H>(&mut self, path: &str, factory: F) -> &mut WebSocketRoute
    where
        F: Fn(&Call) -> H + 'static,
        H: PieceHandler + 'static,
    {
        let factory = move |call: &Call| {
            Box::new(OfMessages::<H, InPieces>::new(factory(call))) as Box<dyn Endpoint>
        };
        self.add(path, Purpose::Session(Rc::new(factory)), Delivery::Pieces)
    }

    /// Adds a route whose sessions are handed frames instead of messages (Ktor's `webSocketRaw`);
    /// see [`RawHandler`].
    pub fn web_socket_raw<F, H>(&mut self, path: &str, factory: F) -> &mut WebSocketRoute
    where
        F: Fn(&Call) -> H + 'static,
        H: RawHandler + 'static,
    {
        let factory = Rc::new(move |call: &Call| Box::new(OfFrames(factory(call))) as Box<_>);
        self.add(path, Purpose::Session(factory), Delivery::Frames)
    }

    /// Adds a route whose connections leave the loop once their upgrade is accepted: `take` is called on
    /// the loop with each, and gives it to a thread that may block. See [`detach`](crate::detach), with an
    /// example.
    ///
    /// What comes before is as for every WebSocket route: limits, origins, `on_upgrade`, the subprotocol.
    /// No extension is agreed on, and no option of a session applies. A connection counts in
    /// `max_connections`, `per_address` and `connections_open` until its
    /// [`DetachedSlot`](crate::detach::DetachedSlot) is dropped. It is no session: a stop of the server does
    /// not wait for it, so that a program joins its own threads.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::net::TcpStream;
    /// use std::thread;
    /// # use wirewheel::{Application, Call, WebSockets};
    /// # fn module(app: &mut Application) {
    /// # app.install(WebSockets::new());
    /// app.routing(|route| {
    ///     route.detached("/hello", |_call: &Call, connection| {
    ///         let greeting = move || {
    ///             let (fd, _received, _slot) = connection.into_parts()?;
    ///             TcpStream::from(fd).write_all(b"\x81\x05hello") // a frame
    ///         };
    ///         thread::spawn(greeting);
    ///     });
    /// });
    /// # }
    /// ```
    ///
    /// Only a socket can be handed over: over TLS, and in a
    /// [`TestApplication`](crate::testing::TestApplication), the request gets 501.
    pub fn detached(
        &mut self,
        path: &str,
        take: impl Fn(&Call, Detached) + 'static,
    ) -> &mut WebSocketRoute {
        self.add(path, Purpose::Detached(Rc::new(take)), Delivery::Frames)
    }

    fn add(&mut self, path: &str, purpose: Purpose, delivery: Delivery) -> &mut WebSocketRoute {
        let path = self.full_path(path);
        let (number, hooks) = (self.routes.web_sockets.len(), self.hooks.clone());
        self.routes.web_sockets.push(WebSocketRoute::new(path, purpose, hooks, delivery));
        &mut self.routes.web_sockets[number]
    }

    /// Adds a route of event streams (Ktor's `sse`), which pages read by `EventSource`. `factory` makes the
    /// handler of each; it collects flows and sends in `on_connect` and in timers, as that of a WebSocket
    /// route does, and `on_message` is never called. The returned route takes options of its own; see
    /// [`events`](crate::events).
    ///
    /// It may share its path with WebSocket routes, and not with a plain answer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::{Application, Call, on_connect};
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.event_stream("/clock", |_call: &Call| {
    ///             on_connect(|session, _call| session.send("connected")).on_timer(|session, _timer| {
    ///                 session.set_timer(Duration::from_secs(1))?;
    ///                 session.send_event("tick", "another second")
    ///             })
    ///         });
    ///     });
    /// }
    /// ```
    pub fn event_stream<F, H>(&mut self, path: &str, factory: F) -> &mut EventStreamRoute
    where
        F: Fn(&Call) -> H + 'static,
        H: Handler + 'static,
    {
        let (path, hooks) = (self.full_path(path), self.hooks.clone());
        let (number, purpose) = (self.routes.event_streams.len(), of_messages(factory));
        let route = WebSocketRoute::new(path, purpose, hooks, Delivery::Messages);
        self.routes.event_streams.push(EventStreamRoute::new(route));
        &mut self.routes.event_streams[number]
    }

    /// Answers plain GET and HEAD requests (Ktor's `get`): a page, JSON, a health check. It may
    /// share its path with WebSocket routes.
    pub fn get<F, R>(&mut self, path: &str, answer: F)
    where
        F: Fn(&Call) -> R + 'static,
        R: Into<Response>,
    {
        let path = self.full_path(path);
        let answer = PlainAnswer::Handler(Rc::new(move |call| answer(call).into()));
        self.routes.gets.push((path, answer));
    }

    /// Answers GET and HEAD requests for the files of a folder (Ktor's `staticFiles`), which is a path or a
    /// [`Folder`] with options; also those of a folder in the program itself. Every other route goes before
    /// it.
    ///
    /// ```
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| route.folder("/", "/srv/www"));
    /// }
    /// ```
    ///
    /// Reading blocks the loop for as long as the disk takes: no folders on a network.
    pub fn folder(&mut self, path: &str, folder: impl Into<Folder>) {
        let path = self.full_path(path);
        match folder.into().serve_at(&path, &self.routes.open_folders) {
            Ok(answer) => {
                let path = format!("{}/{{...}}", path.trim_end_matches('/'));
                self.routes.gets.push((path, PlainAnswer::Folder(Box::new(answer))));
            }
            Err(mistake) => self.routes.mistake(format!("folder {path:?}: {mistake}")),
        }
    }

    /// Lets pages of other origins read the answers at and below the path of this scope, and answers their
    /// preflight requests (Ktor's `CORS`). What has no leave is answered as ever, and the browser keeps it
    /// from the page; its preflight gets 403.
    ///
    /// ```
    /// use wirewheel::pages::Cors;
    /// use wirewheel::{Application, Response};
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.cors(Cors::new().allowed_origins(["https://dashboard.example"]));
    ///         route.get("/state", |_call| Response::json("{}"));
    ///     });
    /// }
    /// ```
    pub fn cors(&mut self, cors: Cors) {
        self.add_filter("cors", |installed| Ok(Box::new(cors.finish(&installed.origins)?)));
    }

    /// Adds a header to every answer at and below the path of this scope that does not have it (Ktor's
    /// `DefaultHeaders`). Not to answers that upgrade, nor to requests that are refused before their path is
    /// looked at (400, 408, 413, 417, 431, and 429 or 503 over a limit).
    ///
    /// ```
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.default_header("Content-Security-Policy", "frame-ancestors 'none'");
    ///         route.folder("/", "/srv/www");
    ///     });
    /// }
    /// ```
    pub fn default_header(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        self.add_filter("default_header", |_installed| {
            check_header(&name, &value)?;
            Ok(Box::new(DefaultHeader { name, value }))
        });
    }

    /// Answers with `page`, and that status, where at or below the path of this scope there is an answer of
    /// that status that nobody wrote: the server's own refusal, or one without a body (Ktor's `StatusPages`).
    /// An answer to which the application gave a body stays. The header lines of the refusal stay too
    /// (`Allow`, `Retry-After`). A status from 400 to 599.
    ///
    /// ```
    /// use wirewheel::{Application, Response};
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.status_page(404, |call| Response::html(format!("<h1>lost at {}</h1>", call.host())));
    ///         route.status_page(500, |_call| Response::file("/srv/www/sorry.html"));
    ///     });
    /// }
    /// ```
    pub fn status_page<F, R>(&mut self, status: u16, page: F)
    where
        F: Fn(&Call) -> R + 'static,
        R: Into<Response>,
    {
        self.add_filter("status_page", move |_installed| match status {
            400..=599 => {
                Ok(Box::new(StatusPage { status, page: move |call: &Call| page(call).into() }))
            }
            _ => Err(format!("{status} is no error: give a status from 400 to 599")),
        });
    }

    fn add_filter(
        &mut self,
        what: &'static str,
        make: impl FnOnce(&Installed) -> Result<Box<dyn AnswerFilter>, String> + 'static,
    ) {
        let scope = self.prefix.clone();
        self.routes.filters.push(Box::new(move |installed, filters| {
            let at = if scope.is_empty() { "/" } else { &scope };
            let filter =
                make(installed).map_err(|mistake| format!("{what} at {at:?}: {mistake}"))?;
            let mut filters = filters.unwrap_or_else(|| Box::new(ScopedFilters::default()));
            filters.add(&scope, filter)?;
            Ok(Some(filters))
        }));
    }

    /// Answers plain requests with the server's [`Stats`](crate::Stats) as Prometheus text. Whoever
    /// reaches the port can read them: leave the route out, or let the proxy in front hide it,
    /// where that is not wanted.
    ///
    /// ```
    /// # wirewheel::Server::bind("127.0.0.1:0", |app: &mut wirewheel::Application| {
    /// app.routing(|route| route.stats("/metrics"));
    /// # })?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn stats(&mut self, path: &str) {
        let path = self.full_path(path);
        self.routes.gets.push((path, PlainAnswer::Stats(None)));
    }

    /// The same for whom `guard` lets pass; others get its answer. [`on_upgrade`](Self::on_upgrade)
    /// does not ask about plain answers.
    ///
    /// ```
    /// use wirewheel::Response;
    /// # wirewheel::Server::bind("127.0.0.1:0", |app: &mut wirewheel::Application| {
    /// app.routing(|route| {
    ///     route.stats_if("/metrics", |call| match call.header("authorization") {
    ///         Some("Bearer secret") => Ok(()),
    ///         _ => Err(Response::new(401).header("WWW-Authenticate", "Bearer")),
    ///     });
    /// });
    /// # })?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn stats_if(
        &mut self,
        path: &str,
        guard: impl Fn(&Call) -> Result<(), Response> + 'static,
    ) {
        let path = self.full_path(path);
        self.routes.gets.push((path, PlainAnswer::Stats(Some(Rc::new(guard)))));
    }

    /// Adds routes below a path (Ktor's `route`).
    pub fn route(&mut self, path: &str, routes: impl FnOnce(&mut Routing<'_>)) {
        let prefix = self.full_path(path);
        let (hooks, first_route) = (self.hooks.clone(), self.routes.web_sockets.len());
        let first_stream = self.routes.event_streams.len();
        routes(&mut Routing { routes: self.routes, prefix, hooks, first_route, first_stream });
    }

    /// Asks `hook` before every upgrade of the WebSocket routes of this scope, and before each of its event
    /// streams, nested ones included (Ktor: `authenticate { }` and interceptors around a route). It
    /// accepts, possibly with headers, or rejects with a whole answer. Plain answers are not asked about.
    ///
    /// It has to come before the routes that it guards: after one, it is a mistake that starting the
    /// server returns. A route that is to stay open goes into another scope (`route.route("", ..)`).
    pub fn on_upgrade(&mut self, hook: impl Fn(&Call) -> Result<Accept, Response> + 'static) {
        let socket = self.routes.web_sockets.get(self.first_route).map(WebSocketRoute::path);
        let stream = self.routes.event_streams.get(self.first_stream).map(EventStreamRoute::path);
        if let Some(open) = socket.or(stream) {
            self.routes.mistakes.push(format!(
                "on_upgrade comes after route {open:?} of its scope, which it would not guard: put it \
                 first"
            ));
        }
        self.hooks.push(Rc::new(hook));
    }

    pub(super) fn add_body(&mut self, route: BodyRoute) -> &mut BodyRoute {
        let number = self.routes.bodies.len();
        self.routes.bodies.push(route);
        &mut self.routes.bodies[number]
    }

    pub(super) fn mistake(&mut self, mistake: String) {
        self.routes.mistake(mistake);
    }

    pub(super) fn full_path(&mut self, path: &str) -> String {
        if !path.is_empty() && !path.starts_with('/') {
            self.routes.mistake(format!("bad route path {path:?}: it must start with '/'"));
        }
        format!("{}{path}", self.prefix.trim_end_matches('/'))
    }
}

impl Routes {
    pub(crate) fn mistake(&mut self, mistake: String) {
        self.mistakes.push(mistake);
    }

    pub(crate) fn has_web_sockets(&self) -> bool {
        !self.web_sockets.is_empty()
    }

    /// Checks every route and puts it in the table.
    pub(crate) fn finish(
        self,
        installed: Installed,
        limits: &Limits,
    ) -> Result<RouteTable, String> {
        if let Some(mistake) = self.mistakes.into_iter().next() {
            return Err(mistake);
        }
        let mut defaults = installed.options.clone();
        defaults.resolve(limits.process_bytes);
        let mut table = RouteTable::new(defaults, self.open_folders);
        let resolve = |mut config: RouteConfig| {
            config.options.resolve(limits.process_bytes);
            let checked = limits.check_message(&config.options);
            checked.map_err(|mistake| format!("route {:?}: {mistake}", config.pattern))?;
            Ok::<_, String>(config)
        };
        for route in self.web_sockets {
            let (pattern, config) = route.finish(&installed)?;
            table.add_web_socket(pattern, resolve(config)?)?;
        }
        for route in self.event_streams {
            let (pattern, config) = route.finish(&installed)?;
            table.add_event_stream(pattern, resolve(config)?)?;
        }
        for (path, answer) in self.gets {
            table.add_get(&path, answer)?;
        }
        for add in self.filters {
            table.filters = add(&installed, table.filters.take())?;
        }
        let installed = InstalledForBodies {
            origins: &installed.origins,
            #[cfg(feature = "json")]
            converter: &installed.converter,
            process_bytes: limits.process_bytes,
        };
        for route in self.bodies {
            table.add_body(route.finish(&installed)?)?;
        }
        Ok(table.finish())
    }
}

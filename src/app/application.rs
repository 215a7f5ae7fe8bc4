//! The set-up of an application: what is installed, which routes there are, what is wrong.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::extension::ExtensionFactory;
use crate::structures::ids::{ReaderId, WatchId};
use crate::words::bounds::check_time;
use crate::words::limits::Limits;
use crate::words::network::Network;
use crate::words::options::SessionOptions;
use crate::words::proxy::ProxyHeader;
use crate::words::time::Time;

use crate::app::metrics::Metrics;
use crate::app::origins::OriginOptions;
use crate::app::own_metrics::OwnMetrics;
use crate::app::route_table::RouteTable;
use crate::app::routing::{Routes, Routing};
use crate::app::setters::shared_setters;
use crate::app::web_socket_route::Installed;
use crate::context::loop_state::{LoopPlace, NewWatch, OnLoop, Order, ServerRef, TimerAction};
use crate::context::loops::Place;
use crate::context::mailbox::Mailbox;
use crate::context::shared_flows::read_for_others;
use crate::context::watch::{Ready, Watch};
use crate::flow::key::FlowKey;
use crate::flow::options::FlowOptions;
use crate::flow::reader::{Batch, Taken};
use crate::flow::shared_flow::SharedFlow;
use crate::session::agreement::check_factories;
#[cfg(feature = "json")]
use crate::{context::loop_state::Converters, protocol::content::Converter};

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
///
/// All options:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::compat::Compat;
/// use wirewheel::extension::Deflate;
/// use wirewheel::options::{OutboxOverflow, ProxyHeader, Rate};
/// use wirewheel::{Application, WebSockets};
/// fn module(app: &mut Application) {
///     app.install(
///         WebSockets::new()
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
///             .extension(Deflate::new())
///             .trusted_proxies(["127.0.0.1"])
///             .proxy_header(ProxyHeader::XForwardedFor),
///     );
/// }
/// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(Duration::ZERO);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "hand it to Application::install"]
pub struct WebSockets {
    installed: Installed,
    limits: Limits,
    trusted_proxies: Vec<String>,
    proxy_header: Option<ProxyHeader>,
}

/// The proxies in front of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    pub(crate) networks: Vec<Network>,
    /// How they say for whom they speak.
    pub(crate) header: ProxyHeader,
}

impl WebSockets {
    /// The defaults: bounded, and fit for a box with 64 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    shared_setters! { self: [mut self] -> Self }

    /// Sets the limits of the server as a whole.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Installs an extension (Ktor's `extensions { install(..) }`): its sessions agree on it with the
    /// clients that offer it. Two that have one name or claim one reserved bit are refused at
    /// start-up.
    pub fn extension(mut self, factory: impl ExtensionFactory + 'static) -> Self {
        Rc::make_mut(&mut self.installed.extensions).push(Rc::new(factory));
        self
    }

    /// The proxies that are believed when they say for whom they speak, as addresses (`::1`),
    /// networks (`10.0.0.0/8`) or `unix` for whoever connects to a Unix socket. Of the header that
    /// [`proxy_header`](Self::proxy_header) names, the right-most address that is none of them becomes
    /// [`Call::client_addr`](crate::Call::client_addr), and counts for `per_address` and
    /// `handshake_rate`; scheme and host become [`Call::scheme`](crate::Call::scheme) and
    /// [`Call::host`](crate::Call::host). A proxy that names nobody speaks for somebody unknown, not for
    /// itself; all of those are one client. Headers from anybody else are ignored. Default: none.
    ///
    /// ```
    /// use wirewheel::WebSockets;
    /// let behind_nginx = WebSockets::new().trusted_proxies(["127.0.0.1", "::1"]);
    /// # let _ = behind_nginx;
    /// ```
    pub fn trusted_proxies<S: Into<String>>(
        mut self,
        networks: impl IntoIterator<Item = S>,
    ) -> Self {
        self.trusted_proxies = networks.into_iter().map(Into::into).collect();
        self
    }

    /// Which header of the trusted proxies counts; all others are ignored, whatever a client writes.
    /// Default [`ProxyHeader::XForwardedFor`].
    ///
    /// ```
    /// use wirewheel::options::ProxyHeader;
    /// use wirewheel::WebSockets;
    /// let options = WebSockets::new().trusted_proxies(["unix"]).proxy_header(ProxyHeader::Forwarded);
    /// # let _ = options;
    /// ```
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        self.proxy_header = Some(header);
        self
    }

    fn proxies(&self) -> Result<Proxies, String> {
        let networks: Result<Vec<Network>, String> =
            self.trusted_proxies.iter().map(|network| network.parse()).collect();
        let networks = networks.map_err(|mistake| format!("trusted_proxies: {mistake}"))?;
        if let Some(header) = self.proxy_header.filter(|_| networks.is_empty()) {
            return Err(format!(
                "proxy_header is {header:?}, but trusted_proxies names nobody who may send it"
            ));
        }
        Ok(Proxies { networks, header: self.proxy_header.unwrap_or_default() })
    }

    fn change(&mut self, change: impl FnOnce(&mut SessionOptions) + 'static) {
        change(&mut self.installed.options);
    }

    fn origins_mut(&mut self) -> &mut OriginOptions {
        &mut self.installed.origins
    }

    #[cfg(feature = "json")]
    fn converter_mut(&mut self) -> &mut Converter {
        &mut self.installed.converter
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
/// assert!(mistake.starts_with("WebSockets is not installed")); // app.install(WebSockets::new())
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct Application {
    installed: Option<WebSockets>,
    routes: Routes,
    on_loop: OnLoop,
    /// What is set up now is so on one loop alone.
    in_once: bool,
    metrics: Option<Metrics>,
    /// The same, of which a program that has none is linked without the rest.
    own_metrics: Option<Rc<dyn OwnMetrics>>,
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
    pub(crate) proxies: Proxies,
    pub(crate) routes: RouteTable,
    pub(crate) on_loop: OnLoop,
}

impl Application {
    pub(crate) fn new() -> Self {
        Self {
            installed: None,
            routes: Routes::default(),
            on_loop: OnLoop::default(),
            in_once: false,
            metrics: None,
            own_metrics: None,
        }
    }

    /// Of a server that other threads reach like this, and that listens there.
    pub(crate) fn reached_by(
        mut self,
        mailbox: Mailbox<Order>,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        (self.on_loop.mailbox, self.on_loop.addresses) = (mailbox, addresses);
        self
    }

    /// On one of several loops.
    pub(crate) fn at(mut self, place: LoopPlace) -> Self {
        self.on_loop.begin_at(place.generation_bits());
        self.on_loop.place = Some(place);
        self
    }

    /// Of the process's server of that number, on the loop that is [said](Self::at) before.
    pub(crate) fn of_server(mut self, number: u32) -> Self {
        self.on_loop.begin_at(self.on_loop.bits.of_server(number));
        self
    }

    /// Refuses what would be there once for each loop, outside of [`once`](Self::once).
    pub(crate) fn only_once(&mut self, what: &str) {
        if !self.in_once && self.on_loop.place.is_some() {
            self.routes.mistake(format!(
                "{what} runs once for each loop, since loops(..) is set: put it into app.once(|app| ..)"
            ));
        }
    }

    /// The figures of the application itself, which [`Routing::stats`](crate::Routing::stats) shows behind
    /// the server's; always the same. See [`metrics`](crate::metrics).
    ///
    /// ```
    /// fn module(app: &mut wirewheel::Application) {
    ///     let temperature = app.metrics().gauge("temperature_celsius", "In the cellar.");
    ///     temperature.set(12.5);
    ///     app.routing(|route| route.stats("/metrics"));
    /// }
    /// ```
    pub fn metrics(&mut self) -> Metrics {
        let metrics = self.metrics.get_or_insert_with(Metrics::default).clone();
        self.own_metrics = Some(Rc::new(metrics.clone()));
        metrics
    }

    pub(crate) fn on_loop(&self) -> &OnLoop {
        &self.on_loop
    }

    /// Installs the WebSocket options; once, before or after [`routing`](Self::routing).
    pub fn install(&mut self, web_sockets: WebSockets) {
        if self.installed.is_some() {
            self.routes.mistake("WebSockets is installed twice: call app.install once".into());
        }
        self.installed = Some(web_sockets);
    }

    /// Adds routes. Called several times, the routes add up, below one root: what
    /// [`Routing::on_upgrade`] asks there it asks of all of them.
    pub fn routing(&mut self, routes: impl FnOnce(&mut Routing<'_>)) {
        Routing::open_root(&mut self.routes, routes);
    }

    /// Sets up what a server has once, however many [loops](crate::Server::loops) it has: timers of the
    /// application, descriptors to watch, sessions to dial. `set_up` is called now, on the first loop alone;
    /// with one loop it always is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     app.once(|app| {
    ///         app.every(Duration::from_secs(60), |server| println!("{:?}", server.stats()));
    ///     });
    /// }
    /// ```
    pub fn once(&mut self, set_up: impl FnOnce(&mut Self)) {
        if self.on_loop.place.as_ref().is_none_or(Place::is_first) {
            let outer = std::mem::replace(&mut self.in_once, true);
            set_up(self);
            self.in_once = outer;
        }
    }

    /// Runs `action` every `period` on the loop, beginning one period after the start. It keeps the
    /// beat, never runs early, and is at most two ticks of 8 ms late; beats that were missed because
    /// the loop was busy are left out.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::flow::SharedFlow;
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     let clock: SharedFlow = SharedFlow::new();
    ///     app.every(Duration::from_secs(1), move |_server| {
    ///         let _ = clock.emit("tick"); // full: those who collect have missed ticks already
    ///     });
    /// }
    /// ```
    pub fn every(&mut self, period: Duration, action: impl FnMut(&mut ServerRef<'_>) + 'static) {
        self.only_once("Application::every");
        match check_time("period of Application::every", period) {
            Ok(()) => {
                self.on_loop.timers.add(period, TimerAction::Every(Box::new(action)), Time::ZERO);
            }
            Err(mistake) => self.routes.mistake(mistake),
        }
    }

    /// Runs `action` on the loop when the server begins to stop, whoever asked for it: a signal,
    /// [`Handle::shutdown`](crate::Handle::shutdown), [`ServerRef::shutdown`] (Ktor's
    /// `ApplicationStopPreparing`). What it sends and emits goes out before the Close. Called several
    /// times, the actions add up; each runs once.
    ///
    /// ```
    /// use wirewheel::Application;
    /// fn module(app: &mut Application) {
    ///     app.on_shutdown(|server| {
    ///         for id in server.sessions() {
    ///             let _ = server.send_to(id, "server restarts");
    ///         }
    ///     });
    /// }
    /// ```
    pub fn on_shutdown(&mut self, action: impl FnOnce(&mut ServerRef<'_>) + 'static) {
        self.on_loop.stop_hooks.0.push(Box::new(action));
    }

    /// Watches a descriptor of the application (a serial port, a pipe, a UDP socket, a timerfd), so
    /// that a gateway needs no second thread. `callback` runs on the loop whenever the descriptor is
    /// ready for what was asked, again and again until it has made it not ready: it may read a
    /// little and return. It says what to watch for next, which [`ServerRef::rewatch`] changes from outside,
    /// or to stop and drop both; a hang-up shows as
    /// readable, again and again until it stops. It may put another descriptor in place of this one.
    /// What the system cannot watch, such as a regular file, is logged as an error and dropped.
    ///
    /// The descriptor has to be non-blocking: a callback that waits holds up everybody. Each watch
    /// needs a descriptor of its own: duplicate one (`try_clone`) to watch both directions apart.
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use wirewheel::flow::SharedFlow;
    /// use wirewheel::watch::{Ready, Watch};
    /// use wirewheel::Application;
    /// fn module(app: &mut Application, sensor: UdpSocket, readings: SharedFlow<[u8]>) {
    ///     app.watch(sensor, Ready::READABLE, move |_server, sensor, _ready| {
    ///         let mut packet = [0; 1500];
    ///         if let Ok(length) = sensor.recv(&mut packet) {
    ///             let _ = readings.emit(&packet[..length]);
    ///         }
    ///         Watch::For(Ready::READABLE)
    ///     });
    /// }
    /// ```
    pub fn watch<D: AsFd + 'static>(
        &mut self,
        descriptor: D,
        interest: Ready,
        callback: impl FnMut(&mut ServerRef<'_>, &mut D, Ready) -> Watch + 'static,
    ) -> WatchId {
        self.only_once("Application::watch");
        self.on_loop.watches.begin(NewWatch::new(descriptor, interest, callback))
    }

    /// A flow with options; a mistake in them is kept and returned when the server starts, as that of
    /// a route is. Where nobody sets up an application: [`SharedFlow::with`].
    ///
    /// ```
    /// use wirewheel::flow::{BufferOverflow, FlowOptions};
    /// use wirewheel::{Application, Call, on_connect};
    /// fn module(app: &mut Application) {
    ///     let options = FlowOptions::new().replay(1).on_buffer_overflow(BufferOverflow::DropOldest);
    ///     let readings = app.flow(options); // of text: a SharedFlow<str>
    ///     app.routing(|route| {
    ///         route.web_socket("/readings", move |_call: &Call| {
    ///             let readings = readings.clone();
    ///             on_connect(move |session, _call| session.collect(&readings))
    ///         });
    ///     });
    /// }
    /// ```
    pub fn flow(&mut self, options: FlowOptions) -> SharedFlow {
        self.flow_of(options)
    }

    /// The same for values of another type than text: bytes, or whatever is
    /// [`ToMessage`](crate::message::ToMessage).
    ///
    /// ```
    /// use wirewheel::Application;
    /// use wirewheel::flow::{FlowOptions, SharedFlow};
    /// fn module(app: &mut Application) {
    ///     let packets: SharedFlow<[u8]> = app.flow_of(FlowOptions::new());
    ///     # let _ = packets;
    /// }
    /// ```
    pub fn flow_of<T: ?Sized>(&mut self, options: FlowOptions) -> SharedFlow<T> {
        let flow = SharedFlow::with(options).unwrap_or_else(|mistake| {
            self.routes.mistake(format!("Application::flow: {mistake}"));
            SharedFlow::new()
        });
        self.flow_key(&flow); // the server knows it from the start, and what it holds
        flow
    }

    /// Has `read` offered every message of a flow from the start, without a session; see
    /// [`ServerRef::read_flow`].
    ///
    /// ```
    /// use wirewheel::Application;
    /// use wirewheel::flow::{FlowOptions, Taken};
    /// fn module(app: &mut Application) {
    ///     let alarms = app.flow(FlowOptions::new());
    ///     app.read_flow(&alarms, |_server, batch| {
    ///         for offered in batch {
    ///             println!("{:?}", offered.message());
    ///         }
    ///         Taken::Yes
    ///     });
    /// }
    /// ```
    pub fn read_flow<T: ?Sized>(
        &mut self,
        flow: &SharedFlow<T>,
        read: impl FnMut(&mut ServerRef<'_>, &mut Batch<'_>) -> Taken + 'static,
    ) -> ReaderId {
        self.on_loop.readers.add(&flow.inner, None, Box::new(read))
    }

    /// A flow that all [loops](crate::Server::loops) of the server have: what is published on one of them is
    /// published on the others, by the same policy. With one loop it is what [`flow`](Self::flow) makes.
    /// Each loop's module has to make the flow, with the same name and options; the name is for nothing else.
    ///
    /// Each loop has a log of its own. Messages of one publisher are in order everywhere; those of several
    /// may be in another order on another loop, where a publisher's own come first.
    /// [`subscription_count`](SharedFlow::subscription_count) is that of all loops. At most 256 messages, and
    /// as many bytes as the flow may have, are on their way from one loop to another: a loop that is behind
    /// is a slow subscriber of the others, for which the flow's policy is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::flow::FlowOptions;
    /// use wirewheel::{Application, Call, Server, WebSockets, on_connect};
    /// fn module(app: &mut Application) {
    ///     let room = app.shared_flow("room", FlowOptions::new().replay(20));
    ///     app.install(WebSockets::new());
    ///     app.routing(move |route| {
    ///         route.web_socket("/room", move |_: &Call| {
    ///             let (joined, spoken) = (room.clone(), room.clone());
    ///             on_connect(move |session, _call| session.collect(&joined))
    ///                 .on_message(move |session, message| {
    ///                     session.emit(&spoken, message.text().unwrap_or_default())
    ///                 })
    ///         });
    ///     });
    /// }
    /// let server = Server::bind("127.0.0.1:0", module)?.loops(2).spawn()?;
    /// server.shutdown(Duration::from_secs(1));
    /// server.join()?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn shared_flow(&mut self, name: &str, options: FlowOptions) -> SharedFlow {
        self.shared_flow_of(name, options)
    }

    /// The same for values of another type than text; see [`flow_of`](Self::flow_of).
    ///
    /// ```
    /// use wirewheel::Application;
    /// use wirewheel::flow::{FlowOptions, SharedFlow};
    /// fn module(app: &mut Application) {
    ///     let packets: SharedFlow<[u8]> = app.shared_flow_of("packets", FlowOptions::new());
    ///     # let _ = packets;
    /// }
    /// ```
    pub fn shared_flow_of<T: ?Sized>(&mut self, name: &str, options: FlowOptions) -> SharedFlow<T> {
        let flow = self.flow_of(options);
        let OnLoop { bridges, place, readers, .. } = &mut self.on_loop;
        if bridges.contains(name) {
            self.routes.mistake(format!("Application::shared_flow: there are two of {name:?}"));
            return flow;
        }
        let name = name.into();
        let number = place.as_ref().map_or(0, |place| place.hold(&name));
        if let Some(bridge) = bridges.add(&name, number, &flow.inner, place.as_ref()) {
            read_for_others(&bridge, &flow.inner, None, readers);
        }
        bridges.hold(&name);
        flow
    }

    /// Names a flow for other threads; see [`Handle::emit`](crate::Handle::emit).
    ///
    /// ```
    /// use wirewheel::flow::{FlowKey, SharedFlow};
    /// use wirewheel::Application;
    /// fn name(app: &mut Application, alarms: &SharedFlow) -> FlowKey<str> {
    ///     app.flow_key(alarms)
    /// }
    /// ```
    pub fn flow_key<T: ?Sized>(&mut self, flow: &SharedFlow<T>) -> FlowKey<T> {
        self.on_loop.flow_names.name(&flow.inner)
    }

    #[cfg(feature = "client")]
    pub(crate) fn mistake(&mut self, mistake: String) {
        self.routes.mistake(mistake);
    }

    #[cfg(feature = "client")]
    pub(crate) fn dialers(&self) -> &Rc<crate::context::dialers::Dialers> {
        &self.on_loop.dialers
    }

    /// Checks everything and finishes the routes; the error is the first mistake, in words.
    pub(crate) fn build(self) -> Result<Built, String> {
        if self.installed.is_none() && self.routes.has_web_sockets() {
            return Err("WebSockets is not installed: call app.install(WebSockets::new()) \
                        in the module"
                .into());
        }
        let web_sockets = self.installed.unwrap_or_default();
        let proxies = web_sockets.proxies()?;
        let WebSockets { installed, mut limits, .. } = web_sockets;
        installed.options.check().map_err(|mistake| format!("WebSockets: {mistake}"))?;
        limits.check().map_err(|mistake| format!("Limits: {mistake}"))?;
        if let Some(place) = &self.on_loop.place {
            limits = limits.divided_by(place.count());
        }
        limits
            .check_message(&installed.options)
            .map_err(|mistake| format!("WebSockets: {mistake}"))?;
        #[cfg(feature = "client")]
        crate::app::connector::check_dialled(&self.on_loop.dialers, &limits)?;
        installed.origins.rules().map_err(|mistake| format!("WebSockets: {mistake}"))?;
        self.own_metrics.as_deref().map_or(Ok(()), OwnMetrics::check)?;
        check_factories(&installed.extensions)?;
        let mut routes = self.routes.finish(installed, &limits)?;
        routes.own_metrics = self.own_metrics;
        #[cfg(feature = "json")]
        let converters = Converters { of_routes: routes.converters(), ..Converters::default() };
        #[cfg(feature = "json")]
        let on_loop = OnLoop { converters, ..self.on_loop };
        #[cfg(not(feature = "json"))]
        let on_loop = self.on_loop;
        Ok(Built { limits, proxies, routes, on_loop })
    }
}

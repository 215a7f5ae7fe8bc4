//! What the hub serves: a configuration turned into routes and sockets.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::low_level::raise;
use wirewheel::options::ListenOptions;
use wirewheel::watch::{Ready, Watch};
use wirewheel::{
    Application, Call, Limits, Listen, Response, Routing, Server, WebSockets, on_message,
};

use crate::check::{self, Finding};
use crate::config::{Config, HEALTH, Place};
use crate::exec::{ExecOptions, Processes};
use crate::loops::Loops;
use crate::service::{self, Handed, Notifier};
use crate::signals::{Signals, is_ignored, reap};
use crate::tokens::Tokens;
use crate::topics::{Topics, flow_options};

/// Where it listens if nothing is said.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// How long a program or a topic may keep a client waiting that wants to say something.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(600);

/// Serves until it is told to stop.
pub(crate) fn run(config: &Arc<Config>) -> Result<(), String> {
    let tokens = Parts::open(config)?.tokens;
    let mut places = places(config)?.into_iter();
    let first = places.next().ok_or("fd: is given, and no socket was handed over (LISTEN_FDS)")?;
    let module = on_each_loop(config, tokens, Some(Loops::new(config.loops)));
    let server = bind(first, places, &listen_options(config), module)?;
    server.loops(config.loops).run().map_err(in_words)
}

/// What is run on each loop; nothing is started where it only is to be checked (`loops` is none).
fn on_each_loop(
    config: &Arc<Config>,
    tokens: Option<Arc<Tokens>>,
    loops: Option<Loops>,
) -> impl FnOnce(&mut Application) + Clone + Send + use<> {
    let config = Arc::clone(config);
    move |app: &mut Application| match (Parts::with(&config, tokens), loops) {
        (Ok(parts), Some(loops)) => begin(app, parts, &loops),
        (Ok(parts), None) => parts.set_up(app),
        // It was opened before, by whoever has started this; or it is of another moment.
        (Err(mistake), _) => log::error!("{mistake}"),
    }
}

fn bind<M: FnOnce(&mut Application)>(
    first: Listen,
    others: impl Iterator<Item = Listen>,
    options: &ListenOptions,
    module: M,
) -> Result<Server<M>, String> {
    let mut server = Server::bind_with(first, options, module).map_err(in_words)?;
    for place in others {
        server = server.listen_with(place, options).map_err(in_words)?;
    }
    Ok(server)
}

/// Sets up a loop: the routes, and what the hub has once.
fn begin(app: &mut Application, parts: Parts<'_>, loops: &Loops) {
    let notifier = Rc::new(Notifier::from_environment());
    app.once(|app| {
        // Before anything else is done about a stop: whoever waits for it shall know.
        let stopping = Rc::clone(&notifier);
        app.on_shutdown(move |_| stopping.tell("STOPPING=1"));
        if let Err(error) = take_signals(app, &parts) {
            log::warn!("signals: {error}");
        }
        parts.say_what_is_open();
        if let Some(period) = service::watchdog_period() {
            // A timer of the loop: where a loop hangs, nobody is told that it does not.
            let (watched, loops) = (Rc::clone(&notifier), loops.clone());
            app.every(period, move |_| {
                if loops.have_turned() {
                    watched.tell("WATCHDOG=1");
                }
            });
        }
    });
    parts.set_up(app);
    if loops.enter(app) {
        notifier.tell("READY=1");
    }
}

/// Does everything but listening at the places that are configured, and starting anything. What no waiting
/// mends comes first, as far as nothing has to be opened for it.
pub(crate) fn check(config: &Arc<Config>) -> Result<(), Finding> {
    crate::broker::check(config).map_err(Finding::Mistake)?;
    let topics = config.topics.then(|| flow_options(config)).transpose();
    topics.map_err(Finding::Mistake)?;
    if let Some(broker) = &config.broker {
        broker.readable().map_err(Finding::Missing)?;
        broker.login().map_err(Finding::Mistake)?;
    }
    let tokens = Parts::open(config).map_err(Finding::Missing)?.tokens;
    check::places(&config.listen)?;
    if let Some(files) = &config.tls {
        files.readable().map_err(Finding::Missing)?;
    }
    if let Some(upstream) = &config.upstream {
        upstream.readable().map_err(Finding::Missing)?;
    }
    check_limits(config, tokens).map_err(Finding::Mistake)
}

fn check_limits(config: &Arc<Config>, tokens: Option<Arc<Tokens>>) -> Result<(), String> {
    // The limits are checked where they are used: by starting a server. So are certificates and keys.
    let place = listen(config, "127.0.0.1:0".into(), config.tls.is_some());
    let module = on_each_loop(config, tokens, None);
    let server = Server::bind(place, module).map_err(in_words)?.loops(config.loops);
    // Told before it begins, it sets up all and dials nobody.
    server.handle().shutdown(Duration::ZERO);
    let handle = server.spawn().map_err(in_words)?;
    handle.join().map(drop).map_err(in_words)
}

/// What SIGHUP and SIGCHLD do; the server itself takes SIGINT and SIGTERM.
fn take_signals(app: &mut Application, parts: &Parts<'_>) -> std::io::Result<()> {
    if parts.processes.is_none() {
        // Programs that somebody else has started; those of /exec are looked after there.
        let children = Signals::of(&[Signal::CHILD])?;
        reap(|_, _| {}); // who ended before
        app.watch(children, Ready::READABLE, |_, children, _| {
            children.take();
            reap(|pid, status| log::debug!("process {pid}, inherited: {status}"));
            Watch::For(Ready::READABLE)
        });
    }
    let tokens = parts.tokens.clone();
    #[cfg(feature = "tls")]
    let has_tls = parts.config.tls.is_some();
    let ends = parts.config.ends_at_hup();
    if ends && is_ignored(Signal::HUP) {
        return Ok(()); // nohup(1)
    }
    app.watch(Signals::of(&[Signal::HUP])?, Ready::READABLE, move |server, signals, _| {
        let count = signals.take();
        if ends {
            // It is SIGTERM by another name, the second one too.
            (0..count).for_each(|_| _ = raise(Signal::TERM.as_raw()));
        }
        match tokens.as_ref().map(|tokens| tokens.reload()) {
            Some(Ok(count)) => log::info!("SIGHUP: {count} tokens are read again"),
            Some(Err(mistake)) => log::error!("SIGHUP: the tokens stay as they were: {mistake}"),
            None => {}
        }
        #[cfg(not(feature = "tls"))]
        let _ = server;
        #[cfg(feature = "tls")]
        if has_tls {
            server.reload_certificates();
        }
        Watch::For(Ready::READABLE)
    });
    Ok(())
}

fn listen_options(config: &Config) -> ListenOptions {
    let options = ListenOptions::new().free_bind(config.free_bind);
    match config.socket_mode {
        Some(mode) => options.unix_mode(mode),
        None => options,
    }
}

fn in_words(error: impl std::error::Error) -> String {
    error.to_string()
}

/// Where to listen. Sockets that were handed over count if they are asked for, or nothing else is.
fn places(config: &Config) -> Result<Vec<Listen>, String> {
    let mut handed = Handed::from_environment().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    if config.listen.is_empty() {
        let mut places: Vec<Listen> = handed.take_rest().map(Listen::from).collect();
        if places.is_empty() {
            places.push(DEFAULT_ADDRESS.into());
        }
        return Ok(places);
    }
    let mut places = Vec::new();
    for place in &config.listen {
        match place.socket() {
            Place::Address(text) => places.push(listen(config, text.into(), place.is_tls())),
            Place::Descriptor(number) => {
                let socket = handed.take(*number);
                let socket = socket.map_err(|error| format!("--listen {place}: {error}"))?;
                places.push(listen(config, socket.into(), place.is_tls()));
            }
            Place::Activated | Place::Tls(_) => {}
        }
    }
    if let Some(rest) = config.listen.iter().find(|place| *place.socket() == Place::Activated) {
        let sockets = handed.take_rest().map(Listen::from);
        places.extend(sockets.map(|socket| listen(config, socket, rest.is_tls())));
    }
    // Whoever connects to one of them would wait for ever, as it stays with the service manager.
    match handed.take_rest().count() {
        0 => Ok(places),
        left => Err(format!(
            "{left} of the sockets that were handed over (LISTEN_FDS) would be served by nobody: give \
             --listen fd: for all of them, or no --listen"
        )),
    }
}

/// A place as the library takes it: with TLS, if that is wanted there.
#[cfg(feature = "tls")]
fn listen(config: &Config, place: Listen, with_tls: bool) -> Listen {
    match config.tls.as_ref().filter(|_| with_tls) {
        Some(files) => Listen::tls(place, files.options()),
        None => place,
    }
}

/// The configuration has no TLS in a hub that was built without it.
#[cfg(not(feature = "tls"))]
fn listen(_config: &Config, place: Listen, _with_tls: bool) -> Listen {
    place
}

/// What the routes need, opened.
struct Parts<'a> {
    config: &'a Config,
    tokens: Option<Arc<Tokens>>,
    topics: Option<Rc<Topics>>,
    processes: Option<Rc<Processes>>,
}

impl<'a> Parts<'a> {
    fn open(config: &'a Config) -> Result<Self, String> {
        config.serve.as_deref().map(folder_is_there).transpose()?;
        let tokens = config.token_file.as_deref().map(Tokens::read);
        let tokens = tokens.transpose().map_err(|mistake| format!("--token-file: {mistake}"))?;
        Self::with(config, tokens.map(Arc::new))
    }

    /// The same with tokens that are read, which several loops have together.
    fn with(config: &'a Config, tokens: Option<Arc<Tokens>>) -> Result<Self, String> {
        let topics = config.topics.then(|| Topics::of(config)).transpose()?;
        let processes = config.exec.clone().map(|command| {
            check::program(&command)?;
            let options = ExecOptions {
                command,
                max: config.max_children,
                grace: config.child_grace,
                stop_grace: config.grace,
                ends_at_hup: config.ends_at_hup(),
                lines: config.lines,
                pass_env: config.pass_env.clone(),
            };
            Processes::new(options).map_err(|error| format!("--exec: {error}"))
        });
        Ok(Self {
            config,
            tokens,
            topics: topics.map(Rc::new),
            processes: processes.transpose()?.map(Rc::new),
        })
    }

    /// Says which pages ask for no token where the others do.
    fn say_what_is_open(&self) {
        if self.tokens.is_none() {
            return;
        }
        if self.config.serve.is_some() {
            log::info!("the files of --serve are open: no token is asked for them");
        }
        if self.config.metrics.is_some() && self.config.metrics_open {
            log::info!("the metrics are open (--metrics-open): no token is asked for them");
        }
    }

    fn set_up(self, app: &mut Application) {
        app.install(options(self.config));
        if let Some(topics) = &self.topics {
            topics.check(app);
            // What is wrong with it was told before (see `check`), or is of another moment.
            if let Err(mistake) = topics.start(app, self.config) {
                log::error!("{mistake}");
            }
        }
        if let Some(processes) = &self.processes {
            processes.attach_to(app);
        }
        app.routing(|route| {
            let Self { config, tokens, topics, processes } = self;
            route.get(HEALTH, |_| Response::text("ok\n").header("Cache-Control", "no-store"));
            if let Some(path) = &config.metrics {
                metrics(route, path, tokens.clone().filter(|_| !config.metrics_open));
            }
            if let Some(path) = config.serve.as_deref() {
                route.folder("/", path);
            }
            if let Some(tokens) = tokens {
                route.on_upgrade(move |call| tokens.admit(call));
            }
            if config.echo {
                route.web_socket("/echo", |_: &Call| on_message(|session, it| session.send(it)));
            }
            if let Some(topics) = topics {
                topics.serve(route);
            }
            if let Some(processes) = processes {
                for path in ["/exec", "/exec/{path...}"] {
                    let (starting, admitting) = (Rc::clone(&processes), Rc::clone(&processes));
                    let exec = route
                        .web_socket(path, move |_: &Call| starting.handler())
                        .max_outgoing_message_size(config.lines.largest_message())
                        .on_upgrade(move |call| admitting.admit(call));
                    // A name that nobody gave this server may be anybody's who made it point here: to a
                    // program it opens no door, wherever the hub listens.
                    exec.hosts(&config.hosts);
                }
            }
        });
    }
}

/// Connections over TLS take more each.
fn for_memory(config: &Config, memory: usize) -> Limits {
    #[cfg(feature = "tls")]
    if config.tls.is_some() {
        return Limits::for_memory_with_tls(memory);
    }
    let _ = config;
    Limits::for_memory(memory)
}

fn options(config: &Config) -> WebSockets {
    let limits = config.memory.map_or_else(Limits::new, |memory| for_memory(config, memory));
    let limits = match config.max_connections {
        Some(connections) => limits.max_connections(connections),
        None => limits,
    };
    // A stop takes both at most, and the defaults are 5 s and 2 s.
    let limits = limits.close_timeout(config.grace * 5 / 7).linger_timeout(config.grace * 2 / 7);
    let options = WebSockets::new()
        .ping_period(config.ping_period)
        .timeout(config.timeout)
        .max_frame_size(config.max_message)
        .pause_timeout(PAUSE_TIMEOUT)
        .limits(limits);
    let options = match config.trusted_proxies.as_slice() {
        [] => options,
        proxies => options.trusted_proxies(proxies),
    };
    let options = match config.proxy_header {
        Some(header) => options.proxy_header(header),
        None => options,
    };
    let options = match config.hosts.as_slice() {
        [] => options,
        hosts => options.hosts(hosts),
    };
    options.allowed_origins(&config.allow_origin)
}

/// The metrics: for everyone, or for those with a token.
fn metrics(route: &mut Routing<'_>, path: &str, tokens: Option<Arc<Tokens>>) {
    match tokens {
        Some(tokens) => route.stats_if(path, move |call| tokens.admit(call).map(drop)),
        None => route.stats(path),
    }
}

/// Fails as opening it would, with the option's name.
fn folder_is_there(path: &Path) -> Result<(), String> {
    let found = std::fs::metadata(path.join("."));
    found.map(drop).map_err(|error| format!("--serve {}: {error}", path.display()))
}

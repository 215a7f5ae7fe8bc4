//! Owns what the hub serves: a configuration turned into routes and sockets.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::{Application, Call, Limits, Listen, Routing, Server, WebSockets, on_message};

use crate::config::{Config, Place};
use crate::exec::Processes;
use crate::serve::Folder;
use crate::service::{self, Handed, Notifier};
use crate::tokens::Tokens;
use crate::topics::Topics;

/// Where it listens if nothing is said.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// Serves until it is told to stop.
pub(crate) fn run(config: &Config) -> Result<(), String> {
    let parts = Parts::open(config)?;
    let mut places = places(config)?.into_iter();
    let first = places.next().ok_or("fd: is given, and no socket was handed over (LISTEN_FDS)")?;
    let notifier = Rc::new(Notifier::from_environment());
    let (in_loop, processes) = (Rc::clone(&notifier), parts.processes.clone());
    let module = move |app: &mut Application| {
        parts.set_up(app);
        if let Some(period) = service::watchdog_period() {
            // A timer of the loop: where the loop hangs, nobody is told that it does not.
            let watched = Rc::clone(&in_loop);
            app.every(period, move |_| watched.tell("WATCHDOG=1"));
        }
        in_loop.tell("READY=1");
    };
    let mut server = Server::bind(first, module).map_err(in_words)?;
    for place in places {
        server = server.listen(place).map_err(in_words)?;
    }
    let result = server.run().map_err(in_words);
    notifier.tell("STOPPING=1");
    if let Some(processes) = processes {
        processes.finish();
    }
    result
}

/// Does everything but listening at the places that are configured.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    Parts::open(config)?;
    for place in &config.listen {
        match place {
            Place::Activated | Place::Descriptor(_) => {}
            Place::Address(text) => check_place(&Listen::from(text))?,
        }
    }
    // The limits are checked where they are used: by starting a server.
    let config = config.clone();
    let module = move |app: &mut Application| {
        if let Ok(parts) = Parts::open(&config) {
            parts.set_up(app);
        }
    };
    let server = Server::bind("127.0.0.1:0", module).map_err(in_words)?;
    let handle = server.spawn().map_err(in_words)?;
    handle.shutdown(Duration::ZERO);
    handle.join().map(drop).map_err(in_words)
}

fn check_place(listen: &Listen) -> Result<(), String> {
    let faulty = |error: std::io::Error| format!("--listen {listen}: {error}");
    match listen {
        Listen::Tcp(_) => listen.addresses().map(drop).map_err(faulty),
        Listen::Unix(path) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or_else(|| Path::new(".")).metadata().map(drop).map_err(faulty)
        }
        _ => Ok(()),
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
        match place {
            Place::Address(text) => places.push(text.into()),
            Place::Descriptor(number) => {
                let socket = handed.take(*number);
                let socket = socket.map_err(|error| format!("--listen fd:{number}: {error}"))?;
                places.push(socket.into());
            }
            Place::Activated => {}
        }
    }
    if config.listen.contains(&Place::Activated) {
        places.extend(handed.take_rest().map(Listen::from));
    }
    Ok(places)
}

/// What the routes need, opened.
struct Parts<'a> {
    config: &'a Config,
    folder: Option<Folder>,
    tokens: Option<Rc<Tokens>>,
    topics: Option<Rc<Topics>>,
    processes: Option<Rc<Processes>>,
}

impl<'a> Parts<'a> {
    fn open(config: &'a Config) -> Result<Self, String> {
        let folder = config.serve.as_deref().map(|path| {
            Folder::open(path).map_err(|error| format!("--serve {}: {error}", path.display()))
        });
        let tokens = config.token_file.as_deref().map(Tokens::read);
        let tokens = tokens.transpose().map_err(|mistake| format!("--token-file: {mistake}"))?;
        let topics = config.topics.then(|| Topics::of(config)).transpose()?;
        let processes = config
            .exec
            .clone()
            .map(|command| Processes::new(command, config.max_children, config.max_message));
        Ok(Self {
            config,
            folder: folder.transpose()?,
            tokens: tokens.map(Rc::new),
            topics: topics.map(Rc::new),
            processes: processes.map(Rc::new),
        })
    }

    fn set_up(self, app: &mut Application) {
        app.install(options(self.config));
        app.routing(|route| {
            let Self { config, folder, tokens, topics, processes } = self;
            if let Some(path) = &config.metrics {
                route.stats(path);
            }
            if let Some(folder) = folder {
                serve(route, folder);
            }
            if let Some(tokens) = tokens {
                route.on_upgrade(move |call| tokens.admit(call));
            }
            if config.echo {
                route.web_socket("/echo", |_: &Call| on_message(|session, it| session.send(it)));
            }
            if let Some(topics) = topics {
                let admitting = Rc::clone(&topics);
                route
                    .web_socket("/topic/{name}", move |call: &Call| topics.join(call))
                    .on_upgrade(move |call| admitting.admit(call));
            }
            if let Some(processes) = processes {
                for path in ["/exec", "/exec/{path...}"] {
                    let (starting, admitting) = (Rc::clone(&processes), Rc::clone(&processes));
                    route
                        .web_socket(path, move |_: &Call| starting.handler())
                        .on_upgrade(move |_| admitting.admit());
                }
            }
        });
    }
}

fn options(config: &Config) -> WebSockets {
    let limits = config.memory.map_or_else(Limits::new, Limits::for_memory);
    let limits = match config.max_connections {
        Some(connections) => limits.max_connections(connections),
        None => limits,
    };
    let options = WebSockets::new()
        .ping_period(config.ping_period)
        .timeout(config.timeout)
        .max_frame_size(config.max_message)
        .limits(limits);
    match config.allow_origin.as_slice() {
        [] => options,
        origins => options.allowed_origins(origins),
    }
}

fn serve(route: &mut Routing<'_>, folder: Folder) {
    let folder = Rc::new(folder);
    let root = Rc::clone(&folder);
    route.get("/", move |call| root.answer(call));
    route.get("/{path...}", move |call| folder.answer(call));
}

//! The configuration: what options and environment say, and what is wrong with it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wirewheel::options::ProxyHeader;

use crate::broker_place::BrokerPlace;
use crate::exec::{LineOptions, LongLine, is_variable};
use crate::options::Given;
use crate::tls::TlsFiles;
use crate::upstream_place::UpstreamPlace;
use crate::values::{
    above_zero, bytes, duration, long_line, mode, number, overflow, page, positive, proxy_header,
};

/// The longest line of a program, unless something else is said or the memory is small.
const MAX_LINE: usize = 256 << 10;
/// How long a stop may take, before what is left is ended by force. Service files wait longer.
const GRACE: Duration = Duration::from_secs(7);
/// More than a small box has cores; the library's own bound.
const LOOPS_MAX: usize = 64;
/// The page that says that the hub is alive.
pub(crate) const HEALTH: &str = "/healthz";

/// What is printed for `--help`: one screen of 24 lines.
pub(crate) const HELP: &str = include_str!("help.txt");

/// What the program is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Run(Arc<Config>),
    /// Only say whether the configuration is right.
    Check(Arc<Config>),
    Help,
    Version,
}

/// A whole configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Place>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) topics: bool,
    pub(crate) replay: usize,
    pub(crate) overflow: Overflow,
    pub(crate) upstream: Option<UpstreamPlace>,
    pub(crate) broker: Option<BrokerPlace>,
    pub(crate) echo: bool,
    pub(crate) exec: Option<Command>,
    pub(crate) max_children: usize,
    pub(crate) child_grace: Duration,
    pub(crate) lines: LineOptions,
    pub(crate) pass_env: Vec<String>,
    pub(crate) serve: Option<PathBuf>,
    pub(crate) metrics: Option<String>,
    pub(crate) metrics_open: bool,
    pub(crate) allow_origin: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) proxy_header: Option<ProxyHeader>,
    pub(crate) socket_mode: Option<u32>,
    pub(crate) free_bind: bool,
    pub(crate) ping_period: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) max_message: usize,
    pub(crate) max_connections: Option<usize>,
    pub(crate) loops: usize,
    pub(crate) memory: Option<usize>,
    pub(crate) grace: Duration,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address, or `unix:` and a path.
    Address(String),
    /// Every socket that was handed over and is not named by its number.
    Activated,
    /// The socket that was handed over as the descriptor of this number.
    Descriptor(u32),
    /// One of the others, with TLS.
    Tls(Box<Self>),
}

impl Place {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The place itself, whatever is spoken there.
    pub(crate) fn socket(&self) -> &Self {
        match self {
            Self::Tls(place) => place,
            place => place,
        }
    }
}

/// As `--listen` takes it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) => f.write_str(text),
            Self::Activated => f.write_str("fd:"),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
            Self::Tls(place) => write!(f, "tls:{place}"),
        }
    }
}

/// What happens to a topic's messages for somebody who reads slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    Suspend,
    DropOldest,
    DropLatest,
    /// Somebody who is behind gets the newest message alone.
    Latest,
    /// Somebody who missed a message is ended.
    Close,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

const GRACE_MIN: Duration = Duration::from_millis(100);
const GRACE_MAX: Duration = Duration::from_secs(3600);

impl Request {
    /// Reads options and environment; the error says what to do.
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, String> {
        let mut given = Given::from_environment(environment)?;
        given.override_with(Given::from_arguments(arguments)?);
        if given.is_on("help") {
            return Ok(Self::Help);
        }
        if given.is_on("version") {
            return Ok(Self::Version);
        }
        let config = Arc::new(Config::from_given(&given)?);
        Ok(if given.is_on("check") { Self::Check(config) } else { Self::Run(config) })
    }
}

impl Config {
    fn from_given(given: &Given) -> Result<Self, String> {
        let memory = given.parsed("memory", bytes)?;
        let largest_line = memory.map_or(MAX_LINE, |memory| (memory / 64).clamp(4 << 10, MAX_LINE));
        let listen = places(&given.texts("listen")?)?;
        let config = Self {
            tls: TlsFiles::from_given(given, &listen)?,
            listen,
            topics: given.is_on("topics"),
            replay: given.parsed("replay", number)?.unwrap_or(0),
            overflow: given.parsed("overflow", overflow)?.unwrap_or(Overflow::DropOldest),
            upstream: UpstreamPlace::from_given(given)?,
            broker: BrokerPlace::from_given(given)?,
            echo: given.is_on("echo"),
            exec: command(given)?,
            max_children: given.parsed("max-children", positive)?.unwrap_or(16),
            child_grace: given.parsed("child-grace", duration)?.unwrap_or(Duration::from_secs(5)),
            lines: LineOptions {
                max: given.parsed("max-line", bytes)?.unwrap_or(largest_line),
                long: given.parsed("long-line", long_line)?.unwrap_or(LongLine::Split),
                binary: given.is_on("binary-lines"),
            },
            pass_env: given.texts("pass-env")?,
            serve: given.one("serve").map(PathBuf::from),
            metrics: given.parsed("metrics", page)?,
            metrics_open: given.is_on("metrics-open"),
            allow_origin: given.texts("allow-origin")?,
            hosts: given.texts("host")?,
            token_file: given.one("token-file").map(PathBuf::from),
            trusted_proxies: given.texts("trusted-proxy")?,
            proxy_header: given.parsed("proxy-header", proxy_header)?,
            socket_mode: given.parsed("socket-mode", mode)?,
            free_bind: given.is_on("free-bind"),
            ping_period: given
                .parsed("ping-period", duration)?
                .map_or(Some(Duration::from_secs(15)), |time| (!time.is_zero()).then_some(time)),
            timeout: given.parsed("timeout", above_zero)?.unwrap_or(Duration::from_secs(15)),
            max_message: given.parsed("max-message", bytes)?.unwrap_or(64 << 10),
            max_connections: given.parsed("max-connections", positive)?,
            loops: given.parsed("loops", positive)?.unwrap_or(1),
            memory,
            grace: given.parsed("grace", duration)?.unwrap_or(GRACE),
        };
        if !config.topics && !config.echo && config.exec.is_none() && config.serve.is_none() {
            let text = "nothing to serve: give --topics, --echo, --exec CMD or --serve DIR";
            return Err(text.into());
        }
        if config.upstream.is_some() && !config.topics {
            return Err("--upstream joins topics to those of another hub: give --topics too".into());
        }
        if let Some(broker) = &config.broker {
            if !config.topics {
                return Err("--broker has topics span boxes: give --topics too".into());
            }
            broker.check_beside(config.upstream.is_some(), config.overflow)?;
        }
        config.check_values()?;
        Ok(config)
    }

    /// Whether SIGHUP is a stop, as there is nothing that it could have read again.
    pub(crate) fn ends_at_hup(&self) -> bool {
        self.token_file.is_none() && self.tls.is_none()
    }

    /// What is wrong with values that are right each by itself.
    fn check_values(&self) -> Result<(), String> {
        if let Some(name) = self.pass_env.iter().find(|name| !is_variable(name.as_ref())) {
            return Err(format!(
                "--pass-env {name:?}: give the name of a variable, without a value"
            ));
        }
        if self.grace < GRACE_MIN || self.grace > GRACE_MAX {
            return Err(format!("--grace {:?}: give 100ms to 1h", self.grace));
        }
        if self.child_grace > GRACE_MAX {
            return Err(format!("--child-grace {:?}: give at most 1h", self.child_grace));
        }
        self.check_loops()?;
        let Some(metrics) = self.metrics.as_deref() else { return Ok(()) };
        let first = metrics.split('/').nth(1).unwrap_or_default();
        let clash = match first {
            "healthz" if metrics == HEALTH => Some("the page that says that the hub is alive"),
            "echo" if self.echo && metrics == "/echo" => Some("--echo"),
            "exec" if self.exec.is_some() => Some("--exec"),
            "topic" if self.topics => Some("--topics"),
            _ => None,
        };
        clash
            .map_or(Ok(()), |other| Err(format!("--metrics {metrics:?}: this is where {other} is")))
    }
}

impl Config {
    /// What several loops cannot do.
    fn check_loops(&self) -> Result<(), String> {
        let once = [
            ("--exec", self.exec.is_some(), "its programs are looked after"),
            ("--broker", self.broker.is_some(), "its topics are joined"),
            ("--upstream", self.upstream.is_some(), "its topics are joined"),
        ];
        if self.loops > LOOPS_MAX {
            return Err(format!("--loops {}: give at most {LOOPS_MAX}", self.loops));
        }
        match once.into_iter().find(|(_, is_given, _)| *is_given && self.loops > 1) {
            Some((option, _, why)) => {
                Err(format!("{option}: {why} by one loop: give no --loops, or another hub"))
            }
            None => Ok(()),
        }
    }
}

/// The program of `--exec`, with the arguments of `--exec-arg` or those that follow `--`.
fn command(given: &Given) -> Result<Option<Command>, String> {
    let behind = given.all("");
    let arguments = if behind.is_empty() { given.all("exec-arg") } else { behind };
    match given.one("exec") {
        Some(program) => {
            Ok(Some(Command { program: program.clone(), arguments: arguments.to_vec() }))
        }
        None if arguments.is_empty() => Ok(None),
        None => {
            Err("arguments (--exec-arg, or behind --) are for --exec, which is not given".into())
        }
    }
}

fn places(texts: &[String]) -> Result<Vec<Place>, String> {
    let places = texts.iter().map(|text| match text.strip_prefix("tls:") {
        Some("") => Err("--listen tls: give an address behind it, as in tls:0.0.0.0:8443".into()),
        Some(rest) if rest.starts_with("//") || rest.starts_with("tls:") => {
            Err(format!("--listen {text:?}: give an address, as in tls:0.0.0.0:8443"))
        }
        Some(rest) => place(rest).map(Box::new).map(Place::Tls),
        None => place(text),
    });
    let places = places.collect::<Result<Vec<_>, String>>()?;
    let takes_rest = |tls: bool| {
        let mut of_kind = places.iter().filter(|place| place.is_tls() == tls);
        of_kind.any(|place| *place.socket() == Place::Activated)
    };
    if takes_rest(true) && takes_rest(false) {
        let text = "--listen fd: and tls:fd: both stand for all sockets handed over: give one by its number";
        return Err(text.into());
    }
    Ok(places)
}

fn place(text: &str) -> Result<Place, String> {
    match text.strip_prefix("fd:") {
        Some("") => Ok(Place::Activated),
        Some(number) => number.parse().map(Place::Descriptor).map_err(|_| {
            format!("--listen {text:?}: give fd: for all sockets handed over, or one as fd:3")
        }),
        None => Ok(Place::Address(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Request, String> {
        Request::read(
            arguments.iter().map(OsString::from),
            environment.iter().map(|(name, value)| (name.into(), value.into())),
        )
    }

    fn config(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        match read(arguments, environment) {
            Ok(Request::Run(config)) => Arc::into_inner(config).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_read_in_both_ways_of_writing() {
        let config = config(
            &[
                "--listen",
                "unix:/run/a",
                "--listen=fd:",
                "--listen=fd:3",
                "--echo",
                "--ping-period=0",
                "--timeout",
                "2m",
                "--max-message",
                "1M",
                "--replay=3",
                "--overflow",
                "suspend",
                "--exec",
                "cat",
                "--",
                "--listen",
                "-u",
            ],
            &[],
        );
        let places = [Place::Address("unix:/run/a".into()), Place::Activated, Place::Descriptor(3)];
        assert_eq!(config.listen, places);
        assert_eq!((config.ping_period, config.timeout), (None, Duration::from_secs(120)));
        assert_eq!((config.max_message, config.replay), (1 << 20, 3));
        assert_eq!(config.overflow, Overflow::Suspend);
        let exec = config.exec.unwrap();
        assert_eq!(
            (exec.program, exec.arguments),
            ("cat".into(), vec!["--listen".into(), "-u".into()])
        );
    }

    #[test]
    fn the_environment_is_read_and_options_count_more() {
        let environment = [
            ("WIREWHEEL_HUB_ALLOW_ORIGIN", "http://a\n\nhttp://b\n"),
            ("WIREWHEEL_HUB_TOPICS", "1"),
            ("WIREWHEEL_HUB_ECHO", "no"),
            ("WIREWHEEL_HUB_MEMORY", "8m"),
            ("OTHER", "x"),
        ];
        let of_environment = config(&[], &environment);
        assert_eq!(of_environment.allow_origin, ["http://a", "http://b"]);
        assert!(of_environment.topics && !of_environment.echo);
        assert_eq!(of_environment.memory, Some(8 << 20));
        let overridden = config(&["--memory", "1m", "--allow-origin=http://c"], &environment);
        assert_eq!(overridden.memory, Some(1 << 20));
        assert_eq!(overridden.allow_origin, ["http://c"]);
    }

    #[test]
    fn switches_of_the_environment_are_on_or_off_in_every_common_spelling() {
        for off in ["", " ", "0", "no", "No", "FALSE", "False", "off", "Off\r", "n"] {
            let config = config(&["--topics"], &[("WIREWHEEL_HUB_ECHO", off)]);
            assert!(!config.echo, "{off:?}");
        }
        for on in ["1", "yes", "True", "TRUE", "on", "On\r", " y "] {
            assert!(config(&[], &[("WIREWHEEL_HUB_ECHO", on)]).echo, "{on:?}");
        }
        let error = read(&["--topics"], &[("WIREWHEEL_HUB_ECHO", "maybe")]).unwrap_err();
        assert!(error.starts_with("WIREWHEEL_HUB_ECHO=\"maybe\": give 1 or 0"), "{error}");
    }

    #[test]
    fn what_is_set_to_nothing_is_not_set() {
        let of = |value| {
            let names = ["MEMORY", "SERVE", "LISTEN", "EXEC", "TOKEN_FILE", "PING_PERIOD"];
            let names = names.map(|name| format!("WIREWHEEL_HUB_{name}"));
            let all: Vec<_> = names.iter().map(|name| (name.as_str(), value)).collect();
            config(&["--echo"], &all)
        };
        assert_eq!(of(""), config(&["--echo"], &[]));
        assert_eq!(of(" \r\n"), config(&["--echo"], &[]));
        assert_eq!(config(&["--echo"], &[("WIREWHEEL_HUB_MEMORY", " 8m\r")]).memory, Some(8 << 20));
    }

    #[test]
    fn what_is_set_for_a_service_of_that_name_is_no_option() {
        let service = [
            ("WIREWHEEL_HUB_SERVICE_HOST", "10.0.0.1"),
            ("WIREWHEEL_HUB_SERVICE_PORT", "8080"),
            ("WIREWHEEL_HUB_SERVICE_PORT_HTTP", "8080"),
            ("WIREWHEEL_HUB_PORT", "tcp://10.0.0.1:8080"),
            ("WIREWHEEL_HUB_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("WIREWHEEL_HUB_PORT_8080_TCP_PROTO", "tcp"),
            ("WIREWHEEL_HUB_PORT_8080_TCP_PORT", "8080"),
            ("WIREWHEEL_HUB_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("WIREWHEEL_HUB_METRICS_SERVICE_HOST", "10.0.0.1"),
            ("WIREWHEEL_HUB_METRICS_PORT", "tcp://10.0.0.1:8080"),
            ("WIREWHEEL_HUB_NAME", "/web/wirewheel-hub"),
            ("WIREWHEEL_HUB_ENV_LANG", "C"),
        ];
        assert_eq!(config(&["--echo"], &service), config(&["--echo"], &[]));
        let error = read(&["--echo"], &[("WIREWHEEL_HUB_PORT", "8080")]).unwrap_err();
        assert!(error.contains("no such option"), "{error}");
    }

    #[test]
    fn every_mistake_says_what_to_do() {
        for (arguments, complaint) in [
            (&["--ecko"][..], "there is no option --ecko; --help"),
            (&["echo"], "\"echo\" is no option"),
            (&["--"], "nothing to serve: give --topics"),
            (&["--echo=1"], "--echo takes no value"),
            (&["--serve"], "--serve is given without its value"),
            (&["--memory=1m", "--memory=2m"], "--memory is given twice"),
            (&["--echo", "--timeout", "15"], "--timeout \"15\": give a time, such as 500ms"),
            (&["--echo", "--timeout", "99999999999999999999h"], "give a time"),
            (&["--echo", "--timeout", "0"], "--timeout \"0\": give a time above 0"),
            (&["--echo", "--exec-arg", "x"], "are for --exec, which is not given"),
            (&["--echo", "--max-message", "lots"], "give bytes, such as 100, 64k"),
            (&["--echo", "--max-children", "0"], "give a number above 0"),
            (&["--echo", "--overflow", "panic"], "give suspend, drop-oldest"),
            (&["--echo", "--metrics", "metrics"], "give a path from /, such as /metrics"),
            (&["--echo", "--metrics", "/m?x=1"], "give a path from /"),
            (&["--echo", "--metrics", "/{name}"], "give a path from /"),
            (&["--echo", "--metrics", "/a//b"], "give a path from /"),
            (&["--echo", "--metrics", "/"], "give a path from /"),
            (&["--echo", "--metrics", "/../m"], "give a path from /"),
            (&["--echo", "--metrics", "/m%20x"], "give a path from /"),
            (&["--echo", "--metrics", "/healthz"], "the hub is alive"),
            (&["--echo", "--metrics", "/echo"], "this is where --echo is"),
            (&["--topics", "--metrics", "/topic/x"], "this is where --topics is"),
            (&["--exec", "cat", "--metrics", "/exec/x"], "this is where --exec is"),
            (&["--echo", "--socket-mode", "888"], "give a mode in octal"),
            (&["--echo", "--socket-mode", "4660"], "give a mode in octal"),
            (&["--echo", "--long-line", "drop"], "give split, cut or close"),
            (&["--echo", "--grace", "1ms"], "give 100ms to 1h"),
            (&["--echo", "--child-grace", "2h"], "give at most 1h"),
            (&["--exec", "cat", "--pass-env", "A=1"], "give the name of a variable"),
            (&["--echo", "--listen", "fd:web"], "give fd: for all sockets handed over, or one"),
            (&["--echo", "--listen", "fd:-1"], "or one as fd:3"),
            (&["--echo", "--loops", "0"], "give a number above 0"),
            (&["--echo", "--loops", "65"], "give at most 64"),
            (
                &["--exec", "cat", "--loops", "2"],
                "--exec: its programs are looked after by one loop",
            ),
            (&["--echo", "--", "x"], "or behind --) are for --exec"),
            (&["--echo", "--listen", "tls:"], "give an address behind it, as in tls:0.0.0.0:8443"),
            (
                &["--echo", "--listen", "tls://0.0.0.0:8443"],
                "give an address, as in tls:0.0.0.0:8443",
            ),
            (&["--echo", "--listen", "tls:fd:web"], "or one as fd:3"),
            (&["--echo", "--listen", "fd:", "--listen", "tls:fd:"], "give one by its number"),
        ] {
            let error = read(arguments, &[]).unwrap_err();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
        let error = read(&["--echo"], &[("WIREWHEEL_HUB_PING", "1s")]).unwrap_err();
        assert_eq!(error, "WIREWHEEL_HUB_PING is set, and there is no such option");
    }

    #[test]
    fn every_mistake_of_tls_says_what_to_do() {
        #[cfg(feature = "tls")]
        for (arguments, complaint) in [
            (
                &["--listen", "tls::443"][..],
                "--listen tls::443 needs --tls-cert: a PEM file with the",
            ),
            (
                &["--listen", "tls::443", "--tls-cert", "a"],
                "needs --tls-key: a PEM file with its key",
            ),
            (&["--listen", "tls::443", "--tls-key", "a"], "needs --tls-cert: a PEM file with the"),
            (
                &["--tls-cert", "a", "--tls-key", "b"],
                "--tls-cert is given, and nothing listens with TLS",
            ),
            (
                &["--tls-key", "b", "--listen", ":80"],
                "--tls-key is given, and nothing listens with TLS",
            ),
        ] {
            let error = read(&[&["--echo"], arguments].concat(), &[]).unwrap_err();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
        #[cfg(not(feature = "tls"))]
        for arguments in [["--listen", "tls::443"], ["--tls-cert", "a"]] {
            let error = read(&[&["--echo"], &arguments[..]].concat(), &[]).unwrap_err();
            assert_eq!(error, "this hub was built without TLS: build it with --features tls");
        }
    }

    #[test]
    fn the_help_fits_a_screen_and_names_every_option() {
        assert!(HELP.lines().count() <= 24);
        assert!(HELP.lines().all(|line| line.chars().count() <= 80));
        for (name, _) in crate::options::OPTIONS.into_iter().filter(|(name, _)| !name.is_empty()) {
            assert!(HELP.contains(&format!("--{name}")), "{name}");
        }
        assert_eq!(read(&["--help", "--check"], &[]), Ok(Request::Help));
        assert_eq!(read(&["--version"], &[]), Ok(Request::Version));
        assert!(matches!(read(&["--echo", "--check"], &[]), Ok(Request::Check(_))));
    }
}

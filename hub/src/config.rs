//! Owns the configuration: what options and environment say, and what is wrong with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What is printed for `--help`: one screen of 24 lines.
pub(crate) const HELP: &str = include_str!("help.txt");

/// What the program is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Run(Box<Config>),
    /// Only say whether the configuration is right.
    Check(Box<Config>),
    Help,
    Version,
}

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Place>,
    pub(crate) topics: bool,
    pub(crate) replay: usize,
    pub(crate) overflow: Overflow,
    pub(crate) echo: bool,
    pub(crate) exec: Option<Command>,
    pub(crate) max_children: usize,
    pub(crate) serve: Option<PathBuf>,
    pub(crate) metrics: Option<String>,
    pub(crate) allow_origin: Vec<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ping_period: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) max_message: usize,
    pub(crate) max_connections: Option<usize>,
    pub(crate) memory: Option<usize>,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// On if it is there.
    Switch,
    One,
    Several,
}

const OPTIONS: [(&str, Kind); 20] = [
    ("listen", Kind::Several),
    ("topics", Kind::Switch),
    ("replay", Kind::One),
    ("overflow", Kind::One),
    ("echo", Kind::Switch),
    ("exec", Kind::One),
    ("max-children", Kind::One),
    ("serve", Kind::One),
    ("metrics", Kind::One),
    ("allow-origin", Kind::Several),
    ("token-file", Kind::One),
    ("ping-period", Kind::One),
    ("timeout", Kind::One),
    ("max-message", Kind::One),
    ("max-connections", Kind::One),
    ("memory", Kind::One),
    ("check", Kind::Switch),
    ("help", Kind::Switch),
    ("version", Kind::Switch),
    ("", Kind::Several), // what follows `--`
];

const ENVIRONMENT: &str = "WIREWHEEL_HUB_";

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
        let config = Box::new(Config::from_given(&given)?);
        Ok(if given.is_on("check") { Self::Check(config) } else { Self::Run(config) })
    }
}

impl Config {
    fn from_given(given: &Given) -> Result<Self, String> {
        let arguments = given.all("");
        let exec = given
            .one("exec")
            .map(|program| Command { program: program.clone(), arguments: arguments.to_vec() });
        if exec.is_none() && !arguments.is_empty() {
            return Err("arguments behind -- are for --exec, which is not given".into());
        }
        let config = Self {
            listen: places(&given.texts("listen")?)?,
            topics: given.is_on("topics"),
            replay: given.parsed("replay", number)?.unwrap_or(0),
            overflow: given.parsed("overflow", overflow)?.unwrap_or(Overflow::DropOldest),
            echo: given.is_on("echo"),
            exec,
            max_children: given.parsed("max-children", positive)?.unwrap_or(16),
            serve: given.one("serve").map(PathBuf::from),
            metrics: given.parsed("metrics", path)?,
            allow_origin: given.texts("allow-origin")?,
            token_file: given.one("token-file").map(PathBuf::from),
            ping_period: given
                .parsed("ping-period", duration)?
                .map_or(Some(Duration::from_secs(15)), |time| (!time.is_zero()).then_some(time)),
            timeout: given.parsed("timeout", duration)?.unwrap_or(Duration::from_secs(15)),
            max_message: given.parsed("max-message", bytes)?.unwrap_or(64 << 10),
            max_connections: given.parsed("max-connections", positive)?,
            memory: given.parsed("memory", bytes)?,
        };
        if !config.topics && !config.echo && config.exec.is_none() && config.serve.is_none() {
            let text = "nothing to serve: give --topics, --echo, --exec CMD or --serve DIR";
            return Err(text.into());
        }
        Ok(config)
    }
}

/// What is given, by the name of the option.
#[derive(Default)]
struct Given(BTreeMap<&'static str, Vec<OsString>>);

impl Given {
    fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut given = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                given.0.insert("", arguments.collect());
                break;
            }
            let text = argument.to_string_lossy();
            let Some(option) = text.strip_prefix("--") else {
                return Err(format!("{text:?} is no option; --help lists them"));
            };
            // A value that is no text only comes as an argument of its own.
            let (name, joined) = match option.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (option, None),
            };
            let Some((name, kind)) = find(name) else {
                return Err(format!("there is no option --{name}; --help lists them"));
            };
            let value = match (kind, joined) {
                (Kind::Switch, None) => OsString::from("1"),
                (Kind::Switch, Some(_)) => return Err(format!("--{name} takes no value")),
                (_, Some(value)) => value,
                (_, None) => arguments
                    .next()
                    .ok_or_else(|| format!("--{name} is given without its value"))?,
            };
            let values = given.0.entry(name).or_default();
            if kind == Kind::One && !values.is_empty() {
                return Err(format!("--{name} is given twice"));
            }
            values.push(value);
        }
        Ok(given)
    }

    fn from_environment(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, String> {
        let mut given = Self::default();
        for (variable, value) in environment {
            let Some(variable) = variable.to_str() else { continue };
            let Some(name) = variable.strip_prefix(ENVIRONMENT) else { continue };
            let Some((name, kind)) = find(&name.to_lowercase().replace('_', "-")) else {
                return Err(format!("{variable} is set, and there is no such option"));
            };
            let values = match kind {
                Kind::Switch if matches!(value.to_str(), Some("" | "0" | "no" | "false")) => {
                    continue;
                }
                Kind::Switch | Kind::One => vec![value],
                Kind::Several => match value.to_str() {
                    Some(lines) => {
                        lines.lines().filter(|line| !line.is_empty()).map(OsString::from).collect()
                    }
                    None => return Err(format!("{variable} is not UTF-8")),
                },
            };
            given.0.insert(name, values);
        }
        Ok(given)
    }

    fn override_with(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn all(&self, name: &str) -> &[OsString] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn one(&self, name: &str) -> Option<&OsString> {
        self.all(name).first()
    }

    fn is_on(&self, name: &str) -> bool {
        self.one(name).is_some()
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let text = |value: &OsString| {
            value.to_str().map(str::to_owned).ok_or_else(|| format!("--{name} is not UTF-8"))
        };
        self.all(name).iter().map(text).collect()
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.texts(name)?.into_iter().next() else { return Ok(None) };
        parse(&text).map(Some).map_err(|wish| format!("--{name} {text:?}: {wish}"))
    }
}

fn find(name: &str) -> Option<(&'static str, Kind)> {
    OPTIONS.into_iter().find(|(known, _)| *known == name && !name.is_empty())
}

fn places(texts: &[String]) -> Result<Vec<Place>, String> {
    let place = |text: &String| match text.strip_prefix("fd:") {
        Some("") => Ok(Place::Activated),
        Some(number) => number.parse().map(Place::Descriptor).map_err(|_| {
            format!("--listen {text:?}: give fd: for all sockets handed over, or one as fd:3")
        }),
        None => Ok(Place::Address(text.clone())),
    };
    texts.iter().map(place).collect()
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "give a whole number".into())
}

fn positive(text: &str) -> Result<usize, String> {
    number(text).ok().filter(|number| *number > 0).ok_or_else(|| "give a number above 0".into())
}

fn bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.to_ascii_lowercase() {
        text if text.ends_with('k') => (text.trim_end_matches('k').to_owned(), 10),
        text if text.ends_with('m') => (text.trim_end_matches('m').to_owned(), 20),
        text => (text, 0),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.filter(|number| *number > 0).ok_or_else(|| "give bytes, such as 100, 64k or 16m".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wish = || "give a time, such as 500ms, 15s, 2m or 1h".to_owned();
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let number: u64 = digits.parse().map_err(|_| wish())?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 1,
        _ => return Err(wish()),
    };
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(wish)
}

fn overflow(text: &str) -> Result<Overflow, String> {
    Ok(match text {
        "suspend" => Overflow::Suspend,
        "drop-oldest" => Overflow::DropOldest,
        "drop-latest" => Overflow::DropLatest,
        "latest" => Overflow::Latest,
        "close" => Overflow::Close,
        _ => return Err("give suspend, drop-oldest, drop-latest, latest or close".into()),
    })
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("give a path from /".into()) }
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
            Ok(Request::Run(config)) => *config,
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
            (&["--echo", "--max-message", "lots"], "give bytes, such as 100, 64k"),
            (&["--echo", "--max-children", "0"], "give a number above 0"),
            (&["--echo", "--overflow", "panic"], "give suspend, drop-oldest"),
            (&["--echo", "--metrics", "metrics"], "give a path from /"),
            (&["--echo", "--listen", "fd:web"], "give fd: for all sockets handed over, or one"),
            (&["--echo", "--listen", "fd:-1"], "or one as fd:3"),
            (&["--echo", "--", "x"], "arguments behind -- are for --exec"),
        ] {
            let error = read(arguments, &[]).unwrap_err();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
        let error = read(&["--echo"], &[("WIREWHEEL_HUB_PING", "1s")]).unwrap_err();
        assert_eq!(error, "WIREWHEEL_HUB_PING is set, and there is no such option");
    }

    #[test]
    fn the_help_fits_a_screen_and_names_every_option() {
        assert!(HELP.lines().count() <= 24);
        assert!(HELP.lines().all(|line| line.chars().count() <= 80));
        for (name, _) in OPTIONS.into_iter().filter(|(name, _)| !name.is_empty()) {
            assert!(HELP.contains(&format!("--{name}")), "{name}");
        }
        assert_eq!(read(&["--help", "--check"], &[]), Ok(Request::Help));
        assert_eq!(read(&["--version"], &[]), Ok(Request::Version));
        assert!(matches!(read(&["--echo", "--check"], &[]), Ok(Request::Check(_))));
    }
}

//! Where the broker is over which topics span boxes, and what it is shown: as the options say it.

use std::fs;
use std::path::PathBuf;

use crate::check;
use crate::config::Overflow;
use crate::options::Given;

/// Where the broker is, what its topics begin with, and what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "it is refused"))]
pub(crate) struct BrokerPlace {
    pub(crate) url: String,
    pub(crate) prefix: String,
    /// Its first line is `user:password`.
    pub(crate) login_file: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

/// What is for a broker alone.
const BESIDE: [&str; 3] = ["prefix", "broker-login-file", "broker-ca"];

impl BrokerPlace {
    /// What the options say; an error where they do not fit together.
    pub(crate) fn from_given(given: &Given) -> Result<Option<Self>, String> {
        let Some(url) = given.texts("broker")?.pop() else {
            let beside = BESIDE.into_iter().find(|name| given.is_on(name));
            return match beside {
                None => Ok(None),
                Some(name) => Err(format!("--{name} is for --broker, which is not given")),
            };
        };
        let file = |name| {
            // A working folder may be another one when they are read again.
            let path = given.one(name).map(PathBuf::from);
            path.map(|path| std::path::absolute(&path).unwrap_or(path))
        };
        let place = Self {
            url,
            prefix: given.texts("prefix")?.pop().unwrap_or_default(),
            login_file: file("broker-login-file"),
            ca: file("broker-ca"),
        };
        place.check()?;
        Ok(Some(place))
    }

    fn check(&self) -> Result<(), String> {
        let is_secured = self.url.starts_with("mqtts:");
        Err(if !cfg!(feature = "broker") {
            "this hub was built without --broker: build it with --features broker"
        } else if (is_secured || self.ca.is_some()) && !cfg!(feature = "tls") {
            "this hub was built without TLS: build it with --features broker,tls"
        } else if self.url.contains('@') && !self.url.starts_with("mqtt+unix:") {
            "--broker: user and password are for --broker-login-file"
        } else if self.ca.is_some() && !is_secured {
            "--broker-ca is for certificates: give --broker mqtts://.."
        } else {
            return Ok(());
        }
        .into())
    }

    /// What else must not be given with it.
    pub(crate) fn check_beside(
        &self,
        has_upstream: bool,
        overflow: Overflow,
    ) -> Result<(), String> {
        Err(if has_upstream {
            "--broker and --upstream both join topics to others: give one of them"
        } else if overflow == Overflow::Suspend {
            "--overflow suspend would have a slow broker hold up everybody: give another with --broker"
        } else {
            return Ok(());
        }
        .into())
    }

    /// Whether what the broker is shown and the authority are there for this process to read.
    pub(crate) fn readable(&self) -> Result<(), String> {
        if let Some(path) = &self.login_file {
            check::readable("broker-login-file", path)?;
        }
        self.ca.as_deref().map_or(Ok(()), |path| check::readable("broker-ca", path))
    }

    /// User name and password, if a file has them: its first line but for comments and empty ones. A password
    /// may be short, and end in a space.
    pub(crate) fn login(&self) -> Result<Option<(String, String)>, String> {
        let Some(path) = self.login_file.as_deref() else { return Ok(None) };
        let wrong = |what: &str| format!("--broker-login-file: {what}");
        self.readable()?;
        let text = fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        let is_told = |line: &&str| !matches!(line.trim_start().bytes().next(), None | Some(b'#'));
        let line = text.lines().find(is_told);
        match line.and_then(|line| line.split_once(':')) {
            Some((user, password)) => Ok(Some((user.to_owned(), password.to_owned()))),
            None => Err(wrong("its first line is to be user:password")),
        }
    }
}

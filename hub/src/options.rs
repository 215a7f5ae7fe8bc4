//! The options as they are given: their names, as arguments and as variables of the environment.

use std::ffi::OsString;

use crate::values;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On if it is there.
    Switch,
    One,
    Several,
}

/// Every option; service files and documents are held to this table. Those that guard come first.
pub(crate) const OPTIONS: [(&str, Kind); 44] = [
    ("token-file", Kind::One),
    ("upstream-token-file", Kind::One),
    ("upstream-ca", Kind::One),
    ("broker-login-file", Kind::One),
    ("broker-ca", Kind::One),
    ("allow-origin", Kind::Several),
    ("host", Kind::Several),
    ("trusted-proxy", Kind::Several),
    ("proxy-header", Kind::One),
    ("metrics-open", Kind::Switch),
    ("tls-cert", Kind::One),
    ("tls-key", Kind::One),
    ("tls-client-ca", Kind::One),
    ("socket-mode", Kind::One),
    ("pass-env", Kind::Several),
    ("listen", Kind::Several),
    ("free-bind", Kind::Switch),
    ("topics", Kind::Switch),
    ("replay", Kind::One),
    ("overflow", Kind::One),
    ("upstream", Kind::One),
    ("broker", Kind::One),
    ("prefix", Kind::One),
    ("echo", Kind::Switch),
    ("exec", Kind::One),
    ("exec-arg", Kind::Several),
    ("max-children", Kind::One),
    ("child-grace", Kind::One),
    ("max-line", Kind::One),
    ("long-line", Kind::One),
    ("binary-lines", Kind::Switch),
    ("serve", Kind::One),
    ("metrics", Kind::One),
    ("ping-period", Kind::One),
    ("timeout", Kind::One),
    ("max-message", Kind::One),
    ("max-connections", Kind::One),
    ("loops", Kind::One),
    ("memory", Kind::One),
    ("grace", Kind::One),
    // What follows is for whoever calls the program by hand.
    ("check", Kind::Switch),
    ("help", Kind::Switch),
    ("version", Kind::Switch),
    ("", Kind::Several), // what follows `--`
];

const ENVIRONMENT: &str = "WIREWHEEL_HUB_";

/// What is given, by the name of the option. So few need no tree, whose code is larger than all of this.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<(&'static str, Vec<OsString>)>);

impl Given {
    pub(crate) fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, String> {
        let mut given = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                given.set("", arguments.collect());
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
            let mut values = given.all(name).to_vec();
            if kind == Kind::One && !values.is_empty() {
                return Err(format!("--{name} is given twice"));
            }
            values.push(value);
            given.set(name, values);
        }
        Ok(given)
    }

    pub(crate) fn from_environment(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, String> {
        let mut given = Self::default();
        for (variable, value) in environment {
            let Some(variable) = variable.to_str() else { continue };
            let Some(name) = variable.strip_prefix(ENVIRONMENT) else { continue };
            let text = value.to_str();
            let Some((option, kind)) = find(&name.to_lowercase().replace('_', "-")) else {
                if is_of_a_service(name, text.unwrap_or_default()) {
                    continue;
                }
                return Err(format!("{variable} is set, and there is no such option"));
            };
            let values: Vec<OsString> = match (kind, text) {
                // Set to nothing is not set.
                (_, Some(text)) if text.trim().is_empty() => continue,
                (Kind::Switch, Some(text)) => match values::switch(text) {
                    Ok(true) => vec!["1".into()],
                    Ok(false) => continue,
                    Err(wish) => return Err(format!("{variable}={text:?}: {wish}")),
                },
                (Kind::One, Some(text)) => vec![text.trim().into()],
                (Kind::One, None) => vec![value],
                (Kind::Several, Some(text)) => {
                    let lines = text.lines().map(str::trim);
                    lines.filter(|line| !line.is_empty()).map(OsString::from).collect()
                }
                (_, None) => return Err(format!("{variable} is not UTF-8")),
            };
            given.set(option, values);
        }
        Ok(given)
    }

    fn set(&mut self, name: &'static str, values: Vec<OsString>) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, values));
    }

    pub(crate) fn override_with(&mut self, other: Self) {
        for (name, values) in other.0 {
            self.set(name, values);
        }
    }

    pub(crate) fn all(&self, name: &str) -> &[OsString] {
        let given = self.0.iter().find(|(known, _)| *known == name);
        given.map_or(&[], |(_, values)| values.as_slice())
    }

    pub(crate) fn one(&self, name: &str) -> Option<&OsString> {
        self.all(name).first()
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.one(name).is_some()
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let text = |value: &OsString| {
            value.to_str().map(str::to_owned).ok_or_else(|| format!("--{name} is not UTF-8"))
        };
        self.all(name).iter().map(text).collect()
    }

    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).map_err(|wish| refused(name, text, &wish))
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.one(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text)),
            Some(None) => Err(format!("--{name} is not UTF-8")),
        }
    }
}

/// Once, not for each type of value.
fn refused(name: &str, text: &str, wish: &str) -> String {
    format!("--{name} {text:?}: {wish}")
}

fn find(name: &str) -> Option<(&'static str, Kind)> {
    OPTIONS.into_iter().find(|(known, _)| *known == name && !name.is_empty())
}

/// Whether a variable of ours, without its prefix, is one that Kubernetes and Docker set for a service
/// that bears this program's name: where it is, not what it is to do.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_protocol = |word: &&str| matches!(*word, "TCP" | "UDP" | "SCTP");
    let is_port = words.contains(&"PORT");
    let is_place = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("SERVICE_HOST")
        || name.contains("SERVICE_PORT")
        || (is_port && (is_place || words.iter().any(is_protocol)))
        || (name.ends_with("NAME") && value.starts_with('/'))
        || words.contains(&"ENV")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options that a service can have: all but those for whoever calls the program by hand.
    fn of_services() -> Vec<(&'static str, Kind)> {
        let by_hand = ["check", "help", "version", ""];
        OPTIONS.into_iter().filter(|(name, _)| !by_hand.contains(name)).collect()
    }

    /// The first places of words in a text.
    fn places(text: &str, words: &[String]) -> Vec<usize> {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let place = |word: &String| {
            let mut found = text.match_indices(word.as_str()).filter(|(at, _)| {
                let (before, behind) = (&text[..*at], &text[at + word.len()..]);
                !before.ends_with(is_name) && !behind.starts_with(is_name)
            });
            found.next().unwrap_or_else(|| panic!("{word} is missing")).0
        };
        words.iter().map(place).collect()
    }

    #[test]
    fn service_files_have_every_option_in_the_order_of_the_table() {
        let names: Vec<String> =
            of_services().iter().map(|(name, _)| name.replace('-', "_")).collect();
        let init = include_str!("../service/openwrt.init");
        let (_, start) = init.split_once("start_service()").unwrap();
        assert!(places(start, &names).is_sorted(), "openwrt.init");
        let variables: Vec<String> =
            names.iter().map(|name| format!("{ENVIRONMENT}{}", name.to_uppercase())).collect();
        let default = include_str!("../service/wirewheel-hub.default");
        assert!(places(default, &variables).is_sorted(), "wirewheel-hub.default");
        assert!(init.contains("respawn 3600 2 0"), "it never gives up");
    }

    #[test]
    fn each_kind_of_option_is_passed_on_as_what_it_is() {
        let init = include_str!("../service/openwrt.init");
        for (name, kind) in of_services() {
            let name = name.replace('-', "_");
            let adding = match kind {
                Kind::Switch => "add_switches ",
                Kind::One => "add_options ",
                Kind::Several => "add_lists ",
            };
            let lines = init.lines().filter_map(|line| line.trim().strip_prefix(adding));
            let found = lines.flat_map(str::split_whitespace).filter(|word| *word == name).count();
            assert_eq!(found, 1, "{adding}{name}");
        }
    }
}

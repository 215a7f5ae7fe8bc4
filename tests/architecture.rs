//! The house stands as ARCHITECTURE.md says: imports point downward only, no files in a circle, the world
//! outside is named in one place, and nothing is so long that it has two subjects.

#[path = "architecture/exceptions.rs"]
mod exceptions;
#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/shape.rs"]
mod shape;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/ways.rs"]
mod ways;

use std::collections::BTreeSet;
use std::fmt;

use exceptions::EXCEPTIONS;
use source::Source;

/// The rooms from the bottom up; a file may name its own and those before it.
const LAYERS: [&str; 10] = [
    "words",
    "structures",
    "protocol",
    "flow",
    "transport",
    "context",
    "session",
    "app",
    "core",
    "shell",
];

/// Words that only some places may use: the word, and the paths (from `src/`) that may.
const RESERVED: [(&str, &[&str]); 14] = [
    ("mio::", &["shell/"]),
    ("socket2", &["shell/"]),
    ("signal_hook", &["shell/"]),
    ("TcpStream", &["shell/"]),
    ("TcpListener", &["shell/"]),
    ("UdpSocket", &["shell/"]),
    ("UnixStream", &["shell/"]),
    ("UnixListener", &["shell/"]),
    ("Instant", &["shell/"]),
    ("SystemTime", &["shell/"]),
    ("tungstenite::", &["protocol/", "tungstenite.rs"]),
    ("httparse", &["protocol/"]),
    ("rustls::", &["transport/tls/", "testing/network/tls_peer.rs"]),
    // The resolver of the system waits, which nothing on the loop may.
    (
        "thread::",
        &[
            "server.rs",
            "handle.rs",
            "testing/client.rs",
            "testing/host.rs",
            "shell/resolver.rs",
            "shell/loop_thread.rs",
        ],
    ),
];

/// A rule that does not hold.
pub(crate) struct Fault {
    pub(crate) rule: &'static str,
    /// The file, function, type or room: with the rule, what an exception names.
    at: String,
    what: String,
}

impl Fault {
    pub(crate) fn new(rule: &'static str, at: &str, what: impl Into<String>) -> Self {
        Self { rule, at: at.to_owned(), what: what.into() }
    }

    fn is_excepted(&self) -> bool {
        EXCEPTIONS.contains(&(self.rule, self.at.as_str()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(\"{}\", \"{}\"), // {}", self.rule, self.at, self.what)
    }
}

fn reserved(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in source.lines() {
        let mut fault =
            |what| faults.push(Fault::new("reserved", &source.path, format!("{number}: {what}")));
        for (word, places) in RESERVED {
            if line.contains(word) && !places.iter().any(|place| source.path.starts_with(place)) {
                fault(format!("{word} is for {places:?} alone"));
            }
        }
        if ["words", "structures"].contains(&source.room()) && line.contains("log::") {
            fault("words and structures use the standard library alone".into());
        }
    }
    faults
}

fn faults(sources: &[Source]) -> Vec<Fault> {
    let reserved = sources.iter().flat_map(reserved);
    reserved
        .chain(graph::faults(sources))
        .chain(shape::faults(sources))
        .chain(ways::faults(sources))
        .collect()
}

#[test]
fn the_rules_hold() {
    let sources = Source::all();
    assert!(sources.len() > 100, "the sources were not found");
    let faults = faults(&sources);
    let new: Vec<_> =
        faults.iter().filter(|fault| !fault.is_excepted()).map(ToString::to_string).collect();
    assert!(new.is_empty(), "rules that do not hold:\n{}", new.join("\n"));
    let excused: BTreeSet<_> = faults.iter().map(|fault| (fault.rule, fault.at.as_str())).collect();
    let pointless: Vec<_> =
        EXCEPTIONS.iter().filter(|exception| !excused.contains(*exception)).collect();
    assert!(pointless.is_empty(), "exceptions that are no longer needed: {pointless:#?}");
}

#[test]
fn lines_fit_a_screen() {
    let wide = shape::wide_lines();
    assert!(wide.is_empty(), "\n{}", wide.join("\n"));
}

#[test]
fn planted_words_are_found() {
    let found = |path: &str, line: &str| reserved(&Source::new(path, line)).len();
    assert_eq!(found("core/x.rs", "let now = Instant::now();"), 1);
    assert_eq!(found("app/x.rs", "use mio::Poll;"), 1);
    assert_eq!(found("shell/x.rs", "use mio::Poll;"), 0);
    assert_eq!(found("core/x.rs", "// mio::Poll is the shell's"), 0);
    assert_eq!(found("core/x.rs", "#[cfg(test)]\nmod tests {\nuse mio::Poll;\n}"), 0);
    assert_eq!(found("core/x.rs", "#[cfg(test)]\nmod tests;\nuse mio::Poll;"), 1);
}

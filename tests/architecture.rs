//! The layers hold: imports point downward only, and the world outside is named in one place.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up; a file may name its own and those before it.
const LAYERS: [&str; 9] =
    ["words", "structures", "protocol", "flow", "context", "session", "app", "core", "shell"];

/// Words that only some places may use: the word, and the paths (from `src/`) that may.
const RESERVED: [(&str, &[&str]); 13] = [
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
    ("thread::", &["server.rs", "handle.rs", "testing/client.rs"]),
];

/// A file has at most this many lines before its tests.
const FILE_LINES_MAX: usize = 600;
const LINE_CHARS_MAX: usize = 110;

/// The code of a file: without its tests and comments, each line with its number.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let before_tests =
        text.lines().take_while(|line| line.trim() != "#[cfg(test)]" || !ends_file(text, line));
    before_tests.enumerate().map(|(index, line)| {
        let comment = line.find("//").unwrap_or(line.len());
        (index + 1, &line[..comment])
    })
}

/// Whether the rest of a file behind this attribute is its tests.
fn ends_file(text: &str, attribute: &str) -> bool {
    let offset = attribute.as_ptr() as usize - text.as_ptr() as usize;
    let after = &text[offset + attribute.len()..];
    let item =
        after.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#["));
    item.is_some_and(|item| item.contains("mod tests {"))
}

/// What is wrong with one file, as `file:line: what`.
fn faults(file: &str, text: &str) -> Vec<String> {
    // The test kit stands beside the shell, on the core.
    let file_or_core = if file.starts_with("testing/") { "core/" } else { file };
    let own = LAYERS.iter().position(|layer| file_or_core.starts_with(&format!("{layer}/")));
    let own = own.unwrap_or(LAYERS.len());
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: String| faults.push(format!("src/{file}:{line}: {what}"));
    if !text.starts_with("//!") {
        fault(1, "does not open with a sentence that says what it owns".into());
    }
    let mut last = 0;
    for (number, line) in code(text) {
        last = number;
        for (level, layer) in LAYERS.iter().enumerate().filter(|(level, _)| *level > own) {
            if line.contains(&format!("crate::{layer}::")) {
                fault(number, format!("layer {own} names layer {level}, {layer}"));
            }
        }
        if line.contains("super::super") {
            fault(number, "names another layer without saying which: use crate::".into());
        }
        for (word, places) in RESERVED {
            if line.contains(word) && !places.iter().any(|place| file.starts_with(place)) {
                fault(number, format!("{word} is for {places:?} alone"));
            }
        }
        if own <= 1 && line.contains("log::") {
            fault(number, "words and structures use the standard library alone".into());
        }
    }
    if last > FILE_LINES_MAX {
        fault(last, format!("over {FILE_LINES_MAX} lines: it has two subjects"));
    }
    for (index, line) in text.lines().enumerate() {
        if line.chars().count() > LINE_CHARS_MAX {
            fault(index + 1, format!("over {LINE_CHARS_MAX} characters"));
        }
    }
    faults
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_keeps_to_its_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let faults: Vec<String> = files
        .iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .flat_map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            faults(&name, &fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn planted_faults_are_found() {
    let found = |file: &str, line: &str| faults(file, &format!("//! Owns x.\n{line}\n")).len();
    assert_eq!(found("words/x.rs", "use crate::structures::slab::Slab;"), 1);
    assert_eq!(found("core/x.rs", "use crate::structures::slab::Slab;"), 0);
    assert_eq!(found("core/x.rs", "let x = crate::shell::socket::Socket;"), 1);
    assert_eq!(found("testing/x.rs", "let x = crate::shell::socket::Socket;"), 1);
    assert_eq!(found("testing/x.rs", "let x = crate::core::Core;"), 0);
    assert_eq!(found("core/x.rs", "let now = Instant::now();"), 1);
    assert_eq!(found("app/x.rs", "use mio::Poll;"), 1);
    assert_eq!(found("shell/x.rs", "use mio::Poll;"), 0);
    assert_eq!(found("core/x.rs", "// mio::Poll is the shell's"), 0);
    assert_eq!(found("core/x.rs", "#[cfg(test)]\nmod tests {\nuse mio::Poll;\n}"), 0);
    assert_eq!(found("core/x.rs", "#[cfg(test)]\nmod tests;\nuse mio::Poll;"), 1);
    assert_eq!(found("core/x.rs", &"x".repeat(111)), 1);
    assert_eq!(faults("core/x.rs", "use std::fmt;\n").len(), 1);
}

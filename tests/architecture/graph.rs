//! Which file names which: nothing above its own room, and no circle.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, words};
use super::{Fault, LAYERS};

/// The files that each file names.
type Edges = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn faults(sources: &[Source]) -> Vec<Fault> {
    let edges = edges(sources);
    let mut faults = Vec::new();
    for (from, named) in &edges {
        for to in named.iter().filter(|to| level(to) > level(from)) {
            faults.push(Fault::new("upward", from, format!("names {to}")));
        }
        if named.iter().any(|to| reaches(&edges, to, from)) {
            faults.push(Fault::new("circle", from, circle(&edges, from)));
        }
    }
    faults
}

/// How high a file stands. The test kit stands beside the shell, on the core; what is at the top, above all.
fn level(path: &str) -> usize {
    let room = path.split('/').next().unwrap_or_default();
    let room = if room.starts_with("testing") { "core" } else { room };
    LAYERS.iter().position(|layer| *layer == room).unwrap_or(LAYERS.len())
}

fn edges(sources: &[Source]) -> Edges {
    let files: BTreeMap<String, &str> =
        sources.iter().map(|source| (module(&source.path), source.path.as_str())).collect();
    let named = |source: &Source| {
        let own = module(&source.path);
        let is_child = |word: &str| files.contains_key(&format!("{own}::{word}"));
        let paths = paths(&source.bare, is_child).into_iter();
        let found = paths.filter_map(|path| resolved(&files, &own, &path));
        // The root shows what is below it; that is no dependence of those who are shown.
        found.filter(|file| *file != source.path && *file != "lib.rs").map(str::to_owned).collect()
    };
    sources.iter().map(|source| (source.path.clone(), named(source))).collect()
}

/// The module that a file is: `core/turn.rs` is `core::turn`.
fn module(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// Whatever begins with `crate`, `super`, `self` or a child, in imports and in expressions; groups are taken
/// apart. What is only shown again (`pub use child::X`) is no dependence of the file that shows it.
fn paths(bare: &str, is_child: impl Fn(&str) -> bool) -> Vec<String> {
    let begins = |start: usize, word: &str| {
        bare[start + word.len()..].starts_with("::") && !bare[..start].ends_with("::")
    };
    let begun = words(bare).filter(|(start, word)| begins(*start, word));
    let roots = begun.filter_map(|(start, word)| match word {
        "crate" | "super" | "self" => Some((start, "")),
        child if is_child(child) && !is_shown_again(&bare[..start]) => Some((start, "self::")),
        _ => None,
    });
    roots
        .flat_map(|(start, prefix)| {
            expanded(&bare[start..]).into_iter().map(move |path| format!("{prefix}{path}"))
        })
        .collect()
}

fn is_shown_again(before: &str) -> bool {
    let before = before.trim_end().strip_suffix("use").map(str::trim_end);
    before.is_some_and(|before| before.ends_with("pub") || before.ends_with("pub(crate)"))
}

/// The paths that a path with groups stands for: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expanded(text: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut prefixes = vec![String::new()];
    let mut this = String::new();
    for c in text.chars() {
        match c {
            '{' if this.ends_with("::") => prefixes.push(std::mem::take(&mut this)),
            ',' | '}' if prefixes.len() > 1 => {
                if !this.trim().is_empty() {
                    done.push(prefixes.concat() + &this);
                }
                this.clear();
                if c == '}' {
                    prefixes.pop();
                }
                if prefixes.len() == 1 {
                    return done;
                }
            }
            c if c.is_alphanumeric() || c == '_' || c == ':' => this.push(c),
            c if c.is_whitespace() && prefixes.len() > 1 => {}
            _ if prefixes.len() > 1 => {} // `*`
            _ => break,
        }
    }
    done.push(prefixes.concat() + &this);
    done
}

/// The file that a path from a module leads to: the longest start of it that is one.
fn resolved<'a>(files: &BTreeMap<String, &'a str>, from: &str, path: &str) -> Option<&'a str> {
    let mut at: Vec<&str> = from.split("::").collect();
    let mut rest = path.split("::").filter(|part| !part.is_empty()).peekable();
    match rest.next()? {
        "crate" => at.clear(),
        "super" => drop(at.pop()),
        _ => {}
    }
    while rest.next_if_eq(&"super").is_some() {
        at.pop();
    }
    at.extend(rest);
    (1..=at.len()).rev().find_map(|len| files.get(&at[..len].join("::")).copied())
}

fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            open.extend(edges.get(file).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// Those of a file's circle that it names itself.
fn circle(edges: &Edges, file: &str) -> String {
    let named = edges[file].iter().filter(|to| reaches(edges, to, file));
    let named: Vec<_> = named.map(String::as_str).collect();
    format!("stands in a circle with {}", named.join(", "))
}

#[test]
fn planted_imports_are_found() {
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        faults(&sources).iter().map(|fault| fault.rule).collect::<Vec<_>>()
    };
    let slab = ("structures/slab.rs", "");
    assert_eq!(found(&[slab, ("words/x.rs", "use crate::structures::slab::Slab;")]), ["upward"]);
    assert_eq!(found(&[slab, ("core/x.rs", "use crate::structures::slab::Slab;")]), [""; 0]);
    let shell = ("shell/socket.rs", "");
    assert_eq!(found(&[shell, ("core/x.rs", "let x = crate::shell::socket::Socket;")]), ["upward"]);
    assert_eq!(found(&[shell, ("testing/x.rs", "use crate::shell::socket;")]), ["upward"]);
    assert_eq!(found(&[shell, ("core/x.rs", "#[cfg(test)]\nuse crate::shell::socket;")]), [""; 0]);
    let circle = |first: &'static str, second: &'static str| {
        found(&[("core/a.rs", first), ("core/b.rs", second)])
    };
    assert_eq!(circle("use super::b::B;", "use crate::core::{a::{A, X}, c};"), ["circle"; 2]);
    assert_eq!(circle("fn x() { super::b::b() }", "type X = crate::core::a::X;"), ["circle"; 2]);
    let child =
        |root: &'static str| found(&[("core/a.rs", root), ("core/a/b.rs", "use super::A;")]);
    assert_eq!(child("use b::B;"), ["circle"; 2]);
    assert_eq!(child("pub(crate) use b::B;"), [""; 0]);
    assert_eq!(circle("use super::b::B;", "// crate::core::a"), [""; 0]);
    assert_eq!(circle("use super::b::B;", "\"crate::core::a\""), [""; 0]);
}

//! The ways that ARCHITECTURE.md shows through the code: each station exists and names the next.

use std::fs;
use std::path::Path;

use super::Fault;
use super::source::{Function, Source, words};

/// The headings, each with its ways under it: one a block of code.
const WAYS: [&str; 5] = [
    "### Socket to on_message",
    "### send to the socket",
    "### A timer",
    "### An emit",
    "### A dial",
];
const STATIONS_MAX: usize = 8;

/// A line of a way: `  src/core/turn.rs  handle_input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Station<'a> {
    path: &'a str,
    function: &'a str,
}

pub(crate) fn faults(sources: &[Source]) -> Vec<Fault> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = fs::read_to_string(path).unwrap_or_default();
    let ways = WAYS.iter().map(|heading| (heading, ways_under(&page, heading)));
    ways.flat_map(|(heading, ways)| match ways.as_slice() {
        [] => vec![Fault::new("way", heading, "is not shown in ARCHITECTURE.md")],
        ways => ways.iter().flat_map(|way| of_a_way(sources, heading, way)).collect(),
    })
    .collect()
}

/// What stands in the blocks of code under a heading.
fn ways_under<'a>(page: &'a str, heading: &str) -> Vec<Vec<Station<'a>>> {
    let mut ways: Vec<Vec<Station<'a>>> = Vec::new();
    let mut is_block = false;
    let lines = page.lines().skip_while(|line| line.trim_end() != heading).skip(1);
    for line in lines.take_while(|line| !line.starts_with('#')) {
        if line.starts_with("```") {
            is_block = !is_block;
            if is_block {
                ways.push(Vec::new());
            }
        } else if let (true, Some(way)) = (is_block, ways.last_mut()) {
            way.extend(station(line));
        }
    }
    ways
}

fn station(line: &str) -> Option<Station<'_>> {
    let mut parts = line.split_whitespace();
    let (path, function) = (parts.next()?.strip_prefix("src/")?, parts.next()?);
    Some(Station { path, function: function.rsplit("::").next()? })
}

fn of_a_way(sources: &[Source], heading: &str, stations: &[Station<'_>]) -> Vec<Fault> {
    let fault = |what: String| Fault::new("way", heading, what);
    if stations.len() < 2 || stations.len() > STATIONS_MAX {
        return vec![fault(format!("has {} stations in ARCHITECTURE.md", stations.len()))];
    }
    let mut faults = Vec::new();
    for (index, station) in stations.iter().enumerate() {
        let functions = functions(sources, station);
        let next = stations.get(index + 1).map(|next| next.function);
        let names_next = |function: &Function| {
            next.is_none_or(|next| words(&function.body).any(|(_, word)| word == next))
        };
        if functions.is_empty() {
            faults.push(fault(format!("src/{} has no {}", station.path, station.function)));
        } else if !functions.iter().any(names_next) {
            faults.push(fault(format!(
                "{} does not name {}",
                station.function,
                next.unwrap_or("-")
            )));
        }
    }
    faults
}

fn functions(sources: &[Source], station: &Station<'_>) -> Vec<Function> {
    let file = sources.iter().filter(|source| source.path == station.path);
    let functions = file.flat_map(Source::functions);
    functions.filter(|function| function.name == station.function).collect()
}

#[test]
fn planted_ways_are_checked() {
    let page = "### A timer\nText.\n```text\n\
        \x20 src/core/a.rs  first\n  src/core/b.rs  B::second\n```\n\
        ```text\n  src/core/a.rs  first\n```\n### An emit\n";
    let ways = ways_under(page, "### A timer");
    let [way, _] = ways.as_slice() else { panic!("{ways:?}") };
    assert_eq!(way[1], Station { path: "core/b.rs", function: "second" });
    assert!(ways_under(page, "### An emit").is_empty());
    let count = |a: &str, b: &str| {
        let sources = [Source::new("core/a.rs", a), Source::new("core/b.rs", b)];
        of_a_way(&sources, "### A timer", way).len()
    };
    assert_eq!(count("fn first() { b.second() }", "fn second() {}"), 0);
    assert_eq!(count("fn first() { b.third() }", "fn second() {}"), 1);
    assert_eq!(count("fn first() { b.second() }", "fn other() {}"), 1);
    assert_eq!(of_a_way(&[], "### A timer", &[way[0]; 9]).len(), 1);
}

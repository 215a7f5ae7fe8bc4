//! The ways that ARCHITECTURE.md shows through the code: each station exists and names the next.

use std::fs;
use std::path::Path;

use super::Fault;
use super::source::{Function, Source, words};

/// The headings, each with one way under it.
const WAYS: [&str; 4] =
    ["### Socket to on_message", "### send to the socket", "### A timer", "### An emit"];
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
    WAYS.iter().flat_map(|heading| of_a_way(sources, heading, &stations(&page, heading))).collect()
}

/// What stands in the first block of code under a heading.
fn stations<'a>(page: &'a str, heading: &str) -> Vec<Station<'a>> {
    let lines = page.lines().skip_while(|line| line.trim_end() != heading).skip(1);
    let section = lines.take_while(|line| !line.starts_with('#'));
    let block = section.skip_while(|line| !line.starts_with("```")).skip(1);
    let lines = block.take_while(|line| !line.starts_with("```"));
    let station = |line: &'a str| {
        let mut parts = line.split_whitespace();
        let (path, function) = (parts.next()?.strip_prefix("src/")?, parts.next()?);
        Some(Station { path, function: function.rsplit("::").next()? })
    };
    lines.filter_map(station).collect()
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
        \x20 src/core/a.rs  first\n  src/core/b.rs  B::second\n```\n\n### An emit\n";
    let way = stations(page, "### A timer");
    assert_eq!(way[1], Station { path: "core/b.rs", function: "second" });
    assert!(stations(page, "### An emit").is_empty());
    let count = |a: &str, b: &str| {
        let sources = [Source::new("core/a.rs", a), Source::new("core/b.rs", b)];
        of_a_way(&sources, "### A timer", &way).len()
    };
    assert_eq!(count("fn first() { b.second() }", "fn second() {}"), 0);
    assert_eq!(count("fn first() { b.third() }", "fn second() {}"), 1);
    assert_eq!(count("fn first() { b.second() }", "fn other() {}"), 1);
    assert_eq!(of_a_way(&[], "### A timer", &[way[0]; 9]).len(), 1);
}

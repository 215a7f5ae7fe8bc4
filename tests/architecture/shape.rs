//! The sizes: of files, functions and lines; where a type's methods stand; how much is explained.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::Fault;
use super::source::{Source, rust_files};

/// A file with more has two subjects.
const FILE_CODE_LINES_MAX: usize = 400;
const LINE_CHARS_MAX: usize = 110;
/// The lengths of functions, in lines of code.
const MEDIAN_MAX: usize = 7;
const P90_MAX: usize = 20;
const FUNCTION_LINES_MAX: usize = 50;
/// The files in which methods of one type may stand.
const FILES_OF_A_TYPE_MAX: usize = 3;
/// The functions that may write to a connection.
const WIRE_WRITERS_MAX: usize = 3;
/// Rooms whose reasons are to be had at the line that they belong to, and how many of 100 lines have one.
const EXPLAINED: [&str; 3] = ["core", "session", "flow"];
const COMMENTS_MIN: usize = 4;

pub(crate) fn faults(sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    faults.extend(sources.iter().flat_map(of_a_file));
    faults.extend(lengths(sources));
    faults.extend(scattered_types(sources));
    faults.extend(wire_writers(sources));
    faults.extend(EXPLAINED.iter().filter_map(|room| unexplained(sources, room)));
    faults
}

fn of_a_file(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    let path = &source.path;
    if !source.text.starts_with("//!") {
        faults.push(Fault::new("opening", path, "does not open with what it is"));
    } else if source.text.starts_with("//! Owns") {
        // By room, since it was the custom.
        let what = format!("{path} opens with \"Owns\" instead of what it is");
        faults.push(Fault::new("opening", source.room(), what));
    }
    let lines = source.lines().count();
    if lines > FILE_CODE_LINES_MAX {
        faults.push(Fault::new("file", path, format!("has {lines} lines of code")));
    }
    for function in source.functions().iter().filter(|found| found.len > FUNCTION_LINES_MAX) {
        let name = format!("{path} {}", function.name);
        faults.push(Fault::new(
            "function",
            &name,
            format!("has {} lines, from {}", function.len, function.line),
        ));
    }
    faults
}

fn lengths(sources: &[Source]) -> Vec<Fault> {
    let functions = sources.iter().flat_map(Source::functions);
    let mut lengths: Vec<usize> = functions.map(|function| function.len).collect();
    lengths.sort_unstable();
    let limits = [("median", 50, MEDIAN_MAX), ("p90", 90, P90_MAX)];
    let over = limits.into_iter().filter_map(|(name, percent, max)| {
        let len = lengths.get(lengths.len() * percent / 100).copied().unwrap_or_default();
        (len > max).then(|| Fault::new("functions", name, format!("is {len} lines, over {max}")))
    });
    over.collect()
}

fn scattered_types(sources: &[Source]) -> Vec<Fault> {
    let mut files: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        for block in source.blocks().into_iter().filter(|block| block.of.is_none()) {
            files.entry(block.name).or_default().insert(&source.path);
        }
    }
    let scattered = files.iter().filter(|(_, files)| files.len() > FILES_OF_A_TYPE_MAX);
    let fault = |(name, files): (&String, &BTreeSet<&str>)| {
        let files: Vec<_> = files.iter().copied().collect();
        Fault::new("type", name, format!("has methods in {}", files.join(", ")))
    };
    scattered.map(fault).collect()
}

/// The functions that write to a `Wire`, when they are too many.
fn wire_writers(sources: &[Source]) -> Vec<Fault> {
    let writers: Vec<String> = sources.iter().flat_map(writers).collect();
    if writers.len() <= WIRE_WRITERS_MAX {
        return Vec::new();
    }
    writers
        .iter()
        .map(|name| Fault::new("wire", name, "writes to a wire, as do too many"))
        .collect()
}

fn writers(source: &Source) -> Vec<String> {
    let blocks = source.blocks();
    // What is a wire itself hands on to what it is made of.
    let is_wire = |offset: usize| {
        let mut inside = blocks.iter().filter(|block| (block.start..block.end).contains(&offset));
        inside.any(|block| block.of.as_deref() == Some("Wire"))
    };
    let functions = source.functions().into_iter();
    let writing = functions.filter(|function| !is_wire(function.start) && writes(&function.body));
    writing.map(|function| format!("{} {}", source.path, function.name)).collect()
}

fn writes(body: &str) -> bool {
    let body: String = body.split_whitespace().collect();
    let calls = ["wire.write(", "wire.write_vectored(", "wire().write(", "wire().write_vectored("];
    calls.iter().any(|call| body.contains(call))
}

/// A room with too few reasons in it.
fn unexplained(sources: &[Source], room: &str) -> Option<Fault> {
    let sources = || sources.iter().filter(|source| source.room() == room);
    let code: usize = sources().map(|source| source.lines().count()).sum();
    let comments: usize = sources().map(own_line_comments).sum();
    let enough = comments * 100 >= COMMENTS_MIN * code;
    (!enough).then(|| {
        Fault::new("comments", room, format!("has {comments} own-line comments in {code} lines"))
    })
}

/// Lines of nothing but a comment that is no documentation, up to the tests.
fn own_line_comments(source: &Source) -> usize {
    let tail = source.text.find("#[cfg(test)]\nmod tests {").unwrap_or(source.text.len());
    let lines = source.text[..tail].lines().map(str::trim_start);
    let comments = lines.filter(|line| line.starts_with("//"));
    comments.filter(|line| !line.starts_with("///") && !line.starts_with("//!")).count()
}

/// Every line of Rust in the repository fits a screen.
pub(crate) fn wide_lines() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "hub", "examples", "benches", "fuzz", "sendq"];
    let files = folders.iter().flat_map(|folder| rust_files(&root.join(folder)));
    files
        .flat_map(|path| wide(&path.display().to_string(), &fs::read_to_string(&path).unwrap()))
        .collect()
}

fn wide(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let wide = lines.filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX);
    wide.map(|(index, _)| format!("{path}:{}: over {LINE_CHARS_MAX} characters", index + 1))
        .collect()
}

#[test]
fn planted_sizes_are_found() {
    let rules = |files: &[(&str, String)]| {
        let sources: Vec<_> = files
            .iter()
            .map(|(path, text)| Source::new(path, &format!("//! X.\n{text}")))
            .collect();
        faults(&sources).iter().map(|fault| fault.rule).collect::<Vec<_>>()
    };
    let of = |path: &'static str, text: &str| rules(&[(path, text.to_owned())]);
    assert_eq!(of("app/x.rs", &"x;\n".repeat(401)), ["file"]);
    assert_eq!(of("app/x.rs", &"// x;\n".repeat(401)), [""; 0]);
    let function = |lines| format!("fn x() {{\n{}}}\n", "x;\n".repeat(lines));
    assert_eq!(of("app/x.rs", &function(49)), ["function", "functions", "functions"]);
    assert_eq!(of("app/x.rs", &(function(49) + &"fn y() {}\n".repeat(20))), ["function"]);
    assert_eq!(of("app/x.rs", &(function(48) + &"fn y() {}\n".repeat(20))), [""; 0]);
    assert_eq!(of("app/x.rs", &"fn y() {\n1;\n1;\n1;\n1;\n1;\n1;\n}".repeat(9)), ["functions"]);
    assert_eq!(
        of("core/x.rs", &format!("{}{}", "x;\n".repeat(100), "// y\n".repeat(3))),
        ["comments"]
    );
    assert_eq!(
        of("core/x.rs", &format!("{}{}", "x;\n".repeat(100), "/// y\n".repeat(4))),
        ["comments"]
    );
    assert_eq!(of("core/x.rs", &format!("{}{}", "x;\n".repeat(100), "// y\n".repeat(4))), [""; 0]);
    let methods = |count: usize| {
        let paths = ["app/a.rs", "app/b.rs", "app/c.rs", "app/d.rs"];
        let files = paths.map(|path| (path, "impl<T: A> X<T> where T: B { fn x() {} }".to_owned()));
        rules(&files[..count])
    };
    assert_eq!((methods(3), methods(4)), (vec![], vec!["type"]));
    let writers = |count| "fn x() { self.wire\n.write(b) }\n".repeat(count);
    assert_eq!(
        (of("app/x.rs", &writers(3)), of("app/x.rs", &writers(4))),
        (vec![], vec!["wire"; 4])
    );
    assert_eq!(of("app/x.rs", &format!("impl Wire for X {{\n{}}}", writers(4))), [""; 0]);
    let opening = Source::new("app/x.rs", "//! Owns x.\n");
    assert_eq!(of_a_file(&opening)[0].rule, "opening");
    assert_eq!(wide("x", &"x".repeat(111)).len(), 1);
}

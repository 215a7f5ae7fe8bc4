//! What the program is asked to do: a load of some size, or what a runner of tests asks of any test
//! binary (libtest's arguments, as far as they mean something for a single test).

/// The one test there is.
const NAME: &str = "broadcast";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// To run with so many subscribers.
    Run(usize),
    /// To print the tests that would run, with a summary or without.
    List { any: bool, terse: bool },
    /// Another test is meant.
    Nothing,
}

/// Understands the arguments behind the program's name. A number that stands alone is the size.
pub(crate) fn task(arguments: &[&str], usual: usize) -> Task {
    let mut size = usual;
    let (mut filters, mut skips) = (Vec::new(), Vec::new());
    let (mut list, mut exact, mut ignored, mut terse) = (false, false, false, false);
    let mut rest = arguments.iter().copied();
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with('-') => (name, Some(value)),
            _ => (argument, None),
        };
        let mut value = || value.or_else(|| rest.next()).unwrap_or_default();
        match name {
            "--list" => list = true,
            "--exact" => exact = true,
            "--ignored" => ignored = true,
            "--format" => terse = value() == "terse",
            "--skip" => skips.push(value()),
            "--test-threads" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => drop(value()),
            _ if name.starts_with('-') => {} // flags of the output and of other kinds of tests
            _ => match argument.parse() {
                Ok(number) => size = number,
                Err(_) => filters.push(argument),
            },
        }
    }
    let names = |filter: &&str| if exact { NAME == *filter } else { NAME.contains(filter) };
    let any =
        !ignored && (filters.is_empty() || filters.iter().any(names)) && !skips.iter().any(names);
    match (list, any) {
        (true, any) => Task::List { any, terse },
        (false, true) => Task::Run(size),
        (false, false) => Task::Nothing,
    }
}

/// Prints the list as libtest does, for runners that read it.
pub(crate) fn print_list(any: bool, terse: bool) {
    if any {
        println!("{NAME}: test");
    }
    if !terse {
        println!("\n{}, 0 benchmarks", if any { "1 test" } else { "0 tests" });
    }
}

/// The table of what is understood; run before each load, since a program of its own has no tests.
pub(crate) fn check() {
    let listed = |any| Task::List { any, terse: true };
    for (arguments, expected) in [
        ("", Task::Run(1)),
        ("10000", Task::Run(10_000)),
        ("broad", Task::Run(1)),
        ("--exact broadcast --nocapture", Task::Run(1)),
        ("--exact broad", Task::Nothing),
        ("--test-threads 1", Task::Run(1)),
        ("--test-threads=4 --color always -q", Task::Run(1)),
        ("another_test", Task::Nothing),
        ("another_test broad", Task::Run(1)),
        ("--skip broad", Task::Nothing),
        ("--skip another", Task::Run(1)),
        ("--ignored", Task::Nothing),
        ("--include-ignored", Task::Run(1)),
        ("--list --format terse", listed(true)),
        ("--list --format terse --ignored", listed(false)),
        ("--list --format=terse other", listed(false)),
        ("--list", Task::List { any: true, terse: false }),
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        assert_eq!(task(&words, 1), expected, "{arguments}");
    }
}

//! The tables of the guide that lead here from elsewhere hold what they say: every line of code in them
//! stands in a test below it.

use std::fs;
use std::path::Path;

/// What matters of code: not how it is broken into lines.
fn squeezed(code: &str) -> String {
    code.split_whitespace().collect()
}

/// A row's second cell, with the bars that Markdown wants escaped as they are meant.
fn second_cell(row: &str) -> Option<String> {
    let row = row.replace("\\|", "\u{1}");
    let cell = row.strip_prefix('|')?.split('|').nth(1)?;
    Some(cell.replace('\u{1}', "|").trim().to_owned())
}

/// The pieces of a text that stand between backticks.
fn code_of(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Lines of a page's tables that stand in no test of their section, and how many do.
fn untested(page: &str) -> (usize, Vec<String>) {
    let (mut tested, mut missing) = (0, Vec::new());
    for section in page.split("\n## ") {
        let fences: Vec<&str> = section.split("```").collect();
        let code: String = fences.iter().skip(1).step_by(2).map(|code| squeezed(code)).collect();
        let text: String = fences.iter().step_by(2).copied().collect();
        for row in text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--")) {
            let Some(cell) = second_cell(row).filter(|cell| cell != "here") else { continue };
            for line in code_of(&cell) {
                if code.contains(&squeezed(line)) {
                    tested += 1;
                } else if line.contains(['.', '(', ' ']) && !line.contains("(..)") {
                    missing.push(line.to_owned());
                } // else a word or a sketch: the compiler of the tests would not know it as a line
            }
        }
    }
    (tested, missing)
}

#[test]
fn every_line_of_the_tables_is_in_a_test() {
    for (page, least) in [("from_ktor", 90), ("from_other_crates", 25), ("serving_pages", 25)] {
        let path = format!("{}/src/guide/{page}.md", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(Path::new(&path)).unwrap();
        let (tested, missing) = untested(&text);
        assert!(missing.is_empty(), "{page}: in no test below its table: {missing:#?}");
        assert!(tested >= least, "{page}: only {tested} lines were found");
    }
}

#[test]
fn a_line_without_a_test_is_found() {
    let page = "| x | here |\n|---|---|\n| a | `session.send(1)` |\n| b | `a.call(\\|x\\| 2)` |\n\n\
                ```rust\na.call(|x|\n    2)\n```\n";
    assert_eq!(untested(page), (1, vec!["session.send(1)".to_owned()]));
}

//! What a plain `cargo test` has no feature for is tested by a cargo of its own: JSON, whose crates each
//! example would build too if the tests' features named it.
#![cfg(not(feature = "json"))]

#[path = "support/cargo.rs"]
mod cargo;

/// Cargo's tests with JSON pass; without a cargo that started this one there is nothing to show.
#[track_caller]
fn passes(words: &[&str]) {
    let Some(mut test) = cargo::command("test", "json") else { return };
    assert!(test.args(["--package", "wirewheel"]).args(words).status().unwrap().success());
}

#[test]
fn the_tests_of_json_pass() {
    passes(&["--test", "json"]);
    passes(&["--test", "examples", "--", "json"]);
}

#[test]
fn the_documentation_of_json_passes() {
    passes(&["--doc", "--", "json", "content", "serial", "typed", "from_ktor"]);
}

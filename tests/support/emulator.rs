//! Programs for another kind of machine: the emulator under which a test runs, if one does, runs what
//! the test starts too. `.ci/cross-cargo` names it in `WIREWHEEL_EMULATOR`.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// How many times as long things may take. Known when the tests are built, as the emulator is.
pub const SLOWER: u64 = if option_env!("WIREWHEEL_EMULATOR").is_some() { 6 } else { 1 };

/// A command that starts a program as it was built.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let words = words(program);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The words of that command, for a shell that runs it.
pub fn words(program: impl AsRef<OsStr>) -> Vec<OsString> {
    let emulator = std::env::var_os("WIREWHEEL_EMULATOR").filter(|path| !path.is_empty());
    emulator.into_iter().chain([program.as_ref().to_owned()]).collect()
}

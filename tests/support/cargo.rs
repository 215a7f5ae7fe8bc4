//! Cargo, called by a test as it was called for the test: the same folder, profile, target and features, so
//! that nothing is built twice.

use std::path::PathBuf;
use std::process::Command;

/// The folder that the test's profile builds into: target/PROFILE or target/TRIPLE/PROFILE.
pub(crate) fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(|deps| deps.parent()).unwrap().to_owned()
}

/// Cargo with a subcommand, these further features, and whatever else makes it build the same. `None` if
/// cargo did not start this test.
pub(crate) fn command(subcommand: &str, more_features: &str) -> Option<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO")?);
    let profile_folder = profile_folder();
    let parent = profile_folder.parent().unwrap();
    let profile = match profile_folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        name => name,
    };
    // The hub, which shares this file, has no examples.
    let own_features = option_env!("WIREWHEEL_FEATURES").unwrap_or_default();
    let features = format!("{own_features} {more_features}");
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([subcommand, "--locked", "--quiet"]);
    cargo.args(["--no-default-features", "--features", &features, "--profile", profile]);
    // Scripts of dependencies run again where these have changed (ring's does, and all that depends on it is
    // built again, here and by whoever comes next), and here they are the test's.
    let are_the_tests = |name: &String| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
    };
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names.filter(are_the_tests) {
        cargo.env_remove(name);
    }
    // A folder for a target lies inside the one that cargo was given, and has the target's name. Its
    // CACHEDIR.TAG says nothing: cargo marks either, where it makes it.
    let folder_name = parent.file_name().unwrap().to_string_lossy();
    if folder_name.contains("-linux-") {
        cargo.args(["--target", &folder_name]).arg("--target-dir").arg(parent.parent().unwrap());
    } else {
        cargo.arg("--target-dir").arg(parent);
    }
    Some(cargo)
}

//! Tells the crate that it lies in its repository, and the tests which features it is built with. The
//! simulation and what the fuzzer calls are there alone: this file is not in the package either, so that
//! who uses the crate builds no script.

fn main() {
    println!("cargo::rustc-cfg=repository");
    let features = std::env::vars().filter_map(|(name, _)| {
        let feature = name.strip_prefix("CARGO_FEATURE_")?;
        Some(feature.to_lowercase().replace('_', "-"))
    });
    let features: Vec<String> = features.collect();
    println!("cargo::rustc-env=WIREWHEEL_FEATURES={}", features.join(" "));
    println!("cargo::rerun-if-changed=build.rs");
}

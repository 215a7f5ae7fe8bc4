//! Tells the crate that it lies in its repository. The simulation and what the fuzzer calls are there
//! alone: this file is not in the package either, so that who uses the crate builds no script.

fn main() {
    println!("cargo::rustc-cfg=repository");
    println!("cargo::rerun-if-changed=build.rs");
}

//! What this target checks stands in `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wirewheel::fuzzing::bodies(data));

//! Whatever a broker sends, the box goes on, holds little, and dials again.

#[path = "support/broker_bytes.rs"]
mod broker_bytes;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

/// The fuzzer's seeds and findings.
fn corpus() -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap().join("fuzz");
    let folders = ["seeds/broker", "findings/broker"].map(|folder| fuzz.join(folder));
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_seeds_and_findings_are_replayed() {
    let corpus = corpus();
    assert!(corpus.len() >= 7);
    corpus.iter().for_each(|bytes| broker_bytes::hear(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        broker_bytes::hear(&bytes);
    }

    /// Packets of which some bytes are others.
    #[test]
    fn packets_that_are_not_quite_right(
        (which, times) in (any::<prop::sample::Index>(), 1usize..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let corpus = corpus();
        let seed = which.get(&corpus);
        let mut bytes = seed.clone();
        for _ in 1..times {
            bytes.extend_from_slice(seed.get(1..).unwrap_or_default());
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        broker_bytes::hear(&bytes);
    }
}

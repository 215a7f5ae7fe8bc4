//! The comparison of secrets: right, and in a time that says nothing of them. `.ci/secrets` counts its
//! instructions.

use wirewheel::auth::is_same_secret;

/// As long as tokens are.
const KNOWN: &[u8; 40] = b"0123456789abcdef0123456789ABCDEF-._~+/=x";

#[test]
fn each_bit_and_the_length_count() {
    assert!(is_same_secret(KNOWN, KNOWN) && is_same_secret("", ""));
    for bit in 0..KNOWN.len() * 8 {
        let mut shown = *KNOWN;
        shown[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_same_secret(shown, KNOWN), "bit {bit}");
    }
    for length in 0..KNOWN.len() {
        assert!(!is_same_secret(&KNOWN[..length], KNOWN), "{length} bytes");
        assert!(!is_same_secret(KNOWN, &KNOWN[..length]), "{length} bytes");
        let longer = [&KNOWN[..length], &[0; 40]].concat();
        assert!(!is_same_secret(longer, &KNOWN[..length]), "{length} bytes, and zeros");
    }
}

/// One comparison, with what differs in the byte of that number, if there is one.
#[test]
#[ignore = "for .ci/secrets, which counts"]
fn counted() {
    let place: Option<usize> = std::env::var("WIREWHEEL_PLACE").ok().and_then(|it| it.parse().ok());
    let mut shown = *KNOWN;
    place.and_then(|place| shown.get_mut(place)).into_iter().for_each(|byte| *byte ^= 0x21);
    assert_eq!(is_same_secret(shown, KNOWN), shown == *KNOWN);
}

//! Names of topics: what may stand in one, whoever has chosen it.

/// MQTT 5 section 1.5.4: the most bytes of a string.
const LONGEST: usize = 65_535;

/// Why text cannot be (a part of) the name of a topic; `None` if it can.
///
/// A name with a wildcard would be a filter, with which a peer could listen in on everything; what begins
/// with `$` is the broker's own.
pub(crate) fn fault_of(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        _ if name.starts_with('$') => Some("names that begin with $ are the broker's own"),
        _ if name.contains(['+', '#']) => Some("+ and # are for filters"),
        _ if name.contains('\0') => Some("it has a NUL"),
        _ if name.len() > LONGEST => Some("it is longer than 65,535 bytes"),
        _ => None,
    }
}

/// Whether a broker may say this of a message, whose topics may begin with `$`.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_would_take_for_something_else_is_refused() {
        for name in ["room", "a/b", "/", "a b", "caf\u{e9}", "a$"] {
            assert_eq!(fault_of(name), None, "{name:?}");
        }
        for name in ["", "+", "a/#", "a+b", "$SYS/x", "a\0b", &"x".repeat(LONGEST + 1)] {
            assert!(fault_of(name).is_some(), "{:?}", name.get(..4));
        }
    }
}

//! Names of topics: what may stand in one, whoever has chosen it.

/// MQTT 5 section 1.5.4: the most bytes of a string.
pub(crate) const LONGEST: usize = 65_535;

/// Why text cannot be (a part of) the name of a topic; `None` if it can.
///
/// A name with a wildcard would be a filter, with which a peer could listen in on everything; what begins
/// with `$` is the broker's own.
///
/// ```
/// use wirewheel_mqtt::topic_fault;
/// assert_eq!(topic_fault("rooms/blue"), None);
/// assert!(topic_fault("rooms/#").is_some());
/// ```
pub fn topic_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        _ if name.starts_with('$') => Some("names that begin with $ are the broker's own"),
        _ if name.contains(['+', '#']) => Some("+ and # are for filters"),
        _ if name.bytes().any(is_doubtful) && name.chars().any(is_unfit) => {
            Some("it has a control character or a noncharacter")
        }
        _ if name.len() > LONGEST => Some("it is longer than 65,535 bytes"),
        _ => None,
    }
}

/// Whether a character of which this is a byte has to be looked at.
fn is_doubtful(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~')
}

/// MQTT 5 section 1.5.4: NUL must not be there, and a broker may end the connection for the others.
/// Mosquitto does.
fn is_unfit(letter: char) -> bool {
    let code = u32::from(letter);
    letter.is_control() || matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
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
            assert_eq!(topic_fault(name), None, "{name:?}");
        }
        let letters = ["a\0b", "\u{1}", "\u{7f}", "\u{9f}", "\u{fdd0}", "\u{ffff}", "\u{1fffe}"];
        let names = ["", "+", "a/#", "a+b", "$SYS/x", &"x".repeat(LONGEST + 1)];
        for name in names.into_iter().chain(letters) {
            assert!(topic_fault(name).is_some(), "{:?}", name.get(..4));
        }
    }
}

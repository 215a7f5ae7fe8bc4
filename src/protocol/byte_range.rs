//! The range of bytes that a request asks for (RFC 9110 section 14).

/// What a `Range` header means for a representation of a known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestedRange {
    /// The whole: the header is malformed, of another unit, or names several ranges.
    Whole,
    /// At least one byte.
    Part { first: u64, length: u64 },
    /// 416: nothing of it is there.
    Unsatisfiable,
}

/// Reads the value of a `Range` header.
///
/// Of several ranges the whole is sent, as section 14.2 allows: an answer in parts would need a boundary
/// that is in none of them and a head for each, and browsers, curl, wget and players ask for one.
pub(crate) fn requested_range(value: &str, length: u64) -> RequestedRange {
    let Some((unit, ranges)) = value.split_once('=') else { return RequestedRange::Whole };
    // Section 14.2: "MUST ignore a Range header field that contains a range unit it does not understand".
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return RequestedRange::Whole;
    }
    match ranges.trim().split_once('-') {
        Some(("", suffix)) => position(suffix).map(|suffix| last_bytes(suffix, length)),
        Some((first, "")) => position(first).map(|first| between(first, u64::MAX, length)),
        Some((first, last)) => both(first, last).map(|(first, last)| between(first, last, length)),
        None => None,
    }
    .unwrap_or(RequestedRange::Whole)
}

/// Section 14.1.1: an int-range "is invalid if the last-pos value is present and less than first-pos".
fn both(first: &str, last: &str) -> Option<(u64, u64)> {
    Some((position(first)?, position(last)?)).filter(|(first, last)| first <= last)
}

fn between(first: u64, last: u64, length: u64) -> RequestedRange {
    match length.checked_sub(first).filter(|rest| *rest > 0) {
        Some(rest) => {
            let wanted = last.saturating_sub(first).saturating_add(1);
            RequestedRange::Part { first, length: wanted.min(rest) }
        }
        None => RequestedRange::Unsatisfiable,
    }
}

fn last_bytes(suffix: u64, length: u64) -> RequestedRange {
    match (suffix, length) {
        (0, _) => RequestedRange::Unsatisfiable,
        // Satisfiable by section 14.1.2, and there is no way to write down a part without a byte.
        (_, 0) => RequestedRange::Whole,
        _ => {
            let first = length.saturating_sub(suffix);
            RequestedRange::Part { first, length: length.saturating_sub(first) }
        }
    }
}

/// A position; one beyond 64 bits is beyond every end.
fn position(digits: &str) -> Option<u64> {
    let are_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_hundred_bytes() {
        let part = |first, length| RequestedRange::Part { first, length };
        for (value, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-", part(0, 100)),
            ("bytes=10-19", part(10, 10)),
            ("bytes=99-", part(99, 1)),
            ("bytes=90-1000", part(90, 10)),
            ("bytes=0-99999999999999999999999", part(0, 100)),
            ("bytes=0-18446744073709551615", part(0, 100)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-100", part(0, 100)),
            ("bytes=-101", part(0, 100)),
            ("bytes=-99999999999999999999999", part(0, 100)),
            ("Bytes=5-5", part(5, 1)),
            ("bytes= 5-5 ", part(5, 1)),
            ("bytes=100-", RequestedRange::Unsatisfiable),
            ("bytes=100-200", RequestedRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=0-1,5-6", RequestedRange::Whole),
            ("bytes=0-1,", RequestedRange::Whole),
            ("bytes=5-4", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=", RequestedRange::Whole),
            ("bytes", RequestedRange::Whole),
            ("", RequestedRange::Whole),
            ("lines=0-1", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("bytes=0x1-2", RequestedRange::Whole),
            ("bytes=1 -2", RequestedRange::Whole),
            ("bytes=--1", RequestedRange::Whole),
            ("bytes=1-2-3", RequestedRange::Whole),
        ] {
            assert_eq!(requested_range(value, 100), expected, "{value:?}");
        }
    }

    #[test]
    fn nothing_has_no_part() {
        assert_eq!(requested_range("bytes=0-", 0), RequestedRange::Unsatisfiable);
        assert_eq!(requested_range("bytes=-5", 0), RequestedRange::Whole);
        assert_eq!(requested_range("bytes=0-0", u64::MAX).first(), Some(0));
    }

    impl RequestedRange {
        fn first(self) -> Option<u64> {
            match self {
                Self::Part { first, .. } => Some(first),
                Self::Whole | Self::Unsatisfiable => None,
            }
        }
    }
}

//! The bounds of times and sizes that options take.

use std::time::Duration;

/// The shortest time that the timer wheel can keep apart from no time at all.
pub(crate) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// The longest time that an option takes; longer is taken for a mistake in the unit.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);
/// The largest size an option takes on any target.
pub(crate) const LARGEST_SIZE: usize = 1 << 30;

pub(crate) fn check_time(name: &str, value: Duration) -> Result<(), String> {
    if value < SHORTEST_TIMEOUT {
        return Err(format!(
            "{name} is {value:?}: it must be at least 1 ms (options that can be off take None)"
        ));
    }
    if value > LONGEST_TIMEOUT {
        return Err(format!("{name} is {value:?}: it must be at most 366 days"));
    }
    Ok(())
}

pub(crate) fn check_size(name: &str, value: usize) -> Result<(), String> {
    if value == 0 {
        return Err(format!("{name} is 0: it must be at least 1"));
    }
    if value > LARGEST_SIZE {
        return Err(format!("{name} is {value}: it must be at most {LARGEST_SIZE}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in() {
        let day = Duration::from_secs(24 * 3_600);
        for (time, is_in) in [
            (Duration::ZERO, false),
            (Duration::from_micros(999), false),
            (Duration::from_millis(1), true),
            (day * 366, true),
            (day * 366 + Duration::from_secs(1), false),
        ] {
            assert_eq!(check_time("it", time).is_ok(), is_in, "{time:?}");
        }
        for (size, is_in) in [(0, false), (1, true), (1 << 30, true), ((1 << 30) + 1, false)] {
            assert_eq!(check_size("it", size).is_ok(), is_in, "{size}");
        }
    }
}

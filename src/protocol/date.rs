//! Dates as HTTP writes them (RFC 9110 section 5.6.7).

use std::time::Duration;

/// A time before this year is no time: a box without a battery begins in 1970 or when its image was made,
/// and RFC 9110 section 6.6.1 forbids a server without a clock to send a date.
const CLOCK_IS_SET_SECS: u64 = 1_577_836_800; // 2020-01-01

const END_SECS: u64 = 253_402_300_800; // 10000-01-01

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// An IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT`, for a time since 1970 began; `None` where the
/// clock cannot have been set, or is beyond the year 9999.
pub(crate) fn http_date(since_1970: Duration) -> Option<[u8; 29]> {
    is_of_a_set_clock(since_1970).then(|| date_text(since_1970))?
}

/// Whether a clock that was set may have shown this time.
pub(crate) fn is_of_a_set_clock(since_1970: Duration) -> bool {
    since_1970.as_secs() >= CLOCK_IS_SET_SECS
}

/// An IMF-fixdate for any time up to the year 9999, such as that of a file.
pub(crate) fn date_text(since_1970: Duration) -> Option<[u8; 29]> {
    (since_1970.as_secs() < END_SECS).then(|| date_of(since_1970.as_secs()))
}

/// The time since 1970 began of a date in one of the three forms that a recipient "MUST accept" (RFC 9110
/// section 5.6.7).
pub(crate) fn parse_http_date(text: &str) -> Option<Duration> {
    let parse = |fixdate: Option<String>| parse_fixdate(&fixdate?);
    parse_fixdate(text)
        .or_else(|| parse(fixdate_of_rfc850(text)))
        .or_else(|| parse(fixdate_of_asctime(text)))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`, as an IMF-fixdate. Its year is one between 1970 and 2069.
fn fixdate_of_rfc850(text: &str) -> Option<String> {
    let (day_name, rest) = text.split_once(", ")?;
    let (date, time) = rest.split_once(' ')?;
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let short_name = day_name.strip_suffix("day")?.get(..3)?;
    let is_of_two_digits = year.len() == 2 && parts.next().is_none();
    let century = if year < "70" { "20" } else { "19" };
    is_of_two_digits.then(|| format!("{short_name}, {day} {month} {century}{year} {time}"))
}

/// `Sun Nov  6 08:49:37 1994`, as an IMF-fixdate.
fn fixdate_of_asctime(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let (day_name, month, day) = (words.next()?, words.next()?, words.next()?);
    let (time, year) = (words.next()?, words.next()?);
    let is_of_this_length = text.len() == 24 && words.next().is_none();
    is_of_this_length.then(|| format!("{day_name}, {day:0>2} {month} {year} {time} GMT"))
}

/// The same of whatever a clock says, for people.
#[cfg(any(feature = "client", feature = "tls"))]
pub(crate) fn shown_date(since_1970: Duration) -> String {
    const LAST_SECS: u64 = 253_402_300_799; // 9999-12-31
    let date = date_of(since_1970.as_secs().min(LAST_SECS));
    String::from_utf8_lossy(&date).into_owned()
}

/// The time since 1970 began of an IMF-fixdate, which is the one form that may be sent today.
fn parse_fixdate(text: &str) -> Option<Duration> {
    let number = |at: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(at)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let name = text.get(8..11)?;
    let month = (0_u64..).zip(MONTHS).find(|(_, known)| known.as_slice() == name.as_bytes())?.0;
    let (day, year) = (number(5..7)?, number(12..16)?);
    let (hour, minute, second) = (number(17..19)?, number(20..22)?, number(23..25)?);
    if hour > 23 || minute > 59 || second > 60 || !(1970..=9999).contains(&year) {
        return None;
    }
    // Days rise with the date, and there are fewer than 2^22: 22 halvings find the one.
    let (mut low, mut high) = (0, 1 << 22);
    while low < high {
        let middle = u64::midpoint(low, high);
        let found = civil(middle);
        if found < (year, month.saturating_add(1), day) {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    let of_day = hour.saturating_mul(3_600).saturating_add(minute.saturating_mul(60));
    let secs = low.saturating_mul(86_400).saturating_add(of_day).saturating_add(second);
    // Whatever else stands there, such as another form or a day that the month does not have.
    let is_same = date_of(secs.saturating_sub(u64::from(second == 60))).get(..23)?
        == text.as_bytes().get(..23)?;
    (is_same && text.ends_with(" GMT") && text.len() == 29).then(|| Duration::from_secs(secs))
}

#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a time of at most four digits of years, days of a week, months of a year"
)]
fn date_of(secs: u64) -> [u8; 29] {
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Day, 00 Mon 0000 00:00:00 GMT";
    let mut put = |at: usize, piece: &[u8]| {
        for (place, byte) in text.iter_mut().skip(at).zip(piece) {
            *place = *byte;
        }
    };
    put(0, DAYS.get((days % 7) as usize).map_or(b"", |name| &name[..]));
    put(5, &two_digits(day));
    put(8, MONTHS.get(month as usize - 1).map_or(b"", |name| &name[..]));
    put(12, &two_digits(year / 100));
    put(14, &two_digits(year % 100));
    put(17, &two_digits(second / 3_600));
    put(20, &two_digits(second / 60 % 60));
    put(23, &two_digits(second % 60));
    text
}

#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a digit each")]
fn two_digits(number: u64) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Year, month and day of a count of days since 1970. Years are counted from March on, so that the day
/// that not every year has is the last.
#[allow(clippy::arithmetic_side_effects, reason = "days of at most four digits of years")]
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468; // since 0000-03-01
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Of five months from March on, each begins 30.6 days after the one before.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_known() {
        for (secs, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), // RFC 9110 section 5.6.7
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_577_836_799, "Tue, 31 Dec 2019 23:59:59 GMT"),
            (1_582_934_400, "Sat, 29 Feb 2020 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&date_of(secs)), Ok(expected));
        }
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        let mut secs = 0;
        while secs < 253_402_300_800 {
            let text = date_of(secs);
            let read = parse_http_date(std::str::from_utf8(&text).unwrap());
            assert_eq!(read, Some(Duration::from_secs(secs)));
            secs += 86_399 * 37 + 41;
        }
        for (text, secs) in [
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Wednesday, 31-Dec-69 23:59:59 GMT", 0),
            ("Tuesday, 31-Dec-69 23:59:59 GMT", 3_155_759_999),
            ("Saturday, 29-Feb-20 00:00:00 GMT", 1_582_934_400),
            ("Sat Feb 29 00:00:00 2020", 1_582_934_400),
        ] {
            let expected = (secs > 0).then(|| Duration::from_secs(secs));
            assert_eq!(parse_http_date(text), expected, "{text}");
        }
        for text in [
            "Monday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-94-1 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994 ",
            "Mon Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "",
        ] {
            assert_eq!(parse_http_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn days_follow_one_another() {
        let mut before = civil(0);
        for day in 1..60_000 {
            let (year, month, date) = civil(day);
            let next_in_month = (before.0, before.1, before.2 + 1);
            let next_month =
                if before.1 == 12 { (before.0 + 1, 1, 1) } else { (before.0, before.1 + 1, 1) };
            assert!([next_in_month, next_month].contains(&(year, month, date)), "{day}");
            before = (year, month, date);
        }
        assert_eq!(before, (2134, 4, 10));
    }

    #[test]
    fn a_clock_that_was_never_set_is_none() {
        let date = |secs| http_date(Duration::from_secs(secs));
        assert_eq!((date(0), date(1_577_836_799), date(u64::MAX)), (None, None, None));
        assert_eq!(date(1_577_836_800), Some(*b"Wed, 01 Jan 2020 00:00:00 GMT"));
    }
}

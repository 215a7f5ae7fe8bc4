//! What is read of an X.509 certificate beyond what rustls does: who signed it, and when it is valid
//! (RFC 5280 section 4.1).

use std::time::Duration;

#[cfg(feature = "client")]
use rustls::{SupportedCipherSuite, crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256};

/// The names and the key in a certificate, as they are encoded, and when it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    pub(crate) validity: Validity,
    /// Its SubjectPublicKeyInfo.
    #[cfg_attr(not(feature = "client"), allow(dead_code, reason = "only dialers pin it"))]
    pub(crate) public_key: &'a [u8],
}

/// From when until when something is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// One element of DER: its tag, its content, and all of it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Elements that follow one another.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<Element<'a>> {
        let &[tag, first, ref rest @ ..] = self.0 else { return None };
        let (header, length) = if first < 0x80 {
            (2, usize::from(first))
        } else {
            let digits =
                rest.get(..usize::from(first & 0x7f)).filter(|it| (1..=3).contains(&it.len()))?;
            let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
            (digits.len().saturating_add(2), length)
        };
        let (whole, later) = self.0.split_at_checked(header.saturating_add(length))?;
        self.0 = later;
        Some(Element { tag, content: whole.get(header..)?, whole })
    }

    /// The content of the next element, which has to be of that kind.
    fn enter(&mut self, tag: u8) -> Option<Self> {
        self.next().filter(|element| element.tag == tag).map(|element| Self(element.content))
    }
}

impl<'a> Certificate<'a> {
    /// `None` for what is no certificate.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let mut fields = Elements(der).enter(SEQUENCE)?.enter(SEQUENCE)?;
        let first = fields.next()?; // the version, which may be left out, or the serial number
        if first.tag == VERSION {
            fields.next()?;
        }
        fields.next()?; // the algorithm of the signature
        let issuer = fields.next()?.whole;
        let mut validity = fields.enter(SEQUENCE)?;
        let (not_before, not_after) = (time(&validity.next()?)?, time(&validity.next()?)?);
        let subject = fields.next()?.whole;
        let public_key = fields.next()?.whole;
        let validity = Validity { not_before, not_after };
        Some(Self { issuer, subject, validity, public_key })
    }
}

/// The SHA-256 of bytes, by the provider of rustls.
#[cfg(feature = "client")]
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    if let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 {
        let hash = suite.common.hash_provider.hash(bytes);
        digest.iter_mut().zip(hash.as_ref()).for_each(|(place, byte)| *place = *byte);
    }
    digest
}

impl Validity {
    /// What is to be said of a certificate that a server shows, if anything is.
    pub(crate) fn fault(&self, now: Duration) -> Option<Fault> {
        let now = now.as_secs();
        if now < self.not_before {
            Some(Fault::NotYetValid)
        } else if now > self.not_after {
            Some(Fault::Expired)
        } else if self.not_after.saturating_sub(now) < WARNED_BEFORE.as_secs() {
            Some(Fault::Expires { days: self.not_after.saturating_sub(now) / DAY })
        } else {
            None
        }
    }
}

const DAY: u64 = 86_400;
/// So long before its end a certificate is warned of.
const WARNED_BEFORE: Duration = Duration::from_secs(14 * DAY);

/// What is wrong with the time of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NotYetValid,
    Expired,
    /// In so many days.
    Expires {
        days: u64,
    },
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` from 1950 to 2049, else `YYYYMMDDHHMMSSZ`. A time before 1970
/// is 1970.
fn time(element: &Element<'_>) -> Option<u64> {
    let text = element.content.strip_suffix(b"Z")?;
    let two = |at: usize| {
        let &[tens, units] = text.get(at..at.checked_add(2)?)? else { return None };
        let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte & 0x0f));
        digit(tens)?.checked_mul(10)?.checked_add(digit(units)?)
    };
    let (year, rest) = match (element.tag, text.len()) {
        (UTC_TIME, 12) => (two(0)?.checked_add(if two(0)? < 50 { 2_000 } else { 1_900 })?, 2),
        (GENERALIZED_TIME, 14) => (two(0)?.checked_mul(100)?.checked_add(two(2)?)?, 4),
        _ => return None,
    };
    let field = |number: usize| two(number.checked_mul(2)?.checked_add(rest)?);
    let (month, day) = (field(0)?, field(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    let hours = days.checked_mul(24)?.checked_add(field(2)?)?;
    hours.checked_mul(60)?.checked_add(field(3)?)?.checked_mul(60)?.checked_add(field(4)?)
}

/// Days in years and months that are over, of the calendar that leaves out three leap days in 400 years.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Counted from March, so that a leap day ends a year.
    let (year, month) = if month > 2 {
        (year, month.saturating_sub(3))
    } else {
        (year.saturating_sub(1), month.saturating_add(9))
    };
    let leap_days = (year / 4).saturating_sub(year / 100).saturating_add(year / 400);
    let in_year = month.saturating_mul(153).saturating_add(2) / 5;
    let days = year.saturating_mul(365).saturating_add(leap_days).saturating_add(in_year);
    days.saturating_add(day).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tag: u8, text: &str) -> Option<u64> {
        time(&Element { tag, content: text.as_bytes(), whole: &[] })
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "231114221320Z", Some(1_700_000_000)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20000229000000Z", Some(951_782_400)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "500101000000Z", Some(0)),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "70010100000xZ", None),
            (GENERALIZED_TIME, "20500101000000+0100", None),
            (2, "700101000000Z", None),
        ] {
            assert_eq!(at(tag, text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bytes in
            [&b""[..], b"\x30", b"\x30\x80", b"\x30\x03\x30\x01\x02", b"\x30\x84\xff\xff\xff\xff"]
        {
            assert_eq!(Certificate::read(bytes), None);
        }
    }

    #[test]
    fn a_certificate_is_warned_of_before_its_end_and_before_its_beginning() {
        let valid = Validity { not_before: DAY, not_after: 100 * DAY };
        for (day, expected) in [
            (0, Some(Fault::NotYetValid)),
            (1, None),
            (85, None),
            (90, Some(Fault::Expires { days: 10 })),
            (101, Some(Fault::Expired)),
        ] {
            assert_eq!(valid.fault(Duration::from_secs(day * DAY)), expected, "day {day}");
        }
    }
}

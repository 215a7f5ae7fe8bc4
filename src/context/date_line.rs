//! The `Date` line of answers, made at most once a second.

use std::time::Duration;

use crate::protocol::date::http_date;
use crate::structures::wire::Wire;
use crate::words::time::Time;

const LINE: &[u8; 37] = b"Date: Day, 00 Mon 0000 00:00:00 GMT\r\n";

/// The line as it is at present.
#[derive(Debug)]
pub(crate) struct DateLine {
    text: [u8; LINE.len()],
    /// False where the clock cannot have been set: then there is no line.
    is_known: bool,
    /// When the next second begins.
    until: Time,
}

impl Default for DateLine {
    fn default() -> Self {
        Self { text: *LINE, is_known: false, until: Time::ZERO }
    }
}

impl DateLine {
    /// RFC 9110 section 6.6.1: "An origin server with a clock MUST generate a Date header field in all
    /// 2xx (Successful), 3xx (Redirection), and 4xx (Client Error) responses". Empty without a clock.
    #[inline]
    pub(crate) fn at(&mut self, now: Time, wire: &dyn Wire) -> &[u8] {
        if now >= self.until {
            self.renew(now, wire);
        }
        if self.is_known { &self.text } else { &[] }
    }

    /// The clock is asked anew each second, not once: it may be set while the server runs.
    #[cold]
    fn renew(&mut self, now: Time, wire: &dyn Wire) {
        let clock = wire.since_1970();
        if let Some(clock) = clock {
            let passed = Duration::from_nanos(clock.subsec_nanos().into());
            self.until = now.after(Duration::from_secs(1).saturating_sub(passed));
        }
        let date = clock.and_then(http_date);
        self.is_known = date.is_some();
        for (place, byte) in self.text.iter_mut().skip(6).zip(date.into_iter().flatten()) {
            *place = byte;
        }
    }
}

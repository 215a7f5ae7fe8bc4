//! What the log is told of things that a stranger can cause: one line a second for each kind, with a
//! count of those left out, so that nobody can fill a disk or block the loop in a write.

use std::cell::RefCell;

use log::{Level, log_enabled};

use crate::words::quoted::on_one_line;
use crate::words::time::Time;

/// Kinds that are told apart; what comes beyond them shares one.
const KINDS_MAX: usize = 64;

/// What was said, and when. Interior, so that whoever sees a limit struck can say so.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    kinds: RefCell<Vec<(Kind, Time, u64)>>,
    /// What the application's last panic said, for whoever wants to know.
    pub(crate) last_panic: Option<String>,
}

/// One kind of line: what it is about, and a number where that is not enough, such as a status or a route.
pub(crate) type Kind = (&'static str, u16);

const OTHERS: Kind = ("others", 0);

/// Where a line goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Server,
    Session,
}

impl Warnings {
    /// Warns of a limit that struck.
    pub(crate) fn note(&self, kind: &'static str, now: Time, text: impl FnOnce() -> String) {
        self.line(Level::Warn, Target::Server, (kind, 0), now, text);
    }

    /// Logs `text` as one line, unless a line of its kind was logged within the last second.
    pub(crate) fn line(
        &self,
        level: Level,
        target: Target,
        kind: Kind,
        now: Time,
        text: impl FnOnce() -> String,
    ) {
        let target = match target {
            Target::Server => "wirewheel::server",
            Target::Session => "wirewheel::session",
        };
        if !log_enabled!(target: target, level) {
            return;
        }
        match self.turn_of(kind, now) {
            Some(0) => log::log!(target: target, level, "{}", on_one_line(&text())),
            Some(left_out) => {
                let text = text();
                let line = on_one_line(&text);
                log::log!(target: target, level, "{line} ({left_out} more like it left out)");
            }
            None => {}
        }
    }

    /// Logs `text` the first time that this kind comes up.
    pub(crate) fn once(&self, kind: &'static str, now: Time, text: impl FnOnce() -> String) {
        let is_new = self.kinds.borrow().iter().all(|((known, _), ..)| *known != kind);
        if is_new {
            self.note(kind, now, text);
        }
    }

    /// How many of its kind were left out since the last line, if it is time for one.
    fn turn_of(&self, kind: Kind, now: Time) -> Option<u64> {
        let mut kinds = self.kinds.borrow_mut();
        let is_known = |kind: Kind| kinds.iter().position(|(known, ..)| *known == kind);
        let place = is_known(kind)
            .or_else(|| if kinds.len() < KINDS_MAX { None } else { is_known(OTHERS) });
        match place.and_then(|place| kinds.get_mut(place)) {
            Some((_, last, left_out)) if now.since(*last).as_secs() == 0 => {
                *left_out += 1;
                None
            }
            Some((_, last, left_out)) => {
                *last = now;
                Some(std::mem::take(left_out))
            }
            None => {
                let kind = if kinds.len() < KINDS_MAX { kind } else { OTHERS };
                kinds.push((kind, now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_line_a_second_and_many_kinds_have_no_more() {
        let warnings = Warnings::default();
        let at = |millis: u64| Time::from_micros(millis * 1_000);
        assert_eq!(warnings.turn_of(("a", 403), at(0)), Some(0));
        assert_eq!(warnings.turn_of(("a", 404), at(0)), Some(0));
        for millis in 1..1_000 {
            assert_eq!(warnings.turn_of(("a", 403), at(millis)), None);
        }
        assert_eq!(warnings.turn_of(("a", 403), at(1_000)), Some(999));
        assert_eq!(warnings.turn_of(("a", 403), at(2_000)), Some(0));
        // An application that answers with a status of its own each time.
        let lines = (0..1_000).filter(|n| warnings.turn_of(("b", *n), at(3_000)).is_some());
        assert!(lines.count() <= KINDS_MAX);
        assert_eq!(warnings.turn_of(("b", 999), at(4_000)), Some(1_000 - KINDS_MAX as u64 + 1));
    }
}

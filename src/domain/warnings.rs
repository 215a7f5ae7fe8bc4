//! Owns warnings about limits: one line a second for each kind, with a count of those left out.

use std::cell::RefCell;

use log::warn;

use crate::words::time::Time;

/// At most this many kinds exist; each is a literal in the code.
const KINDS_MAX: usize = 16;

/// What was warned of, and when. Interior, so that whoever sees a limit struck can say so.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    kinds: RefCell<Vec<(&'static str, Time, u64)>>,
}

impl Warnings {
    /// Logs `text` at the target `wirewheel::server`, unless one of its kind was logged within
    /// the last second.
    pub(crate) fn note(&self, kind: &'static str, now: Time, text: impl FnOnce() -> String) {
        let Ok(mut kinds) = self.kinds.try_borrow_mut() else { return };
        match kinds.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, last, left_out)) if now.since(*last).as_secs() == 0 => *left_out += 1,
            Some((_, last, left_out)) => {
                warn!(target: "wirewheel::server", "{} ({left_out} more like it left out)", text());
                (*last, *left_out) = (now, 0);
            }
            None => {
                warn!(target: "wirewheel::server", "{}", text());
                if kinds.len() < KINDS_MAX {
                    kinds.push((kind, now, 0));
                }
            }
        }
    }
}

//! Which versions a topic has had: a hub passes each on once.

use crate::links::clock::{Version, believes};

/// The most hubs whose newest version is remembered for a topic.
const HUBS_MAX: usize = 64;

/// The newest versions that a topic has had. What is not believed any more, since the clock was set, counts
/// as none: nobody could say anything newer.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The newest version of all.
    newest: Version,
    /// The newest version of each hub.
    of_hubs: Vec<Version>,
    /// The newest of those that had to be forgotten: whatever is not newer may have been here.
    forgotten: Version,
}

impl Heard {
    pub(super) fn newest(&self) -> Version {
        self.newest
    }

    /// A message that is said here has that version.
    pub(super) fn note_own(&mut self, version: Version) {
        self.newest = version;
    }

    /// Whether a version of another hub, which is believed at that time, was not here before.
    pub(super) fn is_new(&self, version: Version, keeps_newest: bool, now: u64) -> bool {
        let last = if keeps_newest {
            self.newest
        } else {
            let known = self.of_hubs.iter().find(|known| known.hub == version.hub);
            // Any number of hubs may be made up, and what they are said to have said goes round for ever
            // where a hub that was forgotten counts as one that was never heard. Who is honest goes by what
            // it hears (`Clock::follow`), so that what it says next is newer than all of that.
            known.copied().unwrap_or(self.forgotten)
        };
        version > last || !believes(last, now)
    }

    /// It is here from now on.
    pub(super) fn note(&mut self, version: Version, keeps_newest: bool, now: u64) {
        let newer =
            |known: Version| if believes(known, now) { known.max(version) } else { version };
        self.newest = newer(self.newest);
        if keeps_newest {
            return; // nothing else is asked
        }
        if let Some(known) = self.of_hubs.iter_mut().find(|known| known.hub == version.hub) {
            *known = newer(*known);
            return;
        }
        if !believes(self.forgotten, now) {
            self.forgotten = Version::default();
        }
        if self.of_hubs.len() >= HUBS_MAX {
            // What is believed no longer is refused in any case.
            self.of_hubs.retain(|known| believes(*known, now));
        }
        let oldest = self.of_hubs.iter().copied().min().filter(|_| self.of_hubs.len() >= HUBS_MAX);
        if let Some(oldest) = oldest {
            // Started anew since, or silent for longest.
            self.of_hubs.retain(|known| *known != oldest);
            self.forgotten = self.forgotten.max(oldest);
        }
        self.of_hubs.push(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::clock::{AHEAD_MAX, SET};

    /// Whether versions are new, one after the other.
    fn news(heard: &mut Heard, now: u64, versions: &[(u64, u64)]) -> Vec<bool> {
        let is_new = |&(number, hub)| {
            let version = Version { number: SET + number, hub };
            let is_new = heard.is_new(version, false, now);
            if is_new {
                heard.note(version, false, now);
            }
            is_new
        };
        versions.iter().map(is_new).collect()
    }

    #[test]
    fn what_was_said_by_a_hub_that_had_to_be_forgotten_is_not_new_again() {
        let (mut heard, now) = (Heard::default(), SET + 1_000);
        let many: Vec<(u64, u64)> = (1..=200).map(|number| (number, number)).collect();
        assert_eq!(news(&mut heard, now, &many), [true; 200]);
        assert_eq!(news(&mut heard, now, &many), [false; 200]);
        assert_eq!(heard.of_hubs.len(), HUBS_MAX);
        // Of a hub that is known it counts what it said itself; of one that is not, all that was forgotten.
        assert_eq!(
            news(&mut heard, now, &[(136, 136), (136, 7), (137, 0), (137, 900)]),
            [false, false, true, true]
        );
        assert_eq!(
            news(&mut heard, now, &[(200, 137), (200, 7), (199, 7), (201, 7)]),
            [true, true, false, true]
        );
    }

    /// A box without a clock believes what nobody can outdo once it has one.
    #[test]
    fn what_was_believed_before_the_clock_was_set_locks_nobody_out() {
        let mut heard = Heard::default();
        let many: Vec<(u64, u64)> = (1..=200).map(|hub| (2 * AHEAD_MAX + hub, hub)).collect();
        assert_eq!(news(&mut heard, 0, &many), [true; 200]);
        assert_eq!(news(&mut heard, 0, &[(5, 900)]), [false]);
        assert_eq!(news(&mut heard, SET, &[(5, 900), (5, 900), (6, 901)]), [true, false, true]);
        let many: Vec<(u64, u64)> = (1..=200).map(|number| (number, 1_000 + number)).collect();
        news(&mut heard, SET, &many);
        assert_eq!(news(&mut heard, SET, &many), [false; 200], "nor is anything repeated");
    }

    /// Those that are known by name are not locked out either, nor is the newest of all the newest for ever.
    #[test]
    fn what_is_not_believed_any_more_outdoes_nobody() {
        for keeps_newest in [false, true] {
            let (mut heard, future) =
                (Heard::default(), Version { number: SET + 2 * AHEAD_MAX, hub: 7 });
            heard.note(future, keeps_newest, 0);
            let now = Version { number: SET, hub: 7 };
            assert!(!heard.is_new(now, keeps_newest, 0) && heard.is_new(now, keeps_newest, SET));
            heard.note(now, keeps_newest, SET);
            assert!(!heard.is_new(now, keeps_newest, SET) && heard.newest() == now);
        }
    }
}

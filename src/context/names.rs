//! Names by which sessions are reached: each belongs to one session, and goes with it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::structures::footprint::footprint;
use crate::structures::slab::Key;

/// The names of open sessions. A session has one at most.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_name: HashMap<Rc<str>, Key>,
    by_session: HashMap<Key, Rc<str>>,
    /// What they take.
    bytes: usize,
}

/// What a name takes: its counters, and a place in each of two tables that may be half empty.
fn memory(name: &str) -> usize {
    let places = 4 * size_of::<(Rc<str>, Key)>();
    footprint(name.len().saturating_add(2 * size_of::<usize>())).saturating_add(places)
}

impl Names {
    /// The longest name, in bytes: names may come from peers, and are kept.
    pub(crate) const MAX_BYTES: usize = 256;

    /// Bytes of memory that they take. A peer may choose them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn find(&self, name: &str) -> Option<Key> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn of(&self, session: Key) -> Option<&str> {
        self.by_session.get(&session).map(|name| &**name)
    }

    /// Gives a session a name, in place of its own if it has one; who had it has none from now on.
    pub(crate) fn give(&mut self, session: Key, name: &str) -> Option<Key> {
        self.remove(session);
        let name: Rc<str> = name.into();
        let before = self.by_name.insert(Rc::clone(&name), session);
        match before {
            Some(before) => drop(self.by_session.remove(&before)),
            None => self.bytes = self.bytes.saturating_add(memory(&name)),
        }
        self.by_session.insert(session, name);
        before
    }

    /// The session is over, or is to have no name any more: the one that it had.
    pub(crate) fn remove(&mut self, session: Key) -> Option<Rc<str>> {
        if self.by_session.is_empty() {
            return None; // a server without names pays nothing for them
        }
        let name = self.by_session.remove(&session)?;
        self.by_name.remove(&name);
        self.bytes = self.bytes.saturating_sub(memory(&name));
        // What many had once is not kept for ever.
        if self.by_name.is_empty() {
            *self = Self::default();
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Key = Key { index: 1, generation: 1 };
    const OTHER: Key = Key { index: 2, generation: 1 };

    #[test]
    fn a_name_belongs_to_one_session_and_goes_with_it() {
        let mut names = Names::default();
        assert_eq!(names.give(ONE, "device-7"), None);
        assert_eq!(names.give(ONE, "device-8"), None);
        assert_eq!((names.find("device-7"), names.find("device-8")), (None, Some(ONE)));
        let of_one = names.bytes();
        assert_eq!(names.give(OTHER, "device-8"), Some(ONE));
        assert_eq!((names.of(ONE), names.of(OTHER)), (None, Some("device-8")));
        assert_eq!(names.bytes(), of_one, "it is counted once");
        names.remove(ONE);
        assert_eq!(names.find("device-8"), Some(OTHER));
        names.remove(OTHER);
        assert_eq!((names.find("device-8"), names.of(OTHER)), (None, None));
        assert_eq!((names.by_name.capacity(), names.bytes()), (0, 0));
    }
}

//! What is known of the keys of a flow of newest values: MQTT orders the messages of a topic, which a key is.

use std::borrow::Borrow;
use std::hash::{BuildHasher, RandomState};

use crate::numbers::Number;

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The number of what another box has said of it last.
    pub(crate) heard: Option<Number>,
    /// The count of what this link has said of it, as long as that is the newest; else 0.
    pub(crate) sent: u64,
    /// The connection on which the newest value was sent, or last came from the broker; 0 where it was lost.
    pub(crate) connection: u64,
}

/// The keys that something was said of lately.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Keys may be long and come from the network: they are known by 64 bits of a hash that is this table's
    /// own.
    hasher: RandomState,
    /// Two generations, so that who was not spoken of for longest goes without a list of when that was.
    young: Generation,
    old: Generation,
}

/// In the order of their hashes: a map of its own would make the hub larger by more than all of this is.
type Generation = Vec<(u64, Known)>;

/// Where a key stands in a list in the order of keys, or is to stand.
pub(crate) fn place_of<K, Q, T>(list: &[(K, T)], key: &Q) -> Result<usize, usize>
where
    K: Borrow<Q>,
    Q: Ord + ?Sized,
{
    list.binary_search_by(|(known, _)| known.borrow().cmp(key))
}

/// More keys of one flow are not remembered.
pub(crate) const KEYS_MAX: usize = 16 << 10;
/// Of one, with its place in a list that is half full.
pub(crate) const KEY_BYTES: usize = 2 * size_of::<(u64, Known)>();

impl Keys {
    /// By what a key is known here.
    pub(crate) fn name(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(crate) fn get(&self, name: u64) -> Option<&Known> {
        let all = [&self.young, &self.old].into_iter();
        all.filter_map(|list| Some(&list[place_of(list, &name).ok()?].1)).next()
    }

    pub(crate) fn get_mut(&mut self, name: u64) -> Option<&mut Known> {
        let all = [&mut self.young, &mut self.old].into_iter();
        all.filter_map(|list| place_of(list, &name).ok().map(|place| &mut list[place].1)).next()
    }

    /// Something is said of a key: what is known of it, to be changed. `forget` is told of those that are
    /// forgotten for it.
    pub(crate) fn at(&mut self, name: u64, forget: impl FnMut(&Known)) -> &mut Known {
        let place = place_of(&self.young, &name).unwrap_or_else(|place| {
            let known =
                place_of(&self.old, &name).map(|at| self.old.remove(at).1).unwrap_or_default();
            let is_full = self.young.len() >= KEYS_MAX / 2;
            if is_full {
                let young = std::mem::take(&mut self.young);
                std::mem::replace(&mut self.old, young)
                    .iter()
                    .map(|(_, known)| known)
                    .for_each(forget);
            }
            let place = if is_full { 0 } else { place };
            self.young.insert(place, (name, known));
            place
        });
        &mut self.young[place].1
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_spoken_of_last_are_known_and_the_others_are_told_of() {
        let (mut keys, mut forgotten) = (Keys::default(), Vec::new());
        let most = KEYS_MAX as u64;
        for count in 1..=3 * most {
            keys.at(count, |gone| forgotten.push(gone.sent)).sent = count;
            keys.at(1, |gone| forgotten.push(gone.sent));
            assert!(keys.len() <= KEYS_MAX);
        }
        assert_eq!(keys.get(1).map(|known| known.sent), Some(1), "spoken of all the time");
        assert_eq!(keys.get_mut(3 * most).map(|known| known.sent), Some(3 * most));
        assert_eq!(forgotten.len() + keys.len(), KEYS_MAX * 3);
        assert!(forgotten.is_sorted() && keys.get(2).is_none());
    }
}

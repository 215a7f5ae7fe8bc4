//! A list whose members keep their slots: whoever leaves is never passed over again.

/// No place.
const NONE: u32 = u32::MAX;

/// Numbers in the order in which they came. To go through them costs as much as there are now,
/// however many there were once.
#[derive(Debug)]
pub(crate) struct Roster {
    places: Vec<Place>,
    first: u32,
    last: u32,
    /// The first of the places that nobody has; they are chained by `next`.
    free: u32,
}

#[derive(Debug)]
struct Place {
    member: u32,
    next: u32,
    previous: u32,
}

impl Default for Roster {
    fn default() -> Self {
        Self { places: Vec::new(), first: NONE, last: NONE, free: NONE }
    }
}

impl Roster {
    /// What a member costs.
    pub(crate) const MEMBER_BYTES: usize = size_of::<Place>();

    /// Adds a member: its place.
    pub(crate) fn insert(&mut self, member: u32) -> u32 {
        let new = Place { member, next: NONE, previous: self.last };
        let place = self.free;
        let place = match self.places.get_mut(place as usize) {
            Some(free) => {
                self.free = std::mem::replace(free, new).next;
                place
            }
            None => {
                self.places.push(new);
                u32::try_from(self.places.len() - 1).unwrap_or(NONE)
            }
        };
        match self.places.get_mut(self.last as usize) {
            Some(last) => last.next = place,
            None => self.first = place,
        }
        self.last = place;
        place
    }

    /// The member of that place leaves; it is there.
    pub(crate) fn remove(&mut self, place: u32) {
        let free = self.free;
        let Some(gone) = self.places.get_mut(place as usize) else { return };
        let (next, previous) = (gone.next, gone.previous);
        gone.next = free;
        self.free = place;
        match self.places.get_mut(previous as usize) {
            Some(before) => before.next = next,
            None => self.first = next,
        }
        match self.places.get_mut(next as usize) {
            Some(after) => after.previous = previous,
            None => self.last = previous,
        }
        if self.first == NONE {
            *self = Self::default(); // what many took is given back
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let place = self.places.get(at as usize)?;
            at = place.next;
            Some(place.member)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list.
        #[test]
        fn members_are_gone_through_in_the_order_in_which_they_came(
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..100),
        ) {
            let mut roster = Roster::default();
            let mut list: Vec<(u32, u32)> = Vec::new();
            for (number, (joins, choice)) in (0u32..).zip(steps) {
                if joins || list.is_empty() {
                    list.push((roster.insert(number), number));
                } else {
                    roster.remove(list.remove(choice.index(list.len())).0);
                }
                let members: Vec<u32> = list.iter().map(|(_, member)| *member).collect();
                prop_assert_eq!(roster.iter().collect::<Vec<_>>(), members);
            }
        }
    }
}

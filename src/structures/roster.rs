//! A list whose members keep their slots: whoever leaves is never passed over again.

/// No slot.
const NONE: u32 = u32::MAX;

/// Numbers in the order in which they came. To go through them costs as much as there are now,
/// however many there were once.
#[derive(Debug)]
pub(crate) struct Roster {
    slots: Vec<Slot>,
    first: u32,
    last: u32,
    /// The first of the slots that nobody has; they are chained by `next`.
    free: u32,
}

#[derive(Debug)]
struct Slot {
    member: u32,
    next: u32,
    previous: u32,
}

impl Default for Roster {
    fn default() -> Self {
        Self { slots: Vec::new(), first: NONE, last: NONE, free: NONE }
    }
}

impl Roster {
    /// The slot of who is no member: to remove it does nothing.
    pub(crate) const NOBODY: u32 = NONE;

    /// What a member costs.
    pub(crate) const MEMBER_BYTES: usize = size_of::<Slot>();

    /// Adds a member: its slot.
    pub(crate) fn insert(&mut self, member: u32) -> u32 {
        let new = Slot { member, next: NONE, previous: self.last };
        let slot = self.free;
        let slot = match self.slots.get_mut(slot as usize) {
            Some(free) => {
                self.free = std::mem::replace(free, new).next;
                slot
            }
            None => {
                self.slots.push(new);
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        match self.slots.get_mut(self.last as usize) {
            Some(last) => last.next = slot,
            None => self.first = slot,
        }
        self.last = slot;
        slot
    }

    /// The member of that slot leaves; it is there.
    pub(crate) fn remove(&mut self, slot: u32) {
        let free = self.free;
        let Some(gone) = self.slots.get_mut(slot as usize) else { return };
        let (next, previous) = (gone.next, gone.previous);
        gone.next = free;
        self.free = slot;
        match self.slots.get_mut(previous as usize) {
            Some(before) => before.next = next,
            None => self.first = next,
        }
        match self.slots.get_mut(next as usize) {
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
            let slot = self.slots.get(at as usize)?;
            at = slot.next;
            Some(slot.member)
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

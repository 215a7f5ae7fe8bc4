//! The slab: slots with generations, in pages that exist only while they are needed.

const PAGE: usize = 64;
/// Slots whose bookkeeping is reserved from the start, at most.
pub(crate) const RESERVED_MAX: usize = 64 << 10;

/// The bits of a generation that say which of several loops has the slot, so that no two loops ever give the
/// same key. One loop has none of them. Other numbers that a loop gives are made like generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GenerationBits {
    /// Those of this loop, at the top.
    fixed: u32,
    /// How many they are.
    count: u32,
    /// Where this server begins, within the bits that loops leave. Of n servers (up to 1,500), any two are at
    /// least 2^(29 - count) / n apart, whatever loops each has: 53 million for ten of one loop. Only what is
    /// used so often again gets numbers that were another server's; all come round after 2^(32 - count).
    first: u32,
}

/// The n-th server begins at n times this. Found by trial: its multiples are far apart whichever of the upper
/// six bits are left out.
const SERVER_STRIDE: u32 = 0xC9BA_0C07;

impl GenerationBits {
    pub(crate) const NONE: Self = Self { fixed: 0, count: 0, first: 0 };

    /// Of loop `number` of `loops`.
    pub(crate) fn of(number: usize, loops: usize) -> Self {
        let count = usize::BITS.saturating_sub(loops.saturating_sub(1).leading_zeros());
        let number = u32::try_from(number).unwrap_or(0);
        let fixed = number.checked_shl(u32::BITS.saturating_sub(count)).unwrap_or(0);
        Self { fixed, count, first: fixed }
    }

    /// Of the process's server of that number.
    pub(crate) fn of_server(self, server: u32) -> Self {
        let first = self.masked(server.wrapping_mul(SERVER_STRIDE));
        Self { first, ..self }
    }

    /// Before all numbers of this loop.
    pub(crate) fn first(self) -> u32 {
        self.first
    }

    /// The loop whose slot had this generation.
    pub(crate) fn owner(self, generation: u32) -> usize {
        let above = generation.checked_shr(u32::BITS.saturating_sub(self.count)).unwrap_or(0);
        above as usize
    }

    pub(crate) fn after(self, generation: u32) -> u32 {
        self.masked(generation.wrapping_add(1))
    }

    fn masked(self, number: u32) -> u32 {
        self.fixed | (number & u32::MAX.checked_shr(self.count).unwrap_or(0))
    }
}

/// Names a slot and who has it: a slot that is used again has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Up to `capacity` values. The lowest free slot is used first, so that pages empty out and can be
/// given back.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    pages: Vec<Page<T>>,
    /// Invariant: one for each slot of every page ever used; a generation survives its page.
    generations: Vec<u32>,
    /// Invariant: no page before this one has a free slot.
    first_with_room: usize,
    len: usize,
    capacity: usize,
    bits: GenerationBits,
}

#[derive(Debug)]
struct Page<T> {
    /// Invariant: `None` exactly when `occupied` is 0.
    entries: Option<Box<[Option<T>; PAGE]>>,
    /// A bit for each slot that is taken.
    occupied: u64,
}

impl<T> Slab<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        // What outlives the pages is reserved before them, and costs nothing until it is touched:
        // grown among them, it would keep the allocator from giving back what lies below it.
        let pages = capacity.min(RESERVED_MAX).div_ceil(PAGE);
        Self {
            pages: Vec::with_capacity(pages),
            generations: Vec::with_capacity(pages * PAGE),
            ..Self::unreserved(capacity)
        }
    }

    /// The same, of which as good as none are taken most of the time: nothing is reserved.
    pub(crate) fn unreserved(capacity: usize) -> Self {
        Self {
            pages: Vec::new(),
            generations: Vec::new(),
            first_with_room: 0,
            len: 0,
            capacity,
            bits: GenerationBits::NONE,
        }
    }

    /// The same for one of several loops; before anything is in it.
    pub(crate) fn of_loop(self, bits: GenerationBits) -> Self {
        Self { bits, ..self }
    }

    /// Room for so many more.
    #[cfg(feature = "client")]
    pub(crate) fn raise_capacity(&mut self, by: usize) {
        self.capacity = self.capacity.saturating_add(by);
    }

    /// Takes a slot, or gives the value back if all `capacity` are taken.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        let mut page_index = self.first_with_room;
        while self.pages.get(page_index).is_some_and(|page| page.occupied == u64::MAX) {
            page_index += 1;
        }
        self.first_with_room = page_index;
        if page_index == self.pages.len() {
            self.pages.push(Page { entries: None, occupied: 0 });
            self.generations.resize(self.pages.len() * PAGE, self.bits.first);
        }
        let Some(page) = self.pages.get_mut(page_index) else { return Err(value) };
        let offset = page.occupied.trailing_ones() as usize;
        let entries = page.entries.get_or_insert_with(|| Box::new([const { None }; PAGE]));
        let (Some(entry), Ok(index)) =
            (entries.get_mut(offset), u32::try_from(page_index * PAGE + offset))
        else {
            return Err(value);
        };
        *entry = Some(value);
        page.occupied |= 1 << offset;
        self.len += 1;
        let generation = self.generations.get(index as usize).copied().unwrap_or(0);
        Ok(Key { index, generation })
    }

    /// Gives a slot up.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.entry_mut(index)?.take()?;
        self.vacate(index);
        Some(value)
    }

    /// The same of a slot that is taken, whose value is dropped where it lies.
    pub(crate) fn discard(&mut self, index: u32) {
        if let Some(entry) = self.entry_mut(index) {
            *entry = None;
            self.vacate(index);
        }
    }

    /// A slot has become empty.
    #[inline]
    fn vacate(&mut self, index: u32) {
        let page_index = index as usize / PAGE;
        if let Some(page) = self.pages.get_mut(page_index) {
            page.occupied &= !(1 << (index as usize % PAGE));
            if page.occupied == 0 {
                page.entries = None;
            }
        }
        if let Some(generation) = self.generations.get_mut(index as usize) {
            *generation = self.bits.after(*generation);
        }
        self.first_with_room = self.first_with_room.min(page_index);
        self.len -= 1;
    }

    /// Who has a slot, whatever its generation.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entry_mut(index)?.as_mut()
    }

    #[inline]
    fn entry_mut(&mut self, index: u32) -> Option<&mut Option<T>> {
        let page = self.pages.get_mut(index as usize / PAGE)?;
        page.entries.as_mut()?.get_mut(index as usize % PAGE)
    }

    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        let page = self.pages.get(index as usize / PAGE)?;
        page.entries.as_ref()?.get(index as usize % PAGE)?.as_ref()
    }

    fn is_current(&self, key: Key) -> bool {
        self.generations.get(key.index as usize) == Some(&key.generation)
    }

    /// The value that `key` was given for; `None` once it is removed.
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        if self.is_current(key) { self.at(key.index) } else { None }
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        if self.is_current(key) { self.at_mut(key.index) } else { None }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The slots that there is memory for.
    #[cfg(all(repository, test))]
    pub(crate) fn slots(&self) -> usize {
        self.pages.iter().filter(|page| page.entries.is_some()).count() * PAGE
    }

    /// All values and their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.pages.iter().zip((0_u32..).step_by(PAGE));
        numbered.flat_map(|(page, first)| {
            let entries = page.entries.iter().flat_map(|entries| entries.iter());
            entries.zip(first..).filter_map(|(entry, index)| Some((index, entry.as_ref()?)))
        })
    }

    /// The first taken slot at or after `from`; stays right while slots are given up.
    pub(crate) fn next_occupied(&self, from: u32) -> Option<u32> {
        let (first, offset) = (from as usize / PAGE, from as usize % PAGE);
        let mut mask = u64::MAX << offset;
        for (page_index, page) in self.pages.iter().enumerate().skip(first) {
            let here = page.occupied & mask;
            if here != 0 {
                return u32::try_from(page_index * PAGE + here.trailing_zeros() as usize).ok();
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(all(repository, test))]
mod tests;

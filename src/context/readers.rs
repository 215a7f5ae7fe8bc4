//! The readers of a loop: who is to be offered something, and whoever waits.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crate::flow::inner::{FlowInner, Flows};
use crate::flow::reader::Reading;
use crate::structures::ids::ReaderId;
use crate::structures::slab::{GenerationBits, Key, Slab};

/// All readers; `R` is what each does with a batch.
pub(crate) struct Readers<R> {
    known: Slab<Box<Entry<R>>>,
    /// Those who are to be offered something; before there is a server, all.
    due: VecDeque<ReaderId>,
}

/// A reader, while it reads nothing.
pub(crate) struct Reader<R> {
    pub(crate) reading: Reading,
    pub(crate) read: R,
}

struct Entry<R> {
    flow: Rc<FlowInner>,
    /// Absent while it reads.
    reader: Option<Reader<R>>,
    /// Until there is a server.
    unbegun: Option<R>,
    /// Up to which number it is to be offered messages now.
    until: u64,
    is_due: bool,
    /// It takes nothing until it is told to read on.
    waits: bool,
}

impl<R> Default for Readers<R> {
    fn default() -> Self {
        Self::of_loop(GenerationBits::NONE)
    }
}

/// As many as a slab can name.
const READERS_MAX: usize = (u32::MAX >> 1) as usize;

impl<R> fmt::Debug for Readers<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} readers", self.known.len())
    }
}

impl<R> Readers<R> {
    /// Those of a loop whose generations have these bits.
    pub(crate) fn of_loop(bits: GenerationBits) -> Self {
        Self { known: Slab::unreserved(READERS_MAX).of_loop(bits), due: VecDeque::new() }
    }

    /// Enters a reader of a flow, in a server whose flows have that pool or, before there is one, for later.
    pub(crate) fn add(
        &mut self,
        flow: &Rc<FlowInner>,
        pool: Option<&Rc<Flows>>,
        read: R,
    ) -> ReaderId {
        let entry = Entry {
            flow: Rc::clone(flow),
            reader: None,
            unbegun: Some(read),
            until: 0,
            is_due: false,
            waits: false,
        };
        let nobody = Key { index: u32::MAX, generation: 0 };
        let id = ReaderId(self.known.insert(Box::new(entry)).unwrap_or(nobody));
        match pool {
            Some(pool) => self.begin_one(id, pool),
            None => self.due.push_back(id),
        }
        id
    }

    /// There is a server: those that came before it begin.
    pub(crate) fn begin(&mut self, pool: &Rc<Flows>) {
        for id in std::mem::take(&mut self.due) {
            self.begin_one(id, pool);
        }
    }

    fn begin_one(&mut self, id: ReaderId, pool: &Rc<Flows>) {
        let Some(entry) = self.known.get_mut(id.0) else { return };
        let Some(read) = entry.unbegun.take() else { return };
        let reading = Reading::new(id, &entry.flow, pool);
        entry.reader = Some(Reader { reading, read });
        self.list(id); // its replay
    }

    /// Has a reader offered what its flow has now, unless it waits.
    pub(crate) fn list(&mut self, id: ReaderId) {
        let Some(entry) = self.known.get_mut(id.0) else { return };
        entry.until = entry.flow.end();
        if !entry.waits && !std::mem::replace(&mut entry.is_due, true) {
            self.due.push_back(id);
        }
    }

    pub(crate) fn read_on(&mut self, id: ReaderId) {
        if let Some(entry) = self.known.get_mut(id.0) {
            entry.waits = false;
            self.list(id);
        }
    }

    /// Where a reader stands in its flow.
    pub(crate) fn cursor(&self, id: ReaderId) -> Option<u64> {
        Some(self.known.get(id.0)?.reader.as_ref()?.reading.cursor())
    }

    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.due.is_empty()
    }

    /// The next one to be offered something. It is to be [put back](Self::put_back).
    pub(crate) fn take_due(&mut self) -> Option<(ReaderId, Reader<R>)> {
        while let Some(id) = self.due.pop_front() {
            let Some(entry) = self.known.get_mut(id.0) else { continue };
            entry.is_due = false;
            let until = entry.until;
            // Another reader may have been what was meant.
            let has_something = |reader: &mut Reader<R>| reader.reading.has_before(until);
            if let Some(reader) = entry.reader.take_if(has_something) {
                // Whoever tells it to read on while it reads means what is said after this.
                entry.waits = true;
                return Some((id, reader));
            }
        }
        None
    }

    /// It has read, and takes more at once if `goes_on`. It comes back if it was forgotten meanwhile.
    pub(crate) fn put_back(
        &mut self,
        id: ReaderId,
        reader: Reader<R>,
        goes_on: bool,
    ) -> Option<Reader<R>> {
        let Some(entry) = self.known.get_mut(id.0) else { return Some(reader) };
        entry.waits &= !goes_on;
        // Not for what came meanwhile, which has its own turn: else this might never end.
        let is_before = reader.reading.has_before(entry.until);
        entry.reader = Some(reader);
        if is_before && !entry.waits && !std::mem::replace(&mut entry.is_due, true) {
            self.due.push_back(id);
        }
        None
    }

    /// Forgets a reader, which is to be dropped.
    pub(crate) fn forget(&mut self, id: ReaderId) -> Option<impl Sized + use<R>> {
        self.known.get(id.0)?;
        self.known.remove(id.0.index)
    }

    /// Whether each stands where it should between two calls: at rest, in the list exactly if it is due,
    /// and with nothing left unless it waits.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn check(&self) -> Result<(), String> {
        for (index, entry) in self.known.iter() {
            // Of one that was forgotten while it was listed, the entry is passed over in its turn.
            let is_known = |id: &&ReaderId| id.0.index == index && self.known.get(id.0).is_some();
            let listed = self.due.iter().filter(is_known).count();
            if entry.reader.is_none() || listed != usize::from(entry.is_due) {
                return Err(format!("reader {index} is listed {listed} times, or away"));
            }
            // A removal may be told while the flow's round goes on, which lists the reader.
            let has_left =
                entry.reader.as_ref().is_some_and(|it| it.reading.has_message_before(entry.until));
            if has_left && !entry.waits && !entry.is_due {
                return Err(format!("reader {index} waits for nothing, and has something left"));
            }
        }
        Ok(())
    }
}

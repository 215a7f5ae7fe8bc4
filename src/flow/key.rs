//! The names by which other threads know flows.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::flow::inner::{FlowInner, WeakFlow};
use crate::structures::slab::GenerationBits;

/// Names a flow for other threads: `Copy` and `Send`, unlike the flow itself. Made by
/// [`Application::flow_key`](crate::Application::flow_key) or
/// [`ServerRef::flow_key`](crate::ServerRef::flow_key), used by
/// [`Handle::emit`](crate::Handle::emit).
///
/// ```
/// use wirewheel::error::HandleError;
/// use wirewheel::flow::FlowKey;
/// use wirewheel::Handle;
/// fn alarm(server: &Handle, alarms: FlowKey<str>) -> Result<(), HandleError> {
///     server.emit(alarms, "door open") // on any thread
/// }
/// ```
pub struct FlowKey<T: ?Sized> {
    number: u32,
    kind: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Clone for FlowKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for FlowKey<T> {}

impl<T: ?Sized> fmt::Debug for FlowKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlowKey").field(&self.number).finish()
    }
}

/// The flows that have a name. A name is never given twice.
#[derive(Debug, Default)]
pub(crate) struct FlowNames {
    named: HashMap<u32, WeakFlow>,
    bits: GenerationBits,
    last: u32,
    /// With so many, those that are gone are looked for.
    cleared_at: usize,
}

impl<T: ?Sized> FlowKey<T> {
    /// The name as a number, whose upper bits say which loop has given it.
    pub(crate) fn number(self) -> u32 {
        self.number
    }
}

impl FlowNames {
    /// Those of a loop whose numbers have these bits.
    pub(crate) fn of_loop(bits: GenerationBits) -> Self {
        Self { bits, last: bits.first(), ..Self::default() }
    }

    pub(crate) fn name<T: ?Sized>(&mut self, flow: &Rc<FlowInner>) -> FlowKey<T> {
        let known = flow.name.get();
        let named = self.named.get(&known);
        // Its name may be one that another server gave it.
        if named.is_some_and(|named| std::ptr::eq(named.as_ptr(), Rc::as_ptr(flow))) {
            return FlowKey { number: known, kind: PhantomData };
        }
        // As many must come as there are before it looks again: constant cost on average.
        if self.named.len() >= self.cleared_at {
            self.named.retain(|_, named| named.strong_count() > 0);
            self.cleared_at = self.named.len() * 2 + 16;
        }
        self.last = self.bits.after(self.last);
        self.named.insert(self.last, Rc::downgrade(flow));
        flow.name.set(self.last);
        FlowKey { number: self.last, kind: PhantomData }
    }

    /// Those that are there still.
    pub(crate) fn flows(&self) -> impl Iterator<Item = Rc<FlowInner>> {
        self.named.values().filter_map(WeakFlow::upgrade)
    }

    pub(crate) fn find<T: ?Sized>(&self, key: FlowKey<T>) -> Option<Rc<FlowInner>> {
        self.named.get(&key.number).and_then(WeakFlow::upgrade)
    }
}

#[cfg(all(repository, test))]
mod tests;

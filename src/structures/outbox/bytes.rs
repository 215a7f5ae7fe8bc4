//! The bytes of an outbox, and whose they are.

use std::ops::Range;
use std::rc::Rc;

use crate::structures::assembled::Assembled;
use crate::structures::footprint::footprint;
use crate::structures::spare_buffers::SpareBuffers;

/// Bytes of this outbox, or of many: a message that all subscribers of a flow share.
#[derive(Debug)]
pub(super) enum Bytes {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
    /// A part of a message that came, and is sent as it is. Boxed, as it is rare.
    Received(Box<(Rc<Assembled>, Range<usize>)>),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Received(received) => {
                let (message, part) = &**received;
                message.bytes().get(part.clone()).unwrap_or_default()
            }
        }
    }

    /// A shared message counts in full with each who keeps it alive.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Own(bytes) => footprint(bytes.capacity()),
            Self::Shared(bytes) => bytes.len(),
            Self::Received(received) => footprint(received.0.capacity()),
        }
    }

    /// Gives its buffer back, if nobody else has it.
    pub(super) fn give_back(self, spare: &mut SpareBuffers) {
        match self {
            Self::Own(bytes) => spare.put(bytes),
            Self::Shared(_) => {}
            Self::Received(received) => {
                if let Some(message) = Rc::into_inner(received.0) {
                    spare.put(message.into_buffer());
                }
            }
        }
    }
}
